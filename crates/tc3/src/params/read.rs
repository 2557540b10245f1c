//! Readers of single values, lenient where the vendor's own examples are: a decimal string may stand for an integer.

use alloc::{format, string::String, vec::Vec};
use core::ops::RangeInclusive;

use serde_json::Value;

use crate::{error::ApiError, secret::Secret, time::ApiTime};

/// A parameter that is there.
pub(crate) struct Field {
    pub(super) name: &'static str,
    pub(super) value: Value,
}

/// An integer within `range`.
pub(crate) fn int(range: RangeInclusive<i64>) -> impl Fn(Field) -> Result<i64, ApiError> {
    move |field| {
        let number = match &field.value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| ApiError::malformed(field.name, "an integer"))?;
        match (range.start(), range.end()) {
            _ if range.contains(&number) => Ok(number),
            (least, &i64::MAX) => Err(ApiError::not_allowed(field.name, &format!("at least {least}"))),
            (least, most) => Err(ApiError::not_allowed(field.name, &format!("{least} to {most}"))),
        }
    }
}

/// An integer that is 0 or 1.
pub(crate) fn flag(field: Field) -> Result<bool, ApiError> {
    int(0..=1)(field).map(|number| number == 1)
}

/// A string whose length in bytes lies within `bytes`.
pub(crate) fn text(bytes: RangeInclusive<usize>) -> impl Fn(Field) -> Result<String, ApiError> {
    move |field| {
        let Value::String(text) = field.value else {
            return Err(ApiError::malformed(field.name, "a string"));
        };
        if bytes.contains(&text.len()) {
            Ok(text)
        } else {
            let allowed = format!("{} to {} bytes long", bytes.start(), bytes.end());
            Err(ApiError::not_allowed(field.name, &allowed))
        }
    }
}

/// A string that must not be printed.
pub(crate) fn secret(bytes: RangeInclusive<usize>) -> impl Fn(Field) -> Result<Secret, ApiError> {
    move |field| text(bytes.clone())(field).map(Secret::new)
}

/// One of the words, each standing for a value.
pub(crate) fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(Field) -> Result<T, ApiError> {
    move |field| {
        let Value::String(text) = &field.value else {
            return Err(ApiError::malformed(field.name, "a string"));
        };
        let found = words.iter().find(|(word, _)| word == text);
        found.map(|&(_, value)| value).ok_or_else(|| {
            let allowed: Vec<_> = words.iter().map(|&(word, _)| word).collect();
            ApiError::not_allowed(field.name, &format!("one of {}", allowed.join(", ")))
        })
    }
}

/// A time in any notation of the API.
pub(crate) fn time(field: Field) -> Result<ApiTime, ApiError> {
    let time = match &field.value {
        Value::String(text) => ApiTime::parse(text),
        _ => None,
    };
    time.ok_or_else(|| {
        let expected = "a time such as 2025-01-01T00:00:00Z, 2025-01-01T08:00:00+08:00 or 2025-01-01 08:00:00 (UTC+8)";
        ApiError::malformed(field.name, expected)
    })
}

/// A list of at most `items_max`, each read by `read`.
pub(crate) fn list<T>(
    items_max: usize,
    read: impl Fn(Field) -> Result<T, ApiError>,
) -> impl Fn(Field) -> Result<Vec<T>, ApiError> {
    move |field| {
        let name = field.name;
        let items = into_items(field.value).ok_or_else(|| ApiError::malformed(name, "a list"))?;
        if items.len() > items_max {
            return Err(ApiError::not_allowed(name, &format!("a list of at most {items_max}")));
        }
        items.into_iter().map(|value| read(Field { name, value })).collect()
    }
}

/// JSON's list, or a form's object with the keys `0`, `1` … `n - 1`, which may stand in any order.
fn into_items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        Value::Object(mut members) => (0..members.len()).map(|index| members.remove(&format!("{index}"))).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixSecs;

    fn field(json: &str) -> Field {
        Field { name: "A", value: serde_json::from_str(json).expect("JSON") }
    }

    #[test]
    fn integers_may_be_decimal_strings() {
        let read = int(-5..=300);
        for (json, expected) in [("10", 10), (r#""10""#, 10), ("-5", -5), (r#""-5""#, -5), (r#""0300""#, 300)] {
            assert_eq!(read(field(json)), Ok(expected), "{json}");
        }
        for json in [r#""""#, r#"" 10""#, r#""1e2""#, r#""0x1""#, "1.5", "10.0", "true", "[10]", "18446744073709551615"]
        {
            assert_eq!(read(field(json)), Err(ApiError::malformed("A", "an integer")), "{json}");
        }
    }

    #[test]
    fn integers_keep_within_their_range() {
        for (range, json, allowed) in [
            (2..=300, "1", "2 to 300"),
            (2..=300, "301", "2 to 300"),
            (2..=300, r#""-10""#, "2 to 300"),
            (1..=i64::MAX, "0", "at least 1"),
        ] {
            assert_eq!(int(range)(field(json)), Err(ApiError::not_allowed("A", allowed)), "{json}");
        }
        assert_eq!(int(1..=i64::MAX)(field("9223372036854775807")), Ok(i64::MAX));
    }

    #[test]
    fn flags_are_zero_or_one() {
        assert_eq!((flag(field("0")), flag(field(r#""1""#))), (Ok(false), Ok(true)));
        assert_eq!(flag(field("2")), Err(ApiError::not_allowed("A", "0 to 1")));
        assert_eq!(flag(field("true")), Err(ApiError::malformed("A", "an integer")));
    }

    #[test]
    fn strings_are_counted_in_bytes() {
        let read = text(1..=3);
        assert_eq!(read(field(r#""\u540d""#)), Ok("名".into()));
        for json in [r#""""#, r#""名a""#] {
            assert_eq!(read(field(json)), Err(ApiError::not_allowed("A", "1 to 3 bytes long")), "{json}");
        }
        assert_eq!(read(field("12")), Err(ApiError::malformed("A", "a string")), "numbers are no names");
    }

    #[test]
    fn words_are_known_words() {
        let read = word(&[("Minute", 5), ("Day", 1440)]);
        assert_eq!(read(field(r#""Day""#)), Ok(1440));
        assert_eq!(read(field(r#""day""#)), Err(ApiError::not_allowed("A", "one of Minute, Day")));
        assert_eq!(read(field("5")), Err(ApiError::malformed("A", "a string")));
    }

    #[test]
    fn lists_come_as_json_or_as_numbered_fields() {
        let read = list(3, int(0..=9));
        for json in ["[1,2,3]", r#"{"1":"2","0":"1","2":"3"}"#] {
            assert_eq!(read(field(json)), Ok(alloc::vec![1, 2, 3]), "{json}");
        }
        assert_eq!(read(field("[]")), Ok(Vec::new()));
        for json in [r#""1""#, r#"{"1":"1"}"#, r#"{"0":"1","2":"2"}"#, r#"{"00":"1"}"#, r#"{"999999999999":"1"}"#] {
            assert_eq!(read(field(json)), Err(ApiError::malformed("A", "a list")), "{json}");
        }
        assert_eq!(read(field("[1,2,3,4]")), Err(ApiError::not_allowed("A", "a list of at most 3")));
        assert_eq!(read(field(r#"[1,"x"]"#)), Err(ApiError::malformed("A", "an integer")));
    }

    #[test]
    fn times_are_in_one_of_three_notations() {
        assert_eq!(time(field(r#""1970-01-01 08:00:01""#)), Ok(ApiTime::beijing(UnixSecs(1))));
        for json in [r#""yesterday""#, "1735689600"] {
            assert_eq!(time(field(json)).map_err(|error| error.code.as_str()), Err("InvalidParameter"), "{json}");
        }
    }
}
