//! Everybody at once, as after a network fault: nobody is refused, everybody has a first picture within one interval, and
//! later pictures do not come in bursts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use framehook_testkit::wait;
use serde::Serialize;

use super::dues::Dues;
use crate::clip::GOP_SECONDS;
use crate::group::Group;
use crate::load::{Load, LoadReport};
use crate::subject::{self, SPARSE_INTERVAL};
use crate::workshop::Workshop;

const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// How long the server may take after the end of all to have read what they sent.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Intervals that are watched: the first pictures, and twice what follows from them.
const INTERVALS: u32 = 3;

/// Pictures are counted by when in the interval they come, in parts as long as a GOP: all publishers begin at once, so
/// their keyframes come at once too, and nothing can be finer than that.
const PARTS: usize = (SPARSE_INTERVAL.as_secs() / GOP_SECONDS as u64) as usize;
/// Share of the later pictures that one part may hold: a tenth of the pushes may share a phase before the others are moved
/// away (`crates/domain/src/storm.rs`), and of those who move an even share comes there too.
const CROWD_MAX: f64 = 0.1 + 1.0 / PARTS as f64;

/// The server's own bounds together: newest keyframes 256 MiB, picks that wait 256 MiB, messages half come 512 MiB, pictures
/// being made durable 64 MiB (`docs/metrics.md`).
const MEMORY_MAX: u64 = 1088 << 20;

#[derive(Debug, Serialize)]
pub(super) struct Storm {
    publishers: u32,
    interval_s: u64,
    load: LoadReport,
    /// What the server has read of what the publishers have sent.
    received_bytes: u64,
    /// From the storm's beginning to the first picture of each stream that got one: half of them, and all of them.
    first_picture_ms_median: u64,
    first_picture_ms_most: u64,
    streams_with_picture: usize,
    /// Pictures after the first interval by the part of the interval in which they came.
    parts: Vec<usize>,
    phases_moved: f64,
    dues: Dues,
    idle_bytes: u64,
    most_bytes: u64,
    /// When the storm had long passed.
    last_bytes: u64,
}

impl Storm {
    pub(super) fn measure(workshop: &Workshop, clip: &Path, publishers: u32) -> Result<Self> {
        let watched = SPARSE_INTERVAL * INTERVALS;
        eprintln!("a storm of {publishers} publishers, watched for {} s", watched.as_secs());
        let running = subject::framehook(Group::new("storm"), workshop, Some(SPARSE_INTERVAL))?;
        let idle_bytes = running.memory_bytes()?;
        let (began, began_wall) = (Instant::now(), SystemTime::now());
        // A little longer than is watched, so that the end of the load is no part of it.
        let load = Load { streams: publishers, ..Load::of(clip, watched + Duration::from_secs(5)) };
        let mut load = load.start(workshop, running.rtmp)?;
        let (mut most_bytes, mut last_bytes) = (0, 0);
        while began.elapsed() < watched {
            last_bytes = running.memory_bytes()?;
            most_bytes = most_bytes.max(last_bytes);
            std::thread::sleep(MEMORY_EVERY.min(watched.saturating_sub(began.elapsed())));
        }
        load.check()?;
        let page = running.metrics()?;
        let stored = running.stored()?;
        let load = load.finish()?;
        let received = || Ok::<_, anyhow::Error>(running.metrics()?.sum("framehook_ingest_bytes_total", &[]) as u64);
        // Everybody who was not lost has seen the server close by now. What is not read any more is told below.
        let _ =
            wait::until("all bytes to be read", READ_PATIENCE, || (received().ok()? >= load.wire_bytes).then_some(()));
        let received_bytes = received()?;

        let after: Vec<(&str, Duration)> = stored
            .iter()
            .map(|(stream, at)| {
                Ok((stream.as_str(), at.duration_since(began_wall).context("a picture before the storm")?))
            })
            .collect::<Result<_>>()?;
        let firsts = first_pictures(&after);
        let ms = |at: Option<&Duration>| at.map_or(0, |at| at.as_millis() as u64);
        Ok(Self {
            publishers,
            interval_s: SPARSE_INTERVAL.as_secs(),
            load,
            received_bytes,
            first_picture_ms_median: ms(firsts.get(firsts.len() / 2)),
            first_picture_ms_most: ms(firsts.last()),
            streams_with_picture: firsts.len(),
            parts: by_part(after.iter().map(|(_, at)| *at)),
            phases_moved: page.sum("framehook_phase_moves_total", &[]),
            dues: Dues::read(&page),
            idle_bytes,
            most_bytes,
            last_bytes,
        })
    }

    /// The share of the fullest part.
    fn crowd(&self) -> f64 {
        let all: usize = self.parts.iter().sum();
        self.parts.iter().max().copied().unwrap_or_default() as f64 / all as f64
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let Self { publishers, interval_s, load, streams_with_picture, phases_moved, .. } = self;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let all_pictured = *streams_with_picture == *publishers as usize
            && self.first_picture_ms_most <= interval_s * 1000 + load.accept_ms_max;
        let crowd = self.crowd();
        let parts: Vec<String> = self.parts.iter().map(usize::to_string).collect();
        let judged = |good: bool, text: String| if good { text } else { format!("NOT GOOD: {text}") };
        vec![
            judged(
                load.refused + load.dropped == 0 && self.received_bytes == load.wire_bytes,
                format!(
                    "Storm of {publishers} publishers at once: {} were refused and {} lost their connection{}; half were \
                     accepted within {:.1} s and the last after {:.1} s. The server has read {} of the {} bytes they sent.",
                    load.refused,
                    load.dropped,
                    reasons(load),
                    load.accept_ms_median as f64 / 1000.0,
                    load.accept_ms_max as f64 / 1000.0,
                    self.received_bytes,
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
                    "First pictures, at an interval of {interval_s} s: {streams_with_picture} of {publishers} streams had \
                     one, half of them within {:.1} s of the storm's beginning and all within {:.1} s. {}.",
                    self.first_picture_ms_median as f64 / 1000.0,
                    self.first_picture_ms_most as f64 / 1000.0,
                    self.dues
                ),
            ),
            judged(
                crowd <= CROWD_MAX,
                format!(
                    "Later pictures by when in the interval they came, in {PARTS} parts of {GOP_SECONDS} s: {}. The fullest \
                     holds {:.0} % of them (evenly: {:.0} %, asked: at most {:.0} %); {phases_moved} grids were moved.",
                    parts.join(" "),
                    100.0 * crowd,
                    100.0 / PARTS as f64,
                    100.0 * CROWD_MAX
                ),
            ),
            judged(
                self.most_bytes <= MEMORY_MAX,
                format!(
                    "Memory: {:.0} MiB idle, {:.0} at most, {:.0} at the end ({:.3} per publisher; the server's own bounds \
                     add up to {:.0}).",
                    mib(self.idle_bytes),
                    mib(self.most_bytes),
                    mib(self.last_bytes),
                    mib(self.last_bytes.saturating_sub(self.idle_bytes)) / f64::from(*publishers),
                    mib(MEMORY_MAX)
                ),
            ),
        ]
    }
}

fn reasons(load: &LoadReport) -> String {
    if load.reasons.is_empty() { String::new() } else { format!(" ({})", load.reasons.join("; ")) }
}

/// When each stream got its first picture, soonest first.
fn first_pictures(after: &[(&str, Duration)]) -> Vec<Duration> {
    let mut first: BTreeMap<&str, Duration> = BTreeMap::new();
    for &(stream, at) in after {
        first.entry(stream).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let mut firsts: Vec<Duration> = first.into_values().collect();
    firsts.sort_unstable();
    firsts
}

/// How many pictures came in each part of the interval, those of the first interval left out.
fn by_part(after: impl Iterator<Item = Duration>) -> Vec<usize> {
    let mut parts = vec![0; PARTS];
    let (whole_ns, parts_ns) = (SPARSE_INTERVAL.as_nanos(), PARTS as u128);
    for at in after.filter(|at| *at >= SPARSE_INTERVAL) {
        parts[(at.as_nanos() % whole_ns * parts_ns / whole_ns) as usize] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_with_its_first_picture_only() {
        let at = Duration::from_secs;
        let after = [("s1", at(40)), ("s2", at(9)), ("s1", at(10)), ("s2", at(39))];
        assert_eq!(first_pictures(&after), [at(9), at(10)]);
    }

    #[test]
    fn later_pictures_are_counted_by_their_place_in_the_interval() {
        let at = Duration::from_millis;
        let parts = by_part([at(1_000), at(30_000), at(31_999), at(62_000), at(89_999)].into_iter());
        assert_eq!((parts.len(), parts[0], parts[1], parts[14]), (15, 2, 1, 1));
        assert_eq!(parts.iter().sum::<usize>(), 4);
    }
}
