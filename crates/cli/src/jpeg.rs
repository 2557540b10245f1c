//! Reads the size of a JPEG from its frame header (ITU-T T.81, B.2.2).

/// Width and height in pixels; `None` if the bytes are no JPEG or end before their frame header.
pub(crate) fn size(jpeg: &[u8]) -> Option<(u32, u32)> {
    let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let [0xff, marker, len_high, len_low, ..] = *rest else { return None };
        let segment = rest.get(2..2 + usize::from(u16::from_be_bytes([len_high, len_low])))?;
        // SOF0 to SOF15, without DHT, JPG and DAC, which lie between them.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let [height_high, height_low, width_high, width_low] = *segment.get(3..)?.first_chunk()?;
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            return Some((side(width_high, width_low), side(height_high, height_low)));
        }
        rest = &rest[2 + segment.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn reads_the_frame_header_behind_other_segments() {
        let jpeg = [
            b"\xff\xd8\xff\xe0\x00\x04ab".as_slice(),
            b"\xff\xc4\x00\x03x",
            b"\xff\xc0\x00\x0b\x08\x01\x68\x02\x80\x01\x01\x11\x00",
        ]
        .concat();
        assert_eq!(size(&jpeg), Some((640, 360)));
    }

    #[test]
    fn whatever_is_cut_off_or_no_jpeg_has_no_size() {
        let jpeg = b"\xff\xd8\xff\xc0\x00\x0b\x08\x01\x68\x02\x80\x01\x01\x11\x00";
        for len in 0..jpeg.len() - 2 {
            assert_eq!(size(&jpeg[..len]), None, "{len} bytes");
        }
        assert_eq!(size(b"\x89PNG\r\n\x1a\n"), None);
        assert_eq!(size(b"\xff\xd8\xff\xe0\x00\x00"), None, "a segment of length 0 must not loop");
    }
}
