//! Making names durable. A synced file is safe only once the directory that names it is synced as well.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes every name in `dir` durable.
///
/// # Errors
/// What the kernel said. After it nobody knows which names are on the disk: the caller must end the process.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and the missing directories above it below `root`, and makes each of these names durable: those that were
/// there too, since whoever made them may have died before doing so.
///
/// # Errors
/// What the kernel said, for instance that a part of the path is a file.
pub(crate) fn create_dir_all(root: &Path, dir: &Path) -> io::Result<()> {
    let below_root = dir.strip_prefix(root).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut parent = root.to_path_buf();
    for part in below_root.components() {
        let child = parent.join(part);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_dir(&parent)?,
        }
        parent = child;
    }
    Ok(())
}

/// Whether an error says that there is no space left: on the disk, in a quota, or under a file size limit.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
