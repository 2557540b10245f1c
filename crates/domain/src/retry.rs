//! When a callback is sent again, and how an attempt ended (CSS §1.2).

use core::time::Duration;

use crate::{callback::EventKind, dispatch::Felt};

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again this long after the attempt was judged failed, on the monotonic clock.
    After(Duration),
    /// No attempts are left: the delivery is dead, kept and replayable.
    Dead,
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
        if attempt > self.retries { Next::Dead } else { Next::After(self.step) }
    }
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
            Self::AddressForbidden | Self::Local => Felt::Nothing,
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
            Self::Local => "local",
        }
    }

    /// Every outcome without a status of its own.
    const SIMPLE: [Self; 10] = [
        Self::Delivered,
        Self::Timeout,
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Reset,
        Self::HeadTooLarge,
        Self::Protocol,
        Self::AddressForbidden,
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
}

impl DeadReason {
    /// The name used in metrics, commands and the database; it never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::TemplateDeleted => "template_deleted",
            Self::ObjectExpired => "object_expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn follows_the_schedule_of_css() {
        let cases = [(EventKind::Snapshot, 5, 120), (EventKind::PushBegan, 12, 60), (EventKind::PushEnded, 12, 60)];
        for (kind, retries, step_secs) in cases {
            let followed: Vec<_> = (1..=retries + 2).map(|attempt| Schedule::css(kind).next(attempt)).collect();
            let (waits, dead) = followed.split_at(retries as usize);
            assert!(waits.iter().all(|next| *next == Next::After(Duration::from_secs(step_secs))), "{kind:?}");
            assert!(dead.iter().all(|next| *next == Next::Dead), "{kind:?}");
        }
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
