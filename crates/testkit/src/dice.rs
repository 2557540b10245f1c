//! Random numbers for tests: every draw follows from a seed, which a failing test prints so that it can be run again.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea and Flood, 2014): good enough to choose instants and bits, and the same on every machine and
/// in every version, which no random crate promises.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The number in the environment variable `name`, else one taken from the clock.
    ///
    /// # Panics
    /// When the variable is set and no number.
    pub fn seed_from(name: &str) -> u64 {
        match std::env::var(name) {
            Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("{name} is {seed:?} and no number")),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64),
        }
    }

    /// Any of the 2^64 numbers.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`, which must not be empty. A range much below 2^64 is drawn from evenly enough.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.draw() % (range.end - range.start)
    }

    /// A place in a slice or buffer of `len` elements, at least one.
    pub fn index(&mut self, len: usize) -> usize {
        (self.draw() % len as u64) as usize
    }

    /// Puts `items` into another order, each order as likely as any.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.index(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_sequence() {
        let mut dice = Dice::new(1_234_567);
        assert_eq!([dice.draw(), dice.draw()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn stays_within_its_bounds_and_reaches_all_of_them() {
        let mut dice = Dice::new(7);
        let drawn: std::collections::BTreeSet<u64> = (0..1000).map(|_| dice.within(3..8)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        let mut order = [1, 2, 3, 4, 5];
        dice.shuffle(&mut order);
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }
}
