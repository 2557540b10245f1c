//! Push keys of a domain (267/30425, 267/30423).

use alloc::string::String;

use serde::Serialize;

use super::{FromParams, domain};
use crate::{
    error::ApiError,
    params::{Params, read},
    secret::Secret,
    time::UnixSecs,
};

/// Longest push key. The vendor generates 32 characters and documents no limit; eight times that suits any generator.
const KEY_BYTES_MAX: usize = 256;

/// Longest validity, in seconds. The documents name no limit; ten years are as good as for ever.
const AUTH_DELTA_SECS_MAX: i64 = 10 * 366 * 86_400;

/// `ModifyLivePushAuthKey`; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifyPushAuthKey {
    pub domain_name: String,
    pub enable: Option<bool>,
    pub master_auth_key: Option<Secret>,
    pub backup_auth_key: Option<Secret>,
    /// Seconds.
    pub auth_delta: Option<i64>,
}

impl FromParams for ModifyPushAuthKey {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            domain_name: domain::domain_name(params)?,
            enable: params.optional("Enable", read::flag)?,
            master_auth_key: params.optional("MasterAuthKey", read::secret(0..=KEY_BYTES_MAX))?,
            backup_auth_key: params.optional("BackupAuthKey", read::secret(0..=KEY_BYTES_MAX))?,
            auth_delta: params.optional("AuthDelta", read::int(0..=AUTH_DELTA_SECS_MAX))?,
        })
    }
}

/// `PushAuthKeyInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PushAuthKeyInfo {
    pub domain_name: String,
    /// 0 or 1.
    pub enable: i64,
    /// In clear.
    pub master_auth_key: Secret,
    /// In clear; empty without one.
    pub backup_auth_key: Secret,
    /// Seconds.
    pub auth_delta: i64,
}
