//! A disk that fails to sync: nothing is acknowledged, the sync is never tried again, and the next start goes by what the
//! disk really has.
//!
//! No file system fails on demand without privileges, so a small library stands in front of the C library's `fsync` and
//! `fdatasync`. Each test starts itself again under it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use framehook_domain::id::{SnapshotId, uuid_v7};
use framehook_server::commit::CommitError;
use framehook_server::credentials::Credentials;
use framehook_server::db::DbError;
use framehook_server::db::outbox::State;
use framehook_server::entropy::Entropy;
use framehook_server::fatal::Fatal;
use framehook_server::store::spool::{Spool, SpoolError, SpoolLimits};
use framehook_server::store::{LocalStore, Retry};
use framehook_testkit::wait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{CREATE_TIME, PATIENCE, Place, Settings, room, telling_room, template};

/// Fails every sync of a file whose path contains the text in the file that the variable names, and notes it there.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char part[256] = "", link[64], path[4096];
    const char *plan = getenv("SYNC_FAILS_PLAN");
    FILE *file = plan ? fopen(plan, "r") : NULL;
    if (!file) return 0;
    if (!fgets(part, sizeof part, file)) part[0] = 0;
    fclose(file);
    part[strcspn(part, "\n")] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!part[0] || length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, part)) return 0;
    file = fopen(plan, "a");
    if (file) { fprintf(file, "failed\n"); fclose(file); }
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    return fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd) ? -1 : real(fd);
}
"#;

const PLAN: &str = "SYNC_FAILS_PLAN";

/// The file that says which syncs fail, if this process runs under the library. Otherwise runs the test `name` again under
/// it, and fails as that does.
fn under_the_shim(name: &str) -> Option<PathBuf> {
    if let Some(plan) = std::env::var_os(PLAN) {
        return Some(plan.into());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (source, library, plan) = (dir.path().join("shim.c"), dir.path().join("shim.so"), dir.path().join("plan"));
    fs::write(&source, SHIM).expect("a file");
    fs::write(&plan, "").expect("a file");
    // The same compiler that built SQLite for this program.
    let mut compile = Command::new("cc");
    let compiled = compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    let compiled = compiled.expect("a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let ran = again.env("LD_PRELOAD", &library).env(PLAN, &plan).output().expect("started");
    let output = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && output.contains("1 passed"), "{output}");
    None
}

fn fail_syncs_of(plan: &Path, part: &str) {
    fs::write(plan, format!("{part}\n")).expect("a plan");
}

fn failures(plan: &Path) -> usize {
    fs::read_to_string(plan).expect("a plan").lines().skip(1).count()
}

fn only_commit() -> Settings {
    Settings { stores: false, notifies: false, ..Settings::default() }
}

#[test]
fn a_failed_sync_of_the_database_ends_everything_and_is_not_repeated() {
    let Some(plan) = under_the_shim("failing_sync::a_failed_sync_of_the_database_ends_everything_and_is_not_repeated")
    else {
        return;
    };
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(only_commit());
    let acknowledged = process.commit(&room());
    fail_syncs_of(&plan, "framehook.db-wal");

    let picture = process.picture(&room(), &template());
    let spooled = process.spool.path(picture.pictures[0].snapshot_id);
    let refused = process.block_on(process.committer.commit(picture));
    assert!(matches!(refused, Err(CommitError::Stopped)), "{refused:?}");
    assert_eq!(process.block_on(process.fatal.wait()).part, "database");
    assert_eq!(failures(&plan), 1);
    for _ in 0..3 {
        assert!(matches!(process.block_on(process.db.write(|_| Ok(()))), Err(DbError::Stopped)));
    }
    assert_eq!(failures(&plan), 1, "a sync that failed is never tried again");
    assert!(spooled.exists(), "whether its row reached the disk is for the next start to see");
    process.kill();

    fail_syncs_of(&plan, "");
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
    let Some(plan) = under_the_shim("failing_sync::a_failed_sync_in_the_spool_ends_everything_and_leaves_no_row")
    else {
        return;
    };
    // Of the picture's own bytes, and of the directory that names it.
    for part in [".partial", "/spool"] {
        fail_syncs_of(&plan, "");
        let place = Place::new(telling_room("http://127.0.0.1:1/"));
        let process = place.start_with(only_commit());
        fail_syncs_of(&plan, part);
        let refused = process.block_on(process.committer.commit(process.picture(&room(), &template())));
        assert!(matches!(refused, Err(CommitError::Stopped)), "{part}: {refused:?}");
        assert_eq!(process.block_on(process.fatal.wait()).part, "spool", "{part}");
        assert_eq!(failures(&plan), 1, "{part}");
        let again = process.block_on(process.committer.commit(process.picture(&room(), &template())));
        assert!(again.is_err(), "{part}: nothing is acknowledged any more");
        process.kill();

        fail_syncs_of(&plan, "");
        let process = place.start_with(only_commit());
        assert!(process.list(Default::default()).is_empty(), "{part}");
        assert_eq!(fs::read_dir(place.dir().join("spool")).expect("a directory").count(), 0, "{part}");
    }
}

#[test]
fn a_failed_sync_in_the_store_announces_nothing() {
    let Some(plan) = under_the_shim("failing_sync::a_failed_sync_in_the_store_announces_nothing") else { return };
    // Of the directory that names the object, and of those above it, which name the new directories.
    for part in ["/objects/shots-1250000000/", "/objects/shots-1250000000", "/objects"] {
        fail_syncs_of(&plan, "");
        let place = Place::new(telling_room("http://127.0.0.1:1/"));
        let process = place.start_with(Settings { notifies: false, ..Settings::default() });
        fail_syncs_of(&plan, part);
        process.commit(&room());
        wait::until("the end", PATIENCE, || process.fatal.is_raised().then_some(())).expect(part);
        assert_eq!(process.block_on(process.fatal.wait()).part, "local store", "{part}");
        assert_eq!(process.count(State::Waiting), 1, "{part}: nobody is told");
        assert_eq!(failures(&plan), 1, "{part}");
        process.kill();

        fail_syncs_of(&plan, "");
        let process = place.start_with(Settings { notifies: false, ..Settings::default() });
        wait::until("the picture to be stored", PATIENCE, || (process.count(State::Due) == 1).then_some(()))
            .expect("stored");
    }
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
    if under_the_shim("failing_sync::running_out_of_descriptors_is_no_failed_sync").is_none() {
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
        spool.link(&[first]).expect("naming a picture takes no descriptor");
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
