//! One publisher of a fleet: what it does when its moment has come or its socket is ready. It never waits.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use framehook_rtmp::Client;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, connect, recv, socket_with};

use super::{Fleet, Outcome};
use crate::publisher::timeline::{Playlist, Timeline};
use crate::publisher::{End, Log, PublishError, PushUrl, wire};

/// How long the server may take to close after an orderly end.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Member<'a> {
    fleet: &'a Fleet,
    playlist: Arc<Playlist>,
    url: &'a PushUrl,
    address: SocketAddr,
    stage: Stage,
    outcome: Outcome,
    /// Since when the kernel takes nothing of what there is to send.
    blocked_since: Option<Instant>,
}

enum Stage {
    Waiting {
        start: Instant,
    },
    /// Connects, shakes hands and asks to publish.
    Opening {
        line: Line,
        knocked: Instant,
        deadline: Instant,
    },
    /// `is_queued`: the current tag is on its way, and has not left in full.
    Publishing {
        line: Line,
        timeline: Timeline,
        is_queued: bool,
    },
    /// Has said that it ends; our side is closed once that has left.
    Leaving {
        line: Line,
        deadline: Instant,
        is_closed: bool,
    },
    Over,
}

/// A socket that never blocks, and the protocol on it.
struct Line {
    socket: TcpStream,
    client: Client,
}

/// Whether everything that was to be sent has left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    InPart,
}

impl<'a> Member<'a> {
    pub(super) fn new(
        fleet: &'a Fleet,
        playlist: &Arc<Playlist>,
        url: &'a PushUrl,
        address: SocketAddr,
        start: Instant,
    ) -> Self {
        let outcome = Outcome {
            accepted: Err(PublishError::Unanswered(Duration::ZERO)),
            log: Log::default(),
            wire_bytes: 0,
            blocked_max: Duration::ZERO,
            published: Duration::ZERO,
        };
        let playlist = Arc::clone(playlist);
        Self { fleet, playlist, url, address, stage: Stage::Waiting { start }, outcome, blocked_since: None }
    }

    /// When it wants to act although nothing has happened. `None` when it waits for its socket, or for nothing.
    pub(super) fn alarm(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting { start } => Some(*start),
            Stage::Opening { deadline, .. } | Stage::Leaving { deadline, .. } => Some(*deadline),
            Stage::Publishing { is_queued: true, .. } | Stage::Over => None,
            Stage::Publishing { timeline, .. } => timeline.current().map(|step| step.due),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// Its moment has come. `key` is what the events of its socket are to carry.
    pub(super) fn on_alarm(&mut self, epoll: &OwnedFd, key: u64, now: Instant) {
        match &self.stage {
            Stage::Waiting { .. } => match self.knock(epoll, key) {
                Ok(line) => {
                    let deadline = now + self.fleet.patience;
                    self.stage = Stage::Opening { line, knocked: now, deadline };
                    self.on_ready(now);
                }
                Err(error) => self.fail(error.into()),
            },
            Stage::Opening { knocked, .. } => self.fail(unanswered(now - *knocked)),
            Stage::Publishing { .. } => self.go_on(now),
            Stage::Leaving { is_closed, .. } => {
                let is_closed = *is_closed;
                self.depart(is_closed);
            }
            Stage::Over => {}
        }
    }

    /// Its socket has something to read, or room again, or has come to its end.
    pub(super) fn on_ready(&mut self, now: Instant) {
        let heard = match &mut self.stage {
            Stage::Waiting { .. } | Stage::Over => return,
            Stage::Opening { line, .. } | Stage::Publishing { line, .. } | Stage::Leaving { line, .. } => line.hear(),
        };
        match heard {
            Ok(()) => self.go_on(now),
            Err(error) => match self.stage {
                // The server has closed, in whatever way, behind our goodbye.
                Stage::Leaving { is_closed: true, .. } => self.depart(true),
                _ => self.fail(error),
            },
        }
    }

    /// The time of all is up.
    pub(super) fn leave(&mut self, now: Instant) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Publishing { mut line, timeline, .. } => {
                self.note_block(now);
                self.outcome.published = now - timeline.start();
                line.client.unpublish();
                self.stage = Stage::Leaving { line, deadline: now + GOODBYE_PATIENCE, is_closed: false };
                self.go_on(now);
            }
            Stage::Opening { knocked, .. } => self.fail(unanswered(now - knocked)),
            Stage::Waiting { .. } | Stage::Over => {}
            leaving @ Stage::Leaving { .. } => self.stage = leaving,
        }
    }

    /// Begins to connect.
    fn knock(&self, epoll: &OwnedFd, key: u64) -> io::Result<Line> {
        let family = if self.address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        let begun = connect(&socket, &self.address);
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        // Told once of every change, so that nothing has to be asked for again and a socket with room is not told of.
        let changes = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(key), changes)?;
        match begun {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Line { socket, client: wire::client(self.url, self.fleet.chunk_bytes) })
    }

    /// Sends what there is to send and does what follows from that.
    fn go_on(&mut self, now: Instant) {
        if let Err(error) = self.try_go_on(now) {
            self.fail(error);
        }
    }

    fn try_go_on(&mut self, now: Instant) -> Result<(), PublishError> {
        match &mut self.stage {
            Stage::Waiting { .. } | Stage::Over => {}
            Stage::Opening { line, knocked, .. } => {
                line.send(&mut self.outcome.wire_bytes)?;
                if line.client.is_publishing() {
                    self.outcome.accepted = Ok(now - *knocked);
                    self.start_publishing(now);
                }
            }
            Stage::Publishing { line, timeline, is_queued } => {
                while let Some(step) = timeline.current() {
                    if !*is_queued {
                        if step.due > now {
                            break;
                        }
                        wire::write(&mut line.client, step.tag, step.dts_ms);
                        *is_queued = true;
                    }
                    if line.send(&mut self.outcome.wire_bytes)? == Sent::InPart {
                        self.blocked_since.get_or_insert(now);
                        break;
                    }
                    if let Some(since) = self.blocked_since.take() {
                        self.outcome.blocked_max = self.outcome.blocked_max.max(now - since);
                    }
                    self.outcome.log.note(step);
                    timeline.advance();
                    *is_queued = false;
                }
            }
            Stage::Leaving { line, is_closed, .. } => {
                if !*is_closed && line.send(&mut self.outcome.wire_bytes)? == Sent::Whole {
                    // The server closes first, so that nothing it still sends makes a reset of our end.
                    line.socket.shutdown(Shutdown::Write)?;
                    *is_closed = true;
                }
            }
        }
        Ok(())
    }

    fn start_publishing(&mut self, now: Instant) {
        if let Stage::Opening { line, .. } = std::mem::replace(&mut self.stage, Stage::Over) {
            let timeline = Timeline::new(Arc::clone(&self.playlist), true, self.fleet.speed, now);
            self.stage = Stage::Publishing { line, timeline, is_queued: false };
        }
    }

    /// Counts how long the kernel has taken nothing, and that this is over.
    fn note_block(&mut self, now: Instant) {
        if let Some(since) = self.blocked_since.take() {
            self.outcome.blocked_max = self.outcome.blocked_max.max(now - since);
        }
    }

    /// The end of an orderly end.
    fn depart(&mut self, is_closed: bool) {
        self.stage = Stage::Over;
        self.outcome.log.end = Some(if is_closed {
            End::Unpublished
        } else {
            End::Closed(format!("the server did not take the goodbye within {GOODBYE_PATIENCE:?}"))
        });
    }

    fn fail(&mut self, error: PublishError) {
        let now = Instant::now();
        self.note_block(now);
        if let Stage::Publishing { timeline, .. } = &self.stage {
            self.outcome.published = now - timeline.start();
        }
        self.stage = Stage::Over;
        if self.outcome.accepted.is_ok() {
            self.outcome.log.end = Some(error.into());
        } else {
            self.outcome.accepted = Err(error);
        }
    }
}

/// In whole seconds, so that many who have waited about as long give one reason.
fn unanswered(waited: Duration) -> PublishError {
    PublishError::Unanswered(Duration::from_secs(waited.as_secs()))
}

impl Line {
    /// Writes what the kernel takes, and counts it.
    fn send(&mut self, wire_bytes: &mut u64) -> io::Result<Sent> {
        while !self.client.output().is_empty() {
            match self.socket.write(self.client.output()) {
                Ok(count) => {
                    self.client.consume_output(count);
                    *wire_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::InPart),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::Whole)
    }

    /// Reads all that the server has said.
    fn hear(&mut self) -> Result<(), PublishError> {
        let mut block = [0; 4096];
        loop {
            match recv(&self.socket, &mut block, RecvFlags::empty()) {
                Ok((0, _)) => return Err(PublishError::Closed),
                Ok((count, _)) => wire::hear(&mut self.client, &block[..count])?,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}
