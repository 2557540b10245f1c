//! Everybody at once, as after a network fault: nobody is refused, everybody has a first picture within one interval, and
//! later pictures do not come in bursts. Then everybody once more, cut off and back: see [`super::reconnect`].

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use framehook_testkit::wait;
use serde::Serialize;

use super::dues::Dues;
use super::memory::{self, Memory, mib};
use super::moments::{self, Crowd, Firsts};
use super::reconnect::Reconnect;
use crate::group::Group;
use crate::load::{Load, LoadReport};
use crate::notes::judged;
use crate::subject::{self, SPARSE_INTERVAL};
use crate::workshop::Workshop;

/// How long the server may take after the end of all to have read what they sent.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Intervals that are watched: the first pictures, and twice what follows from them.
const INTERVALS: u32 = 3;

/// Publishers go on for so much longer than they are watched, so that their goodbyes are no part of it.
pub(super) const LONGER: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
pub(super) struct Storm {
    publishers: u32,
    interval_s: u64,
    load: LoadReport,
    /// What the server has read of what the publishers have sent.
    received_bytes: u64,
    /// After the storm's beginning.
    first_pictures: Firsts,
    /// Pictures after the first interval.
    crowd: Crowd,
    phases_moved: f64,
    dues: Dues,
    idle_bytes: u64,
    memory: Memory,
    reconnect: Reconnect,
}

impl Storm {
    pub(super) fn measure(workshop: &Workshop, clip: &Path, publishers: u32) -> Result<Self> {
        let watched = SPARSE_INTERVAL * INTERVALS;
        eprintln!("a storm of {publishers} publishers, watched for {} s", watched.as_secs());
        let running = subject::framehook(Group::new("storm"), workshop, Some(SPARSE_INTERVAL))?;
        let idle_bytes = running.memory_bytes()?;
        let (began, began_wall) = (Instant::now(), SystemTime::now());
        let load = Load { streams: publishers, ..Load::of(clip, watched + LONGER) };
        let mut load = load.start(workshop, running.rtmp)?;
        let memory = Memory::watch(&running, began + watched)?;
        load.check()?;
        let page = running.metrics()?;
        let stored = running.stored()?;
        let load = load.finish()?;
        let received = || Ok::<_, anyhow::Error>(running.metrics()?.sum("framehook_ingest_bytes_total", &[]) as u64);
        // Everybody who was not lost has seen the server close by now. What is not read any more is told below.
        let _ =
            wait::until("all bytes to be read", READ_PATIENCE, || (received().ok()? >= load.wire_bytes).then_some(()));
        let received_bytes = received()?;

        let pictures = || moments::since(&stored, began_wall, watched);
        let later = pictures().map(|(_, at)| at).filter(|at| *at >= SPARSE_INTERVAL);
        Ok(Self {
            publishers,
            interval_s: SPARSE_INTERVAL.as_secs(),
            load,
            received_bytes,
            first_pictures: Firsts::of(pictures()),
            crowd: Crowd::of(later),
            phases_moved: page.sum("framehook_phase_moves_total", &[]),
            dues: Dues::read(&page),
            idle_bytes,
            memory,
            reconnect: Reconnect::measure(&running, workshop, clip, publishers)?,
        })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let Self { publishers, interval_s, load, received_bytes, first_pictures, phases_moved, memory, .. } = self;
        let all_pictured = first_pictures.streams == *publishers as usize
            && first_pictures.ms_most <= interval_s * 1000 + load.accept_ms_max;
        let mut notes = vec![
            judged(
                load.refused + load.dropped == 0 && *received_bytes == load.wire_bytes,
                format!(
                    "Storm of {publishers} publishers at once: {}. The server has read {received_bytes} of the {} bytes they \
                     sent.",
                    accepted(load),
                    load.wire_bytes
                ),
            ),
            format!(
                "The load generator took {:.2} ms of CPU time per stream-second. Its latest message was {} ms late; the \
                 server held none up for more than {} ms.",
                load.cpu_ms_per_stream_second, load.late_ms_max, load.blocked_ms_max
            ),
            judged(
                all_pictured,
                format!(
                    "First pictures, at an interval of {interval_s} s: {} of {publishers} streams had one, half of them \
                     within {:.1} s of the storm's beginning and all within {:.1} s. {}.",
                    first_pictures.streams,
                    first_pictures.ms_median as f64 / 1000.0,
                    first_pictures.ms_most as f64 / 1000.0,
                    self.dues
                ),
            ),
            judged(
                self.crowd.is_spread(*publishers),
                format!(
                    "Later pictures by when in the interval they came, {}; {phases_moved} grids were moved.",
                    self.crowd.describe(*publishers)
                ),
            ),
            judged(
                memory.most_bytes <= memory::BOUND,
                format!(
                    "Memory: {:.0} MiB idle, {:.0} at most, {:.0} at the end ({:.3} per publisher; the server's own bounds \
                     add up to {:.0}).",
                    mib(self.idle_bytes),
                    mib(memory.most_bytes),
                    mib(memory.last_bytes),
                    mib(memory.last_bytes.saturating_sub(self.idle_bytes)) / f64::from(*publishers),
                    mib(memory::BOUND)
                ),
            ),
        ];
        notes.extend(self.reconnect.notes());
        notes
    }
}

/// `3 were refused and 1 lost their connection (…); half were accepted within 0.3 s and the last after 0.4 s`.
pub(super) fn accepted(load: &LoadReport) -> String {
    let reasons = if load.reasons.is_empty() { String::new() } else { format!(" ({})", load.reasons.join("; ")) };
    format!(
        "{} were refused and {} lost their connection{reasons}; half were accepted within {:.1} s and the last after {:.1} s",
        load.refused,
        load.dropped,
        load.accept_ms_median as f64 / 1000.0,
        load.accept_ms_max as f64 / 1000.0
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scale::moments::tests::crowd;
    use crate::scale::reconnect::tests::reconnect;

    #[test]
    fn tells_who_was_lost_and_of_whom_there_was_no_picture() {
        let good = Storm {
            publishers: 2000,
            interval_s: 30,
            load: LoadReport { wire_bytes: 1000, accept_ms_max: 400, ..LoadReport::default() },
            received_bytes: 1000,
            first_pictures: Firsts { streams: 2000, ms_median: 6000, ms_most: 30_400 },
            crowd: crowd(250, 100),
            phases_moved: 1884.0,
            dues: Dues { due: 6000.0, taken: 5900.0, skipped: BTreeMap::new() },
            idle_bytes: 50 << 20,
            memory: Memory { most_bytes: memory::BOUND, last_bytes: 250 << 20 },
            reconnect: reconnect(),
        };
        let notes = good.notes().join("\n");
        assert!(!notes.contains("NOT GOOD") && notes.contains("250 at the end (0.100 per publisher"), "{notes}");
        let bad = Storm {
            load: LoadReport { dropped: 1, reasons: vec!["1 × gone".to_owned()], ..good.load },
            first_pictures: Firsts { ms_most: 30_401, ..good.first_pictures },
            crowd: crowd(250, 600),
            memory: Memory { most_bytes: memory::BOUND + 1, ..good.memory },
            ..good
        };
        let notes = bad.notes().join("\n");
        for expected in [
            "NOT GOOD: Storm of 2000 publishers at once: 0 were refused and 1 lost their connection (1 × gone)",
            "NOT GOOD: First pictures",
            "NOT GOOD: Later pictures",
            "NOT GOOD: Memory",
        ] {
            assert!(notes.contains(expected), "{notes}");
        }
    }
}
