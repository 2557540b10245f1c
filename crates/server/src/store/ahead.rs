//! Puts into the local store that are made ahead of the picture's row, so that one transaction says that it was taken and that
//! it is stored.
//!
//! Whoever commits a picture links its file to the key that it would have, if nothing lies there, syncs the directory that names
//! it, together with others, and then writes the row. The row's transaction decides what key the picture gets. If that is the one
//! under which it was put and its file is still what lies there, it is stored; else it is taken back and owed. From then on the
//! key has a row, and nothing else takes its object away. If the transaction does not last, the object is taken back. If the
//! process dies between the two, the spooled file is left, which is the same file as the object and durable before it: the next
//! start finds the one by the other.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::{SnapshotId, time_of};
use framehook_domain::time::UnixMs;

use super::fs::FileId;
use super::spool::Spool;
use super::{LocalStore, Storer};
use crate::db::snapshot::{self, OwedPut, Place};
use crate::db::{Db, DbError, Tx, latest};
use crate::fail_point;
use crate::telemetry::event::Chain;

/// Pictures that are older than the newest by this may have had a row that was forgotten, and their objects are to stay:
/// `deliver.log_retention` is at least this. Where `deliver.log_bytes_max` forgets sooner, a start has cleared by then what
/// had a row.
const YOUNG: Duration = Duration::from_secs(3600);

/// An object in the local store whose picture has no row yet.
#[derive(Debug)]
pub struct Ahead {
    bucket: String,
    key: String,
    /// The picture's, in the spool and here.
    file: FileId,
    is_durable: bool,
    /// How long the put took so far.
    took: Duration,
}

impl Storer {
    /// Puts a spooled picture under the key that it wants, if its place is the local store and takes pictures and nothing lies
    /// there. `None`: it is to be owed, and the put of what is owed says what is wrong. Its object lasts after
    /// [`Storer::sync_ahead`]. Blocks.
    pub fn put_ahead(&self, place: &Place, key: &str, id: SnapshotId) -> Option<Ahead> {
        let (began, files) = (self.parts.clock.mono(), self.parts.stores.local().files());
        let takes_pictures = self.is_prepared() && files.can_link() && self.parts.conditions.takes_pictures(place);
        if place.store != LocalStore::NAME || !takes_pictures {
            return None;
        }
        let file = files.link_new(&place.bucket, key, &self.parts.spool.path(id)).ok()?;
        let took = self.parts.clock.mono().since(began);
        Some(Ahead { bucket: place.bucket.clone(), key: key.to_owned(), file, is_durable: false, took })
    }

    /// Makes objects durable that were put ahead, with one sync for each directory. Blocks.
    ///
    /// # Errors
    /// [`DbError::Stopped`]: a sync has failed, here or elsewhere, and the process ends.
    pub fn sync_ahead<'a>(&self, objects: impl Iterator<Item = &'a mut Ahead>) -> Result<(), DbError> {
        let files = self.parts.stores.local().files();
        let mut dirs: BTreeMap<PathBuf, Vec<&mut Ahead>> = BTreeMap::new();
        for object in objects {
            // It has a path, since it was linked there.
            if let Ok(mut path) = files.path(&object.bucket, &object.key) {
                path.pop();
                dirs.entry(path).or_default().push(object);
            }
        }
        for (dir, objects) in dirs {
            let began = self.parts.clock.mono();
            // Where the sync was not even tried, they are owed, and the put of what is owed finds the same files.
            let is_durable = files.sync_names(&dir).is_ok();
            let took = self.parts.clock.mono().since(began);
            for object in objects {
                (object.is_durable, object.took) = (is_durable, object.took + took);
            }
            if is_durable {
                fail_point::pass("put_ahead");
            }
        }
        if files.has_failed() { Err(DbError::Stopped) } else { Ok(()) }
    }

    /// Whether a picture that gets this key is there, durably; tells how long that took. `None`: it is to be owed. If it was put
    /// under another key it is taken back from there. To be asked in the transaction that writes its row: what has removed or
    /// replaced its object until then believed in a row of that key, or in none. Blocks.
    pub fn is_stored(&self, ahead: &Ahead, place: &Place, key: &str, id: SnapshotId) -> Option<Duration> {
        if ahead.key != key || ahead.bucket != place.bucket {
            self.take_back(ahead, id);
            return None;
        }
        let is_there = self.parts.stores.local().files().is_file(&ahead.bucket, &ahead.key, ahead.file);
        (ahead.is_durable && is_there).then_some(ahead.took)
    }

    /// Tells of a picture that was put ahead and is recorded, and frees its room in the spool. Blocks.
    pub fn recorded(&self, put: &OwedPut, took: Duration) {
        self.note(&put.kept_at(), put, took, None);
        self.tell_stored(put);
        self.parts.spool.remove(put.id, put.file_size_bytes);
    }

    /// Takes a picture back that was not recorded. `false`: its file must stay in the spool, so that the next start finds its
    /// object. Blocks.
    pub fn take_back(&self, ahead: &Ahead, id: SnapshotId) -> bool {
        let taken_back = self.parts.stores.local().files().remove_file(&ahead.bucket, &ahead.key, ahead.file);
        if let Err(error) = &taken_back {
            tracing::warn!(
                snapshot = %id, error = %Chain(error), "an object that was not recorded stays until the next start"
            );
        }
        taken_back.is_ok()
    }

    /// Removes what a crash left of pictures that were put ahead and never recorded.
    pub(super) async fn clear_leftovers(self: Arc<Self>) {
        let leftovers = self.parts.spool.take_linked_leftovers();
        if leftovers.is_empty() {
            return;
        }
        if let Err(error) = self.clear(leftovers).await {
            tracing::warn!(
                error = %Chain(&*error), "what a crash left in the spool and perhaps in the local store stays until the next start"
            );
        }
    }

    async fn clear(
        self: &Arc<Self>,
        leftovers: Vec<SnapshotId>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (storer, sought) = (Arc::clone(self), leftovers.clone());
        let find = move || {
            let file = |id: SnapshotId| match FileId::of(&storer.parts.spool.path(id)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                file => Some(file),
            };
            let files = sought.into_iter().filter_map(file).collect::<io::Result<HashSet<FileId>>>()?;
            let token = storer.parts.stage.token();
            storer.parts.stores.local().files().find(&files, || token.is_cancelled())
        };
        let mut removed = 0;
        for (bucket, key, file) in tokio::task::spawn_blocking(find).await?? {
            let storer = Arc::clone(self);
            // In a transaction, so that no picture gets the key meanwhile. A row of it is another picture's, which has expired or
            // whose put will take the place of what lies there; but a latest object stays until a newer one is put.
            let remove = move |tx: &Tx<'_>| {
                if latest::is_latest(tx, LocalStore::NAME, &bucket, &key)? {
                    return Ok(Ok(0));
                }
                Ok(storer.parts.stores.local().files().remove_file(&bucket, &key, file).map(|()| 1))
            };
            removed += self.parts.db.write(remove).await??;
        }
        let storer = Arc::clone(self);
        let clear = move || leftovers.into_iter().try_for_each(|id| storer.parts.spool.clear(id));
        tokio::task::spawn_blocking(clear).await??;
        tracing::info!(objects = removed, "removed what a crash had left of pictures that were never committed");
        Ok(())
    }
}

/// Clears what a crash has left in the spool of pictures that have a row and are not owed. To be called at a start, before
/// anything forgets rows: of what is left no row tells, and [`Storer`] looks for its objects.
///
/// # Errors
/// Those of the database.
pub async fn clear_recorded_leftovers(db: &Db, spool: &Arc<Spool>, wall: UnixMs) -> Result<(), DbError> {
    let leftovers = spool.take_linked_leftovers();
    if leftovers.is_empty() {
        return Ok(());
    }
    let never_recorded = move |conn: &rusqlite::Connection| {
        let newest = snapshot::newest(conn)?;
        let is_sought = |id: SnapshotId| {
            let is_recorded = snapshot::is_recorded(conn, id)? || latest::is_recorded(conn, id)?;
            Ok((id, !is_recorded && is_young(id, newest, wall)))
        };
        leftovers.into_iter().map(is_sought).collect::<Result<Vec<_>, DbError>>()
    };
    let (sought, recorded): (Vec<_>, Vec<_>) =
        db.read(never_recorded).await?.into_iter().partition(|(_, is_sought)| *is_sought);
    let spool = Arc::clone(spool);
    let clear = move || {
        for (id, _) in recorded {
            if let Err(error) = spool.clear(id) {
                tracing::warn!(snapshot = %id, %error, "a settled picture stays in the spool until the next start");
            }
        }
        spool.leave_linked(sought.into_iter().map(|(id, _)| id).collect());
    };
    // A panic in there leaves files to the next start.
    let _ = tokio::task::spawn_blocking(clear).await;
    Ok(())
}

/// Whether a picture without a row cannot have had one that was forgotten since, as far as its id tells and that of the newest
/// picture that has a row, or the clock if there is none.
fn is_young(id: SnapshotId, newest: Option<SnapshotId>, wall: UnixMs) -> bool {
    let newest = newest.and_then(|newest| time_of(newest.0)).unwrap_or(wall);
    time_of(id.0).is_some_and(|taken| taken.plus(YOUNG) > newest)
}

#[cfg(test)]
mod tests {
    use framehook_domain::id::uuid_v7;

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn no_configuration_forgets_rows_of_young_pictures() {
        let kept_for = |kept: Duration| {
            let text = format!("[deliver]\nlog_retention = \"{}s\"", kept.as_secs());
            Config::parse(&text, &Sources::default()).map(|config| config.deliver.log_retention)
        };
        assert_eq!(kept_for(YOUNG).expect("the least that is allowed"), YOUNG);
        assert!(kept_for(YOUNG - Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_picture_whose_row_may_have_been_forgotten_is_not_young() {
        const HOUR_MS: i64 = 3_600_000;
        let taken_at = |ms| SnapshotId(uuid_v7(UnixMs(ms), [7; 10]));
        let newest = 10 * HOUR_MS;
        for (taken, is_to_be_young) in [(newest - HOUR_MS, false), (newest - HOUR_MS + 1, true), (newest + 1, true)] {
            let long_after = UnixMs(100 * HOUR_MS);
            assert_eq!(is_young(taken_at(taken), Some(taken_at(newest)), long_after), is_to_be_young, "{taken}");
            assert_eq!(is_young(taken_at(taken), None, UnixMs(newest)), is_to_be_young, "{taken} by the clock");
        }
    }
}
