//! Who has presented wrong credentials lately.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::time::Mono;

/// Wrong credentials from one address that are answered as such within [`WINDOW`]: enough for a person who mistypes. After
/// them the answer says to wait, so that a program with an old key shows up in its own log.
pub(super) const FAILURES_MAX: u32 = 20;

/// The window in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered. When more than these fail within a window the oldest are forgotten, so that the memory
/// stays bounded whoever tries.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, Failed>>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    since: Mono,
    count: u32,
}

impl Failures {
    /// Counts one more failure of `peer`, unless there were too many already, which is the answer.
    pub(super) fn are_too_many(&self, peer: IpAddr, now: Mono) -> bool {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.get(&peer).is_some_and(|failed| now.since(failed.since) < WINDOW && failed.count >= FAILURES_MAX) {
            return true;
        }
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&peer) {
            failures.retain(|_, failed| now.since(failed.since) < WINDOW);
            if failures.len() >= ADDRESSES_MAX
                && let Some(oldest) = failures.iter().min_by_key(|(_, failed)| failed.since).map(|(peer, _)| *peer)
            {
                failures.remove(&oldest);
            }
        }
        let failed = failures.entry(peer).or_insert(Failed { since: now, count: 0 });
        if now.since(failed.since) >= WINDOW {
            *failed = Failed { since: now, count: 0 };
        }
        failed.count += 1;
        false
    }
}
