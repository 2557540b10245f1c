//! What the writer counts, for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the start and gauges of now, for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DbStats {
    /// Operations that wait for the writer now.
    pub queued: u64,
    /// Operations that were stored.
    pub operations: u64,
    /// Commits.
    pub commits: u64,
    /// Those of them that changed something: each was synced.
    pub syncs: u64,
    /// SQL statements, savepoints and commits included. What a trigger does belongs to the statement that sets it off.
    pub statements: u64,
    /// Operations in the largest commit.
    pub batch_max: u64,
    /// Time spent in commits, from begin to end.
    pub commit_time: Duration,
    /// Operations or commits that failed because the disk or the database was full.
    pub full: u64,
    /// Pages in the WAL after the last commit.
    pub wal_pages: u64,
    /// Times the WAL was moved into the database file.
    pub checkpoints: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    operations: AtomicU64,
    commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) statements: AtomicU64,
    batch_max: AtomicU64,
    commit_nanos: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) wal_pages: AtomicU64,
    pub(super) checkpoints: AtomicU64,
}

impl Stats {
    pub(super) fn read(&self, queued: usize) -> DbStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DbStats {
            queued: queued as u64,
            operations: read(&self.operations),
            commits: read(&self.commits),
            syncs: read(&self.syncs),
            statements: read(&self.statements),
            batch_max: read(&self.batch_max),
            commit_time: Duration::from_nanos(read(&self.commit_nanos)),
            full: read(&self.full),
            wal_pages: read(&self.wal_pages),
            checkpoints: read(&self.checkpoints),
        }
    }

    pub(super) fn count_commit(&self, operations: usize, took: Duration) {
        self.operations.fetch_add(operations as u64, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.batch_max.fetch_max(operations as u64, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
