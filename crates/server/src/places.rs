//! Places for connections: so many in all, and so many from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of one kind of connection.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Places {
    pub(crate) fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_address_max, taken: Mutex::default() })
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }

    /// A place for a connection from `address`, if one is free.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network_of(address);
        let mut taken = self.lock();
        let from_address = taken.by_address.get(&network).copied().unwrap_or_default();
        if taken.all >= self.max || from_address >= self.per_address_max {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(network, from_address + 1);
        Some(Place { places: Arc::clone(self), network })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(from_address) = taken.by_address.get_mut(&self.network) {
            *from_address -= 1;
            if *from_address == 0 {
                taken.by_address.remove(&self.network);
            }
        }
    }
}

/// What counts as one address. One subscriber of an IPv6 network has a /64 of them to choose from.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let places = Places::new(3, 2);
        let take = |address: &str| places.take(address.parse().expect("an address"));
        let one = take("192.0.2.1").expect("the first");
        let two = take("192.0.2.1").expect("the second");
        assert!(take("192.0.2.1").is_none(), "a third of one address");
        let other = take("192.0.2.2").expect("another address");
        assert!(take("192.0.2.3").is_none(), "a fourth in all");
        drop(one);
        assert_eq!(places.taken(), 2);
        let again = take("192.0.2.1").expect("the place that was given back");
        drop((two, other, again));
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by_address.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let places = Places::new(9, 1);
        let _one = places.take("2001:db8::1".parse().expect("an address")).expect("the first");
        assert!(places.take("2001:db8::2".parse().expect("an address")).is_none());
        assert!(places.take("2001:db8:0:1::1".parse().expect("an address")).is_some());
    }
}
