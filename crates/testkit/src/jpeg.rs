//! Decodes the JPEG files that Framehook stores, with a decoder that shares no code with its encoder.

use anyhow::{Context, Result, anyhow};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::picture::Picture;

/// Decodes to RGB as a browser would: BT.601, full range.
///
/// # Errors
/// When the bytes are not a whole, well-formed JPEG file.
pub fn decode(jpeg: &[u8]) -> Result<Picture> {
    let options = DecoderOptions::new_safe().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let rgb = decoder.decode().map_err(|error| anyhow!("{error:?}")).context("decode a JPEG")?;
    let (width, height) = decoder.dimensions().context("a decoded JPEG has a size")?;
    Picture::new(width, height, rgb)
}
