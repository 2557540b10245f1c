//! Puts into the local store that are made ahead of the picture's row, so that one transaction says that it was taken and that
//! it is stored.
//!
//! Whoever commits a lone picture makes such a put inside that transaction, whose writer nobody shares: a key that no row has by
//! then belongs to the picture. If the transaction does not last, the object is taken back. If the process dies between the two,
//! the spooled file is left, which is the same file as the object and durable before it: the next start finds the one by the
//! other.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use framehook_domain::id::SnapshotId;

use super::fs::FileId;
use super::{LocalStore, Storer};
use crate::db::DbError;
use crate::db::snapshot::{self, OwedPut, Place};
use crate::fail_point;
use crate::telemetry::event::Chain;

/// Where a picture may have been put although it has no row.
#[derive(Debug, Default)]
pub struct Ahead {
    object: OnceLock<(String, String)>,
}

impl Storer {
    /// Puts a spooled picture under a key that no row has, if its place is the local store and takes pictures; tells how long
    /// that took. `None`: it is to be owed, and the put of what is owed says what is wrong. Runs in the transaction that writes
    /// its row. Blocks.
    ///
    /// # Errors
    /// [`DbError::Stopped`]: a sync has failed, and the process ends.
    pub fn put_ahead(
        &self,
        ahead: &Ahead,
        place: &Place,
        key: &str,
        id: SnapshotId,
    ) -> Result<Option<Duration>, DbError> {
        let (began, files) = (self.parts.clock.mono(), self.parts.stores.local().files());
        let takes_pictures = self.is_prepared() && self.parts.conditions.takes_pictures(place);
        let object = (place.bucket.clone(), key.to_owned());
        // A transaction has one such picture.
        if place.store != LocalStore::NAME || !takes_pictures || ahead.object.set(object).is_err() {
            return Ok(None);
        }
        match files.put_new(&place.bucket, key, &self.parts.spool.path(id)) {
            Ok(()) => {
                fail_point::pass("put_acknowledged");
                Ok(Some(self.parts.clock.mono().since(began)))
            }
            Err(_) if files.has_failed() => Err(DbError::Stopped),
            Err(_) => Ok(None),
        }
    }

    /// Tells of a picture that was put ahead and is recorded, and frees its room in the spool. Blocks.
    pub fn recorded(&self, put: &OwedPut, took: Duration) {
        self.note(&put.kept_at(), put, took, None);
        self.tell_stored(put);
        self.parts.spool.remove(put.id, put.file_size_bytes);
    }

    /// Takes a picture back that may have been put ahead and was not recorded. `false`: its file must stay in the spool, so that
    /// the next start finds its object. Blocks.
    pub fn take_back(&self, ahead: &Ahead, id: SnapshotId) -> bool {
        let Some((bucket, key)) = ahead.object.get() else { return true };
        let taken_back = self.parts.stores.local().files().take_back(bucket, key, &self.parts.spool.path(id));
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
        let split = move |conn: &rusqlite::Connection| {
            let is_recorded = |id: SnapshotId| Ok((id, snapshot::is_recorded(conn, id)?));
            leftovers.into_iter().map(is_recorded).collect::<Result<Vec<_>, DbError>>()
        };
        let (recorded, unrecorded): (Vec<_>, Vec<_>) =
            self.parts.db.read(split).await?.into_iter().partition(|(_, is_recorded)| *is_recorded);
        let ids = |found: Vec<(SnapshotId, bool)>| found.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let (recorded, unrecorded) = (ids(recorded), ids(unrecorded));

        let (storer, sought) = (Arc::clone(self), unrecorded.clone());
        let found = tokio::task::spawn_blocking(move || {
            recorded.iter().try_for_each(|id| storer.parts.spool.clear(*id))?;
            let files = sought.iter().map(|id| FileId::of(&storer.parts.spool.path(*id)));
            let files = files.collect::<io::Result<HashSet<FileId>>>()?;
            if files.is_empty() { Ok(Vec::new()) } else { storer.parts.stores.local().files().find(&files) }
        });
        let mut removed = 0;
        for (bucket, key) in found.await?? {
            let storer = Arc::clone(self);
            // In a transaction, so that no picture gets the key meanwhile. What has a row by now is not ours to remove: it is the
            // picture's, or its put will take the place of what lies there.
            let remove = move |tx: &crate::db::Tx<'_>| {
                if snapshot::has_key(tx, LocalStore::NAME, &bucket, &key)? {
                    return Ok(Ok(0));
                }
                Ok(storer.parts.stores.local().files().remove(&bucket, &key).map(|()| 1))
            };
            removed += self.parts.db.write(remove).await??;
        }
        let storer = Arc::clone(self);
        let clear = move || unrecorded.iter().try_for_each(|id| storer.parts.spool.clear(*id));
        tokio::task::spawn_blocking(clear).await??;
        tracing::info!(objects = removed, "removed what a crash had left of pictures that were never committed");
        Ok(())
    }
}
