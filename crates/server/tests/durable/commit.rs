//! Pictures over the commit point.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc;

use bytes::Bytes;
use framehook_domain::callback::EventKind;
use framehook_domain::id::{SnapshotId, TaskId, uuid_v7};
use framehook_domain::pick::Subscriber;
use framehook_server::commit::CommitError;
use framehook_server::db::outbox::State;
use framehook_server::store::spool::SpoolLimits;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::wait;

use crate::harness::{
    CREATE_TIME, KEY, PATIENCE, Place, Settings, of_kind, room, stream, telling_nobody, telling_room, template,
    template_named,
};

/// Commits and nothing after it.
fn only_commit() -> Settings {
    Settings { stores: false, notifies: false, ..Settings::default() }
}

#[test]
fn a_committed_picture_is_spooled_recorded_and_owed() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let picture = process.picture(&room(), &template());
    let bytes = picture.pictures[0].renditions[0].bytes.clone();

    let recorded = process.block_on(process.committer.commit(picture)).expect("committed").remove(0);

    assert_eq!(recorded.key.as_str(), "2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg");
    assert_eq!(
        recorded.pic_full_url.as_deref(),
        Some("http://127.0.0.1:8080/objects/shots-1250000000/2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg")
    );
    assert_eq!(fs::read(process.spool.path(recorded.snapshot_id)).expect("a file"), bytes);
    assert_eq!(process.spool.bytes(), bytes.len() as u64);
    let owed = process.list(of_kind(EventKind::Snapshot)).remove(0);
    assert_eq!((owed.state, owed.attempts, owed.snapshot), (State::Waiting, 0, Some(recorded.snapshot_id)));
}

#[test]
fn the_body_is_fixed_at_the_commit_and_lacks_only_the_signature() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let recorded = process.commit(&room());
    let delivery = process.list(of_kind(EventKind::Snapshot)).remove(0);
    let body = process.show(delivery.id).body;
    let expected = format!(
        r#"{{"app":"push.example.com","appname":"live","channel_id":"room_1001","create_time":1735689600,"event_type":200,"file_size":{},"height":720,"pic_full_url":"{}","pic_url":"/2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg","stream_id":"room_1001","stream_param":"txSecret=abc&txTime=6955B8FF","width":1280}}"#,
        recorded.file_size_bytes,
        recorded.pic_full_url.expect("a URL"),
    );
    assert_eq!(body, expected);
}

#[test]
fn a_picture_nobody_is_told_of_is_kept_all_the_same() {
    let place = Place::new(telling_nobody());
    let process = place.start();
    let recorded = process.commit(&room());
    let stored = place.dir().join("objects/shots-1250000000").join(recorded.key.as_str());
    framehook_testkit::wait::until("the object", PATIENCE, || stored.exists().then_some(())).expect("stored");
    assert!(process.list(of_kind(EventKind::Snapshot)).is_empty());
}

#[test]
fn only_pictures_of_a_task_carry_its_id() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let mut picture = process.picture(&room(), &template());
    let task = TaskId(uuid_v7(CREATE_TIME, [42; 10]));
    picture.pictures[0].subscriber = Some(Subscriber::Task(task));
    process.block_on(process.committer.commit(picture)).expect("committed");
    let delivery = process.list(of_kind(EventKind::Snapshot)).remove(0);
    assert!(process.show(delivery.id).body.contains(&format!(r#""task_id":"{task}""#)));
}

#[test]
fn a_second_picture_of_one_name_gets_a_suffix_before_the_extension() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let keys: Vec<String> = (0..4).map(|_| process.commit(&room()).key.as_str().to_owned()).collect();
    let stem = "2025-01-01/room_1001-screenshot-08-00-00-1280x720";
    assert_eq!(
        keys,
        [format!("{stem}.jpg"), format!("{stem}-2.jpg"), format!("{stem}-3.jpg"), format!("{stem}-4.jpg")]
    );
    // Another process goes on where this one stopped, and another stream's name is its own.
    process.stop();
    let process = place.start_with(only_commit());
    assert_eq!(process.commit(&room()).key.as_str(), format!("{stem}-5.jpg"));
    assert!(!process.commit(&stream("push.example.com", "other")).key.as_str().contains("-2.jpg"));
}

#[test]
fn suffixes_pass_over_names_that_other_pictures_have() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let commit = |file_name: &str| {
        let picture = process.picture(&room(), &template_named(Some(file_name)));
        process.block_on(process.committer.commit(picture)).expect("committed").remove(0).key.as_str().to_owned()
    };
    assert_eq!(commit("a-2{Ext}"), "2025-01-01/a-2.jpg");
    assert_eq!(commit("a{Ext}"), "2025-01-01/a.jpg");
    assert_eq!(commit("a{Ext}"), "2025-01-01/a-3.jpg");
    assert_eq!(commit("a{Ext}"), "2025-01-01/a-4.jpg");
}

#[test]
fn pictures_that_wait_together_share_a_commit() {
    const PICTURES: usize = 96;
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let before = process.db.stats().commits;
    let pictures: Vec<_> = (0..PICTURES).map(|_| process.picture(&room(), &template())).collect();
    process.block_on(async {
        let mut commits = tokio::task::JoinSet::new();
        for picture in pictures {
            let committer = process.committer.clone();
            commits.spawn(async move { committer.commit(picture).await.expect("committed").len() });
        }
        assert_eq!(commits.join_all().await.into_iter().sum::<usize>(), PICTURES);
    });
    let commits = process.db.stats().commits - before;
    assert!(commits <= PICTURES as u64 / 4, "{commits} commits for {PICTURES} pictures");
    assert_eq!(process.count(State::Waiting), PICTURES);
}

#[test]
fn one_broken_picture_undoes_no_other_of_its_batch() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let first = process.picture(&room(), &template());
    // The same id again is a defect of the caller, the only way to make a row impossible.
    let (mut twin, third) = (first.clone(), process.picture(&room(), &template()));
    process.block_on(process.committer.commit(first)).expect("committed");
    twin.pictures[0].renditions[0].bytes = Bytes::from_static(b"twin");

    // What is written while others are being recorded is recorded together.
    let (release, held) = mpsc::channel::<()>();
    let (db, committer) = (process.db.clone(), process.committer.clone());
    let ahead = process.picture(&room(), &template());
    let before = process.db.stats().operations;
    let gathers = |pictures| {
        let gathered = || (process.committer.gathered() == pictures).then_some(());
        wait::until("pictures that gather", PATIENCE, gathered).expect("gathered");
    };
    let (twin, third) = process.block_on(async {
        let holding = tokio::spawn(async move { db.write(move |_| Ok(held.recv())).await });
        let commit = |picture| {
            let committer = process.committer.clone();
            tokio::spawn(async move { committer.commit(picture).await })
        };
        let ahead_spooled = process.spool.path(ahead.trace);
        let ahead = tokio::spawn(async move { committer.commit(ahead).await });
        wait::until("a picture that waits for the writer", PATIENCE, || ahead_spooled.exists().then_some(()))
            .expect("spooled");
        gathers(0);
        let (twin, third) = (commit(twin), commit(third));
        gathers(2);
        release.send(()).expect("the writer waits");
        holding.await.expect("no panic").expect("held").expect("released");
        ahead.await.expect("no panic").expect("committed");
        (twin.await.expect("no panic"), third.await.expect("no panic"))
    });
    assert_eq!(process.db.stats().operations - before, 3, "what held, the one ahead, and one group of two");
    assert!(matches!(twin, Err(CommitError::Db(error)) if error.is_taken()));
    third.expect("committed");
}

#[test]
fn what_a_rule_and_a_task_want_of_one_picture_is_committed_together() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let mut picture = process.picture(&room(), &template());
    let mut small = process.taken(process.snapshot_id(), &template());
    (small.renditions[0].width, small.renditions[0].height) = (640, 360);
    picture.pictures.push(small);
    let recorded = process.block_on(process.committer.commit(picture)).expect("committed");
    assert_eq!(recorded.len(), 2);
    assert!(recorded[1].key.as_str().ends_with("640x360.jpg"));
    assert_eq!(process.count(State::Waiting), 2);
}

#[test]
fn a_full_spool_says_so_before_any_work_is_done() {
    let place = Place::new(telling_nobody());
    let spool = SpoolLimits { bytes_max: 100, disk_reserve_bytes: 0 };
    let process = place.start_with(Settings { spool, ..only_commit() });
    assert!(process.spool.has_room(100).is_ok());
    assert!(process.spool.has_room(101).is_err());
    let recorded = process.commit(&room());
    assert!(process.spool.has_room(100 - recorded.file_size_bytes).is_ok());
    assert!(process.spool.has_room(101 - recorded.file_size_bytes).is_err());
}

#[test]
fn the_spool_takes_no_more_than_it_may_however_many_pictures_were_begun() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let bytes = process.commit(&room()).file_size_bytes;
    process.stop();
    let spool = SpoolLimits { bytes_max: 2 * bytes, disk_reserve_bytes: 0 };
    let process = place.start_with(Settings { spool, ..only_commit() });
    process.commit(&room());
    let refused = process.block_on(process.committer.commit(process.picture(&room(), &template())));
    assert!(matches!(refused, Err(CommitError::SpoolFull)), "{refused:?}");
    assert_eq!(process.spool.bytes(), 2 * bytes);
    assert_eq!(fs::read_dir(place.dir().join("spool")).expect("a directory").count(), 2);
}

#[test]
fn the_reserve_of_the_disk_is_left_alone() {
    let place = Place::new(telling_nobody());
    let spool = SpoolLimits { bytes_max: u64::MAX, disk_reserve_bytes: 1 << 60 };
    let process = place.start_with(Settings { spool, ..only_commit() });
    assert!(process.spool.disk_free_bytes() > 0);
    assert!(process.spool.has_room(1).is_err());
}

#[test]
fn a_start_removes_files_that_have_no_owed_row() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let recorded = process.commit(&room());
    let (kept, spool) = (process.spool.path(recorded.snapshot_id), place.dir().join("spool"));
    let never_committed = process.spool.path(process.snapshot_id());
    fs::write(&never_committed, b"cut sho").expect("a file");
    // None of these is ours.
    let (notes, other) = (spool.join("notes.txt"), spool.join(".other-program"));
    fs::write(&notes, b"a person's").expect("a file");
    fs::create_dir(&other).expect("a directory");
    process.kill();

    let process = place.start_with(only_commit());
    let left: BTreeSet<_> =
        fs::read_dir(&spool).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(left, BTreeSet::from([kept, notes, other]));
    assert_eq!(process.spool.bytes(), recorded.file_size_bytes);
}

#[test]
fn what_was_committed_before_a_kill_is_stored_and_told_after_it() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/notify")));
    let process = place.start_with(only_commit());
    let recorded: Vec<_> = (0..20).map(|_| process.commit(&room())).collect();
    process.kill();
    assert!(receiver.requests().is_empty());

    let process = place.start();
    let requests = receiver.wait_for(20, PATIENCE).expect("every callback");
    let mut told: Vec<String> = requests
        .iter()
        .map(|request| {
            request.verify(KEY).expect("a good signature");
            request.json().expect("JSON")["pic_full_url"].as_str().expect("text").to_owned()
        })
        .collect();
    told.sort();
    let mut expected: Vec<String> = recorded.into_iter().filter_map(|recorded| recorded.pic_full_url).collect();
    expected.sort();
    assert_eq!(told, expected);
    framehook_testkit::wait::until("an empty spool", PATIENCE, || (process.spool.bytes() == 0).then_some(()))
        .expect("empty");
    assert_eq!(fs::read_dir(place.dir().join("spool")).expect("a directory").count(), 0);
}

#[test]
fn nothing_is_acknowledged_once_the_database_has_stopped() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let picture = process.picture(&room(), &template());
    let id: SnapshotId = picture.pictures[0].renditions[0].snapshot_id;
    process.fatal.raise("test", "a sync failed");
    let committed = process.block_on(process.committer.commit(picture));
    assert!(matches!(committed, Err(CommitError::Stopped)), "{committed:?}");
    // Its file stays for the next start to judge: a commit whose sync failed may have reached the disk all the same.
    assert!(process.spool.path(id).exists());
    let error = process.block_on(process.fatal.wait());
    assert_eq!((error.part, error.cause.as_str()), ("test", "a sync failed"));
}
