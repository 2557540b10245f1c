//! The server side of RTMP 1.0 as a state machine, without sockets or clocks: push bytes in, take events and replies.
//!
//! Start from [`Session`] (one publisher's connection) and [`Event`] (what it tells the driver). [`Client`] is the other
//! side, as small as a load generator and a demonstration need it.
//!
//! The session must never wait, read a clock, draw a random number or believe a length: every bound is a field of
//! [`Limits`], and the error of a peer that passes one names it. What is not needed for a picture (audio, and all
//! pictures that are not entry points) is counted and never copied.
//!
//! | Part | Specification |
//! |---|---|
//! | [`handshake`] | RTMP 1.0 (Adobe, December 2012) section 5.2; the digest form is undocumented and as Flash Player 9 speaks it |
//! | [`chunk`], [`message`] | RTMP 1.0 sections 5.3, 5.4 and 6 |
//! | [`command`] | RTMP 1.0 section 7, with the commands that Flash Media Live Encoder added |
//! | media headers | `framehook_media::flv`; Enhanced RTMP v2 (Veovera, 2024) |
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod chunk;
pub mod client;
pub mod command;
mod error;
mod event;
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
mod limits;
pub mod message;
mod metadata;
pub mod session;

pub use client::{Client, ClientEvent, Publication};
pub use error::{Bound, Error};
pub use event::{Event, Media, MediaKind, PublishRequest, UnpublishedBy};
pub use limits::Limits;
pub use metadata::StreamMetadata;
pub use session::{Phase, Session};
