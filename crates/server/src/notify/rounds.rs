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
use framehook_domain::dispatch::{Dispatch, Felt, Flow, Gate, Lane, LaneFacts, Limits, Ticket};
use framehook_domain::time::{Mono, UnixMs};

use super::attempt::Target;
use crate::db::outbox::{self, Claim, ClaimId, Due, EndpointId, EndpointRow, Which};
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
}

/// What a look gave.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) claims: Vec<(Claim, Ticket)>,
    /// After which time another look can give something, if nothing happens meanwhile.
    pub(super) next: Option<Duration>,
}

/// What is remembered between looks.
#[derive(Debug)]
pub(super) struct Rounds {
    pub(super) dispatch: Dispatch,
    /// The claims whose attempts are under way.
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

    /// Claims what is due, as far as its receivers have room.
    ///
    /// # Errors
    /// Those of the database; nothing is under way then that was not before.
    pub(super) fn claim(&mut self, tx: &Tx<'_>, look: &Look<'_>) -> Result<Round, DbError> {
        let mut claims = Vec::new();
        let taken = self.find_waiting(tx, look).and_then(|()| self.take(tx, look, &mut claims));
        match taken {
            Ok(()) => Ok(Round { claims, next: self.next(look) }),
            Err(error) => {
                self.is_stale = true;
                for (claim, ticket) in claims {
                    self.give_back(claim.id, ticket, Felt::Nothing, look.mono);
                }
                Err(error)
            }
        }
    }

    /// What is known of the receiver of an endpoint that was looked at under this configuration.
    pub(super) fn receiver_of(&self, endpoint: EndpointId) -> Option<LaneFacts> {
        self.lanes.known.get(&endpoint).map(|(_, lane)| self.dispatch.lane(*lane))
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

    /// Ends an attempt.
    pub(super) fn give_back(&mut self, claim: ClaimId, ticket: Ticket, felt: Felt, now: Mono) {
        self.dispatch.end(ticket, felt, now);
        self.claims.remove(&claim);
    }

    fn find_waiting(&mut self, tx: &Tx<'_>, look: &Look<'_>) -> Result<(), DbError> {
        let newly_due = outbox::newly_due(tx)?;
        let followed = self.lanes.follow(look.catalog);
        if self.is_stale || followed {
            self.waiting.clear();
            for endpoint in outbox::all_due(tx)? {
                self.find(tx, look, endpoint)?;
            }
            self.is_stale = false;
        } else {
            for endpoint in newly_due {
                self.find(tx, look, endpoint)?;
            }
        }
        Ok(())
    }

    /// Looks up when something of an endpoint is due.
    fn find(&mut self, tx: &Tx<'_>, look: &Look<'_>, id: EndpointId) -> Result<(), DbError> {
        let first = outbox::first_due(tx, id, Which::Any, 1)?;
        let (Some(first), Some((row, lane))) = (first.first(), self.lanes.of(tx, look, id)?) else {
            self.waiting.remove(&id);
            return Ok(());
        };
        self.waiting.insert(id, Waiting { row, lane, first: first.at, first_begun: None });
        Ok(())
    }

    fn take(&mut self, tx: &Tx<'_>, look: &Look<'_>, claims: &mut Vec<(Claim, Ticket)>) -> Result<(), DbError> {
        let is_due = self.waiting.iter().filter(|(_, waiting)| waiting.first <= look.now);
        let turn = |dispatch: &Dispatch, id: EndpointId| Reverse((dispatch.turn(Flow(id.0)), id));
        let mut turns: BinaryHeap<_> = is_due.map(|(id, _)| turn(&self.dispatch, *id)).collect();
        let mut read: HashMap<EndpointId, Rows> = HashMap::new();
        while let Some(Reverse((_, id))) = turns.pop() {
            let Some(waiting) = self.waiting.get_mut(&id) else { continue };
            let (which, room, is_probe) = match self.dispatch.gate(waiting.lane, look.mono) {
                Gate::Full => continue,
                Gate::Any { room } => (Which::Any, room, false),
                Gate::Begun { room } => (Which::Begun, room, false),
                Gate::Probe => (Which::Any, 1, true),
            };
            if which == Which::Begun && waiting.first_begun.is_some_and(|at| at.is_none_or(|at| at > look.now)) {
                continue;
            }
            let rows = match read.get_mut(&id) {
                Some(rows) if rows.which == which && (rows.is_all || !rows.due.is_empty()) => rows,
                _ => {
                    // One more than can be used, to know when the next falls due.
                    let limit = room + 1;
                    let due = VecDeque::from(outbox::first_due(tx, id, which, limit)?);
                    let is_all = due.len() < limit;
                    read.entry(id).insert_entry(Rows { which, due, is_all }).into_mut()
                }
            };
            let next = rows.due.front().copied();
            match (which, next) {
                (_, Some(due)) if due.at <= look.now => {
                    rows.due.pop_front();
                    let row = Arc::clone(&waiting.row);
                    let claim = outbox::claim(tx, look.epoch, due, &row)?;
                    let ticket = self.dispatch.begin(waiting.lane, Flow(id.0), is_probe, look.mono);
                    self.claims.insert(claim.id);
                    claims.push((claim, ticket));
                    turns.push(turn(&self.dispatch, id));
                }
                (Which::Any, Some(due)) => waiting.first = due.at,
                (Which::Any, None) => drop(self.waiting.remove(&id)),
                (Which::Begun, next) => waiting.first_begun = Some(next.map(|due| due.at)),
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

/// Where each endpoint leads, remembered for as long as the configuration stays: finding out takes opening and parsing a
/// URL.
#[derive(Debug, Default)]
struct Lanes {
    /// The configuration that they are true of.
    version: u64,
    known: HashMap<EndpointId, (Arc<EndpointRow>, Lane)>,
    /// By scheme, host and port. They outlive a change of the configuration, as what a receiver was like does.
    names: HashMap<String, Lane>,
    /// Numbers are not used twice, so that no receiver is taken for another.
    given_out: u32,
}

/// Endpoints and receivers that are remembered, some 200 bytes each. There are three endpoints for each template, and one
/// for each URL that replays are sent to.
const LANES_MAX: usize = 10_000;

/// The lane of endpoints that lead nowhere: their deliveries are settled without a request.
const NOWHERE: Lane = Lane(0);

impl Lanes {
    /// Forgets what another configuration made of the endpoints. Tells whether it did.
    fn follow(&mut self, catalog: &Catalog) -> bool {
        let changed = self.version != catalog.version();
        if changed || self.known.len() >= LANES_MAX {
            self.version = catalog.version();
            self.known.clear();
        }
        if self.names.len() >= LANES_MAX {
            self.names.clear();
        }
        changed
    }

    /// By scheme, host and port.
    fn of(
        &mut self,
        tx: &Tx<'_>,
        look: &Look<'_>,
        id: EndpointId,
    ) -> Result<Option<(Arc<EndpointRow>, Lane)>, DbError> {
        if let Some((row, lane)) = self.known.get(&id) {
            return Ok(Some((Arc::clone(row), *lane)));
        }
        let Some(row) = outbox::endpoint(tx, id)? else { return Ok(None) };
        let lane = match Target::of(look.catalog, look.vault, &row) {
            Ok(target) => *self.names.entry(target.endpoint.origin().to_string()).or_insert_with(|| {
                self.given_out += 1;
                Lane(self.given_out)
            }),
            Err(_) => NOWHERE,
        };
        let row = Arc::new(row);
        self.known.insert(id, (Arc::clone(&row), lane));
        Ok(Some((row, lane)))
    }
}
