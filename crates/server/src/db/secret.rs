//! Secrets at rest: callback keys, push keys and URLs that may hold a password, sealed under one master key.
//!
//! The master key comes from `FRAMEHOOK_MASTER_KEY` or lies in `DIR/master.key`, which the first start creates. A copy of
//! the database alone gives none of the secrets away; a database whose master key is lost has to be told them again.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rusqlite::{Connection, OptionalExtension as _};

use super::DirLock;
use crate::durable::write_new_private;
use crate::entropy::Entropy;

/// The variable that takes precedence over the file.
pub const MASTER_KEY_ENV: &str = "FRAMEHOOK_MASTER_KEY";

/// The file inside the data directory.
const KEY_FILE: &str = "master.key";

const MASTER_KEY_BYTES: usize = 32;

/// First byte of everything sealed, so that another scheme can be told apart from this one.
const SCHEME: u8 = 1;

/// Why there is no usable master key. Each ends the start.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("FRAMEHOOK_MASTER_KEY must be 32 bytes as base64 or as 64 hexadecimal digits")]
    BadVariable,
    #[error("{} must hold 32 bytes as base64 or as 64 hexadecimal digits", path.display())]
    BadFile { path: PathBuf },
    #[error("cannot read or create the master key {}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// A sealed value could not be opened: another key, another purpose, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value could not be opened with this master key")]
pub struct Unopened;

/// Seals and opens secrets. Clones share the key.
#[derive(Clone)]
pub struct Vault {
    key: Arc<RandomizedNonceKey>,
    digest_key: hmac::Key,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(***)")
    }
}

impl Vault {
    /// Takes the key from `variable` (the value of [`MASTER_KEY_ENV`]) or else from `DIR/master.key`, creating that file
    /// (mode 0600) if it is missing.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn open(lock: &DirLock, variable: Option<&str>, entropy: &Entropy) -> Result<Self, VaultError> {
        if let Some(known) = Self::open_known(lock.dir(), variable)? {
            return Ok(known);
        }
        let path = lock.dir().join(KEY_FILE);
        let key: [u8; MASTER_KEY_BYTES] = entropy.draw();
        write_new_private(&path, &format!("{}\n", BASE64_STANDARD.encode(key)))
            .map_err(|source| VaultError::File { path, source })?;
        Ok(Self::with_key(key))
    }

    /// Like [`Vault::open`], but makes no key where there is none.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn open_known(dir: &Path, variable: Option<&str>) -> Result<Option<Self>, VaultError> {
        if let Some(text) = variable {
            return parse_key(text).map(|key| Some(Self::with_key(key))).ok_or(VaultError::BadVariable);
        }
        let path = dir.join(KEY_FILE);
        let failed = |source| VaultError::File { path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
                if mode & 0o077 != 0 {
                    tracing::warn!(path = %path.display(), "the master key can be read by others; chmod 600 it");
                }
                parse_key(&text).map(|key| Some(Self::with_key(key))).ok_or(VaultError::BadFile { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn with_key(key: [u8; MASTER_KEY_BYTES]) -> Self {
        // A key of its own for digests, so that no key serves two algorithms.
        let digest_key = hmac::sign(&hmac::Key::new(HMAC_SHA256, &key), b"framehook digest");
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).expect("AES-256 takes 32 bytes");
        Self { key: Arc::new(key), digest_key: hmac::Key::new(HMAC_SHA256, digest_key.as_ref()) }
    }

    /// A digest of `secret` that only this key's holder can make: tells equal secrets and gives nothing to guess at.
    pub fn digest(&self, purpose: &str, secret: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.digest_key);
        // No purpose holds a NUL, so that no two pairs are the same text.
        for part in [purpose.as_bytes(), b"\0", secret.as_bytes()] {
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Seals `secret`. `purpose` (for instance the column's name) is bound to it: a sealed value copied to another column
    /// does not open there.
    pub fn seal(&self, purpose: &str, secret: &str) -> Vec<u8> {
        let mut text = secret.as_bytes().to_vec();
        let aad = Aad::from(purpose.as_bytes());
        let nonce = self.key.seal_in_place_append_tag(aad, &mut text).expect("the secret is far below AES-GCM's limit");
        [&[SCHEME], nonce.as_ref().as_slice(), &text].concat()
    }

    /// Opens what [`Vault::seal`] sealed for the same purpose.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open_sealed(&self, purpose: &str, sealed: &[u8]) -> Result<String, Unopened> {
        let (scheme, rest) = sealed.split_first().ok_or(Unopened)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(Unopened)?;
        if *scheme != SCHEME {
            return Err(Unopened);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened)?;
        let mut text = text.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut text).map_err(|_| Unopened)?;
        String::from_utf8(opened.to_vec()).map_err(|_| Unopened)
    }
}

fn parse_key(text: &str) -> Option<[u8; MASTER_KEY_BYTES]> {
    let text = text.trim();
    let bytes = if text.len() == 2 * MASTER_KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = text.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).ok());
        digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>()?
    } else {
        BASE64_STANDARD.decode(text).ok()?
    };
    bytes.try_into().ok()
}

const CHECK_PURPOSE: &str = "meta.key_check";
const CHECK_TEXT: &str = "framehook";

/// What a database says of the key under which its secrets are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyCheck {
    /// It has none yet: it takes any key.
    Unset,
    /// It is this vault's.
    Opens,
    /// It is another, or there is no vault.
    Refuses,
}

/// Compares `vault`'s key with the one under which this database's secrets are sealed.
pub(super) fn check(conn: &Connection, vault: Option<&Vault>) -> rusqlite::Result<KeyCheck> {
    let stored: Option<Option<Vec<u8>>> =
        conn.query_row("SELECT key_check FROM meta", [], |row| row.get(0)).optional()?;
    let Some(sealed) = stored.flatten() else { return Ok(KeyCheck::Unset) };
    let opened = vault.map(|vault| vault.open_sealed(CHECK_PURPOSE, &sealed));
    Ok(if opened == Some(Ok(CHECK_TEXT.to_owned())) { KeyCheck::Opens } else { KeyCheck::Refuses })
}

/// Binds a new database to `vault`'s key.
pub(super) fn bind(conn: &Connection, vault: &Vault) -> rusqlite::Result<()> {
    conn.execute("UPDATE meta SET key_check = ?1", [vault.seal(CHECK_PURPOSE, CHECK_TEXT)]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(dir: &Path) -> Vault {
        let lock = DirLock::take(dir).expect("a lock");
        Vault::open(&lock, None, &Entropy::system()).expect("a vault")
    }

    #[test]
    fn opens_what_it_sealed_and_only_for_the_same_purpose() {
        let dir = tempfile::tempdir().expect("a directory");
        let vault = vault(dir.path());
        let sealed = vault.seal("callback_key", "hunter2");
        assert_eq!(vault.open_sealed("callback_key", &sealed).as_deref(), Ok("hunter2"));
        assert_eq!(vault.open_sealed("push_key", &sealed), Err(Unopened));
        assert_ne!(vault.seal("callback_key", "hunter2"), sealed, "the nonce must differ");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn opens_nothing_that_was_changed_or_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let vault = vault(dir.path());
        let sealed = vault.seal("a", "secret");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(vault.open_sealed("a", &changed), Err(Unopened), "byte {at}");
            assert_eq!(vault.open_sealed("a", &sealed[..at]), Err(Unopened), "cut at {at}");
        }
    }

    #[test]
    fn creates_a_private_key_file_and_uses_it_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let sealed = vault(dir.path()).seal("a", "secret");
        assert_eq!(vault(dir.path()).open_sealed("a", &sealed).as_deref(), Ok("secret"));
        let mode = fs::metadata(dir.path().join("master.key")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn reads_keys_as_base64_and_as_hexadecimal() {
        let dir = tempfile::tempdir().expect("a directory");
        let hex = "07".repeat(32);
        let base64 = BASE64_STANDARD.encode([7; 32]);
        let lock = DirLock::take(dir.path()).expect("a lock");
        let open = |text: &str| Vault::open(&lock, Some(text), &Entropy::system());
        let sealed = open(&hex).expect("hexadecimal").seal("a", "secret");
        assert_eq!(open(&base64).expect("base64").open_sealed("a", &sealed).as_deref(), Ok("secret"));
        for bad in ["", "abc", &"07".repeat(31), &BASE64_STANDARD.encode([7; 31])] {
            assert!(matches!(open(bad), Err(VaultError::BadVariable)), "{bad}");
        }
        assert!(!dir.path().join("master.key").exists(), "a given key makes no file");
    }
}
