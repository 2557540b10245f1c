//! Tencent Cloud API 3.0 at `/`: the vendor's SDKs work against it unchanged.
//!
//! This module and those below are the only ones that know what is on that wire. An answer always has HTTP status 200; what
//! went wrong stands in its body. An action that nothing stands behind is `InvalidAction`, never a success without effect.

mod callback;
mod count;
mod domain;
mod error;
mod history;
mod replay;
mod rule;
mod stream;
mod task;
mod template;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::any;
use framehook_domain::id::TemplateId;
use framehook_tc3::action::page::{Page, Paging};
use framehook_tc3::action::{Action, Request, Response};
use framehook_tc3::envelope::{self, BODY_BYTES_MAX, CONTENT_TYPE, Call};
use framehook_tc3::error::{ApiError, ErrorCode};
use framehook_tc3::params::Params;
use framehook_tc3::sign::{SignatureKind, Unverified};
use framehook_tc3::time::UnixSecs;

use crate::audit::Caller;
use crate::catalog::CatalogStore;
use crate::clock::Clock;
use crate::credentials::{AccessKey, Credentials, LoginError};
use crate::db::Db;
use crate::entropy::Entropy;
use crate::http::{OverTls, Peer, RequestId};
use crate::live::Lives;
use crate::telemetry::Telemetry;
use crate::telemetry::event::LoginRefused;
use error::Failure;
use replay::Seen;

/// What the actions are carried out with.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) db: Db,
    pub(crate) catalog: Arc<CatalogStore>,
    pub(crate) lives: Arc<Lives>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Of every request, whatever it asks for.
    pub(crate) request_timeout: Duration,
    /// Whether `PornFlag` 1 is kept although nothing acts on it.
    pub(crate) accept_porn_flag: bool,
}

struct Api {
    parts: Parts,
    seen: Seen,
}

/// The page `/`.
pub(crate) fn page(parts: Parts) -> Router {
    let api = Api { parts, seen: Seen::default() };
    Router::new().route("/", any(answer)).with_state(Arc::new(api))
}

async fn answer(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse {
    let Peer(peer) = *request.extensions().get().expect("every request is given its peer");
    let RequestId(id) = *request.extensions().get().expect("every request is given an id");
    let id = id.to_string();
    // A little less than every request has, so that it is this module that says so, in words which SDKs understand.
    let timeout = api.parts.request_timeout.mul_f32(0.9);
    let carried_out = match tokio::time::timeout(timeout, api.carry_out(request, peer, &id)).await {
        Ok(carried_out) => carried_out,
        Err(_) => Err(ApiError::new(ErrorCode::ServiceUnavailable, "The request took too long.")),
    };
    let body = match carried_out {
        Ok(response) => envelope::success(&response, &id),
        Err(error) => {
            tracing::debug!(request = %id, %peer, %error, "an action was not carried out");
            envelope::failure(&error, &id)
        }
    };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

impl Api {
    async fn carry_out(&self, request: HttpRequest, peer: SocketAddr, id: &str) -> Result<Response, ApiError> {
        let (head, body) = request.into_parts();
        // It ends early in two ways; a peer that has broken off does not read which of them the answer names.
        let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| ApiError::too_large("body", BODY_BYTES_MAX))?;
        let headers: Vec<(&str, &str)> =
            head.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        let call = Call::parse(&envelope::HttpRequest {
            method: head.method.as_str(),
            query: head.uri.query().unwrap_or_default(),
            headers: &headers,
            body: &body,
        })?;
        let Call { action, mut params, unverified } = call;
        let is_private = peer.ip().is_loopback() || head.extensions.get::<OverTls>().is_some();
        let key = self.authenticate(unverified, peer, is_private)?;
        if key.read_only && !action.only_reads() {
            let message = "The key of this request may only read.";
            return Err(ApiError::new(ErrorCode::UnauthorizedOperation, message));
        }
        let request = Request::parse(action, &mut params, self.now())?;
        self.note_unread(action, &params);
        self.perform(request, &Caller::key(&key, peer.ip())).await.map_err(|failure| failure.told(action, id))
    }

    /// # Errors
    /// `AuthFailure.…`, or `RequestLimitExceeded.IPLimitExceeded` for who has failed too often.
    fn authenticate(
        &self,
        unverified: Unverified,
        peer: SocketAddr,
        is_private: bool,
    ) -> Result<Arc<AccessKey>, ApiError> {
        let now = self.now();
        let verified = match self.parts.credentials.key_of(unverified.secret_id()) {
            Some(key) => unverified.verify(key.secret().expose(), now).map(|verified| (key, verified)),
            None => Err(ApiError::secret_id_not_found()),
        };
        let (key, verified) = verified.map_err(|error| self.turn_away(error, peer))?;
        key.note_use(self.parts.clock.wall());
        match verified.kind {
            SignatureKind::Tc3 { payload_is_signed: false } if !is_private => {
                let message = "A request that is not sent over TLS must sign its payload.";
                return Err(ApiError::new(ErrorCode::AuthFailureSignatureFailure, message));
            }
            SignatureKind::Tc3 { .. } => {}
            SignatureKind::V1 { signature, timestamp, .. } => self.seen.admit(signature, timestamp, now)?,
        }
        Ok(key)
    }

    /// Notes a request that nobody we know has signed.
    fn turn_away(&self, error: ApiError, peer: SocketAddr) -> ApiError {
        // A clock that is wrong is no attempt to guess.
        if error.code == ErrorCode::AuthFailureSignatureExpire {
            return error;
        }
        let now = self.parts.clock.mono();
        let (reason, error) = match self.parts.credentials.note_wrong(peer.ip(), now) {
            LoginError::TooMany => {
                let message = "Too many requests from your address could not be authenticated; wait a minute.";
                let code = ErrorCode::RequestLimitExceededIpLimitExceeded;
                ("too_many_attempts", ApiError::new(code, message))
            }
            LoginError::Missing | LoginError::Wrong => ("wrong", error),
        };
        LoginRefused { peer, reason }.emit(&self.parts.telemetry);
        error
    }

    /// Parameters that an action does not know change nothing; whoever sent them may think otherwise.
    fn note_unread(&self, action: Action, params: &Params) {
        let unread: Vec<&str> = params.unread().collect();
        if !unread.is_empty()
            && let Some(left_out) = self.parts.telemetry.admit(action.name(), "unknown_parameter")
        {
            tracing::warn!(%action, parameters = ?unread, left_out, "parameters that this action does not know were ignored");
        }
    }

    async fn perform(&self, request: Request, caller: &Caller) -> Result<Response, Failure> {
        let (parts, catalog) = (&self.parts, &self.parts.catalog.by(caller));
        match request {
            Request::CreateLiveSnapshotTemplate(request) => {
                template::create(catalog, request, parts.accept_porn_flag).await
            }
            Request::DescribeLiveSnapshotTemplate(request) => template::describe(catalog, request).await,
            Request::DescribeLiveSnapshotTemplates(_) => template::list(catalog).await,
            Request::ModifyLiveSnapshotTemplate(request) => {
                template::modify(catalog, request, parts.accept_porn_flag).await
            }
            Request::DeleteLiveSnapshotTemplate(request) => template::delete(catalog, request).await,
            Request::CreateLiveSnapshotRule(request) => rule::create_snapshot_rule(catalog, request).await,
            Request::DescribeLiveSnapshotRules(_) => rule::list_snapshot_rules(catalog).await,
            Request::DeleteLiveSnapshotRule(request) => rule::delete_snapshot_rule(catalog, request).await,

            Request::CreateLiveCallbackTemplate(request) => callback::create(catalog, request).await,
            Request::DescribeLiveCallbackTemplate(request) => callback::describe(catalog, request).await,
            Request::DescribeLiveCallbackTemplates(_) => callback::list(catalog).await,
            Request::ModifyLiveCallbackTemplate(request) => callback::modify(catalog, request).await,
            Request::DeleteLiveCallbackTemplate(request) => callback::delete(catalog, request).await,
            Request::CreateLiveCallbackRule(request) => rule::create_callback_rule(catalog, request).await,
            Request::DescribeLiveCallbackRules(_) => rule::list_callback_rules(catalog).await,
            Request::DeleteLiveCallbackRule(request) => rule::delete_callback_rule(catalog, request).await,

            Request::CreateScreenshotTask(request) => task::create(parts, catalog, request).await,
            Request::DescribeScreenshotTask(request) => task::list(&self.parts.db, request).await,
            Request::StopScreenshotTask(request) => task::stop(parts, catalog, request).await,
            Request::DeleteScreenshotTask(request) => task::delete(parts, catalog, request).await,

            Request::AddLiveDomain(request) => domain::add(catalog, &self.parts.entropy, request).await,
            Request::DeleteLiveDomain(request) => domain::delete(catalog, request).await,
            Request::DescribeLiveDomain(request) => domain::describe(catalog, request).await,
            Request::DescribeLiveDomains(request) => domain::list(catalog, request).await,
            Request::EnableLiveDomain(request) => domain::switch(catalog, request, true).await,
            Request::ForbidLiveDomain(request) => domain::switch(catalog, request, false).await,
            Request::DescribeLivePushAuthKey(request) => domain::describe_key(catalog, request).await,
            Request::ModifyLivePushAuthKey(request) => domain::modify_key(catalog, request).await,

            Request::DescribeLiveStreamOnlineList(request) => stream::list_online(parts, request),
            Request::DescribeLiveStreamState(request) => stream::state(parts, request).await,
            Request::DropLiveStream(request) => stream::drop_stream(parts, caller, request).await,
            Request::ForbidLiveStream(request) => stream::forbid(catalog, request, parts.clock.wall()).await,
            Request::ResumeLiveStream(request) => stream::resume(catalog, request).await,
            Request::DescribeLiveForbidStreamList(request) => stream::list_forbidden(parts, request).await,

            Request::DescribeCallbackRecordsList(request) => history::list_callbacks(&self.parts.db, request).await,
            Request::DescribeLiveStreamEventList(request) => history::list_pushes(&self.parts.db, request).await,
            Request::DescribeScreenShotSheetNumList(request) => count::list(&self.parts.db, request).await,
        }
    }

    fn now(&self) -> UnixSecs {
        UnixSecs(self.parts.clock.wall().secs())
    }
}

/// The number of a template that has just been added.
fn added(template: Option<TemplateId>) -> Response {
    let TemplateId(template_id) = template.expect("a change that adds a template gives its number");
    Response::TemplateCreated { template_id }
}

/// The items of a page, and what the answer says about all of them.
fn paged<T>(items: Vec<T>, page: Page) -> (Vec<T>, Paging) {
    let paging = page.of(items.len() as i64);
    let count = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    (items.into_iter().skip(count(page.offset())).take(count(page.size)).collect(), paging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_part_of_a_list() {
        let page = |num, size| paged((0..25).collect(), Page { num, size });
        assert_eq!(page(1, 10).0, (0..10).collect::<Vec<_>>());
        assert_eq!(page(3, 10).0, (20..25).collect::<Vec<_>>());
        assert!(page(4, 10).0.is_empty() && page(100_000, 300_000).0.is_empty());
        assert_eq!((page(3, 10).1.total_num, page(3, 10).1.total_page), (25, 3));
    }
}
