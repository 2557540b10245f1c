//! The messages between the server and a render worker, and nothing else. Pure: values in, bytes out, and back.
//!
//! The two ends are one product but not one trust: a worker has just parsed a stranger's bitstream, so the server reads
//! its answers as it reads a stranger's. Nothing here opens, sends or sleeps.
//!
//! Start from [`ToWorker`] and [`FromWorker`]. A conversation is one [`Hello`], then one [`Outcome`] for each [`Job`].
//!
//! # The channel
//!
//! | Worker's descriptor | What it is |
//! |---|---|
//! | 0 | a `SOCK_SEQPACKET` socket: one message is one datagram; end of file means "go" |
//! | 1 | the *exchange*: a sealed memory file of [`EXCHANGE_BYTES`]; both sides map it |
//! | 2 | a pipe for the last words of a dying worker |
//!
//! The server writes decoder config and access unit to the exchange, one after the other from offset 0, then sends the
//! job; the worker writes the images from [`IMAGES_OFFSET`] on, then sends the outcome. Only one side touches it at a time.
//!
//! # The encoding
//!
//! Little endian, no padding. Every message begins with `version: u16, kind: u16, body_bytes: u32`, and the body fills the
//! rest of the datagram exactly. The place of `version` never changes, so that either side can name a mismatch.
#![no_std]
extern crate alloc;

mod bytes;
#[doc(hidden)]
pub mod fuzz;
mod hello;
mod job;
mod message;
mod outcome;
pub mod sizing;

pub use framehook_media::Codec;
pub use hello::{Hello, JailReport, Landlock};
pub use job::{ImageFormat, Job, RenditionSpec};
pub use message::{FromWorker, ToWorker, WireError};
pub use outcome::{
    Chroma, ColourMatrix, ColourRange, Failure, FailureReason, ImageAt, Judgement, Outcome, PictureFacts, Rendered,
    Timings,
};
pub use sizing::{Orientation, SampleAspect, Size};

/// Version of everything in this crate. A server refuses a worker whose [`Hello`] carries another.
pub const VERSION: u16 = 2;

/// Largest message. The biggest one is an [`Outcome`] with [`RENDITIONS_MAX`] images, some 600 bytes; three times that
/// leaves room for new fields and lets both sides read into a fixed buffer.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// Largest decoder config. An avcC holds one SPS and one PPS of some 40 bytes; encoders that list many parameter sets
/// stay under 4 KiB.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// Largest access unit. Ingest refuses larger messages; a 2160p entry point at 40 Mbit/s is about 2 MiB.
pub const UNIT_BYTES_MAX: usize = 8 << 20;

/// Where the images begin in the exchange.
pub const IMAGES_OFFSET: usize = CONFIG_BYTES_MAX + UNIT_BYTES_MAX;

/// Room for the images of one job. A 2160p JPEG of noise at quality 85 is 10 MiB, so this holds several of the worst.
pub const IMAGES_BYTES_MAX: usize = 64 << 20;

/// Size of the exchange. The file is sparse: it costs what was written to it, and what the server had made of it.
pub const EXCHANGE_BYTES: usize = IMAGES_OFFSET + IMAGES_BYTES_MAX;

/// Most renditions of one job: a rule and three screenshot tasks may each ask for the eight of a template.
pub const RENDITIONS_MAX: usize = 32;

/// Largest width a template may ask for (CSS, 267/30834).
pub const TEMPLATE_WIDTH_MAX: u16 = 3000;

/// Largest height a template may ask for (CSS, 267/30834).
pub const TEMPLATE_HEIGHT_MAX: u16 = 2000;

/// Most pixels of a decoded picture: the largest that H.264 level 6.2 allows (139,264 macroblocks), which holds 8192×4320.
pub const PICTURE_PIXELS_MAX: u32 = 139_264 * 256;

/// Largest width or height of an image: baseline JPEG carries 16 bits and libjpeg stops at this.
pub const IMAGE_SIDE_MAX: u32 = 65_500;

/// Longest detail text of a [`Failure`] and longest library name of a [`Hello`], in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 200;
