//! When a bucket is asked again after it has failed.
//!
//! Everything that waits for a bucket fails for the same reason, so a few failures in a row speak for all. From then on one
//! put at a time finds out whether that has passed; the others neither cost a request nor are written down as failed.

use std::time::Duration;

use framehook_domain::time::Mono;

use super::Retry;
use super::backoff;

/// Failures in a row, of the bucket and not of one object, after which the circuit opens.
const FAILURES_TO_OPEN: u32 = 3;

/// Whether puts into one bucket are made.
#[derive(Clone, Debug, Default)]
pub(super) struct Circuit {
    /// In a row, of the bucket.
    failures: u32,
    /// When the next put may find out; `None`: every put is made.
    next_try: Option<Mono>,
}

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// As many puts as there are slots.
    All,
    /// One, if none is under way, whatever it puts.
    One,
    /// None for so long.
    NoneFor(Duration),
}

impl Circuit {
    pub(super) fn allowance(&self, now: Mono) -> Allowance {
        match self.next_try {
            None => Allowance::All,
            Some(at) if at <= now => Allowance::One,
            Some(at) => Allowance::NoneFor(at.since(now)),
        }
    }

    /// Whether the bucket fails as a whole.
    pub(super) fn is_open(&self) -> bool {
        self.next_try.is_some()
    }

    /// A put was taken. Tells whether that ends a failure.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_open = self.is_open();
        *self = Self::default();
        was_open
    }

    /// A put failed for a reason that concerns every object of the bucket. Tells whether the bucket fails as a whole by now.
    pub(super) fn failed(&mut self, now: Mono, jitter: f64) -> bool {
        if self.next_try.is_some_and(|at| now < at) {
            // Begun before the bucket was known to fail: it tells nothing new.
            return true;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_TO_OPEN {
            return false;
        }
        let wait = backoff(Retry::Later, self.failures + 1 - FAILURES_TO_OPEN, jitter);
        self.next_try = Some(now.plus(wait));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono(Duration::from_secs(secs))
    }

    #[test]
    fn opens_after_a_few_failures_in_a_row() {
        let mut circuit = Circuit::default();
        assert!(!circuit.failed(at(0), 0.5) && !circuit.failed(at(0), 0.5));
        assert_eq!(circuit.allowance(at(0)), Allowance::All);
        assert!(!circuit.succeeded(), "nothing was wrong");
        assert!(!circuit.failed(at(0), 0.5) && !circuit.failed(at(0), 0.5) && circuit.failed(at(0), 0.5));
        assert_eq!(circuit.allowance(at(0)), Allowance::NoneFor(Duration::from_secs(1)));
        assert_eq!(circuit.allowance(at(1)), Allowance::One);
    }

    #[test]
    fn puts_that_fail_together_count_as_one_try() {
        let mut circuit = Circuit::default();
        for _ in 0..100 {
            circuit.failed(at(0), 0.5);
        }
        assert_eq!(circuit.allowance(at(0)), Allowance::NoneFor(Duration::from_secs(1)));
    }

    #[test]
    fn asks_less_and_less_often_and_closes_at_once() {
        let mut circuit = Circuit::default();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            circuit.failed(now, 0.5);
            if let Allowance::NoneFor(wait) = circuit.allowance(now) {
                waits.push(wait.as_secs());
                now = now.plus(wait);
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert!(circuit.succeeded());
        assert_eq!(circuit.allowance(now), Allowance::All);
    }
}
