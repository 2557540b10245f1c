//! How each bucket does, as the puts into it tell: whether more of them are made, and what a person is told.
//!
//! Whoever puts into a bucket asks the same [`Conditions`] and tells them how it went, so that a bucket that fails is found out
//! once and not by each of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::time::{Mono, UnixMs};
use tokio::sync::watch;

use super::circuit::{Allowance, Circuit};
use super::{Retry, Scope, StoreError};
use crate::db::snapshot::Place;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{BucketFails, BucketTakes, Chain};

/// Failures in a row that may or may not concern the whole bucket, after which it is said to fail: one is a file in the way of
/// some names, three without a success between them are most likely a directory that cannot be written to.
const UNCLEAR_FAILURES_TO_TELL: u32 = 3;

/// How every bucket does that something was put into since the start.
#[derive(Debug, Default)]
pub struct Conditions {
    places: Mutex<BTreeMap<Place, Condition>>,
    look_again: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Condition {
    circuit: Circuit,
    /// Puts under way, whoever made them.
    running: usize,
    /// Why puts fail, if the last ones did for a reason that is the bucket's.
    failure: Option<Failure>,
    /// In a row.
    unclear_failures: u32,
    /// What a person was told last; `None`: nothing, or that it takes pictures again.
    told: Option<Retry>,
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
    /// For how long no put into a bucket is to be started, if none is.
    pub(super) fn wait(&self, place: &Place, now: Mono) -> Option<Duration> {
        match self.places().get(place)?.circuit.allowance(now) {
            Allowance::All | Allowance::One => None,
            Allowance::NoneFor(wait) => Some(wait),
        }
    }

    /// Whether a put into a bucket may be started now, of all who put there. It counts as under way until [`Conditions::end`].
    #[must_use]
    pub(super) fn begin(&self, place: &Place, now: Mono) -> bool {
        let mut places = self.places();
        let condition = places.entry(place.clone()).or_default();
        let may_begin = match condition.circuit.allowance(now) {
            Allowance::All => true,
            Allowance::One => condition.running == 0,
            Allowance::NoneFor(_) => false,
        };
        condition.running += usize::from(may_begin);
        may_begin
    }

    /// A put that was begun has ended, this way or that. If it was the one that should find out whether a failure has passed,
    /// and has not, the turn is whoever's looks first: all are told.
    pub(super) fn end(&self, place: &Place, now: Mono) {
        let is_still_asked = self.places().get_mut(place).is_some_and(|condition| {
            condition.running = condition.running.saturating_sub(1);
            condition.running == 0 && condition.circuit.allowance(now) == Allowance::One
        });
        if is_still_asked {
            self.look_again.send_replace(());
        }
    }

    /// Whether what is owed to a bucket waits there, since it fails as a whole.
    pub(super) fn is_failing(&self, place: &Place) -> bool {
        self.places().get(place).is_some_and(|condition| condition.circuit.is_open())
    }

    /// Whether the last put into a bucket was taken, or none has been made since the start.
    pub(super) fn takes_pictures(&self, place: &Place) -> bool {
        self.places().get(place).is_none_or(|condition| condition.failure.is_none() && condition.unclear_failures == 0)
    }

    /// When a bucket last took pictures again: what was committed before is backlog, however young.
    pub(super) fn recovered(&self, place: &Place) -> Option<UnixMs> {
        self.places().get(place)?.recovered
    }

    /// Every bucket that is known, with what was wrong with it when something was last put there.
    pub(super) fn failures(&self) -> BTreeMap<Place, Option<Failure>> {
        self.places().iter().map(|(place, condition)| (place.clone(), condition.failure.clone())).collect()
    }

    /// A put was taken. Tells whether that ends a failure for which others have waited.
    pub(super) fn succeeded(&self, place: &Place, wall: UnixMs, telemetry: &Telemetry) -> bool {
        let mut places = self.places();
        let condition = places.entry(place.clone()).or_default();
        (condition.failure, condition.unclear_failures) = (None, 0);
        let was_told = condition.told.take().is_some();
        let has_recovered = condition.circuit.succeeded();
        if has_recovered {
            condition.recovered = Some(wall);
        }
        drop(places);
        if was_told {
            BucketTakes { store: &place.store, bucket: &place.bucket }.emit(telemetry);
        }
        has_recovered
    }

    /// A put failed. Says so once for each time that the bucket stops taking pictures, and once more when it turns out that a
    /// person must mend what should have passed.
    pub(super) fn failed(&self, place: &Place, error: &StoreError, now: Mono, jitter: f64, telemetry: &Telemetry) {
        let (scope, retry, mend) = (error.scope(), error.retry(), error.mend());
        let mut places = self.places();
        let condition = places.entry(place.clone()).or_default();
        let (is_shown, is_sure) = match scope {
            Scope::Bucket => (true, condition.circuit.failed(now, jitter)),
            // What is unclear opens no circuit: it would hold up pictures that this does not concern.
            Scope::Unclear => {
                condition.unclear_failures = condition.unclear_failures.saturating_add(1);
                let is_sure = condition.unclear_failures >= UNCLEAR_FAILURES_TO_TELL;
                (is_sure, is_sure)
            }
            Scope::Object => (false, false),
        };
        if is_shown {
            condition.failure = Some(Failure { retry, error: Chain(error).to_string(), mend });
        }
        let is_news = match condition.told {
            None => true,
            // The other way round it would be told twice of a store that refuses and is away by turns.
            Some(told) => (told, retry) == (Retry::Later, Retry::Held),
        };
        if is_sure && is_news {
            condition.told = Some(retry);
            drop(places);
            let reason = error.name();
            let (store, bucket, alarm) = (&place.store, &place.bucket, retry == Retry::Held);
            BucketFails { store, bucket, reason, alarm, error, mend }.emit(telemetry);
        }
    }

    /// Changes whenever what waited for some bucket has been made due, or may be tried by whoever comes: whoever puts looks
    /// again.
    pub(super) fn look_again(&self) -> watch::Receiver<()> {
        self.look_again.subscribe()
    }

    /// What waited for a bucket is due.
    pub(super) fn tell_recovery(&self) {
        self.look_again.send_replace(());
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Place, Condition>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::feed::Heard;

    const NOW: Mono = Mono(Duration::from_secs(1));

    fn place() -> Place {
        Place { store: "tencent".into(), bucket: "shots-1".into() }
    }

    fn timed_out() -> StoreError {
        StoreError::TimedOut { host: "h".into(), waited: Duration::from_secs(1) }
    }

    fn refused() -> StoreError {
        StoreError::Refused { bucket: "b".into(), key: "k".into(), source: io::ErrorKind::NotADirectory.into() }
    }

    fn fail(conditions: &Conditions, error: &StoreError, times: usize) -> Option<Failure> {
        let telemetry = Telemetry::new(Clock::start());
        (0..times).for_each(|_| conditions.failed(&place(), error, NOW, 0.5, &telemetry));
        conditions.failures().remove(&place()).flatten()
    }

    fn succeed(conditions: &Conditions) -> bool {
        conditions.succeeded(&place(), UnixMs(7), &Telemetry::new(Clock::start()))
    }

    #[test]
    fn a_failure_of_the_bucket_is_told_at_once_and_stops_everybody_after_three() {
        let conditions = Conditions::default();
        assert!(conditions.begin(&place(), NOW));
        let failure = fail(&conditions, &timed_out(), 1).expect("told");
        assert_eq!(failure.retry, Retry::Later);
        assert!(conditions.begin(&place(), NOW));
        fail(&conditions, &timed_out(), 2);
        assert_eq!(conditions.wait(&place(), NOW), Some(Duration::from_secs(1)));
        assert!(!conditions.begin(&place(), NOW));
        assert!(succeed(&conditions));
        assert!(conditions.wait(&place(), NOW).is_none() && conditions.begin(&place(), NOW));
        assert_eq!((conditions.recovered(&place()), fail(&conditions, &timed_out(), 0)), (Some(UnixMs(7)), None));
    }

    #[tokio::test]
    async fn an_outage_is_told_once_its_end_too_and_that_somebody_must_mend_it_once_more() {
        let (conditions, telemetry) = (Conditions::default(), Telemetry::new(Clock::start()));
        let mut listener = telemetry.feed.listen();
        let read_only = StoreError::from_io("b", "k", rustix::io::Errno::ROFS.into());
        let mut now = NOW;
        for error in [&timed_out(), &read_only, &timed_out(), &read_only] {
            for _ in 0..5 {
                conditions.failed(&place(), error, now, 0.5, &telemetry);
                now = now.plus(Duration::from_secs(100));
            }
        }
        for _ in 0..5 {
            conditions.succeeded(&place(), UnixMs(7), &telemetry);
        }
        // Listening ends with it.
        drop(telemetry);
        let mut told = Vec::new();
        while let Some(Heard::Event(event)) = listener.next().await {
            let event: serde_json::Value = serde_json::from_str(&event.json).expect("JSON");
            assert_eq!((&event["store"], &event["bucket"]), (&"tencent".into(), &"shots-1".into()), "{event}");
            told.push((event["kind"].as_str().expect("a kind").to_owned(), event["alarm"].as_bool()));
        }
        let expected = [("bucket_failing", Some(false)), ("bucket_failing", Some(true)), ("bucket_taking", None)];
        assert_eq!(told, expected.map(|(kind, alarm)| (kind.to_owned(), alarm)));
    }

    #[test]
    fn a_failure_of_one_object_says_nothing_of_its_bucket() {
        let conditions = Conditions::default();
        assert_eq!(fail(&conditions, &StoreError::SpoolMissing { key: "k".into() }, 100), None);
        assert!(conditions.begin(&place(), NOW));
    }

    #[test]
    fn one_put_of_all_finds_out_whether_a_failure_has_passed() {
        let conditions = Conditions::default();
        // One that hangs since before the bucket was known to fail.
        assert!(conditions.begin(&place(), NOW));
        fail(&conditions, &timed_out(), 3);
        let later = NOW.plus(Duration::from_secs(2));
        assert_eq!(conditions.wait(&place(), later), None);
        assert!(!conditions.begin(&place(), later), "the one that hangs may find out");
        conditions.end(&place(), later);
        assert!(conditions.begin(&place(), later));
        assert!(!conditions.begin(&place(), later), "whoever asks second");
        conditions.end(&place(), later);
        assert!(conditions.begin(&place(), later));
    }

    #[test]
    fn everybody_is_told_of_a_try_that_has_found_nothing_out() {
        let conditions = Conditions::default();
        let mut told = conditions.look_again();
        let mut is_told = || {
            let is_told = told.has_changed().expect("its sender is here");
            told.mark_unchanged();
            is_told
        };
        assert!(conditions.begin(&place(), NOW));
        conditions.end(&place(), NOW);
        assert!(!is_told(), "nobody waits for a bucket that does not fail");
        fail(&conditions, &timed_out(), 3);
        let later = NOW.plus(Duration::from_secs(2));
        assert!(conditions.begin(&place(), later));
        // Its picture's file was gone, say.
        conditions.end(&place(), later);
        assert!(is_told());
        assert!(conditions.begin(&place(), later));
        let telemetry = Telemetry::new(Clock::start());
        conditions.failed(&place(), &timed_out(), later, 0.5, &telemetry);
        conditions.end(&place(), later);
        assert!(!is_told(), "it fails still, and is asked later");
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_the_bucket() {
        for errno in [rustix::io::Errno::ROFS, rustix::io::Errno::ACCESS] {
            let conditions = Conditions::default();
            let error = StoreError::from_io("b", "k", errno.into());
            assert_eq!(fail(&conditions, &error, 3).expect("told").retry, Retry::Held);
            assert!(conditions.wait(&place(), NOW).is_some(), "{error}");
        }
    }

    #[test]
    fn what_may_be_the_buckets_is_told_after_three_in_a_row_and_stops_nobody() {
        let conditions = Conditions::default();
        assert_eq!(fail(&conditions, &refused(), 2), None);
        assert!(!succeed(&conditions));
        assert_eq!(fail(&conditions, &refused(), 2), None, "one was taken between them");
        assert_eq!(fail(&conditions, &refused(), 1).expect("told").retry, Retry::Held);
        assert!(conditions.begin(&place(), NOW));
    }
}
