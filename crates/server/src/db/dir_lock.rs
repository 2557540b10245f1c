//! The lock that keeps a second process out of the data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::OpenError;
use crate::durable::create_data_dir;

/// How often a lock that another process has is tried again.
const TRIED_EVERY: Duration = Duration::from_millis(50);

/// The data directory, locked (`DIR/lock`) until this is dropped or the process ends in whatever way. Whatever makes files
/// in it at the start asks for this first, so that two first starts at once cannot make two keys.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    _file: File,
}

impl DirLock {
    /// Locks `dir`, making it if it is missing.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another process has it, [`OpenError::Directory`] if it cannot be used.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { path: dir.to_owned(), source };
        create_data_dir(dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(dir.join("lock")).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message: the file may be read while its holder writes it.
                let _ = (&file).take(32).read_to_string(&mut holder);
                return Err(OpenError::Locked { path: dir.to_owned(), pid: holder.trim().parse().ok() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), _file: file })
    }

    /// As [`DirLock::take`], and waits up to `patience` for another process to let go: a command that works on the directory
    /// without a server has it for some milliseconds.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub async fn take_within(dir: &Path, patience: Duration) -> Result<Self, OpenError> {
        let mut waited = Duration::ZERO;
        loop {
            match Self::take(dir) {
                Err(OpenError::Locked { .. }) if waited < patience => {
                    tokio::time::sleep(TRIED_EVERY).await;
                    waited += TRIED_EVERY;
                }
                taken => return taken,
            }
        }
    }

    /// The locked directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_in_use_is_waited_for_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path()).unwrap();
        let patience = Duration::from_secs(2);
        assert!(matches!(DirLock::take_within(dir.path(), patience).await, Err(OpenError::Locked { .. })));
        let taken = DirLock::take_within(dir.path(), patience);
        tokio::pin!(taken);
        assert!(tokio::time::timeout(patience / 2, &mut taken).await.is_err(), "it waits");
        drop(held);
        taken.await.expect("it is free now");
    }
}
