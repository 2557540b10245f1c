//! A JSON object from a stranger: every value is counted before it is kept.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use core::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::DEPTH_MAX;
use crate::error::{ApiError, ErrorCode};

/// How many values a request may hold. The largest one names a hundred domains beside some twenty parameters. Without a
/// limit each `{"":0}` of seven bytes would become a map of some 600.
const VALUES_MAX: usize = 1024;

/// # Errors
/// `InvalidParameter`.
pub(super) fn parse(body: &[u8]) -> Result<BTreeMap<String, Value>, ApiError> {
    let mut values_left = VALUES_MAX;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = Seed { values_left: &mut values_left, depth: 0 }
        .parse(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match parsed {
        Ok(Value::Object(members)) => Ok(members.into_iter().collect()),
        Ok(_) => Err(refused("it is no object")),
        Err(error) => Err(refused(&format!("{error}"))),
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameter, format!("The body must be a JSON object in UTF-8: {why}."))
}

/// Reads one value at `depth`, the outermost being 0.
struct Seed<'a> {
    values_left: &'a mut usize,
    depth: usize,
}

impl Seed<'_> {
    fn parse<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > DEPTH_MAX {
            return Err(D::Error::custom("too deep"));
        }
        *self.values_left = self.values_left.checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        deserializer.deserialize_any(self)
    }

    fn inner(&mut self) -> Seed<'_> {
        Seed { values_left: self.values_left, depth: self.depth + 1 }
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.parse(deserializer)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(self.inner())? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.inner())?;
            // Which of two wins depends on the reader, so neither does.
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn reads_every_kind_of_value() {
        let text =
            r#"{"a":null,"b":true,"c":-1,"d":18446744073709551615,"e":0.5,"f":"x\u00e9\n","g":[1,["y"]],"h":{"i":{}}}"#;
        let parsed = parse(text.as_bytes()).expect("an object");
        let whole: BTreeMap<String, Value> = serde_json::from_str(text).expect("JSON");
        assert_eq!(parsed, whole);
    }

    #[test]
    fn refuses_what_is_not_an_object_of_bounded_size() {
        let deep = "[".repeat(10_000);
        let too_deep = format!("{{\"a\":{}1{}}}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        let many_maps = format!("{{\"a\":[{}0]}}", r#"{"":0},"#.repeat(VALUES_MAX));
        for (name, body, why) in [
            ("an array", "[]", "no object"),
            ("a number", "1", "no object"),
            ("cut", r#"{"a":1"#, "EOF"),
            ("more behind it", "{} {}", "trailing"),
            ("a name twice", r#"{"a":1,"a":1}"#, "stands twice"),
            ("a name twice inside", r#"{"b":{"a":1,"a":1}}"#, "stands twice"),
            ("ten thousand brackets", &deep, "too deep"),
            ("one bracket too many", &too_deep, "too deep"),
            ("many values", &many, "too many values"),
            ("many maps", &many_maps, "too many values"),
            ("a number beyond all bounds", r#"{"a":1e999}"#, "out of range"),
        ] {
            let error = parse(body.as_bytes()).expect_err(name).to_string();
            assert!(error.starts_with("InvalidParameter: ") && error.contains(why), "{name}: {error}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
    }

    #[test]
    fn accepts_as_much_as_is_allowed() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(DEPTH_MAX - 1), "]".repeat(DEPTH_MAX - 1));
        assert!(parse(deep.as_bytes()).is_ok());
        // The object, the list, and the rest in it.
        let many = format!("{{\"a\":[{}0]}}", "0,".repeat(VALUES_MAX - 3));
        assert!(parse(many.as_bytes()).is_ok());
    }
}
