//! The dues of one rule on one push.

use core::time::Duration;

use super::{DueCounts, SkipReason};
use crate::{template::SnapshotInterval, time::Mono};

/// The earliest an entry point may come before its due and still serve it, capped: half a second is less than anybody's
/// idea of "every ten seconds", and catches encoders whose GOP drifts around the grid.
const EARLY_MAX: Duration = Duration::from_millis(500);

/// A due that an entry point was picked for. It is spent by [`Grid::hand_over`] or [`Grid::settle`]; one that is
/// dropped leaves the due open until the next one falls.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pick ends by being handed over or settled"]
pub struct DueTicket {
    serial: u64,
    /// When the due fell, or would have fallen if it was served early.
    due: Mono,
    is_first: bool,
}

impl DueTicket {
    pub fn due(&self) -> Mono {
        self.due
    }

    /// Whether this is the pick that anchors the grid.
    pub fn is_first(&self) -> bool {
        self.is_first
    }
}

/// A due whose picture is with the commit. It stays open until [`Grid::settle_commit`] hears the answer, also beyond the
/// end of its grid.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a due that is never answered stays open and keeps its grid from picking"]
pub struct CommitTicket(());

/// What the open due is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// Nothing: every due so far is decided.
    No,
    /// An entry point.
    Waiting(Mono),
    /// The renderer; the number is the ticket's.
    InFlight(u64),
    /// The commit. Only its answer can decide this one: until then nobody knows whether the picture became durable.
    Committing,
}

/// The fixed monotonic grid of one rule on one push, from its first picture to the end of either.
///
/// Dues are counted lazily: any call with a later `now` first lets every due up to `now` fall.
///
/// At most one due is open. The one that is open when the next falls is decided by that, unless its picture is with the
/// commit: then the next one gives way, as `commit_busy`, and a grid so never has two pictures on their way to the disk.
#[derive(Clone, Debug)]
pub struct Grid {
    interval: SnapshotInterval,
    state: State,
    open: Open,
    counts: DueCounts,
    /// Tickets given out so far.
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waits for the first entry point.
    Unanchored,
    Running(Running),
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    last_pick: Mono,
    /// The first due that has not fallen.
    next_due: Mono,
}

impl Grid {
    /// A grid whose first due falls with the first entry point.
    pub fn new(interval: SnapshotInterval) -> Self {
        Self { interval, state: State::Unanchored, open: Open::No, counts: DueCounts::default(), serial: 0 }
    }

    pub fn interval(&self) -> SnapshotInterval {
        self.interval
    }

    /// An entry point's last byte arrived at `now`: is it picked?
    ///
    /// The first one is, and it anchors the grid. After that the first entry point in or after the window of a due is,
    /// unless the last pick was less than half an interval ago; the window opens `min(interval / 4, 500 ms)` early.
    /// When several dues have passed, or the window of the next one is open already, the latest is served and the
    /// others are skipped: never two pictures in a row to make up for lost ones.
    pub fn on_entry_point(&mut self, now: Mono) -> Option<DueTicket> {
        self.advance(now);
        let Running { last_pick, next_due } = match self.state {
            State::Running(running) => running,
            State::Ended => return None,
            State::Unanchored => {
                self.state = State::Running(Running { last_pick: now, next_due: now });
                self.fall(now);
                return Some(self.pick(now, now, true));
            }
        };
        let is_too_soon = now.since(last_pick) < self.least_gap();
        let is_next_due_open = now.plus(self.earliness()) >= next_due;
        match self.open {
            _ if is_too_soon => None,
            // The next due may still be served when it has fallen, so it does not fall early only to give way.
            Open::Committing => None,
            _ if is_next_due_open => {
                self.fall(next_due);
                Some(self.pick(now, next_due, false))
            }
            Open::Waiting(due) => Some(self.pick(now, due, false)),
            Open::No | Open::InFlight(_) => None,
        }
    }

    /// The first moment from `now` on at which an entry point may be picked; one that comes before it passes. `None` when
    /// none will be any more.
    pub fn picks_from(&mut self, now: Mono) -> Option<Mono> {
        self.advance(now);
        let Running { last_pick, next_due } = match self.state {
            State::Running(running) => running,
            State::Unanchored => return Some(now),
            State::Ended => return None,
        };
        let opens = match self.open {
            Open::Waiting(_) => now,
            Open::No | Open::InFlight(_) | Open::Committing => next_due.minus(self.earliness()),
        };
        Some(opens.max(last_pick.plus(self.least_gap())).max(now))
    }

    /// How much earlier than its due an entry point may come.
    fn earliness(&self) -> Duration {
        EARLY_MAX.min(self.interval.duration() / 4)
    }

    /// Two picks are never closer than this.
    fn least_gap(&self) -> Duration {
        self.interval.duration() / 2
    }

    /// Lets every due up to `now` fall. The one that was open before is decided by that: it got no entry point, or the
    /// renderer did not keep up. Of several that fall at once only the last stays open.
    pub fn advance(&mut self, now: Mono) {
        let State::Running(Running { next_due, .. }) = self.state else { return };
        if now < next_due {
            return;
        }
        let interval = self.interval.duration();
        // An interval is at least 2 s, so the quotient of two `Duration`s fits 64 bits.
        let further = (now.since(next_due).as_nanos() / interval.as_nanos()) as u64;
        let latest = next_due.plus(Duration::from_nanos_u128(interval.as_nanos() * u128::from(further)));
        if further > 0 {
            self.fall(next_due);
            // All between the first and the last, which falls below.
            let reason = if self.open == Open::Committing { SkipReason::CommitBusy } else { SkipReason::NoEntryPoint };
            self.counts.due += further - 1;
            self.counts.skip(reason, further - 1);
        }
        self.fall(latest);
    }

    /// Called right before commit. `None` when the due was decided meanwhile (the next one fell, the rule changed or
    /// ended, the push ended): the picture must not be committed.
    pub fn hand_over(&mut self, now: Mono, ticket: DueTicket) -> Option<CommitTicket> {
        self.advance(now);
        if self.open != Open::InFlight(ticket.serial) {
            return None;
        }
        self.open = Open::Committing;
        Some(CommitTicket(()))
    }

    /// The commit has answered: the due was taken, or is skipped for this reason.
    pub fn settle_commit(&mut self, now: Mono, ticket: CommitTicket, outcome: Result<(), SkipReason>) {
        self.advance(now);
        let CommitTicket(()) = ticket;
        debug_assert_eq!(self.open, Open::Committing, "a grid hands over one due at a time");
        self.open = Open::No;
        self.counts.settle_open(outcome);
    }

    /// The pick came to nothing. A due that was decided meanwhile keeps its first reason.
    pub fn settle(&mut self, now: Mono, ticket: DueTicket, reason: SkipReason) {
        self.advance(now);
        if self.open == Open::InFlight(ticket.serial) {
            self.skip_open(reason);
        }
    }

    /// Begins a new grid at the last pick plus the new interval, or now if that is past. A due that waits for an entry
    /// point is skipped as `rule_changed`; one in flight stays good until the new grid's first due falls.
    ///
    /// Gives the first due of the new grid, if there was a grid and it changed: the moment to ask [`crate::storm`] for a
    /// place, since a change reaches all pushes at once and would give most of them one phase.
    pub fn change_interval(&mut self, now: Mono, interval: SnapshotInterval) -> Option<Mono> {
        self.advance(now);
        if interval == self.interval {
            return None;
        }
        self.interval = interval;
        let State::Running(running) = &mut self.state else { return None };
        let first_due = running.last_pick.plus(interval.duration()).max(now);
        running.next_due = first_due;
        if matches!(self.open, Open::Waiting(_)) {
            self.skip_open(SkipReason::RuleChanged);
        }
        self.advance(now);
        Some(first_due)
    }

    /// Moves every later due back by `by`, once, to spread pushes that began or changed together (see [`crate::storm`]).
    /// The due that is open now stays as it is.
    pub fn shift_phase(&mut self, now: Mono, by: Duration) {
        self.advance(now);
        if let State::Running(running) = &mut self.state {
            running.next_due = running.next_due.plus(by);
        }
    }

    /// The push ended: what is open is skipped as `push_ended` and nothing is due any more. A due with the commit stays
    /// open until that has answered.
    pub fn end(&mut self, now: Mono) {
        self.end_because(now, SkipReason::PushEnded);
    }

    pub(super) fn end_because(&mut self, now: Mono, reason: SkipReason) {
        self.advance(now);
        if matches!(self.open, Open::Waiting(_) | Open::InFlight(_)) {
            self.skip_open(reason);
        }
        self.state = State::Ended;
    }

    /// As of the last call with a time.
    pub fn counts(&self) -> DueCounts {
        self.counts
    }

    /// The due at `due` falls, after all earlier ones.
    fn fall(&mut self, due: Mono) {
        self.counts.due += 1;
        match self.open {
            Open::No => {}
            Open::Waiting(_) => self.skip_open(SkipReason::NoEntryPoint),
            Open::InFlight(_) => self.skip_open(SkipReason::RendererBusy),
            Open::Committing => self.counts.skip(SkipReason::CommitBusy, 1),
        }
        if self.open == Open::No {
            self.open = Open::Waiting(due);
            self.counts.open += 1;
        }
        if let State::Running(running) = &mut self.state {
            running.next_due = due.plus(self.interval.duration());
        }
    }

    fn skip_open(&mut self, reason: SkipReason) {
        self.open = Open::No;
        self.counts.settle_open(Err(reason));
    }

    /// Serves the due at `due`, which has just fallen or waits.
    fn pick(&mut self, now: Mono, due: Mono, is_first: bool) -> DueTicket {
        if let State::Running(running) = &mut self.state {
            running.last_pick = now;
        }
        self.serial += 1;
        self.open = Open::InFlight(self.serial);
        DueTicket { serial: self.serial, due, is_first }
    }
}

#[cfg(test)]
mod tests;
