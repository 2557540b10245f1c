//! The driver: claims deliveries that are due, as many as there are slots, and starts an attempt of each.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::catalog::Catalog;
use framehook_domain::time::UnixMs;
use tokio::sync::{Notify, watch};

use super::Schedules;
use super::attempt::{Target, run_attempt};
use super::client::Client;
use crate::clock::Clock;
use crate::db::outbox::{self, ClaimId, EndpointId, EndpointRow, Lane, Slots};
use crate::db::secret::Vault;
use crate::db::{Db, DbError, dues};
use crate::shutdown::Stage;
use crate::telemetry::Telemetry;
use crate::telemetry::event::Chain;
use crate::timeline::Timeline;

/// How long the notifier sleeps at most without being woken, in case a signal was lost with the task that owed it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait before claiming again when the database failed: without it no outcome could be written down either.
const DB_WAIT: Duration = Duration::from_secs(1);

/// Wait before an attempt is made again whose outcome was lost. Whatever is wrong with us, a receiver must not be asked in a
/// tight loop.
const LOST_CLAIM_WAIT: Duration = Duration::from_secs(5);

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
    pub telemetry: Arc<Telemetry>,
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
    running: Mutex<Running>,
    lanes: Arc<Mutex<Lanes>>,
}

/// The attempts under way.
struct Running {
    slots: Slots,
    claims: HashSet<ClaimId>,
}

impl Notifier {
    pub fn new(parts: NotifierParts) -> Arc<Self> {
        let slots = Slots::new(parts.slots, parts.slots_per_receiver);
        let running = Mutex::new(Running { slots, claims: HashSet::new() });
        Arc::new(Self { parts, running, lanes: Arc::default() })
    }

    /// Runs until `stage` is told to end; attempts under way then are tasks of the stage and finish.
    pub async fn run(self: Arc<Self>, stage: Stage) {
        let token = stage.token();
        let mut catalog = self.parts.catalog.clone();
        // The configuration may have changed while no process ran.
        catalog.mark_changed();
        let mut recovered = false;
        let mut looked_for_lost = self.parts.clock.mono();
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
                let now = self.parts.clock.mono();
                if now.since(looked_for_lost) >= LOOK_EVERY {
                    looked_for_lost = now;
                    self.take_back_lost_claims().await?;
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
        self.running_now().slots.running()
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

    /// Takes back claims whose attempt ended without a trace: it panicked, or its outcome was refused by the database.
    async fn take_back_lost_claims(&self) -> Result<(), DbError> {
        let (epoch, timeline) = (self.parts.db.epoch(), self.parts.timeline.clone());
        // Claims are made by this task alone, so none can come between this look and the next.
        let held = self.running_now().claims.clone();
        let take_back = move |tx: &crate::db::Tx<'_>| {
            let due = timeline.now().plus(LOST_CLAIM_WAIT);
            outbox::take_back_lost_claims(tx, epoch, &held, due, LOST_CLAIM_WAIT)
        };
        let lost = self.parts.db.write(take_back).await?;
        if lost > 0 {
            tracing::error!(lost, "attempts ended without an outcome; they are made again");
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
        let slots = self.running_now().slots.clone();
        let (epoch, timeline) = (self.parts.db.epoch(), self.parts.timeline.clone());
        let (catalog, vault) = (Arc::clone(&self.parts.catalog.borrow()), self.parts.vault.clone());
        let lanes = Arc::clone(&self.lanes);
        let claim = move |tx: &crate::db::Tx<'_>| {
            let mut lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.follow(&catalog);
            outbox::claim_due(tx, epoch, timeline.now(), slots, |endpoint| lanes.of(&catalog, &vault, endpoint))
        };
        let round = self.parts.db.write(claim).await?;
        {
            let mut running = self.running_now();
            running.slots.take_for(&round);
            running.claims.extend(round.claims.iter().map(|claim| claim.id));
        }
        for claim in round.claims {
            let notifier = Arc::clone(self);
            let slot = Slot { notifier: Arc::clone(self), lane: claim.lane.clone(), claim: claim.id };
            stage.spawn(async move {
                let _slot = slot;
                run_attempt(&notifier.parts, &claim).await;
            });
        }
        Ok(round.next_due)
    }

    fn wait_until(&self, next_due: Option<UnixMs>) -> Duration {
        let until_due = next_due.map(|due| due.since(self.parts.timeline.now()));
        until_due.map_or(LOOK_EVERY, |wait| wait.min(LOOK_EVERY))
    }

    fn running_now(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim's slot, given back however its attempt ends.
struct Slot {
    notifier: Arc<Notifier>,
    lane: Lane,
    claim: ClaimId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = self.notifier.running_now();
        running.slots.give_back(&self.lane);
        running.claims.remove(&self.claim);
        drop(running);
        self.notifier.parts.wake.notify_one();
    }
}

/// Where each endpoint leads, remembered for as long as the configuration stays: finding out takes opening and parsing a
/// URL, and every endpoint with something due is asked for in every round.
#[derive(Default)]
struct Lanes {
    /// The configuration that they are true of.
    version: u64,
    known: HashMap<EndpointId, Lane>,
}

/// Lanes that are remembered, some 100 bytes each. There are three endpoints for each of fifty templates, and one for each
/// URL that replays are sent to.
const LANES_MAX: usize = 10_000;

impl Lanes {
    fn follow(&mut self, catalog: &Catalog) {
        if self.version != catalog.version() || self.known.len() >= LANES_MAX {
            *self = Self { version: catalog.version(), known: HashMap::new() };
        }
    }

    /// By host and port. Endpoints that lead nowhere share a lane: their deliveries are settled without a request.
    fn of(&mut self, catalog: &Catalog, vault: &Vault, endpoint: &EndpointRow) -> Lane {
        let find = || match Target::of(catalog, vault, endpoint) {
            Ok(target) => Lane(target.endpoint.origin().to_string()),
            Err(_) => Lane(String::new()),
        };
        self.known.entry(endpoint.id).or_insert_with(find).clone()
    }
}
