//! The log of callbacks sent.

use alloc::string::String;

use serde::Serialize;

use super::{
    FromParams,
    page::Page,
    stream,
    window::{DAY_SECS, WindowLimits},
};
use crate::{
    error::ApiError,
    params::{Params, read},
    time::{ApiTime, Notation, UnixSecs},
};

/// Most records on a page. The documents name no limit; each record holds a request and a response.
const PAGE_SIZE_MAX: i64 = 1000;

/// `DescribeCallbackRecordsList`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeCallbackRecords {
    pub start: UnixSecs,
    pub end: UnixSecs,
    /// How `StartTime` was written: the answer's times are written so, too.
    pub notation: Notation,
    /// Exactly this stream.
    pub stream_name: String,
    pub page: Page,
    /// 0, 1, 100 or 200 are documented; other events have other numbers.
    pub event_type: Option<i64>,
    /// 0 asks for successes, anything else for failures.
    pub result_code: Option<i64>,
}

impl FromParams for DescribeCallbackRecords {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        const LIMITS: WindowLimits = WindowLimits { span_secs_max: DAY_SECS, age_secs_max: 14 * DAY_SECS };
        let start = params.required("StartTime", read::time)?;
        let end = params.required("EndTime", read::time)?.at;
        LIMITS.check(start.at, end, now)?;
        Ok(Self {
            start: start.at,
            end,
            notation: start.notation,
            stream_name: params.required("StreamName", read::text(1..=stream::NAME_BYTES_MAX))?,
            page: Page::required(params, 1..=PAGE_SIZE_MAX)?,
            event_type: params.optional("EventType", read::int(0..=i64::MAX))?,
            result_code: params.optional("ResultCode", read::int(i64::MIN..=i64::MAX))?,
        })
    }
}

/// `CallbackEventInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CallbackRecord {
    pub event_time: ApiTime,
    pub event_type: i64,
    /// The body that was sent.
    pub request: String,
    /// The body that came back.
    pub response: String,
    pub response_time: ApiTime,
    /// 0 for a success.
    pub result_code: i64,
    pub stream_id: String,
}
