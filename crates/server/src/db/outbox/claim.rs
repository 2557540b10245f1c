//! Taking up deliveries that are due. Which of them, and in what order, is decided in `notify`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, SnapshotId, TemplateId};
use framehook_domain::retry::DeadReason;
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Buried, EndpointId};
use crate::db::row::{blob, number, stored, stream_id, uuid, uuid_opt};
use crate::db::{DbError, Epoch, Tx};
use crate::telemetry::event::Chain;

/// One claim of a delivery among all that were ever made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId {
    pub delivery: DeliveryId,
    /// From 1.
    pub number: u64,
}

/// A delivery that this process has taken up.
#[derive(Clone, Debug)]
pub struct Claim {
    pub id: ClaimId,
    pub endpoint: Arc<EndpointRow>,
    /// Which attempt this is, from 1, all rounds together.
    pub attempt: u32,
    /// Which attempt of its round this is, from 1: what the schedule counts.
    pub attempt_of_round: u32,
    /// All waits of its round.
    pub waited: Duration,
    /// The event's body without `t` and `sign`.
    pub body: Vec<u8>,
    /// What the event is about.
    pub stream: StreamId,
    /// The picture's trace and the wall clock at its arrival, for event 200.
    pub picture: Option<(SnapshotId, UnixMs)>,
}

/// A row of the endpoints: what the configuration is asked about before each attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointRow {
    pub id: EndpointId,
    pub template: TemplateId,
    pub kind: EventKind,
    /// Sealed; instead of the template's URL.
    pub url_override: Option<Vec<u8>>,
}

/// Which of an endpoint's deliveries are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Any,
    /// Those that have had an attempt in this round.
    Begun,
}

/// The endpoints for which something fell due on a connection. Those of a transaction that did not last may be among them:
/// whoever looks there finds nothing. In memory, since a table would take a third of the statements about a picture.
#[derive(Debug, Default)]
pub(in crate::db) struct NewlyDue(Mutex<BTreeSet<i64>>);

impl NewlyDue {
    pub(in crate::db) fn is_any(&self) -> bool {
        !self.noted().is_empty()
    }

    fn noted(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the connection note every endpoint for which something falls due, whatever statement does it, so that a look at the
/// outbox needs to look at those alone.
pub(in crate::db) fn watch_due(conn: &Connection) -> rusqlite::Result<Arc<NewlyDue>> {
    let newly_due = Arc::<NewlyDue>::default();
    let (noted, taken) = (Arc::clone(&newly_due), Arc::clone(&newly_due));
    conn.create_scalar_function("note_due", 1, FunctionFlags::SQLITE_UTF8, move |context| {
        noted.noted().insert(context.get(0)?);
        Ok(None::<i64>)
    })?;
    conn.create_scalar_function("take_due", 0, FunctionFlags::SQLITE_UTF8, move |_| Ok(taken.noted().pop_first()))?;
    conn.execute_batch(
        "CREATE TEMP TRIGGER delivery_made_due AFTER INSERT ON main.delivery WHEN new.state = 'due'
         BEGIN SELECT note_due(new.endpoint_id); END;
         CREATE TEMP TRIGGER delivery_became_due AFTER UPDATE OF state, due_ms, endpoint_id ON main.delivery
         WHEN new.state = 'due'
         BEGIN SELECT note_due(new.endpoint_id); END;",
    )?;
    Ok(newly_due)
}

/// The endpoints for which something fell due, or will, since this was asked last. Nobody is told of them again, so whoever
/// asks in a transaction that then fails has to look at all.
///
/// # Errors
/// Those of the database.
pub fn newly_due(tx: &Tx<'_>) -> Result<Vec<EndpointId>, DbError> {
    let mut take = tx.prepare_cached("SELECT take_due()")?;
    let mut found = Vec::new();
    while let Some(id) = take.query_row([], |row| row.get(0))? {
        found.push(EndpointId(id));
    }
    Ok(found)
}

/// Every endpoint that has a delivery in state `due`, by skipping from one to the next in the index: as many steps as
/// endpoints, however many deliveries there are.
///
/// # Errors
/// Those of the database.
pub fn all_due(tx: &Tx<'_>) -> Result<Vec<EndpointId>, DbError> {
    endpoints(
        tx,
        "WITH RECURSIVE skip (id) AS (
             SELECT (SELECT min(endpoint_id) FROM delivery WHERE state = 'due')
             UNION ALL
             SELECT (SELECT min(endpoint_id) FROM delivery WHERE state = 'due' AND endpoint_id > skip.id)
             FROM skip WHERE skip.id IS NOT NULL
         )
         SELECT id FROM skip WHERE id IS NOT NULL",
    )
}

fn endpoints(tx: &Tx<'_>, sql: &str) -> Result<Vec<EndpointId>, DbError> {
    let mut statement = tx.prepare_cached(sql)?;
    let found = statement.query_map([], |row| row.get(0).map(EndpointId))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// An endpoint, if it is still there.
///
/// # Errors
/// Those of the database.
pub fn endpoint(conn: &Connection, id: EndpointId) -> Result<Option<EndpointRow>, DbError> {
    conn.prepare_cached("SELECT id, callback_template_id, kind, url_override FROM endpoint WHERE id = ?1")?
        .query_row([id.0], |row| Ok(endpoint_row(row)))
        .optional()?
        .transpose()
}

pub(super) fn endpoint_row(row: &Row<'_>) -> Result<EndpointRow, DbError> {
    Ok(EndpointRow {
        id: EndpointId(row.get("id")?),
        template: TemplateId(row.get("callback_template_id")?),
        kind: EventKind::from_event_type(row.get("kind")?).ok_or(DbError::Damaged { what: "an endpoint's kind" })?,
        url_override: row.get("url_override")?,
    })
}

/// A delivery in state `due`: its row and when it is or was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    row: i64,
    pub at: UnixMs,
}

/// The first of each of these endpoints' deliveries in state `due`, by their due times; at most `limit` of each. Endpoints
/// without any are left out.
///
/// # Errors
/// Those of the database.
pub fn first_due(
    tx: &Tx<'_>,
    endpoints: &[EndpointId],
    which: Which,
    limit: usize,
) -> Result<HashMap<EndpointId, Vec<Due>>, DbError> {
    let asked: Vec<i64> = endpoints.iter().map(|endpoint| endpoint.0).collect();
    let mut first = tx.prepare_cached(match (which, &asked[..]) {
        (Which::Any, [_]) => FIRST_ANY_OF_ONE,
        (Which::Any, _) => FIRST_ANY,
        (Which::Begun, _) => FIRST_BEGUN,
    })?;
    let asked = match which {
        Which::Any => one_or_list(&asked),
        Which::Begun => Value::Text(list(&asked)),
    };
    let mut rows = first.query(params![asked, stored(limit)])?;
    let mut found: HashMap<EndpointId, Vec<Due>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let due = Due { row: row.get("rowid")?, at: UnixMs(row.get("due_ms")?) };
        found.entry(EndpointId(row.get("endpoint_id")?)).or_default().push(due);
    }
    // They were found by their due times and read by their places in the table.
    found.values_mut().for_each(|due| due.sort_unstable_by_key(|due| (due.at, due.row)));
    Ok(found)
}

// Most looks find something due for one endpoint: what unpacks a list would be half of their work.
const FIRST_ANY_OF_ONE: &str =
    "SELECT rowid, due_ms, endpoint_id FROM delivery WHERE state = 'due' AND endpoint_id = ?1
     ORDER BY due_ms LIMIT ?2";
// The conditions stand in the text: SQLite uses their partial indexes only then. CROSS JOIN keeps the order of the tables.
const FIRST_ANY: &str = "SELECT delivery.rowid, due_ms, endpoint_id FROM json_each(?1) AS asked CROSS JOIN delivery
     WHERE delivery.rowid IN (SELECT rowid FROM delivery AS first WHERE state = 'due' AND endpoint_id = asked.value
                              ORDER BY due_ms LIMIT ?2)";
const FIRST_BEGUN: &str = "SELECT delivery.rowid, due_ms, endpoint_id FROM json_each(?1) AS asked CROSS JOIN delivery
     WHERE delivery.rowid IN (SELECT rowid FROM delivery AS first
                              WHERE state = 'due' AND attempts > round_start AND endpoint_id = asked.value
                              ORDER BY due_ms LIMIT ?2)";

/// Rows of the database or endpoints, for a statement about all of them.
fn list(numbers: &[i64]) -> String {
    serde_json::json!(numbers).to_string()
}

/// The parameter of a statement about one, or of one about a list.
fn one_or_list(numbers: &[i64]) -> Value {
    match numbers {
        [one] => Value::Integer(*one),
        many => Value::Text(list(many)),
    }
}

macro_rules! claimed_columns {
    () => {
        "SELECT delivery.id AS id, claims, attempts, attempts - round_start AS tried, waited_ms,
            event.body AS body, event.domain AS domain, event.app AS app, event.stream AS stream,
            snapshot.trace AS trace, snapshot.create_time_ms AS create_time_ms"
    };
}

/// Claims deliveries that were found to be due in the same transaction, each with where it goes: two statements, however many
/// they are. The claims come in the same order. Where the row is damaged there is none, and the delivery is dead now, as one
/// that no attempt could be made of; `Err(None)`: not even its id can be read.
///
/// # Errors
/// Those of the database.
pub fn claim(
    tx: &Tx<'_>,
    epoch: Epoch,
    wall: UnixMs,
    due: &[(Due, Arc<EndpointRow>)],
) -> Result<Vec<Result<Claim, Option<Buried>>>, DbError> {
    let asked: Vec<i64> = due.iter().map(|(due, _)| due.row).collect();
    let (claim, claimed) = if asked.len() == 1 { (CLAIM_ONE, CLAIMED_ONE) } else { (CLAIM, CLAIMED) };
    let asked = one_or_list(&asked);
    tx.prepare_cached(claim)?.execute(params![asked, epoch.0])?;
    let mut select = tx.prepare_cached(claimed)?;
    let mut rows = select.query([asked])?;
    let mut claims = Vec::with_capacity(due.len());
    for (due, endpoint) in due {
        let row = rows.next()?.ok_or(DbError::Damaged { what: "the list of claims" })?;
        match read_claim(row, endpoint) {
            Ok(claim) => claims.push(Ok(claim)),
            Err(error) => {
                bury_damaged(tx, *due, wall, &error)?;
                claims.push(Err(buried(row, endpoint)));
            }
        }
    }
    Ok(claims)
}

const CLAIM: &str = "UPDATE delivery SET state = 'claimed', claim_epoch = ?2, claims = claims + 1
     WHERE rowid IN (SELECT value FROM json_each(?1))";
const CLAIM_ONE: &str = "UPDATE delivery SET state = 'claimed', claim_epoch = ?2, claims = claims + 1 WHERE rowid = ?1";
const CLAIMED: &str = concat!(
    claimed_columns!(),
    " FROM json_each(?1) AS claimed CROSS JOIN delivery ON delivery.rowid = claimed.value
         LEFT JOIN event ON event.id = delivery.event_id LEFT JOIN snapshot ON snapshot.id = event.snapshot_id
     ORDER BY claimed.key"
);
const CLAIMED_ONE: &str = concat!(
    claimed_columns!(),
    " FROM delivery
         LEFT JOIN event ON event.id = delivery.event_id LEFT JOIN snapshot ON snapshot.id = event.snapshot_id
     WHERE delivery.rowid = ?1"
);

fn read_claim(row: &Row<'_>, endpoint: &Arc<EndpointRow>) -> Result<Claim, DbError> {
    let trace = uuid_opt(row, "trace")?.map(SnapshotId);
    let create_time = row.get::<_, Option<i64>>("create_time_ms")?.map(UnixMs);
    Ok(Claim {
        id: ClaimId { delivery: DeliveryId(uuid(row, "id")?), number: number(row, "claims")? },
        endpoint: Arc::clone(endpoint),
        attempt: number::<u32>(row, "attempts")?.saturating_add(1),
        attempt_of_round: number::<u32>(row, "tried")?.saturating_add(1),
        waited: Duration::from_millis(number(row, "waited_ms")?),
        body: row.get::<_, String>("body")?.into_bytes(),
        stream: stream_id(row)?,
        picture: trace.zip(create_time),
    })
}

/// What there is to tell of a delivery whose row is damaged.
fn buried(row: &Row<'_>, endpoint: &EndpointRow) -> Option<Buried> {
    let delivery = uuid(row, "id").ok().map(DeliveryId)?;
    Some(Buried { delivery, kind: endpoint.kind, stream: stream_id(row).ok(), reason: DeadReason::Damaged })
}

/// Takes a delivery whose row says nothing that could be sent out of the others' way. It is dead, for a person to see.
fn bury_damaged(tx: &Tx<'_>, due: Due, wall: UnixMs, error: &DbError) -> Result<(), DbError> {
    let Due { row, .. } = due;
    tracing::error!(row, error = %Chain(error), "a row of the table `delivery`, or of its event, is damaged: it cannot be sent and is dead");
    tx.prepare_cached(
        "UPDATE delivery SET state = 'dead', settled_ms = ?2, outcome = ?3, claim_epoch = NULL WHERE rowid = ?1",
    )?
    .execute(params![row, wall.0, DeadReason::Damaged.name()])?;
    Ok(())
}

/// Takes back every claim of an older process: its attempt may or may not have reached the receiver, so it is made again,
/// at once, as the same attempt with the same id.
///
/// # Errors
/// Those of the database.
pub fn void_old_claims(tx: &Tx<'_>, epoch: Epoch, now: UnixMs) -> Result<usize, DbError> {
    let void = "UPDATE delivery SET state = 'due', due_ms = ?2, claim_epoch = NULL
                WHERE state = 'claimed' AND claim_epoch < ?1";
    Ok(tx.execute(void, params![epoch.0, now.0])?)
}

/// Takes back claims of this process that are not among those it still holds: their attempt ended without an outcome that
/// could be written down. They fall due at `due`, which is `step` from now.
///
/// # Errors
/// Those of the database.
pub fn take_back_lost_claims(
    tx: &Tx<'_>,
    epoch: Epoch,
    held: &HashSet<ClaimId>,
    due: UnixMs,
    step: Duration,
) -> Result<usize, DbError> {
    let mut claimed =
        tx.prepare_cached("SELECT id, claims FROM delivery WHERE state = 'claimed' AND claim_epoch = ?1")?;
    let mut rows = claimed.query([epoch.0])?;
    let mut lost = Vec::new();
    while let Some(row) = rows.next()? {
        let claim = ClaimId { delivery: DeliveryId(uuid(row, "id")?), number: number(row, "claims")? };
        if !held.contains(&claim) {
            lost.push(claim.delivery);
        }
    }
    let mut take_back = tx.prepare_cached(
        "UPDATE delivery SET state = 'due', due_ms = ?2, step_ms = ?3, claim_epoch = NULL WHERE id = ?1",
    )?;
    for delivery in &lost {
        take_back.execute(params![blob(delivery.0), due.0, stored(step.as_millis())])?;
    }
    Ok(lost.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::planned;

    fn open() -> Connection {
        let conn = planned::database();
        watch_due(&conn).unwrap();
        for id in 1..=3 {
            conn.execute("INSERT INTO endpoint (id, callback_template_id, kind) VALUES (?1, ?1, 200)", [id]).unwrap();
        }
        conn.execute_batch("INSERT INTO event VALUES (x'00', 200, 1, NULL, 'd', 'a', 's', '{}', 0, 1)").unwrap();
        conn
    }

    fn owe(conn: &Connection, id: u8, endpoint: i64, state: &str, due_ms: i64) {
        conn.execute(
            "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms) VALUES (?1, x'00', ?2, ?3, ?4, 0)",
            params![[id], endpoint, state, due_ms],
        )
        .unwrap();
    }

    #[test]
    fn whatever_makes_a_delivery_due_is_noted() {
        let conn = open();
        let tx = Tx { conn: &conn };
        owe(&conn, 1, 1, "waiting", 0);
        assert_eq!(newly_due(&tx).unwrap(), [], "waiting is not due");
        conn.execute("UPDATE delivery SET state = 'due'", []).unwrap();
        owe(&conn, 2, 3, "due", 5);
        assert_eq!(newly_due(&tx).unwrap(), [EndpointId(1), EndpointId(3)]);
        assert_eq!(newly_due(&tx).unwrap(), [], "each is told once");
        conn.execute("UPDATE delivery SET state = 'claimed' WHERE id = x'01'", []).unwrap();
        assert_eq!(newly_due(&tx).unwrap(), []);
        conn.execute("UPDATE delivery SET endpoint_id = 2 WHERE id = x'02'", []).unwrap();
        assert_eq!(newly_due(&tx).unwrap(), [EndpointId(2)]);
    }

    #[test]
    fn every_endpoint_with_something_due_is_found_once() {
        let conn = open();
        assert_eq!(all_due(&Tx { conn: &conn }).unwrap(), []);
        for (id, endpoint, state) in [(1, 1, "due"), (2, 1, "due"), (3, 2, "waiting"), (4, 3, "due")] {
            owe(&conn, id, endpoint, state, 0);
        }
        assert_eq!(all_due(&Tx { conn: &conn }).unwrap(), [EndpointId(1), EndpointId(3)]);
    }

    #[test]
    fn what_was_begun_is_told_apart() {
        let conn = open();
        let tx = Tx { conn: &conn };
        for (id, due_ms) in [(1, 30), (2, 10), (3, 20)] {
            owe(&conn, id, 1, "due", due_ms);
        }
        conn.execute("UPDATE delivery SET attempts = 2, round_start = 1 WHERE id = x'01'", []).unwrap();
        conn.execute("UPDATE delivery SET attempts = 2, round_start = 2 WHERE id = x'02'", []).unwrap();
        owe(&conn, 4, 3, "due", 5);
        let due = |which| -> Vec<(i64, Vec<i64>)> {
            let found = first_due(&tx, &[1, 2, 3].map(EndpointId), which, 2).unwrap();
            let mut found: Vec<_> =
                found.into_iter().map(|(id, due)| (id.0, due.iter().map(|due| due.at.0).collect())).collect();
            found.sort();
            found
        };
        assert_eq!(due(Which::Any), [(1, vec![10, 20]), (3, vec![5])]);
        assert_eq!(due(Which::Begun), [(1, vec![30])]);
    }

    fn endpoint_row(id: i64) -> Arc<EndpointRow> {
        let (id, template) = (EndpointId(id), TemplateId(id));
        Arc::new(EndpointRow { id, template, kind: EventKind::Snapshot, url_override: None })
    }

    #[test]
    fn many_are_claimed_at_once_and_a_damaged_one_stops_none_of_them() {
        let conn = open();
        let tx = Tx { conn: &conn };
        conn.execute_batch(
            "INSERT INTO event VALUES (x'01', 200, 1, NULL, 'push.example.com', 'live', 'room', '{\"a\":1}', 0, 1);
             INSERT INTO event VALUES (x'02', 200, 1, NULL, 'push.example.com', 'live', 'no such name', '{}', 0, 1);
             INSERT INTO event VALUES (x'03', 200, 1, NULL, 'push.example.com', 'live', 'room', CAST(x'ff' AS TEXT), 0, 1);",
        )
        .unwrap();
        for (id, event) in [(1_u8, 1_u8), (2, 2), (3, 3), (4, 1)] {
            conn.execute(
                "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms) VALUES (?1, ?2, 1, 'due', ?3, 0)",
                params![[id; 16], [event], id],
            )
            .unwrap();
        }
        let due = first_due(&tx, &[EndpointId(1)], Which::Any, 9).unwrap().remove(&EndpointId(1)).unwrap();
        // Not by their due times, as a look whose turns are fair may want them.
        let due: Vec<_> = due.into_iter().rev().map(|due| (due, endpoint_row(1))).collect();
        let claims = claim(&tx, Epoch(3), UnixMs(77), &due).unwrap();
        let ids: Vec<_> = claims
            .iter()
            .map(|claim| match claim {
                Ok(claim) => Ok(claim.id.delivery.0.as_bytes()[0]),
                Err(buried) => {
                    Err(buried.as_ref().map(|buried| (buried.delivery.0.as_bytes()[0], buried.stream.is_some())))
                }
            })
            .collect();
        assert_eq!(ids, [Ok(4), Err(Some((3, true))), Err(Some((2, false))), Ok(1)]);
        let first = claims[0].as_ref().unwrap();
        assert_eq!((first.id.number, first.attempt, &first.body[..]), (1, 1, &br#"{"a":1}"#[..]));
        let states: Vec<(String, Option<i64>, Option<String>)> = conn
            .prepare("SELECT state, settled_ms, outcome FROM delivery ORDER BY id")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let (claimed, dead) = (("claimed".into(), None, None), ("dead".into(), Some(77), Some("damaged".into())));
        assert_eq!(states, [claimed.clone(), dead.clone(), dead, claimed]);
    }

    /// A look must not grow with what is owed: each of its searches ends in an index.
    #[test]
    fn every_search_of_a_look_ends_in_its_index() {
        let conn = open();
        let rows = [
            ("SELECT min(endpoint_id) FROM delivery WHERE state = 'due' AND endpoint_id > ?1 AND ?2", "delivery_due"),
            (FIRST_ANY, "delivery_due"),
            (FIRST_ANY_OF_ONE, "delivery_due"),
            (FIRST_BEGUN, "delivery_begun"),
            (CLAIM, "INTEGER PRIMARY KEY"),
            (CLAIMED, "INTEGER PRIMARY KEY"),
            (CLAIM_ONE, "INTEGER PRIMARY KEY"),
            (CLAIMED_ONE, "INTEGER PRIMARY KEY"),
        ];
        for (sql, index) in rows {
            let plan = planned::plan(&conn, sql);
            assert!(plan.contains(index), "{sql}:\n{plan}");
            let walks = plan.lines().any(|step| step.starts_with("SCAN") && !step.contains("VIRTUAL TABLE"));
            assert!(!walks, "{sql}:\n{plan}");
        }
    }
}
