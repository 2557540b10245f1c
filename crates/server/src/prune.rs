//! Keeps the log of settled deliveries within its age and its size, and what is counted and listed beside it within its own.

use std::time::Duration;

use framehook_domain::time::UnixMs;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::prune::{BATCH_ROWS, LogSize, log_size, prune_before, prune_oldest, prune_untold, vacuum_some};
use crate::db::{Db, DbError, Tx, count, task};
use crate::telemetry::event::Chain;

/// How often the log is looked at. It grows by about a gigabyte a day at most where it matters.
const EVERY: Duration = Duration::from_secs(600);

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    pub age_max: Duration,
    pub bytes_max: u64,
}

/// Prunes now and every ten minutes until `token` ends it.
pub async fn run(db: Db, clock: Clock, limits: LogLimits, token: CancellationToken) {
    loop {
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
        rows += told_pruned.rows() + untold_pruned;
        // Once there are no more of one kind: what is left of it is owed or dead, and stays.
        deliveries = if told_pruned.rows() == 0 { 0 } else { deliveries - told };
        untold = if untold_pruned == 0 { 0 } else { untold - others };
    }
    // Both are kept for as long as the documents say, whatever the log's age is.
    let prune_others = move |tx: &Tx<'_>| Ok(count::prune(tx, wall, BATCH_ROWS)? + task::prune(tx, wall, BATCH_ROWS)?);
    while db.write(prune_others).await? > 0 {}
    while db.write(vacuum_some).await? {}
    Ok(rows)
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
        let part = self.bytes.saturating_sub(bytes_max) as f64 / self.bytes.max(1) as f64;
        let share = |rows: u64| (rows as f64 * part).ceil() as usize;
        LogExcess { deliveries: share(self.deliveries), untold: share(self.untold) }
    }
}
