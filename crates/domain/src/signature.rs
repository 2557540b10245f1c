//! The signature in a callback's headers, as the sender makes it. `framehook-verify` holds both signatures' formulas and
//! the receiver's side, so that there is one implementation of each; `callback::render` puts the other into the body.

use alloc::{format, string::String, vec::Vec};

use framehook_verify::webhook::{ID, SIGNATURE, TIMESTAMP, WebhookSecret};

use crate::{
    id::DeliveryId,
    template::{CallbackKey, Ed25519Key, Signing},
    time::UnixMs,
};

/// The three headers of one attempt: [`ID`], [`TIMESTAMP`] and, with any key, [`SIGNATURE`] with one signature for each:
/// that of the current key first, since some receivers look at no other.
pub fn headers(
    signing: &Signing,
    id: DeliveryId,
    sent: UnixMs,
    body: &[u8],
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let id = format!("{id}");
    let timestamp = format!("{}", sent.secs());
    let symmetric = |key: &CallbackKey| WebhookSecret::from_callback_key(key.expose()).sign(&id, &timestamp, body);
    let asymmetric = |key: &Ed25519Key| key.key().sign(&id, &timestamp, body);
    let signatures: Vec<String> = (signing.key.as_ref().map(symmetric).into_iter())
        .chain(signing.previous_at(sent).map(symmetric))
        .chain(signing.ed25519.as_ref().map(asymmetric))
        .collect();
    let signature = (!signatures.is_empty()).then(|| signatures.join(" "));
    [(ID, Some(id)), (TIMESTAMP, Some(timestamp)), (SIGNATURE, signature)]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
}

#[cfg(test)]
mod tests {
    use framehook_verify::webhook::{Headers, verify};

    use super::*;
    use crate::{id::uuid_v7, template::PreviousKey};

    const BODY: &[u8] = br#"{"event_type":200}"#;
    const SENT: UnixMs = UnixMs::from_secs(1_649_367_553);

    fn key(text: &str) -> CallbackKey {
        CallbackKey::parse(text).expect("a key")
    }

    fn id() -> DeliveryId {
        DeliveryId(uuid_v7(UnixMs(1), [9; 10]))
    }

    #[test]
    fn sends_three_headers_that_verify() {
        let signing = Signing { key: Some(key("k3yForDocs2024")), ..Signing::default() };
        let sent: Vec<_> = headers(&signing, id(), UnixMs(SENT.0 + 999), BODY).collect();
        let [(ID, id_text), (TIMESTAMP, timestamp), (SIGNATURE, signature)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((id_text, timestamp.as_str()), (&format!("{}", id()), "1649367553"));
        let secret = WebhookSecret::from_callback_key("k3yForDocs2024");
        assert_eq!(
            verify([&secret], Headers { id: id_text, timestamp, signature }, BODY, SENT.secs()),
            Ok(SENT.secs())
        );
    }

    #[test]
    fn every_key_of_the_moment_signs() {
        let previous = PreviousKey { key: key("old"), until: Some(UnixMs(SENT.0 + 1)) };
        let ed25519 = Ed25519Key::from_seed([7; 32]);
        let signing = Signing { key: Some(key("new")), previous: Some(previous), ed25519: Some(ed25519) };
        let at = |sent| -> Vec<_> { headers(&signing, id(), sent, BODY).map(|(_, value)| value).collect() };
        let [id_text, timestamp, signature] = &at(SENT)[..] else { panic!("three headers") };
        let headers = Headers { id: id_text, timestamp, signature };
        for secret in ["new", "old"] {
            let secret = WebhookSecret::from_callback_key(secret);
            assert_eq!(verify([&secret], headers, BODY, SENT.secs()), Ok(SENT.secs()));
        }
        let public = Ed25519Key::from_seed([7; 32]).key().public_key();
        assert_eq!(public.verify(headers, BODY, SENT.secs()), Ok(SENT.secs()));
        assert!(signature.starts_with(&WebhookSecret::from_callback_key("new").sign(id_text, timestamp, BODY)));
        let later = &at(UnixMs(SENT.0 + 1))[2];
        assert_eq!(later.split(' ').count(), 2, "the time of the old one is over: {later}");
    }

    #[test]
    fn without_a_key_only_id_and_time_are_sent() {
        let names: Vec<_> = headers(&Signing::default(), id(), SENT, BODY).map(|(name, _)| name).collect();
        assert_eq!(names, [ID, TIMESTAMP]);
    }
}
