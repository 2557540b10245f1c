//! Snapshot rules: which streams a snapshot template is for (267/30835, 267/30833).

use alloc::string::String;

use serde::Serialize;

use super::{FromParams, domain, stream, template};
use crate::{
    error::ApiError,
    params::{Params, read},
    time::{ApiTime, UnixSecs},
};

/// The app of a request that names none.
const APP_NAME_DEFAULT: &str = "live";

/// `CreateLiveSnapshotRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSnapshotRule {
    pub scope: SnapshotRuleScope,
    pub template_id: i64,
}

/// What a rule applies to, which is also its name: `DeleteLiveSnapshotRule` takes nothing else. An empty string and `*`
/// both mean every app or every stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRuleScope {
    pub domain_name: String,
    /// `live` when absent.
    pub app_name: String,
    /// Empty when absent.
    pub stream_name: String,
}

impl FromParams for CreateSnapshotRule {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { scope: FromParams::from_params(params, now)?, template_id: template::template_id(params)? })
    }
}

impl FromParams for SnapshotRuleScope {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        let optional = |params: &mut Params, name| params.optional(name, read::text(0..=stream::NAME_BYTES_MAX));
        Ok(Self {
            domain_name: domain::domain_name(params)?,
            app_name: optional(params, "AppName")?.unwrap_or_else(|| APP_NAME_DEFAULT.into()),
            stream_name: optional(params, "StreamName")?.unwrap_or_default(),
        })
    }
}

/// `RuleInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnapshotRuleInfo {
    /// [Beijing's](ApiTime::beijing).
    pub create_time: ApiTime,
    /// [Beijing's](ApiTime::beijing).
    pub update_time: ApiTime,
    pub template_id: i64,
    pub domain_name: String,
    pub app_name: String,
    pub stream_name: String,
}
