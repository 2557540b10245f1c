//! Owed callbacks and the sender that carries them.
//!
//! The [`Notifier`] finds its work in the database: it claims deliveries that are due, as far as their receivers have room
//! (`notifier`, `rounds`), makes one attempt of each (`attempt`) and settles it, in one transaction with the attempt's record
//! and with everything else that ended meanwhile (`settler`). That a transaction claims what it makes due only makes it earlier,
//! so a restart is the same as a nudge.

pub mod address;
mod attempt;
pub mod attempt_error;
pub mod client;
mod connection;
pub mod endpoint;
mod lanes;
mod names;
mod notifier;
mod own_addresses;
mod pool;
pub mod proxy;
mod replay;
mod replays;
pub mod resolve;
mod retry_after;
mod rounds;
mod settler;
#[cfg(test)]
mod ssrf_corpus;
pub mod tls;

use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::retry::Schedule;

pub use notifier::{Notifier, NotifierParts};
pub use replay::{REPLAYS_MAX, ReplayError, Replayer, StorePlaces};
pub use replays::{Recovered, Replays};

/// How often and how far apart the attempts of each kind of event are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedules {
    /// Event 200.
    pub snapshot: Schedule,
    /// Events 1 and 0.
    pub push: Schedule,
}

impl Schedules {
    pub fn of(&self, kind: EventKind) -> Schedule {
        match kind {
            EventKind::Snapshot => self.snapshot,
            EventKind::PushBegan | EventKind::PushEnded => self.push,
        }
    }

    /// The longest pause of a receiver that fails: short beside the steps of its deliveries, so that one which is back is
    /// found before most of them are tried again.
    pub fn pause_max(&self) -> Duration {
        /// Long enough to spare a receiver that is starting, short enough to be back soon after it is.
        const PAUSE_MAX: Duration = Duration::from_secs(30);
        (self.snapshot.step.min(self.push.step) / 4).min(PAUSE_MAX)
    }
}
