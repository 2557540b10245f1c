//! A server whose outbox holds what a benchmark wants to be sent. The rows are written into the database of a server that
//! was stopped, as a busy server would have left them: making them through pushes and pictures would cost a hundred times
//! what is measured.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use framehook_testkit::server::{Server, ServerSpec};
use rusqlite::{Connection, params};

use super::receivers::wall_us;
use crate::subject::framehook_executable;
use crate::workshop::Workshop;

/// A callback to be: to which receiver, and when after the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) receiver: usize,
    pub(crate) after: Duration,
}

/// From the beginning of filling an outbox to the first due, beside [`PER_ROW`]: the start of a server, with room.
const START: Duration = Duration::from_secs(3);
/// For filling it: twice what it takes. A first due that passes meanwhile would be measured as a delay of the server's.
const PER_ROW: Duration = Duration::from_micros(25);

/// A server that has begun to send what was planned to the receivers on `ports`.
pub(crate) fn start(workshop: &Workshop, ports: &[u16], planned: &[Planned]) -> Result<Server> {
    let began_us = wall_us();
    let ahead = START + PER_ROW * u32::try_from(planned.len()).context("count what is planned")?;
    let mut server = stopped(workshop, ports, planned, ahead)?;
    server.restart()?;
    let took = Duration::from_micros(wall_us() - began_us);
    ensure!(
        took < ahead,
        "filling the outbox and starting took {took:?}, and the first callback was due after {ahead:?}"
    );
    Ok(server)
}

/// A server that does not run, with what was planned in its outbox; `ahead` from now the plan begins.
pub(crate) fn stopped(workshop: &Workshop, ports: &[u16], planned: &[Planned], ahead: Duration) -> Result<Server> {
    let executable = framehook_executable(workshop)?;
    let mut server = ServerSpec::new(executable).config(config(ports)?).start()?;
    server.terminate()?;
    fill(&server, planned, ahead)?;
    Ok(server)
}

/// Makes of one in a thousand what a process leaves that is killed: claims of its own.
pub(crate) fn leave_claims(server: &Server) -> Result<()> {
    let conn = Connection::open(server.data_dir().join("framehook.db")).context("open the database")?;
    conn.execute(
        "UPDATE delivery SET state = 'claimed', claims = 1, claim_epoch = (SELECT epoch FROM meta) WHERE rowid % 1000 = 0",
        [],
    )?;
    Ok(())
}

/// One template for each receiver.
fn config(ports: &[u16]) -> Result<String> {
    let mut config = String::from("[render]\nworkers = 1\n");
    for (receiver, port) in ports.iter().enumerate() {
        writeln!(
            config,
            "[[callback_template]]\nname = \"receiver-{receiver}\"\ncallback_key = \"keyOfTheBenchmark\"\n\
             stream_begin_notify_url = \"http://127.0.0.1:{port}/\""
        )?;
    }
    Ok(config)
}

fn fill(server: &Server, planned: &[Planned], ahead: Duration) -> Result<()> {
    let mut conn = Connection::open(server.data_dir().join("framehook.db")).context("open the database")?;
    let tx = conn.transaction()?;
    tx.execute(
        "INSERT INTO endpoint (id, callback_template_id, kind)
         SELECT CAST(substr(name, 10) AS INTEGER) + 1, id, 1 FROM callback_template",
        [],
    )?;
    let first_due_us = wall_us() + ahead.as_micros() as u64;
    {
        let mut event = tx.prepare(
            "INSERT INTO event (id, kind, push_sequence, domain, app, stream, body, created_ms, is_told)
             VALUES (?1, 1, 1, 'push.example.com', 'live', 'room', ?2, ?3, 1)",
        )?;
        let mut delivery = tx.prepare(
            "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, step_ms, created_ms)
             VALUES (?1, ?1, ?2, 'due', ?3, 3600000, ?3)",
        )?;
        for (index, Planned { receiver, after }) in planned.iter().enumerate() {
            // Due times are kept in whole milliseconds, so that is what the delay is measured from.
            let due_ms = first_due_us / 1000 + after.as_millis() as u64;
            let mut id = [0; 16];
            id[..6].copy_from_slice(&due_ms.to_be_bytes()[2..]);
            id[6..8].copy_from_slice(&[0x70, 0]);
            id[8..].copy_from_slice(&(index as u64 | 1 << 63).to_be_bytes());
            event.execute(params![id, body(due_ms * 1000), due_ms as i64])?;
            delivery.execute(params![id, *receiver as i64 + 1, due_ms as i64])?;
        }
    }
    tx.commit().context("fill the outbox")
}

/// As long as a callback of event 1.
pub(super) fn body(due_us: u64) -> String {
    let padding = "x".repeat(300);
    format!(r#"{{"due_us":{due_us},"event_type":1,"padding":"{padding}"}}"#)
}

/// Ends the server and counts what it wrote down as delivered: an answer that nobody remembers is worth nothing.
pub(crate) fn delivered(server: &mut Server) -> Result<usize> {
    server.terminate()?;
    let conn = Connection::open(server.data_dir().join("framehook.db"))?;
    let count: i64 = conn.query_row("SELECT count(*) FROM delivery WHERE state = 'delivered'", [], |row| row.get(0))?;
    let damage: String = conn.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    ensure!(damage == "ok", "the database is damaged: {damage}");
    Ok(usize::try_from(count)?)
}
