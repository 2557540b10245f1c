//! Writing down how an attempt ended, together with what follows from it.

use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::TemplateId;
use framehook_domain::retry::{DeadReason, Outcome};
use framehook_domain::time::UnixMs;
use rusqlite::{OptionalExtension as _, params};

use super::claim::{ClaimId, endpoint_row};
use crate::db::row::{blob, stored};
use crate::db::{DbError, Epoch, Tx};

/// One HTTP try.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// The wall clock when it began.
    pub started: UnixMs,
    pub duration: Duration,
    pub outcome: Outcome,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// The start of the answer's body.
    pub response: Option<String>,
    /// Without what it keeps secret.
    pub url: String,
}

/// What becomes of a claimed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Due again at `due`, which is `step` after the attempt was judged failed.
    Retry {
        due: UnixMs,
        step: Duration,
    },
    Dead(DeadReason),
}

/// Records an attempt, if one was made, and ends its claim. `false`: the claim was over already (a person cancelled the
/// delivery meanwhile, and perhaps sent it again); the attempt is recorded all the same.
///
/// # Errors
/// Those of the database.
pub fn settle(
    tx: &Tx<'_>,
    claim: ClaimId,
    epoch: Epoch,
    attempted: Option<&Attempted>,
    verdict: Verdict,
    wall: UnixMs,
) -> Result<bool, DbError> {
    if let Some(attempted) = attempted {
        record(tx, claim, epoch, attempted)?;
    }
    let (state, due, step, settled) = match verdict {
        Verdict::Delivered => ("delivered", None, Duration::ZERO, Some(wall.0)),
        Verdict::Retry { due, step } => ("due", Some(due.0), step, None),
        Verdict::Dead(_) => ("dead", None, Duration::ZERO, Some(wall.0)),
    };
    let outcome = match (verdict, attempted) {
        // The last attempt tells more than that it was the last.
        (Verdict::Dead(DeadReason::Exhausted), Some(attempted)) => attempted.outcome.name(),
        (Verdict::Dead(reason), _) => reason.name(),
        (_, Some(attempted)) => attempted.outcome.name(),
        (_, None) => Outcome::Delivered.name(),
    };
    let changed = tx
        .prepare_cached(
            "UPDATE delivery SET state = ?3, due_ms = coalesce(?4, due_ms), step_ms = ?5, waited_ms = waited_ms + ?5,
                    settled_ms = ?6, outcome = ?7, claim_epoch = NULL
             WHERE id = ?1 AND state = 'claimed' AND claims = ?2",
        )?
        .execute(params![
            blob(claim.delivery.0),
            stored(claim.number),
            state,
            due,
            stored(step.as_millis()),
            settled,
            outcome
        ])?;
    Ok(changed > 0)
}

fn record(tx: &Tx<'_>, claim: ClaimId, epoch: Epoch, attempted: &Attempted) -> Result<(), DbError> {
    // The number is given out here, not at the claim: an attempt that a crash cut off has none and is made again.
    // One that ends after its delivery was cancelled and replayed belongs to the round before.
    let number: Option<i64> = tx
        .prepare_cached(
            "UPDATE delivery SET attempts = attempts + 1,
                    round_start = round_start + (state <> 'claimed' OR claims <> ?2)
             WHERE id = ?1 RETURNING attempts",
        )?
        .query_row(params![blob(claim.delivery.0), stored(claim.number)], |row| row.get(0))
        .optional()?;
    let Some(number) = number else { return Ok(()) };
    tx.prepare_cached(
        "INSERT INTO attempt (delivery_id, number, epoch, started_ms, duration_ms, status, outcome, error, response, url)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        blob(claim.delivery.0),
        number,
        epoch.0,
        attempted.started.0,
        stored(attempted.duration.as_millis()),
        attempted.outcome.status(),
        attempted.outcome.name(),
        attempted.error,
        attempted.response,
        attempted.url,
    ])?;
    Ok(())
}

/// Turns open deliveries into dead ones (`template_deleted`) where `has_url` says that their template, or its URL for that
/// kind of event, is gone; at most `limit` of them. Claimed ones are left to their attempt. Returns how many died: call
/// again while that is `limit`.
///
/// # Errors
/// Those of the database.
pub fn bury_without_template(
    tx: &Tx<'_>,
    has_url: impl Fn(TemplateId, EventKind) -> bool,
    limit: usize,
    wall: UnixMs,
) -> Result<usize, DbError> {
    let mut select = tx.prepare_cached(
        "SELECT id, callback_template_id, kind, url_override FROM endpoint WHERE url_override IS NULL",
    )?;
    let endpoints = select.query_map([], |row| Ok(endpoint_row(row)))?.collect::<Result<Vec<_>, _>>()?;
    // The states stand in the text, not in a parameter: SQLite uses their partial indexes only then.
    let bury = [
        "UPDATE delivery SET state = 'dead', settled_ms = ?3, outcome = ?4 WHERE rowid IN
             (SELECT rowid FROM delivery WHERE endpoint_id = ?1 AND state = 'due' LIMIT ?2)",
        "UPDATE delivery SET state = 'dead', settled_ms = ?3, outcome = ?4 WHERE rowid IN
             (SELECT rowid FROM delivery WHERE endpoint_id = ?1 AND state = 'waiting' LIMIT ?2)",
    ];
    let mut buried = 0;
    for endpoint in endpoints {
        let endpoint = endpoint?;
        if has_url(endpoint.template, endpoint.kind) {
            continue;
        }
        for statement in bury {
            let rest = stored(limit - buried);
            let reason = DeadReason::TemplateDeleted.name();
            buried += tx.prepare_cached(statement)?.execute(params![endpoint.id.0, rest, wall.0, reason])?;
        }
    }
    Ok(buried)
}
