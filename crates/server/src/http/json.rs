//! JSON bodies of requests.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;

/// A body that is a JSON object, whatever its `Content-Type` says; an empty one is the empty object. Every refusal is a
/// [`Problem`] that names the field at fault, which axum's own extractor does not promise.
#[derive(Debug)]
pub(super) struct JsonBody<T> {
    pub(super) order: T,
    /// The same object however it was spaced and ordered.
    pub(super) canonical: String,
}

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned,
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
        // By way of a map, since serde would take a list for the fields in their order.
        let fields: Map<String, Value> = if body.is_empty() {
            Map::new()
        } else {
            let parsed = serde_json::from_slice(&body);
            parsed.map_err(|error| {
                Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON object: {error}"))
            })?
        };
        let fields = Value::Object(fields);
        let canonical = fields.to_string();
        let order = serde_path_to_error::deserialize(fields).map_err(|error| {
            let detail = format!("the body cannot be used: {}", error.inner());
            match error.path().to_string() {
                path if path == "." => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
                path => Problem::bad_value(path, detail),
            }
        })?;
        Ok(Self { order, canonical })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use axum::response::IntoResponse as _;
    use http_body_util::{BodyExt as _, Limited};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        url: Option<String>,
        size: Option<u16>,
    }

    /// The status that a handler with such a body answers, and the field it finds fault with.
    #[expect(clippy::disallowed_methods, reason = "read through a cap")]
    async fn answer(body: &'static str) -> (u16, Value) {
        let handler = |body: JsonBody<Order>| async move {
            format!("{:?} {:?} {}", body.order.url, body.order.size, body.canonical).into_response()
        };
        let pages = axum::Router::new().route("/", axum::routing::post(handler)).layer(DefaultBodyLimit::max(64));
        let request = Request::post("/").body(Body::from(body)).expect("a request");
        let response = tower::ServiceExt::oneshot(pages, request).await.expect("routers do not fail");
        let status = response.status();
        if status.is_success() {
            return (status.as_u16(), Value::Null);
        }
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{body}");
        let body = Limited::new(response.into_body(), 4096).collect().await.expect("a body").to_bytes();
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        (status.as_u16(), problem["field"].clone())
    }

    #[tokio::test]
    async fn one_object_is_the_same_however_it_is_written() {
        let canonical = async |body: &'static str| {
            let request = Request::post("/").body(Body::from(body)).expect("a request");
            JsonBody::<Value>::from_request(request, &()).await.expect("an object").canonical
        };
        let first = canonical("{\"b\": [1, 2], \"a\": {\"d\": null, \"c\": \"é\"}}").await;
        assert_eq!(canonical("{ \"a\":{\"c\":\"\\u00e9\",\"d\":null}, \"b\":[1,2] }").await, first);
        assert_ne!(canonical("{\"b\": [2, 1], \"a\": {\"d\": null, \"c\": \"é\"}}").await, first);
    }

    #[tokio::test]
    async fn an_empty_body_is_an_empty_object_and_a_bad_one_a_problem_with_its_field() {
        let none = || Value::Null;
        assert_eq!(answer("").await, (200, none()));
        assert_eq!(answer("{}").await, (200, none()));
        assert_eq!(answer("{\"url\": \"http://a/\"}").await, (200, none()));
        assert_eq!(answer("{\"uri\": \"http://a/\"}").await, (422, "uri".into()));
        assert_eq!(answer("{\"size\": \"7\"}").await, (422, "size".into()));
        assert_eq!(answer("{\"size\": 70000}").await, (422, "size".into()));
        assert_eq!(answer("{").await, (400, none()));
        assert_eq!(answer("[]").await, (400, none()));
        assert_eq!(
            answer("{\"url\": \"http://a/0123456789012345678901234567890123456789012345678901234567890\"}").await,
            (413, none())
        );
    }
}
