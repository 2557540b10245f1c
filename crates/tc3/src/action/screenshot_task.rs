//! Screenshot tasks: pictures of one stream within a window of time (267/70281, 267/70279).

use alloc::string::String;

use serde::Serialize;

use super::{
    FromParams, domain, stream,
    window::{DAY_SECS, WindowLimits, refused},
};
use crate::{
    error::{ApiError, ErrorCode},
    params::{Params, read},
    time::UnixSecs,
};

/// A task ends within this time from now, in seconds.
const END_SECS_MAX: i64 = 7 * DAY_SECS;

/// A task begins within this time from now, in seconds.
const START_SECS_MAX: i64 = 6 * DAY_SECS;

/// A task lasts this long at most, in seconds.
const DURATION_SECS_MAX: i64 = DAY_SECS;

/// The vendor's task ids have some 60 bytes, and nobody makes one but us.
const TASK_ID_BYTES_MAX: usize = 128;

/// Scroll tokens are ours as well.
const SCROLL_TOKEN_BYTES_MAX: usize = 256;

/// Reserved by the vendor, without a meaning or a limit.
const EXTENSION_BYTES_MAX: usize = 1024;

/// `CreateScreenshotTask`. An unknown template is no error: the task is made and takes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateScreenshotTask {
    pub domain_name: String,
    pub app_name: String,
    pub stream_name: String,
    /// Now when absent; may lie in the past.
    pub start: UnixSecs,
    /// After now and after `start`.
    pub end: UnixSecs,
    pub template_id: i64,
    pub stream_type: StreamType,
}

/// `StreamType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamType {
    Pushed,
    /// Several streams made into one, by another product of the vendor.
    Mixed,
}

/// `DescribeScreenshotTask`: tasks that begin and end within the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeScreenshotTask {
    pub start: UnixSecs,
    pub end: UnixSecs,
    pub domain_name: Option<String>,
    pub app_name: Option<String>,
    pub stream_name: Option<String>,
    /// From the previous answer.
    pub scroll_token: Option<String>,
}

/// `StopScreenshotTask`, `DeleteScreenshotTask`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTask {
    pub task_id: String,
}

impl FromParams for CreateScreenshotTask {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        let _ = params.optional("Extension", read::text(0..=EXTENSION_BYTES_MAX))?;
        let stream::OneStream { domain_name, app_name, stream_name } = FromParams::from_params(params, now)?;
        let end = params.required("EndTime", unix_secs)?;
        let start = params.optional("StartTime", unix_secs)?.unwrap_or(now);
        check_task_window(start, end, now)?;
        Ok(Self {
            domain_name,
            app_name,
            stream_name,
            start,
            end,
            // Zero is the id of no template, which is allowed here.
            template_id: params.required("TemplateId", read::int(0..=i64::MAX))?,
            stream_type: match params.optional("StreamType", read::flag)? {
                Some(true) => StreamType::Mixed,
                None | Some(false) => StreamType::Pushed,
            },
        })
    }
}

impl FromParams for DescribeScreenshotTask {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        const LIMITS: WindowLimits = WindowLimits { span_secs_max: 7 * DAY_SECS, age_secs_max: 90 * DAY_SECS };
        let start = params.required("StartTime", unix_secs)?;
        let end = params.required("EndTime", unix_secs)?;
        LIMITS.check(start, end, now).map_err(window_error)?;
        Ok(Self {
            start,
            end,
            domain_name: domain::domain_filter(params)?,
            app_name: stream::name_filter(params, "AppName")?,
            stream_name: stream::name_filter(params, "StreamName")?,
            scroll_token: params
                .optional("ScrollToken", read::text(0..=SCROLL_TOKEN_BYTES_MAX))?
                .filter(|token| !token.is_empty()),
        })
    }
}

impl FromParams for OneTask {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { task_id: params.required("TaskId", read::text(1..=TASK_ID_BYTES_MAX))? })
    }
}

fn unix_secs(field: read::Field) -> Result<UnixSecs, ApiError> {
    read::int(0..=i64::MAX)(field).map(UnixSecs)
}

fn check_task_window(start: UnixSecs, end: UnixSecs, now: UnixSecs) -> Result<(), ApiError> {
    let why = if end <= now {
        "`EndTime` must lie after now."
    } else if end <= start {
        "`EndTime` must lie after `StartTime`."
    } else if end.secs_since(now) >= END_SECS_MAX {
        "`EndTime` must lie less than 7 days from now."
    } else if start.secs_since(now) > START_SECS_MAX {
        "`StartTime` must lie at most 6 days from now."
    } else if end.secs_since(start) > DURATION_SECS_MAX {
        "`EndTime` must lie at most 24 hours after `StartTime`."
    } else {
        return Ok(());
    };
    Err(window_error(refused(why)))
}

/// The actions on tasks name no code for values, only this one.
fn window_error(error: ApiError) -> ApiError {
    error.narrowed(ErrorCode::InvalidParameter)
}

/// `ScreenshotTask`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScreenshotTask {
    pub task_id: String,
    pub domain_name: String,
    pub app_name: String,
    pub stream_name: String,
    pub start_time: UnixSecs,
    pub end_time: UnixSecs,
    pub template_id: i64,
    /// When `StopScreenshotTask` was called; 0 if it never was.
    pub stopped: UnixSecs,
}
