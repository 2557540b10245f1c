//! How many attempts run at a time, to whom, and whose turn it is: what keeps a receiver that hangs from delaying anybody
//! else's callbacks.
//!
//! Everything that goes to one host and port is a [`Lane`]. Four things decide whether a lane may start one more attempt:
//!
//! - its *window*, which grows while the receiver copes and is halved when it does not ([`lane`](self) holds both machines);
//! - its *breaker*, which pauses new work for a receiver that failed several times in a row and probes it. Deliveries that
//!   have had an attempt go on by their schedule, as far as the window has room, and serve as probes; those that have had
//!   none wait. Nothing is dropped, and no attempt is counted that was not made;
//! - the *slots* of the sender. A lane that answers promptly has one for itself; beyond it, lanes share. Slow lanes share at
//!   most half of them, so they can only ever delay each other;
//! - the *turn*: of all endpoints that could be served, the one that has held slots for the least time goes first.
//!
//! A lane is slow while one of its attempts has been under way for [`SLOW_AFTER`] and until one ends within that time. An
//! attempt that outlasts it moves to the slow ones where it stands, so a receiver that begins to hang holds the others'
//! slots for that long and no longer.

mod lane;
mod turns;

use alloc::collections::BTreeMap;
use core::time::Duration;

pub use lane::BreakerState;
use lane::LaneState;
use turns::Turns;

use crate::time::Mono;

/// Everything that goes to one host and port, by a number that the caller gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u32);

/// What takes turns: one endpoint. Several may lead to one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow(pub i64);

/// How long an attempt may be under way before its lane counts as slow. Receivers that store a callback answer in
/// milliseconds, those that act on it before they answer in a few hundred; the tenfold of the former and three times the
/// latter is one second, and it is a twentieth of what a hanging attempt takes.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// Attempts at a time beyond `Limits::slots`, whoever makes them: those of prompt lanes in their own slots, and those that
/// began as prompt and hang. An attempt takes a descriptor and some 40 KiB of buffers, so this is 160 MiB at worst.
const BEYOND_SLOTS_MAX: usize = 4096;

/// Lanes that are remembered though nothing is under way in them: some 150 bytes each.
const LANES_MAX: usize = 10_000;

/// The bounds of a [`Dispatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts at a time, beside the one that each prompt lane has for itself. Slow lanes take at most half of them.
    pub slots: usize,
    /// Attempts at a time in one lane, at least 1.
    pub window_max: usize,
    /// Failures in a row that open a lane's breaker. 0: it never opens.
    pub breaker_failures: u32,
    /// Longest wait from one probe of an open breaker to the next.
    pub pause_max: Duration,
}

/// How an attempt ended, as far as it tells about the receiver's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Felt {
    /// It answered, and could have taken more.
    Good,
    /// No answer, or one that says that it cannot cope.
    Bad,
    /// It says nothing about the receiver.
    Nothing,
}

/// What a lane may be given now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Whatever is due, up to so many.
    Any { room: usize },
    /// Deliveries that have had an attempt, up to so many: the breaker is open.
    Begun { room: usize },
    /// One, whatever it is, to find out whether the receiver is back.
    Probe,
    /// Nothing until an attempt ends or [`Dispatch::next_change`].
    Full,
}

/// An attempt under way. Give it back with [`Dispatch::end`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    number: u64,
    is_probe: bool,
}

/// Whose slot an attempt takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The one that a prompt lane has for itself.
    Own,
    /// A common one.
    Shared,
    /// One of those that slow lanes share.
    Slow,
}

#[derive(Debug)]
struct Running {
    lane: Lane,
    flow: Flow,
    started: Mono,
    place: Place,
    /// What its endpoint was charged for it in advance.
    charged: u64,
}

/// The attempts under way and what is known of every lane and endpoint.
#[derive(Debug)]
pub struct Dispatch {
    limits: Limits,
    lanes: BTreeMap<Lane, LaneState>,
    turns: Turns,
    /// By the order in which they began.
    running: BTreeMap<u64, Running>,
    next_number: u64,
    /// Every attempt with a lower number that is still under way is slow.
    prompt_from: u64,
    shared: usize,
    slow: usize,
}

impl Dispatch {
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { slots: limits.slots.max(1), window_max: limits.window_max.max(1), ..limits };
        Self {
            limits,
            lanes: BTreeMap::new(),
            turns: Turns::default(),
            running: BTreeMap::new(),
            next_number: 0,
            prompt_from: 0,
            shared: 0,
            slow: 0,
        }
    }

    /// What `lane` may be given at `now`.
    pub fn gate(&mut self, lane: Lane, now: Mono) -> Gate {
        self.find_slow(now);
        let unknown = LaneState::new(self.limits);
        let state = self.lanes.get(&lane).unwrap_or(&unknown);
        let room = match self.place(state) {
            Some(_) => state.room(),
            None => 0,
        };
        match (room, state.probe_at()) {
            (0, _) => Gate::Full,
            (room, None) => Gate::Any { room },
            (_, Some(at)) if at <= now && !state.is_probing() => Gate::Probe,
            (room, Some(_)) => Gate::Begun { room },
        }
    }

    /// When the next first attempt may probe `lane`, whose breaker is open and which is not being probed.
    pub fn probe_at(&self, lane: Lane) -> Option<Mono> {
        self.lanes.get(&lane).filter(|state| !state.is_probing()).and_then(LaneState::probe_at)
    }

    /// Begins an attempt that [`Dispatch::gate`] has just allowed.
    pub fn begin(&mut self, lane: Lane, flow: Flow, is_probe: bool, now: Mono) -> Ticket {
        self.forget_idle_lanes();
        let limits = self.limits;
        let unknown = LaneState::new(limits);
        let place = self.place(self.lanes.get(&lane).unwrap_or(&unknown)).unwrap_or(Place::Shared);
        match place {
            Place::Own => {}
            Place::Shared => self.shared += 1,
            Place::Slow => self.slow += 1,
        }
        let state = self.lanes.entry(lane).or_insert(unknown);
        state.begin(place == Place::Slow, is_probe);
        let charged = self.turns.begin(flow);
        let number = self.next_number;
        self.next_number += 1;
        self.running.insert(number, Running { lane, flow, started: now, place, charged });
        Ticket { number, is_probe }
    }

    /// Ends an attempt.
    pub fn end(&mut self, ticket: Ticket, felt: Felt, now: Mono) {
        self.find_slow(now);
        let Some(Running { lane, flow, started, place, charged }) = self.running.remove(&ticket.number) else { return };
        match place {
            Place::Own => {}
            Place::Shared => self.shared -= 1,
            Place::Slow => self.slow -= 1,
        }
        self.turns.end(flow, charged, now.since(started));
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.end(lane::Ended { felt, started, now, was_slow: place == Place::Slow, is_probe: ticket.is_probe });
        }
    }

    /// When an attempt under way becomes slow, by which a slot may come free for others.
    pub fn next_change(&self) -> Option<Mono> {
        let mut prompt = self.running.range(self.prompt_from..);
        prompt.find(|(_, running)| running.place != Place::Slow).map(|(_, running)| running.started.plus(SLOW_AFTER))
    }

    /// Where `flow` stands in the queue: the lowest goes first.
    pub fn turn(&self, flow: Flow) -> u64 {
        self.turns.of(flow)
    }

    /// Attempts under way.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// What is known of a lane, for people.
    pub fn lane(&self, lane: Lane) -> LaneFacts {
        self.lanes.get(&lane).map_or_else(|| LaneState::new(self.limits).facts(), LaneState::facts)
    }

    /// Whether attempts are under way in a lane or its breaker is open: to forget it would lose more than its window.
    pub fn is_engaged(&self, lane: Lane) -> bool {
        self.lanes.get(&lane).is_some_and(|state| !state.is_forgettable())
    }

    /// Whose slot the next attempt of a lane would take, if there is one for it.
    fn place(&self, lane: &LaneState) -> Option<Place> {
        let Limits { slots, .. } = self.limits;
        // A machine with one slot has it for the slow as well.
        let slow_max = slots.div_ceil(2);
        if self.running.len() >= slots + BEYOND_SLOTS_MAX {
            None
        } else if lane.is_slow() {
            (self.slow < slow_max).then_some(Place::Slow)
        } else if lane.running() == 0 {
            Some(Place::Own)
        } else {
            (self.shared + self.slow.min(slow_max) < slots).then_some(Place::Shared)
        }
    }

    /// Moves attempts that have been under way for long to the slow ones.
    fn find_slow(&mut self, now: Mono) {
        for (&number, running) in self.running.range_mut(self.prompt_from..) {
            if now.since(running.started) < SLOW_AFTER {
                return;
            }
            self.prompt_from = number + 1;
            if running.place == Place::Slow {
                continue;
            }
            if running.place == Place::Shared {
                self.shared -= 1;
            }
            running.place = Place::Slow;
            self.slow += 1;
            if let Some(lane) = self.lanes.get_mut(&running.lane) {
                lane.became_slow();
            }
        }
    }

    fn forget_idle_lanes(&mut self) {
        if self.lanes.len() >= LANES_MAX {
            self.lanes.retain(|_, state| !state.is_forgettable());
        }
    }
}

/// What a [`Dispatch`] knows of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFacts {
    /// Attempts that it may have under way at a time.
    pub window: usize,
    /// Those that are.
    pub running: usize,
    pub is_slow: bool,
    pub breaker: BreakerState,
}

#[cfg(test)]
mod tests;
