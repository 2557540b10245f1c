//! Snapshots: what was committed, and what is still to be put into its store.

mod search;

use framehook_domain::id::{EventId, PushSequence, SnapshotId, TemplateId};
use framehook_domain::object_key::ObjectKey;
use framehook_domain::pick::Subscriber;
use framehook_domain::stream::StreamId;
use framehook_domain::template::ImageFormat;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::outbox;
use super::row::{blob, number, stored, stream_id, uuid};
use super::{DbError, Tx};

pub use search::{Cursor, Filter, PutState, SnapshotRow, list, show};

/// A picture's row as it is committed.
#[derive(Clone, Debug)]
pub struct NewSnapshot<'a> {
    pub id: SnapshotId,
    pub trace: SnapshotId,
    pub sequence: PushSequence,
    pub stream: &'a StreamId,
    /// `None`: somebody asked for it, this once.
    pub subscriber: Option<Subscriber>,
    pub template: TemplateId,
    pub catalog_version: u64,
    pub event: EventId,
    pub create_time: UnixMs,
    pub recorded: UnixMs,
    pub width: u32,
    pub height: u32,
    pub format: ImageFormat,
    /// Which of its template's renditions it is; `None` if there is only one.
    pub rendition: Option<&'a str>,
    pub file_size_bytes: u64,
    pub sha256: [u8; 32],
    pub store: &'a str,
    pub region: &'a str,
    /// With its `-<appid>` tail.
    pub bucket: &'a str,
    pub key: &'a str,
    /// `None`: it is not known before the picture is stored.
    pub pic_full_url: Option<&'a str>,
    /// Whether its store has it already.
    pub is_stored: bool,
    /// When its put falls due, on the timeline.
    pub put_due: UnixMs,
}

/// `wanted`, or if it is or was taken the first of `-2`, `-3` … that is free.
///
/// # Errors
/// Those of the database.
pub fn free_key(tx: &Tx<'_>, store: &str, bucket: &str, wanted: ObjectKey, wall: UnixMs) -> Result<ObjectKey, DbError> {
    // An announced picture must not be where others are overwritten.
    let mut was_taken = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM snapshot WHERE store = ?1 AND bucket = ?2 AND object_key = ?3)
             OR EXISTS (SELECT 1 FROM key_suffix WHERE store = ?1 AND bucket = ?2 AND object_key = ?3)
             OR EXISTS (SELECT 1 FROM latest_object WHERE store = ?1 AND bucket = ?2 AND object_key = ?3)",
    )?;
    if !was_taken.query_row([store, bucket, wanted.as_str()], |row| row.get(0))? {
        return Ok(wanted);
    }
    let mut next_suffix = tx.prepare_cached(
        "INSERT INTO key_suffix (store, bucket, object_key, last, used_ms) VALUES (?1, ?2, ?3, 2, ?4)
         ON CONFLICT DO UPDATE SET last = last + 1, used_ms = excluded.used_ms RETURNING last",
    )?;
    loop {
        let of_wanted = params![store, bucket, wanted.as_str(), wall.0];
        let key = wanted.with_suffix(next_suffix.query_row(of_wanted, |row| row.get(0))?);
        if !has_key(tx, store, bucket, key.as_str())? {
            return Ok(key);
        }
    }
}

/// Writes a picture's row: it is owed to its store, or there already.
///
/// # Errors
/// Those of the database; [`DbError::is_taken`] if its key is not free.
pub fn insert(tx: &Tx<'_>, new: &NewSnapshot<'_>) -> Result<(), DbError> {
    let (rule, task) = match new.subscriber {
        Some(Subscriber::Rule(rule)) => (Some(rule.0), None),
        Some(Subscriber::Task(task)) => (None, Some(task.to_string())),
        None => (None, None),
    };
    tx.prepare_cached(
        "INSERT INTO snapshot (id, trace, push_sequence, domain, app, stream, rule_id, task_id, template_id,
             catalog_version, event_id, create_time_ms, recorded_ms, width, height, file_size, sha256, store, region,
             bucket, object_key, pic_full_url, put_state, put_due_ms, format, rendition, settled_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
             ?24, ?25, ?26, ?27)",
    )?
    .execute(params![
        blob(new.id.0),
        blob(new.trace.0),
        new.sequence.as_i64(),
        new.stream.domain.as_str(),
        new.stream.app.as_str(),
        new.stream.name.as_str(),
        rule,
        task,
        new.template.0,
        stored(new.catalog_version),
        blob(new.event.0),
        new.create_time.0,
        new.recorded.0,
        new.width,
        new.height,
        stored(new.file_size_bytes),
        new.sha256,
        new.store,
        new.region,
        new.bucket,
        new.key,
        new.pic_full_url,
        if new.is_stored { "stored" } else { "owed" },
        new.put_due.0,
        new.format.name(),
        new.rendition,
        new.is_stored.then_some(new.recorded.0),
    ])?;
    Ok(())
}

/// A picture that is owed to its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedPut {
    pub id: SnapshotId,
    pub trace: SnapshotId,
    pub event: EventId,
    pub stream: StreamId,
    pub store: String,
    pub region: String,
    pub bucket: String,
    pub key: String,
    pub format: ImageFormat,
    /// For how many days its template keeps it; `None`: for ever.
    pub retention_days: Option<u32>,
    pub file_size_bytes: u64,
    /// Puts that failed.
    pub attempts: u32,
    /// Where its event says that it is fetched; `None`: that is written when it is stored.
    pub pic_full_url: Option<String>,
}

impl OwedPut {
    /// Store and bucket, as log lines and listeners are told them.
    pub fn place(&self) -> String {
        format!("{}/{}", self.store, self.bucket)
    }

    /// Where it goes.
    pub fn kept_at(&self) -> Place {
        Place { store: self.store.clone(), bucket: self.bucket.clone() }
    }
}

const OWED_COLUMNS: &str =
    "id, trace, event_id, domain, app, stream, store, region, bucket, object_key, format, file_size,
     put_attempts, pic_full_url,
     (SELECT retention_days FROM snapshot_template WHERE snapshot_template.id = template_id) AS retention_days
     FROM snapshot";

fn image_format(row: &Row<'_>) -> Result<ImageFormat, DbError> {
    let name: String = row.get("format")?;
    ImageFormat::from_name(&name).ok_or(DbError::Damaged { what: "a picture's format" })
}

fn owed_put(row: &Row<'_>) -> Result<OwedPut, DbError> {
    Ok(OwedPut {
        id: SnapshotId(uuid(row, "id")?),
        trace: SnapshotId(uuid(row, "trace")?),
        event: EventId(uuid(row, "event_id")?),
        stream: stream_id(row)?,
        store: row.get("store")?,
        region: row.get("region")?,
        bucket: row.get("bucket")?,
        key: row.get("object_key")?,
        format: image_format(row)?,
        retention_days: row.get("retention_days")?,
        file_size_bytes: number(row, "file_size")?,
        attempts: number(row, "put_attempts")?,
        pic_full_url: row.get("pic_full_url")?,
    })
}

/// A bucket that pictures wait for, and the store that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub store: String,
    pub bucket: String,
}

/// Every place that a picture is owed to.
///
/// # Errors
/// Those of the database.
pub fn owed_places(conn: &Connection) -> Result<Vec<Place>, DbError> {
    let next = "SELECT store, bucket FROM snapshot WHERE put_state = 'owed' AND (store, bucket) > (?1, ?2)
                ORDER BY store, bucket LIMIT 1";
    walk_places(conn, next)
}

/// Every place that `next` finds, which gives the first one behind a store and a bucket: a step in an index for each, however
/// many rows they have.
pub(super) fn walk_places(conn: &Connection, next: &str) -> Result<Vec<Place>, DbError> {
    let mut next = conn.prepare_cached(next)?;
    let mut places: Vec<Place> = Vec::new();
    loop {
        let (store, bucket) = places.last().map_or(("", ""), |place| (&*place.store, &*place.bucket));
        let place = |row: &Row<'_>| Ok(Place { store: row.get(0)?, bucket: row.get(1)? });
        match next.query_row([store, bucket], place).optional()? {
            Some(place) => places.push(place),
            None => return Ok(places),
        }
    }
}

/// What waits for one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwedTo {
    pub pictures: u64,
    /// Those of them that a person should look at.
    pub held: u64,
    /// When the oldest was committed, or the first of those that a latest object has superseded while it waits.
    pub oldest: Option<UnixMs>,
}

impl OwedTo {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            pictures: self.pictures + other.pictures,
            held: self.held + other.held,
            oldest: [self.oldest, other.oldest].into_iter().flatten().min(),
        }
    }
}

const OWED_TO: &str =
    "SELECT count(*) AS pictures, coalesce(sum(put_alarm), 0) AS held, min(recorded_ms) AS oldest FROM snapshot
     WHERE put_state = 'owed' AND store = ?1 AND bucket = ?2";

/// Counts what is owed to a place, latest objects left out.
///
/// # Errors
/// Those of the database.
pub fn owed_to(conn: &Connection, place: &Place) -> Result<OwedTo, DbError> {
    let mut count = conn.prepare_cached(OWED_TO)?;
    let mut rows = count.query([&place.store, &place.bucket])?;
    let row = rows.next()?.ok_or(DbError::Damaged { what: "a count" })?;
    let oldest: Option<i64> = row.get("oldest")?;
    Ok(OwedTo { pictures: number(row, "pictures")?, held: number(row, "held")?, oldest: oldest.map(UnixMs) })
}

/// Pictures for a place, committed at or after `since`, that were not tried yet, the oldest first.
///
/// # Errors
/// Those of the database.
pub fn fresh_puts(conn: &Connection, place: &Place, since: UnixMs, limit: usize) -> Result<Vec<OwedPut>, DbError> {
    let sql = format!(
        "SELECT {OWED_COLUMNS} WHERE put_state = 'owed' AND put_attempts = 0 AND store = ?1 AND bucket = ?2
         AND recorded_ms >= ?3 ORDER BY recorded_ms LIMIT ?4"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let asked = params![place.store, place.bucket, since.0, stored(limit)];
    let rows = statement.query_map(asked, |row| Ok(owed_put(row)))?;
    rows.map(|row| row?).collect()
}

/// The other pictures for a place whose put has fallen due, the longest due first.
///
/// # Errors
/// Those of the database.
pub fn backlog_puts(
    conn: &Connection,
    place: &Place,
    now: UnixMs,
    since: UnixMs,
    limit: usize,
) -> Result<Vec<OwedPut>, DbError> {
    let sql = format!(
        "SELECT {OWED_COLUMNS} WHERE put_state = 'owed' AND store = ?1 AND bucket = ?2 AND put_due_ms <= ?3
         AND NOT (put_attempts = 0 AND recorded_ms >= ?4) ORDER BY put_due_ms LIMIT ?5"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let asked = params![place.store, place.bucket, now.0, since.0, stored(limit)];
    let rows = statement.query_map(asked, |row| Ok(owed_put(row)))?;
    rows.map(|row| row?).collect()
}

/// When the next put for a place falls due.
///
/// # Errors
/// Those of the database.
pub fn next_put_due(conn: &Connection, place: &Place, after: UnixMs) -> Result<Option<UnixMs>, DbError> {
    let mut next = conn.prepare_cached(
        "SELECT min(put_due_ms) FROM snapshot
         WHERE put_state = 'owed' AND store = ?1 AND bucket = ?2 AND put_due_ms > ?3",
    )?;
    let next: Option<i64> = next.query_row(params![place.store, place.bucket, after.0], |row| row.get(0))?;
    Ok(next.map(UnixMs))
}

/// A place takes pictures again: those that failed there wait no longer.
///
/// # Errors
/// Those of the database.
pub fn bring_forward(tx: &Tx<'_>, place: &Place, now: UnixMs) -> Result<usize, DbError> {
    let forward = "UPDATE snapshot SET put_due_ms = ?3
                   WHERE put_state = 'owed' AND store = ?1 AND bucket = ?2 AND put_due_ms > ?3";
    Ok(tx.prepare_cached(forward)?.execute(params![place.store, place.bucket, now.0])?)
}

/// Makes every picture due that waits for a person.
///
/// # Errors
/// Those of the database.
pub fn try_held(tx: &Tx<'_>, now: UnixMs) -> Result<usize, DbError> {
    Ok(tx.execute("UPDATE snapshot SET put_due_ms = min(put_due_ms, ?1) WHERE put_alarm = 1", params![now.0])?)
}

/// Buckets and regions of pictures that are owed to a store of this name.
///
/// # Errors
/// Those of the database.
pub fn buckets_of(conn: &Connection, store: &str) -> Result<Vec<(String, String)>, DbError> {
    let sql = "SELECT DISTINCT bucket, region FROM snapshot WHERE put_state = 'owed' AND store = ?1";
    let mut buckets = conn.prepare(sql)?;
    let rows = buckets.query_map([store], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.map(|row| row.map_err(DbError::from)).collect()
}

/// Owes what was owed to one place to another, under a free key where its own is taken there. Only for pictures whose events
/// do not say yet where they are.
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
) -> Result<usize, DbError> {
    let owed = tx
        .prepare(
            "SELECT id, object_key FROM snapshot
             WHERE put_state = 'owed' AND store = ?1 AND bucket = ?2 AND region = ?3 AND pic_full_url IS NULL ORDER BY id",
        )?
        .query_map([&from.store, &from.bucket, region], |row| Ok((uuid(row, "id")?, row.get("object_key")?)))?
        .collect::<Result<Vec<(_, String)>, _>>()?;
    for (id, key) in &owed {
        let key = free_key(tx, &to.store, &to.bucket, ObjectKey::written(key.clone()), wall)?;
        tx.prepare_cached(
            "UPDATE snapshot SET store = ?2, bucket = ?3, object_key = ?4, put_due_ms = ?5, put_alarm = 0 WHERE id = ?1",
        )?
        .execute(params![blob(*id), to.store, to.bucket, key.as_str(), now.0])?;
    }
    Ok(owed.len())
}

/// Whether a picture is still owed to its store.
///
/// # Errors
/// Those of the database.
pub fn is_owed(conn: &Connection, id: SnapshotId) -> Result<bool, DbError> {
    let mut owed = conn.prepare_cached("SELECT 1 FROM snapshot WHERE id = ?1 AND put_state = 'owed'")?;
    Ok(owed.exists([blob(id.0)])?)
}

/// Whether a picture has a row, latest objects left out.
///
/// # Errors
/// Those of the database.
pub fn is_recorded(conn: &Connection, id: SnapshotId) -> Result<bool, DbError> {
    Ok(conn.prepare_cached("SELECT 1 FROM snapshot WHERE id = ?1")?.exists([blob(id.0)])?)
}

/// The newest picture that has a row, by its id, latest objects left out.
///
/// # Errors
/// Those of the database.
pub fn newest(conn: &Connection) -> Result<Option<SnapshotId>, DbError> {
    let mut newest = conn.prepare_cached("SELECT id FROM snapshot ORDER BY id DESC LIMIT 1")?;
    Ok(newest.query_row([], |row| uuid(row, "id")).optional()?.map(SnapshotId))
}

/// Whether some picture, numbered or latest, has a key.
///
/// # Errors
/// Those of the database.
fn has_key(conn: &Connection, store: &str, bucket: &str, key: &str) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM snapshot WHERE store = ?1 AND bucket = ?2 AND object_key = ?3
               UNION ALL SELECT 1 FROM latest_object WHERE store = ?1 AND bucket = ?2 AND object_key = ?3";
    Ok(conn.prepare_cached(sql)?.exists([store, bucket, key])?)
}

/// What a put that was taken found in its picture's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It was owed and is stored now.
    Stored,
    /// A person has discarded it meanwhile: nobody is told of the object.
    Discarded,
    /// It was stored by an earlier put.
    Already,
}

/// The picture can be fetched: its deliveries become due in the same transaction, and say where by a URL that is new to them
/// (`pic_full_url`), if there is one.
///
/// # Errors
/// Those of the database.
pub fn mark_stored(
    tx: &Tx<'_>,
    put: &OwedPut,
    pic_full_url: Option<&str>,
    now: UnixMs,
    wall: UnixMs,
) -> Result<Marked, DbError> {
    if let Some(url) = pic_full_url {
        let changed = tx
            .prepare_cached("UPDATE snapshot SET pic_full_url = ?2 WHERE id = ?1 AND put_state = 'owed'")?
            .execute(params![blob(put.id.0), url])?;
        // Once its callbacks may have been sent, their bodies stay as they are.
        if changed > 0 {
            outbox::object_has_url(tx, put.event, &put.key, url)?;
        }
    }
    let changed = tx
        .prepare_cached(
            "UPDATE snapshot SET put_state = 'stored', settled_ms = ?2, put_alarm = 0, put_error = NULL
             WHERE id = ?1 AND put_state = 'owed'",
        )?
        .execute(params![blob(put.id.0), wall.0])?;
    if changed > 0 {
        outbox::object_is_stored(tx, put.event, now)?;
        return Ok(Marked::Stored);
    }
    let mut discarded = tx.prepare_cached("SELECT 1 FROM snapshot WHERE id = ?1 AND put_state = 'discarded'")?;
    Ok(if discarded.exists([blob(put.id.0)])? { Marked::Discarded } else { Marked::Already })
}

/// What a failed put leaves behind.
#[derive(Clone, Debug)]
pub struct FailedPut {
    /// When to try again, on the timeline, and the delay that led to it.
    pub due: UnixMs,
    pub step: std::time::Duration,
    /// Whether a person should look.
    pub alarm: bool,
    pub error: String,
}

/// A put failed; it stays owed.
///
/// # Errors
/// Those of the database.
pub fn mark_put_failed(tx: &Tx<'_>, id: SnapshotId, failed: &FailedPut) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE snapshot SET put_attempts = put_attempts + 1, put_due_ms = ?2, put_step_ms = ?3, put_alarm = ?4,
                put_error = ?5
         WHERE id = ?1 AND put_state = 'owed'",
    )?
    .execute(params![blob(id.0), failed.due.0, stored(failed.step.as_millis()), failed.alarm, failed.error])?;
    Ok(())
}

/// Gives an owed picture up, by a person's word: its deliveries that wait for it are cancelled. Returns what its file takes
/// in the spool; `None`: it was not owed.
///
/// # Errors
/// Those of the database.
pub fn discard(tx: &Tx<'_>, id: SnapshotId, by: &str, wall: UnixMs) -> Result<Option<u64>, DbError> {
    let discarded = tx
        .prepare_cached(
            "UPDATE snapshot SET put_state = 'discarded', settled_ms = ?2, discarded_by = ?3, put_alarm = 0
             WHERE id = ?1 AND put_state = 'owed' RETURNING event_id, file_size",
        )?
        .query_row(params![blob(id.0), wall.0, by], |row| Ok((uuid(row, "event_id")?, number(row, "file_size"))))
        .optional()?;
    let Some((event, file_size_bytes)) = discarded else { return Ok(None) };
    outbox::object_is_discarded(tx, EventId(event), wall)?;
    file_size_bytes.map(Some)
}

/// A picture that its store refuses in a way that waiting alone will not mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPut {
    pub id: SnapshotId,
    pub store: String,
    pub bucket: String,
    pub key: String,
    pub attempts: u32,
    pub error: Option<String>,
}

/// Most held pictures that are listed: they come from one cause, and a person mends that and not each of them.
const HELD_ROWS_MAX: usize = 1000;

/// The pictures that a person should look at, those of latest objects among them, oldest first.
///
/// # Errors
/// Those of the database.
pub fn held_puts(conn: &Connection) -> Result<Vec<HeldPut>, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, store, bucket, object_key, put_attempts, put_error FROM snapshot WHERE put_alarm = 1
         UNION ALL SELECT id, store, bucket, object_key, put_attempts, put_error FROM latest_object
         WHERE is_owed = 1 AND put_alarm = 1
         ORDER BY id LIMIT ?1",
    )?;
    let mut rows = statement.query([stored(HELD_ROWS_MAX)])?;
    let mut held = Vec::new();
    while let Some(row) = rows.next()? {
        held.push(HeldPut {
            id: SnapshotId(uuid(row, "id")?),
            store: row.get("store")?,
            bucket: row.get("bucket")?,
            key: row.get("object_key")?,
            attempts: number(row, "put_attempts")?,
            error: row.get("put_error")?,
        });
    }
    Ok(held)
}

/// Every picture whose bytes must be in the spool, with their size.
///
/// # Errors
/// Those of the database.
pub fn owed_files(conn: &Connection) -> Result<Vec<(SnapshotId, u64)>, DbError> {
    let mut statement = conn.prepare(
        "SELECT id, file_size FROM snapshot WHERE put_state = 'owed'
         UNION ALL SELECT id, file_size FROM latest_object WHERE is_owed = 1",
    )?;
    let rows = statement.query_map([], |row| Ok((SnapshotId(uuid(row, "id")?), row.get::<_, i64>("file_size")?)))?;
    rows.map(|row| row.map(|(id, bytes)| (id, bytes.unsigned_abs())).map_err(DbError::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::planned;

    #[test]
    fn counting_what_is_owed_reads_no_rows() {
        let plan = planned::plan(&planned::database(), OWED_TO);
        assert!(plan.contains("COVERING INDEX snapshot_backlog"), "{plan}");
    }
}
