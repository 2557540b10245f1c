//! Objects that each newer picture overwrites: in order, never older than what was there, and never announced.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::TemplateId;
use framehook_domain::stream::StreamId;
use framehook_domain::template::{Objects, RenditionDraft, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_domain::time::UnixMs;
use framehook_server::audit::Caller;
use framehook_server::commit::{Recorded, Rendered};
use framehook_server::db::latest::{self, OwedLatest};
use framehook_server::db::outbox::owed_counts;
use framehook_server::db::prune::prune_before;
use framehook_server::db::snapshot::{self, held_puts};
use framehook_testkit::wait;

use crate::harness::{CREATE_TIME, PATIENCE, Place, Process, Settings, of_kind, room, telling_room};

fn template(objects: Objects) -> Arc<SnapshotTemplate> {
    let thumb = RenditionDraft { name: "thumb".into(), format: Some("webp".into()), ..RenditionDraft::default() };
    let draft = SnapshotTemplateDraft {
        name: "shots".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "local".into(),
        objects: Some(objects.name().to_owned()),
        renditions: vec![thumb],
        ..SnapshotTemplateDraft::default()
    };
    Arc::new(SnapshotTemplate::validate(TemplateId(1), draft).expect("a template"))
}

/// A picture taken so long after [`CREATE_TIME`].
fn picture(process: &Process, stream: &StreamId, template: &Arc<SnapshotTemplate>, secs: u64) -> Rendered {
    let mut picture = process.picture(stream, template);
    picture.create_time = CREATE_TIME.plus(Duration::from_secs(secs));
    picture
}

fn commit(process: &Process, picture: Rendered) -> Vec<Recorded> {
    process.block_on(process.committer.commit(picture)).expect("committed")
}

fn object(place: &Place, name: &str) -> PathBuf {
    place.dir().join("objects/shots-1250000000/latest/push.example.com/live").join(name)
}

/// Waits until an object has these bytes.
fn shows(place: &Place, name: &str, bytes: &[u8]) {
    let path = object(place, name);
    wait::until("the newest picture", PATIENCE, || std::fs::read(&path).ok().filter(|there| there == bytes))
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::fs::read_to_string(&path)));
}

fn files_in_spool(place: &Place) -> usize {
    std::fs::read_dir(place.dir().join("spool")).expect("a directory").count()
}

fn empty_spool(place: &Place, process: &Process) {
    // A file is gone a moment before its bytes are given back.
    let is_empty = || (files_in_spool(place) == 0 && process.spool.bytes() == 0).then_some(());
    wait::until("an empty spool", PATIENCE, is_empty).expect("nothing is owed");
}

#[test]
fn each_picture_overwrites_the_one_before_and_nobody_is_told() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let template = template(Objects::Latest);
    for secs in [0, 2, 4] {
        let picture = picture(&process, &room(), &template, secs);
        let [main, thumb] = &picture.pictures[0].renditions[..] else { panic!("two renditions") };
        let (main, thumb) = (main.bytes.clone(), thumb.bytes.clone());
        assert!(commit(&process, picture).is_empty(), "nothing is recorded to be announced");
        shows(&place, "room_1001.jpg", &main);
        shows(&place, "thumb/room_1001.webp", &thumb);
    }
    empty_spool(&place, &process);
    assert!(process.list(of_kind(EventKind::Snapshot)).is_empty());
}

#[test]
fn both_writes_both_and_announces_the_numbered_object_alone() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let picture = picture(&process, &room(), &template(Objects::Both), 0);
    let bytes = picture.pictures[0].renditions[0].bytes.clone();
    let recorded = commit(&process, picture);
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|recorded| !recorded.key.as_str().starts_with("latest/")), "{recorded:?}");
    shows(&place, "room_1001.jpg", &bytes);
    empty_spool(&place, &process);
    let numbered = place.dir().join("objects/shots-1250000000").join(recorded[0].key.as_str());
    assert_eq!(std::fs::read(numbered).expect("an object"), bytes);
    assert_eq!(process.list(of_kind(EventKind::Snapshot)).len(), 2);
}

#[test]
fn a_picture_that_comes_late_does_not_overwrite_a_newer_one() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start();
    let template = template(Objects::Latest);
    let (older, newer) = (picture(&process, &room(), &template, 0), picture(&process, &room(), &template, 2));
    let bytes = newer.pictures[0].renditions[0].bytes.clone();
    commit(&process, newer);
    shows(&place, "room_1001.jpg", &bytes);
    commit(&process, older);
    empty_spool(&place, &process);
    shows(&place, "room_1001.jpg", &bytes);
}

#[test]
fn a_clock_that_was_far_ahead_does_not_keep_newer_pictures_away() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start();
    let template = template(Objects::Latest);
    // A hundred years on.
    let (wrong, right) =
        (picture(&process, &room(), &template, 3_155_760_000), picture(&process, &room(), &template, 2));
    let bytes = [&wrong, &right].map(|picture| picture.pictures[0].renditions[0].bytes.clone());
    commit(&process, wrong);
    shows(&place, "room_1001.jpg", &bytes[0]);
    commit(&process, right);
    shows(&place, "room_1001.jpg", &bytes[1]);
}

#[test]
fn what_is_overtaken_while_nothing_is_put_is_dropped_and_a_kill_loses_nothing() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let template = template(Objects::Latest);
    let mut newest = None;
    for secs in 0..5 {
        let picture = picture(&process, &room(), &template, secs);
        newest = Some(picture.pictures[0].renditions[0].bytes.clone());
        commit(&process, picture);
        assert_eq!(files_in_spool(&place), 2, "one for each rendition, however many pictures there were");
    }
    let held = process.spool.bytes();
    process.kill();

    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    assert_eq!(process.spool.bytes(), held, "what is owed is still there");
    process.kill();

    let process = place.start();
    shows(&place, "room_1001.jpg", &newest.expect("five pictures"));
    empty_spool(&place, &process);
}

#[test]
fn a_put_that_is_made_again_after_a_kill_changes_nothing() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let picture = picture(&process, &room(), &template(Objects::Latest), 0);
    let image = picture.pictures[0].renditions[0].clone();
    commit(&process, picture);
    // As if the process had died between the put and the row that says so.
    let key = "latest/push.example.com/live/room_1001.jpg";
    process.files.put("shots-1250000000", key, &process.spool.path(image.latest_id)).expect("put");
    process.kill();

    let process = place.start();
    empty_spool(&place, &process);
    shows(&place, "room_1001.jpg", &image.bytes);
}

#[test]
fn an_announced_picture_is_never_where_others_are_overwritten() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start();
    let draft = SnapshotTemplateDraft {
        prefix: Some("covers".into()),
        file_name: Some("{StreamID}{Ext}".into()),
        latest_key: Some("covers/{StreamID}{Ext}".into()),
        renditions: Vec::new(),
        ..template(Objects::Both).to_draft()
    };
    let template = Arc::new(SnapshotTemplate::validate(TemplateId(1), draft).expect("a template"));
    let bucket = place.dir().join("objects/shots-1250000000");
    let first = picture(&process, &room(), &template, 0);
    let bytes = first.pictures[0].renditions[0].bytes.clone();
    // The numbered object has the name first, and keeps it.
    assert_eq!(commit(&process, first)[0].key.as_str(), "covers/room_1001.jpg");
    let second = picture(&process, &room(), &template, 2);
    assert_eq!(commit(&process, second)[0].key.as_str(), "covers/room_1001-2.jpg");
    empty_spool(&place, &process);
    assert_eq!(std::fs::read(bucket.join("covers/room_1001.jpg")).expect("an object"), bytes);
}

#[test]
fn a_store_that_refuses_is_asked_again_with_what_is_newest_by_then() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    // A file where the directory must be: the store refuses until a person mends it.
    let obstacle = place.dir().join("objects/shots-1250000000");
    std::fs::create_dir_all(place.dir().join("objects")).expect("a directory");
    std::fs::write(&obstacle, b"in the way").expect("a file");
    let process = place.start();
    let template = template(Objects::Latest);
    for secs in [0, 2] {
        let picture = picture(&process, &room(), &template, secs);
        commit(&process, picture);
    }
    let failed = || {
        let count = "SELECT count(*) FROM latest_object WHERE put_attempts > 0 AND put_error IS NOT NULL";
        let rows: i64 =
            process.block_on(process.db.read(move |conn| Ok(conn.query_row(count, [], |row| row.get(0))?))).ok()?;
        (rows == 2).then_some(())
    };
    wait::until("both to have failed", PATIENCE, failed).expect("refused");
    let third = picture(&process, &room(), &template, 4);
    let bytes = third.pictures[0].renditions[0].bytes.clone();
    commit(&process, third);
    assert_eq!(files_in_spool(&place), 2);
    std::fs::remove_file(&obstacle).expect("removed");
    process.kill();
    place.tamper("UPDATE latest_object SET put_due_ms = 0");

    let process = place.start();
    shows(&place, "room_1001.jpg", &bytes);
    empty_spool(&place, &process);
}

#[test]
fn what_waits_is_as_old_as_the_first_that_its_store_did_not_take() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let template = template(Objects::Latest);
    let owed = || process.block_on(process.storer.places()).expect("places")[0].owed;
    commit(&process, picture(&process, &room(), &template, 0));
    let first = owed().oldest.expect("it waits");
    wait::until("the next millisecond", PATIENCE, || (process.clock.wall() > first).then_some(())).expect("it comes");
    commit(&process, picture(&process, &room(), &template, 2));
    assert_eq!((owed().pictures, owed().oldest), (2, Some(first)));
    assert_eq!(process.block_on(process.db.read(owed_counts)).expect("counts").puts_owed, 2);
    process.kill();

    // It is put, and the next one is as old as itself.
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    empty_spool(&place, &process);
    process.kill();
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    commit(&process, picture(&process, &room(), &template, 4));
    let later = process.block_on(process.storer.places()).expect("places")[0].owed.oldest;
    assert!(later > Some(first), "{later:?}");
}

#[test]
fn a_key_that_no_template_writes_any_more_is_forgotten_when_it_is_old_and_its_object_stays() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let [first, second] = [0, 2].map(|secs| picture(&process, &room(), &template(Objects::Latest), secs));
    let thumb = first.pictures[0].renditions[1].bytes.clone();
    commit(&process, first);
    shows(&place, "thumb/room_1001.webp", &thumb);
    // From now on without the thumb.
    let without = SnapshotTemplateDraft { renditions: Vec::new(), ..template(Objects::Latest).to_draft() };
    let without = Arc::new(SnapshotTemplate::validate(TemplateId(1), without).expect("a template"));
    let second = Rendered { pictures: vec![process.taken(process.snapshot_id(), &without)], ..second };
    commit(&process, second);
    empty_spool(&place, &process);
    let keys = || {
        let keys = "SELECT object_key FROM latest_object ORDER BY object_key";
        let keys = process.db.read(move |conn| {
            Ok(conn.prepare(keys)?.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?)
        });
        process.block_on(keys).expect("rows")
    };
    let (main, gone) =
        ("latest/push.example.com/live/room_1001.jpg", "latest/push.example.com/live/thumb/room_1001.webp");
    assert_eq!(keys(), [main, gone]);
    let prune = process.db.write(|tx| prune_before(tx, CREATE_TIME.plus(Duration::from_secs(1))));
    process.block_on(prune).expect("pruned");
    assert_eq!(keys(), [main]);
    shows(&place, "thumb/room_1001.webp", &thumb);
}

#[test]
fn a_picture_that_its_store_refuses_is_shown_to_a_person_who_may_give_it_up() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    std::fs::create_dir_all(place.dir().join("objects")).expect("a directory");
    std::fs::write(place.dir().join("objects/shots-1250000000"), b"in the way").expect("a file");
    let process = place.start();
    commit(&process, picture(&process, &room(), &template(Objects::Latest), 0));
    let held = || process.block_on(process.db.read(held_puts)).ok().filter(|held| held.len() == 2);
    let held = wait::until("both to be held", PATIENCE, held).expect("held");
    let owed = process.block_on(process.storer.places()).expect("places")[0].owed;
    assert_eq!((owed.pictures, owed.held), (2, 2));
    assert_eq!(process.block_on(process.db.read(owed_counts)).expect("counts").puts_held, 2);
    for put in &held {
        assert!(put.key.starts_with("latest/") && put.error.is_some(), "{put:?}");
        assert!(process.block_on(process.storer.discard(put.id, &Caller::Control)).expect("discarded"));
        assert!(!process.block_on(process.storer.discard(put.id, &Caller::Control)).expect("asked again"));
    }
    empty_spool(&place, &process);
}

/// What is owed to the local store's bucket, as its puts begin with it.
fn owed(process: &Process) -> Vec<OwedLatest> {
    let bucket = snapshot::Place { store: "local".to_owned(), bucket: "shots-1250000000".to_owned() };
    let due = process.db.read(move |conn| latest::due(conn, &bucket, UnixMs(i64::MAX), 10));
    process.block_on(due).expect("rows")
}

#[test]
fn what_was_given_up_is_not_owed_again_when_the_put_before_it_ends() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let template = template(Objects::Latest);
    commit(&process, picture(&process, &room(), &template, 0));
    let under_way = owed(&process);
    assert_eq!(under_way.len(), 2);
    commit(&process, picture(&process, &room(), &template, 2));
    for overtaking in owed(&process) {
        assert!(process.block_on(process.storer.discard(overtaking.id, &Caller::Control)).expect("discarded"));
    }
    for put in under_way {
        process.block_on(process.db.write(move |tx| latest::mark_stored(tx, &put, CREATE_TIME))).expect("written");
    }
    assert_eq!(owed(&process), []);
    empty_spool(&place, &process);
}

#[test]
fn what_had_no_store_does_not_overwrite_an_announced_picture_when_it_gets_one() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start();
    let sequence = SnapshotTemplateDraft {
        prefix: Some("covers".into()),
        file_name: Some("{StreamID}{Ext}".into()),
        renditions: Vec::new(),
        ..template(Objects::Sequence).to_draft()
    };
    let latest = SnapshotTemplateDraft { renditions: Vec::new(), ..template(Objects::Latest).to_draft() };
    let [sequence, latest] =
        [sequence, latest].map(|draft| Arc::new(SnapshotTemplate::validate(TemplateId(1), draft).expect("a template")));
    let announced = picture(&process, &room(), &sequence, 0);
    let bytes = announced.pictures[0].renditions[0].bytes.clone();
    assert_eq!(commit(&process, announced)[0].key.as_str(), "covers/room_1001.jpg");
    empty_spool(&place, &process);
    process.kill();

    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    commit(&process, picture(&process, &room(), &latest, 2));
    process.kill();
    place.tamper("UPDATE latest_object SET store = 'unclaimed', object_key = 'covers/room_1001.jpg'");

    let process = place.start();
    empty_spool(&place, &process);
    let object = place.dir().join("objects/shots-1250000000/covers/room_1001.jpg");
    assert_eq!(std::fs::read(object).expect("an object"), bytes);
    let any = process.db.read(|conn| Ok(conn.prepare("SELECT 1 FROM latest_object")?.exists([])?));
    assert!(!process.block_on(any).expect("rows"));
}
