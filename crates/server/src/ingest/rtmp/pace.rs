//! When a publisher is read from.
//!
//! What receiving costs is not the bytes but being woken for them: an encoder sends some seventy times a second, and all
//! but one of its keyframes in ten seconds is dropped. So while no entry point can be picked, a socket is left alone and
//! read a few times a second. Where the encoder keeps its keyframes at a distance, nothing can be picked before the next of
//! them: shortly before it the socket is emptied, and then wakes us when it holds as much as a part of a keyframe. Where
//! the encoder does not, or the keyframe is late, every byte is read as it comes. Of a keyframe that has begun the end wakes us.

use std::time::Duration;

use framehook_domain::time::Mono;

use super::rhythm::Expected;

/// How much before an entry point may be picked a socket is read as bytes come. What came earlier is then read before that
/// moment and not taken for something that came at it; a timer is late by a millisecond, or by a few under load.
const AHEAD: Duration = Duration::from_millis(50);

/// The same before a keyframe that is expected: what a network delays is mostly less. One that comes earlier all the same is
/// found by the next regular read.
const AHEAD_OF_KEYFRAME: Duration = Duration::from_millis(100);

/// For how long after the moment at which a keyframe is expected it is left to it to fill the socket. One that is too small for
/// that is read then.
const GIVEN_TO_KEYFRAME: Duration = Duration::from_millis(50);

/// By this the size of the last keyframe is divided for what the socket must hold to wake us: so little that the next keyframe
/// of the same scene has more, and so much that few other pictures do.
const KEYFRAME_DIVISOR: usize = 4;

/// Bytes that a socket which is left alone may hold before it is read all the same. What 4 Mbit/s bring in 500 ms: below
/// that the regular reads come first. The kernel gives the socket room for twice as much, and asks to be read earlier when
/// the peer's window is nearly used up, so that a publisher is never held up.
pub(super) const LEFT_ALONE_BYTES: usize = 256 << 10;

/// Into so many parts the interval is divided. Connections are spread over them, so that not all are read at once: at 500 ms
/// the process wakes 16 times a second, whether a hundred publish or thousands.
const PARTS: u32 = 8;

/// When a connection is to be read from without having asked to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Zero: every byte is read as it comes.
    interval: Duration,
    /// Where in the interval this connection is read.
    offset: Duration,
}

/// What is known of a publisher between two reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prospect {
    /// From when on an entry point may be picked. `None`: not in sight.
    pub(super) picks_from: Option<Mono>,
    /// The next keyframe. `None`: there is no telling.
    pub(super) expected: Option<Expected>,
    /// Bytes that are to come at least before a message that is being put together is whole.
    pub(super) missing_bytes: Option<usize>,
}

impl Prospect {
    /// Until when no keyframe is to come.
    fn nothing_before(&self) -> Mono {
        self.expected.map_or(Mono::default(), |next| next.at.minus(AHEAD_OF_KEYFRAME))
    }
}

/// What ends the wait for the next read: either of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// `None`: for the bytes alone.
    pub(super) until: Option<Mono>,
    /// So many bytes in the socket, at least one.
    pub(super) bytes: usize,
}

impl Wait {
    /// The bytes are read as they come.
    pub(super) const AS_THEY_COME: Self = Self { until: None, bytes: 1 };
}

impl Pace {
    /// `place` in `[0, 1)` says with which others the connection is read.
    pub(super) fn new(interval: Duration, place: f64) -> Self {
        let part = (place * f64::from(PARTS)) as u32;
        Self { interval, offset: interval * part.min(PARTS - 1) / PARTS }
    }

    /// What is waited for after a read at `now`.
    pub(super) fn wait(&self, now: Mono, prospect: Prospect) -> Wait {
        if self.interval.is_zero() {
            return Wait::AS_THEY_COME;
        }
        let regular = self.next_regular(now);
        let left_alone = |until| Wait { until: Some(until), bytes: LEFT_ALONE_BYTES };
        let Some(picks_from) = prospect.picks_from else { return left_alone(regular) };
        let eager_from = picks_from.minus(AHEAD);
        if now < eager_from {
            return left_alone(regular.min(eager_from.max(prospect.nothing_before())));
        }
        if let Some(missing) = prospect.missing_bytes {
            // Nothing can be whole before they are here.
            return Wait { until: Some(regular), bytes: missing.clamp(1, LEFT_ALONE_BYTES) };
        }
        if now < prospect.nothing_before() {
            return left_alone(regular.min(prospect.nothing_before()));
        }
        match prospect.expected {
            // What comes before the moment from which it may be picked is to be read before it.
            Some(Expected { at, bytes }) if now >= picks_from && now < at.plus(GIVEN_TO_KEYFRAME) => Wait {
                until: Some(at.plus(GIVEN_TO_KEYFRAME)),
                bytes: (bytes as usize / KEYFRAME_DIVISOR).clamp(1, LEFT_ALONE_BYTES),
            },
            _ => Wait::AS_THEY_COME,
        }
    }

    fn next_regular(&self, now: Mono) -> Mono {
        let interval = self.interval.as_nanos();
        let into = (now.0.as_nanos() + interval - self.offset.as_nanos()) % interval;
        now.plus(Duration::from_nanos_u128(interval - into))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    /// A prospect with moments in ms and a keyframe before of 40,000 bytes.
    fn prospect(picks_from: Option<u64>, keyframe: Option<u64>, missing_bytes: Option<usize>) -> Prospect {
        let expected = keyframe.map(|ms| Expected { at: at(ms), bytes: 40_000 });
        Prospect { picks_from: picks_from.map(at), expected, missing_bytes }
    }

    #[test]
    fn a_socket_is_left_alone_until_an_entry_point_may_be_picked() {
        let pace = Pace::new(Duration::from_millis(250), 0.0);
        let cases = [
            ("nobody wants pictures", 10_100, None, None, Some(10_250)),
            ("the next due is far away", 10_100, Some(20_000), None, Some(10_250)),
            ("at a regular read the next one is meant", 10_250, Some(20_000), None, Some(10_500)),
            ("it comes before the next regular read", 10_100, Some(10_200), None, Some(10_150)),
            ("it is there, but no keyframe is to come", 10_200, Some(10_200), Some(12_000), Some(10_250)),
            ("the keyframe comes before the next regular read", 11_850, Some(10_200), Some(12_000), Some(11_900)),
            ("the next keyframe is not meant", 10_100, Some(20_000), Some(10_150), Some(10_250)),
        ];
        for (name, now, picks_from, keyframe, expected) in cases {
            let wait = pace.wait(at(now), prospect(picks_from, keyframe, None));
            assert_eq!(wait, Wait { until: expected.map(at), bytes: LEFT_ALONE_BYTES }, "{name}");
            // Nor does a keyframe that is half here change anything, unless it may be picked.
            if picks_from.is_none_or(|picks_from| now + 50 < picks_from) {
                assert_eq!(
                    pace.wait(at(now), prospect(picks_from, keyframe, Some(1000))),
                    wait,
                    "{name}, half of it here"
                );
            }
        }
    }

    #[test]
    fn near_a_pick_it_wakes_for_a_part_of_the_keyframe_and_for_its_end() {
        let pace = Pace::new(Duration::from_millis(250), 0.0);
        let cases = [
            ("no rhythm", 10_151, Some(10_200), None, None, None, 1),
            ("no rhythm, and it may be picked", 10_200, Some(10_200), None, None, None, 1),
            ("no rhythm, half of it is here", 10_200, Some(10_200), None, Some(7000), Some(10_250), 7000),
            ("the keyframe is almost there", 11_900, Some(10_200), Some(12_000), None, Some(12_050), 10_000),
            ("it is late", 12_049, Some(10_200), Some(12_000), None, Some(12_050), 10_000),
            ("it is later than is to be expected", 12_050, Some(10_200), Some(12_000), None, None, 1),
            ("half of it is here", 12_010, Some(10_200), Some(12_000), Some(20_000), Some(12_250), 20_000),
            ("one came out of its rhythm", 10_400, Some(10_200), Some(12_000), Some(20_000), Some(10_500), 20_000),
            (
                "more is missing than is left alone",
                12_010,
                Some(10_200),
                Some(12_000),
                Some(1 << 20),
                Some(12_250),
                LEFT_ALONE_BYTES,
            ),
            ("what comes before may not be picked", 11_950, Some(11_990), Some(12_000), None, None, 1),
            ("nor what ends before", 11_950, Some(11_990), Some(12_000), Some(500), Some(12_000), 500),
        ];
        for (name, now, picks_from, keyframe, missing, until, bytes) in cases {
            let wait = pace.wait(at(now), prospect(picks_from, keyframe, missing));
            assert_eq!(wait, Wait { until: until.map(at), bytes }, "{name}");
        }
    }

    #[test]
    fn an_interval_of_zero_reads_everything_at_once() {
        assert_eq!(Pace::new(Duration::ZERO, 0.9).wait(at(5), Prospect::default()), Wait::AS_THEY_COME);
    }

    #[test]
    fn connections_are_spread_over_the_interval() {
        let reads = |place: f64| Pace::new(Duration::from_millis(250), place).wait(at(1000), Prospect::default()).until;
        let mut all: Vec<_> = (0..80).map(|place| reads(f64::from(place) / 80.0)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), PARTS as usize, "{all:?}");
        assert_eq!(reads(0.999_999), reads(0.9));
    }

    proptest! {
        #[test]
        fn it_is_never_left_alone_for_longer_than_the_interval(
            interval_ms in 1..2_000_u64, place in 0.0..1.0_f64, now_ms in 0..1_000_000_u64, ahead_ms in 0..5_000_u64,
            keyframe_ms in proptest::option::of(0..1_005_000_u64), missing in proptest::option::of(1..1_000_000_usize),
        ) {
            let pace = Pace::new(Duration::from_millis(interval_ms), place);
            for picks_from_ms in [None, Some(now_ms + ahead_ms)] {
                let wait = pace.wait(at(now_ms), prospect(picks_from_ms, keyframe_ms, missing));
                prop_assert!(wait.bytes >= 1 && wait.bytes <= LEFT_ALONE_BYTES);
                prop_assert!(wait.until.is_some() || wait.bytes == 1);
                let Some(until) = wait.until else { continue };
                prop_assert!(until > at(now_ms));
                let Some(picks_from) = picks_from_ms.map(at) else {
                    prop_assert!(until <= at(now_ms + interval_ms));
                    continue;
                };
                // What comes before it may be picked is read before that moment, unless nothing is to come or be whole.
                let nothing_comes = keyframe_ms.is_some_and(|ms| until.plus(AHEAD_OF_KEYFRAME) <= at(ms));
                let nothing_ends = missing.is_some_and(|missing| wait.bytes <= missing);
                prop_assert!(until <= picks_from || at(now_ms) >= picks_from || nothing_comes || nothing_ends);
                let most = interval_ms.max((AHEAD_OF_KEYFRAME + GIVEN_TO_KEYFRAME).as_millis() as u64);
                prop_assert!(until <= at(now_ms + most));
            }
        }
    }
}
