//! What the disk alone takes of a picture's CPU time, by a thread that does nothing else: the same files, names, syncs and pages as
//! ours, or the fewest that make a picture and the word of it durable.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// How a picture gets onto the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Written, synced and named in the spool, linked to its key, noted in a log: as the server does it.
    Ours,
    /// Written under its key and noted in a log with one page: three syncs, for its bytes, its name and the note.
    Fewest,
}

impl Way {
    /// Pages that a picture's transaction adds to the database's log. Ours include the outcome of the picture before.
    fn log_pages(self) -> usize {
        match self {
            Self::Ours => 24,
            Self::Fewest => 1,
        }
    }
}

/// Of a page its head and its bytes are written one after the other, as SQLite does.
const PAGE_HEAD: usize = 24;
const PAGE_BYTES: usize = 4096;

/// The log begins anew behind so many pages.
const LOG_PAGES_MAX: usize = 4096;

/// CPU time of one picture's way to the disk, in ms, at so many pictures of so many bytes a second. Their files are in `dir`,
/// which is empty, and stay there.
pub(super) fn disk_ms_per_picture(
    dir: &Path,
    way: Way,
    image_bytes: usize,
    per_second: f64,
    window: Duration,
) -> Result<f64> {
    // A thread of its own, whose clock counts nothing else.
    std::thread::scope(|scope| scope.spawn(|| take_pictures(dir, way, image_bytes, per_second, window)).join())
        .map_err(|_| anyhow::anyhow!("the thread that only writes panicked"))?
}

fn take_pictures(dir: &Path, way: Way, image_bytes: usize, per_second: f64, window: Duration) -> Result<f64> {
    let [spool, objects] = ["spool", "objects"].map(|name| dir.join(name));
    for dir in [&spool, &objects] {
        fs::create_dir(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let image: Vec<u8> = (0..image_bytes).map(|place| (place * 31 % 251) as u8).collect();
    let mut log = Log::create(&dir.join("log"), way.log_pages())?;
    let pause = Duration::from_secs_f64(1.0 / per_second);
    let (began, cpu_before) = (Instant::now(), clock_gettime(ClockId::ThreadCPUTime));
    let mut pictures = 0_u32;
    while began.elapsed() < window {
        let object = objects.join(pictures.to_string());
        match way {
            Way::Ours => {
                let spooled = spool.join(pictures.to_string());
                make_durable(&spooled, &image)?;
                fs::hard_link(&spooled, &object)?;
                File::open(&objects)?.sync_all()?;
                log.commit()?;
                fs::remove_file(&spooled)?;
            }
            Way::Fewest => {
                make_durable(&object, &image)?;
                log.commit()?;
            }
        }
        pictures += 1;
        std::thread::sleep((pause * pictures).saturating_sub(began.elapsed()));
    }
    let cpu_after = clock_gettime(ClockId::ThreadCPUTime);
    let used = |time: rustix::time::Timespec| time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6;
    Ok((used(cpu_after) - used(cpu_before)) / f64::from(pictures))
}

/// A file with its name.
fn make_durable(path: &Path, image: &[u8]) -> Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(image)?;
    file.sync_data()?;
    let dir = path.parent().context("it lies in a directory")?;
    Ok(File::open(dir)?.sync_all()?)
}

/// A write-ahead log, which is written over once it is full.
struct Log {
    file: File,
    page: usize,
    pages_each: usize,
}

impl Log {
    fn create(path: &Path, pages_each: usize) -> Result<Self> {
        let file = File::create_new(path)?;
        file.write_all_at(&vec![7; LOG_PAGES_MAX * (PAGE_HEAD + PAGE_BYTES)], 0)?;
        file.sync_all()?;
        Ok(Self { file, page: 0, pages_each })
    }

    fn commit(&mut self) -> Result<()> {
        if self.page + self.pages_each > LOG_PAGES_MAX {
            self.page = 0;
        }
        for page in self.page..self.page + self.pages_each {
            let at = page * (PAGE_HEAD + PAGE_BYTES);
            self.file.write_all_at(&[1; PAGE_HEAD], at as u64)?;
            self.file.write_all_at(&[2; PAGE_BYTES], (at + PAGE_HEAD) as u64)?;
        }
        self.page += self.pages_each;
        Ok(self.file.sync_data()?)
    }
}
