//! Forgetting what is settled: deliveries that were delivered or cancelled, their attempts, and events nobody owes any
//! more. Dead deliveries stay until a person replays or cancels them.

use framehook_domain::time::UnixMs;
use rusqlite::{Connection, params};

use super::row::stored;
use super::{DbError, Tx};

/// Rows removed in one transaction: a few milliseconds of the writer's time, so that nobody waits for pruning.
pub const BATCH_ROWS: usize = 500;

/// Pages given back to the file system in one transaction, 1 MiB.
const VACUUM_PAGES: usize = 256;

/// What one batch removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub deliveries: usize,
    pub attempts: usize,
    pub events: usize,
    pub pushes: usize,
}

impl Pruned {
    pub fn rows(&self) -> usize {
        self.deliveries + self.attempts + self.events + self.pushes
    }
}

/// Removes deliveries that were settled before `before`, the longest settled first, with their attempts and with events
/// that nobody owes any more; then pushes that ended before and events without deliveries. At most [`BATCH_ROWS`]
/// deliveries and as many events: call again while it removes anything.
///
/// # Errors
/// Those of the database.
pub fn prune_before(tx: &Tx<'_>, before: UnixMs) -> Result<Pruned, DbError> {
    let mut pruned = prune_oldest(tx, before, BATCH_ROWS)?;
    // Events that no rule sent anywhere have no delivery to be reached by.
    pruned.events += tx
        .prepare_cached(
            "DELETE FROM event WHERE rowid IN
                 (SELECT rowid FROM event WHERE is_told = 0 AND created_ms < ?1 LIMIT ?2)",
        )?
        .execute(params![before.0, stored(BATCH_ROWS)])?;
    pruned.pushes += tx
        .prepare_cached("DELETE FROM push WHERE sequence IN (SELECT sequence FROM push WHERE ended_ms < ?1 LIMIT ?2)")?
        .execute(params![before.0, stored(BATCH_ROWS)])?;
    Ok(pruned)
}

/// Removes at most `rows` settled deliveries, the longest settled first, with their attempts and events.
///
/// # Errors
/// Those of the database.
pub fn prune_oldest(tx: &Tx<'_>, before: UnixMs, rows: usize) -> Result<Pruned, DbError> {
    let mut settled = tx.prepare_cached(
        "SELECT id, event_id FROM delivery WHERE settled_ms < ?1 AND state IN ('delivered', 'cancelled')
         ORDER BY settled_ms LIMIT ?2",
    )?;
    let settled = settled
        .query_map(params![before.0, stored(rows)], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, [u8; 16]>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut pruned = Pruned::default();
    let mut delete_attempts = tx.prepare_cached("DELETE FROM attempt WHERE delivery_id = ?1")?;
    let mut delete_delivery = tx.prepare_cached("DELETE FROM delivery WHERE id = ?1")?;
    let mut delete_event = tx.prepare_cached(
        "DELETE FROM event WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE event_id = ?1)",
    )?;
    for (delivery, event) in settled {
        pruned.attempts += delete_attempts.execute([delivery])?;
        pruned.deliveries += delete_delivery.execute([delivery])?;
        pruned.events += delete_event.execute([event])?;
    }
    Ok(pruned)
}

/// Gives a few free pages back to the file system, if a good part of the file is free: some free pages are wanted, since
/// new rows take them. Returns whether there is more to give back.
///
/// # Errors
/// Those of the database.
pub fn vacuum_some(tx: &Tx<'_>) -> Result<bool, DbError> {
    let pragma = |name| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (free, all) = (pragma("freelist_count")?, pragma("page_count")?);
    if free < all / 4 {
        return Ok(false);
    }
    // It frees one page for each row that it gives, so all of them are asked for.
    let mut vacuum = tx.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut freed = vacuum.query([])?;
    while freed.next()?.is_some() {}
    Ok(true)
}

/// How large the log is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSize {
    /// What events, deliveries and attempts take, owed and dead ones included.
    pub bytes: u64,
    pub deliveries: u64,
}

/// The size of the log, as row counts times the mean size of recent rows: within a third of the truth, and a hundred times
/// cheaper than asking each page.
///
/// # Errors
/// Those of the database.
pub fn log_size(conn: &Connection) -> Result<LogSize, DbError> {
    // Bytes of a row beside its texts: the fixed columns and its entries in the indexes.
    let (events, event_bytes) =
        rows_and_bytes(conn, "event", "length(body) + length(domain) + length(app) + 2 * length(stream)", 140.0)?;
    let (deliveries, delivery_bytes) = rows_and_bytes(conn, "delivery", "length(coalesce(outcome, ''))", 210.0)?;
    let (attempts, attempt_bytes) = rows_and_bytes(
        conn,
        "attempt",
        "length(coalesce(error, '')) + length(coalesce(response, '')) + length(url)",
        90.0,
    )?;
    let bytes = events * event_bytes + deliveries * delivery_bytes + attempts * attempt_bytes;
    Ok(LogSize { bytes: bytes as u64, deliveries: deliveries as u64 })
}

/// Enough for a mean within a few per cent: bodies of one installation are alike.
const SAMPLED_ROWS: usize = 200;

fn rows_and_bytes(conn: &Connection, table: &str, texts: &str, fixed_bytes: f64) -> Result<(f64, f64), DbError> {
    let rows: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    let sample = format!("SELECT avg({texts}) FROM (SELECT * FROM {table} ORDER BY rowid DESC LIMIT {SAMPLED_ROWS})");
    let mean: Option<f64> = conn.query_row(&sample, [], |row| row.get(0))?;
    Ok((rows as f64, mean.unwrap_or(0.0) + fixed_bytes))
}
