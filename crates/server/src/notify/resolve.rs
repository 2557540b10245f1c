//! From a callback URL to the addresses that may be connected to: look up, judge all, hand out only what was judged.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use url::Host;

use super::address::{AddressPolicy, Verdict};
use super::attempt_error::AttemptError;
use super::endpoint::{Endpoint, Origin};
use super::own_addresses::OwnAddresses;

/// Most lookups that run at once, each on a thread of its own. A lookup of a name whose servers are dead takes
/// getaddrinfo's patience (30 s by default), so this is also the number of dead names it takes to make others wait. A
/// parked thread costs some 20 KiB.
const LOOKUPS_MAX: usize = 128;

/// Looks up hosts and judges what comes back.
#[derive(Debug)]
pub struct Resolver {
    policy: AddressPolicy,
    own: OwnAddresses,
    names: Names,
}

#[derive(Debug)]
enum Names {
    System(SystemNames),
    #[cfg(test)]
    Scripted(ScriptedNames),
}

impl Resolver {
    /// The system's resolver (`/etc/hosts`, DNS, whatever nsswitch says), judged by `policy`.
    pub fn new(policy: AddressPolicy) -> Self {
        Self { policy, own: OwnAddresses::default(), names: Names::System(SystemNames::default()) }
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
            Host::Domain(name) => self.names.lookup(name).await?,
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

impl Names {
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, AttemptError> {
        let answer = match self {
            Self::System(names) => names.lookup(name).await,
            #[cfg(test)]
            Self::Scripted(names) => names.lookup(name),
        };
        answer.map_err(|source| AttemptError::Resolve { host: name.to_owned(), source })
    }
}

type Answer = Result<Vec<IpAddr>, Arc<io::Error>>;
type Running = Mutex<HashMap<String, watch::Receiver<Option<Answer>>>>;

/// getaddrinfo, at most once at a time per name: attempts that want a name already being looked up share that answer, so
/// one dead name can hold one thread and no more. Threads of our own rather than tokio's blocking pool: getaddrinfo
/// cannot be interrupted, and the runtime waits for its pool when the process ends.
#[derive(Debug)]
struct SystemNames {
    running: Arc<Running>,
    slots: Arc<Semaphore>,
}

impl Default for SystemNames {
    fn default() -> Self {
        Self { running: Arc::default(), slots: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl SystemNames {
    async fn lookup(&self, name: &str) -> Answer {
        let mut answer = self.join_or_start(name).await?;
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            // The thread ended without an answer; it has no way to.
            Ok(None) | Err(_) => Err(Arc::new(io::Error::other("the lookup was abandoned"))),
        }
    }

    async fn join_or_start(&self, name: &str) -> Result<watch::Receiver<Option<Answer>>, Arc<io::Error>> {
        let mut slot = None;
        loop {
            {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = running.get(name) {
                    return Ok(answer.clone());
                }
                if let Some(slot) = slot {
                    let (sender, answer) = watch::channel(None);
                    let thread = Lookup { name: name.to_owned(), running: Arc::clone(&self.running), sender };
                    std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
                        thread.run();
                        drop(slot);
                    })?;
                    running.insert(name.to_owned(), answer.clone());
                    return Ok(answer);
                }
            }
            let permit = Arc::clone(&self.slots).acquire_owned().await;
            slot = Some(permit.expect("the semaphore is never closed"));
        }
    }
}

/// One lookup on its thread.
struct Lookup {
    name: String,
    running: Arc<Running>,
    sender: watch::Sender<Option<Answer>>,
}

impl Lookup {
    fn run(self) {
        let answer = (self.name.as_str(), 0).to_socket_addrs().map(|found| found.map(|socket| socket.ip()).collect());
        let answer = match answer {
            Ok(addresses) if Vec::is_empty(&addresses) => Err(io::Error::other("the name has no address").into()),
            answer => answer.map_err(Arc::new),
        };
        // Leave the list first: who comes later starts anew, who is waiting gets this answer.
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        self.sender.send_replace(Some(answer));
    }
}

/// Answers that no honest name server would give, one after another; the last one stays.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct ScriptedNames {
    answers: Mutex<HashMap<String, std::collections::VecDeque<Vec<IpAddr>>>>,
    lookups: std::sync::atomic::AtomicUsize,
}

#[cfg(test)]
impl ScriptedNames {
    pub(super) fn new(names: &[&str], answers: &[&[&str]]) -> Self {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().expect("an address")).collect();
        let answers = names.iter().map(|&name| (name.to_owned(), answers.iter().map(parse).collect())).collect();
        Self { answers: Mutex::new(answers), ..Self::default() }
    }

    fn lookup(&self, name: &str) -> Answer {
        self.lookups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let left = answers.get_mut(name).ok_or_else(|| Arc::new(io::Error::other("no such name")))?;
        let answer = if left.len() > 1 { left.pop_front() } else { left.front().cloned() };
        answer.ok_or_else(|| Arc::new(io::Error::other("no answer left")))
    }
}

#[cfg(test)]
impl Resolver {
    pub(super) fn scripted(policy: AddressPolicy, names: ScriptedNames) -> Self {
        Self { policy, own: OwnAddresses::given(&[]), names: Names::Scripted(names) }
    }

    pub(super) fn lookups(&self) -> usize {
        match &self.names {
            Names::System(_) => panic!("only scripted names count"),
            Names::Scripted(names) => names.lookups.load(std::sync::atomic::Ordering::Relaxed),
        }
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

    #[tokio::test]
    async fn callers_share_a_lookup_that_is_already_running() {
        let names = SystemNames::default();
        // A lookup that hangs, as far as anyone can see.
        let (sender, answer) = watch::channel(None);
        names.running.lock().expect("not poisoned").insert("slow.example".to_owned(), answer);
        let shared = vec![IpAddr::from([192, 0, 2, 1])];
        let (first, second, ()) = tokio::join!(names.lookup("slow.example"), names.lookup("slow.example"), async {
            sender.send_replace(Some(Ok(shared.clone())));
        });
        assert_eq!(first.expect("an answer"), shared);
        assert_eq!(second.expect("an answer"), shared);
        assert_eq!(names.slots.available_permits(), LOOKUPS_MAX);
    }

    #[tokio::test]
    async fn lookups_wait_for_a_free_slot() {
        let names = SystemNames { running: Arc::default(), slots: Arc::new(Semaphore::new(1)) };
        let taken = Arc::clone(&names.slots).acquire_owned().await.expect("open");
        let mut lookup = std::pin::pin!(names.lookup("localhost"));
        tokio::select! {
            biased;
            _ = &mut lookup => panic!("looked up without a slot"),
            () = tokio::task::yield_now() => drop(taken),
        }
        assert!(!lookup.await.expect("localhost resolves").is_empty());
        assert!(names.running.lock().expect("not poisoned").is_empty());
        // The thread hands its slot back after its answer.
        let _slot = names.slots.acquire().await.expect("open");
    }
}
