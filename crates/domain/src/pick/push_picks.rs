//! All grids of one push.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use super::{CommitTicket, DueCounts, DueTicket, Grid, SkipReason};
use crate::{
    id::{RuleId, TaskId},
    storm::Seat,
    template::{SnapshotInterval, SnapshotTemplate},
    time::Mono,
};

/// Most screenshot tasks that run on one stream at a time (CSS, 267/70281).
pub const TASKS_MAX: usize = 3;

/// Who asks for pictures of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscriber {
    Rule(RuleId),
    Task(TaskId),
}

/// A subscriber with what it wants.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub subscriber: Subscriber,
    pub template: Arc<SnapshotTemplate>,
}

/// One grid of a push. A grid that was deleted and made again for the same subscriber is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridId(u64);

/// One due of one grid of a push, in flight.
#[derive(Debug, PartialEq, Eq)]
pub struct PickTicket {
    grid: GridId,
    due: DueTicket,
}

/// One due of one grid of a push, with the commit.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a due that is never answered stays open and keeps its grid from picking"]
pub struct CommittingPick {
    grid: GridId,
    due: CommitTicket,
}

/// A grid whose dues have just been fixed, by its first picture or by a changed interval: give it a place in
/// [`Phases`](crate::storm::Phases), and tell with [`PushPicks::seated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchored {
    pub grid: GridId,
    pub interval: SnapshotInterval,
    /// One of its dues; the others lie whole intervals from it.
    pub due: Mono,
}

/// What a changed catalog did to the grids of a push.
#[derive(Debug, Default)]
#[must_use = "seats are given back"]
pub struct Reconciled {
    /// The places of grids that ended or have other dues now.
    pub vacated: Vec<Seat>,
    /// Grids with other dues.
    pub anchored: Vec<Anchored>,
}

/// An entry point was picked for a subscriber: render it as `template` says.
#[derive(Debug)]
#[must_use = "a pick ends by being handed over or settled"]
pub struct Want {
    pub ticket: PickTicket,
    pub subscriber: Subscriber,
    /// As configured when the pick was made; a later change does not touch it.
    pub template: Arc<SnapshotTemplate>,
    /// Work is ordered by this.
    pub due: Mono,
    /// Set on the first picture of the grid.
    pub anchored: Option<Anchored>,
    pub catalog_version: u64,
}

/// Which entry points of one push become pictures: one grid for its rule and one for each screenshot task.
#[derive(Debug, Default)]
pub struct PushPicks {
    grids: Vec<SubscribedGrid>,
    /// The dues of grids that ended. One sum, because rules may come and go for as long as a push lives. What is open in
    /// it is with the commit.
    past: DueCounts,
    grids_made: u64,
    catalog_version: u64,
}

#[derive(Debug)]
struct SubscribedGrid {
    id: GridId,
    subscription: Subscription,
    grid: Grid,
    seat: Option<Seat>,
}

impl PushPicks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nobody wants pictures of this push.
    pub fn is_idle(&self) -> bool {
        self.grids.is_empty()
    }

    /// Follows a changed catalog: a new subscriber's grid begins with the next entry point, a changed interval begins a
    /// new grid, and a subscriber that is gone ends its own. Of the wanted ones the first rule and the first three
    /// tasks count. An older catalog than the one known changes nothing: two tasks may bring two versions in any order.
    pub fn reconcile(&mut self, now: Mono, catalog_version: u64, wanted: Vec<Subscription>) -> Reconciled {
        let mut reconciled = Reconciled::default();
        if catalog_version < self.catalog_version {
            return reconciled;
        }
        self.catalog_version = catalog_version;
        let mut rules = 0;
        let mut tasks = 0;
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter(|subscription| match subscription.subscriber {
                Subscriber::Rule(_) => core::mem::replace(&mut rules, 1) == 0,
                Subscriber::Task(_) => {
                    tasks += 1;
                    tasks <= TASKS_MAX
                }
            })
            .collect();

        let past = &mut self.past;
        self.grids.retain_mut(|subscribed| {
            let stays = wanted.iter().any(|other| other.subscriber == subscribed.subscription.subscriber);
            if !stays {
                subscribed.grid.end_because(now, SkipReason::RuleRemoved);
                *past += subscribed.grid.counts();
                reconciled.vacated.extend(subscribed.seat.take());
            }
            stays
        });
        for subscription in wanted {
            let interval = subscription.template.interval;
            match self.grids.iter_mut().find(|grid| grid.subscription.subscriber == subscription.subscriber) {
                Some(known) => {
                    if let Some(due) = known.grid.change_interval(now, interval) {
                        reconciled.vacated.extend(known.seat.take());
                        reconciled.anchored.push(Anchored { grid: known.id, interval, due });
                    }
                    known.subscription = subscription;
                }
                None => {
                    self.grids_made += 1;
                    let id = GridId(self.grids_made);
                    self.grids.push(SubscribedGrid { id, subscription, grid: Grid::new(interval), seat: None });
                }
            }
        }
        reconciled
    }

    /// An entry point's last byte arrived: everybody who wants it, at most four.
    pub fn on_entry_point(&mut self, now: Mono) -> Vec<Want> {
        let catalog_version = self.catalog_version;
        let want = |subscribed: &mut SubscribedGrid| {
            let due = subscribed.grid.on_entry_point(now)?;
            let anchored = Anchored { grid: subscribed.id, interval: subscribed.grid.interval(), due: due.due() };
            Some(Want {
                subscriber: subscribed.subscription.subscriber,
                template: Arc::clone(&subscribed.subscription.template),
                due: due.due(),
                anchored: due.is_first().then_some(anchored),
                catalog_version,
                ticket: PickTicket { grid: subscribed.id, due },
            })
        };
        self.grids.iter_mut().filter_map(want).collect()
    }

    /// The first moment from `now` on at which somebody may want an entry point. `None` while nobody does. See
    /// [`Grid::picks_from`].
    pub fn picks_from(&mut self, now: Mono) -> Option<Mono> {
        self.grids.iter_mut().filter_map(|subscribed| subscribed.grid.picks_from(now)).min()
    }

    /// Counts the dues that fell up to `now`; call it before reading [`PushPicks::counts`].
    pub fn advance(&mut self, now: Mono) {
        for subscribed in &mut self.grids {
            subscribed.grid.advance(now);
        }
    }

    /// See [`Grid::hand_over`].
    pub fn hand_over(&mut self, now: Mono, ticket: PickTicket) -> Option<CommittingPick> {
        let due = self.grid(ticket.grid)?.hand_over(now, ticket.due)?;
        Some(CommittingPick { grid: ticket.grid, due })
    }

    /// See [`Grid::settle`].
    pub fn settle(&mut self, now: Mono, ticket: PickTicket, reason: SkipReason) {
        if let Some(grid) = self.grid(ticket.grid) {
            grid.settle(now, ticket.due, reason);
        }
    }

    /// See [`Grid::settle_commit`]. It also works after the grid has ended.
    pub fn settle_commit(&mut self, now: Mono, pick: CommittingPick, outcome: Result<(), SkipReason>) {
        match self.grid(pick.grid) {
            Some(grid) => grid.settle_commit(now, pick.due, outcome),
            None => self.past.settle_open(outcome),
        }
    }

    /// A grid was given a place, and is to move by `shift` if others crowd it. Gives a place back: this one if the grid is gone
    /// or has another interval by now, for which a place is under way; else the one that it had.
    #[must_use = "a seat is given back"]
    pub fn seated(&mut self, now: Mono, grid: GridId, seat: Seat, shift: Option<Duration>) -> Option<Seat> {
        let Some(subscribed) = self.grids.iter_mut().find(|subscribed| subscribed.id == grid) else {
            return Some(seat);
        };
        if subscribed.grid.interval() != seat.interval() {
            return Some(seat);
        }
        if let Some(shift) = shift {
            subscribed.grid.shift_phase(now, shift);
        }
        subscribed.seat.replace(seat)
    }

    /// The push ended: everything open is skipped as `push_ended`, but for what is with the commit. Gives back all places.
    pub fn end(&mut self, now: Mono) -> Vec<Seat> {
        let mut vacated = Vec::new();
        for mut subscribed in self.grids.drain(..) {
            subscribed.grid.end(now);
            self.past += subscribed.grid.counts();
            vacated.extend(subscribed.seat);
        }
        vacated
    }

    /// The dues of each subscriber of now, as of the last call with a time.
    pub fn counts(&self) -> impl Iterator<Item = (&Subscription, DueCounts)> {
        self.grids.iter().map(|subscribed| (&subscribed.subscription, subscribed.grid.counts()))
    }

    /// The dues of the whole push.
    pub fn total_counts(&self) -> DueCounts {
        self.counts().map(|(_, counts)| counts).chain([self.past]).sum()
    }

    fn grid(&mut self, id: GridId) -> Option<&mut Grid> {
        self.grids.iter_mut().find(|subscribed| subscribed.id == id).map(|subscribed| &mut subscribed.grid)
    }
}

#[cfg(test)]
mod tests;
