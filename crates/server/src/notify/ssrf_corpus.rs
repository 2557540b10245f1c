//! More than a hundred thousand hosts, no two the same, that are addresses which no callback may go to: every special block,
//! in every spelling that URL parsers take. The same addresses as the answers of name servers are counted apart.

use super::address::{AddressPolicy, Cidr, Verdict};
use super::attempt_error::AttemptError;
use super::endpoint::Endpoint;
use super::names::ScriptedNames;
use super::resolve::Resolver;
use crate::entropy::Entropy;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IANA's special-purpose and multicast blocks of IPv4, and the metadata address that lies outside of them.
const BLOCKS_V4: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

const BLOCKS_V6: [&str; 14] = [
    "::/127",
    "64:ff9b:1::/48",
    "100::/63",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "4000::/3",
    "8000::/2",
];

/// Addresses that are judged of each block: its first, its last, and as many more. That is some 120,000 hosts; small blocks
/// have fewer addresses than that, and drawn twice they count once.
const MORE_OF_EACH: usize = 318;

/// Hosts that are tried at least.
const HOSTS_MIN: usize = 100_000;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

/// The first and the last address as numbers, and whether they are of IPv4. Not by way of [`Cidr`], which is part of what is
/// tried.
pub(super) fn bounds(block: &str) -> (u128, u128, bool) {
    let (network, prefix) = block.split_once('/').expect("a block");
    let prefix: u32 = prefix.parse().expect("a length");
    let (first, bits, is_v4) = match network.parse().expect("an address") {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32, true),
        IpAddr::V6(v6) => (v6.to_bits(), 128, false),
    };
    let host_bits = bits - prefix;
    let size = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    (first, first + size, is_v4)
}

pub(super) fn address_at(number: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

/// Some addresses of each block, from the first to the last.
fn addresses_of(blocks: &[&str], entropy: &Entropy) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for block in blocks {
        let (first, last, is_v4) = bounds(block);
        let within = |drawn: u128| if last == first { first } else { first + drawn % (last - first + 1) };
        let drawn = (0..MORE_OF_EACH).map(|_| within(u128::from_ne_bytes(entropy.draw())));
        addresses.extend([first, last].into_iter().chain(drawn).map(|number| address_at(number, is_v4)));
    }
    addresses
}

/// An IPv4 address as WHATWG's parser takes it: all of these lead to the same place.
fn spellings_v4(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let number = address.to_bits();
    let [high, low] = [number >> 16, number & 0xffff];
    let dotted = address.to_string();
    let wide = |text: &str| -> String {
        let widen = |letter: char| char::from_u32(letter as u32 + 0xfee0).expect("a full-width form");
        text.chars().map(|letter| if letter.is_ascii_digit() { widen(letter) } else { letter }).collect()
    };
    vec![
        dotted.clone(),
        format!("{dotted}."),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0X{number:X}"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{b}.{low}"),
        format!("{a}.{}", number & 0x00ff_ffff),
        format!("{a:#x}.0{b:o}.{low}"),
        dotted.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        wide(&dotted),
        dotted.replace('.', "\u{3002}"),
        wide(&dotted).replace('.', "\u{ff0e}"),
        format!("user:password@{dotted}"),
        format!("{PUBLIC}@{dotted}"),
        format!("[::ffff:{dotted}]"),
        format!("[0:0:0:0:0:FFFF:{high:X}:{low:X}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
    ]
}

/// IPv6 addresses that lead to an IPv4 one, or once did.
fn embeddings(address: Ipv4Addr) -> Vec<String> {
    let [high, low] = [address.to_bits() >> 16, address.to_bits() & 0xffff];
    vec![
        format!("[64:ff9b::{address}]"),
        format!("[64:ff9b::{high:x}:{low:x}]"),
        format!("[::{address}]"),
        format!("[::ffff:0:{address}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:{high:x}:{low:x}::]"),
    ]
}

fn spellings_v6(address: Ipv6Addr) -> Vec<String> {
    let groups = address.segments().map(|group| format!("{group:04X}")).join(":");
    vec![format!("[{address}]"), format!("[{groups}]"), format!("[{}]", groups.to_lowercase())]
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_sent_to() {
    let (entropy, resolver) = (Entropy::system(), Resolver::new(AddressPolicy::default()));
    let mut hosts = BTreeSet::new();
    for address in addresses_of(&BLOCKS_V4, &entropy) {
        let IpAddr::V4(v4) = address else { panic!("{address}") };
        hosts.extend(spellings_v4(v4).into_iter().chain(embeddings(v4)));
    }
    for address in addresses_of(&BLOCKS_V6, &entropy) {
        let IpAddr::V6(v6) = address else { panic!("{address}") };
        hosts.extend(spellings_v6(v6));
    }
    println!("{} hosts", hosts.len());
    assert!(hosts.len() >= HOSTS_MIN, "{}", hosts.len());
    for host in hosts {
        // A parser that reads nothing would refuse everything.
        let endpoint = Endpoint::parse(&format!("https://{host}/")).unwrap_or_else(|error| panic!("{host}: {error}"));
        let judged = resolver.addresses(&endpoint).await;
        assert!(matches!(judged, Err(AttemptError::AddressForbidden { .. })), "{host}: {judged:?}");
    }
}

#[tokio::test]
async fn every_spelling_of_a_public_address_is_the_same_address() {
    let (entropy, resolver) = (Entropy::system(), Resolver::new(AddressPolicy::default()));
    for address in addresses_of(&["11.0.0.0/8", "93.184.215.0/24", "172.32.0.0/11"], &entropy) {
        let IpAddr::V4(v4) = address else { panic!("{address}") };
        for host in spellings_v4(v4) {
            let endpoint =
                Endpoint::parse(&format!("http://{host}/")).unwrap_or_else(|error| panic!("{host}: {error}"));
            let addresses = resolver.addresses(&endpoint).await.unwrap_or_else(|error| panic!("{host}: {error}"));
            assert_eq!(
                addresses.iter().map(|socket| socket.ip().to_canonical()).collect::<Vec<_>>(),
                [address],
                "{host}"
            );
        }
    }
}

#[tokio::test]
async fn one_forbidden_address_among_the_answers_of_a_name_is_enough() {
    let entropy = Entropy::system();
    let endpoint = Endpoint::parse("https://receiver.example.com/").expect("a URL");
    let public = PUBLIC.to_string();
    for address in addresses_of(&[&BLOCKS_V4[..], &BLOCKS_V6[..]].concat(), &entropy) {
        let address = address.to_string();
        for answer in [&[address.as_str()][..], &[&public, &address], &[&address, &public]] {
            let names = ScriptedNames::new(&["receiver.example.com"], &[answer]);
            let resolver = Resolver::scripted(AddressPolicy::default(), names);
            let judged = resolver.addresses(&endpoint).await;
            assert!(matches!(judged, Err(AttemptError::AddressForbidden { .. })), "{answer:?}: {judged:?}");
        }
        // A name that answers honestly once and then otherwise: each attempt is judged by the answer that it goes by.
        let names = ScriptedNames::new(&["receiver.example.com"], &[&[public.as_str()], &[address.as_str()]]);
        let resolver = Resolver::scripted(AddressPolicy::default(), names);
        assert!(
            resolver.addresses(&endpoint).await.is_ok_and(|found| found.iter().all(|socket| socket.ip() == PUBLIC))
        );
        assert!(resolver.addresses(&endpoint).await.is_err(), "{address}");
    }
}

#[test]
fn a_block_that_is_allowed_opens_itself_and_no_other() {
    let entropy = Entropy::system();
    for allowed in ["10.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16"] {
        let block: Cidr = allowed.parse().expect("a block");
        let policy = AddressPolicy::new(vec![block]);
        for address in addresses_of(&BLOCKS_V4, &entropy) {
            let (first, last, _) = bounds(allowed);
            let IpAddr::V4(v4) = address else { panic!("{address}") };
            let is_inside = (first..=last).contains(&u128::from(v4.to_bits()));
            assert_eq!(policy.verdict(address, &[]) == Verdict::Allowed, is_inside, "{address} with {allowed} allowed");
        }
    }
}
