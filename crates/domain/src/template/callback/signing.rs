//! How a template's callbacks are signed.

use alloc::string::String;
use core::fmt;

use framehook_verify::webhook::ed25519::SigningKey;

use super::CallbackKey;
use crate::{field::FieldError, time::UnixMs};

/// How callbacks are signed. Without a key `t` and `sign` are left out, and without an ed25519 key too nothing is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// Signs body and headers.
    pub key: Option<CallbackKey>,
    /// The key that was changed, while receivers may still have it alone: it signs the headers too.
    pub previous: Option<PreviousKey>,
    /// Signs the headers for receivers that are to check and not to sign.
    pub ed25519: Option<Ed25519Key>,
}

/// A key that is on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousKey {
    pub key: CallbackKey,
    /// It signs before that. `None`: until somebody takes it away.
    pub until: Option<UnixMs>,
}

/// The private half of an ed25519 key. `Debug` prints `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ed25519Key(SigningKey);

impl Ed25519Key {
    /// Of 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_seed(seed))
    }

    fn parse(text: &str) -> Result<Self, FieldError> {
        let allowed = "whsk_ and base64 of the 32 bytes of a seed, or of the 64 bytes of a pair";
        SigningKey::from_text(text).map(Self).map_err(|_| FieldError::secret("ed25519_key", text, allowed))
    }

    /// `whsk_` and base64: a secret.
    pub fn to_text(&self) -> String {
        self.0.to_text()
    }

    /// `whpk_` and base64, for receivers.
    pub fn public_text(&self) -> String {
        self.0.public_key().to_text()
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.0
    }
}

/// The same as plain values; empty texts are none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SigningDraft {
    pub key: Option<String>,
    pub previous_key: Option<String>,
    pub previous_key_until: Option<UnixMs>,
    /// `whsk_…`
    pub ed25519_key: Option<String>,
}

impl fmt::Debug for SigningDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Signing {
    /// The key before, if it signs at `now`.
    pub fn previous_at(&self, now: UnixMs) -> Option<&CallbackKey> {
        let previous = self.previous.as_ref()?;
        previous.until.is_none_or(|until| now < until).then_some(&previous.key)
    }

    pub(super) fn to_draft(&self) -> SigningDraft {
        let previous = self.previous.as_ref();
        SigningDraft {
            key: self.key.as_ref().map(|key| key.expose().into()),
            previous_key: previous.map(|previous| previous.key.expose().into()),
            previous_key_until: previous.and_then(|previous| previous.until),
            ed25519_key: self.ed25519.as_ref().map(Ed25519Key::to_text),
        }
    }

    pub(super) fn validate(draft: SigningDraft) -> Result<Self, FieldError> {
        // In CSS an empty key means that nothing is signed.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let key = given(draft.key).map(|key| CallbackKey::parse(&key)).transpose()?;
        // Without a key there is none that took its place: who removes the key means that nothing is signed.
        let previous = given(draft.previous_key).filter(|_| key.is_some());
        let previous = previous.map(|key| {
            let key = CallbackKey::parse(&key).map_err(|error| FieldError { field: "previous_key", ..error })?;
            Ok(PreviousKey { key, until: draft.previous_key_until })
        });
        let ed25519 = given(draft.ed25519_key).map(|text| Ed25519Key::parse(&text)).transpose()?;
        Ok(Self { key, previous: previous.transpose()?, ed25519 })
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn draft() -> SigningDraft {
        SigningDraft {
            key: Some("new".into()),
            previous_key: Some("old".into()),
            previous_key_until: Some(UnixMs(1000)),
            ed25519_key: Some(Ed25519Key::from_seed([7; 32]).to_text()),
        }
    }

    #[test]
    fn a_previous_key_signs_until_its_time() {
        let signing = Signing::validate(draft()).expect("valid");
        assert_eq!(signing.previous_at(UnixMs(999)).map(CallbackKey::expose), Some("old"));
        assert_eq!(signing.previous_at(UnixMs(1000)), None);
        let for_ever = Signing::validate(SigningDraft { previous_key_until: None, ..draft() }).expect("valid");
        assert!(for_ever.previous_at(UnixMs(i64::MAX)).is_some());
        assert_eq!(Signing::validate(signing.to_draft()).expect("what it gave it takes"), signing);
        let unsigned = Signing::validate(SigningDraft { key: Some("".into()), ..draft() }).expect("valid");
        assert_eq!(unsigned.previous, None, "it went with the key");
    }

    #[test]
    fn refuses_what_cannot_sign() {
        let rows = [
            ("a long previous key", SigningDraft { previous_key: Some("k".repeat(129)), ..draft() }, "previous_key"),
            ("a long key", SigningDraft { key: Some("k".repeat(129)), ..draft() }, "key"),
            ("no ed25519 key", SigningDraft { ed25519_key: Some("whsk_AAAA".into()), ..draft() }, "ed25519_key"),
        ];
        for (name, draft, field) in rows {
            assert_eq!(Signing::validate(draft).expect_err(name).field, field, "{name}");
        }
    }

    #[test]
    fn prints_no_key() {
        let signing = Signing::validate(draft()).expect("valid");
        let shown = format!("{signing:?} {:?}", draft());
        assert!(!shown.contains("whsk_") && !shown.contains("old") && shown.contains("***"), "{shown}");
    }
}
