//! Action Message Format 0, the value encoding of RTMP commands and of `onMetaData`.
//!
//! What a value may cost is bounded by its input: no length on the wire is believed before that many bytes are there,
//! counts of arrays are never used to reserve, and nesting ends at [`DEPTH_MAX`]. The worst case is a strict array of
//! one-byte nulls, which takes 32 times its input; callers bound the input (RTMP commands: 64 KiB).

use alloc::{string::String, vec::Vec};

use bytes::BufMut;

/// Deepest nesting of objects and arrays. Encoders use one level (an object of numbers and strings); FMLE's cue points
/// use three. The parser recurses once per level, so this also bounds its stack.
pub const DEPTH_MAX: usize = 8;

/// An AMF0 value. References, typed objects and XML documents are refused: no encoder sends them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    /// A string of either length class; [`write()`] picks the class by length.
    String(String),
    Object(Vec<Property>),
    /// An object whose wire form carries a count. The count is advice (several encoders write 0), the end marker rules.
    EcmaArray(Vec<Property>),
    StrictArray(Vec<Value>),
    Null,
    Undefined,
    Date {
        unix_ms: f64,
        /// Reserved by the specification; 0 unless the writer ignored that.
        zone: i16,
    },
}

/// One named member of an object, in wire order. Names may repeat; [`Value::get`] takes the first.
pub type Property = (String, Value);

/// Why bytes are not an AMF0 value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Amf0Error {
    #[error("AMF0 value ends early at byte {offset}")]
    Truncated { offset: usize },
    #[error("AMF0 string at byte {offset} is not UTF-8")]
    NotUtf8 { offset: usize },
    #[error("AMF0 value is nested deeper than {DEPTH_MAX} at byte {offset}")]
    TooDeep { offset: usize },
    #[error("AMF0 marker {marker:#04x} at byte {offset} is not supported")]
    UnsupportedMarker { marker: u8, offset: usize },
    /// Marker 0x11: the rest is AMF3. A client sends it only after a server agreed to AMF3, and ours does not.
    #[error("AMF3 value at byte {offset}, although AMF0 was agreed")]
    Amf3 { offset: usize },
    #[error("AMF0 object at byte {offset} has an empty name that is not followed by its end marker")]
    BrokenObjectEnd { offset: usize },
}

mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0a;
    pub(super) const DATE: u8 = 0x0b;
    pub(super) const LONG_STRING: u8 = 0x0c;
    pub(super) const AVM_PLUS: u8 = 0x11;
}

impl Value {
    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// An object of the given members.
    pub fn object<N: Into<String>>(properties: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self::Object(properties.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The first member called `name`, if this is an object or an ECMA array that has one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let (Self::Object(properties) | Self::EcmaArray(properties)) = self else { return None };
        properties.iter().find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// Parses values until the input ends.
///
/// # Errors
/// Any [`Amf0Error`], for the first value that is not one.
pub fn parse_all(input: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    let mut reader = Reader::new(input);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(reader.value()?);
    }
    Ok(values)
}

/// Reads one value after the other from a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, offset: 0 }
    }

    pub const fn is_empty(&self) -> bool {
        self.offset == self.input.len()
    }

    /// The next value.
    ///
    /// # Errors
    /// Any [`Amf0Error`]. The reader must not be used after one.
    pub fn value(&mut self) -> Result<Value, Amf0Error> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value, Amf0Error> {
        let offset = self.offset;
        let [marker] = self.array()?;
        let container = matches!(marker, marker::OBJECT | marker::ECMA_ARRAY | marker::STRICT_ARRAY);
        if container && depth == DEPTH_MAX {
            return Err(Amf0Error::TooDeep { offset });
        }
        match marker {
            marker::NUMBER => Ok(Value::Number(f64::from_be_bytes(self.array()?))),
            marker::BOOLEAN => self.array().map(|[byte]| Value::Boolean(byte != 0)),
            marker::STRING => self.short_string().map(Value::String),
            marker::LONG_STRING => {
                let length = u32::from_be_bytes(self.array()?);
                self.string(length as usize).map(Value::String)
            }
            marker::OBJECT => self.properties(depth + 1).map(Value::Object),
            marker::ECMA_ARRAY => {
                let [_, _, _, _] = self.array()?;
                self.properties(depth + 1).map(Value::EcmaArray)
            }
            marker::STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.array()?);
                // Not `with_capacity(count)`: the count is hostile, and the loop ends where the input does.
                let mut elements = Vec::new();
                for _ in 0..count {
                    elements.push(self.value_at(depth + 1)?);
                }
                Ok(Value::StrictArray(elements))
            }
            marker::NULL => Ok(Value::Null),
            marker::UNDEFINED => Ok(Value::Undefined),
            marker::DATE => {
                let unix_ms = f64::from_be_bytes(self.array()?);
                Ok(Value::Date { unix_ms, zone: i16::from_be_bytes(self.array()?) })
            }
            marker::AVM_PLUS => Err(Amf0Error::Amf3 { offset }),
            _ => Err(Amf0Error::UnsupportedMarker { marker, offset }),
        }
    }

    fn properties(&mut self, depth: usize) -> Result<Vec<Property>, Amf0Error> {
        let mut properties = Vec::new();
        loop {
            let offset = self.offset;
            let name = self.short_string()?;
            if name.is_empty() {
                return match self.array()? {
                    [marker::OBJECT_END] => Ok(properties),
                    _ => Err(Amf0Error::BrokenObjectEnd { offset }),
                };
            }
            properties.push((name, self.value_at(depth)?));
        }
    }

    fn short_string(&mut self) -> Result<String, Amf0Error> {
        let length = u16::from_be_bytes(self.array()?);
        self.string(length.into())
    }

    fn string(&mut self, length: usize) -> Result<String, Amf0Error> {
        let offset = self.offset;
        let bytes = self.take(length)?;
        core::str::from_utf8(bytes).map(String::from).map_err(|_| Amf0Error::NotUtf8 { offset })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Amf0Error> {
        self.take(N).map(|bytes| bytes.try_into().expect("take returns as many bytes as it was asked for"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Amf0Error> {
        let rest = &self.input[self.offset..];
        let bytes = rest.get(..length).ok_or(Amf0Error::Truncated { offset: self.offset })?;
        self.offset += length;
        Ok(bytes)
    }
}

/// Appends `value` in its wire form. Names longer than 65,535 bytes are cut there, at a character boundary; strings
/// of that length become long strings.
pub fn write(out: &mut impl BufMut, value: &Value) {
    match value {
        Value::Number(number) => {
            out.put_u8(marker::NUMBER);
            out.put_f64(*number);
        }
        Value::Boolean(boolean) => {
            out.put_u8(marker::BOOLEAN);
            out.put_u8((*boolean).into());
        }
        Value::String(text) => write_string(out, text),
        Value::Object(properties) => {
            out.put_u8(marker::OBJECT);
            write_properties(out, properties);
        }
        Value::EcmaArray(properties) => {
            out.put_u8(marker::ECMA_ARRAY);
            out.put_u32(properties.len() as u32);
            write_properties(out, properties);
        }
        Value::StrictArray(elements) => {
            out.put_u8(marker::STRICT_ARRAY);
            out.put_u32(elements.len() as u32);
            for element in elements {
                write(out, element);
            }
        }
        Value::Null => out.put_u8(marker::NULL),
        Value::Undefined => out.put_u8(marker::UNDEFINED),
        Value::Date { unix_ms, zone } => {
            out.put_u8(marker::DATE);
            out.put_f64(*unix_ms);
            out.put_i16(*zone);
        }
    }
}

fn write_string(out: &mut impl BufMut, text: &str) {
    if let Ok(length) = u16::try_from(text.len()) {
        out.put_u8(marker::STRING);
        out.put_u16(length);
    } else {
        out.put_u8(marker::LONG_STRING);
        out.put_u32(text.len() as u32);
    }
    out.put_slice(text.as_bytes());
}

fn write_properties(out: &mut impl BufMut, properties: &[Property]) {
    for (name, value) in properties {
        let name = &name[..name.floor_char_boundary(u16::MAX.into())];
        out.put_u16(name.len() as u16);
        out.put_slice(name.as_bytes());
        write(out, value);
    }
    out.put_slice(&[0, 0, marker::OBJECT_END]);
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn written(values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|value| write(&mut out, value));
        out
    }

    #[test]
    fn reads_the_connect_command_of_an_encoder() {
        let bytes = b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0\x03\0\x03app\x02\0\x04live\0\x05tcUrl\x02\0\x10rtmp://host/live\0\0\x09";
        let values = parse_all(bytes).unwrap();
        assert_eq!(values[0].as_str(), Some("connect"));
        assert_eq!(values[1].as_number(), Some(1.0));
        assert_eq!(values[2].get("tcUrl").and_then(Value::as_str), Some("rtmp://host/live"));
        assert_eq!(values[2].get("missing"), None);
        assert_eq!(written(&values), bytes);
    }

    #[test]
    fn reads_each_marker() {
        let cases: &[(&[u8], Value)] = &[
            (b"\0\x40\x59\0\0\0\0\0\0", Value::Number(100.0)),
            (b"\x01\x01", Value::Boolean(true)),
            (b"\x02\0\x02ab", Value::string("ab")),
            (b"\x0c\0\0\0\x02ab", Value::string("ab")),
            (b"\x03\0\0\x09", Value::Object(vec![])),
            (b"\x08\0\0\0\0\0\x01k\x05\0\0\x09", Value::EcmaArray(vec![("k".into(), Value::Null)])),
            (b"\x08\xff\xff\xff\xff\0\0\x09", Value::EcmaArray(vec![])),
            (b"\x0a\0\0\0\x02\x05\x06", Value::StrictArray(vec![Value::Null, Value::Undefined])),
            (b"\x0b\0\0\0\0\0\0\0\0\xff\xff", Value::Date { unix_ms: 0.0, zone: -1 }),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_all(bytes).as_deref(), Ok(core::slice::from_ref(expected)), "{bytes:02x?}");
            for end in 1..bytes.len() {
                let error = parse_all(&bytes[..end]).expect_err("a truncated value must not parse");
                assert!(matches!(error, Amf0Error::Truncated { .. }), "{bytes:02x?} cut at {end}: {error}");
            }
        }
    }

    #[test]
    fn refuses_what_no_encoder_sends() {
        use Amf0Error::*;
        let cases: &[(&[u8], Amf0Error)] = &[
            (b"\x11\x04\x01", Amf3 { offset: 0 }),
            (b"\x05\x07\0\x01", UnsupportedMarker { marker: 7, offset: 1 }),
            (b"\x09", UnsupportedMarker { marker: 9, offset: 0 }),
            (b"\x02\0\x01\xff", NotUtf8 { offset: 3 }),
            (b"\x0a\xff\xff\xff\xff\x05", Truncated { offset: 6 }),
            (b"\x0c\xff\xff\xff\xffab", Truncated { offset: 5 }),
            (b"\x03\0\0\x05", BrokenObjectEnd { offset: 1 }),
            (b"\x03\0\x01k\x09", UnsupportedMarker { marker: 9, offset: 4 }),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_all(bytes).as_ref(), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn nests_to_the_limit_and_not_further() {
        for (opening, width) in [(&b"\x0a\0\0\0\x01"[..], 5), (b"\x03\0\x01k", 4), (b"\x08\0\0\0\x01\0\x01k", 8)] {
            let bomb = opening.repeat(DEPTH_MAX + 1);
            assert_eq!(parse_all(&bomb), Err(Amf0Error::TooDeep { offset: DEPTH_MAX * width }));
            let error = parse_all(&opening.repeat(DEPTH_MAX)).expect_err("it has no innermost value");
            assert!(matches!(error, Amf0Error::Truncated { .. }), "{error}");
        }
    }

    #[test]
    fn long_strings_survive_the_round_trip() {
        for length in [65_535, 65_536] {
            let value = Value::string("x".repeat(length));
            assert_eq!(parse_all(&written(core::slice::from_ref(&value))), Ok(vec![value]));
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("NaN differs from itself", |number| !number.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            (-1e15..1e15, any::<i16>()).prop_map(|(unix_ms, zone)| Value::Date { unix_ms, zone }),
        ];
        leaf.prop_recursive(DEPTH_MAX as u32 - 1, 40, 5, |inner| {
            let properties = proptest::collection::vec((".{1,8}", inner.clone()), 0..5);
            prop_oneof![
                properties.clone().prop_map(Value::Object),
                properties.prop_map(Value::EcmaArray),
                proptest::collection::vec(inner, 0..5).prop_map(Value::StrictArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn parses_what_it_wrote(values in proptest::collection::vec(any_value(), 0..4)) {
            prop_assert_eq!(parse_all(&written(&values)), Ok(values));
        }

        #[test]
        fn accepts_any_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            crate::fuzz::amf0(&bytes);
        }
    }
}
