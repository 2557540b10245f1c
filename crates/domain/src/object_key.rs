//! What an object is called: patterns with placeholders (`CosPrefix`, `CosFileName`), parsed once and expanded per
//! picture.

mod latest;
mod pattern;

use alloc::{format, string::String};
use core::fmt;

pub use latest::LatestKey;
pub use pattern::{ObjectFileName, ObjectPattern, ObjectPrefix};

use crate::{
    stream::StreamId,
    template::ImageFormat,
    time::{NameZone, UnixMs},
};

/// Longest object key, in bytes (COS, 436/13324). Pattern and names together are checked against it when a template is
/// made, so that naming a picture cannot fail.
pub const KEY_BYTES_MAX: usize = 850;

/// Room kept for the suffix of [`ObjectKey::with_suffix`]: a hyphen and the ten digits of a `u32`.
const SUFFIX_BYTES_MAX: usize = 11;

/// The picture that needs a name.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    pub stream: &'a StreamId,
    /// The wall clock at the arrival of the picked entry point's last byte.
    pub create_time: UnixMs,
    pub zone: &'a NameZone,
    /// Size of the stored image in pixels.
    pub width: u32,
    pub height: u32,
    /// The name of the rendition, `main` for the main one.
    pub rendition: &'a str,
    pub format: ImageFormat,
}

/// The name of an object in its bucket: no leading slash, at most 850 bytes, no empty, `.` or `..` level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    text: String,
    /// Byte position of `{Ext}` in `text`, or its end: where a suffix goes.
    ext_at: usize,
}

impl ObjectKey {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A key that was written down. A suffix goes before the extension of its last level.
    pub fn written(text: String) -> Self {
        let name_at = text.rfind('/').map_or(0, |slash| slash + 1);
        let ext_at = text[name_at..].rfind('.').map_or(text.len(), |dot| name_at + dot);
        Self { text, ext_at }
    }

    /// The key with `-2`, `-3` … before its extension, for the second and later pictures of one name. Always call it on
    /// the key as expanded, so that suffixes do not pile up.
    pub fn with_suffix(&self, nth: u32) -> Self {
        let (stem, ext) = self.text.split_at(self.ext_at);
        let suffix = format!("-{nth}");
        Self { ext_at: self.ext_at + suffix.len(), text: format!("{stem}{suffix}{ext}") }
    }

    /// `pic_url`: the raw key with a leading slash.
    pub fn pic_url(&self) -> String {
        format!("/{}", self.text)
    }

    /// See [`pic_full_url`].
    pub fn pic_full_url(&self, public_url: &str) -> String {
        pic_full_url(public_url, &self.text)
    }
}

/// `pic_full_url`: the store's public base, then the key with every byte outside RFC 3986's unreserved characters and `/`
/// percent-encoded.
pub fn pic_full_url(public_url: &str, key: &str) -> String {
    let mut url = format!("{}/", public_url.trim_end_matches('/'));
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        stream::{AppName, DomainName, StreamName},
        template::RenditionName,
    };

    fn stream(name: &str) -> StreamId {
        StreamId {
            domain: DomainName::parse("push.example.com").expect("a domain"),
            app: AppName::parse("live").expect("an app"),
            name: StreamName::parse(name).expect("a stream"),
        }
    }

    fn expand(prefix: &str, file_name: &str, stream_name: &str, create_time_secs: i64) -> ObjectKey {
        let pattern = ObjectPattern::new(
            ObjectPrefix::parse(prefix).expect("a prefix"),
            ObjectFileName::parse(file_name).expect("a file name"),
        )
        .expect("a pattern");
        pattern.expand(&Naming {
            stream: &stream(stream_name),
            create_time: UnixMs::from_secs(create_time_secs),
            zone: &NameZone::default(),
            width: 1280,
            height: 720,
            rendition: RenditionName::MAIN,
            format: ImageFormat::Jpeg,
        })
    }

    const PREFIX: &str = "/{Year}-{Month}-{Day}";
    const FILE_NAME: &str = "{StreamID}-screenshot-{Hour}-{Minute}-{Second}-{Width}x{Height}{Ext}";

    #[test]
    fn expands_patterns() {
        let cases = [
            ("defaults", PREFIX, FILE_NAME, 1735689600, "2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg"),
            (
                "day changes at UTC+8",
                PREFIX,
                FILE_NAME,
                1735662600,
                "2025-01-01/room_1001-screenshot-00-30-00-1280x720.jpg",
            ),
            (
                "published folder",
                PREFIX,
                FILE_NAME,
                1473645788,
                "2016-09-12/room_1001-screenshot-10-03-08-1280x720.jpg",
            ),
            ("every name", "{PushDomain}/{AppName}/{StreamID}", "a{Ext}", 0, "push.example.com/live/room_1001/a.jpg"),
            ("empty prefix", "", "a{Ext}", 0, "a.jpg"),
            ("only slashes", "//", "a{Ext}", 0, "a.jpg"),
            ("console's prefix ends with a slash", "{Year}-{Month}-{Day}/", "a{Ext}", 0, "1970-01-01/a.jpg"),
            ("no extension", "p", "{StreamID}", 0, "p/room_1001"),
        ];
        for (name, prefix, file_name, create_time_secs, expected) in cases {
            assert_eq!(expand(prefix, file_name, "room_1001", create_time_secs).as_str(), expected, "{name}");
        }
    }

    #[test]
    fn names_the_published_sample() {
        let key = expand("{StreamID}", FILE_NAME, "channelid", 1622599925);
        assert_eq!(key.pic_url(), "/channelid/channelid-screenshot-10-12-05-1280x720.jpg");
        assert_eq!(
            key.pic_full_url("http://your.cos.region.myqcloud.com"),
            "http://your.cos.region.myqcloud.com/channelid/channelid-screenshot-10-12-05-1280x720.jpg"
        );
    }

    #[test]
    fn puts_the_suffix_before_the_extension() {
        let cases = [
            ("at the end", "a{Ext}", 2, "p/a-2.jpg"),
            ("third", "a{Ext}", 3, "p/a-3.jpg"),
            ("extension in the middle", "a{Ext}.x", 2, "p/a-2.jpg.x"),
            ("no extension", "a", 2, "p/a-2"),
            ("a written-out extension is just text", "a.jpg", 2, "p/a.jpg-2"),
        ];
        for (name, file_name, nth, expected) in cases {
            assert_eq!(expand("p", file_name, "room", 0).with_suffix(nth).as_str(), expected, "{name}");
        }
    }

    #[test]
    fn a_key_that_was_written_down_takes_suffixes_as_it_did() {
        for (text, second) in [
            ("2025-01-01/room.v1.jpg", "2025-01-01/room.v1-2.jpg"),
            ("a.b/cover", "a.b/cover-2"),
            ("cover.webp", "cover-2.webp"),
        ] {
            assert_eq!(ObjectKey::written(text.into()).with_suffix(2).as_str(), second);
        }
    }

    #[test]
    fn percent_encodes_only_in_the_full_url() {
        let key = expand("a!", "{StreamID}*{Ext}", "x+y=z@1~", 0);
        assert_eq!(key.pic_url(), "/a!/x+y=z@1~*.jpg");
        assert_eq!(key.pic_full_url("http://h/objects/"), "http://h/objects/a%21/x%2By%3Dz%401~%2A.jpg");
    }
}
