//! The schema's history, forward only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::{OpenError, create_private};
use crate::durable::{remove_if_there, sync_dir};
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

/// The newest schema that this program knows.
pub(super) fn known() -> i64 {
    MIGRATIONS.len() as i64
}

/// Whether the file was made by this program.
pub(super) fn is_ours(conn: &Connection) -> rusqlite::Result<bool> {
    conn.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0)).map(|id| id == APPLICATION_ID)
}

/// The schema of a file: 0 of a new one. Only reads, so that a file which is not for us is left as it is.
pub(super) fn schema_of(conn: &Connection, path: &Path) -> Result<i64, OpenError> {
    schema_among(conn, path, MIGRATIONS)
}

fn schema_among(conn: &Connection, path: &Path, migrations: &[Migration]) -> Result<i64, OpenError> {
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
    Ok(found)
}

/// Brings a file from schema `found` to the newest one. A file that has data is copied beside itself first.
pub(super) fn run(conn: &mut Connection, path: &Path, found: i64) -> Result<(), OpenError> {
    run_among(conn, path, found, MIGRATIONS)
}

fn run_among(
    conn: &mut Connection,
    path: &Path,
    found: i64,
    migrations: &'static [Migration],
) -> Result<(), OpenError> {
    if found > 0 && found < migrations.len() as i64 {
        copy_beside(conn, path, found)?;
    }
    for (number, migration) in (1..).zip(migrations).skip_while(|(number, _)| *number <= found) {
        let failed = |source| OpenError::Migration { number, name: migration.name, source };
        step(conn, number, migration).map_err(failed)?;
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

    remove_if_there(&partial).and_then(|()| create_private(&partial)).map_err(io_failed)?;
    let mut target = Connection::open(&partial).map_err(failed)?;
    // All pages in one step: nobody else writes during a start.
    Backup::new(conn, &mut target)
        .and_then(|backup| backup.run_to_completion(i32::MAX, Duration::ZERO, None))
        .map_err(failed)?;
    target.close().map_err(|(_, error)| failed(error))?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(io_failed)?;
    fs::rename(&partial, &copy).map_err(io_failed)?;
    sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(|error| io_failed(error.into()))?;
    tracing::info!(copy = %copy.display(), "copied the database before its migration");
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FIRST: Migration = Migration { name: "first", sql: "CREATE TABLE a (x INTEGER) STRICT;" };
    const SECOND: Migration = Migration { name: "second", sql: "CREATE TABLE b (y INTEGER) STRICT;" };
    const BROKEN: Migration =
        Migration { name: "broken", sql: "CREATE TABLE b (y INTEGER) STRICT; INSERT INTO nowhere VALUES (1);" };

    const ONE: &[Migration] = &[FIRST];
    const TWO: &[Migration] = &[FIRST, SECOND];
    const TWO_BROKEN: &[Migration] = &[FIRST, BROKEN];

    fn migrate(path: &Path, migrations: &'static [Migration]) -> Result<Connection, OpenError> {
        let mut conn = Connection::open(path).expect("a database");
        let found = schema_among(&conn, path, migrations)?;
        run_among(&mut conn, path, found, migrations)?;
        Ok(conn)
    }

    fn tables(conn: &Connection) -> Vec<String> {
        let mut select = conn.prepare("SELECT name FROM sqlite_schema ORDER BY name").expect("a statement");
        let names = select.query_map([], |row| row.get(0)).expect("rows");
        names.collect::<Result<_, _>>().expect("names")
    }

    #[test]
    fn a_file_with_data_is_copied_before_it_is_migrated() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("framehook.db");
        let old = migrate(&path, ONE).expect("the first schema");
        old.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        old.execute("INSERT INTO a VALUES (7)", []).expect("a row");
        assert!(!dir.path().join("framehook.db.schema-1").exists(), "a new file needs no copy");
        drop(old);

        let new = migrate(&path, TWO).expect("the second schema");
        assert_eq!(tables(&new), ["a", "b"]);
        assert_eq!(schema_among(&new, &path, TWO).expect("a schema"), 2);
        let mode = fs::metadata(dir.path().join("framehook.db.schema-1")).expect("the copy").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds what the database holds");
        let copy = Connection::open(dir.path().join("framehook.db.schema-1")).expect("the copy");
        assert_eq!(tables(&copy), ["a"]);
        let kept: i64 = copy.query_row("SELECT x FROM a", [], |row| row.get(0)).expect("the row");
        assert_eq!(kept, 7);
        assert_eq!(schema_among(&copy, &path, ONE).expect("a schema the older program takes"), 1);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_schema_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("framehook.db");
        drop(migrate(&path, ONE).expect("the first schema"));
        let failed = migrate(&path, TWO_BROKEN).expect_err("a broken migration");
        assert!(matches!(failed, OpenError::Migration { number: 2, name: "broken", .. }), "{failed:?}");
        let conn = migrate(&path, ONE).expect("the program before it goes on");
        assert_eq!(tables(&conn), ["a"]);
    }

    #[test]
    fn a_copy_cut_short_is_made_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("framehook.db");
        drop(migrate(&path, ONE).expect("the first schema"));
        fs::write(dir.path().join("framehook.db.schema-1.partial"), b"half").expect("a file");
        drop(migrate(&path, TWO).expect("the second schema"));
        assert!(dir.path().join("framehook.db.schema-1").exists());
        assert!(!dir.path().join("framehook.db.schema-1.partial").exists());
    }
}
