//! Pictures that are in the local store before their rows.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use framehook_domain::id::{SnapshotId, uuid_v7};
use framehook_server::commit::{CommitError, Recorded};
use framehook_server::db::outbox::State;
use framehook_testkit::wait;

use crate::harness::{PATIENCE, Place, Process, Settings, files_below, room, telling_room, template};

/// A process that stores what it commits and tells nobody.
fn start(place: &Place) -> Process {
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    process.wait_until_prepared();
    process
}

fn place() -> Place {
    Place::new(telling_room("http://127.0.0.1:1/"))
}

/// A picture, and its bytes.
fn commit(process: &Process) -> (Recorded, Bytes) {
    let picture = process.picture(&room(), &template());
    let bytes = picture.pictures[0].renditions[0].bytes.clone();
    (process.block_on(process.committer.commit(picture)).expect("committed").remove(0), bytes)
}

fn object(place: &Place, recorded: &Recorded) -> PathBuf {
    place.dir().join("objects/shots-1250000000").join(recorded.key.as_str())
}

fn objects(place: &Place) -> usize {
    files_below(&place.dir().join("objects")).expect("objects").len()
}

fn spooled(place: &Place) -> usize {
    files_below(&place.dir().join("spool")).expect("a spool").len()
}

#[test]
fn a_lone_picture_is_recorded_and_stored_in_one_transaction() {
    let place = place();
    let process = start(&place);
    let before = process.db.stats().commits;
    let (recorded, bytes) = commit(&process);
    assert_eq!((process.db.stats().commits - before, process.count(State::Due)), (1, 1));
    assert_eq!(fs::read(object(&place, &recorded)).expect("an object"), bytes);
    assert_eq!((spooled(&place), process.spool.bytes()), (0, 0), "its room is free once it is committed");
    process.stop();
}

#[test]
fn what_lies_under_a_picture_s_key_gives_way_and_the_picture_is_owed_first() {
    let place = place();
    let process = start(&place);
    let first = process.commit(&room());
    // Of the next process nobody knows any more that the key was given out.
    process.stop();
    place.tamper("DELETE FROM delivery; DELETE FROM event; DELETE FROM snapshot;");
    let process = start(&place);
    let before = process.db.stats().commits;
    let (recorded, bytes) = commit(&process);
    assert_eq!(recorded.key, first.key);
    wait::until("the put", PATIENCE, || (process.count(State::Due) == 1).then_some(())).expect("stored");
    assert_eq!(process.db.stats().commits - before, 2);
    assert_eq!(fs::read(object(&place, &recorded)).expect("an object"), bytes);
    process.stop();
    assert_eq!((spooled(&place), objects(&place)), (0, 1));
}

#[test]
fn a_picture_whose_row_is_refused_is_taken_back() {
    let place = place();
    start(&place).stop();
    place.tamper("CREATE TRIGGER no BEFORE INSERT ON snapshot BEGIN SELECT RAISE(ABORT, 'no'); END;");
    let process = start(&place);
    let refused = process.block_on(process.committer.commit(process.picture(&room(), &template())));
    assert!(matches!(refused, Err(CommitError::Db(_))), "{refused:?}");
    assert_eq!((spooled(&place), process.spool.bytes(), objects(&place)), (0, 0, 0));
    assert!(place.dir().join("objects/shots-1250000000").exists(), "it had been put");
    // Somebody else's file is none of ours to take back.
    let theirs = place.dir().join("objects/shots-1250000000/2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg");
    fs::create_dir_all(theirs.parent().expect("a directory")).expect("a directory");
    fs::write(&theirs, "theirs").expect("a file");
    let refused = process.block_on(process.committer.commit(process.picture(&room(), &template())));
    assert!(matches!(refused, Err(CommitError::Db(_))), "{refused:?}");
    assert_eq!(fs::read(&theirs).expect("a file"), b"theirs");
    assert_eq!((spooled(&place), process.spool.bytes()), (0, 0));
    process.stop();
}

#[test]
fn a_start_removes_what_a_crash_left_of_pictures_without_a_row_and_nothing_else() {
    let place = place();
    let process = start(&place);
    let stored = process.commit(&room());
    let ids = [(); 3].map(|()| process.snapshot_id());
    let long_ago = process.clock.wall().minus(Duration::from_secs(3601));
    let forgotten = SnapshotId(uuid_v7(long_ago, [7; 10]));
    process.stop();
    let spooled_at = |id| place.dir().join("spool").join(format!("{id}.image"));
    let bucket = place.dir().join("objects/shots-1250000000");
    let [unrecorded, at_a_name_with_a_row, never_put] = ids;
    // Put ahead, and killed before the row; the same after it; and one that was only spooled.
    fs::create_dir(bucket.join("deep")).expect("a directory");
    fs::write(spooled_at(unrecorded), "unrecorded").expect("a file");
    fs::hard_link(spooled_at(unrecorded), bucket.join("deep/unrecorded.jpg")).expect("a link");
    fs::hard_link(object(&place, &stored), spooled_at(stored.snapshot_id)).expect("a link");
    fs::write(spooled_at(never_put), "never put").expect("a file");
    // Something that has a row's name, whoever has put it there, and a file of somebody else's.
    fs::write(spooled_at(at_a_name_with_a_row), "at a name with a row").expect("a file");
    fs::hard_link(spooled_at(at_a_name_with_a_row), bucket.join("named.jpg")).expect("a link");
    place.tamper(
        "INSERT INTO latest_object (store, bucket, object_key, region, id, trace, create_time_ms, format, file_size,
             is_owed, owed_since_ms, put_due_ms)
         VALUES ('local', 'shots-1250000000', 'named.jpg', 'ap-guangzhou', x'00', x'00', 0, 'jpeg', 1, 0, 0, 0)",
    );
    fs::write(bucket.join("deep/theirs.jpg"), "unrecorded").expect("a file");
    // The row of an older one may have been forgotten.
    fs::write(spooled_at(forgotten), "forgotten").expect("a file");
    fs::hard_link(spooled_at(forgotten), bucket.join("forgotten.jpg")).expect("a link");

    let process = start(&place);
    wait::until("an empty spool", PATIENCE, || (spooled(&place) == 0).then_some(())).expect("cleared");
    process.stop();
    let left = files_below(&place.dir().join("objects")).expect("objects");
    let kept = ["named.jpg", "deep/theirs.jpg", "forgotten.jpg"].map(|name| bucket.join(name));
    assert_eq!(left, [object(&place, &stored)].into_iter().chain(kept).collect());
}
