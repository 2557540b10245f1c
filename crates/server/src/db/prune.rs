//! Forgetting what is settled: deliveries that were delivered or cancelled, their attempts, and events nobody owes any
//! more, with the rows of their pictures, whose objects stay where they are; a row that retention still needs stays too. Dead deliveries stay until a person replays or
//! cancels them, and with them all that belongs to them; so does the event of a picture that is owed to its store.

use std::ops::AddAssign;

use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::row::stored;
use super::{DbError, Tx, latest, replays};
use crate::store::LocalStore;

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
    pub snapshots: usize,
    /// Names that were wanted more than once, URLs that were given for a replay, and replays that have ended.
    pub leftovers: usize,
}

impl Pruned {
    pub fn rows(&self) -> usize {
        self.deliveries + self.attempts + self.events + self.pushes + self.snapshots + self.leftovers
    }
}

impl AddAssign for Pruned {
    fn add_assign(&mut self, more: Self) {
        let Self { deliveries, attempts, events, pushes, snapshots, leftovers } = more;
        self.deliveries += deliveries;
        self.attempts += attempts;
        self.events += events;
        self.pushes += pushes;
        self.snapshots += snapshots;
        self.leftovers += leftovers;
    }
}

/// Removes deliveries that were settled before `before`, the longest settled first, with their attempts and with events
/// that nobody owes any more; then everything else that is over since before and that nothing refers to. At most
/// [`BATCH_ROWS`] of each kind: call again while it removes anything.
///
/// # Errors
/// Those of the database.
pub fn prune_before(tx: &Tx<'_>, before: UnixMs) -> Result<Pruned, DbError> {
    let mut pruned = prune_oldest(tx, before, BATCH_ROWS)?;
    pruned += prune_untold(tx, before, BATCH_ROWS)?;
    pruned.pushes += tx
        .prepare_cached("DELETE FROM push WHERE sequence IN (SELECT sequence FROM push WHERE ended_ms < ?1 LIMIT ?2)")?
        .execute(params![before.0, stored(BATCH_ROWS)])?;
    pruned.leftovers += tx
        .prepare_cached(
            "DELETE FROM key_suffix WHERE (store, bucket, object_key) IN
                 (SELECT store, bucket, object_key FROM key_suffix WHERE used_ms < ?1 LIMIT ?2)",
        )?
        .execute(params![before.0, stored(BATCH_ROWS)])?;
    pruned.leftovers += tx
        .prepare_cached(
            "DELETE FROM endpoint WHERE id IN
                 (SELECT id FROM endpoint WHERE url_override IS NOT NULL
                  AND NOT EXISTS (SELECT 1 FROM delivery WHERE endpoint_id = endpoint.id) LIMIT ?1)",
        )?
        .execute([stored(BATCH_ROWS)])?;
    pruned.leftovers += latest::prune(tx, before, BATCH_ROWS)?;
    pruned.leftovers += replays::prune(tx, before, BATCH_ROWS)?;
    Ok(pruned)
}

/// Removes at most `rows` settled deliveries, the longest settled first, with their attempts, events and pictures' rows.
///
/// # Errors
/// Those of the database.
pub fn prune_oldest(tx: &Tx<'_>, before: UnixMs, rows: usize) -> Result<Pruned, DbError> {
    let mut settled = tx.prepare_cached(LONGEST_SETTLED)?;
    let settled = settled
        .query_map(params![before.0, stored(rows)], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, [u8; 16]>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut pruned = Pruned::default();
    let mut delete_attempts = tx.prepare_cached("DELETE FROM attempt WHERE delivery_id = ?1")?;
    let mut delete_delivery = tx.prepare_cached("DELETE FROM delivery WHERE id = ?1")?;
    for (delivery, event) in settled {
        pruned.attempts += delete_attempts.execute([delivery])?;
        pruned.deliveries += delete_delivery.execute([delivery])?;
        pruned += forget_event(tx, event)?;
    }
    Ok(pruned)
}

/// Removes at most `rows` events that no rule sent anywhere, the oldest first, with their pictures' rows: they have no
/// delivery to be reached by.
///
/// # Errors
/// Those of the database.
pub fn prune_untold(tx: &Tx<'_>, before: UnixMs, rows: usize) -> Result<Pruned, DbError> {
    let mut untold = tx.prepare_cached(LONGEST_UNTOLD)?;
    let untold = untold.query_map(params![before.0, stored(rows)], |row| row.get::<_, [u8; 16]>(0))?;
    let untold = untold.collect::<Result<Vec<_>, _>>()?;
    untold.into_iter().try_fold(Pruned::default(), |mut pruned, event| {
        pruned += forget_event(tx, event)?;
        Ok(pruned)
    })
}

// Both stop at their limit, however long the log is.
const LONGEST_SETTLED: &str =
    "SELECT id, event_id FROM delivery WHERE settled_ms < ?1 AND state IN ('delivered', 'cancelled')
     AND NOT EXISTS (SELECT 1 FROM event JOIN snapshot ON snapshot.id = event.snapshot_id
                     WHERE event.id = delivery.event_id AND put_state = 'owed')
     ORDER BY settled_ms LIMIT ?2";
const LONGEST_UNTOLD: &str = "SELECT id FROM event WHERE is_told = 0 AND created_ms < ?1
     AND NOT EXISTS (SELECT 1 FROM snapshot WHERE snapshot.id = event.snapshot_id AND put_state = 'owed')
     ORDER BY created_ms LIMIT ?2";

/// Removes an event that no delivery is left of, and its picture's row: so no row is ever left without its event, to be
/// looked for among those that stay.
fn forget_event(tx: &Tx<'_>, event: [u8; 16]) -> Result<Pruned, DbError> {
    let mut find = tx.prepare_cached(
        "SELECT snapshot_id FROM event WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE event_id = ?1)",
    )?;
    let Some(picture) = find.query_row([event], |row| row.get::<_, Option<[u8; 16]>>(0)).optional()? else {
        return Ok(Pruned::default());
    };
    let events = tx.prepare_cached("DELETE FROM event WHERE id = ?1")?.execute([event])?;
    let kept = tx
        .prepare_cached(
            "UPDATE snapshot SET is_forgotten = 1 WHERE id = ?1 AND put_state IN ('stored', 'expiring') AND store = ?2
             AND EXISTS (SELECT 1 FROM snapshot_template AS template
                         WHERE template.id = template_id AND retention_days IS NOT NULL)",
        )?
        .execute(params![picture, LocalStore::NAME])?;
    if kept > 0 {
        return Ok(Pruned { events, ..Pruned::default() });
    }
    let snapshots = tx.prepare_cached("DELETE FROM snapshot WHERE id = ?1")?.execute([picture])?;
    Ok(Pruned { events, snapshots, ..Pruned::default() })
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

/// How large the log is, as far as it can be pruned: what is owed or dead stays, so it does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSize {
    /// What settled deliveries take, with their events and attempts, and events that nobody was told of.
    pub bytes: u64,
    /// Settled deliveries.
    pub deliveries: u64,
    /// Events that nobody was told of.
    pub untold: u64,
}

// Bytes of a row beside its texts: the fixed columns and its entries in the indexes.
const EVENT_BYTES: f64 = 140.0;
const DELIVERY_BYTES: f64 = 240.0;
const ATTEMPT_BYTES: f64 = 90.0;

/// Enough for a mean within a few per cent: bodies of one installation are alike.
const SAMPLED_ROWS: usize = 200;

/// The size of the log, as row counts times the mean size of recent rows: within a third of the truth, and a hundred times
/// cheaper than asking each page.
///
/// # Errors
/// Those of the database.
pub fn log_size(conn: &Connection) -> Result<LogSize, DbError> {
    let count = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let settled = count("SELECT count(*) FROM delivery WHERE state IN ('delivered', 'cancelled')")?;
    let untold = count("SELECT count(*) FROM event WHERE is_told = 0")?;
    const EVENT_TEXTS: &str = "length(body) + length(domain) + length(app) + 2 * length(stream)";
    let of_delivery = format!(
        "SELECT avg(coalesce(length(outcome), 0)
                    + (SELECT {EVENT_TEXTS} FROM event WHERE event.id = event_id)
                    + (SELECT total({ATTEMPT_BYTES} + coalesce(length(error), 0) + coalesce(length(response), 0)
                              + length(url)) FROM attempt WHERE delivery_id = recent.id))
         FROM (SELECT id, event_id, outcome FROM delivery WHERE state IN ('delivered', 'cancelled')
               ORDER BY settled_ms DESC LIMIT {SAMPLED_ROWS}) AS recent"
    );
    let of_untold = format!(
        "SELECT avg({EVENT_TEXTS}) FROM
             (SELECT * FROM event WHERE is_told = 0 ORDER BY created_ms DESC LIMIT {SAMPLED_ROWS})"
    );
    let mean = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<f64>>(0));
    let delivery_bytes = DELIVERY_BYTES + EVENT_BYTES + mean(&of_delivery)?.unwrap_or(0.0);
    let untold_bytes = EVENT_BYTES + mean(&of_untold)?.unwrap_or(0.0);
    let bytes = settled as f64 * delivery_bytes + untold as f64 * untold_bytes;
    Ok(LogSize { bytes: bytes as u64, deliveries: settled.unsigned_abs(), untold: untold.unsigned_abs() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::planned;

    /// Pruning is done beside everything else: a batch must cost the same in a log of a thousand rows and of a billion.
    #[test]
    fn each_search_of_a_batch_walks_an_index_in_its_order() {
        let conn = planned::database();
        for (sql, index) in [
            (LONGEST_SETTLED, "SEARCH delivery USING INDEX delivery_prunable (settled_ms<?)"),
            (LONGEST_UNTOLD, "SEARCH event USING INDEX event_untold (created_ms<?)"),
        ] {
            let plan = planned::plan(&conn, sql);
            assert!(plan.contains(index) && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
