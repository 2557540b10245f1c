//! Images from planes: one encoder for each format, kept from one picture to the next where it has something to keep.

mod avif;
mod jpeg;
mod png;
mod webp;

use std::ops::Deref;

use framehook_render_wire::{ColourRange, ImageFormat, Size};
use turbojpeg::OwnedBuf;

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
}

/// An encoded image.
pub(crate) enum ImageBytes {
    /// In memory of libjpeg-turbo's.
    Turbo(OwnedBuf),
    Own(Vec<u8>),
}

impl Deref for ImageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Turbo(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
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

    /// Encodes luma, Cb and Cr, in the form that [`Intake::of`] says; `quality` is 1 to 100.
    pub(crate) fn encode(
        &mut self,
        format: ImageFormat,
        planes: [Plane<'_, u8>; 3],
        quality: u8,
    ) -> Result<ImageBytes, EncodeError> {
        Ok(match format {
            ImageFormat::Jpeg => ImageBytes::Turbo(self.jpeg.encode(planes, quality)?),
            ImageFormat::Png => ImageBytes::Own(png::encode(planes)?),
            ImageFormat::Webp => ImageBytes::Own(webp::encode(planes, quality)?),
            ImageFormat::Avif => ImageBytes::Own(avif::encode(planes, quality)?),
        })
    }
}
