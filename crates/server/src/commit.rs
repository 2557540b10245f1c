//! The commit point. Before it a picture may be lost, counted; after it things are only late, repeated or dead-lettered.
//!
//! A few threads write and sync the files of what waits, each of which takes its part of that and syncs the directory that names
//! them once. What is to lie in the local store is linked there by the same thread. Then one thread at a time takes what was
//! written, syncs the directories of those objects, and writes everything that follows in one transaction: the snapshots, that
//! they are stored, their events and the deliveries owed. So a lone picture stays on one thread and costs four syncs, and while
//! many come, a group of them shares two of the four and the transaction (`gathering`).

mod gathering;
mod record;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use framehook_domain::catalog::Catalog;
use framehook_domain::id::{EventId, PushSequence, SnapshotId};
use framehook_domain::object_key::ObjectKey;
use framehook_domain::pick::Subscriber;
use framehook_domain::stream::{StreamId, StreamParam};
use framehook_domain::template::{Objects, Rendition, SnapshotTemplate};
use framehook_domain::time::{NameZone, UnixMs};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::gathering::{Added, Gathering};
use self::record::Recording;
use crate::clock::Clock;
use crate::db::{Db, DbError};
use crate::entropy::Entropy;
use crate::shutdown::Stage;
use crate::store::spool::{Spool, SpoolError};
use crate::store::{Ahead, PutSignal, Storer, Stores};
use crate::telemetry::Telemetry;
use crate::telemetry::happening::Happening;
use crate::timeline::Timeline;

/// Pictures that may wait for a thread. Callers beyond it wait; rendering is bounded by its own limit.
const QUEUE_MAX: usize = 256;

/// Image bytes that a thread takes at once at most: some 0.03 s of a slow disk, so that the first picture does not wait long
/// for the last.
const SHARE_BYTES_MAX: usize = 8 << 20;

/// Threads that write and sync files. Syncs of several files at once share the disk's own flushes; beyond a few they only queue
/// there.
const WRITERS: usize = 4;

/// All threads of a committer: one of them may be writing rows, or wait for more of them.
const THREADS: usize = WRITERS + 1;

/// A picture as it comes from the worker: everything that was due on one entry point.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub stream: StreamId,
    pub param: StreamParam,
    pub sequence: PushSequence,
    /// The wall clock at the arrival of the entry point's last byte.
    pub create_time: UnixMs,
    /// The id that follows the picture through every log line.
    pub trace: SnapshotId,
    /// One for each rule and task that wanted it.
    pub pictures: Vec<Taken>,
}

/// A picture as one template makes it.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `None`: somebody asked for it, this once.
    pub subscriber: Option<Subscriber>,
    pub template: Arc<SnapshotTemplate>,
    /// The configuration under which it was picked.
    pub catalog_version: u64,
    /// One for each of the template's renditions, in their order.
    pub renditions: Vec<RenderedRendition>,
    /// Which objects to write of them.
    pub objects: Objects,
}

/// One size and format of a picture.
#[derive(Clone, Debug)]
pub struct RenderedRendition {
    pub snapshot_id: SnapshotId,
    /// The id of the copy that becomes the `latest` object.
    pub latest_id: SnapshotId,
    /// Pixels of the encoded image.
    pub width: u32,
    pub height: u32,
    pub bytes: Bytes,
}

/// A rendition that is durable, with its event and what is owed of it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub snapshot_id: SnapshotId,
    pub event_id: EventId,
    /// With a suffix if the template's name was taken.
    pub key: ObjectKey,
    /// `None`: it is not known before the picture is stored.
    pub pic_full_url: Option<String>,
    pub file_size_bytes: u64,
    pub subscriber: Option<Subscriber>,
    /// Which of its template's renditions it is; `None` if there is only one.
    pub rendition: Option<String>,
    pub width: u32,
    pub height: u32,
}

impl Recorded {
    fn taken(&self, rendered: &Rendered) -> Happening {
        let (rule, task) = match self.subscriber {
            Some(Subscriber::Rule(rule)) => (Some(rule.0), None),
            Some(Subscriber::Task(task)) => (None, Some(task.to_string())),
            None => (None, None),
        };
        Happening::SnapshotTaken {
            snapshot_id: self.snapshot_id.0,
            sequence: rendered.sequence.to_string(),
            rule,
            task,
            rendition: self.rendition.clone(),
            width: self.width,
            height: self.height,
            file_size_bytes: self.file_size_bytes,
            create_time_ms: rendered.create_time.0,
        }
    }
}

/// Why a picture was not committed. Nothing of it is left behind.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// No room in the spool, on the disk or in the database: count it as skipped.
    #[error("no room for the picture")]
    SpoolFull,
    #[error("the picture could not be written to the spool")]
    Spool(#[source] SpoolError),
    #[error("the picture could not be recorded")]
    Db(#[source] DbError),
    /// The server is ending.
    #[error("the committer has stopped")]
    Stopped,
}

impl From<SpoolError> for CommitError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Full(_) => Self::SpoolFull,
            // It was raised as fatal: the server ends.
            SpoolError::Sync { .. } => Self::Stopped,
            other => Self::Spool(other),
        }
    }
}

impl From<DbError> for CommitError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Full => Self::SpoolFull,
            DbError::Stopped => Self::Stopped,
            other => Self::Db(other),
        }
    }
}

/// The parts a [`Committer`] is built from.
#[derive(Clone, Debug)]
pub struct CommitParts {
    pub db: Db,
    pub spool: Arc<Spool>,
    /// What is owed is decided by the configuration of the moment of the commit.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub clock: Clock,
    pub timeline: Timeline,
    pub entropy: Entropy,
    /// In which object keys tell the time.
    pub zone: NameZone,
    /// How long a picture that was put ahead waits for others at most, while many come.
    pub gather_max: Duration,
    pub stores: Stores,
    pub telemetry: Arc<Telemetry>,
    /// Takes over what was committed.
    pub storer: Arc<Storer>,
    /// Wakes who puts `latest` objects.
    pub latest_signal: Arc<PutSignal>,
}

/// Takes pictures over the commit point. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Committer {
    queue: mpsc::Sender<Waiting>,
    committing: Arc<Committing>,
}

#[derive(Debug)]
struct Waiting {
    rendered: Rendered,
    answer: oneshot::Sender<Result<Vec<Recorded>, CommitError>>,
}

/// A picture whose files are in the spool.
#[derive(Debug)]
struct Spooled {
    rendered: Rendered,
    /// Of each of its [images](Rendered::made), in order.
    images: Vec<WrittenImage>,
}

/// What is known of an image once it is written.
#[derive(Debug)]
struct WrittenImage {
    sha256: [u8; 32],
    /// Where its own object lies already.
    ahead: Option<Ahead>,
}

/// One image of a picture, and what it was made for.
#[derive(Clone, Copy)]
struct Made<'a> {
    rendered: &'a Rendered,
    taken: &'a Taken,
    rendition: Rendition<'a>,
    image: &'a RenderedRendition,
}

/// A picture that is written, and who waits for it.
type Ready = (Spooled, oneshot::Sender<Result<Vec<Recorded>, CommitError>>);

/// What the threads of a committer share.
#[derive(Debug)]
struct Committing {
    parts: CommitParts,
    gathering: Gathering<Ready>,
}

impl Committer {
    /// Starts the committer's task in `stage`. Told to end, it commits what waits and ends.
    pub fn start(parts: CommitParts, stage: &Stage) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (panics, mut panicked) = mpsc::channel::<Box<dyn Any + Send>>(1);
        let gathering = Gathering::new(parts.clock, parts.gather_max);
        let committing = Arc::new(Committing { parts, gathering });
        let serving = Arc::clone(&committing).serve(waiting, stage.token(), panics);
        stage.spawn_vital("committer", async move {
            tokio::select! {
                biased;
                Some(panic) = panicked.recv() => resume_unwind(panic),
                () = serving => {}
            }
        });
        Self { queue, committing }
    }

    /// Makes a picture's renditions durable, all or none, together with their events and what is owed of them.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, rendered: Rendered) -> Result<Vec<Recorded>, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { rendered, answer }).await.map_err(|_| CommitError::Stopped)?;
        answered.await.map_err(|_| CommitError::Stopped)?
    }

    /// Pictures whose files are written and whose rows nobody has begun to write.
    pub fn gathered(&self) -> usize {
        self.committing.gathering.len()
    }
}

impl Committing {
    /// Gives what waits to threads until `token` ends it. A panic on one of them is told to `panics`.
    async fn serve(
        self: Arc<Self>,
        mut waiting: mpsc::Receiver<Waiting>,
        token: CancellationToken,
        panics: mpsc::Sender<Box<dyn Any + Send>>,
    ) {
        let threads = Arc::new(Semaphore::new(THREADS));
        loop {
            let first = tokio::select! {
                biased;
                () = token.cancelled(), if !waiting.is_closed() => {
                    waiting.close();
                    self.gathering.end();
                    continue;
                }
                first = waiting.recv() => first,
            };
            let Some(first) = first else { break };
            let thread = Arc::clone(&threads).acquire_owned().await.expect("it is never closed");
            let share = share_of(first, &mut waiting, 1 + threads.available_permits());
            let (committing, panics) = (Arc::clone(&self), panics.clone());
            tokio::task::spawn_blocking(move || {
                let _thread = thread;
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| committing.commit(share))) {
                    // One of them is enough to end the process.
                    let _ = panics.try_send(panic);
                }
            });
        }
        // Until the last of them has ended.
        let _ = threads.acquire_many(THREADS as u32).await;
    }

    /// Commits pictures as far as others leave that to this thread. Blocks.
    fn commit(&self, share: Vec<Waiting>) {
        let (rendered, answers): (Vec<_>, Vec<_>) =
            share.into_iter().map(|waiting| (waiting.rendered, waiting.answer)).unzip();
        let mut added = Vec::with_capacity(answers.len());
        for (written, answer) in write_files(&self.parts.spool, rendered).into_iter().zip(answers) {
            match written {
                Ok(mut picture) => {
                    self.parts.put_ahead(&mut picture);
                    let (bytes, is_urgent) = (picture.rendered.bytes(), !picture.is_ahead());
                    added.push(Added { picture: (picture, answer), bytes, is_urgent });
                }
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        if self.gathering.add(added) {
            while let Some(group) = self.gathering.take() {
                self.parts.record(group);
            }
        }
    }
}

/// What waits by now, as much of it as one of so many threads is to take.
fn share_of(first: Waiting, waiting: &mut mpsc::Receiver<Waiting>, threads: usize) -> Vec<Waiting> {
    let pictures = (1 + waiting.len()).div_ceil(threads);
    let mut bytes = first.rendered.bytes();
    let mut share = vec![first];
    while share.len() < pictures
        && bytes < SHARE_BYTES_MAX
        && let Ok(next) = waiting.try_recv()
    {
        bytes += next.rendered.bytes();
        share.push(next);
    }
    share
}

impl Rendered {
    /// Every image that was made of it.
    fn made(&self) -> impl Iterator<Item = Made<'_>> {
        self.pictures.iter().flat_map(move |taken| {
            let of_images = taken.template.all_renditions().zip(&taken.renditions);
            of_images.map(move |(rendition, image)| Made { rendered: self, taken, rendition, image })
        })
    }

    fn has_latest(&self) -> bool {
        self.pictures.iter().any(|taken| taken.objects.has_latest())
    }

    fn bytes(&self) -> usize {
        self.made().flat_map(|made| made.files()).map(|(_, bytes)| bytes.len()).sum()
    }
}

impl<'a> Made<'a> {
    /// The files that there are to be of it in the spool.
    fn files(&self) -> impl Iterator<Item = (SnapshotId, &'a Bytes)> + use<'a> {
        let Made { taken, image, .. } = *self;
        let numbered = taken.objects.has_sequence().then_some(image.snapshot_id);
        let latest = taken.objects.has_latest().then_some(image.latest_id);
        numbered.into_iter().chain(latest).map(|id| (id, &image.bytes))
    }
}

impl Spooled {
    /// Whether all that is to be stored of it lies there.
    fn is_ahead(&self) -> bool {
        !self.rendered.has_latest() && self.images.iter().all(|image| image.ahead.is_some())
    }
}

impl CommitParts {
    /// Records a group of pictures and tells everybody who waits for that. Blocks.
    fn record(&self, group: Vec<Ready>) {
        let (mut spooled, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let has_latest = spooled.iter().any(|picture| picture.rendered.has_latest());
        let images = spooled.iter_mut().flat_map(|picture| &mut picture.images);
        let synced = self.storer.sync_ahead(images.filter_map(|image| image.ahead.as_mut()));
        let spooled = Arc::new(spooled);
        let Recording { results, owed, stored, dropped } = self.write_rows(&spooled, synced);
        self.tell_taken(&spooled, &results);
        self.storer.signal(owed);
        stored.into_iter().for_each(|(put, took)| self.storer.recorded(&put, took));
        unwanted(&spooled, &results).for_each(|picture| self.give_up(picture));
        dropped.into_iter().for_each(|(id, bytes)| self.spool.remove(id, bytes));
        for (answer, result) in answers.into_iter().zip(results) {
            // Committed is committed, whether or not somebody still asks.
            let _ = answer.send(result);
        }
        if has_latest {
            self.latest_signal.look();
        }
    }

    /// Removes all there is of a picture that was not recorded.
    fn give_up(&self, picture: &Spooled) {
        for (made, image) in picture.rendered.made().zip(&picture.images) {
            for (id, bytes) in made.files() {
                let ahead = image.ahead.as_ref().filter(|_| id == made.image.snapshot_id);
                if ahead.is_none_or(|ahead| self.storer.take_back(ahead, id)) {
                    self.spool.discard(id, bytes.len() as u64);
                }
            }
        }
    }

    /// Tells listeners of pictures that are durable, before they are told more of those that are owed. The attempt at a callback
    /// of one that was put ahead may be told first.
    fn tell_taken(&self, spooled: &[Spooled], results: &[Result<Vec<Recorded>, CommitError>]) {
        for (Spooled { rendered, .. }, result) in spooled.iter().zip(results) {
            let Ok(recorded) = result else { continue };
            for picture in recorded {
                self.telemetry.tell(Some(&rendered.stream), || picture.taken(rendered));
            }
        }
    }
}

/// The pictures whose files are of no use, since they have no row. Not when the database has stopped: a commit whose sync
/// failed may be on the disk all the same, and the next start asks the rows which files are wanted.
fn unwanted<'a>(
    spooled: &'a [Spooled],
    results: &[Result<Vec<Recorded>, CommitError>],
) -> impl Iterator<Item = &'a Spooled> {
    let is_unwanted =
        |result: &Result<_, CommitError>| matches!(result, Err(error) if !matches!(error, CommitError::Stopped));
    spooled.iter().zip(results).filter(move |(_, result)| is_unwanted(result)).map(|(picture, _)| picture)
}

/// Makes the files of pictures durable, with one sync for their names. One result for each, in order.
fn write_files(spool: &Spool, rendered: Vec<Rendered>) -> Vec<Result<Spooled, CommitError>> {
    let mut written: Vec<_> = rendered.into_iter().map(|picture| write_picture(spool, picture)).collect();
    if written.iter().any(Result::is_ok)
        && let Err(error) = spool.sync_names()
    {
        written.iter_mut().for_each(|picture| *picture = Err(error.clone().into()));
    }
    written
}

/// Writes and syncs a picture's files, all or none.
fn write_picture(spool: &Spool, rendered: Rendered) -> Result<Spooled, CommitError> {
    let files = || rendered.made().flat_map(|made| made.files());
    for (index, (id, bytes)) in files().enumerate() {
        if let Err(error) = spool.write(id, bytes) {
            for (written, bytes) in files().take(index) {
                spool.discard(written, bytes.len() as u64);
            }
            return Err(error.into());
        }
    }
    let written = |made: Made<'_>| {
        let sum = digest(&SHA256, &made.image.bytes);
        WrittenImage { sha256: sum.as_ref().try_into().expect("a SHA-256 sum has 32 bytes"), ahead: None }
    };
    let images = rendered.made().map(written).collect();
    Ok(Spooled { rendered, images })
}
