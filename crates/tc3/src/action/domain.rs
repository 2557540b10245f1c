//! Domains.

use alloc::string::String;

use serde::Serialize;

use super::{FromParams, page::Page};
use crate::{
    error::{ApiError, ErrorCode},
    params::{Params, read},
    time::{ApiTime, UnixSecs},
};

/// Longest domain name (267/35970).
pub(super) const NAME_BYTES_MAX: usize = 45;

/// Most domains of an account (267/35970), hence of a list of them.
pub const DOMAINS_MAX: usize = 100;

/// `AddLiveDomain`. Who owns the domain is not asked for here: `VerifyOwnerType` is read and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddDomain {
    pub domain_name: String,
    pub domain_type: DomainType,
    /// 1 mainland, 2 global, 3 outside.
    pub play_type: i64,
    pub is_delay_live: bool,
    pub is_mini_program_live: bool,
}

/// `DomainType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainType {
    Push,
    Play,
}

/// `DeleteLiveDomain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteDomain {
    pub domain_name: String,
    pub domain_type: DomainType,
}

/// `DescribeLiveDomain`, `EnableLiveDomain`, `ForbidLiveDomain`, `DescribeLivePushAuthKey`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneDomain {
    pub domain_name: String,
}

/// `DescribeLiveDomains`; what is `None` filters nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeDomains {
    pub is_enabled: Option<bool>,
    pub domain_type: Option<DomainType>,
    pub page: Page,
    pub is_delay_live: Option<bool>,
    pub domain_prefix: Option<String>,
    /// 1 mainland, 2 global, 3 outside; of play domains only.
    pub play_type: Option<i64>,
}

impl FromParams for AddDomain {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        let owner_types = &[("dnsCheck", ()), ("fileCheck", ()), ("dbCheck", ())];
        let _ = params.optional("VerifyOwnerType", read::word(owner_types))?;
        let domain_name = params.required("DomainName", |field| {
            let read = read::text(0..=NAME_BYTES_MAX)(field);
            read.map_err(|error| error.narrowed(ErrorCode::InvalidParameterDomainTooLong))
        })?;
        Ok(Self {
            domain_name,
            domain_type: params.required("DomainType", domain_type)?,
            play_type: params.optional("PlayType", read::int(1..=3))?.unwrap_or(1),
            is_delay_live: params.optional("IsDelayLive", read::flag)?.unwrap_or(false),
            is_mini_program_live: params.optional("IsMiniProgramLive", read::flag)?.unwrap_or(false),
        })
    }
}

impl FromParams for DeleteDomain {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { domain_name: domain_name(params)?, domain_type: params.required("DomainType", domain_type)? })
    }
}

impl FromParams for OneDomain {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self { domain_name: domain_name(params)? })
    }
}

impl FromParams for DescribeDomains {
    fn from_params(params: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self {
            is_enabled: params.optional("DomainStatus", read::flag)?,
            domain_type: params.optional("DomainType", domain_type)?,
            page: Page::optional(params, 10..=100, 10)?,
            is_delay_live: params.optional("IsDelayLive", read::flag)?,
            domain_prefix: filter(params, "DomainPrefix")?,
            play_type: params.optional("PlayType", read::int(1..=3))?,
        })
    }
}

fn domain_type(field: read::Field) -> Result<DomainType, ApiError> {
    let is_play = read::flag(field)?;
    Ok(if is_play { DomainType::Play } else { DomainType::Push })
}

/// `DomainName` as text of a plausible length; what a name looks like is for the caller.
pub(super) fn domain_name(params: &mut Params) -> Result<String, ApiError> {
    params
        .required("DomainName", read::text(1..=NAME_BYTES_MAX))
        .map_err(|error| error.narrowed(ErrorCode::InvalidParameterDomainFormatError))
}

/// `DomainName` in a list's request, where an empty one filters nothing.
pub(super) fn domain_filter(params: &mut Params) -> Result<Option<String>, ApiError> {
    filter(params, "DomainName")
}

fn filter(params: &mut Params, name: &'static str) -> Result<Option<String>, ApiError> {
    let text = params.optional(name, read::text(0..=NAME_BYTES_MAX))?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// `DomainInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DomainInfo {
    pub name: String,
    /// 0 push, 1 play.
    #[serde(rename = "Type")]
    pub domain_type: i64,
    /// 0 off, 1 on.
    pub status: i64,
    /// [Beijing's](ApiTime::beijing).
    pub create_time: ApiTime,
    /// Whether the name points to `target_domain`: 0 or 1.
    #[serde(rename = "BCName")]
    pub has_cname: i64,
    pub target_domain: String,
    /// 1 mainland, 2 global, 3 outside.
    pub play_type: i64,
    /// 0 or 1.
    pub is_delay_live: i64,
    #[serde(rename = "CurrentCName")]
    pub current_cname: String,
    /// Dead.
    pub rent_tag: i64,
    /// Dead.
    pub rent_expire_time: &'static str,
    /// 0 or 1.
    pub is_mini_program_live: i64,
}
