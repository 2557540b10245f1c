//! How each bucket does, as the puts into it tell: whether more of them are made, and what a person is told.
//!
//! Whoever puts into a bucket asks the same [`Conditions`] and tells them how it went, so that a bucket that fails is found out
//! once and not by each of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::time::{Mono, UnixMs};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::circuit::{Allowance, Circuit};
use super::{Retry, Scope, StoreError};
use crate::db::snapshot::Place;
use crate::telemetry::event::Chain;

/// Failures in a row that may or may not concern the whole bucket, after which it is said to fail: one is a file in the way of
/// some names, three without a success between them are most likely a directory that cannot be written to.
const UNCLEAR_FAILURES_TO_TELL: u32 = 3;

/// How every bucket does that something was put into since the start.
#[derive(Debug, Default)]
pub struct Conditions {
    places: Mutex<BTreeMap<Place, Condition>>,
    recovery: Notify,
}

#[derive(Debug, Default)]
struct Condition {
    circuit: Circuit,
    /// Why puts fail, if the last ones did for a reason that is the bucket's.
    failure: Option<Failure>,
    /// In a row.
    unclear_failures: u32,
    /// When it last took pictures again after it had failed.
    recovered: Option<UnixMs>,
}

/// Why a bucket takes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) retry: Retry,
    pub(super) error: String,
    pub(super) mend: &'static str,
}

impl Conditions {
    /// How many puts into a bucket may be under way now, of `slots`, and for how long none may be started otherwise.
    pub(super) fn slots(&self, place: &Place, slots: usize, now: Mono) -> (usize, Option<Duration>) {
        match self.places().get(place).map_or(Allowance::All, |condition| condition.circuit.allowance(now)) {
            Allowance::All => (slots, None),
            Allowance::One => (1, None),
            Allowance::NoneFor(wait) => (0, Some(wait)),
        }
    }

    /// When a bucket last took pictures again: what was committed before is backlog, however young.
    pub(super) fn recovered(&self, place: &Place) -> Option<UnixMs> {
        self.places().get(place)?.recovered
    }

    /// Every bucket that is known, with what is wrong with it.
    pub(super) fn failures(&self) -> BTreeMap<Place, Option<Failure>> {
        self.places().iter().map(|(place, condition)| (place.clone(), condition.failure.clone())).collect()
    }

    /// A put was taken. Tells whether that ends a failure for which others have waited.
    pub(super) fn succeeded(&self, place: &Place, wall: UnixMs) -> bool {
        let mut places = self.places();
        let condition = places.entry(place.clone()).or_default();
        (condition.failure, condition.unclear_failures) = (None, 0);
        let has_recovered = condition.circuit.succeeded();
        if has_recovered {
            condition.recovered = Some(wall);
            drop(places);
            let Place { store, bucket } = place;
            tracing::info!(store, bucket, "the bucket takes pictures again");
        }
        has_recovered
    }

    /// A put failed. Says so once for each time that the bucket stops taking pictures.
    pub(super) fn failed(&self, place: &Place, error: &StoreError, now: Mono, jitter: f64) {
        let (scope, retry, mend) = (error.scope(), error.retry(), error.mend());
        let mut places = self.places();
        let condition = places.entry(place.clone()).or_default();
        let is_told = match scope {
            Scope::Bucket => true,
            Scope::Unclear => {
                condition.unclear_failures = condition.unclear_failures.saturating_add(1);
                condition.unclear_failures >= UNCLEAR_FAILURES_TO_TELL
            }
            Scope::Object => false,
        };
        if is_told {
            condition.failure = Some(Failure { retry, error: Chain(error).to_string(), mend });
        }
        // What is unclear opens no circuit: it would hold up pictures that this does not concern.
        if scope == Scope::Bucket && condition.circuit.failed(now, jitter) {
            drop(places);
            let (Place { store, bucket }, error) = (place, Chain(error));
            match retry {
                Retry::Held => {
                    tracing::error!(store, bucket, %error, mend, "the bucket refuses pictures: they wait for you to mend it");
                }
                Retry::Later => {
                    tracing::warn!(store, bucket, %error, mend, "the bucket fails: its pictures wait for it");
                }
            }
        }
    }

    /// Completes when what waited for some bucket has been made due after this call.
    pub(super) fn recovery(&self) -> Notified<'_> {
        self.recovery.notified()
    }

    /// What waited for a bucket is due: whoever puts looks again.
    pub(super) fn tell_recovery(&self) {
        self.recovery.notify_waiters();
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Place, Condition>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const NOW: Mono = Mono(Duration::from_secs(1));

    fn place() -> Place {
        Place { store: "tencent".into(), bucket: "shots-1".into() }
    }

    fn timed_out() -> StoreError {
        StoreError::TimedOut { host: "h".into(), waited: Duration::from_secs(1) }
    }

    fn refused() -> StoreError {
        StoreError::Refused { bucket: "b".into(), key: "k".into(), source: io::ErrorKind::PermissionDenied.into() }
    }

    fn fail(conditions: &Conditions, error: &StoreError, times: usize) -> Option<Failure> {
        (0..times).for_each(|_| conditions.failed(&place(), error, NOW, 0.5));
        conditions.failures().remove(&place()).flatten()
    }

    #[test]
    fn a_failure_of_the_bucket_is_told_at_once_and_stops_everybody_after_three() {
        let conditions = Conditions::default();
        assert_eq!(conditions.slots(&place(), 8, NOW), (8, None));
        let failure = fail(&conditions, &timed_out(), 1).expect("told");
        assert_eq!(failure.retry, Retry::Later);
        assert_eq!(conditions.slots(&place(), 8, NOW), (8, None));
        fail(&conditions, &timed_out(), 2);
        assert_eq!(conditions.slots(&place(), 8, NOW), (0, Some(Duration::from_secs(1))));
        assert!(conditions.succeeded(&place(), UnixMs(7)));
        assert_eq!(conditions.slots(&place(), 8, NOW), (8, None));
        assert_eq!((conditions.recovered(&place()), fail(&conditions, &timed_out(), 0)), (Some(UnixMs(7)), None));
    }

    #[test]
    fn a_failure_of_one_object_says_nothing_of_its_bucket() {
        let conditions = Conditions::default();
        assert_eq!(fail(&conditions, &StoreError::SpoolMissing { key: "k".into() }, 100), None);
        assert_eq!(conditions.slots(&place(), 8, NOW), (8, None));
    }

    #[test]
    fn what_may_be_the_buckets_is_told_after_three_in_a_row_and_stops_nobody() {
        let conditions = Conditions::default();
        assert_eq!(fail(&conditions, &refused(), 2), None);
        assert!(!conditions.succeeded(&place(), UnixMs(7)));
        assert_eq!(fail(&conditions, &refused(), 2), None, "one was taken between them");
        assert_eq!(fail(&conditions, &refused(), 1).expect("told").retry, Retry::Held);
        assert_eq!(conditions.slots(&place(), 8, NOW), (8, None));
    }
}
