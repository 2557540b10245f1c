//! Replays of many deliveries: the orders, and how far each has come. Whatever matches is found part by part, one endpoint at
//! a time and from its oldest delivery on, so that a look costs the same among a thousand and among ten million.

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, TemplateId};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::outbox::{EndpointId, Filter, OwnUrl, State, first_id_of};
use super::row::{blob, number, stored, stream_id, uuid};
use super::{DbError, Tx};

/// Deliveries looked at for one portion: some ten milliseconds of a reader's time where hardly any match.
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
    /// Those that could not, since their pictures were gone.
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

/// Every replay that goes on, the oldest first.
///
/// # Errors
/// Those of the database.
pub fn open(conn: &Connection) -> Result<Vec<Replay>, DbError> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE ended_ms IS NULL ORDER BY id"))?;
    let rows = select.query_map([], |row| Ok(replay(row)))?;
    rows.map(|row| row?).collect()
}

/// How many go on.
///
/// # Errors
/// Those of the database.
pub fn open_count(conn: &Connection) -> Result<usize, DbError> {
    let count = "SELECT count(*) FROM replay WHERE ended_ms IS NULL";
    Ok(conn.prepare_cached(count)?.query_row([], |row| row.get::<_, u32>(0))? as usize)
}

/// The newest first, at most `limit` of those before `before`.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, before: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>, DbError> {
    let mut select = conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))?;
    let before = before.map_or(i64::MAX, |id| id.0);
    let rows = select.query_map(params![before, stored(limit)], |row| Ok(replay(row)))?;
    rows.map(|row| row?).collect()
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

/// Whether something is due and not sent yet where a part of a replay goes: what is replayed waits until nothing is.
///
/// # Errors
/// Those of the database.
pub fn is_busy(conn: &Connection, part: &Part, own_url: Option<&OwnUrl>, now: UnixMs) -> Result<bool, DbError> {
    let busy = match own_url {
        None => conn
            .prepare_cached("SELECT 1 FROM delivery WHERE state = 'due' AND endpoint_id = ?1 AND due_ms <= ?2")?
            .exists(params![part.endpoint.0, now.0])?,
        Some(url) => conn
            .prepare_cached(
                "SELECT 1 FROM endpoint JOIN delivery ON endpoint_id = endpoint.id
                 WHERE url_digest = ?1 AND url_override IS NOT NULL AND state = 'due' AND due_ms <= ?2",
            )?
            .exists(params![&url.digest[..], now.0])?,
    };
    Ok(busy)
}

/// A part's next deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    pub deliveries: Vec<DeliveryId>,
    /// How far it was looked; `None`: to the end.
    reached: Option<[u8; 16]>,
}

/// Finds at most `limit` deliveries of a part that are to be sent again.
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
    let mut rows = select.query(params![part.endpoint.0, part.after, until, stored(LOOKED_AT_MAX)])?;
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
                return Ok(Portion { deliveries, reached: Some(reached) });
            }
        }
    }
    Ok(Portion { deliveries, reached: (looked_at == LOOKED_AT_MAX).then_some(reached) })
}

// The conditions on states stand in the text: SQLite uses their partial indexes only then.
const DEAD_ONCE: &str = "SELECT delivery.id AS id, state, domain, app, stream
     FROM delivery CROSS JOIN event ON event.id = event_id
     WHERE state = 'dead' AND round_start = 0 AND outcome NOT IN ('template_deleted', 'object_expired', 'gone', 'damaged')
         AND endpoint_id = ?1 AND delivery.id > ?2 AND delivery.id < ?3 ORDER BY delivery.id LIMIT ?4";
const DEAD: &str = "SELECT delivery.id AS id, state, domain, app, stream
     FROM delivery CROSS JOIN event ON event.id = event_id
     WHERE state = 'dead' AND endpoint_id = ?1 AND delivery.id > ?2 AND delivery.id < ?3 ORDER BY delivery.id LIMIT ?4";
const SETTLED: &str = "SELECT delivery.id AS id, state, domain, app, stream
     FROM delivery CROSS JOIN event ON event.id = event_id
     WHERE endpoint_id = ?1 AND delivery.id > ?2 AND delivery.id < ?3 ORDER BY delivery.id LIMIT ?4";

/// Notes what has become of a portion, and that the part, and perhaps the replay, has ended with it. A replay that was
/// cancelled meanwhile stays so.
///
/// # Errors
/// Those of the database.
pub fn note_portion(
    tx: &Tx<'_>,
    id: ReplayId,
    part: &Part,
    portion: &Portion,
    (replayed, refused): (usize, usize),
    wall: UnixMs,
) -> Result<(), DbError> {
    match portion.reached {
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

/// Whether an endpoint has dead letters, made at or after `since`, that an automatic replay would send and none is sending.
///
/// # Errors
/// Those of the database.
pub fn has_dead_letters(conn: &Connection, endpoint: EndpointId, since: UnixMs) -> Result<bool, DbError> {
    let is_replayed = conn
        .prepare_cached("SELECT 1 FROM replay WHERE ended_ms IS NULL AND is_automatic = 1 AND endpoint_id = ?1")?
        .exists([endpoint.0])?;
    let find = format!("SELECT 1 FROM ({DEAD_ONCE})");
    let last = [0xff_u8; 16];
    Ok(!is_replayed && conn.prepare_cached(&find)?.exists(params![endpoint.0, first_id_of(since), last, 1])?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Endpoint 1 has deliveries 1 to 9: the odd ones dead, the others delivered; those over 5 are of stream `b`.
    fn filled() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../../../migrations/0001-start.sql")).unwrap();
        conn.execute_batch(
            "INSERT INTO endpoint (id, callback_template_id, kind) VALUES (1, 1, 200), (2, 1, 0);
             INSERT INTO event VALUES (x'00', 200, 1, NULL, 'push.example.com', 'live', 'a', '{}', 0, 1),
                                      (x'01', 200, 1, NULL, 'push.example.com', 'live', 'b', '{}', 0, 1);",
        )
        .unwrap();
        for ms in 1..=9_u8 {
            let state = if ms % 2 == 1 { "dead" } else { "delivered" };
            conn.execute(
                "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms, settled_ms, outcome)
                 VALUES (?1, ?2, 1, ?3, 0, 0, 1, 'timeout')",
                params![blob(id(ms).0), [u8::from(ms > 5)], state],
            )
            .unwrap();
        }
        conn
    }

    fn id(ms: u8) -> DeliveryId {
        DeliveryId(framehook_domain::id::uuid_v7(UnixMs(ms.into()), [ms; 10]))
    }

    fn order_of(filter: Filter) -> Order {
        Order { filter, own_url: None, per_sec: 10, is_automatic: false }
    }

    fn dead() -> Filter {
        Filter { states: vec![State::Dead], ..Filter::default() }
    }

    /// Goes through a replay in portions of two and tells the milliseconds of what it found.
    fn walk(conn: &Connection, order: &Order) -> Vec<u128> {
        let tx = Tx { conn };
        let id = super::order(&tx, order, UnixMs(100)).unwrap();
        let mut found = Vec::new();
        loop {
            let replay = show(conn, id).unwrap().unwrap();
            let Some(part) = parts(conn, id, EndpointId(0), 1).unwrap().first().copied() else {
                assert_eq!((replay.ended, replay.replayed), (Some(UnixMs(101)), found.len() as u64));
                return found;
            };
            assert_eq!(replay.ended, None);
            let portion = next_portion(conn, &replay, &part, 2).unwrap();
            found.extend(portion.deliveries.iter().map(|id| id.0.as_u128() >> 80));
            note_portion(&tx, id, &part, &portion, (portion.deliveries.len(), 0), UnixMs(101)).unwrap();
        }
    }

    #[test]
    fn a_replay_finds_what_was_asked_for_once_from_the_oldest_on() {
        let stream = |name: &str| StreamId {
            domain: framehook_domain::stream::DomainName::parse("push.example.com").unwrap(),
            app: framehook_domain::stream::AppName::parse("live").unwrap(),
            name: framehook_domain::stream::StreamName::parse(name).unwrap(),
        };
        let rows = [
            ("dead ones", dead(), vec![1, 3, 5, 7, 9]),
            ("of a stream", Filter { stream: Some(stream("b")), ..dead() }, vec![7, 9]),
            ("since and until", Filter { since: Some(UnixMs(3)), until: Some(UnixMs(7)), ..dead() }, vec![3, 5]),
            ("of another endpoint", Filter { endpoint: Some(EndpointId(2)), ..dead() }, vec![]),
            ("of another template", Filter { template: Some(TemplateId(7)), ..dead() }, vec![]),
            ("of a kind", Filter { kind: Some(EventKind::Snapshot), since: Some(UnixMs(8)), ..dead() }, vec![9]),
            (
                "delivered ones too",
                Filter { states: vec![State::Delivered, State::Dead], since: Some(UnixMs(6)), ..dead() },
                vec![6, 7, 8, 9],
            ),
        ];
        for (name, filter, expected) in rows {
            let conn = filled();
            // One that is not due yet is no reason to wait, and none of what is asked for.
            conn.execute("UPDATE delivery SET round_start = 1 WHERE id = ?1", [blob(id(3).0)]).unwrap();
            if expected.is_empty() {
                let id = super::order(&Tx { conn: &conn }, &order_of(filter.clone()), UnixMs(100)).unwrap();
                let parts = parts(&conn, id, EndpointId(0), 9).unwrap();
                let found: usize = parts
                    .iter()
                    .map(|part| {
                        next_portion(&conn, &show(&conn, id).unwrap().unwrap(), part, 9).unwrap().deliveries.len()
                    })
                    .sum();
                assert_eq!(found, 0, "{name}");
                continue;
            }
            assert_eq!(walk(&conn, &order_of(filter)), expected, "{name}");
        }
    }

    #[test]
    fn an_automatic_replay_leaves_alone_what_was_sent_again_before() {
        let conn = filled();
        conn.execute("UPDATE delivery SET round_start = 1 WHERE id = ?1", [blob(id(3).0)]).unwrap();
        conn.execute("UPDATE delivery SET outcome = 'gone' WHERE id = ?1", [blob(id(7).0)]).unwrap();
        assert!(has_dead_letters(&conn, EndpointId(1), UnixMs(9)).unwrap());
        assert!(!has_dead_letters(&conn, EndpointId(1), UnixMs(10)).unwrap());
        assert!(!has_dead_letters(&conn, EndpointId(2), UnixMs(0)).unwrap());
        let order = Order { is_automatic: true, ..order_of(Filter { endpoint: Some(EndpointId(1)), ..dead() }) };
        let replay = super::order(&Tx { conn: &conn }, &order, UnixMs(100)).unwrap();
        assert!(!has_dead_letters(&conn, EndpointId(1), UnixMs(9)).unwrap(), "one goes on");
        assert!(cancel(&Tx { conn: &conn }, replay, UnixMs(101)).unwrap());
        assert!(!cancel(&Tx { conn: &conn }, replay, UnixMs(102)).unwrap());
        assert_eq!(walk(&conn, &order), [1, 5, 9]);
    }

    #[test]
    fn an_endpoint_is_busy_while_something_is_due_there() {
        let conn = filled();
        let part = Part { endpoint: EndpointId(1), after: *Uuid::nil().as_bytes() };
        assert!(!is_busy(&conn, &part, None, UnixMs(50)).unwrap());
        conn.execute("UPDATE delivery SET state = 'due', due_ms = 51 WHERE id = ?1", [blob(id(1).0)]).unwrap();
        assert!(!is_busy(&conn, &part, None, UnixMs(50)).unwrap(), "it is not due yet");
        assert!(is_busy(&conn, &part, None, UnixMs(51)).unwrap());
    }

    #[test]
    fn no_search_of_a_replay_walks_the_log() {
        let conn = filled();
        for (sql, index) in [
            (DEAD_ONCE, "delivery_dead_once (endpoint_id=? AND id>? AND id<?)"),
            (DEAD, "delivery_dead_by_endpoint (endpoint_id=? AND id>? AND id<?)"),
            (SETTLED, "delivery_by_endpoint (endpoint_id=? AND id>? AND id<?)"),
        ] {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut steps = explain.query(params![1, [0_u8; 16], [0xff_u8; 16], 10]).unwrap();
            let mut plan = String::new();
            while let Some(step) = steps.next().unwrap() {
                plan += &format!("{}\n", step.get::<_, String>("detail").unwrap());
            }
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
