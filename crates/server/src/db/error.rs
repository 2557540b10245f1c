//! Why the database did not do something, and what that means for whoever asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why a database operation did not happen. Nothing of it is stored then.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DbError {
    /// No space left. What is owed stays owed; try again later.
    #[error("the disk or the database is full")]
    Full,
    /// Another process, for instance an operator's `sqlite3` shell, kept the file locked. Try again later.
    #[error("another process keeps the database locked")]
    Busy,
    /// The database has stopped, after [`Fatal`](crate::fatal::Fatal) or because it was closed. It will not answer until the next start.
    #[error("the database has stopped")]
    Stopped,
    /// A stored value is not one that we ever write.
    #[error("{what} in the database is damaged")]
    Damaged { what: &'static str },
    /// Any other failure of a statement: a broken constraint, or a defect of ours.
    #[error("a database statement failed")]
    Statement(#[source] Arc<rusqlite::Error>),
}

impl DbError {
    /// Whether a UNIQUE or PRIMARY KEY constraint refused a row.
    pub fn is_taken(&self) -> bool {
        let Self::Statement(error) = self else { return false };
        matches!(
            error.sqlite_extended_error_code(),
            Some(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
        )
    }

    /// Whether the same write may succeed later without anybody's doing wrong.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full | Self::Busy)
    }

    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Statement(error) if is_fatal(error))
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        if is_full(&error) {
            Self::Full
        } else if is_busy(&error) {
            Self::Busy
        } else {
            Self::Statement(Arc::new(error))
        }
    }
}

/// Whether SQLite ran out of space. Growing the shared-memory file is a write as well, but has an error code of its own;
/// that file is only an index over the WAL, rebuilt at will, so no data hangs on it.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || is_index_full(error)
}

/// Whether only the index over the WAL could not grow. A commit that ends so has its pages in the WAL already, where the next
/// start finds them.
pub(super) fn is_index_full(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Whether another process holds the lock, after the wait for it.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the writer may not go on after this error: the file or the memory under it cannot be trusted.
pub(super) fn is_fatal(error: &rusqlite::Error) -> bool {
    !is_full(error)
        && matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::OutOfMemory
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
            )
        )
}

/// Why the database could not be opened. Each ends the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use the data directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("another Framehook{} uses the data directory {}", holder(pid), path.display())]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("{} has schema {found}, made by a newer Framehook; this one knows schemas up to {known}", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} is not a Framehook database", path.display())]
    Foreign { path: PathBuf },
    #[error("SQLite {found} is too old, at least {} is needed", dotted(super::SQLITE_VERSION_MIN))]
    OldSqlite { found: String },
    #[error("cannot open {}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("migration {number} ({name}) failed")]
    Migration { number: i64, name: &'static str, source: rusqlite::Error },
    #[error("cannot copy the database to {} before its migration", path.display())]
    Copy { path: PathBuf, source: rusqlite::Error },
    #[error(
        "the master key does not open the keys stored in {}: start with the key under which they were stored \
         (FRAMEHOOK_MASTER_KEY or DIR/master.key)",
        path.display()
    )]
    WrongMasterKey { path: PathBuf },
    #[error("cannot start the database's thread")]
    Thread(#[source] io::Error),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn dotted(version: i32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000)
}
