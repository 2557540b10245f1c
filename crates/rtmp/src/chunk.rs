//! Chunks: messages cut into fragments, with headers that leave out what did not change (RTMP 1.0, 5.3).

mod header;
mod reader;
mod writer;

pub use self::{
    reader::{ChunkReader, Fate},
    writer::ChunkWriter,
};

/// Chunk size in both directions until a Set Chunk Size message (5.4.1).
pub const CHUNK_SIZE_DEFAULT: u32 = 128;
/// No message is longer than its 24-bit length field, so no larger chunk size means anything (5.4.1).
pub const CHUNK_SIZE_MAX: u32 = 0x00ff_ffff;
/// The value of a 24-bit timestamp that says that 32 bits follow.
const TIMESTAMP_EXTENDED: u32 = 0x00ff_ffff;

/// The chunk stream of protocol control messages (5.4).
pub const CONTROL_CHUNK_STREAM: u32 = 2;
/// The one on which all encoders send commands.
pub const COMMAND_CHUNK_STREAM: u32 = 3;

/// Why bytes are not chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Usually the peer lost count of its own chunks, or the connection was damaged on the way.
    #[error("chunk of type {format} on chunk stream {chunk_stream_id}, which has no message to refer to")]
    NothingToReferTo { chunk_stream_id: u32, format: u8 },
    #[error("message header on chunk stream {chunk_stream_id} while {missing} bytes of the last message are missing")]
    HeaderInsideMessage { chunk_stream_id: u32, missing: u32 },
    #[error("chunk size {0} is not between 1 and 2147483647")]
    InvalidChunkSize(u32),
}
