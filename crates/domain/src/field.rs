//! A configured value that was refused: which field, what stood there, what is allowed.

use alloc::string::{String, ToString};
use core::fmt;

/// How much of a refused value an error repeats, in characters: enough to recognise it, too little to flood a log.
const VALUE_CHARS_MAX: usize = 80;

/// One value that a template, rule, domain or callback does not accept. The TOML file and the API turn it into their
/// own words; both show `allowed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value:?} is not accepted; allowed: {allowed}")]
pub struct FieldError {
    /// The field by its name in this crate (`file_name`); the API maps it to CSS's (`CosFileName`).
    pub field: &'static str,
    /// The refused value, cut after 80 characters. Never a secret: those are reported by their length only.
    pub value: String,
    /// What would have been accepted, as text for a person.
    pub allowed: &'static str,
}

impl FieldError {
    pub fn new(field: &'static str, value: impl fmt::Display, allowed: &'static str) -> Self {
        let value = value.to_string();
        let value = match value.char_indices().nth(VALUE_CHARS_MAX) {
            Some((end, _)) => alloc::format!("{}…", &value[..end]),
            None => value,
        };
        Self { field, value, allowed }
    }

    /// For a secret: says how long it was and nothing else.
    pub fn secret(field: &'static str, value: &str, allowed: &'static str) -> Self {
        Self { field, value: alloc::format!("({} bytes)", value.len()), allowed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_field_the_value_and_what_is_allowed() {
        let error = FieldError::new("interval", 1, "2 to 300 seconds");
        assert_eq!(error.to_string(), r#"interval = "1" is not accepted; allowed: 2 to 300 seconds"#);
    }

    #[test]
    fn repeats_at_most_eighty_characters_of_a_value() {
        let error = FieldError::new("name", "é".repeat(1000), "less");
        assert_eq!(error.value.chars().count(), 81);
    }

    #[test]
    fn never_repeats_a_secret() {
        assert_eq!(FieldError::secret("key", "hunter2", "less").value, "(7 bytes)");
    }
}
