//! The worker pool: jailed processes that turn an entry point into images.
//!
//! [`WorkerSet::start`] gives one [`Worker`] per core, each to be driven by a task of its own: [`Worker::stay_ready`] while
//! there is nothing to do, [`Worker::render`] when there is. Which job comes next is not decided here.
//!
//! A worker's process is replaced whenever it crashes, hangs or breaks the wire's rules; that costs the job it held and
//! nothing else. No process outlives its `Worker`: dropping one kills and reaps it, and if this whole process dies the
//! kernel kills them (parent-death signal) or they read end of file.

mod child;
mod exchange;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use framehook_domain::fault::Fault;
use framehook_media::avcc::RECORD_BYTES_MAX;
use framehook_media::{Codec, DecoderConfig};
use framehook_render_wire::{CONFIG_BYTES_MAX, Job, ToWorker, UNIT_BYTES_MAX, WireError};
pub use framehook_render_wire::{
    Chroma, ColourMatrix, ColourRange, Failure, FailureReason, ImageFormat, JailReport, Judgement, Landlock,
    Orientation, PictureFacts, RENDITIONS_MAX, RenditionSpec, SampleAspect, Size, Timings,
};
use framehook_rtmp::Limits;
use tokio::time::Instant;

pub use self::child::SpawnError;
use self::child::{Breakage, End, Executable, Running, Spawner};

// What ingest lets in, a worker can be given; what the wire allows beyond that would never be used.
const _: () = assert!(Limits::DEFAULT.media_message_bytes_max as usize == UNIT_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX == CONFIG_BYTES_MAX);

/// How the pool is set up.
#[derive(Debug, Clone)]
pub struct RenderConfig {
    /// Number of worker processes, at least 1; one per core is right, since a worker has one thread.
    pub workers: usize,
    /// The executable `framehook-render`; without one, the file of that name beside the running executable.
    pub executable: Option<PathBuf>,
    /// Whether a worker that cannot lock itself in is refused. `false` is `--unsafe-no-jail`.
    pub jail_required: bool,
}

impl RenderConfig {
    /// One worker per core this process may use, the executable beside this one, the jail required.
    pub fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { workers, executable: None, jail_required: true }
    }
}

impl Default for RenderConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the pool could not start. Each is for the operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the render worker was not found at {}", path.display())]
    NotFound { path: PathBuf, source: std::io::Error },
    #[error("a thread for starting workers could not be started")]
    Thread(#[source] std::io::Error),
    #[error("render worker {worker} did not start")]
    Spawn { worker: usize, source: Box<SpawnError> },
}

/// The pool just after its start.
#[derive(Debug)]
pub struct WorkerSet {
    /// All of them up, in the order of [`PoolHealth::workers`].
    pub workers: Vec<Worker>,
    pub health: PoolHealth,
}

impl WorkerSet {
    /// Opens the executable once, by which every worker of this process's life is spawned, and brings all workers up.
    ///
    /// # Errors
    /// When the executable is missing, a worker cannot be spawned, speaks another wire version or is not locked in.
    pub async fn start(config: &RenderConfig) -> Result<Self, StartError> {
        let path = match &config.executable {
            Some(path) => path.clone(),
            None => beside_this_executable(),
        };
        let executable = Executable::open(&path).map_err(|source| StartError::NotFound { path, source })?;
        let spawner = Spawner::start(executable, config.jail_required).map_err(StartError::Thread)?;
        let mut workers = Vec::with_capacity(config.workers.max(1));
        for index in 0..config.workers.max(1) {
            let mut worker = Worker::new(spawner.clone());
            worker.spawn().await.map_err(|source| StartError::Spawn { worker: index, source: Box::new(source) })?;
            workers.push(worker);
        }
        let health = PoolHealth { workers: workers.iter().map(|worker| worker.health.clone()).collect() };
        Ok(Self { workers, health })
    }
}

fn beside_this_executable() -> PathBuf {
    std::env::current_exe().unwrap_or_default().parent().unwrap_or(Path::new("")).join("framehook-render")
}

/// One entry point to decode, and the images wanted of it.
#[derive(Debug, Clone)]
pub struct RenderJob {
    pub config: Arc<DecoderConfig>,
    /// The access unit, framed as the config says.
    pub data: Bytes,
    /// Between 1 and [`RENDITIONS_MAX`]; all come from one decode.
    pub renditions: Vec<RenditionSpec>,
}

impl RenderJob {
    /// Lengths that do not fit saturate, and the wire refuses them.
    fn to_wire(&self, id: u64) -> Job {
        let bytes = |data: &Bytes| u32::try_from(data.len()).unwrap_or(u32::MAX);
        Job {
            id,
            codec: self.config.codec,
            config_bytes: bytes(&self.config.record),
            unit_bytes: bytes(&self.data),
            renditions: self.renditions.clone(),
        }
    }
}

/// A whole picture: the decoder found no fault in it.
#[derive(Debug, Clone)]
pub struct RenderedPicture {
    pub facts: PictureFacts,
    pub judgement: Judgement,
    pub timings: Timings,
    /// One for each rendition of the job, in the same order.
    pub images: Vec<RenderedImage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedImage {
    /// The real size of the encoded image.
    pub size: Size,
    pub bytes: Bytes,
}

/// Why a job gave no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The worker looked at it and says no.
    #[error("no picture, {}: {}", .0.reason.name(), .0.detail)]
    Failed(Failure),
    /// The deadline passed while the worker had the job; its process was killed.
    #[error("the worker held the job past its deadline")]
    TimedOut,
    /// The process died of the job, by this signal or by leaving.
    #[error("the worker died of the job (signal {signal:?}): {last_words}")]
    WorkerCrashed { signal: Option<i32>, last_words: String },
    /// The worker answered something the wire does not allow; its process was killed.
    #[error("the worker broke the wire's rules: {0}")]
    WorkerBroken(String),
    /// No process came up before the deadline.
    #[error("no worker process came up before the deadline")]
    WorkerUnavailable,
    /// The job passes a limit of the wire, so no worker was asked.
    #[error("the job cannot be given to a worker")]
    JobRefused(#[source] WireError),
}

impl RenderError {
    /// The name used in metrics, logs and `/v1`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed(failure) => failure.reason.name(),
            Self::TimedOut => "timed_out",
            Self::WorkerCrashed { .. } => "worker_crashed",
            Self::WorkerBroken(_) => "worker_broken",
            Self::WorkerUnavailable => "worker_unavailable",
            Self::JobRefused(_) => "job_refused",
        }
    }

    /// Every reason there is, for metrics that must exist before the first failure.
    pub fn reasons() -> impl Iterator<Item = &'static str> {
        let own = ["timed_out", "worker_crashed", "worker_broken", "worker_unavailable", "job_refused"];
        FailureReason::ALL.into_iter().map(FailureReason::name).chain(own)
    }

    pub fn fault(&self) -> Fault {
        match self {
            Self::Failed(failure) => match failure.reason {
                FailureReason::Internal => Fault::Ours,
                _ => Fault::Peer,
            },
            Self::JobRefused(_) => Fault::Peer,
            // The machine may be overloaded or the bitstream made to last; either way it is not for a person at once.
            Self::TimedOut => Fault::Dependency,
            Self::WorkerCrashed { .. } | Self::WorkerBroken(_) | Self::WorkerUnavailable => Fault::Ours,
        }
    }
}

/// The state of every worker, for `/readyz` and `doctor`. Clones share it.
#[derive(Debug, Clone)]
pub struct PoolHealth {
    workers: Vec<Arc<Mutex<WorkerHealth>>>,
}

impl PoolHealth {
    /// One for each worker, now.
    pub fn workers(&self) -> Vec<WorkerHealth> {
        self.workers.iter().map(|health| lock(health).clone()).collect()
    }
}

/// The state of one worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerHealth {
    /// A process is up, or busy with a job.
    pub ready: bool,
    pub pid: Option<u32>,
    /// What the current or last process said of itself.
    pub decoders: Vec<Codec>,
    pub library: String,
    pub jail: Option<JailReport>,
    /// Processes that were replaced because they crashed, hung or broke the rules.
    pub restarts: u64,
    /// Why the last of them was replaced, or did not come up.
    pub last_error: Option<String>,
}

fn lock(health: &Mutex<WorkerHealth>) -> MutexGuard<'_, WorkerHealth> {
    // The lock is held for plain assignments only, so a poisoned value is still whole.
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker process and its successors.
#[derive(Debug)]
pub struct Worker {
    spawner: Spawner,
    process: Process,
    /// Bad ends in a row, since the last outcome of any kind.
    bad_ends: u32,
    spawn_not_before: Instant,
    jobs_done: u64,
    health: Arc<Mutex<WorkerHealth>>,
}

/// Where a worker's process stands. What takes time is kept here and not in the future that waits for it: each pick drops
/// [`Worker::stay_ready`], and a start or an end that began again each time might never be over.
enum Process {
    /// There is none. Also while a job runs, so that a dropped `render` drops (kills) the process with the half-done job.
    Absent,
    Starting(Pin<Box<dyn Future<Output = Result<Running, SpawnError>> + Send>>),
    Up(Box<Running>),
    Ending {
        end: Pin<Box<dyn Future<Output = End> + Send>>,
        worn: bool,
    },
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Starting(_) => f.write_str("Starting"),
            Self::Up(running) => f.debug_tuple("Up").field(running).finish(),
            Self::Ending { .. } => f.write_str("Ending"),
        }
    }
}

/// First wait before a process is replaced, doubled for each bad end in a row. The first replacement is immediate: most
/// crashes come from one stream's picture, and the next job is another stream's.
const RESPAWN_WAIT_BASE: Duration = Duration::from_millis(50);

/// Longest wait before a process is replaced. A stream that kills its worker each time may delay others by this much and
/// no more, and a broken installation costs one attempt a second.
const RESPAWN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Jobs after which a process is replaced although nothing is wrong with it, so that a slow leak in C code cannot grow for
/// months. A start costs about as much CPU as two pictures.
const JOBS_PER_PROCESS_MAX: u64 = 10_000;

impl Worker {
    fn new(spawner: Spawner) -> Self {
        Self {
            spawner,
            process: Process::Absent,
            bad_ends: 0,
            spawn_not_before: Instant::now(),
            jobs_done: 0,
            health: Arc::default(),
        }
    }

    /// Waits until a process is up, replacing a dead one with back-off, for ever if need be. Cancel-safe: the next call
    /// goes on where this one was.
    pub async fn ready(&mut self) {
        loop {
            match &mut self.process {
                Process::Up(_) => return,
                Process::Absent => {
                    tokio::time::sleep_until(self.spawn_not_before).await;
                    let spawner = self.spawner.clone();
                    self.process = Process::Starting(Box::pin(async move { spawner.spawn().await }));
                }
                Process::Starting(start) => match start.await {
                    Ok(running) => self.up(running),
                    Err(error) => {
                        self.process = Process::Absent;
                        self.bad_end(error.to_string());
                        tracing::error!(error = %error, source = ?error, "render worker did not start");
                    }
                },
                Process::Ending { end, worn } => {
                    let (end, worn) = (end.await, *worn);
                    self.process = Process::Absent;
                    if worn {
                        tracing::debug!("render worker {end}");
                    } else {
                        tracing::warn!("render worker {end}, without a job");
                        self.bad_end(end.to_string());
                    }
                }
            }
        }
    }

    /// Keeps a process up while there is no job: the future to select on beside the queue. Cancel-safe.
    pub async fn stay_ready(&mut self) -> Infallible {
        loop {
            self.ready().await;
            if let Process::Up(running) = &self.process {
                running.ended().await;
            }
            self.replace(Breakage::Died);
        }
    }

    /// Renders one job, waiting for a process first if there is none. Whatever happens, the next call has a fresh or
    /// proven process. Dropping the future kills the process.
    ///
    /// # Errors
    /// [`RenderError`]; none of them needs a retry, as the next due brings a newer picture.
    pub async fn render(&mut self, job: &RenderJob, deadline: Instant) -> Result<RenderedPicture, RenderError> {
        ToWorker::Job(job.to_wire(0)).write().map_err(RenderError::JobRefused)?;
        self.replace_if_dead_or_worn();
        if tokio::time::timeout_at(deadline, self.ready()).await.is_err() {
            return Err(RenderError::WorkerUnavailable);
        }
        let Process::Up(mut running) = std::mem::replace(&mut self.process, Process::Absent) else {
            return Err(RenderError::WorkerUnavailable);
        };
        let breakage = match tokio::time::timeout_at(deadline, running.render(job)).await {
            Ok(Ok(result)) => {
                self.process = Process::Up(running);
                self.jobs_done += 1;
                self.bad_ends = 0;
                return result.map_err(RenderError::Failed);
            }
            Ok(Err(breakage)) => breakage,
            Err(_) => Breakage::TimedOut,
        };
        let end = running.end(breakage).await;
        self.bad_end(end.to_string());
        Err(end.into())
    }

    /// A process may have died while nobody watched it: that is no fault of the job to come.
    fn replace_if_dead_or_worn(&mut self) {
        let Process::Up(running) = &self.process else { return };
        if running.has_ended() {
            self.replace(Breakage::Died);
        } else if self.jobs_done >= JOBS_PER_PROCESS_MAX {
            self.replace(Breakage::Worn);
        }
    }

    /// Begins to end a process that holds no job. [`Worker::ready`] sees it through.
    fn replace(&mut self, breakage: Breakage) {
        let worn = matches!(breakage, Breakage::Worn);
        if let Process::Up(running) = std::mem::replace(&mut self.process, Process::Absent) {
            self.process = Process::Ending { end: Box::pin(running.end(breakage)), worn };
        }
    }

    async fn spawn(&mut self) -> Result<(), SpawnError> {
        let running = self.spawner.spawn().await?;
        self.up(running);
        Ok(())
    }

    fn up(&mut self, running: Running) {
        let mut health = lock(&self.health);
        health.ready = true;
        health.pid = Some(running.hello.pid);
        health.decoders.clone_from(&running.hello.decoders);
        health.library.clone_from(&running.hello.library);
        health.jail = Some(running.hello.jail);
        drop(health);
        self.process = Process::Up(Box::new(running));
        self.jobs_done = 0;
    }

    fn bad_end(&mut self, why: String) {
        self.spawn_not_before = Instant::now() + respawn_wait(self.bad_ends);
        self.bad_ends = self.bad_ends.saturating_add(1);
        let mut health = lock(&self.health);
        health.ready = false;
        health.pid = None;
        health.restarts += 1;
        health.last_error = Some(why);
    }
}

/// How long to wait before a process is replaced, after this many bad ends in a row before the last one.
fn respawn_wait(bad_ends_before: u32) -> Duration {
    match bad_ends_before {
        0 => Duration::ZERO,
        more => RESPAWN_WAIT_BASE.saturating_mul(1 << (more - 1).min(16)).min(RESPAWN_WAIT_MAX),
    }
}

#[cfg(test)]
mod tests;
