//! Text that authenticates somebody.

use alloc::sync::Arc;
use core::fmt;

/// A secret prints as `***` everywhere; only [`Secret::expose`] gives it out, so a search for that word finds every
/// place where one can leave. `==` tells whether a configuration changed; checking a signature uses a constant-time
/// comparison.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Self {
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
