//! Signatures of callbacks, and the receiver's side of them.
//!
//! Two travel with every callback. CSS's `sign` in the body is MD5 over key and `t` alone: it proves that the sender
//! knew the key within the last ten minutes, and nothing about the rest of the body. The Standard Webhooks header
//! covers the body.

pub mod css;
mod verify;
pub mod webhook;

pub use verify::{Check, Finding, VerifyReport, verify};
