//! Taking up deliveries that are due, fairly between receivers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, SnapshotId, TemplateId};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::{OptionalExtension as _, Row, params};

use super::EndpointId;
use crate::db::row::{blob, number, stored, stream_id, uuid, uuid_opt};
use crate::db::{DbError, Epoch, Tx};

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
    pub endpoint: EndpointRow,
    pub lane: Lane,
    /// Which attempt this is, from 1, all rounds together.
    pub attempt: u32,
    /// Which attempt of its round this is, from 1: what the schedule counts.
    pub attempt_of_round: u32,
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

/// What shares one allowance of attempts at a time: everything that goes to one host and port, whatever templates lead
/// there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub String);

/// The attempts that may run at a time, and those that do.
///
/// Every lane keeps one slot of its own that no other can take, so a receiver that hangs, or a hundred of them, never
/// stop the rest; beyond that one, lanes share `shared`, at most `per_lane` each. A window that adapts to a receiver's
/// answers would replace `per_lane` in `Slots::is_free`.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: usize,
    per_lane: usize,
    running: HashMap<Lane, usize>,
    /// How many of `shared` are taken.
    shared_taken: usize,
    /// Counts the rounds, so that each begins with another endpoint.
    round: usize,
}

impl Slots {
    /// `shared` attempts at a time beside the one that each lane has for itself, `per_lane` (at least 1) in a lane.
    pub fn new(shared: usize, per_lane: usize) -> Self {
        Self { shared, per_lane: per_lane.max(1), running: HashMap::new(), shared_taken: 0, round: 0 }
    }

    /// Attempts under way.
    pub fn running(&self) -> usize {
        self.running.len() + self.shared_taken
    }

    /// Whether a lane may start one more.
    fn is_free(&self, lane: &Lane) -> bool {
        let running = self.running.get(lane).copied().unwrap_or(0);
        running == 0 || (running < self.per_lane && self.shared_taken < self.shared)
    }

    /// Takes a slot of a lane; `Slots::is_free` said that there is one.
    fn take(&mut self, lane: &Lane) {
        let running = self.running.entry(lane.clone()).or_default();
        *running += 1;
        if *running > 1 {
            self.shared_taken += 1;
        }
    }

    /// Takes the slots of a round's claims.
    pub fn take_for(&mut self, round: &ClaimRound) {
        self.round = self.round.wrapping_add(1);
        for claim in &round.claims {
            self.take(&claim.lane);
        }
    }

    /// Gives a claim's slot back.
    pub fn give_back(&mut self, lane: &Lane) {
        if let Some(running) = self.running.get_mut(lane) {
            *running -= 1;
            match *running {
                0 => drop(self.running.remove(lane)),
                _ => self.shared_taken -= 1,
            }
        }
    }
}

/// What one look at the outbox gave.
#[derive(Clone, Debug)]
pub struct ClaimRound {
    pub claims: Vec<Claim>,
    /// When the next delivery falls due, of the lanes that have a free slot.
    pub next_due: Option<UnixMs>,
}

/// Claims what is due as far as there are slots: one delivery of each endpoint in turn, so that a long backlog of one does
/// not keep the others waiting. `slots` is a copy of what is taken now; `lane_of` tells where an endpoint leads by the
/// configuration of now.
///
/// # Errors
/// Those of the database.
pub fn claim_due(
    tx: &Tx<'_>,
    epoch: Epoch,
    now: UnixMs,
    mut slots: Slots,
    mut lane_of: impl FnMut(&EndpointRow) -> Lane,
) -> Result<ClaimRound, DbError> {
    let mut waiting = Vec::new();
    let mut ahead: Option<UnixMs> = None;
    for (endpoint, first_due_at) in endpoints_with_due(tx)? {
        if first_due_at > now {
            ahead = Some(ahead.map_or(first_due_at, |soonest| soonest.min(first_due_at)));
            continue;
        }
        let lane = lane_of(&endpoint);
        // At most as many as its lane could ever start now: no more rows are read than slots exist.
        let due = if slots.is_free(&lane) { first_due(tx, endpoint.id, slots.per_lane + 1)? } else { Vec::new() };
        waiting.push((endpoint, lane, due.into_iter().peekable()));
    }
    if !waiting.is_empty() {
        let first = slots.round % waiting.len();
        waiting.rotate_left(first);
    }
    let mut claims = Vec::new();
    let mut took_any = true;
    while took_any {
        took_any = false;
        for (endpoint, lane, due) in &mut waiting {
            if !slots.is_free(lane) {
                continue;
            }
            if let Some((rowid, _)) = due.next_if(|(_, due_at)| *due_at <= now) {
                slots.take(lane);
                claims.push(claim(tx, epoch, rowid, endpoint, lane)?);
                took_any = true;
            }
        }
    }
    let next_due = waiting
        .iter_mut()
        .filter(|(_, lane, _)| slots.is_free(lane))
        .filter_map(|(_, _, due)| due.peek().map(|(_, due_at)| *due_at))
        .chain(ahead)
        .min();
    Ok(ClaimRound { claims, next_due })
}

/// Every endpoint that has a delivery in state `due`, with the first of its due times, by skipping from one to the next in
/// the index: as many steps as endpoints, however many deliveries there are.
fn endpoints_with_due(tx: &Tx<'_>) -> Result<Vec<(EndpointRow, UnixMs)>, DbError> {
    let mut next = tx.prepare_cached(
        "SELECT id, callback_template_id, kind, url_override,
                (SELECT min(due_ms) FROM delivery WHERE state = 'due' AND endpoint_id = endpoint.id) AS first_due_ms
         FROM endpoint WHERE id = (SELECT min(endpoint_id) FROM delivery WHERE state = 'due' AND endpoint_id > ?1)",
    )?;
    let mut found = Vec::new();
    let mut after = i64::MIN;
    let read =
        |row: &Row<'_>| Ok(endpoint_row(row).and_then(|endpoint| Ok((endpoint, UnixMs(row.get("first_due_ms")?)))));
    while let Some(endpoint) = next.query_row([after], read).optional()? {
        let endpoint = endpoint?;
        after = endpoint.0.id.0;
        found.push(endpoint);
    }
    Ok(found)
}

pub(super) fn endpoint_row(row: &Row<'_>) -> Result<EndpointRow, DbError> {
    Ok(EndpointRow {
        id: EndpointId(row.get("id")?),
        template: TemplateId(row.get("callback_template_id")?),
        kind: EventKind::from_event_type(row.get("kind")?).ok_or(DbError::Damaged { what: "an endpoint's kind" })?,
        url_override: row.get("url_override")?,
    })
}

fn first_due(tx: &Tx<'_>, endpoint: EndpointId, limit: usize) -> Result<Vec<(i64, UnixMs)>, DbError> {
    let mut first = tx.prepare_cached(
        "SELECT rowid, due_ms FROM delivery WHERE state = 'due' AND endpoint_id = ?1 ORDER BY due_ms LIMIT ?2",
    )?;
    let rows = first.query_map(params![endpoint.0, stored(limit)], |row| Ok((row.get(0)?, UnixMs(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn claim(tx: &Tx<'_>, epoch: Epoch, rowid: i64, endpoint: &EndpointRow, lane: &Lane) -> Result<Claim, DbError> {
    tx.prepare_cached("UPDATE delivery SET state = 'claimed', claim_epoch = ?2, claims = claims + 1 WHERE rowid = ?1")?
        .execute(params![rowid, epoch.0])?;
    tx.prepare_cached(
        "SELECT delivery.id AS id, claims, attempts, attempts - round_start AS tried, event.body AS body, event.domain AS domain, event.app AS app,
                event.stream AS stream, snapshot.trace AS trace,
                snapshot.create_time_ms AS create_time_ms
         FROM delivery JOIN event ON event.id = delivery.event_id LEFT JOIN snapshot ON snapshot.id = event.snapshot_id
         WHERE delivery.rowid = ?1",
    )?
    .query_row([rowid], |row| {
        Ok((|| {
            let trace = uuid_opt(row, "trace")?.map(SnapshotId);
            let create_time = row.get::<_, Option<i64>>("create_time_ms")?.map(UnixMs);
            Ok(Claim {
                id: ClaimId { delivery: DeliveryId(uuid(row, "id")?), number: number(row, "claims")? },
                endpoint: endpoint.clone(),
                lane: lane.clone(),
                attempt: number::<u32>(row, "attempts")?.saturating_add(1),
                attempt_of_round: number::<u32>(row, "tried")?.saturating_add(1),
                body: row.get::<_, String>("body")?.into_bytes(),
                stream: stream_id(row)?,
                picture: trace.zip(create_time),
            })
        })())
    })?
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

    fn lane(name: &str) -> Lane {
        Lane(name.to_owned())
    }

    #[test]
    fn every_lane_keeps_a_slot_of_its_own() {
        let mut slots = Slots::new(2, 8);
        let slow = lane("slow");
        let mut taken = 0;
        while slots.is_free(&slow) {
            slots.take(&slow);
            taken += 1;
        }
        assert_eq!(taken, 3, "its own and both shared ones");
        for name in ["a", "b", "c"] {
            assert!(slots.is_free(&lane(name)), "{name} has its own");
            slots.take(&lane(name));
            assert!(!slots.is_free(&lane(name)), "{name} has no more than that now");
        }
        assert_eq!(slots.running(), 6);
        slots.give_back(&slow);
        assert!(slots.is_free(&lane("a")), "a shared slot is for whoever comes first");
    }

    #[test]
    fn no_lane_takes_more_than_its_share() {
        let mut slots = Slots::new(100, 3);
        let busy = lane("busy");
        for _ in 0..3 {
            assert!(slots.is_free(&busy));
            slots.take(&busy);
        }
        assert!(!slots.is_free(&busy));
        assert!(slots.is_free(&lane("other")));
    }

    #[test]
    fn slots_come_back() {
        let mut slots = Slots::new(0, 1);
        slots.take(&lane("a"));
        slots.give_back(&lane("a"));
        assert_eq!((slots.running(), slots.is_free(&lane("a"))), (0, true));
    }
}
