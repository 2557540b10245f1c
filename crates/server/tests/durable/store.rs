//! From the spool into the store.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use framehook_domain::fault::Fault;
use framehook_server::audit::Caller;
use framehook_server::commit::Recorded;
use framehook_server::db::outbox::{self, State};
use framehook_server::entropy::Entropy;
use framehook_server::fatal::Fatal;
use framehook_server::store::{LocalStore, Retry, StoreError};
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::wait;

use crate::harness::{PATIENCE, Place, Process, Settings, room, telling_room};

fn open(root: &Path) -> LocalStore {
    LocalStore::open(root, Entropy::system(), Fatal::new()).expect("a store")
}

fn spooled(dir: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.join("spooled.jpg");
    fs::write(&path, bytes).expect("a file");
    path
}

#[test]
fn a_put_links_the_spooled_file_and_can_be_repeated() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, spooled) = (open(&dir.path().join("objects")), spooled(dir.path(), b"picture"));
    for _ in 0..2 {
        store.put("shots-1", "2025-01-01/a.jpg", &spooled).expect("put");
        let object = dir.path().join("objects/shots-1/2025-01-01/a.jpg");
        assert_eq!(fs::read(&object).expect("an object"), b"picture");
        assert_eq!(fs::metadata(&object).expect("an object").ino(), fs::metadata(&spooled).expect("a file").ino());
    }
    assert!(store.exists("shots-1", "2025-01-01/a.jpg").expect("looked"));
    assert!(!store.exists("shots-1", "2025-01-01/b.jpg").expect("looked"));
}

#[test]
fn a_put_replaces_whole_what_lies_under_its_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("objects");
    fs::create_dir_all(root.join("shots-1")).expect("a bucket");
    fs::write(root.join("shots-1/a.jpg"), b"left by a copy that was cut off").expect("a file");
    let (store, spooled) = (open(&root), spooled(dir.path(), b"picture"));
    store.put("shots-1", "a.jpg", &spooled).expect("put");
    assert_eq!(fs::read(root.join("shots-1/a.jpg")).expect("an object"), b"picture");
    assert_eq!(fs::read_dir(root.join(".unfinished")).expect("a directory").count(), 0);
}

#[test]
fn a_put_copies_where_it_cannot_link() {
    // A second file system: memory, on any Linux.
    let (dir, memory) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir_in("/dev/shm").expect("memory"));
    let devices = [dir.path(), memory.path()].map(|path| fs::metadata(path).expect("a directory").dev());
    assert_ne!(devices[0], devices[1], "the test needs two file systems");
    let (store, spooled) = (open(&dir.path().join("objects")), spooled(memory.path(), b"picture"));
    for _ in 0..2 {
        store.put("shots-1", "a.jpg", &spooled).expect("put");
        assert_eq!(fs::read(dir.path().join("objects/shots-1/a.jpg")).expect("an object"), b"picture");
    }
    assert_eq!(fs::read_dir(dir.path().join("objects/.unfinished")).expect("a directory").count(), 0);
}

#[test]
fn a_start_removes_what_a_crash_left_unfinished() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join(".unfinished")).expect("a directory");
    fs::write(dir.path().join(".unfinished/abc"), b"half").expect("a file");
    open(dir.path());
    assert_eq!(fs::read_dir(dir.path().join(".unfinished")).expect("a directory").count(), 0);
}

#[test]
fn unsafe_names_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, spooled) = (open(&dir.path().join("objects")), spooled(dir.path(), b"picture"));
    let cases = [
        ("climbs", "shots-1", "../a.jpg"),
        ("climbs inside", "shots-1", "a/../../b.jpg"),
        ("absolute", "shots-1", "/etc/a.jpg"),
        ("empty level", "shots-1", "a//b.jpg"),
        ("dot level", "shots-1", "a/./b.jpg"),
        ("ends with a slash", "shots-1", "a/"),
        ("empty key", "shots-1", ""),
        ("NUL", "shots-1", "a\0.jpg"),
        ("climbing bucket", "..", "a.jpg"),
        ("bucket of two levels", "a/b", "a.jpg"),
        ("empty bucket", "", "a.jpg"),
        ("NUL in the bucket", "shots\0-1", "a.jpg"),
        ("our own place", ".unfinished", "a.jpg"),
    ];
    for (name, bucket, key) in cases {
        let error = store.put(bucket, key, &spooled).expect_err(name);
        assert!(matches!(error, StoreError::UnsafeName { .. }), "{name}: {error:?}");
        assert!(store.exists(bucket, key).is_err(), "{name}");
    }
}

#[test]
fn a_refusal_and_a_missing_file_are_held_for_a_person() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, spooled) = (open(&dir.path().join("objects")), spooled(dir.path(), b"picture"));
    store.put("shots-1", "a", &spooled).expect("put");
    let refused = store.put("shots-1", "a/b.jpg", &spooled).expect_err("a file where a folder must be");
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    assert_eq!((refused.retry(), refused.fault(), refused.name()), (Retry::Held, Fault::Dependency, "refused"));
    let too_long = store.put("shots-1", &"x".repeat(300), &spooled).expect_err("a name no file system takes");
    assert_eq!(too_long.retry(), Retry::Held);
    let missing = store.put("shots-1", "c.jpg", &dir.path().join("gone.jpg")).expect_err("no file");
    assert!(matches!(missing, StoreError::SpoolMissing { .. }), "{missing:?}");
    assert_eq!((missing.retry(), missing.fault()), (Retry::Held, Fault::Ours));
}

#[test]
fn a_directory_that_a_person_removed_is_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, spooled) = (open(&dir.path().join("objects")), spooled(dir.path(), b"picture"));
    store.put("shots-1", "day/a.jpg", &spooled).expect("put");
    fs::remove_dir_all(dir.path().join("objects/shots-1")).expect("removed");
    let error = store.put("shots-1", "day/b.jpg", &spooled).expect_err("the directory is gone");
    assert_eq!(error.retry(), Retry::Later);
    store.put("shots-1", "day/b.jpg", &spooled).expect("put");
}

#[test]
fn no_callback_leaves_before_its_object_can_be_fetched() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/")));
    let objects = place.dir().join("objects/shots-1250000000");
    receiver.on_request(move |request| {
        let body = request.json().expect("JSON");
        let object = objects.join(body["pic_url"].as_str().expect("text").trim_start_matches('/'));
        let size = fs::metadata(object).map(|found| found.len()).ok();
        Reply::Status(if size == body["file_size"].as_u64() && size.is_some() { 200 } else { 500 })
    });
    let process = place.start();
    for _ in 0..20 {
        process.commit(&room());
    }
    wait::until("every delivery", PATIENCE, || (process.count(State::Delivered) == 20).then_some(()))
        .expect("delivered");
    assert_eq!(receiver.requests().len(), 20, "each was accepted the first time");
}

#[test]
fn a_store_that_refuses_raises_the_alarm_and_tells_nobody() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/")));
    fs::create_dir_all(place.dir().join("objects")).expect("a directory");
    fs::write(place.dir().join("objects/shots-1250000000"), b"a file where the bucket must be").expect("a file");
    let process = place.start();
    let recorded = process.commit(&room());
    let counts = || process.block_on(process.db.read(outbox::owed_counts)).expect("counts");
    let held = wait::until("the alarm", PATIENCE, || Some(counts()).filter(|counts| counts.puts_held == 1));
    let held = held.expect("held");
    assert_eq!((held.puts_owed, held.deliveries_owed, held.deliveries_dead), (1, 1, 0));
    assert!(process.spool.path(recorded.snapshot_id).exists(), "what is owed stays in the spool");

    // Only a person ends it, and that is recorded.
    let discard = || process.block_on(process.storer.discard(recorded.snapshot_id, &Caller::Control));
    assert!(discard().expect("written"));
    assert!(!discard().expect("written"), "only once");
    assert!(!process.spool.path(recorded.snapshot_id).exists(), "and its room is free");
    assert_eq!(process.spool.bytes(), 0);
    assert_eq!(counts(), outbox::OwedCounts::default());
    let delivery = process.wait_for_state(State::Cancelled);
    assert_eq!(delivery.row.outcome.as_deref(), Some("discarded"));
    let by = "SELECT discarded_by FROM snapshot";
    let by = process.db.read(move |conn| Ok(conn.query_row(by, [], |row| row.get::<_, String>(0))?));
    assert_eq!(process.block_on(by).expect("read"), "control");
    assert!(receiver.requests().is_empty());
}

#[test]
fn a_store_that_recovers_gets_what_it_missed() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let recorded = process.commit(&room());
    let object = place.dir().join("objects/shots-1250000000").join(recorded.key.as_str());
    wait::until("the object", PATIENCE, || object.exists().then_some(())).expect("stored");
    // The bucket vanishes; the put after that fails once and succeeds when it is tried again.
    fs::remove_dir_all(place.dir().join("objects/shots-1250000000")).expect("removed");
    let second = process.commit(&room());
    let object = place.dir().join("objects/shots-1250000000").join(second.key.as_str());
    wait::until("the second object", PATIENCE, || object.exists().then_some(())).expect("stored");
    wait::until("its delivery", PATIENCE, || (process.count(State::Due) == 2).then_some(())).expect("due");
}

/// A store on another file system, into which pictures have to be copied.
fn store_by_copying(place: &Place) -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm").expect("memory");
    std::os::unix::fs::symlink(memory.path(), place.dir().join("objects")).expect("a link");
    memory
}

/// Makes the put of a spooled picture hang for as long as this lives: its file becomes a pipe that nobody writes to.
struct HangingPut(std::path::PathBuf);

impl HangingPut {
    fn of(picture: std::path::PathBuf) -> Self {
        fs::remove_file(&picture).expect("a spooled picture");
        let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &picture, owner).expect("a pipe");
        Self(picture)
    }
}

impl Drop for HangingPut {
    fn drop(&mut self) {
        // Opened for both, so that it waits for no reader: the one that hangs reads to the end, which comes at once.
        let _ = fs::OpenOptions::new().read(true).write(true).open(&self.0);
    }
}

/// Copies into the store that are under way.
fn unfinished(place: &Place) -> usize {
    fs::read_dir(place.dir().join("objects/.unfinished")).expect("a directory").count()
}

/// A process that puts a picture by copying it, and comes to no end with that before what is given beside it is dropped, as it
/// must be before the process, which waits for its threads.
fn hang_a_put(place: &Place) -> (Process, HangingPut, Recorded) {
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let recorded = process.commit(&room());
    let picture = process.spool.path(recorded.snapshot_id);
    process.stop();
    let hanging = HangingPut::of(picture);
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    wait::until("the put to be under way", PATIENCE, || (unfinished(place) == 1).then_some(())).expect("under way");
    (process, hanging, recorded)
}

#[test]
fn a_picture_discarded_while_it_is_put_is_in_no_store_afterwards() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let _memory = store_by_copying(&place);
    let (process, hanging, recorded) = hang_a_put(&place);
    let picture = process.spool.path(recorded.snapshot_id);
    // The name goes with the discard; the pipe itself is still there for the put that reads it.
    let writer = fs::OpenOptions::new().read(true).write(true).open(&picture).expect("the pipe");
    assert!(process.block_on(process.storer.discard(recorded.snapshot_id, &Caller::Control)).expect("written"));
    drop((writer, hanging));
    wait::until("the put to end", PATIENCE, || (unfinished(&place) == 0).then_some(())).expect("ended");
    let object = place.dir().join("objects/shots-1250000000").join(recorded.key.as_str());
    wait::until("the object to be gone", PATIENCE, || (!object.exists()).then_some(())).expect("gone");
    assert!(!picture.exists());
    assert_eq!((process.spool.bytes(), process.count(State::Cancelled)), (0, 1));
    process.stop();
    assert!(!object.exists(), "and nothing came after it");
}

#[test]
fn a_picture_that_another_put_has_stored_meanwhile_keeps_its_object() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let _memory = store_by_copying(&place);
    let (process, hanging, recorded) = hang_a_put(&place);
    let picture = process.spool.path(recorded.snapshot_id);
    let store = "UPDATE snapshot SET put_state = 'stored', settled_ms = 1";
    process.block_on(process.db.write(move |tx| Ok(tx.execute(store, [])?))).expect("written");
    drop(hanging);
    wait::until("the put to end", PATIENCE, || (!picture.exists()).then_some(())).expect("ended");
    process.stop();
    assert!(place.dir().join("objects/shots-1250000000").join(recorded.key.as_str()).exists());
}

#[test]
fn a_backlog_leaves_half_of_the_slots_to_fresh_pictures() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let _memory = store_by_copying(&place);
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let old: Vec<_> = (0..20).map(|_| process.spool.path(process.commit(&room()).snapshot_id)).collect();
    process.stop();
    place.tamper("UPDATE snapshot SET recorded_ms = recorded_ms - 3600 * 1000");
    let hanging: Vec<_> = old.into_iter().map(HangingPut::of).collect();

    // Four slots. The backlog would hold each of them for ever.
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    // Let go before the process, which waits for its threads.
    let hanging = hanging;
    wait::until("the backlog's share", PATIENCE, || (unfinished(&place) == 2).then_some(())).expect("under way");
    for stored in 1..=10 {
        process.commit(&room());
        wait::until("a fresh picture to be stored", PATIENCE, || (process.count(State::Due) == stored).then_some(()))
            .expect("stored");
        assert_eq!(unfinished(&place), 2, "no more of the backlog than half of the slots");
    }
    drop(hanging);
}
