//! What a callback says (CSS, 267/38081 and 267/38083): one flat JSON object per event, keys sorted, no spaces, with `t`
//! and `sign` put in anew for each attempt.

mod event;

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

pub use event::{EventKind, PushBegan, PushEnded, PushFacts, SnapshotStored};
use framehook_verify::css;
use serde_json::Value;

use crate::{template::CallbackKey, time::UnixMs};

/// The body of an event without `t` and `sign`: what the database keeps. Every attempt sends exactly these fields and
/// values; only `t` and `sign` differ.
#[derive(Clone, Debug, PartialEq)]
pub struct EventBody(BTreeMap<String, Value>);

/// A stored body that is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored event body is not a JSON object")]
pub struct NotAnObject;

impl EventBody {
    fn from_fields<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// Reads back what [`EventBody::to_json`] wrote.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn from_json(stored: &[u8]) -> Result<Self, NotAnObject> {
        serde_json::from_slice(stored).map(Self).map_err(|_| NotAnObject)
    }

    /// Canonical JSON: keys in byte order, no spaces.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(&self.0)
    }

    /// A field's value, for showing an event.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }
}

/// The bytes of one attempt made at `sent`. With a key, `t` (ten minutes after `sent`) and `sign` stand in their sorted
/// places; without one both are left out, because a signature under an empty key could be forged by anybody.
pub fn render(body: &EventBody, key: Option<&CallbackKey>, sent: UnixMs) -> Vec<u8> {
    let Some(key) = key else { return body.to_json() };
    let t = css::expiry_secs(sent.secs());
    let mut fields = body.0.clone();
    fields.insert("t".into(), t.into());
    fields.insert("sign".into(), css::sign(key.expose(), t).into());
    to_json(&fields)
}

fn to_json(fields: &BTreeMap<String, Value>) -> Vec<u8> {
    // Written by hand around serde_json's own writer: a `Map` keeps insertion order when some other crate turns that
    // feature on, and these bytes are a contract.
    let members: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        hex,
        id::PushSequence,
        refusal::PushEnd,
        stream::{AppName, DomainName, StreamId, StreamName, StreamParam},
    };

    fn stream() -> (StreamId, StreamParam) {
        let stream = StreamId {
            domain: DomainName::parse("push.example.com").expect("a domain"),
            app: AppName::parse("live").expect("an app"),
            name: StreamName::parse("room_1001").expect("a stream"),
        };
        let param = StreamParam::parse("txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF").expect("a query");
        (stream, param)
    }

    fn key() -> Option<CallbackKey> {
        CallbackKey::parse("k3yForDocs2024").ok()
    }

    const PIC_FULL_URL: &str = "http://shots-1250000000.cos.ap-guangzhou.myqcloud.com/2025-01-01/\
                                room_1001-screenshot-08-00-00-1280x720.jpg";

    fn snapshot() -> EventBody {
        let (stream, param) = stream();
        SnapshotStored {
            stream: &stream,
            param: &param,
            create_time: UnixMs(1_735_689_600_999),
            file_size_bytes: 48213,
            width: 1280,
            height: 720,
            pic_url: "/2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg",
            pic_full_url: PIC_FULL_URL,
            task_id: None,
            rendition: None,
        }
        .body()
    }

    fn push_facts<'a>(stream: &'a StreamId, param: &'a StreamParam) -> PushFacts<'a> {
        PushFacts {
            stream,
            param,
            app_id: 1_250_000_000,
            sequence: PushSequence::from_i64(7_310_000_000_000_000_001).expect("a sequence"),
            node: "192.0.2.10".parse().expect("an address"),
            user_ip: "203.0.113.7".parse().expect("an address"),
        }
    }

    fn text(body: &EventBody, key: Option<&CallbackKey>, sent_secs: i64) -> String {
        String::from_utf8(render(body, key, UnixMs::from_secs(sent_secs))).expect("UTF-8")
    }

    /// Every golden file is one line as it goes over the wire; the line break at its end is not part of it.
    const SNAPSHOT: &str = include_str!("callback/golden/snapshot.json").trim_ascii_end();

    #[test]
    fn renders_the_golden_snapshot_byte_for_byte() {
        let body = text(&snapshot(), key().as_ref(), 1735689601);
        assert_eq!(body, SNAPSHOT);
        assert_eq!(body.len(), 502);
        assert_eq!(
            hex::lower(Sha256::digest(body)),
            "ac5aaf2cf90e28cc8d7a8f481fb1b8d34200b315d91c32c59345729954401e20"
        );
    }

    #[test]
    fn a_retry_differs_only_in_t_and_sign() {
        let retried = text(&snapshot(), key().as_ref(), 1735689721);
        let expected = SNAPSHOT
            .replace("4f9ce1a147eede4654f8d35ce939c39e", "a9bb8722f03e5418914e8baf0a069500")
            .replace("1735690201", "1735690321");
        assert_eq!(retried, expected);
    }

    #[test]
    fn renders_the_golden_push_begin() {
        let (stream, param) = stream();
        let body = PushBegan {
            push: push_facts(&stream, &param),
            event_time: UnixMs::from_secs(1735689000),
            width: 0,
            height: 0,
        }
        .body();
        assert_eq!(
            text(&body, key().as_ref(), 1735689000),
            include_str!("callback/golden/push_began.json").trim_ascii_end()
        );
    }

    #[test]
    fn renders_the_golden_push_end() {
        let (stream, param) = stream();
        let body = PushEnded {
            push: push_facts(&stream, &param),
            event_time: UnixMs::from_secs(1735693270),
            end: PushEnd::DeleteStream,
            duration: core::time::Duration::from_secs(4270),
            width: 1280,
            height: 720,
        }
        .body();
        assert_eq!(
            text(&body, key().as_ref(), 1735693270),
            include_str!("callback/golden/push_ended.json").trim_ascii_end()
        );
    }

    #[test]
    fn without_a_key_neither_t_nor_sign_is_sent() {
        let body = text(&snapshot(), None, 1735689601);
        let expected =
            SNAPSHOT.replace(r#""sign":"4f9ce1a147eede4654f8d35ce939c39e","#, "").replace(r#""t":1735690201,"#, "");
        assert_eq!(body, expected);
    }

    #[test]
    fn a_stored_body_renders_as_the_fresh_one_did() {
        let stored = snapshot().to_json();
        let again = EventBody::from_json(&stored).expect("an object");
        assert_eq!(text(&again, key().as_ref(), 1735689601), SNAPSHOT);
        assert_eq!(EventBody::from_json(b"[]"), Err(NotAnObject));
        assert_eq!(EventBody::from_json(b"{"), Err(NotAnObject));
    }

    #[test]
    fn task_shots_carry_their_task_id() {
        let (stream, param) = stream();
        let body = SnapshotStored {
            stream: &stream,
            param: &param,
            create_time: UnixMs(0),
            file_size_bytes: 1,
            width: 2,
            height: 2,
            pic_url: "/a.jpg",
            pic_full_url: "http://h/a.jpg",
            task_id: Some("task-1"),
            rendition: None,
        }
        .body();
        let sent = text(&body, key().as_ref(), 0);
        assert!(sent.contains(r#""t":600,"task_id":"task-1","width":2"#), "{sent}");
    }

    #[test]
    fn one_of_several_renditions_says_which_it_is() {
        let (stream, param) = stream();
        let body = SnapshotStored {
            stream: &stream,
            param: &param,
            create_time: UnixMs(1_735_689_600_999),
            file_size_bytes: 4821,
            width: 320,
            height: 180,
            pic_url: "/2025-01-01/room_1001-screenshot-08-00-00-320x180-thumb.webp",
            pic_full_url: &PIC_FULL_URL.replace("1280x720.jpg", "320x180-thumb.webp"),
            task_id: None,
            rendition: Some("thumb"),
        }
        .body();
        let expected = include_str!("callback/golden/rendition.json").trim_ascii_end();
        assert_eq!(text(&body, key().as_ref(), 1735689601), expected);
    }

    #[test]
    fn has_the_fields_and_types_of_the_published_sample() {
        // The sample printed in the vendor's documentation; its ids, host and signature are placeholders.
        let published = include_str!("callback/golden/published_sample.json");
        let shape = |body: &[u8]| -> Vec<(String, core::mem::Discriminant<Value>)> {
            let EventBody(fields) = EventBody::from_json(body).expect("an object");
            fields.into_iter().map(|(name, value)| (name, core::mem::discriminant(&value))).collect()
        };
        assert_eq!(shape(&render(&snapshot(), key().as_ref(), UnixMs(0))), shape(published.as_bytes()));
    }

    #[test]
    fn hostile_text_stays_inside_its_string() {
        let (stream, _) = stream();
        let param = StreamParam::parse("a=\",\"event_type\":1,\"\\\n\u{1}é").expect("a query");
        let body = SnapshotStored {
            stream: &stream,
            param: &param,
            create_time: UnixMs(0),
            file_size_bytes: 1,
            width: 2,
            height: 2,
            pic_url: "/a.jpg",
            pic_full_url: "http://h/a.jpg",
            task_id: None,
            rendition: None,
        }
        .body();
        let read: Value = serde_json::from_slice(&body.to_json()).expect("JSON");
        assert_eq!(read["event_type"], 200);
        assert_eq!(read["stream_param"].as_str().map(ToString::to_string), Some(param.as_wire().to_string()));
    }
}
