//! The parameters of an action, from a JSON body or from a form, and how their values are read.
//!
//! A form is flat: `PushDomains.0=a&PushDomains.1=b` is the list that JSON writes as `{"PushDomains":["a","b"]}`, and
//! `A.0.B=x` is `{"A":[{"B":"x"}]}`. Both become one tree, in which a list of a form is still an object with the keys `0`,
//! `1` … until somebody reads it as a list.

pub(crate) mod form;
mod json;
pub(crate) mod read;

use alloc::{
    collections::{BTreeMap, btree_map::Entry},
    string::String,
    vec::Vec,
};
use core::fmt;

use read::Field;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// How deep values may lie. The deepest parameter of any action is a list, at 2; the rest is room for newer programs.
const DEPTH_MAX: usize = 8;

/// The parameters of one request. Reading takes a parameter out, so that what is left was not known to the action.
#[derive(Clone, Default, PartialEq)]
pub struct Params(BTreeMap<String, Value>);

impl Params {
    /// From a JSON object; an empty body counts as `{}`.
    ///
    /// # Errors
    /// `InvalidParameter`: not a JSON object in UTF-8, a name that stands twice, too deep or too many values.
    pub fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() { Ok(Self::default()) } else { json::parse(body).map(Self) }
    }

    /// From the pairs of a form, already decoded.
    ///
    /// # Errors
    /// `InvalidParameter`: a name that stands twice, is part of another's, or is too deep.
    pub(crate) fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ApiError> {
        let mut params = Self::default();
        for (name, value) in pairs {
            let Some((first, rest)) = split_name(&name) else {
                return Err(ApiError::malformed(&name, "a name of at most 8 parts, with none of them empty"));
            };
            let taken = || ApiError::malformed(&name, "given once");
            match (params.0.entry(first.into()), rest.split_last()) {
                (Entry::Vacant(entry), None) => {
                    entry.insert(Value::String(value));
                }
                (Entry::Occupied(_), None) => return Err(taken()),
                (entry, Some((last, between))) => {
                    let mut object = entry.or_insert_with(empty_object).as_object_mut().ok_or_else(taken)?;
                    for part in between {
                        let inner = object.entry(*part).or_insert_with(empty_object);
                        object = inner.as_object_mut().ok_or_else(taken)?;
                    }
                    if object.insert((*last).into(), Value::String(value)).is_some() {
                        return Err(taken());
                    }
                }
            }
        }
        Ok(params)
    }

    /// The names that no reader has asked for: those the action does not know.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Leaves out what belongs to the envelope.
    pub(crate) fn forget(&mut self, names: &[&str]) {
        self.0.retain(|name, _| !names.contains(&name.as_str()));
    }

    /// A parameter that must be given; JSON's `null` counts as absent.
    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Field) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.optional(name, read)?.ok_or_else(|| ApiError::missing(name))
    }

    /// A parameter that may be absent or `null`.
    pub(crate) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Field) -> Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(Field { name, value }).map(Some),
        }
    }
}

impl fmt::Debug for Params {
    /// Names only: some values are keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn empty_object() -> Value {
    Value::Object(Map::new())
}

/// `A.0.B` as `A` and `[0, B]`.
fn split_name(name: &str) -> Option<(&str, Vec<&str>)> {
    let mut parts = name.split('.');
    let first = parts.next()?;
    let rest: Vec<_> = parts.take(DEPTH_MAX).collect();
    let is_fine = rest.len() < DEPTH_MAX && !first.is_empty() && rest.iter().all(|part| !part.is_empty());
    is_fine.then_some((first, rest))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::error::ErrorCode;

    fn pairs(pairs: &[(&str, &str)]) -> Result<Params, ApiError> {
        Params::from_pairs(pairs.iter().map(|&(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_form_and_json_make_the_same_tree() {
        let form = pairs(&[("A.0.B", "x"), ("C", "1"), ("A.0.D", "y"), ("A.1.B", "z")]).expect("a form");
        let json = Params::from_json(br#"{"A":{"0":{"B":"x","D":"y"},"1":{"B":"z"}},"C":"1"}"#).expect("JSON");
        assert_eq!(form, json);
        assert_eq!(Params::from_json(b"").expect("empty"), Params::from_json(b"{}").expect("no parameters"));
    }

    #[test]
    fn refuses_forms_that_contradict_themselves() {
        for (name, form) in [
            ("twice", &[("A", "1"), ("A", "1")][..]),
            ("an element twice", &[("A.0", "1"), ("A.0", "2")]),
            ("a value and a list", &[("A", "1"), ("A.0", "2")]),
            ("a list and a value", &[("A.0", "1"), ("A", "2")]),
            ("a value within a value", &[("A.0", "1"), ("A.0.B", "2")]),
            ("a value over a list", &[("A.0.B", "1"), ("A.0", "2")]),
            ("no name", &[("", "1")]),
            ("an empty part", &[("A..B", "1")]),
            ("a dot at the end", &[("A.", "1")]),
            ("too deep", &[("A.A.A.A.A.A.A.A.A", "1")]),
        ] {
            assert_eq!(pairs(form).expect_err(name).code, ErrorCode::InvalidParameter, "{name}");
        }
        assert!(pairs(&[("A.A.A.A.A.A.A.A", "1")]).is_ok(), "as deep as allowed");
    }

    #[test]
    fn what_was_not_read_is_left() {
        let mut params = pairs(&[("Known", "1"), ("Other", "2"), ("More.0", "3")]).expect("a form");
        assert_eq!(params.required("Known", read::int(1..=1)), Ok(1));
        assert_eq!(params.unread().collect::<Vec<_>>(), ["More", "Other"]);
    }

    #[test]
    fn null_is_absent() {
        let mut params = Params::from_json(br#"{"A":null,"B":null}"#).expect("JSON");
        assert_eq!(params.optional("A", read::int(1..=1)), Ok(None));
        assert_eq!(params.required("B", read::int(1..=1)), Err(ApiError::missing("B")));
    }

    #[test]
    fn values_are_not_printed() {
        let params = Params::from_json(br#"{"CallbackKey":"hunter2"}"#).expect("JSON");
        assert_eq!(format!("{params:?}"), r#"{"CallbackKey"}"#);
    }
}
