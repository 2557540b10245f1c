//! All grids of one push.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use super::{DueCounts, DueTicket, Grid, SkipReason, TakenTicket};
use crate::{
    id::{RuleId, TaskId},
    template::SnapshotTemplate,
    time::Mono,
};

/// Screenshot tasks that run on one stream at a time (CSS §6.6); further ones wait for an earlier one to end.
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

/// One due of one grid of a push, in flight.
#[derive(Debug, PartialEq, Eq)]
pub struct PickTicket {
    /// A grid that was deleted and made again for the same subscriber is another one.
    grid: u64,
    due: DueTicket,
}

/// One due of one grid of a push, taken.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenPick {
    grid: u64,
    taken: TakenTicket,
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
    /// Whether this is the subscriber's first picture of the push: the moment to ask [`crate::storm`] for a shift.
    pub is_first: bool,
    pub catalog_version: u64,
}

/// Which entry points of one push become pictures: one grid for its rule and one for each screenshot task.
#[derive(Debug, Default)]
pub struct PushPicks {
    grids: Vec<SubscribedGrid>,
    /// The dues of grids that ended. One sum, because rules may come and go for as long as a push lives.
    past: DueCounts,
    grids_made: u64,
    catalog_version: u64,
}

#[derive(Debug)]
struct SubscribedGrid {
    id: u64,
    subscription: Subscription,
    grid: Grid,
}

impl PushPicks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nobody wants pictures of this push.
    pub fn is_idle(&self) -> bool {
        self.grids.is_empty()
    }

    /// The catalog this was last reconciled with.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// Follows a changed catalog: a new subscriber's grid begins with the next entry point, a changed interval begins a
    /// new grid, and a subscriber that is gone ends its own. Of the wanted ones the first rule and the first three
    /// tasks count.
    pub fn reconcile(&mut self, now: Mono, catalog_version: u64, wanted: Vec<Subscription>) {
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
            }
            stays
        });
        for subscription in wanted {
            let interval = subscription.template.interval;
            match self.grids.iter_mut().find(|grid| grid.subscription.subscriber == subscription.subscriber) {
                Some(known) => {
                    known.grid.change_interval(now, interval);
                    known.subscription = subscription;
                }
                None => {
                    self.grids_made += 1;
                    self.grids.push(SubscribedGrid { id: self.grids_made, subscription, grid: Grid::new(interval) });
                }
            }
        }
    }

    /// An entry point's last byte arrived: everybody who wants it, at most four.
    pub fn on_entry_point(&mut self, now: Mono) -> Vec<Want> {
        let catalog_version = self.catalog_version;
        let want = |subscribed: &mut SubscribedGrid| {
            let due = subscribed.grid.on_entry_point(now)?;
            Some(Want {
                subscriber: subscribed.subscription.subscriber,
                template: Arc::clone(&subscribed.subscription.template),
                due: due.due(),
                is_first: due.is_first(),
                catalog_version,
                ticket: PickTicket { grid: subscribed.id, due },
            })
        };
        self.grids.iter_mut().filter_map(want).collect()
    }

    /// Counts the dues that fell up to `now`; call it before reading [`PushPicks::counts`].
    pub fn advance(&mut self, now: Mono) {
        for subscribed in &mut self.grids {
            subscribed.grid.advance(now);
        }
    }

    /// See [`Grid::hand_over`].
    pub fn hand_over(&mut self, now: Mono, ticket: PickTicket) -> Option<TakenPick> {
        let taken = self.grid(ticket.grid)?.hand_over(now, ticket.due)?;
        Some(TakenPick { grid: ticket.grid, taken })
    }

    /// See [`Grid::settle`].
    pub fn settle(&mut self, now: Mono, ticket: PickTicket, reason: SkipReason) {
        if let Some(grid) = self.grid(ticket.grid) {
            grid.settle(now, ticket.due, reason);
        }
    }

    /// See [`Grid::undo_taken`]. It also works after the grid has ended.
    pub fn undo_taken(&mut self, taken: TakenPick, reason: SkipReason) {
        match self.grid(taken.grid) {
            Some(grid) => grid.undo_taken(taken.taken, reason),
            None => {
                self.past.taken -= 1;
                self.past.skip(reason, 1);
            }
        }
    }

    /// See [`Grid::shift_phase`].
    pub fn shift_phase(&mut self, now: Mono, subscriber: Subscriber, by: Duration) {
        if let Some(subscribed) = self.grids.iter_mut().find(|grid| grid.subscription.subscriber == subscriber) {
            subscribed.grid.shift_phase(now, by);
        }
    }

    /// The push ended: everything open is skipped as `push_ended`.
    pub fn end(&mut self, now: Mono) {
        for mut subscribed in self.grids.drain(..) {
            subscribed.grid.end(now);
            self.past += subscribed.grid.counts();
        }
    }

    /// The dues of each subscriber of now, as of the last call with a time.
    pub fn counts(&self) -> impl Iterator<Item = (&Subscription, DueCounts)> {
        self.grids.iter().map(|subscribed| (&subscribed.subscription, subscribed.grid.counts()))
    }

    /// The dues of subscribers that are gone.
    pub fn past_counts(&self) -> DueCounts {
        self.past
    }

    /// The dues of the whole push.
    pub fn total_counts(&self) -> DueCounts {
        self.counts().map(|(_, counts)| counts).chain([self.past]).sum()
    }

    fn grid(&mut self, id: u64) -> Option<&mut Grid> {
        self.grids.iter_mut().find(|subscribed| subscribed.id == id).map(|subscribed| &mut subscribed.grid)
    }
}

#[cfg(test)]
mod tests;
