use alloc::string::String;

use framehook_media::amf0::Value;

/// Longest encoder name that is kept, in bytes. OBS writes 60.
const ENCODER_BYTES_MAX: usize = 128;

/// Facts from `onMetaData`, for display only: the publisher's claims, and some encoders get them wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamMetadata {
    /// Pixels.
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// Pictures per second, above zero.
    pub frame_rate: Option<f64>,
    /// Kilobits per second.
    pub video_kbps: Option<f64>,
    /// The encoder's name and version, cut at 128 bytes.
    pub encoder: Option<String>,
}

impl StreamMetadata {
    /// Takes the facts out of the object; everything else in it is ignored, and so are values that make no sense.
    pub(crate) fn from_value(metadata: &Value) -> Self {
        let number =
            |name| metadata.get(name).and_then(Value::as_number).filter(|value| value.is_finite() && *value > 0.0);
        // Float to integer saturates; nobody believes these, so a picture four billion pixels wide harms nobody.
        let pixels = |name| number(name).map(|value| value as u32);
        Self {
            width: pixels("width"),
            height: pixels("height"),
            frame_rate: number("framerate"),
            video_kbps: number("videodatarate"),
            encoder: metadata
                .get("encoder")
                .and_then(Value::as_str)
                .map(|name| String::from(&name[..name.floor_char_boundary(ENCODER_BYTES_MAX)])),
        }
    }
}
