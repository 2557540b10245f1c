//! What a server takes of memory over a time.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::subject::Running;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The server's own bounds together: newest keyframes 256 MiB, picks that wait 256 MiB, messages half come 512 MiB, pictures
/// being made durable 64 MiB (`docs/metrics.md`).
pub(super) const BOUND: u64 = 1088 << 20;

/// Proportional set size of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Memory {
    pub(super) most_bytes: u64,
    /// When the time was nearly up.
    pub(super) last_bytes: u64,
}

impl Memory {
    /// Looks at it every second until then.
    pub(super) fn watch(running: &Running, until: Instant) -> Result<Self> {
        let mut memory = Self { most_bytes: 0, last_bytes: 0 };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(memory);
            }
            memory.last_bytes = running.memory_bytes()?;
            memory.most_bytes = memory.most_bytes.max(memory.last_bytes);
            std::thread::sleep(LOOK_EVERY.min(left));
        }
    }
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
