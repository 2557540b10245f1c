//! The signature in a callback's headers, as the sender makes it. `framehook-verify` holds both signatures' formulas and
//! the receiver's side, so that there is one implementation of each; `callback::render` puts the other into the body.

use alloc::{format, string::String};

use framehook_verify::webhook::{ID, SIGNATURE, TIMESTAMP, WebhookSecret};

use crate::{id::DeliveryId, template::CallbackKey, time::UnixMs};

/// The three headers of one attempt: [`ID`], [`TIMESTAMP`] and, with a key, [`SIGNATURE`].
pub fn headers(
    key: Option<&CallbackKey>,
    id: DeliveryId,
    sent: UnixMs,
    body: &[u8],
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let id = format!("{id}");
    let timestamp = format!("{}", sent.secs());
    let signature = key.map(|key| WebhookSecret::from_callback_key(key.expose()).sign(&id, &timestamp, body));
    [(ID, Some(id)), (TIMESTAMP, Some(timestamp)), (SIGNATURE, signature)]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use framehook_verify::webhook::{Headers, verify};

    use super::*;
    use crate::id::uuid_v7;

    const BODY: &[u8] = br#"{"event_type":200}"#;
    const SENT: UnixMs = UnixMs::from_secs(1_649_367_553);

    #[test]
    fn sends_three_headers_that_verify() {
        let key = CallbackKey::parse("k3yForDocs2024").expect("a key");
        let id = DeliveryId(uuid_v7(UnixMs(1), [9; 10]));
        let sent: Vec<_> = headers(Some(&key), id, UnixMs(SENT.0 + 999), BODY).collect();
        let [(ID, id_text), (TIMESTAMP, timestamp), (SIGNATURE, signature)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((id_text, timestamp.as_str()), (&format!("{id}"), "1649367553"));
        let secret = WebhookSecret::from_callback_key("k3yForDocs2024");
        assert_eq!(
            verify([&secret], Headers { id: id_text, timestamp, signature }, BODY, SENT.secs()),
            Ok(SENT.secs())
        );
    }

    #[test]
    fn without_a_key_only_id_and_time_are_sent() {
        let id = DeliveryId(uuid_v7(UnixMs(1), [9; 10]));
        let names: Vec<_> = headers(None, id, SENT, BODY).map(|(name, _)| name).collect();
        assert_eq!(names, [ID, TIMESTAMP]);
    }
}
