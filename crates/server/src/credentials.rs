//! Who may come in: the pair in `DIR/credentials`, made at the first start, and the keys that were added since.
//!
//! A key is asked for at each request, so one that is revoked is refused from the next request on, whatever connection it
//! comes over. [`KeyStore`](crate::key_store::KeyStore) adds and revokes.

mod failures;
mod file;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use framehook_domain::secret::Secret;
use framehook_domain::time::{Mono, UnixMs};
use tokio_util::sync::CancellationToken;

use crate::entropy::Entropy;
use failures::Failures;

pub use file::write_new_key;

/// The file inside the data directory.
pub const FILE_NAME: &str = "credentials";

/// What the pair of that file is called where keys have names.
pub const FIRST_NAME: &str = "credentials";

/// Why credentials could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} has no line `{name}=…`", path.display())]
    Missing { path: PathBuf, name: &'static str },
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("credentials are needed: `Authorization: Bearer <secret_key>`, or Basic with secret_id and secret_key")]
    Missing,
    #[error("the credentials are wrong")]
    Wrong,
    #[error("too many wrong credentials from this address; wait a minute")]
    TooMany,
}

/// One SecretId and its SecretKey.
#[derive(Debug)]
pub struct AccessKey {
    /// The SecretId, which is no secret.
    pub id: String,
    pub name: String,
    /// Whether it only reads.
    pub read_only: bool,
    /// `None`: it stands in `DIR/credentials`.
    pub created: Option<UnixMs>,
    secret: Secret,
    revoked: CancellationToken,
    /// Wall ms of the last request that it let in; 0: never.
    used_ms: AtomicI64,
}

impl AccessKey {
    pub(crate) fn new(id: String, name: String, read_only: bool, created: Option<UnixMs>, secret: Secret) -> Self {
        Self { id, name, read_only, created, secret, revoked: CancellationToken::new(), used_ms: AtomicI64::new(0) }
    }

    /// For signing, and for showing it once to who has asked for it.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Ends what goes on under this key once it is revoked.
    pub fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    /// Notes a request that it let in.
    pub fn note_use(&self, wall: UnixMs) {
        self.used_ms.fetch_max(wall.0, Ordering::Relaxed);
    }

    /// When it last let a request in.
    pub fn last_used(&self) -> Option<UnixMs> {
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        (used_ms > 0).then_some(UnixMs(used_ms))
    }
}

/// The keys in force, and who has failed to present one lately.
#[derive(Debug)]
pub struct Credentials {
    first: Arc<AccessKey>,
    added: RwLock<Vec<Arc<AccessKey>>>,
    failures: Failures,
}

impl Credentials {
    /// Reads `DIR/credentials`, or makes it, readable by its owner only. The flag says whether it was made now.
    ///
    /// # Errors
    /// When the file cannot be read or written, or lacks a line.
    pub fn open(dir: &Path, entropy: &Entropy) -> Result<(Self, bool), CredentialsError> {
        let ((id, secret), made) = file::open(dir, entropy)?;
        let first = Arc::new(AccessKey::new(id, FIRST_NAME.to_owned(), false, None, secret));
        Ok((Self { first, added: RwLock::default(), failures: Failures::default() }, made))
    }

    /// The pair of the file.
    pub fn first(&self) -> &Arc<AccessKey> {
        &self.first
    }

    /// Every key in force, the file's first.
    pub fn all(&self) -> Vec<Arc<AccessKey>> {
        let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
        [&self.first].into_iter().chain(added.iter()).cloned().collect()
    }

    pub(crate) fn put_in_force(&self, key: Arc<AccessKey>) {
        self.added.write().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    pub(crate) fn put_out_of_force(&self, id: &str) {
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        for key in added.extract_if(.., |key| key.id == id) {
            key.revoked.cancel();
        }
    }

    /// Judges an `Authorization` header of a request from `peer`. The right credentials are always taken, since an address
    /// may be a proxy's, which the one who guesses shares with everybody; how often wrong ones are looked at makes no
    /// difference to a key of 160 bits.
    ///
    /// # Errors
    /// See [`LoginError`]. Nothing of the header is in it.
    pub fn check(&self, authorization: Option<&str>, peer: IpAddr, now: Mono) -> Result<Arc<AccessKey>, LoginError> {
        let presented = authorization.ok_or(LoginError::Missing)?;
        self.presented(presented).ok_or_else(|| self.note_wrong(peer, now))
    }

    /// The key that requests of this SecretId are signed with, if it is ours.
    pub fn key_of(&self, secret_id: &str) -> Option<Arc<AccessKey>> {
        if secret_id == self.first.id {
            return Some(Arc::clone(&self.first));
        }
        self.added.read().unwrap_or_else(PoisonError::into_inner).iter().find(|key| key.id == secret_id).cloned()
    }

    /// Notes that `peer` has presented wrong credentials, and says what to answer.
    pub fn note_wrong(&self, peer: IpAddr, now: Mono) -> LoginError {
        if self.failures.are_too_many(peer, now) { LoginError::TooMany } else { LoginError::Wrong }
    }

    /// The key that a header presents. Every key is compared in full, so that the time it takes tells only how many there are.
    fn presented(&self, header: &str) -> Option<Arc<AccessKey>> {
        let equal = |given: &[u8], ours: &str| verify_slices_are_equal(given, ours.as_bytes()).is_ok();
        let (scheme, value) = header.split_once(' ')?;
        let value = value.trim();
        let mut found = None;
        if scheme.eq_ignore_ascii_case("bearer") {
            for key in self.all() {
                if equal(value.as_bytes(), key.secret.expose()) {
                    found = Some(key);
                }
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(value).ok()?;
            let colon = pair.iter().position(|&byte| byte == b':')?;
            for key in self.all() {
                if equal(&pair[..colon], &key.id) & equal(&pair[colon + 1..], key.secret.expose()) {
                    found = Some(key);
                }
            }
        }
        found
    }
}

/// A new SecretId and SecretKey; the key has 160 random bits.
pub(crate) fn new_pair(entropy: &Entropy) -> (String, Secret) {
    (format!("FHID{}", token(&entropy.draw::<20>())), Secret::new(&token(&entropy.draw::<20>())))
}

/// Letters and digits that survive copying: base32 without the pairs that look alike (Crockford's alphabet).
pub(crate) fn token(random: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut token = String::with_capacity(random.len() * 8 / 5);
    for five in random.chunks_exact(5) {
        let bits = five.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        token.extend((0..8).rev().map(|place| char::from(ALPHABET[(bits >> (place * 5) & 31) as usize])));
    }
    token
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::failures::FAILURES_MAX;
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn open(dir: &Path) -> Credentials {
        Credentials::open(dir, &Entropy::system()).unwrap().0
    }

    fn bearer(key: &AccessKey) -> String {
        format!("Bearer {}", key.secret.expose())
    }

    #[test]
    fn bearer_and_basic_are_taken_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = open(dir.path());
        let (id, key) = (credentials.first.id.clone(), credentials.first.secret.expose().to_owned());
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let cases = [
            ("bearer", format!("Bearer {key}"), true),
            ("scheme in lower case", format!("bearer {key}"), true),
            ("basic", basic(&format!("{id}:{key}")), true),
            ("another key", format!("Bearer {key}x"), false),
            ("another id", basic(&format!("x{id}:{key}")), false),
            ("no colon", basic(&key), false),
            ("no base64", "Basic ***".to_owned(), false),
            ("no scheme", key.clone(), false),
            ("another scheme", format!("Digest {key}"), false),
        ];
        for (name, header, good) in cases {
            assert_eq!(credentials.check(Some(&header), PEER, at(0)).is_ok(), good, "{name}");
        }
        assert_eq!(credentials.check(None, PEER, at(0)).unwrap_err(), LoginError::Missing);
    }

    #[test]
    fn each_key_is_known_by_its_own_secret_until_it_is_out_of_force() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = open(dir.path());
        let (id, secret) = new_pair(&Entropy::system());
        let added = Arc::new(AccessKey::new(id.clone(), "ci".to_owned(), true, Some(UnixMs(1)), secret));
        credentials.put_in_force(Arc::clone(&added));
        for key in [&added, &credentials.first] {
            assert_eq!(credentials.check(Some(&bearer(key)), PEER, at(0)).unwrap().id, key.id);
            let pair = STANDARD.encode(format!("{}:{}", key.id, key.secret.expose()));
            assert_eq!(credentials.check(Some(&format!("Basic {pair}")), PEER, at(0)).unwrap().id, key.id);
            assert_eq!(credentials.key_of(&key.id).unwrap().id, key.id);
        }
        let crossed = STANDARD.encode(format!("{}:{}", added.id, credentials.first.secret.expose()));
        assert_eq!(
            credentials.check(Some(&format!("Basic {crossed}")), PEER, at(0)).unwrap_err(),
            LoginError::Wrong,
            "the key of another id"
        );
        credentials.put_out_of_force(&id);
        assert_eq!(credentials.check(Some(&bearer(&added)), PEER, at(0)).unwrap_err(), LoginError::Wrong);
        assert!(credentials.key_of(&id).is_none());
        assert!(credentials.check(Some(&bearer(&credentials.first)), PEER, at(0)).is_ok());
    }

    #[test]
    fn guessing_is_slowed_for_the_address_that_guesses_and_locks_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = open(dir.path());
        let check = |header: &str, peer, now| credentials.check(Some(header), peer, at(now)).map(|key| key.id.clone());
        for _ in 0..FAILURES_MAX {
            assert_eq!(check("Bearer guess", PEER, 1), Err(LoginError::Wrong));
        }
        assert_eq!(check("Bearer guess", PEER, 2), Err(LoginError::TooMany));
        assert_eq!(check("Bearer guess", OTHER, 2), Err(LoginError::Wrong));
        assert!(check(&bearer(&credentials.first), PEER, 2).is_ok(), "it may be a proxy's address");
        assert_eq!(check("Bearer guess", PEER, 61), Err(LoginError::Wrong), "after the window");
    }

    #[test]
    fn a_use_never_goes_back() {
        let key = AccessKey::new("FHID1".to_owned(), "ci".to_owned(), false, None, Secret::new("s"));
        assert_eq!(key.last_used(), None);
        key.note_use(UnixMs(5));
        key.note_use(UnixMs(3));
        assert_eq!(key.last_used(), Some(UnixMs(5)));
    }
}
