//! Pairs in files that only their owner can read: `DIR/credentials`, and keys that were made where no terminal could show them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use framehook_domain::secret::Secret;

use super::{CredentialsError, FILE_NAME, new_pair};
use crate::durable::{create_dir_all, write_new_private};
use crate::entropy::Entropy;

/// The directory for new keys, inside the data directory.
const NEW_KEYS: &str = "keys";

/// Reads `DIR/credentials`, or makes it. The flag says whether it was made now.
pub(super) fn open(dir: &Path, entropy: &Entropy) -> Result<((String, Secret), bool), CredentialsError> {
    let path = dir.join(FILE_NAME);
    let failed = |source| CredentialsError::Io { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text, &path).map(|pair| (pair, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (id, key) = new_pair(entropy);
            write_new_private(&path, &lines(&id, &key)).map_err(failed)?;
            Ok(((id, key), true))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a new key to `DIR/keys/<id>`, readable by its owner only, and says where that is. Whoever hands the key on removes
/// the file.
///
/// # Errors
/// What the kernel said, for instance that the file is there already.
pub fn write_new_key(dir: &Path, id: &str, key: &Secret) -> io::Result<PathBuf> {
    let keys = dir.join(NEW_KEYS);
    create_dir_all(dir, &keys)?;
    // Not a path of the caller's making: ids are letters and digits.
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = keys.join(id);
    write_new_private(&path, &lines(id, key))?;
    Ok(path)
}

fn lines(id: &str, key: &Secret) -> String {
    format!("secret_id={id}\nsecret_key={}\n", key.expose())
}

fn parse(text: &str, path: &Path) -> Result<(String, Secret), CredentialsError> {
    let line = |name: &'static str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| CredentialsError::Missing { path: path.to_owned(), name })
    };
    Ok((line("secret_id")?.to_owned(), Secret::new(line("secret_key")?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_a_pair_that_later_starts_read() {
        let dir = tempfile::tempdir().unwrap();
        let ((id, key), made) = open(dir.path(), &Entropy::system()).unwrap();
        assert!(made);
        assert!(id.starts_with("FHID") && key.expose().len() == 32);
        assert_eq!(mode(&dir.path().join(FILE_NAME)), 0o600);
        assert_eq!(open(dir.path(), &Entropy::system()).unwrap(), ((id, key.clone()), false));
        assert!(!format!("{key:?}").contains(key.expose()));
    }

    #[test]
    fn a_file_without_a_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "secret_id=x\n").unwrap();
        let error = open(dir.path(), &Entropy::system()).unwrap_err();
        assert!(matches!(error, CredentialsError::Missing { name: "secret_key", .. }), "{error}");
    }

    #[test]
    fn a_new_key_lies_where_only_its_owner_reads_it_and_takes_no_files_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = write_new_key(dir.path(), "FHID1", &Secret::new("s3cret")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret_id=FHID1\nsecret_key=s3cret\n");
        assert_eq!(mode(&path), 0o600);
        assert!(write_new_key(dir.path(), "FHID1", &Secret::new("another")).is_err());
        assert!(write_new_key(dir.path(), "../credentials", &Secret::new("another")).is_err());
    }
}
