//! The driver on real sockets, with peers that write commands as they are told to.

use std::sync::Arc;

use bytes::BytesMut;
use framehook_domain::catalog::{Catalog, CatalogParts, Domain};
use framehook_domain::stream::StreamId;
use framehook_media::amf0::{self, Value};
use framehook_rtmp::Limits;
use framehook_rtmp::chunk::ChunkWriter;
use framehook_rtmp::message::MessageType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::pace::LEFT_ALONE_BYTES;
use super::*;
use crate::live::scene::{Scene, address, stream, until};

/// The tag of a decoder config whose SPS says 1280x720.
fn config() -> Vec<u8> {
    let sps = b"\x67\x42\xc0\x1f\xd9\x00\x50\x05\xbb\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x03\x20\xf1\x83\x24\x80";
    let mut tag = b"\x17\0\0\0\0\x01\x42\xc0\x0a\xff\xe1".to_vec();
    tag.extend((sps.len() as u16).to_be_bytes());
    tag.extend(sps);
    tag.extend(b"\x01\0\x02\x68\xeb");
    tag
}

/// A peer that is connected to a server of its own scene.
struct Peer {
    stream: TcpStream,
    ingest: Arc<RtmpIngest>,
    writer: ChunkWriter,
    /// What is sent with the next [`Peer::send`], in one segment.
    waiting: BytesMut,
}

impl Peer {
    /// A peer whose `connect` has been answered.
    async fn connected(scene: &Scene) -> Self {
        Self::left_alone_for(scene, Duration::from_millis(250)).await
    }

    /// The same, of a server that reads it at such intervals while nothing can be picked.
    async fn left_alone_for(scene: &Scene, read_interval: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        // What is sent is on its way at once, in a segment of its own.
        stream.set_nodelay(true).expect("set");
        let (accepted, peer) = listener.accept().await.expect("accepted");
        let ingest = RtmpIngest::new(
            Arc::clone(&scene.lives),
            Entropy::system(),
            RtmpSettings {
                limits: Limits::default(),
                handshake_timeout: crate::live::scene::PATIENCE,
                idle_timeout: crate::live::scene::PATIENCE,
                read_interval,
                connections_max: 10,
                connections_per_address_max: 10,
            },
        );
        scene.stage.spawn(Arc::clone(&ingest).serve(accepted, peer, None, CancellationToken::new()));
        stream.write_all(&[&[3][..], &[0; 2 * 1536]].concat()).await.expect("sent");
        stream.read_exact(&mut [0; 1 + 2 * 1536]).await.expect("shaken hands");
        let mut peer = Self { stream, ingest, writer: ChunkWriter::new(), waiting: BytesMut::new() };
        let properties = [("app", Value::string("live")), ("tcUrl", Value::string("rtmp://push.example.com/live"))];
        peer.say(0, "connect", &[Value::object(properties)]);
        peer.send().await;
        peer
    }

    fn say(&mut self, stream_id: u32, name: &str, arguments: &[Value]) {
        let mut body = BytesMut::new();
        amf0::write(&mut body, &Value::string(name));
        amf0::write(&mut body, &Value::Number(1.0));
        arguments.iter().for_each(|argument| amf0::write(&mut body, argument));
        self.writer.write(&mut self.waiting, 3, MessageType::CommandAmf0, 0, stream_id, &body);
    }

    fn publish(&mut self, name: &str) {
        self.say(1, "publish", &[Value::Null, Value::string(name), Value::string("live")]);
    }

    fn delete_stream(&mut self) {
        self.say(0, "deleteStream", &[Value::Null, Value::Number(1.0)]);
    }

    fn video(&mut self, tag: &[u8]) {
        self.writer.write(&mut self.waiting, 6, MessageType::Video, 0, 1, tag);
    }

    /// Everything said since the last time, in one segment as long as it fits.
    async fn send(&mut self) {
        let bytes = self.waiting.split();
        self.stream.write_all(&bytes).await.expect("sent");
    }
}

impl Peer {
    /// Reads replies until one holds `text`.
    async fn until_told(&mut self, text: &str) {
        let mut told = Vec::new();
        until(&format!("the reply {text}"), async || {
            self.stream.read_buf(&mut told).await.expect("a reply");
            told.windows(text.len()).any(|window| window == text.as_bytes())
        })
        .await;
    }
}

fn live(scene: &Scene) -> Vec<StreamId> {
    let mut live: Vec<StreamId> =
        scene.lives.pushes().iter().filter(|push| push.is_held()).map(|push| push.stream().clone()).collect();
    live.sort();
    live
}

async fn until_live(scene: &Scene, expected: &[&str]) {
    let expected: Vec<StreamId> = expected.iter().map(|name| stream(name)).collect();
    until(&format!("{expected:?} to be live"), async || live(scene) == expected).await;
}

#[tokio::test]
async fn a_publish_that_is_withdrawn_at_once_never_becomes_a_push() {
    let scene = Scene::new();
    let mut peer = Peer::connected(&scene).await;
    peer.publish("withdrawn");
    peer.delete_stream();
    peer.send().await;
    peer.until_told("NetStream.Unpublish.Success").await;
    peer.publish("meant");
    peer.send().await;
    // Rows of one connection are written in order, so one of the withdrawn publish would be there by then.
    until("a row", async || scene.open_rows().await.contains(&stream("meant"))).await;
    assert_eq!(scene.open_rows().await, [stream("meant")]);
    until_live(&scene, &["meant"]).await;
}

#[tokio::test]
async fn a_publish_withdrawn_for_another_in_one_segment_leaves_the_other() {
    let scene = Scene::new();
    let mut peer = Peer::connected(&scene).await;
    peer.publish("withdrawn");
    peer.delete_stream();
    peer.publish("meant");
    peer.send().await;
    until_live(&scene, &["meant"]).await;
    drop(peer);
    until("the push to be let go", async || live(&scene).is_empty()).await;
    assert_eq!(scene.open_rows().await, [stream("meant")], "it is in its grace");
}

#[tokio::test]
async fn what_comes_behind_the_end_of_a_publish_belongs_to_the_next() {
    let scene = Scene::new();
    let mut peer = Peer::connected(&scene).await;
    peer.publish("first");
    peer.send().await;
    until_live(&scene, &["first"]).await;
    let first = Arc::clone(&scene.lives.pushes()[0]);
    peer.delete_stream();
    peer.publish("second");
    peer.video(&config());
    peer.send().await;
    until_live(&scene, &["second"]).await;
    let width = |push: &crate::live::Push| push.snapshot(scene.lives.clock.mono()).facts.width;
    assert_eq!(width(&first), 0, "the first push was given the size of the second");
    let second = Arc::clone(&scene.lives.pushes()[0]);
    until("the size of the second push", async || width(&second) == 1280).await;
}

#[tokio::test]
async fn a_codec_that_is_told_before_the_publish_is_accepted_is_not_forgotten() {
    let scene = Scene::new();
    let mut peer = Peer::connected(&scene).await;
    peer.publish("hevc");
    // Enhanced RTMP: a keyframe's sequence start of hvc1.
    peer.video(b"\x90hvc1\x01\x01\x60\0\0\0");
    peer.send().await;
    until_live(&scene, &["hevc"]).await;
    let push = Arc::clone(&scene.lives.pushes()[0]);
    until("the codec to be known", async || push.snapshot(scene.lives.clock.mono()).facts.unsupported.is_some()).await;
}

#[tokio::test]
async fn a_session_that_panics_lets_go_of_its_push() {
    let scene = Scene::new();
    let hold = scene.lives.admit(&address("room"), [127, 0, 0, 1].into(), [127, 0, 0, 1].into()).await.expect("taken");
    assert_eq!(scene.lives.population(), (1, 0));
    drop(hold);
    assert_eq!(scene.lives.population(), (0, 1), "a push in its grace");
}

async fn until_read(stream: &mut TcpStream, bytes: usize) {
    let mut read = Vec::new();
    until("a reply", async || {
        stream.read_buf(&mut read).await.expect("a reply");
        read.len() >= bytes
    })
    .await;
}

/// A configuration without rules: nobody wants pictures.
fn without_rules(scene: &Scene) {
    let domain = Domain { name: stream("room").domain, enabled: true, auth: None };
    let parts = CatalogParts { domains: vec![domain], ..CatalogParts::default() };
    scene.catalog.send_replace(Arc::new(Catalog::build(1, parts).expect("a catalog")));
}

/// Longer than any test: only the socket itself can wake its reader.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_socket_of_which_nothing_can_be_picked_wakes_nobody_until_it_fills_up() {
    let scene = Scene::new();
    without_rules(&scene);
    let mut peer = Peer::left_alone_for(&scene, NEVER).await;
    peer.publish("room");
    peer.send().await;
    peer.until_told("NetStream.Publish.Start").await;
    let (bytes_before, reads_before) = scene.lives.telemetry.metrics.ingest();
    for _ in 0..300 {
        // No keyframe, in a segment of its own.
        peer.video(&[0x27; 1000]);
        peer.send().await;
    }
    let read = || scene.lives.telemetry.metrics.ingest();
    until("most of it to be read", async || read().0 - bytes_before > LEFT_ALONE_BYTES as u64 / 2).await;
    let reads = read().1 - reads_before;
    assert!(reads <= 2 * READS_PER_TURN as u64, "{reads} reads for 300 messages");
}

#[tokio::test]
async fn a_peer_that_waits_for_each_acknowledgement_gets_it_however_seldom_it_is_read() {
    const WINDOW_BYTES: u32 = 16 << 10;
    let scene = Scene::new();
    without_rules(&scene);
    let mut peer = Peer::left_alone_for(&scene, NEVER).await;
    peer.writer.write_control(&mut peer.waiting, MessageType::WindowAckSize, &WINDOW_BYTES.to_be_bytes());
    peer.publish("room");
    peer.send().await;
    let mut told = Vec::new();
    let object_end = b"\0\0\x09";
    until("the publish to be answered", async || {
        peer.stream.read_buf(&mut told).await.expect("a reply");
        String::from_utf8_lossy(&told).contains("NetStream.Publish.Start") && told.ends_with(object_end)
    })
    .await;
    for _ in 0..3 {
        peer.video(&[0x27; WINDOW_BYTES as usize]);
        peer.send().await;
        // A head of one byte at least and four bytes that say how much has come; nothing else is said to a publisher.
        until_read(&mut peer.stream, 5).await;
    }
}

#[tokio::test]
async fn a_keyframe_is_put_together_only_where_somebody_may_want_it() {
    let scene = Scene::new();
    scene.stage.spawn(Arc::clone(&scene.lives).watch_catalog(scene.stage.token()));
    let mut peer = Peer::connected(&scene).await;
    peer.publish("room");
    peer.video(&config());
    peer.send().await;
    peer.until_told("NetStream.Publish.Start").await;
    let half_a_keyframe = async |peer: &mut Peer| {
        peer.video(&[&b"\x17\x01\0\0\0"[..], &[0; 40_000]].concat());
        peer.stream.write_all(&peer.waiting.split_to(20_000)).await.expect("sent");
    };
    half_a_keyframe(&mut peer).await;
    until("the keyframe to be begun", async || peer.ingest.reassembly_bytes() >= 40_000).await;
    peer.send().await;
    until("it to be whole", async || peer.ingest.reassembly_bytes() == 0).await;

    without_rules(&scene);
    let push = Arc::clone(&scene.lives.pushes()[0]);
    until("nobody to want pictures", async || !push.wanted()).await;
    let (bytes_before, _) = scene.lives.telemetry.metrics.ingest();
    half_a_keyframe(&mut peer).await;
    until("half of it to be read", async || scene.lives.telemetry.metrics.ingest().0 - bytes_before >= 20_000).await;
    assert_eq!(peer.ingest.reassembly_bytes(), 0);
}

#[tokio::test]
async fn a_keyframe_that_has_begun_wakes_its_reader_with_its_end() {
    const PIECES: usize = 40;
    let scene = Scene::new();
    let mut peer = Peer::left_alone_for(&scene, NEVER).await;
    peer.publish("room");
    peer.video(&config());
    peer.send().await;
    peer.until_told("NetStream.Publish.Start").await;
    // The first picture is due at once, so its socket is read as bytes come.
    peer.video(&[&b"\x17\x01\0\0\0"[..], &[0; PIECES * 1000]].concat());
    peer.stream.write_all(&peer.waiting.split_to(1000)).await.expect("sent");
    until("the keyframe to be begun", async || peer.ingest.reassembly_bytes() > 0).await;
    let (bytes_before, reads_before) = scene.lives.telemetry.metrics.ingest();
    let rest = peer.waiting.split();
    for piece in rest.chunks(1000) {
        peer.stream.write_all(piece).await.expect("sent");
        // As often as its reader needs to be polled for a piece.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    let read = || scene.lives.telemetry.metrics.ingest();
    until("all of it to be read", async || read().0 - bytes_before == rest.len() as u64).await;
    // At its end, or where it would be if what came held no headers of chunks, and then at its end.
    let reads = read().1 - reads_before;
    assert!(reads <= 3, "{reads} reads for {PIECES} pieces");
}
