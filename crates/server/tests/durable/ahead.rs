//! Pictures that are in the local store before their rows.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use framehook_domain::id::{SnapshotId, uuid_v7};
use framehook_domain::template::{RenditionDraft, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_server::commit::{CommitError, Recorded};
use framehook_server::db::outbox::State;
use framehook_server::db::snapshot;
use framehook_server::store::LocalStore;
use framehook_testkit::wait;
use futures_util::future::join_all;

use crate::harness::{PATIENCE, Place, Process, Settings, files_below, room, stream, telling_room, template};

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

/// A process in which many pictures have come, so that each waits for five others from now on.
fn start_gathering(place: &Place) -> Process {
    let process = place.start_with(Settings { notifies: false, gather_max: PATIENCE, ..Settings::default() });
    process.wait_until_prepared();
    for committed in commit_of_streams(&process, 0..6) {
        committed.expect("committed");
    }
    process
}

/// Commits a picture of each of these streams at once.
fn commit_of_streams(process: &Process, streams: Range<usize>) -> Vec<Result<Recorded, CommitError>> {
    let picture = |number| process.picture(&stream("push.example.com", &format!("room_{number}")), &template());
    process.block_on(async {
        let commits = streams.map(|number| process.committer.commit(picture(number)));
        let committed = join_all(commits).await;
        committed.into_iter().map(|recorded| recorded.map(|mut recorded| recorded.remove(0))).collect()
    })
}

#[test]
fn pictures_that_gather_are_recorded_and_stored_in_one_transaction() {
    let place = place();
    let process = start_gathering(&place);
    let before = process.db.stats();
    let recorded = commit_of_streams(&process, 6..12);
    let after = process.db.stats();
    assert_eq!((after.commits - before.commits, after.operations - before.operations), (1, 1));
    for recorded in recorded {
        assert!(object(&place, &recorded.expect("committed")).exists());
    }
    assert_eq!((process.count(State::Due), objects(&place), spooled(&place)), (12, 12, 0));
    process.stop();
}

/// A process that ends waits for nobody, and loses none of those that had gathered.
#[test]
fn pictures_that_wait_for_others_are_recorded_when_the_process_ends() {
    let place = place();
    let process = start_gathering(&place);
    let committer = process.committer.clone();
    let picture = process.picture(&room(), &template());
    let late = process.spawn(async move { committer.commit(picture).await });
    let gathers = || (process.committer.gathered() == 1).then_some(());
    wait::until("a picture that waits", PATIENCE, gathers).expect("waits");
    assert_eq!((process.count(State::Due), objects(&place)), (6, 7), "it lies there and is not recorded");
    let recorded = process.stop_with(async move { late.await.expect("no panic").expect("committed") });
    assert!(object(&place, &recorded[0]).exists());
    let process = start(&place);
    assert_eq!((process.count(State::Due), objects(&place), spooled(&place)), (7, 7, 0));
    process.stop();
}

#[test]
fn one_of_a_group_whose_row_is_refused_is_taken_back_alone() {
    let place = place();
    start(&place).stop();
    place.tamper(
        "CREATE TRIGGER no BEFORE INSERT ON snapshot WHEN new.stream = 'room_9' BEGIN SELECT RAISE(ABORT, 'no'); END;",
    );
    let process = start_gathering(&place);
    let committed = commit_of_streams(&process, 6..12);
    let refused: Vec<_> = (6..12).filter(|number| committed[number - 6].is_err()).collect();
    assert_eq!(refused, [9], "{committed:?}");
    assert_eq!((process.count(State::Due), objects(&place), spooled(&place)), (11, 11, 0));
    assert_eq!(process.spool.bytes(), 0);
    process.stop();
}

#[test]
fn a_picture_that_gets_another_key_than_it_was_put_under_is_taken_back_and_owed() {
    let place = place();
    let process = start(&place);
    let first = process.commit(&room());
    // As if it had expired: its row has the key, and nothing lies there.
    fs::remove_file(object(&place, &first)).expect("an object");
    let (second, bytes) = commit(&process);
    assert_eq!(second.key.as_str(), first.key.as_str().replace(".jpg", "-2.jpg"));
    wait::until("the put", PATIENCE, || (process.count(State::Due) == 2).then_some(())).expect("stored");
    process.stop();
    assert_eq!(fs::read(object(&place, &second)).expect("an object"), bytes);
    assert_eq!((spooled(&place), objects(&place)), (0, 1));
}

/// What has its name by then stays, whoever has put it there, and the picture is owed.
#[test]
fn an_object_that_was_put_ahead_and_replaced_is_not_believed_in_and_not_taken_back() {
    let place = place();
    let process = start(&place);
    let at = snapshot::Place { store: LocalStore::NAME.to_owned(), bucket: "shots-1250000000".to_owned() };
    let id = process.snapshot_id();
    process.spool.write(id, b"a picture").expect("a file");
    let put = || {
        let mut ahead = process.storer.put_ahead(&at, "a/b.jpg", id).expect("put ahead");
        process.storer.sync_ahead(std::iter::once(&mut ahead)).expect("synced");
        ahead
    };
    let path = place.dir().join("objects/shots-1250000000/a/b.jpg");
    let ahead = put();
    assert!(process.storer.is_stored(&ahead, &at, "a/b.jpg", id).is_some());
    assert!(process.storer.put_ahead(&at, "a/b.jpg", id).is_none(), "something lies there");
    fs::remove_file(&path).expect("an object");
    assert!(process.storer.is_stored(&ahead, &at, "a/b.jpg", id).is_none(), "it is gone");
    fs::write(&path, "another's").expect("a file");
    assert!(process.storer.is_stored(&ahead, &at, "a/b.jpg", id).is_none(), "another has taken its place");
    assert!(process.storer.is_stored(&ahead, &at, "a/b-2.jpg", id).is_none(), "it has another key");
    assert!(process.storer.take_back(&ahead, id));
    assert_eq!(fs::read(&path).expect("a file"), b"another's");
    fs::remove_file(&path).expect("a file");
    assert!(process.storer.take_back(&put(), id));
    assert!(!path.exists());
    let unsynced = process.storer.put_ahead(&at, "a/b.jpg", id).expect("put ahead");
    assert!(process.storer.is_stored(&unsynced, &at, "a/b.jpg", id).is_none(), "its name may not last");
    process.stop();
}

#[test]
fn every_rendition_with_an_object_of_its_own_is_put_ahead() {
    let place = place();
    let process = start(&place);
    let draft = SnapshotTemplateDraft {
        renditions: vec![RenditionDraft { name: "small".into(), width: Some(640), ..RenditionDraft::default() }],
        objects: Some("both".into()),
        ..template().to_draft()
    };
    let template = Arc::new(SnapshotTemplate::validate(template().id, draft).expect("a template"));
    let before = process.db.stats().commits;
    let picture = process.picture(&room(), &template);
    let recorded = process.block_on(process.committer.commit(picture)).expect("committed");
    assert_eq!((recorded.len(), process.count(State::Due)), (2, 2), "no callback waits for a put");
    assert_eq!(process.db.stats().commits - before, 1, "the latest objects are owed in the same transaction");
    for recorded in &recorded {
        assert!(object(&place, recorded).exists(), "{recorded:?}");
    }
    process.stop();
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
    let ids = [(); 4].map(|()| process.snapshot_id());
    let long_ago = process.clock.wall().minus(Duration::from_secs(3601));
    let forgotten = SnapshotId(uuid_v7(long_ago, [7; 10]));
    process.stop();
    let spooled_at = |id| place.dir().join("spool").join(format!("{id}.image"));
    let bucket = place.dir().join("objects/shots-1250000000");
    let [unrecorded, at_a_name_with_a_row, at_an_expired_name, never_put] = ids;
    // Put ahead, and killed before the row; the same after it; and one that was only spooled.
    fs::create_dir(bucket.join("deep")).expect("a directory");
    fs::write(spooled_at(unrecorded), "unrecorded").expect("a file");
    fs::hard_link(spooled_at(unrecorded), bucket.join("deep/unrecorded.jpg")).expect("a link");
    fs::hard_link(object(&place, &stored), spooled_at(stored.snapshot_id)).expect("a link");
    fs::write(spooled_at(never_put), "never put").expect("a file");
    // A latest object of which another picture is owed by now, and a file of somebody else's.
    fs::write(spooled_at(at_a_name_with_a_row), "at a name with a row").expect("a file");
    fs::hard_link(spooled_at(at_a_name_with_a_row), bucket.join("named.jpg")).expect("a link");
    place.tamper(
        "INSERT INTO latest_object (store, bucket, object_key, region, id, trace, create_time_ms, format, file_size,
             is_owed, owed_since_ms, put_due_ms)
         VALUES ('local', 'shots-1250000000', 'named.jpg', 'ap-guangzhou', x'00', x'00', 0, 'jpeg', 1, 0, 0, 0)",
    );
    // Put ahead under the name of a picture that had expired.
    place.tamper("UPDATE snapshot SET put_state = 'expired'");
    fs::remove_file(object(&place, &stored)).expect("an object");
    fs::write(spooled_at(at_an_expired_name), "at an expired name").expect("a file");
    fs::hard_link(spooled_at(at_an_expired_name), object(&place, &stored)).expect("a link");
    fs::write(bucket.join("deep/theirs.jpg"), "unrecorded").expect("a file");
    // The row of an older one may have been forgotten.
    fs::write(spooled_at(forgotten), "forgotten").expect("a file");
    fs::hard_link(spooled_at(forgotten), bucket.join("forgotten.jpg")).expect("a link");

    let process = start(&place);
    wait::until("an empty spool", PATIENCE, || (spooled(&place) == 0).then_some(())).expect("cleared");
    process.stop();
    let left = files_below(&place.dir().join("objects")).expect("objects");
    let kept = ["named.jpg", "deep/theirs.jpg", "forgotten.jpg"].map(|name| bucket.join(name));
    assert_eq!(left, kept.into_iter().collect());
}
