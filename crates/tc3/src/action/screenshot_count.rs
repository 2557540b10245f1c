//! How many pictures were taken.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use super::{
    FromParams, domain,
    window::{DAY_SECS, WindowLimits},
};
use crate::{
    error::ApiError,
    params::{Params, read},
    time::{ApiTime, UnixSecs},
};

/// `DescribeScreenShotSheetNumList`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeScreenshotCounts {
    pub start: UnixSecs,
    pub end: UnixSecs,
    /// `None`: everywhere.
    pub zone: Option<Zone>,
    /// Empty: every domain.
    pub push_domains: Vec<String>,
    pub granularity: Granularity,
}

/// `Zone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Mainland,
    Oversea,
}

/// `Granularity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Called `Minute` on the wire.
    FiveMinutes,
    /// Days of UTC+8; the default.
    Day,
}

impl Granularity {
    /// The documents allow 31 days for the whole action, and elsewhere 186 for days; the wider one does no harm. Minutes
    /// are kept for three months, read as 93 days.
    fn limits(self) -> WindowLimits {
        let (span_days, age_days) = match self {
            Self::FiveMinutes => (31, 93),
            Self::Day => (186, 186),
        };
        WindowLimits { span_secs_max: span_days * DAY_SECS, age_secs_max: age_days * DAY_SECS }
    }
}

impl FromParams for DescribeScreenshotCounts {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        const ZONES: [(&str, Zone); 2] = [("Mainland", Zone::Mainland), ("Oversea", Zone::Oversea)];
        const GRANULARITIES: [(&str, Granularity); 2] =
            [("Minute", Granularity::FiveMinutes), ("Day", Granularity::Day)];
        let start = params.required("StartTime", read::time)?.at;
        let end = params.required("EndTime", read::time)?.at;
        let granularity = params.optional("Granularity", read::word(&GRANULARITIES))?.unwrap_or(Granularity::Day);
        granularity.limits().check(start, end, now)?;
        Ok(Self {
            start,
            end,
            zone: params.optional("Zone", read::word(&ZONES))?,
            push_domains: params
                .optional("PushDomains", read::list(domain::DOMAINS_MAX, read::text(1..=domain::NAME_BYTES_MAX)))?
                .unwrap_or_default(),
            granularity,
        })
    }
}

/// `TimeValue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScreenshotCount {
    /// When the five minutes or the day begin, [in UTC](ApiTime::utc).
    pub time: ApiTime,
    pub num: i64,
}
