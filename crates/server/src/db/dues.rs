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
/// watched, none may wait for hours. What is due already is not looked at, of which there may be millions.
///
/// # Errors
/// Those of the database.
pub fn clamp_deliveries(tx: &Tx<'_>, now: UnixMs) -> Result<usize, DbError> {
    Ok(tx.execute(CLAMP_DELIVERIES, params![now.0])?)
}

const CLAMP_DELIVERIES: &str = "UPDATE delivery SET due_ms = ?1 + step_ms WHERE rowid IN
     (SELECT delivery.rowid FROM endpoint CROSS JOIN delivery ON endpoint_id = endpoint.id
      WHERE state = 'due' AND due_ms > ?1 AND due_ms > ?1 + step_ms)";

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

#[cfg(test)]
mod tests {

    use super::*;
    use crate::db::planned;

    #[test]
    fn no_delivery_waits_longer_than_its_step() {
        let conn = planned::database();
        conn.execute_batch(
            "INSERT INTO endpoint (id, callback_template_id, kind) VALUES (1, 1, 200), (2, 1, 1);
             INSERT INTO event VALUES (x'00', 200, 1, NULL, 'd', 'a', 's', '{}', 0, 1);",
        )
        .unwrap();
        // Id, endpoint, state, due, step; and when it is due after a start at 100.
        let rows: [(u8, i64, &str, i64, i64, i64); 5] = [
            (1, 1, "due", 50, 30, 50),
            (2, 1, "due", 130, 30, 130),
            (3, 1, "due", 131, 30, 130),
            (4, 2, "due", 9000, 0, 100),
            (5, 2, "dead", 9000, 0, 9000),
        ];
        for (id, endpoint, state, due_ms, step_ms, _) in rows {
            conn.execute(
                "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, step_ms, created_ms)
                 VALUES (?1, x'00', ?2, ?3, ?4, ?5, 0)",
                params![[id], endpoint, state, due_ms, step_ms],
            )
            .unwrap();
        }
        assert_eq!(clamp_deliveries(&Tx { conn: &conn }, UnixMs(100)).unwrap(), 2);
        for (id, .., expected) in rows {
            let due: i64 =
                conn.query_row("SELECT due_ms FROM delivery WHERE id = ?1", [[id]], |row| row.get(0)).unwrap();
            assert_eq!(due, expected, "{id}");
        }
        let plan = planned::plan(&conn, CLAMP_DELIVERIES);
        assert!(plan.contains("delivery_due (endpoint_id=? AND due_ms>?)"), "{plan}");
    }
}
