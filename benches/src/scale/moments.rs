//! When pictures are stored: the first of each stream, and how those that follow lie in the interval.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::clip::GOP_SECONDS;
use crate::subject::SPARSE_INTERVAL;

/// Pictures are counted by when in the interval they come, in parts as long as a GOP: all publishers begin at once, so
/// their keyframes come at once too, and nothing can be finer than that.
const PARTS: usize = (SPARSE_INTERVAL.as_secs() / GOP_SECONDS as u64) as usize;

/// A phase may keep this share of the pushes, and as many as one core is done with before the next phase however large a
/// share they are, before the others are moved away (`crates/domain/src/storm.rs`).
const KEPT_SHARE: f64 = 0.1;
const KEPT_PUSHES: f64 = 50.0;

/// The pictures of `stored` that came from `start` on and at most `within` later: the stream of each, and how much later.
pub(super) fn since(
    stored: &[(String, SystemTime)],
    start: SystemTime,
    within: Duration,
) -> impl Iterator<Item = (&str, Duration)> {
    let after = stored.iter().filter_map(move |(stream, at)| Some((stream.as_str(), at.duration_since(start).ok()?)));
    after.filter(move |(_, after)| *after <= within)
}

/// The first pictures of streams: how many have one, and after how many milliseconds half of them had and all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Firsts {
    pub(super) streams: usize,
    pub(super) ms_median: u64,
    pub(super) ms_most: u64,
}

impl Firsts {
    pub(super) fn of<'a>(pictures: impl Iterator<Item = (&'a str, Duration)>) -> Self {
        let mut first: BTreeMap<&str, Duration> = BTreeMap::new();
        for (stream, at) in pictures {
            first.entry(stream).and_modify(|first| *first = at.min(*first)).or_insert(at);
        }
        let mut firsts: Vec<Duration> = first.into_values().collect();
        firsts.sort_unstable();
        let ms = |at: Option<&Duration>| at.map_or(0, |at| at.as_millis() as u64);
        Self { streams: firsts.len(), ms_median: ms(firsts.get(firsts.len() / 2)), ms_most: ms(firsts.last()) }
    }
}

/// How many pictures came in each part of the interval, whichever interval it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Crowd {
    parts: Vec<usize>,
}

impl Crowd {
    pub(super) fn of(after: impl Iterator<Item = Duration>) -> Self {
        let mut parts = vec![0; PARTS];
        let (whole_ns, parts_ns) = (SPARSE_INTERVAL.as_nanos(), PARTS as u128);
        for at in after {
            parts[(at.as_nanos() % whole_ns * parts_ns / whole_ns) as usize] += 1;
        }
        Self { parts }
    }

    /// Not a number where there are no pictures.
    fn fullest_share(&self) -> f64 {
        let all: usize = self.parts.iter().sum();
        self.parts.iter().max().copied().unwrap_or_default() as f64 / all as f64
    }

    /// Whether no part holds more than the phase that may stay together and the even share of the others.
    pub(super) fn is_spread(&self, streams: u32) -> bool {
        self.fullest_share() <= share_max(streams)
    }

    /// `1 0 2 …. The fullest holds 9 % of them (evenly: 7 %, asked: at most 17 %)`.
    pub(super) fn describe(&self, streams: u32) -> String {
        let parts: Vec<String> = self.parts.iter().map(usize::to_string).collect();
        format!(
            "in {PARTS} parts of {GOP_SECONDS} s: {}. The fullest holds {:.0} % of them (evenly: {:.0} %, asked: at most \
             {:.0} %)",
            parts.join(" "),
            100.0 * self.fullest_share(),
            100.0 / PARTS as f64,
            100.0 * share_max(streams)
        )
    }
}

/// The share of the pictures that one part may hold.
fn share_max(streams: u32) -> f64 {
    KEPT_SHARE.max(KEPT_PUSHES / f64::from(streams)) + 1.0 / PARTS as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As many pictures in each part of the interval, and `more` in the first.
    pub(in crate::scale) fn crowd(each: usize, more: usize) -> Crowd {
        let mut parts = vec![each; PARTS];
        parts[0] += more;
        Crowd { parts }
    }

    #[test]
    fn a_stream_counts_with_its_first_picture_only() {
        let at = Duration::from_secs;
        let pictures = [("s1", at(40)), ("s2", at(9)), ("s1", at(10)), ("s2", at(39))];
        assert_eq!(Firsts::of(pictures.into_iter()), Firsts { streams: 2, ms_median: 10_000, ms_most: 10_000 });
        assert_eq!(Firsts::of([].into_iter()), Firsts { streams: 0, ms_median: 0, ms_most: 0 });
    }

    #[test]
    fn only_what_came_within_the_time_is_looked_at() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let stored = [("a", 4), ("b", 5), ("c", 65), ("d", 66)].map(|(stream, secs)| (stream.to_owned(), at(secs)));
        let found: Vec<_> = since(&stored, at(5), Duration::from_secs(60)).collect();
        assert_eq!(found, [("b", Duration::ZERO), ("c", Duration::from_secs(60))]);
    }

    #[test]
    fn pictures_are_counted_by_their_place_in_the_interval() {
        let at = Duration::from_millis;
        let Crowd { parts } = Crowd::of([at(30_000), at(1_999), at(62_000), at(89_999)].into_iter());
        assert_eq!((parts.len(), parts[0], parts[1], parts[14]), (15, 2, 1, 1));
        assert_eq!(parts.iter().sum::<usize>(), 4);
    }

    #[test]
    fn a_part_may_hold_a_tenth_and_an_even_share_or_what_few_streams_keep_together() {
        // 36 of 218 and 40 of 222; then 73 of 255 and 103 of 285.
        assert!(crowd(13, 23).is_spread(2000) && !crowd(13, 27).is_spread(2000));
        assert!(crowd(13, 60).is_spread(200) && !crowd(13, 90).is_spread(200));
        assert!(!crowd(0, 0).is_spread(2000), "no picture is no spread");
    }
}
