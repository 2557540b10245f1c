//! Streams: which are live, and which may not be (267/20467 to 267/20472, 267/33187).

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use super::{
    FromParams, domain,
    page::Page,
    window::{DAY_SECS, refused},
};
use crate::{
    error::ApiError,
    params::{Params, read},
    time::{ApiTime, UnixSecs},
};

/// Longest app or stream name. The documents name no limit; twice the longest name that can be pushed, so that it is the
/// caller who says what a name is.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 2048;

/// A stream is forbidden for this long unless the request says until when.
const FORBID_SECS_DEFAULT: i64 = 7 * DAY_SECS;

/// A stream is forbidden for this long at most.
const FORBID_SECS_MAX: i64 = 90 * DAY_SECS;

/// `DescribeLiveStreamState`, `DropLiveStream`, `ResumeLiveStream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneStream {
    pub domain_name: String,
    pub app_name: String,
    pub stream_name: String,
}

/// `ForbidLiveStream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForbidStream {
    pub stream: OneStream,
    /// After now, and at most 90 days from it.
    pub resume: UnixSecs,
    pub reason: Option<String>,
}

/// `DescribeLiveStreamOnlineList`; what is `None` filters nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeOnlineStreams {
    pub domain_name: Option<String>,
    pub app_name: Option<String>,
    /// Exactly this one.
    pub stream_name: Option<String>,
    pub page: Page,
}

/// `DescribeLiveForbidStreamList`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeForbiddenStreams {
    pub stream_name: Option<String>,
    pub page: Page,
}

impl FromParams for OneStream {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            domain_name: domain::domain_name(params)?,
            app_name: params.required("AppName", read::text(1..=NAME_BYTES_MAX))?,
            stream_name: params.required("StreamName", read::text(1..=NAME_BYTES_MAX))?,
        })
    }
}

impl FromParams for ForbidStream {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        let stream = OneStream::from_params(params, now)?;
        let resume = params.optional("ResumeTime", read::time)?.map(|time| time.at);
        let resume = resume.unwrap_or(now.plus_secs(FORBID_SECS_DEFAULT));
        if resume <= now || resume.secs_since(now) > FORBID_SECS_MAX {
            return Err(refused("`ResumeTime` must lie after now and at most 90 days from it."));
        }
        Ok(Self { stream, resume, reason: params.optional("Reason", read::text(0..=REASON_BYTES_MAX))? })
    }
}

impl FromParams for DescribeOnlineStreams {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            domain_name: domain::domain_filter(params)?,
            app_name: name_filter(params, "AppName")?,
            stream_name: name_filter(params, "StreamName")?,
            page: Page::optional(params, 10..=300_000, 10)?,
        })
    }
}

impl FromParams for DescribeForbiddenStreams {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { stream_name: name_filter(params, "StreamName")?, page: Page::optional(params, 1..=100, 10)? })
    }
}

/// An app or stream name in a list's request, where an empty one filters nothing.
pub(super) fn name_filter(params: &mut Params, name: &'static str) -> Result<Option<String>, ApiError> {
    let text = params.optional(name, read::text(0..=NAME_BYTES_MAX))?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// `StreamState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    Active,
    Inactive,
    Forbid,
}

/// `StreamOnlineInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OnlineStream {
    pub stream_name: String,
    pub app_name: String,
    pub domain_name: String,
    pub publish_time_list: Vec<PublishTime>,
    /// 0 or 1.
    pub push_to_delay: i64,
}

/// `PublishTime`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PublishTime {
    /// [In UTC](ApiTime::utc).
    pub publish_time: ApiTime,
}

/// `ForbidStreamInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForbiddenStream {
    pub stream_name: String,
    /// [Beijing's](ApiTime::beijing).
    pub create_time: ApiTime,
    /// [Beijing's](ApiTime::beijing).
    pub expire_time: ApiTime,
    pub app_name: String,
    pub domain_name: String,
}
