//! Screenshot tasks. What is configured holds those that are neither stopped nor over; the others are kept to be listed.

use std::time::Duration;

use framehook_domain::id::{TaskId, TemplateId};
use framehook_domain::stream::{AppName, DomainName, StreamName};
use framehook_domain::task::{ScreenshotTask, TaskWindow};
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::row::{blob, stored, stream_id, uuid};
use super::{DbError, Tx};

/// How long after their ends tasks are kept: lists go back 90 days (CSS, 267/70279), for clients whose clocks may be
/// off.
const KEPT: Duration = Duration::from_secs(91 * 86_400);

/// Every task that is neither stopped nor over at `now`, in the order of their creation.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where a row is none that we write.
pub fn open_tasks(conn: &Connection, now: UnixMs) -> Result<Vec<ScreenshotTask>, DbError> {
    let mut statement =
        conn.prepare_cached("SELECT * FROM screenshot_task WHERE stopped_ms IS NULL AND end_ms > ?1 ORDER BY id")?;
    let rows = statement.query_map([now.0], |row| Ok(task(row)))?;
    rows.map(|row| row?).collect()
}

/// Adds a task.
///
/// # Errors
/// Those of the database.
pub fn insert(tx: &Tx<'_>, task: &ScreenshotTask) -> Result<(), DbError> {
    let ScreenshotTask { id, stream, template, window } = task;
    tx.prepare_cached(
        "INSERT INTO screenshot_task (id, domain, app, stream, template_id, start_ms, end_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        blob(id.0),
        stream.domain.as_str(),
        stream.app.as_str(),
        stream.name.as_str(),
        template.0,
        window.start().0,
        window.end().0,
    ])?;
    Ok(())
}

/// Ends a task that is not over.
///
/// # Errors
/// Those of the database.
pub fn stop(tx: &Tx<'_>, id: TaskId, now: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached("UPDATE screenshot_task SET stopped_ms = ?2 WHERE id = ?1 AND stopped_ms IS NULL")?
        .execute(params![blob(id.0), now.0])?;
    Ok(())
}

/// Forgets a task, over or not. Its pictures stay.
///
/// # Errors
/// Those of the database.
pub fn remove(tx: &Tx<'_>, id: TaskId) -> Result<(), DbError> {
    tx.prepare_cached("DELETE FROM screenshot_task WHERE id = ?1")?.execute([blob(id.0)])?;
    Ok(())
}

/// The task of this id, over or not.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where the row is none that we write.
pub fn find(conn: &Connection, id: TaskId) -> Result<Option<ScreenshotTask>, DbError> {
    let mut statement = conn.prepare_cached("SELECT * FROM screenshot_task WHERE id = ?1")?;
    statement.query_row([blob(id.0)], |row| Ok(task(row))).optional()?.transpose()
}

/// As [`find`], with when it was stopped.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where the row is none that we write.
pub fn record_of(conn: &Connection, id: TaskId) -> Result<Option<TaskRecord>, DbError> {
    let mut statement = conn.prepare_cached("SELECT * FROM screenshot_task WHERE id = ?1")?;
    statement.query_row([blob(id.0)], |row| Ok(record(row))).optional()?.transpose()
}

/// Which tasks to list. What is `None` leaves nothing out.
#[derive(Clone, Debug)]
pub struct TaskFilter {
    /// Tasks that begin at this time or later and end at the other or earlier.
    pub since: UnixMs,
    pub until: UnixMs,
    pub domain: Option<DomainName>,
    pub app: Option<AppName>,
    pub stream: Option<StreamName>,
    /// Where the page before ended.
    pub after: Option<TaskId>,
}

/// A task, over or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    pub task: ScreenshotTask,
    pub stopped: Option<UnixMs>,
}

/// At most `limit` tasks in the order of their creation.
///
/// # Errors
/// Those of the database; [`DbError::Damaged`] where a row is none that we write.
pub fn list(conn: &Connection, filter: &TaskFilter, limit: usize) -> Result<Vec<TaskRecord>, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT * FROM screenshot_task
         WHERE start_ms >= :since AND end_ms BETWEEN :since AND :until
             AND (:domain IS NULL OR domain = :domain) AND (:app IS NULL OR app = :app)
             AND (:stream IS NULL OR stream = :stream) AND (:after IS NULL OR id > :after)
         ORDER BY id LIMIT :limit",
    )?;
    let rows = statement.query_map(
        named_params! {
            ":since": filter.since.0,
            ":until": filter.until.0,
            ":domain": filter.domain.as_ref().map(DomainName::as_str),
            ":app": filter.app.as_ref().map(AppName::as_str),
            ":stream": filter.stream.as_ref().map(StreamName::as_str),
            ":after": filter.after.map(|id| blob(id.0)),
            ":limit": stored(limit),
        },
        |row| Ok(record(row)),
    )?;
    rows.map(|row| row?).collect()
}

/// Forgets at most `rows` tasks that no list reaches any more.
///
/// # Errors
/// Those of the database.
pub fn prune(tx: &Tx<'_>, wall: UnixMs, rows: usize) -> Result<usize, DbError> {
    let delete = "DELETE FROM screenshot_task WHERE rowid IN
                      (SELECT rowid FROM screenshot_task WHERE end_ms < ?1 LIMIT ?2)";
    Ok(tx.prepare_cached(delete)?.execute(params![wall.minus(KEPT).0, stored(rows)])?)
}

fn task(row: &Row<'_>) -> Result<ScreenshotTask, DbError> {
    let (start, end) = (UnixMs(row.get("start_ms")?), UnixMs(row.get("end_ms")?));
    Ok(ScreenshotTask {
        id: TaskId(uuid(row, "id")?),
        stream: stream_id(row)?,
        template: TemplateId(row.get("template_id")?),
        window: TaskWindow::from_stored(start, end).ok_or(DbError::Damaged { what: "a screenshot task" })?,
    })
}

fn record(row: &Row<'_>) -> Result<TaskRecord, DbError> {
    Ok(TaskRecord { task: task(row)?, stopped: row.get::<_, Option<i64>>("stopped_ms")?.map(UnixMs) })
}
