//! The one place of this executable that reads a clock.

use std::time::Duration;

use rustix::time::{ClockId, Timespec};

/// Measures how long a step takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    clock: ClockId,
    started: Timespec,
}

impl Stopwatch {
    /// Of time as it passes.
    pub(crate) fn start() -> Self {
        Self::of(ClockId::Monotonic)
    }

    /// Of CPU time that this process uses.
    pub(crate) fn start_cpu() -> Self {
        Self::of(ClockId::ProcessCPUTime)
    }

    fn of(clock: ClockId) -> Self {
        Self { clock, started: rustix::time::clock_gettime(clock) }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let elapsed = rustix::time::clock_gettime(self.clock) - self.started;
        Duration::try_from(elapsed).unwrap_or_default()
    }

    /// Saturates after 71 minutes, which no step may take.
    pub(crate) fn elapsed_us(&self) -> u32 {
        u32::try_from(self.elapsed().as_micros()).unwrap_or(u32::MAX)
    }
}

/// CPU time that this process has used in its life.
pub(crate) fn cpu_time_used() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
