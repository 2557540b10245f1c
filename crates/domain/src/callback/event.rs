//! The events we send: a snapshot was stored (200), a push began (1), a push ended (0).

use alloc::string::ToString;
use core::{net::IpAddr, time::Duration};

use serde_json::Value;

use super::EventBody;
use crate::{
    id::PushSequence,
    refusal::PushEnd,
    stream::{StreamId, StreamParam},
    time::UnixMs,
};

/// The kinds of event, by CSS's `event_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    PushEnded,
    PushBegan,
    Snapshot,
}

impl EventKind {
    pub const ALL: [Self; 3] = [Self::PushEnded, Self::PushBegan, Self::Snapshot];

    pub const fn event_type(self) -> u16 {
        match self {
            Self::PushEnded => 0,
            Self::PushBegan => 1,
            Self::Snapshot => 200,
        }
    }

    pub fn from_event_type(event_type: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| i64::from(kind.event_type()) == event_type)
    }

    /// The name used in metrics, logs and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PushEnded => "push_ended",
            Self::PushBegan => "push_began",
            Self::Snapshot => "snapshot",
        }
    }
}

/// CSS numbers its ingest clusters: 1 to 6 are inside the Chinese mainland. Receivers only tell inside from outside.
const SET_ID: i64 = 2;

/// Event 200.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotStored<'a> {
    pub stream: &'a StreamId,
    pub param: &'a StreamParam,
    /// The wall clock at the arrival of the entry point's last byte; sent in whole seconds, rounded down.
    pub create_time: UnixMs,
    pub file_size_bytes: u64,
    pub width: u32,
    pub height: u32,
    /// The object key with a leading slash.
    pub pic_url: &'a str,
    pub pic_full_url: &'a str,
    /// Only for pictures that a screenshot task asked for.
    pub task_id: Option<&'a str>,
    /// Which of a template's renditions it is. Only where there is more than one; CSS has no such field.
    pub rendition: Option<&'a str>,
}

impl SnapshotStored<'_> {
    pub fn body(&self) -> EventBody {
        let mut body = EventBody::from_fields([
            ("app", self.stream.domain.as_str().into()),
            ("appname", self.stream.app.as_str().into()),
            ("channel_id", self.stream.name.as_str().into()),
            ("create_time", self.create_time.secs().into()),
            ("event_type", EventKind::Snapshot.event_type().into()),
            ("file_size", self.file_size_bytes.into()),
            ("height", self.height.into()),
            ("pic_full_url", self.pic_full_url.into()),
            ("pic_url", self.pic_url.into()),
            ("stream_id", self.stream.name.as_str().into()),
            ("stream_param", self.param.as_wire().into()),
            ("width", self.width.into()),
        ]);
        if let Some(task_id) = self.task_id {
            body.0.insert("task_id".into(), task_id.into());
        }
        if let Some(rendition) = self.rendition {
            body.0.insert("rendition".into(), rendition.into());
        }
        body
    }
}

/// What both push events say.
#[derive(Clone, Copy, Debug)]
pub struct PushFacts<'a> {
    pub stream: &'a StreamId,
    pub param: &'a StreamParam,
    /// The deployment's account number.
    pub app_id: i64,
    pub sequence: PushSequence,
    /// The address the publisher reached us at.
    pub node: IpAddr,
    /// The publisher's address.
    pub user_ip: IpAddr,
}

/// Event 1.
#[derive(Clone, Copy, Debug)]
pub struct PushBegan<'a> {
    pub push: PushFacts<'a>,
    pub event_time: UnixMs,
    /// Pixels, 0 while not known.
    pub width: u32,
    pub height: u32,
}

impl PushBegan<'_> {
    pub fn body(&self) -> EventBody {
        push_body(&self.push, self.event_time, (self.width, self.height), EventKind::PushBegan, (0, "ok"))
    }
}

/// Event 0.
#[derive(Clone, Copy, Debug)]
pub struct PushEnded<'a> {
    pub push: PushFacts<'a>,
    pub event_time: UnixMs,
    pub end: PushEnd,
    /// From the push's begin to its last media byte.
    pub duration: Duration,
    /// Pixels, 0 when never known.
    pub width: u32,
    pub height: u32,
}

impl PushEnded<'_> {
    pub fn body(&self) -> EventBody {
        let error = (self.end.errcode(), self.end.errmsg());
        let mut body = push_body(&self.push, self.event_time, (self.width, self.height), EventKind::PushEnded, error);
        body.0.insert("push_duration".into(), self.duration.as_millis().to_string().into());
        body
    }
}

fn push_body(
    push: &PushFacts<'_>,
    event_time: UnixMs,
    (width, height): (u32, u32),
    kind: EventKind,
    (errcode, errmsg): (u16, &str),
) -> EventBody {
    EventBody::from_fields([
        ("app", push.stream.domain.as_str().into()),
        ("appid", push.app_id.into()),
        ("appname", push.stream.app.as_str().into()),
        ("channel_id", push.stream.name.as_str().into()),
        ("errcode", errcode.into()),
        ("errmsg", errmsg.into()),
        ("event_time", event_time.secs().into()),
        ("event_type", kind.event_type().into()),
        ("height", height.into()),
        ("node", push.node.to_string().into()),
        ("sequence", push.sequence.to_string().into()),
        ("set_id", Value::from(SET_ID)),
        ("stream_id", push.stream.name.as_str().into()),
        ("stream_param", push.param.as_wire().into()),
        ("user_ip", push.user_ip.to_string().into()),
        ("width", width.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_back_from_their_event_type() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_event_type(kind.event_type().into()), Some(kind));
        }
        assert_eq!(EventKind::from_event_type(100), None);
    }
}
