use super::{ChunkError, TIMESTAMP_EXTENDED};
use crate::message::{MessageHeader, MessageType};

/// Basic header of 3 bytes, message header of 11, extended timestamp of 4.
pub(super) const HEADER_BYTES_MAX: usize = 18;

/// The header of one chunk, completed with what its chunk stream remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    /// Bytes of the header itself.
    pub(super) used: usize,
    pub(super) chunk_stream_id: u32,
    /// The chunk type, 0 to 3.
    pub(super) format: u8,
    pub(super) fields: HeaderFields,
}

/// What later chunks of the same stream may refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeaderFields {
    /// An absolute time in a chunk of type 0, else the difference to the message before.
    pub(super) timestamp: u32,
    /// Whether `timestamp` needed its extended form.
    pub(super) extended: bool,
    pub(super) len: u32,
    pub(super) type_id: u8,
    pub(super) stream_id: u32,
}

impl HeaderFields {
    pub(super) fn message_header(&self, timestamp_ms: u32) -> MessageHeader {
        let Self { len, type_id, stream_id, .. } = *self;
        MessageHeader { message_type: MessageType::from_id(type_id), timestamp_ms, len, stream_id }
    }
}

impl ChunkHeader {
    /// Reads the header at the start of `bytes`. `remembered` looks up the fields of a chunk stream.
    ///
    /// `Ok(None)` means that more bytes are needed; [`HEADER_BYTES_MAX`] are always enough.
    pub(super) fn parse(
        bytes: &[u8],
        remembered: impl FnOnce(u32) -> Option<HeaderFields>,
    ) -> Result<Option<Self>, ChunkError> {
        let Some((chunk_stream_id, basic_bytes)) = basic_header(bytes) else { return Ok(None) };
        let format = bytes[0] >> 6;
        let mut rest = &bytes[basic_bytes..];
        let before = remembered(chunk_stream_id);
        let mut fields = match (format, before) {
            (_, Some(before)) => before,
            // librtmp opens its control stream with type 1; only the message stream id is unsaid, and there it is 0.
            (0 | 1, None) => HeaderFields::default(),
            (_, None) => return Err(ChunkError::NothingToReferTo { chunk_stream_id, format }),
        };
        let message_bytes = [11, 7, 3, 0][usize::from(format)];
        let Some((message, behind)) = rest.split_at_checked(message_bytes) else { return Ok(None) };
        rest = behind;
        if let [t0, t1, t2, ..] = *message {
            fields.timestamp = u32::from_be_bytes([0, t0, t1, t2]);
            fields.extended = fields.timestamp == TIMESTAMP_EXTENDED;
        }
        if let [_, _, _, l0, l1, l2, type_id, ..] = *message {
            fields.len = u32::from_be_bytes([0, l0, l1, l2]);
            fields.type_id = type_id;
        }
        if let Some(stream_id) = message.get(7..).and_then(|tail| tail.first_chunk()) {
            fields.stream_id = u32::from_le_bytes(*stream_id);
        }
        if fields.extended {
            let Some((extended, behind)) = rest.split_first_chunk() else { return Ok(None) };
            let extended = u32::from_be_bytes(*extended);
            // A chunk of type 3 repeats the extended timestamp. ffmpeg, librtmp and GStreamer do; OBS does since 30.1
            // and did not before. Without it, payload would have to begin with the very four bytes of the timestamp to
            // be misread, so the value itself tells the two apart.
            if format < 3 || extended == fields.timestamp {
                fields.timestamp = extended;
                rest = behind;
            }
        }
        Ok(Some(Self { used: bytes.len() - rest.len(), chunk_stream_id, format, fields }))
    }
}

/// The chunk stream id and the length of the basic header (5.3.1.1).
fn basic_header(bytes: &[u8]) -> Option<(u32, usize)> {
    match (bytes.first()? & 0x3f, bytes) {
        (0, [_, low, ..]) => Some((64 + u32::from(*low), 2)),
        (1, [_, low, high, ..]) => Some((64 + u32::from(*low) + 256 * u32::from(*high), 3)),
        (0 | 1, _) => None,
        (id, _) => Some((id.into(), 1)),
    }
}
