//! Pushes: opened with event 1, closed with event 0, each in one transaction with its event and what is owed of it.

use std::net::IpAddr;

use framehook_domain::callback::{EventKind, PushBegan, PushEnded, PushFacts};
use framehook_domain::id::{EventId, PushSequence};
use framehook_domain::refusal::PushEnd;
use framehook_domain::stream::{StreamId, StreamParam};
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::outbox::{Announcing, NewEvent, announce};
use super::row::stream_id;
use super::{DbError, Tx};

/// A push that begins.
#[derive(Clone, Debug)]
pub struct PushOpening {
    pub sequence: PushSequence,
    pub stream: StreamId,
    pub param: StreamParam,
    /// The publisher's address.
    pub user_ip: IpAddr,
    /// The address the publisher reached us at.
    pub node: IpAddr,
    pub opened_at: UnixMs,
}

/// A push that has ended.
#[derive(Clone, Debug)]
pub struct PushClosing {
    pub sequence: PushSequence,
    pub ended_at: UnixMs,
    pub last_media: UnixMs,
    pub end: PushEnd,
    /// Pixels, 0 when never known.
    pub width: u32,
    pub height: u32,
}

/// A push that was open when the process before this one ended.
#[derive(Clone, Debug)]
pub struct OpenPush {
    pub sequence: PushSequence,
    pub stream: StreamId,
    pub param: StreamParam,
    pub user_ip: IpAddr,
    pub node: IpAddr,
    pub opened_at: UnixMs,
    pub last_media: UnixMs,
    /// Pixels, 0 when never known.
    pub width: u32,
    pub height: u32,
}

/// How far a push has come that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushProgress {
    pub sequence: PushSequence,
    pub last_media: UnixMs,
    /// Pixels, 0 when not known yet.
    pub width: u32,
    pub height: u32,
}

/// Writes a push's row, its event 1 and the delivery of it.
///
/// # Errors
/// Those of the database; [`DbError::is_taken`] if the sequence is not new.
pub fn open_push(
    tx: &Tx<'_>,
    announcing: &Announcing<'_>,
    app_id: i64,
    opening: &PushOpening,
) -> Result<EventId, DbError> {
    tx.prepare_cached(
        "INSERT INTO push (sequence, domain, app, stream, param, user_ip, node, opened_ms, last_media_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
    )?
    .execute(params![
        opening.sequence.as_i64(),
        opening.stream.domain.as_str(),
        opening.stream.app.as_str(),
        opening.stream.name.as_str(),
        opening.param.as_wire(),
        opening.user_ip.to_string(),
        opening.node.to_string(),
        opening.opened_at.0,
    ])?;
    let push = PushFacts {
        stream: &opening.stream,
        param: &opening.param,
        app_id,
        sequence: opening.sequence,
        node: opening.node,
        user_ip: opening.user_ip,
    };
    let body = PushBegan { push, event_time: announcing.wall, width: 0, height: 0 }.body();
    let kind = EventKind::PushBegan;
    announce(
        tx,
        announcing,
        &NewEvent {
            kind,
            stream: &opening.stream,
            sequence: opening.sequence,
            snapshot: None,
            waits_for_object: false,
            body: &body,
        },
    )
}

/// Ends an open push's row and writes its event 0 and the delivery of it. `None`: it was closed before.
///
/// # Errors
/// Those of the database.
pub fn close_push(
    tx: &Tx<'_>,
    announcing: &Announcing<'_>,
    app_id: i64,
    closing: &PushClosing,
) -> Result<Option<EventId>, DbError> {
    let Some(open) = open_push_of(tx, closing.sequence)? else { return Ok(None) };
    tx.prepare_cached(
        "UPDATE push SET ended_ms = ?2, last_media_ms = ?3, errcode = ?4, errmsg = ?5, width = ?6, height = ?7
         WHERE sequence = ?1",
    )?
    .execute(params![
        closing.sequence.as_i64(),
        closing.ended_at.0,
        closing.last_media.0,
        closing.end.errcode(),
        closing.end.errmsg(),
        closing.width,
        closing.height,
    ])?;
    let push = PushFacts {
        stream: &open.stream,
        param: &open.param,
        app_id,
        sequence: open.sequence,
        node: open.node,
        user_ip: open.user_ip,
    };
    let body = PushEnded {
        push,
        event_time: closing.ended_at,
        end: closing.end,
        duration: closing.last_media.since(open.opened_at),
        width: closing.width,
        height: closing.height,
    }
    .body();
    let kind = EventKind::PushEnded;
    announce(
        tx,
        announcing,
        &NewEvent {
            kind,
            stream: &open.stream,
            sequence: open.sequence,
            snapshot: None,
            waits_for_object: false,
            body: &body,
        },
    )
    .map(Some)
}

/// Notes how far pushes have come that go on.
///
/// # Errors
/// Those of the database.
pub fn save_progress(tx: &Tx<'_>, moved: &[PushProgress]) -> Result<(), DbError> {
    let mut update = tx.prepare_cached(
        "UPDATE push SET last_media_ms = ?2, width = ?3, height = ?4 WHERE sequence = ?1 AND ended_ms IS NULL",
    )?;
    for PushProgress { sequence, last_media, width, height } in moved {
        update.execute(params![sequence.as_i64(), last_media.0, width, height])?;
    }
    Ok(())
}

const OPEN_COLUMNS: &str =
    "sequence, domain, app, stream, param, user_ip, node, opened_ms, last_media_ms, width, height FROM push";

/// Every open push, in the order they were opened.
///
/// # Errors
/// Those of the database.
pub fn open_pushes(conn: &Connection) -> Result<Vec<OpenPush>, DbError> {
    let mut statement =
        conn.prepare_cached(&format!("SELECT {OPEN_COLUMNS} WHERE ended_ms IS NULL ORDER BY sequence"))?;
    let rows = statement.query_map([], |row| Ok(open_row(row)))?;
    rows.map(|row| row?).collect()
}

fn open_push_of(conn: &Connection, sequence: PushSequence) -> Result<Option<OpenPush>, DbError> {
    conn.prepare_cached(&format!("SELECT {OPEN_COLUMNS} WHERE sequence = ?1 AND ended_ms IS NULL"))?
        .query_row([sequence.as_i64()], |row| Ok(open_row(row)))
        .optional()?
        .transpose()
}

fn open_row(row: &Row<'_>) -> Result<OpenPush, DbError> {
    let address = |column| -> Result<IpAddr, DbError> {
        let text: String = row.get(column)?;
        text.parse().map_err(|_| DbError::Damaged { what: "a push's address" })
    };
    let sequence = PushSequence::from_i64(row.get("sequence")?);
    let param: String = row.get("param")?;
    Ok(OpenPush {
        sequence: sequence.ok_or(DbError::Damaged { what: "a push's sequence" })?,
        stream: stream_id(row)?,
        param: StreamParam::parse(&param).map_err(|_| DbError::Damaged { what: "a push's query" })?,
        user_ip: address("user_ip")?,
        node: address("node")?,
        opened_at: UnixMs(row.get("opened_ms")?),
        last_media: UnixMs(row.get("last_media_ms")?),
        width: row.get("width")?,
        height: row.get("height")?,
    })
}
