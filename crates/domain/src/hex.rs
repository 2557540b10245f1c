//! Lower-case hexadecimal text of a digest.

use alloc::string::String;

/// Two lower-case digits per byte, as every digest of the CSS protocol is written.
pub(crate) fn lower(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .as_ref()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}
