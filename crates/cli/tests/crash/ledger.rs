//! What the database of a server that does not run says, read by the `sqlite3` program from a copy, and whether it is true.

#![allow(dead_code, reason = "each suite uses its part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::objects::{Objects, files_below};
use crate::witness::Story;

/// Ids are 32 hexadecimal digits.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) pushes: BTreeMap<i64, PushRow>,
    pub(crate) snapshots: BTreeMap<String, SnapshotRow>,
    pub(crate) events: BTreeMap<String, EventRow>,
    pub(crate) deliveries: BTreeMap<String, DeliveryRow>,
    /// By the names of their objects.
    pub(crate) latest: BTreeMap<String, LatestRow>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PushRow {
    sequence: i64,
    stream: String,
    ended_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SnapshotRow {
    id: String,
    event: String,
    push_sequence: i64,
    file_size: u64,
    sha256: String,
    bucket: String,
    object_key: String,
    /// The key of the object that this picture and each newer one of its stream overwrites.
    latest_key: String,
    create_time_ms: i64,
    put_state: String,
    pub(crate) recorded_ms: i64,
    /// When it was stored.
    pub(crate) settled_ms: Option<i64>,
}

/// The newest picture of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct LatestRow {
    id: String,
    bucket: String,
    object_key: String,
    create_time_ms: i64,
    file_size: u64,
    /// 0 or 1.
    is_owed: u8,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EventRow {
    id: String,
    kind: i64,
    push_sequence: i64,
    body: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeliveryRow {
    id: String,
    event: String,
    state: String,
    attempts: i64,
    attempts_recorded: i64,
    /// Those of them without the status of an answer.
    attempts_unanswered: u64,
}

const PUSHES: &str = "SELECT sequence, stream, ended_ms FROM push";
const SNAPSHOTS: &str = "SELECT lower(hex(id)) AS id, lower(hex(event_id)) AS event, push_sequence, file_size, \
     lower(hex(sha256)) AS sha256, bucket, object_key, format('latest/%s/%s/%s.jpg', domain, app, stream) AS latest_key, \
     create_time_ms, put_state, recorded_ms, settled_ms FROM snapshot";
const LATEST: &str =
    "SELECT lower(hex(id)) AS id, bucket, object_key, create_time_ms, file_size, is_owed FROM latest_object";
const EVENTS: &str = "SELECT lower(hex(id)) AS id, kind, push_sequence, body FROM event";
const DELIVERIES: &str = "SELECT lower(hex(id)) AS id, lower(hex(event_id)) AS event, state, attempts, \
     (SELECT count(*) FROM attempt WHERE delivery_id = delivery.id) AS attempts_recorded, \
     (SELECT count(*) FROM attempt WHERE delivery_id = delivery.id AND status IS NULL) AS attempts_unanswered FROM delivery";

/// The server's constants for its events.
const SNAPSHOT: i64 = 200;
const BEGAN: i64 = 1;
const ENDED: i64 = 0;

impl Ledger {
    /// Reads the database below `data_dir`. Its server must not run: the copy is made file by file.
    pub(crate) fn read(data_dir: &Path) -> Result<Self> {
        let copy_dir = tempfile::tempdir().context("make room for a copy")?;
        let copy = copy_dir.path().join("framehook.db");
        // Opening the original would replay and remove its write-ahead log, which is the server's to do.
        for suffix in ["", "-wal"] {
            let from = data_dir.join(format!("framehook.db{suffix}"));
            if from.exists() {
                fs::copy(&from, copy_dir.path().join(format!("framehook.db{suffix}"))).context("copy the database")?;
            }
        }
        let health = sqlite(&copy, &["PRAGMA integrity_check; PRAGMA foreign_key_check"])?;
        ensure!(health.trim() == "ok", "the database is broken: {health}");
        let snapshots: Vec<SnapshotRow> = rows(&copy, SNAPSHOTS)?;
        let events: Vec<EventRow> = rows(&copy, EVENTS)?;
        let deliveries: Vec<DeliveryRow> = rows(&copy, DELIVERIES)?;
        let pushes: Vec<PushRow> = rows(&copy, PUSHES)?;
        let latest: Vec<LatestRow> = rows(&copy, LATEST)?;
        Ok(Self {
            pushes: pushes.into_iter().map(|row| (row.sequence, row)).collect(),
            snapshots: snapshots.into_iter().map(|row| (row.id.clone(), row)).collect(),
            events: events.into_iter().map(|row| (row.id.clone(), row)).collect(),
            deliveries: deliveries.into_iter().map(|row| (row.id.clone(), row)).collect(),
            latest: latest.into_iter().map(|row| (object(&row.bucket, &row.object_key), row)).collect(),
        })
    }

    /// The deliveries whose attempts were under way.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = &str> {
        let claimed = self.deliveries.values().filter(|delivery| delivery.state == "claimed");
        claimed.map(|delivery| delivery.id.as_str())
    }

    /// How many deliveries are in a state.
    pub(crate) fn count(&self, state: &str) -> usize {
        self.deliveries.values().filter(|delivery| delivery.state == state).count()
    }

    /// Everything that was committed earlier still is, and what was settled stays as it was.
    pub(crate) fn forgets_nothing_of(&self, earlier: &Self) -> Result<()> {
        for sequence in earlier.pushes.keys() {
            ensure!(self.pushes.contains_key(sequence), "push {sequence} is gone");
        }
        for id in earlier.snapshots.keys() {
            ensure!(self.snapshots.contains_key(id), "snapshot {id} is gone");
        }
        for id in earlier.events.keys() {
            ensure!(self.events.contains_key(id), "event {id} is gone");
        }
        for (id, before) in &earlier.deliveries {
            let now = self.deliveries.get(id).with_context(|| format!("delivery {id} is gone"))?;
            let settled = matches!(before.state.as_str(), "delivered" | "dead");
            ensure!(!settled || now.state == before.state, "delivery {id} was {} and is {}", before.state, now.state);
            ensure!(now.attempts >= before.attempts, "delivery {id} has forgotten attempts: {before:?}, {now:?}");
        }
        for (name, before) in &earlier.latest {
            let now = self.latest.get(name).with_context(|| format!("{name} is forgotten"))?;
            ensure!(now.create_time_ms >= before.create_time_ms, "{name} went back: {before:?}, {now:?}");
        }
        Ok(())
    }

    /// Every committed picture has its bytes: in the spool while they are owed to the store, in the store after that.
    pub(crate) fn agrees_with_the_disk(&self, data_dir: &Path, objects: &Objects) -> Result<()> {
        let objects = objects.sizes()?;
        for (id, row) in &self.snapshots {
            let bytes = match row.put_state.as_str() {
                "owed" => spooled_bytes(data_dir, id)?,
                "stored" => *objects.get(&row.object()).with_context(|| format!("not in its store: {row:?}"))?,
                other => anyhow::bail!("snapshot {id} is {other}"),
            };
            ensure!(bytes == row.file_size, "{bytes} bytes are there of {row:?}");
        }
        for (name, row) in &self.latest {
            let bytes = match row.is_owed {
                0 => *objects.get(name).with_context(|| format!("not in its store: {row:?}"))?,
                _ => spooled_bytes(data_dir, &row.id)?,
            };
            ensure!(bytes == row.file_size, "{bytes} bytes are there of {row:?}");
        }
        Ok(())
    }

    /// Rows fit each other, and what the receiver was sent: nothing came that is not committed, nothing counts as
    /// delivered that did not come or as dead that was taken, and no picture was announced before it was stored.
    pub(crate) fn agrees_with(&self, stories: &BTreeMap<String, Story>) -> Result<()> {
        let mut owed_of: BTreeMap<&str, Vec<&DeliveryRow>> = BTreeMap::new();
        for delivery in self.deliveries.values() {
            owed_of.entry(&delivery.event).or_default().push(delivery);
        }
        let snapshots_by_event: BTreeMap<&str, &SnapshotRow> =
            self.snapshots.values().map(|snapshot| (snapshot.event.as_str(), snapshot)).collect();
        ensure!(snapshots_by_event.len() == self.snapshots.len(), "two snapshots share an event");
        let mut announced: BTreeSet<(i64, i64)> = BTreeSet::new();
        for event in self.events.values() {
            let Some(&[delivery]) = owed_of.get(event.id.as_str()).map(Vec::as_slice) else {
                anyhow::bail!(
                    "one receiver is owed each event, but {event:?} has {:?}",
                    owed_of.get(event.id.as_str())
                );
            };
            let story = stories.get(&delivery.id);
            if event.kind == SNAPSHOT {
                let snapshot = snapshots_by_event.get(event.id.as_str());
                let snapshot = snapshot.with_context(|| format!("{event:?} has no snapshot"))?;
                let stored = snapshot.put_state == "stored";
                ensure!(stored != (delivery.state == "waiting"), "{delivery:?} of {snapshot:?}");
                ensure!(stored || story.is_none(), "announced before it was stored: {snapshot:?}");
                ensure!(snapshot.push_sequence == event.push_sequence, "{snapshot:?} of {event:?}");
            } else {
                ensure!(announced.insert((event.push_sequence, event.kind)), "announced twice: {event:?}");
            }
            if let Some(story) = story {
                let committed: Value = serde_json::from_str(&event.body).context("an event's body is JSON")?;
                ensure!(committed == story.fields, "{} was committed and {} was sent", event.body, story.body);
            }
            ensure!(delivery.attempts == delivery.attempts_recorded, "attempts went unrecorded: {delivery:?}");
            ensure!(
                delivery.state != "delivered" || story.is_some_and(|story| story.taken),
                "never taken: {delivery:?}"
            );
            ensure!(
                delivery.state != "dead" || story.is_none_or(|story| !story.taken),
                "taken: {delivery:?}, {story:?}"
            );
            ensure!(delivery.state != "cancelled", "{delivery:?}");
        }
        for (sequence, push) in &self.pushes {
            ensure!(announced.contains(&(*sequence, BEGAN)), "the beginning of {push:?} is owed to nobody");
            let ended = announced.contains(&(*sequence, ENDED));
            ensure!(ended == push.ended_ms.is_some(), "{push:?} and its event 0 do not agree");
        }
        for id in stories.keys() {
            ensure!(self.deliveries.contains_key(id), "the receiver was sent {id}, which nobody committed");
        }
        Ok(())
    }

    /// What is dead has had all attempts of its schedule, which are so many, and no more.
    pub(crate) fn dead_ones_had_their_attempts(&self, attempts: i64) -> Result<()> {
        for delivery in self.deliveries.values().filter(|delivery| delivery.state == "dead") {
            ensure!(delivery.attempts == attempts, "{attempts} attempts are its schedule: {delivery:?}");
        }
        Ok(())
    }

    /// Nothing that was taken came again but for a reason: an attempt at it was cut off by a kill, as `cut_off` counts, or
    /// went without an answer although the receiver gave one.
    pub(crate) fn explains_repeats(
        &self,
        stories: &BTreeMap<String, Story>,
        cut_off: &BTreeMap<String, u64>,
    ) -> Result<()> {
        for (id, story) in stories.iter().filter(|(_, story)| story.repeats > 0) {
            let delivery = self.deliveries.get(id).with_context(|| format!("nobody committed {id}"))?;
            let unheard = delivery.attempts_unanswered.saturating_sub(story.unanswered);
            let cut_off = cut_off.get(id).copied().unwrap_or_default();
            ensure!(
                story.repeats <= cut_off + unheard,
                "{} repeats after {cut_off} kills in the middle of an attempt: {delivery:?}, {story:?}",
                story.repeats
            );
        }
        Ok(())
    }

    /// Streams whose names start with `prefix` and whose publishers always came back have had one push each, which goes on.
    pub(crate) fn keeps_open(&self, prefix: &str) -> Result<()> {
        let mut seen = BTreeSet::new();
        for push in self.pushes.values().filter(|push| push.stream.starts_with(prefix)) {
            ensure!(push.ended_ms.is_none(), "{push:?} was ended although its publisher came back");
            ensure!(seen.insert(&push.stream), "{} has a second push", push.stream);
        }
        Ok(())
    }

    /// Nothing is owed any more; every picture is in its store byte for byte; nothing lies around.
    pub(crate) fn is_drained(
        &self,
        data_dir: &Path,
        objects: &Objects,
        stories: &BTreeMap<String, Story>,
    ) -> Result<()> {
        for push in self.pushes.values() {
            ensure!(push.ended_ms.is_some(), "{push:?} is open");
        }
        for (id, delivery) in &self.deliveries {
            ensure!(matches!(delivery.state.as_str(), "delivered" | "dead"), "{delivery:?} is not settled");
            ensure!(stories.contains_key(id), "{delivery:?} never reached the receiver");
        }
        let mut found = objects.sums()?;
        for row in self.snapshots.values() {
            // Taken out, so that a second picture under the same name would find nothing.
            let sum = found.remove(&row.object()).with_context(|| format!("not in its store: {row:?}"))?;
            ensure!(sum == row.sha256, "{sum} is the sum of what is stored of {row:?}");
        }
        for (name, row) in &self.latest {
            ensure!(row.is_owed == 0, "{row:?} is not stored");
            let sum = found.remove(name).with_context(|| format!("not in its store: {row:?}"))?;
            let of_stream = self.snapshots.values().filter(|snapshot| snapshot.latest_key == row.object_key);
            let newest =
                of_stream.max_by_key(|snapshot| snapshot.create_time_ms).context("a latest object of nothing")?;
            ensure!(sum == newest.sha256, "{sum} is the sum of what {row:?} shows, and {newest:?} is the newest");
        }
        ensure!(found.is_empty(), "objects that nobody committed: {:?}", found.keys());
        let spooled = files_below(&data_dir.join("spool"))?;
        ensure!(spooled.is_empty(), "left in the spool: {spooled:?}");
        Ok(())
    }
}

impl SnapshotRow {
    /// The name of its object.
    fn object(&self) -> String {
        object(&self.bucket, &self.object_key)
    }
}

fn object(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

/// The size of a picture that is owed.
fn spooled_bytes(data_dir: &Path, id: &str) -> Result<u64> {
    let path = data_dir.join("spool").join(format!("{}.image", hyphenated(id)));
    Ok(fs::metadata(&path).with_context(|| format!("the picture {id} is owed"))?.len())
}

/// How much a server that runs still owes: open pushes, puts, deliveries.
pub(crate) fn owed(data_dir: &Path) -> Result<u64> {
    let sql = "SELECT (SELECT count(*) FROM push WHERE ended_ms IS NULL) + \
        (SELECT count(*) FROM snapshot WHERE put_state = 'owed') + \
        (SELECT count(*) FROM latest_object WHERE is_owed = 1) + \
        (SELECT count(*) FROM delivery WHERE settled_ms IS NULL)";
    count(data_dir, sql)
}

/// How many pictures it owes to its stores that were committed before a moment, in ms of the wall clock.
pub(crate) fn owed_puts(data_dir: &Path, before_ms: i64) -> Result<u64> {
    count(data_dir, &format!("SELECT count(*) FROM snapshot WHERE put_state = 'owed' AND recorded_ms < {before_ms}"))
}

fn count(data_dir: &Path, sql: &str) -> Result<u64> {
    let count = sqlite(&data_dir.join("framehook.db"), &["-readonly", sql])?;
    count.trim().parse().with_context(|| format!("{count:?} is no count"))
}

fn rows<T: DeserializeOwned>(database: &Path, sql: &str) -> Result<Vec<T>> {
    let json = sqlite(database, &["-json", sql])?;
    // No row is no output at all.
    if json.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str(&json).with_context(|| sql.to_owned()) }
}

/// Options, then one text of SQL.
pub(crate) fn sqlite(database: &Path, arguments: &[&str]) -> Result<String> {
    let (sql, options) = arguments.split_last().context("no SQL")?;
    let output = Command::new("sqlite3").args(options).arg(database).arg(sql).output().context("run sqlite3")?;
    ensure!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("sqlite3 prints UTF-8")
}

fn hyphenated(id: &str) -> String {
    format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
}
