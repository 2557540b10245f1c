//! The steps of a signature, which nobody sees from outside. `tests/signatures.rs` has whole requests.

use alloc::vec;

use super::*;

const BODY: &[u8] = br#"{"TemplateName": "cover_10s", "CosAppId": 1250000000, "CosBucket": "shots", "CosRegion": "ap-guangzhou", "SnapshotInterval": 10, "Width": 0, "Height": 360}"#;

const KEY: &str = "exampleSecretKeyExampleSecretKey01";

fn request<'a>(headers: &'a [(&'a str, &'a str)]) -> HttpRequest<'a> {
    HttpRequest { method: "POST", query: "", headers, body: BODY }
}

#[test]
fn takes_every_step_of_the_vector() {
    let request = request(&[("Content-Type", "application/json"), ("Host", "live.tencentcloudapi.com")]);
    let payload = Payload::of(&request).expect("a payload");
    assert_eq!(payload.hash, "3805db9fd71c6355db45dd504043b87b28d58b23c1725e0670d01914a3434828");
    let headers = signed_headers(&request, &["content-type", "host"]).expect("both headers");
    let canonical = canonical_request(&request, &headers, &payload);
    let expected = "POST\n/\n\ncontent-type:application/json\nhost:live.tencentcloudapi.com\n\ncontent-type;host\n\
                    3805db9fd71c6355db45dd504043b87b28d58b23c1725e0670d01914a3434828";
    assert_eq!(canonical, expected);
    let to_sign = string_to_sign("1735689600", "2025-01-01/live/tc3_request", &canonical);
    let hash = "4bb3951e253f04b33b5edc948030b0dd60f8082fd0200dab1d23d187ca3ad269";
    assert_eq!(to_sign, format!("TC3-HMAC-SHA256\n1735689600\n2025-01-01/live/tc3_request\n{hash}"));

    let date_key = hmac(format!("TC3{KEY}").as_bytes(), "2025-01-01");
    assert_eq!(hex(date_key), "27c007b4ba5e5219fddd0cbb30168bf6e7185f46674126bda987c0dc02daaf2c");
    let service_key = hmac(&date_key, "live");
    assert_eq!(hex(service_key), "f863aa1c883cf9e3fef08e0b959e45712a5e5c8d7ee7cce7c082565fce0ad9ea");
    let key = signing_key(KEY, "2025-01-01", "live");
    assert_eq!(hex(key), "13e673fe3f8dfcef6bdabb2ef20ae54bb3da040f06d063498a77ed6aef4c47d6");
    assert_eq!(hex(hmac(&key, &to_sign)), "5cdbc0a3d522cea663d8e9c71a015ec46b234f52209300d4eef1c5e62dc4c4f0");
}

#[test]
fn tries_each_way_to_write_the_headers_once() {
    let spelled = |content_type: &str, host: &str| {
        let headers = [("content-type", content_type.to_owned()), ("host", host.to_owned())];
        header_spellings(&headers).into_iter().map(|headers| headers.map_values()).collect::<Vec<_>>()
    };
    assert_eq!(spelled("application/json", "a.example"), [["application/json", "a.example"]]);
    assert_eq!(
        spelled("application/json", "127.0.0.1:8080"),
        [["application/json", "127.0.0.1:8080"], ["application/json", "127.0.0.1"]]
    );
    assert_eq!(
        spelled("application/json; charset=UTF-8", "A.example:80"),
        [
            ["application/json; charset=utf-8", "a.example:80"],
            ["application/json; charset=utf-8", "a.example"],
            ["application/json; charset=UTF-8", "A.example:80"],
            ["application/json; charset=UTF-8", "A.example"],
        ]
    );
}

trait MapValues {
    fn map_values(self) -> Vec<String>;
}

impl MapValues for Vec<(&str, String)> {
    fn map_values(self) -> Vec<String> {
        self.into_iter().map(|(_, value)| value).collect()
    }
}

#[test]
fn finds_the_port() {
    for (host, bare) in [
        ("a.example", "a.example"),
        ("a.example:80", "a.example"),
        ("[::1]:8080", "[::1]"),
        ("[::1]", "[::1]"),
        ("a.example:", "a.example:"),
        ("a.example:http", "a.example:http"),
        ("", ""),
    ] {
        assert_eq!(without_port(host), bare);
    }
}

#[test]
fn reads_the_authorization_header() {
    for text in [
        "TC3-HMAC-SHA256 Credential=AKID/2025-01-01/live/tc3_request, SignedHeaders=content-type;host, Signature=ab",
        "TC3-HMAC-SHA256 Credential=AKID/2025-01-01/live/tc3_request,SignedHeaders=content-type;host,Signature=ab",
        "TC3-HMAC-SHA256  Signature=ab , SignedHeaders=content-type;host, Credential=AKID/2025-01-01/live/tc3_request",
    ] {
        let read = Authorization::parse(text).expect(text);
        assert_eq!((read.secret_id, read.date, read.service, read.signature), ("AKID", "2025-01-01", "live", "ab"));
        assert_eq!(read.signed_headers, ["content-type", "host"]);
    }
}

#[test]
fn refuses_a_malformed_authorization_header() {
    let with = |credential: &str, headers: &str| {
        format!("TC3-HMAC-SHA256 Credential={credential}, SignedHeaders={headers}, Signature=ab")
    };
    let scope = "AKID/2025-01-01/live/tc3_request";
    let many = vec!["content-type;host"; 17].join(";");
    for (name, text, why) in [
        ("nothing", String::new(), "begin"),
        ("unsigned by the SDK's own option", "SKIP".into(), "begin"),
        ("another scheme", "Bearer abc".into(), "begin"),
        ("only the scheme", "TC3-HMAC-SHA256".into(), "no `=`"),
        ("no signature", format!("TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host"), "needs"),
        ("a part twice", format!("{}, Signature=cd", with(scope, "content-type;host")), "twice"),
        ("a part of nobody's", format!("{}, More=1", with(scope, "content-type;host")), "unknown"),
        ("a scope of three", with("AKID/2025-01-01/tc3_request", "content-type;host"), "Credential"),
        ("a scope of five", with("AK/ID/2025-01-01/live/tc3_request", "content-type;host"), "Credential"),
        ("another end", with("AKID/2025-01-01/live/aws4_request", "content-type;host"), "Credential"),
        ("no host signed", with(scope, "content-type"), "at least"),
        ("no type signed", with(scope, "host"), "at least"),
        ("34 headers", with(scope, &many), "too many"),
    ] {
        let error = Authorization::parse(&text).err().unwrap_or_else(|| panic!("{name} was accepted"));
        assert_eq!(error.code, ErrorCode::AuthFailureInvalidAuthorization, "{name}");
        assert!(error.message.contains(why), "{name}: {}", error.message);
    }
    let long = with(scope, &"h".repeat(AUTHORIZATION_BYTES_MAX));
    assert_eq!(Authorization::parse(&long).err().map(|error| error.code), Some(ErrorCode::RequestSizeLimitExceeded));
}
