//! Writing down how an attempt ended, together with what follows from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, TemplateId};
use framehook_domain::retry::{DeadReason, Outcome};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::{OptionalExtension as _, params};
use serde_json::{Value, json};

use super::claim::{ClaimId, EndpointRow, endpoint_row};
use super::ledger::State;
use crate::db::row::{blob, number, stored, stream_id, uuid};
use crate::db::{DbError, Epoch, Tx};

/// One HTTP try.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// The wall clock when it began.
    pub started: UnixMs,
    pub duration: Duration,
    pub outcome: Outcome,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// The start of the answer's body.
    pub response: Option<String>,
    /// Without what it keeps secret.
    pub url: String,
}

/// What becomes of a claimed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Due again at `due`, which is `step` after the attempt was judged failed.
    Retry {
        due: UnixMs,
        step: Duration,
    },
    Dead(DeadReason),
}

/// What a verdict makes of a delivery's row.
struct Ends {
    state: State,
    /// `None`: it stays what it was.
    due: Option<UnixMs>,
    step: Duration,
    settled: Option<UnixMs>,
}

impl Verdict {
    fn ends(self, wall: UnixMs) -> Ends {
        let settled = |state| Ends { state, due: None, step: Duration::ZERO, settled: Some(wall) };
        match self {
            Self::Delivered => settled(State::Delivered),
            Self::Retry { due, step } => Ends { state: State::Due, due: Some(due), step, settled: None },
            Self::Dead(_) => settled(State::Dead),
        }
    }
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub claim: ClaimId,
    /// `None`: no attempt was made.
    pub attempted: Option<Arc<Attempted>>,
    pub verdict: Verdict,
    /// The wall clock of then, for people.
    pub wall: UnixMs,
}

impl Settlement {
    fn outcome(&self) -> &'static str {
        match (self.verdict, &self.attempted) {
            // The last attempt tells more than that it was the last.
            (Verdict::Dead(DeadReason::Exhausted), Some(attempted)) => attempted.outcome.name(),
            (Verdict::Dead(reason), _) => reason.name(),
            (_, Some(attempted)) => attempted.outcome.name(),
            (_, None) => Outcome::Delivered.name(),
        }
    }
}

/// Records attempts and ends their claims: two statements, however many they are, which for one alone are those that take the
/// least. For each, in order, whether it ended its claim; a claim that was over already (a person cancelled the delivery
/// meanwhile, and perhaps sent it again) stays as it is, and the attempt is recorded all the same, at one more statement.
///
/// # Errors
/// Those of the database.
pub fn settle(tx: &Tx<'_>, epoch: Epoch, settlements: &[Settlement]) -> Result<Vec<bool>, DbError> {
    if let [one] = settlements {
        return Ok(vec![settle_one(tx, epoch, one)?]);
    }
    // The number of an attempt is given out here, not at the claim: one that a crash cut off has none and is made again.
    let ended = end_claims(tx, settlements)?;
    let mut attempts = Vec::with_capacity(settlements.len());
    for Settlement { claim, attempted, .. } in settlements {
        let Some(attempted) = attempted else { continue };
        let number = match ended.get(&claim.delivery) {
            Some(end) if end.claim == claim.number => Some(end.attempts),
            _ => count_stray(tx, claim.delivery)?,
        };
        attempts.extend(number.map(|number| attempt_json(claim.delivery, number, attempted)));
    }
    if !attempts.is_empty() {
        tx.prepare_cached(RECORD)?.execute(params![Value::Array(attempts).to_string(), epoch.0])?;
    }
    let is_ended = |claim: ClaimId| ended.get(&claim.delivery).is_some_and(|end| end.claim == claim.number);
    Ok(settlements.iter().map(|settlement| is_ended(settlement.claim)).collect())
}

fn settle_one(tx: &Tx<'_>, epoch: Epoch, settlement: &Settlement) -> Result<bool, DbError> {
    let Settlement { claim, attempted, verdict, wall } = settlement;
    let Ends { state, due, step, settled } = verdict.ends(*wall);
    let ended = tx
        .prepare_cached(END_ONE)?
        .query_row(
            params![
                blob(claim.delivery.0),
                stored(claim.number),
                state.name(),
                due.map(|due| due.0),
                stored(step.as_millis()),
                settled.map(|settled| settled.0),
                settlement.outcome(),
                attempted.is_some(),
            ],
            |row| row.get::<_, u32>(0),
        )
        .optional()?;
    let Some(attempted) = attempted else { return Ok(ended.is_some()) };
    let number = match ended {
        Some(number) => Some(number),
        None => count_stray(tx, claim.delivery)?,
    };
    if let Some(number) = number {
        let Attempted { started, duration, outcome, error, response, url } = &**attempted;
        tx.prepare_cached(RECORD_ONE)?.execute(params![
            blob(claim.delivery.0),
            number,
            epoch.0,
            started.0,
            stored(duration.as_millis()),
            outcome.status(),
            outcome.name(),
            error,
            response,
            url,
        ])?;
    }
    Ok(ended.is_some())
}

const END_ONE: &str =
    "UPDATE delivery SET state = ?3, due_ms = coalesce(?4, due_ms), step_ms = ?5, waited_ms = waited_ms + ?5,
            settled_ms = ?6, outcome = ?7, claim_epoch = NULL, attempts = attempts + ?8
     WHERE id = ?1 AND state = 'claimed' AND claims = ?2
     RETURNING attempts";
const RECORD_ONE: &str =
    "INSERT INTO attempt (delivery_id, number, epoch, started_ms, duration_ms, status, outcome, error, response, url)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// A claim that has ended, and the attempts recorded of its delivery then.
struct End {
    claim: u64,
    attempts: u32,
}

fn end_claims(tx: &Tx<'_>, settlements: &[Settlement]) -> Result<HashMap<DeliveryId, End>, DbError> {
    let json = |settlement: &Settlement| {
        let Settlement { claim, attempted, verdict, wall } = settlement;
        let Ends { state, due, step, settled } = verdict.ends(*wall);
        json!({
            "id": claim.delivery.0.simple().to_string(),
            "claim": claim.number,
            "attempts": u8::from(attempted.is_some()),
            "state": state.name(),
            "due": due.map(|due| due.0),
            "step": stored(step.as_millis()),
            "settled": settled.map(|settled| settled.0),
            "outcome": settlement.outcome(),
        })
    };
    let settlements: Value = settlements.iter().map(json).collect();
    let mut end = tx.prepare_cached(END)?;
    let mut rows = end.query([settlements.to_string()])?;
    let mut ended = HashMap::new();
    while let Some(row) = rows.next()? {
        let end = End { claim: number(row, "claims")?, attempts: number(row, "attempts")? };
        ended.insert(DeliveryId(uuid(row, "id")?), end);
    }
    Ok(ended)
}

const END: &str =
    "UPDATE delivery SET state = ended.state, due_ms = coalesce(ended.due_ms, delivery.due_ms), step_ms = ended.step_ms,
            waited_ms = waited_ms + ended.step_ms, settled_ms = ended.settled_ms, outcome = ended.outcome,
            claim_epoch = NULL, attempts = delivery.attempts + ended.attempts
     FROM (SELECT unhex(value ->> 'id') AS id, value ->> 'claim' AS claim, value ->> 'attempts' AS attempts,
                  value ->> 'state' AS state, value ->> 'due' AS due_ms, value ->> 'step' AS step_ms,
                  value ->> 'settled' AS settled_ms, value ->> 'outcome' AS outcome
           FROM json_each(?1)) AS ended
     WHERE delivery.id = ended.id AND delivery.state = 'claimed' AND delivery.claims = ended.claim
     RETURNING id, claims, attempts";

/// Counts an attempt whose claim was over. It belongs to the round before, if its delivery was sent again meanwhile. Returns
/// its number; `None`: the delivery is forgotten.
fn count_stray(tx: &Tx<'_>, delivery: DeliveryId) -> Result<Option<u32>, DbError> {
    let count = "UPDATE delivery SET attempts = attempts + 1, round_start = round_start + 1 WHERE id = ?1
                 RETURNING attempts";
    let number = tx.prepare_cached(count)?.query_row([blob(delivery.0)], |row| row.get(0)).optional()?;
    Ok(number)
}

fn attempt_json(delivery: DeliveryId, number: u32, attempted: &Attempted) -> Value {
    let Attempted { started, duration, outcome, error, response, url } = attempted;
    json!({
        "id": delivery.0.simple().to_string(),
        "number": number,
        "started": started.0,
        "took": stored(duration.as_millis()),
        "status": outcome.status(),
        "outcome": outcome.name(),
        "error": error,
        "response": response,
        "url": url,
    })
}

const RECORD: &str =
    "INSERT INTO attempt (delivery_id, number, epoch, started_ms, duration_ms, status, outcome, error, response, url)
     SELECT unhex(value ->> 'id'), value ->> 'number', ?2, value ->> 'started', value ->> 'took', value ->> 'status',
            value ->> 'outcome', value ->> 'error', value ->> 'response', value ->> 'url'
     FROM json_each(?1)";

/// A delivery that died without an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    pub delivery: DeliveryId,
    pub kind: EventKind,
    /// `None`: its name cannot be read.
    pub stream: Option<StreamId>,
    pub reason: DeadReason,
}

/// What one call of [`bury_without_template`] or [`bury_held`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burial {
    /// Deliveries that died.
    pub count: usize,
    /// Those of them that can be told of: whose id can be read.
    pub buried: Vec<Buried>,
}

/// Turns open deliveries into dead ones (`template_deleted`) where `has_url` says that their template, or its URL for that
/// kind of event, is gone; at most `limit` of them. Claimed ones are left to their attempt. Call again while as many as
/// `limit` die.
///
/// # Errors
/// Those of the database.
pub fn bury_without_template(
    tx: &Tx<'_>,
    has_url: impl Fn(TemplateId, EventKind) -> bool,
    limit: usize,
    wall: UnixMs,
) -> Result<Burial, DbError> {
    let mut select = tx.prepare_cached(
        "SELECT id, callback_template_id, kind, url_override FROM endpoint WHERE url_override IS NULL",
    )?;
    let endpoints = select.query_map([], |row| Ok(endpoint_row(row)))?.collect::<Result<Vec<_>, _>>()?;
    let mut burial = Burial::default();
    // One that is damaged leads nowhere and keeps what is owed to it, for a person to mend.
    for endpoint in endpoints.into_iter().flatten() {
        if has_url(endpoint.template, endpoint.kind) {
            continue;
        }
        for statement in [BURY_DUE, BURY_WAITING] {
            let rest = stored(limit - burial.count);
            let mut bury = tx.prepare_cached(statement)?;
            let reason = DeadReason::TemplateDeleted.name();
            let dead = bury.query_map(params![endpoint.id.0, rest, wall.0, reason], |row| row.get::<_, i64>(0))?;
            let dead = dead.collect::<Result<Vec<_>, _>>()?;
            burial.count += dead.len();
            name_buried(tx, &dead, endpoint.kind, DeadReason::TemplateDeleted, &mut burial.buried)?;
        }
    }
    Ok(burial)
}

/// Turns deliveries of these endpoints into dead ones (`held`) that have been due since before `before` and have had no
/// attempt in their round, the oldest first; at most `limit` of them. Call again while as many as `limit` die.
///
/// # Errors
/// Those of the database.
pub fn bury_held(
    tx: &Tx<'_>,
    endpoints: &[Arc<EndpointRow>],
    before: UnixMs,
    limit: usize,
    wall: UnixMs,
) -> Result<Burial, DbError> {
    let reason = DeadReason::Held;
    let mut bury = tx.prepare_cached(BURY_HELD)?;
    let mut burial = Burial::default();
    for endpoint in endpoints {
        let rest = stored(limit - burial.count);
        let dead = bury.query_map(params![endpoint.id.0, rest, wall.0, reason.name(), before.0], |row| row.get(0))?;
        let dead = dead.collect::<Result<Vec<i64>, _>>()?;
        burial.count += dead.len();
        name_buried(tx, &dead, endpoint.kind, reason, &mut burial.buried)?;
    }
    Ok(burial)
}

// The states stand in the text, not in a parameter: SQLite uses their partial indexes only then.
const BURY_DUE: &str = "UPDATE delivery SET state = 'dead', settled_ms = ?3, outcome = ?4 WHERE rowid IN
     (SELECT rowid FROM delivery WHERE endpoint_id = ?1 AND state = 'due' LIMIT ?2) RETURNING rowid";
const BURY_WAITING: &str = "UPDATE delivery SET state = 'dead', settled_ms = ?3, outcome = ?4 WHERE rowid IN
     (SELECT rowid FROM delivery WHERE endpoint_id = ?1 AND state = 'waiting' LIMIT ?2) RETURNING rowid";
// What is read in vain is what has had an attempt and is as long overdue: few, as those go on by their schedule.
const BURY_HELD: &str = "UPDATE delivery SET state = 'dead', settled_ms = ?3, outcome = ?4 WHERE rowid IN
     (SELECT rowid FROM delivery AS held WHERE state = 'due' AND endpoint_id = ?1 AND due_ms < ?5 AND attempts = round_start
      ORDER BY due_ms LIMIT ?2) RETURNING rowid";

/// Finds out what there is to tell of deliveries that died.
fn name_buried(
    tx: &Tx<'_>,
    dead: &[i64],
    kind: EventKind,
    reason: DeadReason,
    buried: &mut Vec<Buried>,
) -> Result<(), DbError> {
    if dead.is_empty() {
        return Ok(());
    }
    let mut select = tx.prepare_cached(
        "SELECT delivery.id AS id, domain, app, stream FROM json_each(?1) AS dead
         CROSS JOIN delivery ON delivery.rowid = dead.value JOIN event ON event.id = delivery.event_id",
    )?;
    let mut rows = select.query([json!(dead).to_string()])?;
    while let Some(row) = rows.next()? {
        if let Ok(id) = uuid(row, "id") {
            buried.push(Buried { delivery: DeliveryId(id), kind, stream: stream_id(row).ok(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rusqlite::Connection;
    use rusqlite::trace::{TraceEvent, TraceEventCodes};
    use uuid::Uuid;

    use super::*;
    use crate::db::outbox::EndpointId;
    use crate::db::planned;

    /// A delivery with id 1 that is claimed for the second time, and what the tests ask of it.
    fn claimed() -> Connection {
        let conn = planned::database();
        conn.execute_batch(
            "INSERT INTO endpoint (id, callback_template_id, kind) VALUES (1, 1, 200);
             INSERT INTO event VALUES (x'00', 200, 1, NULL, 'push.example.com', 'live', 'room', '{}', 0, 1);",
        )
        .unwrap();
        for id in 1..=3 {
            conn.execute(
                "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms, claims, claim_epoch, attempts)
                 VALUES (?1, x'00', 1, 'claimed', 5, 0, 2, 1, 1)",
                [blob(delivery(id).0)],
            )
            .unwrap();
        }
        conn
    }

    fn delivery(id: u128) -> DeliveryId {
        DeliveryId(Uuid::from_u128(id))
    }

    fn settlement(id: u128, number: u64, outcome: Outcome, verdict: Verdict) -> Settlement {
        let attempted = Attempted {
            started: UnixMs(10),
            duration: Duration::from_millis(3),
            outcome,
            error: None,
            response: None,
            url: "http://example.com/".into(),
        };
        let claim = ClaimId { delivery: delivery(id), number };
        Settlement { claim, attempted: Some(Arc::new(attempted)), verdict, wall: UnixMs(99) }
    }

    type Row = (String, i64, i64, i64, Option<i64>, Option<String>);

    fn row(conn: &Connection, id: u128) -> Row {
        let sql = "SELECT state, attempts, round_start, due_ms, settled_ms, outcome FROM delivery WHERE id = ?1";
        let row = conn.query_row(sql, [blob(delivery(id).0)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        });
        row.unwrap()
    }

    #[test]
    fn many_claims_end_at_once_each_in_its_own_way() {
        let conn = claimed();
        let retry = Verdict::Retry { due: UnixMs(500), step: Duration::from_millis(400) };
        let settlements = [
            settlement(3, 2, Outcome::Delivered, Verdict::Delivered),
            settlement(1, 2, Outcome::Status(503), retry),
            settlement(2, 2, Outcome::Timeout, Verdict::Dead(DeadReason::Exhausted)),
        ];
        assert_eq!(settle(&Tx { conn: &conn }, Epoch(1), &settlements).unwrap(), [true; 3]);
        assert_eq!(row(&conn, 1), ("due".into(), 2, 0, 500, None, Some("status".into())));
        assert_eq!(row(&conn, 2), ("dead".into(), 2, 0, 5, Some(99), Some("timeout".into())));
        assert_eq!(row(&conn, 3), ("delivered".into(), 2, 0, 5, Some(99), Some("delivered".into())));
        let waited: (i64, i64) = conn
            .query_row("SELECT sum(waited_ms), sum(step_ms) FROM delivery", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(waited, (400, 400));
        let attempts: Vec<(i64, Option<i64>, String)> = conn
            .prepare("SELECT number, status, outcome FROM attempt ORDER BY delivery_id")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            attempts,
            [(2, Some(503), "status".into()), (2, None, "timeout".into()), (2, Some(200), "delivered".into())]
        );
    }

    #[test]
    fn one_outcome_alone_ends_as_it_does_among_others() {
        let all = |conn: &Connection, table: &str| -> Vec<String> {
            let mut select = conn.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
            let columns = select.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                let column = |index| row.get::<_, rusqlite::types::Value>(index).map(|value| format!("{value:?}"));
                (0..columns).map(column).collect::<Result<Vec<_>, _>>().map(|row| row.join(" "))
            };
            select.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let everything = |conn: &Connection| [all(conn, "delivery"), all(conn, "attempt")];
        let failed = |number, verdict| {
            let mut one = settlement(1, number, Outcome::Status(503), verdict);
            let attempted = Arc::make_mut(one.attempted.as_mut().unwrap());
            (attempted.response, attempted.error) =
                (Some("\0 \"busy\" \\ 快照".to_owned()), Some("an error".to_owned()));
            one
        };
        let delivered = settlement(1, 2, Outcome::Delivered, Verdict::Delivered);
        let retry = Verdict::Retry { due: UnixMs(500), step: Duration::from_millis(400) };
        let dead = Verdict::Dead(DeadReason::Exhausted);
        let rows = [
            failed(2, retry),
            failed(2, dead),
            // The claim was over.
            failed(1, dead),
            Settlement { attempted: None, verdict: Verdict::Dead(DeadReason::TemplateDeleted), ..delivered.clone() },
            delivered,
        ];
        for one in rows {
            let (alone, among) = (claimed(), claimed());
            let nobody = settlement(9, 1, Outcome::Delivered, Verdict::Delivered);
            let settled = settle(&Tx { conn: &alone }, Epoch(1), std::slice::from_ref(&one)).unwrap();
            let of_two = settle(&Tx { conn: &among }, Epoch(1), &[one.clone(), nobody]).unwrap();
            assert_eq!(settled, of_two[..1], "{one:?}");
            assert_eq!(everything(&alone), everything(&among), "{one:?}");
            assert_ne!(everything(&alone), everything(&claimed()), "{one:?} changes something");
        }
    }

    #[test]
    fn many_outcomes_take_as_many_statements_as_one() {
        let statements = |settlements: &[Settlement]| {
            let (mut conn, count) = (claimed(), Arc::new(AtomicUsize::new(0)));
            let counted = Arc::clone(&count);
            let trace = move |_: TraceEvent<'_>| {
                counted.fetch_add(1, Ordering::Relaxed);
            };
            conn.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(trace)).unwrap();
            settle(&Tx { conn: &conn }, Epoch(1), settlements).unwrap();
            count.load(Ordering::Relaxed)
        };
        let delivered = |id| settlement(id, 2, Outcome::Delivered, Verdict::Delivered);
        assert_eq!((statements(&[delivered(1)]), statements(&[1, 2, 3].map(delivered))), (2, 2));
    }

    #[test]
    fn an_attempt_whose_claim_was_over_is_recorded_and_ends_nothing() {
        let conn = claimed();
        // Delivery 1 was cancelled and replayed while its first claim's attempt was under way: both end together here.
        let settlements = [
            settlement(1, 1, Outcome::Timeout, Verdict::Dead(DeadReason::Exhausted)),
            settlement(1, 2, Outcome::Delivered, Verdict::Delivered),
            settlement(9, 1, Outcome::Delivered, Verdict::Delivered),
        ];
        assert_eq!(settle(&Tx { conn: &conn }, Epoch(1), &settlements).unwrap(), [false, true, false]);
        assert_eq!(row(&conn, 1), ("delivered".into(), 3, 1, 5, Some(99), Some("delivered".into())));
        let numbers: String = conn
            .query_row("SELECT group_concat(number || outcome, ' ' ORDER BY number) FROM attempt", [], |row| row.get(0))
            .unwrap();
        assert_eq!(numbers, "2delivered 3timeout");
    }

    #[test]
    fn what_a_receiver_answers_is_kept_as_it_is() {
        let answer = "\0 \"quoted\" \\ 快照 \u{1f4f7}\r\n\u{fffd}";
        let mut one = settlement(1, 2, Outcome::Status(500), Verdict::Dead(DeadReason::Exhausted));
        let attempted = Arc::make_mut(one.attempted.as_mut().unwrap());
        (attempted.response, attempted.error) = (Some(answer.to_owned()), Some(String::new()));
        let other = settlement(2, 2, Outcome::Delivered, Verdict::Delivered);
        for settlements in [vec![one.clone()], vec![one, other]] {
            let conn = claimed();
            settle(&Tx { conn: &conn }, Epoch(1), &settlements).unwrap();
            let kept: (String, String) = conn
                .query_row("SELECT response, error FROM attempt WHERE response IS NOT NULL", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!(kept, (answer.to_owned(), String::new()), "{settlements:?}");
        }
    }

    #[test]
    fn what_was_held_for_too_long_dies_the_oldest_first_a_few_at_a_time() {
        let conn = claimed();
        conn.execute_batch("INSERT INTO endpoint (id, callback_template_id, kind) VALUES (2, 1, 1)").unwrap();
        // State, attempts, of them in earlier rounds, endpoint, due; and whether it dies of having been due since before 100.
        let rows: [(&str, u32, u32, i64, i64, bool); 8] = [
            ("due", 0, 0, 1, 60, true),
            ("due", 0, 0, 1, 50, true),
            ("due", 3, 3, 1, 99, true),
            ("due", 0, 0, 1, 100, false),
            ("due", 4, 3, 1, 40, false),
            ("waiting", 0, 0, 1, 40, false),
            ("delivered", 0, 0, 1, 40, false),
            ("due", 0, 0, 2, 40, false),
        ];
        for (id, (state, attempts, round_start, endpoint, due, _)) in (10..).zip(rows) {
            conn.execute(
                "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms, attempts, round_start)
                 VALUES (?1, x'00', ?2, ?3, ?4, 0, ?5, ?6)",
                params![blob(delivery(id).0), endpoint, state, due, attempts, round_start],
            )
            .unwrap();
        }
        let (tx, template) = (Tx { conn: &conn }, TemplateId(1));
        let endpoint = EndpointRow { id: EndpointId(1), template, kind: EventKind::Snapshot, url_override: None };
        let endpoint = [Arc::new(endpoint)];
        let bury = || {
            let Burial { count, buried } = bury_held(&tx, &endpoint, UnixMs(100), 2, UnixMs(777)).unwrap();
            assert_eq!(count, buried.len());
            assert!(buried.iter().all(|one| one.reason == DeadReason::Held && one.stream.is_some()), "{buried:?}");
            let mut ids: Vec<u128> = buried.iter().map(|buried| buried.delivery.0.as_u128()).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!([bury(), bury(), bury()], [vec![10, 11], vec![12], vec![]]);
        for (id, (state, attempts, round_start, _, due, dies)) in (10..).zip(rows) {
            let (attempts, round_start) = (attempts.into(), round_start.into());
            let expected = match dies {
                true => ("dead".into(), attempts, round_start, due, Some(777), Some("held".into())),
                false => (state.into(), attempts, round_start, due, None, None),
            };
            assert_eq!(row(&conn, id), expected, "delivery {id}");
        }
    }

    #[test]
    fn what_was_held_is_found_by_its_due_time() {
        let plan = planned::plan(&claimed(), BURY_HELD);
        assert!(plan.contains("USING INDEX delivery_due (endpoint_id=? AND due_ms<?)"), "{plan}");
        let walks = plan.contains("SCAN") || plan.contains("TEMP B-TREE");
        assert!(!walks, "{plan}");
    }

    #[test]
    fn settling_finds_each_delivery_by_its_id() {
        let conn = claimed();
        for statement in [END, END_ONE] {
            let plan = planned::plan(&conn, statement);
            assert!(plan.contains("SEARCH delivery USING INDEX sqlite_autoindex_delivery_1 (id=?)"), "{plan}");
        }
    }
}
