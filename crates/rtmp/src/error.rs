use framehook_media::amf0::Amf0Error;

use crate::{chunk::ChunkError, handshake::HandshakeError};

/// Why a connection must end. All of them are the peer's doing. The session is over after any of these: it takes no
/// more input, and what it still has to say (a status that names the error) is in its output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("command cannot be read")]
    Command(#[source] Amf0Error),
    #[error("command message does not begin with a name and a number")]
    NotACommand,
    /// A command that makes no sense at this point, as `publish` before `connect`.
    #[error("unexpected command {name}")]
    UnexpectedCommand { name: &'static str },
    #[error("connect command has no {property}")]
    IncompleteConnect { property: &'static str },
    #[error("control message of type {message_type} has {bytes} bytes, {expected} are right")]
    ControlLength { message_type: u8, bytes: u32, expected: u32 },
    /// Aggregates (type 22) are made by servers for players. No encoder sends them, so nothing here takes them apart.
    #[error("aggregate messages are not accepted")]
    AggregateMessage,
    #[error("{bound} {value} exceeds {max}")]
    Exceeded { bound: Bound, value: u64, max: u64 },
}

/// The limit that a peer passed; the field of [`crate::Limits`] with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    MediaMessageBytes,
    CommandMessageBytes,
    UnpublishedBytes,
    ChunkStreams,
    PartialMessages,
    PinnedBytes,
    OutputBytes,
}

impl Bound {
    pub const fn name(self) -> &'static str {
        match self {
            Self::MediaMessageBytes => "media_message_bytes",
            Self::CommandMessageBytes => "command_message_bytes",
            Self::UnpublishedBytes => "unpublished_bytes",
            Self::ChunkStreams => "chunk_streams",
            Self::PartialMessages => "partial_messages",
            Self::PinnedBytes => "pinned_bytes",
            Self::OutputBytes => "output_bytes",
        }
    }

    pub(crate) fn check(self, value: impl TryInto<u64>, max: impl TryInto<u64>) -> Result<(), Error> {
        let value = value.try_into().unwrap_or(u64::MAX);
        let max = max.try_into().unwrap_or(u64::MAX);
        if value <= max { Ok(()) } else { Err(Error::Exceeded { bound: self, value, max }) }
    }
}

impl core::fmt::Display for Bound {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// A word for metric labels: stable, and one of a few dozen.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::Chunk(_) => "chunk",
            Self::Command(_) | Self::NotACommand | Self::IncompleteConnect { .. } => "command",
            Self::UnexpectedCommand { .. } => "unexpected_command",
            Self::ControlLength { .. } => "control_length",
            Self::AggregateMessage => "aggregate_message",
            Self::Exceeded { bound, .. } => bound.name(),
        }
    }
}
