//! The types that a configuration value can have: how each is written, read and shown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use framehook_domain::retry::Plan;
use framehook_domain::secret::Secret;
use framehook_domain::stream::DomainName;
use framehook_domain::time::NameZone;

use crate::notify::address::{Cidr, CidrError};
use crate::notify::proxy::Proxy;

/// One kind of configuration value. The same text is read from the file, the environment and the command line, and the
/// defaults and ranges of the reference are written in it too.
pub(super) trait Value: Sized {
    /// What a person may write, as it reads after "expected".
    const EXPECTED: &'static str;
    /// Whether TOML writes it in quotes. Numbers, booleans and lists are bare.
    const QUOTED: bool;
    /// Whether it is a list of values.
    const LIST: bool = false;
    /// Whether a message must not repeat it.
    const HIDDEN: bool = false;

    /// Reads one value.
    ///
    /// # Errors
    /// The message shows [`Value::EXPECTED`], so most have nothing to add.
    fn parse(text: &str) -> Result<Self, Mismatch>;

    /// Reads a value of the file. Lists override this; everything else is one scalar.
    fn from_toml(value: &toml::Value) -> Result<Self, Mismatch> {
        match value {
            toml::Value::String(text) if Self::QUOTED => Self::parse(text),
            toml::Value::Integer(number) if !Self::QUOTED => Self::parse(&number.to_string()),
            toml::Value::Boolean(flag) if !Self::QUOTED => Self::parse(if *flag { "true" } else { "false" }),
            _ => Err(MISMATCH),
        }
    }

    /// Where the value lies among others of its kind, for range checks; `None` for kinds that have no order.
    fn magnitude(&self) -> Option<u128> {
        None
    }
}

/// A value is not of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// What exactly is wrong, where that is not plain from [`Value::EXPECTED`].
    pub(super) why: Option<String>,
    /// Whether this value must not be repeated although its kind may be.
    pub(super) is_secret: bool,
}

const MISMATCH: Mismatch = Mismatch { why: None, is_secret: false };

impl Mismatch {
    fn because(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), is_secret: false }
    }
}

macro_rules! from_str_value {
    ($($type:ty: $expected:literal, quoted $quoted:literal;)*) => {$(
        impl Value for $type {
            const EXPECTED: &'static str = $expected;
            const QUOTED: bool = $quoted;
            fn parse(text: &str) -> Result<Self, Mismatch> {
                text.parse().map_err(|_| MISMATCH)
            }
        }
    )*};
}

from_str_value! {
    bool: "true or false", quoted false;
    SocketAddr: "an address and port such as \"127.0.0.1:8080\" or \"[::]:1935\"", quoted true;
    NameZone: "an offset such as \"+08:00\" or an IANA name such as \"Europe/Berlin\"", quoted true;
    LogLevel: "one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"", quoted true;
    LogFormat: "one of \"auto\", \"text\", \"json\"", quoted true;
    Switch: "one of \"on\", \"off\"", quoted true;
    StoreKind: "one of \"cos\", \"s3\"", quoted true;
}

macro_rules! whole_number_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const EXPECTED: &'static str = "a whole number";
            const QUOTED: bool = false;
            fn parse(text: &str) -> Result<Self, Mismatch> {
                text.parse().map_err(|_| MISMATCH)
            }
            fn magnitude(&self) -> Option<u128> {
                // What is below zero is below every range.
                Some(u128::try_from(*self).unwrap_or(0))
            }
        }
    )*};
}

whole_number_value!(u32, i64);

impl Value for String {
    const EXPECTED: &'static str = "a text";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        Ok(text.to_owned())
    }
}

impl Value for Plan {
    const EXPECTED: &'static str = "one of \"css\", \"patient\"";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        Self::from_name(text).ok_or(MISMATCH)
    }
}

impl Value for Cidr {
    const EXPECTED: &'static str = "an address or a block such as \"10.1.0.0/16\"";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        text.parse().map_err(|error: CidrError| Mismatch::because(format!("{text} is {error}")))
    }
}

impl Value for Proxy {
    const EXPECTED: &'static str = "an http:// URL of host and port";
    const QUOTED: bool = true;
    const HIDDEN: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        Self::parse(text).map_err(|error| Mismatch::because(error.to_string()))
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        if text.is_empty() || text.contains('\0') { Err(MISMATCH) } else { Ok(text.into()) }
    }
}

impl Value for url::Url {
    const EXPECTED: &'static str = "an http:// or https:// URL";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        let url = url::Url::parse(text).map_err(|_| MISMATCH)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(MISMATCH);
        }
        let without = |part| Mismatch::because(format!("must not have {part}: an object's name is appended to it"));
        if !url.username().is_empty() || url.password().is_some() {
            Err(Mismatch { is_secret: true, ..without("a user or password") })
        } else if url.query().is_some() {
            Err(without("a query"))
        } else if url.fragment().is_some() {
            Err(without("a fragment"))
        } else {
            Ok(url)
        }
    }
}

impl Value for DomainName {
    const EXPECTED: &'static str = "a host name of at most 45 letters, digits, - . _, or an IP address";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        Self::parse(text).map_err(|_| MISMATCH)
    }
}

/// Left out and empty are the same: the setting is off.
impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const QUOTED: bool = T::QUOTED;
    const HIDDEN: bool = T::HIDDEN;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn magnitude(&self) -> Option<u128> {
        self.as_ref().and_then(T::magnitude)
    }
}

/// An array in the file; separated by commas in the environment, and repeatable on the command line.
impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const QUOTED: bool = T::QUOTED;
    const LIST: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::parse).collect()
    }
    fn from_toml(value: &toml::Value) -> Result<Self, Mismatch> {
        value.as_array().ok_or(MISMATCH)?.iter().map(T::from_toml).collect()
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"10s\", \"2m\", \"1h30m\" or \"14d\"";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        parse_duration(text).ok_or(MISMATCH)
    }
    fn magnitude(&self) -> Option<u128> {
        Some(self.as_nanos())
    }
}

/// `"0"` alone needs no unit; every other number does, so that nobody has to guess it.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let unit_length = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// A number of bytes, written with a binary unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BINARY_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for ByteSize {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "0" {
            return Ok(Self(0));
        }
        let (number, unit) = leading_number(text).ok_or(())?;
        let (_, shift) = BINARY_UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(())?;
        number.checked_mul(1 << shift).map(Self).ok_or(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, shift) = BINARY_UNITS
            .iter()
            .find(|(_, shift)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift))
            .unwrap_or(&("B", 0));
        write!(f, "{}{name}", self.0 >> shift)
    }
}

impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as \"512KiB\", \"8MiB\" or \"4GiB\"";
    const QUOTED: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        text.parse().map_err(|()| MISMATCH)
    }
    fn magnitude(&self) -> Option<u128> {
        Some(self.0.into())
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "a text";
    const QUOTED: bool = true;
    const HIDDEN: bool = true;
    fn parse(text: &str) -> Result<Self, Mismatch> {
        Ok(Self::new(text))
    }
}

macro_rules! word_value {
    ($(#[doc = $doc:literal])* $visible:vis enum $name:ident { $($(#[doc = $word_doc:literal])* $word:literal => $variant:ident,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visible enum $name { $($(#[doc = $word_doc])* $variant,)* }

        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$variant),)* _ => Err(()) }
            }
        }
    };
}

word_value! {
    /// The least severe log line that is written.
    pub enum LogLevel {
        /// A person should act.
        "error" => Error,
        /// Something is not as it should be, and Framehook copes.
        "warn" => Warn,
        /// What happened, once each.
        "info" => Info,
        /// What was decided and why.
        "debug" => Debug,
        /// Every message of the protocol.
        "trace" => Trace,
    }
}

word_value! {
    /// How log lines look.
    pub enum LogFormat {
        /// Text on a terminal, JSON otherwise.
        "auto" => Auto,
        /// One line for people.
        "text" => Text,
        /// One JSON object per line.
        "json" => Json,
    }
}

word_value! {
    /// What an object store speaks.
    pub enum StoreKind {
        /// Tencent COS, with its own signature.
        "cos" => Cos,
        /// S3, and everything that speaks it.
        "s3" => S3,
    }
}

word_value! {
    /// Something that is on or off, in the words that CSS uses for it.
    pub(super) enum Switch {
        /// On.
        "on" => On,
        /// Off.
        "off" => Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let cases: &[(&str, Option<u64>)] = &[
            ("10s", Some(10_000)),
            ("250ms", Some(250)),
            ("1h30m", Some(5_400_000)),
            ("14d", Some(1_209_600_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("10 s", None),
            ("-1s", None),
            ("1.5s", None),
            ("10sec", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ];
        for (text, expected_ms) in cases {
            assert_eq!(parse_duration(text), expected_ms.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn reads_and_shows_sizes() {
        for (text, bytes) in [("8MiB", 8 << 20), ("4GiB", 4 << 30), ("1KiB", 1024), ("512 MiB", 512 << 20), ("7B", 7)] {
            let size: ByteSize = text.parse().unwrap_or_else(|()| panic!("{text}"));
            assert_eq!(size, ByteSize(bytes), "{text}");
            assert_eq!(size.to_string(), text.replace(' ', ""), "{text}");
        }
        for text in ["8", "8MB", "MiB", "", "-1KiB", "18446744073709551615KiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(()), "{text:?}");
        }
    }
}
