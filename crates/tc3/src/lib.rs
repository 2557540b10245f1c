//! Tencent Cloud API 3.0 on the wire, for the product `live`, version 2018-08-01: who signed a request, what it asks for,
//! and how an answer is written so that the vendor's own SDKs understand it.
//!
//! It never reads a clock, opens anything, logs or draws a random number, and it knows nothing of Framehook: a request is
//! judged as text and numbers, by the limits that the vendor documents. Whether a template exists or a name may be used
//! is for the caller. Everything here is hostile until parsed; every length has a named limit beside the code that checks
//! it.
//!
//! Start from [`envelope::Call`] (one HTTP request, its signature not yet checked) and [`action::Request`] (what it asks
//! for). The order of the steps is the order in which the errors are to be found:
//!
//! 1. [`Call::parse`](envelope::Call::parse): method, size, syntax, version, action.
//! 2. The caller looks up the secret key of [`Unverified::secret_id`](sign::Unverified::secret_id).
//! 3. [`Unverified::verify`](sign::Unverified::verify): time stamp, signature. For signatures of version 1 the caller then
//!    refuses what it has seen before.
//! 4. [`Request::parse`](action::Request::parse): the parameters.
//! 5. [`envelope::success`] or [`envelope::failure`]: always HTTP status 200.
//!
//! | Specification | Followed in |
//! |---|---|
//! | Tencent Cloud API 3.0: signature v3 (`TC3-HMAC-SHA256`) and v1 (`HmacSHA1`, `HmacSHA256`) | [`sign`] |
//! | Tencent Cloud API 3.0: request structure, responses, common error codes | [`envelope`], [`error`] |
//! | Tencent Cloud `live` API 2018-08-01: actions, structures, error codes | [`action`] |
#![no_std]
extern crate alloc;

pub mod action;
pub mod envelope;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod params;
pub mod secret;
pub mod sign;
pub mod time;
