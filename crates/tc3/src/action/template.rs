//! What snapshot templates and callback templates have in common.

use alloc::string::String;

use super::FromParams;
use crate::{
    error::ApiError,
    params::{Params, read},
    time::UnixSecs,
};

/// Longest template name, in bytes (267/30834).
const NAME_BYTES_MAX: usize = 255;

/// Longest description, in bytes (267/30834).
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// One template by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTemplate {
    pub template_id: i64,
}

impl FromParams for OneTemplate {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { template_id: template_id(params)? })
    }
}

/// A positive id.
pub(super) fn template_id(params: &mut Params) -> Result<i64, ApiError> {
    params.required("TemplateId", read::int(1..=i64::MAX))
}

pub(super) fn name(params: &mut Params) -> Result<Option<String>, ApiError> {
    params.optional("TemplateName", read::text(1..=NAME_BYTES_MAX))
}

pub(super) fn description(params: &mut Params) -> Result<Option<String>, ApiError> {
    params.optional("Description", read::text(0..=DESCRIPTION_BYTES_MAX))
}
