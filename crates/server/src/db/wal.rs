//! The write-ahead log as a file, for syncs that no commit waits for.

use std::fs::File;
use std::io;
use std::path::Path;

use super::DbError;
use super::writer::PART;
use crate::fatal::Fatal;

/// Open beside SQLite, which keeps its file for as long as a connection is open and takes no locks on it that closing ours
/// could lose.
#[derive(Debug)]
pub(super) struct Wal {
    file: File,
    fatal: Fatal,
}

impl Wal {
    pub(super) fn open(path: &Path, fatal: Fatal) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, fatal })
    }

    /// Syncs every commit in it. Those that a checkpoint has taken out were synced by that. Needs no room on the disk. Blocks.
    ///
    /// # Errors
    /// [`DbError::Stopped`]: it failed, now or earlier, which is fatal.
    pub(super) fn sync(&self) -> Result<(), DbError> {
        if self.fatal.is_raised() {
            return Err(DbError::Stopped);
        }
        self.file.sync_data().map_err(|error| {
            self.fatal.raise(PART, error);
            DbError::Stopped
        })
    }
}
