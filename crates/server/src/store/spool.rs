//! The spool: pictures that are committed and not yet in their store, one file each, named by the snapshot's id.
//!
//! A row is written only when its file is whole and synced. Rows decide: at a start, files without an owed row are leftovers
//! of a crash, perhaps cut short by it, and go. A leftover that has another name, in the local store, may be all that tells of
//! an object which was put before its row was written, and is kept until somebody has looked for that.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use tokio_util::sync::CancellationToken;

use crate::durable::{OpenDir, is_full, remove_if_there, sync_dir};
use crate::fail_point;
use crate::fatal::Fatal;

/// How often the disk's free room is asked for. A disk fills by gigabytes per second at most, and the reserve below which
/// we stop is half a gigabyte, so once a second is enough and costs nothing per picture.
const SAMPLED_EVERY: Duration = Duration::from_secs(1);

/// The spool is crowded when less than this part of its limit is left, or of the disk's reserve above that: with the
/// defaults a gigabyte, which is minutes of pictures that leave at once.
const CROWDED_REST: u64 = 4;

/// The part named in [`Fatal`].
const PART: &str = "spool";

/// How much the spool may hold.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// All files together.
    pub bytes_max: u64,
    /// What must stay free on its file system.
    pub disk_reserve_bytes: u64,
}

/// There is no room for a new picture. What is in the spool stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool or its disk is full")]
pub struct SpoolFull;

/// Why a picture did not get into the spool.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    #[error(transparent)]
    Full(#[from] SpoolFull),
    #[error("cannot write the picture {} into the spool", id)]
    Write { id: SnapshotId, source: Arc<io::Error> },
    /// Fatal, and raised as such.
    #[error("cannot sync the spool")]
    Sync { source: Arc<io::Error> },
}

/// The directory of pictures on their way, and how full it is.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    /// The same directory, held open for its syncs.
    open_dir: OpenDir,
    limits: SpoolLimits,
    fatal: Fatal,
    bytes: AtomicU64,
    disk_free_bytes: AtomicU64,
    /// Leftovers that have another name.
    linked_leftovers: Mutex<Vec<SnapshotId>>,
}

impl Spool {
    /// Opens `dir`, creating it in a directory that is there, and removes the pictures that are not among the `owed` and have
    /// no other name. Files and directories of other names are left alone: they are none of ours.
    ///
    /// # Errors
    /// What the kernel said about the directory.
    pub fn open(dir: &Path, limits: SpoolLimits, owed: &[(SnapshotId, u64)], fatal: Fatal) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        sync_dir(dir.parent().unwrap_or(dir))?;
        let mut missing: HashMap<SnapshotId, u64> = owed.iter().copied().collect();
        let (mut bytes, mut orphans, mut linked_leftovers) = (0, 0, Vec::new());
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(picture_of) else { continue };
            if entry.file_type()?.is_dir() {
                continue;
            }
            match missing.remove(&id) {
                Some(file_size) => bytes += file_size,
                None if entry.metadata()?.nlink() > 1 => linked_leftovers.push(id),
                None => {
                    fs::remove_file(entry.path())?;
                    orphans += 1;
                }
            }
        }
        if orphans > 0 {
            tracing::info!(orphans, "removed pictures from the spool that were never committed or are stored already");
        }
        for snapshot_id in missing.keys() {
            tracing::error!(%snapshot_id, "a committed picture is missing from the spool; it cannot be stored any more");
        }
        let spool = Self {
            dir: dir.to_owned(),
            open_dir: OpenDir::open(dir)?,
            limits,
            fatal,
            bytes: AtomicU64::new(bytes),
            disk_free_bytes: AtomicU64::new(0),
            linked_leftovers: Mutex::new(linked_leftovers),
        };
        spool.sample_disk()?;
        Ok(spool)
    }

    /// Asks for the disk's free room every second until `token` ends it.
    pub async fn watch_disk(&self, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(SAMPLED_EVERY) => {}
            }
            if let Err(error) = self.sample_disk() {
                tracing::warn!(%error, "cannot tell how much room the disk has left");
            }
        }
    }

    fn sample_disk(&self) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        self.disk_free_bytes.store(disk.f_bavail.saturating_mul(disk.f_frsize), Ordering::Relaxed);
        Ok(())
    }

    /// Whether a new picture of about this size may be made. Asked before any work is done on it; never touches the disk.
    ///
    /// # Errors
    /// [`SpoolFull`]: skip it.
    pub fn has_room(&self, bytes: u64) -> Result<(), SpoolFull> {
        if self.fits(bytes) && self.leaves_reserve(bytes) { Ok(()) } else { Err(SpoolFull) }
    }

    /// Whether so much more is within the spool's own limit. One half of [`Spool::has_room`].
    pub fn fits(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.limits.bytes_max
    }

    /// Whether so much more leaves the disk its reserve. The other half.
    pub fn leaves_reserve(&self, bytes: u64) -> bool {
        self.disk_free_bytes() >= self.limits.disk_reserve_bytes.saturating_add(bytes)
    }

    /// Whether little is left of either: what is left then is for pictures that will not wait here.
    pub(super) fn is_crowded(&self) -> bool {
        let SpoolLimits { bytes_max, disk_reserve_bytes } = self.limits;
        self.bytes() > bytes_max - bytes_max / CROWDED_REST || !self.leaves_reserve(disk_reserve_bytes / CROWDED_REST)
    }

    /// Bytes of the pictures in it.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What the file system had left for us when it was last asked, at most a second ago.
    pub fn disk_free_bytes(&self) -> u64 {
        self.disk_free_bytes.load(Ordering::Relaxed)
    }

    /// What a crash has left here that is in the local store too, perhaps without a row. Told once, to who then
    /// [clears](Spool::clear) it or [leaves](Spool::leave_linked) it to the next who asks.
    pub(super) fn take_linked_leftovers(&self) -> Vec<SnapshotId> {
        std::mem::take(&mut *self.linked_leftovers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn leave_linked(&self, leftovers: Vec<SnapshotId>) {
        *self.linked_leftovers.lock().unwrap_or_else(PoisonError::into_inner) = leftovers;
    }

    /// Removes a leftover, which was never counted. Blocks.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn clear(&self, leftover: SnapshotId) -> io::Result<()> {
        remove_if_there(&self.path(leftover))
    }

    /// Where a picture's bytes are, whatever their format.
    pub fn path(&self, id: SnapshotId) -> PathBuf {
        self.dir.join(Self::file_name(id))
    }

    /// The name of a picture's file.
    pub(crate) fn file_name(id: SnapshotId) -> String {
        format!("{id}.image")
    }

    /// Writes and syncs a picture's bytes; its name is safe after [`Spool::sync_names`]. A file that was cut short by a crash
    /// has no row, so the next start removes it. Blocks.
    ///
    /// # Errors
    /// See [`SpoolError`]. Nothing of the picture is left behind then.
    pub fn write(&self, id: SnapshotId, bytes: &[u8]) -> Result<(), SpoolError> {
        self.reserve(bytes.len() as u64)?;
        let written = self.write_and_sync(id, bytes);
        if written.is_err() {
            self.discard(id, bytes.len() as u64);
        }
        written
    }

    /// The limits hold however many pictures were begun while there was room for each of them.
    fn reserve(&self, bytes: u64) -> Result<(), SpoolFull> {
        let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limits.bytes_max);
        if !self.leaves_reserve(bytes) || self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return Err(SpoolFull);
        }
        Ok(())
    }

    fn write_and_sync(&self, id: SnapshotId, bytes: &[u8]) -> Result<(), SpoolError> {
        let failed = |source| self.full_or(source, |source| SpoolError::Write { id, source: Arc::new(source) });
        let mut file = File::create(self.path(id)).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        fail_point::pass("spool_written");
        // No room can show as late as here (delayed allocation); the file is removed and never synced again, so that case
        // needs no restart. After any other error nobody knows what is on the disk.
        file.sync_data().map_err(|source| self.full_or(source, |source| self.sync_failed(source)))?;
        fail_point::pass("spool_synced");
        Ok(())
    }

    /// Makes the names of all written pictures durable. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Sync`].
    pub fn sync_names(&self) -> Result<(), SpoolError> {
        self.open_dir.sync().map_err(|source| self.sync_failed(source))?;
        fail_point::pass("spool_named");
        Ok(())
    }

    /// Removes a picture whose row was not committed. Blocks.
    pub fn discard(&self, id: SnapshotId, bytes: u64) {
        let path = self.path(id);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file stays in the spool until the next start");
        }
        self.subtract(bytes);
    }

    /// Removes a picture that is owed no more. Blocks. Whoever comes second finds nothing to remove: a person may discard a
    /// picture while its put is under way. Not synced: a file that comes back after a crash is an orphan, which the next
    /// start removes.
    pub fn remove(&self, id: SnapshotId, bytes: u64) {
        match fs::remove_file(self.path(id)) {
            Ok(()) => self.subtract(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(snapshot_id = %id, %error, "a settled picture stays in the spool until the next start");
            }
        }
        fail_point::pass("spool_deleted");
    }

    fn subtract(&self, bytes: u64) {
        let subtract = |held: u64| Some(held.saturating_sub(bytes));
        // The closure never declines.
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }

    fn full_or(&self, source: io::Error, other: impl FnOnce(io::Error) -> SpoolError) -> SpoolError {
        if !is_full(&source) {
            return other(source);
        }
        // Do not wait for the next sample to shed what comes: it would only fail the same way, after the work is done.
        self.disk_free_bytes.store(0, Ordering::Relaxed);
        SpoolFull.into()
    }

    fn sync_failed(&self, source: io::Error) -> SpoolError {
        self.fatal.raise(PART, &source);
        SpoolError::Sync { source: Arc::new(source) }
    }
}

/// Whose picture a file of the spool is, by its name.
fn picture_of(name: &str) -> Option<SnapshotId> {
    name.strip_suffix(".image")?.parse().ok()
}
