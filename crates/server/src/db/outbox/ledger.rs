//! Looking deliveries up.

use std::cmp::Reverse;
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, EventId, SnapshotId, TemplateId};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::EndpointId;
use crate::db::DbError;
use crate::db::row::{blob, number, stream_id, uuid, uuid_opt};
use crate::telemetry::event::Chain;

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
    pub endpoint: Option<EndpointId>,
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

/// Damaged rows that a page is filled up in spite of. More of them than so, side by side, would cut a list short.
const DAMAGED_MAX: usize = 100;

/// A delivery as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRow {
    pub id: DeliveryId,
    pub event: EventId,
    pub kind: EventKind,
    pub stream: StreamId,
    pub snapshot: Option<SnapshotId>,
    pub template: TemplateId,
    pub endpoint: EndpointId,
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
    endpoint_id, endpoint.callback_template_id AS callback_template_id, endpoint.url_override IS NOT NULL AS has_own_url, state,
    attempts, due_ms, delivery.created_ms AS created_ms, settled_ms, outcome";

const TABLES: &str =
    "delivery JOIN event ON event.id = delivery.event_id JOIN endpoint ON endpoint.id = delivery.endpoint_id";

fn delivery_row(row: &Row<'_>) -> Result<DeliveryRow, DbError> {
    let state: String = row.get("state")?;
    Ok(DeliveryRow {
        id: DeliveryId(uuid(row, "id")?),
        event: EventId(uuid(row, "event_id")?),
        kind: EventKind::from_event_type(row.get("kind")?).ok_or(DbError::Damaged { what: "an event's kind" })?,
        stream: stream_id(row)?,
        snapshot: uuid_opt(row, "snapshot_id")?.map(SnapshotId),
        template: TemplateId(row.get("callback_template_id")?),
        endpoint: EndpointId(row.get("endpoint_id")?),
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
    let limit = limit.min(PAGE_ROWS_MAX);
    let mut found = Vec::new();
    for (sql, values) in searches(filter, COLUMNS, limit + DAMAGED_MAX) {
        let mut statement = conn.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut wanted = limit;
        while let Some(row) = rows.next()?.filter(|_| wanted > 0) {
            match delivery_row(row) {
                Ok(row) => {
                    found.push(row);
                    wanted -= 1;
                }
                Err(error) if error.is_fatal() => return Err(error),
                // The others can be shown.
                Err(error) => tracing::error!(error = %Chain(&error), "a damaged delivery cannot be listed"),
            }
        }
    }
    // Each search found its newest; the newest of all are among them.
    found.sort_unstable_by_key(|row| Reverse(row.id));
    found.truncate(limit);
    Ok(found)
}

/// Counts deliveries, up to `max` of them.
///
/// # Errors
/// Those of the database.
pub fn count(conn: &Connection, filter: &Filter, max: usize) -> Result<usize, DbError> {
    let mut count = 0;
    for (sql, values) in searches(filter, "1", max) {
        let sql = format!("SELECT count(*) FROM ({sql})");
        count += conn.prepare(&sql)?.query_row(params_from_iter(values), |row| row.get::<_, u32>(0))? as usize;
    }
    Ok(count.min(max))
}

/// The log holds millions of rows, and a page is a few of them. So there is one search for each group of states that has an
/// index in the order of the page, and each stops at its `limit`.
fn searches(filter: &Filter, columns: &str, limit: usize) -> Vec<(String, Vec<Value>)> {
    let (conditions, values) = conditions(filter);
    let search = |state: &str| {
        let sql =
            format!("SELECT {columns} FROM {TABLES} WHERE {conditions}{state} ORDER BY delivery.id DESC LIMIT {limit}");
        (sql, values.clone())
    };
    if filter.states.is_empty() {
        return vec![search("")];
    }
    let states = |is_wanted: fn(State) -> bool| -> Vec<State> {
        State::ALL.into_iter().filter(|state| is_wanted(*state) && filter.states.contains(state)).collect()
    };
    // Names of ours, in the text: an index over a part of the rows is used only where the text says that part.
    let mut searches = Vec::new();
    let open = states(State::is_open);
    if !open.is_empty() {
        let names: Vec<String> = open.iter().map(|state| format!("'{}'", state.name())).collect();
        searches.push(search(&format!(" AND settled_ms IS NULL AND state IN ({})", names.join(", "))));
    }
    for settled in states(|state| !state.is_open()) {
        searches.push(search(&format!(" AND state = '{}'", settled.name())));
    }
    searches
}

/// Everything but the states, with the values of its parameters.
fn conditions(filter: &Filter) -> (String, Vec<Value>) {
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
    if let Some(endpoint) = filter.endpoint {
        add("delivery.endpoint_id = ?", endpoint.0.into());
    }
    if let Some(kind) = filter.kind {
        add("event.kind = ?", i64::from(kind.event_type()).into());
    }
    // An id begins with the time it was made at, so a time is a place in the order of the page.
    if let Some(since) = filter.since {
        add("delivery.id >= ?", first_id_of(since).to_vec().into());
    }
    if let Some(until) = filter.until {
        add("delivery.id < ?", first_id_of(until).to_vec().into());
    }
    if let Some(before) = filter.before {
        add("delivery.id < ?", blob(before.0).to_vec().into());
    }
    (conditions.join(" AND "), values)
}

/// What no UUIDv7 of that millisecond is below (RFC 9562, 5.7: 48 bits of milliseconds come first).
pub(in crate::db) fn first_id_of(time: UnixMs) -> [u8; 16] {
    const MS_MAX: i64 = (1 << 48) - 1;
    let ms = u128::from(time.0.clamp(0, MS_MAX).unsigned_abs());
    (ms << 80).to_be_bytes()
}

/// One delivery with its event's body and its attempts.
///
/// # Errors
/// Those of the database.
pub fn show(conn: &Connection, id: DeliveryId) -> Result<Option<DeliveryDetail>, DbError> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM {TABLES} WHERE delivery.id = ?1"))?;
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

/// The deliveries of an event, in the order they were made.
///
/// # Errors
/// Those of the database.
pub fn of_event(conn: &Connection, event: EventId) -> Result<Vec<DeliveryRow>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE delivery.event_id = ?1 ORDER BY delivery.id");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([blob(event.0)])?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(delivery_row(row)?);
    }
    Ok(deliveries)
}

/// Gauges of what is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwedCounts {
    pub deliveries_owed: u64,
    pub deliveries_dead: u64,
    /// When the oldest delivery that is owed was made, by the wall clock.
    pub oldest_owed: Option<UnixMs>,
    /// Pictures, those of latest objects among them, that are committed and not stored.
    pub puts_owed: u64,
    /// Those of them that a store refused and a person should look at.
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
        puts_owed: count(
            "SELECT (SELECT count(*) FROM snapshot WHERE put_state = 'owed')
                 + (SELECT count(*) FROM latest_object WHERE is_owed = 1)",
        )?,
        puts_held: count(
            "SELECT (SELECT count(*) FROM snapshot WHERE put_alarm = 1)
                 + (SELECT count(*) FROM latest_object WHERE is_owed = 1 AND put_alarm = 1)",
        )?,
    })
}

#[cfg(test)]
mod tests {
    use framehook_domain::stream::{AppName, DomainName, StreamName};

    use super::*;
    use crate::db::planned;

    #[test]
    fn no_search_that_names_a_state_a_stream_or_a_time_reads_the_whole_log() {
        let conn = planned::database();
        let states = |states: &[State]| Filter { states: states.to_vec(), ..Filter::default() };
        let stream = StreamId {
            domain: DomainName::parse("push.example.com").unwrap(),
            app: AppName::parse("live").unwrap(),
            name: StreamName::parse("room").unwrap(),
        };
        let rows = [
            ("due", states(&[State::Due]), 1),
            ("waiting", states(&[State::Waiting]), 1),
            ("claimed", states(&[State::Claimed]), 1),
            ("dead", states(&[State::Dead]), 1),
            ("cancelled", states(&[State::Cancelled]), 1),
            ("every open one", states(&[State::Waiting, State::Due, State::Claimed]), 1),
            ("what needs a person", states(&[State::Due, State::Dead, State::Cancelled]), 3),
            ("dead ones of a template", Filter { template: Some(TemplateId(1)), ..states(&[State::Dead]) }, 1),
            ("a stream's dead ones", Filter { stream: Some(stream.clone()), ..states(&[State::Dead]) }, 1),
            ("a stream", Filter { stream: Some(stream), ..Filter::default() }, 1),
            ("an endpoint", Filter { endpoint: Some(EndpointId(1)), ..Filter::default() }, 1),
            ("an endpoint's dead ones", Filter { endpoint: Some(EndpointId(1)), ..states(&[State::Dead]) }, 1),
            (
                "an endpoint's delivered ones",
                Filter { endpoint: Some(EndpointId(1)), ..states(&[State::Delivered]) },
                1,
            ),
            ("since", Filter { since: Some(UnixMs(1)), ..Filter::default() }, 1),
            ("until", Filter { until: Some(UnixMs(1)), ..Filter::default() }, 1),
        ];
        for (name, filter, expected) in rows {
            let searches = searches(&filter, COLUMNS, 100);
            assert_eq!(searches.len(), expected, "{name}");
            for (sql, _) in searches {
                let plan = planned::plan(&conn, &sql);
                // Walking an index over a part of the rows, in the page's order, is what is wanted.
                let walks_all = plan.lines().any(|step| {
                    step.starts_with("SCAN delivery")
                        && !["delivery_open", "delivery_dead", "delivery_cancelled"]
                            .iter()
                            .any(|part| step.ends_with(part))
                });
                assert!(!walks_all && !plan.contains("SCAN event"), "{name}:\n{plan}");
            }
        }
    }

    #[test]
    fn a_time_is_a_place_among_the_ids() {
        let id = |ms, random| blob(framehook_domain::id::uuid_v7(UnixMs(ms), [random; 10]));
        let first = |ms| first_id_of(UnixMs(ms));
        for ms in [0, 1, 1_735_689_600_000] {
            assert!(first(ms) <= id(ms, 0) && first(ms + 1) > id(ms, 0xff));
        }
        assert_eq!((first(-1), first(i64::MAX)), (first(0), first((1 << 48) - 1)));
    }
}
