//! Standard Webhooks 1.0.0, symmetric scheme `v1`: HMAC-SHA256 over id, timestamp and body, in three headers.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{id::DeliveryId, template::CallbackKey, time::UnixMs};

/// Header names, lower-case as HTTP/2 wants them and HTTP/1 does not mind.
pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// The prefix of a secret in its text form.
const SECRET_PREFIX: &str = "whsec_";

/// How far a timestamp may lie from the receiver's clock, as in the reference libraries.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The secret of the header signature, derived from the callback key so that one key serves both signatures: a key in
/// the form `whsec_…` is that secret, and of any other key the bytes themselves are. Receivers with a Standard Webhooks
/// library configure [`WebhookSecret::to_text`].
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    pub fn from_callback_key(key: &CallbackKey) -> Self {
        let text = key.expose();
        let decoded = text.strip_prefix(SECRET_PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        Self(decoded.unwrap_or_else(|| text.as_bytes().to_vec()))
    }

    /// `whsec_` and base64, as Standard Webhooks libraries take it. A secret: print it only where keys may be printed.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
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

/// The three headers of one attempt: [`ID`], [`TIMESTAMP`] and, with a key, [`SIGNATURE`].
pub fn headers(
    key: Option<&CallbackKey>,
    id: DeliveryId,
    sent: UnixMs,
    body: &[u8],
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let id = format!("{id}");
    let timestamp = format!("{}", sent.secs());
    let signature = key.map(|key| WebhookSecret::from_callback_key(key).sign(&id, &timestamp, body));
    [(ID, Some(id)), (TIMESTAMP, Some(timestamp)), (SIGNATURE, signature)]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
}

/// Why a receiver turns a request away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("webhook-timestamp is not a number of seconds")]
    TimestampMalformed,
    #[error("webhook-timestamp is more than five minutes off")]
    TimestampOutOfRange,
    #[error("no signature in webhook-signature fits the body")]
    SignatureWrong,
}

/// The receiver's check of the three headers; `signature` may hold several, separated by spaces.
///
/// # Errors
/// See [`WebhookError`].
pub fn verify(
    secret: &WebhookSecret,
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: UnixMs,
) -> Result<(), WebhookError> {
    let sent_secs: i64 = timestamp.parse().map_err(|_| WebhookError::TimestampMalformed)?;
    let sent = UnixMs::from_secs(sent_secs);
    if now.since(sent).max(sent.since(now)) > TOLERANCE {
        return Err(WebhookError::TimestampOutOfRange);
    }
    let expected = secret.sign(id, timestamp, body);
    if signature.split(' ').any(|candidate| bool::from(expected.as_bytes().ct_eq(candidate.as_bytes()))) {
        Ok(())
    } else {
        Err(WebhookError::SignatureWrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::uuid_v7;

    fn key(text: &str) -> CallbackKey {
        CallbackKey::parse(text).expect("a key")
    }

    fn secret(text: &str) -> WebhookSecret {
        WebhookSecret::from_callback_key(&key(text))
    }

    /// The vector of the specification.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const MESSAGE_ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNED: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    const SENT: UnixMs = UnixMs::from_secs(1_649_367_553);

    #[test]
    fn signs_the_published_vector() {
        assert_eq!(secret(SECRET).sign(MESSAGE_ID, "1649367553", BODY), SIGNED);
    }

    #[test]
    fn shows_the_secret_as_libraries_take_it() {
        assert_eq!(secret(SECRET).to_text(), SECRET);
        assert_eq!(secret("k3yForDocs2024").to_text(), "whsec_azN5Rm9yRG9jczIwMjQ=");
        assert_eq!(secret(&secret("k3yForDocs2024").to_text()), secret("k3yForDocs2024"));
        assert_eq!(secret("whsec_not base64!"), secret("whsec_not base64!"), "such a key is its own bytes");
    }

    #[test]
    fn sends_three_headers_that_verify() {
        let id = DeliveryId(uuid_v7(UnixMs(1), [9; 10]));
        let sent: Vec<_> = headers(Some(&key("k3yForDocs2024")), id, UnixMs(SENT.0 + 999), BODY).collect();
        let [(ID, id_text), (TIMESTAMP, timestamp), (SIGNATURE, signature)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((id_text, timestamp.as_str()), (&format!("{id}"), "1649367553"));
        assert_eq!(verify(&secret("k3yForDocs2024"), id_text, timestamp, signature, BODY, SENT), Ok(()));
    }

    #[test]
    fn without_a_key_only_id_and_time_are_sent() {
        let id = DeliveryId(uuid_v7(UnixMs(1), [9; 10]));
        let names: Vec<_> = headers(None, id, SENT, BODY).map(|(name, _)| name).collect();
        assert_eq!(names, [ID, TIMESTAMP]);
    }

    #[test]
    fn turns_away_what_does_not_fit() {
        let several = format!("v1,AAAA {SIGNED} v1a,BBBB");
        let late = UnixMs(SENT.0 + 300_001);
        let early = UnixMs(SENT.0 - 300_001);
        let cases = [
            ("as sent", "1649367553", SIGNED, BODY, SENT, Ok(())),
            ("one of several signatures", "1649367553", &several, BODY, SENT, Ok(())),
            ("five minutes later", "1649367553", SIGNED, BODY, UnixMs(SENT.0 + 300_000), Ok(())),
            ("later still", "1649367553", SIGNED, BODY, late, Err(WebhookError::TimestampOutOfRange)),
            ("from the future", "1649367553", SIGNED, BODY, early, Err(WebhookError::TimestampOutOfRange)),
            ("another body", "1649367553", SIGNED, b"{}", SENT, Err(WebhookError::SignatureWrong)),
            ("another timestamp", "1649367554", SIGNED, BODY, SENT, Err(WebhookError::SignatureWrong)),
            ("no number", "yesterday", SIGNED, BODY, SENT, Err(WebhookError::TimestampMalformed)),
            ("no signature", "1649367553", "", BODY, SENT, Err(WebhookError::SignatureWrong)),
        ];
        for (name, timestamp, signature, body, now, expected) in cases {
            assert_eq!(verify(&secret(SECRET), MESSAGE_ID, timestamp, signature, body, now), expected, "{name}");
        }
    }

    #[test]
    fn secrets_print_as_stars() {
        assert_eq!(format!("{:?}", secret(SECRET)), "***");
    }
}
