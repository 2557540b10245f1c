//! Versions of what is configured: `ETag`, and the conditions that a request names one by (RFC 9110, 8.8.3 and 13.1).

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{self, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use framehook_domain::catalog::{ChangeRefused, Managed};
use framehook_domain::id::{PushSequence, TaskId};
use framehook_domain::time::UnixMs;

/// A version of one object. Each change of it makes another one, whether the change can be seen or is one of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    pub(super) fn of<T>(known: &Managed<T>) -> Self {
        // When it was made comes first, since a domain that is deleted and added again has the same name.
        Self(format!("\"{:x}-{:x}\"", known.created.0, known.updated.0))
    }

    /// The version of a screenshot task: how far it is, by a number of its state.
    pub(super) fn of_task(id: TaskId, state: u8) -> Self {
        Self(format!("\"{id}-{state}\""))
    }

    /// The version of a live stream's picture: its push, when its keyframe arrived, and its width.
    pub(super) fn of_picture(push: PushSequence, arrived: UnixMs, width: u16) -> Self {
        Self(format!("\"{push}-{}-{width}\"", arrived.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::try_from(&self.0).expect("digits and quotes are a header value")
    }
}

/// The versions that a request names.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    /// The object must be at one of these, or there (`*`).
    if_match: Option<Vec<String>>,
    /// Whoever asks has these already.
    if_none_match: Vec<String>,
}

impl Conditions {
    /// Whether a change is asked for of one version only.
    pub(super) fn are_any(&self) -> bool {
        self.if_match.is_some()
    }

    /// Whether the sender of the request knows this version.
    pub(super) fn knows(&self, etag: &Etag) -> bool {
        self.if_none_match.iter().any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag.0)
    }

    /// Refuses a change of an object that is not what its sender read. One that is not there at all is refused elsewhere.
    ///
    /// # Errors
    /// [`ChangeRefused::Changed`].
    pub(super) fn check<T>(&self, known: Option<&Managed<T>>) -> Result<(), ChangeRefused> {
        known.map_or(Ok(()), |known| self.check_tag(&Etag::of(known)))
    }

    /// As [`Conditions::check`], of a version that is known.
    ///
    /// # Errors
    /// [`ChangeRefused::Changed`].
    pub(super) fn check_tag(&self, etag: &Etag) -> Result<(), ChangeRefused> {
        let Some(tags) = &self.if_match else { return Ok(()) };
        if tags.iter().any(|tag| tag == "*" || *tag == etag.0) { Ok(()) } else { Err(ChangeRefused::Changed) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let tags = |name| tags(&parts.headers, name);
        Ok(Self { if_match: tags(header::IF_MATCH), if_none_match: tags(header::IF_NONE_MATCH).unwrap_or_default() })
    }
}

/// The entity tags of a header; `None` without that header. What is no tag equals none.
fn tags(headers: &HeaderMap, name: HeaderName) -> Option<Vec<String>> {
    headers.contains_key(&name).then(|| {
        let lines = headers.get_all(&name).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|tag| tag.trim().to_owned()).collect()
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use framehook_domain::catalog::ManagedBy;
    use framehook_domain::time::UnixMs;

    use super::*;

    async fn conditions(headers: &[(&'static str, &[u8])]) -> Conditions {
        let mut parts = Request::new(()).into_parts().0;
        for (name, value) in headers {
            parts.headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        Conditions::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn a_change_is_made_only_to_the_version_that_was_read() {
        let known = Managed { value: (), by: ManagedBy::Api, created: UnixMs(1), updated: UnixMs(0x1f) };
        assert_eq!(Etag::of(&known).as_str(), "\"1-1f\"");
        type Headers = &'static [(&'static str, &'static [u8])];
        let rows: [(&str, Headers, bool); 8] = [
            ("no condition", &[], true),
            ("the version", &[("if-match", b"\"1-1f\"")], true),
            ("one of several", &[("if-match", b"\"1-1e\", \"1-1f\"")], true),
            ("in another line", &[("if-match", b"\"1-1e\""), ("if-match", b"\"1-1f\"")], true),
            ("whatever it is", &[("if-match", b"*")], true),
            ("another version", &[("if-match", b"\"1-1e\"")], false),
            ("a weak tag, which is no promise", &[("if-match", b"W/\"1-1f\"")], false),
            ("no text", &[("if-match", b"\xff")], false),
        ];
        for (name, headers, passes) in rows {
            let judged = conditions(headers).await.check(Some(&known));
            assert_eq!(judged, if passes { Ok(()) } else { Err(ChangeRefused::Changed) }, "{name}");
        }
    }

    #[tokio::test]
    async fn a_known_version_is_recognised() {
        let etag = Etag("\"1-1f\"".to_owned());
        for (tags, knows) in
            [("\"1-1f\"", true), ("\"a\", W/\"1-1f\"", true), ("*", true), ("\"1-1e\"", false), ("1-1f", false)]
        {
            assert_eq!(conditions(&[("if-none-match", tags.as_bytes())]).await.knows(&etag), knows, "{tags}");
        }
        assert!(!conditions(&[]).await.knows(&etag));
    }
}
