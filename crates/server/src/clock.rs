//! The one place that reads a clock. Everything else is handed a [`Mono`] or a [`UnixMs`], or sleeps on tokio's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use framehook_domain::time::{Mono, UnixMs};

/// The process's two clocks. Copies share the same zero, so their [`Mono`] readings compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts monotonic time at zero, now.
    #[expect(clippy::disallowed_methods, reason = "this module is where clocks are read")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Monotonic time since [`Clock::start`]. Never goes back; stands still while the machine is suspended.
    #[expect(clippy::disallowed_methods, reason = "this module is where clocks are read")]
    pub fn mono(&self) -> Mono {
        Mono(Instant::now().saturating_duration_since(self.started))
    }

    /// Wall time, UTC. May jump in either direction when the machine's clock is set.
    #[expect(clippy::disallowed_methods, reason = "this module is where clocks are read")]
    pub fn wall(&self) -> UnixMs {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// The instant of a monotonic reading, for tokio's timers.
    pub fn instant(&self, at: Mono) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + at.0)
    }
}
