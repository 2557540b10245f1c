//! Spreads pushes that all began at once.
//!
//! After a network fault or a restart every encoder reconnects within a second, and because a grid begins with the
//! first picture, all pictures would be due together for hours. [`Phases`] counts how many pushes share a phase; a push
//! that finds its phase crowded moves its second and later dues by a fixed fraction of the interval that follows from
//! its sequence. Its second picture comes up to one interval later than usual, once; its first one is not touched.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::{id::PushSequence, template::SnapshotInterval, time::Mono};

/// An interval is cut into this many phases: 5 % each, half a second of the default 10 s.
const PHASES: usize = 20;

/// A phase is crowded when it holds more than one in this many of the pushes with the same interval: twice what it holds
/// when they are evenly spread. That is also what the storm's own phase is left with, so a larger share would keep a burst
/// for ever (a fifth of 2,000 pushes are 3 s of one core), and one nearer to even would move pushes that meet by chance.
const CROWDED_SHARE: usize = 10;

/// What a picture takes of one core, at most.
const RENDERING: Duration = Duration::from_millis(30);

/// So many pushes in one phase are left together whatever the interval is: they are done within half a second.
const CROWDED_MIN: usize = 16;

/// More than so many are not, however long the phase: they would keep a core busy for two seconds, and their receivers
/// get them at once.
const CROWDED_MAX: usize = 64;

/// How many pushes share each phase, by interval.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    seats: BTreeMap<SnapshotInterval, [usize; PHASES]>,
}

/// A push's place in [`Phases`]; give it back with [`Phases::leave`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a seat is given back when the push or its rule ends"]
pub struct Seat {
    interval: SnapshotInterval,
    phase: usize,
}

impl Seat {
    /// The interval that it was computed for.
    pub fn interval(&self) -> SnapshotInterval {
        self.interval
    }
}

impl Phases {
    /// A push whose grid has just been anchored takes its place. With `Some`, move its later dues by that much
    /// ([`Grid::shift_phase`](crate::pick::Grid::shift_phase)); the seat already counts as moved.
    pub fn join(&mut self, interval: SnapshotInterval, anchor: Mono, push: PushSequence) -> (Seat, Option<Duration>) {
        let phases = self.seats.entry(interval).or_insert([0; PHASES]);
        let own = phase_of(interval, anchor);
        let crowd = phases[own] + 1;
        let all = phases.iter().sum::<usize>() + 1;
        let is_crowded = crowd >= crowded_from(interval) && crowd * CROWDED_SHARE > all;
        let shift = is_crowded.then(|| shift(interval, push));
        let phase = phase_of(interval, anchor.plus(shift.unwrap_or_default()));
        phases[phase] += 1;
        (Seat { interval, phase }, shift)
    }

    pub fn leave(&mut self, seat: Seat) {
        if let Some(phases) = self.seats.get_mut(&seat.interval) {
            phases[seat.phase] -= 1;
            if phases.iter().all(|pushes| *pushes == 0) {
                self.seats.remove(&seat.interval);
            }
        }
    }
}

/// Below this many pushes in one phase there is nothing to spread: one core is done with them within the phase. So pushes
/// that come one after the other over an interval stay where they are, though the first of them are all there is.
fn crowded_from(interval: SnapshotInterval) -> usize {
    let done_in_phase = interval.duration().as_millis() / (PHASES as u128 * RENDERING.as_millis());
    (done_in_phase as usize + 1).clamp(CROWDED_MIN, CROWDED_MAX)
}

fn phase_of(interval: SnapshotInterval, at: Mono) -> usize {
    let interval_ns = interval.duration().as_nanos();
    // A remainder below `interval_ns` times 20, divided by it, is below 20.
    ((at.0.as_nanos() % interval_ns) * PHASES as u128 / interval_ns) as usize
}

/// `hash(push) × interval`: anywhere in the interval, the same for a push for ever.
fn shift(interval: SnapshotInterval, push: PushSequence) -> Duration {
    let interval_ns = interval.duration().as_nanos();
    Duration::from_nanos_u128((interval_ns * u128::from(mix(push.as_u64()))) >> 64)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): sequences of one storm share their high bits, and every bit
/// of the input must move every bit of the result.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::time::UnixMs;

    fn interval(secs: i64) -> SnapshotInterval {
        SnapshotInterval::from_secs(secs).expect("an interval")
    }

    fn at_ms(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn push(n: u32) -> PushSequence {
        PushSequence::new(UnixMs(1_735_689_600_000), n)
    }

    #[test]
    fn moves_a_push_only_when_its_phase_is_crowded() {
        // (already in its phase, in all other phases)
        let cases = [
            ("the first of all", (0, 0), false),
            ("the sixteenth of a handful", (15, 0), false),
            ("the seventeenth that comes together", (16, 0), true),
            ("seventeen of a hundred and seventy are a tenth, not more", (16, 153), false),
            ("seventeen of a hundred and sixty-nine are more", (16, 152), true),
            ("a large server, evenly spread", (50, 950), false),
            ("a tenth of a large server and one more", (100, 900), true),
        ];
        for (name, (here, elsewhere), is_moved) in cases {
            let mut pushes = [0; PHASES];
            (pushes[3], pushes[7]) = (here, elsewhere);
            let mut phases = Phases { seats: [(interval(10), pushes)].into() };
            let (_, shift) = phases.join(interval(10), at_ms(1_999), push(1));
            assert_eq!(shift.is_some(), is_moved, "{name}");
        }
    }

    #[test]
    fn the_longer_the_phase_the_more_pushes_have_room_in_it() {
        let rows = [(2, 16), (9, 16), (10, 17), (30, 51), (60, 64), (300, 64)];
        for (secs, expected) in rows {
            assert_eq!(crowded_from(interval(secs)), expected, "every {secs} s");
        }
    }

    #[test]
    fn pushes_that_come_evenly_over_an_interval_stay_where_they_are() {
        for (secs, pushes) in [(10, 300), (30, 1000)] {
            let mut phases = Phases::default();
            let every_ms = secs as u64 * 1000 / u64::from(pushes);
            let moved = (0..pushes)
                .filter(|n| phases.join(interval(secs), at_ms(u64::from(*n) * every_ms), push(*n)).1.is_some())
                .count();
            assert_eq!(moved, 0, "of {pushes} in {secs} s");
        }
    }

    #[test]
    fn counts_a_moved_push_where_it_moved_to() {
        let pushes = core::array::from_fn(|phase| if phase == 0 { 99 } else { 0 });
        let mut phases = Phases { seats: [(interval(10), pushes)].into() };
        let (seat, shift) = phases.join(interval(10), at_ms(0), push(1));
        assert_eq!(seat.phase, phase_of(interval(10), Mono(shift.expect("a shift"))));
        assert_eq!(phases.seats[&interval(10)][seat.phase], 1);
    }

    #[test]
    fn spreads_a_storm_until_no_phase_is_crowded() {
        let mut phases = Phases::default();
        let shifts: Vec<_> = (0..1000).filter_map(|n| phases.join(interval(10), at_ms(100), push(n)).1).collect();
        assert!(shifts.iter().all(|shift| *shift < Duration::from_secs(10)));
        let fullest = phases.seats[&interval(10)].iter().max().copied();
        assert!(fullest <= Some(1000 / CROWDED_SHARE + 10), "the fullest phase holds {fullest:?} of 1000");
    }

    #[test]
    fn a_shift_is_the_same_for_a_push_for_ever_and_differs_between_pushes() {
        assert_eq!(shift(interval(10), push(1)), shift(interval(10), push(1)));
        assert_ne!(shift(interval(10), push(1)), shift(interval(10), push(2)));
    }

    #[test]
    fn intervals_do_not_count_for_each_other() {
        let mut phases = Phases::default();
        for n in 0..15 {
            let _ = phases.join(interval(10), at_ms(0), push(n));
        }
        assert_eq!(phases.join(interval(20), at_ms(0), push(99)).1, None);
    }

    #[test]
    fn a_seat_given_back_makes_room() {
        let mut phases = Phases::default();
        let seats: Vec<_> = (0..15).map(|n| phases.join(interval(10), at_ms(0), push(n)).0).collect();
        for seat in seats {
            phases.leave(seat);
        }
        assert!(phases.seats.is_empty());
        assert_eq!(phases.join(interval(10), at_ms(0), push(99)).1, None);
    }
}
