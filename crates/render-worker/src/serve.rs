//! The worker's life: lock in, say hello, then one job after the other until the server hangs up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use framehook_render_wire::{
    Codec, EXCHANGE_BYTES, Failure, FailureReason, FromWorker, Hello, IMAGES_BYTES_MAX, IMAGES_OFFSET, ImageAt,
    JailReport, Job, MESSAGE_BYTES_MAX, Outcome, Rendered, ToWorker, WireError,
};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Pid;

use crate::encode::EncodeError;
use crate::jail::{self, Conditions, JailError};
use crate::render::{RenderedJob, Renderer};
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
    let conditions = Conditions { parent: Some(parent), file_bytes_max: EXCHANGE_BYTES as u64 };
    let Prepared { mut renderer, report, decoders } = prepare(conditions, mode)?;
    let wire = Wire::new();
    let hello = Hello { pid: std::process::id(), decoders, library: decode::library(), jail: report };
    wire.send(&FromWorker::Hello(hello))?;
    while let Some(ToWorker::Job(job)) = wire.receive()? {
        if mode == JailMode::Required {
            during("setting the limit of CPU time", jail::allow_job_time())?;
        }
        let outcome = Outcome { job_id: job.id, result: work(&mut renderer, &wire, &job)? };
        wire.send(&FromWorker::Outcome(outcome))?;
    }
    Ok(())
}

/// Reads a job's bytes, renders, and writes the images.
fn work(renderer: &mut Renderer, wire: &Wire, job: &Job) -> Result<Result<Rendered, Failure>, ServeError> {
    let input = wire.read_input(job.config_bytes as usize + job.unit_bytes as usize)?;
    let (config, unit) = input.split_at(job.config_bytes as usize);
    let rendered = match renderer.render(job.codec, config, unit, &job.renditions) {
        Ok(rendered) => rendered,
        Err(failure) => return Ok(Err(failure)),
    };
    wire.write_images(rendered)
}

/// The three descriptors of the channel, as the wire's crate describes them.
struct Wire {
    socket: BorrowedFd<'static>,
    exchange: BorrowedFd<'static>,
}

impl Wire {
    fn new() -> Self {
        // SAFETY: 0 and 1 were open when the process started (std sees to that) and nothing here closes them.
        let [socket, exchange] = [0, 1].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
        Self { socket, exchange }
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

    /// The first bytes of the exchange, copied: the server could change them, and a parser must not read twice.
    fn read_input(&self, bytes: usize) -> Result<Vec<u8>, ServeError> {
        let mut input = Vec::with_capacity(bytes);
        while input.len() < bytes {
            let offset = input.len() as u64;
            // Into memory that nobody has cleared first.
            match rustix::io::pread(self.exchange, spare_capacity(&mut input), offset) {
                Ok(0) => return during("reading the exchange", Err(io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return during("reading the exchange", Err(error)),
            }
        }
        // An allocator may give more than it was asked for.
        input.truncate(bytes);
        Ok(input)
    }

    /// Writes the images one behind the other.
    fn write_images(&self, rendered: RenderedJob) -> Result<Result<Rendered, Failure>, ServeError> {
        let RenderedJob { facts, judgement, timings, images } = rendered;
        let needed: usize = images.iter().map(|image| image.bytes.len()).sum();
        if needed > IMAGES_BYTES_MAX {
            let detail = format!("the images have {needed} bytes");
            return Ok(Err(Failure { reason: FailureReason::TooLarge, detail }));
        }
        let mut offset = 0;
        let mut places = Vec::with_capacity(images.len());
        for image in images {
            self.write_at(IMAGES_OFFSET + offset, &image.bytes)?;
            places.push(ImageAt { offset: offset as u32, bytes: image.bytes.len() as u32, size: image.size });
            offset += image.bytes.len();
        }
        Ok(Ok(Rendered { facts, judgement, timings, images: places }))
    }

    fn write_at(&self, offset: usize, mut bytes: &[u8]) -> Result<(), ServeError> {
        let mut offset = offset as u64;
        while !bytes.is_empty() {
            match rustix::io::pwrite(self.exchange, bytes, offset) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return during("writing the exchange", Err(error)),
            }
        }
        Ok(())
    }
}
