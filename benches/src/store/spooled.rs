//! The server as a client of stores: pictures lie in its spool with the rows that owe them, as a commit leaves them. They are
//! written while it is stopped, since making them through pushes would cost twenty times what is measured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use rusqlite::{Connection, OpenFlags, params};

use super::{BUCKET, Ended, Pace, Place, wall_us};
use crate::group::Group;
use crate::subject::framehook_executable;
use crate::workshop::Workshop;

/// From the moment that the spool is filled to the first due: the start of a server, with room.
const START: Duration = Duration::from_secs(3);

/// How long before the first due its CPU time is read. By then the server is up and waits.
const BEFORE: Duration = Duration::from_millis(200);

/// What it took to put everything.
pub(super) struct Spooled {
    pub(super) cpu: Duration,
    /// Of each put, by the server's own word, in whole milliseconds.
    pub(super) written_down: Vec<Ended>,
}

/// Lets the server put `picture` so many times into the store that `place` is in and that listens on `store`.
pub(super) fn put(
    workshop: &Workshop,
    place: Place,
    store: SocketAddr,
    picture: &[u8],
    (puts, pace): (usize, Pace),
) -> Result<Spooled> {
    let group = Group::new("store");
    let spec = ServerSpec::new(framehook_executable(workshop)?).config(config(place, store));
    let mut server = group.enter(|| spec.start())?;
    server.terminate()?;
    let first_due_us = wall_us() + START.as_micros() as u64;
    let dues_us: Vec<u64> = (0..puts).map(|number| first_due_us + pace.after(number).as_micros() as u64).collect();
    fill(&server, place, picture, &dues_us)?;
    group.enter(|| server.restart())?;
    let ready_us = first_due_us - BEFORE.as_micros() as u64;
    std::thread::sleep(Duration::from_micros(ready_us.saturating_sub(wall_us())));
    let before = group.cpu(server.process())?;
    let patience = pace.after(puts) + Duration::from_secs(120);
    let conn = Connection::open_with_flags(database(&server), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let is_done = || -> Result<bool> {
        let owed = "SELECT count(*) FROM snapshot WHERE put_state = 'owed'";
        let owed: i64 = conn.query_row(owed, [], |row| row.get(0))?;
        // A file goes after its row says that it is stored.
        Ok(owed == 0 && std::fs::read_dir(server.data_dir().join("spool"))?.next().is_none())
    };
    wait::until("every put", patience, || is_done().unwrap_or_default().then_some(()))
        .with_context(|| server.process().stderr_tail())?;
    let cpu = group.cpu(server.process())?.saturating_sub(before);
    Ok(Spooled { cpu, written_down: written_down(&conn)? })
}

fn database(server: &Server) -> PathBuf {
    server.data_dir().join("framehook.db")
}

/// One worker, which has nothing to do.
fn config(place: Place, store: SocketAddr) -> String {
    let (kind, more) = match place {
        Place::Local => return "[render]\nworkers = 1\n".to_owned(),
        Place::S3 => ("s3", format!("endpoint = \"http://{store}\"\npath_style = true\nregion = \"us-east-1\"")),
        Place::Cos => ("cos", format!("endpoint = \"http://{store}\"\nbuckets = [\"{BUCKET}\"]")),
    };
    format!(
        "[render]\nworkers = 1\n[[object_store]]\nname = \"{}\"\nkind = \"{kind}\"\n\
         secret_id = \"AKIDofTheBenchmark\"\nsecret_key = \"keyOfTheBenchmark\"\n{more}\n",
        place.store()
    )
}

/// The rows and files of as many pictures as there are dues.
fn fill(server: &Server, place: Place, picture: &[u8], dues_us: &[u64]) -> Result<()> {
    let mut conn = Connection::open(database(server)).context("open the database")?;
    let tx = conn.transaction()?;
    {
        // Committed an hour ago: what is younger would be put at once, due or not. No clock was set, says the step.
        let mut insert = tx.prepare(
            "INSERT INTO snapshot (id, trace, push_sequence, domain, app, stream, template_id, catalog_version, event_id,
                 create_time_ms, recorded_ms, width, height, format, file_size, sha256, store, region, bucket, object_key,
                 pic_full_url, put_state, put_due_ms, put_step_ms)
             VALUES (?1, ?1, 1, 'push.example.com', 'live', 'room', 1, 1, ?1, ?2 - 3600000, ?2 - 3600000, 1280, 720, 'jpeg',
                 ?3, zeroblob(32), ?4, ?5, ?6, ?7, 'http://none.example.com/', 'owed', ?2, 3600000)",
        )?;
        for (number, &due_us) in dues_us.iter().enumerate() {
            let due_ms = due_us / 1000;
            let mut id = [0; 16];
            id[..6].copy_from_slice(&due_ms.to_be_bytes()[2..]);
            id[6..8].copy_from_slice(&[0x70, 0]);
            id[8..].copy_from_slice(&(number as u64 | 1 << 63).to_be_bytes());
            let key = format!("{}-{number}.jpg", due_ms * 1000);
            let length = picture.len() as i64;
            insert.execute(params![id, due_ms as i64, length, place.store(), place.region(), BUCKET, key])?;
            write(&server.data_dir().join("spool").join(file_name(id)), picture)?;
        }
    }
    tx.commit().context("fill the spool")
}

fn write(path: &Path, picture: &[u8]) -> Result<()> {
    std::fs::write(path, picture).with_context(|| format!("write {}", path.display()))
}

fn file_name(id: [u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}.image", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn written_down(conn: &Connection) -> Result<Vec<Ended>> {
    let mut rows = conn.prepare("SELECT put_due_ms, settled_ms FROM snapshot")?;
    let rows = rows.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    rows.map(|row| {
        let (due_ms, settled_ms) = row?;
        Ok(Ended { due_us: due_ms.unsigned_abs() * 1000, ended_us: settled_ms.unsigned_abs() * 1000 })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_rows_ids() {
        let id = [0x01, 0x9a, 0, 0, 0, 1, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(file_name(id), "019a0000-0001-7000-8000-000000000002.image");
    }
}
