//! Parameters of requests, in the path and in the query. Every refusal is a [`Problem`], which axum's own extractors do not
//! promise.

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::problem::Problem;

/// The parameters of the path.
#[derive(Debug)]
pub(super) struct InPath<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for InPath<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Texts only, so this fails where what stands percent-encoded in the path is no UTF-8.
        let taken = Path::<T>::from_request_parts(parts, state).await;
        taken.map(|Path(value)| Self(value)).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// The parameters of the query, by name.
#[derive(Debug)]
pub(super) struct InQuery<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for InQuery<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let values = serde_urlencoded::Deserializer::new(query);
        serde_path_to_error::deserialize(values).map(Self).map_err(|error| {
            let detail = format!("the query cannot be used: {}", error.inner());
            match error.path().to_string() {
                path if path == "." => Problem::new(StatusCode::BAD_REQUEST, detail),
                path => Problem::bad_field(path, detail),
            }
        })
    }
}

/// Reads `domain/app/name`, as a parameter of the query gives it.
pub(super) fn parse_stream(field: &'static str, text: &str) -> Result<StreamId, Problem> {
    let mut parts = text.split('/');
    let (Some(domain), Some(app), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Problem::bad_field(field, format!("{text:?} is not domain/app/name")));
    };
    let bad = |error| Problem::bad_parameter(field, error);
    Ok(StreamId {
        domain: DomainName::parse(domain).map_err(bad)?,
        app: AppName::parse(app).map_err(bad)?,
        name: StreamName::parse(name).map_err(bad)?,
    })
}

/// The stream that stands in a path as three of its parts.
#[derive(Debug)]
pub(super) struct StreamInPath(pub(super) StreamId);

impl<S: Send + Sync> FromRequestParts<S> for StreamInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let InPath((domain, app, name)) = InPath::<(String, String, String)>::from_request_parts(parts, state).await?;
        Ok(Self(StreamId {
            domain: DomainName::parse(&domain).map_err(|error| Problem::bad_parameter("domain", error))?,
            app: AppName::parse(&app).map_err(|error| Problem::bad_parameter("app", error))?,
            name: StreamName::parse(&name).map_err(|error| Problem::bad_parameter("stream", error))?,
        }))
    }
}
