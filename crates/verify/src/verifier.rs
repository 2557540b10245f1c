//! Every signature and the event, in one call.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde_json::{Map, Value};

#[cfg(feature = "ed25519")]
use crate::webhook::ed25519::PublicKey;
use crate::{
    css::{self, Check, Report},
    event::{Event, EventError},
    webhook::{self, Headers, WebhookError, WebhookSecret},
};

/// Checks callbacks with one callback key, or with several while it is being changed; with the feature `ed25519` also with
/// public keys, for receivers that are to check callbacks and not to make them.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Vec<Key>,
    /// Of either kind there is at least one key.
    #[cfg(feature = "ed25519")]
    public_keys: Vec<PublicKey>,
}

/// One callback key in the forms that the two signatures use it in.
#[derive(Clone)]
struct Key {
    text: String,
    secret: WebhookSecret,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key that protects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the callback key is empty")]
pub struct EmptyKey;

/// A callback whose sender knew the key, and whose body is as it was sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Callback {
    /// Names the delivery. A callback can come twice, for one when an answer was lost; both times it has this id. Keep the
    /// ids you have dealt with, best in the transaction that holds what you did, and answer 200 to one you know.
    pub webhook_id: String,
    /// When this attempt was made, unix seconds.
    pub sent_secs: i64,
    pub event: Event,
}

/// Why a request is turned away.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The signature in the headers.
    #[error(transparent)]
    Headers(#[from] WebhookError),
    /// The signature in the body: which check failed, and why.
    #[error("{why}")]
    Body { check: Check, why: String },
    /// Both signatures are right, and yet this is no event.
    #[error(transparent)]
    Event(#[from] EventError),
}

impl VerifyError {
    /// The HTTP status to answer with: 401 when the sender did not prove to be the right one, 400 when it did and sent
    /// nothing usable. Any status but 200 makes the sender try again.
    pub fn status(&self) -> u16 {
        match self {
            Self::Headers(_) | Self::Body { .. } => 401,
            Self::Event(_) => 400,
        }
    }
}

impl Verifier {
    /// A verifier with the callback key of the template whose URL leads here.
    ///
    /// # Errors
    /// The key is empty: a signature under it could be made by anybody.
    pub fn new(callback_key: &str) -> Result<Self, EmptyKey> {
        Self::without_keys().or_key(callback_key)
    }

    /// A verifier with the public key (`ed25519_public_key`, `whpk_…`) of the template whose URL leads here. It looks at `v1a`
    /// signatures alone, which cover the whole body: the `sign` in the body needs the callback key, and is not looked at.
    #[cfg(feature = "ed25519")]
    pub fn with_public_key(key: PublicKey) -> Self {
        Self::without_keys().or_public_key(key)
    }

    /// Accepts what this key has signed too: while the template gets another one, or while receivers move from the callback
    /// key to the public one.
    #[cfg(feature = "ed25519")]
    #[must_use]
    pub fn or_public_key(mut self, key: PublicKey) -> Self {
        self.public_keys.push(key);
        self
    }

    fn without_keys() -> Self {
        Self {
            keys: Vec::new(),
            #[cfg(feature = "ed25519")]
            public_keys: Vec::new(),
        }
    }

    /// Accepts another key too. To change a key without losing callbacks: accept the new one here, give it to the sender,
    /// then take the old one away here.
    ///
    /// # Errors
    /// The key is empty.
    pub fn or_key(mut self, callback_key: &str) -> Result<Self, EmptyKey> {
        if callback_key.is_empty() {
            return Err(EmptyKey);
        }
        self.keys.push(Key { text: callback_key.into(), secret: WebhookSecret::from_callback_key(callback_key) });
        Ok(self)
    }

    /// Checks a request that arrived at `now_secs` (unix seconds) and gives what it says. `body` is the body's bytes exactly
    /// as they came; `header` looks up a header by its lower-case name.
    ///
    /// Cap the body before: a callback has less than [`crate::BODY_BYTES_MAX`].
    ///
    /// # Errors
    /// See [`VerifyError`]. The headers' signature is looked at first, so that no byte of a stranger's body is parsed.
    pub fn verify<'h>(
        &self,
        body: &[u8],
        header: impl Fn(&'static str) -> Option<&'h str>,
        now_secs: i64,
    ) -> Result<Callback, VerifyError> {
        let headers = Headers::read(header)?;
        if let Some(sent_secs) = self.verify_public(headers, body, now_secs) {
            return callback(headers, sent_secs, css::examine(body, None, now_secs));
        }
        let sent_secs = webhook::verify(self.keys.iter().map(|key| &key.secret), headers, body, now_secs)?;
        let keys: Vec<&str> = self.keys.iter().map(|key| key.text.as_str()).collect();
        callback(headers, sent_secs, css::examine(body, Some(&keys), now_secs))
    }

    /// The second of the attempt, if one of the public keys vouches for it.
    #[cfg(feature = "ed25519")]
    fn verify_public(&self, headers: Headers<'_>, body: &[u8], now_secs: i64) -> Option<i64> {
        self.public_keys.iter().find_map(|key| key.verify(headers, body, now_secs).ok())
    }

    #[cfg(not(feature = "ed25519"))]
    fn verify_public(&self, _: Headers<'_>, _: &[u8], _: i64) -> Option<i64> {
        None
    }
}

fn callback(
    headers: Headers<'_>,
    sent_secs: i64,
    (report, fields): (Report, Map<String, Value>),
) -> Result<Callback, VerifyError> {
    if let Some((check, why)) = report.first_failure() {
        return Err(VerifyError::Body { check, why: why.into() });
    }
    Ok(Callback { webhook_id: headers.id.into(), sent_secs, event: Event::from_fields(fields)? })
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    const KEY: &str = "k3yForDocs2024";
    /// When the golden body was sent.
    const SENT: i64 = 1_735_689_601;
    const SNAPSHOT: &str = include_str!("../../domain/src/callback/golden/snapshot.json").trim_ascii_end();

    /// The headers that a sender with this key puts before a body.
    fn signed(key: &str, sent_secs: i64, body: &str) -> [(&'static str, String); 3] {
        let (id, timestamp) = ("delivery-1", sent_secs.to_string());
        let signature = WebhookSecret::from_callback_key(key).sign(id, &timestamp, body.as_bytes());
        [(webhook::ID, id.into()), (webhook::TIMESTAMP, timestamp), (webhook::SIGNATURE, signature)]
    }

    fn verify(verifier: &Verifier, headers: &[(&str, String)], body: &str, now: i64) -> Result<Callback, VerifyError> {
        let header = |wanted| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
        verifier.verify(body.as_bytes(), header, now)
    }

    #[test]
    fn a_genuine_callback_becomes_its_event() {
        let verifier = Verifier::new(KEY).expect("a key");
        let callback = verify(&verifier, &signed(KEY, SENT, SNAPSHOT), SNAPSHOT, SENT + 1).expect("genuine");
        assert_eq!((callback.webhook_id.as_str(), callback.sent_secs), ("delivery-1", SENT));
        let Event::SnapshotStored(snapshot) = callback.event else { panic!("{:?}", callback.event) };
        assert_eq!(snapshot.stream.stream_id, "room_1001");
    }

    #[test]
    fn each_fault_has_its_error_and_status() {
        let verifier = Verifier::new(KEY).expect("a key");
        let good = signed(KEY, SENT, SNAPSHOT);
        // The headers are signed again later, the body is not: only t is old.
        let late = css::expiry_secs(SENT) + 1;
        let wrong_sign = SNAPSHOT.replace("4f9ce1a1", "4f9ce1a2");
        let no_event = format!(r#"{{"sign":"{}","t":{SENT}}}"#, css::sign(KEY, SENT));
        let cases = [
            ("no headers", &[][..], SNAPSHOT, SENT, "the header webhook-id is missing", 401),
            ("forged body", &good, "{}", SENT, "no signature in webhook-signature", 401),
            (
                "another key",
                &signed("another", SENT, SNAPSHOT),
                SNAPSHOT,
                SENT,
                "no signature in webhook-signature",
                401,
            ),
            ("old headers", &good, SNAPSHOT, SENT + 301, "webhook-timestamp is more than five minutes off", 401),
            ("old t", &signed(KEY, late, SNAPSHOT), SNAPSHOT, late, "t passed 1 s ago", 401),
            ("wrong sign", &signed(KEY, SENT, &wrong_sign), &wrong_sign, SENT, "sign is not MD5(key + t)", 401),
            ("no JSON", &signed(KEY, SENT, "sign=1"), "sign=1", SENT, "the body is not JSON", 401),
            ("no event", &signed(KEY, SENT, &no_event), &no_event, SENT, "event_type is missing", 400),
        ];
        for (name, headers, body, now, says, status) in cases {
            let error = verify(&verifier, headers, body, now).expect_err(name);
            assert!(error.to_string().starts_with(says), "{name}: {error}");
            assert_eq!(error.status(), status, "{name}");
        }
    }

    #[test]
    fn two_keys_serve_while_one_is_changed() {
        let verifier = Verifier::new("previous").and_then(|verifier| verifier.or_key(KEY)).expect("keys");
        assert!(verify(&verifier, &signed(KEY, SENT, SNAPSHOT), SNAPSHOT, SENT).is_ok());
        let verifier = Verifier::new("previous").expect("a key");
        assert!(verify(&verifier, &signed(KEY, SENT, SNAPSHOT), SNAPSHOT, SENT).is_err());
    }

    #[cfg(feature = "ed25519")]
    #[test]
    fn a_public_key_is_enough_and_vouches_for_nothing_else() {
        use crate::webhook::ed25519::SigningKey;

        let (key, other) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
        let with = |public| Verifier::with_public_key(public);
        // As the sender signs: one header with both, or the public one alone where the template has no callback key.
        let both = |key: &SigningKey, callback_key: &str| {
            let [id, timestamp, (name, v1)] = signed(callback_key, SENT, SNAPSHOT);
            let v1a = key.sign(&id.1, &timestamp.1, SNAPSHOT.as_bytes());
            [id, timestamp, (name, format!("{v1} {v1a}"))]
        };
        let check = |verifier: &Verifier, headers: &[(&str, String)], body| {
            verify(verifier, headers, body, SENT).map(|callback| callback.webhook_id).map_err(|error| error.to_string())
        };
        let refused = Err("no signature in webhook-signature fits the body".into());
        let genuine = Ok(String::from("delivery-1"));
        assert_eq!(check(&with(key.public_key()), &both(&key, "unknown"), SNAPSHOT), genuine);
        assert_eq!(check(&with(other.public_key()), &both(&key, "unknown"), SNAPSHOT), refused);
        assert_eq!(check(&with(key.public_key()), &both(&key, "unknown"), "{}"), refused);
        assert_eq!(check(&with(key.public_key()), &signed("", SENT, SNAPSHOT), SNAPSHOT), refused);

        let either = Verifier::new(KEY).expect("a key").or_public_key(key.public_key());
        assert_eq!(check(&either, &signed(KEY, SENT, SNAPSHOT), SNAPSHOT), genuine);
        assert_eq!(check(&either, &both(&key, "unknown"), SNAPSHOT), genuine);
        assert_eq!(check(&either, &both(&other, "unknown"), SNAPSHOT), refused);

        // The body's own signature is old or wrong, which the public key cannot tell and need not.
        let changed = SNAPSHOT.replace("4f9ce1a1", "4f9ce1a2");
        let signature = key.sign("delivery-1", &SENT.to_string(), changed.as_bytes());
        let headers = [
            (webhook::ID, "delivery-1".into()),
            (webhook::TIMESTAMP, SENT.to_string()),
            (webhook::SIGNATURE, signature),
        ];
        assert_eq!(check(&with(key.public_key()), &headers, &changed), genuine);
        let late = verify(&with(key.public_key()), &headers, &changed, SENT + 301).expect_err("too late");
        assert_eq!(late.to_string(), "webhook-timestamp is more than five minutes off");
    }

    #[test]
    fn an_empty_key_is_refused_and_no_key_is_printed() {
        assert_eq!(Verifier::new("").expect_err("empty"), EmptyKey);
        let shown = format!("{:?}", Verifier::new(KEY));
        assert!(!shown.contains(KEY) && shown.contains("***"), "{shown}");
    }
}
