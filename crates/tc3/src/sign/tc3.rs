//! Version 3: `TC3-HMAC-SHA256`.
//!
//! ```text
//! CanonicalRequest = METHOD \n / \n Query \n CanonicalHeaders \n SignedHeaders \n hex(SHA256(body))
//! StringToSign     = TC3-HMAC-SHA256 \n X-TC-Timestamp \n <date>/live/tc3_request \n hex(SHA256(CanonicalRequest))
//! Signature        = hex(HMAC(HMAC(HMAC(HMAC("TC3" + SecretKey, date), "live"), "tc3_request"), StringToSign))
//! ```
//!
//! Query and body count as they were received: SDKs order and encode them differently, and each signs what it sends.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{SignatureKind, Unverified, check_secret_id, equal, parse_timestamp};
use crate::{
    envelope::{HttpRequest, PRODUCT},
    error::{ApiError, ErrorCode},
    time::UnixSecs,
};

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const TERMINATOR: &str = "tc3_request";
const TIMESTAMP: &str = "X-TC-Timestamp";

/// Value of `X-TC-Content-SHA256` with which a client leaves its body out of the signature, and what then stands for the
/// body in it.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Longest `Authorization`. With two signed headers it has some 220 bytes; this leaves room for dozens.
const AUTHORIZATION_BYTES_MAX: usize = 2048;

/// Most headers in a signature. SDKs sign two or three; HTTP clients rarely send more than twenty.
const SIGNED_HEADERS_MAX: usize = 32;

/// Headers that must be signed.
const REQUIRED_HEADERS: [&str; 2] = ["content-type", "host"];

/// A signature and every text that it may have been made from.
#[derive(Clone)]
pub(super) struct Proof {
    date: String,
    service: String,
    strings_to_sign: Vec<String>,
    signature: String,
    payload_is_signed: bool,
}

impl Proof {
    pub(super) fn parse(request: &HttpRequest<'_>, authorization: &str) -> Result<Unverified, ApiError> {
        let claim = Authorization::parse(authorization)?;
        let host = request.header("Host")?.ok_or_else(|| ApiError::missing("Host"))?;
        check_service(claim.service, host)?;
        let timestamp_text = request.header(TIMESTAMP)?.ok_or_else(|| ApiError::missing(TIMESTAMP))?;
        let timestamp = parse_timestamp(TIMESTAMP, timestamp_text)?;
        let payload = Payload::of(request)?;
        let headers = signed_headers(request, &claim.signed_headers)?;
        let scope = format!("{}/{}/{TERMINATOR}", claim.date, claim.service);
        let string_to_sign = |headers: &[(&str, String)]| {
            string_to_sign(timestamp_text, &scope, &canonical_request(request, headers, &payload))
        };
        let proof = Self {
            date: claim.date.to_owned(),
            service: claim.service.to_owned(),
            strings_to_sign: header_spellings(&headers).iter().map(|headers| string_to_sign(headers)).collect(),
            signature: claim.signature.to_owned(),
            payload_is_signed: payload.is_signed(),
        };
        Ok(Unverified {
            secret_id: check_secret_id(claim.secret_id)?,
            timestamp,
            host: host.to_owned(),
            proof: super::Proof::Tc3(proof),
        })
    }

    pub(super) fn check(self, secret_key: &str, timestamp: UnixSecs) -> Option<SignatureKind> {
        if self.date != timestamp.utc_date() {
            return None;
        }
        let key = signing_key(secret_key, &self.date, &self.service);
        let is_signed = |text: &String| equal(&hex(hmac(&key, text)), &self.signature);
        let is_genuine = self.strings_to_sign.iter().any(is_signed);
        is_genuine.then_some(SignatureKind::Tc3 { payload_is_signed: self.payload_is_signed })
    }
}

/// Makes the `Authorization` header of `request`, which must carry `X-TC-Timestamp` and every one of `signed_headers`
/// (in lower case, `content-type` and `host` among them).
///
/// # Errors
/// One of these headers is missing or stands twice, or the time stamp is no number.
pub fn authorization(
    request: &HttpRequest<'_>,
    signed_headers: &[&str],
    secret_id: &str,
    secret_key: &str,
) -> Result<String, ApiError> {
    let timestamp_text = request.header(TIMESTAMP)?.ok_or_else(|| ApiError::missing(TIMESTAMP))?;
    let date = parse_timestamp(TIMESTAMP, timestamp_text)?.utc_date();
    let mut headers = self::signed_headers(request, signed_headers)?;
    headers.iter_mut().for_each(|(_, value)| value.make_ascii_lowercase());
    let scope = format!("{date}/{PRODUCT}/{TERMINATOR}");
    let canonical = canonical_request(request, &headers, &Payload::of(request)?);
    let key = signing_key(secret_key, &date, PRODUCT);
    let signature = hex(hmac(&key, &string_to_sign(timestamp_text, &scope, &canonical)));
    let names = signed_headers.join(";");
    Ok(format!("{ALGORITHM} Credential={secret_id}/{scope}, SignedHeaders={names}, Signature={signature}"))
}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    secret_id: &'a str,
    date: &'a str,
    service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        if text.len() > AUTHORIZATION_BYTES_MAX {
            return Err(ApiError::too_large("header `Authorization`", AUTHORIZATION_BYTES_MAX));
        }
        let parts = text.strip_prefix(ALGORITHM).ok_or_else(|| refused("it does not begin with TC3-HMAC-SHA256"))?;
        let [mut credential, mut signed_headers, mut signature] = [None; 3];
        for part in parts.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or_else(|| refused("a part has no `=`"))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(refused("a part is unknown")),
            };
            if slot.replace(value).is_some() {
                return Err(refused("a part stands twice"));
            }
        }
        let (Some(credential), Some(signed_headers), Some(signature)) = (credential, signed_headers, signature) else {
            return Err(refused("it needs Credential, SignedHeaders and Signature"));
        };
        let scope: Vec<_> = credential.splitn(5, '/').collect();
        let &[secret_id, date, service, TERMINATOR] = &scope[..] else {
            return Err(refused("Credential must be <SecretId>/<date>/live/tc3_request"));
        };
        let signed_headers: Vec<_> = signed_headers.split(';').take(SIGNED_HEADERS_MAX + 1).collect();
        if signed_headers.len() > SIGNED_HEADERS_MAX {
            return Err(refused("SignedHeaders lists too many"));
        }
        if !REQUIRED_HEADERS.iter().all(|required| signed_headers.contains(required)) {
            return Err(refused("SignedHeaders must list at least content-type and host"));
        }
        Ok(Self { secret_id, date, service, signed_headers, signature })
    }
}

fn refused(why: &str) -> ApiError {
    let message = format!("The header `Authorization` is not well-formed: {why}.");
    ApiError::new(ErrorCode::AuthFailureInvalidAuthorization, message)
}

/// The service must be `live`, or the host up to its first dot: the vendor's Node.js SDK takes that for the service's name,
/// so that with the endpoint `127.0.0.1:8080` it signs for `127`. Keys are ours alone, so a signature for another service
/// does not exist.
fn check_service(service: &str, host: &str) -> Result<(), ApiError> {
    let first_label = host.split('.').next().unwrap_or_default();
    if service == PRODUCT || service == first_label {
        Ok(())
    } else {
        Err(refused("the service in Credential must be live"))
    }
}

/// What stands for the body.
struct Payload {
    hash: String,
    is_unsigned_body: bool,
}

impl Payload {
    /// A GET has no body; its parameters are in the query, which is always signed.
    fn of(request: &HttpRequest<'_>) -> Result<Self, ApiError> {
        let is_get = request.method == "GET";
        let is_unsigned = request.header("X-TC-Content-SHA256")? == Some(UNSIGNED_PAYLOAD);
        let hash = match (is_unsigned, is_get) {
            (true, _) => Sha256::digest(UNSIGNED_PAYLOAD),
            (false, true) => Sha256::digest(b""),
            (false, false) => Sha256::digest(request.body),
        };
        Ok(Self { hash: hex(hash), is_unsigned_body: is_unsigned && !is_get })
    }

    fn is_signed(&self) -> bool {
        !self.is_unsigned_body
    }
}

/// Names as listed, with their values trimmed.
fn signed_headers<'a>(request: &HttpRequest<'_>, names: &[&'a str]) -> Result<Vec<(&'a str, String)>, ApiError> {
    let value = |name: &'a str| {
        let value = request.header(name)?.ok_or_else(|| refused("a header in SignedHeaders was not received"))?;
        Ok((name, value.trim().to_string()))
    };
    names.iter().copied().map(value).collect()
}

/// Every way in which a client may have written the values: in lower case as documented or as sent, which is what SDKs do
/// with `Content-Type`; and the host with its port or, by the Node.js SDK, without.
fn header_spellings<'a>(headers: &[(&'a str, String)]) -> Vec<Vec<(&'a str, String)>> {
    let mut spellings = Vec::new();
    for is_lower in [true, false] {
        for has_port in [true, false] {
            let spell = |(name, value): &(&'a str, String)| {
                let value = if *name == "host" && !has_port { without_port(value) } else { value };
                (*name, if is_lower { value.to_lowercase() } else { value.to_owned() })
            };
            let spelling: Vec<_> = headers.iter().map(spell).collect();
            if !spellings.contains(&spelling) {
                spellings.push(spelling);
            }
        }
    }
    spellings
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn canonical_request(request: &HttpRequest<'_>, headers: &[(&str, String)], payload: &Payload) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    format!("{}\n/\n{}\n{lines}\n{}\n{}", request.method, request.query, names.join(";"), payload.hash)
}

fn string_to_sign(timestamp: &str, scope: &str, canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", hex(Sha256::digest(canonical_request)))
}

fn signing_key(secret_key: &str, date: &str, service: &str) -> [u8; 32] {
    let date_key = hmac(format!("TC3{secret_key}").as_bytes(), date);
    hmac(&hmac(&date_key, service), TERMINATOR)
}

fn hmac(key: &[u8], message: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal digits.
fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
