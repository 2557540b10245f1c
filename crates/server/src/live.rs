//! The live table: every push that lives, with or without a session at this instant.
//!
//! A push is opened once (its row and event 1 are durable before the publisher hears yes), may change sessions, and is
//! closed once: at once after an orderly end, or when its grace runs out. A stopping server closes nothing: the next
//! start finds the open rows and gives each its grace.

mod facts;
mod push;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::catalog::{AdmitPolicy, Catalog};
use framehook_domain::id::PushSequence;
use framehook_domain::pick::{DueCounts, Want};
use framehook_domain::refusal::{CutReason, PushEnd, Refusal};
use framehook_domain::storm::Phases;
use framehook_domain::stream::{PublishAddress, StreamId, StreamParam};
use framehook_domain::time::{Mono, UnixMs};
use framehook_media::AccessUnit;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::push::{OpenPush, PushClosing, PushOpening};
use crate::entropy::Entropy;
use crate::keyframes::{Arrival, Keyframes};
use crate::pipeline::Pipeline;
use crate::push_log::PushLog;
use crate::shutdown::Stage;
use crate::telemetry::Metrics;
use crate::telemetry::event::Chain;

use push::Grace;
pub(crate) use push::{Push, PushSnapshot};

/// How often the time of each push's last media byte is written down. A crash makes `push_duration` short by this at most.
const LAST_MEDIA_SAVED_EVERY: Duration = Duration::from_secs(10);

/// Everything that lives, and what admission needs.
pub(crate) struct Lives {
    pub(crate) clock: Clock,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) metrics: Arc<Metrics>,
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
    /// Counts of pushes that have ended, so that sums never go back.
    ended: DueCounts,
    phases: Phases,
}

/// The parts a [`Lives`] is built from.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) log: PushLog,
    pub(crate) entropy: Entropy,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) policy: AdmitPolicy,
    pub(crate) grace: Duration,
    pub(crate) closings: Stage,
}

/// A session's hold on its push. The driver gives it back through [`Lives::session_ended`].
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) push: Arc<Push>,
    pub(crate) session: u64,
    pub(crate) cut: oneshot::Receiver<CutReason>,
}

/// How a session ended, as far as the push is concerned.
#[derive(Clone, Debug)]
pub(crate) enum SessionEnd {
    /// The publisher said that it is done: the push ends now.
    Orderly(PushEnd),
    /// The connection went away or was cut off: the push may come back within the grace.
    Lost(PushEnd),
    /// The server stops: the push stays open for the next start.
    ServerStops,
}

impl Lives {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            clock: parts.clock,
            pipeline: parts.pipeline,
            metrics: parts.metrics,
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
        let until = self.clock.mono().plus(self.grace);
        for row in open {
            let push = Push::new(row.stream.clone(), row.sequence, row.param, row.user_ip, row.opened_at)
                .restored(row.last_media, Grace { until, end: PushEnd::ServerStopped });
            let older = self.lock().by_stream.get(&row.stream).cloned();
            if let Some(older) = older {
                self.close(&older, PushEnd::ServerStopped);
            }
            self.lock().by_stream.insert(row.stream, Arc::new(push));
        }
        self.grace_changed.notify_one();
    }

    /// Admits a publisher: checks domain, names and keys against the catalog, displaces an older session of the same
    /// stream, and makes the push durable if it is a new one.
    ///
    /// # Errors
    /// The refusal that the encoder is shown.
    pub(crate) async fn admit(&self, address: &PublishAddress, peer: IpAddr, node: IpAddr) -> Result<Hold, Refusal> {
        let catalog = Arc::clone(&self.catalog.borrow());
        let stream = catalog.admit(address, self.clock.wall(), &self.policy)?.stream;
        let (push, session, cut) = self.take_over(&stream, &address.param, peer)?;
        let opening = PushOpening {
            sequence: push.sequence(),
            stream: stream.clone(),
            param: address.param.clone(),
            user_ip: peer,
            node,
            opened_at: push.opened_at(),
        };
        let opened = push.opened.get_or_try_init(|| self.log.open_push(opening)).await;
        if let Err(error) = opened {
            tracing::error!(error = %Chain(&error), %stream, "a push could not be recorded");
            push.release(session);
            self.drop_unopened(&push);
            return Err(Refusal::Internal);
        }
        // The catalog may have changed while the row was written.
        let catalog = Arc::clone(&self.catalog.borrow());
        push.reconcile(self.clock.mono(), catalog.version(), catalog.subscriptions_for(&stream));
        Ok(Hold { push, session, cut })
    }

    fn take_over(
        &self,
        stream: &StreamId,
        param: &StreamParam,
        peer: IpAddr,
    ) -> Result<(Arc<Push>, u64, oneshot::Receiver<CutReason>), Refusal> {
        let mut table = self.lock();
        let push = match table.by_stream.get(stream) {
            Some(push) => Arc::clone(push),
            None => {
                let now = self.clock.wall();
                let sequence = PushSequence::new(now, self.entropy.bits());
                let push = Arc::new(Push::new(stream.clone(), sequence, param.clone(), peer, now));
                table.by_stream.insert(stream.clone(), Arc::clone(&push));
                push
            }
        };
        let (session, cut) = push.take_over(param.clone(), peer, self.clock.mono())?;
        Ok((push, session, cut))
    }

    /// Forgets a push whose row could not be written, unless another session has taken it over meanwhile.
    fn drop_unopened(&self, push: &Arc<Push>) {
        let mut table = self.lock();
        if !push.held() && !push.opened.initialized() {
            table.by_stream.remove(push.stream());
        }
    }

    /// A session is over. Ends its push, starts the grace, or does nothing if another session holds the push by now.
    pub(crate) fn session_ended(self: &Arc<Self>, hold: &Hold, end: SessionEnd) {
        if !hold.push.release(hold.session) {
            return;
        }
        match end {
            SessionEnd::Orderly(end) => self.close(&hold.push, end),
            SessionEnd::Lost(end) => {
                let until = self.clock.mono().plus(self.grace);
                hold.push.enter_grace(Grace { until, end });
                self.grace_changed.notify_one();
            }
            SessionEnd::ServerStops => {}
        }
    }

    /// Ends a push that nobody holds: its grids, its row, event 0.
    fn close(self: &Arc<Self>, push: &Arc<Push>, end: PushEnd) {
        let mut table = self.lock();
        // Between the decision to close and this lock the publisher may have come back, or another task have closed it.
        let listed = table.by_stream.get(push.stream()).is_some_and(|listed| Arc::ptr_eq(listed, push));
        if !listed || push.held() {
            return;
        }
        table.by_stream.remove(push.stream());
        let ended = push.end(self.clock.mono());
        table.ended += ended.counts;
        for seat in ended.seats {
            table.phases.leave(seat);
        }
        drop(table);
        self.keyframes.forget(push.sequence());
        let closing = PushClosing {
            sequence: push.sequence(),
            ended_at: self.clock.wall(),
            last_media: ended.last_media,
            end,
            width: ended.width,
            height: ended.height,
        };
        let lives = Arc::clone(self);
        self.closings.spawn(async move {
            if let Err(error) = lives.log.close_push(closing).await {
                tracing::error!(error = %Chain(&error), "a push could not be closed; the next start closes it");
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

    /// Brings every live push in line with each new catalog, until `token` ends it.
    pub(crate) async fn watch_catalog(self: Arc<Self>, token: CancellationToken) {
        let mut catalog = self.catalog.clone();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                changed = catalog.changed() => if changed.is_err() { return },
            }
            let catalog = Arc::clone(&catalog.borrow_and_update());
            let now = self.clock.mono();
            for push in self.pushes() {
                if let Some(reason) = cut_reason(&catalog, push.stream(), self.clock.wall()) {
                    push.cut(reason);
                }
                push.reconcile(now, catalog.version(), catalog.subscriptions_for(push.stream()));
            }
        }
    }

    /// Writes the times of last media down now and then, until `token` ends it, and once more then.
    pub(crate) async fn save_last_media(self: Arc<Self>, token: CancellationToken) {
        loop {
            let stop = tokio::select! {
                () = token.cancelled() => true,
                () = tokio::time::sleep(LAST_MEDIA_SAVED_EVERY) => false,
            };
            let moved: Vec<(PushSequence, UnixMs)> = self
                .pushes()
                .iter()
                .filter_map(|push| push.unsaved_last_media().map(|at| (push.sequence(), at)))
                .collect();
            if !moved.is_empty()
                && let Err(error) = self.log.save_last_media(moved).await
            {
                tracing::warn!(error = %Chain(&error), "the times of last media could not be written down");
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
        for first in wants.iter().filter(|want| want.is_first) {
            self.seat(push, first, arrival.mono);
        }
        self.pipeline.entry_point(push, unit, arrival, wants);
    }

    /// A grid has just been anchored: notes its phase, and moves it away if a storm of publishers shares it.
    fn seat(&self, push: &Push, first: &Want, anchor: Mono) {
        let (seat, shift) = self.lock().phases.join(first.template.interval, anchor, push.sequence());
        if shift.is_some() {
            self.metrics.phase_moved();
        }
        push.seated(anchor, first.subscriber, seat, shift);
    }

    /// Every live push at this instant, in no order.
    pub(crate) fn pushes(&self) -> Vec<Arc<Push>> {
        self.lock().by_stream.values().cloned().collect()
    }

    /// Pushes with a session, and pushes that may come back.
    pub(crate) fn population(&self) -> (u64, u64) {
        let pushes = self.pushes();
        let live = pushes.iter().filter(|push| push.held()).count();
        (live as u64, (pushes.len() - live) as u64)
    }

    /// The sum of all counts since the start, of live and ended pushes.
    pub(crate) fn totals(&self) -> DueCounts {
        let now = self.clock.mono();
        let table = self.lock();
        let mut sum = table.ended;
        for push in table.by_stream.values() {
            sum += push.totals(now);
        }
        sum
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a push may no longer run under this catalog.
fn cut_reason(catalog: &Catalog, stream: &StreamId, now: UnixMs) -> Option<CutReason> {
    if catalog.is_empty() {
        return None;
    }
    match catalog.domain(&stream.domain) {
        Some(domain) if domain.enabled && !catalog.is_forbidden(stream, now) => None,
        _ => Some(CutReason::Forbidden),
    }
}
