//! Which entry points of a push become pictures.
//!
//! A rule (or a screenshot task) wants a picture at fixed moments, its *dues*. They lie on a [`Grid`] that begins with
//! the push's first picture. Every due that falls ends as taken or as skipped for a reason, and until then it is open:
//! at every moment `due = taken + skipped + open`, and at most one is open per grid. [`PushPicks`] holds all grids of
//! one push.

mod counts;
mod grid;
mod push_picks;

pub use counts::{DueCounts, SkipReason};
pub use grid::{DueTicket, Grid, TakenTicket};
pub use push_picks::{PickTicket, PushPicks, Subscriber, Subscription, TASKS_MAX, TakenPick, Want};
