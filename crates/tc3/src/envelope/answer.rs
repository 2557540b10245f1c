//! The body of an answer.

use alloc::vec::Vec;

use serde::Serialize;

use crate::{action::Response, error::ApiError, error::ErrorCode};

/// The `Content-Type` of every answer, without a `charset`: see [the module](super).
pub const CONTENT_TYPE: &str = "application/json";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a, T> {
    response: Answer<'a, T>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a, T> {
    #[serde(flatten)]
    fields: T,
    request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure<'a> {
    error: ErrorText<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorText<'a> {
    code: ErrorCode,
    message: &'a str,
}

/// `{"Response":{…,"RequestId":"…"}}`. The request id names this request in our log and in a user's report.
pub fn success(response: &Response, request_id: &str) -> Vec<u8> {
    write(response, request_id)
}

/// `{"Response":{"Error":{"Code":"…","Message":"…"},"RequestId":"…"}}`.
pub fn failure(error: &ApiError, request_id: &str) -> Vec<u8> {
    write(Failure { error: ErrorText { code: error.code, message: &error.message } }, request_id)
}

fn write(fields: impl Serialize, request_id: &str) -> Vec<u8> {
    let envelope = Envelope { response: Answer { fields, request_id } };
    serde_json::to_vec(&envelope).expect("names are strings and numbers are integers")
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn an_error_has_code_message_and_request_id() {
        let body = failure(&ApiError::missing("TemplateId"), "7f2c");
        let expected = concat!(
            r#"{"Response":{"Error":{"Code":"MissingParameter","#,
            r#""Message":"The request is missing the required parameter `TemplateId`."},"RequestId":"7f2c"}}"#
        );
        assert_eq!(String::from_utf8(body).as_deref(), Ok(expected));
    }

    #[test]
    fn an_answer_without_fields_still_has_its_request_id() {
        assert_eq!(success(&Response::Done {}, "7f2c"), br#"{"Response":{"RequestId":"7f2c"}}"#);
    }
}
