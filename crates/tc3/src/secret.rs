//! Text that authenticates somebody.

use alloc::string::String;
use core::fmt;

use serde::Serialize;

/// A key or a URL that may hold a password. It prints as `***`; only [`Secret::expose`] and an answer's JSON give it out,
/// since the API shows keys to those who may read them.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_three_stars() {
        assert_eq!(alloc::format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }
}
