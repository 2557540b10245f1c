//! When a publisher's next keyframe is to be expected.
//!
//! Most encoders that push live are told a distance of keyframes and keep it. Whoever has kept it for a while is believed
//! to keep it once more; of everybody else nothing is expected.

use std::time::Duration;

use framehook_domain::time::Mono;

/// By how much two distances may differ and be the same: a frame at 20 per second, since keyframes fall on whole frames.
const TOLERANCE_MS: u32 = 50;

/// So many distances in a row must have been the same.
const REPEATS_ASKED: u32 = 3;

/// A keyframe that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// When it comes if the rhythm is kept; in the past when it is late.
    pub(super) at: Mono,
    /// How many bytes the one before it had.
    pub(super) bytes: u32,
}

/// The keyframes of one publish, by the publisher's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rhythm {
    keyframe_ms: Option<u32>,
    keyframe_bytes: u32,
    /// From the keyframe before to that one. 0: not known.
    distance_ms: u32,
    repeats: u32,
    /// When that keyframe had come at the latest. Pictures are heard when they are read, which may be long after they came;
    /// that which was heard soonest after it came says best when the keyframe did.
    came: Mono,
}

impl Rhythm {
    /// A coded picture was heard at `now`. `timestamp_ms` is its decode time, which wraps.
    pub(super) fn picture(&mut self, timestamp_ms: u32, keyframe: bool, bytes: u32, now: Mono) {
        if !keyframe {
            if let Some(keyframe_ms) = self.keyframe_ms {
                let since = Duration::from_millis(timestamp_ms.wrapping_sub(keyframe_ms).into());
                self.came = self.came.min(now.minus(since));
            }
            return;
        }
        self.came = now;
        self.keyframe_bytes = bytes;
        let Some(before_ms) = self.keyframe_ms.replace(timestamp_ms) else { return };
        // A clock that goes back is a distance of weeks, which the next one does not repeat.
        let distance_ms = timestamp_ms.wrapping_sub(before_ms);
        let is_same = self.distance_ms > 0 && distance_ms > 0 && distance_ms.abs_diff(self.distance_ms) <= TOLERANCE_MS;
        self.repeats = if is_same { self.repeats + 1 } else { 0 };
        self.distance_ms = distance_ms;
    }

    /// The next keyframe. `None` without a rhythm.
    pub(super) fn next_keyframe(&self) -> Option<Expected> {
        // The first distance repeats nothing.
        if self.repeats + 1 < REPEATS_ASKED {
            return None;
        }
        let at = self.came.plus(Duration::from_millis(self.distance_ms.into()));
        Some(Expected { at, bytes: self.keyframe_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    /// Keyframes at these times of the publisher's clock, which shows `zero_ms` at 0, and a picture 500 ms after the last.
    fn after(zero_ms: u32, keyframes: &[u32]) -> Option<u64> {
        let mut rhythm = Rhythm::default();
        for &ms in keyframes {
            rhythm.picture(zero_ms.wrapping_add(ms), true, ms, at(u64::from(ms)));
            rhythm.picture(zero_ms.wrapping_add(ms + 500), false, 7, at(u64::from(ms + 500)));
        }
        let next = rhythm.next_keyframe()?;
        assert_eq!(Some(&next.bytes), keyframes.last(), "as large as the last one, whatever came between");
        Some(u64::try_from(next.at.0.as_millis()).expect("short"))
    }

    #[test]
    fn a_distance_that_was_kept_is_expected_again() {
        let cases: [(&str, &[u32], Option<u64>); 9] = [
            ("nothing is known", &[0], None),
            ("two distances may be chance", &[0, 2000, 4000], None),
            ("two short ones as well", &[0, 33, 66], None),
            ("three are a rhythm", &[0, 2000, 4000, 6000], Some(8000)),
            ("keyframes fall on whole frames", &[0, 2000, 4040, 6040, 8040], Some(10_040)),
            ("one that came early begins anew", &[0, 2000, 4000, 6000, 7000], None),
            ("an encoder that puts them where scenes change has none", &[0, 1300, 4000, 4700, 8000], None),
            ("a clock that stands has none", &[0, 0, 0, 0, 0], None),
            ("a new rhythm is learnt", &[0, 2000, 4000, 6000, 7000, 8000, 9000, 10_000], Some(11_000)),
        ];
        for (name, keyframes, expected) in cases {
            assert_eq!(after(0, keyframes), expected, "{name}");
            assert_eq!(after(u32::MAX - 5000, keyframes), expected, "{name}, with a clock that wraps");
        }
    }

    #[test]
    fn one_that_is_late_was_expected_in_the_past() {
        let mut rhythm = Rhythm::default();
        for ms in [0, 2000, 4000, 6000] {
            rhythm.picture(ms, true, 1000, at(u64::from(ms)));
        }
        rhythm.picture(9000, false, 50, at(9000));
        assert_eq!(rhythm.next_keyframe(), Some(Expected { at: at(8000), bytes: 1000 }));
    }

    #[test]
    fn what_was_read_late_does_not_make_the_next_keyframe_late() {
        let mut rhythm = Rhythm::default();
        for ms in [0, 2000, 4000] {
            rhythm.picture(ms, true, 1000, at(u64::from(ms)));
        }
        // Read 400 ms after it came, along with a picture that came 100 ms before the read.
        rhythm.picture(6000, true, 1000, at(6400));
        rhythm.picture(6300, false, 50, at(6400));
        assert_eq!(rhythm.next_keyframe().map(|next| next.at), Some(at(8100)));
        rhythm.picture(6790, false, 50, at(6800));
        rhythm.picture(7000, false, 50, at(7300));
        assert_eq!(rhythm.next_keyframe().map(|next| next.at), Some(at(8010)));
    }

    #[test]
    fn a_clock_that_goes_back_ends_a_rhythm() {
        assert_eq!(after(0, &[100_000, 102_000, 104_000, 106_000, 0]), None);
    }
}
