//! The commit point. Before it a picture may be lost, counted; after it things are only late, repeated or dead-lettered.
//!
//! One batch is: every picture's file written and synced on a few threads, each of which syncs the directory that names its
//! files once, and one transaction with the snapshots, their events and the deliveries owed. The committer takes what
//! waits and never waits for more, so a lone picture costs three syncs and a busy server spreads two of them over many.
//! A lone picture stays on one thread for all of it: waking others costs more CPU time than what they would do. If it goes to
//! the local store it is there before its row, by a fourth sync, so that one transaction says both.

mod record;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use framehook_domain::catalog::Catalog;
use framehook_domain::id::{EventId, PushSequence, SnapshotId};
use framehook_domain::object_key::ObjectKey;
use framehook_domain::pick::Subscriber;
use framehook_domain::stream::{StreamId, StreamParam};
use framehook_domain::template::{Objects, SnapshotTemplate};
use framehook_domain::time::{NameZone, UnixMs};
use tokio::sync::{mpsc, oneshot, watch};

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

/// Pictures that may wait for the batch before theirs. Callers beyond it wait; rendering is bounded by its own limit.
const QUEUE_MAX: usize = 256;

/// Image bytes in one batch at most: some 0.1 s of a slow disk, so that the first picture does not wait long for the last.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// Threads that write and sync a batch's files. Syncs of several files at once share the disk's own flushes; beyond a few
/// they only queue there.
const WRITERS: usize = 4;

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
    /// Of each rendition, in order.
    sha256: Vec<[u8; 32]>,
    /// Of a picture that may be put before it is recorded.
    ahead: Option<Ahead>,
}

impl Committer {
    /// Starts the committer's task in `stage`. Told to end, it commits what waits and ends.
    pub fn start(parts: CommitParts, stage: &Stage) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let token = stage.token();
        stage.spawn_vital("committer", async move {
            let mut waiting = waiting;
            loop {
                let first = tokio::select! {
                    biased;
                    () = token.cancelled(), if !waiting.is_closed() => {
                        waiting.close();
                        continue;
                    }
                    first = waiting.recv() => first,
                };
                let Some(first) = first else { return };
                parts.commit_batch(batch_of(first, &mut waiting)).await;
            }
        });
        Self { queue }
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
}

/// What waits by now, up to the batch's limit.
fn batch_of(first: Waiting, waiting: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.rendered.bytes();
    let mut batch = vec![first];
    while bytes < BATCH_BYTES_MAX
        && let Ok(next) = waiting.try_recv()
    {
        bytes += next.rendered.bytes();
        batch.push(next);
    }
    batch
}

impl Rendered {
    /// Every file that there is to be, in the order in which they are written.
    fn files(&self) -> impl Iterator<Item = (SnapshotId, &Bytes)> {
        self.pictures.iter().flat_map(|taken| {
            taken.renditions.iter().flat_map(|rendition| {
                let numbered = taken.objects.has_sequence().then_some(rendition.snapshot_id);
                let latest = taken.objects.has_latest().then_some(rendition.latest_id);
                numbered.into_iter().chain(latest).map(|id| (id, &rendition.bytes))
            })
        })
    }

    fn is_one_numbered_image(&self) -> bool {
        self.files().count() == 1 && !self.has_latest()
    }

    fn has_latest(&self) -> bool {
        self.pictures.iter().any(|taken| taken.objects.has_latest())
    }

    fn bytes(&self) -> usize {
        self.files().map(|(_, bytes)| bytes.len()).sum()
    }
}

impl CommitParts {
    async fn commit_batch(&self, batch: Vec<Waiting>) {
        let has_latest = batch.iter().any(|waiting| waiting.rendered.has_latest());
        match <[Waiting; 1]>::try_from(batch) {
            Ok([lone]) => self.commit_lone(lone).await,
            Err(batch) => self.commit_many(batch).await,
        }
        if has_latest {
            self.latest_signal.look();
        }
    }

    async fn commit_many(&self, batch: Vec<Waiting>) {
        let (rendered, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.rendered, waiting.answer)).unzip();
        let results = self.commit_all(rendered).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // Committed is committed, whether or not somebody still asks.
            let _ = answer.send(result);
        }
    }

    /// Commits a picture on one thread.
    async fn commit_lone(&self, lone: Waiting) {
        let Waiting { rendered, answer } = lone;
        let parts = self.clone();
        match tokio::task::spawn_blocking(move || parts.commit_here(rendered)).await {
            Ok(result) => drop(answer.send(result)),
            Err(ended) => {
                // A panic is this task's own; there is nothing else that ends it.
                if let Ok(panic) = ended.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Commits a picture on this thread.
    fn commit_here(&self, rendered: Rendered) -> Result<Vec<Recorded>, CommitError> {
        let mut spooled = write_share(&self.spool, vec![(0, rendered)]).remove(0).1?;
        spooled.ahead = spooled.rendered.is_one_numbered_image().then(Ahead::default);
        let spooled = Arc::new(vec![spooled]);
        let written = self.db.write_here(self.rows_of(&spooled));
        let Recording { mut results, owed, stored, dropped } = Recording::of(written, 1);
        self.tell_taken(&spooled, &results);
        self.storer.signal(owed);
        stored.into_iter().for_each(|(put, took)| self.storer.recorded(&put, took));
        unwanted(&spooled, &results).for_each(|picture| self.give_up(picture));
        dropped.into_iter().for_each(|(id, bytes)| self.spool.remove(id, bytes));
        results.pop().unwrap_or(Err(CommitError::Stopped))
    }

    /// Removes all there is of a picture that was not recorded.
    fn give_up(&self, picture: &Spooled) {
        let Spooled { rendered, ahead, .. } = picture;
        let is_taken_back = |id| ahead.as_ref().is_none_or(|ahead| self.storer.take_back(ahead, id));
        for (id, bytes) in rendered.files() {
            if is_taken_back(id) {
                self.spool.discard(id, bytes.len() as u64);
            }
        }
    }

    /// One result for each picture, in order.
    async fn commit_all(&self, rendered: Vec<Rendered>) -> Vec<Result<Vec<Recorded>, CommitError>> {
        let mut results: Vec<Option<Result<Vec<Recorded>, CommitError>>> = rendered.iter().map(|_| None).collect();
        let mut spooled = Vec::new();
        for (index, written) in self.write_files(rendered).await {
            match written {
                Ok(picture) => spooled.push((index, picture)),
                Err(error) => results[index] = Some(Err(error)),
            }
        }
        let (indexes, spooled): (Vec<_>, Vec<_>) = spooled.into_iter().unzip();
        for (index, result) in indexes.into_iter().zip(self.record(spooled).await) {
            results[index] = Some(result);
        }
        results.into_iter().map(|result| result.unwrap_or(Err(CommitError::Stopped))).collect()
    }

    /// Makes every file durable, on a few threads.
    async fn write_files(&self, rendered: Vec<Rendered>) -> Share<Result<Spooled, CommitError>> {
        let mut shares: Vec<Share<Rendered>> = (0..WRITERS.min(rendered.len())).map(|_| Vec::new()).collect();
        for (index, picture) in rendered.into_iter().enumerate() {
            let share = index % shares.len();
            shares[share].push((index, picture));
        }
        let mut writers = tokio::task::JoinSet::new();
        for share in shares {
            let spool = Arc::clone(&self.spool);
            writers.spawn_blocking(move || write_share(&spool, share));
        }
        writers.join_all().await.into_iter().flatten().collect()
    }

    /// Writes the rows of pictures whose files are durable. One result for each, in order.
    async fn record(&self, spooled: Vec<Spooled>) -> Vec<Result<Vec<Recorded>, CommitError>> {
        if spooled.is_empty() {
            return Vec::new();
        }
        let spooled = Arc::new(spooled);
        let written = self.db.write(self.rows_of(&spooled)).await;
        // Nothing of several is put ahead.
        let Recording { results, owed, stored: _, dropped } = Recording::of(written, spooled.len());
        self.tell_taken(&spooled, &results);
        self.storer.signal(owed);
        let unwanted: Vec<Rendered> = unwanted(&spooled, &results).map(|picture| picture.rendered.clone()).collect();
        if !dropped.is_empty() || !unwanted.is_empty() {
            let spool = Arc::clone(&self.spool);
            let remove = move || {
                unwanted.iter().for_each(|rendered| discard_picture(&spool, rendered));
                dropped.into_iter().for_each(|(id, bytes)| spool.remove(id, bytes));
            };
            // A panic in there leaves files to the next start.
            let _ = tokio::task::spawn_blocking(remove).await;
        }
        results
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

/// Pictures with their places in the batch, and what became of each.
type Share<T> = Vec<(usize, T)>;

/// Makes the files of some of a batch's pictures durable, with one sync for their names.
fn write_share(spool: &Spool, share: Share<Rendered>) -> Share<Result<Spooled, CommitError>> {
    let mut written: Share<_> =
        share.into_iter().map(|(index, picture)| (index, write_picture(spool, picture))).collect();
    if written.iter().any(|(_, picture)| picture.is_ok())
        && let Err(error) = spool.sync_names()
    {
        written.iter_mut().for_each(|(_, picture)| *picture = Err(error.clone().into()));
    }
    written
}

/// Writes and syncs a picture's files, all or none.
fn write_picture(spool: &Spool, rendered: Rendered) -> Result<Spooled, CommitError> {
    for (index, (id, bytes)) in rendered.files().enumerate() {
        if let Err(error) = spool.write(id, bytes) {
            for (written, bytes) in rendered.files().take(index) {
                spool.discard(written, bytes.len() as u64);
            }
            return Err(error.into());
        }
    }
    let renditions = rendered.pictures.iter().flat_map(|taken| &taken.renditions);
    let sum = |rendition: &RenderedRendition| {
        let sum = digest(&SHA256, &rendition.bytes);
        sum.as_ref().try_into().expect("a SHA-256 sum has 32 bytes")
    };
    let sha256 = renditions.map(sum).collect();
    Ok(Spooled { rendered, sha256, ahead: None })
}

fn discard_picture(spool: &Spool, rendered: &Rendered) {
    for (id, bytes) in rendered.files() {
        spool.discard(id, bytes.len() as u64);
    }
}
