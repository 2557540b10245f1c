//! What the bytes of a live stream mean. Pure: bytes in, facts out; no clock, no I/O, no logging.
//!
//! Start from [`AccessUnit`] (one coded picture, ready for a decoder) and [`flv::VideoTag`] (how it arrives over RTMP).
#![no_std]
extern crate alloc;

pub mod access_unit;

pub use access_unit::{AccessUnit, Codec, DecoderConfig};
