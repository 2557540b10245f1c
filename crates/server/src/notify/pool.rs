//! Connections between two attempts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::endpoint::Origin;
use super::tls::Certificates;

/// Most idle connections in all; when full, the one that has been idle longest is closed. At 1,000 callbacks/s to 1,000
/// receivers four seconds of idling would hold 4,000 descriptors; this keeps it to a small share of the usual limit.
const IDLE_MAX: usize = 512;

/// Most idle connections to one origin; when full, its oldest is closed, so that a busy receiver does not push others out.
const IDLE_PER_ORIGIN_MAX: usize = 32;

/// What two attempts must agree on to share a connection. The address policy is the client's, hence the pool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) origin: Origin,
    pub(super) certificates: Certificates,
}

/// Idle connections.
pub(super) struct Pool {
    /// Oldest first; `None` once nobody sweeps any more, so that nothing is kept that nobody would close.
    idle: Mutex<Option<VecDeque<Idle>>>,
    /// Wakes the sweeper when there is something to sweep again.
    filled: Notify,
    idle_timeout: Duration,
    age_max: Duration,
}

struct Idle {
    key: PoolKey,
    since: Instant,
    connection: Connection,
}

impl Pool {
    /// Connections are closed after `idle_timeout` without use, and not used again `age_max` after they were opened.
    pub(super) fn new(idle_timeout: Duration, age_max: Duration) -> Self {
        Self { idle: Mutex::new(Some(VecDeque::new())), filled: Notify::new(), idle_timeout, age_max }
    }

    /// Takes the most recently used connection that fits `key` and still seems open.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Connection> {
        loop {
            let mut idle = {
                let mut all = self.lock();
                let all = all.as_mut()?;
                let at = all.iter().rposition(|idle| idle.key == *key)?;
                all.remove(at)?
            };
            let fresh = idle.since.elapsed() < self.idle_timeout && idle.connection.age() < self.age_max;
            if fresh && idle.connection.is_ready() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps `connection` for the next attempt.
    pub(super) fn put(&self, key: PoolKey, connection: Connection) {
        if connection.age() >= self.age_max {
            return;
        }
        let mut guard = self.lock();
        let Some(all) = guard.as_mut() else { return };
        let mut same_origin = all.iter().enumerate().filter(|(_, idle)| idle.key == key).map(|(at, _)| at);
        let oldest_of_origin = same_origin.next();
        let to_origin = same_origin.count() + usize::from(oldest_of_origin.is_some());
        let surplus = match oldest_of_origin {
            Some(at) if to_origin >= IDLE_PER_ORIGIN_MAX => all.remove(at),
            _ if all.len() >= IDLE_MAX => all.pop_front(),
            _ => None,
        };
        all.push_back(Idle { key, since: Instant::now(), connection });
        drop(guard);
        // Closed outside the lock.
        drop(surplus);
        self.filled.notify_one();
    }

    /// Closes connections as their idle time runs out, until `end`; then closes all that are idle.
    pub(super) async fn sweep(&self, end: CancellationToken) {
        let sweep = async {
            loop {
                match self.close_expired() {
                    Some(next) => sleep_until(next).await,
                    None => self.filled.notified().await,
                }
            }
        };
        let _: Option<()> = end.run_until_cancelled(sweep).await;
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Idle>>> {
        // Every change is one call on the queue, so a panic elsewhere leaves it whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.lock().as_ref().map_or(0, VecDeque::len)
    }

    /// Closes what has been idle too long and returns when the next will have been. What is added later expires later.
    fn close_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut guard = self.lock();
        let all = guard.as_mut()?;
        let expired = all.partition_point(|idle| idle.since + self.idle_timeout <= now);
        all.drain(..expired);
        all.front().map(|idle| idle.since + self.idle_timeout)
    }
}
