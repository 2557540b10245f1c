//! Errors as `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use framehook_domain::catalog::ChangeRefused;
use framehook_domain::field::FieldError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::catalog::{ChangeError, OnceError};
use crate::db::DbError;
use crate::telemetry::event::Chain;

/// The content type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong with a request, for people and programs (RFC 9457).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    /// What went wrong this time.
    detail: String,
    // Boxed, since every handler's result has room for it.
    #[serde(flatten)]
    fault: Option<Box<Fault>>,
}

/// What in a request is to blame.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Fault {
    /// The parameter, or the field of the body, at fault.
    field: Cow<'static, str>,
    /// What stood there, cut after 80 characters; of a secret, its length only.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// What is allowed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            // The status says it all; there is no page to point to.
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            fault: None,
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn into_detail(self) -> String {
        self.detail
    }

    fn blaming(
        self,
        field: impl Into<Cow<'static, str>>,
        value: Option<String>,
        allowed: Option<&'static str>,
    ) -> Self {
        Self { fault: Some(Box::new(Fault { field: field.into(), value, allowed })), ..self }
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A parameter, in the path, the query or a header, that cannot be used.
    pub(super) fn bad_field(field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).blaming(field, None, None)
    }

    /// As [`Problem::bad_field`], for a name or number that the domain refuses.
    pub(super) fn bad_parameter(field: &'static str, error: FieldError) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, field, error)
    }

    /// A field of the body whose value cannot be taken.
    pub(super) fn bad_value(field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).blaming(field, None, None)
    }

    /// As [`Problem::bad_value`], for a value that the domain refuses in the field that `/v1` calls `field`.
    pub(super) fn unprocessable(field: &'static str, error: FieldError) -> Self {
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, field, error)
    }

    /// The same of what stood in the body.
    pub(super) fn of_body(self) -> Self {
        let Self { detail, fault, .. } = self;
        Self { fault, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    fn refused(status: StatusCode, field: &'static str, error: FieldError) -> Self {
        let FieldError { value, allowed, .. } = error;
        let detail = format!("{field} = {value:?} is not accepted; allowed: {allowed}");
        Self::new(status, detail).blaming(field, Some(value), Some(allowed))
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        tracing::error!(error = %Chain(&error), "a request failed in the database");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        let field = match error.field {
            "interval" => "interval_s",
            "until" => "until_ms",
            same => same,
        };
        Self::unprocessable(field, error)
    }
}

impl From<ChangeRefused> for Problem {
    fn from(refused: ChangeRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            ChangeRefused::Field(error) => error.into(),
            ChangeRefused::DomainUnknown(_)
            | ChangeRefused::TemplateUnknown(_)
            | ChangeRefused::RuleUnknown(_)
            | ChangeRefused::RuleIdUnknown(_) => Self::not_found(detail),
            ChangeRefused::PushKeyMissing => Self::bad_value("main", detail),
            ChangeRefused::Changed => Self::new(StatusCode::PRECONDITION_FAILED, detail),
            ChangeRefused::DomainExists(_)
            | ChangeRefused::DomainInUse { .. }
            | ChangeRefused::TemplateInUse { .. }
            | ChangeRefused::RuleExists(_)
            | ChangeRefused::TooManyDomains
            | ChangeRefused::TooManyTemplates
            | ChangeRefused::TooManyRules
            | ChangeRefused::TooManyForbidden
            | ChangeRefused::DomainInTask { .. }
            | ChangeRefused::TemplateInTask { .. }
            | ChangeRefused::TooManyTasksAtATime(_)
            | ChangeRefused::TooManyTasks
            | ChangeRefused::ManagedByFile => Self::conflict(detail),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refused) => refused.into(),
            ChangeError::Receiver { field, forbidden } => Self::bad_value(field, forbidden.what),
            ChangeError::Db(error) => error.into(),
            ChangeError::Unfit(_) => {
                tracing::error!(error = %Chain(&error), "a change failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<OnceError> for Problem {
    fn from(error: OnceError) -> Self {
        let detail = error.to_string();
        match error {
            OnceError::Change(error) => error.into(),
            OnceError::KeyReused => Self::bad_value("Idempotency-Key", detail),
            OnceError::TooManyKeys => Self::new(StatusCode::TOO_MANY_REQUESTS, detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

#[cfg(test)]
mod tests {
    use framehook_domain::id::{RuleId, TaskId, TemplateId};
    use framehook_domain::rule::RuleScope;
    use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};

    use super::*;

    #[test]
    fn every_refusal_has_a_status_that_says_what_to_do_about_it() {
        let scope = || RuleScope::parse("a.example", "live", "").unwrap();
        let domain = || DomainName::parse("a.example").unwrap();
        let (id, task) = (TemplateId(7), TaskId(uuid::Uuid::nil()));
        let stream = StreamId {
            domain: domain(),
            app: AppName::parse("live").unwrap(),
            name: StreamName::parse("room").unwrap(),
        };
        for (refused, status) in [
            (ChangeRefused::DomainUnknown(domain()), 404),
            (ChangeRefused::TemplateUnknown(id), 404),
            (ChangeRefused::RuleUnknown(scope()), 404),
            (ChangeRefused::RuleIdUnknown(RuleId(7)), 404),
            (ChangeRefused::DomainExists(domain()), 409),
            (ChangeRefused::DomainInUse { domain: domain(), scope: scope() }, 409),
            (ChangeRefused::TemplateInUse { id, scope: scope() }, 409),
            (ChangeRefused::RuleExists(scope()), 409),
            (ChangeRefused::TooManyDomains, 409),
            (ChangeRefused::TooManyTemplates, 409),
            (ChangeRefused::TooManyRules, 409),
            (ChangeRefused::TooManyForbidden, 409),
            (ChangeRefused::DomainInTask { domain: domain(), task }, 409),
            (ChangeRefused::TemplateInTask { id, task }, 409),
            (ChangeRefused::TooManyTasksAtATime(stream), 409),
            (ChangeRefused::TooManyTasks, 409),
            (ChangeRefused::ManagedByFile, 409),
            (ChangeRefused::Changed, 412),
            (ChangeRefused::PushKeyMissing, 422),
            (FieldError::new("width", 9999, "less").into(), 422),
        ] {
            assert_eq!(Problem::from(refused.clone()).status, status, "{refused}");
        }
    }

    #[test]
    fn a_refused_value_is_named_as_the_api_names_it() {
        let problem = Problem::from(FieldError::new("interval", 1, "2 to 300 (seconds)"));
        let shown = serde_json::to_value(&problem).unwrap();
        assert_eq!(shown["field"], "interval_s");
        assert_eq!((&shown["value"], &shown["allowed"]), (&"1".into(), &"2 to 300 (seconds)".into()));
        assert_eq!(shown["detail"], "interval_s = \"1\" is not accepted; allowed: 2 to 300 (seconds)");
        assert_eq!((&shown["status"], &shown["title"]), (&422.into(), &"Unprocessable Entity".into()));
        let in_path = Problem::bad_parameter("name", FieldError::new("domain", "?", "a name"));
        assert_eq!((in_path.status, in_path.title), (400, "Bad Request"));
    }
}
