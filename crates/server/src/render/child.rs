//! One worker process: how it is spawned, spoken with and never leaked.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use framehook_render_wire::{Failure, FromWorker, Hello, JailReport, MESSAGE_BYTES_MAX, Rendered, ToWorker, WireError};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::exchange::{Exchange, KEPT_BYTES};
use super::{RenderError, RenderJob, RenderedImage, RenderedPicture};

/// Time for a new process to lock itself in and say hello: 40 ms of CPU with the system's FFmpeg, so this is for a machine
/// that is badly overloaded.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// Requests waiting for the spawning thread. Each worker has at most one spawn and one reap under way, and the thread does
/// each in milliseconds; when it is full, senders wait.
const SPAWN_QUEUE: usize = 64;

/// Bytes from which on a copy to or from the exchange leaves the runtime's thread to others. Making fresh pages and copying
/// takes half a second for a GB, so smaller ones are done within a millisecond, and nearly all are: an entry point has some
/// 130 KB. The worst, 64 MiB of images, would hold up every timer and socket of its thread for 30 to 50 ms.
const BLOCKING_BYTES_MIN: usize = 1 << 20;

/// Last bytes of a dead worker's stderr that are worth keeping: a panic message and where.
const LAST_WORDS_BYTES_MAX: usize = 600;

/// What a pipe holds when nobody reads it.
const PIPE_BYTES_MAX: u64 = 64 << 10;

/// The executable `framehook-render`, opened once. An upgrade on disk cannot bring two versions together.
#[derive(Debug)]
pub(super) struct Executable {
    file: File,
}

impl Executable {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| Self { file })
    }

    /// Opens the descriptor's own file again, whatever stands at its path by now.
    #[expect(clippy::disallowed_methods, reason = "this module is where processes are started")]
    fn command(&self) -> Command {
        Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Why a process did not become a worker.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("could not start the process")]
    Start(#[source] io::Error),
    #[error("could not watch the process's socket")]
    Socket(#[source] io::Error),
    #[error("the process did not say hello within {HELLO_WAIT:?}")]
    Silent,
    #[error("the process ended before it said hello: {0}")]
    Ended(String),
    #[error("the process's hello was not understood")]
    Hello(#[source] WireError),
    #[error("the worker could not lock itself in: {0:?}")]
    NotLocked(JailReport),
}

/// Spawns and reaps from one thread that lives as long as any handle to it. The parent-death signal of a child is bound to
/// the *thread* that made it, and tokio's threads may come and go.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
    jail_required: bool,
}

#[derive(Debug)]
enum Request {
    Spawn { done: oneshot::Sender<io::Result<Spawned>> },
    Reap { child: Child, done: Option<oneshot::Sender<ProcessEnd>> },
}

impl Spawner {
    pub(super) fn start(executable: Executable, jail_required: bool) -> io::Result<Self> {
        let (requests, mut inbox) = mpsc::channel(SPAWN_QUEUE);
        // Weak, or the thread would keep its own inbox open.
        let reaper = requests.downgrade();
        std::thread::Builder::new().name("render-spawner".to_owned()).spawn(move || {
            while let Some(request) = inbox.blocking_recv() {
                match request {
                    Request::Spawn { done } => {
                        let Some(reaper) = reaper.upgrade() else { return };
                        // If nobody waits any more, the answer is dropped here and the process with it.
                        let _ = done.send(spawn(&executable, jail_required, reaper));
                    }
                    Request::Reap { child, done } => {
                        let end = reap(child);
                        if let Some(done) = done {
                            let _ = done.send(end);
                        }
                    }
                }
            }
        })?;
        Ok(Self { requests, jail_required })
    }

    /// Starts a process and waits for its hello. Cancel-safe.
    pub(super) async fn spawn(&self) -> Result<Running, SpawnError> {
        let gone = || SpawnError::Start(io::Error::other("the spawning thread is gone"));
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Spawn { done }).await.map_err(|_| gone())?;
        let spawned = answer.await.map_err(|_| gone())?.map_err(SpawnError::Start)?;
        Running::greet(spawned, self.jail_required).await
    }
}

/// A process that has not said anything yet.
#[derive(Debug)]
struct Spawned {
    process: Process,
    socket: OwnedFd,
    exchange: Exchange,
}

fn spawn(executable: &Executable, jail_required: bool, reaper: mpsc::Sender<Request>) -> io::Result<Spawned> {
    let (socket, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let exchange = Exchange::new()?;

    let mut command = executable.command();
    command
        .arg0("framehook-render")
        .args(["--worker", "--parent", &std::process::id().to_string()])
        .env_clear()
        .current_dir("/")
        // A group of its own: Ctrl-C is for the server, which finishes its renders before it ends.
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(exchange.file().try_clone()?))
        .stderr(Stdio::piped());
    if !jail_required {
        command.arg("--unsafe-no-jail");
    }
    let child = command.spawn()?;
    Ok(Spawned { process: Process { child: Some(child), reaper }, socket, exchange })
}

/// How a process ended.
#[derive(Debug, Default)]
struct ProcessEnd {
    signal: Option<i32>,
    last_words: String,
}

/// Waits for a process that is dead or about to be, and reads what it wrote last.
fn reap(mut child: Child) -> ProcessEnd {
    let signal = child.wait().ok().and_then(|status| status.signal());
    let last_words = child.stderr.take().map(last_words).unwrap_or_default();
    ProcessEnd { signal, last_words }
}

/// The writer is dead and could not have children, so this ends after at most one pipe's worth.
fn last_words(stderr: ChildStderr) -> String {
    let mut all = Vec::new();
    let _ = stderr.take(PIPE_BYTES_MAX).read_to_end(&mut all);
    let tail = &all[all.len().saturating_sub(LAST_WORDS_BYTES_MAX)..];
    String::from_utf8_lossy(tail).trim().to_owned()
}

/// A process that dies with this value, and is reaped.
#[derive(Debug)]
struct Process {
    child: Option<Child>,
    reaper: mpsc::Sender<Request>,
}

impl Process {
    /// Kills the process if it still lives, and waits for its end. Cancel-safe.
    async fn end(mut self) -> ProcessEnd {
        let Some(child) = self.child.as_mut() else { return ProcessEnd::default() };
        // Harmless to one that is dead already: its status is kept until it is reaped.
        let _ = child.kill();
        let Ok(permit) = self.reaper.reserve().await else { return ProcessEnd::default() };
        let Some(child) = self.child.take() else { return ProcessEnd::default() };
        let (done, end) = oneshot::channel();
        permit.send(Request::Reap { child, done: Some(done) });
        end.await.unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        if let Err(unsent) = self.reaper.try_send(Request::Reap { child, done: None })
            && let Request::Reap { child, .. } = unsent.into_inner()
        {
            // The thread is busy; the process has been killed, so waiting for it here takes microseconds.
            reap(child);
        }
    }
}

/// What ended the use of a process.
#[derive(Debug)]
pub(super) enum Breakage {
    /// It went by itself.
    Died,
    TimedOut,
    /// It answered what the wire does not allow.
    Wire(WireError),
    /// Its exchange could not be read or written.
    Exchange(io::Error),
    /// It has done its share of jobs.
    Worn,
}

/// How and why the use of a process ended, for the job it held and for the log.
#[derive(Debug)]
pub(super) struct End {
    breakage: Breakage,
    process: ProcessEnd,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.breakage {
            Breakage::Died => match self.process.signal {
                Some(signal) => write!(f, "died of signal {signal}")?,
                None => f.write_str("left by itself")?,
            },
            Breakage::TimedOut => f.write_str("was killed at the deadline")?,
            Breakage::Wire(error) => write!(f, "was killed for its answer: {error}")?,
            Breakage::Exchange(error) => write!(f, "was killed because its exchange failed: {error}")?,
            Breakage::Worn => f.write_str("was replaced after its share of jobs")?,
        }
        if self.process.last_words.is_empty() { Ok(()) } else { write!(f, "; it said: {}", self.process.last_words) }
    }
}

impl From<End> for RenderError {
    fn from(end: End) -> Self {
        match &end.breakage {
            Breakage::Died => Self::WorkerCrashed { signal: end.process.signal, last_words: end.process.last_words },
            Breakage::TimedOut => Self::TimedOut,
            Breakage::Wire(_) | Breakage::Exchange(_) | Breakage::Worn => Self::WorkerBroken(end.to_string()),
        }
    }
}

/// A process that said hello and may be given jobs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) hello: Hello,
    process: Process,
    socket: AsyncFd<OwnedFd>,
    pub(super) exchange: Exchange,
    next_job_id: u64,
}

impl Running {
    async fn greet(spawned: Spawned, jail_required: bool) -> Result<Self, SpawnError> {
        let Spawned { process, socket, exchange } = spawned;
        let socket = watched(socket).map_err(SpawnError::Socket)?;
        let answer = match tokio::time::timeout(HELLO_WAIT, receive(&socket)).await {
            Ok(answer) => answer,
            Err(_) => return Err(SpawnError::Silent),
        };
        let hello = match answer {
            Ok(FromWorker::Hello(hello)) => hello,
            Ok(FromWorker::Outcome(_)) => return Err(SpawnError::Hello(WireError::Value("first message"))),
            Err(Breakage::Wire(error)) => return Err(SpawnError::Hello(error)),
            Err(breakage) => {
                let process = process.end().await;
                return Err(SpawnError::Ended(End { breakage, process }.to_string()));
            }
        };
        if jail_required && !hello.jail.is_locked() {
            return Err(SpawnError::NotLocked(hello.jail));
        }
        Ok(Self { hello, process, socket, exchange, next_job_id: 1 })
    }

    /// Gives the process a job and waits for its answer; the outer error means that the process is of no more use.
    pub(super) async fn render(&mut self, job: &RenderJob) -> Result<Result<RenderedPicture, Failure>, Breakage> {
        let id = self.next_job_id;
        self.next_job_id += 1;
        let message = ToWorker::Job(job.to_wire(id)).write().map_err(Breakage::Wire)?;
        let input_bytes = job.config.record.len() + job.data.len();
        let put = || self.exchange.put_input(&job.config.record, &job.data);
        beside_the_runtime(input_bytes, put).map_err(Breakage::Exchange)?;
        self.send(&message)?;

        let outcome = match receive(&self.socket).await? {
            FromWorker::Outcome(outcome) if outcome.job_id == id => outcome,
            FromWorker::Outcome(_) => return Err(Breakage::Wire(WireError::Value("job id"))),
            FromWorker::Hello(_) => return Err(Breakage::Wire(WireError::Value("second hello"))),
        };
        let result = match outcome.result {
            Ok(rendered) if rendered.images.len() != job.renditions.len() => {
                return Err(Breakage::Wire(WireError::Value("image count")));
            }
            Ok(rendered) => {
                let ends = rendered.images.iter().map(|image| image.offset as usize + image.bytes as usize);
                let images_bytes = ends.max().unwrap_or(0);
                let take = || self.take_images(rendered);
                Ok(beside_the_runtime(images_bytes, take).map_err(Breakage::Exchange)?)
            }
            Err(failure) => Err(failure),
        };
        // Also after a failure: there may be images that were made before it.
        let allocated_bytes = self.exchange.allocated_bytes().map_err(Breakage::Exchange)?;
        if allocated_bytes > KEPT_BYTES {
            beside_the_runtime(allocated_bytes, || self.exchange.give_back()).map_err(Breakage::Exchange)?;
        }
        Ok(result)
    }

    /// Copies the images out of the exchange. Their places and sizes were checked when the outcome was parsed.
    fn take_images(&mut self, rendered: Rendered) -> io::Result<RenderedPicture> {
        let mut images = Vec::with_capacity(rendered.images.len());
        for image in &rendered.images {
            images.push(RenderedImage { size: image.size, bytes: Bytes::from(self.exchange.take_image(image)?) });
        }
        let Rendered { facts, judgement, timings, .. } = rendered;
        Ok(RenderedPicture { facts, judgement, timings, images })
    }

    /// A message goes whole or not at all, and there is room for it: the process answers a job before it is given another. The
    /// only way to fail is that nobody is at the other end, or nobody who reads.
    fn send(&self, message: &[u8]) -> Result<(), Breakage> {
        let sent = retry_on_intr(|| rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL));
        sent.map(drop).map_err(|_| Breakage::Died)
    }

    /// Whether the process is gone, or talks without being asked, which ends its use as well.
    pub(super) fn has_ended(&self) -> bool {
        // After an answer the runtime takes the socket for readable until somebody finds nothing there. Found here, whoever
        // waits for the next answer need not look in vain first.
        let mut looked = false;
        let seen = self.socket.try_io(Interest::READABLE, |socket| {
            looked = true;
            look(socket)
        });
        if looked { seen.is_ok() } else { look(self.socket.get_ref()).is_ok() }
    }

    /// Waits until [`has_ended`](Self::has_ended). Cancel-safe.
    pub(super) async fn ended(&self) {
        // The other error would be that the runtime shuts down, which ends its use too.
        let _ = self.socket.async_io(Interest::READABLE, look).await;
    }

    /// Kills the process if it still lives and waits for its end. Cancel-safe.
    pub(super) async fn end(self, breakage: Breakage) -> End {
        End { breakage, process: self.process.end().await }
    }
}

/// Runs work that touches this many bytes, telling the runtime first if that takes long.
fn beside_the_runtime<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    // A runtime of one thread, as in tests, has nobody who could take over meanwhile.
    if bytes >= BLOCKING_BYTES_MIN && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// A socket that wakes its reader and nobody else: if it were watched for room as well, the process would wake us each time
/// that it takes a job out of it.
#[expect(
    deprecated,
    reason = "unsound for what is no owner of its descriptor; an OwnedFd is, and the other way in is unsafe"
)]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Whether there is something to receive, be it the end; `WouldBlock` if not.
fn look(socket: &OwnedFd) -> io::Result<()> {
    match rustix::net::recv(socket, &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> Result<FromWorker, Breakage> {
    // One byte more than allowed, so that a longer message is seen as such and not cut to a valid one.
    let mut buffer = [0; MESSAGE_BYTES_MAX + 1];
    let take =
        |socket: &OwnedFd| Ok(retry_on_intr(|| rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()))?.0);
    match socket.async_io(Interest::READABLE, take).await {
        // No message is empty, so it is the end.
        Ok(0) | Err(_) => Err(Breakage::Died),
        Ok(length) => FromWorker::parse(&buffer[..length]).map_err(Breakage::Wire),
    }
}
