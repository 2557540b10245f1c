//! A disk that fails to sync: nothing is acknowledged, the sync is never tried again, and the next start goes by what the
//! disk really has.
//!
//! Each test starts itself again under the library that fails syncs.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use framehook_domain::id::{SnapshotId, uuid_v7};
use framehook_server::commit::CommitError;
use framehook_server::credentials::Credentials;
use framehook_server::db::outbox::State;
use framehook_server::db::{DbError, DirLock};
use framehook_server::entropy::Entropy;
use framehook_server::fatal::Fatal;
use framehook_server::store::spool::{Spool, SpoolError, SpoolLimits};
use framehook_server::store::{LocalStore, Retry};
use framehook_testkit::failing_sync::{FailingSync, SyncPlan};
use framehook_testkit::wait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{CREATE_TIME, PATIENCE, Place, Settings, files_below, room, telling_room, template};

/// The plan of syncs that fail, if this process runs under the library. Otherwise runs the test `name` again under it, and
/// fails as that does.
fn under_the_library(name: &str) -> Option<SyncPlan> {
    if let Some(plan) = SyncPlan::of_this_process() {
        return Some(plan);
    }
    let failing = FailingSync::build().expect("the library");
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let ran = again.envs(failing.environment()).output().expect("started");
    let output = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && output.contains("1 passed"), "{output}");
    None
}

fn only_commit() -> Settings {
    Settings { stores: false, notifies: false, ..Settings::default() }
}

#[test]
fn a_failed_sync_of_the_database_ends_everything_and_is_not_repeated() {
    let Some(plan) =
        under_the_library("failing_sync::a_failed_sync_of_the_database_ends_everything_and_is_not_repeated")
    else {
        return;
    };
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let acknowledged = process.commit(&room());
    plan.fail("framehook.db-wal");

    let picture = process.picture(&room(), &template());
    let spooled = process.spool.path(picture.pictures[0].renditions[0].snapshot_id);
    let refused = process.block_on(process.committer.commit(picture));
    assert!(matches!(refused, Err(CommitError::Stopped)), "{refused:?}");
    assert_eq!(process.block_on(process.fatal.wait()).part, "database");
    assert_eq!(plan.failures(), 1);
    for _ in 0..3 {
        assert!(matches!(process.block_on(process.db.write(|_| Ok(()))), Err(DbError::Stopped)));
    }
    assert_eq!(plan.failures(), 1, "a sync that failed is never tried again");
    assert!(spooled.exists(), "whether its row reached the disk is for the next start to see");
    process.kill();
    wait::until("the file to be closed", PATIENCE, || DirLock::take(place.dir()).ok()).expect("closed");
    assert_eq!(plan.failures(), 1, "not even by closing");

    plan.fail_none();
    let process = place.start_with(only_commit());
    let rows = process.list(Default::default());
    assert!(rows.iter().any(|row| row.snapshot == Some(acknowledged.snapshot_id)), "what was acknowledged is there");
    for row in rows {
        let id = row.snapshot.expect("a picture's event");
        assert!(process.spool.path(id).exists(), "every row that is there has its picture");
    }
}

#[test]
fn a_failed_sync_in_the_spool_ends_everything_and_leaves_no_row() {
    let Some(plan) = under_the_library("failing_sync::a_failed_sync_in_the_spool_ends_everything_and_leaves_no_row")
    else {
        return;
    };
    // Of the picture's own bytes, and of the directory that names it.
    for part in [".image", "/spool"] {
        plan.fail_none();
        let place = Place::new(telling_room("http://127.0.0.1:1/"));
        let process = place.start_with(only_commit());
        plan.fail(part);
        let refused = process.block_on(process.committer.commit(process.picture(&room(), &template())));
        assert!(matches!(refused, Err(CommitError::Stopped)), "{part}: {refused:?}");
        assert_eq!(process.block_on(process.fatal.wait()).part, "spool", "{part}");
        assert_eq!(plan.failures(), 1, "{part}");
        let again = process.block_on(process.committer.commit(process.picture(&room(), &template())));
        assert!(again.is_err(), "{part}: nothing is acknowledged any more");
        process.kill();

        plan.fail_none();
        let process = place.start_with(only_commit());
        assert!(process.list(Default::default()).is_empty(), "{part}");
        assert_eq!(fs::read_dir(place.dir().join("spool")).expect("a directory").count(), 0, "{part}");
    }
}

/// Commits and stores, and tells nobody.
fn without_notifier() -> Settings {
    Settings { notifies: false, ..Settings::default() }
}

#[test]
fn a_failed_sync_in_the_store_leaves_no_row_of_a_picture_that_was_put_ahead() {
    let name = "failing_sync::a_failed_sync_in_the_store_leaves_no_row_of_a_picture_that_was_put_ahead";
    let Some(plan) = under_the_library(name) else { return };
    // Of the directory that names the object, and of those above it, which name the new directories.
    for part in ["/objects/shots-1250000000/", "/objects/shots-1250000000", "/objects"] {
        plan.fail_none();
        let place = Place::new(telling_room("http://127.0.0.1:1/"));
        let process = place.start_with(without_notifier());
        process.wait_until_prepared();
        plan.fail(part);
        let refused = process.block_on(process.committer.commit(process.picture(&room(), &template())));
        assert!(matches!(refused, Err(CommitError::Stopped)), "{part}: {refused:?}");
        assert_eq!(process.block_on(process.fatal.wait()).part, "local store", "{part}");
        assert_eq!(plan.failures(), 1, "{part}");
        process.kill();

        plan.fail_none();
        let process = place.start_with(without_notifier());
        assert!(process.list(Default::default()).is_empty(), "{part}");
        let is_empty = || files_below(&place.dir().join("spool")).expect("a spool").is_empty().then_some(());
        wait::until("an empty spool", PATIENCE, is_empty).expect("cleared");
        process.stop();
        for dir in ["spool", "objects"] {
            assert_eq!(files_below(&place.dir().join(dir)).expect("files"), [].into(), "{part}");
        }
    }
}

#[test]
fn a_failed_sync_in_the_store_announces_nothing() {
    let Some(plan) = under_the_library("failing_sync::a_failed_sync_in_the_store_announces_nothing") else { return };
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(without_notifier());
    process.wait_until_prepared();
    // Something lies under the picture's key, so it is owed first.
    let object = place.dir().join("objects/shots-1250000000/2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg");
    fs::create_dir_all(object.parent().expect("a directory")).expect("a directory");
    fs::write(&object, "somebody's").expect("a file");
    plan.fail("/objects/shots-1250000000/");
    process.commit(&room());
    wait::until("the end", PATIENCE, || process.fatal.is_raised().then_some(())).expect("the end");
    assert_eq!(process.block_on(process.fatal.wait()).part, "local store");
    assert_eq!(process.count(State::Waiting), 1, "nobody is told");
    assert_eq!(plan.failures(), 1);
    process.kill();

    plan.fail_none();
    let process = place.start_with(without_notifier());
    wait::until("the picture to be stored", PATIENCE, || (process.count(State::Due) == 1).then_some(()))
        .expect("stored");
    process.stop();
}

/// Runs `work` while no further file can be opened.
fn without_descriptors<T>(work: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    setrlimit(Resource::Nofile, none).expect("a lower limit");
    let done = work();
    setrlimit(Resource::Nofile, limit).expect("the limit of before");
    done
}

#[test]
fn running_out_of_descriptors_is_no_failed_sync() {
    // In a process of its own, since the limit is the whole process's.
    if under_the_library("failing_sync::running_out_of_descriptors_is_no_failed_sync").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let fatal = Fatal::new();
    let limits = SpoolLimits { bytes_max: 1 << 30, disk_reserve_bytes: 0 };
    let spool = Spool::open(&dir.path().join("spool"), limits, &[], fatal.clone()).expect("a spool");
    let store = LocalStore::open(&dir.path().join("objects"), Entropy::system(), fatal.clone()).expect("a store");
    let [first, second] = [1, 2].map(|number| SnapshotId(uuid_v7(CREATE_TIME, [number; 10])));
    spool.write(first, b"picture").expect("written");
    without_descriptors(|| {
        spool.sync_names().expect("naming a picture takes no descriptor");
        let refused =
            store.put("shots-1", "day/a.jpg", &spool.path(first)).expect_err("the directory cannot be synced");
        assert_eq!(refused.retry(), Retry::Later, "{refused:?}");
        let refused = spool.write(second, b"picture").expect_err("the file cannot be made");
        assert!(matches!(refused, SpoolError::Write { .. }), "{refused:?}");
    });
    assert!(!fatal.is_raised());
    store.put("shots-1", "day/a.jpg", &spool.path(first)).expect("put");
}

/// The directory in which a child of the next test makes its credentials.
const CUT_OFF_IN: &str = "CREDENTIALS_CUT_OFF_IN";

#[test]
fn a_first_start_that_is_killed_while_it_writes_the_credentials_can_be_repeated() {
    if let Some(dir) = std::env::var_os(CUT_OFF_IN) {
        // The kernel ends a process that writes beyond this limit in the middle of its write.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Fsize, none).expect("a limit");
        let _ = Credentials::open(Path::new(&dir), &Entropy::system());
        unreachable!("the write has ended this process");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let name = "failing_sync::a_first_start_that_is_killed_while_it_writes_the_credentials_can_be_repeated";
    let ended = child.args(["--exact", name]).env(CUT_OFF_IN, dir.path()).output().expect("started");
    assert_eq!(ended.status.signal(), Some(rustix::process::Signal::XFSZ.as_raw()), "{ended:?}");

    let (_, are_new) = Credentials::open(dir.path(), &Entropy::system()).expect("a second first start");
    assert!(are_new);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "and nothing is left of the first");
}
