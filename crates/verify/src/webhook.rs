//! Standard Webhooks 1.0.0, symmetric scheme `v1`: HMAC-SHA256 over id, timestamp and body, in three headers. With the
//! feature `ed25519` also the asymmetric one, `v1a`.

#[cfg(feature = "ed25519")]
pub mod ed25519;

use alloc::{format, string::String, vec::Vec};
use core::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// Header names, lower-case as HTTP/2 wants them and HTTP/1 does not mind.
pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// How far a timestamp may lie from the receiver's clock, as in the reference libraries.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The prefix of a secret in its text form.
const SECRET_PREFIX: &str = "whsec_";

/// The secret of the header signature, derived from the callback key so that one key serves both signatures: a key in
/// the form `whsec_…` is that secret, and of any other key the bytes themselves are. Receivers with a Standard Webhooks
/// library configure [`WebhookSecret::to_text`]. `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    pub fn from_callback_key(key: &str) -> Self {
        let decoded = key.strip_prefix(SECRET_PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        // Nothing behind the prefix would be an empty secret, with which anybody can sign.
        let secret = decoded.filter(|secret| !secret.is_empty());
        Self(secret.unwrap_or_else(|| key.as_bytes().to_vec()))
    }

    /// `whsec_` and base64, as Standard Webhooks libraries take it. A secret: print it only where keys may be printed.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The value of [`SIGNATURE`] for a body and the values of the other two headers.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The three headers as they came. Nothing in them is to be believed before [`verify`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Names the delivery: the same for each attempt at it.
    pub id: &'a str,
    /// When this attempt was made, unix seconds in decimal.
    pub timestamp: &'a str,
    /// One or more signatures, separated by spaces; while a secret is changed there is one for each.
    pub signature: &'a str,
}

impl<'a> Headers<'a> {
    /// Takes the headers out of a request; `header` looks one up by its lower-case name.
    ///
    /// # Errors
    /// [`WebhookError::HeaderMissing`].
    pub fn read(header: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, WebhookError> {
        let required = |name| header(name).ok_or(WebhookError::HeaderMissing { name });
        Ok(Self { id: required(ID)?, timestamp: required(TIMESTAMP)?, signature: required(SIGNATURE)? })
    }

    /// The second of the attempt, if it is one of now.
    fn sent_secs(&self, now_secs: i64) -> Result<i64, WebhookError> {
        let sent_secs: i64 = self.timestamp.parse().map_err(|_| WebhookError::TimestampMalformed)?;
        if now_secs.abs_diff(sent_secs) > TOLERANCE.as_secs() {
            return Err(WebhookError::TimestampOutOfRange);
        }
        Ok(sent_secs)
    }
}

/// Why a receiver turns a request away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the header {name} is missing")]
    HeaderMissing { name: &'static str },
    #[error("webhook-timestamp is not a number of seconds")]
    TimestampMalformed,
    #[error("webhook-timestamp is more than five minutes off")]
    TimestampOutOfRange,
    #[error("no signature in webhook-signature fits the body")]
    SignatureWrong,
}

/// The receiver's check at `now_secs` (unix seconds); gives the second of the attempt. Any of `secrets` may have signed,
/// so an empty list accepts nothing.
///
/// # Errors
/// See [`WebhookError`].
pub fn verify<'s>(
    secrets: impl IntoIterator<Item = &'s WebhookSecret>,
    headers: Headers<'_>,
    body: &[u8],
    now_secs: i64,
) -> Result<i64, WebhookError> {
    let sent_secs = headers.sent_secs(now_secs)?;
    let mut fits = Choice::from(0);
    for secret in secrets {
        let expected = secret.sign(headers.id, headers.timestamp, body);
        for candidate in headers.signature.split(' ') {
            fits |= expected.as_bytes().ct_eq(candidate.as_bytes());
        }
    }
    if fits.into() { Ok(sent_secs) } else { Err(WebhookError::SignatureWrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> WebhookSecret {
        WebhookSecret::from_callback_key(text)
    }

    /// The vector of the specification.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const MESSAGE_ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNED: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    const SENT: i64 = 1_649_367_553;

    #[test]
    fn signs_the_published_vector() {
        assert_eq!(secret(SECRET).sign(MESSAGE_ID, "1649367553", BODY), SIGNED);
    }

    #[test]
    fn shows_the_secret_as_libraries_take_it() {
        assert_eq!(secret(SECRET).to_text(), SECRET);
        assert_eq!(secret("k3yForDocs2024").to_text(), "whsec_azN5Rm9yRG9jczIwMjQ=");
        assert_eq!(secret(&secret("k3yForDocs2024").to_text()), secret("k3yForDocs2024"));
        for own_bytes in ["whsec_not base64!", "whsec_"] {
            assert_eq!(secret(own_bytes), WebhookSecret(own_bytes.as_bytes().to_vec()));
        }
    }

    #[test]
    fn turns_away_what_does_not_fit() {
        let several = format!("v1,AAAA {SIGNED} v1a,BBBB");
        let cases = [
            ("as sent", "1649367553", SIGNED, BODY, SENT, Ok(SENT)),
            ("one of several signatures", "1649367553", &several, BODY, SENT, Ok(SENT)),
            ("five minutes later", "1649367553", SIGNED, BODY, SENT + 300, Ok(SENT)),
            ("later still", "1649367553", SIGNED, BODY, SENT + 301, Err(WebhookError::TimestampOutOfRange)),
            ("from the future", "1649367553", SIGNED, BODY, SENT - 301, Err(WebhookError::TimestampOutOfRange)),
            ("the end of time", "9223372036854775807", "", BODY, -2, Err(WebhookError::TimestampOutOfRange)),
            ("another body", "1649367553", SIGNED, b"{}", SENT, Err(WebhookError::SignatureWrong)),
            ("another timestamp", "1649367554", SIGNED, BODY, SENT, Err(WebhookError::SignatureWrong)),
            ("no number", "yesterday", SIGNED, BODY, SENT, Err(WebhookError::TimestampMalformed)),
            ("no signature", "1649367553", "", BODY, SENT, Err(WebhookError::SignatureWrong)),
        ];
        for (name, timestamp, signature, body, now_secs, expected) in cases {
            let headers = Headers { id: MESSAGE_ID, timestamp, signature };
            assert_eq!(verify([&secret(SECRET)], headers, body, now_secs), expected, "{name}");
        }
    }

    #[test]
    fn any_of_several_secrets_may_have_signed() {
        let headers = Headers { id: MESSAGE_ID, timestamp: "1649367553", signature: SIGNED };
        let (right, wrong) = (secret(SECRET), secret("another"));
        for secrets in [&[&right, &wrong][..], &[&wrong, &right]] {
            assert_eq!(verify(secrets.iter().copied(), headers, BODY, SENT), Ok(SENT));
        }
        assert_eq!(verify([&wrong], headers, BODY, SENT), Err(WebhookError::SignatureWrong));
        assert_eq!(verify([], headers, BODY, SENT), Err(WebhookError::SignatureWrong), "no secret signs nothing");
    }

    #[test]
    fn names_the_header_that_is_missing() {
        for missing in [ID, TIMESTAMP, SIGNATURE] {
            let read = Headers::read(|name| (name != missing).then_some("x"));
            assert_eq!(read, Err(WebhookError::HeaderMissing { name: missing }));
        }
    }

    #[test]
    fn secrets_print_as_stars() {
        assert_eq!(format!("{:?}", secret(SECRET)), "***");
    }
}
