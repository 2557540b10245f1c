//! For programs that receive Framehook's callbacks: checks both signatures of a request and gives what it says as a type.
//!
//! It knows no HTTP, no clock and no runtime: hand it the body's bytes, the headers and the time, and start from
//! [`Verifier`] and [`Callback`]. With the feature `axum` there is also an extractor, `axum::Verified`; with the feature
//! `ed25519`, `Verifier::with_public_key`, for receivers that hold no secret.
//!
//! ```
//! use framehook_verify::event::Event;
//! use framehook_verify::{Verifier, VerifyError};
//! # use framehook_verify::{css, webhook::WebhookSecret};
//! use std::collections::{HashMap, HashSet};
//!
//! /// What a web framework hands over; the headers' names in lower case.
//! struct Request {
//!     headers: HashMap<String, String>,
//!     body: Vec<u8>,
//! }
//!
//! /// Deals with one request; gives the status to answer with.
//! fn receive(verifier: &Verifier, seen: &mut HashSet<String>, request: &Request, now_secs: i64) -> u16 {
//!     let header = |name| request.headers.get(name).map(String::as_str);
//!     let callback = match verifier.verify(&request.body, header, now_secs) {
//!         Ok(callback) => callback,
//!         Err(error) => {
//!             eprintln!("refused: {error}");
//!             return error.status(); // 401 or 400, so that a wrong key shows on the sender's side too
//!         }
//!     };
//!     // A callback comes again when its answer was lost, and has the same id then.
//!     if seen.contains(&callback.webhook_id) {
//!         return 200;
//!     }
//!     match &callback.event {
//!         Event::SnapshotStored(snapshot) => println!("{}: {}", snapshot.stream, snapshot.pic_full_url),
//!         Event::PushBegan(began) => println!("{}: on air", began.push.stream),
//!         Event::PushEnded(ended) => println!("{}: off air after {:?}", ended.push.stream, ended.push_duration),
//!         Event::Other { event_type, .. } => println!("event {event_type}, which is not for us"),
//!     }
//!     // Known only once it is dealt with: whoever dies in between gets it again.
//!     seen.insert(callback.webhook_id);
//!     200
//! }
//!
//! # fn request(key: &str, sent_secs: i64, event: &str) -> Request {
//! #     let t = css::expiry_secs(sent_secs);
//! #     let body = format!(r#"{{{event},"sign":"{}","t":{t}}}"#, css::sign(key, t)).into_bytes();
//! #     let (id, timestamp) = ("0198a6b2-7e1c-7000-8000-000000000001", sent_secs.to_string());
//! #     let signature = WebhookSecret::from_callback_key(key).sign(id, &timestamp, &body);
//! #     let headers = [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
//! #     Request { headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), body }
//! # }
//! # fn main() -> Result<(), framehook_verify::EmptyKey> {
//! let verifier = Verifier::new("k3yForDocs2024")?;
//! let mut seen = HashSet::new();
//! # let request_from = |key| request(key, 1_735_689_601, r#""event_type":332"#);
//! # let now_secs = 1_735_689_602;
//! let genuine = request_from("k3yForDocs2024");
//! assert_eq!(receive(&verifier, &mut seen, &genuine, now_secs), 200);
//! assert_eq!(receive(&verifier, &mut seen, &genuine, now_secs), 200, "a second time, and not dealt with again");
//! assert_eq!(receive(&verifier, &mut seen, &request_from("a guess"), now_secs), 401);
//! # assert_eq!(receive(&verifier, &mut seen, &genuine, now_secs + 301), 401);
//! # Ok(())
//! # }
//! ```
//!
//! | Specification | Followed in |
//! |---|---|
//! | Tencent Cloud CSS: event messages and their signature | [`css`], [`event`] |
//! | Standard Webhooks 1.0.0, symmetric scheme `v1`; asymmetric scheme `v1a` with the feature `ed25519` | [`webhook`] |
#![no_std]
extern crate alloc;
#[cfg(any(feature = "axum", test))]
extern crate std;

#[cfg(feature = "axum")]
pub mod axum;
pub mod css;
pub mod event;
mod verifier;
pub mod webhook;

pub use verifier::{Callback, EmptyKey, Verifier, VerifyError};

/// Longest body that a callback can have, with room to spare: the largest, with a query of 4 KiB in it, stays under 6 KiB.
pub const BODY_BYTES_MAX: usize = 64 << 10;
