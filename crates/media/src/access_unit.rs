//! One coded picture and what a decoder needs to open it.

use alloc::sync::Arc;

use bytes::Bytes;

/// A video codec that an ingest protocol can announce. Only those the worker's decode table names become pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Vp9,
}

impl Codec {
    /// The name used in metrics, logs and `/v1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
        }
    }
}

/// The decoder config as the container carries it (for H.264 an `AVCDecoderConfigurationRecord`, ISO/IEC 14496-15 5.3.3.1).
/// Hostile until the worker has parsed it; the server reads sizes from it only for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoderConfig {
    pub codec: Codec,
    /// avcC for H.264: this is also libavcodec's extradata for AVCC-framed units.
    pub record: Bytes,
}

/// One entry point of a stream: a coded picture from which decoding may start, with the config it was sent under.
/// The framing of `data` is AVCC (length-prefixed, the prefix size stands in the config), as RTMP carries it.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    pub config: Arc<DecoderConfig>,
    pub data: Bytes,
    /// Decode time in ms since the publisher's own zero; 32 bits on the wire, wraps after 49.7 days.
    pub dts_ms: u32,
}
