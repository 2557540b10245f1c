//! Connections between two attempts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Http1, Http2, Opened};
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

/// Most shared connections in all, and to one origin. Each carries dozens of attempts, so both are beyond what the attempts
/// at a time of the configuration need; further ones are used once.
const SHARED_MAX: usize = 512;
const SHARED_PER_ORIGIN_MAX: usize = 64;

/// Connections that can carry another attempt.
pub(super) struct Pool {
    /// `None` once nobody sweeps any more, so that nothing is kept that nobody would close.
    kept: Mutex<Option<Kept>>,
    /// Wakes the sweeper when there is something to sweep again.
    filled: Notify,
    idle_timeout: Duration,
    age_max: Duration,
}

#[derive(Default)]
struct Kept {
    /// HTTP/1.1: nobody uses them now. Oldest first.
    idle: VecDeque<Idle>,
    /// HTTP/2: in use or not.
    shared: Vec<Shared>,
}

struct Idle {
    key: PoolKey,
    since: Instant,
    connection: Box<Http1>,
}

struct Shared {
    key: PoolKey,
    connection: Arc<Http2>,
}

impl Pool {
    /// Connections are closed after `idle_timeout` without use, and not used again `age_max` after they were opened.
    pub(super) fn new(idle_timeout: Duration, age_max: Duration) -> Self {
        Self { kept: Mutex::new(Some(Kept::default())), filled: Notify::new(), idle_timeout, age_max }
    }

    /// A connection that fits `key` and still seems open.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Connection> {
        if let Some(stream) = self.take_stream(key) {
            return Some(stream);
        }
        loop {
            let mut idle = {
                let mut guard = self.lock();
                let idle = &mut guard.as_mut()?.idle;
                // The most recently used is the least likely to have been closed.
                let at = idle.iter().rposition(|idle| idle.key == *key)?;
                idle.remove(at)?
            };
            let fresh = idle.since.elapsed() < self.idle_timeout && idle.connection.age() < self.age_max;
            if fresh && idle.connection.is_ready() {
                return Some(Connection::Http1(idle.connection));
            }
        }
    }

    fn take_stream(&self, key: &PoolKey) -> Option<Connection> {
        let mut guard = self.lock();
        // The first that has room, so that the others come to rest.
        let mut fitting = guard.as_mut()?.shared.iter().filter(|shared| shared.key == *key);
        fitting.find_map(|shared| {
            let is_usable = shared.connection.is_open() && shared.connection.age() < self.age_max;
            is_usable.then(|| shared.connection.stream()).flatten().map(Connection::Http2)
        })
    }

    /// Makes a new connection ready for its first attempt, and for others beside it where its protocol allows that.
    pub(super) fn share(&self, key: &PoolKey, opened: Opened) -> Connection {
        let connection = match opened {
            Opened::Http1(connection) => return Connection::Http1(connection),
            Opened::Http2(connection) => connection,
        };
        let stream = connection.stream().expect("nobody else knows the connection yet");
        let mut guard = self.lock();
        if let Some(Kept { shared, .. }) = guard.as_mut() {
            let (to_origin, all) = (shared.iter().filter(|shared| shared.key == *key).count(), shared.len());
            if to_origin < SHARED_PER_ORIGIN_MAX && all < SHARED_MAX {
                shared.push(Shared { key: key.clone(), connection });
                self.filled.notify_one();
            }
        }
        Connection::Http2(stream)
    }

    /// Keeps `connection` for the next attempt.
    pub(super) fn put(&self, key: PoolKey, connection: Box<Http1>) {
        if connection.age() >= self.age_max {
            return;
        }
        let mut guard = self.lock();
        let Some(Kept { idle: all, .. }) = guard.as_mut() else { return };
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
        let kept = self.lock().take();
        drop(kept);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        // Every change is one call on a list, so a panic elsewhere leaves them whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.lock().as_ref().map_or(0, |kept| kept.idle.len() + kept.shared.len())
    }

    /// Closes what has been idle too long or takes no more requests, and returns when to look again.
    fn close_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut guard = self.lock();
        let Kept { idle, shared } = guard.as_mut()?;
        let expired = idle.partition_point(|idle| idle.since + self.idle_timeout <= now);
        idle.drain(..expired);
        // Attempts on a connection that goes out of the pool end as they would: they hold it too.
        shared.retain(|Shared { connection, .. }| {
            let is_idle = connection.idle_since().is_some_and(|since| since + self.idle_timeout <= now);
            connection.is_open() && connection.age() < self.age_max && !is_idle
        });
        let idle = idle.front().map(|idle| idle.since + self.idle_timeout);
        // One in use may come to rest at any time, so it is looked at once in each idle time.
        let shared =
            shared.iter().map(|Shared { connection, .. }| connection.idle_since().unwrap_or(now) + self.idle_timeout);
        shared.chain(idle).min()
    }
}
