//! Streams: which are live, which may not be.

use framehook_domain::catalog::Forbiddance;
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use framehook_domain::time::UnixMs;
use framehook_tc3::action::Response;
use framehook_tc3::action::stream::{
    DescribeForbiddenStreams, DescribeOnlineStreams, ForbidStream, ForbiddenStream, OneStream, OnlineStream,
    PublishTime, StreamState,
};
use framehook_tc3::time::{ApiTime, UnixSecs};

use super::error::Failure;
use super::{Parts, paged};
use crate::audit::Caller;
use crate::catalog::CatalogEditor;

/// Streams with a publisher; one that may come back within its grace is not among them.
pub(super) fn list_online(parts: &Parts, request: DescribeOnlineStreams) -> Result<Response, Failure> {
    let DescribeOnlineStreams { domain_name, app_name, stream_name, page } = request;
    let domain = domain_name.map(|name| DomainName::parse(&name)).transpose()?;
    let fits = |stream: &StreamId| {
        domain.as_ref().is_none_or(|domain| *domain == stream.domain)
            && app_name.as_ref().is_none_or(|app| app == stream.app.as_str())
            && stream_name.as_ref().is_none_or(|name| name == stream.name.as_str())
    };
    let mut online = parts.lives.online();
    online.retain(|push| fits(push.stream()));
    online.sort_by(|a, b| a.stream().cmp(b.stream()));
    let (online, paging) = paged(online, page);
    let online_info = online.iter().map(|push| OnlineStream {
        stream_name: push.stream().name.to_string(),
        app_name: push.stream().app.to_string(),
        domain_name: push.stream().domain.to_string(),
        publish_time_list: vec![PublishTime { publish_time: ApiTime::utc(secs(push.opened_at())) }],
        push_to_delay: 0,
    });
    Ok(Response::OnlineStreams { online_info: online_info.collect(), paging })
}

pub(super) async fn state(parts: &Parts, request: OneStream) -> Result<Response, Failure> {
    let stream = stream_id(&request)?;
    let now = parts.clock.wall();
    let is_forbidden = |known: &Forbiddance| known.stream.stream == stream && now < known.stream.until;
    let stream_state = if parts.catalog.inventory().await?.forbidden.iter().any(is_forbidden) {
        StreamState::Forbid
    } else if parts.lives.online().iter().any(|push| *push.stream() == stream) {
        StreamState::Active
    } else {
        StreamState::Inactive
    };
    Ok(Response::StreamState { stream_state })
}

/// Cuts a publisher, who may come back at once. A stream without one is as it should be.
pub(super) async fn drop_stream(parts: &Parts, caller: &Caller, request: OneStream) -> Result<Response, Failure> {
    parts.lives.drop_publisher(stream_id(&request)?, caller.clone()).await?;
    Ok(Response::Done {})
}

/// All three names must match, unlike the vendor's, where an account has to ask for that.
pub(super) async fn forbid(
    catalog: &CatalogEditor<'_>,
    request: ForbidStream,
    now: UnixMs,
) -> Result<Response, Failure> {
    let ForbidStream { stream, resume, reason } = request;
    let (stream, until) = (stream_id(&stream)?, UnixMs::from_secs(resume.0));
    let reason = reason.unwrap_or_default();
    catalog.change(move |inventory| inventory.forbid(stream, until, reason, now)).await?;
    Ok(Response::Done {})
}

/// A stream that is not forbidden is as it should be.
pub(super) async fn resume(catalog: &CatalogEditor<'_>, request: OneStream) -> Result<Response, Failure> {
    let stream = stream_id(&request)?;
    catalog.change(move |inventory| Ok(inventory.resume(stream))).await?;
    Ok(Response::Done {})
}

pub(super) async fn list_forbidden(parts: &Parts, request: DescribeForbiddenStreams) -> Result<Response, Failure> {
    let now = parts.clock.wall();
    let mut forbidden = parts.catalog.inventory().await?.forbidden;
    forbidden.retain(|known| {
        let name = known.stream.stream.name.as_str();
        now < known.stream.until && request.stream_name.as_ref().is_none_or(|wanted| wanted == name)
    });
    let (forbidden, paging) = paged(forbidden, request.page);
    let forbid_stream_list = forbidden.into_iter().map(|known| ForbiddenStream {
        stream_name: known.stream.stream.name.to_string(),
        create_time: ApiTime::beijing(secs(known.created)),
        expire_time: ApiTime::beijing(secs(known.stream.until)),
        app_name: known.stream.stream.app.to_string(),
        domain_name: known.stream.stream.domain.to_string(),
    });
    Ok(Response::ForbiddenStreams { forbid_stream_list: forbid_stream_list.collect(), paging })
}

fn stream_id(stream: &OneStream) -> Result<StreamId, Failure> {
    Ok(StreamId {
        domain: DomainName::parse(&stream.domain_name)?,
        app: AppName::parse(&stream.app_name)?,
        name: StreamName::parse(&stream.stream_name)?,
    })
}

fn secs(at: UnixMs) -> UnixSecs {
    UnixSecs(at.secs())
}
