/// What one connection may cost. Every value bounds something that the peer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest audio, video or unknown message, in bytes; checked when its header announces it, also for messages that
    /// would be skipped. The largest keyframe we have seen from an encoder (2160p, 40 Mbit/s) is 1.6 MiB; five times
    /// that covers bad encoders.
    pub media_message_bytes_max: u32,
    /// Longest command or data message, in bytes. A `connect` with every property that encoders send is under 2 KiB, a
    /// query string may have 4 KiB, `onMetaData` with cue points stays under 16 KiB. Parsed AMF0 takes up to 32 times
    /// its input, so this also keeps that at 2 MiB, for the moment of parsing.
    pub command_message_bytes_max: u32,
    /// Command and data bytes, together, before a publish is accepted. Encoders send 1 to 3 KiB.
    pub unpublished_bytes_max: u32,
    /// Chunk stream ids in use. RTMP has 65,597; encoders use two to six.
    pub chunk_streams_max: usize,
    /// Unfinished messages that are being kept. Encoders interleave two at most (audio within video, and audio is
    /// skipped), a metadata message makes three.
    pub partial_messages_max: usize,
    /// Bytes reserved for unfinished kept messages: one of the largest kind and a few small ones. Memory is touched
    /// only as bytes arrive.
    pub pinned_bytes_max: usize,
    /// Replies that the peer has not read. Each is at most a few hundred bytes; a peer that sends pings and reads nothing
    /// would otherwise grow this without end.
    pub output_bytes_max: usize,
}

impl Limits {
    /// What suits every encoder we know.
    pub const DEFAULT: Self = Self {
        media_message_bytes_max: 8 << 20,
        command_message_bytes_max: 64 << 10,
        unpublished_bytes_max: 64 << 10,
        chunk_streams_max: 32,
        partial_messages_max: 4,
        pinned_bytes_max: 9 << 20,
        output_bytes_max: 64 << 10,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
