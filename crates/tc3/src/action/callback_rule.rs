//! Callback rules: which streams a callback template is for (267/30816, 267/30814). They cannot name a stream.

use alloc::string::String;

use serde::Serialize;

use super::{FromParams, domain, stream, template};
use crate::{
    error::ApiError,
    params::{Params, read},
    time::{ApiTime, UnixSecs},
};

/// `CreateLiveCallbackRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCallbackRule {
    pub scope: CallbackRuleScope,
    pub template_id: i64,
}

/// What a rule applies to, which is also its name: `DeleteLiveCallbackRule` takes nothing else. Both must be given; an
/// empty app and `*` mean every app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRuleScope {
    pub domain_name: String,
    pub app_name: String,
}

impl FromParams for CreateCallbackRule {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { scope: FromParams::from_params(params, now)?, template_id: template::template_id(params)? })
    }
}

impl FromParams for CallbackRuleScope {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            domain_name: domain::domain_name(params)?,
            app_name: params.required("AppName", read::text(0..=stream::NAME_BYTES_MAX))?,
        })
    }
}

/// `CallBackRuleInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CallbackRuleInfo {
    /// [Beijing's](ApiTime::beijing).
    pub create_time: ApiTime,
    /// [Beijing's](ApiTime::beijing).
    pub update_time: ApiTime,
    pub template_id: i64,
    pub domain_name: String,
    pub app_name: String,
}
