//! Replays of many deliveries: the orders, and how far each has come. Whatever matches is found part by part, one endpoint at
//! a time and from its oldest delivery on, so that a look costs the same among a thousand and among ten million.

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, TemplateId};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params};

use super::outbox::{self, EndpointId, Filter, OwnUrl, Picture, ReplayRefused, State, first_id_of};
use super::row::{blob, number, stored, stream_id, uuid};
use super::{DbError, Tx};

/// Deliveries looked at for one portion: where hardly any match, this is what ends the look.
const LOOKED_AT_MAX: usize = 5000;

/// One order to send deliveries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayId(pub i64);

/// What to send again, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which deliveries. Without a state none is meant; open ones are left alone.
    pub filter: Filter,
    pub own_url: Option<OwnUrl>,
    pub per_sec: u32,
    /// Nobody asked for it: their receiver has recovered. Those that were sent again before are left alone.
    pub is_automatic: bool,
}

/// An order and what has come of it.
#[derive(Clone, Debug)]
pub struct Replay {
    pub id: ReplayId,
    pub order: Order,
    pub created: UnixMs,
    /// `None` while it goes on.
    pub ended: Option<UnixMs>,
    pub is_cancelled: bool,
    /// Deliveries that became due by it.
    pub replayed: u64,
    /// Those that could not, since their pictures were gone or their stores did not tell.
    pub refused: u64,
}

/// How far a replay has come with one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub endpoint: EndpointId,
    /// The last delivery that was looked at.
    after: [u8; 16],
}

/// Writes an order down, with a part for each endpoint that it may concern. What was made after `wall` is not meant.
///
/// # Errors
/// Those of the database.
pub fn order(tx: &Tx<'_>, order: &Order, wall: UnixMs) -> Result<ReplayId, DbError> {
    let Order { filter, own_url, per_sec, is_automatic } = order;
    let states: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
    let (template, endpoint) = (filter.template.map(|id| id.0), filter.endpoint.map(|id| id.0));
    let kind = filter.kind.map(EventKind::event_type);
    tx.prepare_cached(
        "INSERT INTO replay (states, domain, app, stream, template_id, endpoint_id, kind, since_ms, until_ms, url, url_digest,
             per_sec, is_automatic, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        states.join(","),
        filter.stream.as_ref().map(|stream| stream.domain.as_str()),
        filter.stream.as_ref().map(|stream| stream.app.as_str()),
        filter.stream.as_ref().map(|stream| stream.name.as_str()),
        template,
        endpoint,
        kind,
        filter.since.map(|since| since.0),
        filter.until.unwrap_or(wall).min(wall).0,
        own_url.as_ref().map(|url| &url.sealed),
        own_url.as_ref().map(|url| &url.digest[..]),
        per_sec,
        is_automatic,
        wall.0,
    ])?;
    let id = ReplayId(tx.last_insert_rowid());
    // Parts that would end at once are left out, as far as an index tells.
    let has_some = match filter.states.as_slice() {
        [State::Dead] => "EXISTS (SELECT 1 FROM delivery WHERE endpoint_id = endpoint.id AND state = 'dead')",
        _ => "EXISTS (SELECT 1 FROM delivery WHERE endpoint_id = endpoint.id)",
    };
    tx.prepare_cached(&format!(
        "INSERT INTO replay_part (replay_id, endpoint_id, after_id)
         SELECT ?1, id, ?2 FROM endpoint WHERE (?3 IS NULL OR callback_template_id = ?3) AND (?4 IS NULL OR id = ?4)
             AND (?5 IS NULL OR kind = ?5) AND {has_some}"
    ))?
    .execute(params![id.0, first_id_of(filter.since.unwrap_or(UnixMs(0))), template, endpoint, kind])?;
    end_if_done(tx, id, wall)?;
    Ok(id)
}

const COLUMNS: &str =
    "id, states, domain, app, stream, template_id, endpoint_id, kind, since_ms, until_ms, url, url_digest, per_sec,
     is_automatic, created_ms, ended_ms, is_cancelled, replayed, refused FROM replay";

fn replay(row: &Row<'_>) -> Result<Replay, DbError> {
    let states: String = row.get("states")?;
    let state = |name| State::from_name(name).ok_or(DbError::Damaged { what: "a replay's states" });
    let stream = row.get::<_, Option<String>>("stream")?.map(|_| stream_id(row)).transpose()?;
    let kind = row.get::<_, Option<i64>>("kind")?;
    let kind = kind.map(|kind| EventKind::from_event_type(kind).ok_or(DbError::Damaged { what: "a replay's kind" }));
    let sealed: Option<Vec<u8>> = row.get("url")?;
    let digest: Option<[u8; 32]> = row.get("url_digest")?;
    let time = |column| Ok::<_, DbError>(row.get::<_, Option<i64>>(column)?.map(UnixMs));
    Ok(Replay {
        id: ReplayId(row.get("id")?),
        order: Order {
            filter: Filter {
                states: states.split(',').filter(|name| !name.is_empty()).map(state).collect::<Result<_, _>>()?,
                stream,
                template: row.get::<_, Option<i64>>("template_id")?.map(TemplateId),
                endpoint: row.get::<_, Option<i64>>("endpoint_id")?.map(EndpointId),
                kind: kind.transpose()?,
                since: time("since_ms")?,
                until: time("until_ms")?,
                before: None,
            },
            own_url: sealed.zip(digest).map(|(sealed, digest)| OwnUrl { sealed, digest }),
            per_sec: number(row, "per_sec")?,
            is_automatic: row.get("is_automatic")?,
        },
        created: UnixMs(row.get("created_ms")?),
        ended: time("ended_ms")?,
        is_cancelled: row.get("is_cancelled")?,
        replayed: number(row, "replayed")?,
        refused: number(row, "refused")?,
    })
}

/// Whether a replay goes on.
///
/// # Errors
/// Those of the database.
pub fn is_open(conn: &Connection, id: ReplayId) -> Result<bool, DbError> {
    Ok(conn.prepare_cached("SELECT 1 FROM replay WHERE id = ?1 AND ended_ms IS NULL")?.exists([id.0])?)
}

/// Replays that were looked for.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub replays: Vec<Replay>,
    /// Those whose rows are none that we write.
    pub damaged: Vec<ReplayId>,
}

impl Found {
    fn read(rows: &mut Rows<'_>) -> Result<Self, DbError> {
        let mut found = Self::default();
        while let Some(row) = rows.next()? {
            match replay(row) {
                Ok(replay) => found.replays.push(replay),
                Err(error) if error.is_fatal() => return Err(error),
                // The others can be read.
                Err(_) => found.damaged.push(ReplayId(row.get("id")?)),
            }
        }
        Ok(found)
    }
}

/// Every replay that goes on, the oldest first.
///
/// # Errors
/// Those of the database.
pub fn open(conn: &Connection) -> Result<Found, DbError> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE ended_ms IS NULL ORDER BY id"))?;
    Found::read(&mut select.query([])?)
}

/// How many replays go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCount {
    pub all: usize,
    /// Those of them that nobody asked for.
    pub automatic: usize,
}

/// Counts the replays that go on.
///
/// # Errors
/// Those of the database.
pub fn open_count(conn: &Connection) -> Result<OpenCount, DbError> {
    let count = "SELECT count(*), count(*) FILTER (WHERE is_automatic = 1) FROM replay
                 WHERE ended_ms IS NULL";
    let read = |row: &Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?));
    let (all, automatic) = conn.prepare_cached(count)?.query_row([], read)?;
    Ok(OpenCount { all: all as usize, automatic: automatic as usize })
}

/// The newest first, at most `limit` of those before `before`, damaged ones counted.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, before: Option<ReplayId>, limit: usize) -> Result<Found, DbError> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))?;
    let before = before.map_or(i64::MAX, |id| id.0);
    Found::read(&mut select.query(params![before, stored(limit)])?)
}

/// One replay, if it is known.
///
/// # Errors
/// Those of the database.
pub fn show(conn: &Connection, id: ReplayId) -> Result<Option<Replay>, DbError> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE id = ?1"))?
        .query_row([id.0], |row| Ok(replay(row)))
        .optional()?
        .transpose()
}

/// Lets a replay send nothing more. `false`: it had ended, or is not known.
///
/// # Errors
/// Those of the database.
pub fn cancel(tx: &Tx<'_>, id: ReplayId, wall: UnixMs) -> Result<bool, DbError> {
    let ended = tx
        .prepare_cached("UPDATE replay SET ended_ms = ?2, is_cancelled = 1 WHERE id = ?1 AND ended_ms IS NULL")?
        .execute(params![id.0, wall.0])?;
    tx.prepare_cached("DELETE FROM replay_part WHERE replay_id = ?1")?.execute([id.0])?;
    Ok(ended > 0)
}

/// Forgets at most `rows` replays that ended before `before`.
///
/// # Errors
/// Those of the database.
pub(super) fn prune(tx: &Tx<'_>, before: UnixMs, rows: usize) -> Result<usize, DbError> {
    let delete = "DELETE FROM replay WHERE id IN (SELECT id FROM replay WHERE ended_ms < ?1 LIMIT ?2)";
    Ok(tx.prepare_cached(delete)?.execute(params![before.0, stored(rows)])?)
}

/// Endpoints of a replay that still have something to be looked at, by their numbers, from the one behind `after` on.
///
/// # Errors
/// Those of the database.
pub fn parts(conn: &Connection, id: ReplayId, after: EndpointId, limit: usize) -> Result<Vec<Part>, DbError> {
    let mut select = conn.prepare_cached(
        "SELECT endpoint_id, after_id FROM replay_part WHERE replay_id = ?1 AND endpoint_id > ?2
         ORDER BY endpoint_id LIMIT ?3",
    )?;
    let part = |row: &Row<'_>| Ok(Part { endpoint: EndpointId(row.get(0)?), after: row.get(1)? });
    let parts = select.query_map(params![id.0, after.0, stored(limit)], part)?;
    Ok(parts.collect::<Result<_, _>>()?)
}

/// Whether something is due and not sent yet at an endpoint: what is replayed waits until nothing is.
///
/// # Errors
/// Those of the database.
pub fn is_busy(conn: &Connection, endpoint: EndpointId, now: UnixMs) -> Result<bool, DbError> {
    let find = "SELECT 1 FROM delivery WHERE state = 'due' AND endpoint_id = ?1 AND due_ms <= ?2";
    Ok(conn.prepare_cached(find)?.exists(params![endpoint.0, now.0])?)
}

/// The same at every endpoint of a URL that was given for replays: there is one for each template and kind of event.
///
/// # Errors
/// Those of the database.
pub fn is_url_busy(conn: &Connection, url: &OwnUrl, now: UnixMs) -> Result<bool, DbError> {
    Ok(conn.prepare_cached(URL_BUSY)?.exists(params![&url.digest[..], now.0])?)
}

// CROSS JOIN keeps the order of the tables: the other way round all that is due anywhere would be walked through.
const URL_BUSY: &str = "SELECT 1 FROM endpoint CROSS JOIN delivery ON endpoint_id = endpoint.id
     WHERE url_digest = ?1 AND url_override IS NOT NULL AND state = 'due' AND due_ms <= ?2";

/// A part's next deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    part: Part,
    pub deliveries: Vec<DeliveryId>,
    /// How far it was looked; `None`: to the end.
    reached: Option<[u8; 16]>,
}

/// Finds at most `limit` deliveries of a part that are to be sent again. What was settled after the order is not meant: it
/// may be what the order itself has sent, and moved to the endpoint of its own URL.
///
/// # Errors
/// Those of the database.
pub fn next_portion(conn: &Connection, replay: &Replay, part: &Part, limit: usize) -> Result<Portion, DbError> {
    let Order { filter, is_automatic, .. } = &replay.order;
    let until = first_id_of(filter.until.unwrap_or(replay.created));
    let mut select = conn.prepare_cached(match (filter.states.as_slice(), is_automatic) {
        (_, true) => DEAD_ONCE,
        ([State::Dead], _) => DEAD,
        _ => SETTLED,
    })?;
    let created = replay.created.0;
    let mut rows = select.query(params![part.endpoint.0, part.after, until, created, stored(LOOKED_AT_MAX)])?;
    let (mut deliveries, mut looked_at, mut reached) = (Vec::new(), 0, part.after);
    while let Some(row) = rows.next()? {
        looked_at += 1;
        let id = uuid(row, "id")?;
        reached = blob(id);
        let state: String = row.get("state")?;
        let is_wanted = filter.states.iter().any(|wanted| wanted.name() == state);
        // A name that cannot be read is no name that was asked for.
        let is_of_stream = |stream: &StreamId| stream_id(row).is_ok_and(|found| found == *stream);
        if is_wanted && filter.stream.as_ref().is_none_or(is_of_stream) {
            deliveries.push(DeliveryId(id));
            if deliveries.len() == limit {
                return Ok(Portion { part: *part, deliveries, reached: Some(reached) });
            }
        }
    }
    Ok(Portion { part: *part, deliveries, reached: (looked_at == LOOKED_AT_MAX).then_some(reached) })
}

// The conditions on states and outcomes stand in the text: SQLite uses their partial indexes only then.
const DEAD_ONCE: &str = "SELECT delivery.id AS id, state, domain, app, stream
     FROM delivery CROSS JOIN event ON event.id = event_id
     WHERE state = 'dead' AND round_start = 0
         AND outcome NOT IN ('template_deleted', 'object_expired', 'object_unknown', 'gone', 'damaged')
         AND endpoint_id = ?1 AND delivery.id > ?2 AND delivery.id < ?3 AND settled_ms <= ?4
     ORDER BY delivery.id LIMIT ?5";
const DEAD: &str = "SELECT delivery.id AS id, state, domain, app, stream
     FROM delivery CROSS JOIN event ON event.id = event_id
     WHERE state = 'dead' AND endpoint_id = ?1 AND delivery.id > ?2 AND delivery.id < ?3 AND settled_ms <= ?4
     ORDER BY delivery.id LIMIT ?5";
const SETTLED: &str = "SELECT delivery.id AS id, state, domain, app, stream
     FROM delivery CROSS JOIN event ON event.id = event_id
     WHERE endpoint_id = ?1 AND delivery.id > ?2 AND delivery.id < ?3 AND settled_ms <= ?4
     ORDER BY delivery.id LIMIT ?5";

/// Makes the deliveries of a portion due whose pictures, told in the same order, are there, and notes how far the replay has
/// come; the part, and perhaps the replay, may end with it. A delivery that is not as the order wants it any more (a person
/// has cancelled it or sent it again since it was found) is left alone, and a replay that was cancelled sends nothing.
///
/// # Errors
/// Those of the database.
pub fn take_up(
    tx: &Tx<'_>,
    replay: &Replay,
    portion: &Portion,
    pictures: &[Picture],
    now: UnixMs,
    wall: UnixMs,
) -> Result<(), DbError> {
    if !is_open(tx, replay.id)? {
        return Ok(());
    }
    let (mut replayed, mut refused) = (0, 0);
    for (&id, &picture) in portion.deliveries.iter().zip(pictures) {
        if !is_still_meant(tx, replay, id)? {
            continue;
        }
        match outbox::replay(tx, id, replay.order.own_url.as_ref(), picture, now) {
            Ok(Ok(())) => replayed += 1,
            Ok(Err(ReplayRefused::ObjectExpired | ReplayRefused::ObjectUnknown)) | Err(DbError::Damaged { .. }) => {
                refused += 1;
            }
            Ok(Err(ReplayRefused::Open | ReplayRefused::Unknown)) => {}
            Err(error) => return Err(error),
        }
    }
    note_portion(tx, replay.id, portion, (replayed, refused), wall)
}

fn is_still_meant(tx: &Tx<'_>, replay: &Replay, id: DeliveryId) -> Result<bool, DbError> {
    let state: Option<String> = tx
        .prepare_cached("SELECT state FROM delivery WHERE id = ?1 AND settled_ms <= ?2")?
        .query_row(params![blob(id.0), replay.created.0], |row| row.get(0))
        .optional()?;
    Ok(state.is_some_and(|state| replay.order.filter.states.iter().any(|wanted| wanted.name() == state)))
}

fn note_portion(
    tx: &Tx<'_>,
    id: ReplayId,
    portion: &Portion,
    (replayed, refused): (usize, usize),
    wall: UnixMs,
) -> Result<(), DbError> {
    let Portion { part, reached, .. } = portion;
    match reached {
        Some(reached) => tx
            .prepare_cached("UPDATE replay_part SET after_id = ?3 WHERE replay_id = ?1 AND endpoint_id = ?2")?
            .execute(params![id.0, part.endpoint.0, reached])?,
        None => tx
            .prepare_cached("DELETE FROM replay_part WHERE replay_id = ?1 AND endpoint_id = ?2")?
            .execute(params![id.0, part.endpoint.0])?,
    };
    tx.prepare_cached("UPDATE replay SET replayed = replayed + ?2, refused = refused + ?3 WHERE id = ?1")?
        .execute(params![id.0, stored(replayed), stored(refused)])?;
    end_if_done(tx, id, wall)
}

fn end_if_done(tx: &Tx<'_>, id: ReplayId, wall: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE replay SET ended_ms = ?2 WHERE id = ?1 AND ended_ms IS NULL
         AND NOT EXISTS (SELECT 1 FROM replay_part WHERE replay_id = ?1)",
    )?
    .execute(params![id.0, wall.0])?;
    Ok(())
}

/// Whether an endpoint has dead letters, made at or after `since` and before `wall`, that an automatic replay ordered at
/// `wall` would send and none is sending.
///
/// # Errors
/// Those of the database.
pub fn has_dead_letters(conn: &Connection, endpoint: EndpointId, since: UnixMs, wall: UnixMs) -> Result<bool, DbError> {
    let is_replayed = conn
        .prepare_cached("SELECT 1 FROM replay WHERE ended_ms IS NULL AND is_automatic = 1 AND endpoint_id = ?1")?
        .exists([endpoint.0])?;
    let find = format!("SELECT 1 FROM ({DEAD_ONCE})");
    let bounds = params![endpoint.0, first_id_of(since), first_id_of(wall), wall.0, 1];
    Ok(!is_replayed && conn.prepare_cached(&find)?.exists(bounds)?)
}

#[cfg(test)]
mod tests;
