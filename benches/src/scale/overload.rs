//! More pictures than the cores can make: publishers feel nothing of it, no worker dies of it, what is left out is counted,
//! and every stream loses the same. When most of the load has gone, the rest is served in full at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::dues::Dues;
use super::memory::{Memory, mib};
use crate::group::Group;
use crate::load::{Load, LoadReport};
use crate::notes::{judged, not_good};
use crate::subject::{self, Running};
use crate::summary::Spread;
use crate::workshop::Workshop;

/// The shortest that templates allow.
const INTERVAL: Duration = Duration::from_secs(2);
/// One stream in so many stays when the load falls.
const STAYS: u32 = 10;
const RAMP: Duration = Duration::from_secs(10);
/// Until everybody has had dues to lose.
const SETTLE: Duration = Duration::from_secs(10);
/// From the end of the window until most are asked to leave: time to read what the window has brought.
const READING: Duration = Duration::from_secs(2);
/// How long those who stay are watched, and how much longer they go on.
const AFTER: Duration = Duration::from_secs(30);
const LONGER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A stream may get this many times less or more than the one in the middle.
const UNFAIR_MAX: f64 = 2.0;
/// Ingest comes first: no publisher may be held up for longer than this.
const BLOCKED_MS_MAX: u64 = 1000;
/// More than this share of the dues taken is no overload.
const TAKEN_MAX: f64 = 0.95;
/// No second may bring more than this many times the pictures of the average one.
const BURST_MAX: f64 = 2.0;
/// What was due before the last of them had left may be skipped until the next due, and is seen at the next look.
const RECOVERY_MAX: Duration = INTERVAL.saturating_add(LOOK_EVERY);
/// Of those who stay nobody may get fewer pictures than were asked by more than this.
const MISSED_MAX: f64 = 1.0;

#[derive(Debug, Serialize)]
pub(super) struct Overload {
    streams: u32,
    interval_s: u64,
    window_s: f64,
    /// Within the window.
    dues: Dues,
    /// Pictures of one stream within the window.
    pictures_least: f64,
    pictures_median: f64,
    pictures_most: f64,
    /// Of all streams in the second that brought most.
    pictures_in_a_second_most: usize,
    cores: f64,
    idle_bytes: u64,
    most_bytes: u64,
    /// Render workers that crashed, hung or broke the rules, from beginning to end.
    worker_restarts: u64,
    /// Of those who left and of those who stayed.
    loads: [LoadReport; 2],
    stayed: u32,
    recovery: Recovery,
    /// Pictures of one of those who stayed, while they were watched.
    pictures_after_least: f64,
    pictures_after_median: f64,
}

/// From the moment at which most are asked to leave.
#[derive(Clone, Copy, Debug, Serialize)]
struct Recovery {
    /// Until the server was first seen with no more publishers than those who stay.
    gone_ms: u64,
    /// Until the last due that was skipped; `None` when they were still being skipped at the end.
    last_skip_ms: Option<u64>,
}

impl Overload {
    pub(super) fn measure(workshop: &Workshop, clip: &Path, streams: u32, quick: bool) -> Result<Self> {
        let window = Duration::from_secs(if quick { 20 } else { 60 });
        let loaded = RAMP + SETTLE + window + READING;
        eprintln!("an overload of {streams} streams, {} s", (loaded + AFTER).as_secs());
        let running = subject::framehook(Group::new("overload"), workshop, Some(INTERVAL))?;
        let idle_bytes = running.memory_bytes()?;
        let stayed = streams / STAYS;
        let load = |names, streams, duration| Load { names, streams, ramp: RAMP, ..Load::of(clip, duration) };
        // The generators begin a moment later than we count from, so whoever is to leave is asked no sooner than we think.
        let (leave, leave_wall) = (Instant::now() + loaded, SystemTime::now() + loaded);
        let mut leaving = load("leaves", streams - stayed, loaded).start(workshop, running.rtmp)?;
        let mut staying = load("stays", stayed, loaded + AFTER + LONGER).start(workshop, running.rtmp)?;
        std::thread::sleep(RAMP + SETTLE);
        leaving.check()?;
        staying.check()?;

        let (begin, begin_wall, begin_cpu) = (Instant::now(), SystemTime::now(), running.group.cpu(running.root())?);
        let before = Dues::read(&running.metrics()?);
        let memory = Memory::watch(&running, begin + window)?;
        let dues = Dues::read(&running.metrics()?).since(&before);
        let (end_wall, seconds) = (SystemTime::now(), begin.elapsed().as_secs_f64());
        let cores = (running.group.cpu(running.root())? - begin_cpu).as_secs_f64() / seconds;
        let stays = || (0..stayed).map(|n| format!("stays{n}"));
        let names = (0..streams - stayed).map(|n| format!("leaves{n}")).chain(stays());
        let stored = running.stored()?;
        let pictures_in_a_second_most = most_in_a_second(&stored, begin_wall..end_wall);
        let pictures = pictures_by_stream(&stored, names, begin_wall..end_wall);

        std::thread::sleep(leave.saturating_duration_since(Instant::now()));
        let recovery = watch_recovery(&running, stayed, leave)?;
        staying.check()?;
        let worker_restarts = running.metrics()?.sum("framehook_worker_restarts_total", &[]) as u64;
        let after = pictures_by_stream(&running.stored()?, stays(), leave_wall..SystemTime::now());
        let after = Spread::of(after.into_iter().map(|count| count as f64));
        let pictures = Spread::of(pictures.into_iter().map(|count| count as f64));
        Ok(Self {
            streams,
            interval_s: INTERVAL.as_secs(),
            window_s: seconds,
            dues,
            pictures_least: pictures.least,
            pictures_median: pictures.median,
            pictures_most: pictures.most,
            pictures_in_a_second_most,
            cores,
            idle_bytes,
            most_bytes: memory.most_bytes,
            worker_restarts,
            loads: [leaving.finish()?, staying.finish()?],
            stayed,
            recovery,
            pictures_after_least: after.least,
            pictures_after_median: after.median,
        })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let Self { streams, interval_s, window_s, dues, cores, loads, stayed, .. } = self;
        let lost: u64 = loads.iter().map(|load| load.refused + load.dropped).sum();
        let blocked_ms = loads.iter().map(|load| load.blocked_ms_max).max().unwrap_or_default();
        let late_ms = loads.iter().map(|load| load.late_ms_max).max().unwrap_or_default();
        let fair = self.pictures_least * UNFAIR_MAX >= self.pictures_median
            && self.pictures_most <= self.pictures_median * UNFAIR_MAX;
        let mut notes = vec![
            judged(
                lost == 0 && blocked_ms <= BLOCKED_MS_MAX,
                format!(
                    "Overload, {streams} streams with a picture every {interval_s} s for {window_s:.0} s: {lost} publishers \
                     were refused or lost their connection, and none was held up for more than {blocked_ms} ms (asked: at \
                     most {BLOCKED_MS_MAX}); the latest message was {late_ms} ms late. {dues}; {cores:.2} cores were used."
                ),
            ),
            judged(
                fair,
                format!(
                    "Pictures of one stream in that time: {:.0} at least, {:.0} in the middle, {:.0} at most; {:.0} were asked.",
                    self.pictures_least,
                    self.pictures_median,
                    self.pictures_most,
                    window_s / *interval_s as f64
                ),
            ),
            judged(
                self.unaccounted() <= f64::from(*streams),
                format!(
                    "Of those dues, {:.0} had neither become a picture nor been counted as skipped (asked: at most the one of each \
                     stream that is being made at the beginning or the end).",
                    self.unaccounted()
                ),
            ),
            judged(
                self.pictures_in_a_second_most as f64 <= self.pictures_per_second() * BURST_MAX,
                format!(
                    "The second with the most pictures had {}, of {:.0} on average (asked: at most {BURST_MAX} times as many).",
                    self.pictures_in_a_second_most,
                    self.pictures_per_second()
                ),
            ),
            format!("Memory: {:.0} MiB idle, {:.0} at most.", mib(self.idle_bytes), mib(self.most_bytes)),
        ];
        notes.push(judged(
            self.worker_restarts == 0,
            format!("Render workers that crashed, hung or broke the rules: {} (asked: none).", self.worker_restarts),
        ));
        let asked = (AFTER.as_secs() / interval_s) as f64;
        notes.push(judged(
            self.pictures_after_least >= asked - MISSED_MAX,
            format!(
                "From when all but {stayed} streams were asked to leave, each of them got {:.0} pictures at least and {:.0} in \
                 the middle in {} s (asked: {asked:.0}, less {MISSED_MAX:.0} at most).",
                self.pictures_after_least,
                self.pictures_after_median,
                AFTER.as_secs(),
            ),
        ));
        notes.push(self.recovery.note());
        if dues.taken > dues.due * TAKEN_MAX {
            notes.push(not_good("this machine could make nearly all of these pictures, so it was no overload."));
        }
        notes
    }
}

impl Recovery {
    fn note(self) -> String {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let gone = format!("The last of those who left had gone after {:.1} s", seconds(self.gone_ms));
        let Some(last_skip_ms) = self.last_skip_ms else {
            return not_good(format!("{gone}; dues were skipped to the end."));
        };
        let after_goodbye = Duration::from_millis(last_skip_ms.saturating_sub(self.gone_ms));
        judged(
            after_goodbye <= RECOVERY_MAX,
            format!(
                "{gone}, and nothing was skipped any more after {:.1} s (asked: at most one interval more, looked at every {} ms).",
                seconds(last_skip_ms),
                LOOK_EVERY.as_millis()
            ),
        )
    }
}

impl Overload {
    /// Dues of the window of which nothing is known yet, or not any more.
    fn unaccounted(&self) -> f64 {
        let Dues { due, taken, skipped } = &self.dues;
        (due - taken - skipped.values().sum::<f64>()).abs()
    }

    fn pictures_per_second(&self) -> f64 {
        self.dues.taken / self.window_s
    }
}

/// The most pictures that were stored within one second after `within` began.
fn most_in_a_second(stored: &[(String, SystemTime)], within: std::ops::Range<SystemTime>) -> usize {
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, at) in stored.iter().filter(|(_, at)| within.contains(at)) {
        let since = at.duration_since(within.start).unwrap_or_default();
        *seconds.entry(since.as_secs()).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or(0)
}

/// Looks until [`AFTER`] has passed since most were asked to leave. Dues count as skipped to the end when one was in the last
/// two intervals.
fn watch_recovery(running: &Running, stayed: u32, leave: Instant) -> Result<Recovery> {
    let mut skipped = Dues::read(&running.metrics()?).skipped_alive();
    let (mut last_skip, mut gone) = (Duration::ZERO, None);
    loop {
        std::thread::sleep(LOOK_EVERY);
        let page = running.metrics()?;
        let elapsed = leave.elapsed();
        if page.sum("framehook_live_streams", &[]) <= f64::from(stayed) {
            gone.get_or_insert(elapsed);
        }
        let now = Dues::read(&page).skipped_alive();
        if now > skipped {
            (skipped, last_skip) = (now, elapsed);
        }
        if elapsed >= AFTER {
            let gone = gone.context("those who were asked to leave have not gone")?;
            let last_skip_ms = (last_skip + INTERVAL * 2 < elapsed).then_some(last_skip.as_millis() as u64);
            return Ok(Recovery { gone_ms: gone.as_millis() as u64, last_skip_ms });
        }
    }
}

/// How many pictures each of the streams named got within a time, those that got none included.
fn pictures_by_stream(
    stored: &[(String, SystemTime)],
    names: impl Iterator<Item = String>,
    within: std::ops::Range<SystemTime>,
) -> Vec<usize> {
    let mut counts: BTreeMap<String, usize> = names.map(|name| (name, 0)).collect();
    for (stream, _) in stored.iter().filter(|(_, at)| within.contains(at)) {
        if let Some(count) = counts.get_mut(stream) {
            *count += 1;
        }
    }
    counts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_a_picture_counts_as_well() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let stored = [("b", 5), ("a", 6), ("b", 7), ("b", 20)].map(|(stream, secs)| (stream.to_owned(), at(secs)));
        let names = ["a", "b", "c"].map(str::to_owned).into_iter();
        assert_eq!(pictures_by_stream(&stored, names, at(5)..at(20)), [1, 2, 0]);
    }

    #[test]
    fn counts_the_fullest_second() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let stored = [4_999, 5_000, 5_999, 6_000, 6_500, 6_999, 8_000].map(|millis| (String::new(), at(millis)));
        assert_eq!(most_in_a_second(&stored, at(5_000)..at(8_000)), 3);
        assert_eq!(most_in_a_second(&stored, at(9_000)..at(9_500)), 0);
    }

    #[test]
    fn says_when_streams_lose_unevenly_and_when_there_was_no_overload() {
        let load = LoadReport { late_ms_max: 40, accept_ms_max: 9, ..LoadReport::default() };
        let dues = |due, taken| Dues { due, taken, skipped: BTreeMap::from([("renderer_busy".to_owned(), 1450.0)]) };
        let overload = Overload {
            streams: 100,
            interval_s: 2,
            window_s: 60.0,
            dues: dues(3000.0, 1500.0),
            pictures_least: 14.0,
            pictures_median: 15.0,
            pictures_most: 16.0,
            pictures_in_a_second_most: 50,
            cores: 2.0,
            idle_bytes: 10 << 20,
            most_bytes: 50 << 20,
            worker_restarts: 0,
            loads: [load.clone(), load],
            stayed: 10,
            recovery: Recovery { gone_ms: 500, last_skip_ms: Some(2750) },
            pictures_after_least: 14.0,
            pictures_after_median: 15.0,
        };
        assert!(!overload.notes().join("\n").contains("NOT GOOD"), "{:?}", overload.notes());
        let burst = Overload { pictures_in_a_second_most: 51, ..overload };
        assert!(burst.notes().join("\n").contains("NOT GOOD: The second with the most pictures had 51, of 25"));
        let died = Overload { worker_restarts: 1, ..burst };
        let notes = died.notes().join("\n");
        assert!(notes.contains("NOT GOOD: Render workers that crashed, hung or broke the rules: 1 (asked"), "{notes}");
        let recovery = Recovery { gone_ms: 500, last_skip_ms: Some(2751) };
        let slow = Overload { worker_restarts: 0, pictures_after_least: 13.0, recovery, ..died };
        let notes = slow.notes().join("\n");
        assert!(
            notes.contains("NOT GOOD: From when all but 10 streams were asked to leave, each of them got 13"),
            "{notes}"
        );
        assert!(notes.contains("NOT GOOD: The last of those who left had gone after 0.5 s"), "{notes}");
        assert!(notes.contains("after 2.8 s") && !notes.contains("NOT GOOD: Render workers"), "{notes}");
        let recovery = Recovery { last_skip_ms: None, ..recovery };
        let bad = Overload { pictures_least: 3.0, dues: dues(3000.0, 2990.0), recovery, ..slow };
        let notes = bad.notes().join("\n");
        assert!(notes.contains("NOT GOOD: Pictures of one stream in that time: 3 at least"), "{notes}");
        assert!(notes.contains("no overload") && notes.contains("skipped to the end"), "{notes}");
        assert!(notes.contains("NOT GOOD: Of those dues, 1440 had neither"), "{notes}");
    }
}
