//! The data directory: can it be written to, is there room, will a picture go from the spool to the store.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use framehook_domain::id::{SnapshotId, uuid_v7};
use framehook_domain::time::UnixMs;

use super::Finding;
use crate::clock::Clock;
use crate::config::ByteSize;
use crate::durable::sync_dir;
use crate::entropy::Entropy;
use crate::store::LocalStore;
use crate::store::spool::Spool;

/// A directory of our own beside what is looked at, removed with all that is in it at the end.
struct Scratch(PathBuf);

impl Scratch {
    /// In `dir`, or in the nearest directory above it that exists: looking must not make the data directory.
    fn make(dir: &Path) -> io::Result<Self> {
        let above = existing(dir)?;
        let scratch = above.join(format!(".framehook-doctor-{}", std::process::id()));
        fs::create_dir(&scratch)?;
        Ok(Self(scratch))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed was made a moment ago, so this fails only if the disk did.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `dir`, or the nearest directory above it that exists.
fn existing(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    let mut above = absolute.ancestors();
    loop {
        let candidate = above.next().ok_or(io::ErrorKind::NotFound)?;
        match fs::metadata(candidate) {
            Ok(found) if found.is_dir() => return Ok(candidate.to_owned()),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("{} is no directory", candidate.display()),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// A sync that takes longer than this makes every callback late: a picture costs two of them.
const SYNC_SLOW_MS: u128 = 100;

/// Writes a file there and syncs it, as every commit does.
pub(super) fn data_dir(dir: &Path) -> Finding {
    const CHECK: &str = "data_dir";
    match write_and_sync(dir) {
        Ok(took_ms) if took_ms > SYNC_SLOW_MS => Finding::warning(
            CHECK,
            format!("writing and syncing a file in {} took {took_ms} ms", dir.display()),
            "put data_dir on a local disk; every picture waits for a sync before its callback goes out",
        ),
        Ok(took_ms) => {
            Finding::good(CHECK, format!("a file in {} is written and synced in {took_ms} ms", dir.display()))
        }
        Err(error) => Finding::bad(
            CHECK,
            format!("cannot write and sync a file in {}: {error}", dir.display()),
            "give the server's user the right to write there, or set data_dir",
        ),
    }
}

fn write_and_sync(dir: &Path) -> io::Result<u128> {
    let scratch = Scratch::make(dir)?;
    let clock = Clock::start();
    let mut file = File::create(scratch.0.join("file"))?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    sync_dir(&scratch.0)?;
    Ok(clock.mono().0.as_millis())
}

/// Compares the room that is left with what is kept in reserve.
pub(super) fn disk(dir: &Path, reserve: ByteSize) -> Finding {
    const CHECK: &str = "disk";
    let asked = existing(dir).and_then(|dir| Ok(rustix::fs::statvfs(&dir)?));
    let free = match asked {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            let found = format!("cannot tell how much room {} has: {error}", dir.display());
            return Finding::bad(CHECK, found, "set data_dir to a directory on a local disk");
        }
    };
    let found = format!("{} MiB free, {} MiB kept in reserve", free >> 20, reserve.0 >> 20);
    if free > reserve.0 {
        Finding::good(CHECK, found)
    } else {
        Finding::bad(CHECK, found, "free some room or lower spool.disk_reserve; until then new pictures are skipped")
    }
}

/// Takes a file from the spool to the local store as the server does: by a hard link, else by copying.
pub(super) fn store(dir: &Path) -> Finding {
    const CHECK: &str = "store";
    let (spool, objects) = (dir.join("spool"), dir.join("objects"));
    match link(&spool, &objects) {
        Ok(()) => {
            Finding::good(CHECK, format!("pictures go from the spool into {} without being copied", objects.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Finding::warning(
            CHECK,
            format!(
                "{} and {} are on different disks, so each picture is written twice",
                spool.display(),
                objects.display()
            ),
            "keep both on one disk",
        ),
        Err(error) => Finding::bad(
            CHECK,
            format!("cannot take a file from {} to {}: {error}", spool.display(), objects.display()),
            "both must be directories that the server's user may write to",
        ),
    }
}

fn link(spool: &Path, objects: &Path) -> io::Result<()> {
    // Under names that a start sweeps up, if this process does not come to remove them: those of an unfinished picture in
    // the spool, and anything at all among the store's unfinished objects.
    let id = uuid_v7(Clock::start().wall(), Entropy::system().id_bytes());
    let picture = Leftover(existing(spool)?.join(Spool::file_name(SnapshotId(id))));
    let object = Leftover(existing(&objects.join(LocalStore::UNFINISHED))?.join(format!("{id}.object")));
    File::create_new(&picture.0)?.sync_all()?;
    fs::hard_link(&picture.0, &object.0)?;
    Ok(sync_dir(object.0.parent().unwrap_or(objects))?)
}

/// A file that is removed at the end.
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// When a file of the data directory was last changed. The database changes with every picture.
pub(super) fn newest_change(dir: &Path) -> Option<UnixMs> {
    let changed = |entry: io::Result<fs::DirEntry>| {
        let modified = entry.ok()?.metadata().ok()?.modified().ok()?;
        let since_epoch = modified.duration_since(UNIX_EPOCH).ok()?;
        Some(UnixMs(i64::try_from(since_epoch.as_millis()).ok()?))
    };
    fs::read_dir(dir).ok()?.filter_map(changed).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    /// Everything that lies in a directory.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect()
    }

    #[test]
    fn looking_leaves_nothing_behind_and_makes_no_data_directory() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("not/yet/there");
        for finding in [data_dir(&dir), store(&dir), disk(&dir, ByteSize(0))] {
            assert_ne!(finding.status, Status::Bad, "{finding:?}");
        }
        assert!(names(parent.path()).is_empty(), "{:?}", names(parent.path()));
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_bad() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        fs::write(&dir, "").unwrap();
        assert_eq!(data_dir(&dir).status, Status::Bad);
        assert_eq!(disk(&dir, ByteSize(0)).status, Status::Bad);
    }

    #[test]
    fn a_disk_with_less_than_the_reserve_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let finding = disk(dir.path(), ByteSize(u64::MAX));
        assert_eq!(finding.status, Status::Bad);
        assert!(finding.mend.unwrap().contains("spool.disk_reserve"));
    }

    #[test]
    fn a_store_that_cannot_take_a_file_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("objects"), "").unwrap();
        assert_eq!(store(dir.path()).status, Status::Bad);
        assert_eq!(names(dir.path()), ["objects"]);
    }

    #[test]
    fn the_newest_change_is_that_of_the_newest_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest_change(dir.path()), None);
        let file = File::create(dir.path().join("framehook.db")).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(7)).unwrap();
        assert_eq!(newest_change(dir.path()), Some(UnixMs::from_secs(7)));
    }
}
