//! The worker's life: lock in, say hello, then one job after the other until the server hangs up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use framehook_render_wire::{
    Codec, Failure, FromWorker, Hello, JailReport, Job, MESSAGE_BYTES_MAX, Outcome, Rendered, ToWorker, WireError,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Pid;

use crate::encode::EncodeError;
use crate::exchange::Exchange;
use crate::jail::{self, Conditions, JailError};
use crate::render::Renderer;
use crate::{decode, probe};

/// Why a worker leaves other than at the end of its socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("could not lock in")]
    Jail(#[from] JailError),
    #[error("could not prepare the encoder")]
    Encoder(#[from] EncodeError),
    #[error("the server's message was not understood")]
    Wire(#[from] WireError),
    #[error("{what} failed")]
    Io { what: &'static str, source: io::Error },
}

fn during<T, E: Into<io::Error>>(what: &'static str, result: Result<T, E>) -> Result<T, ServeError> {
    result.map_err(|source| ServeError::Io { what, source: source.into() })
}

/// Whether to lock in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JailMode {
    Required,
    /// `--unsafe-no-jail`.
    Off,
}

/// A process that is ready for a stranger's bytes.
pub(crate) struct Prepared {
    renderer: Renderer,
    pub(crate) report: JailReport,
    /// The codecs whose probe came out as an image behind the lock.
    pub(crate) decoders: Vec<Codec>,
}

/// Locks in, with everything that libraries do only once already done, and tries what works behind the lock.
pub(crate) fn prepare(conditions: Conditions, mode: JailMode) -> Result<Prepared, ServeError> {
    let mut renderer = Renderer::new()?;
    probe::working_decoders(&mut renderer);
    let report = match mode {
        JailMode::Required => jail::lock(conditions)?,
        JailMode::Off => jail::unlocked(conditions)?,
    };
    // A filter that a library cannot live with shows here, and not in the first stream's picture.
    let decoders = probe::working_decoders(&mut renderer);
    Ok(Prepared { renderer, report, decoders })
}

/// Serves jobs from the socket on descriptor 0 until it ends. The parent's id tells an orphan from a child.
pub(crate) fn serve(parent: Pid, mode: JailMode) -> Result<(), ServeError> {
    // Before the lock, which allows no mapping of files.
    let mut wire = Wire::open()?;
    let Prepared { mut renderer, report, decoders } = prepare(Conditions { parent: Some(parent) }, mode)?;
    let hello = Hello { pid: std::process::id(), decoders, library: decode::library(), jail: report };
    wire.send(&FromWorker::Hello(hello))?;
    while let Some(ToWorker::Job(job)) = wire.receive()? {
        if mode == JailMode::Required {
            during("setting the limit of CPU time", jail::allow_job_time())?;
        }
        let outcome = Outcome { job_id: job.id, result: work(&mut renderer, &mut wire.exchange, &job) };
        wire.send(&FromWorker::Outcome(outcome))?;
    }
    Ok(())
}

/// Renders what the server put into the exchange, and leaves the images there.
fn work(renderer: &mut Renderer, exchange: &mut Exchange, job: &Job) -> Result<Rendered, Failure> {
    let (input, images) = exchange.parts(job.config_bytes as usize + job.unit_bytes as usize);
    let (config, unit) = input.split_at(job.config_bytes as usize);
    renderer.render(job.codec, config, unit, &job.renditions, images)
}

/// The channel, as the wire's crate describes it.
struct Wire {
    socket: BorrowedFd<'static>,
    exchange: Exchange,
}

impl Wire {
    fn open() -> Result<Self, ServeError> {
        // SAFETY: 0 and 1 were open when the process started (std sees to that) and nothing here closes them.
        let [socket, exchange] = [0, 1].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
        Ok(Self { socket, exchange: during("mapping the exchange", Exchange::map(exchange))? })
    }

    /// The next message; `None` when the server has hung up.
    fn receive(&self) -> Result<Option<ToWorker>, ServeError> {
        // One byte more than allowed, so that a longer message is seen as such.
        let mut buffer = [0; MESSAGE_BYTES_MAX + 1];
        loop {
            match rustix::net::recv(self.socket.as_fd(), &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(None),
                Ok((length, _)) => return Ok(Some(ToWorker::parse(&buffer[..length])?)),
                Err(Errno::INTR) => {}
                Err(error) => return during("receiving", Err(error)),
            }
        }
    }

    fn send(&self, message: &FromWorker) -> Result<(), ServeError> {
        let bytes = message.write()?;
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(self.socket.as_fd(), &bytes, SendFlags::NOSIGNAL));
        during("sending", sent).map(drop)
    }
}
