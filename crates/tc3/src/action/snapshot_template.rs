//! Snapshot templates: how pictures are made and where they go (267/30834, 267/30828).

use alloc::string::String;

use serde::Serialize;

use super::{FromParams, template};
use crate::{
    error::{ApiError, ErrorCode},
    params::{Params, read},
    time::UnixSecs,
};

/// Longest bucket name and region. Both are parts of a host that may have 60 bytes (436/13312).
const HOST_BYTES_MAX: usize = 60;

/// Longest pattern of a folder or a file name: an expanded key has at most 850 bytes (436/13324).
const PATTERN_BYTES_MAX: usize = 850;

/// `CreateLiveSnapshotTemplate`; what is `None` was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSnapshotTemplate {
    pub template_name: String,
    pub bucket: Bucket,
    pub options: SnapshotOptions,
}

/// `ModifyLiveSnapshotTemplate`; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifySnapshotTemplate {
    pub template_id: i64,
    pub template_name: Option<String>,
    pub bucket: Bucket,
    pub options: SnapshotOptions,
}

/// Where pictures go; required by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// At least 1.
    pub cos_app_id: i64,
    /// Without the `-<CosAppId>` tail.
    pub cos_bucket: String,
    /// As given: `ap-beijing`, or `beijing` in the short form.
    pub cos_region: String,
}

/// What both may leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotOptions {
    pub description: Option<String>,
    /// Seconds, 2 to 300. The documents of the modifying action still say 5.
    pub snapshot_interval: Option<i64>,
    /// Pixels, 0 to 3000.
    pub width: Option<i64>,
    /// Pixels, 0 to 2000.
    pub height: Option<i64>,
    pub porn_flag: Option<bool>,
    pub cos_prefix: Option<String>,
    pub cos_file_name: Option<String>,
}

impl FromParams for CreateSnapshotTemplate {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            template_name: template::name(params)?.ok_or_else(|| ApiError::missing("TemplateName"))?,
            bucket: Bucket::read(params)?,
            options: SnapshotOptions::read(params)?,
        })
    }
}

impl FromParams for ModifySnapshotTemplate {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            template_id: template::template_id(params)?,
            template_name: template::name(params)?,
            bucket: Bucket::read(params)?,
            options: SnapshotOptions::read(params)?,
        })
    }
}

impl Bucket {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            cos_app_id: params.required("CosAppId", read::int(1..=i64::MAX))?,
            cos_bucket: params.required("CosBucket", read::text(1..=HOST_BYTES_MAX))?,
            cos_region: params.required("CosRegion", read::text(1..=HOST_BYTES_MAX))?,
        })
    }
}

impl SnapshotOptions {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            description: template::description(params)?,
            snapshot_interval: params.optional("SnapshotInterval", read::int(2..=300))?,
            width: params.optional("Width", read::int(0..=3000))?,
            height: params.optional("Height", read::int(0..=2000))?,
            porn_flag: params.optional("PornFlag", read::flag)?,
            cos_prefix: pattern(params, "CosPrefix")?,
            cos_file_name: pattern(params, "CosFileName")?,
        })
    }
}

fn pattern(params: &mut Params, name: &'static str) -> Result<Option<String>, ApiError> {
    params
        .optional(name, read::text(0..=PATTERN_BYTES_MAX))
        .map_err(|error| error.narrowed(ErrorCode::InvalidParameterCosCustomFileNameError))
}

/// `SnapshotTemplateInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnapshotTemplateInfo {
    pub template_id: i64,
    pub template_name: String,
    pub snapshot_interval: i64,
    pub width: i64,
    pub height: i64,
    /// 0 or 1.
    pub porn_flag: i64,
    pub cos_app_id: i64,
    pub cos_bucket: String,
    pub cos_region: String,
    pub description: String,
    pub cos_prefix: String,
    pub cos_file_name: String,
}
