//! The text that is signed. `tests/signatures.rs` has whole requests.

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn signs_the_published_vector() {
    // The `DescribeInstances` example of the vendor's documentation, made for another product.
    let pairs = pairs(&[
        ("Action", "DescribeInstances"),
        ("InstanceIds.0", "ins-09dx96dg"),
        ("Limit", "20"),
        ("Nonce", "11886"),
        ("Offset", "0"),
        ("Region", "ap-guangzhou"),
        ("SecretId", "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE"),
        ("Timestamp", "1465185768"),
        ("Version", "2017-03-12"),
    ]);
    let key = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
    let signed = signature(Digest::HmacSha1, "GET", "cvm.tencentcloudapi.com", &pairs, key);
    assert_eq!(signed, "EliP9YW3pW28FpsEdkXt/+WcGeI=");
}

#[test]
fn sorts_by_name_and_leaves_the_signature_out() {
    let pairs = pairs(&[("b", "x y&z=%20"), ("Signature", "s"), ("a.2", "2"), ("a.12", "12"), ("B", ""), ("中", "文")]);
    assert_eq!(source("POST", "h:1", &pairs, str::to_owned), "POSTh:1/?B=&a.12=12&a.2=2&b=x y&z=%20&中=文");
}

#[test]
fn tries_names_with_dots_for_underscores_first() {
    let with = pairs(&[("a_b", "1"), ("a.a", "2")]);
    assert_eq!(sources("GET", "h", &with), ["GETh/?a.a=2&a.b=1", "GETh/?a.a=2&a_b=1"]);
    let without = pairs(&[("ab", "1")]);
    assert_eq!(sources("GET", "h", &without), ["GETh/?ab=1"]);
}
