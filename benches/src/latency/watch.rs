//! When a picture's file is there, by inotify: an object of the local store, or what a recipe writes.
//!
//! A file's own times do not tell. An object is the spooled file under one more name: it was modified when that was written, and
//! last changed when the name in the spool went, after the commit. Both are stamped with a clock that lags by one or two ticks of
//! the kernel, which is up to 8 ms.

use std::collections::HashMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// How often the thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Room for some hundred events at a time; an event of a picture has about 80 bytes.
const EVENTS_BYTES: usize = 32 << 10;

/// Files and the moment in which each was first seen.
type Seen = Arc<Mutex<HashMap<PathBuf, Instant>>>;

/// From when on a file is whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whole {
    /// From when it has its name: it is written elsewhere, then linked or renamed.
    Named,
    /// From when its writer has closed it, or, of one that writes elsewhere, renamed it.
    Closed,
}

impl Whole {
    fn events(self) -> WatchFlags {
        match self {
            Self::Named => WatchFlags::CREATE | WatchFlags::MOVED_TO,
            Self::Closed => WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO,
        }
    }
}

/// Watches folders until dropped.
pub(super) struct Watch {
    seen: Seen,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches `folder` and every folder that is below it now. One that is made later, as for a new day, is not watched.
    pub(super) fn start(folder: &Path, whole: Whole) -> Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("start inotify")?;
        let mut folders = HashMap::new();
        for folder in folder_and_below(folder)? {
            let number = inotify::add_watch(&queue, folder.as_path(), whole.events())
                .with_context(|| format!("watch {}", folder.display()))?;
            folders.insert(number, folder);
        }
        let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let watch = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || note(&queue, &folders, &seen, &stop)
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(watch)?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// When the file of this name was whole for the first time.
    pub(super) fn appeared(&self, path: &Path) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }

    /// All files so far, as [`Watch::appeared`] tells of one.
    pub(super) fn all(&self) -> Vec<(PathBuf, Instant)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(path, whole)| (path.clone(), *whole)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `folder` and all below.
fn folder_and_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(folder_and_below(&entry.path())?);
        }
    }
    Ok(found)
}

fn note(queue: &OwnedFd, folders: &HashMap<i32, PathBuf>, seen: &Seen, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut events = Reader::new(queue, &mut buffer);
    let every = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    while !stop.load(Ordering::Relaxed) {
        // An interrupted wait is over, as one that was too long is.
        let _ = poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&every));
        // An error says that the queue is empty.
        while let Ok(event) = events.next() {
            let now = Instant::now();
            let name = event.file_name().and_then(|name| name.to_str().ok());
            if let (Some(folder), Some(name)) = (folders.get(&event.wd()), name) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.entry(folder.join(name)).or_insert(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    use framehook_testkit::wait;

    #[test]
    fn sees_files_appear_by_link_and_by_rename_in_folders_below() {
        let folder = tempfile::TempDir::new().unwrap();
        let (spool, day) = (folder.path().join("spool"), folder.path().join("objects/pictures/day"));
        fs::create_dir_all(&spool).unwrap();
        fs::create_dir_all(&day).unwrap();
        let watch = Watch::start(&folder.path().join("objects"), Whole::Named).unwrap();
        for (name, is_linked) in [("linked.jpg", true), ("renamed.jpg", false)] {
            let (from, to) = (spool.join(name), day.join(name));
            fs::write(&from, "a picture").unwrap();
            let before = Instant::now();
            if is_linked { fs::hard_link(&from, &to) } else { fs::rename(&from, &to) }.unwrap();
            let appeared = wait::until(name, Duration::from_secs(20), || watch.appeared(&to)).unwrap();
            assert!(appeared >= before, "{name}");
        }
        assert_eq!(watch.appeared(&spool.join("linked.jpg")), None);
    }
    #[test]
    fn a_file_that_is_written_in_its_place_is_whole_once_closed() {
        let folder = tempfile::TempDir::new().unwrap();
        let watch = Watch::start(folder.path(), Whole::Closed).unwrap();
        let (slow, other) = (folder.path().join("slow.jpg"), folder.path().join("other.jpg"));
        let mut file = fs::File::create(&slow).unwrap();
        file.write_all(b"half a picture").unwrap();
        fs::write(&other, "a picture").unwrap();
        wait::until("the other one", Duration::from_secs(20), || watch.appeared(&other)).unwrap();
        assert_eq!(watch.appeared(&slow), None);
        let before = Instant::now();
        drop(file);
        let whole = wait::until("this one", Duration::from_secs(20), || watch.appeared(&slow)).unwrap();
        assert!(whole >= before);
        assert_eq!(watch.all().len(), 2);
    }
}
