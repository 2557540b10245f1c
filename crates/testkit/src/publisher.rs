//! An RTMP publisher of our own, for what real encoders cannot be told to do: end in a given way at a given moment, fall
//! silent, and say exactly when each keyframe left. A [`Fleet`] is thousands of them, all of which do the same: load.
//!
//! It shares chunks and commands with the server under test, so it is no witness for the protocol; [`crate::encoder`] is.

mod connection;
mod fleet;
mod timeline;
mod url;
mod wire;

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::flv::FlvFile;
use crate::listener::lock;
use crate::wait;

use self::connection::{Connection, Order};
pub use self::fleet::{Fleet, Outcome};
use self::timeline::Step;
pub use self::url::PushUrl;

/// From how far behind its time on a message counts as late. A player that is a few pictures ahead does not notice less;
/// what one busy moment of the machine costs stays below.
pub const LATE: Duration = Duration::from_millis(100);

/// Stack of a publisher's thread. It holds no buffers; a thousand publishers fit in one process.
const STACK_BYTES: usize = 256 << 10;

/// What to publish, and how. `PublisherSpec::new` publishes a file once, at its own speed.
#[derive(Clone, Debug)]
pub struct PublisherSpec {
    pub url: PushUrl,
    pub file: Arc<FlvFile>,
    /// Media seconds per second.
    pub speed: f64,
    /// Start over at the end, on one continuous timeline, until told to stop. Otherwise the push ends in order.
    pub looped: bool,
    /// Outgoing RTMP chunk size in bytes.
    pub chunk_bytes: u32,
    /// The longest that connecting and being accepted may take.
    pub patience: Duration,
}

impl PublisherSpec {
    pub fn new(url: PushUrl, file: impl Into<Arc<FlvFile>>) -> Self {
        let patience = Duration::from_secs(15);
        Self { url, file: file.into(), speed: 1.0, looped: false, chunk_bytes: 4096, patience }
    }

    /// Publishes over and over until told to stop.
    #[must_use]
    pub fn looped(self) -> Self {
        Self { looped: true, ..self }
    }

    /// Connects and waits until the server accepts.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn start(self) -> Result<Publisher, PublishError> {
        let connection = Connection::open(&self)?;
        let log = Arc::new(Mutex::new(Log::default()));
        let (orders, inbox) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("publisher".into())
            .stack_size(STACK_BYTES)
            .spawn({
                let log = Arc::clone(&log);
                move || {
                    let end = connection.publish(&self, &inbox, &log);
                    lock(&log).end = Some(end);
                }
            })
            .map_err(PublishError::Io)?;
        Ok(Publisher { orders, log, thread: Some(thread) })
    }
}

/// Why nothing is being published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("the server refused with {code}: {description}")]
    Refused { code: String, description: String },
    #[error("the server closed the connection before it had answered")]
    Closed,
    #[error("the server had not accepted within {0:?}")]
    Unanswered(Duration),
    #[error("the server does not speak RTMP")]
    Protocol(#[from] framehook_rtmp::Error),
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// How a push ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: at the end of the file, or by [`Publisher::stop`].
    Unpublished,
    /// By [`Publisher::close`] or [`Publisher::reset`].
    BrokenOff,
    /// The server said so.
    Refused { code: String, description: String },
    /// The server closed the connection; the text says how.
    Closed(String),
}

impl From<PublishError> for End {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Refused { code, description } => Self::Refused { code, description },
            PublishError::Closed => Self::Closed("the server closed the connection".to_owned()),
            other => Self::Closed(format!("{:#}", anyhow::Error::from(other))),
        }
    }
}

/// A keyframe that has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyframeSent {
    /// Its number in display order within the file, which clips of [`crate::clip`] show.
    pub picture_number: u32,
    /// Its decode time in ms as sent, going on over loops.
    pub dts_ms: u32,
    pub bytes: usize,
    /// When the kernel had taken its last byte.
    pub sent: Instant,
    pub sent_wall: SystemTime,
}

/// What a publisher has done so far.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub keyframes: Vec<KeyframeSent>,
    /// Bytes of media, without the protocol's own.
    pub media_bytes: u64,
    /// Tags of the file, each of which is one message.
    pub messages: u64,
    /// Messages that were handed over more than [`LATE`] after their time.
    pub messages_late: u64,
    /// How far the latest message of all was behind its time.
    pub late_max: Duration,
    /// How the push ended; `None` while it goes on.
    pub end: Option<End>,
}

impl Log {
    /// Writes down that the kernel has taken all of a tag.
    fn note(&mut self, step: Step<'_>) {
        let (sent, bytes) = (Instant::now(), step.tag.data.len());
        let late = sent.saturating_duration_since(step.due);
        self.messages += 1;
        self.messages_late += u64::from(late > LATE);
        self.late_max = self.late_max.max(late);
        self.media_bytes += bytes as u64;
        if let Some(picture_number) = step.keyframe {
            let sent_wall = SystemTime::now();
            self.keyframes.push(KeyframeSent { picture_number, dts_ms: step.dts_ms, bytes, sent, sent_wall });
        }
    }
}

/// A push under way. Broken off when dropped.
#[derive(Debug)]
pub struct Publisher {
    orders: Sender<Order>,
    log: Arc<Mutex<Log>>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Falls silent and keeps the connection open. Time goes on: after [`Publisher::resume`] everything that has become
    /// due is sent at once, as after a stalled line.
    pub fn stall(&self) {
        self.order(Order::Stall);
    }

    pub fn resume(&self) {
        self.order(Order::Resume);
    }

    /// Ends the push in order (FCUnpublish, deleteStream) and gives the log.
    pub fn stop(mut self) -> Log {
        self.finish(Order::Unpublish)
    }

    /// Closes the connection in the middle of the push, as an encoder that is killed.
    pub fn close(mut self) -> Log {
        self.finish(Order::Close)
    }

    /// Resets the connection in the middle of the push, as a line that breaks.
    pub fn reset(mut self) -> Log {
        self.finish(Order::Reset)
    }

    /// What has been done so far.
    pub fn log(&self) -> Log {
        lock(&self.log).clone()
    }

    /// Waits until the push ends by itself or by the server's doing.
    ///
    /// # Errors
    /// When it still goes on after `patience`.
    pub fn wait_for_end(&self, patience: Duration) -> anyhow::Result<End> {
        wait::until("the end of a push", patience, || lock(&self.log).end.clone())
    }

    /// Waits until at least `count` keyframes have left; gives all that have.
    ///
    /// # Errors
    /// When fewer have within `patience`.
    pub fn wait_for_keyframes(&self, count: usize, patience: Duration) -> anyhow::Result<Vec<KeyframeSent>> {
        wait::until(&format!("{count} keyframes to leave"), patience, || {
            let log = lock(&self.log);
            (log.keyframes.len() >= count).then(|| log.keyframes.clone())
        })
    }

    fn order(&self, order: Order) {
        // Fails only when the push has already ended, and then there is nothing to do.
        let _ = self.orders.send(order);
    }

    fn finish(&mut self, order: Order) -> Log {
        self.order(order);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.log()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.finish(Order::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::clip::ClipSpec;
    use crate::process::Process;
    use std::io;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::process::Command;

    use bytes::Bytes;

    pub(super) const PATIENCE: Duration = Duration::from_secs(20);

    pub(super) fn file() -> FlvFile {
        let spec = ClipSpec {
            width: 320,
            height: 180,
            duration: Duration::from_secs(2),
            gop: Duration::from_millis(500),
            kbit_per_s: 500,
            ..ClipSpec::default()
        };
        spec.build().unwrap().flv().unwrap()
    }

    /// ffmpeg as a server for one push, and the file it records to.
    pub(super) struct Recorder {
        pub(super) process: Process,
        pub(super) url: PushUrl,
        pub(super) recorded: tempfile::NamedTempFile,
    }

    pub(super) fn recorder() -> Recorder {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url: PushUrl = format!("rtmp://127.0.0.1:{port}/live/stream").parse().unwrap();
        let recorded = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-listen", "1", "-i", &url.to_string()]);
        command.args(["-c", "copy", "-copyts", "-f", "flv"]).arg(recorded.path());
        Recorder { process: Process::spawn("recording ffmpeg", &mut command).unwrap(), url, recorded }
    }

    fn start(spec: &PublisherSpec) -> Publisher {
        // The recorder may not listen yet.
        wait::until("the recorder", PATIENCE, || spec.clone().start().ok()).unwrap()
    }

    /// Pictures, each as decode time and bytes.
    pub(super) fn pictures(file: &FlvFile) -> Vec<(u32, Bytes)> {
        let numbers = file.picture_numbers();
        file.tags
            .iter()
            .zip(numbers)
            .filter(|(_, number)| number.is_some())
            .map(|(tag, _)| (tag.dts_ms, tag.data.clone()))
            .collect()
    }

    #[test]
    fn another_server_receives_every_picture_at_its_time() {
        for chunk_bytes in [128, 65_536] {
            let mut recorder = recorder();
            let file = file();
            let sent = pictures(&file);
            let publisher = start(&PublisherSpec { chunk_bytes, speed: 4.0, ..PublisherSpec::new(recorder.url, file) });
            assert_eq!(publisher.wait_for_end(PATIENCE).unwrap(), End::Unpublished);
            recorder.process.wait(PATIENCE).unwrap();
            let recorded = pictures(&FlvFile::open(recorder.recorded.path()).unwrap());
            assert!(recorded == sent, "chunks of {chunk_bytes}");
        }
    }

    #[test]
    fn a_loop_goes_on_in_time_and_starts_over_in_numbers() {
        let recorder = recorder();
        let publisher = start(&PublisherSpec { speed: 4.0, ..PublisherSpec::new(recorder.url, file()).looped() });
        publisher.wait_for_keyframes(6, PATIENCE).unwrap();
        let log = publisher.stop();
        assert_eq!(log.end, Some(End::Unpublished));
        let facts: Vec<_> = log.keyframes.iter().take(6).map(|key| (key.picture_number, key.dts_ms)).collect();
        assert_eq!(facts.iter().map(|fact| fact.0).collect::<Vec<_>>(), [0, 15, 30, 45, 0, 15]);
        assert!(facts.windows(2).all(|pair| (499..=501).contains(&(pair[1].1 - pair[0].1))), "{facts:?}");
        // Paced by its timestamps: five steps of 500 ms at four times the speed.
        assert!(log.keyframes[5].sent - log.keyframes[0].sent >= Duration::from_millis(600));
    }

    #[test]
    fn a_stalled_push_sends_nothing_and_catches_up() {
        let recorder = recorder();
        let publisher = start(&PublisherSpec::new(recorder.url, file()).looped());
        publisher.wait_for_keyframes(1, PATIENCE).unwrap();
        publisher.stall();
        let started = Instant::now();
        let before = wait::until("silence", PATIENCE, || {
            let before = publisher.log().media_bytes;
            let silent_until = Instant::now() + Duration::from_millis(700);
            wait::until("700 ms", PATIENCE, || (Instant::now() >= silent_until).then_some(())).unwrap();
            (publisher.log().media_bytes == before).then_some(publisher.log().keyframes.len())
        });
        publisher.resume();
        let keyframes = publisher.wait_for_keyframes(before.unwrap() + 1, PATIENCE).unwrap();
        let caught_up = keyframes.last().unwrap();
        assert!(caught_up.sent > started + Duration::from_millis(700));
        assert!(publisher.log().late_max >= Duration::from_millis(200));
    }

    #[test]
    fn a_server_that_hangs_up_ends_the_push() {
        let mut recorder = recorder();
        let publisher = start(&PublisherSpec::new(recorder.url, file()).looped());
        publisher.wait_for_keyframes(1, PATIENCE).unwrap();
        recorder.process.kill9().unwrap();
        assert!(matches!(publisher.wait_for_end(PATIENCE).unwrap(), End::Closed(_)));
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("rtmp://{}/live/stream", silent.local_addr().unwrap()).parse().unwrap();
        let spec = PublisherSpec { patience: Duration::from_millis(100), ..PublisherSpec::new(url, file()) };
        assert!(matches!(spec.start(), Err(PublishError::Unanswered(_))));
    }

    /// Passes one connection on to `upstream` and says how its client ended.
    pub(super) fn relay(upstream: &PushUrl) -> (PushUrl, mpsc::Receiver<io::Result<u64>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = PushUrl { host: listener.local_addr().unwrap().to_string(), ..upstream.clone() };
        let upstream = upstream.address().unwrap();
        let (ends, end) = mpsc::channel();
        thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = wait::until("the recorder", PATIENCE, || TcpStream::connect(upstream).ok()).unwrap();
            let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut answers, &mut to_client));
            let ended = io::copy(&mut &client, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
            ends.send(ended).unwrap();
        });
        (url, end)
    }

    #[test]
    fn breaks_off_with_an_end_or_a_reset() {
        let break_off = |how: fn(Publisher) -> Log| {
            let recorder = recorder();
            let (url, end) = relay(&recorder.url);
            let publisher = PublisherSpec::new(url, file()).looped().start().unwrap();
            publisher.wait_for_keyframes(1, PATIENCE).unwrap();
            assert_eq!(how(publisher).end, Some(End::BrokenOff));
            end.recv_timeout(PATIENCE).unwrap()
        };
        assert!(break_off(Publisher::close).is_ok());
        assert_eq!(break_off(Publisher::reset).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
