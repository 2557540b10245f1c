//! The driver: finds owed puts, runs some at a time, writes down how each ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use framehook_domain::time::UnixMs;
use tokio::sync::Notify;

use super::spool::Spool;
use super::{Bucket, Retry, StoreError, Stores, Upload, backoff};
use crate::audit::{Caller, Change};
use crate::clock::Clock;
use crate::db::snapshot::{self, FailedPut, OwedPut};
use crate::db::{Db, DbError, Tx, audit, dues};
use crate::entropy::Entropy;
use crate::fail_point;
use crate::shutdown::Stage;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{Chain, PutEnded};
use crate::telemetry::happening::Happening;
use crate::timeline::Timeline;

/// How long a picture that was not tried yet counts as fresh. After an outage everything older is backlog, which may take
/// half of the slots, so what happens now is not shown late because of what happened then.
const FRESH: Duration = Duration::from_secs(60);

/// How long the Storer sleeps at most without being woken, in case a signal was lost with the task that owed it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait before looking or writing again when the database is full.
const DB_FULL_WAIT: Duration = Duration::from_secs(1);

/// The parts a [`Storer`] is built from.
#[derive(Clone, Debug)]
pub struct StorerParts {
    pub db: Db,
    pub spool: Arc<Spool>,
    pub stores: Stores,
    pub clock: Clock,
    pub timeline: Timeline,
    pub entropy: Entropy,
    pub telemetry: Arc<Telemetry>,
    /// Signalled by the committer.
    pub wake: Arc<Notify>,
    /// Signalled when deliveries have become due.
    pub notifier_wake: Arc<Notify>,
    /// Puts at a time, at least 2.
    pub slots: usize,
    /// Whose tasks the puts are.
    pub stage: Stage,
}

/// The database has stopped: no outcome can be written down any more.
struct Unwritten;

/// Puts committed pictures into their store.
#[derive(Debug)]
pub struct Storer {
    parts: StorerParts,
    /// Pictures whose put is under way, and whether it was taken up as backlog. A claim in the database is not needed: a
    /// put that is made twice changes nothing.
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    fresh: HashSet<SnapshotId>,
    backlog: HashSet<SnapshotId>,
}

impl Running {
    fn len(&self) -> usize {
        self.fresh.len() + self.backlog.len()
    }

    fn holds(&self, id: &SnapshotId) -> bool {
        self.fresh.contains(id) || self.backlog.contains(id)
    }
}

impl Storer {
    pub fn new(parts: StorerParts) -> Arc<Self> {
        Arc::new(Self { parts, running: Mutex::default() })
    }

    /// Runs until its stage is told to end; puts under way then are tasks of the stage and finish.
    pub async fn run(self: Arc<Self>) {
        let token = self.parts.stage.token();
        let mut due_times_clamped = false;
        loop {
            let woken = self.parts.wake.notified();
            let round = async {
                if !due_times_clamped {
                    let timeline = self.parts.timeline.clone();
                    self.parts.db.write(move |tx| dues::clamp_puts(tx, timeline.now())).await?;
                    due_times_clamped = true;
                }
                self.start_due().await
            };
            let wait = match round.await {
                Ok(next_due) => self.wait_until(next_due),
                Err(DbError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "owed puts could not be looked up");
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

    fn wait_until(&self, next_due: Option<UnixMs>) -> Duration {
        let until_due = next_due.map(|due| due.since(self.parts.timeline.now()));
        until_due.map_or(LOOK_EVERY, |wait| wait.min(LOOK_EVERY))
    }

    /// Starts a put for everything that is due and has a slot. Tells when the next put falls due.
    async fn start_due(self: &Arc<Self>) -> Result<Option<UnixMs>, DbError> {
        let now = self.parts.timeline.now();
        let fresh_since = self.parts.clock.wall().minus(FRESH);
        // As many rows as there are slots, beside those that are under way and will be passed over.
        let limit = self.parts.slots + self.running().len();
        let look = move |conn: &rusqlite::Connection| {
            Ok((
                snapshot::fresh_puts(conn, fresh_since, limit)?,
                snapshot::backlog_puts(conn, now, fresh_since, limit)?,
                snapshot::next_put_due(conn, now)?,
            ))
        };
        let (fresh, backlog, next_due) = self.parts.db.read_puts(look).await?;
        for put in fresh {
            let mut running = self.running();
            if running.len() < self.parts.slots && !running.holds(&put.id) {
                running.fresh.insert(put.id);
                drop(running);
                self.start(put);
            }
        }
        for put in backlog {
            let mut running = self.running();
            let may_start = running.len() < self.parts.slots && running.backlog.len() < self.parts.slots / 2;
            if may_start && !running.holds(&put.id) {
                running.backlog.insert(put.id);
                drop(running);
                self.start(put);
            }
        }
        Ok(next_due)
    }

    fn start(self: &Arc<Self>, put: OwedPut) {
        let storer = Arc::clone(self);
        self.parts.stage.spawn(async move {
            let id = put.id;
            if let Err(Unwritten) = storer.put(put).await {
                // It stays among those that run: a put whose outcome nobody can learn must not be made again and again
                // while the process ends, least of all after a failed sync.
                return;
            }
            let mut running = storer.running();
            running.fresh.remove(&id);
            running.backlog.remove(&id);
            drop(running);
            storer.parts.wake.notify_one();
        });
    }

    async fn put(&self, put: OwedPut) -> Result<(), Unwritten> {
        let began = self.parts.clock.mono();
        let spooled = self.parts.spool.path(put.id);
        let bucket = Bucket { region: &put.region, name: &put.bucket };
        let upload =
            Upload { file: &spooled, content_type: put.format.content_type(), retention_days: put.retention_days };
        let result = match self.parts.stores.named(&put.store, bucket) {
            Some(store) => store.put(bucket, &put.key, upload).await,
            None => Err(StoreError::Unknown { store: put.store.clone() }),
        };
        let failure = match &result {
            Ok(()) => None,
            Err(error) => Some((error.name(), error.fault(), error as &dyn std::error::Error)),
        };
        let now = self.parts.clock.mono();
        PutEnded {
            trace: put.trace,
            snapshot: put.id,
            store: &put.place(),
            key: &put.key,
            attempt: put.attempts.saturating_add(1),
            took: now.since(began),
            failure,
        }
        .emit(&self.parts.telemetry);
        match result {
            Ok(()) => self.stored(put).await,
            Err(error) => self.failed(&put, &error).await,
        }
    }

    async fn stored(&self, put: OwedPut) -> Result<(), Unwritten> {
        fail_point::pass("put_acknowledged");
        let (timeline, wall) = (self.parts.timeline.clone(), self.parts.clock.wall());
        let put = Arc::new(put);
        let written = self
            .parts
            .db
            .write_until_done(|| {
                let (put, timeline) = (Arc::clone(&put), timeline.clone());
                move |tx: &Tx<'_>| snapshot::mark_stored(tx, &put, timeline.now(), wall)
            })
            .await;
        let was_owed = written.map_err(|_| Unwritten)?;
        fail_point::pass("stored_committed");
        if was_owed {
            self.parts.telemetry.tell(Some(&put.stream), || Happening::SnapshotStored {
                snapshot_id: put.id.0,
                store: put.place(),
                key: put.key.clone(),
            });
        }
        self.parts.notifier_wake.notify_one();
        let bucket = Bucket { region: &put.region, name: &put.bucket };
        if !was_owed
            && let Some(store) = self.parts.stores.named(&put.store, bucket)
            && let Err(error) = store.remove(bucket, &put.key).await
        {
            tracing::warn!(snapshot = %put.id, error = %Chain(&error), "a discarded picture stays in its store");
        }
        let (spool, id, bytes) = (Arc::clone(&self.parts.spool), put.id, put.file_size_bytes);
        // Joined so that the put's slot covers it: deleting must keep up with writing.
        let _ = tokio::task::spawn_blocking(move || spool.remove(id, bytes)).await;
        Ok(())
    }

    async fn failed(&self, put: &OwedPut, error: &StoreError) -> Result<(), Unwritten> {
        let retry = error.retry();
        let step = backoff(retry, put.attempts.saturating_add(1), self.parts.entropy.fraction());
        let ended = self.parts.clock.mono();
        let (id, timeline) = (put.id, self.parts.timeline.clone());
        let (alarm, text) = (retry == Retry::Held, Chain(error).to_string());
        let written = self
            .parts
            .db
            .write_until_done(|| {
                let (timeline, error) = (timeline.clone(), text.clone());
                move |tx: &Tx<'_>| {
                    let due = timeline.at(ended).plus(step);
                    snapshot::mark_put_failed(tx, id, &FailedPut { due, step, alarm, error })
                }
            })
            .await;
        // An error means that the database has stopped; the next start tries the put again.
        written.map_err(|_| Unwritten)?;
        self.parts.telemetry.tell(Some(&put.stream), || Happening::SnapshotNotStored {
            snapshot_id: id.0,
            store: put.place(),
            key: put.key.clone(),
            attempt: put.attempts.saturating_add(1),
            reason: error.name(),
            alarm,
        });
        Ok(())
    }

    /// Gives an owed picture up, by name of the person who asked for it: it is not stored, its callback is cancelled, and
    /// its room in the spool is free. A put of it that is under way takes back what it did when it ends. `false`: it was
    /// not owed. Whoever asks may hang up meanwhile: the room is freed all the same.
    ///
    /// # Errors
    /// Those of the database; nothing has changed then.
    pub async fn discard(&self, id: SnapshotId, by: &Caller) -> Result<bool, DbError> {
        let (db, spool, wall) = (self.parts.db.clone(), Arc::clone(&self.parts.spool), self.parts.clock.wall());
        let by = by.clone();
        let discard = move |tx: &Tx<'_>| {
            let discarded = snapshot::discard(tx, id, by.who(), wall)?;
            if discarded.is_some() {
                audit::note(tx, &by, &Change::snapshot_discarded(id), wall)?;
            }
            Ok(discarded)
        };
        let work = async move {
            let Some(bytes) = db.write(discard).await? else { return Ok(false) };
            // A panic in there leaves the file to the next start.
            let _ = tokio::task::spawn_blocking(move || spool.remove(id, bytes)).await;
            Ok(true)
        };
        self.parts.stage.finish(work).await.unwrap_or(Err(DbError::Stopped))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
