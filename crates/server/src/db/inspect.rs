//! A look at a database without changing it, for `doctor`.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row};

use super::secret::{self, KeyCheck, Vault};
use super::{FILE_NAME, migrate, open_reader};

/// What stands in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// No database yet.
    Absent,
    /// One that this program can use.
    Whole {
        /// Its schema.
        schema: i64,
        /// Whether the next start brings it to a newer one.
        migrates: bool,
        /// Size of the file, without its write-ahead log.
        bytes: u64,
    },
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("it has schema {found}, made by a newer Framehook; this one knows schemas up to {known}")]
    Newer { found: i64, known: i64 },
    #[error("{} is no database of Framehook", FILE_NAME)]
    Foreign,
    #[error("it is damaged: {what}")]
    Damaged { what: String },
    #[error("the keys in it were stored under another master key, or that key is gone")]
    WrongMasterKey,
    #[error("it cannot be read")]
    Sqlite(#[from] rusqlite::Error),
}

impl InspectError {
    /// What a person can do about it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Newer { .. } => {
                "start the newer release again, or go back to the copy that it made (framehook.db.schema-N)"
            }
            Self::Foreign => "set data_dir to a directory of Framehook's own",
            Self::Damaged { .. } => {
                "restore framehook.db from a backup; `sqlite3 framehook.db .recover` saves what can be read"
            }
            Self::WrongMasterKey => {
                "put back the key under which they were stored: FRAMEHOOK_MASTER_KEY or DIR/master.key"
            }
            Self::Sqlite(_) => "see whether the server's user may read the file and write to its directory",
        }
    }
}

/// Reads the database of `dir`: its schema, its pages, and whether `vault` opens the secrets in it. Reads every page, which
/// takes seconds for gigabytes. A server may run meanwhile.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(dir: &Path, vault: Option<&Vault>) -> Result<Inspection, InspectError> {
    let path = dir.join(FILE_NAME);
    let Ok(file) = fs::metadata(&path) else { return Ok(Inspection::Absent) };
    if file.len() == 0 {
        return Ok(Inspection::Absent);
    }
    let conn = open_reader(&path)?;
    let schema = check(&conn).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => InspectError::Foreign,
        Some(ErrorCode::DatabaseCorrupt) => InspectError::Damaged { what: error.to_string() },
        _ => InspectError::Sqlite(error),
    })??;
    let known = migrate::known();
    if secret::check(&conn, vault)? == KeyCheck::Refuses {
        return Err(InspectError::WrongMasterKey);
    }
    Ok(Inspection::Whole { schema, migrates: schema < known, bytes: file.len() })
}

/// Where a template of the database puts pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTarget {
    pub app_id: i64,
    pub bucket: String,
    pub region: String,
    /// For how many days numbered pictures are kept there.
    pub retention_days: Option<u16>,
}

/// Every place that a template of the database of `dir` names. None if there is no database, or none that can be read:
/// [`inspect`] says what is wrong with it.
pub fn store_targets(dir: &Path) -> Vec<KnownTarget> {
    let targets = "SELECT app_id, bucket, region, iif(objects = 'latest', NULL, retention_days) FROM snapshot_template
                   UNION SELECT coalesce(rendition.app_id, template.app_id), coalesce(rendition.bucket, template.bucket),
                       coalesce(rendition.region, template.region), iif(objects = 'latest', NULL, retention_days)
                   FROM snapshot_rendition AS rendition JOIN snapshot_template AS template ON template.id = template_id";
    read(dir, targets, |row| {
        let (app_id, bucket, region) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(KnownTarget { app_id, bucket, region, retention_days: row.get(3)? })
    })
}

/// A bucket whose pictures wait for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPlace {
    pub store: String,
    pub bucket: String,
    pub pictures: u64,
    /// Why the put failed that will be made again last.
    pub error: String,
}

/// Every bucket whose pictures wait for a person, by the database of `dir`; none where that cannot be read.
pub fn held_places(dir: &Path) -> Vec<HeldPlace> {
    // Beside `max`, SQLite takes the other columns from the row that has it.
    let held = "SELECT store, bucket, count(*), coalesce(put_error, ''), max(put_due_ms)
                FROM (SELECT store, bucket, put_error, put_due_ms FROM snapshot WHERE put_alarm = 1
                      UNION ALL SELECT store, bucket, put_error, put_due_ms FROM latest_object
                      WHERE is_owed = 1 AND put_alarm = 1)
                GROUP BY store, bucket ORDER BY store, bucket";
    read(dir, held, |row| {
        let pictures: i64 = row.get(2)?;
        let (store, bucket, error) = (row.get(0)?, row.get(1)?, row.get(3)?);
        Ok(HeldPlace { store, bucket, pictures: pictures.unsigned_abs(), error })
    })
}

/// What a query finds in the database of `dir`; nothing where there is none, or none that can be read.
fn read<T>(dir: &Path, sql: &str, row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let path = dir.join(FILE_NAME);
    let read = || -> rusqlite::Result<Vec<T>> {
        let conn = open_reader(&path)?;
        let mut statement = conn.prepare(sql)?;
        statement.query_map([], row)?.collect()
    };
    if path.exists() { read().unwrap_or_default() } else { Vec::new() }
}

fn check(conn: &Connection) -> rusqlite::Result<Result<i64, InspectError>> {
    let (found, known) = (conn.pragma_query_value(None, "user_version", |row| row.get(0))?, migrate::known());
    if !migrate::is_ours(conn)? {
        return Ok(Err(InspectError::Foreign));
    }
    if found > known {
        return Ok(Err(InspectError::Newer { found, known }));
    }
    let first: Option<String> = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).optional()?;
    Ok(match first.as_deref() {
        None | Some("ok") => Ok(found),
        Some(what) => Err(InspectError::Damaged { what: what.to_owned() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::db::{Db, DirLock};
    use crate::entropy::Entropy;
    use crate::fatal::Fatal;

    fn open(dir: &Path) -> (Db, Vault) {
        let lock = DirLock::take(dir).unwrap();
        let vault = Vault::open(&lock, None, &Entropy::system()).unwrap();
        (Db::open(lock, &vault, Clock::start(), Fatal::new()).unwrap(), vault)
    }

    async fn made(dir: &Path) -> Vault {
        let (db, vault) = open(dir);
        db.close().await;
        vault
    }

    #[tokio::test]
    async fn a_database_that_a_start_made_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect(dir.path(), None).unwrap(), Inspection::Absent);
        let vault = made(dir.path()).await;
        let found = inspect(dir.path(), Some(&vault)).unwrap();
        assert!(matches!(found, Inspection::Whole { migrates: false, .. }), "{found:?}");
    }

    #[tokio::test]
    async fn a_running_server_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let (db, vault) = open(dir.path());
        assert!(inspect(dir.path(), Some(&vault)).is_ok());
        db.close().await;
    }

    #[tokio::test]
    async fn each_thing_that_can_be_wrong_is_told_apart() {
        let other = tempfile::tempdir().unwrap();
        let other_vault = made(other.path()).await;

        let dir = tempfile::tempdir().unwrap();
        let vault = made(dir.path()).await;
        assert!(matches!(inspect(dir.path(), Some(&other_vault)), Err(InspectError::WrongMasterKey)));
        assert!(matches!(inspect(dir.path(), None), Err(InspectError::WrongMasterKey)));

        let conn = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(inspect(dir.path(), Some(&vault)), Err(InspectError::Newer { found: 99, .. })));
        conn.pragma_update(None, "application_id", 1).unwrap();
        assert!(matches!(inspect(dir.path(), Some(&vault)), Err(InspectError::Foreign)));
        drop(conn);

        let text = tempfile::tempdir().unwrap();
        fs::write(text.path().join(FILE_NAME), "no database at all, but more than a hundred bytes".repeat(20)).unwrap();
        assert!(matches!(inspect(text.path(), None), Err(InspectError::Foreign)));
    }

    #[tokio::test]
    async fn a_page_that_was_overwritten_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let vault = made(dir.path()).await;
        let path = dir.path().join(FILE_NAME);
        let mut bytes = fs::read(&path).unwrap();
        // The first page holds the header and the schema; what follows are trees.
        let page = 4096;
        assert!(bytes.len() > 4 * page);
        bytes[2 * page..4 * page].fill(0xA5);
        fs::write(&path, bytes).unwrap();
        assert!(
            matches!(inspect(dir.path(), Some(&vault)), Err(InspectError::Damaged { .. })),
            "{:?}",
            inspect(dir.path(), Some(&vault))
        );
    }
}
