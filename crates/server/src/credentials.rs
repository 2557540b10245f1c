//! The credentials of this deployment: one SecretId and SecretKey in `DIR/credentials`, made at the first start.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use framehook_domain::secret::Secret;
use framehook_domain::time::Mono;

use crate::durable::write_new_private;
use crate::entropy::Entropy;

/// The file inside the data directory.
pub const FILE_NAME: &str = "credentials";

/// Wrong credentials from one address that are answered as such within [`WINDOW`]: enough for a person who mistypes. After
/// them the answer says to wait, so that a program with an old key shows up in its own log.
const FAILURES_MAX: u32 = 20;

/// The window in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered. When more than these fail within a window the oldest are forgotten, so that the memory
/// stays bounded whoever tries.
const ADDRESSES_MAX: usize = 10_000;

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

/// The pair, and who has failed to present it lately.
#[derive(Debug)]
pub struct Credentials {
    pub secret_id: String,
    secret_key: Secret,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Mono,
    count: u32,
}

impl Credentials {
    /// Reads `DIR/credentials`, or makes it, readable by its owner only. The flag says whether it was made now.
    ///
    /// # Errors
    /// When the file cannot be read or written, or lacks a line.
    pub fn open(dir: &Path, entropy: &Entropy) -> Result<(Self, bool), CredentialsError> {
        let path = dir.join(FILE_NAME);
        let failed = |source| CredentialsError::Io { path: path.clone(), source };
        let (text, made) = match fs::read_to_string(&path) {
            Ok(text) => (text, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (id, key) = (token(&entropy.draw::<20>()), token(&entropy.draw::<20>()));
                let text = format!("secret_id=FHID{id}\nsecret_key={key}\n");
                write_new_private(&path, &text).map_err(failed)?;
                (text, true)
            }
            Err(error) => return Err(failed(error)),
        };
        let line = |name: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| CredentialsError::Missing { path: path.clone(), name })
        };
        let credentials = Self {
            secret_id: line("secret_id")?.to_owned(),
            secret_key: Secret::new(line("secret_key")?),
            failures: Mutex::default(),
        };
        Ok((credentials, made))
    }

    /// The key, for showing it once to the person at the terminal of the first start.
    pub fn secret_key(&self) -> &Secret {
        &self.secret_key
    }

    /// Judges an `Authorization` header of a request from `peer`. The right credentials are always taken, since an address
    /// may be a proxy's, which the one who guesses shares with everybody; how often wrong ones are looked at makes no
    /// difference to a key of 160 bits.
    ///
    /// # Errors
    /// See [`LoginError`]. Nothing of the header is in it.
    pub fn check(&self, authorization: Option<&str>, peer: IpAddr, now: Mono) -> Result<(), LoginError> {
        let presented = authorization.ok_or(LoginError::Missing)?;
        if self.is_ours(presented) {
            return Ok(());
        }
        Err(self.note_wrong(peer, now))
    }

    /// The key that requests of this SecretId are signed with, if it is ours.
    pub fn key_of(&self, secret_id: &str) -> Option<&Secret> {
        (secret_id == self.secret_id).then_some(&self.secret_key)
    }

    /// Notes that `peer` has presented wrong credentials, and says what to answer.
    pub fn note_wrong(&self, peer: IpAddr, now: Mono) -> LoginError {
        if self.has_failed_too_often(peer, now) {
            return LoginError::TooMany;
        }
        self.note_failure(peer, now);
        LoginError::Wrong
    }

    fn is_ours(&self, presented: &str) -> bool {
        let equal = |given: &[u8], ours: &str| verify_slices_are_equal(given, ours.as_bytes()).is_ok();
        let Some((scheme, value)) = presented.split_once(' ') else { return false };
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return equal(value.as_bytes(), self.secret_key.expose());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        let Ok(pair) = STANDARD.decode(value) else { return false };
        let Some(colon) = pair.iter().position(|&byte| byte == b':') else { return false };
        // Both are compared, whatever the first says, so that the time tells nothing about the id.
        equal(&pair[..colon], &self.secret_id) & equal(&pair[colon + 1..], self.secret_key.expose())
    }

    fn has_failed_too_often(&self, peer: IpAddr, now: Mono) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&peer).is_some_and(|failed| now.since(failed.since) < WINDOW && failed.count >= FAILURES_MAX)
    }

    fn note_failure(&self, peer: IpAddr, now: Mono) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&peer) {
            failures.retain(|_, failed| now.since(failed.since) < WINDOW);
            if failures.len() >= ADDRESSES_MAX
                && let Some(oldest) = failures.iter().min_by_key(|(_, failed)| failed.since).map(|(peer, _)| *peer)
            {
                failures.remove(&oldest);
            }
        }
        let failed = failures.entry(peer).or_insert(Failures { since: now, count: 0 });
        if now.since(failed.since) >= WINDOW {
            *failed = Failures { since: now, count: 0 };
        }
        failed.count += 1;
    }
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn the_first_start_makes_a_pair_that_later_starts_read() {
        let dir = tempfile::tempdir().unwrap();
        let (first, made) = Credentials::open(dir.path(), &Entropy::system()).unwrap();
        assert!(made);
        assert!(first.secret_id.starts_with("FHID") && first.secret_key.expose().len() == 32);
        let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, made) = Credentials::open(dir.path(), &Entropy::system()).unwrap();
        assert!(!made);
        assert_eq!((again.secret_id, again.secret_key.expose()), (first.secret_id, first.secret_key.expose()));
        assert!(!format!("{:?}", first.secret_key).contains(first.secret_key.expose()));
    }

    #[test]
    fn a_file_without_a_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "secret_id=x\n").unwrap();
        let error = Credentials::open(dir.path(), &Entropy::system()).unwrap_err();
        assert!(matches!(error, CredentialsError::Missing { name: "secret_key", .. }), "{error}");
    }

    #[test]
    fn bearer_and_basic_are_taken_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, _) = Credentials::open(dir.path(), &Entropy::system()).unwrap();
        let (id, key) = (credentials.secret_id.clone(), credentials.secret_key.expose().to_owned());
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
        assert_eq!(credentials.check(None, PEER, at(0)), Err(LoginError::Missing));
    }

    #[test]
    fn guessing_is_slowed_for_the_address_that_guesses_and_locks_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, _) = Credentials::open(dir.path(), &Entropy::system()).unwrap();
        let good = format!("Bearer {}", credentials.secret_key.expose());
        for _ in 0..FAILURES_MAX {
            assert_eq!(credentials.check(Some("Bearer guess"), PEER, at(1)), Err(LoginError::Wrong));
        }
        assert_eq!(credentials.check(Some("Bearer guess"), PEER, at(2)), Err(LoginError::TooMany));
        assert_eq!(credentials.check(Some("Bearer guess"), OTHER, at(2)), Err(LoginError::Wrong));
        assert_eq!(credentials.check(Some(&good), PEER, at(2)), Ok(()), "it may be a proxy's address");
        assert_eq!(credentials.check(Some("Bearer guess"), PEER, at(61)), Err(LoginError::Wrong), "after the window");
    }
}
