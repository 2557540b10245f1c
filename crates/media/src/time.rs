//! RTMP's 32-bit media time, made comparable.

/// How far a timestamp may step back and still belong to the same timeline. Publishers interleave audio and video that
/// are up to a few seconds apart; an encoder that restarts goes back by its whole running time. Ten seconds lies
/// between the two, and a restart within the first ten seconds is harmless: time stands still until it catches up.
pub const BACKWARD_STEP_MS_MAX: u32 = 10_000;

/// A timestamp after unwrapping. Only values of the same `timeline` may be compared or subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwrapped {
    /// Counts the encoder's restarts: 0 for the first timeline, one more each time the clock jumps back.
    pub timeline: u32,
    /// Milliseconds since the publisher's own zero of this timeline. Never decreases within a timeline.
    pub ms: u64,
}

/// Turns the 32-bit timestamps of one stream (RTMP 1.0, 5.3.1; they wrap after 49.7 days) into a monotonic `u64`.
///
/// A step forward of less than 2³¹ ms is taken as it is. A step back of at most [`BACKWARD_STEP_MS_MAX`] holds time at
/// the latest value seen. A larger step back starts a new timeline: we do not guess an offset between the two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrap {
    latest: Option<Unwrapped>,
}

impl Unwrap {
    pub const fn new() -> Self {
        Self { latest: None }
    }

    /// Places `timestamp_ms` after everything seen before.
    pub fn push(&mut self, timestamp_ms: u32) -> Unwrapped {
        let next = match self.latest {
            None => Unwrapped { timeline: 0, ms: u64::from(timestamp_ms) },
            Some(latest) => latest.followed_by(timestamp_ms),
        };
        self.latest = Some(next);
        next
    }
}

impl Unwrapped {
    fn followed_by(self, timestamp_ms: u32) -> Self {
        // The difference modulo 2³², read as signed, is the shorter way around the circle.
        let step = timestamp_ms.wrapping_sub(self.ms as u32).cast_signed();
        if step >= 0 {
            Self { ms: self.ms + u64::from(step.unsigned_abs()), ..self }
        } else if step.unsigned_abs() <= BACKWARD_STEP_MS_MAX {
            self
        } else {
            Self { timeline: self.timeline.wrapping_add(1), ms: u64::from(timestamp_ms) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unwrapped(timestamps: &[u32]) -> std::vec::Vec<(u32, u64)> {
        let mut unwrap = Unwrap::new();
        timestamps.iter().map(|&ms| unwrap.push(ms)).map(|at| (at.timeline, at.ms)).collect()
    }

    #[test]
    fn follows_the_table() {
        let wrapped = 1 << 32;
        let cases: &[(&str, &[u32], (u32, u64))] = &[
            ("first value is taken as it is", &[7_000], (0, 7_000)),
            ("forward", &[0, 33, 66], (0, 66)),
            ("wraps after 49.7 days", &[u32::MAX - 9, 10], (0, wrapped + 10)),
            ("audio a little behind video holds time", &[1_000, 977], (0, 1_000)),
            ("audio behind video across the wrap", &[u32::MAX - 9, 10, u32::MAX - 4], (0, wrapped + 10)),
            ("catches up after a small step back", &[1_000, 977, 1_010], (0, 1_010)),
            ("the longest tolerated step back", &[50_000, 40_000], (0, 50_000)),
            ("one more is a restart", &[50_000, 39_999], (1, 39_999)),
            ("encoder restarts at zero", &[3_600_000, 0, 33], (1, 33)),
            ("a long silence is still forward", &[0, i32::MAX as u32], (0, i32::MAX as u64)),
        ];
        for (name, input, expected) in cases {
            assert_eq!(unwrapped(input).last(), Some(expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn never_goes_back_within_a_timeline(timestamps in proptest::collection::vec(any::<u32>(), 1..50)) {
            for pair in unwrapped(&timestamps).windows(2) {
                prop_assert!(pair[0] <= pair[1], "{pair:?}");
            }
        }

        #[test]
        fn recovers_the_true_time_of_a_steady_stream(start in any::<u32>(), steps in proptest::collection::vec(0u32..100_000, 1..50)) {
            let mut unwrap = Unwrap::new();
            let mut truth = u64::from(start);
            unwrap.push(start);
            for step in steps {
                truth += u64::from(step);
                prop_assert_eq!(unwrap.push(truth as u32), Unwrapped { timeline: 0, ms: truth });
            }
        }
    }
}
