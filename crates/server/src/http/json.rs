//! JSON bodies of requests.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;

/// A body that is a JSON object, whatever its `Content-Type` says; an empty one is the default. Every refusal is a [`Problem`], which
/// axum's own extractor does not promise.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned + Default,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(|error| match error {
            BytesRejection::FailedToBufferBody(failed) if failed.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than http.body_bytes_max")
            }
            _ => Problem::new(StatusCode::BAD_REQUEST, "the body did not arrive in full"),
        })?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        // By way of a map, since serde would take a list for the fields in their order.
        serde_json::from_slice(&body)
            .and_then(|fields: Map<String, Value>| T::deserialize(Value::Object(fields)))
            .map(Self)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body cannot be used: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use axum::response::IntoResponse as _;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[serde(default)]
        url: Option<String>,
    }

    /// The status that a handler with such a body answers.
    async fn status(body: &'static str) -> u16 {
        let handler = |JsonBody(order): JsonBody<Order>| async move { order.url.unwrap_or_default().into_response() };
        let pages = axum::Router::new().route("/", axum::routing::post(handler)).layer(DefaultBodyLimit::max(64));
        let request = Request::post("/").body(Body::from(body)).expect("a request");
        let response = tower::ServiceExt::oneshot(pages, request).await.expect("routers do not fail");
        let status = response.status();
        if !status.is_success() {
            assert_eq!(response.headers()["content-type"], "application/problem+json", "{body}");
        }
        status.as_u16()
    }

    #[tokio::test]
    async fn an_empty_body_is_the_default_and_a_bad_one_a_problem() {
        assert_eq!(status("").await, 200);
        assert_eq!(status("{}").await, 200);
        assert_eq!(status("{\"url\": \"http://a/\"}").await, 200);
        assert_eq!(status("{\"uri\": \"http://a/\"}").await, 400);
        assert_eq!(status("{").await, 400);
        assert_eq!(status("[]").await, 400);
        assert_eq!(
            status("{\"url\": \"http://a/0123456789012345678901234567890123456789012345678901234567890\"}").await,
            413
        );
    }
}
