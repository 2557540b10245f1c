//! Pictures as planes of samples, between decoder and encoder.

use framehook_render_wire::{Chroma, ColourMatrix, ColourRange, Orientation, PictureFacts, SampleAspect, Size};

/// A sample in memory: one byte for 8 bits, two for more.
pub(crate) trait Sample: Copy + Default + Into<i32> + Into<u32> {
    /// The resizer's type of a pixel with one such component.
    type Pixel: fast_image_resize::PixelTrait;

    /// The bytes of samples, as the resizer takes them.
    fn bytes(samples: &[Self]) -> &[u8];
    fn bytes_mut(samples: &mut [Self]) -> &mut [u8];
}

impl Sample for u8 {
    type Pixel = fast_image_resize::pixels::U8;

    fn bytes(samples: &[Self]) -> &[u8] {
        samples
    }

    fn bytes_mut(samples: &mut [Self]) -> &mut [u8] {
        samples
    }
}

impl Sample for u16 {
    type Pixel = fast_image_resize::pixels::U16;

    fn bytes(samples: &[Self]) -> &[u8] {
        // SAFETY: any two bytes make a u16 and the other way round, and bytes need no alignment.
        unsafe { std::slice::from_raw_parts(samples.as_ptr().cast(), size_of_val(samples)) }
    }

    fn bytes_mut(samples: &mut [Self]) -> &mut [u8] {
        // SAFETY: as above; the borrow of `samples` lasts as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(samples.as_mut_ptr().cast(), size_of_val(samples)) }
    }
}

/// A borrowed plane: `height` rows, each beginning `stride` samples after the last and `width` of them meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plane<'a, T> {
    pub(crate) samples: &'a [T],
    pub(crate) stride: usize,
    pub(crate) size: Size,
}

impl<'a, T> Plane<'a, T> {
    /// `None` when the samples do not cover the size.
    pub(crate) fn new(samples: &'a [T], stride: usize, size: Size) -> Option<Self> {
        let covered = stride >= size.width as usize && samples.len() >= stride.checked_mul(size.height as usize)?;
        let some = size.width > 0 && size.height > 0;
        (covered && some).then_some(Self { samples: &samples[..stride * size.height as usize], stride, size })
    }

    /// A row without its padding. Panics below the last one.
    pub(crate) fn row(&self, index: usize) -> &'a [T] {
        &self.samples[index * self.stride..][..self.size.width as usize]
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &'a [T]> + use<'a, T> {
        let width = self.size.width as usize;
        self.samples.chunks_exact(self.stride).map(move |row| &row[..width])
    }
}

/// A plane of our own, without padding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnedPlane<T> {
    pub(crate) samples: Vec<T>,
    pub(crate) size: Size,
}

impl<T: Copy + Default> OwnedPlane<T> {
    /// All samples zero.
    pub(crate) fn new(size: Size) -> Result<Self, OutOfMemory> {
        let count = size.width as usize * size.height as usize;
        let mut samples = Vec::new();
        samples.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
        samples.resize(count, T::default());
        Ok(Self { samples, size })
    }

    pub(crate) fn as_plane(&self) -> Plane<'_, T> {
        Plane { samples: &self.samples, stride: self.size.width as usize, size: self.size }
    }

    pub(crate) fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [T]> {
        self.samples.chunks_exact_mut(self.size.width as usize)
    }
}

/// The worker's address space is bounded; a picture that does not fit is given up instead of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of memory")]
pub(crate) struct OutOfMemory;

/// A whole picture of samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes<'a, T> {
    pub(crate) luma: Plane<'a, T>,
    /// Cb and Cr, of equal size.
    pub(crate) chroma: [Plane<'a, T>; 2],
}

/// Size of a chroma plane: halves are rounded up.
pub(crate) fn chroma_size(luma: Size, chroma: Chroma) -> Size {
    match chroma {
        Chroma::C420 => Size::new(luma.width.div_ceil(2), luma.height.div_ceil(2)),
        Chroma::C422 => Size::new(luma.width.div_ceil(2), luma.height),
        Chroma::C444 => luma,
    }
}

/// A decoded picture of either sample width.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyPlanes<'a> {
    Narrow(Planes<'a, u8>),
    /// Samples of 9 bits or more, in the low bits.
    Wide(Planes<'a, u16>),
}

/// A decoded picture and what its bitstream says of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) planes: AnyPlanes<'a>,
    pub(crate) size: Size,
    pub(crate) chroma: Chroma,
    pub(crate) bit_depth: u8,
    pub(crate) matrix: MatrixTag,
    /// `None` when the bitstream does not say.
    pub(crate) range: Option<ColourRange>,
    pub(crate) transfer: Transfer,
    pub(crate) sample_aspect: SampleAspect,
    pub(crate) orientation: Orientation,
    pub(crate) interlaced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatrixTag {
    Known(ColourMatrix),
    Unspecified,
    /// A code point of ITU-T H.273 that nothing here converts.
    Other(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    Sdr,
    Pq,
    Hlg,
}

/// Height from which an untagged picture is taken for BT.709: what is smaller is taken for a descendant of standard
/// definition television.
const UNTAGGED_BT709_HEIGHT: u32 = 720;

impl Picture<'_> {
    /// The facts of this picture, with what it does not say filled in. `Err` carries the matrix that is not known here.
    pub(crate) fn facts(&self) -> Result<PictureFacts, u32> {
        let (matrix, matrix_tagged) = match self.matrix {
            MatrixTag::Known(matrix) => (matrix, true),
            MatrixTag::Unspecified if self.size.height >= UNTAGGED_BT709_HEIGHT => (ColourMatrix::Bt709, false),
            MatrixTag::Unspecified => (ColourMatrix::Bt601, false),
            MatrixTag::Other(code) => return Err(code),
        };
        Ok(PictureFacts {
            size: self.size,
            sample_aspect: self.sample_aspect,
            orientation: self.orientation,
            matrix,
            matrix_tagged,
            range: self.range.unwrap_or(ColourRange::Limited),
            chroma: self.chroma,
            bit_depth: self.bit_depth,
            interlaced: self.interlaced,
        })
    }
}
