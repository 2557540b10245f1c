//! Which entry points of a push become pictures.
//!
//! A rule (or a screenshot task) wants a picture at fixed moments, its *dues*. They lie on a [`Grid`] that begins with
//! the push's first picture. Every due that falls ends as taken or as skipped for a reason, and until then it is open:
//! at every moment `due = taken + skipped + open`, and at most one is open per grid.
//!
//! A due is taken when the commit has said that its picture is durable, so no count ever goes back. Until that answer it
//! is open; a due that falls meanwhile is skipped (`commit_busy`), because the one before it can no longer be decided by
//! anything but the commit. [`PushPicks`] holds all grids of one push.

mod counts;
mod grid;
mod push_picks;

pub use counts::{DueCounts, SkipReason};
pub use grid::{CommitTicket, DueTicket, Grid};
pub use push_picks::{
    Anchored, CommittingPick, GridId, PickTicket, PushPicks, Reconciled, Subscriber, Subscription, TASKS_MAX, Want,
};
