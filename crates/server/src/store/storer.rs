//! The driver: finds owed puts, runs some at a time, writes down how each ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use framehook_domain::time::{Mono, UnixMs};
use tokio::sync::watch;

use super::conditions::{Conditions, Failure};
use super::lane::{Committed, Lane};
use super::put_signal::{PutSignal, Told};
use super::spool::Spool;
use super::{Bucket, ObjectStore, Retry, StoreError, Stores, Upload, backoff};
use crate::audit::{Caller, Change};
use crate::clock::Clock;
use crate::db::snapshot::{self, FailedPut, Marked, OwedPut, OwedTo, Place};
use crate::db::{Db, DbError, Tx, audit, dues, latest};
use crate::entropy::Entropy;
use crate::fail_point;
use crate::shutdown::Stage;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{Chain, PutEnded};
use crate::telemetry::happening::Happening;
use crate::timeline::Timeline;

/// How long a picture that was not tried yet counts as fresh. After an outage everything older is backlog, which may take
/// half of the slots, so what happens now is not shown late because of what happened then. One of them it always gets, so
/// that it ends even where fresh pictures could fill all of them for ever.
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
    /// What is known of the buckets, shared by all who put into them.
    pub conditions: Arc<Conditions>,
    /// Where the committer hands over what it has committed.
    pub signal: Arc<PutSignal>,
    /// Puts at a time into each bucket, at least 2, of each who puts there.
    pub slots: usize,
    /// Whose tasks the puts are.
    pub stage: Stage,
}

impl StorerParts {
    /// Tells what a put says of its bucket. What waits for a bucket that takes pictures again is made due.
    pub(super) fn learn(&self, place: &Place, error: Option<&StoreError>, now: Mono) {
        match error {
            Some(error) => self.conditions.failed(place, error, now, self.entropy.fraction(), &self.telemetry),
            None => {
                if self.conditions.succeeded(place, self.clock.wall(), &self.telemetry) {
                    self.bring_forward(place.clone());
                }
            }
        }
    }

    fn bring_forward(&self, place: Place) {
        let (db, timeline, conditions) = (self.db.clone(), self.timeline.clone(), Arc::clone(&self.conditions));
        self.stage.spawn(async move {
            let forward = move |tx: &Tx<'_>| {
                snapshot::bring_forward(tx, &place, timeline.now())?;
                latest::bring_forward(tx, &place, timeline.now())
            };
            // Without it they wait for the times that they have; the database says what is wrong with it itself.
            let _ = db.write(forward).await;
            conditions.tell_recovery();
        });
    }
}

/// The database has stopped: no outcome can be written down any more.
struct Unwritten;

/// How a put ended that was written down.
enum Ended {
    /// Nothing is owed of the picture any more.
    Settled,
    /// It falls due again.
    Failed,
}

/// Puts committed pictures into their stores.
#[derive(Debug)]
pub struct Storer {
    pub(super) parts: StorerParts,
    /// What goes on at each place that something was owed to since the start. A claim in the database is not needed: a put
    /// that is made twice changes nothing.
    lanes: Mutex<BTreeMap<Place, Lane>>,
    is_prepared: watch::Sender<bool>,
}

/// How a bucket does, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceStatus {
    pub store: String,
    pub bucket: String,
    pub state: PlaceState,
    pub owed: OwedTo,
    /// Why puts fail, and what may be done about it.
    pub error: Option<(String, &'static str)>,
}

/// Whether a bucket takes pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceState {
    /// The last put was taken, none has failed yet, or none waits that could tell whether a failure has passed.
    Taking,
    /// It fails in a way that should pass.
    Failing,
    /// It refuses; a person should look.
    Refusing,
}

impl PlaceState {
    /// The name in metrics and answers; it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Taking => "taking",
            Self::Failing => "failing",
            Self::Refusing => "refusing",
        }
    }
}

impl Storer {
    pub fn new(parts: StorerParts) -> Arc<Self> {
        Arc::new(Self { parts, lanes: Mutex::default(), is_prepared: watch::Sender::default() })
    }

    /// Completes when what an earlier process owed is in order: whoever else puts into the stores begins then.
    pub fn prepared(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut is_prepared = self.is_prepared.subscribe();
        async move {
            // An error says that the storer is gone; nothing is put in order any more.
            let _ = is_prepared.wait_for(|is_prepared| *is_prepared).await;
        }
    }

    /// Whether what an earlier process owed is in order.
    pub(super) fn is_prepared(&self) -> bool {
        *self.is_prepared.borrow()
    }

    /// Runs until its stage is told to end; puts under way then belong to the stage and finish.
    pub async fn run(self: Arc<Self>) {
        let token = self.parts.stage.token();
        let mut look_at = self.parts.clock.mono();
        let mut look_again = self.parts.conditions.look_again();
        loop {
            let woken = self.parts.signal.notified();
            let Told { committed, should_look } = self.parts.signal.take();
            let now = self.parts.clock.mono();
            // The first look puts in order what an earlier process owed; it finds what was committed meanwhile too.
            let are_started = self.is_prepared() && self.start_committed(committed, now);
            if should_look || !are_started || now >= look_at {
                let wait = match self.look().await {
                    Ok(wait) => wait.min(LOOK_EVERY),
                    Err(DbError::Stopped) => return,
                    Err(error) => {
                        tracing::warn!(error = %Chain(&error), "owed puts could not be looked up");
                        DB_FULL_WAIT
                    }
                };
                look_at = self.parts.clock.mono().plus(wait);
            }
            let wait = look_at.since(self.parts.clock.mono());
            tokio::select! {
                () = token.cancelled() => return,
                () = woken => {}
                // Never fails: the conditions are ours too.
                _ = look_again.changed() => look_at = self.parts.clock.mono(),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn look(self: &Arc<Self>) -> Result<Duration, DbError> {
        if !self.is_prepared() {
            self.prepare().await?;
            self.is_prepared.send_replace(true);
            self.parts.stage.spawn(Arc::clone(self).clear_leftovers());
        }
        self.start_due().await
    }

    /// Starts the puts of pictures that have just been committed. `false`: some have to be found by a look, because others
    /// wait already or their bucket is not to be asked now.
    fn start_committed(self: &Arc<Self>, committed: Vec<OwedPut>, now: Mono) -> bool {
        let mut are_started = true;
        for put in committed {
            let place = put.kept_at();
            match self.begin(&place, put.id, now) {
                Committed::Begun => self.start(place, put),
                Committed::Known => {}
                Committed::Waits => are_started = false,
            }
        }
        are_started
    }

    /// Gives a slot to a picture that was just committed, if it need not wait for one.
    fn begin(&self, place: &Place, id: SnapshotId, now: Mono) -> Committed {
        let may_begin = || self.parts.conditions.begin(place, now);
        self.lanes().entry(place.clone()).or_default().take_up_committed(self.parts.slots, id, may_begin)
    }

    /// Tells of what was just committed.
    pub fn signal(&self, committed: Vec<OwedPut>) {
        self.parts.signal.committed(committed);
    }

    /// Brings due times near that an earlier clock has put far away, and finds a store for pictures that had none.
    async fn prepare(&self) -> Result<(), DbError> {
        let (timeline, stores, clock) = (self.parts.timeline.clone(), self.parts.stores.clone(), self.parts.clock);
        let prepare = move |tx: &Tx<'_>| {
            dues::clamp_puts(tx, timeline.now())?;
            // A start is what a person makes after mending something.
            snapshot::try_held(tx, timeline.now())?;
            latest::try_held(tx, timeline.now())?;
            let claimed = |bucket: String, region: &str| {
                let chosen = stores.choose_again(&bucket, region)?;
                let from = Place { store: Stores::UNCLAIMED.to_owned(), bucket };
                Some((from, Place { store: chosen.name.to_string(), bucket: chosen.bucket }))
            };
            for (bucket, region) in snapshot::buckets_of(tx, Stores::UNCLAIMED)? {
                if let Some((from, to)) = claimed(bucket, &region) {
                    snapshot::move_owed(tx, &from, &region, &to, timeline.now(), clock.wall())?;
                }
            }
            let mut superseded = Vec::new();
            for (bucket, region) in latest::buckets_of(tx, Stores::UNCLAIMED)? {
                if let Some((from, to)) = claimed(bucket, &region) {
                    superseded.extend(latest::move_owed(tx, &from, &region, &to, timeline.now(), clock.wall())?);
                }
            }
            Ok(superseded)
        };
        let superseded = self.parts.db.write(prepare).await?;
        let spool = Arc::clone(&self.parts.spool);
        let let_go = move || superseded.into_iter().for_each(|(id, bytes)| spool.remove(id, bytes));
        // A panic in there leaves files to the next start.
        let _ = tokio::task::spawn_blocking(let_go).await;
        Ok(())
    }

    /// Starts a put for everything that is due and has a slot. Tells how long there is nothing more to start.
    async fn start_due(self: &Arc<Self>) -> Result<Duration, DbError> {
        let (now, mono) = (self.parts.timeline.now(), self.parts.clock.mono());
        let fresh_since = self.parts.clock.wall().minus(FRESH);
        let slots = self.parts.slots;
        // As many rows of each place as it has slots, beside those that are under way and will be passed over. A place that
        // is not to be asked now costs a step in an index.
        let bounds: BTreeMap<Place, (usize, UnixMs)> = {
            let bounds = |(place, lane): (&Place, &mut Lane)| {
                lane.begin_look();
                let limit = match self.parts.conditions.wait(place, mono) {
                    Some(_) => 0,
                    None => slots + lane.running(),
                };
                let recovered = self.parts.conditions.recovered(place);
                (place.clone(), (limit, recovered.map_or(fresh_since, |recovered| recovered.max(fresh_since))))
            };
            self.lanes().iter_mut().map(bounds).collect()
        };
        let look = move |conn: &rusqlite::Connection| {
            let due_at = |place: Place| {
                let (limit, fresh_since) = bounds.get(&place).copied().unwrap_or((slots, fresh_since));
                let fresh = snapshot::fresh_puts(conn, &place, fresh_since, limit)?;
                let backlog = snapshot::backlog_puts(conn, &place, now, fresh_since, limit)?;
                let next_due = snapshot::next_put_due(conn, &place, now)?;
                Ok((place, fresh, backlog, next_due))
            };
            snapshot::owed_places(conn)?.into_iter().map(due_at).collect::<Result<Vec<_>, DbError>>()
        };
        let mut wait = LOOK_EVERY;
        for (place, fresh, backlog, next_due) in self.parts.db.read_puts(look).await? {
            wait = next_due.map_or(wait, |due| wait.min(due.since(now)));
            for put in self.take_up(&place, fresh, backlog, mono) {
                self.start(place.clone(), put);
            }
            wait = self.parts.conditions.wait(&place, mono).map_or(wait, |again| wait.min(again));
        }
        Ok(wait)
    }

    /// Gives slots of a place to what is due there.
    fn take_up(&self, place: &Place, fresh: Vec<OwedPut>, backlog: Vec<OwedPut>, now: Mono) -> Vec<OwedPut> {
        let mut lanes = self.lanes();
        let lane = lanes.entry(place.clone()).or_default();
        lane.take_up(self.parts.slots, fresh, backlog, || self.parts.conditions.begin(place, now))
    }

    fn start(self: &Arc<Self>, place: Place, put: OwedPut) {
        let (storer, put) = (Arc::clone(self), Arc::new(put));
        self.parts.stage.spawn(async move {
            let began = storer.parts.clock.mono();
            let result = storer.put_into_store(&put).await;
            let took = storer.parts.clock.mono().since(began);
            storer.end(place, put, took, result).await;
        });
    }

    /// Writes down how a put ended and gives its slot back.
    async fn end(&self, place: Place, put: Arc<OwedPut>, took: Duration, result: Result<Option<String>, StoreError>) {
        let id = put.id;
        match self.settle(&place, put, took, result).await {
            Ok(ended) => self.give_back(&place, id, ended),
            // It stays among those that run: a put whose outcome nobody can learn must not be made again and again while the
            // process ends, least of all after a failed sync.
            Err(Unwritten) => self.parts.conditions.end(&place, self.parts.clock.mono()),
        }
    }

    fn give_back(&self, place: &Place, id: SnapshotId, ended: Ended) {
        let has_queue = self.lanes().get_mut(place).is_some_and(|lane| lane.end(id));
        self.parts.conditions.end(place, self.parts.clock.mono());
        if has_queue || matches!(ended, Ended::Failed) {
            self.parts.signal.look();
        }
    }

    /// How every place does that something is owed to, or that has failed since the start.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn places(&self) -> Result<Vec<PlaceStatus>, DbError> {
        let known = self.parts.conditions.failures();
        let count = move |conn: &rusqlite::Connection| {
            let mut places: BTreeMap<Place, Option<Failure>> = known;
            for place in snapshot::owed_places(conn)?.into_iter().chain(latest::owed_places(conn)?) {
                places.entry(place).or_default();
            }
            let status = |(place, failure): (Place, Option<Failure>)| {
                let mut owed = snapshot::owed_to(conn, &place)?.and(latest::owed_to(conn, &place)?);
                // With nothing left to put, no put will ever end the failure.
                let failure = failure.filter(|_| owed.pictures > 0);
                let state = match &failure {
                    None => PlaceState::Taking,
                    Some(Failure { retry: Retry::Later, .. }) => PlaceState::Failing,
                    Some(Failure { retry: Retry::Held, .. }) => PlaceState::Refusing,
                };
                if state == PlaceState::Refusing {
                    // Those that were not tried wait for the same person.
                    owed.held = owed.pictures;
                }
                let error = failure.map(|failure| (failure.error, failure.mend));
                Ok(PlaceStatus { store: place.store, bucket: place.bucket, state, owed, error })
            };
            places.into_iter().map(status).collect::<Result<Vec<_>, DbError>>()
        };
        self.parts.db.read(count).await
    }

    async fn settle(
        &self,
        place: &Place,
        put: Arc<OwedPut>,
        took: Duration,
        result: Result<Option<String>, StoreError>,
    ) -> Result<Ended, Unwritten> {
        if matches!(result, Err(StoreError::SpoolMissing { .. })) && !self.is_owed(put.id).await {
            // Somebody discarded it after it was found.
            return Ok(Ended::Settled);
        }
        self.note(place, &put, took, result.as_ref().err());
        match result {
            Ok(pic_full_url) => self.stored(put, pic_full_url).await.map(|()| Ended::Settled),
            Err(error) => self.failed(&put, &error).await.map(|()| Ended::Failed),
        }
    }

    /// Tells how a put ended, and learns from it how its bucket does.
    pub(super) fn note(&self, place: &Place, put: &OwedPut, took: Duration, error: Option<&StoreError>) {
        PutEnded {
            trace: put.trace,
            snapshot: put.id,
            store: &put.place(),
            key: &put.key,
            attempt: put.attempts.saturating_add(1),
            took,
            failure: error.map(|error| (error.name(), error.fault(), error as &dyn std::error::Error)),
        }
        .emit(&self.parts.telemetry);
        self.parts.learn(place, error, self.parts.clock.mono());
    }

    /// Puts a picture, and tells where it can be fetched if that was not known when it was committed, or if the URL that was
    /// made then opens it no more.
    async fn put_into_store(&self, put: &OwedPut) -> Result<Option<String>, StoreError> {
        let store = self.parts.stores.named(&put.store);
        let store = store.ok_or_else(|| StoreError::Unknown { store: put.store.clone() })?;
        let spooled = self.parts.spool.path(put.id);
        let bucket = Bucket { region: &put.region, name: &put.bucket };
        let upload = Upload {
            file: &spooled,
            content_type: put.format.content_type(),
            retention_days: put.retention_days,
            is_overwritten: false,
        };
        store.put(bucket, &put.key, upload).await?;
        self.new_url(&*store, put)
    }

    /// Where a picture that was just put can be fetched, if what was said at its commit does not hold.
    fn new_url(&self, store: &dyn ObjectStore, put: &OwedPut) -> Result<Option<String>, StoreError> {
        let (bucket, now) = (Bucket { region: &put.region, name: &put.bucket }, self.parts.clock.wall());
        match &put.pic_full_url {
            Some(url) if store.opens_for_long(bucket, &put.key, url, now) => Ok(None),
            Some(_) | None => store.full_url(bucket, &put.key, now).map(Some),
        }
    }

    async fn is_owed(&self, id: SnapshotId) -> bool {
        // What cannot be looked up counts as owed: the failure is then written down like any other.
        self.parts.db.read(move |conn| snapshot::is_owed(conn, id)).await.unwrap_or(true)
    }

    async fn stored(&self, put: Arc<OwedPut>, pic_full_url: Option<String>) -> Result<(), Unwritten> {
        fail_point::pass("put_acknowledged");
        let written = self.parts.db.write_until_done(|| self.mark(&put, pic_full_url.clone())).await;
        let marked = written.map_err(|_| Unwritten)?;
        fail_point::pass("stored_committed");
        if marked == Marked::Stored {
            self.tell_stored(&put);
        }
        let bucket = Bucket { region: &put.region, name: &put.bucket };
        if marked == Marked::Discarded
            && let Some(store) = self.parts.stores.named(&put.store)
            && let Err(error) = store.remove(bucket, &put.key).await
        {
            tracing::warn!(snapshot = %put.id, error = %Chain(&error), "a discarded picture stays in its store");
        }
        let (spool, id, bytes) = (Arc::clone(&self.parts.spool), put.id, put.file_size_bytes);
        // Joined so that the put's slot covers it: deleting must keep up with writing.
        let _ = tokio::task::spawn_blocking(move || spool.remove(id, bytes)).await;
        Ok(())
    }

    /// Writes down that a picture is stored.
    fn mark(
        &self,
        put: &Arc<OwedPut>,
        pic_full_url: Option<String>,
    ) -> impl FnOnce(&Tx<'_>) -> Result<Marked, DbError> + Send + use<> {
        let (put, timeline, wall) = (Arc::clone(put), self.parts.timeline.clone(), self.parts.clock.wall());
        move |tx| snapshot::mark_stored(tx, &put, pic_full_url.as_deref(), timeline.now(), wall)
    }

    pub(super) fn tell_stored(&self, put: &OwedPut) {
        self.parts.telemetry.tell(Some(&put.stream), || Happening::SnapshotStored {
            snapshot_id: put.id.0,
            store: put.place(),
            key: put.key.clone(),
        });
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
    /// its room in the spool is free. A put of it that is under way takes back what it did when it ends, unless it is of a
    /// latest object, which has nobody to be told of it. `false`: it was not owed. Whoever asks may hang up meanwhile: the
    /// room is freed all the same.
    ///
    /// # Errors
    /// Those of the database; nothing has changed then.
    pub async fn discard(&self, id: SnapshotId, by: &Caller) -> Result<bool, DbError> {
        let (db, spool, wall) = (self.parts.db.clone(), Arc::clone(&self.parts.spool), self.parts.clock.wall());
        let by = by.clone();
        let discard = move |tx: &Tx<'_>| {
            let discarded = match snapshot::discard(tx, id, by.who(), wall)? {
                None => latest::discard(tx, id)?,
                discarded => discarded,
            };
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

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<Place, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
