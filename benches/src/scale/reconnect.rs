//! Everybody cut off and back: in the middle of what they send the connections of all publishers break without a goodbye,
//! and all of them return at the same instant. That is well within the time for which a push waits for its publisher, so
//! each stream goes on as the push that it was, with pictures when they are due.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::dues::Dues;
use super::memory::{self, Memory, mib};
use super::moments::{self, Crowd, Firsts};
use super::storm::{LONGER, accepted};
use crate::clip::GOP_SECONDS;
use crate::load::{Load, LoadReport};
use crate::notes::judged;
use crate::subject::{Running, SPARSE_INTERVAL};
use crate::workshop::Workshop;

/// How long the publishers push before they are cut off: each stream has had its first picture by then, and those of a storm
/// have been moved away from each other.
const BEFORE: Duration = Duration::from_secs(SPARSE_INTERVAL.as_secs() + 2 * GOP_SECONDS as u64);

/// Intervals that are watched from the break on. A push may have been moved just before it, so that its next due is up to
/// two intervals away.
const INTERVALS: u32 = 2;

/// What was picked before the break is stored by then. Such a picture does not say that its stream goes on.
const LEFTOVERS: Duration = Duration::from_secs(GOP_SECONDS as u64);

#[derive(Debug, Serialize)]
pub(super) struct Reconnect {
    publishers: u32,
    before_s: u64,
    /// Of those who came back. Those who were cut off have left no report.
    load: LoadReport,
    /// When all was over.
    pushes: usize,
    /// Those of them that there were at the break, with the same sequence.
    pushes_kept: usize,
    /// After the break, [`LEFTOVERS`] left out.
    next_pictures: Firsts,
    /// All pictures after the break.
    crowd: Crowd,
    /// Within the time that was watched after it.
    dues: Dues,
    memory: Memory,
}

impl Reconnect {
    /// The server has pushes of nobody else.
    pub(super) fn measure(running: &Running, workshop: &Workshop, clip: &Path, publishers: u32) -> Result<Self> {
        let watched = SPARSE_INTERVAL * INTERVALS;
        eprintln!("the same once more, cut off after {} s, watched for {} s", BEFORE.as_secs(), watched.as_secs());
        let load = |duration| Load { streams: publishers, ..Load::of(clip, duration) };
        let joined = Instant::now();
        // It never comes to the end of its time.
        let mut cut_off = load(BEFORE * 2).start(workshop, running.rtmp)?;
        let before = Memory::watch(running, joined + BEFORE)?;
        cut_off.check()?;
        let (dues_before, pushes_before) = (Dues::read(&running.metrics()?), running.pushes()?);

        let (broke, broke_wall) = (Instant::now(), SystemTime::now());
        cut_off.kill()?;
        let mut back = load(watched + LONGER).start(workshop, running.rtmp)?;
        let after = Memory::watch(running, broke + watched)?;
        back.check()?;
        let dues = Dues::read(&running.metrics()?).since(&dues_before);
        let pushes = running.pushes()?;
        let stored = running.stored()?;

        let pictures = || moments::since(&stored, broke_wall, watched);
        Ok(Self {
            publishers,
            before_s: BEFORE.as_secs(),
            load: back.finish()?,
            pushes: pushes.len(),
            pushes_kept: kept(&pushes_before, &pushes),
            next_pictures: Firsts::of(pictures().filter(|(_, at)| *at > LEFTOVERS)),
            crowd: Crowd::of(pictures().map(|(_, at)| at)),
            dues,
            memory: Memory { most_bytes: before.most_bytes.max(after.most_bytes), ..after },
        })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let Self { publishers, before_s, load, pushes, pushes_kept, next_pictures, crowd, dues, memory } = self;
        let all = *publishers as usize;
        vec![
            judged(
                load.refused + load.dropped == 0,
                format!(
                    "Once more, and after {before_s} s all connections broke without a goodbye and all publishers came back at \
                     once: {}.",
                    accepted(load)
                ),
            ),
            judged(
                *pushes_kept == all && *pushes == all,
                format!(
                    "{pushes_kept} of {publishers} streams went on as the push that they were; there were {pushes} pushes."
                ),
            ),
            judged(
                next_pictures.streams == all,
                format!(
                    "Next pictures: {} of {publishers} streams had one within {INTERVALS} intervals of the break (asked: all), \
                     half of them within {:.1} s and the last after {:.1} s. {dues}.",
                    next_pictures.streams,
                    next_pictures.ms_median as f64 / 1000.0,
                    next_pictures.ms_most as f64 / 1000.0
                ),
            ),
            judged(
                crowd.is_spread(*publishers),
                format!("Pictures after the break by when in the interval they came, {}.", crowd.describe(*publishers)),
            ),
            judged(
                memory.most_bytes <= memory::BOUND,
                format!(
                    "Memory before and after the break: {:.0} MiB at most, {:.0} at the end (the server's own bounds add up to \
                     {:.0}).",
                    mib(memory.most_bytes),
                    mib(memory.last_bytes),
                    mib(memory::BOUND)
                ),
            ),
        ]
    }
}

/// How many streams have the push that they had.
fn kept(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    before.iter().filter(|&(stream, sequence)| after.get(stream) == Some(sequence)).count()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::scale::moments::tests::crowd;

    /// As good as it can be.
    pub(in crate::scale) fn reconnect() -> Reconnect {
        Reconnect {
            publishers: 2000,
            before_s: 34,
            load: LoadReport { accept_ms_median: 300, accept_ms_max: 900, ..LoadReport::default() },
            pushes: 2000,
            pushes_kept: 2000,
            next_pictures: Firsts { streams: 2000, ms_median: 15_000, ms_most: 31_000 },
            crowd: crowd(250, 100),
            dues: Dues { due: 4000.0, taken: 4000.0, skipped: BTreeMap::new() },
            memory: Memory { most_bytes: 300 << 20, last_bytes: 290 << 20 },
        }
    }

    #[test]
    fn a_push_is_kept_with_its_sequence_only() {
        let pushes = |list: &[(&str, &str)]| list.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
        let before = pushes(&[("s0", "10"), ("s1", "11"), ("s2", "12")]);
        let after = pushes(&[("s0", "10"), ("s1", "99"), ("s3", "12")]);
        assert_eq!(kept(&before, &after), 1);
    }

    #[test]
    fn says_when_nothing_was_lost() {
        let notes = reconnect().notes().join("\n");
        assert!(!notes.contains("NOT GOOD"), "{notes}");
        assert!(notes.contains("half were accepted within 0.3 s and the last after 0.9 s"), "{notes}");
        assert!(notes.contains("2000 of 2000 streams went on as the push that they were"), "{notes}");
    }

    #[test]
    fn says_what_was_lost() {
        let good = reconnect();
        let cases = [
            ("Once more", Reconnect { load: LoadReport { refused: 1, ..LoadReport::default() }, ..reconnect() }),
            ("1999 of 2000 streams went on", Reconnect { pushes_kept: 1999, ..reconnect() }),
            ("2000 of 2000 streams went on", Reconnect { pushes: 2001, ..reconnect() }),
            (
                "Next pictures: 1999 of 2000",
                Reconnect { next_pictures: Firsts { streams: 1999, ..good.next_pictures }, ..reconnect() },
            ),
            ("Pictures after the break", Reconnect { crowd: crowd(250, 600), ..reconnect() }),
            (
                "Memory before and after",
                Reconnect { memory: Memory { most_bytes: memory::BOUND + 1, ..good.memory }, ..reconnect() },
            ),
        ];
        for (expected, bad) in cases {
            let notes = bad.notes();
            let not_good: Vec<&String> = notes.iter().filter(|note| note.starts_with("NOT GOOD")).collect();
            let [only] = not_good[..] else { panic!("{expected}: {notes:?}") };
            assert!(only.starts_with(&format!("NOT GOOD: {expected}")), "{only}");
        }
    }
}
