//! What happens, for whoever listens at this instant: nothing is kept for those who come later, because what lasts is
//! found in the database (`/v1/snapshots`, `/v1/deliveries`, `/v1/audit`).

use std::sync::Arc;

use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};

use super::happening::{Event, Happening};

/// What a slow listener may be behind. A busy server (200 streams with a picture every 10 s) tells some 80 in a second, so
/// this forgives ten seconds, for half a megabyte that all listeners share. Whoever falls further behind is told how many
/// it has missed, and goes on with the oldest that is there: nobody who tells ever waits for a listener.
const KEPT_MAX: usize = 1024;

/// One event, ready to be written.
#[derive(Debug)]
pub struct Told {
    /// The name of its kind.
    pub kind: &'static str,
    /// What it is about, if it is about a stream.
    pub stream: Option<StreamId>,
    pub json: String,
}

/// Everybody who listens, and what they have not heard yet.
#[derive(Debug)]
pub struct Feed {
    told: Sender<Arc<Told>>,
    /// Somebody has begun to listen.
    begun: Notify,
}

impl Default for Feed {
    fn default() -> Self {
        Self { told: Sender::new(KEPT_MAX), begun: Notify::new() }
    }
}

impl Feed {
    /// Whether anybody listens. Without that, telling costs this one look.
    pub fn is_heard(&self) -> bool {
        self.told.receiver_count() > 0
    }

    /// Waits until somebody listens.
    pub async fn heard(&self) {
        loop {
            let begun = self.begun.notified();
            if self.is_heard() {
                return;
            }
            begun.await;
        }
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listener {
        let told = self.told.subscribe();
        self.begun.notify_one();
        Listener { told }
    }

    pub(super) fn tell(&self, at: UnixMs, stream: Option<&StreamId>, what: Happening) {
        let kind = what.kind();
        let json = Event::new(at, stream, what).json();
        // Whoever listened may be gone by now.
        let _ = self.told.send(Arc::new(Told { kind, stream: stream.cloned(), json }));
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    told: Receiver<Arc<Told>>,
}

/// What a listener hears.
#[derive(Clone, Debug)]
pub enum Heard {
    Event(Arc<Told>),
    /// It was too slow, and so many were dropped.
    Missed(u64),
}

impl Listener {
    /// The next event. Waits for ever if nothing happens; `None` once the feed is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.told.recv().await {
            Ok(told) => Some(Heard::Event(told)),
            Err(RecvError::Lagged(count)) => Some(Heard::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Happening {
        Happening::ConfigurationChanged { version: number }
    }

    #[tokio::test]
    async fn whoever_is_too_slow_is_told_how_much_it_missed_and_goes_on() {
        let feed = Feed::default();
        let (mut slow, mut quick) = (feed.listen(), feed.listen());
        for number in 0..KEPT_MAX as u64 + 5 {
            feed.tell(UnixMs(7), None, version(number));
            assert!(matches!(quick.next().await, Some(Heard::Event(_))), "the quick one misses nothing");
        }
        assert!(matches!(slow.next().await, Some(Heard::Missed(5))));
        let Some(Heard::Event(told)) = slow.next().await else { panic!("no event") };
        assert_eq!(told.json, r#"{"at_ms":7,"kind":"configuration_changed","version":5}"#);
    }

    #[tokio::test]
    async fn nothing_is_made_for_nobody() {
        let telemetry = crate::telemetry::Telemetry::new(crate::clock::Clock::start());
        telemetry.tell(None, || unreachable!("nobody listens"));
        let listener = telemetry.feed.listen();
        assert!(telemetry.feed.is_heard());
        telemetry.feed.heard().await;
        drop(listener);
        telemetry.tell(None, || unreachable!("nobody listens any more"));
    }
}
