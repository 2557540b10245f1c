//! The login in front of `/v1`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;
use super::{Peer, Shared};
use crate::credentials::LoginError;
use crate::telemetry::event::LoginRefused;

/// Lets a request pass that brings the credentials.
pub(super) async fn require_login(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let Peer(peer) = *request.extensions().get().expect("every request is given its peer");
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match shared.credentials.check(authorization, peer.ip(), shared.clock.mono()) {
        Ok(()) => next.run(request).await,
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
