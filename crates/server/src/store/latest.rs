//! Puts `latest` objects: of each key the newest picture, one put at a time, so that an older one never comes last.
//!
//! A picture that is overtaken before its put has begun is never put. One that is overtaken during its put is followed by
//! the newer one, in that order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Bucket, StoreError, StorerParts, Upload, backoff};
use crate::db::latest::{self, OwedLatest};
use crate::db::snapshot::FailedPut;
use crate::db::{DbError, Tx};
use crate::telemetry::event::{Chain, PutEnded};

/// Puts at a time in one bucket. Each overwrites, so a queue never grows: what waits is one picture for each stream.
const BUCKET_SLOTS: usize = 8;

/// How long the task sleeps at most without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait before looking again when the database is full.
const DB_FULL_WAIT: Duration = Duration::from_secs(1);

/// Store and bucket, and the keys of it whose put is under way.
type Running = BTreeMap<(String, String), Vec<String>>;

/// Puts the newest pictures under the keys that they overwrite.
#[derive(Debug)]
pub struct LatestStorer {
    parts: StorerParts,
    running: Mutex<Running>,
}

impl LatestStorer {
    /// `parts.wake` is signalled by the committer.
    pub fn new(parts: StorerParts) -> Arc<Self> {
        Arc::new(Self { parts, running: Mutex::default() })
    }

    /// Runs until its stage is told to end; puts under way then are tasks of the stage and finish.
    pub async fn run(self: Arc<Self>) {
        let token = self.parts.stage.token();
        loop {
            let woken = self.parts.wake.notified();
            let wait = match self.start_due().await {
                Ok(wait) => wait.min(LOOK_EVERY),
                Err(DbError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "owed latest objects could not be looked up");
                    DB_FULL_WAIT
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = woken => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Starts a put for everything that is due and has a slot. Tells how long there is nothing more to start.
    async fn start_due(self: &Arc<Self>) -> Result<Duration, DbError> {
        let now = self.parts.timeline.now();
        // Each bucket for itself, so that one that hangs hides nobody: as many rows as it has slots, beside those that are
        // under way and will be passed over.
        let look = move |conn: &rusqlite::Connection| {
            let (mut due, mut next_due) = (Vec::new(), None);
            for place in latest::owed_places(conn)? {
                due.extend(latest::due(conn, &place, now, 2 * BUCKET_SLOTS)?);
                let next = latest::next_due(conn, &place, now)?;
                next_due = [next_due, next].into_iter().flatten().min();
            }
            Ok((due, next_due))
        };
        let (due, next_due) = self.parts.db.read_puts(look).await?;
        for put in due {
            if self.take_slot(&put) {
                self.start(put);
            }
        }
        Ok(next_due.map_or(LOOK_EVERY, |due| due.since(now)))
    }

    fn take_slot(&self, put: &OwedLatest) -> bool {
        let mut running = self.running();
        let keys = running.entry((put.store.clone(), put.bucket.clone())).or_default();
        let may_start = keys.len() < BUCKET_SLOTS && !keys.contains(&put.key);
        if may_start {
            keys.push(put.key.clone());
        }
        may_start
    }

    fn give_slot_back(&self, put: &OwedLatest) {
        let mut running = self.running();
        let place = (put.store.clone(), put.bucket.clone());
        if let Some(keys) = running.get_mut(&place) {
            keys.retain(|key| *key != put.key);
            if keys.is_empty() {
                running.remove(&place);
            }
        }
    }

    fn start(self: &Arc<Self>, put: OwedLatest) {
        let storer = Arc::clone(self);
        self.parts.stage.spawn(async move {
            // A put whose outcome cannot be written down keeps its slot: the database has stopped, and the process ends.
            if storer.put(&put).await.is_ok() {
                storer.give_slot_back(&put);
                storer.parts.wake.notify_one();
            }
        });
    }

    async fn put(&self, put: &OwedLatest) -> Result<(), DbError> {
        let began = self.parts.clock.mono();
        let spooled = self.parts.spool.path(put.id);
        let bucket = Bucket { region: &put.region, name: &put.bucket };
        let upload = Upload { file: &spooled, content_type: put.format.content_type(), retention_days: None };
        let result = match self.parts.stores.named(&put.store) {
            Some(store) => store.put(bucket, &put.key, upload).await,
            None => Err(StoreError::Unknown { store: put.store.clone() }),
        };
        let now = self.parts.clock.mono();
        PutEnded {
            trace: put.trace,
            snapshot: put.id,
            store: &format!("{}/{}", put.store, put.bucket),
            key: &put.key,
            attempt: put.attempts.saturating_add(1),
            took: now.since(began),
            failure: result.as_ref().err().map(|error| (error.name(), error.fault(), error as &dyn std::error::Error)),
        }
        .emit(&self.parts.telemetry);
        match result {
            Ok(()) => self.stored(put).await,
            Err(error) => self.failed(put, &error).await,
        }
    }

    async fn stored(&self, put: &OwedLatest) -> Result<(), DbError> {
        let (timeline, put) = (self.parts.timeline.clone(), Arc::new(put.clone()));
        let write = || {
            let (put, timeline) = (Arc::clone(&put), timeline.clone());
            move |tx: &Tx<'_>| latest::mark_stored(tx, &put, timeline.now())
        };
        self.parts.db.write_until_done(write).await?;
        let (spool, id, bytes) = (Arc::clone(&self.parts.spool), put.id, put.file_size_bytes);
        // A panic in there leaves the file to the next start.
        let _ = tokio::task::spawn_blocking(move || spool.remove(id, bytes)).await;
        Ok(())
    }

    async fn failed(&self, put: &OwedLatest, error: &StoreError) -> Result<(), DbError> {
        let step = backoff(error.retry(), put.attempts.saturating_add(1), self.parts.entropy.fraction());
        let is_gone = matches!(error, StoreError::SpoolMissing { .. });
        let (timeline, text, put) = (self.parts.timeline.clone(), Chain(error).to_string(), Arc::new(put.clone()));
        let write = || {
            let (put, timeline, error) = (Arc::clone(&put), timeline.clone(), text.clone());
            move |tx: &Tx<'_>| {
                let failed = FailedPut { due: timeline.now().plus(step), step, alarm: false, error };
                latest::mark_failed(tx, &put, &failed)?;
                if is_gone { latest::mark_overtaken(tx, &put, timeline.now()) } else { Ok(()) }
            }
        };
        self.parts.db.write_until_done(write).await
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
