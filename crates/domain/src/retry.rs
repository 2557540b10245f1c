//! When a callback is sent again, and how an attempt ended (CSS, 267/38080 and 267/32744).

use core::time::Duration;

use crate::{callback::EventKind, dispatch::Felt};

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again this long after the attempt was judged failed, on the monotonic clock.
    After(Duration),
    /// No attempts are left: the delivery is dead, kept and replayable.
    Dead(DeadReason),
}

/// How often and how far apart the attempts of one kind of event are: constant steps, as CSS's receivers expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub step: Duration,
    /// Attempts after the first.
    pub retries: u32,
}

impl Schedule {
    /// CSS's schedule: snapshots 5 times every 2 min, everything else 12 times every 1 min.
    pub const fn css(kind: EventKind) -> Self {
        match kind {
            EventKind::Snapshot => Self { step: Duration::from_secs(120), retries: 5 },
            EventKind::PushBegan | EventKind::PushEnded => Self { step: Duration::from_secs(60), retries: 12 },
        }
    }

    /// What follows when attempt number `attempt` (the first is 1) has failed.
    pub const fn next(self, attempt: u32) -> Next {
        if attempt > self.retries { Next::Dead(DeadReason::Exhausted) } else { Next::After(self.step) }
    }
}

/// By which rule a template's deliveries are tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Constant steps, whatever the receiver answers, as CSS does it: a [`Schedule`] for each kind of event.
    #[default]
    Css,
    /// Ever longer steps for a day. What the receiver says counts: it may name the time of the next attempt, and end them.
    Patient,
}

/// The first step of [`Plan::Patient`], and the shortest.
const PATIENT_STEP_MIN: Duration = Duration::from_secs(5);

/// Its longest step. With it a receiver that is away for a day is asked some sixty times.
const PATIENT_STEP_MAX: Duration = Duration::from_secs(3600);

/// The waits of a round end here, and with them the round: at the last attempt it has waited exactly so long. Time in which
/// the receiver was paused is not waited by the schedule, and not counted.
const PATIENT_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest wait that a receiver may ask for at a time. A quarter of the day leaves it three more chances.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3600);

/// A failed attempt, as far as it decides about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Of its round, from 1.
    pub attempt: u32,
    pub outcome: Outcome,
    /// All waits of the round so far.
    pub waited: Duration,
    /// The wait that the receiver asked for (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// 32 random bits.
    pub random: u32,
}

impl Plan {
    pub const ALL: [Self; 2] = [Self::Css, Self::Patient];

    /// The name used in the API, the configuration and the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Css => "css",
            Self::Patient => "patient",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plan| plan.name() == name)
    }

    /// What follows a failed attempt; `css` are the steps of its kind of event.
    pub fn next(self, css: Schedule, failed: &Failed) -> Next {
        match self {
            Self::Css => css.next(failed.attempt),
            Self::Patient => patient_next(failed),
        }
    }
}

fn patient_next(failed: &Failed) -> Next {
    if failed.outcome == Outcome::Status(410) {
        return Next::Dead(DeadReason::Gone);
    }
    let left = PATIENT_WAIT_MAX.saturating_sub(failed.waited);
    if left.is_zero() {
        return Next::Dead(DeadReason::Exhausted);
    }
    // Full jitter (Brooker, "Exponential Backoff And Jitter", 2015) above the shortest step: anything up to a bound that
    // doubles, so that deliveries which failed together are not tried again together.
    let doubled = 1_u32.checked_shl(failed.attempt).unwrap_or(u32::MAX);
    let longest = PATIENT_STEP_MIN.saturating_mul(doubled).min(PATIENT_STEP_MAX);
    let spread = longest.saturating_sub(PATIENT_STEP_MIN).as_millis();
    let jitter_ms = (spread * u128::from(failed.random)) >> u32::BITS;
    let jitter = Duration::from_millis(u64::try_from(jitter_ms).unwrap_or(u64::MAX));
    let step = PATIENT_STEP_MIN.saturating_add(jitter);
    let asked = failed.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    Next::After(step.max(asked).min(left))
}

/// How one attempt ended. Only status 200 delivers: 204 and redirects are failures, as in CSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Delivered,
    /// Any other status.
    Status(u16),
    /// No complete response head within the deadline, whatever it was waiting for.
    Timeout,
    /// The host name did not resolve.
    Resolve,
    /// The connection was refused or could not be made.
    Connect,
    /// The handshake failed or the certificate is not good.
    Tls,
    /// The connection broke before a response came.
    Reset,
    /// The response head is over its limit.
    HeadTooLarge,
    /// What came back is not HTTP.
    Protocol,
    /// The host is, or resolves to, an address that may not be called.
    AddressForbidden,
    /// The egress proxy could not be reached or refused; nobody has asked the receiver.
    Proxy,
    /// This machine could not even try: out of descriptors, ports or memory.
    Local,
}

impl Outcome {
    /// By the status of a complete response head.
    pub const fn from_status(status: u16) -> Self {
        match status {
            200 => Self::Delivered,
            other => Self::Status(other),
        }
    }

    pub const fn is_delivered(self) -> bool {
        matches!(self, Self::Delivered)
    }

    /// What it tells about the receiver's health. Any answer but 429 and 5xx comes from a receiver that copes, whatever it
    /// thinks of this one callback.
    pub const fn felt(self) -> Felt {
        match self {
            Self::Delivered => Felt::Good,
            Self::Status(429 | 500..) => Felt::Bad,
            Self::Status(_) => Felt::Good,
            Self::AddressForbidden | Self::Proxy | Self::Local => Felt::Nothing,
            Self::Timeout
            | Self::Resolve
            | Self::Connect
            | Self::Tls
            | Self::Reset
            | Self::HeadTooLarge
            | Self::Protocol => Felt::Bad,
        }
    }

    /// The name used in metrics, logs and the database; it never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Resolve => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::HeadTooLarge => "head_too_large",
            Self::Protocol => "protocol",
            Self::AddressForbidden => "address_forbidden",
            Self::Proxy => "proxy",
            Self::Local => "local",
        }
    }

    /// Every outcome without a status of its own.
    const SIMPLE: [Self; 11] = [
        Self::Delivered,
        Self::Timeout,
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Reset,
        Self::HeadTooLarge,
        Self::Protocol,
        Self::AddressForbidden,
        Self::Proxy,
        Self::Local,
    ];

    /// Every name, for metrics that must exist before the first attempt.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::SIMPLE.into_iter().chain([Self::Status(0)]).map(Self::name)
    }

    /// Reads back what [`Outcome::name`] and [`Outcome::status`] gave.
    pub fn from_name(name: &str, status: Option<u16>) -> Option<Self> {
        match status {
            Some(status) if name == "status" => Some(Self::Status(status)),
            _ => Self::SIMPLE.into_iter().find(|outcome| outcome.name() == name),
        }
    }

    /// The HTTP status, where a response came.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Delivered => Some(200),
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// `ResultCode` of CSS's callback records: 0 delivered, else the status, −2 for a time-out, −1 for any other
    /// failure.
    pub const fn result_code(self) -> i32 {
        match self {
            Self::Delivered => 0,
            Self::Status(status) => status as i32,
            Self::Timeout => -2,
            _ => -1,
        }
    }
}

/// Why a delivery is dead. Each can be replayed by hand, some with another URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// Every attempt failed.
    Exhausted,
    /// Its callback template was deleted or lost its URL.
    TemplateDeleted,
    /// A replay found that the picture is gone.
    ObjectExpired,
    /// A replay could not find out whether the picture is still there, and no waiting would tell.
    ObjectUnknown,
    /// The receiver answered 410: it wants no more of it.
    Gone,
    /// Its receiver was paused for so long that no attempt of this round was made.
    Held,
    /// What the database holds of it is not anything that we write.
    Damaged,
}

impl DeadReason {
    /// The name used in metrics, commands and the database; it never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::TemplateDeleted => "template_deleted",
            Self::ObjectExpired => "object_expired",
            Self::ObjectUnknown => "object_unknown",
            Self::Gone => "gone",
            Self::Held => "held",
            Self::Damaged => "damaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn follows_the_schedule_of_css() {
        let cases = [(EventKind::Snapshot, 5, 120), (EventKind::PushBegan, 12, 60), (EventKind::PushEnded, 12, 60)];
        for (kind, retries, step_secs) in cases {
            let followed: Vec<_> = (1..=retries + 2).map(|attempt| Schedule::css(kind).next(attempt)).collect();
            let (waits, dead) = followed.split_at(retries as usize);
            assert!(waits.iter().all(|next| *next == Next::After(Duration::from_secs(step_secs))), "{kind:?}");
            assert!(dead.iter().all(|next| *next == Next::Dead(DeadReason::Exhausted)), "{kind:?}");
        }
    }

    fn failed(outcome: Outcome) -> Failed {
        Failed { attempt: 1, outcome, waited: Duration::ZERO, retry_after: None, random: 0 }
    }

    fn next(plan: Plan, failed: Failed) -> Next {
        plan.next(Schedule::css(EventKind::Snapshot), &failed)
    }

    #[test]
    fn css_heeds_nothing_that_a_receiver_says() {
        for outcome in [Outcome::Status(410), Outcome::Status(429), Outcome::Timeout] {
            let failed = Failed { retry_after: Some(Duration::from_secs(7)), random: u32::MAX, ..failed(outcome) };
            assert_eq!(next(Plan::Css, failed), Next::After(Duration::from_secs(120)), "{outcome:?}");
            let last = Failed { attempt: 6, ..failed };
            assert_eq!(next(Plan::Css, last), Next::Dead(DeadReason::Exhausted), "{outcome:?}");
        }
    }

    #[test]
    fn patience_heeds_410_and_retry_after() {
        let (secs, day) = (Duration::from_secs, Duration::from_secs(86_400));
        let unavailable = failed(Outcome::Status(503));
        let asked = |secs| Failed { retry_after: Some(Duration::from_secs(secs)), ..unavailable };
        let rows = [
            ("410", failed(Outcome::Status(410)), Next::Dead(DeadReason::Gone)),
            ("404 is no end", failed(Outcome::Status(404)), Next::After(secs(5))),
            ("asked for ten minutes", asked(600), Next::After(secs(600))),
            ("asked for less than a step", asked(1), Next::After(secs(5))),
            ("asked for a week", asked(604_800), Next::After(secs(6 * 3600))),
            ("a second is left", Failed { waited: day - secs(1), ..asked(600) }, Next::After(secs(1))),
            ("nothing is left", Failed { waited: day, ..unavailable }, Next::Dead(DeadReason::Exhausted)),
            ("more than all", Failed { waited: day * 2, ..unavailable }, Next::Dead(DeadReason::Exhausted)),
            (
                "the longest step",
                Failed { attempt: 1000, random: u32::MAX, ..unavailable },
                Next::After(secs(3600) - Duration::from_millis(1)),
            ),
        ];
        for (name, failed, expected) in rows {
            assert_eq!(next(Plan::Patient, failed), expected, "{name}");
        }
    }

    proptest! {
        /// Whatever is drawn, a round waits a day, in steps from five seconds to an hour, and then ends.
        #[test]
        fn patience_lasts_a_day(mut randoms in proptest::collection::vec(any::<u32>(), 100)) {
            let mut failed = failed(Outcome::Timeout);
            let mut attempts = 0_u32;
            loop {
                failed.random = randoms.pop().unwrap_or(0).wrapping_add(attempts.wrapping_mul(0x9e37_79b9));
                let Next::After(step) = next(Plan::Patient, failed) else { break };
                let is_last = failed.waited + step == PATIENT_WAIT_MAX;
                prop_assert!(is_last || (PATIENT_STEP_MIN..=PATIENT_STEP_MAX).contains(&step), "{step:?}");
                prop_assert!(failed.attempt > 10 || step <= PATIENT_STEP_MIN * (1 << failed.attempt), "{step:?}");
                failed = Failed { attempt: failed.attempt + 1, waited: failed.waited + step, ..failed };
                attempts += 1;
                prop_assert!(attempts < 20_000);
            }
            prop_assert_eq!(failed.waited, PATIENT_WAIT_MAX);
        }
    }

    #[test]
    fn plans_have_names() {
        for plan in Plan::ALL {
            assert_eq!(Plan::from_name(plan.name()), Some(plan));
        }
        assert_eq!(Plan::from_name("eager"), None);
    }

    #[test]
    fn only_status_200_delivers() {
        let cases = [
            ("200", Outcome::from_status(200), true, 0),
            ("201", Outcome::from_status(201), false, 201),
            ("204", Outcome::from_status(204), false, 204),
            ("302", Outcome::from_status(302), false, 302),
            ("500", Outcome::from_status(500), false, 500),
            ("time-out", Outcome::Timeout, false, -2),
            ("refused", Outcome::Connect, false, -1),
            ("forbidden address", Outcome::AddressForbidden, false, -1),
        ];
        for (name, outcome, delivered, result_code) in cases {
            assert_eq!((outcome.is_delivered(), outcome.result_code()), (delivered, result_code), "{name}");
            assert_eq!(Outcome::from_name(outcome.name(), outcome.status()), Some(outcome), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_not_an_outcome() {
        assert_eq!(Outcome::from_name("status", None), None);
        assert_eq!(Outcome::from_name("vanished", None), None);
    }
}
