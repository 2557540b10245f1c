//! Images from planes: one encoder for each format, kept from one picture to the next where it has something to keep.

mod avif;
mod jpeg;
mod png;
mod webp;

use framehook_render_wire::{ColourRange, ImageFormat, Size};

use self::jpeg::JpegEncoder;
use crate::picture::{OutOfMemory, Plane};

/// Writes images of every format.
pub(crate) struct Encoder {
    jpeg: JpegEncoder,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// None of the libraries has a reason to, for planes that fit together.
    #[error("JPEG encoder: {0}")]
    Jpeg(#[from] turbojpeg::Error),
    #[error("PNG encoder: {0}")]
    Png(#[from] ::png::EncodingError),
    #[error("WebP encoder: error {0}")]
    Webp(u32),
    #[error("AVIF encoder: {0}")]
    Avif(String),
    /// Larger than the format, or our use of it, allows.
    #[error("{}x{} pixels are too many for {format}", size.width, size.height)]
    TooLarge { format: &'static str, size: Size },
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error("the image does not fit into the {bytes} bytes that are left")]
    NoRoom { bytes: usize },
}

/// In what form a format takes its pictures; all in the BT.601 matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intake {
    pub(crate) range: ColourRange,
    /// Chroma is halved both ways.
    pub(crate) halves_chroma: bool,
}

impl Intake {
    pub(crate) fn of(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Jpeg | ImageFormat::Avif => Self { range: ColourRange::Full, halves_chroma: true },
            // VP8 knows nothing else (RFC 6386, 9.2).
            ImageFormat::Webp => Self { range: ColourRange::Limited, halves_chroma: true },
            // On its way to R'G'B'.
            ImageFormat::Png => Self { range: ColourRange::Full, halves_chroma: false },
        }
    }
}

impl Encoder {
    pub(crate) fn new() -> Result<Self, EncodeError> {
        Ok(Self { jpeg: JpegEncoder::new()? })
    }

    /// Encodes luma, Cb and Cr, in the form that [`Intake::of`] says, to the beginning of the room, and tells how many bytes the
    /// image has; `quality` is 1 to 100.
    pub(crate) fn encode(
        &mut self,
        format: ImageFormat,
        planes: [Plane<'_, u8>; 3],
        quality: u8,
        room: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let image = match format {
            // The format of nearly all pictures is written where it is wanted; the others take far longer than a copy.
            ImageFormat::Jpeg => return self.jpeg.encode(planes, quality, room),
            ImageFormat::Png => png::encode(planes)?,
            ImageFormat::Webp => webp::encode(planes, quality)?,
            ImageFormat::Avif => avif::encode(planes, quality)?,
        };
        let bytes = room.len();
        room.get_mut(..image.len()).ok_or(EncodeError::NoRoom { bytes })?.copy_from_slice(&image);
        Ok(image.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::OwnedPlane;

    #[test]
    fn an_image_takes_what_it_needs_of_the_room_and_less_room_is_refused() {
        // Busy enough for images of thousands of bytes.
        let noise = |size| {
            let mut plane = OwnedPlane::<u8>::new(size).expect("memory");
            let mut state = 1_u32;
            plane.samples.fill_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            });
            plane
        };
        let [luma, half] = [Size::new(64, 48), Size::new(32, 24)].map(noise);
        let mut encoder = Encoder::new().expect("an encoder");
        for format in ImageFormat::ALL {
            let chroma = if Intake::of(format).halves_chroma { &half } else { &luma };
            let planes = [&luma, chroma, chroma].map(OwnedPlane::as_plane);
            let mut room = [0xaa; 20_000];
            let bytes = encoder.encode(format, planes, 85, &mut room).expect("room enough");
            assert!(bytes > 2000 && room[bytes..].iter().all(|&byte| byte == 0xaa), "{format:?}: {bytes}");
            // libjpeg wants to go on when its room is full, whether or not there is more to write.
            let mut tight = vec![0; bytes + 1];
            assert_eq!(encoder.encode(format, planes, 85, &mut tight).expect("just room enough"), bytes, "{format:?}");
            assert_eq!(tight[..bytes], room[..bytes], "{format:?}");
            for bytes in [bytes - 1, bytes / 2, 50, 0] {
                let refused = encoder.encode(format, planes, 85, &mut tight[..bytes]).expect_err("no room");
                assert!(
                    matches!(refused, EncodeError::NoRoom { bytes: named } if named == bytes),
                    "{format:?}: {refused}"
                );
            }
            assert_eq!(encoder.encode(format, planes, 85, &mut tight).expect("room again"), bytes, "{format:?}");
            assert_eq!(tight[..bytes], room[..bytes], "{format:?}");
        }
    }
}
