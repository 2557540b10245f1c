//! Peers that mean harm to the RTMP port. Each is cut off with a reason in the log, memory stays bounded, and the streams
//! beside them notice nothing: every due is taken, and the way from a keyframe to its callback takes no longer than
//! half as long again as it does in the same test without the peers.
#![expect(clippy::disallowed_methods, reason = "measures how long things take, and has peers that keep to times")]

mod common;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::{DOMAIN, PATIENCE, push_url, serve};
use framehook_rtmp::{Client, Publication};
use framehook_testkit::clip::{self, ClipSpec};
use framehook_testkit::dice::Dice;
use framehook_testkit::jpeg;
use framehook_testkit::publisher::{Publisher, PublisherSpec, PushUrl};
use framehook_testkit::receiver::{Receiver, Request};
use framehook_testkit::server::Server;
use framehook_testkit::wait;
use serde_json::Value;

/// Streams that are measured: one picture every 2 s each, spread over the interval.
const HEALTHY: usize = 10;
const INTERVAL: Duration = Duration::from_secs(2);

/// Pictures that a median is taken of: two of each healthy stream.
const SAMPLES: usize = 2 * HEALTHY;

/// How much longer the median may be with hostile peers about.
const SLOWDOWN_MAX: f64 = 1.5;

/// Clean and hostile measurements are taken in pairs, one after the other, and the median of their ratios counts. While it
/// is too large more are taken: other programs on the machine can only make a pair worse.
const PAIRS_MAX: usize = 9;

/// The fewest pairs for what any stranger would try first.
const PAIRS_OF_THE_USUAL: usize = 5;

/// The fewest for everything else, so that the suite does not take all day.
const PAIRS_OF_THE_REST: usize = 3;

/// What the server may need at its peak beyond what it needed without hostile peers. The largest legitimate demand of one
/// connection is 9 MiB for unfinished messages, and no case has more than four such peers at a time.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// Shorter than the defaults, so that a case in which time is what ends it does not last.
const SETTINGS: &str = "[ingest]\nhandshake_timeout = \"2s\"\nidle_timeout = \"2s\"\n";

/// Time-outs of the server, its farewell of 2 s, and room for a slow machine.
const CUT_PATIENCE: Duration = Duration::from_secs(10);

/// Measurements do not go well beside each other.
static ALONE: Mutex<()> = Mutex::new(());

/// A server with healthy streams on it.
struct Scene {
    _alone: MutexGuard<'static, ()>,
    receiver: Receiver,
    server: Server,
    publishers: Vec<Publisher>,
}

/// What hostile peers do, over and over until the measurement is done.
struct Peers {
    count: usize,
    /// Runs one peer from its first byte until it is cut off; an error says that it was not.
    act: fn(SocketAddr, &mut Dice) -> Result<()>,
    /// The time from the start of one peer to that of its successor, at the least.
    every: Duration,
    /// Reasons in the log, of which one must appear; none where the peers go by themselves.
    reasons: &'static [&'static str],
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    fn set() -> Result<Self> {
        let alone = alone();
        let receiver = Receiver::start()?;
        let server = serve(&receiver, 2, SETTINGS)?;
        let clip = ClipSpec {
            width: 320,
            height: 180,
            kbit_per_s: 300,
            duration: Duration::from_secs(4),
            gop: Duration::from_secs(1),
            ..ClipSpec::default()
        };
        let file = std::sync::Arc::new(clip.build()?.flv()?);
        let began = Instant::now();
        let mut publishers = Vec::with_capacity(HEALTHY);
        for number in 0..HEALTHY {
            let turn = INTERVAL.mul_f64(number as f64 / HEALTHY as f64);
            wait::until("its turn", PATIENCE, || (began.elapsed() >= turn).then_some(()))?;
            let url = push_url(&server, &format!("healthy_{number}")).parse()?;
            publishers.push(PublisherSpec::new(url, std::sync::Arc::clone(&file)).looped().start()?);
        }
        Ok(Self { _alone: alone, receiver, server, publishers })
    }

    /// The median time from a keyframe's last byte to its callback, over the next pictures.
    fn median_latency(&self) -> Result<Duration> {
        let since = Instant::now();
        let requests = self.receiver.wait_until("pictures to measure", PATIENCE, |requests| {
            let new = requests.iter().rev().take_while(|request| request.arrived >= since);
            let pictures: Vec<Request> = new.filter(|request| is_healthy_picture(request)).cloned().collect();
            (pictures.len() >= SAMPLES).then_some(pictures)
        })?;
        let mut latencies = requests.iter().map(|request| self.latency(request)).collect::<Result<Vec<_>>>()?;
        latencies.sort_unstable();
        Ok(latencies[latencies.len() / 2])
    }

    /// The picture shows the number of its frame, and the publisher knows when that frame left.
    fn latency(&self, request: &Request) -> Result<Duration> {
        let body = request.json()?;
        let text = |field: &str| body[field].as_str().with_context(|| format!("no {field} in {body}"));
        let number: usize = text("stream_id")?.trim_start_matches("healthy_").parse()?;
        let frame = clip::frame_number(&jpeg::decode(&self.server.fetch(text("pic_full_url")?)?)?);
        let frame = frame.context("no frame number can be read")?;
        let keyframes = self.publishers[number].log().keyframes;
        let sent = keyframes.iter().rev().filter(|keyframe| keyframe.picture_number == frame);
        let sent = sent.map(|keyframe| keyframe.sent).find(|sent| *sent <= request.arrived);
        Ok(request.arrived - sent.with_context(|| format!("frame {frame} of stream {number} was never sent"))?)
    }

    /// Lets the peers loose, and checks everything that this suite promises.
    fn withstands(&self, peers: &Peers, pairs_min: usize) -> Result<()> {
        let peak_before = peak_memory_bytes(&self.server)?;
        let mut pairs = Vec::new();
        while pairs.len() < pairs_min || slowdown(&pairs) > SLOWDOWN_MAX {
            ensure!(pairs.len() < PAIRS_MAX, "keyframe to callback, without and with hostile peers: {pairs:?}");
            let clean = self.median_latency()?;
            pairs.push((clean, self.beside(peers, || self.median_latency())?));
        }
        println!("keyframe to callback, median without and with hostile peers: {pairs:?}");
        self.is_unharmed(peers, peak_before)
    }

    /// Does something while the peers act; afterwards none is left.
    fn beside<T>(&self, peers: &Peers, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (target, done) = (self.server.rtmp_address(), AtomicBool::new(false));
        thread::scope(|scope| {
            let run = |seed| {
                let mut dice = Dice::new(seed);
                while !done.load(Ordering::Relaxed) {
                    let next = Instant::now() + peers.every;
                    (peers.act)(target, &mut dice)?;
                    let over = || (done.load(Ordering::Relaxed) || Instant::now() >= next).then_some(());
                    wait::until("the next peer's turn", PATIENCE, over)?;
                }
                Ok(())
            };
            let running: Vec<_> = (0..peers.count as u64).map(|seed| scope.spawn(move || run(seed))).collect();
            let worked = work();
            done.store(true, Ordering::Relaxed);
            let ended: Result<Vec<()>> =
                running.into_iter().map(|peer| peer.join().expect("a peer's thread does not panic")).collect();
            ended.and(worked)
        })
    }

    fn is_unharmed(&self, peers: &Peers, peak_before: u64) -> Result<()> {
        let streams = self.server.v1("GET", "/v1/streams", None)?;
        let streams = streams["streams"].as_array().context("no list of streams")?;
        let healthy: Vec<&Value> = streams.iter().filter(|stream| is_healthy(&stream["name"])).collect();
        ensure!(healthy.len() == HEALTHY, "{} healthy streams are left", healthy.len());
        for stream in healthy {
            let rule = &stream["rules"][0];
            let count = |name: &str| rule[name].as_u64().with_context(|| format!("no {name} in {rule}"));
            ensure!(count("due")? == count("taken")? + count("open")?, "{stream} has skipped dues");
            ensure!(stream["sessions"] == 1, "{stream} was interrupted");
        }
        wait::until("the hostile connections to be gone", CUT_PATIENCE, || {
            let connections = self.server.metrics().ok()?.sum("framehook_connections", &[]);
            (connections == HEALTHY as f64).then_some(())
        })?;
        let growth = peak_memory_bytes(&self.server)?.saturating_sub(peak_before);
        ensure!(growth <= GROWTH_BYTES_MAX, "the server's memory grew by {growth} bytes");
        let log = self.server.log();
        ensure!(!log.contains("panicked"), "the server panicked:\n{log}");
        let is_logged = |reason: &&str| log.contains(&format!("\"reason\":\"{reason}\""));
        let named = peers.reasons.is_empty() || peers.reasons.iter().any(is_logged);
        ensure!(named, "none of {:?} is in the log:\n{log}", peers.reasons);
        Ok(())
    }
}

/// The median over the pairs of how much longer the second took.
fn slowdown(pairs: &[(Duration, Duration)]) -> f64 {
    let mut ratios: Vec<f64> = pairs.iter().map(|(clean, hostile)| hostile.div_duration_f64(*clean)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn is_healthy(stream: &Value) -> bool {
    stream.as_str().is_some_and(|name| name.starts_with("healthy_"))
}

fn is_healthy_picture(request: &Request) -> bool {
    request.json().is_ok_and(|body| body["event_type"] == 200 && is_healthy(&body["stream_id"]))
}

/// The most memory that the server has had so far (`VmHWM` in `/proc/PID/status`, in KiB).
fn peak_memory_bytes(server: &Server) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// A connection whose reads and writes cannot hang.
fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(CUT_PATIENCE))?;
    stream.set_write_timeout(Some(CUT_PATIENCE))?;
    Ok(stream)
}

/// A connection behind its handshake.
fn shaken(target: SocketAddr) -> Result<TcpStream> {
    let mut stream = connect(target)?;
    stream.write_all(&[&[3][..], &[0; 1536]].concat())?;
    stream.read_exact(&mut [0; 1 + 2 * 1536])?;
    stream.write_all(&[0; 1536])?;
    Ok(stream)
}

/// A connection that publishes, with a decoder config sent: from here on keyframes are gathered.
fn publishing(target: SocketAddr, dice: &mut Dice) -> Result<TcpStream> {
    // A name of its own each time, since a name that is fought over is closed to newcomers for a while.
    let stream_name = format!("hostile_{:x}?domain={DOMAIN}", dice.draw());
    let url: PushUrl = format!("rtmp://{target}/live/{stream_name}").parse()?;
    let publication = Publication {
        tc_url: url.tc_url(),
        app: url.app.clone(),
        stream: url.stream.clone(),
        flash_ver: String::new(),
        chunk_size: 128,
    };
    let mut client = Client::new(publication, &[7; 1528]);
    let mut stream = connect(target)?;
    while !client.is_publishing() {
        stream.write_all(client.output())?;
        client.consume_output(client.output().len());
        let mut block = [0; 4096];
        let length = stream.read(&mut block)?;
        ensure!(length > 0, "the publish was not accepted");
        client.push(&block[..length], |_| {})?;
    }
    client.write_video(0, b"\x17\0\0\0\0\x01\x64\0\x0a\xff\xe1\0\x02\x67\x64\x01\0\x02\x68\xeb");
    stream.write_all(client.output())?;
    Ok(stream)
}

/// Reads until the server ends the connection.
fn until_cut(mut stream: &TcpStream) -> Result<()> {
    let deadline = Instant::now() + CUT_PATIENCE;
    let mut block = [0; 4096];
    while Instant::now() < deadline {
        match stream.read(&mut block) {
            Ok(1..) => {}
            Ok(0) => return Ok(()),
            Err(error) if is_reset(&error) => return Ok(()),
            Err(error) => return Err(error).context("it was not cut off"),
        }
    }
    bail!("it was not cut off within {CUT_PATIENCE:?}")
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}

/// Sends what may already find the connection cut off.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    match stream.write_all(bytes) {
        Err(error) if !is_reset(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The header of a chunk of type 0 on a chunk stream of the one-byte form.
fn announce(chunk_stream_id: u8, message_type: u8, length: u32) -> Vec<u8> {
    let [_, l0, l1, l2] = length.to_be_bytes();
    vec![chunk_stream_id, 0, 0, 0, l0, l1, l2, message_type, 1, 0, 0, 0]
}

const USER_CONTROL: u8 = 4;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const COMMAND: u8 = 20;

fn announces_16_mb(target: SocketAddr, dice: &mut Dice) -> Result<()> {
    for message_type in [VIDEO, COMMAND] {
        let stream = shaken(target)?;
        send(&stream, &announce(5, message_type, 0x00ff_ffff))?;
        until_cut(&stream)?;
    }
    let stream = publishing(target, dice)?;
    send(&stream, &announce(5, VIDEO, 0x00ff_ffff))?;
    until_cut(&stream)
}

/// One byte of the handshake per second.
fn trickles(target: SocketAddr, _: &mut Dice) -> Result<()> {
    let stream = connect(target)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let deadline = Instant::now() + CUT_PATIENCE;
    send(&stream, &[3])?;
    loop {
        match (&stream).read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Err(error) if is_reset(&error) => return Ok(()),
            _ => {}
        }
        ensure!(Instant::now() < deadline, "it was not cut off");
        send(&stream, &[0])?;
    }
}

fn never_completes_its_handshake(target: SocketAddr, _: &mut Dice) -> Result<()> {
    let stream = connect(target)?;
    send(&stream, &[&[3][..], &[0; 1000]].concat())?;
    until_cut(&stream)
}

/// A thousand connections in four seconds, as long as a measurement takes.
fn comes_and_goes(target: SocketAddr, _: &mut Dice) -> Result<()> {
    for _ in 0..100 {
        let next = Instant::now() + Duration::from_millis(40);
        for _ in 0..10 {
            connect(target)?;
        }
        wait::until("the next ten", PATIENCE, || (Instant::now() >= next).then_some(()))?;
    }
    Ok(())
}

fn floods_chunk_streams(target: SocketAddr, _: &mut Dice) -> Result<()> {
    let stream = shaken(target)?;
    let mut chunks = Vec::new();
    for low in 0..=255 {
        // The two-byte form: chunk streams 64 to 319.
        chunks.extend_from_slice(&[0, low]);
        chunks.extend_from_slice(&announce(0, AUDIO, 1000)[1..]);
        chunks.extend_from_slice(&[0; 128]);
    }
    send(&stream, &chunks)?;
    until_cut(&stream)
}

fn sends_garbage(target: SocketAddr, dice: &mut Dice) -> Result<()> {
    let mut garbage: Vec<u8> = (0..8192).flat_map(|_| dice.draw().to_le_bytes()).collect();
    garbage[0] = 0x7e; // 3 would be a version.
    let stream = connect(target)?;
    send(&stream, &garbage)?;
    until_cut(&stream)?;
    let stream = shaken(target)?;
    send(&stream, &garbage)?;
    until_cut(&stream)
}

/// Keyframes that are begun, one beside the other, and never ended.
fn begins_messages_without_end(target: SocketAddr, dice: &mut Dice) -> Result<()> {
    let stream = publishing(target, dice)?;
    for chunk_stream_id in 10..20 {
        let mut chunk = announce(chunk_stream_id, VIDEO, 1 << 20);
        chunk.extend_from_slice(b"\x17\x01\0\0\0");
        chunk.resize(12 + 128, 0);
        send(&stream, &chunk)?;
    }
    until_cut(&stream)
}

/// One keyframe of 8 MiB, a chunk every 100 ms: it would take two hours.
fn sends_one_message_for_ever(target: SocketAddr, dice: &mut Dice) -> Result<()> {
    let stream = publishing(target, dice)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let deadline = Instant::now() + CUT_PATIENCE;
    let mut chunk = announce(10, VIDEO, 8 << 20);
    chunk.extend_from_slice(b"\x17\x01\0\0\0");
    chunk.resize(12 + 128, 0);
    loop {
        send(&stream, &chunk)?;
        match (&stream).read(&mut [0; 4096]) {
            Ok(0) => return Ok(()),
            Err(error) if is_reset(&error) => return Ok(()),
            _ => {}
        }
        ensure!(Instant::now() < deadline, "it was not cut off");
        chunk = [&[0xca][..], &[0; 128]].concat();
    }
}

/// Pings, and never reads an answer.
fn reads_nothing(target: SocketAddr, _: &mut Dice) -> Result<()> {
    let mut stream = shaken(target)?;
    let mut ping = announce(2, USER_CONTROL, 6);
    ping.extend_from_slice(&[0, 6, 1, 2, 3, 4]);
    let pings = ping.repeat(100);
    let deadline = Instant::now() + CUT_PATIENCE;
    while Instant::now() < deadline {
        match stream.write_all(&pings) {
            Ok(()) => {}
            Err(error) if is_reset(&error) => return Ok(()),
            Err(error) => return Err(error).context("it was not cut off"),
        }
    }
    bail!("it was not cut off within {CUT_PATIENCE:?}")
}

fn publishes_and_falls_silent(target: SocketAddr, dice: &mut Dice) -> Result<()> {
    until_cut(&publishing(target, dice)?)
}

fn says_nothing(target: SocketAddr, _: &mut Dice) -> Result<()> {
    until_cut(&connect(target)?)
}

/// Sound, as fast as it goes and without ever asking to publish.
fn floods_before_it_publishes(target: SocketAddr, _: &mut Dice) -> Result<()> {
    let mut stream = shaken(target)?;
    let mut sound = announce(4, AUDIO, 128);
    sound.resize(12 + 128, 0);
    let sound = sound.repeat(1000);
    let deadline = Instant::now() + CUT_PATIENCE;
    while Instant::now() < deadline {
        match stream.write_all(&sound) {
            Ok(()) => {}
            Err(error) if is_reset(&error) => return Ok(()),
            Err(error) => return Err(error).context("it was not cut off"),
        }
    }
    bail!("it was not cut off within {CUT_PATIENCE:?}")
}

const OFTEN: Duration = Duration::from_millis(50);

fn withstands_the_usual(peers: Peers) {
    Scene::set().unwrap().withstands(&peers, PAIRS_OF_THE_USUAL).unwrap();
}

fn withstands(peers: Peers) {
    Scene::set().unwrap().withstands(&peers, PAIRS_OF_THE_REST).unwrap();
}

#[test]
fn a_message_of_16_mb_is_refused_when_it_is_announced() {
    let reasons = &["media_message_bytes", "command_message_bytes"];
    withstands_the_usual(Peers { count: 2, act: announces_16_mb, every: OFTEN, reasons });
}

#[test]
fn a_byte_per_second_is_cut_off() {
    withstands_the_usual(Peers { count: 20, act: trickles, every: OFTEN, reasons: &["handshake_timeout"] });
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    withstands_the_usual(Peers {
        count: 20,
        act: never_completes_its_handshake,
        every: OFTEN,
        reasons: &["handshake_timeout"],
    });
}

#[test]
fn a_thousand_connections_that_close_at_once_cost_nothing() {
    withstands(Peers { count: 1, act: comes_and_goes, every: Duration::ZERO, reasons: &[] });
}

#[test]
fn a_flood_of_chunk_streams_is_cut_off() {
    withstands_the_usual(Peers { count: 2, act: floods_chunk_streams, every: OFTEN, reasons: &["chunk_streams"] });
}

#[test]
fn garbage_is_cut_off() {
    withstands(Peers { count: 2, act: sends_garbage, every: OFTEN, reasons: &["handshake"] });
}

#[test]
fn messages_that_never_end_are_cut_off() {
    let every = Duration::from_millis(200);
    withstands(Peers { count: 2, act: begins_messages_without_end, every, reasons: &["partial_messages"] });
}

#[test]
fn one_message_for_ever_is_cut_off() {
    withstands(Peers { count: 4, act: sends_one_message_for_ever, every: OFTEN, reasons: &["silent"] });
}

#[test]
fn a_publisher_that_falls_silent_is_cut_off() {
    withstands(Peers { count: 10, act: publishes_and_falls_silent, every: OFTEN, reasons: &["silent"] });
}

#[test]
fn three_hundred_connections_that_say_nothing_are_cut_off() {
    withstands(Peers { count: 300, act: says_nothing, every: OFTEN, reasons: &["handshake_timeout"] });
}

/// As fast as they can, more of them than there are cores: what they leave of the machine is not the server's to decide,
/// so latency is not compared. They must be cut off all the same, and every due be taken.
fn outlasts(act: fn(SocketAddr, &mut Dice) -> Result<()>, reasons: &'static [&'static str]) {
    let scene = Scene::set().unwrap();
    let peers = Peers { count: 4, act, every: OFTEN, reasons };
    let peak_before = peak_memory_bytes(&scene.server).unwrap();
    let median = scene.beside(&peers, || scene.median_latency()).unwrap();
    println!("keyframe to callback, median with the flood: {median:?}");
    scene.is_unharmed(&peers, peak_before).unwrap();
}

#[test]
fn a_peer_that_reads_nothing_is_cut_off() {
    outlasts(reads_nothing, &["output_bytes", "handshake_timeout"]);
}

#[test]
fn a_flood_before_the_publish_is_cut_off() {
    outlasts(floods_before_it_publishes, &["handshake_timeout"]);
}
