//! Pictures whose template keeps them for some days only, in the local store: other stores remove theirs by themselves.
//!
//! A picture is first marked, then its file goes, then the mark says so: a crash in between leaves the mark, which the next
//! round finds. It is not marked while a delivery of it is open; one that is replayed after the mark is refused
//! (`object_expired`). The template is asked as it is now, so a change of its days applies to the pictures it made before.

use framehook_domain::id::SnapshotId;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, Row, params};

use super::row::{blob, stored, uuid};
use super::{DbError, Tx};

const DAY_MS: i64 = 86_400_000;

/// A picture whose file is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    pub id: SnapshotId,
    /// With its `-<appid>` tail.
    pub bucket: String,
    pub key: String,
}

fn expiring(row: &Row<'_>) -> Result<Expiring, rusqlite::Error> {
    Ok(Expiring { id: SnapshotId(uuid(row, "id")?), bucket: row.get("bucket")?, key: row.get("object_key")? })
}

/// Marks at most `rows` pictures that are older than their template keeps them, the oldest of each template first.
///
/// # Errors
/// Those of the database.
pub fn mark(tx: &Tx<'_>, wall: UnixMs, rows: usize) -> Result<Vec<Expiring>, DbError> {
    // The store's name stands in the text, since no parameter can choose an index of a part of the rows.
    let mut mark = tx.prepare_cached(
        "UPDATE snapshot SET put_state = 'expiring' WHERE id IN
             (SELECT snapshot.id FROM snapshot_template AS template CROSS JOIN snapshot ON template_id = template.id
              WHERE retention_days IS NOT NULL AND put_state = 'stored' AND store = 'local'
                AND create_time_ms < ?1 - retention_days * ?2
                AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.event_id = snapshot.event_id
                                AND settled_ms IS NULL)
              ORDER BY template.id, create_time_ms LIMIT ?3)
         RETURNING id, bucket, object_key",
    )?;
    let marked = mark.query_map(params![wall.0, DAY_MS, stored(rows)], expiring)?;
    Ok(marked.collect::<Result<_, _>>()?)
}

/// At most `rows` pictures that are marked, by this process or by one before it: the next ones after an id.
///
/// # Errors
/// Those of the database.
pub fn marked(conn: &Connection, after: SnapshotId, rows: usize) -> Result<Vec<Expiring>, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, bucket, object_key FROM snapshot WHERE put_state = 'expiring' AND id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let marked = statement.query_map(params![blob(after.0), stored(rows)], expiring)?;
    Ok(marked.collect::<Result<_, _>>()?)
}

/// The files of these are gone. A row that nothing else remembers goes with its file.
///
/// # Errors
/// Those of the database.
pub fn settle(tx: &Tx<'_>, gone: &[SnapshotId], wall: UnixMs) -> Result<(), DbError> {
    let mut forget =
        tx.prepare_cached("DELETE FROM snapshot WHERE id = ?1 AND put_state = 'expiring' AND is_forgotten = 1")?;
    let mut settle = tx.prepare_cached(
        "UPDATE snapshot SET put_state = 'expired', settled_ms = ?2 WHERE id = ?1 AND put_state = 'expiring'",
    )?;
    for id in gone {
        forget.execute([blob(id.0)])?;
        settle.execute(params![blob(id.0), wall.0])?;
    }
    Ok(())
}

/// Removes at most `rows` rows that outlived their events for a template that keeps its pictures for ever by now, or is gone.
/// Returns how many.
///
/// # Errors
/// Those of the database.
pub fn prune_forgotten(tx: &Tx<'_>, rows: usize) -> Result<usize, DbError> {
    // The templates of such rows, one step in the index for each.
    let mut templates = tx.prepare_cached(
        "WITH RECURSIVE forgotten (template) AS
             (SELECT min(template_id) FROM snapshot WHERE is_forgotten = 1
              UNION ALL
              SELECT (SELECT min(template_id) FROM snapshot WHERE is_forgotten = 1 AND template_id > template)
              FROM forgotten WHERE template IS NOT NULL)
         SELECT template FROM forgotten WHERE template IS NOT NULL
             AND template NOT IN (SELECT id FROM snapshot_template WHERE retention_days IS NOT NULL)",
    )?;
    let templates = templates.query_map([], |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?;
    let mut delete = tx.prepare_cached(
        "DELETE FROM snapshot WHERE id IN
             (SELECT id FROM snapshot WHERE is_forgotten = 1 AND template_id = ?1 AND put_state = 'stored' LIMIT ?2)",
    )?;
    let mut removed = 0;
    for template in templates {
        removed += delete.execute(params![template, stored(rows.saturating_sub(removed))])?;
    }
    Ok(removed)
}
