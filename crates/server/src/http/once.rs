//! Requests that do something and bear an `Idempotency-Key`: each is carried out at most once.
//!
//! A change of the configuration is remembered in its own transaction ([`catalog`](crate::catalog)). What is done by others goes
//! through here: the key is durable before the work begins and the answer after it has ended. Of a request that an end of
//! the server cut off in between nobody knows how far it came, so it is answered with that and not carried out again.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Shared;
use super::problem::Problem;
use super::resource::IdempotencyKey;
use crate::audit::Caller;
use crate::catalog::Begun;
use crate::db::idempotency::Answer;

/// Longest answer that is remembered. Those of these requests are empty or show one object, in some 500 bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub(super) async fn carry_out(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    answer(shared, request, next).await.unwrap_or_else(Problem::into_response)
}

async fn answer(shared: Arc<Shared>, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let key = IdempotencyKey::from_request_parts(&mut parts, &()).await?;
    if key.is_none() {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    }
    let Ok(caller) = Caller::from_request_parts(&mut parts, &()).await;
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
    let body =
        body.map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than http.body_bytes_max"))?;
    let what = String::from_utf8_lossy(&body).into_owned();
    let once = key.once_at(parts.uri.path(), &shared, &what).expect("there is a key");
    match shared.configuration.begin(&caller, &once).await? {
        Begun::Now => {}
        Begun::Answered(answer) => return Ok(as_before(answer)),
        Begun::Unanswered => {
            let detail = "this request is under way, or the end of a server cut it off: look whether it was carried out, and \
                          use another key to send it again";
            return Err(Problem::conflict(detail));
        }
    }
    // Whoever asks may hang up meanwhile: it is carried out, and its answer remembered, all the same.
    let configuration = Arc::clone(&shared.configuration);
    let work = async move {
        let (response, answer) = remembered(next.run(Request::from_parts(parts, Body::from(body))).await).await;
        configuration.end(&caller, &once, answer).await?;
        Ok(response)
    };
    shared.configuration.finish(work).await
}

/// A response with what is remembered of it: nothing of one that says that nothing was done.
async fn remembered(response: Response) -> (Response, Option<Answer>) {
    if !response.status().is_success() {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let answer = Answer {
        status: parts.status.as_u16(),
        location: text(header::LOCATION).to_owned(),
        etag: text(header::ETAG).to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    (Response::from_parts(parts, Body::from(body)), Some(answer))
}

fn as_before(Answer { status, location, etag, body }: Answer) -> Response {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: String| {
        if !value.is_empty() {
            headers.insert(name, HeaderValue::try_from(value).expect("it was a header value before"));
        }
    };
    put(header::LOCATION, location);
    put(header::ETAG, etag);
    if !body.is_empty() {
        put(header::CONTENT_TYPE, "application/json".to_owned());
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, body).into_response()
}
