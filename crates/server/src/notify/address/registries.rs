//! The guard's tables against what IANA publishes (`testdata/iana`).

use super::*;
use crate::notify::ssrf_corpus::{address_at, bounds};

const IPV4: &str = include_str!("../../../../../testdata/iana/iana-ipv4-special-registry-1.csv");
const IPV6: &str = include_str!("../../../../../testdata/iana/iana-ipv6-special-registry-1.csv");

/// Blocks inside `192.0.0.0/24` and `2001::/23` that packets do cross the Internet to, and that are forbidden nevertheless
/// like all that is set apart for protocols: they are anycast addresses of routers and translators, tunnels, and identifiers
/// of hosts that need a protocol of their own to be reached. Nobody serves HTTP there.
const FORBIDDEN_THOUGH_REACHABLE: [&str; 9] = [
    "192.0.0.9/32",
    "192.0.0.10/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:20::/28",
    "2001:30::/28",
];

/// Forms of IPv4 addresses, judged by what they stand for: reachable or not, as a whole, says nothing.
const STANDS_FOR_IPV4: [&str; 2] = ["::ffff:0:0/96", "64:ff9b::/96"];

/// Blocks of ours that these two registries do not have, and who has.
const FROM_ELSEWHERE: [&str; 5] = [
    "168.63.129.16/32", // Azure's wire server
    "224.0.0.0/4",      // IANA IPv4 multicast address space
    "::/96",            // RFC 4291, 2.5.5.1
    "fec0::/10",        // RFC 3879
    "ff00::/8",         // IANA IPv6 multicast address space
];

struct Row {
    block: String,
    /// False too where the registry says that it depends (`N/A`: Teredo, 6to4) or nothing at all (terminated).
    is_reachable: bool,
}

/// The columns of each record (RFC 4180): a quoted one may hold commas and ends of lines.
fn records(csv: &str) -> Vec<Vec<String>> {
    let (mut records, mut columns, mut column, mut is_quoted) = (Vec::new(), Vec::new(), String::new(), false);
    for letter in csv.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => columns.push(std::mem::take(&mut column)),
            '\n' if !is_quoted => {
                columns.push(std::mem::take(&mut column));
                records.push(std::mem::take(&mut columns));
            }
            _ => column.push(letter),
        }
    }
    records
}

/// One row for each block, without footnotes.
fn rows(csv: &str) -> Vec<Row> {
    let mut records = records(csv).into_iter();
    let titles = records.next().expect("a head");
    let column = |title| titles.iter().position(|other| other == title).expect("a column");
    let (block, reachable) = (column("Address Block"), column("Globally Reachable"));
    let rows = records.flat_map(|record| {
        assert_eq!(record.len(), titles.len(), "{record:?}");
        let is_reachable = record[reachable].starts_with("True");
        let blocks: Vec<_> =
            record[block].split(", ").map(|text| text.split(' ').next().unwrap_or(text).to_owned()).collect();
        blocks.into_iter().map(move |block| Row { block, is_reachable })
    });
    rows.collect()
}

fn both() -> Vec<Row> {
    let (v4, v6) = (rows(IPV4), rows(IPV6));
    // A file that was cut short or read wrongly would show nothing; 26 blocks in 25 records of the first.
    assert_eq!((v4.len(), v6.len()), (26, 25));
    v4.into_iter().chain(v6).collect()
}

/// The blocks that are globally reachable, or those that are not, without those that say nothing.
fn blocks(are_reachable: bool) -> impl Iterator<Item = String> {
    let rows = both().into_iter().filter(move |row| row.is_reachable == are_reachable).map(|row| row.block);
    rows.filter(|block| !STANDS_FOR_IPV4.contains(&block.as_str()))
}

/// The first, the last and a middle address.
fn some_of(block: &str) -> [IpAddr; 3] {
    let (first, last, is_v4) = bounds(block);
    [first, first + (last - first) / 2, last].map(|number| address_at(number, is_v4))
}

/// Every IPv6 form that leads to `address` somewhere, or once did.
fn embeddings(address: Ipv4Addr) -> [Ipv6Addr; 8] {
    let bits = u128::from(address.to_bits());
    let after = |high: [u16; 8], shift: u32| Ipv6Addr::from_bits(Ipv6Addr::from(high).to_bits() | (bits << shift));
    [
        address.to_ipv6_mapped(),
        address.to_ipv6_compatible(),
        after([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 0),
        after([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 0),
        // RFC 2765, translated.
        after([0, 0, 0, 0, 0xffff, 0, 0, 0], 0),
        // 6to4, Teredo by its server, ISATAP on a link.
        after([0x2002, 0, 0, 0, 0, 0, 0, 1], 80),
        after([0x2001, 0, 0, 0, 0, 0, 0, 0], 64),
        after([0xfe80, 0, 0, 0, 0, 0x5efe, 0, 0], 0),
    ]
}

fn is_forbidden(address: IpAddr) -> bool {
    matches!(AddressPolicy::default().verdict(address, &[]), Verdict::Forbidden(_))
}

#[test]
fn every_block_that_is_not_globally_reachable_is_forbidden_in_every_form() {
    let mut forbidden = 0;
    for block in blocks(false) {
        for address in some_of(&block) {
            assert!(is_forbidden(address), "{address} of {block}");
            let IpAddr::V4(v4) = address else { continue };
            for form in embeddings(v4) {
                assert!(is_forbidden(form.into()), "{form} for {address} of {block}");
            }
        }
        forbidden += 1;
    }
    assert_eq!(forbidden, 21 + 15);
}

#[test]
fn every_block_that_is_globally_reachable_is_allowed_but_for_those_named() {
    let mut unused = FORBIDDEN_THOUGH_REACHABLE.to_vec();
    for block in blocks(true) {
        let is_named = FORBIDDEN_THOUGH_REACHABLE.contains(&block.as_str());
        unused.retain(|named| *named != block);
        for address in some_of(&block) {
            assert_eq!(is_forbidden(address), is_named, "{address} of {block}");
        }
    }
    assert_eq!(unused, [""; 0], "not in the registries");
}

#[test]
fn every_block_of_the_guard_is_in_a_registry_or_has_its_source_named() {
    let registered = both();
    for (block, class) in SPECIAL_V4.iter().chain(SPECIAL_V6) {
        let text = block.to_string();
        let is_registered = registered.iter().any(|row| row.block == text && !row.is_reachable);
        assert!(is_registered || FROM_ELSEWHERE.contains(&text.as_str()), "{block} ({class})");
    }
}
