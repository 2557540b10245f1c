//! The first bytes of an FLV video or audio tag's body, which is also the body of an RTMP message of type 9 or 8.
//!
//! Only the header is read; the coded data behind it stays where it is. That is what lets ingest decide at the first
//! bytes of a message whether the rest is worth keeping.

use crate::Codec;

/// As many leading bytes of a tag as decide what it is: 1 for flags, 4 for the FourCC, 3 for the composition time.
/// A tag that needs more (only `ModEx` does, in front of the FourCC) is reported as [`VideoPacket::Other`].
pub const HEADER_BYTES_MAX: usize = 8;

/// What a video tag says about itself before its coded data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoTag {
    pub codec: VideoCodec,
    /// The container's claim that a decoder may start here. Also set on the decoder config, which is no picture.
    pub keyframe: bool,
    pub packet: VideoPacket,
    /// Where the payload starts, in bytes from the start of the tag.
    pub header_len: usize,
}

/// Codec of a video tag, named if we know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    Known(Codec),
    /// `CodecID` of annex E.4.3.1 that is none of ours (2 is Sorenson H.263, 4 and 5 are VP6).
    Legacy(u8),
    /// Enhanced RTMP's FourCC, as it stands on the wire.
    FourCc([u8; 4]),
    /// The tag names none: a command frame, or several tracks with a codec each.
    Unnamed,
}

/// What the payload of a video tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoPacket {
    /// The decoder config (`SequenceStart`, legacy "AVC sequence header").
    Config,
    /// One coded picture.
    Picture,
    /// The publisher says that this sequence ended.
    End,
    /// HDR metadata, further tracks, commands: nothing a picture is made of.
    Other,
}

impl VideoTag {
    /// Reads the header from the tag's first bytes; [`HEADER_BYTES_MAX`] of them are always enough.
    ///
    /// `None` means that `tag` is too short. If the tag ends there, it is truncated.
    pub fn parse(tag: &[u8]) -> Option<Self> {
        let flags = *tag.first()?;
        // Bit 7 is Enhanced RTMP's IsExHeader, so the frame type has three bits. 1 is a keyframe, 4 a "generated
        // keyframe" that servers alone may write; 5 is a command frame and carries no picture.
        let frame_type = flags >> 4 & 7;
        if flags & 0x80 != 0 { Self::parse_enhanced(tag, frame_type) } else { Self::parse_legacy(tag, frame_type) }
    }

    /// Annex E.4.3.1. Codec ids 12 and 13 are not Adobe's: they are what Chinese CDNs and their encoders have agreed on.
    fn parse_legacy(tag: &[u8], frame_type: u8) -> Option<Self> {
        let keyframe = frame_type == 1;
        let codec = match tag[0] & 0x0f {
            7 => Codec::H264,
            12 => Codec::Hevc,
            13 => Codec::Av1,
            other => {
                let (codec, packet) = (VideoCodec::Legacy(other), VideoPacket::Picture);
                return Some(Self { codec, keyframe, packet, header_len: 1 });
            }
        };
        let codec = VideoCodec::Known(codec);
        if frame_type == 5 {
            return Some(Self { codec, keyframe, packet: VideoPacket::Other, header_len: 1 });
        }
        // Packet type and composition time.
        let [packet_type, _, _, _] = *tag.get(1..)?.first_chunk()?;
        let packet = match packet_type {
            0 => VideoPacket::Config,
            1 => VideoPacket::Picture,
            2 => VideoPacket::End,
            _ => VideoPacket::Other,
        };
        Some(Self { codec, keyframe, packet, header_len: 5 })
    }

    /// Enhanced RTMP v2, "Enhanced Video".
    fn parse_enhanced(tag: &[u8], frame_type: u8) -> Option<Self> {
        const MULTITRACK: u8 = 6;
        const MOD_EX: u8 = 7;
        let keyframe = frame_type == 1;
        let packet_type = tag[0] & 0x0f;
        let other = Self { codec: VideoCodec::Unnamed, keyframe, packet: VideoPacket::Other, header_len: 1 };
        // A command frame has one more byte and no FourCC. Further tracks are copies of the main one in other sizes.
        // ModEx puts nanosecond offsets in front; no encoder we know sends it, and without it the header is bounded.
        if matches!(packet_type, MULTITRACK | MOD_EX) || frame_type == 5 && packet_type != 4 {
            return Some(other);
        }
        let four_cc = *tag.get(1..)?.first_chunk::<4>()?;
        let codec = VideoCodec::from_four_cc(four_cc);
        // Only codecs with reordered pictures have the composition time on the wire; CodedFramesX leaves it out.
        let has_composition_time = matches!(codec, VideoCodec::Known(Codec::H264 | Codec::Hevc));
        let (packet, header_len) = match packet_type {
            0 => (VideoPacket::Config, 5),
            1 if has_composition_time => {
                tag.get(5..8)?;
                (VideoPacket::Picture, 8)
            }
            1 | 3 => (VideoPacket::Picture, 5),
            2 => (VideoPacket::End, 5),
            _ => (VideoPacket::Other, 5),
        };
        Some(Self { codec, keyframe, packet, header_len })
    }
}

impl VideoCodec {
    fn from_four_cc(four_cc: [u8; 4]) -> Self {
        match &four_cc {
            b"avc1" => Self::Known(Codec::H264),
            b"hvc1" => Self::Known(Codec::Hevc),
            b"av01" => Self::Known(Codec::Av1),
            b"vp09" => Self::Known(Codec::Vp9),
            _ => Self::FourCc(four_cc),
        }
    }
}

impl core::fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Known(codec) => f.write_str(codec.name()),
            Self::Legacy(2) => f.write_str("h263"),
            Self::Legacy(3 | 6) => f.write_str("screen video"),
            Self::Legacy(4 | 5) => f.write_str("vp6"),
            Self::Legacy(id) => write!(f, "FLV video codec {id}"),
            Self::FourCc(four_cc) => write!(f, "FourCC {}", four_cc.escape_ascii()),
            Self::Unnamed => f.write_str("unnamed"),
        }
    }
}

/// Codec of an audio tag. Nothing decodes it: audio only shows that a stream is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AudioCodec {
    /// `SoundFormat` of annex E.4.2.1: 10 is AAC, 2 is MP3.
    Legacy(u8),
    FourCc([u8; 4]),
}

impl AudioCodec {
    /// Reads the codec from the tag's first bytes; five are always enough. `None` means that `tag` is too short.
    pub fn parse(tag: &[u8]) -> Option<Self> {
        // 9 was reserved until Enhanced RTMP took it for "a FourCC follows".
        match *tag.first()? >> 4 {
            9 => Some(Self::FourCc(*tag.get(1..)?.first_chunk()?)),
            format => Some(Self::Legacy(format)),
        }
    }
}

impl core::fmt::Display for AudioCodec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Legacy(2 | 14) | Self::FourCc([b'.', b'm', b'p', b'3']) => f.write_str("mp3"),
            Self::Legacy(7) => f.write_str("g711a"),
            Self::Legacy(8) => f.write_str("g711u"),
            Self::Legacy(10) | Self::FourCc([b'm', b'p', b'4', b'a']) => f.write_str("aac"),
            Self::Legacy(11) => f.write_str("speex"),
            Self::FourCc([b'O', b'p', b'u', b's']) => f.write_str("opus"),
            Self::Legacy(id) => write!(f, "FLV audio codec {id}"),
            Self::FourCc(four_cc) => write!(f, "FourCC {}", four_cc.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picture(codec: Codec, keyframe: bool, header_len: usize) -> VideoTag {
        VideoTag { codec: VideoCodec::Known(codec), keyframe, packet: VideoPacket::Picture, header_len }
    }

    fn packet(codec: VideoCodec, keyframe: bool, packet: VideoPacket, header_len: usize) -> VideoTag {
        VideoTag { codec, keyframe, packet, header_len }
    }

    #[test]
    fn reads_video_tag_headers() {
        use Codec::*;
        use VideoCodec::{FourCc, Known, Legacy, Unnamed};
        use VideoPacket::*;
        let cases: &[(&str, &[u8], VideoTag)] = &[
            ("avcC", b"\x17\0\0\0\0\x01\x64", packet(Known(H264), true, Config, 5)),
            ("IDR", b"\x17\x01\0\0\x50\0\0", picture(H264, true, 5)),
            ("inter picture", b"\x27\x01\0\0\0", picture(H264, false, 5)),
            ("end of sequence", b"\x17\x02\0\0\0", packet(Known(H264), true, End, 5)),
            ("unknown AVC packet type", b"\x17\x09\0\0\0", packet(Known(H264), true, Other, 5)),
            ("command frame", b"\x57\x00", packet(Known(H264), false, Other, 1)),
            ("HEVC by codec id 12", b"\x1c\0\0\0\0", packet(Known(Hevc), true, Config, 5)),
            ("Sorenson H.263", b"\x12", packet(Legacy(2), true, Picture, 1)),
            ("E-RTMP hvcC", b"\x90hvc1\x01", packet(Known(Hevc), true, Config, 5)),
            ("E-RTMP HEVC keyframe", b"\x91hvc1\0\0\x50", picture(Hevc, true, 8)),
            ("E-RTMP HEVC without composition time", b"\xa3hvc1\0\0\x50", picture(Hevc, false, 5)),
            ("E-RTMP AV1 has no composition time", b"\x91av01\x12\0", picture(Av1, true, 5)),
            ("E-RTMP VP9 end", b"\x92vp09", packet(Known(Vp9), true, End, 5)),
            ("E-RTMP avc1", b"\x91avc1\xff\xff\xff", picture(H264, true, 8)),
            ("E-RTMP HDR metadata", b"\x94hvc1\x02", packet(Known(Hevc), true, Other, 5)),
            ("E-RTMP unknown FourCC", b"\x91vvc1", packet(FourCc(*b"vvc1"), true, Picture, 5)),
            ("E-RTMP multitrack", b"\x96\x10hvc1", packet(Unnamed, true, Other, 1)),
            ("E-RTMP ModEx", b"\x97\x02", packet(Unnamed, true, Other, 1)),
            ("E-RTMP command", b"\xd0\x00", packet(Unnamed, false, Other, 1)),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(VideoTag::parse(bytes), Some(*expected), "{name}");
            assert!(VideoTag::parse(&bytes[..expected.header_len - 1]).is_none(), "{name}, truncated");
        }
    }

    #[test]
    fn reads_audio_codecs() {
        assert_eq!(AudioCodec::parse(b"\xaf\x01"), Some(AudioCodec::Legacy(10)));
        assert_eq!(AudioCodec::parse(b"\x90Opus"), Some(AudioCodec::FourCc(*b"Opus")));
        assert_eq!(AudioCodec::parse(b"\x90Opu"), None);
        assert_eq!(AudioCodec::parse(b""), None);
    }

    proptest! {
        #[test]
        fn the_first_eight_bytes_decide(tag in proptest::collection::vec(any::<u8>(), HEADER_BYTES_MAX..40)) {
            let parsed = VideoTag::parse(&tag);
            prop_assert!(parsed.is_some());
            prop_assert_eq!(VideoTag::parse(&tag[..HEADER_BYTES_MAX]), parsed);
            prop_assert!(parsed.unwrap().header_len <= HEADER_BYTES_MAX);
        }
    }
}
