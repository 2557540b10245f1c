//! A worker process as the server sees it: a socket, an exchange, one job after the other.
#![expect(dead_code, reason = "every test file uses its own part of this module")]

pub(crate) mod pcm;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use framehook_render_wire::{
    Codec, EXCHANGE_BYTES, Failure, FromWorker, Hello, IMAGES_OFFSET, Job, MESSAGE_BYTES_MAX, Rendered, RenditionSpec,
    ToWorker,
};
use framehook_testkit::clip::{Clip, ClipSpec};
use framehook_testkit::jpeg;
use framehook_testkit::picture::Picture;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) struct Worker {
    pub(crate) child: Child,
    pub(crate) hello: Hello,
    socket: OwnedFd,
    exchange: File,
    next_job_id: u64,
}

/// A picture and the files of its renditions.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) rendered: Rendered,
    pub(crate) images: Vec<Vec<u8>>,
}

impl Outcome {
    /// The first rendition, decoded as a browser would.
    pub(crate) fn picture(&self) -> Picture {
        jpeg::decode(&self.images[0]).expect("a rendition is a whole JPEG")
    }
}

/// A worker's command with its three descriptors; the other end of the socket, and the exchange.
pub(crate) fn command() -> Result<(Command, OwnedFd, File)> {
    let (socket, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let exchange = File::from(rustix::fs::memfd_create("exchange", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    exchange.set_len(EXCHANGE_BYTES as u64)?;
    rustix::fs::fcntl_add_seals(&exchange, SealFlags::SHRINK)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_framehook-render"));
    command
        .args(["--worker", "--parent", &std::process::id().to_string()])
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(exchange.try_clone()?))
        .stderr(Stdio::piped());
    Ok((command, socket, exchange))
}

impl Worker {
    pub(crate) fn start() -> Result<Self> {
        let (mut command, socket, exchange) = command()?;
        let child = command.spawn().context("start framehook-render")?;
        // It keeps our ends of the descriptors; only when it goes does the worker see the end of its socket.
        drop(command);
        let FromWorker::Hello(hello) = receive(&socket)? else { bail!("the first message is a hello") };
        Ok(Self { child, hello, socket, exchange, next_job_id: 1 })
    }

    /// Sends raw bytes where a message belongs.
    pub(crate) fn send_raw(&self, message: &[u8]) -> Result<()> {
        rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Gives the worker a job without waiting for its answer.
    pub(crate) fn send_job(&mut self, config: &[u8], unit: &[u8], renditions: &[RenditionSpec]) -> Result<u64> {
        let id = self.next_job_id;
        self.next_job_id += 1;
        self.exchange.write_all_at(config, 0)?;
        self.exchange.write_all_at(unit, config.len() as u64)?;
        let job = Job {
            id,
            codec: Codec::H264,
            config_bytes: config.len().try_into()?,
            unit_bytes: unit.len().try_into()?,
            renditions: renditions.to_vec(),
        };
        self.send_raw(&ToWorker::Job(job).write()?)?;
        Ok(id)
    }

    /// Renders; the inner error is the worker's no, the outer one that it is gone or talks nonsense.
    pub(crate) fn try_render(
        &mut self,
        config: &[u8],
        unit: &[u8],
        renditions: &[RenditionSpec],
    ) -> Result<Result<Outcome, Failure>> {
        let id = self.send_job(config, unit, renditions)?;
        let answer = match receive(&self.socket) {
            Ok(answer) => answer,
            Err(error) => return Err(error.context(self.last_words())),
        };
        let FromWorker::Outcome(outcome) = answer else { bail!("the answer is an outcome") };
        ensure!(outcome.job_id == id, "answer to job {} instead of {id}", outcome.job_id);
        let rendered = match outcome.result {
            Ok(rendered) => rendered,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut images = Vec::new();
        for image in &rendered.images {
            let mut bytes = vec![0; image.bytes as usize];
            self.exchange.read_exact_at(&mut bytes, IMAGES_OFFSET as u64 + u64::from(image.offset))?;
            images.push(bytes);
        }
        Ok(Ok(Outcome { rendered, images }))
    }

    /// How the process ended and what it said last.
    pub(crate) fn last_words(&mut self) -> String {
        let mut words = String::new();
        let status = self.child.wait();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let _ = stderr.read_to_string(&mut words);
        }
        format!("{status:?}: {words}")
    }

    /// Renders what must come out.
    pub(crate) fn render(&mut self, config: &[u8], unit: &[u8], renditions: &[RenditionSpec]) -> Result<Outcome> {
        match self.try_render(config, unit, renditions)? {
            Ok(outcome) => Ok(outcome),
            Err(failure) => bail!("no picture: {failure:?}"),
        }
    }

    /// A picture at its own size.
    pub(crate) fn picture(&mut self, entry: &EntryPoint) -> Result<Outcome> {
        self.render(&entry.config, &entry.unit, &[RenditionSpec::ORIGINAL])
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn receive(socket: &OwnedFd) -> Result<FromWorker> {
    let mut buffer = [0; MESSAGE_BYTES_MAX + 1];
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    ensure!(length > 0, "the worker is gone");
    Ok(FromWorker::parse(&buffer[..length])?)
}

/// An entry point and the config it came under.
#[derive(Debug, Clone)]
pub(crate) struct EntryPoint {
    pub(crate) config: Vec<u8>,
    pub(crate) unit: Vec<u8>,
    /// The number burnt into its picture.
    pub(crate) number: u32,
}

/// The keyframes of a clip.
pub(crate) fn entry_points(clip: &Clip) -> Result<Vec<EntryPoint>> {
    let file = clip.flv()?;
    let numbers = file.picture_numbers();
    let mut config = Vec::new();
    let mut entries = Vec::new();
    for (tag, number) in file.tags.iter().zip(numbers) {
        if tag.is_decoder_config() && tag.data[0] == 0x17 {
            config = tag.data[5..].to_vec();
        } else if tag.is_keyframe() {
            let number = number.context("a keyframe has a number")?;
            entries.push(EntryPoint { config: config.clone(), unit: tag.data[5..].to_vec(), number });
        }
    }
    Ok(entries)
}

/// A clip and its first entry point.
pub(crate) fn first_entry_point(spec: &ClipSpec) -> Result<(Clip, EntryPoint)> {
    let clip = spec
        .build()
        .context("these tests make their clips with ffmpeg and libx264; on Debian: apt-get install ffmpeg")?;
    let entry = entry_points(&clip)?.into_iter().next().context("a clip has a keyframe")?;
    Ok((clip, entry))
}

/// A clip of a few frames.
pub(crate) fn short(width: u32, height: u32) -> ClipSpec {
    ClipSpec {
        width,
        height,
        duration: std::time::Duration::from_millis(200),
        audio: false,
        kbit_per_s: 8000,
        ..ClipSpec::default()
    }
}
