//! An extractor for axum: a handler that takes [`Verified`] runs only for genuine callbacks.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::{Router, routing::post};
//! use framehook_verify::{Verifier, axum::Verified, event::Event};
//!
//! async fn receive(Verified(callback): Verified) {
//!     if let Event::SnapshotStored(snapshot) = callback.event {
//!         println!("{} {}", callback.webhook_id, snapshot.pic_full_url);
//!     }
//! }
//!
//! let verifier = Arc::new(Verifier::new("k3yForDocs2024")?);
//! let app: Router = Router::new().route("/framehook", post(receive)).with_state(verifier);
//! # Ok::<_, framehook_verify::EmptyKey>(())
//! ```
//!
//! A receiver that is to check callbacks and not to make them has `Verifier::with_public_key` in the router's state instead
//! (feature `ed25519`).
//!
//! The clock is the system's. How long a body may take to arrive is the server's to say, as for every other route.

use alloc::{format, string::ToString, sync::Arc};
use std::time::{SystemTime, UNIX_EPOCH};

use axum_core::{
    body::Body,
    extract::{FromRef, FromRequest, Request},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{BODY_BYTES_MAX, Callback, Verifier, VerifyError};

/// A verified callback. The router's state is an `Arc<Verifier>` or gives one by `FromRef`.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified(pub Callback);

/// Why a request did not reach the handler. As a response it has the status that fits, never 200, and says why.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error("the body is longer than a callback can be")]
    TooLong,
    #[error("the body broke off")]
    BrokenOff,
    #[error(transparent)]
    Refused(#[from] VerifyError),
}

impl Rejection {
    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLong => 413,
            Self::BrokenOff => 400,
            Self::Refused(error) => error.status(),
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": 1, "message": self.to_string() });
        let response = Response::builder().status(self.status()).header("content-type", "application/json");
        response.body(Body::from(format!("{body}"))).expect("status and header are constants")
    }
}

impl<S> FromRequest<S> for Verified
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let (head, body) = request.into_parts();
        let body = read(body).await?;
        let header = |name: &'static str| head.headers.get(name)?.to_str().ok();
        let verifier: Arc<Verifier> = FromRef::from_ref(state);
        Ok(Self(verifier.verify(&body, header, now_secs())?))
    }
}

/// The body's bytes, if they are no more than a callback can have.
#[expect(clippy::disallowed_methods, reason = "this is the reading through a cap that the rule asks for")]
async fn read(body: Body) -> Result<alloc::vec::Vec<u8>, Rejection> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(read) => Ok(read.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(Rejection::TooLong),
        Err(_) => Err(Rejection::BrokenOff),
    }
}

#[expect(clippy::disallowed_methods, reason = "an extractor cannot be handed the time; everything below it can")]
fn now_secs() -> i64 {
    // A clock before 1970 is as wrong as one at 1970: nothing is fresh by it.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec, vec::Vec};

    use super::*;
    use crate::{css, event::Event, webhook, webhook::WebhookSecret};

    const KEY: &str = "k3yForDocs2024";

    /// A callback signed with `key` now, whose body is then replaced if there is `another`.
    fn request(key: &str, another: Option<Vec<u8>>) -> Request {
        let now = now_secs();
        let t = css::expiry_secs(now);
        let body = format!(r#"{{"event_type":332,"sign":"{}","t":{t}}}"#, css::sign(key, t)).into_bytes();
        let timestamp = now.to_string();
        Request::builder()
            .header(webhook::SIGNATURE, WebhookSecret::from_callback_key(key).sign("one", &timestamp, &body))
            .header(webhook::TIMESTAMP, timestamp)
            .header(webhook::ID, "one")
            .body(Body::from(another.unwrap_or(body)))
            .expect("a request")
    }

    async fn extract(request: Request) -> Result<Verified, Rejection> {
        let verifier = Arc::new(Verifier::new(KEY).expect("a key"));
        Verified::from_request(request, &verifier).await
    }

    #[tokio::test]
    async fn a_genuine_callback_reaches_the_handler() {
        let Verified(callback) = extract(request(KEY, None)).await.expect("genuine");
        assert_eq!(callback.webhook_id, "one");
        assert!(matches!(callback.event, Event::Other { event_type: 332, .. }));
    }

    #[tokio::test]
    async fn everything_else_is_turned_away_with_a_status_and_a_reason() {
        let long = vec![b' '; BODY_BYTES_MAX + 1];
        let cases = [
            ("another key", request("another", None), 401, "no signature in webhook-signature"),
            ("another body", request(KEY, Some(b"{}".to_vec())), 401, "no signature in webhook-signature"),
            ("long body", request(KEY, Some(long)), 413, "longer than a callback"),
            ("no headers", Request::new(Body::from("{}")), 401, "webhook-id is missing"),
        ];
        for (name, request, status, says) in cases {
            let response = extract(request).await.expect_err(name).into_response();
            assert_eq!(response.status().as_u16(), status, "{name}");
            let body = String::from_utf8(read(response.into_body()).await.expect("a body")).expect("UTF-8");
            assert!(body.contains(says), "{name}: {body}");
        }
    }

    #[cfg(feature = "ed25519")]
    #[tokio::test]
    async fn a_public_key_in_the_state_is_enough() {
        use crate::webhook::ed25519::SigningKey;

        let (sender, stranger) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
        let verifier = Arc::new(Verifier::with_public_key(sender.public_key()));
        // Of a template without a callback key: no `t`, no `sign`.
        let (body, timestamp) = (r#"{"event_type":332}"#, now_secs().to_string());
        for (key, is_genuine) in [(&sender, true), (&stranger, false)] {
            let request = Request::builder()
                .header(webhook::SIGNATURE, key.sign("one", &timestamp, body.as_bytes()))
                .header(webhook::TIMESTAMP, &timestamp)
                .header(webhook::ID, "one")
                .body(Body::from(body))
                .expect("a request");
            assert_eq!(Verified::from_request(request, &verifier).await.is_ok(), is_genuine);
        }
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_read() {
        let error = extract(request(KEY, Some(vec![b' '; BODY_BYTES_MAX]))).await.expect_err("no signature fits");
        assert!(matches!(error, Rejection::Refused(_)), "{error}");
    }
}
