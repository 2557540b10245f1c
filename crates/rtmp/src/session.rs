//! One publisher's connection, seen from the server.

mod commands;
mod media;

use alloc::{boxed::Box, format, string::String};
use core::{error::Error as _, mem};

use bytes::{Buf, BytesMut};

use self::media::MediaState;
use crate::{
    Bound, Error, Event, Limits,
    chunk::{ChunkReader, ChunkWriter},
    command::{Command, status},
    handshake::{Handshake, RANDOM_BYTES},
    message::{Body, Message, MessageType, user_control},
};

/// Bytes between two acknowledgements, both the one we ask for and the one we keep until the client names its own.
/// What Flash Media Server announces, and what encoders are therefore used to.
const WINDOW_BYTES: u32 = 2_500_000;

/// Our chunk size: what other servers use, and more than any reply to an ordinary encoder.
const CHUNK_SIZE: u32 = 4096;

/// How far a session has come. The driver picks its time-out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but the handshake so far.
    Handshake,
    /// Waiting for `connect`.
    Connect,
    /// Waiting for `publish`; also after a publish has ended in order.
    Publish,
    /// [`Event::Publish`] was told and the driver has not answered.
    Decision,
    /// Publishing.
    Media,
    /// Nothing more is read. The driver sends the output that is left and closes.
    Ended,
}

/// The machine. The driver pushes what it reads, sends [`output`](Self::output), and answers [`Event::Publish`].
///
/// A session that only counts holds about 1 KiB; while it keeps a message, that message as well.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    phase: Phase,
    /// Gone once it is complete: it holds 3 KiB.
    handshake: Option<Handshake>,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: BytesMut,
    received_bytes: u64,
    acknowledged_bytes: u64,
    window_bytes: u32,
    /// Of commands and data, for [`Limits::unpublished_bytes_max`].
    unpublished_bytes: u64,
    connect: Option<Box<Connect>>,
    streams_created: u32,
    /// The message stream of the publish that was asked for or is under way.
    publish_stream_id: u32,
    media: MediaState,
}

/// What `connect` said, until a publish needs it.
#[derive(Clone, Debug)]
struct Connect {
    tc_url: String,
    app: String,
}

impl Session {
    /// `random` is what S1 carries; it should differ between connections.
    pub fn new(limits: Limits, random: &[u8; RANDOM_BYTES]) -> Self {
        Self {
            limits,
            phase: Phase::Handshake,
            handshake: Some(Handshake::new(random)),
            reader: ChunkReader::new(limits),
            writer: ChunkWriter::new(),
            output: BytesMut::new(),
            received_bytes: 0,
            acknowledged_bytes: 0,
            window_bytes: WINDOW_BYTES,
            unpublished_bytes: 0,
            connect: None,
            streams_created: 0,
            publish_stream_id: 0,
            media: MediaState::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes received so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// How many more bytes are to come before the peer is owed an acknowledgement, at least one. It may send none beyond them
    /// until it has that.
    pub fn bytes_until_acknowledgement(&self) -> u64 {
        let unacknowledged = self.received_bytes - self.acknowledged_bytes;
        u64::from(self.window_bytes).saturating_sub(unacknowledged).max(1)
    }

    /// Bytes reserved for messages that are being kept and have not come in full, at most
    /// [`Limits::pinned_bytes_max`].
    pub fn reserved_bytes(&self) -> usize {
        self.reader.reserved_bytes()
    }

    /// How many more bytes are to come at least before a message that is being kept is whole, at least one. `None` while none
    /// is being kept.
    pub fn missing_bytes(&self) -> Option<usize> {
        self.reader.missing_bytes()
    }

    /// Whether entry points are gathered (they are, until told otherwise). Without it keyframes are counted like all
    /// other media. Takes effect with the next message; decoder configs are kept in any case.
    pub fn set_keep_entry_points(&mut self, keep: bool) {
        self.media.keep_entry_points = keep;
    }

    /// Takes all of `input`. `sink` gets what it means, in the order of the wire; however the bytes are split over calls,
    /// the events are the same (the driver's answer to a publish falls between two calls, of course).
    ///
    /// # Errors
    /// Any [`Error`], after which the session is [`Phase::Ended`]. Events before the error have been told. Input after
    /// the end is ignored.
    pub fn push(&mut self, mut input: &[u8], mut sink: impl FnMut(Event)) -> Result<(), Error> {
        if self.phase == Phase::Ended {
            return Ok(());
        }
        self.received_bytes += input.len() as u64;
        let result = self.read(&mut input, &mut sink).and_then(|()| self.acknowledge());
        if let Err(error) = &result {
            self.end(status::FAILED, &with_cause(error));
        }
        result
    }

    /// What is to be sent to the peer, oldest first. Say with [`consume_output`](Self::consume_output) how much was.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// # Panics
    /// If `count` is more than there is.
    pub fn consume_output(&mut self, count: usize) {
        self.output.advance(count);
        if self.output.is_empty() {
            // Gives the memory back: a publisher gets a few replies at the start and then an acknowledgement a second.
            self.output = BytesMut::new();
        }
    }

    /// Lets the publish begin. Returns false, and does nothing, if none is waiting: the peer has withdrawn it.
    pub fn accept_publish(&mut self) -> bool {
        if self.phase != Phase::Decision {
            return false;
        }
        self.phase = Phase::Media;
        let stream_id = self.publish_stream_id;
        let mut begin = [0; 6];
        begin[..2].copy_from_slice(&user_control::STREAM_BEGIN.to_be_bytes());
        begin[2..].copy_from_slice(&stream_id.to_be_bytes());
        self.writer.write_control(&mut self.output, MessageType::UserControl, &begin);
        self.send_status(stream_id, "status", status::PUBLISH_START, "publishing");
        true
    }

    /// Refuses the publish and ends the session. `code` should be one that [`status`] recommends: what an encoder shows of
    /// the `description` depends on it. Returns false, and does nothing, if no publish is waiting.
    pub fn refuse_publish(&mut self, code: &str, description: &str) -> bool {
        let waiting = self.phase == Phase::Decision;
        if waiting {
            self.end(code, description);
        }
        waiting
    }

    /// Ends the session at any time, with a status that the encoder may show: ffmpeg does, if the driver lets it read
    /// that before it closes; OBS and GStreamer look for a status only while they connect.
    pub fn cut(&mut self, code: &str, description: &str) {
        if self.phase != Phase::Ended {
            self.end(code, description);
        }
    }

    fn end(&mut self, code: &str, description: &str) {
        // Before `connect` there is nobody who would understand a status.
        if self.connect.is_some() {
            self.send_status(self.publish_stream_id, "error", code, description);
            // librtmp as GStreamer's rtmpsink has it passes over all codes of publishing and waits on; this one it knows.
            // Everybody else has stopped at the first.
            if code != status::FAILED {
                self.send_status(self.publish_stream_id, "error", status::FAILED, description);
            }
        }
        self.phase = Phase::Ended;
        self.media.reset();
        self.reader = ChunkReader::new(self.limits);
    }

    fn read(&mut self, input: &mut &[u8], sink: &mut impl FnMut(Event)) -> Result<(), Error> {
        if let Some(handshake) = &mut self.handshake {
            if !handshake.push(input, &mut self.output)? {
                return Ok(());
            }
            self.handshake = None;
            self.phase = Phase::Connect;
        }
        loop {
            let (media, phase) = (&self.media, self.phase);
            let Some(message) = self.reader.read(input, |header, head| media.decide(phase, header, head))? else {
                return Ok(());
            };
            self.on_message(message, sink)?;
            Bound::OutputBytes.check(self.output.len(), self.limits.output_bytes_max)?;
        }
    }

    fn on_message(&mut self, message: Message, sink: &mut impl FnMut(Event)) -> Result<(), Error> {
        use MessageType::*;
        let Message { header, body } = message;
        match (header.message_type, &body) {
            (CommandAmf0 | CommandAmf3, Body::Kept(bytes)) => {
                self.count_unpublished(bytes.len())?;
                self.on_command(header.stream_id, &Command::parse(bytes)?, sink)
            }
            (DataAmf0 | DataAmf3, Body::Kept(bytes)) => {
                self.count_unpublished(bytes.len())?;
                self.media.on_data(self.phase, &header, bytes, sink);
                Ok(())
            }
            (Audio | Video, _) => {
                self.media.on_media(self.phase, &header, body, sink);
                Ok(())
            }
            (UserControl, Body::Skipped(head)) => {
                self.on_user_control(head.bytes());
                Ok(())
            }
            (WindowAckSize, Body::Skipped(head)) => {
                if let Some(&bytes) = head.bytes().first_chunk() {
                    self.window_bytes = u32::from_be_bytes(bytes).max(1);
                }
                Ok(())
            }
            (Aggregate, _) => Err(Error::AggregateMessage),
            // Acknowledgements, bandwidth, shared objects, and whatever comes next year.
            _ => Ok(()),
        }
    }

    /// Counts a command or data message that came before a publish was accepted, with twelve bytes for its header so
    /// that empty ones count as well.
    fn count_unpublished(&mut self, len: usize) -> Result<(), Error> {
        if self.phase == Phase::Media {
            return Ok(());
        }
        self.unpublished_bytes += len as u64 + 12;
        Bound::UnpublishedBytes.check(self.unpublished_bytes, self.limits.unpublished_bytes_max)
    }

    fn on_user_control(&mut self, event: &[u8]) {
        // Two bytes of event type; a ping carries four of a timestamp, which the answer repeats.
        let Some(&[k0, k1, t0, t1, t2, t3]) = event.first_chunk() else { return };
        if u16::from_be_bytes([k0, k1]) == user_control::PING_REQUEST {
            let [r0, r1] = user_control::PING_RESPONSE.to_be_bytes();
            self.writer.write_control(&mut self.output, MessageType::UserControl, &[r0, r1, t0, t1, t2, t3]);
        }
    }

    /// Acknowledges what was received, once a window has gone by (5.4.3).
    fn acknowledge(&mut self) -> Result<(), Error> {
        // The handshake has its own pace, and some clients take an early acknowledgement for nonsense.
        if self.connect.is_none() || self.received_bytes - self.acknowledged_bytes < self.window_bytes.into() {
            return Ok(());
        }
        self.acknowledged_bytes = self.received_bytes;
        // 32 bits on the wire, which wrap.
        let sequence = (self.received_bytes as u32).to_be_bytes();
        self.writer.write_control(&mut self.output, MessageType::Acknowledgement, &sequence);
        // A peer that names a window of one byte gets one at each push.
        Bound::OutputBytes.check(self.output.len(), self.limits.output_bytes_max)
    }
}

/// An error and its cause in one line, for the encoder's log.
fn with_cause(error: &Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => format!("{error}"),
    }
}

const _: () = assert!(mem::size_of::<Session>() < 1024, "a session is multiplied by thousands");
