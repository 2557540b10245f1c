//! What the outside sees of a running server: log lines, metrics, what listeners are told, and whether it is ready.
//!
//! Something that happened is an [`event`]: one struct that writes the log line, moves the counter and tells whoever
//! listens, so that their names and labels cannot drift apart. A duration or a size alone is a method of [`Metrics`]. What
//! something *is* now is read when the metrics page is asked for: a [`Sample`].

pub mod event;
pub mod feed;
pub mod happening;
pub mod health;
pub mod log;
pub mod metric;

use std::net::IpAddr;
use std::sync::Arc;

use framehook_domain::stream::StreamId;

use crate::clock::Clock;
use feed::Feed;
use happening::Happening;
use log::Repeats;

pub use metric::{Metrics, Sample};

/// Where the parts say what they do: they are handed one, and no part has one of its own.
#[derive(Debug)]
pub struct Telemetry {
    clock: Clock,
    pub metrics: Metrics,
    repeats: Repeats,
    pub feed: Feed,
}

impl Telemetry {
    /// Everything at zero, nobody listening.
    pub fn new(clock: Clock) -> Arc<Self> {
        let (metrics, repeats, feed) = (Metrics::new(clock.wall()), Repeats::default(), Feed::default());
        Arc::new(Self { clock, metrics, repeats, feed })
    }

    /// See [`Repeats::admit`].
    pub fn admit(&self, endpoint: &str, cause: &'static str) -> Option<u64> {
        self.repeats.admit(endpoint, cause, self.clock.mono())
    }

    /// See [`Repeats::admit_peer`].
    pub fn admit_peer(&self, peer: IpAddr, cause: &'static str) -> Option<u64> {
        self.repeats.admit_peer(peer, cause, self.clock.mono())
    }

    /// Tells whoever listens what has happened, of the stream if it is about one. `what` is not asked when nobody does.
    pub fn tell(&self, stream: Option<&StreamId>, what: impl FnOnce() -> Happening) {
        if self.feed.is_heard() {
            self.feed.tell(self.clock.wall(), stream, what());
        }
    }
}
