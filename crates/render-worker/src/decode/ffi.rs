//! The other side of `shim.h`, in step with it by hand: see there for what each item means.

use std::ffi::{c_char, c_int};

pub(super) const FH_OK: c_int = 0;
pub(super) const FH_CORRUPT: c_int = 1;
pub(super) const FH_NO_PICTURE: c_int = 2;
pub(super) const FH_NO_MEMORY: c_int = 3;
pub(super) const FH_UNSUPPORTED: c_int = 4;

pub(super) const FH_H264: c_int = 1;

pub(super) const FH_RANGE_LIMITED: u32 = 1;
pub(super) const FH_RANGE_FULL: u32 = 2;

#[repr(C)]
pub(super) struct FhPicture {
    pub(super) data: [*const u8; 3],
    pub(super) bytes: [usize; 3],
    pub(super) stride: [usize; 3],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) depth: u32,
    pub(super) log2_chroma_w: u32,
    pub(super) log2_chroma_h: u32,
    pub(super) matrix: u32,
    pub(super) transfer: u32,
    pub(super) range: u32,
    pub(super) sar_num: u32,
    pub(super) sar_den: u32,
    pub(super) interlaced: u32,
    pub(super) has_display_matrix: u32,
    pub(super) display_matrix: [i32; 4],
}

/// Only ever behind a pointer.
#[repr(C)]
pub(super) struct FhDecoder {
    private: [u8; 0],
}

unsafe extern "C" {
    pub(super) fn fh_library() -> *const c_char;
    pub(super) fn fh_quiet();
    pub(super) fn fh_has_decoder(codec: c_int) -> c_int;
    pub(super) fn fh_open(
        codec: c_int,
        config: *const u8,
        config_bytes: usize,
        pixels_max: i64,
        out: *mut *mut FhDecoder,
    ) -> c_int;
    pub(super) fn fh_decode(
        decoder: *mut FhDecoder,
        unit: *const u8,
        unit_bytes: usize,
        background: c_int,
        out: *mut FhPicture,
    ) -> c_int;
    pub(super) fn fh_close(decoder: *mut FhDecoder);
}
