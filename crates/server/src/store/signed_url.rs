//! URLs that only their bearer can fetch an object of the local store with: they end at a time and bear a signature.
//!
//! ```text
//! …/objects/<bucket>-<appid>/<key>?expires=<unix seconds>&signature=<43 characters>
//! signature = base64url(HMAC-SHA256(a key of the vault's own, expires + NUL + bucket + "/" + key)), unpadded
//! ```
//!
//! The key stands behind the master key, so that URLs outlive a restart and no configuration holds a further secret.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use framehook_domain::time::UnixMs;
use url::form_urlencoded;

use crate::db::secret::Vault;

/// Binds these digests to URLs of objects.
const PURPOSE: &str = "object url";

/// Signs URLs, and checks what requests bring.
#[derive(Clone, Debug)]
pub struct UrlSigner {
    vault: Vault,
    life: Duration,
}

/// Why a URL opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    #[error("this object is given out to signed URLs only; take the URL from its callback")]
    Unsigned,
    #[error("the signature of this URL is wrong; take the URL from its callback, unchanged")]
    WrongSignature,
    #[error("this URL has expired")]
    Expired,
}

impl UrlSigner {
    /// A URL lives for `life` from its making, rounded down to a second.
    pub fn new(vault: Vault, life: Duration) -> Self {
        Self { vault, life }
    }

    /// How long a URL lives.
    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// The query of an object's URL that is made `now`.
    pub(super) fn query(&self, bucket: &str, key: &str, now: UnixMs) -> String {
        let expires = now.plus(self.life).secs();
        format!("expires={expires}&signature={}", BASE64_URL_SAFE_NO_PAD.encode(self.digest(bucket, key, expires)))
    }

    /// Whether a request for an object with this query may have it. The signature comes before the age: only who had a
    /// true URL is told that it has expired.
    ///
    /// # Errors
    /// See [`UrlRefused`].
    pub fn check(&self, bucket: &str, key: &str, query: &str, now: UnixMs) -> Result<(), UrlRefused> {
        let (Some(expires), Some(signature)) = (parameter(query, "expires"), parameter(query, "signature")) else {
            return Err(UrlRefused::Unsigned);
        };
        let expires: i64 = expires.parse().map_err(|_| UrlRefused::WrongSignature)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| UrlRefused::WrongSignature)?;
        verify_slices_are_equal(&signature, &self.digest(bucket, key, expires))
            .map_err(|_| UrlRefused::WrongSignature)?;
        if now.secs() < expires { Ok(()) } else { Err(UrlRefused::Expired) }
    }

    fn digest(&self, bucket: &str, key: &str, expires: i64) -> [u8; 32] {
        self.vault.digest(PURPOSE, &format!("{expires}\0{bucket}/{key}"))
    }
}

/// The first value of a parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::DirLock;
    use crate::entropy::Entropy;

    const NOW: UnixMs = UnixMs(1_735_689_600_999);
    const LIFE: Duration = Duration::from_secs(3600);

    fn signer() -> UrlSigner {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = DirLock::take(dir.path()).expect("a lock");
        let master_key = "07".repeat(32);
        UrlSigner::new(Vault::open(&lock, Some(&master_key), &Entropy::system()).expect("a vault"), LIFE)
    }

    #[test]
    fn a_signed_url_opens_its_object_until_it_expires() {
        let signer = signer();
        let query = signer.query("shots-1", "a b/ü.jpg", NOW);
        let check = |now| signer.check("shots-1", "a b/ü.jpg", &query, now);
        assert_eq!(check(NOW), Ok(()));
        assert_eq!(check(NOW.plus(LIFE).minus(Duration::from_secs(1))), Ok(()));
        assert_eq!(check(NOW.plus(LIFE)), Err(UrlRefused::Expired));
    }

    #[test]
    fn the_same_master_key_makes_the_same_url() {
        let query = signer().query("shots-1", "a.jpg", NOW);
        assert_eq!(signer().query("shots-1", "a.jpg", NOW), query);
        assert!(query.starts_with("expires=1735693200&signature="), "{query}");
        assert_eq!(query.len(), "expires=1735693200&signature=".len() + 43);
    }

    #[test]
    fn nothing_else_opens_it() {
        let signer = signer();
        let query = signer.query("shots-1", "a.jpg", NOW);
        let (expires, signature) = query.split_once('&').expect("two parameters");
        let later = query.replace("1735693200", "1835693200");
        let shorter = &query[..query.len() - 1];
        let cases = [
            ("nothing", "", UrlRefused::Unsigned),
            ("no signature", expires, UrlRefused::Unsigned),
            ("no end", signature, UrlRefused::Unsigned),
            ("a later end", later.as_str(), UrlRefused::WrongSignature),
            ("a shorter signature", shorter, UrlRefused::WrongSignature),
            ("an empty signature", "expires=1735693200&signature=", UrlRefused::WrongSignature),
            ("an end that is no number", "expires=never&signature=AAAA", UrlRefused::WrongSignature),
            ("other characters", "expires=1735693200&signature=%00%ff", UrlRefused::WrongSignature),
        ];
        for (name, query, refused) in cases {
            assert_eq!(signer.check("shots-1", "a.jpg", query, NOW), Err(refused), "{name}");
        }
        for (bucket, key) in [("shots-1", "b.jpg"), ("shots-2", "a.jpg"), ("shots-1/a.jpg", ""), ("", "shots-1/a.jpg")]
        {
            assert_eq!(signer.check(bucket, key, &query, NOW), Err(UrlRefused::WrongSignature), "{bucket}/{key}");
        }
        let reordered = format!("{signature}&{expires}");
        assert_eq!(signer.check("shots-1", "a.jpg", &reordered, NOW), Ok(()), "the order of parameters means nothing");
    }
}
