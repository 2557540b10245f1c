//! Puts `latest` objects: of each key the newest picture, one put at a time, so that an older one never comes last.
//!
//! A picture that is overtaken before its put has begun is never put. One that is overtaken during its put is followed by
//! the newer one, in that order. A store that is reached over a network may still take up a request that was given up
//! after a time-out, and so set an older picture behind a newer one; the next put of the key mends that.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use framehook_domain::time::Mono;

use super::{Bucket, Retry, StoreError, StorerParts, Upload, backoff};
use crate::db::latest::{self, OwedLatest};
use crate::db::snapshot::{FailedPut, Place};
use crate::db::{DbError, Tx};
use crate::fail_point;
use crate::telemetry::event::{Chain, PutEnded};

/// How long the task sleeps at most without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait before looking again when the database is full.
const DB_FULL_WAIT: Duration = Duration::from_secs(1);

/// What goes on in one bucket.
#[derive(Debug, Default)]
struct Lane {
    /// Keys whose put is under way.
    keys: HashSet<String>,
    /// Pictures whose put has ended since the last look began: its rows may show them as they were before.
    ended: HashSet<SnapshotId>,
}

/// Puts the newest pictures under the keys that they overwrite.
#[derive(Debug)]
pub struct LatestStorer {
    parts: StorerParts,
    /// Each bucket that something was owed to since the start.
    lanes: Mutex<BTreeMap<Place, Lane>>,
}

impl LatestStorer {
    /// `parts.signal` is given by the committer.
    pub fn new(parts: StorerParts) -> Arc<Self> {
        Arc::new(Self { parts, lanes: Mutex::default() })
    }

    /// Runs from when `prepared` completes until its stage is told to end; puts under way then are tasks of the stage and
    /// finish. What was owed to no store must not be tried before it is known whether it has one now.
    pub async fn run(self: Arc<Self>, prepared: impl Future<Output = ()>) {
        let token = self.parts.stage.token();
        tokio::select! {
            () = token.cancelled() => return,
            () = prepared => {}
        }
        let mut look_again = self.parts.conditions.look_again();
        loop {
            let woken = self.parts.signal.notified();
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
                // Never fails: the conditions are ours too.
                _ = look_again.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Starts a put for everything that is due and has a slot. Tells how long there is nothing more to start.
    async fn start_due(self: &Arc<Self>) -> Result<Duration, DbError> {
        let (now, mono) = (self.parts.timeline.now(), self.parts.clock.mono());
        self.lanes().values_mut().for_each(|lane| lane.ended.clear());
        // Each bucket for itself, so that one that hangs hides nobody: as many rows as it has slots, beside those that are
        // under way and will be passed over.
        let rows_max = 2 * self.parts.slots;
        let look = move |conn: &rusqlite::Connection| {
            let due_at = |place: Place| {
                let due = latest::due(conn, &place, now, rows_max)?;
                let next_due = latest::next_due(conn, &place, now)?;
                Ok((place, due, next_due))
            };
            latest::owed_places(conn)?.into_iter().map(due_at).collect::<Result<Vec<_>, DbError>>()
        };
        let mut wait = LOOK_EVERY;
        for (place, due, next_due) in self.parts.db.read_puts(look).await? {
            wait = next_due.map_or(wait, |due| wait.min(due.since(now)));
            for put in self.take_up(&place, due, mono) {
                self.start(place.clone(), put);
            }
            wait = self.parts.conditions.wait(&place, mono).map_or(wait, |again| wait.min(again));
        }
        Ok(wait)
    }

    /// Gives slots of a place to what is due there.
    fn take_up(&self, place: &Place, due: Vec<OwedLatest>, now: Mono) -> Vec<OwedLatest> {
        let mut lanes = self.lanes();
        let lane = lanes.entry(place.clone()).or_default();
        let mut started = Vec::new();
        for put in due {
            let is_free = !lane.keys.contains(&put.key) && !lane.ended.contains(&put.id);
            if is_free && lane.keys.len() < self.parts.slots && self.parts.conditions.begin(place, now) {
                lane.keys.insert(put.key.clone());
                started.push(put);
            }
        }
        started
    }

    fn start(self: &Arc<Self>, place: Place, put: OwedLatest) {
        let storer = Arc::clone(self);
        self.parts.stage.spawn(async move {
            // A put whose outcome cannot be written down keeps its slot: the database has stopped, and the process ends.
            if storer.put(&place, &put).await.is_ok() {
                if let Some(lane) = storer.lanes().get_mut(&place) {
                    lane.keys.remove(&put.key);
                    lane.ended.insert(put.id);
                }
                storer.parts.conditions.end(&place, storer.parts.clock.mono());
                storer.parts.signal.look();
            }
        });
    }

    async fn put(&self, place: &Place, put: &OwedLatest) -> Result<(), DbError> {
        let began = self.parts.clock.mono();
        let spooled = self.parts.spool.path(put.id);
        let bucket = Bucket { region: &put.region, name: &put.bucket };
        let upload = Upload {
            file: &spooled,
            content_type: put.format.content_type(),
            retention_days: None,
            is_overwritten: true,
        };
        let result = match self.parts.stores.named(&put.store) {
            Some(store) => store.put(bucket, &put.key, upload).await,
            None => Err(StoreError::Unknown { store: put.store.clone() }),
        };
        if matches!(result, Err(StoreError::SpoolMissing { .. })) && !self.is_owed(put).await {
            // It was overtaken before its put began. What overtook it is due, as this one was.
            return Ok(());
        }
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
        self.parts.learn(place, result.as_ref().err(), now);
        match result {
            Ok(()) => self.stored(put).await,
            Err(error) => self.failed(put, &error).await,
        }
    }

    async fn stored(&self, put: &OwedLatest) -> Result<(), DbError> {
        fail_point::pass("latest_acknowledged");
        let (timeline, put) = (self.parts.timeline.clone(), Arc::new(put.clone()));
        let write = || {
            let (put, timeline) = (Arc::clone(&put), timeline.clone());
            move |tx: &Tx<'_>| latest::mark_stored(tx, &put, timeline.now())
        };
        self.parts.db.write_until_done(write).await?;
        fail_point::pass("latest_committed");
        let (spool, id, bytes) = (Arc::clone(&self.parts.spool), put.id, put.file_size_bytes);
        // A panic in there leaves the file to the next start.
        let _ = tokio::task::spawn_blocking(move || spool.remove(id, bytes)).await;
        Ok(())
    }

    async fn is_owed(&self, put: &OwedLatest) -> bool {
        let put = put.clone();
        // What cannot be looked up counts as owed: the failure is then written down like any other.
        self.parts.db.read(move |conn| latest::is_owed(conn, &put)).await.unwrap_or(true)
    }

    async fn failed(&self, put: &OwedLatest, error: &StoreError) -> Result<(), DbError> {
        let step = backoff(error.retry(), put.attempts.saturating_add(1), self.parts.entropy.fraction());
        let alarm = error.retry() == Retry::Held;
        let (timeline, text, put) = (self.parts.timeline.clone(), Chain(error).to_string(), Arc::new(put.clone()));
        let write = || {
            let (put, timeline, error) = (Arc::clone(&put), timeline.clone(), text.clone());
            move |tx: &Tx<'_>| {
                latest::mark_failed(tx, &put, &FailedPut { due: timeline.now().plus(step), step, alarm, error })
            }
        };
        self.parts.db.write_until_done(write).await
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<Place, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
