//! The schema's history, forward only, and the lock that keeps a second process out.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;
use rustix::fs::FlockOperation;

use super::OpenError;
use crate::durable::sync_dir;
use crate::fail_point;

/// Marks the file as ours (`PRAGMA application_id`): "FHdb".
const APPLICATION_ID: i32 = 0x4648_6462;

struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// Migration `n` (from 1) makes schema `n` of schema `n − 1`. Never edit one that was released: add another.
const MIGRATIONS: &[Migration] =
    &[Migration { name: "start", sql: include_str!("../../../../migrations/0001-start.sql") }];

/// The schema that this version works with.
pub(super) const LATEST: i64 = MIGRATIONS.len() as i64;

/// The newest schema that this program knows.
pub(super) fn known() -> i64 {
    MIGRATIONS.len() as i64
}

/// Whether the file was made by this program.
pub(super) fn is_ours(conn: &Connection) -> rusqlite::Result<bool> {
    conn.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0)).map(|id| id == APPLICATION_ID)
}

/// Brings the file to the newest schema. A file that has data is copied beside itself first.
pub(super) fn run(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    run_all(conn, path, MIGRATIONS)
}

fn run_all(conn: &mut Connection, path: &Path, migrations: &'static [Migration]) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let known = migrations.len() as i64;
    if tables > 0 && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    if found > 0 && found < known {
        copy_beside(conn, path, found)?;
    }
    for (number, migration) in (1..).zip(migrations).skip_while(|(number, _)| *number <= found) {
        step(conn, number, migration).map_err(|source| OpenError::Migration {
            number,
            name: migration.name,
            source,
        })?;
    }
    Ok(())
}

fn step(conn: &mut Connection, number: i64, migration: &Migration) -> rusqlite::Result<()> {
    let tx = conn.transaction()?;
    tx.execute_batch(migration.sql)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", number)?;
    fail_point::pass("migration_step");
    tx.commit()?;
    tracing::info!(number, name = migration.name, "the database has a new schema");
    Ok(())
}

/// Copies the database as it is now to `framehook.db.schema-N`, through a name of its own so that a copy cut short by a
/// crash is never taken for a whole one.
fn copy_beside(conn: &Connection, path: &Path, schema: i64) -> Result<(), OpenError> {
    let copy = with_suffix(path, &format!(".schema-{schema}"));
    let partial = with_suffix(&copy, ".partial");
    let failed = |source| OpenError::Copy { path: copy.clone(), source };
    let io_failed = |source: std::io::Error| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(source)));

    if let Err(error) = fs::remove_file(&partial)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(io_failed(error));
    }
    let mut target = Connection::open(&partial).map_err(failed)?;
    // All pages in one step: nobody else writes during a start.
    Backup::new(conn, &mut target)
        .and_then(|backup| backup.run_to_completion(i32::MAX, Duration::ZERO, None))
        .map_err(failed)?;
    target.close().map_err(|(_, error)| failed(error))?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(io_failed)?;
    fs::rename(&partial, &copy).map_err(io_failed)?;
    sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io_failed)?;
    tracing::info!(copy = %copy.display(), "copied the database before its migration");
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The data directory's lock (`DIR/lock`), free again when the process ends in whatever way.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { path: dir.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message: the file may be read while its holder writes it.
                let _ = (&file).take(32).read_to_string(&mut holder);
                return Err(OpenError::Locked { path: dir.to_owned(), pid: holder.trim().parse().ok() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
