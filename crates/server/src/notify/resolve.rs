//! From a callback URL to the addresses that may be connected to: look up, judge all, hand out only what was judged.

use std::net::{IpAddr, SocketAddr};

use url::Host;

use super::address::{AddressPolicy, Verdict};
use super::attempt_error::AttemptError;
use super::endpoint::{Endpoint, Origin};
use super::names::Names;
#[cfg(test)]
use super::names::ScriptedNames;
use super::own_addresses::OwnAddresses;

/// Looks up hosts and judges what comes back.
#[derive(Debug)]
pub struct Resolver {
    policy: AddressPolicy,
    own: OwnAddresses,
    names: Names,
}

impl Resolver {
    /// The system's resolver (`/etc/hosts`, DNS, whatever nsswitch says), judged by `policy`.
    pub fn new(policy: AddressPolicy) -> Self {
        Self { policy, own: OwnAddresses::default(), names: Names::default() }
    }

    /// The addresses of `endpoint`, in the resolver's order of preference (RFC 6724); at least one. Waits for as long as
    /// the resolver takes: put a deadline around it.
    ///
    /// # Errors
    /// [`AttemptError::Resolve`] without an answer, [`AttemptError::AddressForbidden`] if any address in it is.
    pub async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, AttemptError> {
        let addresses = self.unjudged(endpoint).await?;
        let own = self.own.now();
        for address in &addresses {
            self.judge(&endpoint.origin().host, address.ip(), &own)?;
        }
        Ok(addresses)
    }

    /// The same without a judgement: for what an operator and no customer names.
    pub(super) async fn unjudged(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, AttemptError> {
        let Origin { host, port, .. } = endpoint.origin();
        let addresses = match host {
            Host::Ipv4(v4) => vec![IpAddr::from(*v4)],
            Host::Ipv6(v6) => vec![IpAddr::from(*v6)],
            Host::Domain(name) => {
                let answer = self.names.lookup(name).await;
                answer.map_err(|source| AttemptError::Resolve { host: name.to_owned(), source })?
            }
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, *port)).collect())
    }

    /// Judges a connection for `host` by where the kernel says that it goes from and to. One that goes to where it comes
    /// from has not left this machine: that also finds addresses which a route alone makes ours, and no interface has.
    pub(super) fn check_connected(&self, host: &Host<String>, local: IpAddr, peer: IpAddr) -> Result<(), AttemptError> {
        self.judge(host, peer, &self.own.now())?;
        self.judge(host, peer, &[local.to_canonical()])
    }

    fn judge(&self, host: &Host<String>, address: IpAddr, own: &[IpAddr]) -> Result<(), AttemptError> {
        match self.policy.verdict(address, own) {
            Verdict::Allowed => Ok(()),
            Verdict::Forbidden(class) => Err(AttemptError::AddressForbidden { host: host.to_string(), address, class }),
        }
    }
}

#[cfg(test)]
impl Resolver {
    pub(super) fn scripted(policy: AddressPolicy, names: ScriptedNames) -> Self {
        Self { policy, own: OwnAddresses::given(&[]), names: Names::Scripted(names) }
    }

    pub(super) fn lookups(&self) -> usize {
        self.names.lookups()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect("a URL")
    }

    #[tokio::test]
    async fn system_names_are_judged_after_they_were_resolved() {
        let error = Resolver::new(AddressPolicy::default()).addresses(&endpoint("http://localhost/")).await;
        assert!(matches!(error, Err(AttemptError::AddressForbidden { class: "loopback", .. })), "{error:?}");

        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("CIDR"), "::1".parse().expect("CIDR")]);
        let addresses = Resolver::new(policy).addresses(&endpoint("http://localhost:81/")).await.expect("allowed");
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 81), "{addresses:?}");
    }

    #[tokio::test]
    async fn one_forbidden_address_condemns_a_mixed_answer() {
        for mixed in [["93.184.215.14", "10.0.0.1"], ["10.0.0.1", "93.184.215.14"]] {
            let names = ScriptedNames::new(&["mixed.example"], &[&mixed]);
            let resolver = Resolver::scripted(AddressPolicy::default(), names);
            let error = resolver.addresses(&endpoint("http://mixed.example/")).await.expect_err("forbidden");
            assert_eq!(error.outcome().name(), "address_forbidden");
            assert_eq!(
                error.to_string(),
                "mixed.example is at 10.0.0.1, which is private; allow its block if the receiver is really there"
            );
        }
    }

    #[tokio::test]
    async fn a_name_at_one_of_our_own_addresses_is_refused() {
        let refused = "this.example is at 93.184.215.14, which is this machine's own; allow its block if the receiver is really there";
        for (allow, verdict) in [(None, Err(refused)), (Some("93.184.215.14"), Ok(()))] {
            let policy = AddressPolicy::new(allow.iter().map(|block| block.parse().expect("a block")).collect());
            let names = ScriptedNames::new(&["this.example"], &[&["93.184.215.14"]]);
            let mut resolver = Resolver::scripted(policy, names);
            resolver.own = OwnAddresses::given(&["93.184.215.14".parse().expect("an address")]);
            let judged = resolver.addresses(&endpoint("http://this.example/")).await;
            let judged = judged.map(drop).map_err(|error| error.to_string());
            assert_eq!(judged, verdict.map_err(str::to_owned), "{allow:?}");
        }
    }

    /// Nothing is on the list of interfaces here: the address is ours by a route alone.
    #[tokio::test]
    async fn a_connection_that_ends_where_it_begins_is_refused() {
        let host = Host::Domain("anywhere.example".to_owned());
        let rows = [
            ("93.184.215.14", "93.184.215.14", None, false),
            ("::ffff:93.184.215.14", "93.184.215.14", None, false),
            ("93.184.215.14", "93.184.215.14", Some("93.184.215.14"), true),
            ("192.0.2.7", "93.184.215.14", None, true),
        ];
        for (local, peer, allow, is_allowed) in rows {
            let policy = AddressPolicy::new(allow.iter().map(|block: &&str| block.parse().expect("a block")).collect());
            let resolver = Resolver::scripted(policy, ScriptedNames::default());
            let (from, to) = (local.parse().expect("an address"), peer.parse().expect("an address"));
            assert_eq!(resolver.check_connected(&host, from, to).is_ok(), is_allowed, "{local} to {peer}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_a_dns_failure() {
        // RFC 6761: never resolves. The scripted resolver stands in for machines that intercept such names.
        let resolver = Resolver::scripted(AddressPolicy::default(), ScriptedNames::default());
        let error = resolver.addresses(&endpoint("http://nowhere.invalid/")).await.expect_err("no address");
        assert_eq!(
            (error.outcome().name(), error.chain().as_str()),
            ("dns", "could not resolve nowhere.invalid: no such name")
        );
    }
}
