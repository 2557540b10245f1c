//! Drives RTMP sessions: sockets and time-outs here, the protocol in `framehook_rtmp`.
//!
//! What a socket has is read into one scratch buffer per thread and pushed into the session, so a connection owns no
//! buffer of its own but the keyframe that is being assembled. Nothing in here waits for anything behind pick.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::refusal::{CutReason, PushEnd, Refusal};
use framehook_domain::stream::PublishAddress;
use framehook_domain::time::Mono;
use framehook_media::DecoderConfig;
use framehook_media::avcc::Avcc;
use framehook_media::h264::Sps;
use framehook_rtmp::command::status;
use framehook_rtmp::handshake::RANDOM_BYTES;
use framehook_rtmp::{
    Bound, Error as RtmpError, Event, Limits, MediaKind, Phase, PublishRequest, Session, StreamMetadata, UnpublishedBy,
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::entropy::Entropy;
use crate::live::{Hold, Lives, SessionEnd};
use crate::telemetry::event::{PublishRefused, SessionBegan, SessionEnded};

/// One read. Large enough that a keyframe of a 2.5 Mbit/s stream (some 130 KB) needs one system call, small enough to stay
/// in a core's cache.
const SCRATCH_BYTES: usize = 256 << 10;

/// Reads from one socket before others get their turn: a publisher on loopback could otherwise hold a thread for as long
/// as it can send.
const READS_PER_TURN: usize = 4;

/// Bytes after which a connection lets others have its thread. A socket that always has more would otherwise never make
/// its task wait: as many such peers as there are threads would stop every timer, their own time-outs included. At
/// 2.5 Mbit/s it is once a second.
const YIELD_AFTER_BYTES: usize = SCRATCH_BYTES;

/// How long the peer of an ended session may take to read its last status. Closing at once would reset the connection
/// while its media is still unread here, and the encoder would show a reset instead of the reason.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// What the sessions share.
pub(crate) struct RtmpIngest {
    lives: Arc<Lives>,
    entropy: Entropy,
    settings: RtmpSettings,
    connections: Mutex<Connections>,
}

/// The part of the configuration that sessions need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RtmpSettings {
    pub(crate) limits: Limits,
    /// From accept to an accepted publish.
    pub(crate) handshake_timeout: Duration,
    /// Without a whole message from a publisher.
    pub(crate) idle_timeout: Duration,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
}

#[derive(Debug, Default)]
struct Connections {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl RtmpIngest {
    pub(crate) fn new(lives: Arc<Lives>, entropy: Entropy, settings: RtmpSettings) -> Arc<Self> {
        Arc::new(Self { lives, entropy, settings, connections: Mutex::default() })
    }

    /// Connections open now, publishing or not.
    pub(crate) fn connections(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Serves one connection from its first byte to its last.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let Some(_place) = self.take_place(peer.ip()) else {
            tracing::warn!(%peer, "connection refused: too many connections");
            return;
        };
        // Replies are few and small, and an encoder waits for each of them before it sends its first frame.
        let _ = stream.set_nodelay(true);
        let mut random = [0; RANDOM_BYTES];
        for part in random.chunks_mut(RANDOM_BYTES / 4) {
            part.copy_from_slice(&self.entropy.draw::<{ RANDOM_BYTES / 4 }>());
        }
        let session = Session::new(self.settings.limits, &random);
        let began = self.lives.clock.mono();
        let connection = Connection {
            ingest: &self,
            stream,
            session,
            publisher: Publisher { lives: &self.lives, peer, hold: None, early: Early::default(), heard: began },
            waiting_since: began,
        };
        connection.run(stop).await;
    }

    fn take_place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let from_address = connections.by_address.get(&address).copied().unwrap_or_default();
        if connections.all >= self.settings.connections_max || from_address >= self.settings.connections_per_address_max
        {
            return None;
        }
        connections.all += 1;
        connections.by_address.insert(address, from_address + 1);
        Some(Place { ingest: Arc::clone(self), address })
    }
}

/// A connection's place among those that are allowed; given back on drop.
struct Place {
    ingest: Arc<RtmpIngest>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.ingest.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.all -= 1;
        if let Some(from_address) = connections.by_address.get_mut(&self.address) {
            *from_address -= 1;
            if *from_address == 0 {
                connections.by_address.remove(&self.address);
            }
        }
    }
}

/// One connection: its socket and its protocol.
struct Connection<'a> {
    ingest: &'a RtmpIngest,
    stream: TcpStream,
    session: Session,
    publisher: Publisher<'a>,
    /// Since when a publish is waited for: the accept, or the end of the publish before.
    waiting_since: Mono,
}

/// Why a connection ends.
enum End {
    /// The peer closed, in the middle of whatever it was doing.
    Closed,
    Failed(io::Error),
    Protocol(RtmpError),
    /// The session has put the reason into its output.
    Refused,
    Cut(CutReason),
    /// No publish was asked for, or none was accepted, in time.
    HandshakeTimedOut,
    /// A publisher that sends no whole message any more.
    Silent,
    ServerStops,
}

/// What one turn of reading brought.
#[derive(Default)]
struct Turn {
    asked: Option<Box<PublishRequest>>,
    unpublished: Option<UnpublishedBy>,
    bytes: usize,
}

impl Connection<'_> {
    async fn run(mut self, stop: CancellationToken) {
        let end = self.drive(stop).await;
        let push_end = end.push_end();
        match &end {
            End::Closed | End::Failed(_) | End::ServerStops | End::Refused => {}
            End::Cut(reason) => self.session.cut(status::PUBLISH_BAD_NAME, &reason.to_string()),
            End::HandshakeTimedOut => self.session.cut(status::FAILED, "no publish within the handshake time-out"),
            End::Silent => self.session.cut(status::FAILED, "no data for a long time"),
            End::Protocol(_) => {} // The session has put its own last words into its output.
        }
        match &end {
            End::Protocol(error) => {
                let phase = self.session.phase();
                tracing::info!(peer = %self.publisher.peer, ?phase, reason = error.label(), %error, "connection cut off");
            }
            End::HandshakeTimedOut => {
                tracing::info!(peer = %self.publisher.peer, reason = "handshake_timeout", "connection cut off");
            }
            End::Failed(error) if self.publisher.hold.is_none() => {
                tracing::debug!(peer = %self.publisher.peer, %error, "connection lost");
            }
            _ => {}
        }
        let bytes = self.session.received_bytes();
        self.publisher.leave(push_end, bytes);
        if !matches!(end, End::Closed | End::Failed(_)) {
            self.farewell().await;
        }
    }

    async fn drive(&mut self, stop: CancellationToken) -> End {
        let timer = tokio::time::sleep_until(self.ingest.lives.clock.instant(self.deadline()));
        tokio::pin!(timer);
        let mut unyielded_bytes = 0;
        loop {
            if let Err(error) = self.flush().await {
                return End::Failed(error);
            }
            tokio::select! {
                () = stop.cancelled() => return End::ServerStops,
                reason = self.publisher.was_cut() => return End::Cut(reason),
                // The timer is set again only when it fires: a deadline that has moved meanwhile costs nothing.
                () = &mut timer => match self.timed_out() {
                    Some(end) => return end,
                    None => timer.as_mut().reset(self.ingest.lives.clock.instant(self.deadline())),
                },
                ready = self.stream.readable() => {
                    if let Err(error) = ready {
                        return End::Failed(error);
                    }
                    let turn = match self.read() {
                        Ok(turn) => turn,
                        Err(end) => return end,
                    };
                    if let Some(by) = turn.unpublished {
                        self.publisher.leave(SessionEnd::Orderly(unpublished(by)), self.session.received_bytes());
                        self.waiting_since = self.ingest.lives.clock.mono();
                    }
                    if let Some(request) = turn.asked
                        && let Err(refusal) = self.decide(&request).await
                    {
                        self.session.refuse_publish(status::PUBLISH_DENIED, &refusal.to_string());
                        return End::Refused;
                    }
                    timer.as_mut().reset(self.ingest.lives.clock.instant(self.deadline()));
                    unyielded_bytes += turn.bytes;
                    if unyielded_bytes >= YIELD_AFTER_BYTES {
                        unyielded_bytes = 0;
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    /// Reads what the socket has, up to a turn's worth, and tells the publisher what it means.
    fn read(&mut self) -> Result<Turn, End> {
        let mut turn = Turn::default();
        for _ in 0..READS_PER_TURN {
            // Asked anew each time: a rule may have come or gone since.
            self.session.set_keep_entry_points(self.publisher.wanted());
            let (stream, session, publisher) = (&self.stream, &mut self.session, &mut self.publisher);
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let count = stream.try_read(scratch)?;
                let parsed = session.push(&scratch[..count], |event| publisher.hear(event, &mut turn));
                Ok::<_, io::Error>((count, parsed))
            });
            match read {
                Ok((0, _)) => return Err(End::Closed),
                Ok((count, parsed)) => {
                    turn.bytes += count;
                    self.publisher.lives.metrics.ingested(count);
                    parsed.map_err(End::Protocol)?;
                    if count < SCRATCH_BYTES || turn.asked.is_some() || turn.unpublished.is_some() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(End::Failed(error)),
            }
        }
        Ok(turn)
    }

    /// Answers a publish.
    async fn decide(&mut self, request: &PublishRequest) -> Result<(), Refusal> {
        let tried = || {
            format!(
                "{} {} {}",
                without_query(&request.tc_url),
                without_query(&request.app),
                without_query(&request.stream)
            )
        };
        let peer = self.publisher.peer;
        let refused = |refusal: Refusal| {
            PublishRefused { peer, tried: &tried(), refusal }.emit(&self.ingest.lives.metrics);
            refusal
        };
        let address = PublishAddress::parse(&request.tc_url, &request.app, &request.stream).map_err(refused)?;
        let node = self.stream.local_addr().map_or(peer.ip(), |local| local.ip().to_canonical());
        let hold = self.ingest.lives.admit(&address, peer.ip(), node).await.map_err(refused)?;
        self.publisher.enter(hold);
        self.session.accept_publish();
        Ok(())
    }

    /// Sends what the session has to say. Replies are small and few, so a peer that does not read them fills its window
    /// after minutes at the earliest, and is then cut off by the session's own bound on its output.
    async fn flush(&mut self) -> io::Result<()> {
        while !self.session.output().is_empty() {
            match self.stream.try_write(self.session.output()) {
                Ok(count) => self.session.consume_output(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets the peer read its last status: sends it, ends our side, and reads the peer's rest into nothing.
    async fn farewell(mut self) {
        let goodbye = async {
            self.flush().await?;
            rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write)?;
            loop {
                self.stream.readable().await?;
                match SCRATCH.with_borrow_mut(|scratch| self.stream.try_read(scratch)) {
                    Ok(0) => return Ok::<(), io::Error>(()),
                    // A peer that goes on sending must not keep the time-out below from firing.
                    Ok(_) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        // Whether the peer read it or not, the connection is over.
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }

    fn deadline(&self) -> Mono {
        match self.session.phase() {
            Phase::Media => self.publisher.heard.plus(self.ingest.settings.idle_timeout),
            _ => self.waiting_since.plus(self.ingest.settings.handshake_timeout),
        }
    }

    fn timed_out(&self) -> Option<End> {
        if self.ingest.lives.clock.mono() < self.deadline() {
            return None;
        }
        Some(if self.session.phase() == Phase::Media { End::Silent } else { End::HandshakeTimedOut })
    }
}

impl End {
    /// What it means for a push that the connection held.
    fn push_end(&self) -> SessionEnd {
        match self {
            Self::Closed => SessionEnd::Lost(PushEnd::PeerClosed),
            Self::Failed(_) => SessionEnd::Lost(PushEnd::ReadError),
            Self::Protocol(error) => SessionEnd::Lost(match error {
                RtmpError::Exceeded { bound: Bound::MediaMessageBytes, .. } => PushEnd::MessageTooBig,
                RtmpError::Command(_) | RtmpError::NotACommand => PushEnd::BadAmf,
                _ => PushEnd::BadRtmp,
            }),
            Self::Silent | Self::HandshakeTimedOut => SessionEnd::Lost(PushEnd::Silent),
            Self::Cut(reason) => SessionEnd::Orderly(PushEnd::Cut(*reason)),
            // Nothing is held then.
            Self::Refused | Self::ServerStops => SessionEnd::ServerStops,
        }
    }
}

fn unpublished(by: UnpublishedBy) -> PushEnd {
    match by {
        UnpublishedBy::FcUnpublish => PushEnd::Unpublished,
        UnpublishedBy::DeleteStream => PushEnd::DeleteStream,
        UnpublishedBy::CloseStream => PushEnd::CloseStream,
    }
}

/// The part of a push URL that is no secret.
fn without_query(text: &str) -> &str {
    text.split_once('?').map_or(text, |(before, _)| before)
}

/// What one connection publishes.
struct Publisher<'a> {
    lives: &'a Arc<Lives>,
    peer: SocketAddr,
    hold: Option<Held>,
    early: Early,
    /// When the last whole message came.
    heard: Mono,
}

/// The push that the connection holds, since when and from which byte on.
struct Held {
    hold: Hold,
    since: Mono,
}

/// What encoders may send before their publish is accepted and will not send again.
#[derive(Default)]
struct Early {
    config: Option<Arc<DecoderConfig>>,
    metadata: Option<Box<StreamMetadata>>,
}

impl Publisher<'_> {
    /// Whether entry points are worth assembling.
    fn wanted(&self) -> bool {
        self.hold.as_ref().is_some_and(|held| held.hold.push.wanted())
    }

    /// Completes when the push's holder is told to go.
    async fn was_cut(&mut self) -> CutReason {
        match &mut self.hold {
            Some(held) => match (&mut held.hold.cut).await {
                Ok(reason) => reason,
                // The push let go of us without a word, which it never does while we hold it.
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    fn enter(&mut self, hold: Hold) {
        let push = &hold.push;
        SessionBegan { peer: self.peer, stream: push.stream(), sequence: push.sequence() }.emit(&self.lives.metrics);
        self.heard = self.lives.clock.mono();
        self.hold = Some(Held { hold, since: self.heard });
        let Early { config, metadata } = std::mem::take(&mut self.early);
        if let Some(config) = config {
            self.configured(&config);
        }
        if let Some(metadata) = metadata {
            self.described(*metadata);
        }
    }

    /// Lets go of the push, if one is held.
    fn leave(&mut self, end: SessionEnd, bytes: u64) {
        let Some(Held { hold, since }) = self.hold.take() else { return };
        let reason = match end {
            SessionEnd::Orderly(end) | SessionEnd::Lost(end) => end,
            SessionEnd::ServerStops => PushEnd::ServerStopped,
        };
        SessionEnded {
            peer: self.peer,
            stream: hold.push.stream(),
            sequence: hold.push.sequence(),
            end: reason,
            lasted: self.lives.clock.mono().since(since),
            bytes,
        }
        .emit(&self.lives.metrics);
        self.lives.session_ended(&hold, end);
    }

    /// Acts on one event. Called between two reads, so nothing in here waits.
    fn hear(&mut self, event: Event, turn: &mut Turn) {
        self.heard = self.lives.clock.mono();
        match event {
            Event::Publish(request) => turn.asked = Some(request),
            Event::Unpublish { by } => turn.unpublished = Some(by),
            Event::Config(config) => self.configured(&config),
            Event::Metadata(metadata) => self.described(*metadata),
            Event::EntryPoint(unit) => {
                if let Some(held) = &self.hold {
                    self.lives.entry_point(&held.hold.push, unit);
                }
            }
            Event::Media(media) => {
                if let Some(held) = &self.hold {
                    let audio = matches!(media.kind, MediaKind::Audio { .. });
                    held.hold.push.media(audio, media.len as usize, self.lives.clock.wall());
                }
            }
            Event::UnsupportedVideo(codec) => {
                if let Some(held) = &self.hold {
                    tracing::warn!(stream = %held.hold.push.stream(), %codec, "no pictures can be made of this codec");
                    held.hold.push.unsupported(codec.to_string());
                }
            }
            Event::BadConfig(error) => {
                tracing::info!(peer = %self.peer, %error, "the decoder config cannot be read; no pictures until a good one");
            }
        }
    }

    fn configured(&mut self, config: &Arc<DecoderConfig>) {
        let Some(held) = &self.hold else {
            self.early.config = Some(Arc::clone(config));
            return;
        };
        let sps = Avcc::parse(&config.record).ok().and_then(|record| Sps::parse(record.sps.first()?).ok());
        if let Some(sps) = sps {
            held.hold.push.announce(config.codec, sps.width, sps.height);
        }
    }

    fn described(&mut self, metadata: StreamMetadata) {
        match (&self.hold, metadata.encoder) {
            (Some(held), Some(encoder)) => held.hold.push.encoder(encoder),
            (None, encoder) => self.early.metadata = Some(Box::new(StreamMetadata { encoder, ..metadata })),
            (Some(_), None) => {}
        }
    }
}
