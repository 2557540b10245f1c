//! Who is heard: right keys, wrong keys, old requests, repeated ones, and guessing.

use serde_json::{Value, json};

use super::client::{Kind, Sdk};
use super::{now, serve, with_each};

#[test]
fn only_holders_of_the_key_are_heard_and_only_now() {
    with_each(&Kind::SDKS, |sdk| {
        let key = sdk.order["secret_key"].clone();
        for (method, sign) in [
            ("POST", "TC3-HMAC-SHA256"),
            ("GET", "TC3-HMAC-SHA256"),
            ("POST", "HmacSHA1"),
            ("GET", "HmacSHA1"),
            ("POST", "HmacSHA256"),
            ("GET", "HmacSHA256"),
        ] {
            let what = format!("{method} {sign}");
            sdk.with("method", method).with("sign", sign);
            let list = |sdk: &mut Sdk| sdk.try_call("DescribeLiveDomains", &json!({})).map_err(|refused| refused.code);
            let failure = |code: &str| Err(code.to_owned());
            assert_eq!(list(sdk).unwrap()["AllCount"], 0, "{what}");
            for off in [-305, 305] {
                sdk.with("now", now() + off);
                assert_eq!(list(sdk), failure("AuthFailure.SignatureExpire"), "{what}, {off} s off");
            }
            sdk.with("now", now() - 290);
            assert!(list(sdk).is_ok(), "{what}");
            sdk.with("now", Value::Null).with("secret_key", "nobody's");
            assert_eq!(list(sdk), failure("AuthFailure.SignatureFailure"), "{what}");
            sdk.with("secret_key", key.clone());
            let id = sdk.order["secret_id"].clone();
            sdk.with("secret_id", "AKIDnobody");
            assert_eq!(list(sdk), failure("AuthFailure.SecretIdNotFound"), "{what}");
            sdk.with("secret_id", id);
        }
    });
}

#[test]
fn the_command_line_tool_is_told_what_is_wrong_with_its_key() {
    with_each(&[Kind::CommandLine], |sdk| {
        let id = sdk.order["secret_id"].clone();
        sdk.with("secret_id", "AKIDnobody");
        assert_eq!(sdk.code("DescribeLiveDomains", json!({})), "AuthFailure.SecretIdNotFound");
        sdk.with("secret_id", id).with("secret_key", "nobody's");
        assert_eq!(sdk.code("DescribeLiveDomains", json!({})), "AuthFailure.SignatureFailure");
    });
}

#[test]
fn a_request_signed_with_version_1_is_carried_out_once() {
    let server = serve();
    let mut sdk = Sdk::start(&server);
    sdk.with("sign", "HmacSHA256").with("now", now()).with("nonce", 424_242);
    sdk.call("DescribeLiveDomains", json!({}));
    assert_eq!(sdk.code("DescribeLiveDomains", json!({})), "AuthFailure.SignatureFailure");
    // Another request with the same nonce in the same second is another request.
    sdk.call("DescribeLiveDomains", json!({ "PageSize": 20 }));
    sdk.with("nonce", 424_243).call("DescribeLiveDomains", json!({}));
}

#[test]
fn an_address_that_guesses_is_told_to_wait_and_holders_of_the_key_are_not() {
    let server = serve();
    let mut sdk = Sdk::start(&server);
    let key = sdk.order["secret_key"].clone();
    sdk.with("secret_key", "a guess");
    let codes: Vec<String> = (0..25).map(|_| sdk.code("DescribeLiveDomains", json!({}))).collect();
    assert_eq!(codes[0], "AuthFailure.SignatureFailure");
    assert_eq!(codes[24], "RequestLimitExceeded.IPLimitExceeded");
    sdk.with("secret_key", key).call("DescribeLiveDomains", json!({}));
    assert!(!server.log().contains("a guess"));
}
