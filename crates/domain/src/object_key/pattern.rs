//! Patterns of object names.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use super::{KEY_BYTES_MAX, Naming, ObjectKey, SUFFIX_BYTES_MAX};
use crate::{
    field::FieldError,
    stream::{APP_BYTES_MAX, DOMAIN_BYTES_MAX, STREAM_BYTES_MAX},
    template::RENDITION_NAME_BYTES_MAX,
    time::CivilTime,
};

/// The complete published list of placeholders (267/31072), and `{Rendition}`, which is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholder {
    AppName,
    PushDomain,
    StreamId,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Width,
    Height,
    Rendition,
    Ext,
}

/// `.webp` and `.avif`, the longest.
const EXT_BYTES_MAX: usize = 5;

impl Placeholder {
    const ALL: [(&'static str, Self); 13] = [
        ("AppName", Self::AppName),
        ("PushDomain", Self::PushDomain),
        ("StreamID", Self::StreamId),
        ("Year", Self::Year),
        ("Month", Self::Month),
        ("Day", Self::Day),
        ("Hour", Self::Hour),
        ("Minute", Self::Minute),
        ("Second", Self::Second),
        ("Width", Self::Width),
        ("Height", Self::Height),
        ("Rendition", Self::Rendition),
        ("Ext", Self::Ext),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(known, placeholder)| (known == name).then_some(placeholder))
    }

    /// Whether it differs between pictures of one stream in one rendition.
    pub(super) fn varies(self) -> bool {
        match self {
            Self::AppName | Self::PushDomain | Self::StreamId | Self::Rendition | Self::Ext => false,
            Self::Year | Self::Month | Self::Day | Self::Hour | Self::Minute | Self::Second => true,
            Self::Width | Self::Height => true,
        }
    }

    /// The most bytes it can become.
    fn bytes_max(self) -> usize {
        match self {
            Self::AppName => APP_BYTES_MAX,
            Self::PushDomain => DOMAIN_BYTES_MAX,
            Self::StreamId => STREAM_BYTES_MAX,
            Self::Year => 4,
            Self::Rendition => RENDITION_NAME_BYTES_MAX,
            Self::Ext => EXT_BYTES_MAX,
            Self::Month | Self::Day | Self::Hour | Self::Minute | Self::Second => 2,
            // The digits of the largest `u32`.
            Self::Width | Self::Height => 10,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

/// The folder of an object (`CosPrefix`): levels separated by `/`, slashes at the ends mean nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectPrefix {
    text: String,
    parts: Vec<Part>,
}

/// The last level of an object's name (`CosFileName`).
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectFileName {
    text: String,
    parts: Vec<Part>,
}

const PREFIX_ALLOWED: &str = "levels of a-z A-Z 0-9 - ! _ . * and {AppName} {PushDomain} {StreamID} {Year} {Month} \
                              {Day} {Hour} {Minute} {Second} {Width} {Height} {Rendition} {Ext}, separated by /, none of them \
                              empty or with ..";
const FILE_NAME_ALLOWED: &str = "a-z A-Z 0-9 - ! _ . * and {AppName} {PushDomain} {StreamID} {Year} {Month} {Day} \
                                 {Hour} {Minute} {Second} {Width} {Height} {Rendition} {Ext}, without ..";

impl ObjectPrefix {
    /// # Errors
    /// An unknown placeholder, a character outside the allowed ones, `..`, or an empty or `.` level between others.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let levels = text.trim_matches('/');
        let parts = parse_parts(levels, "/").filter(|_| levels.is_empty() || levels.split('/').all(is_level));
        match parts {
            Some(parts) => Ok(Self { text: text.into(), parts }),
            None => Err(FieldError::new("prefix", text, PREFIX_ALLOWED)),
        }
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether objects of two renditions differ in it.
    pub fn names_the_rendition(&self) -> bool {
        self.parts.contains(&Part::Placeholder(Placeholder::Rendition))
    }
}

impl ObjectFileName {
    /// # Errors
    /// Empty, an unknown placeholder, a character outside the allowed ones (`/` among them), or `..`.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        match parse_parts(text, "").filter(|_| is_level(text)) {
            Some(parts) => Ok(Self { text: text.into(), parts }),
            None => Err(FieldError::new("file_name", text, FILE_NAME_ALLOWED)),
        }
    }

    /// The file name of a rendition beside the main one: with its name before the extension, unless it says already where
    /// that goes.
    ///
    /// # Errors
    /// It becomes longer than any key.
    pub fn of_a_rendition(&self) -> Result<Self, FieldError> {
        if self.parts.contains(&Part::Placeholder(Placeholder::Rendition)) {
            return Ok(self.clone());
        }
        let (stem, extension) = self.text.split_at(self.text.find("{Ext}").unwrap_or(self.text.len()));
        Self::parse(&format!("{stem}-{{Rendition}}{extension}"))
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// CSS's API default; its console writes the same with the slash at the other end.
impl Default for ObjectPrefix {
    fn default() -> Self {
        Self::parse("/{Year}-{Month}-{Day}").expect("the default prefix is valid")
    }
}

impl Default for ObjectFileName {
    fn default() -> Self {
        Self::parse("{StreamID}-screenshot-{Hour}-{Minute}-{Second}-{Width}x{Height}{Ext}")
            .expect("the default file name is valid")
    }
}

macro_rules! prints_as_configured {
    ($($type:ident)+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.text, f)
            }
        }
    )+};
}

prints_as_configured!(ObjectPrefix ObjectFileName);

/// A level of a pattern must be something, must not stand still and must not climb. Stream and app names cannot be `.`
/// or `..` either, so no expansion can.
pub(super) fn is_level(level: &str) -> bool {
    !level.is_empty() && level != "." && !level.contains("..")
}

pub(super) fn parse_parts(text: &str, also_allowed: &str) -> Option<Vec<Part>> {
    // Every pattern that fits a key is shorter than this; longer ones need not be read.
    if text.len() > KEY_BYTES_MAX {
        return None;
    }
    let literal_allowed = |c: char| c.is_ascii_alphanumeric() || "-!_.*".contains(c) || also_allowed.contains(c);
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (literal, from_brace) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !literal.chars().all(literal_allowed) {
            return None;
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        let Some(placeholder) = from_brace.strip_prefix('{') else { break };
        let (name, after) = placeholder.split_once('}')?;
        parts.push(Part::Placeholder(Placeholder::named(name)?));
        rest = after;
    }
    Some(parts)
}

/// The most bytes that they can become together.
pub(super) fn bytes_max(parts: &[Part]) -> usize {
    let part_max = |part: &Part| match part {
        Part::Literal(text) => text.len(),
        Part::Placeholder(placeholder) => placeholder.bytes_max(),
    };
    parts.iter().map(part_max).sum()
}

/// Prefix and file name together: every key made from them has at most 850 bytes, suffix included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectPattern {
    prefix: ObjectPrefix,
    file_name: ObjectFileName,
}

impl ObjectPattern {
    /// # Errors
    /// A pair that could make a key longer than 850 bytes from the longest names allowed.
    pub fn new(prefix: ObjectPrefix, file_name: ObjectFileName) -> Result<Self, FieldError> {
        if bytes_max(&prefix.parts) + 1 + bytes_max(&file_name.parts) + SUFFIX_BYTES_MAX > KEY_BYTES_MAX {
            let both = format!("{prefix}/{file_name}");
            return Err(FieldError::new("file_name", both, "a pattern whose longest key has at most 850 bytes"));
        }
        Ok(Self { prefix, file_name })
    }

    pub fn prefix(&self) -> &ObjectPrefix {
        &self.prefix
    }

    pub fn file_name(&self) -> &ObjectFileName {
        &self.file_name
    }

    /// The key of one picture.
    pub fn expand(&self, naming: &Naming<'_>) -> ObjectKey {
        let civil = naming.zone.civil(naming.create_time);
        let mut text = String::new();
        push_parts(&mut text, &self.prefix.parts, naming, &civil);
        if !text.is_empty() {
            text.push('/');
        }
        let ext_at = push_parts(&mut text, &self.file_name.parts, naming, &civil);
        ObjectKey { ext_at: ext_at.unwrap_or(text.len()), text }
    }
}

/// Appends the expanded parts and tells where the first `{Ext}` went.
pub(super) fn push_parts(text: &mut String, parts: &[Part], naming: &Naming<'_>, civil: &CivilTime) -> Option<usize> {
    let mut ext_at = None;
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Placeholder(placeholder) => match placeholder {
                Placeholder::AppName => text.push_str(naming.stream.app.as_str()),
                Placeholder::PushDomain => text.push_str(naming.stream.domain.as_str()),
                Placeholder::StreamId => text.push_str(naming.stream.name.as_str()),
                Placeholder::Year => text.push_str(&format!("{:04}", civil.year)),
                Placeholder::Month => text.push_str(&format!("{:02}", civil.month)),
                Placeholder::Day => text.push_str(&format!("{:02}", civil.day)),
                Placeholder::Hour => text.push_str(&format!("{:02}", civil.hour)),
                Placeholder::Minute => text.push_str(&format!("{:02}", civil.minute)),
                Placeholder::Second => text.push_str(&format!("{:02}", civil.second)),
                Placeholder::Width => text.push_str(&format!("{}", naming.width)),
                Placeholder::Height => text.push_str(&format!("{}", naming.height)),
                Placeholder::Rendition => text.push_str(naming.rendition),
                Placeholder::Ext => {
                    ext_at.get_or_insert(text.len());
                    text.push_str(naming.format.extension());
                }
            },
        }
    }
    ext_at
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::{
        stream::{AppName, DomainName, StreamId, StreamName},
        template::ImageFormat,
        time::{NameZone, UnixMs},
    };

    #[test]
    fn refuses_bad_prefixes() {
        let cases = [
            ("unknown placeholder", "{Year}/{Week}"),
            ("placeholder in the wrong case", "{year}"),
            ("open brace", "a{Year"),
            ("stray closing brace", "a}b"),
            ("empty braces", "{}"),
            ("climbs", "a/../b"),
            ("climbs at once", ".."),
            ("two dots inside", "a..b"),
            ("stands still", "a/./b"),
            ("empty level", "a//b"),
            ("space", "a b"),
            ("backslash", "a\\b"),
            ("percent", "a%2fb"),
            ("not ASCII", "文件夹"),
            ("longer than any key", &"a".repeat(851)),
        ];
        for (name, text) in cases {
            let error = ObjectPrefix::parse(text).expect_err(name);
            assert_eq!(error.field, "prefix", "{name}");
        }
    }

    #[test]
    fn refuses_bad_file_names() {
        for (name, text) in
            [("empty", ""), ("slash", "a/b"), ("dot", "."), ("climbs", ".."), ("unknown placeholder", "{ext}")]
        {
            let error = ObjectFileName::parse(text).expect_err(name);
            assert_eq!(error.field, "file_name", "{name}");
        }
    }

    #[test]
    fn keeps_the_text_as_configured() {
        assert_eq!(ObjectPrefix::parse("/a/").expect("a prefix").to_string(), "/a/");
        assert_eq!(ObjectPrefix::default().as_str(), "/{Year}-{Month}-{Day}");
    }

    #[test]
    fn refuses_a_pair_that_could_make_a_longer_key_than_cos_takes() {
        let file_name = ObjectFileName::parse(&"{StreamID}".repeat(6)).expect("a file name");
        let fits = ObjectPrefix::parse(&"a".repeat(850 - 6 * 128 - 1 - 11)).expect("a prefix");
        let one_more = ObjectPrefix::parse(&"a".repeat(850 - 6 * 128 - 11)).expect("a prefix");
        assert!(ObjectPattern::new(fits, file_name.clone()).is_ok());
        assert_eq!(ObjectPattern::new(one_more, file_name).expect_err("too long").field, "file_name");
    }

    proptest::proptest! {
        #[test]
        fn every_key_is_short_and_stays_inside_its_folder(
            prefix in "[a-zA-Z.{}/-]{0,12}(\\{StreamID\\}|\\{AppName\\}|/|\\.|\\{Rendition\\}|\\{Ext\\}){0,4}",
            file_name in "[a-z.]{0,3}(\\{StreamID\\}|\\{Year\\}|\\{Width\\}|\\.|\\{Ext\\}){0,5}",
            name in "[.a~]{1,128}",
            at_ms: i64,
            nth: u32,
        ) {
            let (Ok(prefix), Ok(file_name)) = (ObjectPrefix::parse(&prefix), ObjectFileName::parse(&file_name)) else {
                return Ok(());
            };
            let (Ok(pattern), Ok(name)) = (ObjectPattern::new(prefix, file_name), StreamName::parse(&name)) else {
                return Ok(());
            };
            let stream = StreamId {
                domain: DomainName::parse("push.example.com").expect("a domain"),
                app: AppName::parse(&"a".repeat(64)).expect("an app"),
                name,
            };
            let key = pattern.expand(&Naming {
                stream: &stream,
                create_time: UnixMs(at_ms),
                zone: &NameZone::default(),
                width: u32::MAX,
                height: u32::MAX,
                rendition: &"r".repeat(RENDITION_NAME_BYTES_MAX),
                format: ImageFormat::Avif,
            });
            for key in [key.with_suffix(nth), key] {
                proptest::prop_assert!(key.as_str().len() <= KEY_BYTES_MAX);
                proptest::prop_assert!(key.as_str().split('/').all(|level| !matches!(level, "" | "." | "..")), "{key}");
            }
        }
    }
}
