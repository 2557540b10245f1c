//! Settled deliveries, taken up again or ended by a person.

use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, TemplateId};
use framehook_domain::retry::DeadReason;
use framehook_domain::time::UnixMs;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::ledger::State;
use super::{EndpointId, new_endpoint};
use crate::db::row::blob;
use crate::db::{DbError, Tx};

/// The object that a delivery announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    pub store: String,
    pub region: String,
    pub bucket: String,
    pub key: String,
    pub pic_full_url: String,
    /// Whether it was put there; otherwise it is still owed or was given up.
    pub is_stored: bool,
    /// Whether it will still be put there.
    pub is_owed: bool,
}

/// The state of a delivery, if it is known.
///
/// # Errors
/// Those of the database.
pub fn state_of(conn: &Connection, id: DeliveryId) -> Result<Option<State>, DbError> {
    let state: Option<String> = conn
        .prepare_cached("SELECT state FROM delivery WHERE id = ?1")?
        .query_row([blob(id.0)], |row| row.get(0))
        .optional()?;
    Ok(state.and_then(|name| State::from_name(&name)))
}

/// The object that a delivery announces, if its event is about one.
///
/// # Errors
/// Those of the database.
pub fn object_of(conn: &Connection, id: DeliveryId) -> Result<Option<ObjectRef>, DbError> {
    let object = conn
        .prepare_cached(
            "SELECT store, region, bucket, object_key, coalesce(pic_full_url, '') AS pic_full_url, put_state FROM delivery
             JOIN event ON event.id = delivery.event_id
             JOIN snapshot ON snapshot.id = event.snapshot_id WHERE delivery.id = ?1",
        )?
        .query_row([blob(id.0)], |row| {
            let put_state: String = row.get("put_state")?;
            Ok(ObjectRef {
                store: row.get("store")?,
                region: row.get("region")?,
                bucket: row.get("bucket")?,
                key: row.get("object_key")?,
                pic_full_url: row.get("pic_full_url")?,
                is_stored: put_state == "stored",
                is_owed: put_state == "owed",
            })
        })
        .optional()?;
    Ok(object)
}

/// Why a delivery is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefused {
    #[error("there is no such delivery")]
    Unknown,
    #[error("the delivery is not settled yet; it will be sent by itself")]
    Open,
    #[error("the picture is gone from its store")]
    ObjectExpired,
    #[error("the picture's store does not tell whether it is still there")]
    ObjectUnknown,
}

/// What a store says about the picture that a delivery announces, if it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// It can be fetched, or there is none.
    There,
    Gone,
    /// It was asked and refuses to tell, or is not known any more: no waiting changes that.
    Untold,
}

/// A URL that a person gave for a replay.
#[derive(Clone, Debug)]
pub struct OwnUrl {
    pub sealed: Vec<u8>,
    /// The same for the same URL, which its sealed form is not.
    pub digest: [u8; 32],
}

/// Starts a new round of attempts for a settled delivery, with the same `webhook-id`; to `own_url` if one is given, else
/// where it went last. `picture` is what the store said. A dead letter whose picture cannot be fetched notes that as its
/// outcome.
///
/// # Errors
/// Those of the database; the inner error says why not.
pub fn replay(
    tx: &Tx<'_>,
    id: DeliveryId,
    own_url: Option<&OwnUrl>,
    picture: Picture,
    now: UnixMs,
) -> Result<Result<(), ReplayRefused>, DbError> {
    let found = tx
        .prepare_cached(
            "SELECT state, callback_template_id, kind FROM delivery JOIN endpoint ON endpoint.id = endpoint_id
             WHERE delivery.id = ?1",
        )?
        .query_row([blob(id.0)], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((state, template, event_type)) = found else { return Ok(Err(ReplayRefused::Unknown)) };
    if State::from_name(&state).is_none_or(State::is_open) {
        return Ok(Err(ReplayRefused::Open));
    }
    let kind = EventKind::from_event_type(event_type).ok_or(DbError::Damaged { what: "an endpoint's kind" })?;
    let object = object_of(tx, id)?;
    let waits = object.as_ref().is_some_and(|object| object.is_owed);
    let refused = match (&object, picture) {
        (None, _) => None,
        (Some(object), _) if object.is_owed => None,
        (Some(object), _) if !object.is_stored => Some((ReplayRefused::ObjectExpired, DeadReason::ObjectExpired)),
        (Some(_), Picture::There) => None,
        (Some(_), Picture::Gone) => Some((ReplayRefused::ObjectExpired, DeadReason::ObjectExpired)),
        (Some(_), Picture::Untold) => Some((ReplayRefused::ObjectUnknown, DeadReason::ObjectUnknown)),
    };
    if let Some((refused, reason)) = refused {
        tx.prepare_cached("UPDATE delivery SET outcome = ?2 WHERE id = ?1 AND state = 'dead'")?
            .execute(params![blob(id.0), reason.name()])?;
        return Ok(Err(refused));
    }
    let own_endpoint = own_url.map(|url| endpoint_of_url(tx, TemplateId(template), kind, url)).transpose()?;
    tx.prepare_cached(
        "UPDATE delivery SET state = ?2, due_ms = ?3, step_ms = 0, waited_ms = 0, round_start = attempts, settled_ms = NULL,
                claim_epoch = NULL, endpoint_id = coalesce(?4, endpoint_id)
         WHERE id = ?1",
    )?
    .execute(params![
        blob(id.0),
        if waits { State::Waiting.name() } else { State::Due.name() },
        now.0,
        own_endpoint.map(|endpoint| endpoint.0),
    ])?;
    Ok(Ok(()))
}

/// The endpoint of a URL that was given for a replay, made when it is first needed.
fn endpoint_of_url(tx: &Tx<'_>, template: TemplateId, kind: EventKind, url: &OwnUrl) -> Result<EndpointId, DbError> {
    let known = tx
        .prepare_cached(
            "SELECT id FROM endpoint
             WHERE callback_template_id = ?1 AND kind = ?2 AND url_digest = ?3 AND url_override IS NOT NULL",
        )?
        .query_row(params![template.0, kind.event_type(), &url.digest[..]], |row| row.get(0))
        .optional()?;
    match known {
        Some(id) => Ok(EndpointId(id)),
        None => new_endpoint(tx, template, kind, Some(url)),
    }
}

/// Ends a delivery for good, by name of the person who asked for it. `false`: it has ended so or was delivered, or is not known.
///
/// # Errors
/// Those of the database.
pub fn cancel(tx: &Tx<'_>, id: DeliveryId, by: &str, wall: UnixMs) -> Result<bool, DbError> {
    let changed = tx
        .prepare_cached(
            "UPDATE delivery SET state = 'cancelled', settled_ms = coalesce(settled_ms, ?2), claim_epoch = NULL,
                    outcome = 'cancelled by ' || ?3
             WHERE id = ?1 AND state NOT IN ('delivered', 'cancelled')",
        )?
        .execute(params![blob(id.0), wall.0, by])?;
    Ok(changed > 0)
}
