//! What callbacks say, as types. The fields bear the names that they have in the body; fields that a newer sender adds
//! are passed over.

use alloc::{format, string::String};
use core::time::Duration;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Map, Value};

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    SnapshotStored(SnapshotStored),
    PushBegan(PushBegan),
    PushEnded(PushEnded),
    /// A kind of event that this version does not know. It is signed like the others: answer 200, or it comes again.
    Other {
        event_type: i64,
        /// The body, `t` and `sign` included.
        fields: Map<String, Value>,
    },
}

/// Event 200: a picture was taken, and can be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SnapshotStored {
    #[serde(flatten)]
    pub stream: Stream,
    /// When the picture was taken, unix seconds.
    pub create_time: i64,
    /// Of the stored object, in bytes.
    pub file_size: u64,
    /// Of the stored picture, in pixels.
    pub width: u32,
    pub height: u32,
    /// The object's key in its bucket, with a leading slash.
    pub pic_url: String,
    /// Where the object can be fetched.
    pub pic_full_url: String,
    /// The screenshot task that asked for the picture; `None` when a rule did.
    pub task_id: Option<String>,
    /// Which rendition of the picture this is, `main` or a name of the template's; `None` when there is only one.
    pub rendition: Option<String>,
}

/// Event 1: somebody began to push a stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct PushBegan {
    #[serde(flatten)]
    pub push: Push,
}

/// Event 0: a push ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct PushEnded {
    #[serde(flatten)]
    pub push: Push,
    /// From the begin of the push to its last media byte.
    #[serde(deserialize_with = "millis_in_a_string")]
    pub push_duration: Duration,
}

/// What both push events say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Push {
    #[serde(flatten)]
    pub stream: Stream,
    /// The sender's account number.
    pub appid: i64,
    /// When it happened, unix seconds.
    pub event_time: i64,
    /// Names this push: its begin and its end carry the same.
    pub sequence: String,
    /// 0 for a begin; otherwise why the push ended, as `errmsg` says in words.
    pub errcode: i64,
    pub errmsg: String,
    /// The address that was pushed to, and the one it came from.
    pub node: String,
    pub user_ip: String,
    /// Of the stream, in pixels; 0 while not known.
    pub width: u32,
    pub height: u32,
}

/// Which stream an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[non_exhaustive]
pub struct Stream {
    /// The push domain.
    pub app: String,
    /// The path that was pushed to: `live` of `live/room_1001`.
    pub appname: String,
    /// The stream's name: `room_1001` of `live/room_1001`.
    pub stream_id: String,
    /// The query of the push URL, as pushed. It holds the publisher's signature: do not log it.
    pub stream_param: String,
}

/// A body that was signed and yet is none of our events.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("event_type is missing or not a whole number")]
    TypeMissing,
    #[error("event {event_type} lacks a field or has one of another type")]
    Fields {
        event_type: i64,
        #[source]
        source: serde_json::Error,
    },
}

impl Event {
    /// The event in a body's fields.
    pub(crate) fn from_fields(fields: Map<String, Value>) -> Result<Self, EventError> {
        let event_type = fields.get("event_type").and_then(Value::as_i64).ok_or(EventError::TypeMissing)?;
        match event_type {
            200 => typed(event_type, fields).map(Self::SnapshotStored),
            1 => typed(event_type, fields).map(Self::PushBegan),
            0 => typed(event_type, fields).map(Self::PushEnded),
            _ => Ok(Self::Other { event_type, fields }),
        }
    }
}

fn typed<T: DeserializeOwned>(event_type: i64, fields: Map<String, Value>) -> Result<T, EventError> {
    serde_json::from_value(Value::Object(fields)).map_err(|source| EventError::Fields { event_type, source })
}

/// CSS writes durations as strings of milliseconds.
fn millis_in_a_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let millis = text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number of milliseconds")))?;
    Ok(Duration::from_millis(millis))
}

impl core::fmt::Display for Stream {
    /// Domain, path and name, with slashes between them.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}/{}", self.app, self.appname, self.stream_id)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    /// The bodies that the sender's own tests hold it to.
    const SNAPSHOT: &str = include_str!("../../domain/src/callback/golden/snapshot.json");
    const RENDITION: &str = include_str!("../../domain/src/callback/golden/rendition.json");
    const BEGAN: &str = include_str!("../../domain/src/callback/golden/push_began.json");
    const ENDED: &str = include_str!("../../domain/src/callback/golden/push_ended.json");

    fn read(body: &str) -> Result<Event, EventError> {
        Event::from_fields(serde_json::from_str(body).expect("an object"))
    }

    #[test]
    fn reads_what_the_sender_writes() {
        let Ok(Event::SnapshotStored(snapshot)) = read(SNAPSHOT) else { panic!("{SNAPSHOT}") };
        assert_eq!(snapshot.stream.to_string(), "push.example.com/live/room_1001");
        assert_eq!((snapshot.create_time, snapshot.file_size), (1735689600, 48213));
        assert_eq!((snapshot.width, snapshot.height, &snapshot.task_id), (1280, 720, &None));
        assert!(snapshot.pic_full_url.ends_with(&snapshot.pic_url));

        let Ok(Event::PushBegan(PushBegan { push })) = read(BEGAN) else { panic!("{BEGAN}") };
        assert_eq!((push.sequence.as_str(), push.errcode, push.errmsg.as_str()), ("7310000000000000001", 0, "ok"));

        let Ok(Event::PushEnded(ended)) = read(ENDED) else { panic!("{ENDED}") };
        assert_eq!((ended.push.sequence, ended.push_duration), (push.sequence, Duration::from_secs(4270)));
    }

    #[test]
    fn tells_the_renditions_of_a_picture_apart() {
        let Ok(Event::SnapshotStored(snapshot)) = read(RENDITION) else { panic!("{RENDITION}") };
        assert_eq!(snapshot.rendition.as_deref(), Some("thumb"));
        let Ok(Event::SnapshotStored(snapshot)) = read(SNAPSHOT) else { panic!("{SNAPSHOT}") };
        assert_eq!(snapshot.rendition, None);
    }

    #[test]
    fn a_task_and_new_fields_do_no_harm() {
        let body = SNAPSHOT.replace("{\"app\"", "{\"idc_id\":34,\"task_id\":\"task-1\",\"app\"");
        let Ok(Event::SnapshotStored(snapshot)) = read(&body) else { panic!("{body}") };
        assert_eq!(snapshot.task_id.as_deref(), Some("task-1"));
    }

    #[test]
    fn an_unknown_event_is_no_error() {
        let Ok(Event::Other { event_type: 332, fields }) = read(r#"{"event_type":332,"seq":"1"}"#) else {
            panic!("event 332")
        };
        assert_eq!(fields["seq"], "1");
    }

    #[test]
    fn says_what_is_wrong_with_a_body() {
        assert!(matches!(read("{}"), Err(EventError::TypeMissing)));
        assert!(matches!(read(r#"{"event_type":"200"}"#), Err(EventError::TypeMissing)));
        for (change, to) in [("\"width\":1280", "\"width\":-1"), ("\"pic_url\"", "\"pic\"")] {
            let error = read(&SNAPSHOT.replace(change, to)).expect_err(to);
            assert!(matches!(error, EventError::Fields { event_type: 200, .. }), "{error:?}");
        }
        let error = read(&ENDED.replace("\"4270000\"", "\"long\"")).expect_err("a duration");
        assert!(matches!(error, EventError::Fields { event_type: 0, .. }), "{error:?}");
    }
}
