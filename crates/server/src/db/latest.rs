//! Objects that each newer picture overwrites: one row for each key, which holds the newest picture and nothing of those
//! before it.

use framehook_domain::id::SnapshotId;
use framehook_domain::template::ImageFormat;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::row::{blob, number, stored, uuid};
use super::snapshot::{FailedPut, OwedTo, Place, walk_places};
use super::{DbError, Tx};

/// A picture that is to be the newest under a key.
#[derive(Clone, Copy, Debug)]
pub struct Newest<'a> {
    pub store: &'a str,
    pub region: &'a str,
    /// With its `-<appid>` tail.
    pub bucket: &'a str,
    pub key: &'a str,
    /// Its bytes in the spool.
    pub id: SnapshotId,
    pub trace: SnapshotId,
    pub create_time: UnixMs,
    pub format: ImageFormat,
    pub file_size_bytes: u64,
    /// When its put falls due, on the timeline.
    pub put_due: UnixMs,
}

/// Whether a picture is the newest under some key. Reads all rows: there are as many as streams.
///
/// # Errors
/// Those of the database.
pub fn is_recorded(conn: &Connection, id: SnapshotId) -> Result<bool, DbError> {
    Ok(conn.prepare_cached("SELECT 1 FROM latest_object WHERE id = ?1")?.exists([blob(id.0)])?)
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is owed. The one before it, if that was still owed, is of no use any more: its id, and its bytes in the spool.
    Taken { superseded: Option<(SnapshotId, u64)> },
    /// A newer one is there already.
    Older,
    /// A picture that was announced has this key, and must not be overwritten.
    KeyInUse,
}

/// Owes a picture to its key, unless a newer one is there. One that claims to be of after `wall` is of a clock that was wrong,
/// and gives way.
///
/// # Errors
/// Those of the database.
pub fn offer(tx: &Tx<'_>, new: &Newest<'_>, wall: UnixMs) -> Result<Offered, DbError> {
    let announced = tx
        .prepare_cached("SELECT 1 FROM snapshot WHERE store = ?1 AND bucket = ?2 AND object_key = ?3")?
        .exists(params![new.store, new.bucket, new.key])?;
    if announced {
        return Ok(Offered::KeyInUse);
    }
    let known = tx
        .prepare_cached(
            "SELECT id, create_time_ms, file_size, is_owed FROM latest_object
             WHERE store = ?1 AND bucket = ?2 AND object_key = ?3",
        )?
        .query_row(params![new.store, new.bucket, new.key], |row| {
            let age = (row.get::<_, i64>("create_time_ms")?, SnapshotId(uuid(row, "id")?));
            Ok((age, number(row, "file_size"), row.get::<_, bool>("is_owed")?))
        })
        .optional()?;
    let superseded = match known {
        Some((age, ..)) if age >= (new.create_time.0, new.id) && age.0 <= wall.0 => return Ok(Offered::Older),
        Some(((_, id), bytes, true)) => Some((id, bytes?)),
        Some((.., false)) | None => None,
    };
    tx.prepare_cached(
        "INSERT INTO latest_object (store, bucket, object_key, region, id, trace, create_time_ms, format, file_size, is_owed,
             put_due_ms, owed_since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, ?10, ?11)
         ON CONFLICT DO UPDATE SET region = ?4, id = ?5, trace = ?6, create_time_ms = ?7, format = ?8, file_size = ?9,
             -- While the store fails, a newer picture waits as long as the one before would have.
             put_due_ms = iif(is_owed, put_due_ms, ?10), owed_since_ms = iif(is_owed, owed_since_ms, ?11), is_owed = 1",
    )?
    .execute(params![
        new.store,
        new.bucket,
        new.key,
        new.region,
        blob(new.id.0),
        blob(new.trace.0),
        new.create_time.0,
        new.format.name(),
        stored(new.file_size_bytes),
        new.put_due.0,
        wall.0,
    ])?;
    Ok(Offered::Taken { superseded })
}

/// The newest picture of a key, owed to its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedLatest {
    pub store: String,
    pub region: String,
    pub bucket: String,
    pub key: String,
    pub id: SnapshotId,
    pub trace: SnapshotId,
    pub format: ImageFormat,
    pub file_size_bytes: u64,
    /// Puts that failed since one was taken.
    pub attempts: u32,
}

/// Every place that a latest object is owed to.
///
/// # Errors
/// Those of the database.
pub fn owed_places(conn: &Connection) -> Result<Vec<Place>, DbError> {
    let next = "SELECT store, bucket FROM latest_object WHERE is_owed = 1 AND (store, bucket) > (?1, ?2)
                ORDER BY store, bucket LIMIT 1";
    walk_places(conn, next)
}

/// Counts what is owed to a place. The oldest is told by when the first was committed that its key has waited for since.
///
/// # Errors
/// Those of the database.
pub fn owed_to(conn: &Connection, place: &Place) -> Result<OwedTo, DbError> {
    let mut count = conn.prepare_cached(
        "SELECT count(*) AS pictures, coalesce(sum(put_alarm), 0) AS held, min(owed_since_ms) AS oldest FROM latest_object
         WHERE is_owed = 1 AND store = ?1 AND bucket = ?2",
    )?;
    let mut rows = count.query([&place.store, &place.bucket])?;
    let row = rows.next()?.ok_or(DbError::Damaged { what: "a count" })?;
    let oldest: Option<i64> = row.get("oldest")?;
    Ok(OwedTo { pictures: number(row, "pictures")?, held: number(row, "held")?, oldest: oldest.map(UnixMs) })
}

/// A place takes pictures again: those that failed there wait no longer.
///
/// # Errors
/// Those of the database.
pub fn bring_forward(tx: &Tx<'_>, place: &Place, now: UnixMs) -> Result<usize, DbError> {
    let forward = "UPDATE latest_object SET put_due_ms = ?3
                   WHERE is_owed = 1 AND store = ?1 AND bucket = ?2 AND put_due_ms > ?3";
    Ok(tx.prepare_cached(forward)?.execute(params![place.store, place.bucket, now.0])?)
}

/// Makes every picture due that waits for a person.
///
/// # Errors
/// Those of the database.
pub fn try_held(tx: &Tx<'_>, now: UnixMs) -> Result<usize, DbError> {
    let try_held = "UPDATE latest_object SET put_due_ms = min(put_due_ms, ?1) WHERE is_owed = 1 AND put_alarm = 1";
    Ok(tx.execute(try_held, [now.0])?)
}

/// Whether a picture is still the newest of its key, and owed.
///
/// # Errors
/// Those of the database.
pub fn is_owed(conn: &Connection, put: &OwedLatest) -> Result<bool, DbError> {
    let mut owed = conn.prepare_cached(
        "SELECT 1 FROM latest_object WHERE store = ?1 AND bucket = ?2 AND object_key = ?3 AND id = ?4 AND is_owed = 1",
    )?;
    Ok(owed.exists(params![put.store, put.bucket, put.key, blob(put.id.0)])?)
}

/// Gives an owed picture up, by a person's word. Its key is known further on: what was there before stays there. Returns what
/// its file takes in the spool; `None`: it was not owed.
///
/// # Errors
/// Those of the database.
pub fn discard(tx: &Tx<'_>, id: SnapshotId) -> Result<Option<u64>, DbError> {
    // Reads what is owed, a row for each stream at most: few enough for what a person does once.
    let discarded = tx
        .prepare_cached(
            "UPDATE latest_object SET is_owed = 0, put_alarm = 0, put_attempts = 0, put_step_ms = 0, put_error = NULL
             WHERE id = ?1 AND is_owed = 1 RETURNING file_size",
        )?
        .query_row([blob(id.0)], |row| Ok(number(row, "file_size")))
        .optional()?;
    discarded.transpose()
}

/// What is due in one bucket, the longest due first.
///
/// # Errors
/// Those of the database.
pub fn due(conn: &Connection, place: &Place, now: UnixMs, limit: usize) -> Result<Vec<OwedLatest>, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT * FROM latest_object WHERE is_owed = 1 AND store = ?1 AND bucket = ?2 AND put_due_ms <= ?3
         ORDER BY put_due_ms LIMIT ?4",
    )?;
    let mut rows = statement.query(params![place.store, place.bucket, now.0, stored(limit)])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        let format: String = row.get("format")?;
        due.push(OwedLatest {
            store: row.get("store")?,
            region: row.get("region")?,
            bucket: row.get("bucket")?,
            key: row.get("object_key")?,
            id: SnapshotId(uuid(row, "id")?),
            trace: SnapshotId(uuid(row, "trace")?),
            format: ImageFormat::from_name(&format).ok_or(DbError::Damaged { what: "a picture's format" })?,
            file_size_bytes: number(row, "file_size")?,
            attempts: number(row, "put_attempts")?,
        });
    }
    Ok(due)
}

/// When the next put into a bucket falls due.
///
/// # Errors
/// Those of the database.
pub fn next_due(conn: &Connection, place: &Place, after: UnixMs) -> Result<Option<UnixMs>, DbError> {
    let next: Option<i64> = conn
        .prepare_cached(
            "SELECT min(put_due_ms) FROM latest_object
             WHERE is_owed = 1 AND store = ?1 AND bucket = ?2 AND put_due_ms > ?3",
        )?
        .query_row(params![place.store, place.bucket, after.0], |row| row.get(0))?;
    Ok(next.map(UnixMs))
}

/// Owes what was owed to one place to another. Of two pictures of a key the newer is owed there from now on, as if it had just
/// been offered; neither is where a picture was announced, which must not be overwritten. What is of no use any more: its id,
/// and its bytes in the spool.
///
/// # Errors
/// Those of the database.
pub fn move_owed(
    tx: &Tx<'_>,
    from: &Place,
    region: &str,
    to: &Place,
    now: UnixMs,
    wall: UnixMs,
) -> Result<Vec<(SnapshotId, u64)>, DbError> {
    let mut superseded = Vec::new();
    // Not all that has the key there has come later: that may be a picture which was put before the store's claim went and
    // came back, or one that waits since then.
    let mut older = tx.prepare(
        "DELETE FROM latest_object AS there WHERE store = ?4 AND bucket = ?5 AND EXISTS (
             SELECT 1 FROM latest_object AS here
             WHERE here.is_owed = 1 AND here.store = ?1 AND here.bucket = ?2 AND here.region = ?3
             AND here.object_key = there.object_key
             AND (there.create_time_ms > ?6 OR (there.create_time_ms, there.id) < (here.create_time_ms, here.id)))
         RETURNING id, file_size, is_owed",
    )?;
    let mut rows = older.query(params![from.store, from.bucket, region, to.store, to.bucket, wall.0])?;
    while let Some(row) = rows.next()? {
        if row.get("is_owed")? {
            superseded.push((SnapshotId(uuid(row, "id")?), number(row, "file_size")?));
        }
    }
    let here = "is_owed = 1 AND store = ?1 AND bucket = ?2 AND region = ?3";
    let moved = format!(
        "UPDATE OR IGNORE latest_object SET store = ?4, bucket = ?5, put_due_ms = ?6, put_alarm = 0
         WHERE {here} AND NOT EXISTS (
             SELECT 1 FROM snapshot WHERE store = ?4 AND bucket = ?5 AND object_key = latest_object.object_key)"
    );
    tx.execute(&moved, params![from.store, from.bucket, region, to.store, to.bucket, now.0])?;
    // What is left has its key taken there: by a newer latest object, or by a picture that was announced.
    let mut left = tx.prepare(&format!("DELETE FROM latest_object WHERE {here} RETURNING id, file_size"))?;
    let mut rows = left.query(params![from.store, from.bucket, region])?;
    while let Some(row) = rows.next()? {
        superseded.push((SnapshotId(uuid(row, "id")?), number(row, "file_size")?));
    }
    Ok(superseded)
}

/// Buckets and regions of latest objects that are owed to a store of this name.
///
/// # Errors
/// Those of the database.
pub fn buckets_of(conn: &Connection, store: &str) -> Result<Vec<(String, String)>, DbError> {
    let sql = "SELECT DISTINCT bucket, region FROM latest_object WHERE is_owed = 1 AND store = ?1";
    let mut buckets = conn.prepare(sql)?;
    let rows = buckets.query_map([store], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.map(|row| row.map_err(DbError::from)).collect()
}

/// A picture is in its store. If a newer one came meanwhile, that stays owed, and due now.
///
/// # Errors
/// Those of the database.
pub fn mark_stored(tx: &Tx<'_>, put: &OwedLatest, now: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE latest_object SET is_owed = (is_owed AND id <> ?4), put_attempts = 0, put_alarm = 0, put_step_ms = 0, put_error = NULL,
             put_due_ms = ?5, owed_since_ms = create_time_ms
         WHERE store = ?1 AND bucket = ?2 AND object_key = ?3",
    )?
    .execute(params![put.store, put.bucket, put.key, blob(put.id.0), now.0])?;
    Ok(())
}

/// A put failed: whichever picture is the newest by now waits.
///
/// # Errors
/// Those of the database.
pub fn mark_failed(tx: &Tx<'_>, put: &OwedLatest, failed: &FailedPut) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE latest_object SET put_attempts = put_attempts + 1, put_due_ms = ?4, put_step_ms = ?5, put_alarm = ?6,
             put_error = ?7
         WHERE store = ?1 AND bucket = ?2 AND object_key = ?3 AND is_owed = 1",
    )?
    .execute(params![
        put.store,
        put.bucket,
        put.key,
        failed.due.0,
        stored(failed.step.as_millis()),
        failed.alarm,
        failed.error
    ])?;
    Ok(())
}

/// Whether an object is one that is overwritten.
///
/// # Errors
/// Those of the database.
pub fn is_latest(conn: &Connection, store: &str, bucket: &str, key: &str) -> Result<bool, DbError> {
    let mut known =
        conn.prepare_cached("SELECT 1 FROM latest_object WHERE store = ?1 AND bucket = ?2 AND object_key = ?3")?;
    Ok(known.exists(params![store, bucket, key])?)
}

/// Forgets at most `rows` keys whose newest picture is stored and older than `before`. Their objects stay. Returns how many.
///
/// # Errors
/// Those of the database.
pub fn prune(tx: &Tx<'_>, before: UnixMs, rows: usize) -> Result<usize, DbError> {
    let pruned = tx
        .prepare_cached(
            "DELETE FROM latest_object WHERE (store, bucket, object_key) IN
                 (SELECT store, bucket, object_key FROM latest_object WHERE is_owed = 0 AND create_time_ms < ?1 LIMIT ?2)",
        )?
        .execute(params![before.0, stored(rows)])?;
    Ok(pruned)
}
