//! The query of a push URL.

use alloc::{string::String, sync::Arc};
use core::fmt;

use crate::refusal::Refusal;

/// Longest query of a push URL. Signatures and custom parameters seen in the wild stay below 1 KiB; the query is
/// repeated in every callback of the push, so four times that is where generosity ends.
const PARAM_BYTES_MAX: usize = 4096;

/// The query of a push URL without its `?`, byte for byte as pushed. Callbacks carry it whole
/// ([`StreamParam::as_wire`]), because receivers written for CSS read it; printing it masks the value of `txSecret`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StreamParam(Option<Arc<str>>);

impl StreamParam {
    /// # Errors
    /// [`Refusal::Param`] when longer than 4096 bytes.
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        match query.len() {
            0 => Ok(Self(None)),
            1..=PARAM_BYTES_MAX => Ok(Self(Some(query.into()))),
            _ => Err(Refusal::Param),
        }
    }

    /// As pushed, secrets included: for callbacks and for checking the signature, never for a log.
    pub fn as_wire(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }

    /// The first value of a parameter, as written (nothing is percent-decoded: hexadecimal digits need no encoding).
    pub fn get(&self, name: &str) -> Option<&str> {
        pairs(self.as_wire()).find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// The `key=value` pairs of a query in order; a pair without `=` has an empty value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

impl fmt::Display for StreamParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = |pair: &str| match pair.split_once('=') {
            Some((key, _)) if key.eq_ignore_ascii_case("txSecret") => alloc::format!("{key}=***"),
            _ => String::from(pair),
        };
        for (position, pair) in self.as_wire().split('&').enumerate() {
            write!(f, "{}{}", if position == 0 { "" } else { "&" }, mask(pair))?;
        }
        Ok(())
    }
}

impl fmt::Debug for StreamParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    #[test]
    fn masks_the_secret_and_nothing_else() {
        let cases = [
            ("empty", "", ""),
            ("in front", "txSecret=abc&txTime=6955B8FF", "txSecret=***&txTime=6955B8FF"),
            ("at the end", "a=1&txSecret=abc", "a=1&txSecret=***"),
            ("twice", "txSecret=abc&txSecret=def", "txSecret=***&txSecret=***"),
            ("in another case", "TXSECRET=abc", "TXSECRET=***"),
            ("with equals signs in the value", "txSecret=a=b", "txSecret=***"),
            ("without a value", "txSecret", "txSecret"),
            ("only part of a name", "mytxSecret=abc", "mytxSecret=abc"),
        ];
        for (name, wire, shown) in cases {
            let param = StreamParam::parse(wire).expect(name);
            assert_eq!(param.to_string(), shown, "{name}");
            assert_eq!(format!("{param:?}"), shown, "{name}");
            assert_eq!(param.as_wire(), wire, "{name}");
        }
    }

    #[test]
    fn gives_the_first_value_of_a_name() {
        let param = StreamParam::parse("a=1&b&a=2&c=x=y").expect("a query");
        assert_eq!(
            [param.get("a"), param.get("b"), param.get("c"), param.get("d")],
            [Some("1"), Some(""), Some("x=y"), None]
        );
    }

    #[test]
    fn takes_4096_bytes_and_not_one_more() {
        assert!(StreamParam::parse(&"a".repeat(4096)).is_ok());
        assert_eq!(StreamParam::parse(&"a".repeat(4097)), Err(Refusal::Param));
    }
}
