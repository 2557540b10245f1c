//! The system's name lookups: how many run at once, and why a name whose servers are dead delays no other for long.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

/// Most lookups at once that are younger than [`YOUNG_FOR`], each on a thread of its own: as many as slow receivers have
/// attempts by default (half of `deliver.concurrency`), so that these can all be of dead names and start at once.
const YOUNG_MAX: usize = 256;

/// How long a lookup counts as young. An answer that comes from a cache takes milliseconds, one from servers far away some
/// hundred; what has none by now has lost a packet at least, and getaddrinfo asks again after 5 s only.
const YOUNG_FOR: Duration = Duration::from_secs(1);

/// Most lookups beside them that are older. One of a dead name lasts for getaddrinfo's patience, 10 s for each dead server
/// and 30 s for three, whatever becomes of the attempt that wanted it. 512 attempts of 20 s keep no more than 768 of these
/// going. A parked thread costs some 20 KiB and a socket, together 20 MiB and 1,024 descriptors; beyond that lookups stay
/// among the young until they end, and names wait for each other.
const OLD_MAX: usize = 1_024;

/// What a lookup came to.
pub(super) type Answer = Result<Vec<IpAddr>, Arc<io::Error>>;

/// Who is asked for the addresses of names.
#[derive(Debug)]
pub(super) enum Names {
    System(SystemNames),
    #[cfg(test)]
    Scripted(ScriptedNames),
}

impl Default for Names {
    fn default() -> Self {
        Self::System(SystemNames::default())
    }
}

impl Names {
    pub(super) async fn lookup(&self, name: &str) -> Answer {
        match self {
            Self::System(names) => names.lookup(name).await,
            #[cfg(test)]
            Self::Scripted(names) => names.lookup(name),
        }
    }

    #[cfg(test)]
    pub(super) fn lookups(&self) -> usize {
        match self {
            Self::System(_) => panic!("only scripted names count"),
            Self::Scripted(names) => names.lookups.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

/// getaddrinfo, at most once at a time per name: attempts that want a name already being looked up share that answer, so
/// one dead name can hold one thread and no more. Threads of our own rather than tokio's blocking pool: getaddrinfo
/// cannot be interrupted, and the runtime waits for its pool when the process ends.
#[derive(Debug)]
pub(super) struct SystemNames {
    running: Arc<Mutex<HashMap<String, Running>>>,
    young: Arc<Semaphore>,
    old: Arc<Semaphore>,
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
}

/// A lookup on its thread, which takes it off the list when it ends.
#[derive(Debug)]
struct Running {
    answer: watch::Receiver<Option<Answer>>,
    started: Instant,
    is_old: bool,
    /// Among the young or the old; given back with the entry.
    slot: OwnedSemaphorePermit,
}

impl Default for SystemNames {
    fn default() -> Self {
        Self::asking(getaddrinfo)
    }
}

fn getaddrinfo(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|socket| socket.ip()).collect())
}

impl SystemNames {
    fn asking(ask: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        let slots = |count| Arc::new(Semaphore::new(count));
        Self { running: Arc::default(), young: slots(YOUNG_MAX), old: slots(OLD_MAX), ask }
    }

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
                if let Some(lookup) = running.get(name) {
                    return Ok(lookup.answer.clone());
                }
                if let Some(slot) = slot {
                    let (sender, answer) = watch::channel(None);
                    let thread =
                        Lookup { name: name.to_owned(), running: Arc::clone(&self.running), ask: self.ask, sender };
                    std::thread::Builder::new().name("lookup".to_owned()).spawn(move || thread.run())?;
                    let lookup = Running { answer: answer.clone(), started: Instant::now(), is_old: false, slot };
                    running.insert(name.to_owned(), lookup);
                    return Ok(answer);
                }
            }
            slot = Some(self.free_slot().await);
        }
    }

    /// Waits for a slot among the young, and meanwhile sees to it that the old leave theirs: nobody else has a use for them.
    async fn free_slot(&self) -> OwnedSemaphorePermit {
        tokio::select! {
            biased;
            slot = Arc::clone(&self.young).acquire_owned() => slot.expect("the semaphore is never closed"),
            never = self.keep_moving() => match never {},
        }
    }

    async fn keep_moving(&self) -> Infallible {
        loop {
            let next = self.move_the_old(Instant::now());
            sleep_until(next).await;
        }
    }

    /// Moves the lookups that are no longer young, the oldest first, as far as there is room for them. When the next may be
    /// due.
    fn move_the_old(&self, now: Instant) -> Instant {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut young: Vec<&mut Running> = running.values_mut().filter(|lookup| !lookup.is_old).collect();
        young.sort_unstable_by_key(|lookup| lookup.started);
        for lookup in young {
            let grows_old = lookup.started + YOUNG_FOR;
            if grows_old > now {
                return grows_old;
            }
            let Ok(slot) = Arc::clone(&self.old).try_acquire_owned() else { break };
            (lookup.slot, lookup.is_old) = (slot, true);
        }
        now + YOUNG_FOR
    }
}

/// One lookup on its thread.
struct Lookup {
    name: String,
    running: Arc<Mutex<HashMap<String, Running>>>,
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
    sender: watch::Sender<Option<Answer>>,
}

impl Lookup {
    fn run(self) {
        let answer = match (self.ask)(&self.name) {
            Ok(addresses) if addresses.is_empty() => Err(io::Error::other("the name has no address").into()),
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
mod tests {
    use std::pin::pin;
    use std::sync::OnceLock;

    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn callers_share_a_lookup_that_is_already_running() {
        let names = SystemNames::default();
        // A lookup that hangs, as far as anyone can see.
        let (sender, answer) = watch::channel(None);
        let slot = Arc::clone(&names.young).acquire_owned().await.expect("open");
        let hanging = Running { answer, started: Instant::now(), is_old: false, slot };
        names.running.lock().expect("not poisoned").insert("slow.example".to_owned(), hanging);
        let shared = vec![IpAddr::from([192, 0, 2, 1])];
        let (first, second, ()) = tokio::join!(names.lookup("slow.example"), names.lookup("slow.example"), async {
            sender.send_replace(Some(Ok(shared.clone())));
        });
        assert_eq!(first.expect("an answer"), shared);
        assert_eq!(second.expect("an answer"), shared);
        assert_eq!(names.young.available_permits(), YOUNG_MAX - 1);
    }

    #[tokio::test]
    async fn lookups_wait_for_a_free_slot() {
        let names = SystemNames { young: Arc::new(Semaphore::new(1)), ..SystemNames::default() };
        let taken = Arc::clone(&names.young).acquire_owned().await.expect("open");
        let mut lookup = pin!(names.lookup("localhost"));
        tokio::select! {
            biased;
            _ = &mut lookup => panic!("looked up without a slot"),
            () = tokio::task::yield_now() => drop(taken),
        }
        assert!(!lookup.await.expect("localhost resolves").is_empty());
        assert!(names.running.lock().expect("not poisoned").is_empty());
        assert_eq!(names.young.available_permits(), 1);
    }

    /// A lookup that has its slot. The limit is one of virtual time, and so must not be put around an answer, which takes a
    /// thread real time.
    async fn started(names: &SystemNames, name: &str) -> watch::Receiver<Option<Answer>> {
        let lookup = timeout(Duration::from_secs(60), names.join_or_start(name)).await;
        lookup.expect("slots are given back").expect("a thread")
    }

    async fn ended(mut lookup: watch::Receiver<Option<Answer>>) -> Answer {
        let answer = lookup.wait_for(Option::is_some).await.expect("a lookup ends with an answer").clone();
        answer.expect("just waited for")
    }

    /// Time is virtual: it goes on when nothing is left to do but wait.
    #[tokio::test(start_paused = true)]
    async fn a_quick_name_is_not_behind_names_that_hang() {
        /// Set when getaddrinfo's patience is over.
        static GIVEN_UP: OnceLock<()> = OnceLock::new();
        fn ask(name: &str) -> io::Result<Vec<IpAddr>> {
            if name.starts_with("dead") {
                GIVEN_UP.wait();
                return Err(io::Error::other("no server answered"));
            }
            Ok(vec![IpAddr::from([192, 0, 2, 1])])
        }
        let (names, start) = (SystemNames::asking(ask), Instant::now());
        // As many as there are slots for the young, and once more; nobody waits for their end.
        for _ in 0..2 {
            let first = names.running.lock().expect("not poisoned").len();
            let hanging: Vec<String> = (first..first + YOUNG_MAX).map(|n| format!("dead-{n}.example")).collect();
            join_all(hanging.iter().map(|name| started(&names, name))).await;
        }
        assert_eq!(names.young.available_permits(), 0);
        assert_eq!(start.elapsed().as_secs(), YOUNG_FOR.as_secs());

        let quick = started(&names, "quick.example").await;
        assert_eq!(start.elapsed().as_secs(), 2 * YOUNG_FOR.as_secs());
        assert!(ended(quick).await.is_ok());
        // All of them are among the old now, so from here on nobody waits at all.
        let moved = Instant::now();
        let another = started(&names, "another.example").await;
        assert_eq!(moved.elapsed(), Duration::ZERO);
        assert!(ended(another).await.is_ok());

        GIVEN_UP.set(()).expect("set once");
        let end_of = |lookup: &Running| lookup.answer.clone();
        let ends: Vec<_> = names.running.lock().expect("not poisoned").values().map(end_of).collect();
        for end in ends {
            assert!(ended(end).await.is_err());
        }
        assert_eq!((names.young.available_permits(), names.old.available_permits()), (YOUNG_MAX, OLD_MAX));
    }
}
