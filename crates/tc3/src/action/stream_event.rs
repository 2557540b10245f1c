//! The history of pushes (267/33186).

use alloc::string::String;

use serde::Serialize;

use super::{
    FromParams, domain,
    page::Page,
    stream,
    window::{DAY_SECS, WindowLimits},
};
use crate::{
    error::ApiError,
    params::{Params, read},
    time::{ApiTime, UnixSecs},
};

/// `DescribeLiveStreamEventList`; what is `None` filters nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeStreamEvents {
    pub start: UnixSecs,
    pub end: UnixSecs,
    pub domain_name: Option<String>,
    pub app_name: Option<String>,
    /// A part of the name, or with `is_strict` the whole.
    pub stream_name: Option<String>,
    pub page: Page,
    /// Only pushes that succeeded.
    pub is_filter: bool,
    pub is_strict: bool,
    /// By the end of the push; the latest first unless set.
    pub is_asc: bool,
}

impl FromParams for DescribeStreamEvents {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        // One month and two, each at its longest.
        const LIMITS: WindowLimits = WindowLimits { span_secs_max: 31 * DAY_SECS, age_secs_max: 62 * DAY_SECS };
        let start = params.required("StartTime", read::time)?.at;
        let end = params.required("EndTime", read::time)?.at;
        LIMITS.check(start, end, now)?;
        let mut flag = |name| params.optional(name, read::flag).map(Option::unwrap_or_default);
        let (is_filter, is_strict, is_asc) = (flag("IsFilter")?, flag("IsStrict")?, flag("IsAsc")?);
        Ok(Self {
            start,
            end,
            domain_name: domain::domain_filter(params)?,
            app_name: stream::name_filter(params, "AppName")?,
            stream_name: stream::name_filter(params, "StreamName")?,
            page: Page::optional(params, 1..=100, 10)?,
            is_filter,
            is_strict,
            is_asc,
        })
    }
}

/// `StreamEventInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamEvent {
    pub app_name: String,
    pub domain_name: String,
    pub stream_name: String,
    /// [In UTC](ApiTime::utc).
    pub stream_start_time: ApiTime,
    /// [In UTC](ApiTime::utc).
    pub stream_end_time: ApiTime,
    pub stop_reason: String,
    /// Seconds.
    pub duration: i64,
    pub client_ip: String,
    /// As `1280x720`.
    pub resolution: String,
}
