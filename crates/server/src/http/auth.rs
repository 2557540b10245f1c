//! The login in front of `/v1`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;
use super::{Peer, Shared};
use crate::audit::Caller;
use crate::credentials::LoginError;
use crate::telemetry::event::LoginRefused;

/// Lets a request pass that brings a key, if that key may do what it asks for, and tells the page whose it is.
pub(super) async fn require_login(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let Peer(peer) = *request.extensions().get().expect("every request is given its peer");
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match shared.credentials.check(authorization, peer.ip(), shared.clock.mono()) {
        Ok(key) => {
            key.note_use(shared.clock.wall());
            if key.read_only && !matches!(*request.method(), Method::GET | Method::HEAD) {
                return Problem::new(StatusCode::FORBIDDEN, "this key may only read").into_response();
            }
            request.extensions_mut().insert(Caller::key(&key, peer.ip()));
            next.run(request).await
        }
        Err(error) => {
            let reason = match error {
                LoginError::Missing => "missing",
                LoginError::Wrong => "wrong",
                LoginError::TooMany => "too_many_attempts",
            };
            LoginRefused { peer, reason }.emit(&shared.metrics, &shared.repeats, shared.clock.mono());
            refuse(error)
        }
    }
}

/// Whose request it is, for pages behind the login or on the control socket.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().expect("every request for a page of /v1 is given its caller").clone())
    }
}

fn refuse(error: LoginError) -> Response {
    match error {
        LoginError::TooMany => {
            let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            response
        }
        LoginError::Missing | LoginError::Wrong => {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, error.to_string()).into_response();
            let ways = HeaderValue::from_static("Bearer, Basic realm=\"framehook\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ways);
            response
        }
    }
}
