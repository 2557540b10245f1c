//! Keeps the log of settled deliveries within its age and its size.

use std::time::Duration;

use framehook_domain::time::UnixMs;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::prune::{BATCH_ROWS, log_bytes, prune_before, prune_oldest, vacuum_some};
use crate::db::{Db, DbError};

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
            Err(error) => tracing::warn!(%error, "the log could not be pruned"),
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
    let mut bytes = db.read(log_bytes).await?;
    while bytes > limits.bytes_max {
        let pruned = db.write(move |tx| prune_oldest(tx, wall, BATCH_ROWS)).await?;
        rows += pruned.rows();
        if pruned.rows() == 0 {
            // What is left is owed or dead, and stays.
            break;
        }
        bytes = db.read(log_bytes).await?;
    }
    while db.write(vacuum_some).await? {}
    Ok(rows)
}
