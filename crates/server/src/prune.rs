//! Keeps the log of settled deliveries within its age and its size.

use std::time::Duration;

use framehook_domain::time::UnixMs;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::prune::{BATCH_ROWS, LogSize, log_size, prune_before, prune_oldest, vacuum_some};
use crate::db::{Db, DbError};
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
/// get their turn. Returns the rows removed.
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
    let mut too_many = db.read(log_size).await?.deliveries_beyond(limits.bytes_max);
    while too_many > 0 {
        let batch = too_many.min(BATCH_ROWS);
        let pruned = db.write(move |tx| prune_oldest(tx, wall, batch)).await?;
        rows += pruned.rows();
        if pruned.rows() == 0 {
            // What is left is owed or dead, and stays.
            break;
        }
        too_many -= batch;
    }
    while db.write(vacuum_some).await? {}
    Ok(rows)
}

impl LogSize {
    /// How many deliveries, each with its share of all the bytes, are more than `bytes_max`.
    fn deliveries_beyond(&self, bytes_max: u64) -> usize {
        if self.bytes <= bytes_max {
            return 0;
        }
        let beyond = (self.bytes - bytes_max) as f64 / self.bytes as f64;
        (self.deliveries as f64 * beyond).ceil() as usize
    }
}
