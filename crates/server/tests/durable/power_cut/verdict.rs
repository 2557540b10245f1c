//! What must be true of a data directory after its power failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OpenFlags};

use super::life::Acknowledged;
use crate::harness::files_below;

/// The rows of a database that say what must lie on the disk and what somebody was told.
#[derive(Debug)]
pub(crate) struct Facts {
    dir: PathBuf,
    snapshots: BTreeMap<String, Snapshot>,
    latest: Vec<Latest>,
    /// Whether each push has ended, by sequence.
    pushes: BTreeMap<String, bool>,
    /// The snapshot that each delivery tells of, if it tells of one.
    deliveries: BTreeMap<String, Option<String>>,
    /// Pushes that a delivery tells of, with the kind of event: [`BEGAN`] or [`ENDED`].
    told_pushes: BTreeSet<(String, i64)>,
}

/// CSS's event types.
const BEGAN: i64 = 1;
const ENDED: i64 = 0;

#[derive(Debug)]
struct Snapshot {
    put_state: String,
    object: PathBuf,
    sha256: Vec<u8>,
}

#[derive(Debug)]
struct Latest {
    id: String,
    is_owed: bool,
    object: PathBuf,
    file_size: u64,
}

/// An id as it is printed.
const HYPHENATED: &str = "lower(format('%s-%s-%s-%s-%s', substr(hex(ID), 1, 8), substr(hex(ID), 9, 4), \
     substr(hex(ID), 13, 4), substr(hex(ID), 17, 4), substr(hex(ID), 21)))";

fn printed(column: &str) -> String {
    HYPHENATED.replace("ID", column)
}

impl Facts {
    /// Reads the database in `dir`, which must be sound.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let conn = Connection::open_with_flags(dir.join("framehook.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let health: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(health == "ok", "the database is broken: {health}");
        let dangling = conn.prepare("PRAGMA foreign_key_check")?.exists([])?;
        ensure!(!dangling, "a row names one that is not there");

        let object = |bucket: String, key: String| dir.join("objects").join(bucket).join(key);
        let sql = format!("SELECT {}, put_state, bucket, object_key, sha256 FROM snapshot", printed("id"));
        let snapshots = conn
            .prepare(&sql)?
            .query_map([], |row| {
                let object = object(row.get(2)?, row.get(3)?);
                Ok((row.get(0)?, Snapshot { put_state: row.get(1)?, object, sha256: row.get(4)? }))
            })?
            .collect::<Result<_, _>>()?;
        let sql = format!("SELECT {}, is_owed, bucket, object_key, file_size FROM latest_object", printed("id"));
        let latest = conn
            .prepare(&sql)?
            .query_map([], |row| {
                let object = object(row.get(2)?, row.get(3)?);
                let file_size: i64 = row.get(4)?;
                Ok(Latest { id: row.get(0)?, is_owed: row.get(1)?, object, file_size: file_size as u64 })
            })?
            .collect::<Result<_, _>>()?;
        let sql = "SELECT CAST(sequence AS TEXT), ended_ms IS NOT NULL FROM push";
        let pushes =
            conn.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let sql = format!(
            "SELECT {}, iif(event.snapshot_id IS NULL, NULL, {}) FROM delivery JOIN event ON event.id = event_id",
            printed("delivery.id"),
            printed("event.snapshot_id")
        );
        let deliveries =
            conn.prepare(&sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let sql = "SELECT CAST(push_sequence AS TEXT), kind FROM delivery JOIN event ON event.id = event_id
             WHERE snapshot_id IS NULL";
        let told_pushes =
            conn.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        Ok(Self { dir: dir.to_owned(), snapshots, latest, pushes, deliveries, told_pushes })
    }

    /// How many deliveries and puts are not settled in `dir`.
    pub(crate) fn owed(conn: &Connection) -> rusqlite::Result<u64> {
        let sql = "SELECT (SELECT count(*) FROM snapshot WHERE put_state = 'owed')
             + (SELECT count(*) FROM latest_object WHERE is_owed = 1)
             + (SELECT count(*) FROM delivery WHERE settled_ms IS NULL)";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|owed| owed as u64)
    }

    /// Nothing that somebody was told is untrue, and what is owed to receivers for it is there.
    pub(crate) fn bear_out(&self, acknowledged: &[Acknowledged]) -> Result<()> {
        let announced: BTreeSet<&String> = self.deliveries.values().flatten().collect();
        let is_told = |sequence: &String, kind| self.told_pushes.contains(&(sequence.clone(), kind));
        for told in acknowledged {
            let is_true = match told {
                Acknowledged::Picture(id) => self.snapshots.contains_key(id) && announced.contains(id),
                Acknowledged::Began(sequence) => self.pushes.contains_key(sequence) && is_told(sequence, BEGAN),
                Acknowledged::Ended(sequence) => self.pushes.get(sequence) == Some(&true) && is_told(sequence, ENDED),
                Acknowledged::Heard(id) => match self.deliveries.get(id) {
                    Some(Some(snapshot)) => self.snapshots.get(snapshot).is_some_and(|snapshot| {
                        ["stored", "expiring", "expired"].contains(&snapshot.put_state.as_str())
                    }),
                    Some(None) => true,
                    None => false,
                },
            };
            ensure!(is_true, "acknowledged and lost: {told:?}");
        }
        Ok(())
    }

    /// Every picture of which there is a row has its bytes: in the spool while it is owed to the store, in the store after
    /// that, until it has expired. In the spool is nothing else, but by which a start finds objects without a row.
    pub(crate) fn agree_with_the_disk(&self) -> Result<()> {
        let mut spooled = BTreeSet::new();
        let file_of = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let in_spool: BTreeSet<_> = files_below(&self.dir.join("spool"))?.iter().map(|path| file_of(path)).collect();
        for (id, row) in &self.snapshots {
            match row.put_state.as_str() {
                "expired" => {
                    // Another picture may have wanted its name; the next start takes that away.
                    let is_gone = !row.object.exists() || in_spool.contains(&file_of(&row.object));
                    ensure!(is_gone, "{id} has expired and is back: {}", row.object.display());
                    continue;
                }
                // It may be there or not.
                "expiring" => continue,
                _ => {}
            }
            let path = if row.put_state == "owed" { self.spooled(id, &mut spooled) } else { row.object.clone() };
            let bytes = fs::read(&path).with_context(|| format!("{id} is {}: {}", row.put_state, path.display()))?;
            let is_whole = digest(&SHA256, &bytes).as_ref() == row.sha256;
            ensure!(is_whole, "{} is not what was committed, and {id} is {}", path.display(), row.put_state);
        }
        let committed: BTreeSet<&[u8]> = self.snapshots.values().map(|row| &*row.sha256).collect();
        for row in &self.latest {
            let path = if row.is_owed { self.spooled(&row.id, &mut spooled) } else { row.object.clone() };
            let bytes = fs::read(&path).with_context(|| format!("{row:?}: {}", path.display()))?;
            let found = bytes.len() as u64;
            ensure!(found == row.file_size, "{} has {found} bytes: {row:?}", path.display());
            // Each was committed together with a numbered object of the same bytes.
            let is_whole = committed.contains(digest(&SHA256, &bytes).as_ref());
            ensure!(is_whole, "{} is nothing that was committed: {row:?}", path.display());
        }
        let mut found = files_below(&self.dir.join("spool"))?;
        found.retain(|path| spooled.contains(path) || fs::metadata(path).is_ok_and(|file| file.nlink() == 1));
        ensure!(found == spooled, "in the spool lies what is owed, and that is {spooled:?}, not {found:?}");
        Ok(())
    }

    fn spooled(&self, id: &str, spooled: &mut BTreeSet<PathBuf>) -> PathBuf {
        let path = self.dir.join("spool").join(format!("{id}.image"));
        spooled.insert(path.clone());
        path
    }

    /// Once everything is settled, the store holds what rows name and nothing else, and the spool nothing.
    pub(crate) fn name_every_object(&self) -> Result<()> {
        let numbered = self.snapshots.values().filter(|row| row.put_state != "expired").map(|row| &row.object);
        let named: BTreeSet<PathBuf> = numbered.chain(self.latest.iter().map(|row| &row.object)).cloned().collect();
        let left = files_below(&self.dir.join("spool"))?;
        ensure!(left.is_empty(), "left in the spool: {left:?}");
        let found = files_below(&self.dir.join("objects"))?;
        let unknown: Vec<_> = found.difference(&named).collect();
        ensure!(unknown.is_empty(), "objects that nobody committed: {unknown:?}");
        Ok(())
    }
}
