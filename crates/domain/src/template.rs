//! How snapshots are made ([`SnapshotTemplate`]) and whom to tell ([`CallbackTemplate`]).
//!
//! Both are built from a draft of plain values by `validate`, which the TOML file and the API share: limits and defaults of
//! CSS's `live` API (267/30834, 267/30815) stand here once.

mod callback;
mod snapshot;

pub use callback::{CallbackKey, CallbackTemplate, CallbackTemplateDraft, CallbackUrl, CallbackUrls};
pub use snapshot::{SnapshotInterval, SnapshotTemplate, SnapshotTemplateDraft, StoreTarget};

use crate::field::FieldError;

/// Longest template name (CSS), in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest description (CSS), in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// CSS takes Chinese characters, letters, digits, `_` and `-`. We take letters and digits of every script, and spaces and
/// dots, which the real API is lenient about too.
fn is_text(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.'))
}

fn check_name(name: &str) -> Result<(), FieldError> {
    if !name.is_empty() && is_text(name, NAME_BYTES_MAX) {
        Ok(())
    } else {
        Err(FieldError::new("name", name, "1 to 255 bytes of letters, digits, _ - . and spaces"))
    }
}

fn check_description(description: &str) -> Result<(), FieldError> {
    if is_text(description, DESCRIPTION_BYTES_MAX) {
        Ok(())
    } else {
        Err(FieldError::new("description", description, "at most 1024 bytes of letters, digits, _ - . and spaces"))
    }
}
