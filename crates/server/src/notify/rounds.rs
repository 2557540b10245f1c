//! One look at the outbox: which deliveries are taken up, by what is due, what receivers have room for and whose turn it is.
//!
//! The database is asked about the endpoints with something newly due, which it notes (`outbox::newly_due`), and about those
//! whose time has come, not about all endpoints or deliveries: when something of each is due next is remembered here. Every few
//! seconds everything is looked at anew, so nothing hangs on what is remembered.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::catalog::Catalog;
use framehook_domain::dispatch::{BreakerState, Dispatch, Felt, Flow, Gate, Lane, LaneFacts, Limits, Ticket};
use framehook_domain::time::{Mono, UnixMs};

use super::lanes::Lanes;
use crate::db::outbox::{self, Buried, Claim, ClaimId, Due, EndpointId, EndpointRow, Which};
use crate::db::secret::Vault;
use crate::db::{DbError, Epoch, Tx};

/// What a look needs to know of the world.
pub(super) struct Look<'a> {
    pub(super) epoch: Epoch,
    pub(super) catalog: &'a Catalog,
    pub(super) vault: &'a Vault,
    pub(super) mono: Mono,
    /// The same instant on the timeline of due times.
    pub(super) now: UnixMs,
    /// The wall clock, for people.
    pub(super) wall: UnixMs,
}

/// What a look gave.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) claims: Vec<(Claim, Ticket)>,
    /// Deliveries that became dead since their rows are damaged; `None`: one without an id.
    pub(super) buried: Vec<Option<Buried>>,
    /// After which time another look can give something, if nothing happens meanwhile.
    pub(super) next: Option<Duration>,
}

/// What is remembered between looks.
#[derive(Debug)]
pub(super) struct Rounds {
    pub(super) dispatch: Dispatch,
    /// The claims whose attempts are under way or about to be.
    pub(super) claims: HashSet<ClaimId>,
    /// Every endpoint with something in state `due`, whether its time has come or not.
    waiting: HashMap<EndpointId, Waiting>,
    lanes: Lanes,
    /// The endpoints that a person was told of.
    alarmed: HashMap<EndpointId, Arc<EndpointRow>>,
    /// What is remembered may be wrong: a transaction that it came from did not last.
    is_stale: bool,
}

/// Deliveries that are not sent although they have been due for long.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// The age of the oldest that is due, however short.
    pub(super) oldest: Duration,
    /// Endpoints with some.
    pub(super) count: usize,
    pub(super) began: Vec<(Arc<EndpointRow>, Duration)>,
    pub(super) ended: Vec<Arc<EndpointRow>>,
}

#[derive(Debug)]
struct Waiting {
    row: Arc<EndpointRow>,
    lane: Lane,
    /// When the first of its deliveries is or was due.
    first: UnixMs,
    /// The same for those that have had an attempt; looked up only while the receiver's breaker is open.
    first_begun: Option<Option<UnixMs>>,
}

/// Rows of an endpoint that a look has read and not used yet.
struct Rows {
    which: Which,
    due: VecDeque<Due>,
    /// Whether there are no more.
    is_all: bool,
}

impl Rows {
    fn can_tell(&self, which: Which) -> bool {
        self.which == which && (self.is_all || !self.due.is_empty())
    }
}

/// What a look has given out so far.
#[derive(Default)]
struct Given {
    /// Chosen and not claimed in the database yet.
    chosen: Vec<(Due, Arc<EndpointRow>)>,
    tickets: Vec<Ticket>,
    claims: Vec<(Claim, Ticket)>,
    /// Those whose rows were damaged. What stands behind them has not been looked at.
    buried: Vec<Option<Buried>>,
}

/// Endpoints whose rows are read in one statement: those whose turn it is next. More would be read in vain where slots are
/// few.
const READ_TOGETHER: usize = 32;

/// Endpoints that are looked through to find those. Most of the others may lead to receivers without room.
const LOOKED_THROUGH: usize = 8 * READ_TOGETHER;

impl Rounds {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            dispatch: Dispatch::new(limits),
            claims: HashSet::new(),
            waiting: HashMap::new(),
            lanes: Lanes::default(),
            alarmed: HashMap::new(),
            is_stale: true,
        }
    }

    /// Makes the next look one at everything.
    pub(super) fn distrust(&mut self) {
        self.is_stale = true;
    }

    /// What the last look has read did not last: not even that an endpoint leads where its row said, as its number may go to
    /// another.
    pub(super) fn undo(&mut self) {
        self.distrust();
        self.lanes.forget_endpoints();
    }

    /// Claims what is due, as far as its receivers have room.
    ///
    /// # Errors
    /// Those of the database; nothing is under way then that was not before.
    pub(super) fn claim(&mut self, tx: &Tx<'_>, look: &Look<'_>) -> Result<Round, DbError> {
        let mut given = Given::default();
        let looked = self.find_waiting(tx, look).and_then(|read| self.give_out(tx, look, read, &mut given));
        match looked {
            Ok(()) => {
                let next = if given.buried.is_empty() { self.next(look) } else { Some(Duration::ZERO) };
                Ok(Round { claims: given.claims, buried: given.buried, next })
            }
            Err(error) => {
                self.undo();
                for (claim, ticket) in given.claims {
                    self.give_back(claim.id, ticket, Felt::Nothing, look.mono);
                }
                for ticket in given.tickets {
                    self.dispatch.end(ticket, Felt::Nothing, look.mono);
                }
                Err(error)
            }
        }
    }

    /// Whether the last look has left anything that is due now or falls due later.
    pub(super) fn is_anything_due(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is known of the receiver of an endpoint that was looked at under this configuration.
    pub(super) fn receiver_of(&self, endpoint: EndpointId) -> Option<LaneFacts> {
        self.lanes.known(endpoint).map(|lane| self.dispatch.lane(lane))
    }

    /// The endpoints whose oldest delivery has been due for longer than `after`, with its age: those for which that is new,
    /// and those for which it is over.
    pub(super) fn overdue(&mut self, now: UnixMs, after: Duration) -> Overdue {
        let age = |waiting: &Waiting| now.since(waiting.first);
        let oldest = self.waiting.values().map(age).max().unwrap_or_default();
        let mut overdue = Overdue { oldest, ..Overdue::default() };
        for waiting in self.waiting.values().filter(|waiting| age(waiting) > after) {
            overdue.count += 1;
            if self.alarmed.insert(waiting.row.id, Arc::clone(&waiting.row)).is_none() {
                overdue.began.push((Arc::clone(&waiting.row), age(waiting)));
            }
        }
        let waiting = &self.waiting;
        let is_over = |id: &EndpointId| waiting.get(id).is_none_or(|waiting| age(waiting) <= after);
        overdue.ended = self.alarmed.extract_if(|id, _| is_over(id)).map(|(_, row)| row).collect();
        overdue
    }

    /// The endpoints with something that has been due since before `due_before`, whose receivers have been paused without a
    /// break since before `paused_before`.
    pub(super) fn held(&self, due_before: UnixMs, paused_before: Mono) -> Vec<Arc<EndpointRow>> {
        let is_paused = |lane| match self.dispatch.lane(lane).breaker {
            BreakerState::Closed { .. } => false,
            BreakerState::Open { since, .. } => since < paused_before,
        };
        let is_held = |waiting: &&Waiting| waiting.first < due_before && is_paused(waiting.lane);
        self.waiting.values().filter(is_held).map(|waiting| Arc::clone(&waiting.row)).collect()
    }

    /// Ends an attempt.
    pub(super) fn give_back(&mut self, claim: ClaimId, ticket: Ticket, felt: Felt, now: Mono) {
        self.dispatch.end(ticket, felt, now);
        self.claims.remove(&claim);
    }

    /// Looks up what has changed since the last look. Gives what was read of it.
    fn find_waiting(&mut self, tx: &Tx<'_>, look: &Look<'_>) -> Result<HashMap<EndpointId, Rows>, DbError> {
        let newly_due = outbox::newly_due(tx)?;
        let followed = self.lanes.follow(look.catalog);
        let (waiting, dispatch) = (&self.waiting, &self.dispatch);
        self.lanes.evict_idle(|id| waiting.contains_key(&id), |lane| dispatch.is_engaged(lane));
        if self.is_stale || followed {
            self.waiting.clear();
            let due = outbox::all_due(tx)?;
            let read = self.find(tx, look, &due)?;
            self.is_stale = false;
            Ok(read)
        } else {
            self.find(tx, look, &newly_due)
        }
    }

    /// Looks up when something of each of these endpoints is due. Gives what was read, where that may be all that there is.
    fn find(&mut self, tx: &Tx<'_>, look: &Look<'_>, ids: &[EndpointId]) -> Result<HashMap<EndpointId, Rows>, DbError> {
        let mut read = HashMap::new();
        if ids.is_empty() {
            return Ok(read);
        }
        // Of few endpoints mostly one delivery has fallen due, and one row more tells that it is the only one.
        let limit = if ids.len() > READ_TOGETHER { 1 } else { 2 };
        let mut first = outbox::first_due(tx, ids, Which::Any, limit)?;
        for &id in ids {
            let due = first.remove(&id).unwrap_or_default();
            let (Some(due_first), Some((row, lane))) =
                (due.first().copied(), self.lanes.of(tx, look.catalog, look.vault, id)?)
            else {
                self.waiting.remove(&id);
                continue;
            };
            self.waiting.insert(id, Waiting { row, lane, first: due_first.at, first_begun: None });
            if limit > 1 {
                let is_all = due.len() < limit;
                read.insert(id, Rows { which: Which::Any, due: due.into(), is_all });
            }
        }
        Ok(read)
    }

    /// Gives out what is due: turn by turn, until the slots, the receivers' room or the deliveries come to an end.
    fn give_out(
        &mut self,
        tx: &Tx<'_>,
        look: &Look<'_>,
        mut read: HashMap<EndpointId, Rows>,
        given: &mut Given,
    ) -> Result<(), DbError> {
        let is_due = self.waiting.iter().filter(|(_, waiting)| waiting.first <= look.now);
        let turn = |dispatch: &Dispatch, id: EndpointId| Reverse((dispatch.turn(Flow(id.0)), id));
        let mut turns: BinaryHeap<_> = is_due.map(|(id, _)| turn(&self.dispatch, *id)).collect();
        while let Some(Reverse((_, id))) = turns.pop() {
            let Some((which, room, is_probe)) = self.room(id, look) else { continue };
            if !read.get(&id).is_some_and(|rows| rows.can_tell(which)) {
                if read.remove(&id).is_some() {
                    // What was chosen must not be read as due again.
                    self.claim_chosen(tx, look, given)?;
                }
                let mut together = vec![(id, room)];
                let others = turns.iter().map(|Reverse((_, other))| *other).filter(|other| !read.contains_key(other));
                for other in others.take(LOOKED_THROUGH) {
                    if together.len() == READ_TOGETHER {
                        break;
                    }
                    let of_other = self.room(other, look).filter(|(of_other, ..)| *of_other == which);
                    together.extend(of_other.map(|(_, room, _)| (other, room)));
                }
                read_rows(tx, which, &together, &mut read)?;
            }
            let Some((waiting, rows)) = self.waiting.get_mut(&id).zip(read.get_mut(&id)) else { continue };
            match (which, rows.due.front().copied()) {
                (_, Some(due)) if due.at <= look.now => {
                    rows.due.pop_front();
                    given.chosen.push((due, Arc::clone(&waiting.row)));
                    given.tickets.push(self.dispatch.begin(waiting.lane, Flow(id.0), is_probe, look.mono));
                    turns.push(turn(&self.dispatch, id));
                }
                (Which::Any, Some(due)) => waiting.first = due.at,
                (Which::Any, None) => drop(self.waiting.remove(&id)),
                (Which::Begun, next) => waiting.first_begun = Some(next.map(|due| due.at)),
            }
        }
        self.claim_chosen(tx, look, given)
    }

    /// Which of an endpoint's deliveries may go out now, how many of them, and whether the next is a probe.
    fn room(&mut self, id: EndpointId, look: &Look<'_>) -> Option<(Which, usize, bool)> {
        let waiting = self.waiting.get(&id)?;
        match self.dispatch.gate(waiting.lane, look.mono) {
            Gate::Full => None,
            Gate::Any { room } => Some((Which::Any, room, false)),
            Gate::Probe => Some((Which::Any, 1, true)),
            Gate::Begun { room } => {
                let none_is_due = waiting.first_begun.is_some_and(|at| at.is_none_or(|at| at > look.now));
                (!none_is_due).then_some((Which::Begun, room, false))
            }
        }
    }

    /// Claims in the database what was chosen since the last time.
    fn claim_chosen(&mut self, tx: &Tx<'_>, look: &Look<'_>, given: &mut Given) -> Result<(), DbError> {
        if given.chosen.is_empty() {
            return Ok(());
        }
        let claims = outbox::claim(tx, look.epoch, look.wall, &given.chosen)?;
        given.chosen.clear();
        for (claim, ticket) in claims.into_iter().zip(given.tickets.drain(..)) {
            match claim {
                Ok(claim) => {
                    self.claims.insert(claim.id);
                    given.claims.push((claim, ticket));
                }
                Err(buried) => {
                    self.dispatch.end(ticket, Felt::Nothing, look.mono);
                    given.buried.push(buried);
                }
            }
        }
        Ok(())
    }

    fn next(&mut self, look: &Look<'_>) -> Option<Duration> {
        let Self { dispatch, waiting, .. } = self;
        let mut next = None;
        let mut soonest = |wait: Duration| next = Some(next.map_or(wait, |soonest: Duration| soonest.min(wait)));
        let mut is_full = false;
        for waiting in waiting.values() {
            if waiting.first > look.now {
                soonest(waiting.first.since(look.now));
                continue;
            }
            match dispatch.gate(waiting.lane, look.mono) {
                Gate::Begun { .. } => {
                    if let Some(Some(at)) = waiting.first_begun {
                        soonest(at.since(look.now));
                    }
                    if let Some(at) = dispatch.probe_at(waiting.lane) {
                        soonest(at.since(look.mono));
                    }
                }
                Gate::Full => is_full = true,
                // All that is due was taken.
                Gate::Any { .. } | Gate::Probe => {}
            }
        }
        if let Some(at) = dispatch.next_change().filter(|_| is_full) {
            soonest(at.since(look.mono));
        }
        next
    }
}

/// Reads what is due first of some endpoints, one row more than each has room for, to know when the next falls due.
fn read_rows(
    tx: &Tx<'_>,
    which: Which,
    together: &[(EndpointId, usize)],
    read: &mut HashMap<EndpointId, Rows>,
) -> Result<(), DbError> {
    let ids: Vec<EndpointId> = together.iter().map(|(id, _)| *id).collect();
    let limit = together.iter().map(|(_, room)| room + 1).max().unwrap_or(1);
    let mut due = outbox::first_due(tx, &ids, which, limit)?;
    for id in ids {
        let due = VecDeque::from(due.remove(&id).unwrap_or_default());
        let is_all = due.len() < limit;
        read.insert(id, Rows { which, due, is_all });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use framehook_domain::callback::EventKind;
    use framehook_domain::id::TemplateId;

    use super::*;

    #[test]
    fn what_has_been_due_for_long_is_held_only_while_its_receiver_has_been_paused_for_long() {
        let pause_max = Duration::from_secs(8);
        let mut rounds = Rounds::new(Limits { slots: 8, window_max: 8, breaker_failures: 1, pause_max });
        let row =
            EndpointRow { id: EndpointId(1), template: TemplateId(1), kind: EventKind::Snapshot, url_override: None };
        let waiting = Waiting { row: Arc::new(row), lane: Lane(1), first: UnixMs(1000), first_begun: None };
        rounds.waiting.insert(EndpointId(1), waiting);
        let at = |secs| Mono(Duration::from_secs(secs));
        let attempt = |rounds: &mut Rounds, secs, felt| {
            let ticket = rounds.dispatch.begin(Lane(1), Flow(1), false, at(secs));
            rounds.dispatch.end(ticket, felt, at(secs));
        };
        let is_held =
            |rounds: &Rounds, due_before, paused_before| !rounds.held(UnixMs(due_before), at(paused_before)).is_empty();
        assert!(!is_held(&rounds, 1001, u64::MAX), "nothing has failed");
        attempt(&mut rounds, 20, Felt::Bad);
        // Further failures do not begin the pause anew.
        attempt(&mut rounds, 500, Felt::Bad);
        let rows =
            [(1001, 21, true), (1000, 21, false), (1001, 20, false), (999, u64::MAX, false), (i64::MAX, 0, false)];
        for (due_before, paused_before, expected) in rows {
            assert_eq!(is_held(&rounds, due_before, paused_before), expected, "{due_before}, {paused_before}");
        }
        attempt(&mut rounds, 600, Felt::Good);
        assert!(!is_held(&rounds, 1001, u64::MAX), "it answers again");
    }
}
