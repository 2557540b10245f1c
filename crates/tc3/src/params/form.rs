//! `application/x-www-form-urlencoded`, as a query or as a body.

use alloc::{
    borrow::Cow,
    string::{String, ToString},
    vec::Vec,
};

use percent_encoding::percent_decode_str;

use crate::error::{ApiError, ErrorCode};

/// How many pairs a form may hold: as many as a JSON body may hold values.
const PAIRS_MAX: usize = 1024;

/// Decodes `a=1&b=x+y%2Fz`. A `%` that begins no escape stands for itself, as everywhere on the web.
///
/// # Errors
/// `InvalidParameter`: not UTF-8 once decoded, or too many pairs.
pub(crate) fn pairs(form: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut pairs = Vec::new();
    for pair in form.split('&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == PAIRS_MAX {
            return Err(ApiError::new(ErrorCode::InvalidParameter, "The request has too many parameters."));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name)?, decode(value)?));
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<String, ApiError> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let decoded = percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| ApiError::new(ErrorCode::InvalidParameter, "The parameters must be UTF-8."))?;
    Ok(decoded.to_string())
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn decodes_names_and_values() {
        let cases: [(&str, &[(&str, &str)]); 7] = [
            ("", &[]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a=x+y%20z%2B", &[("a", "x y z+")]),
            ("a&b=&=c&&", &[("a", ""), ("b", ""), ("", "c")]),
            ("a=b=c", &[("a", "b=c")]),
            ("%E4%B8%AD=%e6%96%87", &[("中", "文")]),
            ("a=100%&b=%zz%4", &[("a", "100%"), ("b", "%zz%4")]),
        ];
        for (form, expected) in cases {
            let decoded = pairs(form).expect(form);
            let decoded: Vec<_> = decoded.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(decoded, expected, "{form}");
        }
    }

    #[test]
    fn refuses_other_encodings_and_endless_forms() {
        for form in ["a=%ff", "%c3=1", "a=%e4%b8"] {
            assert_eq!(pairs(form).expect_err(form).code, ErrorCode::InvalidParameter);
        }
        assert!(pairs(&"a&".repeat(PAIRS_MAX)).is_ok());
        assert!(pairs(&format!("{}a", "a&".repeat(PAIRS_MAX))).is_err());
    }
}
