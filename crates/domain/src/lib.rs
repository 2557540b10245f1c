//! What Framehook believes and decides, as functions of their inputs: who may push, which picture is due, what an
//! object is called, what a callback says and when it is sent again.
//!
//! It never reads a clock, opens anything, waits, logs or draws a random number: time and randomness are arguments, and
//! the caller carries out what is decided here. Start from [`catalog::Catalog`] (everything configured, as one value)
//! and [`pick::PushPicks`] (which entry points of one push become pictures).
//!
//! | Specification | Followed in |
//! |---|---|
//! | Tencent Cloud CSS: events and their signature | [`callback`], `framehook_verify::css` |
//! | Tencent Cloud CSS: hotlink keys, interruption codes | [`push_auth`], [`refusal`] |
//! | Tencent Cloud `live` API 2018-08-01: templates, rules and screenshot tasks | [`template`], [`object_key`], [`rule`], [`task`] |
//! | Standard Webhooks 1.0.0, symmetric scheme `v1` | [`signature`], `framehook_verify::webhook` |
//! | RFC 9562 (UUID version 7) | [`id`] |
//! | RFC 3986, section 2.3 (unreserved characters) | [`object_key`] |
#![no_std]
extern crate alloc;

pub mod callback;
pub mod catalog;
pub mod dispatch;
pub mod fault;
pub mod field;
mod hex;
pub mod id;
pub mod object_key;
pub mod pick;
pub mod push;
pub mod push_auth;
pub mod refusal;
pub mod retry;
pub mod rule;
pub mod secret;
pub mod signature;
pub mod storm;
pub mod stream;
pub mod task;
pub mod template;
pub mod time;
