//! How often a publisher is read from.
//!
//! What receiving costs is not the bytes but being woken for them: an encoder sends some seventy times a second, and all
//! but one of its keyframes in ten seconds is dropped. So while no entry point can be picked, a socket is left alone and
//! read a few times a second; shortly before one can, every byte is read as it comes. Where the encoder keeps its keyframes
//! at a distance, nothing can be picked before the next of them.

use std::time::Duration;

use framehook_domain::time::Mono;

/// How much before an entry point may be picked a socket is read as bytes come. What came earlier is then read before that
/// moment and not taken for something that came at it; a timer is late by a millisecond, or by a few under load.
const AHEAD: Duration = Duration::from_millis(50);

/// The same before a keyframe that is expected: what a network delays is mostly less. One that comes earlier all the same is
/// found by the next regular read.
const AHEAD_OF_KEYFRAME: Duration = Duration::from_millis(100);

/// Into so many parts the interval is divided. Connections are spread over them, so that not all are read at once: at 250 ms
/// the process wakes 32 times a second, whether a hundred publish or thousands.
const PARTS: u32 = 8;

/// When a connection is to be read from without having asked to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Zero: every byte is read as it comes.
    interval: Duration,
    /// Where in the interval this connection is read.
    offset: Duration,
}

impl Pace {
    /// `place` in `[0, 1)` says with which others the connection is read.
    pub(super) fn new(interval: Duration, place: f64) -> Self {
        let part = (place * f64::from(PARTS)) as u32;
        Self { interval, offset: interval * part.min(PARTS - 1) / PARTS }
    }

    /// When the connection is read next if an entry point may be picked from `picks_from` on (`None`: not in sight) and the
    /// next one is expected at `expected` (`None`: at any time); `None` when its bytes are to be read as they come.
    pub(super) fn next_read(&self, now: Mono, picks_from: Option<Mono>, expected: Option<Mono>) -> Option<Mono> {
        if self.interval.is_zero() {
            return None;
        }
        let regular = self.next_regular(now);
        let Some(picks_from) = picks_from else { return Some(regular) };
        let eager_from = picks_from.minus(AHEAD);
        let eager_from = expected.map_or(eager_from, |at| eager_from.max(at.minus(AHEAD_OF_KEYFRAME)));
        (now < eager_from).then(|| regular.min(eager_from))
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

    #[test]
    fn a_socket_is_left_alone_until_an_entry_point_may_be_picked() {
        let pace = Pace::new(Duration::from_millis(250), 0.0);
        let cases = [
            ("nobody wants pictures", 10_100, None, None, Some(10_250)),
            ("the next due is far away", 10_100, Some(20_000), None, Some(10_250)),
            ("at a regular read the next one is meant", 10_250, Some(20_000), None, Some(10_500)),
            ("it comes before the next regular read", 10_100, Some(10_200), None, Some(10_150)),
            ("it is almost there", 10_151, Some(10_200), None, None),
            ("it is there", 10_200, Some(10_200), None, None),
            ("it is there, but no keyframe is to come", 10_200, Some(10_200), Some(12_000), Some(10_250)),
            ("the keyframe comes before the next regular read", 11_850, Some(10_200), Some(12_000), Some(11_900)),
            ("the keyframe is almost there", 11_900, Some(10_200), Some(12_000), None),
            ("the keyframe is late", 12_300, Some(10_200), Some(12_000), None),
            ("the next keyframe is not meant", 10_100, Some(20_000), Some(10_150), Some(10_250)),
        ];
        for (name, now, picks_from, keyframe, expected) in cases {
            assert_eq!(pace.next_read(at(now), picks_from.map(at), keyframe.map(at)), expected.map(at), "{name}");
        }
    }

    #[test]
    fn an_interval_of_zero_reads_everything_at_once() {
        assert_eq!(Pace::new(Duration::ZERO, 0.9).next_read(at(5), None, None), None);
    }

    #[test]
    fn connections_are_spread_over_the_interval() {
        let reads =
            |place: f64| Pace::new(Duration::from_millis(250), place).next_read(at(1000), None, None).expect("a read");
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
            keyframe_ms in proptest::option::of(0..1_005_000_u64),
        ) {
            let pace = Pace::new(Duration::from_millis(interval_ms), place);
            for picks_from in [None, Some(at(now_ms + ahead_ms))] {
                if let Some(next) = pace.next_read(at(now_ms), picks_from, keyframe_ms.map(at)) {
                    prop_assert!(next > at(now_ms) && next <= at(now_ms + interval_ms));
                    let may_be_picked = picks_from.is_some_and(|picks_from| next.plus(AHEAD) > picks_from);
                    prop_assert!(
                        !may_be_picked || keyframe_ms.is_some_and(|ms| next.plus(AHEAD_OF_KEYFRAME) <= at(ms))
                    );
                }
            }
        }
    }
}
