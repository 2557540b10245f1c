use alloc::format;

use super::*;
use crate::error::ErrorCode::*;

const AUTHORIZATION: (&str, &str) = (
    "Authorization",
    "TC3-HMAC-SHA256 Credential=AKID/2025-01-01/live/tc3_request, SignedHeaders=content-type;host, Signature=ab",
);
const VERSION_3: [(&str, &str); 6] = [
    ("Host", "live.tencentcloudapi.com"),
    ("Content-Type", "application/json"),
    ("X-TC-Action", "DescribeLiveSnapshotRules"),
    ("X-TC-Version", "2018-08-01"),
    ("X-TC-Timestamp", "1735689600"),
    AUTHORIZATION,
];

/// The headers above with some replaced, or removed by an empty value.
fn with(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = VERSION_3.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    kept.chain(changes.iter().filter(|(_, value)| !value.is_empty())).copied().collect()
}

fn post<'a>(headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> HttpRequest<'a> {
    HttpRequest { method: "POST", query: "", headers, body }
}

const QUERY: &str = "Action=DescribeLiveSnapshotRules&Version=2018-08-01&Nonce=1&Timestamp=1735689600&SecretId=AKID&\
                     Signature=x&Region=ap-guangzhou&Language=en-US&RequestClient=me&Token=t&SignatureMethod=HmacSHA256";

const HOST: [(&str, &str); 1] = [("host", "live.tencentcloudapi.com")];

fn get(query: &str) -> HttpRequest<'_> {
    HttpRequest { method: "GET", query, headers: &HOST, body: b"" }
}

fn code(request: &HttpRequest<'_>) -> Result<Action, ErrorCode> {
    Call::parse(request).map(|call| call.action).map_err(|error| error.code)
}

#[test]
fn takes_the_action_from_headers_with_version_3() {
    let call = Call::parse(&post(&VERSION_3, br#"{"A":1}"#)).expect("a call");
    assert_eq!((call.action, call.unverified.secret_id()), (Action::DescribeLiveSnapshotRules, "AKID"));
    assert_eq!(call.params.unread().collect::<Vec<_>>(), ["A"]);
}

#[test]
fn takes_the_action_from_the_parameters_with_version_1() {
    let form = [HOST[0], ("Content-Type", "application/x-www-form-urlencoded")];
    let query = format!("{QUERY}&A.0=1");
    for request in [get(&query), post(&form, query.as_bytes())] {
        let call = Call::parse(&request).expect("a call");
        assert_eq!((call.action, call.unverified.secret_id()), (Action::DescribeLiveSnapshotRules, "AKID"));
        assert_eq!(call.params.unread().collect::<Vec<_>>(), ["A"], "the common ones are not the action's");
    }
}

#[test]
fn takes_the_parameters_of_a_get_from_the_query_with_version_3() {
    let headers = with(&[("Content-Type", "application/x-www-form-urlencoded")]);
    let request = HttpRequest { method: "GET", query: "A.0=x&B=1", headers: &headers, body: b"ignored" };
    let call = Call::parse(&request).expect("a call");
    assert_eq!(call.params, Params::from_json(br#"{"A":{"0":"x"},"B":"1"}"#).expect("JSON"));
}

#[test]
fn takes_a_type_with_parameters() {
    for content_type in ["application/json; charset=utf-8", "Application/JSON ;charset=UTF-8"] {
        let headers = with(&[("Content-Type", content_type)]);
        assert_eq!(code(&post(&headers, b"{}")), Ok(Action::DescribeLiveSnapshotRules), "{content_type}");
    }
}

#[test]
fn checks_in_the_documented_order() {
    // Each request has the fault it is named after and every fault that is to be found later.
    let body_over = alloc::vec![b'{'; BODY_BYTES_MAX + 1];
    let query_over = "a".repeat(QUERY_BYTES_MAX + 1);
    let faulty = with(&[("X-TC-Version", "2017-01-01"), ("X-TC-Action", "Nonsense"), ("Authorization", "SKIP")]);
    let right_version = with(&[("X-TC-Action", "Nonsense"), ("Authorization", "SKIP")]);
    let right_action = with(&[("Authorization", "SKIP")]);
    for (name, request, expected) in [
        ("method", HttpRequest { method: "PUT", ..post(&faulty, &body_over) }, UnsupportedProtocol),
        ("size of the body", post(&faulty, &body_over), RequestSizeLimitExceeded),
        ("size of the query", get(&query_over), RequestSizeLimitExceeded),
        ("syntax", post(&faulty, b"{"), InvalidParameter),
        ("version", post(&faulty, b"{}"), NoSuchVersion),
        ("action", post(&right_version, b"{}"), InvalidAction),
        ("signature", post(&right_action, b"{}"), AuthFailureInvalidAuthorization),
    ] {
        assert_eq!(code(&request), Err(expected), "{name}");
    }
}

#[test]
fn names_what_is_missing_or_malformed_with_version_3() {
    for (name, change, expected) in [
        ("no version", ("X-TC-Version", ""), MissingParameter),
        ("no action", ("X-TC-Action", ""), MissingParameter),
        ("no time stamp", ("X-TC-Timestamp", ""), MissingParameter),
        ("no host", ("Host", ""), MissingParameter),
        ("a time stamp with a sign", ("X-TC-Timestamp", "-1"), InvalidParameter),
        ("a time stamp in words", ("X-TC-Timestamp", "now"), InvalidParameter),
        ("a time stamp beyond 63 bits", ("X-TC-Timestamp", "9223372036854775808"), InvalidParameter),
        ("no type", ("Content-Type", ""), InvalidRequest),
        ("a form", ("Content-Type", "application/x-www-form-urlencoded"), InvalidRequest),
        ("a multipart body", ("Content-Type", "multipart/form-data; boundary=x"), InvalidRequest),
        ("nobody", ("Authorization", ""), AuthFailureInvalidAuthorization),
        (
            "another product",
            (
                "Authorization",
                "TC3-HMAC-SHA256 Credential=AKID/2025-01-01/cvm/tc3_request, SignedHeaders=content-type;host, Signature=ab",
            ),
            AuthFailureInvalidAuthorization,
        ),
        (
            "no SecretId",
            (
                "Authorization",
                "TC3-HMAC-SHA256 Credential=/2025-01-01/live/tc3_request, SignedHeaders=content-type;host, Signature=ab",
            ),
            InvalidParameter,
        ),
        (
            "a signed header that is not there",
            (
                "Authorization",
                "TC3-HMAC-SHA256 Credential=AKID/2025-01-01/live/tc3_request, SignedHeaders=content-type;host;x-tc-token, \
                 Signature=ab",
            ),
            AuthFailureInvalidAuthorization,
        ),
    ] {
        let headers = with(&[change]);
        assert_eq!(code(&post(&headers, b"{}")), Err(expected), "{name}");
    }
}

#[test]
fn refuses_headers_that_stand_twice() {
    for (name, value) in VERSION_3 {
        let twice: Vec<_> = VERSION_3.into_iter().chain([(name, value)]).collect();
        assert_eq!(code(&post(&twice, b"{}")), Err(InvalidParameter), "{name}");
    }
}

#[test]
fn names_what_is_missing_or_malformed_with_version_1() {
    for (name, expected) in [
        ("Version", MissingParameter),
        ("Action", MissingParameter),
        ("Nonce", MissingParameter),
        ("Timestamp", MissingParameter),
        ("SecretId", MissingParameter),
        ("Signature", MissingParameter),
    ] {
        let without: Vec<_> = QUERY.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect();
        assert_eq!(code(&get(&without.join("&"))), Err(expected), "without {name}");
        let twice = format!("{QUERY}&{name}=1");
        assert_eq!(code(&get(&twice)), Err(InvalidParameter), "{name} twice");
    }
    for (name, pair, changed, expected) in [
        ("nonce in words", "Nonce=1", "Nonce=x", InvalidParameter),
        ("negative nonce", "Nonce=1", "Nonce=-1", InvalidParameter),
        ("time stamp in words", "Timestamp=1735689600", "Timestamp=x", InvalidParameter),
        ("unknown action", "Action=DescribeLiveSnapshotRules", "Action=DescribeLiveWatermarks", InvalidAction),
        ("other version", "Version=2018-08-01", "Version=2018-08-02", NoSuchVersion),
    ] {
        assert_eq!(code(&get(&QUERY.replace(pair, changed))), Err(expected), "{name}");
    }
    assert_eq!(
        code(&get(&QUERY.replace("Nonce=1", "Nonce=9223372036854775807"))),
        Ok(Action::DescribeLiveSnapshotRules)
    );
    let json = [HOST[0], ("Content-Type", "application/json")];
    assert_eq!(code(&post(&json, b"{}")), Err(AuthFailureInvalidAuthorization), "version 3 without a signature");
    assert_eq!(code(&post(&HOST, QUERY.as_bytes())), Err(InvalidRequest), "a body of no type");
    let form = [HOST[0], ("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(code(&post(&form, b"a=\xff")), Err(InvalidParameter), "not UTF-8");
    assert_eq!(code(&HttpRequest { headers: &[], ..get(QUERY) }), Err(MissingParameter), "no host");
}

#[test]
fn a_call_prints_no_values() {
    let headers = with(&[]);
    let call = Call::parse(&post(&headers, br#"{"CallbackKey":"hunter2"}"#)).expect("a call");
    assert!(!format!("{call:?}").contains("hunter2"));
    let call = Call::parse(&get(&format!("{QUERY}&CallbackKey=hunter2"))).map(|call| format!("{call:?}"));
    assert!(!call.expect("a call").contains("hunter2"));
}
