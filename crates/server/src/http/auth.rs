//! The login in front of `/v1`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
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
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                if key.read_only {
                    return Problem::new(StatusCode::FORBIDDEN, "this key may only read").into_response();
                }
                if is_foreign(request.headers()) {
                    let detail = "another site's page sent this request, with the credentials that a browser keeps";
                    return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
                }
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
            LoginRefused { peer, reason }.emit(&shared.telemetry);
            refuse(error)
        }
    }
}

/// Whether a browser sends this for a page of somebody else's: it adds the credentials that a person once gave it, and a
/// form of any page can have it send almost any body. Programs send neither header.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_ours = |origin: &str| {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        text("host").is_some_and(|ours| ours.eq_ignore_ascii_case(host))
    };
    text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"))
        || text("origin").is_some_and(|origin| !is_ours(origin))
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

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_request_of_another_site_s_page_is_told_from_all_others() {
        let cases = [
            ("a program", &[][..], false),
            ("our own page", &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")], false),
            ("a person at the address bar", &[("sec-fetch-site", "none")], false),
            ("another site's page", &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], true),
            ("another port of this host", &[("sec-fetch-site", "same-site")], true),
            ("an old browser", &[("origin", "http://evil.example")], true),
            ("an old browser behind a local file", &[("origin", "null")], true),
            ("another port in an old browser", &[("origin", "http://127.0.0.1:9999")], true),
        ];
        for (name, headers, foreign) in cases {
            let headers = headers.iter().chain(&[("host", "127.0.0.1:8080")]);
            let headers = headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            assert_eq!(is_foreign(&headers.collect()), foreign, "{name}");
        }
    }
}
