//! Other streams beside those that are timed, as many as keep the asked part of the machine busy.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::clip::GOP_SECONDS;
use crate::load::{Load, LoadReport, RunningLoad};
use crate::machine;
use crate::subject::INTERVAL;
use crate::workshop::Workshop;

/// Streams that join first, to see what one costs, for each core: a fifth of a core or less with publishers and all.
const PROBE_STREAMS_PER_CORE: u32 = 40;

/// What the load generator and one server are known to carry; a machine of many cores may stay below the asked load.
const STREAMS_MAX: u32 = 2000;

/// They join over one interval, so that pictures fall due evenly, and need a keyframe more to run evenly.
const RAMP: Duration = INTERVAL;
const SETTLE: Duration = Duration::from_secs(GOP_SECONDS as u64);

/// Longer than a measurement waits for its last callbacks.
const SLACK: Duration = Duration::from_secs(GOP_SECONDS as u64 + 4);

/// Publishers under way, in one or two processes.
#[derive(Debug)]
pub(super) struct Background {
    loads: Vec<RunningLoad>,
    streams: u32,
}

impl Background {
    /// Lets publishers join until about `target` cores are busy, of which `alone` are without them, for one measurement of
    /// the length `window`.
    pub(super) fn start(
        workshop: &Workshop,
        clip: &Path,
        to: SocketAddr,
        (alone, target): (f64, f64),
        window: Duration,
    ) -> Result<Self> {
        let probes = PROBE_STREAMS_PER_CORE * machine::cores();
        let joined = RAMP + SETTLE;
        let join = |names, streams, duration| {
            let load = Load { names, streams, ramp: RAMP, ..Load::of(clip, duration) }.start(workshop, to)?;
            std::thread::sleep(joined);
            anyhow::Ok(load)
        };
        eprintln!("{probes} more streams, to see what one costs");
        let mut loads = vec![join("probe_", probes, joined + INTERVAL + joined + window + SLACK)?];
        let before = machine::busy()?;
        std::thread::sleep(INTERVAL);
        let busy = (machine::busy()? - before).as_secs_f64() / INTERVAL.as_secs_f64();
        let more = streams_to_add(probes, alone, busy, target);
        if more > 0 {
            loads.push(join("more_", more, joined + window + SLACK)?);
        } else {
            // The first ones would run on past the measurement for as long as the others take to join.
            std::thread::sleep(joined);
        }
        loads.iter_mut().try_for_each(RunningLoad::check)?;
        Ok(Self { loads, streams: probes + more })
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams
    }

    /// Waits for their end and gives their reports.
    pub(super) fn finish(self) -> Result<Vec<LoadReport>> {
        self.loads.into_iter().map(RunningLoad::finish).collect()
    }
}

/// How many streams it takes from `busy` cores to `target`, if `probes` streams took it from `alone` to `busy`.
fn streams_to_add(probes: u32, alone: f64, busy: f64, target: f64) -> u32 {
    let per_stream = (busy - alone) / f64::from(probes);
    if per_stream <= 0.0 {
        return 0;
    }
    // Saturating, as a cast from a float is.
    (((target - busy) / per_stream).round() as u32).min(STREAMS_MAX.saturating_sub(probes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_as_many_streams_as_the_first_ones_foretell() {
        assert_eq!(streams_to_add(80, 0.2, 0.4, 0.8), 160);
        assert_eq!(streams_to_add(80, 0.2, 0.9, 0.8), 0, "already above");
        assert_eq!(streams_to_add(80, 0.2, 0.2, 0.8), 0, "nothing to learn from");
        assert_eq!(streams_to_add(80, 0.2, 0.201, 40.0), STREAMS_MAX - 80);
    }
}
