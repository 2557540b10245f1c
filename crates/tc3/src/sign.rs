//! Who signed a request, and when.
//!
//! Two schemes are in use. Version 3 (`TC3-HMAC-SHA256`, [`tc3`]) signs headers and a digest of the body, so that the same
//! bytes may be sent again until their time stamp is old. Version 1 (`HmacSHA1` and `HmacSHA256`, [`v1`]) signs the
//! parameters, a nonce among them, and must not be accepted twice.
//!
//! Checking takes two steps, because the secret key is the caller's to find: a request is parsed into [`Unverified`], and
//! with the key of its [`secret_id`](Unverified::secret_id) comes [`Unverified::verify`].

pub mod tc3;
pub mod v1;

use alloc::{format, string::String};
use core::fmt;

use subtle::ConstantTimeEq;

use crate::{
    envelope::HttpRequest,
    error::{self, ApiError, ErrorCode},
    time::UnixSecs,
};

/// How far a time stamp may lie from the server's clock, in seconds, before or after. Documented for version 3; for
/// version 1 the documents only ask for "not too different".
pub const TIME_WINDOW_SECS: i64 = 300;

/// Longest SecretId. The vendor's have 36 bytes; four times that is room for those of other makers.
const SECRET_ID_BYTES_MAX: usize = 144;

/// A claim: this id signed this request. Nothing in it is true before [`Unverified::verify`].
#[derive(Clone)]
pub struct Unverified {
    secret_id: String,
    timestamp: UnixSecs,
    /// As received; named in the error when nothing fits, since a proxy that rewrites it is the usual cause.
    host: String,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    Tc3(tc3::Proof),
    V1(v1::Proof),
}

/// A request that the holder of a secret key made within [`TIME_WINDOW_SECS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub secret_id: String,
    pub kind: SignatureKind,
}

/// How a request was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// Version 3.
    Tc3 {
        /// False when the client asked for `UNSIGNED-PAYLOAD`: whoever sees such a request on its way can put another body
        /// into it until its time stamp is old. Over TLS that is nobody.
        payload_is_signed: bool,
    },
    /// Version 1. The caller refuses a `signature` of this SecretId that it has seen, and may forget it
    /// [`TIME_WINDOW_SECS`] after `timestamp`. Nonce and time stamp alone would be too little to go by: the vendor's
    /// Node.js SDK draws nonces below 65,536, so that two honest requests of one second soon share one.
    V1 { digest: v1::Digest, nonce: u64, timestamp: UnixSecs, signature: String },
}

impl Unverified {
    /// Whose secret key [`Unverified::verify`] needs.
    pub fn secret_id(&self) -> &str {
        &self.secret_id
    }

    /// When the claim says that it was made.
    pub(crate) fn made(&self) -> UnixSecs {
        self.timestamp
    }

    /// Finds who signed: version 3 if the request has an `Authorization` header.
    pub(crate) fn tc3(request: &HttpRequest<'_>, authorization: &str) -> Result<Self, ApiError> {
        tc3::Proof::parse(request, authorization)
    }

    /// Finds who signed with version 1; `pairs` are all parameters as decoded.
    pub(crate) fn v1(request: &HttpRequest<'_>, pairs: &[(String, String)]) -> Result<Self, ApiError> {
        v1::Proof::parse(request, pairs)
    }

    /// Checks time stamp and signature, in this order.
    ///
    /// # Errors
    /// `AuthFailure.SignatureExpire` and `AuthFailure.SignatureFailure`.
    pub fn verify(self, secret_key: &str, now: UnixSecs) -> Result<Verified, ApiError> {
        if now.0.abs_diff(self.timestamp.0) > TIME_WINDOW_SECS.unsigned_abs() {
            let message = format!(
                "The time stamp of the signature differs from the server's time by more than {TIME_WINDOW_SECS} seconds. \
                 Please check the clock of your machine."
            );
            return Err(ApiError::new(ErrorCode::AuthFailureSignatureExpire, message));
        }
        let kind = match self.proof {
            Proof::Tc3(proof) => proof.check(secret_key, self.timestamp),
            Proof::V1(proof) => proof.check(secret_key, self.timestamp),
        };
        let kind = kind.ok_or_else(|| {
            let message = format!(
                "The provided credentials could not be validated. Please check your signature is correct; the request was \
                 received for the host `{}`.",
                error::shown(&self.host)
            );
            ApiError::new(ErrorCode::AuthFailureSignatureFailure, message)
        })?;
        Ok(Verified { secret_id: self.secret_id, kind })
    }
}

impl fmt::Debug for Unverified {
    /// Without the signed text, which holds parameters and with them keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret_id, timestamp, host, proof: _ } = self;
        f.debug_struct("Unverified")
            .field("secret_id", secret_id)
            .field("timestamp", timestamp)
            .field("host", host)
            .finish_non_exhaustive()
    }
}

fn check_secret_id(secret_id: &str) -> Result<String, ApiError> {
    if (1..=SECRET_ID_BYTES_MAX).contains(&secret_id.len()) {
        Ok(secret_id.into())
    } else {
        Err(ApiError::malformed("SecretId", &format!("1 to {SECRET_ID_BYTES_MAX} bytes long")))
    }
}

/// Unix seconds in decimal digits.
fn parse_timestamp(name: &str, text: &str) -> Result<UnixSecs, ApiError> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let secs = if is_decimal { text.parse().ok() } else { None };
    secs.map(UnixSecs).ok_or_else(|| ApiError::malformed(name, "a number of seconds since 1970"))
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn equal(expected: &str, given: &str) -> bool {
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}
