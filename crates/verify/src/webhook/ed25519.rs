//! Standard Webhooks 1.0.0, asymmetric scheme `v1a`: ed25519 over the same text as `v1`. Whoever has the public key can check
//! a callback and cannot make one.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_compact::{KeyPair, Seed, Signature};

use super::{Headers, WebhookError};

const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
const SCHEME_PREFIX: &str = "v1a,";

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 key in the form of Standard Webhooks")]
pub struct KeyMalformed;

/// The sender's half. `Debug` prints `***`.
#[derive(Clone)]
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// Of 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(KeyPair::from_seed(Seed::new(seed)))
    }

    /// Reads `whsk_` and base64 of a seed, or of a seed and its public key, as libraries print it.
    ///
    /// # Errors
    /// The text has another form, or the two halves do not belong together.
    pub fn from_text(text: &str) -> Result<Self, KeyMalformed> {
        let bytes = decode(text, PRIVATE_PREFIX)?;
        let (seed, public) = bytes.split_at_checked(32).ok_or(KeyMalformed)?;
        let key = Self::from_seed(seed.try_into().map_err(|_| KeyMalformed)?);
        if public.is_empty() || public == key.0.pk.as_ref() { Ok(key) } else { Err(KeyMalformed) }
    }

    /// `whsk_` and base64 of seed and public key. A secret: print it only where keys may be printed.
    pub fn to_text(&self) -> String {
        format!("{PRIVATE_PREFIX}{}", STANDARD.encode(self.0.sk.as_ref()))
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.pk)
    }

    /// A value for [`super::SIGNATURE`], alone or beside others.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        // Without noise the same text always has the same signature, as RFC 8032 has it.
        let signature = self.0.sk.sign(signed(id, timestamp, body), None);
        format!("{SCHEME_PREFIX}{}", STANDARD.encode(signature.as_ref()))
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.pk == other.0.pk
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The receiver's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(ed25519_compact::PublicKey);

impl PublicKey {
    /// Reads `whpk_` and base64, as the API shows it.
    ///
    /// # Errors
    /// The text has another form.
    pub fn from_text(text: &str) -> Result<Self, KeyMalformed> {
        let bytes = decode(text, PUBLIC_PREFIX)?;
        ed25519_compact::PublicKey::from_slice(&bytes).map(Self).map_err(|_| KeyMalformed)
    }

    /// `whpk_` and base64.
    pub fn to_text(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", STANDARD.encode(self.0.as_ref()))
    }

    /// The receiver's check at `now_secs` (unix seconds); gives the second of the attempt. The body's own `sign` need not be
    /// checked beside it, since this covers the whole body.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn verify(&self, headers: Headers<'_>, body: &[u8], now_secs: i64) -> Result<i64, WebhookError> {
        let sent_secs = headers.sent_secs(now_secs)?;
        let signed = signed(headers.id, headers.timestamp, body);
        let fits = |signature: &str| {
            let signature = STANDARD.decode(signature).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
            signature.is_some_and(|signature| self.0.verify(&signed, &signature).is_ok())
        };
        let mut candidates = headers.signature.split(' ').filter_map(|value| value.strip_prefix(SCHEME_PREFIX));
        if candidates.any(fits) { Ok(sent_secs) } else { Err(WebhookError::SignatureWrong) }
    }
}

fn decode(text: &str, prefix: &str) -> Result<Vec<u8>, KeyMalformed> {
    let base64 = text.strip_prefix(prefix).ok_or(KeyMalformed)?;
    STANDARD.decode(base64).map_err(|_| KeyMalformed)
}

fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const SENT: i64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;

    /// RFC 8032, 7.1, test 1.
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    const PUBLIC: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1,
        0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];

    #[test]
    fn has_the_public_key_of_the_standards_vector() {
        assert_eq!(SigningKey::from_seed(SEED).public_key().0.as_ref(), PUBLIC);
    }

    #[test]
    fn only_what_was_signed_verifies() {
        let key = SigningKey::from_seed(SEED);
        let signature = key.sign(ID, "1649367553", BODY);
        let several = format!("v1,AAAA {signature} v1a,BBBB");
        let other = SigningKey::from_seed([1; 32]).sign(ID, "1649367553", BODY);
        let as_v1 = signature.replace("v1a,", "v1,");
        let rows = [
            ("as sent", "1649367553", &*signature, BODY, SENT, Ok(SENT)),
            ("among others", "1649367553", &several, BODY, SENT, Ok(SENT)),
            ("too late", "1649367553", &signature, BODY, SENT + 301, Err(WebhookError::TimestampOutOfRange)),
            ("another body", "1649367553", &signature, b"{}", SENT, Err(WebhookError::SignatureWrong)),
            ("another time", "1649367554", &signature, BODY, SENT, Err(WebhookError::SignatureWrong)),
            ("another key", "1649367553", &other, BODY, SENT, Err(WebhookError::SignatureWrong)),
            ("another scheme", "1649367553", &as_v1, BODY, SENT, Err(WebhookError::SignatureWrong)),
            ("no signature", "1649367553", "v1a,", BODY, SENT, Err(WebhookError::SignatureWrong)),
        ];
        for (name, timestamp, signature, body, now_secs, expected) in rows {
            let headers = Headers { id: ID, timestamp, signature };
            assert_eq!(key.public_key().verify(headers, body, now_secs), expected, "{name}");
        }
    }

    #[test]
    fn keys_have_their_texts() {
        let key = SigningKey::from_seed(SEED);
        assert_eq!(SigningKey::from_text(&key.to_text()), Ok(key.clone()));
        let seed_alone = format!("whsk_{}", STANDARD.encode(SEED));
        assert_eq!(SigningKey::from_text(&seed_alone), Ok(key.clone()));
        assert_eq!(PublicKey::from_text(&key.public_key().to_text()), Ok(key.public_key()));
        let mixed = format!("whsk_{}", STANDARD.encode([SEED, [0; 32]].concat()));
        for text in ["", "whsk_", "whsk_AAAA", "whpk_AAAA", &mixed, &key.public_key().to_text()] {
            assert_eq!(SigningKey::from_text(text), Err(KeyMalformed), "{text}");
        }
        assert!(PublicKey::from_text(&key.to_text()).is_err());
        assert_eq!(format!("{key:?}"), "***");
    }
}
