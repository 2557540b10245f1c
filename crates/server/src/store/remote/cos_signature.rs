//! Tencent COS's own signature (436/7778), for headers and for URLs.
//!
//! Written here and not taken from a library: the signers that exist read the clock themselves, begin their window at this
//! very second, leave the security token unsigned, and so can neither be held against the vendor's vectors nor survive a
//! machine whose clock is a moment ahead.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::hmac;
use framehook_domain::time::UnixMs;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but `A–Z a–z 0–9 - _ . ~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    /// Such as `PUT`.
    pub(super) method: &'a str,
    /// The path as it is meant, not percent-encoded, with its leading slash.
    pub(super) path: &'a str,
    /// The query, values decoded; a parameter without one has an empty one.
    pub(super) parameters: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// From when to when a signature counts, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Window {
    /// How far before the present it begins, as the vendor's SDKs have it: our clock may be ahead of the store's.
    pub(super) const SLACK_SECS: i64 = 60;

    pub(super) fn from(now: UnixMs, life_secs: i64) -> Self {
        let now = now.secs();
        Self { start: now - Self::SLACK_SECS, end: now.saturating_add(life_secs) }
    }
}

/// The seven fields of a signature, in their order. Joined by `=` and `&` they are the `Authorization` header; as parameters
/// they sign a URL.
pub(super) fn fields(
    secret_id: &str,
    secret_key: &str,
    window: Window,
    signed: &Signed<'_>,
) -> [(&'static str, String); 7] {
    let key_time = format!("{};{}", window.start, window.end);
    let (parameter_names, parameters) = canonical(signed.parameters);
    let (header_names, headers) = canonical(signed.headers);
    let http = format!("{}\n{}\n{parameters}\n{headers}\n", signed.method.to_ascii_lowercase(), signed.path);
    let sum = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, http.as_bytes()).as_ref());
    // The hexadecimal text is the next key, not its bytes.
    let sign_key = hmac_sha1(secret_key, &key_time);
    let signature = hmac_sha1(&sign_key, &format!("sha1\n{key_time}\n{sum}\n"));
    [
        ("q-sign-algorithm", "sha1".to_owned()),
        ("q-ak", secret_id.to_owned()),
        ("q-sign-time", key_time.clone()),
        ("q-key-time", key_time),
        ("q-header-list", header_names),
        ("q-url-param-list", parameter_names),
        ("q-signature", signature),
    ]
}

/// The `Authorization` header.
pub(super) fn authorization(secret_id: &str, secret_key: &str, window: Window, signed: &Signed<'_>) -> String {
    fields(secret_id, secret_key, window, signed).map(|(name, value)| format!("{name}={value}")).join("&")
}

/// `text` with every byte percent-encoded that is not bare in a signature.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The names, sorted and joined by `;`, and the pairs joined by `=` and `&`.
fn canonical(pairs: &[(&str, &str)]) -> (String, String) {
    let mut pairs: Vec<(String, String)> =
        pairs.iter().map(|(name, value)| (encode(name).to_ascii_lowercase(), encode(value))).collect();
    pairs.sort();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    let values: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (names.join(";"), values.join("&"))
}

fn hmac_sha1(key: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    hex(hmac::sign(&key, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AKIDexampleExampleExampleExample0001";
    const KEY: &str = "exampleSecretKeyExampleSecretKey01";
    const WINDOW: Window = Window { start: 1_735_689_600, end: 1_735_693_260 };
    const HOST: (&str, &str) = ("Host", "shots-1250000000.cos.ap-guangzhou.myqcloud.com");
    const LENGTH: (&str, &str) = ("Content-Length", "15");
    const TYPE: (&str, &str) = ("Content-Type", "image/jpeg");
    const MD5: (&str, &str) = ("Content-MD5", "/h0HUYGD8vuSk/bJF5FODw==");
    const SHOT: &str = "/2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg";

    /// The five vectors that were made with the vendor's SDK.
    #[test]
    fn signs_as_the_vendor_does() {
        type Pairs = &'static [(&'static str, &'static str)];
        let rows: [(&str, &str, &str, Pairs, Pairs, &str); 5] = [
            (
                "a put with an ACL",
                "PUT",
                SHOT,
                &[],
                &[HOST, TYPE, MD5, LENGTH, ("x-cos-acl", "public-read")],
                "a145ef0f66ab113fa0c3d4dc0e2bb4d3ac15c881",
            ),
            (
                "a put with temporary credentials",
                "PUT",
                SHOT,
                &[],
                &[("x-cos-security-token", "tok-abc"), LENGTH, MD5, TYPE, HOST],
                "02da38cea451790a112f230fc35cdaddd03566b2",
            ),
            (
                "an odd key",
                "PUT",
                "/a b/é(1)+!*.jpg",
                &[],
                &[LENGTH, TYPE, HOST],
                "1f45dc4d3627831a92317e0a5130ef494d9e9d54",
            ),
            (
                "a list",
                "GET",
                "/",
                &[("prefix", "2025-01-01/"), ("max-keys", "10")],
                &[HOST],
                "179a1f3e98213785109f2c22f9e1802d06cbb805",
            ),
            ("a bucket's head", "HEAD", "/", &[], &[HOST], "e69275476806ce877e21f1e1c986ec6091e0567d"),
        ];
        for (name, method, path, parameters, headers, signature) in rows {
            let fields = fields(ID, KEY, WINDOW, &Signed { method, path, parameters, headers });
            assert_eq!(fields[6], ("q-signature", signature.to_owned()), "{name}");
        }
    }

    #[test]
    fn the_header_names_what_is_signed() {
        let headers = [HOST, TYPE, MD5, LENGTH, ("x-cos-acl", "public-read")];
        let signed = Signed { method: "PUT", path: SHOT, parameters: &[("acl", "")], headers: &headers };
        let header = authorization(ID, KEY, WINDOW, &signed);
        let (before, signature) = header.rsplit_once('=').expect("a signature");
        assert_eq!(
            before,
            "q-sign-algorithm=sha1&q-ak=AKIDexampleExampleExampleExample0001&q-sign-time=1735689600;1735693260\
             &q-key-time=1735689600;1735693260&q-header-list=content-length;content-md5;content-type;host;x-cos-acl\
             &q-url-param-list=acl&q-signature"
        );
        assert_eq!(signature.len(), 40);
    }

    #[test]
    fn a_window_begins_a_minute_ago() {
        assert_eq!(Window::from(UnixMs(1_735_689_660_999), 3600), WINDOW_OF_AN_HOUR);
    }

    const WINDOW_OF_AN_HOUR: Window = Window { start: 1_735_689_600, end: 1_735_693_260 };
}
