//! The publisher's side, as small as a load generator and a demonstration need it: no reconnect, no authentication, no
//! playback. It shares chunks and commands with the server, so it is no witness for them; real encoders are.

use alloc::{string::String, vec::Vec};

use bytes::{Buf, BufMut, BytesMut};
use framehook_media::amf0::{self, Value};

use crate::{
    Error, Limits,
    chunk::{COMMAND_CHUNK_STREAM, ChunkReader, ChunkWriter, Fate},
    command::{self, Command, status},
    handshake::{HandshakeError, PACKET_BYTES, RANDOM_BYTES},
    message::{Body, Message, MessageType},
};

/// Chunk streams as ffmpeg uses them.
const PUBLISH_CHUNK_STREAM: u32 = 8;
const AUDIO_CHUNK_STREAM: u32 = 4;
const VIDEO_CHUNK_STREAM: u32 = 6;

/// Transaction numbers, one for each call that the client makes.
mod transaction {
    pub(super) const CONNECT: u32 = 1;
    pub(super) const RELEASE_STREAM: u32 = 2;
    pub(super) const FC_PUBLISH: u32 = 3;
    pub(super) const CREATE_STREAM: u32 = 4;
    pub(super) const PUBLISH: u32 = 5;
    pub(super) const FC_UNPUBLISH: u32 = 6;
    pub(super) const DELETE_STREAM: u32 = 7;
}

/// What to publish, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// `rtmp://host[:port]/app`
    pub tc_url: String,
    pub app: String,
    /// Stream name with its query.
    pub stream: String,
    /// Sent as `flashVer`.
    pub flash_ver: String,
    /// Clamped to what the protocol allows.
    pub chunk_size: u32,
}

/// What the server has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// Media may be written from now on.
    Publishing,
    /// The server refused, or ended what it had accepted.
    Refused { code: String, description: String },
}

/// The machine. The driver pushes what it reads and sends [`output`](Self::output).
#[derive(Debug)]
pub struct Client {
    publication: Publication,
    state: State,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: BytesMut,
}

#[derive(Debug)]
enum State {
    /// S0, S1 and S2 as far as they have come.
    Handshake(Vec<u8>),
    /// Commands are on their way.
    Asking,
    Publishing {
        stream_id: u32,
    },
    Ended,
}

impl Client {
    /// `random` is what C1 carries.
    pub fn new(publication: Publication, random: &[u8; RANDOM_BYTES]) -> Self {
        let mut output = BytesMut::with_capacity(1 + PACKET_BYTES);
        output.put_u8(3);
        output.put_bytes(0, PACKET_BYTES - RANDOM_BYTES);
        output.put_slice(random);
        let state = State::Handshake(Vec::new());
        Self { publication, state, reader: ChunkReader::new(Limits::default()), writer: ChunkWriter::new(), output }
    }

    pub fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing { .. })
    }

    /// Takes all of `input`.
    ///
    /// # Errors
    /// Any [`Error`]: the server does not speak RTMP.
    pub fn push(&mut self, mut input: &[u8], mut sink: impl FnMut(ClientEvent)) -> Result<(), Error> {
        self.shake_hands(&mut input)?;
        if matches!(self.state, State::Handshake(_)) {
            return Ok(());
        }
        let keep_commands = |message_type| match message_type {
            MessageType::CommandAmf0 | MessageType::CommandAmf3 => Fate::Keep,
            _ => Fate::Skip,
        };
        while let Some(message) = self.reader.read(&mut input, |header, _| keep_commands(header.message_type))? {
            self.on_message(&message, &mut sink);
        }
        Ok(())
    }

    /// What is to be sent to the server, oldest first.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// # Panics
    /// If `count` is more than there is.
    pub fn consume_output(&mut self, count: usize) {
        self.output.advance(count);
    }

    /// Writes the body of an FLV video tag. Returns false, and writes nothing, unless publishing.
    pub fn write_video(&mut self, timestamp_ms: u32, tag: &[u8]) -> bool {
        self.write_media(VIDEO_CHUNK_STREAM, MessageType::Video, timestamp_ms, tag)
    }

    /// Writes the body of an FLV audio tag, likewise.
    pub fn write_audio(&mut self, timestamp_ms: u32, tag: &[u8]) -> bool {
        self.write_media(AUDIO_CHUNK_STREAM, MessageType::Audio, timestamp_ms, tag)
    }

    /// Writes `@setDataFrame` with `onMetaData`, likewise.
    pub fn write_metadata(&mut self, metadata: &Value) -> bool {
        let mut body = BytesMut::new();
        amf0::write(&mut body, &Value::string("@setDataFrame"));
        amf0::write(&mut body, &Value::string("onMetaData"));
        amf0::write(&mut body, metadata);
        self.write_media(AUDIO_CHUNK_STREAM, MessageType::DataAmf0, 0, &body)
    }

    /// Ends the publish in order: FCUnpublish and deleteStream, as encoders do. The driver sends the output and closes.
    pub fn unpublish(&mut self) {
        let State::Publishing { stream_id } = self.state else { return };
        let name = Value::string(self.publication.stream.as_str());
        self.call(0, "FCUnpublish", transaction::FC_UNPUBLISH, &[Value::Null, name]);
        let id = Value::Number(stream_id.into());
        self.call(0, "deleteStream", transaction::DELETE_STREAM, &[Value::Null, id]);
        self.state = State::Ended;
    }

    fn write_media(&mut self, chunk_stream_id: u32, message_type: MessageType, timestamp_ms: u32, body: &[u8]) -> bool {
        let State::Publishing { stream_id } = self.state else { return false };
        self.writer.write(&mut self.output, chunk_stream_id, message_type, timestamp_ms, stream_id, body);
        true
    }

    fn shake_hands(&mut self, input: &mut &[u8]) -> Result<(), HandshakeError> {
        let State::Handshake(received) = &mut self.state else { return Ok(()) };
        let wanted = 1 + 2 * PACKET_BYTES - received.len();
        let (bytes, rest) = input.split_at(input.len().min(wanted));
        received.extend_from_slice(bytes);
        *input = rest;
        if let Some(&version) = received.first().filter(|&&version| version != 3) {
            return Err(HandshakeError::UnsupportedVersion(version));
        }
        if bytes.len() == wanted {
            // C2 repeats S1.
            self.output.put_slice(&received[1..=PACKET_BYTES]);
            self.state = State::Asking;
            self.connect();
        }
        Ok(())
    }

    fn connect(&mut self) {
        let Publication { tc_url, app, flash_ver, chunk_size, .. } = &self.publication;
        let object = Value::object([
            ("app", Value::string(app.as_str())),
            ("type", Value::string("nonprivate")),
            ("flashVer", Value::string(flash_ver.as_str())),
            ("tcUrl", Value::string(tc_url.as_str())),
        ]);
        self.writer.set_chunk_size(&mut self.output, *chunk_size);
        self.call(0, "connect", transaction::CONNECT, &[object]);
    }

    fn on_message(&mut self, message: &Message, sink: &mut impl FnMut(ClientEvent)) {
        let Body::Kept(body) = &message.body else { return };
        // ffmpeg's server sends `onFCPublish` without a transaction number; what is no command is no answer either.
        let Ok(command) = Command::parse(body) else { return };
        let transaction_id = command.transaction_id as u32;
        let information = command.arguments.get(1);
        let text = |name| information.and_then(|info| info.get(name)).and_then(Value::as_str).unwrap_or_default();
        match (command.name.as_str(), transaction_id) {
            ("_result", transaction::CONNECT) => {
                let name = Value::string(self.publication.stream.as_str());
                self.call(0, "releaseStream", transaction::RELEASE_STREAM, &[Value::Null, name.clone()]);
                self.call(0, "FCPublish", transaction::FC_PUBLISH, &[Value::Null, name]);
                self.call(0, "createStream", transaction::CREATE_STREAM, &[Value::Null]);
            }
            ("_result", transaction::CREATE_STREAM) => {
                let stream_id = command.number().unwrap_or(1.0) as u32;
                let name = Value::string(self.publication.stream.as_str());
                let arguments = [Value::Null, name, Value::string("live")];
                let body = command::body("publish", transaction::PUBLISH.into(), &arguments);
                let out = &mut self.output;
                self.writer.write(out, PUBLISH_CHUNK_STREAM, MessageType::CommandAmf0, 0, stream_id, &body);
            }
            ("onStatus", _) if text("code") == status::PUBLISH_START => {
                self.state = State::Publishing { stream_id: message.header.stream_id };
                sink(ClientEvent::Publishing);
            }
            ("onStatus", _) if text("level") == "error" => self.refused(text("code"), text("description"), sink),
            ("_error", transaction::CONNECT | transaction::CREATE_STREAM | transaction::PUBLISH) => {
                self.refused(text("code"), text("description"), sink);
            }
            _ => {}
        }
    }

    fn refused(&mut self, code: &str, description: &str, sink: &mut impl FnMut(ClientEvent)) {
        self.state = State::Ended;
        sink(ClientEvent::Refused { code: code.into(), description: description.into() });
    }

    fn call(&mut self, stream_id: u32, name: &str, transaction_id: u32, arguments: &[Value]) {
        let body = command::body(name, transaction_id.into(), arguments);
        let out = &mut self.output;
        self.writer.write(out, COMMAND_CHUNK_STREAM, MessageType::CommandAmf0, 0, stream_id, &body);
    }
}
