//! Pictures that are kept for some days only: when they go, what keeps them, and a kill between two steps of it.

use std::path::PathBuf;
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::catalog::ManagedBy;
use framehook_domain::template::SnapshotTemplate;
use framehook_domain::time::UnixMs;
use framehook_server::audit::Caller;
use framehook_server::commit::Recorded;
use framehook_server::db::catalog::{insert_snapshot_template, update_snapshot_template};
use framehook_server::db::outbox::{ReplayRefused, State};
use framehook_server::db::snapshot::{self, PutState};
use framehook_server::db::{prune as log, retention};
use framehook_server::notify::ReplayError;
use framehook_server::prune::expire;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::wait;

use crate::harness::{
    CREATE_TIME, PATIENCE, Place, Process, of_kind, room, stream, telling_nobody, telling_room, template,
};

const DAY: Duration = Duration::from_secs(86_400);

/// So long after the pictures of these tests were taken.
fn after(days: u32) -> UnixMs {
    CREATE_TIME.plus(DAY * days)
}

/// Tells the database what its template is.
fn keep_for(process: &Process, retention_days: Option<u16>) {
    let kept = SnapshotTemplate { retention_days, ..SnapshotTemplate::clone(&template()) };
    let write = process.db.write(move |tx| {
        let known: bool = tx.query_row("SELECT count(*) FROM snapshot_template", [], |row| row.get(0))?;
        if known {
            update_snapshot_template(tx, &kept, CREATE_TIME)?;
        } else {
            insert_snapshot_template(tx, &kept, ManagedBy::Api, CREATE_TIME)?;
        }
        Ok(())
    });
    process.block_on(write).expect("a template");
}

fn object(place: &Place, recorded: &Recorded) -> PathBuf {
    place.dir().join("objects/shots-1250000000").join(recorded.key.as_str())
}

/// A picture that is in its store.
fn stored(place: &Place, process: &Process, name: &str) -> Recorded {
    let recorded = process.commit(&stream("push.example.com", name));
    wait::until("the picture to be stored", PATIENCE, || {
        (state(process, &recorded)? == PutState::Stored).then_some(())
    })
    .expect("stored");
    assert!(object(place, &recorded).exists());
    recorded
}

fn state(process: &Process, recorded: &Recorded) -> Option<PutState> {
    let id = recorded.snapshot_id;
    process.block_on(process.db.read(move |conn| snapshot::show(conn, id))).expect("read").map(|row| row.state)
}

fn expire_at(process: &Process, wall: UnixMs) -> usize {
    process.block_on(expire(&process.db, &process.files, wall)).expect("expired")
}

#[test]
fn a_picture_goes_when_its_days_are_over_and_with_it_the_directory_that_it_leaves_empty() {
    let place = Place::new(telling_nobody());
    let process = place.start();
    keep_for(&process, Some(7));
    let (first, second) = (stored(&place, &process, "a"), stored(&place, &process, "b"));
    assert_eq!(expire_at(&process, after(7)), 0, "not before the day is over");
    assert_eq!(expire_at(&process, after(7).plus(Duration::from_millis(1))), 2);
    for recorded in [&first, &second] {
        assert!(!object(&place, recorded).exists());
        assert_eq!(state(&process, recorded), Some(PutState::Expired));
    }
    let bucket = place.dir().join("objects/shots-1250000000");
    assert_eq!(std::fs::read_dir(&bucket).expect("the bucket stays").count(), 0);
    assert_eq!(expire_at(&process, after(700)), 0, "nothing is removed twice");

    // Its directory is made anew for the next one, and its name is not given out again.
    let third = stored(&place, &process, "a");
    assert!(third.key.as_str().ends_with("-2.jpg"), "{}", third.key);
}

#[test]
fn one_that_cannot_be_removed_holds_up_no_other() {
    let place = Place::new(telling_nobody());
    let process = place.start();
    keep_for(&process, Some(7));
    let (stuck, first) = (stored(&place, &process, "a"), stored(&place, &process, "b"));
    // A directory where the file was.
    let path = object(&place, &stuck);
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir_all(path.join("in the way")).expect("made");
    assert_eq!(expire_at(&process, after(8)), 1);
    assert_eq!(state(&process, &first), Some(PutState::Expired));
    // It is found again in the next round, and those that have come since go all the same.
    let second = stored(&place, &process, "c");
    assert_eq!(expire_at(&process, after(8)), 1);
    assert_eq!(state(&process, &second), Some(PutState::Expired));
    std::fs::remove_dir_all(&path).expect("removed");
    assert_eq!(expire_at(&process, after(8)), 1, "once it can be removed it is");
}

#[test]
fn changed_days_apply_to_the_pictures_that_are_there() {
    let place = Place::new(telling_nobody());
    let process = place.start();
    keep_for(&process, None);
    let recorded = stored(&place, &process, "room");
    assert_eq!(expire_at(&process, after(4000)), 0, "kept for ever");
    keep_for(&process, Some(30));
    assert_eq!(expire_at(&process, after(8)), 0);
    keep_for(&process, Some(7));
    assert_eq!(expire_at(&process, after(8)), 1);
    assert_eq!(state(&process, &recorded), Some(PutState::Expired));
}

#[test]
fn a_picture_stays_while_a_callback_of_it_is_owed_and_none_is_sent_of_one_that_is_gone() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(crate::harness::Settings { notifies: false, ..Default::default() });
    keep_for(&process, Some(1));
    let recorded = process.commit(&room());
    let due = || (process.count(State::Due) == 1).then_some(());
    wait::until("the callback to be due", PATIENCE, due).expect("stored");
    assert_eq!(expire_at(&process, after(30)), 0);
    assert!(object(&place, &recorded).exists());
    process.stop();

    let process = place.start();
    let delivery = process.wait_for_state(State::Delivered).row.id;
    assert_eq!(expire_at(&process, after(30)), 1);
    let replayed = process.block_on(process.replayer.replay(&Caller::Control, delivery, None));
    assert!(matches!(replayed, Err(ReplayError::Refused(ReplayRefused::ObjectExpired))), "{replayed:?}");
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn a_kill_between_mark_and_file_or_file_and_row_leaves_nothing_behind() {
    for file_is_gone in [false, true] {
        let place = Place::new(telling_nobody());
        let process = place.start();
        keep_for(&process, Some(1));
        let recorded = stored(&place, &process, "room");
        let marked = process.block_on(process.db.write(|tx| retention::mark(tx, after(2), 10))).expect("marked");
        assert_eq!(marked.len(), 1);
        if file_is_gone {
            std::fs::remove_file(object(&place, &recorded)).expect("removed");
        }
        process.kill();

        let process = place.start();
        assert_eq!(state(&process, &recorded), Some(PutState::Expired), "of no use to anybody already");
        assert_eq!(expire_at(&process, after(2)), 1, "file gone: {file_is_gone}");
        assert!(!object(&place, &recorded).exists());
    }
}

#[test]
fn retention_outlives_the_log_and_ends_with_what_asked_for_it() {
    let place = Place::new(telling_nobody());
    let process = place.start();
    keep_for(&process, Some(30));
    let recorded = stored(&place, &process, "room");
    let forget = || {
        let pruned = process.block_on(process.db.write(|tx| log::prune_before(tx, UnixMs(i64::MAX)))).expect("pruned");
        pruned.snapshots
    };
    assert_eq!(forget(), 0);
    assert!(process.list(of_kind(EventKind::Snapshot)).is_empty());
    assert_eq!(state(&process, &recorded), Some(PutState::Stored), "the log has forgotten it, retention has not");
    assert_eq!(expire_at(&process, after(31)), 1);
    assert_eq!(state(&process, &recorded), None, "with nobody left to be told");

    // A template that keeps its pictures from now on lets go of the rows that only retention kept.
    let recorded = stored(&place, &process, "other");
    forget();
    let rows = || process.block_on(process.db.write(|tx| retention::prune_forgotten(tx, 10))).expect("pruned");
    assert_eq!(rows(), 0);
    keep_for(&process, None);
    assert_eq!(rows(), 1);
    assert_eq!(state(&process, &recorded), None);
    assert!(object(&place, &recorded).exists());
}
