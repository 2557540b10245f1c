//! The live table: every push that lives, with or without a session at this instant.
//!
//! A push is opened once (its row and event 1 are durable before the publisher hears yes), may change sessions, and is
//! closed once: at once after an orderly end, or when its grace runs out. A stopping server closes nothing: the next
//! start finds the open rows and gives each its grace.

mod facts;
mod push;
#[cfg(test)]
pub(crate) mod scene;
mod skips;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::catalog::{Admission, AdmitPolicy, AdmittedBy, Catalog};
use framehook_domain::id::PushSequence;
use framehook_domain::pick::{Anchored, DueCounts, Reconciled};
use framehook_domain::push::{SessionEnd, on_session_end};
use framehook_domain::refusal::{CutReason, PushEnd, Refusal};
use framehook_domain::storm::{Phases, Seat};
use framehook_domain::stream::{PublishAddress, StreamId, StreamParam};
use framehook_domain::time::{Mono, UnixMs};
use framehook_media::AccessUnit;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::audit::{Caller, Change};
use crate::clock::Clock;
use crate::db::push::{OpenPush, PushClosing, PushOpening, PushProgress};
use crate::db::{DbError, audit};
use crate::entropy::Entropy;
use crate::keyframes::{Arrival, Keyframes};
use crate::pipeline::Pipeline;
use crate::push_log::PushLog;
use crate::shutdown::Stage;
use crate::telemetry::Telemetry;
use crate::telemetry::event::Chain;
use crate::telemetry::happening::Happening;

pub(crate) use facts::Passed;
use push::Grace;
pub(crate) use push::{Push, PushSnapshot};

/// How often the time of each push's last media byte and its picture size are written down. A crash makes `push_duration`
/// short by this at most.
const PROGRESS_SAVED_EVERY: Duration = Duration::from_secs(10);

/// How often the wall clock is looked at while screenshot tasks wait for it: it may be set.
const WALL_CLOCK_READ_EVERY: Duration = Duration::from_secs(10);

/// Everything that lives, and what admission needs.
pub(crate) struct Lives {
    pub(crate) clock: Clock,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) telemetry: Arc<Telemetry>,
    catalog: watch::Receiver<Arc<Catalog>>,
    log: PushLog,
    entropy: Entropy,
    keyframes: Arc<Keyframes>,
    policy: AdmitPolicy,
    grace: Duration,
    closings: Stage,
    table: Mutex<Table>,
    grace_changed: Notify,
}

#[derive(Default)]
struct Table {
    by_stream: HashMap<StreamId, Arc<Push>>,
    /// Pushes that have ended while a picture of them was with the commit: its answer still counts. As many as commits
    /// may be under way, plus those that nobody has looked for since.
    ending: Vec<Arc<Push>>,
    /// Counts of pushes that have ended, so that sums never go back.
    ended: DueCounts,
    phases: Phases,
}

/// The parts a [`Lives`] is built from.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) log: PushLog,
    pub(crate) entropy: Entropy,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) policy: AdmitPolicy,
    pub(crate) grace: Duration,
    pub(crate) closings: Stage,
}

/// A session's hold on its push. It is given back with the reason why the session ended; one that is merely dropped, as by
/// a session that panicked, lets the push wait for its publisher.
#[derive(Debug)]
pub(crate) struct Hold {
    lives: Arc<Lives>,
    pub(crate) push: Arc<Push>,
    session: u64,
    pub(crate) cut: oneshot::Receiver<CutReason>,
    is_given_back: bool,
}

impl Hold {
    /// The session is over. Ends its push, starts the grace, or does nothing if another session holds the push by now.
    pub(crate) fn give_back(mut self, end: PushEnd) {
        self.is_given_back = true;
        self.lives.let_go(&self.push, self.session, end);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.lives.let_go(&self.push, self.session, PushEnd::ServerStopped);
        }
    }
}

impl fmt::Debug for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lives").finish_non_exhaustive()
    }
}

impl Lives {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            clock: parts.clock,
            pipeline: parts.pipeline,
            telemetry: parts.telemetry,
            catalog: parts.catalog,
            log: parts.log,
            entropy: parts.entropy,
            keyframes: parts.keyframes,
            policy: parts.policy,
            grace: parts.grace,
            closings: parts.closings,
            table: Mutex::default(),
            grace_changed: Notify::new(),
        })
    }

    /// Takes up the pushes that were open when the process last ended, in the order they were opened: each may come back
    /// within the grace. Of several of one stream only the newest can; the others end now.
    pub(crate) fn restore(self: &Arc<Self>, open: Vec<OpenPush>) {
        let now = (self.clock.wall(), self.clock.mono());
        let grace = Grace { until: now.1.plus(self.grace), end: PushEnd::ServerStopped };
        for row in open {
            let stream = row.stream.clone();
            let older = self.lock().by_stream.get(&stream).cloned();
            if let Some(older) = older {
                self.close(&older, PushEnd::ServerStopped);
            }
            self.keyframes.open(row.sequence);
            self.lock().by_stream.insert(stream, Arc::new(Push::restored(row, now, grace)));
        }
        self.grace_changed.notify_one();
    }

    /// Admits a publisher: checks domain, names and keys against the catalog, displaces an older session of the same
    /// stream, and makes the push durable if it is a new one.
    ///
    /// # Errors
    /// The refusal that the encoder is shown.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        address: &PublishAddress,
        peer: IpAddr,
        node: IpAddr,
    ) -> Result<Hold, Refusal> {
        let catalog = Arc::clone(&self.catalog.borrow());
        let admission = catalog.admit(address, self.clock.wall(), &self.policy)?;
        let hold = self.take_over(&admission, &address.param, peer)?;
        let push = &hold.push;
        let opening = PushOpening {
            sequence: push.sequence(),
            stream: admission.stream.clone(),
            param: address.param.clone(),
            user_ip: peer,
            node,
            opened_at: push.opened_at(),
        };
        let open = async || {
            self.log.open_push(opening).await?;
            let what = || Happening::PushBegan { sequence: push.sequence().to_string(), peer };
            self.telemetry.tell(Some(push.stream()), what);
            Ok::<(), DbError>(())
        };
        if let Err(error) = push.opened.get_or_try_init(open).await {
            tracing::error!(error = %Chain(&error), stream = %push.stream(), "a push could not be recorded");
            // Sessions wait for the row in the order in which they displaced each other, so the one that holds the push
            // tries last: if that fails as well, nobody is left to record it, and it ends here.
            hold.give_back(PushEnd::Unpublished);
            return Err(Refusal::Internal);
        }
        // The catalog may have changed while the row was written.
        let catalog = Arc::clone(&self.catalog.borrow());
        self.follow(push, &catalog);
        Ok(hold)
    }

    fn take_over(self: &Arc<Self>, admission: &Admission, param: &StreamParam, peer: IpAddr) -> Result<Hold, Refusal> {
        let Admission { stream, by } = admission;
        let now = (self.clock.wall(), self.clock.mono());
        let mut table = self.lock();
        let push = match table.by_stream.get(stream) {
            Some(push) => Arc::clone(push),
            None => {
                let sequence = PushSequence::new(now.0, self.entropy.bits());
                let push = Arc::new(Push::new(stream.clone(), sequence, param.clone(), peer, now));
                table.by_stream.insert(stream.clone(), Arc::clone(&push));
                self.keyframes.open(sequence);
                push
            }
        };
        let (session, cut) = push.take_over(*by, param.clone(), peer, now.1)?;
        Ok(Hold { lives: Arc::clone(self), push, session, cut, is_given_back: false })
    }

    /// A session is over.
    fn let_go(self: &Arc<Self>, push: &Arc<Push>, session: u64, end: PushEnd) {
        let fate = on_session_end(end);
        let grace = Grace { until: self.clock.mono().plus(self.grace), end };
        if !push.release(session, (fate == SessionEnd::AwaitReturn).then_some(grace)) {
            return;
        }
        match fate {
            SessionEnd::EndPush => self.close(push, end),
            SessionEnd::AwaitReturn => self.grace_changed.notify_one(),
            // Whoever displaced it holds the push, so `release` had nothing to take.
            SessionEnd::Displaced => {}
        }
    }

    /// Ends a push that nobody holds: its grids, its row, event 0.
    fn close(self: &Arc<Self>, push: &Arc<Push>, end: PushEnd) {
        let mut table = self.lock();
        // Between the decision to close and this lock the publisher may have come back, or another task have closed it.
        let listed = table.by_stream.get(push.stream()).is_some_and(|listed| Arc::ptr_eq(listed, push));
        if !listed || push.is_held() {
            return;
        }
        table.by_stream.remove(push.stream());
        let now = self.clock.mono();
        for seat in push.end(now) {
            table.phases.leave(seat);
        }
        table.ending.push(Arc::clone(push));
        table.settle_ending(now);
        drop(table);
        self.keyframes.forget(push.sequence());
        // Without a row there is nobody who was told of its beginning.
        if push.opened.initialized() {
            self.record_end(push, end);
        }
    }

    /// Closes a push's row, with event 0. Doing so twice changes nothing.
    fn record_end(self: &Arc<Self>, push: &Push, end: PushEnd) {
        let PushProgress { sequence, last_media, width, height } = push.progress();
        let closing = PushClosing { sequence, ended_at: self.clock.wall(), last_media, end, width, height };
        let (lives, stream) = (Arc::clone(self), push.stream().clone());
        self.closings.spawn(async move {
            match lives.log.close_push(closing).await {
                Ok(()) => lives.telemetry.tell(Some(&stream), || Happening::PushEnded {
                    sequence: sequence.to_string(),
                    reason: end.name(),
                    errcode: end.errcode(),
                }),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "a push could not be closed; the next start closes it");
                }
            }
        });
    }

    /// Closes pushes whose grace has run out, until `token` ends it.
    pub(crate) async fn watch_grace(self: Arc<Self>, token: CancellationToken) {
        loop {
            let now = self.clock.mono();
            let mut next: Option<Mono> = None;
            for push in self.pushes() {
                if let Some(grace) = push.grace() {
                    if grace.until <= now {
                        self.close(&push, grace.end);
                    } else {
                        next = Some(next.map_or(grace.until, |soonest| soonest.min(grace.until)));
                    }
                }
            }
            let changed = self.grace_changed.notified();
            let wait = async {
                match next {
                    Some(until) => tokio::time::sleep_until(self.clock.instant(until)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = changed => {}
                () = wait => {}
            }
        }
    }

    /// Brings every live push in line with each new catalog, and with the same one when a screenshot task begins or ends,
    /// until `token` ends it.
    pub(crate) async fn watch_catalog(self: Arc<Self>, token: CancellationToken) {
        let mut watched = self.catalog.clone();
        let (mut was_empty, mut followed) = {
            let catalog = watched.borrow_and_update();
            (catalog.is_empty(), catalog.version())
        };
        // No edge after this one was seen by anybody yet, however long following takes.
        let mut followed_at = self.clock.wall();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                changed = watched.changed() => if changed.is_err() { return },
                () = self.wait_for_task_edge(followed_at) => {}
            }
            followed_at = self.clock.wall();
            let catalog = Arc::clone(&watched.borrow_and_update());
            let version = catalog.version();
            if std::mem::replace(&mut followed, version) != version {
                self.telemetry.tell(None, || Happening::ConfigurationChanged { version });
            }
            let pushes = self.pushes();
            for push in &pushes {
                self.follow(push, &catalog);
            }
            if std::mem::replace(&mut was_empty, catalog.is_empty()) && !catalog.is_empty() {
                let is_stranger = |push: &&Arc<Push>| {
                    catalog.cut_reason(push.stream(), AdmittedBy::Domain, self.clock.wall()).is_some() && push.is_held()
                };
                let strangers = pushes.iter().filter(is_stranger).count();
                tracing::info!(
                    strangers,
                    "the built-in rule has ended: pushes need a configured domain from now on; those that run without \
                     one go on until their publishers leave"
                );
            }
        }
    }

    /// Waits until a screenshot task begins or ends that had not done so at `after`, or until it is time to look at the wall
    /// clock again.
    async fn wait_for_task_edge(&self, after: UnixMs) {
        let edge = self.catalog.borrow().next_task_edge(after);
        match edge {
            Some(edge) => tokio::time::sleep(edge.since(self.clock.wall()).min(WALL_CLOCK_READ_EVERY)).await,
            None => std::future::pending().await,
        }
    }

    /// Brings one push in line with a catalog: its grids, and whether it may go on at all.
    fn follow(&self, push: &Push, catalog: &Catalog) {
        if let Some(by) = push.admitted_by()
            && let Some(reason) = catalog.cut_reason(push.stream(), by, self.clock.wall())
        {
            push.cut(reason);
        }
        let look = || (self.clock.mono(), catalog.subscriptions_for(push.stream(), self.clock.wall()));
        let Reconciled { vacated, anchored } = push.reconcile(catalog.version(), look);
        self.vacate(vacated);
        for grid in anchored {
            self.seat(push, grid, self.clock.mono());
        }
    }

    /// Writes down now and then how far pushes have come, until `token` ends it, and once more then.
    pub(crate) async fn save_progress(self: Arc<Self>, token: CancellationToken) {
        loop {
            let stop = tokio::select! {
                () = token.cancelled() => true,
                () = tokio::time::sleep(PROGRESS_SAVED_EVERY) => false,
            };
            let moved: Vec<PushProgress> = self.pushes().iter().filter_map(|push| push.unsaved_progress()).collect();
            if !moved.is_empty()
                && let Err(error) = self.log.save_progress(moved).await
            {
                tracing::warn!(error = %Chain(&error), "how far pushes have come could not be written down");
            }
            if stop {
                return;
            }
        }
    }

    /// An entry point of a push has arrived in full. Never waits.
    pub(crate) fn entry_point(&self, push: &Arc<Push>, unit: AccessUnit) {
        let arrival = Arrival { mono: self.clock.mono(), wall: self.clock.wall() };
        let wants = push.entry_point(&unit, arrival);
        for grid in wants.iter().filter_map(|want| want.anchored) {
            self.seat(push, grid, arrival.mono);
        }
        self.pipeline.entry_point(push, unit, arrival, wants);
    }

    /// A grid has new dues: notes their phase, and moves them away if a storm of pushes shares it.
    fn seat(&self, push: &Push, grid: Anchored, now: Mono) {
        let (seat, shift) = self.lock().phases.join(grid.interval, grid.due, push.sequence());
        if shift.is_some() {
            self.telemetry.metrics.phase_moved();
        }
        self.vacate(push.seated(now, grid.grid, seat, shift));
    }

    fn vacate(&self, seats: impl IntoIterator<Item = Seat>) {
        for seat in seats {
            self.lock().phases.leave(seat);
        }
    }

    /// Every live push at this instant, in no order.
    pub(crate) fn pushes(&self) -> Vec<Arc<Push>> {
        self.lock().by_stream.values().cloned().collect()
    }

    /// The push of a stream that lives or may come back.
    pub(crate) fn push_of(&self, stream: &StreamId) -> Option<Arc<Push>> {
        self.lock().by_stream.get(stream).cloned()
    }

    /// Every push that has a session at this instant, in no order.
    pub(crate) fn online(&self) -> Vec<Arc<Push>> {
        self.lock().by_stream.values().filter(|push| push.is_held()).cloned().collect()
    }

    /// Tells the publisher of a stream to go, because `by` wants it, if it has one. First that is noted: what cannot be noted
    /// is not done. Whoever asks may hang up meanwhile.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn drop_publisher(self: &Arc<Self>, stream: StreamId, by: Caller) -> Result<(), DbError> {
        let Some(push) = self.push_of(&stream).filter(|push| push.is_held()) else { return Ok(()) };
        let (db, now) = (self.log.db.clone(), self.clock.wall());
        let work = async move {
            db.write(move |tx| audit::note(tx, &by, &Change::stream_dropped(&stream), now)).await?;
            push.cut(CutReason::Dropped);
            Ok(())
        };
        self.closings.finish(work).await.unwrap_or(Err(DbError::Stopped))
    }

    /// Pushes with a session, and pushes that may come back.
    pub(crate) fn population(&self) -> (u64, u64) {
        let pushes = self.pushes();
        let live = pushes.iter().filter(|push| push.is_held()).count();
        (live as u64, (pushes.len() - live) as u64)
    }

    /// The sum of all counts since the start, of live and ended pushes.
    pub(crate) fn totals(&self) -> DueCounts {
        let now = self.clock.mono();
        let mut table = self.lock();
        table.settle_ending(now);
        let pushes = table.by_stream.values().chain(&table.ending);
        pushes.map(|push| push.totals(now)).chain([table.ended]).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Folds the counts of ended pushes into one sum, once nothing of them is open any more.
    fn settle_ending(&mut self, now: Mono) {
        let ended = &mut self.ended;
        self.ending.retain(|push| {
            let counts = push.totals(now);
            if counts.open == 0 {
                *ended += counts;
            }
            counts.open > 0
        });
    }
}

#[cfg(test)]
mod tests;
