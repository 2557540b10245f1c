//! What is around every action: an HTTP request becomes a [`Call`], and an answer becomes a body.
//!
//! Answers always go out with HTTP status 200 and exactly [`CONTENT_TYPE`], errors included: at any other status the
//! vendor's SDKs lose the code, and with parameters behind the type the Python SDK takes an error for a success.

mod answer;

use alloc::{string::String, vec::Vec};
use core::str;

pub use answer::{CONTENT_TYPE, failure, success};

use crate::{
    action::Action,
    error::{ApiError, ErrorCode},
    params::{Params, form},
    sign::Unverified,
};

/// The product whose actions these are: the `live` in `live.tencentcloudapi.com` and in the scope of signatures.
pub const PRODUCT: &str = "live";

/// The one version of [`PRODUCT`].
pub const VERSION: &str = "2018-08-01";

/// Longest query, as documented.
pub const QUERY_BYTES_MAX: usize = 32 << 10;

/// Longest body. The vendor takes 1 MiB with version 1 and 10 MiB with version 3, for products that are sent files. The
/// largest request of ours, a callback template with ten URLs of 2 KiB in `\u` escapes, has some 130 KiB.
pub const BODY_BYTES_MAX: usize = 256 << 10;

/// An HTTP request for the path `/`, as received.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// In upper case, as HTTP has it.
    pub method: &'a str,
    /// What stands behind the `?`, not decoded; empty without one.
    pub query: &'a str,
    /// Names in any case; a header whose value is not visible ASCII may be left out.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> HttpRequest<'a> {
    /// # Errors
    /// `InvalidParameter` when it stands twice, because readers differ in which one they take.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        let mut values = self.headers.iter().filter(|header| header.0.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(header), None) => Ok(Some(header.1)),
            (Some(_), Some(_)) => Err(ApiError::malformed(name, "given once")),
        }
    }
}

/// A request that names an action of ours, with its signature not yet checked.
///
/// The region, the language, the token of temporary keys and the client's name may be given and mean nothing here.
#[derive(Clone, Debug)]
pub struct Call {
    pub action: Action,
    pub params: Params,
    pub unverified: Unverified,
}

impl Call {
    /// Checks, in this order, method, size, syntax, version, action and the form of the signature.
    ///
    /// # Errors
    /// `UnsupportedProtocol`, `RequestSizeLimitExceeded`, `InvalidRequest`, `InvalidParameter`, `NoSuchVersion`,
    /// `InvalidAction`, `MissingParameter`, and `AuthFailure.InvalidAuthorization` when nothing says who signed.
    pub fn parse(request: &HttpRequest<'_>) -> Result<Self, ApiError> {
        let is_get = match request.method {
            "GET" => true,
            "POST" => false,
            _ => {
                return Err(ApiError::new(ErrorCode::UnsupportedProtocol, "Only GET and POST requests are supported."));
            }
        };
        if request.query.len() > QUERY_BYTES_MAX {
            return Err(ApiError::too_large("query", QUERY_BYTES_MAX));
        }
        if request.body.len() > BODY_BYTES_MAX {
            return Err(ApiError::too_large("body", BODY_BYTES_MAX));
        }
        match (request.header("Authorization")?, is_get) {
            (Some(authorization), true) => {
                Self::tc3(request, authorization, Params::from_pairs(form::pairs(request.query)?)?)
            }
            (Some(authorization), false) if is_of_type(request, "application/json")? => {
                Self::tc3(request, authorization, Params::from_json(request.body)?)
            }
            (Some(_), false) => Err(unsupported_type("TC3-HMAC-SHA256", "application/json")),
            (None, true) => Self::v1(request, form::pairs(request.query)?),
            (None, false) if is_of_type(request, FORM)? => Self::v1(request, form::pairs(utf8(request.body)?)?),
            (None, false) if is_of_type(request, "application/json")? => {
                let message = "The request carries no header `Authorization`.";
                Err(ApiError::new(ErrorCode::AuthFailureInvalidAuthorization, message))
            }
            (None, false) => Err(unsupported_type("HmacSHA1 or HmacSHA256", FORM)),
        }
    }

    /// Common parameters travel in headers.
    fn tc3(request: &HttpRequest<'_>, authorization: &str, params: Params) -> Result<Self, ApiError> {
        let action = resolve([
            ("X-TC-Version", request.header("X-TC-Version")?),
            ("X-TC-Action", request.header("X-TC-Action")?),
        ])?;
        Ok(Self { action, params, unverified: Unverified::tc3(request, authorization)? })
    }

    /// Common parameters travel among the action's own.
    fn v1(request: &HttpRequest<'_>, pairs: Vec<(String, String)>) -> Result<Self, ApiError> {
        let value = |name: &'static str| (name, pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str()));
        let action = resolve([value("Version"), value("Action")])?;
        let unverified = Unverified::v1(request, &pairs)?;
        let mut params = Params::from_pairs(pairs)?;
        params.forget(&COMMON_PARAMETERS);
        Ok(Self { action, params, unverified })
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// What every request of version 1 may carry beside the parameters of its action.
const COMMON_PARAMETERS: [&str; 11] = [
    "Action",
    "Language",
    "Nonce",
    "Region",
    "RequestClient",
    "SecretId",
    "Signature",
    "SignatureMethod",
    "Timestamp",
    "Token",
    "Version",
];

/// The version comes first: it decides which actions there are.
fn resolve([version, action]: [(&str, Option<&str>); 2]) -> Result<Action, ApiError> {
    match version {
        (name, None) => return Err(ApiError::missing(name)),
        (_, Some(VERSION)) => {}
        (name, Some(_)) => {
            let message = alloc::format!("The version in `{name}` does not exist; it must be {VERSION}.");
            return Err(ApiError::new(ErrorCode::NoSuchVersion, message));
        }
    }
    match action {
        (name, None) => Err(ApiError::missing(name)),
        (_, Some(action)) => Action::named(action),
    }
}

fn is_of_type(request: &HttpRequest<'_>, expected: &str) -> Result<bool, ApiError> {
    let content_type = request.header("Content-Type")?.unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    Ok(essence.trim().eq_ignore_ascii_case(expected))
}

fn unsupported_type(scheme: &str, expected: &str) -> ApiError {
    let message = alloc::format!("A POST request signed with {scheme} must have the `Content-Type` {expected}.");
    ApiError::new(ErrorCode::InvalidRequest, message)
}

fn utf8(body: &[u8]) -> Result<&str, ApiError> {
    str::from_utf8(body).map_err(|_| ApiError::new(ErrorCode::InvalidParameter, "The body must be UTF-8."))
}

#[cfg(test)]
mod tests;
