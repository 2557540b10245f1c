//! Version 1: `HmacSHA1` and `HmacSHA256` over the parameters.
//!
//! ```text
//! source    = METHOD + host + "/?" + all parameters but Signature as k=v, sorted by name, not URL-encoded, joined by "&"
//! Signature = base64(HMAC(SecretKey, source))
//! ```
//!
//! Since nothing is encoded in `source`, `a=1&b=2` is the text of two parameters and of one whose value holds a `&`. Whoever
//! sees a request on its way could regroup it so, and would have to be the first to send it, for a signature is good once.

use alloc::{borrow::ToOwned, format, string::String, vec, vec::Vec};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::{SignatureKind, Unverified, check_secret_id, equal, parse_timestamp};
use crate::{envelope::HttpRequest, error::ApiError, time::UnixSecs};

const SIGNATURE: &str = "Signature";

/// `SignatureMethod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Also when the parameter is absent or says anything else.
    HmacSha1,
    HmacSha256,
}

/// A signature and every text that it may have been made from.
#[derive(Clone)]
pub(super) struct Proof {
    digest: Digest,
    nonce: u64,
    sources: Vec<String>,
    signature: String,
}

impl Proof {
    pub(super) fn parse(request: &HttpRequest<'_>, pairs: &[(String, String)]) -> Result<Unverified, ApiError> {
        let optional = |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
        let required = |name: &str| optional(name).ok_or_else(|| ApiError::missing(name));
        let host = request.header("Host")?.ok_or_else(|| ApiError::missing("Host"))?;
        let digest = match optional("SignatureMethod") {
            Some("HmacSHA256") => Digest::HmacSha256,
            _ => Digest::HmacSha1,
        };
        let nonce = required("Nonce")?.parse().map_err(|_| ApiError::malformed("Nonce", "a positive integer"))?;
        let proof = Self {
            digest,
            nonce,
            sources: sources(request.method, host, pairs),
            signature: required(SIGNATURE)?.into(),
        };
        Ok(Unverified {
            secret_id: check_secret_id(required("SecretId")?)?,
            timestamp: parse_timestamp("Timestamp", required("Timestamp")?)?,
            host: host.to_owned(),
            proof: super::Proof::V1(proof),
        })
    }

    pub(super) fn check(self, secret_key: &str, timestamp: UnixSecs) -> Option<SignatureKind> {
        let Self { digest, nonce, sources, signature } = self;
        let is_genuine = sources.iter().any(|source| equal(&mac(digest, secret_key, source), &signature));
        is_genuine.then_some(SignatureKind::V1 { digest, nonce, timestamp, signature })
    }
}

/// The `Signature` of a request with these parameters, decoded; the digest must agree with their `SignatureMethod`.
pub fn signature(digest: Digest, method: &str, host: &str, pairs: &[(String, String)], secret_key: &str) -> String {
    mac(digest, secret_key, &source(method, host, pairs, str::to_owned))
}

/// The Python SDK replaces `_` by `.` in the names that it signs, not in those that it sends; others do not.
fn sources(method: &str, host: &str, pairs: &[(String, String)]) -> Vec<String> {
    let dotted = source(method, host, pairs, |name| name.replace('_', "."));
    let plain = source(method, host, pairs, str::to_owned);
    if dotted == plain { vec![plain] } else { vec![dotted, plain] }
}

fn source(method: &str, host: &str, pairs: &[(String, String)], signed_name: impl Fn(&str) -> String) -> String {
    let mut signed: Vec<_> = pairs
        .iter()
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, value)| (signed_name(name), value.as_str()))
        .collect();
    signed.sort();
    let joined: Vec<_> = signed.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{method}{host}/?{}", joined.join("&"))
}

fn mac(digest: Digest, secret_key: &str, source: &str) -> String {
    fn base64<M: Mac + KeyInit>(key: &str, message: &str) -> String {
        let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(message.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
    match digest {
        Digest::HmacSha1 => base64::<Hmac<Sha1>>(secret_key, source),
        Digest::HmacSha256 => base64::<Hmac<Sha256>>(secret_key, source),
    }
}

#[cfg(test)]
mod tests;
