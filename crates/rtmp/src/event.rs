use alloc::{boxed::Box, string::String, sync::Arc};

use framehook_media::{
    AccessUnit, DecoderConfig,
    avcc::AvccError,
    flv::{AudioCodec, VideoCodec},
};

use crate::StreamMetadata;

/// What the session tells its driver, in the order of the wire.
#[derive(Clone, Debug)]
pub enum Event {
    /// The peer wants to publish. The driver answers with [`Session::accept_publish`](crate::Session::accept_publish) or
    /// [`refuse_publish`](crate::Session::refuse_publish); until then media is dropped in silence, except that a config
    /// or metadata that comes early is reported, because it will not come again.
    Publish(Box<PublishRequest>),
    /// `onMetaData` that differs from the one before: what the encoder says about itself.
    Metadata(Box<StreamMetadata>),
    /// A decoder config that differs from the one before.
    Config(Arc<DecoderConfig>),
    /// A config that cannot be read. There are no entry points until a good one comes.
    BadConfig(AvccError),
    /// A picture from which decoding may start, by its bitstream and not only by the container's claim.
    EntryPoint(AccessUnit),
    /// Media that was counted and not kept.
    Media(Media),
    /// The video is in a codec of which we make no pictures. Told once, and again when the codec changes.
    UnsupportedVideo(VideoCodec),
    /// The peer ended its publish in an orderly way. It may publish again on the same connection.
    Unpublish { by: UnpublishedBy },
}

/// What `connect` and `publish` said, raw and untrusted: nothing is split, decoded or checked but for being UTF-8 and
/// short enough for [`Limits::command_message_bytes_max`](crate::Limits::command_message_bytes_max).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// Server address as typed into the encoder, `rtmp://host[:port]/app[?query]`.
    pub tc_url: String,
    /// Path of the same, as the encoder took it apart; some leave a query or a slash on it.
    pub app: String,
    /// Publish name with its query: a secret if the query is a signature.
    pub stream: String,
}

/// One media message that was counted and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    pub kind: MediaKind,
    /// Ms since the publisher's own zero, 32 bits; pass it through [`Unwrap`](framehook_media::time::Unwrap).
    pub timestamp_ms: u32,
    /// Length of the message in bytes.
    pub len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// `None` for an empty message, which some encoders send to keep audio alive.
    Audio { codec: Option<AudioCodec> },
    /// A coded picture. `keyframe` is the container's claim.
    Picture { codec: VideoCodec, keyframe: bool },
    /// Any other video message: a decoder config that says nothing new or belongs to no codec of ours, the end of a
    /// sequence, or one too short to name its codec (`None`).
    Video { codec: Option<VideoCodec> },
    /// Data other than `onMetaData`, or `onMetaData` that cannot be read or says nothing new.
    Data,
}

/// Which command ended a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnpublishedBy {
    FcUnpublish,
    DeleteStream,
    CloseStream,
}
