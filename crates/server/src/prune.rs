//! Keeps the log of settled deliveries, the audit log, and what is counted and listed beside them within their ages and sizes,
//! and the local store's pictures within the days of their templates.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use framehook_domain::time::{UnixMs, wall_jumped};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::db::prune::{BATCH_ROWS, LogSize, log_size, prune_before, prune_oldest, prune_untold, vacuum_some};
use crate::db::retention::{self, Expiring};
use crate::db::{Db, DbError, Tx, audit, count, task};
use crate::store::LocalStore;
use crate::telemetry::event::Chain;

/// How often the log is looked at. It grows by about a gigabyte a day at most where it matters.
const EVERY: Duration = Duration::from_secs(600);

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    pub age_max: Duration,
    pub bytes_max: u64,
}

/// How much of the audit log is kept.
#[derive(Clone, Copy, Debug)]
pub struct AuditLimits {
    pub age_max: Duration,
    pub bytes_max: u64,
}

/// Prunes now and every ten minutes until `token` ends it.
pub async fn run(
    db: Db,
    files: Arc<LocalStore>,
    clock: Clock,
    limits: LogLimits,
    audit: AuditLimits,
    token: CancellationToken,
) {
    let mut looked = (clock.wall(), clock.mono());
    loop {
        let now = (clock.wall(), clock.mono());
        // A clock that was set forward by mistake is mostly set back soon: what it makes old has one more round.
        let expired = if wall_jumped(looked, now) { Ok(0) } else { expire(&db, &files, now.0).await };
        looked = now;
        match expired {
            Ok(0) => {}
            Ok(pictures) => tracing::info!(pictures, "removed pictures that are older than their templates keep them"),
            Err(DbError::Stopped) => return,
            Err(error) => tracing::warn!(error = %Chain(&error), "old pictures could not be removed"),
        }
        match prune_audit(&db, clock.wall(), audit).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "removed the oldest entries of the audit log"),
            Err(DbError::Stopped) => return,
            Err(error) => tracing::warn!(error = %Chain(&error), "the audit log could not be pruned"),
        }
        match prune(&db, clock.wall(), limits).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "removed settled deliveries and what belongs to them from the log"),
            Err(DbError::Stopped) => return,
            Err(error) => tracing::warn!(error = %Chain(&error), "the log could not be pruned"),
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Removes what is older than it may be, then the oldest of what is too much, in small transactions between which others
/// get their turn. Returns the rows removed from the log.
///
/// # Errors
/// Those of the database.
pub async fn prune(db: &Db, wall: UnixMs, limits: LogLimits) -> Result<usize, DbError> {
    let before = wall.minus(limits.age_max);
    let mut rows = 0;
    loop {
        let pruned = db.write(move |tx| prune_before(tx, before)).await?;
        rows += pruned.rows();
        if pruned.rows() == 0 {
            break;
        }
    }
    let LogExcess { mut deliveries, mut untold } = db.read(log_size).await?.beyond(limits.bytes_max);
    while deliveries > 0 || untold > 0 {
        let (told, others) = (deliveries.min(BATCH_ROWS), untold.min(BATCH_ROWS));
        let prune = move |tx: &Tx<'_>| Ok((prune_oldest(tx, wall, told)?, prune_untold(tx, wall, others)?));
        let (told_pruned, untold_pruned) = db.write(prune).await?;
        rows += told_pruned.rows() + untold_pruned.rows();
        // Once there are no more of one kind: what is left of it is owed or dead, and stays.
        deliveries = if told_pruned.rows() == 0 { 0 } else { deliveries - told };
        untold = if untold_pruned.rows() == 0 { 0 } else { untold - others };
    }
    // Both are kept for as long as the documents say, whatever the log's age is.
    let prune_others = move |tx: &Tx<'_>| Ok(count::prune(tx, wall, BATCH_ROWS)? + task::prune(tx, wall, BATCH_ROWS)?);
    while db.write(prune_others).await? > 0 {}
    while db.write(|tx| retention::prune_forgotten(tx, BATCH_ROWS)).await? > 0 {}
    while db.write(vacuum_some).await? {}
    Ok(rows)
}

/// Removes the local store's pictures that are older than their templates keep them, in small batches. Returns how many.
///
/// # Errors
/// Those of the database. A file that cannot be removed is logged, and tried again in the next round.
pub async fn expire(db: &Db, files: &Arc<LocalStore>, wall: UnixMs) -> Result<usize, DbError> {
    let mut removed = 0;
    // First what an earlier process, or an earlier round, has left; what cannot be removed is passed over.
    let mut after = SnapshotId(Uuid::nil());
    loop {
        let batch = db.read(move |conn| retention::marked(conn, after, BATCH_ROWS)).await?;
        let Some(last) = batch.last() else { break };
        after = last.id;
        removed += remove_files(db, files, batch, wall).await?;
    }
    loop {
        let batch = db.write(move |tx| retention::mark(tx, wall, BATCH_ROWS)).await?;
        if batch.is_empty() {
            return Ok(removed);
        }
        removed += remove_files(db, files, batch, wall).await?;
    }
}

/// Removes the files of pictures that are marked, durably. Returns how many are gone.
async fn remove_files(db: &Db, files: &Arc<LocalStore>, batch: Vec<Expiring>, wall: UnixMs) -> Result<usize, DbError> {
    let files = Arc::clone(files);
    let remove = move || remove_from_disk(&files, batch);
    let gone = tokio::task::spawn_blocking(remove).await.map_err(|_| DbError::Stopped)?;
    let settled = gone.len();
    if settled > 0 {
        db.write(move |tx| retention::settle(tx, &gone, wall)).await?;
    }
    Ok(settled)
}

/// Pictures of a day share directories, so there are few syncs for many files. Gives those that cannot come back.
fn remove_from_disk(files: &LocalStore, batch: Vec<Expiring>) -> Vec<SnapshotId> {
    let mut removed: BTreeMap<PathBuf, Vec<SnapshotId>> = BTreeMap::new();
    for picture in batch {
        match files.remove_with_dirs(&picture.bucket, &picture.key) {
            Ok(dir) => removed.entry(dir).or_default().push(picture.id),
            Err(error) => {
                tracing::warn!(snapshot = %picture.id, error = %Chain(&error), "an old picture cannot be removed yet");
            }
        }
    }
    let synced = |(dir, _): &(PathBuf, _)| match files.sync_removed(dir) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "old pictures were removed and may come back: they are removed again");
            false
        }
    };
    removed.into_iter().filter(synced).flat_map(|(_, ids)| ids).collect()
}

/// The same for the audit log.
///
/// # Errors
/// Those of the database.
pub async fn prune_audit(db: &Db, wall: UnixMs, limits: AuditLimits) -> Result<usize, DbError> {
    let before = wall.minus(limits.age_max);
    let mut rows = 0;
    loop {
        let pruned = db.write(move |tx| audit::prune_before(tx, before, BATCH_ROWS)).await?;
        rows += pruned;
        if pruned < BATCH_ROWS {
            break;
        }
    }
    let (entries, bytes) = db.read(audit::size).await?;
    let mut too_many = (entries as f64 * part_beyond(bytes, limits.bytes_max)).ceil() as usize;
    while too_many > 0 {
        let batch = too_many.min(BATCH_ROWS);
        let pruned = db.write(move |tx| audit::prune_oldest(tx, batch)).await?;
        rows += pruned;
        if pruned < batch {
            break;
        }
        too_many -= batch;
    }
    Ok(rows)
}

/// Which part of `bytes` is more than `bytes_max`.
fn part_beyond(bytes: u64, bytes_max: u64) -> f64 {
    bytes.saturating_sub(bytes_max) as f64 / bytes.max(1) as f64
}

/// How much of the log is too much.
struct LogExcess {
    /// Settled deliveries.
    deliveries: usize,
    /// Events that nobody was told of.
    untold: usize,
}

impl LogSize {
    /// What has to go until the rest fits into `bytes_max`: the same part of the settled deliveries and of the events that
    /// nobody was told of, so that neither kind pushes the other out.
    fn beyond(&self, bytes_max: u64) -> LogExcess {
        let part = part_beyond(self.bytes, bytes_max);
        let share = |rows: u64| (rows as f64 * part).ceil() as usize;
        LogExcess { deliveries: share(self.deliveries), untold: share(self.untold) }
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Caller, Change};
    use crate::db::DirLock;
    use crate::db::audit::{Filter, list, note};
    use crate::db::secret::Vault;
    use crate::entropy::Entropy;
    use crate::fatal::Fatal;

    const ENTRIES: i64 = 700;

    /// A database with an entry at each second from 1 on.
    async fn noted(dir: &std::path::Path) -> Db {
        let lock = DirLock::take(dir).unwrap();
        let vault = Vault::open(&lock, None, &Entropy::system()).unwrap();
        let db = Db::open(lock, &vault, Clock::start(), Fatal::new()).unwrap();
        let all = db.write(|tx| {
            for second in 1..=ENTRIES {
                let change = Change::key_added(&format!("FHID{second}"), "ci", false);
                note(tx, &Caller::Control, &change, UnixMs::from_secs(second))?;
            }
            Ok(())
        });
        all.await.unwrap();
        db
    }

    async fn seconds(db: &Db) -> Vec<i64> {
        let entries = db.read(|conn| list(conn, &Filter::default(), 1000)).await.unwrap();
        entries.iter().rev().map(|entry| entry.at.secs()).collect()
    }

    #[tokio::test]
    async fn the_audit_log_loses_what_is_too_old_and_then_the_oldest_of_what_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let db = noted(dir.path()).await;
        let limits = AuditLimits { age_max: Duration::from_secs(600), bytes_max: u64::MAX };
        assert_eq!(prune_audit(&db, UnixMs::from_secs(ENTRIES), limits).await.unwrap(), 99);
        assert_eq!(seconds(&db).await, (100..=ENTRIES).collect::<Vec<_>>());

        let (entries, bytes) = db.read(audit::size).await.unwrap();
        assert_eq!(entries, 601);
        let half = AuditLimits { bytes_max: bytes / 2, ..limits };
        let pruned = prune_audit(&db, UnixMs::from_secs(ENTRIES), half).await.unwrap();
        assert!((300..=302).contains(&pruned), "{pruned}");
        assert_eq!(seconds(&db).await.first(), Some(&(100 + pruned as i64)));
        assert_eq!(prune_audit(&db, UnixMs::from_secs(ENTRIES), limits).await.unwrap(), 0);
        db.close().await;
    }
}
