//! Callback templates: whom to tell about events (267/30815, 267/32631).

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use super::{FromParams, template};
use crate::{
    error::{ApiError, ErrorCode},
    params::{Params, read},
    secret::Secret,
    time::UnixSecs,
};

/// Longest URL. The documents name no limit; receivers put tokens of a few hundred bytes into the query.
const URL_BYTES_MAX: usize = 2048;

/// Longest key. The console stops at 32, the API names no limit; 128 hold the secrets of Standard Webhooks as well.
const KEY_BYTES_MAX: usize = 128;

/// The levels of recording exceptions: three for requests, and `alarm` from the description of the answer.
const LEVELS: [(&str, &str); 4] = [("error", "error"), ("warning", "warning"), ("info", "info"), ("alarm", "alarm")];

/// `CreateLiveCallbackTemplate`; what is `None` was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCallbackTemplate {
    pub template_name: String,
    /// At least one of its URLs is given.
    pub options: CallbackOptions,
}

/// `ModifyLiveCallbackTemplate`; what is `None` stays as it is, and an empty string removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifyCallbackTemplate {
    pub template_id: i64,
    pub template_name: Option<String>,
    pub options: CallbackOptions,
}

/// What both may leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackOptions {
    pub description: Option<String>,
    /// Shared by all URLs.
    pub callback_key: Option<Secret>,
    pub urls: NotifyUrls,
    /// Each one of `error`, `warning`, `info`, `alarm`.
    pub record_exception_levels: Option<Vec<&'static str>>,
}

/// One URL per event. They may be empty and are secrets, since they may hold a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyUrls {
    /// Event 1.
    pub stream_begin: Option<Secret>,
    /// Event 0.
    pub stream_end: Option<Secret>,
    /// Event 100.
    pub record: Option<Secret>,
    /// Event 332.
    pub record_status: Option<Secret>,
    /// Event 200.
    pub snapshot: Option<Secret>,
    /// Event 317.
    pub porn_censorship: Option<Secret>,
    /// Event 321.
    pub push_exception: Option<Secret>,
    /// Event 315.
    pub audio_audit: Option<Secret>,
    /// Event 341.
    pub record_exception: Option<Secret>,
}

impl FromParams for CreateCallbackTemplate {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        let template_name = template::name(params)?.ok_or_else(|| ApiError::missing("TemplateName"))?;
        let options = CallbackOptions::read(params)?;
        // Deprecated: programs still send it, nothing was ever sent to it.
        let _ = params.optional("StreamMixNotifyUrl", read::secret(0..=URL_BYTES_MAX))?;
        if options.urls.is_empty() {
            let message = "The request must give at least one callback URL, such as `SnapshotNotifyUrl`.";
            return Err(ApiError::new(ErrorCode::MissingParameter, message));
        }
        Ok(Self { template_name, options })
    }
}

impl FromParams for ModifyCallbackTemplate {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            template_id: template::template_id(params)?,
            template_name: template::name(params)?,
            options: CallbackOptions::read(params)?,
        })
    }
}

impl CallbackOptions {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            description: template::description(params)?,
            callback_key: params.optional("CallbackKey", read::secret(0..=KEY_BYTES_MAX))?,
            urls: NotifyUrls::read(params)?,
            record_exception_levels: params
                .optional("RecordExceptionLevels", read::list(LEVELS.len(), read::word(&LEVELS)))?,
        })
    }
}

impl NotifyUrls {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let mut url = |name| params.optional(name, read::secret(0..=URL_BYTES_MAX));
        Ok(Self {
            stream_begin: url("StreamBeginNotifyUrl")?,
            stream_end: url("StreamEndNotifyUrl")?,
            record: url("RecordNotifyUrl")?,
            record_status: url("RecordStatusNotifyUrl")?,
            snapshot: url("SnapshotNotifyUrl")?,
            porn_censorship: url("PornCensorshipNotifyUrl")?,
            push_exception: url("PushExceptionNotifyUrl")?,
            audio_audit: url("AudioAuditNotifyUrl")?,
            record_exception: url("RecordExceptionNotifyUrl")?,
        })
    }

    /// Whether no URL is given, or only empty ones.
    fn is_empty(&self) -> bool {
        let all = [
            &self.stream_begin,
            &self.stream_end,
            &self.record,
            &self.record_status,
            &self.snapshot,
            &self.porn_censorship,
            &self.push_exception,
            &self.audio_audit,
            &self.record_exception,
        ];
        all.into_iter().flatten().all(|url| url.expose().is_empty())
    }
}

/// `CallBackTemplateInfo`. A URL that is not set is an empty string; that of recording status is not told at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CallbackTemplateInfo {
    pub template_id: i64,
    pub template_name: String,
    pub description: String,
    pub stream_begin_notify_url: Secret,
    /// Deprecated, always empty.
    pub stream_mix_notify_url: &'static str,
    pub stream_end_notify_url: Secret,
    pub record_notify_url: Secret,
    pub snapshot_notify_url: Secret,
    pub porn_censorship_notify_url: Secret,
    /// In clear.
    pub callback_key: Secret,
    pub push_exception_notify_url: Secret,
    pub audio_audit_notify_url: Secret,
    pub record_exception_notify_url: Secret,
    pub record_exception_levels: Vec<String>,
}
