//! Endpoints as a person sees them.

use framehook_domain::callback::EventKind;
use framehook_domain::id::TemplateId;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, params};

use super::EndpointId;
use crate::db::DbError;
use crate::db::row::stored;

/// An endpoint and what is owed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointOwed {
    pub id: EndpointId,
    pub template: TemplateId,
    pub kind: EventKind,
    /// Whether its URL was given for a replay.
    pub has_own_url: bool,
    /// When the first of its deliveries in state `due` is or was due.
    pub first_due: Option<UnixMs>,
}

/// Endpoints by their ids, at most `limit` of those after `after`.
///
/// # Errors
/// Those of the database.
pub fn endpoints(conn: &Connection, after: EndpointId, limit: usize) -> Result<Vec<EndpointOwed>, DbError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, callback_template_id, kind, url_override IS NOT NULL AS has_own_url,
                (SELECT min(due_ms) FROM delivery WHERE state = 'due' AND endpoint_id = endpoint.id) AS first_due_ms
         FROM endpoint WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after.0, stored(limit)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(EndpointOwed {
            id: EndpointId(row.get("id")?),
            template: TemplateId(row.get("callback_template_id")?),
            kind: EventKind::from_event_type(row.get("kind")?)
                .ok_or(DbError::Damaged { what: "an endpoint's kind" })?,
            has_own_url: row.get("has_own_url")?,
            first_due: row.get::<_, Option<i64>>("first_due_ms")?.map(UnixMs),
        });
    }
    Ok(found)
}
