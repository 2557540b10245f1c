//! The audit log: who changed what, from what, to what.
//!
//! A [`Change`] is written in the transaction of the change itself ([`db::audit`](crate::db::audit)), so that neither is there
//! without the other. What it holds of a secret tells whether it is the same as before and nothing else.

mod inventory;

use std::net::IpAddr;

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, SnapshotId};
use framehook_domain::stream::StreamId;
use framehook_domain::task::ScreenshotTask;
use framehook_domain::template::CallbackUrl;
use serde_json::{Value, json};

use crate::credentials::AccessKey;
use crate::db::outbox::State;
use crate::db::replays::{Order, ReplayId};
use crate::db::secret::Vault;

pub(crate) use inventory::changes;

/// Who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever holds a key, over the network.
    Key { id: String, name: String, peer: IpAddr },
    /// Whoever may open the data directory: over the control socket, or by a command while no server runs.
    Control,
    /// The configuration file, at a start or a reload.
    File,
}

impl Caller {
    /// The holder of `key` at `peer`.
    pub fn key(key: &AccessKey, peer: IpAddr) -> Self {
        Self::Key { id: key.id.clone(), name: key.name.clone(), peer }
    }

    /// A key's SecretId, `control` or `file`.
    pub fn who(&self) -> &str {
        match self {
            Self::Key { id, .. } => id,
            Self::Control => "control",
            Self::File => "file",
        }
    }

    /// A key's name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Key { name, .. } => Some(name),
            Self::Control | Self::File => None,
        }
    }

    /// Where a request came from.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Key { peer, .. } => Some(*peer),
            Self::Control | Self::File => None,
        }
    }
}

/// What kind of thing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    Domain,
    SnapshotTemplate,
    CallbackTemplate,
    SnapshotRule,
    CallbackRule,
    ScreenshotTask,
    /// Forbidden, resumed or dropped; its id is `domain/app/name`.
    Stream,
    Key,
    Delivery,
    Snapshot,
    /// An order to send many deliveries again.
    Replay,
}

impl Noun {
    pub const ALL: [Self; 11] = [
        Self::Domain,
        Self::SnapshotTemplate,
        Self::CallbackTemplate,
        Self::SnapshotRule,
        Self::CallbackRule,
        Self::ScreenshotTask,
        Self::Stream,
        Self::Key,
        Self::Delivery,
        Self::Snapshot,
        Self::Replay,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::SnapshotTemplate => "snapshot_template",
            Self::CallbackTemplate => "callback_template",
            Self::SnapshotRule => "snapshot_rule",
            Self::CallbackRule => "callback_rule",
            Self::ScreenshotTask => "screenshot_task",
            Self::Stream => "stream",
            Self::Key => "key",
            Self::Delivery => "delivery",
            Self::Snapshot => "snapshot",
            Self::Replay => "replay",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|noun| noun.name() == name)
    }
}

/// One change of one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub noun: Noun,
    pub id: String,
    pub verb: &'static str,
    /// `None`: there was nothing.
    pub before: Option<Value>,
    /// `None`: nothing is left.
    pub after: Option<Value>,
}

impl Change {
    /// A publisher was told to go.
    pub fn stream_dropped(stream: &StreamId) -> Self {
        Self { noun: Noun::Stream, id: stream.to_string(), verb: "drop", before: None, after: None }
    }

    /// A screenshot task was forgotten, whether it was over or not.
    pub fn task_deleted(task: &ScreenshotTask) -> Self {
        let before = Some(inventory::task_view(task));
        Self { noun: Noun::ScreenshotTask, id: task.id.to_string(), verb: "delete", before, after: None }
    }

    /// A delivery was taken up again, to another URL if one was given.
    pub fn delivery_replayed(
        id: DeliveryId,
        before: Option<State>,
        after: State,
        url: Option<&CallbackUrl>,
        vault: &Vault,
    ) -> Self {
        let mut change = Self::delivery(id, "replay", before, after);
        if let (Some(after), Some(url)) = (&mut change.after, url) {
            after["url"] = inventory::url_view(url, vault).into();
        }
        change
    }

    /// A delivery was ended.
    pub fn delivery(id: DeliveryId, verb: &'static str, before: Option<State>, after: State) -> Self {
        let state = |state: State| json!({ "state": state.name() });
        let (before, after) = (before.map(state), Some(state(after)));
        Self { noun: Noun::Delivery, id: id.to_string(), verb, before, after }
    }

    /// Many deliveries are to be sent again, to another URL if one was given.
    pub fn replay_ordered(id: ReplayId, order: &Order, url: Option<&CallbackUrl>, vault: &Vault) -> Self {
        let Order { filter, per_sec, .. } = order;
        let states: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
        let after = json!({
            "state": states.join(","),
            "stream": filter.stream.as_ref().map(ToString::to_string),
            "template": filter.template.map(|template| template.0),
            "endpoint": filter.endpoint.map(|endpoint| endpoint.0),
            "event_type": filter.kind.map(EventKind::event_type),
            "since_ms": filter.since.map(|since| since.0),
            "until_ms": filter.until.map(|until| until.0),
            "per_sec": per_sec,
            "url": url.map(|url| inventory::url_view(url, vault)),
        });
        Self { noun: Noun::Replay, id: id.0.to_string(), verb: "create", before: None, after: Some(after) }
    }

    /// A replay of many deliveries was ended before its time.
    pub fn replay_cancelled(id: ReplayId) -> Self {
        Self { noun: Noun::Replay, id: id.0.to_string(), verb: "cancel", before: None, after: None }
    }

    /// A picture that was owed to its store was given up.
    pub fn snapshot_discarded(id: SnapshotId) -> Self {
        let put = |state: &str| Some(json!({ "put_state": state }));
        let (before, after) = (put("owed"), put("discarded"));
        Self { noun: Noun::Snapshot, id: id.to_string(), verb: "discard", before, after }
    }

    /// A key was added.
    pub fn key_added(id: &str, name: &str, read_only: bool) -> Self {
        Self { after: Some(key(name, read_only)), ..Self::of_key(id, "create") }
    }

    /// A key was taken out of force.
    pub fn key_revoked(id: &str, name: &str, read_only: bool) -> Self {
        Self { before: Some(key(name, read_only)), ..Self::of_key(id, "revoke") }
    }

    fn of_key(id: &str, verb: &'static str) -> Self {
        Self { noun: Noun::Key, id: id.to_owned(), verb, before: None, after: None }
    }
}

fn key(name: &str, read_only: bool) -> Value {
    json!({ "name": name, "read_only": read_only })
}

/// A secret as the log holds it: `***` and 32 bits of a digest under the master key, so that a change of it can be seen, and
/// nothing tried out on it by whoever has only the log.
pub(crate) fn masked(vault: &Vault, secret: &str) -> String {
    let [a, b, c, d, ..] = vault.digest("audit", secret);
    format!("***{a:02x}{b:02x}{c:02x}{d:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_noun_is_found_by_its_name() {
        for noun in Noun::ALL {
            assert_eq!(Noun::from_name(noun.name()), Some(noun));
        }
        assert_eq!(Noun::from_name("recording"), None);
    }
}
