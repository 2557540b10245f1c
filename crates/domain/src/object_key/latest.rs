//! Keys of objects that are overwritten by each newer picture.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use super::{
    KEY_BYTES_MAX, Naming, ObjectKey,
    pattern::{Part, Placeholder, bytes_max, is_level, parse_parts, push_parts},
};
use crate::field::FieldError;

/// The key of a template's `latest` object: the same for every picture of a stream in one rendition.
#[derive(Clone, PartialEq, Eq)]
pub struct LatestKey {
    text: String,
    parts: Vec<Part>,
}

const ALLOWED: &str = "levels of a-z A-Z 0-9 - ! _ . * and {AppName} {PushDomain} {StreamID} {Rendition} {Ext}, separated by \
                       /, none of them empty or with ..; at most 850 bytes with the longest names";

impl LatestKey {
    /// # Errors
    /// Empty, an unknown placeholder or one that differs from picture to picture (clock and size), a character outside the
    /// allowed ones, `..`, or a key that could be longer than 850 bytes.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let levels = text.trim_matches('/');
        let parts = parse_parts(levels, "/").filter(|parts| {
            levels.split('/').all(is_level)
                && parts.iter().all(|part| !matches!(part, Part::Placeholder(placeholder) if placeholder.varies()))
                && bytes_max(parts) <= KEY_BYTES_MAX
        });
        match parts {
            Some(parts) => Ok(Self { text: text.into(), parts }),
            None => Err(FieldError::new("latest_key", text, ALLOWED)),
        }
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key of a rendition beside the main one: in a folder of its name, unless the key says already where that goes. In
    /// the file's name it could be mistaken for the end of another stream's.
    ///
    /// # Errors
    /// It becomes longer than a key may be.
    pub fn of_a_rendition(&self) -> Result<Self, FieldError> {
        if self.parts.contains(&Part::Placeholder(Placeholder::Rendition)) {
            return Ok(self.clone());
        }
        let file_at = self.text.trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1);
        let (folders, file) = self.text.split_at(file_at);
        Self::parse(&format!("{folders}{{Rendition}}/{file}"))
    }

    pub fn expand(&self, naming: &Naming<'_>) -> ObjectKey {
        let mut text = String::new();
        let ext_at = push_parts(&mut text, &self.parts, naming, &naming.zone.civil(naming.create_time));
        ObjectKey { ext_at: ext_at.unwrap_or(text.len()), text }
    }
}

impl Default for LatestKey {
    fn default() -> Self {
        Self::parse("latest/{PushDomain}/{AppName}/{StreamID}{Ext}").expect("the default key is valid")
    }
}

impl fmt::Debug for LatestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_for_every_picture() {
        for bad in
            ["", "/", "{Year}/{StreamID}{Ext}", "{StreamID}-{Second}", "{Width}", "a/../b", "a//b", "{Nope}", "a b"]
        {
            assert_eq!(LatestKey::parse(bad).expect_err(bad).field, "latest_key", "{bad}");
        }
        for good in ["cover.jpg", "{StreamID}/{Rendition}{Ext}", "/latest/{AppName}/"] {
            assert_eq!(LatestKey::parse(good).expect(good).as_str(), good);
        }
        assert!(LatestKey::parse(&"{StreamID}".repeat(7)).is_err(), "longer than a key may be");
    }

    #[test]
    fn a_rendition_has_one_of_its_own() {
        let of = |text| LatestKey::parse(text).and_then(|key| key.of_a_rendition()).expect("a key").text;
        assert_eq!(of("latest/{StreamID}{Ext}"), "latest/{Rendition}/{StreamID}{Ext}");
        assert_eq!(of("{Rendition}/{StreamID}{Ext}"), "{Rendition}/{StreamID}{Ext}");
        assert_eq!(of("cover"), "{Rendition}/cover");
        assert_eq!(of("/latest/{AppName}/"), "/latest/{Rendition}/{AppName}/");
    }
}
