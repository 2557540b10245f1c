//! Thousands of callbacks that are due at once, put into the database of a server that is dead.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::ledger::sqlite;

/// Copies of a push that has ended, its two events and their deliveries, under ids of their own. `{PUSHES}` says how many.
const COPY: &str = "
BEGIN IMMEDIATE;
CREATE TEMP TABLE copy AS
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {PUSHES})
    SELECT (SELECT max(sequence) FROM push) + n AS sequence FROM counted;
CREATE TEMP TABLE original AS SELECT * FROM push WHERE ended_ms IS NOT NULL ORDER BY sequence LIMIT 1;
INSERT INTO push
    SELECT copy.sequence, domain, app, stream, param, user_ip, node, width, height, opened_ms, last_media_ms, ended_ms,
        errcode, errmsg
    FROM original, copy;
INSERT INTO event
    SELECT randomblob(16), kind, copy.sequence, NULL, event.domain, event.app, event.stream,
        json_set(body, '$.sequence', CAST(copy.sequence AS TEXT)), created_ms, is_told
    FROM original JOIN event ON push_sequence = original.sequence AND kind IN (0, 1), copy;
INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms)
    SELECT randomblob(16), event.id, endpoint.id, 'due', event.created_ms, event.created_ms
    FROM copy JOIN event ON push_sequence = copy.sequence JOIN endpoint ON endpoint.kind = event.kind;
COMMIT;";

/// Whether there is a push that can be copied.
pub(crate) fn has_original(data_dir: &Path) -> Result<bool> {
    let found = sqlite(&data_dir.join("framehook.db"), &["-readonly", "SELECT count(*) FROM event WHERE kind = 0"])?;
    Ok(found.trim() != "0")
}

/// Brings the deliveries that are open to `count`, if they are fewer. No server may run.
pub(crate) fn owe(data_dir: &Path, count: usize) -> Result<()> {
    let database = data_dir.join("framehook.db");
    // The write-ahead log stays as the server left it, with this behind it: to recover from it is the server's to do.
    let keeps_log = ["-cmd", ".dbconfig no_ckpt_on_close on"];
    let ask = [&keeps_log[..], &["SELECT count(*) FROM delivery WHERE settled_ms IS NULL"]].concat();
    let answer = sqlite(&database, &ask)?;
    let open: usize = answer.lines().last().and_then(|count| count.trim().parse().ok()).context(answer)?;
    let pushes = count.saturating_sub(open).div_ceil(2);
    if pushes > 0 {
        let copy = COPY.replace("{PUSHES}", &pushes.to_string());
        sqlite(&database, &[&keeps_log[..], &[&copy]].concat())?;
    }
    Ok(())
}
