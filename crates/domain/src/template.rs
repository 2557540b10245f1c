//! How snapshots are made ([`SnapshotTemplate`]) and whom to tell ([`CallbackTemplate`]).
//!
//! Both are built from a draft of plain values by `validate`, which the TOML file and the API share: limits and
//! defaults of CSS's `live` API (267/30834, 267/30815) stand here once.

mod callback;
mod objects;
mod rendition;
mod snapshot;

pub use callback::{
    Authorities, CONNECT_TIMEOUT_RANGE, CallbackKey, CallbackTemplate, CallbackTemplateDraft, CallbackUrl,
    CallbackUrls, Ed25519Key, PreviousKey, RecordExceptionLevel, Sending, SendingDraft, Signing, SigningDraft,
    TIMEOUT_RANGE, URL_BYTES_MAX,
};
pub use objects::Objects;
pub use rendition::{
    ImageFormat, NamedRendition, OwnPlace, RENDITION_NAME_BYTES_MAX, RENDITIONS_MAX, Rendition, RenditionDraft,
    RenditionName,
};
pub use snapshot::{SnapshotInterval, SnapshotTemplate, SnapshotTemplateDraft, StoreTarget};

use crate::field::FieldError;

/// Longest template name (CSS), in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest description (CSS), in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// CSS takes Chinese characters, letters, digits, `_` and `-`. We take letters and digits of every script, and dots and
/// spaces, because a name is read in lists by people.
fn check_name(name: &str) -> Result<(), FieldError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(FieldError::new("name", name, "1 to 255 bytes of letters, digits, _ - . and spaces"))
    }
}

/// CSS names the alphabet of names here too, which leaves no way to write a sentence; nothing but control characters does
/// harm.
fn check_description(description: &str) -> Result<(), FieldError> {
    if description.len() <= DESCRIPTION_BYTES_MAX && !description.contains(char::is_control) {
        Ok(())
    } else {
        Err(FieldError::new("description", description, "at most 1024 bytes without control characters"))
    }
}
