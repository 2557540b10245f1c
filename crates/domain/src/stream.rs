//! What a stream is called, and how a push URL says so.
//!
//! A stream is named for ever by its push domain, app and stream name. Names arrive from encoders as raw text and are
//! parsed once, in [`PublishAddress::parse`]; after that they cannot hold anything a file name or a URL would trip
//! over.

mod address;
mod param;

use alloc::{string::ToString, sync::Arc};
use core::{fmt, net::IpAddr};

pub use address::{PublishAddress, tried};
pub use param::StreamParam;

use crate::field::FieldError;

/// CSS's limit (267/35970). The longest IP address text has 45 characters as well.
pub const DOMAIN_BYTES_MAX: usize = 45;
/// CSS says only "letters, digits and symbols"; 64 bytes keep a key of domain, app and stream far below COS's 850.
pub const APP_BYTES_MAX: usize = 64;
/// As for the app: with two bytes per character to spare for the longest names seen in the wild (UUIDs with a prefix).
pub const STREAM_BYTES_MAX: usize = 128;

/// What kind of host a push domain is. An IP address and `localhost` are names nobody owns, so they are welcome only
/// while nothing is configured or when they were added by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    Name,
    Ip,
    Localhost,
}

/// A push domain: lower-case, without port; an IPv6 address stands without brackets in its canonical text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName {
    text: Arc<str>,
}

impl DomainName {
    /// Parses a host as it stands in a URL or a configuration file. Upper case is folded; one trailing dot is dropped.
    /// Underscores are allowed because container networks use them in host names.
    ///
    /// # Errors
    /// Empty, longer than 45 bytes, or not made of labels of letters, digits, `-` and `_` with no hyphen at either end.
    pub fn parse(host: &str) -> Result<Self, FieldError> {
        let refused =
            || FieldError::new("domain", host, "a host name of at most 45 letters, digits, - . _, or an IP address");
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self { text: address.to_string().into() });
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > DOMAIN_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(refused());
        }
        Ok(Self { text: name.to_ascii_lowercase().into() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn kind(&self) -> HostKind {
        if self.text.parse::<IpAddr>().is_ok() {
            HostKind::Ip
        } else if &*self.text == "localhost" || self.text.ends_with(".localhost") {
            HostKind::Localhost
        } else {
            HostKind::Name
        }
    }
}

macro_rules! path_names {
    ($($(#[$doc:meta])* $name:ident, $field:literal, $max:ident, $allowed:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// # Errors
            /// Empty, too long, `.`, `..`, or a byte outside `A-Z a-z 0-9 . _ ~ ! * + = @ -`.
            pub fn parse(text: &str) -> Result<Self, FieldError> {
                if !is_path_name(text, $max) {
                    return Err(FieldError::new($field, text, $allowed));
                }
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )+};
}

path_names! {
    /// The first path part of a push URL (`live`), case-sensitive.
    AppName, "app", APP_BYTES_MAX, "1 to 64 of A-Z a-z 0-9 . _ ~ ! * + = @ -";
    /// The last path part of a push URL, case-sensitive. It holds no credential: the query does.
    StreamName, "stream", STREAM_BYTES_MAX, "1 to 128 of A-Z a-z 0-9 . _ ~ ! * + = @ -";
}

fn is_path_name(text: &str, bytes_max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~!*+=@-".contains(&byte);
    (1..=bytes_max).contains(&text.len()) && text != "." && text != ".." && text.bytes().all(allowed)
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// A stream, for ever: what `DomainName`, `AppName` and `StreamName` name in the API. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub domain: DomainName,
    pub app: AppName,
    pub name: StreamName,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.domain, self.app, self.name)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn reads_push_domains() {
        let cases = [
            ("plain", "push.example.com", Some("push.example.com"), HostKind::Name),
            ("upper case is folded", "Push.Example.COM", Some("push.example.com"), HostKind::Name),
            ("trailing dot of a full name", "push.example.com.", Some("push.example.com"), HostKind::Name),
            ("single label of a container network", "media_server", Some("media_server"), HostKind::Name),
            ("localhost", "LOCALHOST", Some("localhost"), HostKind::Localhost),
            ("below localhost", "cam.localhost", Some("cam.localhost"), HostKind::Localhost),
            ("IPv4", "192.0.2.10", Some("192.0.2.10"), HostKind::Ip),
            ("IPv6 in brackets", "[2001:DB8:0::1]", Some("2001:db8::1"), HostKind::Ip),
            ("IPv6 without", "::1", Some("::1"), HostKind::Ip),
            (
                "45 characters",
                &format!("{}.example.com", "a".repeat(33)),
                Some(&format!("{}.example.com", "a".repeat(33))),
                HostKind::Name,
            ),
            ("46 characters", &format!("{}.example.com", "a".repeat(34)), None, HostKind::Name),
            ("empty", "", None, HostKind::Name),
            ("only a dot", ".", None, HostKind::Name),
            ("empty label", "a..b", None, HostKind::Name),
            ("hyphen at an end", "-a.example", None, HostKind::Name),
            ("slash", "a/b", None, HostKind::Name),
            ("not ASCII", "поток.example", None, HostKind::Name),
            ("brackets around a name", "[example.com]", None, HostKind::Name),
        ];
        for (name, host, expected, kind) in cases {
            let parsed = DomainName::parse(host).ok();
            assert_eq!(parsed.as_ref().map(DomainName::as_str), expected, "{name}");
            if let Some(domain) = parsed {
                assert_eq!(domain.kind(), kind, "{name}");
            }
        }
    }

    #[test]
    fn reads_app_and_stream_names() {
        let cases = [
            ("plain", "room_1001", true),
            ("every symbol allowed", "aZ09._~!*+=@-", true),
            ("three dots are a name", "...", true),
            ("empty", "", false),
            ("dot", ".", false),
            ("dot dot", "..", false),
            ("slash", "a/b", false),
            ("space", "a b", false),
            ("percent", "a%2e", false),
            ("colon", "mp4:a", false),
            ("NUL", "a\0", false),
            ("not ASCII", "房间", false),
        ];
        for (name, text, accepted) in cases {
            assert_eq!(StreamName::parse(text).is_ok(), accepted, "stream: {name}");
            assert_eq!(AppName::parse(text).is_ok(), accepted, "app: {name}");
        }
    }

    #[test]
    fn limits_the_length_of_names() {
        assert!(AppName::parse(&"a".repeat(64)).is_ok() && AppName::parse(&"a".repeat(65)).is_err());
        assert!(StreamName::parse(&"a".repeat(128)).is_ok() && StreamName::parse(&"a".repeat(129)).is_err());
    }

    #[test]
    fn shows_domain_app_and_stream() {
        let stream = StreamId {
            domain: DomainName::parse("push.example.com").expect("a domain"),
            app: AppName::parse("live").expect("an app"),
            name: StreamName::parse("room").expect("a stream"),
        };
        assert_eq!(format!("{stream}"), "push.example.com/live/room");
    }
}
