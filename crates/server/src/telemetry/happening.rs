//! What listeners are told. Names and fields are an interface: programs read them, so they are added to and never changed.
//!
//! No field holds a key, a password, a push URL's query or a URL that is a permission (a signed one).

use std::net::IpAddr;

use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

/// One thing that has happened.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Event {
    /// When, ms since 1970.
    at_ms: i64,
    /// `domain/app/name`, of what is about a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(flatten)]
    what: Happening,
}

impl Event {
    pub(crate) fn new(at: UnixMs, stream: Option<&StreamId>, what: Happening) -> Self {
        Self { at_ms: at.0, stream: stream.map(ToString::to_string), what }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("an event is JSON")
    }
}

/// What has happened, by its `kind`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Happening {
    /// A push began: it is recorded, and event 1 is owed.
    PushBegan {
        /// The push.
        sequence: String,
        peer: IpAddr,
    },
    /// A push is over: its end is recorded, and event 0 is owed.
    PushEnded {
        sequence: String,
        /// Why, by the name that `framehook_session_ends_total` has.
        reason: &'static str,
        /// As event 0 has it.
        errcode: u16,
    },
    /// A publisher was accepted: of a new push, or of one that goes on.
    SessionBegan { sequence: String, peer: IpAddr },
    /// A publisher's connection is over. Its push may go on with another one.
    SessionEnded {
        sequence: String,
        peer: IpAddr,
        reason: &'static str,
        duration_ms: u64,
        /// What it sent.
        bytes: u64,
    },
    /// A publisher was turned away.
    PublishRefused {
        peer: IpAddr,
        /// What the push URL named, without its query.
        tried: String,
        /// As the encoder was told, `18/301`.
        code: String,
        reason: &'static str,
    },
    /// A picture was taken: it is durable, and what is owed of it is written down.
    SnapshotTaken {
        snapshot_id: Uuid,
        sequence: String,
        /// The rule that wanted it; 0 is the built-in one.
        #[serde(skip_serializing_if = "Option::is_none")]
        rule: Option<i64>,
        /// The screenshot task that wanted it.
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<String>,
        /// Which of its template's renditions it is, where there is more than one: each is told by itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        rendition: Option<String>,
        width: u32,
        height: u32,
        file_size_bytes: u64,
        /// When its keyframe arrived.
        create_time_ms: i64,
    },
    /// Pictures that were due were not taken. Told once a second for each push and reason.
    SnapshotSkipped {
        sequence: String,
        /// Why, by the name that `framehook_skipped_total` has.
        reason: &'static str,
        /// How many since this was last told.
        dues: u64,
    },
    /// A picture is in its store, and its callbacks are due.
    SnapshotStored { snapshot_id: Uuid, store: String, key: String },
    /// A picture could not be put into its store. It will be put again.
    SnapshotNotStored {
        snapshot_id: Uuid,
        store: String,
        key: String,
        /// From 1.
        attempt: u32,
        /// Why, by the name that `framehook_puts_total` has.
        reason: &'static str,
        /// Whether waiting alone will not mend it: a person should look.
        alarm: bool,
    },
    /// A bucket takes no pictures: they wait for it. Told once, and once more when it turns out that a person must mend what
    /// should have passed.
    BucketFailing {
        /// As the configuration names it.
        store: String,
        bucket: String,
        /// Why, by the name that `framehook_puts_total` has.
        reason: &'static str,
        /// Whether waiting alone will not mend it: a person should look.
        alarm: bool,
        /// Why, in words.
        error: String,
        /// What may be done about it.
        mend: &'static str,
    },
    /// That is over: it has taken one.
    BucketTaking { store: String, bucket: String },
    /// A receiver has taken a callback.
    DeliveryDelivered {
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// A receiver has not taken a callback. It will be sent again.
    DeliveryFailed {
        #[serde(flatten)]
        attempt: Attempt,
        /// Wait before the next attempt.
        retry_in_ms: u64,
    },
    /// A callback was given up. A replay sends it again.
    DeliveryDead {
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// Callbacks of an endpoint have been due for longer than `deliver.overdue_after`: a person should look.
    EndpointOverdue {
        #[serde(flatten)]
        endpoint: Endpoint,
        /// For how long the oldest has been due.
        oldest_due_age_ms: u64,
    },
    /// That is over.
    EndpointCaughtUp {
        #[serde(flatten)]
        endpoint: Endpoint,
    },
    /// Other domains, templates, rules or tasks are in force. `/v1/audit` tells which, and who changed them.
    ConfigurationChanged {
        /// One more at each change.
        version: u64,
    },
    /// The configuration file was read again.
    ConfigurationReloaded {
        /// `applied`, `refused` or `failed`.
        outcome: &'static str,
    },
    /// The certificate's files were read again.
    CertificateReloaded {
        /// `applied` or `refused`.
        outcome: &'static str,
    },
    /// A request came without the right credentials.
    LoginRefused {
        peer: IpAddr,
        /// `missing`, `wrong` or `too_many_attempts`.
        reason: &'static str,
    },
    /// This listener was too slow: so many events, of all kinds and streams, were not sent to it.
    Missed { count: u64 },
}

/// One try to deliver.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Attempt {
    /// The `webhook-id`.
    pub delivery_id: Uuid,
    /// 200 (a picture), 1 (a push began) or 0 (a push ended).
    pub event_type: u16,
    /// The receiver, without what its URL keeps secret.
    pub url: String,
    /// From 1, all rounds together; 0 where nothing was sent.
    pub attempt: u32,
    /// `delivered`, or the name of what went wrong.
    pub outcome: &'static str,
    /// What the receiver answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    pub duration_ms: u64,
}

/// Where callbacks of one kind go.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Endpoint {
    /// Its number in `/v1/endpoints`.
    #[serde(rename = "endpoint")]
    pub id: i64,
    /// The callback template's number.
    pub template: i64,
    /// 200 (a picture), 1 (a push began) or 0 (a push ended).
    pub event_type: u16,
}

impl Happening {
    /// Every kind there is.
    pub const KINDS: [&str; 21] = [
        "push_began",
        "push_ended",
        "session_began",
        "session_ended",
        "publish_refused",
        "snapshot_taken",
        "snapshot_skipped",
        "snapshot_stored",
        "snapshot_not_stored",
        "bucket_failing",
        "bucket_taking",
        "delivery_delivered",
        "delivery_failed",
        "delivery_dead",
        "endpoint_overdue",
        "endpoint_caught_up",
        "configuration_changed",
        "configuration_reloaded",
        "certificate_reloaded",
        "login_refused",
        "missed",
    ];

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        Self::KINDS[match self {
            Self::PushBegan { .. } => 0,
            Self::PushEnded { .. } => 1,
            Self::SessionBegan { .. } => 2,
            Self::SessionEnded { .. } => 3,
            Self::PublishRefused { .. } => 4,
            Self::SnapshotTaken { .. } => 5,
            Self::SnapshotSkipped { .. } => 6,
            Self::SnapshotStored { .. } => 7,
            Self::SnapshotNotStored { .. } => 8,
            Self::BucketFailing { .. } => 9,
            Self::BucketTaking { .. } => 10,
            Self::DeliveryDelivered { .. } => 11,
            Self::DeliveryFailed { .. } => 12,
            Self::DeliveryDead { .. } => 13,
            Self::EndpointOverdue { .. } => 14,
            Self::EndpointCaughtUp { .. } => 15,
            Self::ConfigurationChanged { .. } => 16,
            Self::ConfigurationReloaded { .. } => 17,
            Self::CertificateReloaded { .. } => 18,
            Self::LoginRefused { .. } => 19,
            Self::Missed { .. } => 20,
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_are_those_of_the_json_and_of_its_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(Happening)).unwrap();
        let variants = schema["oneOf"].as_array().expect("a variant for each kind");
        let named: Vec<_> =
            variants.iter().map(|variant| variant["properties"]["kind"]["const"].as_str().unwrap()).collect();
        assert_eq!(named, Happening::KINDS);
        for what in [
            Happening::ConfigurationChanged { version: 1 },
            Happening::SnapshotStored { snapshot_id: Uuid::nil(), store: String::new(), key: String::new() },
            Happening::BucketTaking { store: String::new(), bucket: String::new() },
            Happening::EndpointCaughtUp { endpoint: Endpoint { id: 1, template: 2, event_type: 200 } },
            Happening::Missed { count: 1 },
        ] {
            let json: serde_json::Value =
                serde_json::from_str(&Event::new(UnixMs(0), None, what.clone()).json()).unwrap();
            assert_eq!(json["kind"], what.kind());
        }
    }
}
