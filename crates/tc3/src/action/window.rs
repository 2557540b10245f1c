//! Spans of time that may be asked about.

use crate::{
    error::{ApiError, ErrorCode},
    time::UnixSecs,
};

pub(super) const DAY_SECS: i64 = 86_400;

/// Clocks of clients may be off by as much as signatures tolerate, and "the last 14 days" is computed before it is sent.
const SLACK_SECS: i64 = crate::sign::TIME_WINDOW_SECS;

/// How wide a span may be and how far back it may begin.
pub(super) struct WindowLimits {
    pub(super) span_secs_max: i64,
    pub(super) age_secs_max: i64,
}

impl WindowLimits {
    /// # Errors
    /// `InvalidParameterValue`, saying which limit it was.
    pub(super) fn check(&self, start: UnixSecs, end: UnixSecs, now: UnixSecs) -> Result<(), ApiError> {
        let days = |secs: i64| secs / DAY_SECS;
        if end < start {
            Err(refused("`EndTime` lies before `StartTime`."))
        } else if end.secs_since(start) > self.span_secs_max {
            let span = days(self.span_secs_max);
            Err(refused(&alloc::format!("`EndTime` lies more than {span} days after `StartTime`.")))
        } else if now.secs_since(start) > self.age_secs_max.saturating_add(SLACK_SECS) {
            let age = days(self.age_secs_max);
            Err(refused(&alloc::format!("`StartTime` lies more than {age} days back.")))
        } else {
            Ok(())
        }
    }
}

pub(super) fn refused(message: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameterValue, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_spans_within_their_limits() {
        const NOW: i64 = 1_735_689_600;
        let limits = WindowLimits { span_secs_max: DAY_SECS, age_secs_max: 14 * DAY_SECS };
        let oldest = NOW - 14 * DAY_SECS - SLACK_SECS;
        for (name, start, end, refusal) in [
            ("a whole day", NOW - DAY_SECS, NOW, None),
            ("an instant", NOW, NOW, None),
            ("into the future", NOW, NOW + DAY_SECS, None),
            ("the oldest", oldest, oldest + 1, None),
            ("backwards", NOW, NOW - 1, Some("before")),
            ("too wide", NOW - DAY_SECS - 1, NOW, Some("more than 1 days after")),
            ("too old", oldest - 1, oldest, Some("more than 14 days back")),
            ("all of time", i64::MIN, i64::MAX, Some("days after")),
            ("before time", i64::MIN, i64::MIN, Some("days back")),
        ] {
            let checked = limits.check(UnixSecs(start), UnixSecs(end), UnixSecs(NOW));
            match refusal {
                None => assert_eq!(checked, Ok(()), "{name}"),
                Some(why) => assert!(checked.expect_err(name).message.contains(why), "{name}"),
            }
        }
    }
}
