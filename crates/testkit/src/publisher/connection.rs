//! One publisher's connection: the thread that drives the client's state machine.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use framehook_rtmp::Client;
use rustix::net::RecvFlags;

use crate::flv::Tag;
use crate::listener::{lock, reset_on_close};

use super::timeline::{Playlist, Timeline};
use super::{End, Log, PublishError, PublisherSpec, wire};

/// How often a publisher that waits looks for orders and for what the server says.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long an orderly end waits for the server to close its side too.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// What a test tells the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Stall,
    Resume,
    Unpublish,
    Close,
    Reset,
}

/// A connection that the server has accepted for publishing.
pub(super) struct Connection {
    stream: TcpStream,
    client: Client,
}

/// Why the thread stops sending.
enum Stop {
    /// An order other than stalling.
    Ordered(Order),
    Ended(End),
}

impl From<PublishError> for Stop {
    fn from(error: PublishError) -> Self {
        Self::Ended(error.into())
    }
}

impl Connection {
    /// Connects, shakes hands and asks to publish.
    pub(super) fn open(spec: &PublisherSpec) -> Result<Self, PublishError> {
        let deadline = Instant::now() + spec.patience;
        let stream = TcpStream::connect_timeout(&spec.url.address()?, spec.patience)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
        let mut connection = Self { stream, client: wire::client(&spec.url, spec.chunk_bytes) };
        while !connection.client.is_publishing() {
            if Instant::now() >= deadline {
                return Err(PublishError::Unanswered(spec.patience));
            }
            connection.stream.set_read_timeout(Some(LOOK_EVERY))?;
            connection.write_some()?;
            connection.read(RecvFlags::empty())?;
        }
        Ok(connection)
    }

    /// Publishes until the file or an order ends it. Ends the connection.
    pub(super) fn publish(mut self, spec: &PublisherSpec, orders: &Receiver<Order>, log: &Mutex<Log>) -> End {
        match self.send_all(spec, orders, log) {
            Ok(()) | Err(Stop::Ordered(Order::Unpublish)) => self.unpublish(),
            Err(Stop::Ordered(Order::Reset)) => {
                reset_on_close(&self.stream);
                End::BrokenOff
            }
            Err(Stop::Ordered(_)) => {
                // Without this, bytes of the server that nobody read would make it a reset.
                let _ = self.stream.shutdown(Shutdown::Both);
                End::BrokenOff
            }
            Err(Stop::Ended(end)) => end,
        }
    }

    fn send_all(&mut self, spec: &PublisherSpec, orders: &Receiver<Order>, log: &Mutex<Log>) -> Result<(), Stop> {
        let playlist = Playlist::new(Arc::clone(&spec.file));
        let mut timeline = Timeline::new(playlist, spec.looped, spec.speed, Instant::now());
        while let Some(step) = timeline.current() {
            self.wait_until(step.due, orders)?;
            self.send(step.tag, step.dts_ms, orders)?;
            lock(log).note(step);
            timeline.advance();
        }
        Ok(())
    }

    /// Waits for the time of the next tag, and as long as a stall lasts.
    fn wait_until(&mut self, due: Instant, orders: &Receiver<Order>) -> Result<(), Stop> {
        let mut stalled = false;
        loop {
            self.read(RecvFlags::DONTWAIT)?;
            let left = due.saturating_duration_since(Instant::now());
            let pause = if stalled { LOOK_EVERY } else { left.min(LOOK_EVERY) };
            match orders.recv_timeout(pause) {
                Ok(Order::Stall) => stalled = true,
                Ok(Order::Resume) => stalled = false,
                Ok(order) => return Err(Stop::Ordered(order)),
                Err(RecvTimeoutError::Timeout) if !stalled && Instant::now() >= due => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stop::Ordered(Order::Close)),
            }
        }
    }

    /// Hands one tag to the kernel in full, for as long as the server takes to make room.
    fn send(&mut self, tag: &Tag, dts_ms: u32, orders: &Receiver<Order>) -> Result<(), Stop> {
        wire::write(&mut self.client, tag, dts_ms);
        while !self.client.output().is_empty() {
            self.write_some()?;
            if !self.client.output().is_empty() {
                self.read(RecvFlags::DONTWAIT)?;
                match orders.try_recv() {
                    Ok(Order::Stall | Order::Resume) | Err(TryRecvError::Empty) => {}
                    Ok(order) => return Err(Stop::Ordered(order)),
                    Err(TryRecvError::Disconnected) => return Err(Stop::Ordered(Order::Close)),
                }
            }
        }
        Ok(())
    }

    /// Says goodbye and lets the server close first, so that nothing it still sends makes a reset of it.
    fn unpublish(&mut self) -> End {
        self.client.unpublish();
        let deadline = Instant::now() + GOODBYE_PATIENCE;
        while !self.client.output().is_empty() && Instant::now() < deadline {
            if let Err(error) = self.write_some() {
                return End::Closed(error.to_string());
            }
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        while Instant::now() < deadline && self.read(RecvFlags::empty()).is_ok() {}
        End::Unpublished
    }

    /// Writes what the kernel takes within the write time-out.
    fn write_some(&mut self) -> Result<(), PublishError> {
        match self.stream.write(self.client.output()) {
            Ok(written) => self.client.consume_output(written),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads once, and hands what came to the client.
    fn read(&mut self, flags: RecvFlags) -> Result<(), PublishError> {
        let mut block = [0; 4096];
        let length = match rustix::net::recv(&self.stream, &mut block, flags) {
            Ok((0, _)) => return Err(PublishError::Closed),
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(PublishError::Io(error.into())),
        };
        wire::hear(&mut self.client, &block[..length])
    }
}
