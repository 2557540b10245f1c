//! Push domains and their keys.

use std::time::Duration;

use framehook_domain::catalog::{ChangeRefused, DOMAINS_MAX, Domain, Managed, PushAuthEdit};
use framehook_domain::push_auth::PushKey;
use framehook_domain::stream::DomainName;
use framehook_tc3::action::Response;
use framehook_tc3::action::domain::{AddDomain, DeleteDomain, DescribeDomains, DomainInfo, DomainType, OneDomain};
use framehook_tc3::action::push_auth_key::{ModifyPushAuthKey, PushAuthKeyInfo};
use framehook_tc3::secret::Secret;
use framehook_tc3::time::{ApiTime, UnixSecs};

use super::error::Failure;
use super::paged;
use crate::catalog::{CatalogEditor, CatalogStore};
use crate::credentials::token;
use crate::entropy::Entropy;

/// Only push domains can be added, each with a key of its own that `DescribeLivePushAuthKey` then tells.
pub(super) async fn add(
    catalog: &CatalogEditor<'_>,
    entropy: &Entropy,
    request: AddDomain,
) -> Result<Response, Failure> {
    if request.domain_type == DomainType::Play {
        return Err(Failure::unsupported("Streams are not played from here; `DomainType` must be 0."));
    }
    if request.is_delay_live || request.is_mini_program_live {
        return Err(Failure::unsupported("`IsDelayLive` and `IsMiniProgramLive` must be 0."));
    }
    let name = DomainName::parse(&request.domain_name)?;
    // As many characters as the vendor's own keys have.
    let key = PushKey::parse(&token(&entropy.draw::<20>()))?;
    catalog.change(move |inventory| inventory.add_domain(name, key)).await?;
    Ok(Response::Done {})
}

pub(super) async fn delete(catalog: &CatalogEditor<'_>, request: DeleteDomain) -> Result<Response, Failure> {
    let name = DomainName::parse(&request.domain_name)?;
    if request.domain_type == DomainType::Play {
        return Err(ChangeRefused::DomainUnknown(name).into());
    }
    catalog.change(move |inventory| inventory.delete_domain(&name)).await?;
    Ok(Response::Done {})
}

/// A disabled domain refuses publishers, and the live ones are cut.
pub(super) async fn switch(
    catalog: &CatalogEditor<'_>,
    request: OneDomain,
    enabled: bool,
) -> Result<Response, Failure> {
    let name = DomainName::parse(&request.domain_name)?;
    catalog.change(move |inventory| inventory.switch_domain(&name, enabled)).await?;
    Ok(Response::Done {})
}

pub(super) async fn describe(catalog: &CatalogStore, request: OneDomain) -> Result<Response, Failure> {
    let domain = find(catalog, &request).await?;
    Ok(Response::Domain { domain_info: info(&domain) })
}

pub(super) async fn list(catalog: &CatalogStore, request: DescribeDomains) -> Result<Response, Failure> {
    let domains = catalog.inventory().await?.domains;
    let create_limit_count = DOMAINS_MAX.saturating_sub(domains.len()) as i64;
    let DescribeDomains { is_enabled, domain_type, page, is_delay_live, domain_prefix, play_type } = request;
    // What is not true of any push domain.
    let none = domain_type == Some(DomainType::Play) || is_delay_live == Some(true) || play_type.is_some();
    let fits = |domain: &Managed<Domain>| {
        !none
            && is_enabled.is_none_or(|enabled| domain.value.enabled == enabled)
            && domain_prefix.as_ref().is_none_or(|prefix| domain.value.name.as_str().starts_with(prefix))
    };
    let (domain_list, paging) = paged(domains.iter().filter(|domain| fits(domain)).map(info).collect(), page);
    let (all_count, play_type_count) = (paging.total_num, [0; 3]);
    Ok(Response::Domains { all_count, domain_list, create_limit_count, play_type_count })
}

pub(super) async fn describe_key(catalog: &CatalogStore, request: OneDomain) -> Result<Response, Failure> {
    let Managed { value: Domain { name, auth, .. }, .. } = find(catalog, &request).await?;
    let keys = auth.as_ref().map(|auth| &auth.keys);
    let text = |key: Option<&PushKey>| Secret::new(key.map_or("", PushKey::expose));
    let push_auth_key_info = PushAuthKeyInfo {
        domain_name: name.to_string(),
        enable: auth.as_ref().is_some_and(|auth| auth.enabled).into(),
        master_auth_key: text(keys.map(|keys| &keys.main)),
        backup_auth_key: text(keys.and_then(|keys| keys.backup.as_ref())),
        auth_delta: keys.map_or(0, |keys| i64::try_from(keys.auth_delta.as_secs()).unwrap_or(i64::MAX)),
    };
    Ok(Response::PushAuthKey { push_auth_key_info })
}

pub(super) async fn modify_key(catalog: &CatalogEditor<'_>, request: ModifyPushAuthKey) -> Result<Response, Failure> {
    let name = DomainName::parse(&request.domain_name)?;
    let text = |key: Option<Secret>| key.map(|key| key.expose().to_owned());
    let edit = PushAuthEdit {
        enabled: request.enable,
        main: text(request.master_auth_key),
        backup: text(request.backup_auth_key),
        auth_delta: request.auth_delta.map(|secs| Duration::from_secs(secs.unsigned_abs())),
    };
    catalog.change(move |inventory| inventory.modify_push_auth(&name, edit)).await?;
    Ok(Response::Done {})
}

async fn find(catalog: &CatalogStore, request: &OneDomain) -> Result<Managed<Domain>, Failure> {
    let name = DomainName::parse(&request.domain_name)?;
    let mut domains = catalog.inventory().await?.domains.into_iter();
    Ok(domains.find(|domain| domain.value.name == name).ok_or(ChangeRefused::DomainUnknown(name))?)
}

fn info(domain: &Managed<Domain>) -> DomainInfo {
    DomainInfo {
        name: domain.value.name.to_string(),
        domain_type: 0,
        status: domain.value.enabled.into(),
        create_time: ApiTime::beijing(UnixSecs(domain.created.secs())),
        // Publishers come here without a CNAME of ours, so there is nothing that a program could have to wait for.
        has_cname: 1,
        target_domain: String::new(),
        play_type: 1,
        is_delay_live: 0,
        current_cname: String::new(),
        rent_tag: 0,
        rent_expire_time: "",
        is_mini_program_live: 0,
    }
}
