//! What is recorded: a process under load, which writes down each thing as soon as somebody was told that it is so.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use framehook_domain::catalog::ManagedBy;
use framehook_domain::id::PushSequence;
use framehook_domain::refusal::PushEnd;
use framehook_domain::retry::Schedule;
use framehook_domain::stream::{StreamId, StreamParam};
use framehook_domain::template::{Objects, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_domain::time::UnixMs;
use framehook_server::db::catalog::insert_snapshot_template;
use framehook_server::db::push::{PushClosing, PushOpening};
use framehook_server::prune::expire;
use framehook_testkit::dice::Dice;
use framehook_testkit::disk::{Change, Disk, Recorder, parse};
use framehook_testkit::receiver::{Receiver, Reply, Request};
use framehook_testkit::wait;
use futures_util::future::join_all;

use super::verdict::Facts;
use crate::harness::{PATIENCE, Place, Process, Settings, stream, telling_room, template};

/// Tells a child where it lives, and how many pictures of each stream it takes before it stops in order.
const ROOT_VARIABLE: &str = "POWER_CUT_ROOT";
const PICTURES_VARIABLE: &str = "POWER_CUT_PICTURES";

/// Streams that are pushed at once, so that commits meet.
const STREAMS: u64 = 4;

/// Pictures of each push.
const PUSH_PICTURES: u64 = 8;

/// In the root: a line for each thing that somebody was told.
const ACKNOWLEDGED: &str = "acknowledged";

/// In the root: the data directory.
pub(crate) const DATA: &str = "data";

/// What somebody was told, and counts on. Ids are as they are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// A picture was committed: its snapshot's id.
    Picture(String),
    /// A push began: its sequence.
    Began(String),
    Ended(String),
    /// A callback arrived: its delivery's id.
    Heard(String),
}

impl Acknowledged {
    fn line(&self) -> String {
        match self {
            Self::Picture(id) => format!("picture {id}\n"),
            Self::Began(sequence) => format!("began {sequence}\n"),
            Self::Ended(sequence) => format!("ended {sequence}\n"),
            Self::Heard(id) => format!("heard {id}\n"),
        }
    }

    /// What a change says, if it is such a line.
    pub(crate) fn by(change: &Change, disk: &Disk) -> Option<Self> {
        let Change::Wrote { file, bytes, .. } = change else { return None };
        if disk.name_of(*file)? != ACKNOWLEDGED {
            return None;
        }
        Some(std::str::from_utf8(bytes).ok()?.parse().expect("a line of ours"))
    }
}

impl FromStr for Acknowledged {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (what, id) = line.trim_end().split_once(' ').ok_or(line)?;
        let id = id.to_owned();
        Ok(match what {
            "picture" => Self::Picture(id),
            "began" => Self::Began(id),
            "ended" => Self::Ended(id),
            "heard" => Self::Heard(id),
            _ => return Err(line.to_owned()),
        })
    }
}

/// Where acknowledgements go. It is recorded with everything else, so each has its place among the changes.
#[derive(Debug)]
struct Notes(File);

impl Notes {
    fn open(root: &Path) -> Self {
        Self(OpenOptions::new().create(true).append(true).open(root.join(ACKNOWLEDGED)).expect("a file"))
    }

    fn note(&self, acknowledged: &Acknowledged) {
        (&self.0).write_all(acknowledged.line().as_bytes()).expect("a line");
    }
}

/// Settings under which deliveries are settled soon, this way or that.
pub(crate) fn settings() -> Settings {
    Settings { schedule: Schedule { step: Duration::from_millis(20), retries: 2 }, ..Settings::default() }
}

/// What receivers answer: one callback in eight is never taken.
pub(crate) fn reply(request: &Request) -> Reply {
    let id = request.webhook_id().expect("an id");
    Reply::Status(if id.ends_with(['0', '8']) { 503 } else { 200 })
}

/// One life of a process.
#[derive(Debug)]
pub(crate) struct Life {
    root: PathBuf,
    pictures: u64,
}

impl Life {
    /// The one that this process was started for.
    pub(crate) fn of_this_process() -> Option<Self> {
        let root = std::env::var_os(ROOT_VARIABLE)?.into();
        let pictures = std::env::var(PICTURES_VARIABLE).ok()?.parse().ok()?;
        Some(Self { root, pictures })
    }

    /// Lives through `pictures` of each stream in a process of its own, the test `test`, or until it is killed behind change
    /// `ends_after`. Gives the changes that it made below `root`.
    pub(crate) fn record(
        recorder: &Recorder,
        test: &str,
        root: &Path,
        record: &Path,
        (pictures, ends_after): (u64, Option<u64>),
    ) -> Vec<Change> {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        child.env(ROOT_VARIABLE, root).env(PICTURES_VARIABLE, pictures.to_string());
        child.envs(recorder.environment(root, record, ends_after));
        let ended = child.output().expect("started");
        let was_killed = ended.status.signal() == Some(rustix::process::Signal::KILL.as_raw());
        assert_eq!((was_killed, ended.status.success()), (ends_after.is_some(), ends_after.is_none()), "{ended:?}");
        parse(std::fs::read(record).expect("a record")).expect("a whole record")
    }

    pub(crate) fn live(&self) {
        let notes = Arc::new(Notes::open(&self.root));
        let receiver = Receiver::start().expect("a receiver");
        receiver.on_request({
            let notes = Arc::clone(&notes);
            move |request| {
                notes.note(&Acknowledged::Heard(request.webhook_id().expect("an id").to_owned()));
                reply(request)
            }
        });
        let place = Place::at(&self.root.join(DATA), telling_room(&receiver.url("/")));
        let process = place.start_with(settings());
        keep_for_a_day(&process);
        let publishers = (0..STREAMS).map(|number| self.publish(number, &process, &notes));
        process.block_on(join_all(publishers));
        let is_settled = || (process.block_on(process.db.read(|conn| Ok(Facts::owed(conn)?))).ok()? == 0).then_some(());
        wait::until("everything to be settled", PATIENCE, is_settled).expect("settled");
        process.block_on(expire_all(&process));
        process.stop();
    }

    async fn publish(&self, number: u64, process: &Process, notes: &Notes) {
        let room = stream("push.example.com", &format!("room_{number}"));
        let mut left = self.pictures;
        while left > 0 {
            let now = process.clock.wall();
            let sequence = PushSequence::new(now, number as u32);
            process.log.open_push(opening(sequence, &room, now)).await.expect("begun");
            notes.note(&Acknowledged::Began(sequence.to_string()));
            for _ in 0..left.min(PUSH_PICTURES) {
                take_picture(process, &room, sequence, notes).await;
            }
            process.log.close_push(closing(sequence, process.clock.wall())).await.expect("ended");
            notes.note(&Acknowledged::Ended(sequence.to_string()));
            left = left.saturating_sub(PUSH_PICTURES);
            if number == 0 {
                expire_all(process).await;
            }
        }
    }
}

/// Tells the database that numbered pictures are kept for a day. A process on the same directory may have done so.
fn keep_for_a_day(process: &Process) {
    let kept = SnapshotTemplate { retention_days: Some(1), ..SnapshotTemplate::clone(&template()) };
    let write = process.db.write(move |tx| {
        let is_known = tx.prepare("SELECT 1 FROM snapshot_template")?.exists([])?;
        if !is_known {
            insert_snapshot_template(tx, &kept, ManagedBy::Api, UnixMs(0))?;
        }
        Ok(())
    });
    process.block_on(write).expect("a template");
}

/// Removes every picture of which no callback is owed, as if two days had passed.
async fn expire_all(process: &Process) {
    let in_two_days = process.clock.wall().plus(Duration::from_secs(2 * 86_400));
    expire(&process.db, &process.files, in_two_days).await.expect("expired");
}

async fn take_picture(process: &Process, room: &StreamId, sequence: PushSequence, notes: &Notes) {
    // Some want a name that another has had; half of them have a latest object too.
    let seed = process.snapshot_id().0.as_u128();
    let file_name = format!("{}-{}{{Ext}}", room.name.as_str(), seed >> 1 & 0x1ff);
    let objects = if seed & 1 == 0 { Objects::Both } else { Objects::Sequence };
    let mut picture = process.picture(room, &named(file_name, objects));
    picture.sequence = sequence;
    picture.create_time = process.clock.wall();
    let rendition = &mut picture.pictures[0].renditions[0];
    rendition.bytes = some_bytes(rendition.snapshot_id.0.as_u128() as u64);
    for recorded in process.committer.commit(picture).await.expect("committed") {
        notes.note(&Acknowledged::Picture(recorded.snapshot_id.to_string()));
    }
}

/// Numbered objects of this name, and perhaps one that each picture overwrites.
fn named(file_name: String, objects: Objects) -> Arc<SnapshotTemplate> {
    let (file_name, objects) = (Some(file_name), Some(objects.name().to_owned()));
    let draft = SnapshotTemplateDraft { file_name, objects, ..template().to_draft() };
    Arc::new(SnapshotTemplate::validate(template().id, draft).expect("a template"))
}

/// A few sectors, of which no two are alike.
fn some_bytes(seed: u64) -> Bytes {
    let mut dice = Dice::new(seed);
    let length = dice.within(500..9000);
    (0..length).map(|_| dice.draw() as u8).collect()
}

fn opening(sequence: PushSequence, room: &StreamId, opened_at: UnixMs) -> PushOpening {
    PushOpening {
        sequence,
        stream: room.clone(),
        param: StreamParam::default(),
        user_ip: [203, 0, 113, 7].into(),
        node: [192, 0, 2, 10].into(),
        opened_at,
    }
}

fn closing(sequence: PushSequence, ended_at: UnixMs) -> PushClosing {
    PushClosing { sequence, ended_at, last_media: ended_at, end: PushEnd::DeleteStream, width: 1280, height: 720 }
}
