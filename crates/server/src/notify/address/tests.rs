use proptest::prelude::*;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().expect("the table holds addresses")
}

fn policy(allow: &[&str]) -> AddressPolicy {
    AddressPolicy::new(allow.iter().map(|block| block.parse().expect("the table holds blocks")).collect())
}

/// First and last address of every block that a registry does not call globally reachable, and its class.
#[test]
fn forbids_every_special_block_from_its_first_to_its_last_address() {
    let rows = [
        ("0.0.0.0", "0.255.255.255", "this network"),
        ("10.0.0.0", "10.255.255.255", "private"),
        ("100.64.0.0", "100.127.255.255", "shared"),
        ("127.0.0.0", "127.255.255.255", "loopback"),
        ("168.63.129.16", "168.63.129.16", "metadata"),
        ("169.254.0.0", "169.254.255.255", "link-local"),
        ("172.16.0.0", "172.31.255.255", "private"),
        ("192.0.0.0", "192.0.0.255", "protocol"),
        ("192.0.2.0", "192.0.2.255", "documentation"),
        ("192.88.99.0", "192.88.99.255", "6to4"),
        ("192.168.0.0", "192.168.255.255", "private"),
        ("198.18.0.0", "198.19.255.255", "benchmarking"),
        ("198.51.100.0", "198.51.100.255", "documentation"),
        ("203.0.113.0", "203.0.113.255", "documentation"),
        ("224.0.0.0", "239.255.255.255", "multicast"),
        ("240.0.0.0", "255.255.255.254", "reserved"),
        ("255.255.255.255", "255.255.255.255", "broadcast"),
        ("::", "::", "unspecified"),
        ("::1", "::1", "loopback"),
        ("::2", "::ffff:ffff", "ipv4-compatible"),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "nat64"),
        ("100::", "100::ffff:ffff:ffff:ffff", "discard"),
        ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "discard"),
        ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "teredo"),
        ("2001:1::", "2001:1:ffff:ffff:ffff:ffff:ffff:ffff", "protocol"),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarking"),
        ("2001:3::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "protocol"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "6to4"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
        ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "srv6"),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private"),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link-local"),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "site-local"),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
        // Never assigned.
        ("0:1::", "63:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unassigned"),
        ("4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unassigned"),
        ("5f01::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unassigned"),
        ("fe00::", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unassigned"),
    ];
    for (first, last, class) in rows {
        assert_eq!(policy(&[]).verdict(address(first), &[]), Verdict::Forbidden(class), "{first}");
        assert_eq!(policy(&[]).verdict(address(last), &[]), Verdict::Forbidden(class), "{last}");
    }
}

/// The neighbours of the special blocks, so that no block is one bit too wide.
#[test]
fn allows_what_lies_just_outside_the_special_blocks() {
    let rows = [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2000::",
        "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:200::",
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
        "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2003::",
        "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff:1000::",
        "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    for row in rows {
        assert_eq!(policy(&[]).verdict(address(row), &[]), Verdict::Allowed, "{row}");
    }
}

#[test]
fn judges_an_embedded_ipv4_address_by_what_it_embeds() {
    let rows = [
        ("::ffff:127.0.0.1", Verdict::Forbidden("loopback")),
        ("::ffff:a9fe:a9fe", Verdict::Forbidden("link-local")),
        ("::ffff:93.184.215.14", Verdict::Allowed),
        ("64:ff9b::10.0.0.1", Verdict::Forbidden("private")),
        ("64:ff9b::100.100.100.200", Verdict::Forbidden("shared")),
        ("64:ff9b::93.184.215.14", Verdict::Allowed),
        // Deprecated forms are refused even around a public address.
        ("::93.184.215.14", Verdict::Forbidden("ipv4-compatible")),
        ("2002:5db8:d70e::1", Verdict::Forbidden("6to4")),
        ("2001:0:5db8:d70e::1", Verdict::Forbidden("teredo")),
        // Stateless translation (RFC 7915) keeps its IPv4 address one group further up.
        ("::ffff:0:7f00:1", Verdict::Forbidden("unassigned")),
    ];
    for (text, verdict) in rows {
        assert_eq!(policy(&[]).verdict(address(text), &[]), verdict, "{text}");
    }
}

#[test]
fn forbids_the_metadata_service_of_every_large_cloud() {
    let rows = [
        "169.254.169.254", // AWS, Azure, Google, OpenStack, DigitalOcean, Huawei
        "169.254.170.2",   // AWS, container credentials
        "169.254.0.23",    // Tencent
        "100.100.100.200", // Alibaba
        "168.63.129.16",   // Azure, wire server
        "192.0.0.192",     // Oracle
        "fd00:ec2::254",   // AWS
        "fd20:ce::254",    // Google
    ];
    for row in rows {
        assert!(matches!(policy(&[]).verdict(address(row), &[]), Verdict::Forbidden(_)), "{row}");
    }
}

#[test]
fn allows_exactly_the_blocks_that_the_operator_named() {
    let policy = policy(&["127.0.0.0/8", "10.1.2.3", "fd00:1::/48"]);
    let rows = [
        ("127.0.0.1", Verdict::Allowed),
        ("::ffff:127.0.0.1", Verdict::Allowed),
        ("10.1.2.3", Verdict::Allowed),
        ("10.1.2.4", Verdict::Forbidden("private")),
        ("fd00:1::9", Verdict::Allowed),
        ("fd00:2::9", Verdict::Forbidden("private")),
        // Other ways to write an allowed address stay forbidden: a translator or relay decides where they lead.
        ("64:ff9b::10.1.2.3", Verdict::Forbidden("private")),
        ("2002:7f00:1::", Verdict::Forbidden("6to4")),
        ("::1", Verdict::Forbidden("loopback")),
    ];
    for (text, verdict) in rows {
        assert_eq!(policy.verdict(address(text), &[]), verdict, "{text}");
    }
}

#[test]
fn forbids_what_is_this_machines_own_unless_its_block_is_allowed() {
    let own = ["93.184.215.14", "10.0.0.5", "2600::5"].map(address);
    let ours = Verdict::Forbidden("this machine's own");
    let rows = [
        ("93.184.215.14", ours),
        ("93.184.215.15", Verdict::Allowed),
        ("::ffff:93.184.215.14", ours),
        ("64:ff9b::93.184.215.14", ours),
        ("2600::5", ours),
        ("2600::6", Verdict::Allowed),
        // Says more than that it is private.
        ("10.0.0.5", ours),
        ("10.0.0.6", Verdict::Forbidden("private")),
    ];
    for (text, verdict) in rows {
        assert_eq!(policy(&[]).verdict(address(text), &own), verdict, "{text}");
    }
    let allowing = policy(&["93.184.215.14", "10.0.0.0/8", "2600::/64"]);
    for text in ["93.184.215.14", "::ffff:93.184.215.14", "10.0.0.5", "2600::5"] {
        assert_eq!(allowing.verdict(address(text), &own), Verdict::Allowed, "{text}");
    }
    assert_eq!(allowing.verdict(address("64:ff9b::93.184.215.14"), &own), ours);
}

#[test]
fn parses_blocks_and_refuses_careless_ones() {
    let block = |text: &str| text.parse::<Cidr>().map(|block| block.to_string());
    assert_eq!(block("10.0.0.0/8"), Ok("10.0.0.0/8".to_owned()));
    assert_eq!(block("10.1.2.3"), Ok("10.1.2.3/32".to_owned()));
    assert_eq!(block("10.1.2.3/32"), Ok("10.1.2.3/32".to_owned()));
    assert_eq!(block("fc00::/7"), Ok("fc00::/7".to_owned()));
    assert_eq!(block("::1"), Ok("::1/128".to_owned()));

    for wide in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/7"] {
        assert_eq!(block(wide), Err(CidrError::TooWide { prefix_min: 8 }), "{wide}");
    }
    for wide in ["::/0", "8000::/1", "fc00::/6"] {
        assert_eq!(block(wide), Err(CidrError::TooWide { prefix_min: 7 }), "{wide}");
    }
    assert_eq!(
        block("10.1.2.3/8"),
        Err(CidrError::HostBits { block: Cidr::v4(10, 0, 0, 0, 8), address: address("10.1.2.3") })
    );
    assert_eq!(block("::ffff:10.0.0.0/104"), Err(CidrError::Mapped));
    for malformed in ["", "/", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/8/8", "10/8", "host/8"] {
        assert_eq!(block(malformed), Err(CidrError::Malformed), "{malformed}");
    }
}

proptest! {
    /// Any IPv4 address gets one answer, whichever of the forms that reach it is written.
    #[test]
    fn mapped_and_translated_forms_never_get_more_than_the_plain_address(bits: u32) {
        let plain = Ipv4Addr::from_bits(bits);
        let verdict = policy(&[]).verdict(plain.into(), &[]);
        prop_assert_eq!(policy(&[]).verdict(plain.to_ipv6_mapped().into(), &[]), verdict);
        let translated = Ipv6Addr::from_bits((0x64_ff9b_u128 << 96) | u128::from(bits));
        prop_assert_eq!(policy(&[]).verdict(translated.into(), &[]), verdict);
    }

    /// std knows most special IPv4 ranges too; where it says so, we forbid.
    #[test]
    fn agrees_with_the_standard_library_on_ipv4(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
            || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
        prop_assert!(!special || matches!(policy(&[]).verdict(v4.into(), &[]), Verdict::Forbidden(_)));
    }

    #[test]
    fn a_written_block_parses_to_itself(bits: u128, prefix in 7u8..=128) {
        let network = Ipv6Addr::from_bits(bits & (u128::MAX << (128 - prefix)));
        prop_assume!(network.to_ipv4_mapped().is_none());
        let block = Cidr { network: network.into(), prefix };
        prop_assert_eq!(block.to_string().parse(), Ok(block));
        prop_assert!(block.contains(Ipv6Addr::from_bits(bits).into()));
    }
}
