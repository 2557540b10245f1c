//! What a stored picture is by its own header, in the formats that a template can ask for.

use imagesize::{Compression, ImageType};

/// Its usual extension; `None` if it is none of those formats.
pub(crate) fn extension(picture: &[u8]) -> Option<&'static str> {
    match imagesize::image_type(picture).ok()? {
        ImageType::Jpeg => Some("jpg"),
        ImageType::Png => Some("png"),
        ImageType::Webp => Some("webp"),
        ImageType::Heif(Compression::Av1) => Some("avif"),
        _ => None,
    }
}

/// Width and height in pixels; `None` if it is none of those formats, or ends before its header does.
pub(crate) fn size(picture: &[u8]) -> Option<(u64, u64)> {
    extension(picture)?;
    let size = imagesize::blob_size(picture).ok()?;
    Some((size.width as u64, size.height as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JPEG: &[u8] =
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc4\x00\x03x\xff\xc0\x00\x0b\x08\x01\x68\x02\x80\x01\x01\x11\x00";
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x02\x80\x00\x00\x01\x68\x08\x02\x00\x00\x00";

    #[test]
    fn reads_format_and_size() {
        for (picture, expected) in [(JPEG, "jpg"), (PNG, "png")] {
            assert_eq!((extension(picture), size(picture)), (Some(expected), Some((640, 360))));
        }
    }

    #[test]
    fn what_is_cut_off_or_another_format_has_no_size() {
        for picture in [JPEG, PNG] {
            for len in 0..16 {
                assert_eq!(size(&picture[..len]), None, "{len} bytes of {:?}", extension(picture));
            }
        }
        assert_eq!(extension(b"GIF89a\x80\x02\x68\x01"), None);
        assert_eq!(size(b"\xff\xd8\xff\xe0\x00\x00"), None, "a segment of length 0 must not loop");
    }
}
