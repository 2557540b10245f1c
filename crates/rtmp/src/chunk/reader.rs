use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, ChunkError,
    header::{ChunkHeader, HEADER_BYTES_MAX, HeaderFields},
};
use crate::{
    Bound, Error, Limits,
    message::{Body, HEAD_BYTES, Head, Message, MessageHeader, MessageType},
};

/// What becomes of a message whose first bytes have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Gather it into one buffer.
    Keep,
    /// Count its bytes and forget them.
    Skip,
}

/// Takes chunks apart. Bytes that are skipped are never copied; kept ones are copied once, into a buffer of the length
/// that the message announced.
///
/// Set Chunk Size and Abort concern chunks, so they end here; all other messages are handed out.
#[derive(Debug)]
pub struct ChunkReader {
    limits: Limits,
    chunk_size: u32,
    /// In order of appearance. A linear search: encoders use two to six, and `limits` bounds the rest.
    streams: Vec<ChunkStream>,
    /// The chunk whose payload comes next, or `None` before a header.
    open: Option<OpenChunk>,
    /// Bytes of a header that was not complete at the end of an input.
    pending: Pending,
    /// Kept messages in progress, and the capacity reserved for them.
    partial_messages: usize,
    pinned_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct OpenChunk {
    stream: usize,
    /// Payload of this chunk that has not arrived.
    left: u32,
}

/// What one chunk stream remembers between its chunks.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    fields: HeaderFields,
    /// Time of the last message, on which the next difference builds.
    timestamp_ms: u32,
    message: Option<Partial>,
}

/// A message that is arriving.
#[derive(Debug)]
struct Partial {
    header: MessageHeader,
    received: u32,
    head: Head,
    decided: bool,
    /// Its body, if it is being kept.
    kept: Option<Vec<u8>>,
}

/// At most one chunk header and never more than what was pushed.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl ChunkReader {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunk_size: CHUNK_SIZE_DEFAULT,
            streams: Vec::new(),
            open: None,
            pending: Pending::default(),
            partial_messages: 0,
            pinned_bytes: 0,
        }
    }

    /// Capacity reserved for kept messages in progress.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// How many bytes of the wire are to come at least before a message that is being kept is whole: of the one that lacks
    /// the fewest. `None` while none is.
    pub(crate) fn missing_bytes(&self) -> Option<usize> {
        let kept =
            self.streams.iter().filter_map(|stream| stream.message.as_ref()).filter(|partial| partial.kept.is_some());
        let missing = kept.map(|partial| (partial.header.len - partial.received) as usize).min()?;
        // What waits for the rest of a header may be payload already.
        Some(missing.saturating_sub(self.pending.len).max(1))
    }

    /// Reads up to the end of the next message and moves `input` behind what was read. `Ok(None)` when the input is used
    /// up. `decide` sees the header and the first [`HEAD_BYTES`] bytes of each message (all of a shorter one), once.
    /// Control messages are not asked about: all of them fit into the head.
    ///
    /// # Errors
    /// [`Error::Chunk`], [`Error::ControlLength`] or [`Error::Exceeded`]. The reader must not be used after one.
    pub fn read(
        &mut self,
        input: &mut &[u8],
        mut decide: impl FnMut(&MessageHeader, &[u8]) -> Fate,
    ) -> Result<Option<Message>, Error> {
        loop {
            let open = match self.open {
                Some(open) => open,
                None => match self.next_header(input)? {
                    Some(header) => self.open_chunk(&header)?,
                    None => return Ok(None),
                },
            };
            let Some(message) = self.read_payload(open, input, &mut decide)? else {
                if self.open.is_some() {
                    return Ok(None);
                }
                continue;
            };
            match message.control_value() {
                Some((MessageType::SetChunkSize, size)) => self.set_chunk_size(size)?,
                Some((MessageType::Abort, chunk_stream_id)) => self.abort(chunk_stream_id),
                _ => return Ok(Some(message)),
            }
        }
    }

    /// The next chunk header, if enough bytes are there. What is missing of one waits in `pending`.
    fn next_header(&mut self, input: &mut &[u8]) -> Result<Option<ChunkHeader>, Error> {
        let streams = &self.streams;
        let remembered = |id| streams.iter().find(|stream| stream.id == id).map(|stream| stream.fields);
        if self.pending.len == 0 {
            if let Some(header) = ChunkHeader::parse(input, remembered)? {
                *input = &input[header.used..];
                return Ok(Some(header));
            }
            self.pending.push(input);
            *input = &[];
            return Ok(None);
        }
        let waiting = self.pending.len;
        let taken = self.pending.push(input);
        let Some(header) = ChunkHeader::parse(&self.pending.bytes[..self.pending.len], remembered)? else {
            *input = &input[taken..];
            return Ok(None);
        };
        // The look ahead for a repeated timestamp may have found payload instead, part of it from an earlier input.
        // That part stays pending; what came from this input goes back to it.
        self.pending.len = waiting;
        self.pending.consume(header.used.min(waiting));
        *input = &input[header.used.saturating_sub(waiting)..];
        Ok(Some(header))
    }

    fn open_chunk(&mut self, chunk: &ChunkHeader) -> Result<OpenChunk, Error> {
        let index = match self.streams.iter().position(|stream| stream.id == chunk.chunk_stream_id) {
            Some(index) => index,
            None => {
                Bound::ChunkStreams.check(self.streams.len() + 1, self.limits.chunk_streams_max)?;
                let (id, fields) = (chunk.chunk_stream_id, HeaderFields::default());
                self.streams.push(ChunkStream { id, fields, timestamp_ms: 0, message: None });
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[index];
        let partial = match &stream.message {
            Some(partial) if chunk.format == 3 => partial,
            Some(partial) => {
                let missing = partial.header.len - partial.received;
                return Err(ChunkError::HeaderInsideMessage { chunk_stream_id: stream.id, missing }.into());
            }
            None => {
                // After a type 0, a type 3 that starts a message takes the absolute time for a difference. That is what
                // the specification says (5.3.1.2.4), and what ffmpeg and OBS (since 30.2) mean by it.
                let base = if chunk.format == 0 { 0 } else { stream.timestamp_ms };
                stream.timestamp_ms = base.wrapping_add(chunk.fields.timestamp);
                stream.fields = chunk.fields;
                let header = chunk.fields.message_header(stream.timestamp_ms);
                check_length(&header, &self.limits)?;
                stream.message.insert(Partial {
                    header,
                    received: 0,
                    head: Head::default(),
                    decided: false,
                    kept: None,
                })
            }
        };
        let left = (partial.header.len - partial.received).min(self.chunk_size);
        let open = OpenChunk { stream: index, left };
        self.open = Some(open);
        Ok(open)
    }

    /// Takes payload of the open chunk. Returns the message if that was its end; leaves `open` set if input ran out.
    fn read_payload(
        &mut self,
        open: OpenChunk,
        input: &mut &[u8],
        decide: &mut impl FnMut(&MessageHeader, &[u8]) -> Fate,
    ) -> Result<Option<Message>, Error> {
        let mut left = open.left;
        if self.pending.len > 0 {
            let Pending { bytes, len } = self.pending;
            let taken = len.min(left as usize);
            self.pending.consume(taken);
            self.take(open.stream, &bytes[..taken], decide)?;
            left -= taken as u32;
        }
        let (payload, rest) = input.split_at(input.len().min(left as usize));
        *input = rest;
        self.take(open.stream, payload, decide)?;
        left -= payload.len() as u32;
        if left > 0 {
            self.open = Some(OpenChunk { left, ..open });
            return Ok(None);
        }
        self.open = None;
        let message = &mut self.streams[open.stream].message;
        Ok(message.take_if(|partial| partial.received == partial.header.len).map(|partial| self.finish(partial)))
    }

    /// Adds payload to the message of a chunk stream, and decides its fate once its head is complete.
    fn take(
        &mut self,
        stream: usize,
        mut payload: &[u8],
        decide: &mut impl FnMut(&MessageHeader, &[u8]) -> Fate,
    ) -> Result<(), Error> {
        let partial = self.streams[stream].message.as_mut().expect("an open chunk belongs to a message");
        partial.received += payload.len() as u32;
        if !partial.decided {
            let head_bytes = HEAD_BYTES.min(partial.header.len as usize);
            payload = &payload[partial.head.fill(payload, head_bytes)..];
            let head = partial.head.bytes();
            partial.decided = head.len() == head_bytes;
            let control = partial.header.message_type.control_bytes().is_some();
            if partial.decided && !control && decide(&partial.header, head) == Fate::Keep {
                let capacity = partial.header.len as usize;
                Bound::PartialMessages.check(self.partial_messages + 1, self.limits.partial_messages_max)?;
                Bound::PinnedBytes.check(self.pinned_bytes + capacity, self.limits.pinned_bytes_max)?;
                self.partial_messages += 1;
                self.pinned_bytes += capacity;
                // One reservation of the announced length: it is bounded, and the allocator gives fresh pages for a
                // large one, which cost nothing until bytes arrive.
                let mut kept = Vec::with_capacity(capacity);
                kept.extend_from_slice(head);
                partial.kept = Some(kept);
            }
        }
        if let Some(kept) = &mut partial.kept {
            kept.extend_from_slice(payload);
        }
        Ok(())
    }

    fn finish(&mut self, partial: Partial) -> Message {
        self.unpin(&partial);
        let body = match partial.kept {
            Some(kept) => Body::Kept(Bytes::from(kept)),
            None => Body::Skipped(partial.head),
        };
        Message { header: partial.header, body }
    }

    /// Takes a message that is no longer in progress off the account.
    fn unpin(&mut self, partial: &Partial) {
        if partial.kept.is_some() {
            self.partial_messages -= 1;
            self.pinned_bytes -= partial.header.len as usize;
        }
    }

    /// Forgets the unfinished message of a chunk stream (5.4.2). There is nothing to forget if it has none.
    fn abort(&mut self, chunk_stream_id: u32) {
        let aborted = self.streams.iter_mut().find(|stream| stream.id == chunk_stream_id);
        if let Some(partial) = aborted.and_then(|stream| stream.message.take()) {
            self.unpin(&partial);
        }
    }

    fn set_chunk_size(&mut self, size: u32) -> Result<(), ChunkError> {
        if !(1..=0x7fff_ffff).contains(&size) {
            return Err(ChunkError::InvalidChunkSize(size));
        }
        self.chunk_size = size.min(CHUNK_SIZE_MAX);
        Ok(())
    }
}

impl Pending {
    /// Takes as much as fits, and says how much that was.
    fn push(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(HEADER_BYTES_MAX - self.len);
        self.bytes[self.len..self.len + taken].copy_from_slice(&input[..taken]);
        self.len += taken;
        taken
    }

    fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

/// The length that a message announces, before anything is reserved for it.
fn check_length(header: &MessageHeader, limits: &Limits) -> Result<(), Error> {
    use MessageType::*;
    let MessageHeader { message_type, len, .. } = *header;
    match (message_type, message_type.control_bytes()) {
        (_, Some(expected)) if len != expected => {
            Err(Error::ControlLength { message_type: message_type.id(), bytes: len, expected })
        }
        (UserControl | CommandAmf0 | CommandAmf3 | DataAmf0 | DataAmf3, _) => {
            Bound::CommandMessageBytes.check(len, limits.command_message_bytes_max)
        }
        _ => Bound::MediaMessageBytes.check(len, limits.media_message_bytes_max),
    }
}
