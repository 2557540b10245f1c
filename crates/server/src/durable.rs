//! Making names durable. A synced file is safe only once the directory that names it is synced as well.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why names were not made durable.
#[derive(Debug)]
pub(crate) enum DirError {
    /// Nothing was synced: no descriptor was free, the directory is gone. A later try is as good as this one was.
    NotTried(io::Error),
    /// The sync failed. Nobody knows which names are on the disk: the process must end.
    Sync(io::Error),
}

/// For a start, which every error ends.
impl From<DirError> for io::Error {
    fn from(error: DirError) -> Self {
        match error {
            DirError::NotTried(error) | DirError::Sync(error) => error,
        }
    }
}

/// A directory that stays open, so that syncing it takes no descriptor when there may be none.
#[derive(Debug)]
pub(crate) struct OpenDir(File);

impl OpenDir {
    /// # Errors
    /// What the kernel said.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        File::open(dir).map(Self)
    }

    /// Makes every name in it durable.
    ///
    /// # Errors
    /// What the kernel said. After it nobody knows which names are on the disk: the caller must end the process.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Makes every name in `dir` durable.
///
/// # Errors
/// See [`DirError`].
pub(crate) fn sync_dir(dir: &Path) -> Result<(), DirError> {
    OpenDir::open(dir).map_err(DirError::NotTried)?.sync().map_err(DirError::Sync)
}

/// Creates `dir` and the missing directories above it below `root`, and makes each of these names durable: those that were
/// there too, since whoever made them may have died before doing so.
///
/// # Errors
/// See [`DirError`]; before a sync for instance that a part of the path is a file.
pub(crate) fn create_dir_all(root: &Path, dir: &Path) -> Result<(), DirError> {
    let below_root = dir.strip_prefix(root).map_err(|_| DirError::NotTried(io::ErrorKind::InvalidInput.into()))?;
    let mut parent = root.to_path_buf();
    for part in below_root.components() {
        let child = parent.join(part);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(DirError::NotTried(error)),
            _ => sync_dir(&parent)?,
        }
        parent = child;
    }
    Ok(())
}

/// Creates the data directory and what is missing above it, readable by its owner only, and makes its name durable. One
/// that a person made keeps its mode.
///
/// # Errors
/// What the kernel said.
pub(crate) fn create_data_dir(dir: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(dir)?;
    let missing: Vec<&Path> = absolute.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(part) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_dir(part.parent().unwrap_or(part))?,
        }
    }
    match sync_dir(absolute.parent().unwrap_or(&absolute)) {
        // It was there, and whoever keeps what is above it does not let us look: its name is theirs to keep.
        Err(DirError::NotTried(error)) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => Ok(synced?),
    }
}

/// Writes a file that is not there yet, readable by its owner only, so that after a crash at any instant it is either whole
/// or absent. It never takes the place of another file.
///
/// # Errors
/// What the kernel said, for instance that there is a file of this name.
pub(crate) fn write_new_private(path: &Path, text: &str) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // Left behind by a process that was killed.
    remove_if_there(&partial)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(&partial, path) {
        Ok(()) => fs::remove_file(&partial)?,
        Err(error) if cannot_link(&error) && !path.exists() => fs::rename(&partial, path)?,
        Err(error) => {
            fs::remove_file(&partial)?;
            return Err(error);
        }
    }
    Ok(sync_dir(path.parent().unwrap_or(Path::new(".")))?)
}

/// Removes a file that may not be there.
///
/// # Errors
/// What else the kernel said.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error says that there is no space left: on the disk, in a quota, or under a file size limit.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Whether a file cannot be hard-linked where a copy or a rename still can work: another file system, one without links, a
/// file with too many of them, or a kernel that protects links to files of other owners.
pub(crate) fn cannot_link(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS)
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_data_directory_that_we_make_is_its_owner_s_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("not/yet");
        create_data_dir(&dir).unwrap();
        create_data_dir(&dir).unwrap();
        assert_eq!([mode(&dir), mode(dir.parent().unwrap())], [0o700; 2]);

        let given = parent.path().join("given");
        DirBuilder::new().create(&given).unwrap();
        fs::set_permissions(&given, fs::Permissions::from_mode(0o755)).unwrap();
        create_data_dir(&given).unwrap();
        assert_eq!(mode(&given), 0o755);
    }

    #[test]
    fn a_new_private_file_takes_the_place_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join("key.partial"), "half of ano").unwrap();
        write_new_private(&path, "one\n").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one\n", 0o600));
        let refused = write_new_private(&path, "two\n").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
