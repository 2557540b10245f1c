//! What the bytes of a live stream mean. Pure: bytes in, facts out; no clock, no I/O, no logging.
//!
//! Start from [`AccessUnit`] (one coded picture, ready for a decoder) and [`flv::VideoTag`] (how it arrives over RTMP).
//!
//! Everything here is hostile until parsed: a parser returns an error or a typed fact, never panics, and allocates no
//! more than a small multiple of the bytes it was given.
//!
//! | Module | Specification |
//! |---|---|
//! | [`flv`] | Adobe Flash Video File Format 10.1, annex E; Enhanced RTMP v2 (Veovera, 2024) |
//! | [`amf0`] | Action Message Format AMF 0 (Adobe, December 2007) |
//! | [`avcc`] | ISO/IEC 14496-15:2019, 5.3 |
//! | [`annexb`] | ITU-T H.264 (08/2021), annex B |
//! | [`h264`] | ITU-T H.264 (08/2021), 7.3, 7.4 and annexes D, E |
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod access_unit;
pub mod amf0;
pub mod annexb;
pub mod avcc;
pub mod flv;
pub mod flv_file;
#[doc(hidden)]
pub mod fuzz;
pub mod h264;
pub mod time;

pub use access_unit::{AccessUnit, Codec, DecoderConfig};
