//! The outbox: events, and the deliveries of them that are owed to endpoints.
//!
//! A delivery is made in the transaction that makes its event and ends only as `delivered`, `dead` or `cancelled`. Its row
//! is all there is to it: a claim is a state of that row, so a process that dies leaves nothing behind but claims of an
//! older [`Epoch`](super::Epoch), which the next start takes back.

mod claim;
mod endpoint;
mod ledger;
mod replay;
mod settle;

use framehook_domain::callback::{EventBody, EventKind};
use framehook_domain::catalog::Catalog;
use framehook_domain::id::{DeliveryId, EventId, PushSequence, SnapshotId, TemplateId, uuid_v7};
use framehook_domain::stream::StreamId;
use framehook_domain::time::UnixMs;
use rusqlite::{OptionalExtension as _, params};

pub use claim::{
    Claim, ClaimId, Due, EndpointRow, Which, all_due, claim, endpoint, first_due, newly_due, take_back_lost_claims,
    void_old_claims,
};
pub(super) use claim::{NewlyDue, watch_due};
pub use endpoint::{EndpointOwed, endpoints};
pub(super) use ledger::first_id_of;
pub use ledger::{
    AttemptRow, DeliveryDetail, DeliveryRow, Filter, OwedCounts, PAGE_ROWS_MAX, State, count, list, of_event,
    owed_counts, show,
};
pub use replay::{ObjectRef, OwnUrl, Picture, ReplayRefused, cancel, object_of, replay, state_of};
pub use settle::{Attempted, Burial, Buried, Settlement, Verdict, bury_held, bury_without_template, settle};

use super::row::blob;
use super::{DbError, Tx};
use crate::entropy::Entropy;

/// Where deliveries go: one URL of one callback template, or a URL given for a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub i64);

/// What making an event needs to know: whom to tell by the configuration of now, new ids, and the time.
#[derive(Clone, Copy, Debug)]
pub struct Announcing<'a> {
    pub catalog: &'a Catalog,
    pub entropy: &'a Entropy,
    /// The wall clock, for ids and for people.
    pub wall: UnixMs,
    /// The same instant on the [`Timeline`](crate::timeline::Timeline), for due times.
    pub now: UnixMs,
}

impl Announcing<'_> {
    /// A new id.
    pub fn id(&self) -> uuid::Uuid {
        uuid_v7(self.wall, self.entropy.id_bytes())
    }
}

/// A fact to be told.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    pub kind: EventKind,
    pub stream: &'a StreamId,
    pub sequence: PushSequence,
    /// The picture it is about.
    pub snapshot: Option<SnapshotId>,
    /// Whether its deliveries wait until the picture is stored; else they are due at once.
    pub waits_for_object: bool,
    pub body: &'a EventBody,
}

/// Writes an event and the delivery of it that the configuration of now asks for, if any.
///
/// # Errors
/// Those of the database.
pub fn announce(tx: &Tx<'_>, announcing: &Announcing<'_>, event: &NewEvent<'_>) -> Result<EventId, DbError> {
    let id = EventId(announcing.id());
    let body = String::from_utf8(event.body.to_json()).map_err(|_| DbError::Damaged { what: "a new event's body" })?;
    let template = announcing.catalog.callback_template_for(event.stream);
    let template = template.filter(|template| template.urls.of(event.kind).is_some());
    tx.prepare_cached(
        "INSERT INTO event (id, kind, push_sequence, snapshot_id, domain, app, stream, body, created_ms, is_told)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        blob(id.0),
        event.kind.event_type(),
        event.sequence.as_i64(),
        event.snapshot.map(|snapshot| blob(snapshot.0)),
        event.stream.domain.as_str(),
        event.stream.app.as_str(),
        event.stream.name.as_str(),
        body,
        announcing.wall.0,
        template.is_some(),
    ])?;
    if let Some(template) = template {
        let endpoint = endpoint_of(tx, template.id, event.kind)?;
        owe(tx, announcing, id, endpoint, event.waits_for_object)?;
    }
    Ok(id)
}

fn owe(
    tx: &Tx<'_>,
    announcing: &Announcing<'_>,
    event: EventId,
    endpoint: EndpointId,
    waits_for_object: bool,
) -> Result<(), DbError> {
    let id = DeliveryId(announcing.id());
    tx.prepare_cached(
        "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        blob(id.0),
        blob(event.0),
        endpoint.0,
        if waits_for_object { State::Waiting.name() } else { State::Due.name() },
        announcing.now.0,
        announcing.wall.0,
    ])?;
    Ok(())
}

/// The endpoint of a template's own URL for one kind of event, made when it is first needed.
fn endpoint_of(tx: &Tx<'_>, template: TemplateId, kind: EventKind) -> Result<EndpointId, DbError> {
    let known = tx
        .prepare_cached(
            "SELECT id FROM endpoint WHERE callback_template_id = ?1 AND kind = ?2 AND url_override IS NULL",
        )?
        .query_row(params![template.0, kind.event_type()], |row| row.get(0))
        .optional()?;
    match known {
        Some(id) => Ok(EndpointId(id)),
        None => new_endpoint(tx, template, kind, None),
    }
}

fn new_endpoint(
    tx: &Tx<'_>,
    template: TemplateId,
    kind: EventKind,
    own_url: Option<&OwnUrl>,
) -> Result<EndpointId, DbError> {
    tx.prepare_cached(
        "INSERT INTO endpoint (callback_template_id, kind, url_override, url_digest) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        template.0,
        kind.event_type(),
        own_url.map(|url| &url.sealed),
        own_url.map(|url| &url.digest[..]),
    ])?;
    Ok(EndpointId(tx.last_insert_rowid()))
}

/// Makes the deliveries of a picture's event due, now that the picture can be fetched.
///
/// # Errors
/// Those of the database.
pub fn object_is_stored(tx: &Tx<'_>, event: EventId, now: UnixMs) -> Result<(), DbError> {
    let mut due = tx.prepare_cached(
        "UPDATE delivery SET state = 'due', due_ms = ?2, step_ms = 0 WHERE event_id = ?1 AND state = 'waiting'",
    )?;
    due.execute(params![blob(event.0), now.0])?;
    Ok(())
}

/// Writes into a picture's event where the picture is: its key, which may have been taken at commit, and its URL.
///
/// # Errors
/// Those of the database.
pub fn object_has_url(tx: &Tx<'_>, event: EventId, key: &str, pic_full_url: &str) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE event SET body = json_set(body, '$.pic_url', '/' || ?2, '$.pic_full_url', ?3) WHERE id = ?1",
    )?
    .execute(params![blob(event.0), key, pic_full_url])?;
    Ok(())
}

/// Cancels the deliveries of a picture's event that still wait for the picture, since a person gave it up.
///
/// # Errors
/// Those of the database.
pub fn object_is_discarded(tx: &Tx<'_>, event: EventId, wall: UnixMs) -> Result<(), DbError> {
    tx.prepare_cached(
        "UPDATE delivery SET state = 'cancelled', settled_ms = ?2, outcome = 'discarded'
         WHERE event_id = ?1 AND state = 'waiting'",
    )?
    .execute(params![blob(event.0), wall.0])?;
    Ok(())
}
