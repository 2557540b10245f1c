//! How a template's callbacks are sent: when again, and how long an attempt may take.

use alloc::string::String;
use core::{ops::RangeInclusive, time::Duration};

use crate::{field::FieldError, retry::Plan};

/// What the time for a whole attempt may be. The least is what a receiver in the same building needs, the most what a
/// person would call hanging.
pub const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);

/// What the time for a connection may be: a minute is more than TCP's first four tries take.
pub const CONNECT_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// How old dead letters may be that are sent again when their receiver has recovered. The least is what a restart takes, the
/// most a month: by then what they tell is history.
const REPLAY_RECOVERED_RANGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);

/// How callbacks are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    pub plan: Plan,
    /// Of one connection to one address, TLS included. `None`: an equal share of what is left of the whole.
    pub connect_timeout: Option<Duration>,
    /// Of a whole attempt. `None`: that of the configuration.
    pub timeout: Option<Duration>,
    /// Dead letters no older than so are sent again, once each, when their receiver takes callbacks again. `None`: they wait
    /// for a person.
    pub replay_recovered: Option<Duration>,
}

/// The same as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendingDraft {
    /// `css` by default.
    pub schedule: Option<String>,
    pub connect_timeout: Option<Duration>,
    pub timeout: Option<Duration>,
    pub replay_recovered: Option<Duration>,
}

impl Sending {
    pub(super) fn to_draft(&self) -> SendingDraft {
        SendingDraft {
            schedule: Some(self.plan.name().into()),
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            replay_recovered: self.replay_recovered,
        }
    }

    pub(super) fn validate(draft: SendingDraft) -> Result<Self, FieldError> {
        let plan = match draft.schedule.as_deref() {
            None => Plan::default(),
            Some(name) => Plan::from_name(name).ok_or_else(|| FieldError::new("schedule", name, "css or patient"))?,
        };
        let within = |field, time: Option<Duration>, range: RangeInclusive<Duration>, allowed| match time {
            Some(time) if !range.contains(&time) => {
                Err(FieldError::new(field, format_args!("{} ms", time.as_millis()), allowed))
            }
            time => Ok(time),
        };
        Ok(Self {
            plan,
            connect_timeout: within(
                "connect_timeout",
                draft.connect_timeout,
                CONNECT_TIMEOUT_RANGE,
                "100 milliseconds to 1 minute",
            )?,
            timeout: within("timeout", draft.timeout, TIMEOUT_RANGE, "100 milliseconds to 5 minutes")?,
            replay_recovered: within(
                "replay_recovered",
                draft.replay_recovered,
                REPLAY_RECOVERED_RANGE,
                "1 minute to 30 days",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_within_its_bounds() {
        let ms = Duration::from_millis;
        let draft = |schedule: &str, connect_timeout, timeout| SendingDraft {
            schedule: Some(schedule.into()),
            connect_timeout,
            timeout,
            replay_recovered: None,
        };
        let recovered =
            |secs| SendingDraft { replay_recovered: Some(Duration::from_secs(secs)), ..SendingDraft::default() };
        let rows = [
            ("nothing given", SendingDraft::default(), None),
            ("all given", draft("patient", Some(ms(100)), Some(ms(300_000))), None),
            ("unknown schedule", draft("Patient", None, None), Some("schedule")),
            ("hasty connection", draft("css", Some(ms(99)), None), Some("connect_timeout")),
            ("slow connection", draft("css", Some(ms(60_001)), None), Some("connect_timeout")),
            ("hasty attempt", draft("css", None, Some(ms(99))), Some("timeout")),
            ("dead letters of a month", recovered(30 * 86_400), None),
            ("dead letters of seconds", recovered(59), Some("replay_recovered")),
            ("dead letters of years", recovered(1_000_000_000), Some("replay_recovered")),
            ("slow attempt", draft("css", None, Some(ms(300_001))), Some("timeout")),
        ];
        for (name, draft, refused) in rows {
            let sending = Sending::validate(draft.clone());
            assert_eq!(sending.as_ref().err().map(|error| error.field), refused, "{name}");
            if let Ok(sending) = sending {
                let again = Sending::validate(sending.to_draft()).expect("what it gave it takes");
                assert_eq!(again, sending, "{name}");
            }
        }
    }
}
