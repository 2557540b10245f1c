//! The driver: claims deliveries that are due, as many as there are slots, and starts an attempt of each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::catalog::Catalog;
use framehook_domain::time::UnixMs;
use tokio::sync::{Notify, watch};

use super::Schedules;
use super::attempt::{Target, run_attempt};
use super::client::Client;
use crate::clock::Clock;
use crate::db::outbox::{self, EndpointRow, Lane, Slots};
use crate::db::secret::Vault;
use crate::db::{Db, DbError, dues};
use crate::shutdown::Stage;
use crate::telemetry::Metrics;
use crate::telemetry::event::Chain;
use crate::telemetry::log::Repeats;
use crate::timeline::Timeline;

/// How long the notifier sleeps at most without being woken, in case a signal was lost with the task that owed it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait before claiming again when the database failed: without it no outcome could be written down either.
const DB_WAIT: Duration = Duration::from_secs(1);

/// Deliveries of a deleted template that become dead in one transaction.
const BURIED_AT_ONCE: usize = 1000;

/// The parts a [`Notifier`] is built from.
#[derive(Clone)]
pub struct NotifierParts {
    pub db: Db,
    /// URL and key are read from the configuration of the moment of each attempt.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub vault: Vault,
    pub client: Arc<Client>,
    pub clock: Clock,
    pub timeline: Timeline,
    pub metrics: Arc<Metrics>,
    pub repeats: Arc<Repeats>,
    /// Signalled when deliveries have become due.
    pub wake: Arc<Notify>,
    pub schedules: Schedules,
    /// Of one attempt, from resolving to the answer's head. CSS: 20 s.
    pub deadline: Duration,
    /// Attempts at a time, beside the one that each receiver has for itself.
    pub slots: usize,
    /// Attempts at a time to one receiver.
    pub slots_per_receiver: usize,
}

/// Sends what is owed.
pub struct Notifier {
    pub(super) parts: NotifierParts,
    slots: Mutex<Slots>,
}

impl Notifier {
    pub fn new(parts: NotifierParts) -> Arc<Self> {
        let slots = Slots::new(parts.slots, parts.slots_per_receiver);
        Arc::new(Self { parts, slots: Mutex::new(slots) })
    }

    /// Runs until `stage` is told to end; attempts under way then are tasks of the stage and finish.
    pub async fn run(self: Arc<Self>, stage: Stage) {
        let token = stage.token();
        let mut catalog = self.parts.catalog.clone();
        // The configuration may have changed while no process ran.
        catalog.mark_changed();
        let mut recovered = false;
        loop {
            let woken = self.parts.wake.notified();
            let round = async {
                if !recovered {
                    self.recover().await?;
                    recovered = true;
                }
                if catalog.has_changed().unwrap_or(false) {
                    catalog.mark_unchanged();
                    self.bury_without_template().await?;
                }
                self.claim(&stage).await
            };
            let wait = match round.await {
                Ok(next_due) => self.wait_until(next_due),
                Err(DbError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "owed callbacks could not be taken up");
                    DB_WAIT
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = woken => {}
                changed = catalog.changed() => if changed.is_ok() { catalog.mark_changed() },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Attempts under way.
    pub fn running(&self) -> usize {
        self.slots().running()
    }

    /// Takes back what older processes claimed, to be sent at once as the same attempt, and lets no delivery wait longer
    /// than its own step.
    async fn recover(&self) -> Result<(), DbError> {
        let (epoch, timeline) = (self.parts.db.epoch(), self.parts.timeline.clone());
        let recover = move |tx: &crate::db::Tx<'_>| {
            let now = timeline.now();
            Ok((outbox::void_old_claims(tx, epoch, now)?, dues::clamp_deliveries(tx, now)?))
        };
        let (voided, clamped) = self.parts.db.write(recover).await?;
        if voided + clamped > 0 {
            tracing::info!(voided, clamped, "took up the callbacks that the last process left");
        }
        Ok(())
    }

    async fn bury_without_template(&self) -> Result<(), DbError> {
        let mut buried = BURIED_AT_ONCE;
        while buried == BURIED_AT_ONCE {
            let catalog = Arc::clone(&self.parts.catalog.borrow());
            let wall = self.parts.clock.wall();
            let bury = move |tx: &crate::db::Tx<'_>| {
                let has_url = |template, kind| {
                    catalog.callback_template(template).is_some_and(|template| template.urls.of(kind).is_some())
                };
                outbox::bury_without_template(tx, has_url, BURIED_AT_ONCE, wall)
            };
            buried = self.parts.db.write(bury).await?;
            if buried > 0 {
                tracing::warn!(buried, "callbacks of a deleted template or URL are dead letters now");
            }
        }
        Ok(())
    }

    /// Claims what is due and starts its attempts. Tells when the next delivery falls due.
    async fn claim(self: &Arc<Self>, stage: &Stage) -> Result<Option<UnixMs>, DbError> {
        let slots = self.slots().clone();
        let (epoch, timeline) = (self.parts.db.epoch(), self.parts.timeline.clone());
        let (catalog, vault) = (Arc::clone(&self.parts.catalog.borrow()), self.parts.vault.clone());
        let claim = move |tx: &crate::db::Tx<'_>| {
            let lane_of = |endpoint: &EndpointRow| lane_of(&catalog, &vault, endpoint);
            outbox::claim_due(tx, epoch, timeline.now(), slots, lane_of)
        };
        let round = self.parts.db.write(claim).await?;
        self.slots().take_for(&round);
        for claim in round.claims {
            let notifier = Arc::clone(self);
            stage.spawn(async move {
                let _slot = Slot { notifier: &notifier, lane: claim.lane.clone() };
                run_attempt(&notifier.parts, &claim).await;
            });
        }
        Ok(round.next_due)
    }

    fn wait_until(&self, next_due: Option<UnixMs>) -> Duration {
        let until_due = next_due.map(|due| due.since(self.parts.timeline.now()));
        until_due.map_or(LOOK_EVERY, |wait| wait.min(LOOK_EVERY))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim's slot, given back however its attempt ends.
struct Slot<'a> {
    notifier: &'a Notifier,
    lane: Lane,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.notifier.slots().give_back(&self.lane);
        self.notifier.parts.wake.notify_one();
    }
}

/// By host and port. Endpoints that lead nowhere share a lane: their deliveries are settled without a request.
fn lane_of(catalog: &Catalog, vault: &Vault, endpoint: &EndpointRow) -> Lane {
    match Target::of(catalog, vault, endpoint) {
        Ok(target) => Lane(target.endpoint.origin().to_string()),
        Err(_) => Lane(String::new()),
    }
}
