//! A safe layer over one libavcodec decoder: a unit in, a whole picture or a reason out.

mod ffi;

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

use framehook_render_wire::{
    Chroma, Codec, ColourMatrix, ColourRange, Orientation, PICTURE_PIXELS_MAX, SampleAspect, Size,
};

use crate::orientation::orientation_of;
use crate::picture::{AnyPlanes, MatrixTag, Picture, Plane, Planes, Sample, Transfer, chroma_size};

/// Every codec whose decoder's word about damage has been put to the test. Only these are decoded.
const TABLE: &[(Codec, c_int)] = &[(Codec::H264, ffi::FH_H264)];

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the decoder found damage")]
    Corrupt,
    #[error("the decoder put no picture out")]
    NoPicture,
    #[error("the decoder ran out of memory")]
    OutOfMemory,
    #[error("no decoder for {0:?}")]
    UnsupportedCodec(Codec),
    #[error("the decoder or its output format is not supported")]
    UnsupportedFormat,
    #[error("the decoder failed ({0})")]
    Internal(&'static str),
}

fn code_of(codec: Codec) -> Option<c_int> {
    TABLE.iter().find(|(known, _)| *known == codec).map(|(_, code)| *code)
}

/// The codecs of this build: those of the table that the linked library has.
pub(crate) fn codecs() -> Vec<Codec> {
    // SAFETY: takes a number and only looks it up.
    let linked = |code: c_int| unsafe { ffi::fh_has_decoder(code) } != 0;
    TABLE.iter().filter(|(_, code)| linked(*code)).map(|(codec, _)| *codec).collect()
}

/// Name and version of the library.
pub(crate) fn library() -> String {
    // SAFETY: gives a terminated string that lives as long as the process; called from the only thread.
    unsafe { CStr::from_ptr(ffi::fh_library()) }.to_string_lossy().into_owned()
}

/// Keeps the library from writing log lines that a bitstream can provoke.
pub(crate) fn silence_library() {
    // SAFETY: sets one global of the library; called from the only thread.
    unsafe { ffi::fh_quiet() }
}

/// What the picture's memory holds before the decoder paints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Background {
    /// Whatever is there: for pictures of which the decoder tells when a part was not painted.
    Any,
    Filled(u8),
}

/// One open decoder, good for units of one config.
#[derive(Debug)]
pub(crate) struct Decoder {
    raw: NonNull<ffi::FhDecoder>,
}

impl Decoder {
    pub(crate) fn open(codec: Codec, config: &[u8]) -> Result<Self, DecodeError> {
        let code = code_of(codec).ok_or(DecodeError::UnsupportedCodec(codec))?;
        let mut raw = ptr::null_mut();
        // SAFETY: the config is read only during the call and its length is given; `raw` is written on success.
        let result =
            unsafe { ffi::fh_open(code, config.as_ptr(), config.len(), i64::from(PICTURE_PIXELS_MAX), &raw mut raw) };
        check(result)?;
        NonNull::new(raw).map(|raw| Self { raw }).ok_or(DecodeError::Internal("no decoder"))
    }

    /// Decodes one unit from a fresh start: no picture of an earlier unit is remembered. The picture borrows the decoder.
    ///
    /// # Errors
    /// [`DecodeError`], also for pictures that came out with damage.
    pub(crate) fn decode(&mut self, unit: &[u8], background: Background) -> Result<Picture<'_>, DecodeError> {
        let background = match background {
            Background::Any => -1,
            Background::Filled(byte) => c_int::from(byte),
        };
        let mut raw = ffi::FhPicture {
            data: [ptr::null(); 3],
            bytes: [0; 3],
            stride: [0; 3],
            width: 0,
            height: 0,
            depth: 0,
            log2_chroma_w: 0,
            log2_chroma_h: 0,
            matrix: 0,
            transfer: 0,
            range: 0,
            sar_num: 0,
            sar_den: 1,
            interlaced: 0,
            has_display_matrix: 0,
            display_matrix: [0; 4],
        };
        // SAFETY: the decoder is open and ours alone, the unit is read only during the call and its length is given.
        let result = unsafe { ffi::fh_decode(self.raw.as_ptr(), unit.as_ptr(), unit.len(), background, &raw mut raw) };
        check(result)?;
        picture(&raw, self)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once, and no picture can still borrow it.
        unsafe { ffi::fh_close(self.raw.as_ptr()) }
    }
}

fn check(result: c_int) -> Result<(), DecodeError> {
    match result {
        ffi::FH_OK => Ok(()),
        ffi::FH_CORRUPT => Err(DecodeError::Corrupt),
        ffi::FH_NO_PICTURE => Err(DecodeError::NoPicture),
        ffi::FH_NO_MEMORY => Err(DecodeError::OutOfMemory),
        ffi::FH_UNSUPPORTED => Err(DecodeError::UnsupportedFormat),
        _ => Err(DecodeError::Internal("unexpected answer")),
    }
}

/// What `raw` describes, for as long as the decoder that holds the picture stays borrowed.
fn picture<'a>(raw: &ffi::FhPicture, holder: &'a Decoder) -> Result<Picture<'a>, DecodeError> {
    let size = Size::new(raw.width, raw.height);
    let chroma = match (raw.log2_chroma_w, raw.log2_chroma_h) {
        (1, 1) => Chroma::C420,
        (1, 0) => Chroma::C422,
        (0, 0) => Chroma::C444,
        _ => return Err(DecodeError::UnsupportedFormat),
    };
    // Depths in between exist in the standard, but no encoder at hand makes them, so they are not known to come out right.
    let planes = match raw.depth {
        8 => planes(raw, holder, size, chroma).map(AnyPlanes::Narrow),
        10 => planes(raw, holder, size, chroma).map(AnyPlanes::Wide),
        _ => return Err(DecodeError::UnsupportedFormat),
    };
    let matrix = match raw.matrix {
        1 => MatrixTag::Known(ColourMatrix::Bt709),
        5 | 6 => MatrixTag::Known(ColourMatrix::Bt601),
        9 => MatrixTag::Known(ColourMatrix::Bt2020),
        2 => MatrixTag::Unspecified,
        other => MatrixTag::Other(other),
    };
    let transfer = match raw.transfer {
        16 => Transfer::Pq,
        18 => Transfer::Hlg,
        _ => Transfer::Sdr,
    };
    let range = match raw.range {
        ffi::FH_RANGE_LIMITED => Some(ColourRange::Limited),
        ffi::FH_RANGE_FULL => Some(ColourRange::Full),
        _ => None,
    };
    Ok(Picture {
        planes: planes.ok_or(DecodeError::Internal("a plane is smaller than its picture"))?,
        size,
        chroma,
        bit_depth: raw.depth as u8,
        matrix,
        range,
        transfer,
        sample_aspect: SampleAspect::new(raw.sar_num, raw.sar_den).unwrap_or(SampleAspect::SQUARE),
        orientation: if raw.has_display_matrix != 0 {
            orientation_of(raw.display_matrix)
        } else {
            Orientation::UPRIGHT
        },
        interlaced: raw.interlaced != 0,
    })
}

fn planes<'a, T: Sample>(
    raw: &ffi::FhPicture,
    _holder: &'a Decoder,
    size: Size,
    chroma: Chroma,
) -> Option<Planes<'a, T>> {
    let plane = |index: usize, size: Size| {
        let width = size_of::<T>();
        let aligned = raw.data[index].addr().is_multiple_of(align_of::<T>()) && raw.stride[index].is_multiple_of(width);
        if raw.data[index].is_null() || !aligned {
            return None;
        }
        // SAFETY: `bytes` bytes from `data` on lie in one buffer of the frame that the decoder holds until its next call,
        // for which it must be borrowed anew; the pointer is not null and aligned for T, and any bytes make a Sample.
        let samples: &'a [T] =
            unsafe { std::slice::from_raw_parts(raw.data[index].cast::<T>(), raw.bytes[index] / width) };
        Plane::new(samples, raw.stride[index] / width, size)
    };
    let chroma_size = chroma_size(size, chroma);
    Some(Planes { luma: plane(0, size)?, chroma: [plane(1, chroma_size)?, plane(2, chroma_size)?] })
}
