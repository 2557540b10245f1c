//! What has happened, page by page: attempts at callbacks, and pushes that have ended. Both go back as far as the log does.

use std::time::Duration;

use framehook_domain::id::uuid_v7;
use framehook_domain::retry::Outcome;
use framehook_domain::stream::{AppName, DomainName, StreamId};
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, Row, named_params};

use super::DbError;
use super::row::{blob, number, stored, stream_id};

/// A part of a list, and how many there are in all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T> {
    pub total: u64,
    pub rows: Vec<T>,
}

/// Where a part begins and how many rows it has at most.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub offset: u64,
    pub limit: u64,
}

/// Which attempts to list. What is `None` leaves nothing out.
#[derive(Clone, Debug)]
pub struct AttemptFilter {
    /// Of any domain and app.
    pub stream_name: String,
    /// When the event happened; both ends belong to it.
    pub since: UnixMs,
    pub until: UnixMs,
    pub event_type: Option<i64>,
    /// Whether the receiver said 200.
    pub is_delivered: Option<bool>,
}

/// One attempt at a callback, with what it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    pub event_at: UnixMs,
    pub event_type: i64,
    /// Without `t` and `sign`, which were made for the attempt alone.
    pub body: String,
    pub stream_name: String,
    pub ended_at: UnixMs,
    pub outcome: Outcome,
    /// The beginning of what the receiver answered, if it did.
    pub response: Option<String>,
}

/// Attempts in the order of their events.
///
/// # Errors
/// Those of the database.
pub fn attempts(conn: &Connection, filter: &AttemptFilter, range: Range) -> Result<Part<AttemptRecord>, DbError> {
    // The times of events are the fronts of their ids, so that the index over streams answers for both.
    let first = blob(uuid_v7(filter.since, [0; 10]));
    let last = blob(uuid_v7(filter.until, [0xFF; 10]));
    let from =
        "FROM event JOIN delivery ON delivery.event_id = event.id JOIN attempt ON attempt.delivery_id = delivery.id
         WHERE event.stream = :stream AND event.id BETWEEN :first AND :last
             AND (:event_type IS NULL OR event.kind = :event_type)
             AND (:is_delivered IS NULL OR (attempt.outcome = 'delivered') = :is_delivered)";
    let total = conn.prepare_cached(&format!("SELECT count(*) AS total {from}"))?.query_row(
        named_params! {
            ":stream": filter.stream_name, ":first": first, ":last": last, ":event_type": filter.event_type,
            ":is_delivered": filter.is_delivered,
        },
        |row| Ok(number(row, "total")),
    )??;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT event.created_ms AS event_ms, event.kind AS kind, event.body AS body, event.stream AS stream,
             attempt.started_ms AS started_ms, attempt.duration_ms AS duration_ms, attempt.status AS status,
             attempt.outcome AS outcome, attempt.response AS response
         {from} ORDER BY event.id, delivery.id, attempt.number LIMIT :limit OFFSET :offset"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":stream": filter.stream_name, ":first": first, ":last": last, ":event_type": filter.event_type,
            ":is_delivered": filter.is_delivered, ":limit": stored(range.limit), ":offset": stored(range.offset),
        },
        |row| Ok(attempt_record(row)),
    )?;
    Ok(Part { total, rows: rows.map(|row| row?).collect::<Result<_, DbError>>()? })
}

fn attempt_record(row: &Row<'_>) -> Result<AttemptRecord, DbError> {
    let outcome: String = row.get("outcome")?;
    let took = Duration::from_millis(number(row, "duration_ms")?);
    Ok(AttemptRecord {
        event_at: UnixMs(row.get("event_ms")?),
        event_type: row.get("kind")?,
        body: row.get("body")?,
        stream_name: row.get("stream")?,
        ended_at: UnixMs(row.get("started_ms")?).plus(took),
        outcome: Outcome::from_name(&outcome, row.get("status")?).ok_or(DbError::Damaged { what: "an outcome" })?,
        response: row.get("response")?,
    })
}

/// Which pushes to list. What is `None` leaves nothing out.
#[derive(Clone, Debug)]
pub struct PushFilter {
    /// When the push ended; both ends belong to it.
    pub since: UnixMs,
    pub until: UnixMs,
    pub domain: Option<DomainName>,
    pub app: Option<AppName>,
    pub stream_name: Option<NameFilter>,
    /// The latest end first unless set.
    pub is_ascending: bool,
}

/// How a stream's name is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFilter {
    Whole(String),
    Part(String),
}

/// A push that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPush {
    pub stream: StreamId,
    pub opened_at: UnixMs,
    pub ended_at: UnixMs,
    pub last_media: UnixMs,
    pub errmsg: String,
    pub user_ip: String,
    /// Pixels, 0 when never known.
    pub width: u32,
    pub height: u32,
}

/// Pushes in the order of their ends.
///
/// # Errors
/// Those of the database.
pub fn ended_pushes(conn: &Connection, filter: &PushFilter, range: Range) -> Result<Part<EndedPush>, DbError> {
    let from = "FROM push WHERE ended_ms BETWEEN :since AND :until
             AND (:domain IS NULL OR domain = :domain) AND (:app IS NULL OR app = :app)
             AND (:name IS NULL OR CASE :is_whole WHEN 1 THEN stream = :name ELSE instr(stream, :name) > 0 END)";
    let (name, is_whole) = match &filter.stream_name {
        None => (None, false),
        Some(NameFilter::Whole(name)) => (Some(name), true),
        Some(NameFilter::Part(name)) => (Some(name), false),
    };
    let (domain, app) = (filter.domain.as_ref().map(DomainName::as_str), filter.app.as_ref().map(AppName::as_str));
    let total = conn.prepare_cached(&format!("SELECT count(*) AS total {from}"))?.query_row(
        named_params! {
            ":since": filter.since.0, ":until": filter.until.0, ":domain": domain, ":app": app, ":name": name,
            ":is_whole": is_whole,
        },
        |row| Ok(number(row, "total")),
    )??;
    let order = if filter.is_ascending { "ASC" } else { "DESC" };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT domain, app, stream, opened_ms, ended_ms, last_media_ms, errmsg, user_ip, width, height {from}
         ORDER BY ended_ms {order}, sequence {order} LIMIT :limit OFFSET :offset"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":since": filter.since.0, ":until": filter.until.0, ":domain": domain, ":app": app, ":name": name,
            ":is_whole": is_whole, ":limit": stored(range.limit), ":offset": stored(range.offset),
        },
        |row| Ok(ended_push(row)),
    )?;
    Ok(Part { total, rows: rows.map(|row| row?).collect::<Result<_, DbError>>()? })
}

fn ended_push(row: &Row<'_>) -> Result<EndedPush, DbError> {
    Ok(EndedPush {
        stream: stream_id(row)?,
        opened_at: UnixMs(row.get("opened_ms")?),
        ended_at: UnixMs(row.get("ended_ms")?),
        last_media: UnixMs(row.get("last_media_ms")?),
        errmsg: row.get("errmsg")?,
        user_ip: row.get("user_ip")?,
        width: number(row, "width")?,
        height: number(row, "height")?,
    })
}
