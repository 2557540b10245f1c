//! The driver: claims deliveries that are due, as far as receivers have room, and starts an attempt of each.
//!
//! What falls due is claimed in the transaction that makes it due ([`Db::join_due`]). So a transaction is made to claim when a
//! due time comes, when an attempt ends and gives its slot to what waited for one, and when the configuration changes; and every
//! few seconds, in case something went wrong.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use framehook_domain::catalog::Catalog;
use framehook_domain::dispatch::{Felt, LaneFacts, Limits, Ticket};
use framehook_domain::retry::DeadReason;
use framehook_domain::time::Mono;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Schedules;
use super::attempt::{run_attempt, tell_buried};
use super::client::Client;
use super::replays::Recovered;
use super::rounds::{Look, Overdue, Round, Rounds};
use super::settler::Settler;
use crate::clock::Clock;
use crate::db::outbox::{self, Burial, Buried, Claim, ClaimId, EndpointId, EndpointRow};
use crate::db::secret::Vault;
use crate::db::{Db, DbError, Tx, dues};
use crate::entropy::Entropy;
use crate::shutdown::Stage;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{Chain, EndpointOverdue};
use crate::timeline::Timeline;

/// How long the notifier sleeps at most without being woken, in case anything was forgotten.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Wait before claiming again when the database failed: without it no outcome could be written down either.
const DB_WAIT: Duration = Duration::from_secs(1);

/// Wait before an attempt is made again whose outcome was lost. Whatever is wrong with us, a receiver must not be asked in a
/// tight loop.
const LOST_CLAIM_WAIT: Duration = Duration::from_secs(5);

/// A receiver must have been paused for so long before anything that waits for it is given up, or for as long as that may
/// wait. Due times are on the wall clock while no process runs: after a start with a wrong clock, or after days without a
/// process, this is the time in which the clock is set (due times then move along) or the receiver answers.
const PAUSED_FOR: Duration = Duration::from_secs(3600);

/// Deliveries that become dead in one transaction, of a deleted template or held for too long. Half of what a listener may be behind, so that one
/// which keeps up hears of each.
const BURIED_AT_ONCE: usize = 500;

/// The parts a [`Notifier`] is built from.
#[derive(Clone)]
pub struct NotifierParts {
    pub db: Db,
    /// URL and key are read from the configuration of the moment of each attempt.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub vault: Vault,
    pub client: Arc<Client>,
    pub clock: Clock,
    /// For the jitter between attempts.
    pub entropy: Entropy,
    pub timeline: Timeline,
    pub telemetry: Arc<Telemetry>,
    /// Where it is noted which receivers answer.
    pub recovered: Recovered,
    pub schedules: Schedules,
    /// Of one attempt, from resolving to the answer's head. CSS: 20 s.
    pub deadline: Duration,
    /// The age from which on a callback that is due and not sent is worth a person's look.
    pub overdue_after: Duration,
    /// How long a callback may be due whose receiver is paused.
    pub held_max: Duration,
    /// Attempts at a time, to all receivers and to one.
    pub limits: Limits,
}

/// Sends what is owed.
pub struct Notifier {
    pub(super) parts: NotifierParts,
    /// Held over the whole of a look at the outbox.
    rounds: Mutex<Rounds>,
    /// Attempts that have ended since `rounds` was last taken: whoever ends one must not wait for a look. There are never more
    /// than attempts under way.
    ended: Mutex<Vec<Ended>>,
    /// Whether something waits for the slot of an attempt that ends: the last look has left something that is or falls due, or
    /// another look is under way.
    is_slot_awaited: Arc<AtomicBool>,
    /// Signalled when such a slot is free.
    wake: Notify,
    /// What was claimed by looks that joined others' transactions and has not been started yet: as much as there are slots at
    /// most.
    joined: Mutex<Claimed>,
    has_joined: Notify,
}

/// A look at the outbox whose transaction may still fail.
struct Tentative {
    notifier: Arc<Notifier>,
    /// `None` once it lasts.
    claimed: Option<Claimed>,
}

/// What was claimed.
#[derive(Default)]
struct Claimed {
    claims: Vec<(Claim, Slot)>,
    buried: Vec<Option<Buried>>,
    /// After which time another look can give something, if nothing happens meanwhile.
    next: Option<Duration>,
}

/// An attempt's end, not yet told to [`Rounds`].
struct Ended {
    claim: ClaimId,
    ticket: Ticket,
    felt: Felt,
    at: Mono,
}

impl Notifier {
    pub fn new(parts: NotifierParts) -> Arc<Self> {
        let rounds = Mutex::new(Rounds::new(parts.limits));
        let is_slot_awaited = Arc::new(AtomicBool::new(true));
        Arc::new(Self {
            parts,
            rounds,
            ended: Mutex::default(),
            is_slot_awaited,
            wake: Notify::new(),
            joined: Mutex::default(),
            has_joined: Notify::new(),
        })
    }

    /// Runs until `stage` is told to end; attempts under way then are tasks of the stage and finish.
    pub async fn run(self: Arc<Self>, stage: Stage) {
        let token = stage.token();
        // It ends after the last attempt, each of which holds it.
        let NotifierParts { db, timeline, .. } = &self.parts;
        let settler = Settler::start(db.clone(), timeline.clone(), Arc::clone(&self.is_slot_awaited), &stage);
        let mut catalog = self.parts.catalog.clone();
        // The configuration may have changed while no process ran.
        catalog.mark_changed();
        let mut recovered = false;
        let mut looked_for_lost = self.parts.clock.mono();
        let mut is_some_held = false;
        loop {
            let mut woken = pin!(self.wake.notified());
            let round = async {
                if !recovered {
                    self.recover().await?;
                    self.join_what_falls_due(token.clone());
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
                    self.rounds().distrust();
                    self.tell_overdue();
                    is_some_held = true;
                }
                let next = self.claim(&stage, &settler).await?;
                if is_some_held {
                    is_some_held = self.bury_held().await?;
                }
                // However many there are: between two portions everybody else has a turn.
                Ok(if is_some_held { Some(Duration::ZERO) } else { next })
            };
            let wait = match round.await {
                Ok(next) => next.map_or(LOOK_EVERY, |wait| wait.min(LOOK_EVERY)),
                Err(DbError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "owed callbacks could not be taken up");
                    DB_WAIT
                }
            };
            let mut look_at = Instant::now() + wait;
            loop {
                tokio::select! {
                    () = token.cancelled() => return self.start_last(&stage, &settler).await,
                    () = &mut woken => break,
                    changed = catalog.changed() => {
                        if changed.is_ok() {
                            catalog.mark_changed();
                        }
                        break;
                    }
                    () = self.has_joined.notified() => {
                        let next = self.start_joined(&stage, &settler);
                        // It may be older than the look before: what that said stands too.
                        look_at = next.map_or(look_at, |next| look_at.min(Instant::now() + next));
                    }
                    () = tokio::time::sleep_until(look_at) => break,
                }
            }
        }
    }

    /// What is known of the receiver that an endpoint leads to.
    pub fn receiver_of(&self, endpoint: EndpointId) -> Option<LaneFacts> {
        self.rounds().receiver_of(endpoint)
    }

    /// Tells, once each, of endpoints whose callbacks are overdue, and of those where that is over.
    fn tell_overdue(&self) {
        let NotifierParts { timeline, telemetry, overdue_after, .. } = &self.parts;
        let Overdue { oldest, count, began, ended } = self.rounds().overdue(timeline.now(), *overdue_after);
        telemetry.metrics.overdue(count, oldest);
        let overdue = |row: &EndpointRow, age| EndpointOverdue {
            endpoint: row.id,
            template: row.template,
            event_type: row.kind.event_type(),
            age,
        };
        for (row, age) in began {
            overdue(&row, Some(age)).emit(telemetry);
        }
        for row in ended {
            overdue(&row, None).emit(telemetry);
        }
    }

    /// Attempts under way.
    pub fn running(&self) -> usize {
        self.rounds().dispatch.running()
    }

    /// Takes back what older processes claimed, to be sent at once as the same attempt, and lets no delivery wait longer
    /// than its own step.
    async fn recover(&self) -> Result<(), DbError> {
        let (epoch, timeline) = (self.parts.db.epoch(), self.parts.timeline.clone());
        let recover = move |tx: &Tx<'_>| {
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
    async fn take_back_lost_claims(self: &Arc<Self>) -> Result<(), DbError> {
        let (epoch, timeline) = (self.parts.db.epoch(), self.parts.timeline.clone());
        let notifier = Arc::clone(self);
        let take_back = move |tx: &Tx<'_>| {
            let due = timeline.now().plus(LOST_CLAIM_WAIT);
            // Claims are made where this runs, so none is in the database that is not among these.
            let held = notifier.rounds().claims.clone();
            outbox::take_back_lost_claims(tx, epoch, &held, due, LOST_CLAIM_WAIT)
        };
        let lost = self.parts.db.write(take_back).await?;
        if lost > 0 {
            tracing::error!(lost, "attempts ended without an outcome; they are made again");
        }
        Ok(())
    }

    async fn bury_without_template(&self) -> Result<(), DbError> {
        loop {
            let catalog = Arc::clone(&self.parts.catalog.borrow());
            let wall = self.parts.clock.wall();
            let bury = move |tx: &Tx<'_>| {
                let has_url = |template, kind| {
                    catalog.callback_template(template).is_some_and(|template| template.urls.of(kind).is_some())
                };
                outbox::bury_without_template(tx, has_url, BURIED_AT_ONCE, wall)
            };
            let Burial { count, buried } = self.parts.db.write(bury).await?;
            if count > 0 {
                tracing::warn!(buried = count, "callbacks of a deleted template or URL are dead letters now");
            }
            buried.iter().for_each(|buried| tell_buried(&self.parts.telemetry, buried));
            if count < BURIED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Gives up what has waited for too long for a receiver that is paused: one portion. Tells whether there may be more.
    async fn bury_held(self: &Arc<Self>) -> Result<bool, DbError> {
        let notifier = Arc::clone(self);
        let bury = move |tx: &Tx<'_>| {
            let NotifierParts { clock, timeline, held_max, .. } = &notifier.parts;
            let mono = clock.mono();
            let before = timeline.at(mono).minus(*held_max);
            let held = notifier.rounds().held(before, mono.minus(PAUSED_FOR.min(*held_max)));
            outbox::bury_held(tx, &held, before, BURIED_AT_ONCE, clock.wall())
        };
        let Burial { count, buried } = self.parts.db.write(bury).await?;
        let telemetry = &self.parts.telemetry;
        (0..count).for_each(|_| telemetry.metrics.given_up());
        buried.iter().for_each(|buried| tell_buried(telemetry, buried));
        if count > 0
            && let Some(left_out) = telemetry.admit("", DeadReason::Held.name())
        {
            tracing::warn!(
                buried = count,
                left_out,
                "callbacks are dead letters now that waited for longer than deliver.held_max for receivers that do not answer"
            );
        }
        Ok(count == BURIED_AT_ONCE)
    }

    /// Claims whatever falls due from now on in the transaction that makes it due, until `token` ends it.
    fn join_what_falls_due(self: &Arc<Self>, token: CancellationToken) {
        // The database must not keep alive what keeps it open.
        let notifier = Arc::downgrade(self);
        self.parts.db.join_due(move || {
            let notifier = notifier.upgrade().filter(|_| !token.is_cancelled())?;
            let told = Arc::clone(&notifier);
            let look = move |tx: &Tx<'_>| notifier.look(tx);
            Some((look, move |look| told.add_joined(look)))
        });
    }

    fn add_joined(&self, look: Result<Tentative, DbError>) {
        let claimed = match look {
            Ok(look) => look.keep(),
            // Whose transaction it was says what is wrong. A look of our own finds what this one did not claim.
            Err(_) => Claimed { next: Some(DB_WAIT), ..Claimed::default() },
        };
        self.joined().add(claimed);
        self.has_joined.notify_one();
    }

    fn start_joined(self: &Arc<Self>, stage: &Stage, settler: &Settler) -> Option<Duration> {
        let claimed = std::mem::take(&mut *self.joined());
        self.start(claimed, stage, settler)
    }

    /// Starts what was claimed before nothing joins transactions any more: what is claimed is sent.
    async fn start_last(self: &Arc<Self>, stage: &Stage, settler: &Settler) {
        // After this one they are all told of. Where it fails nothing can be written down any more, sent or not.
        let _ = self.parts.db.write(|_| Ok(())).await;
        self.start_joined(stage, settler);
    }

    /// Claims what is due and starts its attempts. Tells after which time there may be more.
    async fn claim(self: &Arc<Self>, stage: &Stage, settler: &Settler) -> Result<Option<Duration>, DbError> {
        let notifier = Arc::clone(self);
        let look = self.parts.db.write(move |tx| notifier.look(tx)).await?;
        Ok(self.start(look.keep(), stage, settler))
    }

    /// Claims what is due, as a part of a transaction.
    fn look(self: &Arc<Self>, tx: &Tx<'_>) -> Result<Tentative, DbError> {
        let NotifierParts { catalog, vault, clock, timeline, db, .. } = &self.parts;
        let catalog = Arc::clone(&catalog.borrow());
        let (mono, epoch) = (clock.mono(), db.epoch());
        let look = Look { epoch, catalog: &catalog, vault, mono, now: timeline.at(mono), wall: clock.wall() };
        // Said before the slots are taken back that were given back by now: whoever gives one back later sees it, or what
        // this look came to.
        self.is_slot_awaited.store(true, Ordering::SeqCst);
        let mut rounds = self.rounds();
        let Round { claims, buried, next } = rounds.claim(tx, &look)?;
        self.is_slot_awaited.store(rounds.is_anything_due(), Ordering::SeqCst);
        drop(rounds);
        // From here on a claim takes its slot along: if the transaction fails after all, they are given back together.
        let with_slot = |(claim, ticket): (Claim, Ticket)| {
            let slot = Slot { claim: claim.id, notifier: Arc::downgrade(self), ticket: Some(ticket), ended: None };
            (claim, slot)
        };
        let claimed = Claimed { claims: claims.into_iter().map(with_slot).collect(), buried, next };
        Ok(Tentative { notifier: Arc::clone(self), claimed: Some(claimed) })
    }

    /// Starts the attempts of what was claimed. Tells after which time there may be more.
    fn start(self: &Arc<Self>, claimed: Claimed, stage: &Stage, settler: &Settler) -> Option<Duration> {
        let Claimed { claims, buried, next } = claimed;
        for buried in buried {
            self.parts.telemetry.metrics.given_up();
            if let Some(buried) = buried {
                tell_buried(&self.parts.telemetry, &buried);
            }
        }
        for (claim, slot) in claims {
            let (notifier, settler) = (Arc::clone(self), settler.clone());
            stage.spawn(async move {
                let ended = run_attempt(&notifier.parts, &settler, &claim).await;
                slot.give_back(ended);
            });
        }
        next
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        for Ended { claim, ticket, felt, at } in std::mem::take(&mut *self.ended()) {
            rounds.give_back(claim, ticket, felt, at);
        }
        rounds
    }

    fn joined(&self) -> MutexGuard<'_, Claimed> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    fn add(&mut self, other: Self) {
        let Self { claims, buried, next } = other;
        self.claims.extend(claims);
        self.buried.extend(buried);
        // What one of them says stands beside what the other does.
        self.next = self.next.into_iter().chain(next).min();
    }
}

impl Tentative {
    /// Its transaction lasts.
    fn keep(mut self) -> Claimed {
        self.claimed.take().unwrap_or_default()
    }
}

impl Drop for Tentative {
    /// Its transaction did not last. This comes before the next one, which must not trust what was read in this.
    fn drop(&mut self) {
        let Some(claimed) = self.claimed.take() else { return };
        // Whatever waits for their slots is found by the look that comes after a failure.
        claimed.claims.into_iter().for_each(|(_, slot)| slot.undo());
        self.notifier.rounds().undo();
    }
}

/// A claim's slot, given back however its attempt ends.
struct Slot {
    claim: ClaimId,
    /// What was claimed and never started must not keep it alive.
    notifier: Weak<Notifier>,
    /// `None` once it is given back.
    ticket: Option<Ticket>,
    /// What its attempt says about the receiver, and when that was known. `None`: it broke off.
    ended: Option<(Felt, Mono)>,
}

impl Slot {
    fn give_back(mut self, ended: (Felt, Mono)) {
        self.ended = Some(ended);
    }

    /// It was never taken.
    fn undo(mut self) {
        self.end();
    }

    fn end(&mut self) -> Option<Arc<Notifier>> {
        let (ticket, notifier) = (self.ticket.take()?, self.notifier.upgrade()?);
        let (felt, at) = self.ended.unwrap_or((Felt::Nothing, notifier.parts.clock.mono()));
        notifier.ended().push(Ended { claim: self.claim, ticket, felt, at });
        Some(notifier)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Where nothing waits, a look would find nothing.
        if let Some(notifier) = self.end()
            && notifier.is_slot_awaited.load(Ordering::SeqCst)
        {
            notifier.wake.notify_one();
        }
    }
}
