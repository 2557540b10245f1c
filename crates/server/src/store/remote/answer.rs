//! What a store's refusal says.

use hyper::StatusCode;

use super::client::Answered;
use crate::store::Retry;

/// An error as COS and S3 tell it: a status, and a document that names the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// Such as `NoSuchBucket`; where there is no document, the status in words.
    pub code: String,
    /// For people.
    pub message: String,
    /// What the vendor's support asks for.
    pub request_id: String,
    /// Whether the clocks differ by more than the store takes signatures for, by the time of its answer: then a refusal that
    /// names no cause may be for an age that the request does not have.
    pub clock_is_off: bool,
}

/// Longest part of a document that is kept; the longest code known has 40 letters.
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 300;

impl Refusal {
    pub(super) fn of(answered: &Answered, clock_is_off: bool) -> Self {
        let text = String::from_utf8_lossy(&answered.body);
        let code = element(&text, "Code", CODE_BYTES_MAX).unwrap_or_else(|| {
            let words = answered.status.canonical_reason().unwrap_or("Unknown");
            words.split_whitespace().collect()
        });
        let header = |name: &str| answered.headers.get(name)?.to_str().ok().map(str::to_owned);
        let request_id = header("x-cos-request-id").or_else(|| header("x-amz-request-id"));
        Self {
            status: answered.status.as_u16(),
            code,
            message: element(&text, "Message", MESSAGE_BYTES_MAX).unwrap_or_default(),
            request_id: request_id.or_else(|| element(&text, "RequestId", CODE_BYTES_MAX)).unwrap_or_default(),
            clock_is_off,
        }
    }

    /// Whether waiting helps. The code decides where it says more than the status does.
    pub fn retry(&self) -> Retry {
        // Bytes that were damaged or lost on the way, and a store that gave up waiting for them.
        const ON_THE_WAY: [&str; 6] = [
            "BadDigest",
            "InvalidDigest",
            "IncompleteBody",
            "RequestTimeout",
            "XAmzContentSHA256Mismatch",
            "XAmzContentChecksumMismatch",
        ];
        let passes = match self.status {
            // Not implemented, and a version that is not spoken: no waiting brings what is not there.
            501 | 505 => false,
            408 | 409 | 425 | 429 | 500.. => true,
            _ => ON_THE_WAY.contains(&self.code.as_str()) || self.code == "SlowDown",
        };
        if passes { Retry::Later } else { Retry::Held }
    }

    /// Whether the store asks for fewer requests.
    pub fn is_slow_down(&self) -> bool {
        matches!(self.status, 429 | 503) || self.code == "SlowDown"
    }

    /// Whether it speaks of this object alone, and not of the bucket, the credentials or the store.
    pub fn is_of_the_object(&self) -> bool {
        const CODES: [&str; 7] = [
            "BadDigest",
            "EntityTooLarge",
            "IncompleteBody",
            "InvalidDigest",
            "KeyTooLong",
            "KeyTooLongError",
            "XAmzContentSHA256Mismatch",
        ];
        matches!(self.status, 409 | 413 | 414 | 451) || CODES.contains(&self.code.as_str())
    }

    /// What a person may do about it.
    pub fn mend(&self) -> &'static str {
        const CLOCK: &str = "set this machine's clock: it differs from the store's";
        match self.code.as_str() {
            "NoSuchBucket" => "make the bucket, or correct the template's bucket, app_id and region",
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" => "correct the store's secret_id and secret_key",
            "InvalidToken" | "ExpiredToken" => "renew the store's temporary credentials",
            "RequestTimeTooSkewed" => CLOCK,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" => "the bucket is in another region: correct it",
            // It may be any of them: COS and S3 say so of a signature that has ended or not begun.
            _ if self.status == 403 && self.clock_is_off => CLOCK,
            _ if self.status == 403 => "let these credentials put objects into the bucket",
            _ if self.status == 404 => "make the bucket, or correct the template's bucket, app_id and region",
            _ => "see what the store says",
        }
    }
}

/// Whether a status says that it is done.
pub(super) fn is_done(status: StatusCode) -> bool {
    status.is_success()
}

/// The text of the first element of that name, if it is plain, cut after `bytes_max`. The documents of errors are flat and
/// have no attributes; whatever else comes is not taken for one.
fn element(text: &str, name: &str, bytes_max: usize) -> Option<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (_, after) = text.split_once(&open)?;
    let (inside, _) = after.split_once(&close)?;
    let plain: String = inside.chars().filter(|c| !c.is_control()).collect();
    let cut = plain.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= bytes_max).last();
    Some(plain[..cut.unwrap_or(0)].to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::HeaderMap;

    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).expect("a status");
        let body = Bytes::copy_from_slice(body.as_bytes());
        Refusal::of(&Answered { status, headers: HeaderMap::new(), body }, false)
    }

    fn coded(status: u16, code: &str) -> Refusal {
        refusal(status, &format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"))
    }

    #[test]
    fn reads_what_the_document_says() {
        let body = "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>NoSuchBucket</Code><Message>no\nbucket</Message>\
                    <Resource>h/p</Resource><RequestId>id-1</RequestId><TraceId>t</TraceId></Error>";
        let expected = Refusal {
            status: 404,
            code: "NoSuchBucket".to_owned(),
            message: "nobucket".to_owned(),
            request_id: "id-1".to_owned(),
            clock_is_off: false,
        };
        assert_eq!(refusal(404, body), expected);
    }

    #[test]
    fn makes_do_with_any_answer() {
        for (body, code) in [
            ("", "ServiceUnavailable"),
            ("<Code>", "ServiceUnavailable"),
            ("\u{fffd}<Code></Code>", "ServiceUnavailable"),
        ] {
            assert_eq!(refusal(503, body).code, code, "{body}");
        }
        let long = refusal(400, &format!("<Code>{}</Code>", "é".repeat(1000)));
        assert_eq!(long.code.len(), CODE_BYTES_MAX);
    }

    #[test]
    fn tells_what_passes_from_what_a_person_must_mend() {
        let rows = [
            (500, "InternalError", Retry::Later),
            (503, "SlowDown", Retry::Later),
            (503, "ServiceUnavailable", Retry::Later),
            (409, "UploadConflict", Retry::Later),
            (400, "RequestTimeout", Retry::Later),
            (400, "BadDigest", Retry::Later),
            (400, "IncompleteBody", Retry::Later),
            (429, "TooManyRequests", Retry::Later),
            (301, "PermanentRedirect", Retry::Held),
            (400, "ExpiredToken", Retry::Held),
            (400, "InvalidBucketName", Retry::Held),
            (403, "AccessDenied", Retry::Held),
            (403, "RequestTimeTooSkewed", Retry::Held),
            (403, "SignatureDoesNotMatch", Retry::Held),
            (404, "NoSuchBucket", Retry::Held),
            (411, "MissingContentLength", Retry::Held),
            (451, "UnavailableForLegalReasons", Retry::Held),
        ];
        for (status, code, retry) in rows {
            assert_eq!(coded(status, code).retry(), retry, "{status} {code}");
        }
        assert!(coded(503, "SlowDown").is_slow_down() && !coded(500, "InternalError").is_slow_down());
        assert!(coded(400, "KeyTooLong").is_of_the_object() && !coded(403, "AccessDenied").is_of_the_object());
    }
}
