//! CSS's signature in the body: `sign = hex(MD5(key + t))`, with `t` ten minutes after sending, in unix seconds.
//!
//! It proves that the sender knew the key within the last ten minutes, and nothing about the rest of the body: whoever
//! overhears one callback can put its `t` and `sign` into a body of their own. [`crate::webhook`] covers the body.

mod report;

use alloc::{format, string::String};
use core::time::Duration;

use md5::{Digest, Md5};

pub(crate) use report::examine;
pub use report::{Check, Finding, Report, report};

/// How long a signature is good.
pub const LIFE: Duration = Duration::from_secs(600);

/// `t` of a callback sent at `sent_secs`.
pub const fn expiry_secs(sent_secs: i64) -> i64 {
    sent_secs.saturating_add(LIFE.as_secs().cast_signed())
}

/// `sign` for a key and `t`: key first, `t` in decimal, nothing between them; in lower case.
pub fn sign(key: &str, t: i64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Md5::digest(format!("{key}{t}"));
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_every_vector() {
        let cases = [
            ("k3yForDocs2024", 1735689600, "bb4546e942a0458b9ac6ccd4f848d71c"),
            ("k3yForDocs2024", 1735690201, "4f9ce1a147eede4654f8d35ce939c39e"),
            ("k3yForDocs2024", 1735690321, "a9bb8722f03e5418914e8baf0a069500"),
            ("Zx81QmB7tLw0pAe9RsVn5YcJd2HfKgU4", 1893456600, "259619d155594827eb9ad0a40989ef27"),
            ("a", 1, "8a8bb7cd343aa2ad99b7d762030857a2"),
            ("0", 1735689600, "466fbb47ccac744bf9f89c4991cb67eb"),
            // Published for the legacy `t + sign` scheme of the same formula (454/7920).
            ("5d41402abc4b2a76b9719d911017c592", 1626839220, "5ee8ca6c28cbe415b40352969cdf8249"),
            ("test_key", 1700000600, "53cdb8edd73c03320684d07172417f82"),
        ];
        for (key, t, expected) in cases {
            assert_eq!(sign(key, t), expected, "t = {t}");
        }
    }

    #[test]
    fn t_is_ten_minutes_after_sending_as_in_the_published_samples() {
        assert_eq!(expiry_secs(1622599925), 1622600525);
        assert_eq!(expiry_secs(1703731478), 1703732078);
        assert_eq!(expiry_secs(1615859827), 1615860427);
    }
}
