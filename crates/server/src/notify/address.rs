//! Which addresses a callback may be sent to. A callback URL is written by a customer, but the request leaves from our
//! machine: without this guard it would reach whatever only our machine reaches (SSRF).
//!
//! The rule: an address is forbidden unless the registries call it globally reachable and it is not this machine's own, or
//! an operator allowed its block by name. For IPv6 that means `2000::/3` minus the special blocks inside it; for IPv4 everything minus the special
//! blocks. Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries, IANA multicast registries, RFC 4291 for
//! the deprecated forms. A network's own NAT64 prefix cannot be told from global unicast and is not recognised; the
//! well-known one is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses: those that share the first `prefix` bits with `network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// The widest block that may be allowed: the largest private ones, `10.0.0.0/8` and `fc00::/7`. People who meet a refused
/// address tend to allow everything to make it go away; `0.0.0.0/0`, or the same in two halves, would switch the guard off.
const ALLOWED_PREFIX_MIN_V4: u8 = 8;
const ALLOWED_PREFIX_MIN_V6: u8 = 7;

impl Cidr {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// `high` holds the first four groups; none of the special blocks but `::` and `::1` sets a later one.
    const fn v6(high: [u16; 4], prefix: u8) -> Self {
        let [a, b, c, d] = high;
        Self { network: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), prefix }
    }

    /// Whether `address` lies in this block. An address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared_bits = match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
            _ => return false,
        };
        shared_bits >= u32::from(self.prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Why a text is not a block that may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address, optionally followed by a slash and a prefix length in range.
    #[error("not an address block such as 10.1.0.0/16 or fd00:1::/48")]
    Malformed,
    /// Bits after the prefix are set, so it is unclear whether one address or the block was meant.
    #[error("a block with bits set beyond its prefix; write {block} for the block or {address} for the one address")]
    HostBits { block: Cidr, address: IpAddr },
    /// Wider than the largest private block.
    #[error("wider than /{prefix_min}, the largest private block; name the networks that your receivers are in")]
    TooWide { prefix_min: u8 },
    /// An IPv4 block spelt in IPv6, which no judged address would ever match.
    #[error("an IPv4-mapped block; write it as IPv4")]
    Mapped,
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Parses `10.1.0.0/16`, `fd00:1::/48`, or one address.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Malformed)?;
        if address.to_canonical() != address {
            return Err(CidrError::Mapped);
        }
        let (bits, prefix_min) = match address {
            IpAddr::V4(_) => (32, ALLOWED_PREFIX_MIN_V4),
            IpAddr::V6(_) => (128, ALLOWED_PREFIX_MIN_V6),
        };
        let prefix = match prefix {
            // `u8::from_str` would also take "+8".
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| CidrError::Malformed)?
            }
            Some(_) => return Err(CidrError::Malformed),
            None => bits,
        };
        if prefix > bits {
            return Err(CidrError::Malformed);
        }
        if prefix < prefix_min {
            return Err(CidrError::TooWide { prefix_min });
        }
        let network = match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - prefix))).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - prefix))).into(),
        };
        if network != address {
            return Err(CidrError::HostBits { block: Self { network, prefix }, address });
        }
        Ok(Self { network, prefix })
    }
}

/// What the guard says about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A callback may be sent there.
    Allowed,
    /// It may not; the name of the class of addresses it belongs to.
    Forbidden(&'static str),
}

/// The guard: what is globally reachable, and what the operator allowed on top (`--allow-receiver`).
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allow: Vec<Cidr>,
}

impl AddressPolicy {
    /// Allows the blocks in `allow` besides all that is globally reachable.
    pub fn new(allow: Vec<Cidr>) -> Self {
        Self { allow }
    }

    /// Judges `address`, with `own` being the addresses of this machine's interfaces. An IPv4-mapped one is judged as the
    /// IPv4 address it stands for, because the kernel connects there. An allowed block allows only the addresses written in
    /// it, own ones too, and not other forms that embed them.
    pub fn verdict(&self, address: IpAddr, own: &[IpAddr]) -> Verdict {
        let address = address.to_canonical();
        if self.allow.iter().any(|block| block.contains(address)) {
            return Verdict::Allowed;
        }
        let address = translated(address);
        // Its being our own is told first: that says more than the block it lies in.
        let own = own.contains(&address).then_some(OWN);
        own.or_else(|| forbidden_class(address)).map_or(Verdict::Allowed, Verdict::Forbidden)
    }
}

/// Where a translator sends on what is sent to `address`: the IPv4 address in the last 32 bits (RFC 6052, 2.2).
fn translated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if NAT64.contains(address) => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

fn forbidden_class(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(_) => class_in(SPECIAL_V4, address),
        IpAddr::V6(_) if GLOBAL_UNICAST_V6.contains(address) => class_in(SPECIAL_V6, address),
        IpAddr::V6(_) => Some(class_in(SPECIAL_V6, address).unwrap_or("unassigned")),
    }
}

fn class_in(table: &[(Cidr, &'static str)], address: IpAddr) -> Option<&'static str> {
    table.iter().find(|(block, _)| block.contains(address)).map(|(_, class)| *class)
}

/// Public by number perhaps, and yet the kernel sends nothing out for it: it leads to whatever listens on this machine.
const OWN: &str = "this machine's own";

/// RFC 6052, the well-known prefix of NAT64: globally reachable by registry, so judged by what it embeds.
const NAT64: Cidr = Cidr::v6([0x64, 0xff9b, 0, 0], 96);

/// RFC 4291, 2.4 and the IANA IPv6 address space registry: the only block from which global unicast is assigned.
const GLOBAL_UNICAST_V6: Cidr = Cidr::v6([0x2000, 0, 0, 0], 3);

/// The first match names the class, so narrower blocks stand before wider ones.
#[rustfmt::skip]
const SPECIAL_V4: &[(Cidr, &str)] = &[
    (Cidr::v4(0, 0, 0, 0, 8), "this network"),        // RFC 791; Linux connects 0.0.0.0 to itself
    (Cidr::v4(10, 0, 0, 0, 8), "private"),            // RFC 1918
    (Cidr::v4(100, 64, 0, 0, 10), "shared"),          // RFC 6598 (CGNAT); Alibaba's metadata is 100.100.100.200
    (Cidr::v4(127, 0, 0, 0, 8), "loopback"),          // RFC 1122
    (Cidr::v4(168, 63, 129, 16, 32), "metadata"),     // Azure's wire server: public by number, on every Azure machine
    (Cidr::v4(169, 254, 0, 0, 16), "link-local"),     // RFC 3927; the metadata of most clouds
    (Cidr::v4(172, 16, 0, 0, 12), "private"),         // RFC 1918
    (Cidr::v4(192, 0, 0, 0, 24), "protocol"),         // RFC 6890; Oracle's metadata is 192.0.0.192
    (Cidr::v4(192, 0, 2, 0, 24), "documentation"),    // RFC 5737
    (Cidr::v4(192, 88, 99, 0, 24), "6to4"),           // RFC 7526, deprecated relay anycast
    (Cidr::v4(192, 168, 0, 0, 16), "private"),        // RFC 1918
    (Cidr::v4(198, 18, 0, 0, 15), "benchmarking"),    // RFC 2544
    (Cidr::v4(198, 51, 100, 0, 24), "documentation"), // RFC 5737
    (Cidr::v4(203, 0, 113, 0, 24), "documentation"),  // RFC 5737
    (Cidr::v4(224, 0, 0, 0, 4), "multicast"),         // RFC 5771
    (Cidr::v4(255, 255, 255, 255, 32), "broadcast"),  // RFC 919
    (Cidr::v4(240, 0, 0, 0, 4), "reserved"),          // RFC 1112, class E
];

/// Blocks outside `2000::/3` are here only for their names: all of it is forbidden anyway. IPv4-compatible, 6to4 and
/// Teredo addresses are refused whatever they embed: all three are deprecated or dead, and where such a packet ends up
/// is decided by a relay, not by us.
#[rustfmt::skip]
const SPECIAL_V6: &[(Cidr, &str)] = &[
    (Cidr::v6([0, 0, 0, 0], 128), "unspecified"),           // RFC 4291; Linux connects it to itself
    (LOOPBACK_V6, "loopback"),                              // RFC 4291
    (Cidr::v6([0, 0, 0, 0], 96), "ipv4-compatible"),        // RFC 4291, 2.5.5.1, deprecated
    (Cidr::v6([0x64, 0xff9b, 1, 0], 48), "nat64"),          // RFC 8215, local-use translation
    (Cidr::v6([0x100, 0, 0, 0], 64), "discard"),            // RFC 6666
    (Cidr::v6([0x100, 0, 0, 1], 64), "discard"),            // RFC 9780, dummy prefix
    (Cidr::v6([0x2001, 0, 0, 0], 32), "teredo"),            // RFC 4380
    (Cidr::v6([0x2001, 2, 0, 0], 48), "benchmarking"),      // RFC 5180
    (Cidr::v6([0x2001, 0, 0, 0], 23), "protocol"),          // RFC 2928: ORCHID, AMT, anycasts of protocols
    (Cidr::v6([0x2001, 0xdb8, 0, 0], 32), "documentation"), // RFC 3849
    (Cidr::v6([0x2002, 0, 0, 0], 16), "6to4"),              // RFC 3056, RFC 7526
    (Cidr::v6([0x3fff, 0, 0, 0], 20), "documentation"),     // RFC 9637
    (Cidr::v6([0x5f00, 0, 0, 0], 16), "srv6"),              // RFC 9602, segment identifiers
    (Cidr::v6([0xfc00, 0, 0, 0], 7), "private"),            // RFC 4193 (ULA); AWS's metadata is fd00:ec2::254
    (Cidr::v6([0xfe80, 0, 0, 0], 10), "link-local"),        // RFC 4291
    (Cidr::v6([0xfec0, 0, 0, 0], 10), "site-local"),        // RFC 3879, deprecated
    (Cidr::v6([0xff00, 0, 0, 0], 8), "multicast"),          // RFC 4291
];

const LOOPBACK_V6: Cidr = Cidr { network: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };

#[cfg(test)]
mod registries;
#[cfg(test)]
mod tests;
