//! Drives RTMP sessions: sockets and time-outs here, the protocol in `framehook_rtmp`.
//!
//! What a socket has is read into one scratch buffer per thread and pushed into the session, so a connection owns no
//! buffer of its own but the keyframe that is being assembled. Nothing in here waits for anything behind pick. How often a
//! socket is read is for [`pace`] to say.

mod pace;
mod publisher;
mod rhythm;
mod transport;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use framehook_domain::refusal::{CutReason, PushEnd, Refusal};
use framehook_domain::stream::{PublishAddress, tried};
use framehook_domain::time::Mono;
use framehook_rtmp::command::status;
use framehook_rtmp::handshake::RANDOM_BYTES;
use framehook_rtmp::{Bound, Error as RtmpError, Limits, Phase, PublishRequest, Session};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use self::pace::{Pace, Prospect, Wait};
use self::publisher::Publisher;
use self::transport::Transport;
use crate::entropy::Entropy;
use crate::live::Lives;
use crate::places::Places;
use crate::telemetry::event::{ConnectionRefused, CutOff, PublishRefused};
use crate::tls::TlsServer;

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

/// What unfinished messages of all connections may reserve together. One connection may reserve 9 MiB; 2,000 publishers
/// in the middle of an ordinary keyframe of 130 KB take 260 MB, so this is twice the busiest honest moment. While it is
/// used up no new keyframe is assembled, so streams yield no pictures (`no_entry_point`) and go on otherwise. It can be
/// passed by what the threads of the runtime begin in the same instant.
const REASSEMBLY_BYTES_MAX: u64 = 512 << 20;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// What the sessions share.
pub(crate) struct RtmpIngest {
    lives: Arc<Lives>,
    entropy: Entropy,
    settings: RtmpSettings,
    places: Arc<Places>,
    reassembly_bytes: AtomicU64,
}

/// The part of the configuration that sessions need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RtmpSettings {
    pub(crate) limits: Limits,
    /// From accept to an accepted publish.
    pub(crate) handshake_timeout: Duration,
    /// Without a whole message from a publisher.
    pub(crate) idle_timeout: Duration,
    /// How often a publisher is read from while no entry point of it can be picked. Zero: as its bytes come.
    pub(crate) read_interval: Duration,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
}

impl RtmpIngest {
    pub(crate) fn new(lives: Arc<Lives>, entropy: Entropy, settings: RtmpSettings) -> Arc<Self> {
        let places = Places::new(settings.connections_max, settings.connections_per_address_max);
        Arc::new(Self { lives, entropy, settings, places, reassembly_bytes: AtomicU64::new(0) })
    }

    /// Connections open now, publishing or not.
    pub(crate) fn connections(&self) -> usize {
        self.places.taken()
    }

    /// Bytes that unfinished messages of all connections have reserved.
    pub(crate) fn reassembly_bytes(&self) -> u64 {
        self.reassembly_bytes.load(Ordering::Relaxed)
    }

    /// Serves one connection from its first byte to its last; over `tls` if the listener's connections are private.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<TlsServer>>,
        stop: CancellationToken,
    ) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let connected = self.lives.clock.mono();
        let Some(_place) = self.places.take(peer.ip()) else {
            ConnectionRefused { peer }.emit(&self.lives.telemetry);
            return;
        };
        // Replies are few and small, and an encoder waits for each of them before it sends its first frame.
        let _ = stream.set_nodelay(true);
        let stream = match tls {
            None => Transport::Plain(stream),
            Some(tls) => tokio::select! {
                () = stop.cancelled() => return,
                accepted = tls.accept(stream, peer) => match accepted {
                    Some(private) => Transport::tls(private),
                    None => return,
                },
            },
        };
        let mut random = [0; RANDOM_BYTES];
        for part in random.chunks_mut(RANDOM_BYTES / 4) {
            part.copy_from_slice(&self.entropy.draw::<{ RANDOM_BYTES / 4 }>());
        }
        let session = Session::new(self.settings.limits, &random);
        let connection = Connection {
            ingest: &self,
            stream,
            session,
            publisher: Publisher::new(&self.lives, peer, connected),
            pace: Pace::new(self.settings.read_interval, self.entropy.fraction()),
            wait: Wait::AS_THEY_COME,
            reserved_bytes: 0,
        };
        connection.run(stop).await;
    }
}

/// One connection: its socket and its protocol.
struct Connection<'a> {
    ingest: &'a RtmpIngest,
    stream: Transport,
    session: Session,
    publisher: Publisher<'a>,
    pace: Pace,
    /// When the socket is read next.
    wait: Wait,
    /// Its share of [`RtmpIngest::reassembly_bytes`].
    reserved_bytes: u64,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.ingest.reassembly_bytes.fetch_sub(self.reserved_bytes, Ordering::Relaxed);
    }
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

impl Connection<'_> {
    async fn run(mut self, stop: CancellationToken) {
        let end = self.drive(stop).await;
        match &end {
            End::Closed | End::Failed(_) | End::ServerStops | End::Refused => {}
            End::Cut(reason) => self.session.cut(status::PUBLISH_BAD_NAME, &reason.to_string()),
            End::HandshakeTimedOut => self.session.cut(status::FAILED, "no publish within the handshake time-out"),
            End::Silent => self.session.cut(status::FAILED, "no data for a long time"),
            End::Protocol(_) => {} // The session has put its own last words into its output.
        }
        let (peer, phase) = (self.publisher.peer, self.session.phase());
        match &end {
            End::Protocol(error) => {
                CutOff { peer, phase, reason: error.label(), error: Some(error) }.emit(&self.ingest.lives.telemetry);
            }
            End::HandshakeTimedOut => {
                CutOff { peer, phase, reason: "handshake_timeout", error: None }.emit(&self.ingest.lives.telemetry);
            }
            End::Failed(error) if !self.publisher.holds() => tracing::debug!(%peer, %error, "connection lost"),
            _ => {}
        }
        if let Some(push_end) = end.push_end() {
            self.publisher.leave(push_end);
        }
        if !matches!(end, End::Closed | End::Failed(_)) {
            self.farewell().await;
        }
    }

    async fn drive(&mut self, stop: CancellationToken) -> End {
        let clock = self.ingest.lives.clock;
        let timer = tokio::time::sleep_until(clock.instant(self.wakes_at()));
        let stopped = stop.cancelled();
        tokio::pin!(timer, stopped);
        let mut unyielded_bytes = 0;
        loop {
            if let Err(error) = self.flush().await {
                return End::Failed(error);
            }
            let is_timer = tokio::select! {
                () = &mut stopped => return End::ServerStops,
                reason = self.publisher.was_cut() => return End::Cut(reason),
                () = &mut timer => true,
                ready = self.stream.readable() => match ready {
                    Ok(()) => false,
                    Err(error) => return End::Failed(error),
                },
            };
            if !is_timer || self.wait.until.is_some() {
                let read_bytes = match self.read() {
                    Ok(bytes) => bytes,
                    Err(end) => return end,
                };
                if let Some(request) = self.publisher.take_asked()
                    && let Err(refusal) = self.decide(&request).await
                {
                    self.session.refuse_publish(status::PUBLISH_DENIED, &refusal.to_string());
                    return End::Refused;
                }
                if let Err(error) = self.set_pace() {
                    return End::Failed(error);
                }
                // Of what came, or of what it came in: records of one byte each are more work than their bytes.
                unyielded_bytes += read_bytes.max(self.stream.take_wire_bytes());
                if unyielded_bytes >= YIELD_AFTER_BYTES {
                    unyielded_bytes = 0;
                    tokio::task::yield_now().await;
                }
            }
            if is_timer && let Some(end) = self.timed_out() {
                return end;
            }
            // An idle time-out that has moved away costs nothing until the timer fires. A read that has takes the timer along: it
            // would find nothing.
            let wakes_at = clock.instant(self.wakes_at());
            if is_timer || wakes_at < timer.deadline() || (self.wait.until.is_some() && wakes_at != timer.deadline()) {
                timer.as_mut().reset(wakes_at);
            }
        }
    }

    /// Says what is waited for before the next read.
    fn set_pace(&mut self) -> io::Result<()> {
        let now = self.ingest.lives.clock.mono();
        let mut wait = match self.session.phase() {
            Phase::Media => self.pace.wait(
                now,
                Prospect {
                    picks_from: self.publisher.picks_from(now),
                    expected: self.publisher.next_keyframe(),
                    missing_bytes: self.session.missing_bytes(),
                },
            ),
            _ => Wait::AS_THEY_COME,
        };
        // A peer may wait for its acknowledgement with less than that.
        wait.bytes = wait.bytes.min(self.session.bytes_until_acknowledgement().try_into().unwrap_or(usize::MAX));
        if wait.bytes != self.wait.bytes {
            self.stream.set_low_water(wait.bytes)?;
        }
        self.wait = wait;
        Ok(())
    }

    /// Reads what the socket has, up to a turn's worth, and tells the publisher what it means. Gives the number of bytes.
    fn read(&mut self) -> Result<usize, End> {
        let mut bytes = 0;
        for _ in 0..READS_PER_TURN {
            // Asked anew each time: a rule may have come or gone since, and so may room.
            let has_room = self.ingest.reassembly_bytes() < REASSEMBLY_BYTES_MAX;
            self.session.set_keep_entry_points(has_room && self.publisher.wanted());
            let (stream, session, publisher) = (&mut self.stream, &mut self.session, &mut self.publisher);
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let count = stream.try_read(scratch)?;
                publisher.received(count);
                let parsed = session.push(&scratch[..count], |event| publisher.hear(event));
                Ok::<_, io::Error>((count, parsed))
            });
            self.account_for_reassembly();
            match read {
                Ok((0, _)) => return Err(End::Closed),
                Ok((count, parsed)) => {
                    bytes += count;
                    self.ingest.lives.telemetry.metrics.ingested(count);
                    parsed.map_err(End::Protocol)?;
                    if count < SCRATCH_BYTES || self.publisher.asks() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(End::Failed(error)),
            }
        }
        Ok(bytes)
    }

    fn account_for_reassembly(&mut self) {
        let reserved = self.session.reserved_bytes() as u64;
        let before = std::mem::replace(&mut self.reserved_bytes, reserved);
        let all = &self.ingest.reassembly_bytes;
        if reserved >= before {
            all.fetch_add(reserved - before, Ordering::Relaxed);
        } else {
            all.fetch_sub(before - reserved, Ordering::Relaxed);
        }
    }

    /// Answers a publish.
    async fn decide(&mut self, request: &PublishRequest) -> Result<(), Refusal> {
        let (ingest, peer) = (self.ingest, self.publisher.peer);
        let refused = |refusal: Refusal| {
            let tried = tried(&request.tc_url, &request.app, &request.stream);
            let event = PublishRefused { peer, tried: &tried, refusal };
            event.emit(&ingest.lives.telemetry);
            refusal
        };
        let address = PublishAddress::parse(&request.tc_url, &request.app, &request.stream).map_err(refused)?;
        let node = self.stream.local_addr().map_or(peer.ip(), |local| local.ip().to_canonical());
        let hold = ingest.lives.admit(&address, peer.ip(), node).await.map_err(refused)?;
        if self.session.accept_publish() {
            self.publisher.enter(hold);
        } else {
            // Nothing is read while this waits, so the peer cannot have withdrawn it. Were it so, the push would be over.
            hold.give_back(PushEnd::Unpublished);
        }
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
        self.stream.push()
    }

    /// Lets the peer read its last status: sends it, ends our side, and reads the peer's rest into nothing.
    async fn farewell(mut self) {
        let goodbye = async {
            self.flush().await?;
            self.stream.end()?;
            self.stream.set_low_water(1)?;
            loop {
                self.stream.readable().await?;
                match SCRATCH.with_borrow_mut(|scratch| self.stream.try_read(scratch)) {
                    Ok(0) => return Ok::<(), io::Error>(()),
                    // A peer that goes on sending must not keep the time-out below from firing.
                    Ok(_) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
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
            _ => self.publisher.waiting_since.plus(self.ingest.settings.handshake_timeout),
        }
    }

    /// When the connection has something to do, whether or not anything comes.
    fn wakes_at(&self) -> Mono {
        self.wait.until.map_or(self.deadline(), |until| until.min(self.deadline()))
    }

    fn timed_out(&self) -> Option<End> {
        if self.ingest.lives.clock.mono() < self.deadline() {
            return None;
        }
        Some(if self.session.phase() == Phase::Media { End::Silent } else { End::HandshakeTimedOut })
    }
}

impl End {
    /// What it means for a push that the connection held. `None` where it can hold none.
    fn push_end(&self) -> Option<PushEnd> {
        Some(match self {
            Self::Closed => PushEnd::PeerClosed,
            Self::Failed(_) => PushEnd::ReadError,
            Self::Protocol(error) => match error {
                RtmpError::Exceeded { bound: Bound::MediaMessageBytes, .. } => PushEnd::MessageTooBig,
                RtmpError::Command(_) | RtmpError::NotACommand => PushEnd::BadAmf,
                _ => PushEnd::BadRtmp,
            },
            Self::Silent => PushEnd::Silent,
            Self::Cut(reason) => PushEnd::Cut(*reason),
            Self::ServerStops => PushEnd::ServerStopped,
            Self::Refused | Self::HandshakeTimedOut => return None,
        })
    }
}

#[cfg(test)]
mod tests;
