//! Signatures of whole requests: every vector of the documents, both ways, and what must not pass.

use framehook_tc3::envelope::{Call, HttpRequest};
use framehook_tc3::error::{ApiError, ErrorCode};
use framehook_tc3::sign::v1::Digest;
use framehook_tc3::sign::{SignatureKind, Verified, tc3, v1};
use framehook_tc3::time::UnixSecs;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

const SECRET_ID: &str = "AKIDexampleExampleExampleExample0001";
const SECRET_KEY: &str = "exampleSecretKeyExampleSecretKey01";
const AT: UnixSecs = UnixSecs(1_735_689_600);
const HOST: &str = "live.tencentcloudapi.com";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A request of version 3.
#[derive(Clone, Debug, PartialEq)]
struct Tc3 {
    method: String,
    query: String,
    host: String,
    content_type: String,
    action: String,
    timestamp: String,
    authorization: String,
    body: Vec<u8>,
}

impl Tc3 {
    fn post(action: &str, body: &str) -> Self {
        Self {
            method: "POST".into(),
            query: String::new(),
            host: HOST.into(),
            content_type: JSON.into(),
            action: action.into(),
            timestamp: AT.0.to_string(),
            authorization: String::new(),
            body: body.into(),
        }
    }

    fn get(action: &str, query: &str) -> Self {
        Self { method: "GET".into(), query: query.into(), content_type: FORM.into(), ..Self::post(action, "") }
    }

    fn with_request<T>(&self, use_it: impl FnOnce(&HttpRequest<'_>) -> T) -> T {
        let headers = [
            ("Host", self.host.as_str()),
            ("Content-Type", &self.content_type),
            ("X-TC-Action", &self.action),
            ("X-TC-Version", "2018-08-01"),
            ("X-TC-Timestamp", &self.timestamp),
            ("X-TC-Token", "not part of the signature"),
            ("Authorization", &self.authorization),
        ];
        use_it(&HttpRequest { method: &self.method, query: &self.query, headers: &headers, body: &self.body })
    }

    fn sign(mut self, signed_headers: &[&str]) -> Self {
        self.authorization = self
            .with_request(|request| tc3::authorization(request, signed_headers, SECRET_ID, SECRET_KEY))
            .expect("a signature");
        self
    }

    fn verify_with(&self, secret_key: &str, now: UnixSecs) -> Result<Verified, ApiError> {
        self.with_request(|request| verify(request, secret_key, now))
    }

    fn verify(&self) -> Result<Verified, ApiError> {
        self.verify_with(SECRET_KEY, AT)
    }
}

/// What a server does: only this one id is known.
fn verify(request: &HttpRequest<'_>, secret_key: &str, now: UnixSecs) -> Result<Verified, ApiError> {
    let unverified = Call::parse(request)?.unverified;
    if unverified.secret_id() == SECRET_ID {
        unverified.verify(secret_key, now)
    } else {
        Err(ApiError::secret_id_not_found())
    }
}

const REQUIRED: [&str; 2] = ["content-type", "host"];

fn code(result: Result<Verified, ApiError>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

#[test]
fn version_3_signs_and_accepts_every_vector() {
    let template = r#"{"TemplateName": "cover_10s", "CosAppId": 1250000000, "CosBucket": "shots", "CosRegion": "ap-guangzhou", "SnapshotInterval": 10, "Width": 0, "Height": 360}"#;
    let empty = Tc3::post("DescribeLiveCallbackRules", "{}");
    let stream = "AppName=live&DomainName=push.example.com&StreamName=room_1001";
    let counts = "StartTime=2025-01-01+00%3A00%3A00&EndTime=2025-01-02+00%3A00%3A00&PushDomains.0=push.example.com&\
                  PushDomains.1=push2.example.com";
    for (name, request, signature) in [
        (
            "1, a body",
            Tc3::post("CreateLiveSnapshotTemplate", template),
            "5cdbc0a3d522cea663d8e9c71a015ec46b234f52209300d4eef1c5e62dc4c4f0",
        ),
        ("2, no parameters", empty.clone(), "c857c796ca455016c258adc6919578f72978e161fe33d858a715db55d2431d76"),
        (
            "3, another host",
            Tc3 { host: "127.0.0.1:8080".into(), ..empty },
            "dbad4818e2fb55a66e659faa3e07448a3e1f7b8a150669b9fdf2a1c771cdbc5b",
        ),
        (
            "4, a query",
            Tc3::get("DescribeLiveStreamState", stream),
            "99c5977c5d38848b2888c0c242ec2c0eaee85629088fed26cff669788849a4ec",
        ),
        (
            "5, a query in its own order",
            Tc3::get("DescribeScreenShotSheetNumList", counts),
            "66a365cd25b5cdf98876e160398662f7b582fbfe6a9cd9d8e84f18b920b84c6f",
        ),
    ] {
        let expected = format!(
            "TC3-HMAC-SHA256 Credential={SECRET_ID}/2025-01-01/live/tc3_request, SignedHeaders=content-type;host, \
             Signature={signature}"
        );
        let signed = request.sign(&REQUIRED);
        assert_eq!(signed.authorization, expected, "{name}");
        let verified = Verified { secret_id: SECRET_ID.into(), kind: SignatureKind::Tc3 { payload_is_signed: true } };
        assert_eq!(signed.verify(), Ok(verified), "{name}");
    }
}

#[test]
fn version_3_accepts_what_clients_do_differently() {
    let signed = Tc3::post("DescribeLiveSnapshotRules", "{}");
    // Newer documents sign the action as well, in lower case.
    assert!(signed.clone().sign(&["content-type", "host", "x-tc-action"]).verify().is_ok());
    // Some clients send the type with a charset and sign it so.
    let charset = Tc3 { content_type: "application/json; charset=utf-8".into(), ..signed.clone() };
    assert!(charset.sign(&REQUIRED).verify().is_ok());
    // Signed with one spelling, sent with the other.
    let lower = signed.clone().sign(&REQUIRED);
    assert!(Tc3 { host: HOST.to_uppercase(), ..lower.clone() }.verify().is_ok());
    // Signed without the port that was sent: the Node.js SDK.
    assert!(Tc3 { host: format!("{HOST}:8080"), ..lower }.verify().is_ok());
}

#[test]
fn says_what_is_wrong_with_a_signature() {
    let signed = Tc3::post("DescribeLiveSnapshotRules", "{}").sign(&REQUIRED);
    for (name, off_secs, expected) in [
        ("now", 0, None),
        ("five minutes later", 300, None),
        ("five minutes before", -300, None),
        ("a second more", 301, Some(ErrorCode::AuthFailureSignatureExpire)),
        ("a second less", -301, Some(ErrorCode::AuthFailureSignatureExpire)),
    ] {
        assert_eq!(code(signed.verify_with(SECRET_KEY, UnixSecs(AT.0 + off_secs))), expected, "{name}");
    }
    for key in ["", "exampleSecretKeyExampleSecretKey02", "exampleSecretKeyExampleSecretKey01 "] {
        assert_eq!(code(signed.verify_with(key, AT)), Some(ErrorCode::AuthFailureSignatureFailure));
    }
    for now in [i64::MIN, i64::MAX] {
        assert_eq!(code(signed.verify_with("", UnixSecs(now))), Some(ErrorCode::AuthFailureSignatureExpire));
    }
    let elsewhere = Tc3 { host: "proxy.example".into(), ..signed.clone() };
    let message = elsewhere.verify().expect_err("another host").message;
    assert!(message.contains("`proxy.example`"), "the host that was seen is named: {message}");
}

#[test]
fn the_date_must_be_that_of_the_time_stamp() {
    let signed = Tc3::post("DescribeLiveSnapshotRules", "{}").sign(&REQUIRED);
    // One second earlier it was still 2024; a client that formats its local date makes this mistake.
    let earlier = Tc3 { timestamp: (AT.0 - 1).to_string(), ..signed.clone() };
    assert_eq!(code(earlier.verify()), Some(ErrorCode::AuthFailureSignatureFailure));
    let dated = Tc3 { authorization: signed.authorization.replace("2025-01-01", "2024-12-31"), ..signed };
    assert_eq!(code(dated.verify()), Some(ErrorCode::AuthFailureSignatureFailure));
}

/// Of version 1, in the order in which they were written.
fn vector_pairs(digest: &str) -> Vec<(String, String)> {
    [
        ("Action", "DescribeLiveStreamState"),
        ("AppName", "live"),
        ("DomainName", "push.example.com"),
        ("Language", "zh-CN"),
        ("Nonce", "424242"),
        ("Region", "ap-guangzhou"),
        ("RequestClient", "SDK_PYTHON_3.1.195"),
        ("SecretId", SECRET_ID),
        ("SignatureMethod", digest),
        ("StreamName", "room_1001"),
        ("Timestamp", "1735689600"),
        ("Version", "2018-08-01"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn encode(pairs: &[(String, String)]) -> String {
    let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect::<Vec<_>>().join("&")
}

fn verify_v1(method: &str, host: &str, form: &str, now: UnixSecs) -> Result<Verified, ApiError> {
    let headers = [("Host", host), ("Content-Type", FORM)];
    let (query, body) = if method == "GET" { (form, "") } else { ("", form) };
    let request = HttpRequest { method, query, headers: &headers, body: body.as_bytes() };
    verify(&request, SECRET_KEY, now)
}

fn signed_form(digest: Digest, method: &str, pairs: &[(String, String)]) -> String {
    let signature = v1::signature(digest, method, HOST, pairs, SECRET_KEY);
    format!("{}&{}", encode(pairs), encode(&[("Signature".into(), signature)]))
}

#[test]
fn version_1_signs_and_accepts_every_vector() {
    for (method, name, digest, signature) in [
        ("GET", "HmacSHA1", Digest::HmacSha1, "X/ge3KwnMvSetznJrjmXEyrOkt4="),
        ("POST", "HmacSHA1", Digest::HmacSha1, "vx8KHM1V3NjZ1CvX7nU2Jtf/MAo="),
        ("GET", "HmacSHA256", Digest::HmacSha256, "56n94Kxj8K90pyzU+KxZbpDnyzZO43ZXiQP9NvDQ8go="),
        ("POST", "HmacSHA256", Digest::HmacSha256, "ZDlebgh9mARH3Upp6XRhL6qKkwLmgUDjTC0osNDT8AI="),
    ] {
        let pairs = vector_pairs(name);
        assert_eq!(v1::signature(digest, method, HOST, &pairs, SECRET_KEY), signature, "{method} {name}");
        let verified = Verified {
            secret_id: SECRET_ID.into(),
            kind: SignatureKind::V1 { digest, nonce: 424_242, timestamp: AT, signature: signature.into() },
        };
        assert_eq!(verify_v1(method, HOST, &signed_form(digest, method, &pairs), AT), Ok(verified), "{method} {name}");
    }
}

#[test]
fn version_1_without_a_method_is_sha_1() {
    for replace in [None, Some("HmacMD5"), Some("hmacsha256")] {
        let mut pairs = vector_pairs("HmacSHA1");
        match replace {
            None => pairs.retain(|(name, _)| name != "SignatureMethod"),
            Some(method) => pairs[8].1 = method.into(),
        }
        assert!(verify_v1("GET", HOST, &signed_form(Digest::HmacSha1, "GET", &pairs), AT).is_ok(), "{replace:?}");
    }
}

#[test]
fn version_1_says_what_is_wrong() {
    let form = signed_form(Digest::HmacSha1, "GET", &vector_pairs("HmacSHA1"));
    for (name, outcome, expected) in [
        ("as sent", verify_v1("GET", HOST, &form, AT), None),
        ("five minutes old", verify_v1("GET", HOST, &form, UnixSecs(AT.0 + 300)), None),
        ("older", verify_v1("GET", HOST, &form, UnixSecs(AT.0 + 301)), Some(ErrorCode::AuthFailureSignatureExpire)),
        ("another method", verify_v1("POST", HOST, &form, AT), Some(ErrorCode::AuthFailureSignatureFailure)),
        ("another host", verify_v1("GET", "a.example", &form, AT), Some(ErrorCode::AuthFailureSignatureFailure)),
        (
            "another digest",
            verify_v1("GET", HOST, &form.replace("HmacSHA1", "HmacSHA256"), AT),
            Some(ErrorCode::AuthFailureSignatureFailure),
        ),
        (
            "one more parameter",
            verify_v1("GET", HOST, &format!("{form}&More=1"), AT),
            Some(ErrorCode::AuthFailureSignatureFailure),
        ),
    ] {
        assert_eq!(code(outcome), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn version_3_accepts_what_it_signed_and_nothing_near_it(
        body in "\\PC{0,40}",
        query in "[!-~]{0,20}",
        host in "[a-z0-9.-]{1,20}",
        secs in 0..4_000_000_000_i64,
        part in 0..7_usize,
        at in any::<prop::sample::Index>(),
        flip in 1..=127_u8,
    ) {
        let body = format!("{{\"A\":{}}}", serde_json::Value::from(body));
        let signed = Tc3 { query, host, timestamp: secs.to_string(), ..Tc3::post("DescribeLiveSnapshotRules", &body) }
            .sign(&REQUIRED);
        let verify_at = |request: &Tc3| request.verify_with(SECRET_KEY, UnixSecs(secs));
        prop_assert!(verify_at(&signed).is_ok());

        let mut changed = signed.clone();
        let change = |text: &mut String| {
            let mut bytes = std::mem::take(text).into_bytes();
            if !bytes.is_empty() {
                let index = at.index(bytes.len());
                bytes[index] = (bytes[index] ^ flip) & 127;
            }
            *text = String::from_utf8(bytes).expect("ASCII stays ASCII");
        };
        match part {
            0 => change(&mut changed.method),
            1 => change(&mut changed.query),
            2 => change(&mut changed.host),
            3 => change(&mut changed.content_type),
            4 => change(&mut changed.timestamp),
            5 => change(&mut changed.authorization),
            _ => {
                let index = at.index(changed.body.len());
                changed.body[index] ^= flip;
            }
        }
        // Case and white space around a header's value mean nothing; neither does the space between parts.
        let meaning = |request: &Tc3| Tc3 {
            host: request.host.trim().to_ascii_lowercase(),
            content_type: request.content_type.trim().to_ascii_lowercase(),
            authorization: request.authorization.split_whitespace().collect(),
            ..request.clone()
        };
        if meaning(&changed) != meaning(&signed) {
            prop_assert!(verify_at(&changed).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn version_1_accepts_what_it_signed_and_nothing_near_it(
        values in prop::collection::btree_map("[A-Z][a-z_.]{0,6}[a-z]", "\\PC{0,10}", 0..6),
        is_get: bool,
        at in any::<prop::sample::Index>(),
        flip in 1..=127_u8,
    ) {
        // A name within another's path would be refused for its form.
        let own = values.into_iter().filter(|(name, _)| !name.contains('.'));
        let taken = vector_pairs("HmacSHA256");
        let own = own.filter(|(name, _)| taken.iter().all(|pair| pair.0 != *name)).collect::<Vec<_>>();
        let pairs = [own, taken].concat();
        let method = if is_get { "GET" } else { "POST" };
        let form = signed_form(Digest::HmacSha256, method, &pairs);
        prop_assert!(verify_v1(method, HOST, &form, AT).is_ok());

        let mut bytes = form.clone().into_bytes();
        let index = at.index(bytes.len());
        bytes[index] = (bytes[index] ^ flip) & 127;
        let changed = String::from_utf8(bytes).expect("ASCII stays ASCII");
        // What is signed is the text after decoding, and there are several ways to encode it.
        if decoded(&changed) != decoded(&form) {
            prop_assert!(verify_v1(method, HOST, &changed, AT).is_err(), "{changed}");
        }
    }
}

/// The signed text of a form, and its signature.
fn decoded(form: &str) -> Vec<String> {
    let pair = |pair: &str| {
        let spaced = pair.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let mut pairs: Vec<_> = form.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    pairs.sort();
    pairs
}
