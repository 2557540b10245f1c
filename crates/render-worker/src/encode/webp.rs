//! Lossy WebP from planes, by libwebp.

use std::mem::MaybeUninit;

use framehook_render_wire::Size;
use libwebp_sys::{
    WEBP_MAX_DIMENSION, WebPConfig, WebPEncCSP, WebPEncode, WebPMemoryWrite, WebPMemoryWriter, WebPMemoryWriterClear,
    WebPMemoryWriterInit, WebPPicture, WebPPreset,
};

use super::EncodeError;
use crate::picture::Plane;

/// How hard libwebp tries, 0 to 6.
const METHOD: i32 = 2;

/// Encodes limited-range BT.601 in 4:2:0.
pub(super) fn encode([luma, cb, cr]: [Plane<'_, u8>; 3], quality: u8) -> Result<Vec<u8>, EncodeError> {
    let Size { width, height } = luma.size;
    if width.max(height) > WEBP_MAX_DIMENSION {
        return Err(EncodeError::TooLarge { format: "WebP", size: luma.size });
    }
    let abi = |()| EncodeError::Webp(0);
    let mut config = WebPConfig::new_with_preset(WebPPreset::WEBP_PRESET_DEFAULT, f32::from(quality)).map_err(abi)?;
    config.method = METHOD;
    let mut picture = WebPPicture::new().map_err(abi)?;
    picture.use_argb = 0;
    picture.colorspace = WebPEncCSP::WEBP_YUV420;
    (picture.width, picture.height) = (width as i32, height as i32);
    // libwebp reads planes of its caller's and does not write to them.
    (picture.y, picture.u, picture.v) =
        (luma.samples.as_ptr().cast_mut(), cb.samples.as_ptr().cast_mut(), cr.samples.as_ptr().cast_mut());
    (picture.y_stride, picture.uv_stride) = (luma.stride as i32, cb.stride as i32);
    debug_assert!(cb.stride == cr.stride && cb.size == cr.size);

    let mut file = Memory::new();
    picture.writer = Some(WebPMemoryWrite);
    picture.custom_ptr = (&raw mut file.0).cast();
    // SAFETY: both structs were made by the library for this version of it. The planes cover the size: luma has `height`
    // rows of `y_stride`, chroma half of both rounded up, and they outlive the call. The writer gets what it was made for.
    // The picture owns no memory, so it needs no freeing.
    let done = unsafe { WebPEncode(&config, &mut picture) };
    if done == 0 {
        return Err(EncodeError::Webp(picture.error_code as u32));
    }
    Ok(file.bytes().to_vec())
}

/// What libwebp has written, in memory of its own.
struct Memory(WebPMemoryWriter);

impl Memory {
    fn new() -> Self {
        let mut writer = MaybeUninit::uninit();
        // SAFETY: it fills in every field.
        unsafe { WebPMemoryWriterInit(writer.as_mut_ptr()) };
        // SAFETY: as above.
        Self(unsafe { writer.assume_init() })
    }

    fn bytes(&self) -> &[u8] {
        if self.0.mem.is_null() {
            return &[];
        }
        // SAFETY: the library wrote `size` bytes there.
        unsafe { std::slice::from_raw_parts(self.0.mem, self.0.size) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it frees what the library allocated, or nothing.
        unsafe { WebPMemoryWriterClear(&mut self.0) };
    }
}
