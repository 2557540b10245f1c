//! A disk that is full: new pictures are shed, what is owed stays, and all goes on when there is room again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use framehook_server::audit::Caller;
use framehook_server::commit::CommitError;
use framehook_server::db::DbError;
use framehook_server::db::outbox::State;
use framehook_server::notify::ReplayError;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::wait;
use tempfile::TempDir;

use crate::harness::{PATIENCE, Place, files_below, room, stream, telling_room, template};

/// A file system in memory of a few megabytes.
struct SmallDisk {
    dir: TempDir,
}

/// Set where a test runs for the second time, with mounts of its own.
const OWN_MOUNTS: &str = "FULL_DISK_OWN_MOUNTS";

impl SmallDisk {
    /// Mounting takes a privilege. Without it the test `name` runs again as the root of a user namespace of its own, fails
    /// as it does there, and there is nothing left to do here.
    fn mount(megabytes: u32, name: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output().expect("mount");
        if mounted.status.success() {
            return Some(Self { dir });
        }
        let needed = "this test mounts a small disk: run it as root with CAP_SYS_ADMIN, or allow user namespaces";
        let refused = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(std::env::var_os(OWN_MOUNTS).is_none(), "{needed} ({refused})");
        let mut again = Command::new("unshare");
        again.args(["--map-root-user", "--mount"]).arg(std::env::current_exe().expect("this program"));
        let ran = again.args(["--exact", name, "--nocapture"]).env(OWN_MOUNTS, "1").output().expect("unshare");
        let output = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && output.contains("1 passed"), "{needed}\n{refused}{output}");
        None
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.dir.path().join("filler");
        let mut filler = fs::File::create(&path).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed in the test may still hold files.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}

fn spooled(dir: &Path) -> usize {
    fs::read_dir(dir.join("spool")).expect("a directory").count()
}

#[test]
fn a_full_disk_sheds_new_pictures_keeps_what_is_owed_and_recovers() {
    let Some(disk) = SmallDisk::mount(16, "full_disk::a_full_disk_sheds_new_pictures_keeps_what_is_owed_and_recovers")
    else {
        return;
    };
    let receiver = Receiver::start().expect("a receiver");
    let data = disk.dir.path().join("data");
    let place = Place::at(&data, telling_room(&receiver.url("/")));
    // Nothing leaves the spool yet.
    let process = place.start_with(crate::harness::Settings { stores: false, ..Default::default() });
    let owed: Vec<_> = (0..5).map(|_| process.commit(&room())).collect();
    let filler = disk.fill();

    // Now neither a picture's file nor its rows have room; nothing of it stays behind.
    let mut shed = 0;
    for _ in 0..20 {
        let mut picture = process.picture(&room(), &template());
        picture.pictures[0].renditions[0].bytes = Bytes::from(vec![7; 64 << 10]);
        match process.block_on(process.committer.commit(picture)) {
            Err(CommitError::SpoolFull) => shed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((shed, spooled(&data)), (20, 5));
    assert!(process.spool.has_room(1).is_err(), "and the next ones are not even rendered");
    assert!(!process.fatal.is_raised(), "a full disk is no reason to stop");

    // With room again new pictures are taken at once, by the same process.
    fs::remove_file(filler).expect("room again");
    wait::until("room", PATIENCE, || process.spool.has_room(1).ok()).expect("seen");
    process.commit(&room());
    let filler = disk.fill();
    process.kill();

    // A start on a full disk has to wait for room, too; then all that was owed arrives.
    fs::remove_file(filler).expect("room again");
    let process = place.start();
    receiver.wait_for(owed.len() + 1, PATIENCE).expect("everything owed");
    process.commit(&room());
    wait::until("all delivered", PATIENCE, || (process.count(State::Delivered) == 7).then_some(())).expect("delivered");
    process.stop();
}

/// Of a transaction that the disk had no room for nothing is remembered, not even where an endpoint leads that was new in it: its
/// number goes to the next.
#[test]
fn what_had_no_room_is_not_taken_for_what_comes_after_it() {
    let Some(disk) = SmallDisk::mount(16, "full_disk::what_had_no_room_is_not_taken_for_what_comes_after_it") else {
        return;
    };
    let [receiver, refused, meant] = [(); 3].map(|()| Receiver::start().expect("a receiver"));
    let place = Place::at(&disk.dir.path().join("data"), telling_room(&receiver.url("/")));
    let process = place.start();
    process.commit(&room());
    let id = process.wait_for_state(State::Delivered).row.id;
    let replay = |url: &str| process.block_on(process.replayer.replay(&Caller::Control, id, Some(url)));
    let filler = disk.fill();
    let error = replay(&refused.url("/")).expect_err("no room");
    assert!(matches!(error, ReplayError::Db(DbError::Full)), "{error:?}");
    fs::remove_file(filler).expect("room again");
    replay(&meant.url("/")).expect("there is room");
    meant.wait_for(1, PATIENCE).expect("it is sent where the second replay said");
    assert_eq!((refused.requests().len(), receiver.requests().len()), (0, 1));
    process.stop();
}

/// There is room for a picture's file and its object's name, and none for its row.
#[test]
fn a_picture_that_was_put_ahead_and_has_no_room_for_its_row_leaves_nothing() {
    let name = "full_disk::a_picture_that_was_put_ahead_and_has_no_room_for_its_row_leaves_nothing";
    let Some(disk) = SmallDisk::mount(16, name) else { return };
    let receiver = Receiver::start().expect("a receiver");
    let data = disk.dir.path().join("data");
    let place = Place::at(&data, telling_room(&receiver.url("/")));
    let process = place.start_with(crate::harness::Settings { notifies: false, ..Default::default() });
    process.wait_until_prepared();
    process.commit(&room());
    let filler = disk.fill();
    let left = fs::metadata(&filler).expect("a file").len();
    fs::File::options().write(true).open(&filler).expect("a file").set_len(left - 8192).expect("two pages of room");
    let before = process.db.stats().full;
    let other = stream("push.example.com", "other");
    let refused = process.block_on(process.committer.commit(process.picture(&other, &template())));
    assert!(matches!(refused, Err(CommitError::SpoolFull)), "{refused:?}");
    assert_eq!(process.db.stats().full - before, 1, "it was the database that had no room");
    assert_eq!((spooled(&data), process.spool.bytes()), (0, 0));
    assert_eq!(files_below(&data.join("objects")).expect("objects").len(), 1, "the one before");
    fs::remove_file(filler).expect("room again");
    process.commit(&other);
    assert_eq!(process.count(State::Due), 2, "its name was free");
    process.stop();
}

#[test]
fn outcomes_wait_for_room_and_nothing_is_sent_twice_meanwhile() {
    let Some(disk) = SmallDisk::mount(16, "full_disk::outcomes_wait_for_room_and_nothing_is_sent_twice_meanwhile")
    else {
        return;
    };
    let receiver = Receiver::start().expect("a receiver");
    let data = disk.dir.path().join("data");
    let place = Place::at(&data, telling_room(&receiver.url("/")));
    let process = place.start();
    process.commit(&room());
    process.wait_for_state(State::Delivered);
    // The disk is full at the very moment a receiver answers.
    let path = disk.dir.path().join("filler");
    let root = disk.dir.path().to_owned();
    receiver.on_request(move |_| {
        let mut filler = fs::File::create(root.join("filler")).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
        framehook_testkit::receiver::Reply::Status(200)
    });
    process.commit(&room());
    receiver.wait_for(2, PATIENCE).expect("the request that fills the disk");
    let failed = process.db.stats().full;
    let refused = wait::until("an outcome that has no room", PATIENCE, || {
        let settled = process.count(State::Delivered) == 2;
        (settled || process.db.stats().full > failed + 1).then_some(settled)
    });
    let settled_at_once = refused.expect("looked");
    fs::remove_file(path).expect("room again");
    wait::until("the outcome is written", PATIENCE, || (process.count(State::Delivered) == 2).then_some(()))
        .expect("written");
    assert_eq!(receiver.requests().len(), 2, "sent once although its outcome had to wait ({settled_at_once})");
    assert!(!process.fatal.is_raised());
    process.stop();
}
