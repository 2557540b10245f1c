//! What travels in chunks: message types (RTMP 1.0, 5.4, 6.2 and 7.1) and the bodies of control messages.

use bytes::Bytes;

/// Message type id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    SetChunkSize,
    Abort,
    Acknowledgement,
    UserControl,
    WindowAckSize,
    SetPeerBandwidth,
    Audio,
    Video,
    /// AMF0 behind one zero byte, from clients that speak AMF3.
    DataAmf3,
    SharedObjectAmf3,
    /// AMF0 behind one zero byte, likewise.
    CommandAmf3,
    DataAmf0,
    SharedObjectAmf0,
    CommandAmf0,
    Aggregate,
    Other(u8),
}

impl MessageType {
    pub const fn from_id(id: u8) -> Self {
        match id {
            1 => Self::SetChunkSize,
            2 => Self::Abort,
            3 => Self::Acknowledgement,
            4 => Self::UserControl,
            5 => Self::WindowAckSize,
            6 => Self::SetPeerBandwidth,
            8 => Self::Audio,
            9 => Self::Video,
            15 => Self::DataAmf3,
            16 => Self::SharedObjectAmf3,
            17 => Self::CommandAmf3,
            18 => Self::DataAmf0,
            19 => Self::SharedObjectAmf0,
            20 => Self::CommandAmf0,
            22 => Self::Aggregate,
            other => Self::Other(other),
        }
    }

    pub const fn id(self) -> u8 {
        match self {
            Self::SetChunkSize => 1,
            Self::Abort => 2,
            Self::Acknowledgement => 3,
            Self::UserControl => 4,
            Self::WindowAckSize => 5,
            Self::SetPeerBandwidth => 6,
            Self::Audio => 8,
            Self::Video => 9,
            Self::DataAmf3 => 15,
            Self::SharedObjectAmf3 => 16,
            Self::CommandAmf3 => 17,
            Self::DataAmf0 => 18,
            Self::SharedObjectAmf0 => 19,
            Self::CommandAmf0 => 20,
            Self::Aggregate => 22,
            Self::Other(id) => id,
        }
    }

    /// The one length that a protocol control message may have.
    pub(crate) const fn control_bytes(self) -> Option<u32> {
        match self {
            Self::SetChunkSize | Self::Abort | Self::Acknowledgement | Self::WindowAckSize => Some(4),
            Self::SetPeerBandwidth => Some(5),
            _ => None,
        }
    }
}

/// What a chunk stream says about a message before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    pub message_type: MessageType,
    /// Ms since the sender's own zero; wraps after 49.7 days.
    pub timestamp_ms: u32,
    /// Bytes of the body; 24 bits on the wire.
    pub len: u32,
    /// Message stream id: 0 for the connection, then what `createStream` returned.
    pub stream_id: u32,
}

/// As many leading bytes of a message as decide whether it is kept: all that any media header has.
pub const HEAD_BYTES: usize = framehook_media::flv::HEADER_BYTES_MAX;

/// A message of which all bytes have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub header: MessageHeader,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Kept(Bytes),
    /// Only the beginning is left.
    Skipped(Head),
}

impl Message {
    /// Type and value of a protocol control message that is one number.
    pub(crate) fn control_value(&self) -> Option<(MessageType, u32)> {
        let message_type = self.header.message_type;
        match (&self.body, message_type.control_bytes()) {
            (Body::Skipped(head), Some(_)) => Some((message_type, u32::from_be_bytes(*head.bytes().first_chunk()?))),
            _ => None,
        }
    }
}

/// The first bytes of a message: [`HEAD_BYTES`], or all of a shorter one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_BYTES],
    len: u8,
}

impl Head {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Takes what is missing up to `target` bytes from `input`, and says how much that was.
    pub(crate) fn fill(&mut self, input: &[u8], target: usize) -> usize {
        let from = usize::from(self.len);
        let taken = target.saturating_sub(from).min(input.len());
        self.bytes[from..from + taken].copy_from_slice(&input[..taken]);
        self.len += taken as u8;
        taken
    }
}

/// User control events that a publisher's connection needs (7.1.7).
pub mod user_control {
    pub const STREAM_BEGIN: u16 = 0;
    pub const PING_REQUEST: u16 = 6;
    pub const PING_RESPONSE: u16 = 7;
}
