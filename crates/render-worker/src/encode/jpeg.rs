//! JPEG from planes.

use framehook_render_wire::Size;
use turbojpeg::{Compressor, Error, Subsamp, YuvPlanesImage};

use super::EncodeError;
use crate::picture::{OutOfMemory, OwnedPlane, Plane};

/// What the library says when an image does not fit, of which its binding makes no error of its own.
const NO_ROOM: &str = "Buffer passed to JPEG library is too small";

/// Writes JFIF: baseline, 4:2:0, density 1:1.
pub(crate) struct JpegEncoder {
    compressor: Compressor,
}

impl JpegEncoder {
    pub(crate) fn new() -> Result<Self, EncodeError> {
        Ok(Self { compressor: Compressor::new()? })
    }

    /// Encodes luma, Cb and Cr as JFIF means them, chroma halved both ways; `quality` is 1 to 100. Tells how many bytes of the
    /// room the image takes.
    pub(crate) fn encode(
        &mut self,
        [luma, cb, cr]: [Plane<'_, u8>; 3],
        quality: u8,
        room: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let Size { width, height } = luma.size;
        let evened = evened(luma)?;
        let luma = evened.as_ref().map_or(luma, OwnedPlane::as_plane);
        let image = YuvPlanesImage {
            y_plane: luma.samples,
            u_plane: cb.samples,
            v_plane: cr.samples,
            width: width as usize,
            height: height as usize,
            y_stride: luma.stride,
            u_stride: cb.stride,
            v_stride: cr.stride,
            subsamp: Subsamp::Sub2x2,
        };
        self.compressor.set_quality(quality.into())?;
        let bytes = room.len();
        self.compressor.compress_yuv_planes_to_slice(&image, room).map_err(|error| match error {
            Error::TurboJpegError(text) if text == NO_ROOM => EncodeError::NoRoom { bytes },
            error => error.into(),
        })
    }
}

/// A copy with even sides, the last column and row repeated: the library reads luma beside every chroma sample. `None`
/// when the sides are even already.
fn evened(luma: Plane<'_, u8>) -> Result<Option<OwnedPlane<u8>>, OutOfMemory> {
    let even = Size::new(luma.size.width.next_multiple_of(2), luma.size.height.next_multiple_of(2));
    if even == luma.size {
        return Ok(None);
    }
    let mut copy = OwnedPlane::new(even)?;
    let last = luma.rows().last();
    for (from, to) in luma.rows().chain(last).zip(copy.rows_mut()) {
        let (beside, rest) = to.split_at_mut(from.len());
        beside.copy_from_slice(from);
        rest.fill(from[from.len() - 1]);
    }
    Ok(Some(copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sides_are_evened_with_what_is_beside() {
        let luma = Plane::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 3, Size::new(3, 3)).expect("nine samples");
        let copy = evened(luma).expect("fits").expect("odd sides");
        assert_eq!(copy.samples, [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 7, 8, 9, 9]);
        let even = Plane::new(&[1, 2, 0, 3, 4, 0], 3, Size::new(2, 2)).expect("two rows");
        assert!(evened(even).expect("fits").is_none());
    }
}
