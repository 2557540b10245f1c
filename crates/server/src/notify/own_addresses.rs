//! The addresses of this machine's own interfaces. The kernel delivers what is sent to them without sending it anywhere: a
//! callback there would come from inside, past every firewall that stands before this machine.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use tokio::time::Instant;

/// How long a list is believed. Addresses come and go (DHCP, failover, containers); asking the kernel for them takes a socket
/// and a message for each, which is nothing once a second and something for each of thousands of callbacks.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// What the interfaces have, read again as it is asked for.
///
/// Where the list cannot be read (no descriptor is left, or a sandbox forbids netlink), the last one that could stays, and
/// before the first there is none: refusing everything instead would stop all callbacks for the sake of the few that the
/// check of each connection's own address catches anyway, before a byte of a request is sent.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    last: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    addresses: Arc<[IpAddr]>,
    /// `None` before the first.
    read: Option<Instant>,
    failing: bool,
}

impl OwnAddresses {
    /// The addresses as of at most [`BELIEVED_FOR`] ago, without loopback, which is a class of its own.
    pub(super) fn now(&self) -> Arc<[IpAddr]> {
        self.at(Instant::now(), of_interfaces)
    }

    fn at(&self, now: Instant, read: impl FnOnce() -> io::Result<Arc<[IpAddr]>>) -> Arc<[IpAddr]> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.read.is_none_or(|read| now.saturating_duration_since(read) >= BELIEVED_FOR) {
            last.read = Some(now);
            match read() {
                Ok(addresses) => (last.addresses, last.failing) = (addresses, false),
                Err(error) => {
                    if !last.failing {
                        tracing::warn!(%error, "the addresses of this machine's interfaces could not be read");
                    }
                    last.failing = true;
                }
            }
        }
        Arc::clone(&last.addresses)
    }

    /// A list that is never read again, for names that were made up as well.
    #[cfg(test)]
    pub(super) fn given(addresses: &[IpAddr]) -> Self {
        let for_ever = Instant::now() + Duration::from_secs(365 * 86_400);
        Self { last: Mutex::new(Reading { addresses: addresses.into(), read: Some(for_ever), failing: false }) }
    }
}

/// Whether an interface is up makes no difference: its addresses lead here all the same.
fn of_interfaces() -> io::Result<Arc<[IpAddr]>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    Ok(addresses.filter(|address| !address.is_loopback()).collect())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn list(text: &str) -> Arc<[IpAddr]> {
        text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
    }

    /// The kernel sends to its own addresses from those same addresses. Connecting UDP sends nothing.
    fn is_own(address: IpAddr) -> bool {
        let socket = UdpSocket::bind(match address {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        });
        let connected = socket.and_then(|socket| {
            socket.connect((address, 9))?;
            socket.local_addr()
        });
        connected.is_ok_and(|local| local.ip() == address)
    }

    /// On a machine with nothing but loopback the list is empty, and that is right.
    #[test]
    fn every_address_of_an_interface_is_one_that_the_kernel_keeps_to_itself() {
        let addresses = OwnAddresses::default().now();
        for address in &*addresses {
            assert!(!address.is_loopback(), "{address}");
            // Link-local addresses need their interface's number to be sent to; the tables forbid them anyway.
            let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            assert!(is_link_local || is_own(*address), "{address}");
        }
        // The other way round: what the kernel would send from is on the list.
        let towards_elsewhere = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        if towards_elsewhere.connect("198.51.100.1:9").is_ok() {
            let source = towards_elsewhere.local_addr().expect("connected").ip();
            assert!(source.is_loopback() || addresses.contains(&source), "{source} is not in {addresses:?}");
        }
    }

    #[test]
    fn the_list_is_read_once_a_second_at_most() {
        let (own, start) = (OwnAddresses::default(), Instant::now());
        let unread = || -> io::Result<Arc<[IpAddr]>> { panic!("read too early") };
        assert_eq!(own.at(start, || Ok(list("203.0.113.1"))), list("203.0.113.1"));
        assert_eq!(own.at(start + BELIEVED_FOR / 2, unread), list("203.0.113.1"));
        // An address came, another went.
        assert_eq!(own.at(start + BELIEVED_FOR, || Ok(list("203.0.113.2 ::2"))), list("203.0.113.2 ::2"));
        assert_eq!(own.at(start + BELIEVED_FOR * 3 / 2, unread), list("203.0.113.2 ::2"));
    }

    #[test]
    fn the_last_list_stays_while_none_can_be_read() {
        let (own, start) = (OwnAddresses::default(), Instant::now());
        let fails = || Err(io::Error::other("no descriptor is left"));
        assert_eq!(own.at(start, fails), list(""));
        assert_eq!(own.at(start + BELIEVED_FOR, || Ok(list("203.0.113.1"))), list("203.0.113.1"));
        assert_eq!(own.at(start + BELIEVED_FOR * 2, fails), list("203.0.113.1"));
        assert_eq!(own.at(start + BELIEVED_FOR * 3, || Ok(list(""))), list(""));
    }
}
