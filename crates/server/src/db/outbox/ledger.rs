//! Looking deliveries up.

use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, EventId, SnapshotId, TemplateId};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use crate::db::DbError;
use crate::db::row::{blob, number, stream_id, uuid, uuid_opt};

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Its picture is not stored yet.
    Waiting,
    /// An attempt falls due.
    Due,
    /// An attempt is under way.
    Claimed,
    /// The receiver said 200.
    Delivered,
    /// Given up, replayable.
    Dead,
    /// Ended by a person.
    Cancelled,
}

impl State {
    pub const ALL: [Self; 6] = [Self::Waiting, Self::Due, Self::Claimed, Self::Delivered, Self::Dead, Self::Cancelled];

    /// The name in the database, in commands and in `/v1`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Due => "due",
            Self::Claimed => "claimed",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether an attempt may still follow by itself.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Due | Self::Claimed)
    }
}

/// Which deliveries to list. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty: every state.
    pub states: Vec<State>,
    pub stream: Option<StreamId>,
    pub template: Option<TemplateId>,
    pub kind: Option<EventKind>,
    /// Made at or after.
    pub since: Option<UnixMs>,
    /// Made before.
    pub until: Option<UnixMs>,
    /// The page after this delivery: those that are older.
    pub before: Option<DeliveryId>,
}

/// Most rows of one page.
pub const PAGE_ROWS_MAX: usize = 1000;

/// A delivery as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRow {
    pub id: DeliveryId,
    pub event: EventId,
    pub kind: EventKind,
    pub stream: StreamId,
    pub snapshot: Option<SnapshotId>,
    pub template: TemplateId,
    /// Whether it goes to a URL given for a replay.
    pub has_own_url: bool,
    pub state: State,
    /// Attempts made, all rounds together.
    pub attempts: u32,
    /// When the next attempt falls due, on the [`Timeline`](crate::timeline::Timeline); of use only in state `due`.
    pub due: UnixMs,
    pub created: UnixMs,
    pub settled: Option<UnixMs>,
    /// The last attempt's outcome, or why it was settled without one.
    pub outcome: Option<String>,
}

/// One recorded attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// From 1.
    pub number: u32,
    pub started: UnixMs,
    pub duration: Duration,
    pub status: Option<u16>,
    pub outcome: String,
    pub error: Option<String>,
    pub response: Option<String>,
    /// Masked.
    pub url: String,
}

/// A delivery with everything that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryDetail {
    pub row: DeliveryRow,
    /// The event's body without `t` and `sign`.
    pub body: String,
    /// In the order they were made.
    pub attempts: Vec<AttemptRow>,
}

const COLUMNS: &str = "delivery.id AS id, delivery.event_id AS event_id, event.kind AS kind, event.domain AS domain,
    event.app AS app, event.stream AS stream, event.snapshot_id AS snapshot_id, event.body AS body,
    endpoint.callback_template_id AS callback_template_id, endpoint.url_override IS NOT NULL AS has_own_url, state,
    attempts, due_ms, delivery.created_ms AS created_ms, settled_ms, outcome
    FROM delivery JOIN event ON event.id = delivery.event_id JOIN endpoint ON endpoint.id = delivery.endpoint_id";

fn delivery_row(row: &Row<'_>) -> Result<DeliveryRow, DbError> {
    let state: String = row.get("state")?;
    Ok(DeliveryRow {
        id: DeliveryId(uuid(row, "id")?),
        event: EventId(uuid(row, "event_id")?),
        kind: EventKind::from_event_type(row.get("kind")?).ok_or(DbError::Damaged { what: "an event's kind" })?,
        stream: stream_id(row)?,
        snapshot: uuid_opt(row, "snapshot_id")?.map(SnapshotId),
        template: TemplateId(row.get("callback_template_id")?),
        has_own_url: row.get("has_own_url")?,
        state: State::from_name(&state).ok_or(DbError::Damaged { what: "a delivery's state" })?,
        attempts: number(row, "attempts")?,
        due: UnixMs(row.get("due_ms")?),
        created: UnixMs(row.get("created_ms")?),
        settled: row.get::<_, Option<i64>>("settled_ms")?.map(UnixMs),
        outcome: row.get("outcome")?,
    })
}

/// Lists deliveries, the newest first, at most `limit` and [`PAGE_ROWS_MAX`]. The next page is the one
/// [`before`](Filter::before) the last of this.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, filter: &Filter, limit: usize) -> Result<Vec<DeliveryRow>, DbError> {
    let mut conditions = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    let mut add = |condition, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    if let Some(stream) = &filter.stream {
        add("event.domain = ?", stream.domain.as_str().to_owned().into());
        add("event.app = ?", stream.app.as_str().to_owned().into());
        add("event.stream = ?", stream.name.as_str().to_owned().into());
    }
    if let Some(template) = filter.template {
        add("endpoint.callback_template_id = ?", template.0.into());
    }
    if let Some(kind) = filter.kind {
        add("event.kind = ?", i64::from(kind.event_type()).into());
    }
    if let Some(since) = filter.since {
        add("delivery.created_ms >= ?", since.0.into());
    }
    if let Some(until) = filter.until {
        add("delivery.created_ms < ?", until.0.into());
    }
    if let Some(before) = filter.before {
        add("delivery.id < ?", blob(before.0).to_vec().into());
    }
    // Names of ours, in the text so that the partial index of a single state can be used.
    let states: Vec<String> = filter.states.iter().map(|state| format!("state = '{}'", state.name())).collect();
    let states = if states.is_empty() { "1".to_owned() } else { states.join(" OR ") };
    let limit = limit.min(PAGE_ROWS_MAX);
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT {COLUMNS} WHERE {conditions} AND ({states}) ORDER BY delivery.id DESC LIMIT {limit}");
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(delivery_row(row)?);
    }
    Ok(found)
}

/// One delivery with its event's body and its attempts.
///
/// # Errors
/// Those of the database.
pub fn show(conn: &Connection, id: DeliveryId) -> Result<Option<DeliveryDetail>, DbError> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE delivery.id = ?1"))?;
    let mut rows = statement.query([blob(id.0)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (body, row) = (row.get("body")?, delivery_row(row)?);
    let mut statement = conn.prepare_cached(
        "SELECT number, started_ms, duration_ms, status, outcome, error, response, url FROM attempt
         WHERE delivery_id = ?1 ORDER BY number",
    )?;
    let mut rows = statement.query([blob(id.0)])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(AttemptRow {
            number: number(row, "number")?,
            started: UnixMs(row.get("started_ms")?),
            duration: Duration::from_millis(number(row, "duration_ms")?),
            status: row.get("status")?,
            outcome: row.get("outcome")?,
            error: row.get("error")?,
            response: row.get("response")?,
            url: row.get("url")?,
        });
    }
    Ok(Some(DeliveryDetail { row, body, attempts }))
}

/// Gauges of what is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwedCounts {
    pub deliveries_owed: u64,
    pub deliveries_dead: u64,
    /// When the oldest delivery that is owed was made, by the wall clock.
    pub oldest_owed: Option<UnixMs>,
    pub puts_owed: u64,
    /// Those that a store refused and a person should look at.
    pub puts_held: u64,
}

/// Counts what is owed. Each count walks one partial index.
///
/// # Errors
/// Those of the database.
pub fn owed_counts(conn: &Connection) -> Result<OwedCounts, DbError> {
    let count = |sql: &str| -> Result<u64, DbError> {
        let rows: i64 = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(rows.unsigned_abs())
    };
    let oldest = "SELECT created_ms FROM delivery WHERE settled_ms IS NULL ORDER BY id LIMIT 1";
    Ok(OwedCounts {
        deliveries_owed: count("SELECT count(*) FROM delivery WHERE settled_ms IS NULL")?,
        deliveries_dead: count("SELECT count(*) FROM delivery WHERE state = 'dead'")?,
        oldest_owed: conn.prepare_cached(oldest)?.query_row([], |row| row.get(0)).optional()?.map(UnixMs),
        puts_owed: count("SELECT count(*) FROM snapshot WHERE put_state = 'owed'")?,
        puts_held: count("SELECT count(*) FROM snapshot WHERE put_alarm = 1")?,
    })
}
