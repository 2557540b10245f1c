//! The local store: objects as files under `objects/<bucket>-<appid>/<key>`.
//!
//! A spooled picture is hard-linked into place where it can be, so storing it writes no byte twice; over file systems it
//! is copied. Either way it appears whole, under its name, or not at all.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use crate::durable::{self, DirError, cannot_link, is_full, sync_dir};
use crate::entropy::Entropy;
use crate::fail_point;
use crate::fatal::Fatal;

/// The part named in [`Fatal`].
const PART: &str = "local store";

/// Directories remembered as durable, some 100 bytes each. Forgetting them costs a few syncs.
const DIRS_REMEMBERED_MAX: usize = 10_000;

/// Objects in a directory.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    entropy: Entropy,
    fatal: Fatal,
    /// Directories whose names this process has made durable. The lock is held while one is made, so that no put uses it
    /// before.
    durable_dirs: Mutex<HashSet<PathBuf>>,
    /// Whether a file of the spool could not be linked: most likely they are on two file systems.
    cannot_link: AtomicBool,
    /// Held while an object takes the place of another, and while one is removed only if it is a certain file, so that this
    /// file is not replaced between the look and the removal.
    replacing: Mutex<()>,
}

impl LocalStore {
    /// The name of this store in the database.
    pub const NAME: &str = "local";

    /// Where unfinished files lie: inside the store, so that a rename can move them, and under a name that no bucket has. A
    /// start removes them.
    pub(crate) const UNFINISHED: &str = ".unfinished";

    /// Opens `root`, creating it, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(root: &Path, entropy: Entropy, fatal: Fatal) -> io::Result<Self> {
        let unfinished = root.join(Self::UNFINISHED);
        fs::create_dir_all(&unfinished)?;
        for entry in fs::read_dir(&unfinished)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            }
        }
        sync_dir(root.parent().unwrap_or(root))?;
        sync_dir(root)?;
        Ok(Self::closed(root.to_owned(), entropy, fatal))
    }

    /// A store in a directory that is not looked at, for who asks only where objects would be.
    pub(crate) fn closed(root: PathBuf, entropy: Entropy, fatal: Fatal) -> Self {
        Self {
            root,
            entropy,
            fatal,
            durable_dirs: Mutex::default(),
            cannot_link: AtomicBool::new(false),
            replacing: Mutex::default(),
        }
    }

    /// Where an object lies, if both names are safe: relative, without `.`, `..` or empty levels, and not in a place of
    /// ours.
    ///
    /// # Errors
    /// [`StoreError::UnsafeName`].
    pub fn path(&self, bucket: &str, key: &str) -> Result<PathBuf, StoreError> {
        let one_level = |name: &str| {
            let first = Path::new(name).components().next();
            !name.contains('\0') && matches!(first, Some(Component::Normal(first)) if first == name)
        };
        let safe_bucket = one_level(bucket) && !bucket.starts_with('.');
        // Level by level, since `Path` would silently drop empty and `.` levels.
        let safe_key = key.split('/').all(one_level);
        if !safe_bucket || !safe_key {
            return Err(StoreError::UnsafeName { bucket: bucket.to_owned(), key: key.to_owned() });
        }
        Ok(self.root.join(bucket).join(key))
    }

    /// Puts the file at `spooled` under a key, durably. Doing it again, after a crash or a lost answer, changes nothing.
    /// Blocks.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn put(&self, bucket: &str, key: &str, spooled: &Path) -> Result<(), StoreError> {
        self.put_file(bucket, key, spooled).map_err(|error| match error {
            // It may have been taken away at any moment meanwhile.
            StoreError::Failed { key, .. } if matches!(spooled.try_exists(), Ok(false)) => {
                StoreError::SpoolMissing { key }
            }
            error => error,
        })
    }

    fn put_file(&self, bucket: &str, key: &str, spooled: &Path) -> Result<(), StoreError> {
        let path = self.path(bucket, key)?;
        let failed = |source| StoreError::from_io(bucket, key, source);
        self.make_dir_of(&path).map_err(failed)?;
        self.link(&path, spooled)
            .or_else(|error| match error.kind() {
                // Ours from a put that was cut off, or something else that must give way: keys are given out once.
                io::ErrorKind::AlreadyExists if FileId::of(spooled)? == FileId::of(&path)? => Ok(()),
                io::ErrorKind::AlreadyExists => self.replace(spooled, &path),
                _ if cannot_link(&error) => self.replace(spooled, &path),
                _ => Err(error),
            })
            .map_err(failed)?;
        fail_point::pass("put_sent");
        self.sync_name(&path).map_err(failed)
    }

    /// Links the file at `spooled` to a key under which nothing lies, and tells which file that is. Blocks. The object's name is
    /// durable after [`LocalStore::sync_names`].
    ///
    /// # Errors
    /// See [`StoreError`]; also where something lies under the key, and where files cannot be linked.
    pub(super) fn link_new(&self, bucket: &str, key: &str, spooled: &Path) -> Result<FileId, StoreError> {
        let path = self.path(bucket, key)?;
        let link = || {
            let file = FileId::of(spooled)?;
            self.make_dir_of(&path)?;
            self.link(&path, spooled)?;
            Ok(file)
        };
        link().map_err(|source| StoreError::from_io(bucket, key, source))
    }

    /// Whether the object under a key is this file. Blocks.
    pub(super) fn is_file(&self, bucket: &str, key: &str, file: FileId) -> bool {
        self.path(bucket, key).is_ok_and(|path| FileId::of(&path).is_ok_and(|found| found == file))
    }

    /// Removes the object under a key if it is this file, durably. Blocks.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(super) fn remove_file(&self, bucket: &str, key: &str, file: FileId) -> Result<(), StoreError> {
        let _replacing = self.lock_replacing();
        if self.is_file(bucket, key, file) { self.remove(bucket, key) } else { Ok(()) }
    }

    /// Whether files of the spool could be linked so far.
    pub(super) fn can_link(&self) -> bool {
        !self.cannot_link.load(Ordering::Relaxed)
    }

    /// Whether a sync has failed, here or elsewhere, after which none is tried again.
    pub(super) fn has_failed(&self) -> bool {
        self.fatal.is_raised()
    }

    /// Links a spooled file to the path of an object, whose directory is there.
    fn link(&self, path: &Path, spooled: &Path) -> io::Result<()> {
        fs::hard_link(spooled, path).inspect_err(|error| {
            if cannot_link(error) {
                self.cannot_link.store(true, Ordering::Relaxed);
            } else if error.kind() != io::ErrorKind::AlreadyExists
                && let Some(dir) = path.parent()
            {
                // Perhaps a person removed the directory: make it again at the next try.
                self.lock_dirs().remove(dir);
            }
        })
    }

    fn sync_name(&self, path: &Path) -> io::Result<()> {
        self.sync_names(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Makes the names of the objects in a directory durable. Blocks.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn sync_names(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir).map_err(|error| {
            if matches!(&error, DirError::NotTried(error) if error.kind() == io::ErrorKind::NotFound) {
                self.lock_dirs().remove(dir);
            }
            self.judge(error)
        })
    }

    /// The objects that are the same files as these, by bucket and key: walks through the names that there are, but where it is
    /// not permitted to look, until each file was found. Blocks.
    ///
    /// # Errors
    /// What the kernel said; [`Interrupted`](io::ErrorKind::Interrupted) once `is_over`.
    pub(super) fn find(
        &self,
        files: &HashSet<FileId>,
        is_over: impl Fn() -> bool,
    ) -> io::Result<Vec<(String, String, FileId)>> {
        let (mut found, mut missing) = (Vec::new(), files.clone());
        let mut dirs = vec![self.root.clone()];
        while let Some(dir) = dirs.pop().filter(|_| !missing.is_empty()) {
            if is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                // It was empty and went with its last object.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(dir = %dir.display(), %error, "a directory of the local store cannot be looked through");
                    continue;
                }
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                } else if missing.iter().any(|file| file.ino == entry.ino())
                    && let Some((bucket, key)) = self.name_of(&entry.path())
                    && let Ok(file) = FileId::of(&entry.path())
                    && missing.remove(&file)
                {
                    found.push((bucket, key, file));
                }
            }
        }
        Ok(found)
    }

    /// Bucket and key of an object's path; of a path of ours that is none, nothing.
    fn name_of(&self, path: &Path) -> Option<(String, String)> {
        let (bucket, key) = path.strip_prefix(&self.root).ok()?.to_str()?.split_once('/')?;
        self.path(bucket, key).ok()?;
        Some((bucket.to_owned(), key.to_owned()))
    }

    fn make_dir_of(&self, path: &Path) -> io::Result<()> {
        self.make_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut durable_dirs = self.lock_dirs();
        if !durable_dirs.contains(dir) {
            durable::create_dir_all(&self.root, dir).map_err(|error| self.judge(error))?;
            if durable_dirs.len() >= DIRS_REMEMBERED_MAX {
                durable_dirs.clear();
            }
            durable_dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn lock_dirs(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies `spooled` to a name of its own, syncs it and renames it into place.
    fn replace(&self, spooled: &Path, path: &Path) -> io::Result<()> {
        let unfinished =
            self.root.join(Self::UNFINISHED).join(format!("{:032x}", u128::from_ne_bytes(self.entropy.draw())));
        let moved = self.copy(spooled, &unfinished).and_then(|()| {
            let _replacing = self.lock_replacing();
            fs::rename(&unfinished, path)
        });
        if moved.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&unfinished);
        }
        moved
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut copy = File::create_new(to)?;
        io::copy(&mut File::open(from)?, &mut copy)?;
        copy.sync_data().map_err(|error| if is_full(&error) { error } else { self.sync_failed(error) })
    }

    /// Removes an object, durably. Blocks.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remove(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let removed = self.remove_with_dirs(bucket, key)?;
        self.sync_removed(&removed).map_err(|source| StoreError::from_io(bucket, key, source))
    }

    /// Removes an object, and the directories of its key that are empty without it. Blocks. It may come back after a power
    /// cut until the directory that is returned was given to [`LocalStore::sync_removed`], where one sync does for many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remove_with_dirs(&self, bucket: &str, key: &str) -> Result<PathBuf, StoreError> {
        let path = self.path(bucket, key)?;
        durable::remove_if_there(&path).map_err(|source| StoreError::from_io(bucket, key, source))?;
        let bucket = self.root.join(bucket);
        let mut removed_from = bucket.as_path();
        // Held, so that no put counts on a directory that is about to go. One that has just made it, and not yet used it, finds
        // it gone and is tried again.
        let mut durable_dirs = self.lock_dirs();
        for dir in path.ancestors().skip(1).take_while(|dir| **dir != *bucket) {
            // The first that is not empty ends it, as does one that cannot be removed.
            if fs::remove_dir(dir).is_err() {
                removed_from = dir;
                break;
            }
            durable_dirs.remove(dir);
        }
        Ok(removed_from.to_owned())
    }

    /// Makes it durable that objects were removed from a directory. Blocks.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn sync_removed(&self, dir: &Path) -> io::Result<()> {
        // One that is gone by now was removed from the one above it.
        for dir in dir.ancestors().take_while(|dir| dir.starts_with(&self.root)) {
            match sync_dir(dir) {
                Err(DirError::NotTried(error)) if error.kind() == io::ErrorKind::NotFound => {}
                synced => return synced.map_err(|error| self.judge(error)),
            }
        }
        Ok(())
    }

    /// Whether an object can be fetched. Blocks.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn exists(&self, bucket: &str, key: &str) -> Result<bool, StoreError> {
        match fs::metadata(self.path(bucket, key)?) {
            Ok(found) => Ok(found.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::from_io(bucket, key, source)),
        }
    }

    /// A sync that failed ends the process: a second one would "succeed" and prove nothing.
    fn judge(&self, error: DirError) -> io::Error {
        match error {
            DirError::NotTried(error) => error,
            DirError::Sync(error) => self.sync_failed(error),
        }
    }

    fn sync_failed(&self, error: io::Error) -> io::Error {
        self.fatal.raise(PART, &error);
        error
    }
}

/// Which file it is, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// That of the file which has this name.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { dev: found.dev(), ino: found.ino() })
    }
}
