//! Stored due times as a whole, of puts and of deliveries.

use framehook_domain::time::UnixMs;
use rusqlite::params;

use super::{DbError, Tx};

/// Moves every due time that is still ahead of somebody by `by_ms`.
///
/// # Errors
/// Those of the database.
pub fn shift(tx: &Tx<'_>, by_ms: i64) -> Result<(), DbError> {
    tx.execute("UPDATE delivery SET due_ms = due_ms + ?1 WHERE state = 'due'", [by_ms])?;
    tx.execute("UPDATE snapshot SET put_due_ms = put_due_ms + ?1 WHERE put_state = 'owed'", [by_ms])?;
    tx.execute("UPDATE latest_object SET put_due_ms = put_due_ms + ?1 WHERE is_owed = 1", [by_ms])?;
    Ok(())
}

/// Brings every delivery's due time within one of its own steps of `now`: after a clock that was set back while no process
/// watched, none may wait for hours.
///
/// # Errors
/// Those of the database.
pub fn clamp_deliveries(tx: &Tx<'_>, now: UnixMs) -> Result<usize, DbError> {
    let clamp = "UPDATE delivery SET due_ms = ?1 + step_ms WHERE state = 'due' AND due_ms > ?1 + step_ms";
    Ok(tx.execute(clamp, params![now.0])?)
}

/// The same for puts.
///
/// # Errors
/// Those of the database.
pub fn clamp_puts(tx: &Tx<'_>, now: UnixMs) -> Result<usize, DbError> {
    let clamp =
        "UPDATE latest_object SET put_due_ms = ?1 + put_step_ms WHERE is_owed = 1 AND put_due_ms > ?1 + put_step_ms";
    tx.execute(clamp, params![now.0])?;
    let clamp = "UPDATE snapshot SET put_due_ms = ?1 + put_step_ms
                 WHERE put_state = 'owed' AND put_due_ms > ?1 + put_step_ms";
    Ok(tx.execute(clamp, params![now.0])?)
}
