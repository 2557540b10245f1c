//! Why a request was turned away, as the API says it: a code for programs and a sentence for people.

mod code;

use alloc::{format, string::String};

pub use code::ErrorCode;

/// An error answer. The message is free text: nothing may depend on it, and it never repeats a value that was sent, which
/// may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub code: ErrorCode,
    pub message: String,
}

/// How much of a name that a stranger sent a message repeats, in characters.
const NAME_CHARS_MAX: usize = 64;

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// `MissingParameter`; `name` is a parameter or a header.
    pub fn missing(name: &str) -> Self {
        Self::new(ErrorCode::MissingParameter, format!("The request is missing the required parameter `{name}`."))
    }

    /// `InvalidParameter`: the type or form is wrong. `expected` completes "must be".
    pub fn malformed(name: &str, expected: &str) -> Self {
        let message = format!("The parameter `{}` must be {expected}.", shown(name));
        Self::new(ErrorCode::InvalidParameter, message)
    }

    /// `InvalidParameterValue`: the type is right, the value is not allowed. `allowed` completes "must be".
    pub fn not_allowed(name: &str, allowed: &str) -> Self {
        let message = format!("The value of the parameter `{}` must be {allowed}.", shown(name));
        Self::new(ErrorCode::InvalidParameterValue, message)
    }

    /// `UnknownParameter`: for callers who do not want to ignore it.
    pub fn unknown_parameter(name: &str) -> Self {
        let message = format!("The parameter `{}` is not known to this action.", shown(name));
        Self::new(ErrorCode::UnknownParameter, message)
    }

    /// `AuthFailure.SecretIdNotFound`.
    pub fn secret_id_not_found() -> Self {
        let message = "The SecretId is not found, please ensure that your SecretId is correct.";
        Self::new(ErrorCode::AuthFailureSecretIdNotFound, message)
    }

    /// `AuthFailure.SignatureFailure` for a signature of version 1 that was used before.
    pub fn signature_reused() -> Self {
        let message = "The request with this signature has been received before; each request needs a new Nonce.";
        Self::new(ErrorCode::AuthFailureSignatureFailure, message)
    }

    /// `RequestSizeLimitExceeded`.
    pub fn too_large(what: &str, bytes_max: usize) -> Self {
        let message = format!("The {what} of the request is larger than {bytes_max} bytes.");
        Self::new(ErrorCode::RequestSizeLimitExceeded, message)
    }

    /// `InternalError`, when the fault is ours. What went wrong belongs in the log, under the same RequestId.
    pub fn internal() -> Self {
        Self::new(ErrorCode::InternalError, "An internal error has occurred. Retry your request.")
    }

    pub(crate) fn with_code(self, code: ErrorCode) -> Self {
        Self { code, ..self }
    }

    /// A value that is not allowed, under a code of its own.
    pub(crate) fn narrowed(self, code: ErrorCode) -> Self {
        if self.code == ErrorCode::InvalidParameterValue { self.with_code(code) } else { self }
    }
}

/// A name from outside, cut and without control characters.
pub(crate) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_code_and_sentence() {
        let cases = [
            (
                ApiError::missing("TemplateId"),
                "MissingParameter: The request is missing the required parameter `TemplateId`.",
            ),
            (
                ApiError::malformed("TemplateId", "an integer"),
                "InvalidParameter: The parameter `TemplateId` must be an integer.",
            ),
            (
                ApiError::not_allowed("Width", "0 to 3000"),
                "InvalidParameterValue: The value of the parameter `Width` must be 0 to 3000.",
            ),
            (
                ApiError::too_large("body", 1024),
                "RequestSizeLimitExceeded: The body of the request is larger than 1024 bytes.",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(format!("{error}"), expected);
        }
    }

    #[test]
    fn repeats_only_the_beginning_of_a_hostile_name() {
        let error = ApiError::unknown_parameter(&"\r\nx".repeat(1000));
        assert_eq!(error.message, format!("The parameter `{}` is not known to this action.", "x".repeat(64)));
    }
}
