use alloc::{boxed::Box, sync::Arc};

use bytes::Bytes;
use framehook_media::{
    AccessUnit, Codec, DecoderConfig,
    amf0::Value,
    avcc::{self, Avcc, AvccError, LengthSize, RECORD_BYTES_MAX},
    flv::{AudioCodec, VideoCodec, VideoPacket, VideoTag},
    h264,
};

use super::Phase;
use crate::{
    Event, Media, MediaKind, StreamMetadata,
    chunk::Fate,
    command,
    message::{Body, MessageHeader, MessageType},
};

/// What media has said so far, and what of it is kept.
#[derive(Debug)]
pub(super) struct MediaState {
    pub(super) keep_entry_points: bool,
    config: Option<CurrentConfig>,
    /// The last that was told. GStreamer sends the same again several times a second.
    metadata: Option<Box<StreamMetadata>>,
    /// The last one that was told, so that it is told once.
    unsupported: Option<VideoCodec>,
}

#[derive(Debug)]
struct CurrentConfig {
    shared: Arc<DecoderConfig>,
    length_size: LengthSize,
}

impl MediaState {
    pub(super) const fn new() -> Self {
        Self { keep_entry_points: true, config: None, metadata: None, unsupported: None }
    }

    /// Forgets the publish that has ended.
    pub(super) fn reset(&mut self) {
        *self = Self { keep_entry_points: self.keep_entry_points, ..Self::new() };
    }

    /// Decides by its first bytes whether a message is gathered.
    pub(super) fn decide(&self, phase: Phase, header: &MessageHeader, head: &[u8]) -> Fate {
        use MessageType::*;
        let keep = match header.message_type {
            CommandAmf0 | CommandAmf3 | DataAmf0 | DataAmf3 => true,
            Video if matches!(phase, Phase::Decision | Phase::Media) => match VideoTag::parse(head) {
                Some(tag) if tag.codec == VideoCodec::Known(Codec::H264) => match tag.packet {
                    VideoPacket::Config => header.len as usize - tag.header_len <= RECORD_BYTES_MAX,
                    VideoPacket::Picture => {
                        tag.keyframe && self.keep_entry_points && self.config.is_some() && phase == Phase::Media
                    }
                    VideoPacket::End | VideoPacket::Other => false,
                },
                _ => false,
            },
            _ => false,
        };
        if keep { Fate::Keep } else { Fate::Skip }
    }

    pub(super) fn on_data(&mut self, phase: Phase, header: &MessageHeader, body: &[u8], sink: &mut impl FnMut(Event)) {
        if !matches!(phase, Phase::Decision | Phase::Media) {
            return;
        }
        let metadata = on_meta_data(body).map(Box::new);
        if let Some(metadata) = metadata.filter(|metadata| self.metadata.as_ref() != Some(metadata)) {
            self.metadata = Some(metadata.clone());
            sink(Event::Metadata(metadata));
        } else if phase == Phase::Media {
            sink(Event::Media(media(MediaKind::Data, header)));
        }
    }

    pub(super) fn on_media(&mut self, phase: Phase, header: &MessageHeader, body: Body, sink: &mut impl FnMut(Event)) {
        if !matches!(phase, Phase::Decision | Phase::Media) {
            return;
        }
        let head = match &body {
            Body::Kept(bytes) => bytes.as_ref(),
            Body::Skipped(head) => head.bytes(),
        };
        let kind = if header.message_type == MessageType::Audio {
            MediaKind::Audio { codec: AudioCodec::parse(head) }
        } else {
            match VideoTag::parse(head) {
                Some(tag) => match self.on_video(phase, &tag, header, body, sink) {
                    Told::Event => return,
                    Told::Nothing => match tag.packet {
                        VideoPacket::Picture => MediaKind::Picture { codec: tag.codec, keyframe: tag.keyframe },
                        _ => MediaKind::Video { codec: Some(tag.codec) },
                    },
                },
                None => MediaKind::Video { codec: None },
            }
        };
        if phase == Phase::Media {
            sink(Event::Media(media(kind, header)));
        }
    }

    fn on_video(
        &mut self,
        phase: Phase,
        tag: &VideoTag,
        header: &MessageHeader,
        body: Body,
        sink: &mut impl FnMut(Event),
    ) -> Told {
        let payload = match body {
            Body::Kept(bytes) => Some(bytes.slice(tag.header_len..)),
            Body::Skipped(_) => None,
        };
        match (tag.codec, tag.packet) {
            (VideoCodec::Known(Codec::H264), VideoPacket::Config) => {
                self.unsupported = None;
                let bytes = header.len as usize - tag.header_len;
                self.on_config(payload.ok_or(AvccError::TooLong { bytes }), sink)
            }
            (VideoCodec::Known(Codec::H264), VideoPacket::Picture) if phase == Phase::Media => {
                let Some((data, config)) = payload.zip(self.config.as_ref()) else { return Told::Nothing };
                let units = avcc::nal_units(&data, config.length_size).map_while(Result::ok);
                if !h264::is_entry_point(units) {
                    return Told::Nothing;
                }
                let config = config.shared.clone();
                let dts_ms = header.timestamp_ms;
                sink(Event::EntryPoint(AccessUnit { config, data, dts_ms }));
                Told::Event
            }
            (VideoCodec::Known(Codec::H264) | VideoCodec::Unnamed, _) => Told::Nothing,
            (codec, _) => {
                if self.unsupported.replace(codec) != Some(codec) {
                    self.config = None;
                    sink(Event::UnsupportedVideo(codec));
                }
                Told::Nothing
            }
        }
    }

    fn on_config(&mut self, record: Result<Bytes, AvccError>, sink: &mut impl FnMut(Event)) -> Told {
        let parsed = record.and_then(|record| {
            let length_size = Avcc::parse(&record)?.length_size;
            Ok((record, length_size))
        });
        match parsed {
            // Many encoders repeat their config with each keyframe. The one that pictures already share stays.
            Ok((record, _)) if self.config.as_ref().is_some_and(|config| config.shared.record == record) => {
                Told::Nothing
            }
            Ok((record, length_size)) => {
                let shared = Arc::new(DecoderConfig { codec: Codec::H264, record });
                self.config = Some(CurrentConfig { shared: shared.clone(), length_size });
                sink(Event::Config(shared));
                Told::Event
            }
            Err(error) => {
                self.config = None;
                sink(Event::BadConfig(error));
                Told::Event
            }
        }
    }
}

/// Whether a message has become an event of its own, or is left to be counted.
enum Told {
    Event,
    Nothing,
}

fn media(kind: MediaKind, header: &MessageHeader) -> Media {
    Media { kind, timestamp_ms: header.timestamp_ms, len: header.len }
}

/// `onMetaData`, with or without the `@setDataFrame` that asks a server to keep it.
fn on_meta_data(body: &[u8]) -> Option<StreamMetadata> {
    let values = command::parse_amf0(body).ok()?;
    let values = values.strip_prefix(&[Value::string("@setDataFrame")]).unwrap_or(&values);
    match values {
        [name, metadata, ..] if name.as_str() == Some("onMetaData") => Some(StreamMetadata::from_value(metadata)),
        _ => None,
    }
}
