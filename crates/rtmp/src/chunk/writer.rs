use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use super::{CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, CONTROL_CHUNK_STREAM, TIMESTAMP_EXTENDED};
use crate::message::{MessageHeader, MessageType};

/// Cuts messages into chunks, with the shortest header that every reader understands alike.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: u32,
    streams: Vec<Written>,
}

/// The last message on a chunk stream.
#[derive(Debug)]
struct Written {
    chunk_stream_id: u32,
    header: MessageHeader,
    /// Difference to the message before; `None` after an absolute time, where readers disagree on what a repetition
    /// would mean.
    delta_ms: Option<u32>,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self { chunk_size: CHUNK_SIZE_DEFAULT, streams: Vec::new() }
    }
}

impl ChunkWriter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces another chunk size and uses it from the next message on. Clamped to 1..=[`CHUNK_SIZE_MAX`].
    pub fn set_chunk_size(&mut self, out: &mut BytesMut, size: u32) {
        let size = size.clamp(1, CHUNK_SIZE_MAX);
        self.write_control(out, MessageType::SetChunkSize, &size.to_be_bytes());
        self.chunk_size = size;
    }

    /// Writes a protocol or user control message.
    pub fn write_control(&mut self, out: &mut BytesMut, message_type: MessageType, body: &[u8]) {
        self.write(out, CONTROL_CHUNK_STREAM, message_type, 0, 0, body);
    }

    /// Writes one message as consecutive chunks.
    ///
    /// # Panics
    /// If `chunk_stream_id` is not within 2..=65,599 or `body` is longer than 24 bits can say.
    pub fn write(
        &mut self,
        out: &mut BytesMut,
        chunk_stream_id: u32,
        message_type: MessageType,
        timestamp_ms: u32,
        stream_id: u32,
        body: &[u8],
    ) {
        assert!((2..=65_599).contains(&chunk_stream_id), "chunk stream ids are 2 to 65,599");
        assert!(body.len() <= CHUNK_SIZE_MAX as usize, "the message length has 24 bits");
        let len = body.len() as u32;
        let header = MessageHeader { message_type, timestamp_ms, len, stream_id };
        let (format, timestamp) = self.choose_format(chunk_stream_id, &header);

        let chunks = body.len().div_ceil(self.chunk_size as usize).max(1);
        out.reserve(body.len() + 18 + (chunks - 1) * 7);
        put_basic_header(out, format, chunk_stream_id);
        let extended = timestamp >= TIMESTAMP_EXTENDED;
        if format < 3 {
            out.put_uint(timestamp.min(TIMESTAMP_EXTENDED).into(), 3);
        }
        if format < 2 {
            out.put_uint(len.into(), 3);
            out.put_u8(message_type.id());
        }
        if format < 1 {
            out.put_u32_le(stream_id);
        }
        if extended {
            out.put_u32(timestamp);
        }
        for (index, payload) in body.chunks(self.chunk_size as usize).enumerate() {
            if index > 0 {
                put_basic_header(out, 3, chunk_stream_id);
                if extended {
                    out.put_u32(timestamp);
                }
            }
            out.put_slice(payload);
        }
    }

    /// The chunk type and its timestamp field: absolute for type 0, else the difference.
    fn choose_format(&mut self, chunk_stream_id: u32, header: &MessageHeader) -> (u8, u32) {
        let Some(last) = self.streams.iter_mut().find(|stream| stream.chunk_stream_id == chunk_stream_id) else {
            self.streams.push(Written { chunk_stream_id, header: *header, delta_ms: None });
            return (0, header.timestamp_ms);
        };
        let delta_ms = header.timestamp_ms.wrapping_sub(last.header.timestamp_ms);
        // A step back cannot be said as a difference, and across the wrap it is the same number.
        let forward = delta_ms.cast_signed() >= 0;
        let format = if !forward || header.stream_id != last.header.stream_id {
            0
        } else if (header.len, header.message_type) != (last.header.len, last.header.message_type) {
            1
        } else if Some(delta_ms) != last.delta_ms {
            2
        } else {
            3
        };
        *last = Written { chunk_stream_id, header: *header, delta_ms: (format > 0).then_some(delta_ms) };
        (format, if format == 0 { header.timestamp_ms } else { delta_ms })
    }
}

fn put_basic_header(out: &mut BytesMut, format: u8, chunk_stream_id: u32) {
    let format = format << 6;
    match chunk_stream_id {
        2..=63 => out.put_u8(format | chunk_stream_id as u8),
        64..=319 => out.put_slice(&[format, (chunk_stream_id - 64) as u8]),
        _ => {
            out.put_u8(format | 1);
            out.put_u16_le((chunk_stream_id - 64) as u16);
        }
    }
}
