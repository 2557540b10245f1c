//! Who signs: credentials from the configuration, or from a file that somebody may replace at any time.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use framehook_domain::secret::Secret;
use framehook_domain::time::Mono;

use crate::store::StoreError;

/// How often the file is looked at. Temporary credentials are renewed minutes before they expire, and looking costs one
/// system call.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Largest file of credentials. Three lines, of which a token is the longest with about 2 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// One set of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Not printed either: who holds the id knows whom to impersonate.
    pub(super) id: Secret,
    pub(super) key: Secret,
    pub(super) token: Option<Secret>,
}

impl Credentials {
    pub(super) fn new(id: &Secret, key: &Secret, token: &Secret) -> Self {
        let token = (!token.expose().is_empty()).then(|| token.clone());
        Self { id: id.clone(), key: key.clone(), token }
    }

    /// Out of lines `name=value`; those of other names, comments and the heads of sections are passed over.
    fn parse(text: &str) -> io::Result<Self> {
        let value = |names: [&str; 2]| {
            text.lines().filter_map(|line| line.split_once('=')).find_map(|(name, value)| {
                let value = value.trim();
                // What cannot stand in a header cannot be what the store gave out.
                let is_usable = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
                (names.contains(&name.trim()) && is_usable).then(|| Secret::new(value))
            })
        };
        let required = |names: [&str; 2]| {
            value(names).ok_or_else(|| {
                let what = format!("it has no usable line {}=… or {}=…", names[0], names[1]);
                io::Error::new(io::ErrorKind::InvalidData, what)
            })
        };
        Ok(Self {
            id: required(["secret_id", "aws_access_key_id"])?,
            key: required(["secret_key", "aws_secret_access_key"])?,
            token: value(["session_token", "aws_session_token"]),
        })
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Self::parse(&text)
    }
}

/// Where credentials come from.
#[derive(Debug)]
pub(super) enum Keys {
    Fixed(Arc<Credentials>),
    File { path: PathBuf, known: Mutex<Known> },
}

/// What was last read of the file.
#[derive(Debug, Default)]
pub(super) struct Known {
    looked: Option<Mono>,
    stamp: Option<(SystemTime, u64)>,
    credentials: Option<Arc<Credentials>>,
}

impl Keys {
    pub(super) fn file(path: &Path) -> Self {
        Self::File { path: path.to_owned(), known: Mutex::default() }
    }

    /// The credentials to sign with. A file that has changed is read again; one that cannot be read any more leaves what was
    /// read before in use.
    ///
    /// # Errors
    /// [`StoreError::Credentials`].
    pub(super) fn current(&self, now: Mono) -> Result<Arc<Credentials>, StoreError> {
        let (path, known) = match self {
            Self::Fixed(credentials) => return Ok(Arc::clone(credentials)),
            Self::File { path, known } => (path, known),
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = &known.credentials
            && known.looked.is_some_and(|looked| now.since(looked) < LOOK_EVERY)
        {
            return Ok(Arc::clone(credentials));
        }
        known.looked = Some(now);
        // A few bytes of a local disk: not worth another thread.
        let read = fs::metadata(path).and_then(|found| {
            let stamp = Some((found.modified()?, found.len()));
            if stamp != known.stamp || known.credentials.is_none() {
                known.credentials = Some(Arc::new(Credentials::read(path)?));
                known.stamp = stamp;
            }
            Ok(())
        });
        match (&known.credentials, read) {
            (Some(credentials), read) => {
                if let Err(error) = read {
                    let path = path.display();
                    tracing::warn!(%path, %error, "credentials cannot be read again; those from before stay in use");
                }
                Ok(Arc::clone(credentials))
            }
            (None, Err(source)) => Err(StoreError::Credentials { path: path.clone(), source }),
            (None, Ok(())) => unreachable!("a file that was read left credentials"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono(Duration::from_secs(secs))
    }

    #[test]
    fn reads_our_names_and_those_of_aws() {
        let files = [
            "secret_id=A\nsecret_key=B\nsession_token=C\n",
            "# temporary\n[default]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\nregion = x\n",
        ];
        for text in files {
            let credentials = Credentials::parse(text).expect(text);
            assert_eq!(credentials, Credentials::new(&Secret::new("A"), &Secret::new("B"), &Secret::new("C")));
        }
        for text in ["", "secret_id=A", "secret_id=A\nsecret_key=", "secret_id=A\nsecret_key=a b"] {
            assert!(Credentials::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("credentials");
        let keys = Keys::file(&path);
        let id = |secs| keys.current(at(secs)).map(|credentials| credentials.id.expose().to_owned());
        assert!(matches!(id(0), Err(StoreError::Credentials { .. })));
        fs::write(&path, "secret_id=A\nsecret_key=B\n").expect("a file");
        assert_eq!(id(0).expect("read"), "A", "what cannot be used is looked for at each use");
        fs::write(&path, "secret_id=longer\nsecret_key=B\n").expect("a file");
        assert_eq!(id(4).expect("read"), "A");
        assert_eq!(id(5).expect("read"), "longer");
        fs::remove_file(&path).expect("removed");
        assert_eq!(id(20).expect("kept"), "longer", "what was read before stays in use");
    }
}
