//! One push: an activity with one sequence. It may span sessions, and keeps its due grids while it does.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::catalog::AdmittedBy;
use framehook_domain::id::PushSequence;
use framehook_domain::pick::{
    CommittingPick, DueCounts, GridId, PickTicket, PushPicks, Reconciled, SkipReason, Subscription, Want,
};
use framehook_domain::push::Displacements;
use framehook_domain::refusal::{CutReason, PushEnd, Refusal};
use framehook_domain::storm::Seat;
use framehook_domain::stream::{StreamId, StreamParam};
use framehook_domain::time::{Mono, UnixMs};
use framehook_media::{AccessUnit, Codec};
use tokio::sync::{OnceCell, oneshot};

use super::facts::{Facts, Passed};
use crate::db::push::{OpenPush, PushProgress};
use crate::keyframes::Arrival;

/// A push while it lives. All its state sits behind one lock that is held for arithmetic only, never over I/O.
#[derive(Debug)]
pub(crate) struct Push {
    stream: StreamId,
    sequence: PushSequence,
    opened_at: UnixMs,
    /// Filled once the push's row and its event 1 are durable. Sessions wait for it before they tell the publisher.
    pub(super) opened: OnceCell<()>,
    /// Whether any rule or anybody who looks can want an entry point, readable without the lock: it is asked at every read of the socket.
    wanted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: Option<SessionSlot>,
    /// Sessions so far; the last one's number.
    sessions: u64,
    param: StreamParam,
    peer: IpAddr,
    picks: PushPicks,
    facts: Facts,
    /// Both clocks when this process came to know the push. Media times are told from here on by the monotonic one, so
    /// that setting the wall clock neither lengthens a push nor shortens it.
    known: (UnixMs, Mono),
    last_media: UnixMs,
    saved: PushProgress,
    grace: Option<Grace>,
    displacements: Displacements,
    /// When somebody last asked what the push shows.
    asked: Option<Mono>,
    /// The place among those who wait for a render worker that its next pick takes over.
    place: Option<Mono>,
}

/// For so long after somebody asked what a push shows its entry points are kept, although no rule wants them.
const ASKED_LASTS: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct SessionSlot {
    number: u64,
    by: AdmittedBy,
    /// Gone once the session was told to end.
    cut: Option<oneshot::Sender<CutReason>>,
}

/// A push without a session: until when it may come back, and how it ends if it does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    pub(crate) until: Mono,
    pub(crate) end: PushEnd,
}

/// A push's current counts and facts, copied out for `/v1/streams`.
#[derive(Clone, Debug)]
pub(crate) struct PushSnapshot {
    pub(crate) facts: Facts,
    pub(crate) sessions: u64,
    pub(crate) peer: IpAddr,
    pub(crate) in_grace: bool,
    pub(crate) rules: Vec<(Subscription, DueCounts)>,
}

impl Push {
    /// A push that has no session yet and begins at `now`.
    pub(super) fn new(
        stream: StreamId,
        sequence: PushSequence,
        param: StreamParam,
        peer: IpAddr,
        now: (UnixMs, Mono),
    ) -> Self {
        let (opened_at, _) = now;
        let state = State {
            session: None,
            sessions: 0,
            param,
            peer,
            picks: PushPicks::new(),
            facts: Facts::default(),
            known: now,
            last_media: opened_at,
            saved: PushProgress { sequence, last_media: opened_at, width: 0, height: 0 },
            grace: None,
            displacements: Displacements::default(),
            asked: None,
            place: None,
        };
        let (opened, wanted) = (OnceCell::new(), AtomicBool::new(false));
        Self { stream, sequence, opened_at, opened, wanted, state: Mutex::new(state) }
    }

    /// A push whose row was found open at the start: already recorded, without a session, in its grace.
    pub(super) fn restored(row: OpenPush, now: (UnixMs, Mono), grace: Grace) -> Self {
        let OpenPush { sequence, stream, param, user_ip, opened_at, last_media, width, height, node: _ } = row;
        let push = Self::new(stream, sequence, param, user_ip, now);
        {
            let mut state = push.lock();
            state.last_media = last_media;
            (state.facts.width, state.facts.height) = (width, height);
            state.saved = PushProgress { sequence, last_media, width, height };
            state.grace = Some(grace);
        }
        Self { opened_at, opened: OnceCell::new_with(Some(())), ..push }
    }

    pub(crate) fn stream(&self) -> &StreamId {
        &self.stream
    }

    pub(crate) fn sequence(&self) -> PushSequence {
        self.sequence
    }

    pub(crate) fn opened_at(&self) -> UnixMs {
        self.opened_at
    }

    /// It waited since this due and got nothing: its next pick goes on waiting in its stead.
    pub(crate) fn leave_place(&self, due: Mono) {
        self.lock().place = Some(due);
    }

    /// Since when it has waited and got nothing. Whoever asks takes the place.
    pub(crate) fn take_place(&self) -> Option<Mono> {
        self.lock().place.take()
    }

    /// The `stream_param` of the session that pushes now, or pushed last.
    pub(crate) fn param(&self) -> StreamParam {
        self.lock().param.clone()
    }

    /// Whether any rule or task, or somebody who looks, can want an entry point of this push.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether a session holds the push.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().session.is_some()
    }

    /// What let the current session in. `None` without one.
    pub(super) fn admitted_by(&self) -> Option<AdmittedBy> {
        self.lock().session.as_ref().map(|slot| slot.by)
    }

    /// Gives the push to a new session, cutting the one before it.
    ///
    /// # Errors
    /// [`Refusal::TooManyPushes`] while the stream is fought over ([`Displacements`]). One that nobody pushes any more is
    /// there for whoever comes.
    pub(super) fn take_over(
        &self,
        by: AdmittedBy,
        param: StreamParam,
        peer: IpAddr,
        now: Mono,
    ) -> Result<(u64, oneshot::Receiver<CutReason>), Refusal> {
        let mut state = self.lock();
        if state.session.is_some() {
            if !state.displacements.admit(now) {
                return Err(Refusal::TooManyPushes);
            }
            state.cut(CutReason::Displaced);
        }
        state.sessions += 1;
        let number = state.sessions;
        let (cut, was_cut) = oneshot::channel();
        state.session = Some(SessionSlot { number, by, cut: Some(cut) });
        state.grace = None;
        state.param = param;
        state.peer = peer;
        Ok((number, was_cut))
    }

    /// Tells the current session to end; it then ends like any other. False if there is none to tell.
    pub(super) fn cut(&self, reason: CutReason) -> bool {
        self.lock().cut(reason)
    }

    /// Takes the push away from `session`, and lets it wait for another if there is a `grace`. False if another one holds
    /// it by now.
    pub(super) fn release(&self, session: u64, grace: Option<Grace>) -> bool {
        let mut state = self.lock();
        let holds = state.session.as_ref().is_some_and(|slot| slot.number == session);
        if holds {
            state.session = None;
            state.grace = grace;
        }
        holds
    }

    /// The grace that runs now, if no session holds the push.
    pub(super) fn grace(&self) -> Option<Grace> {
        let state = self.lock();
        if state.session.is_none() { state.grace } else { None }
    }

    /// Brings the grids in line with what the catalog of this version wants of this push. `look` says when and what: it is
    /// asked under the lock, so that of two who come as a task begins or ends the one who looked later has the last word.
    pub(super) fn reconcile(
        &self,
        catalog_version: u64,
        look: impl FnOnce() -> (Mono, Vec<Subscription>),
    ) -> Reconciled {
        let mut state = self.lock();
        let (now, wanted) = look();
        let reconciled = state.picks.reconcile(now, catalog_version, wanted);
        self.wanted.store(state.is_wanted(now), Ordering::Relaxed);
        reconciled
    }

    /// Ends every grid and gives their places in the storm's table back. An open due becomes `push_ended`, unless it is
    /// with the commit, whose answer still counts.
    pub(super) fn end(&self, now: Mono) -> Vec<Seat> {
        self.wanted.store(false, Ordering::Relaxed);
        self.lock().picks.end(now)
    }

    /// How far the push has come.
    pub(super) fn progress(&self) -> PushProgress {
        self.lock().progress(self.sequence)
    }

    /// What the rules want of an entry point that has just arrived.
    pub(crate) fn entry_point(&self, unit: &AccessUnit, arrival: Arrival) -> Vec<Want> {
        let mut state = self.lock();
        state.facts.entry_point(unit.config.codec, arrival.mono);
        state.passed(Passed::Picture { keyframe: true, dts_ms: unit.dts_ms }, unit.data.len(), arrival.mono);
        let wants = state.picks.on_entry_point(arrival.mono);
        self.wanted.store(state.is_wanted(arrival.mono), Ordering::Relaxed);
        wants
    }

    /// The first moment from `now` on at which an entry point may be picked. `None` while nothing wants pictures of it.
    pub(crate) fn picks_from(&self, now: Mono) -> Option<Mono> {
        self.lock().picks.picks_from(now)
    }

    /// Somebody asks what the push shows: its entry points are kept for a while, whatever the rules say.
    pub(crate) fn ask(&self, now: Mono) {
        let mut state = self.lock();
        state.asked = Some(now);
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// What its media say about it.
    pub(crate) fn facts(&self) -> Facts {
        self.lock().facts.clone()
    }

    /// Gives a grid its place in the storm's table, and moves it if the storm asks for that. What comes back is to be given
    /// back.
    pub(super) fn seated(&self, now: Mono, grid: GridId, seat: Seat, shift: Option<Duration>) -> Option<Seat> {
        self.lock().picks.seated(now, grid, seat, shift)
    }

    /// Counts one message of `len` bytes that is not kept.
    pub(crate) fn media(&self, passed: Passed, len: usize, now: Mono) {
        self.lock().passed(passed, len, now);
    }

    /// Notes the picture size that the decoder config announces.
    pub(crate) fn announce(&self, codec: Codec, width: u32, height: u32) {
        let mut state = self.lock();
        state.facts.codec = Some(codec);
        (state.facts.width, state.facts.height) = (width, height);
    }

    /// Notes a video codec that cannot become a picture.
    pub(crate) fn unsupported(&self, name: String) {
        self.lock().facts.unsupported = Some(name);
    }

    /// Notes what the encoder calls itself.
    pub(crate) fn encoder(&self, name: String) {
        self.lock().facts.encoder = Some(name);
    }

    /// Gives a due to the commit, whose answer [`Push::settle_commit`] must hear. `None` once its next due has fallen: then
    /// it was counted as `renderer_busy`.
    pub(crate) fn hand_over(&self, now: Mono, ticket: PickTicket) -> Option<CommittingPick> {
        self.lock().picks.hand_over(now, ticket)
    }

    /// The commit has answered: the due was taken, or is skipped for this reason. Also after the push has ended.
    pub(crate) fn settle_commit(&self, now: Mono, due: CommittingPick, outcome: Result<(), SkipReason>) {
        self.lock().picks.settle_commit(now, due, outcome);
    }

    /// Settles a due that was picked and did not become a picture.
    pub(crate) fn skip(&self, now: Mono, ticket: PickTicket, reason: SkipReason) {
        self.lock().picks.settle(now, ticket, reason);
    }

    /// The sum of all grids' counts at `now`.
    pub(crate) fn totals(&self, now: Mono) -> DueCounts {
        let mut state = self.lock();
        state.picks.advance(now);
        state.picks.total_counts()
    }

    /// How far the push has come, if that is further than when it was last asked for, to be written down.
    pub(super) fn unsaved_progress(&self) -> Option<PushProgress> {
        let mut state = self.lock();
        let progress = state.progress(self.sequence);
        (std::mem::replace(&mut state.saved, progress) != progress).then_some(progress)
    }

    /// A copy of everything that `/v1/streams` shows.
    pub(crate) fn snapshot(&self, now: Mono) -> PushSnapshot {
        let mut state = self.lock();
        state.picks.advance(now);
        PushSnapshot {
            facts: state.facts.clone(),
            sessions: state.sessions,
            peer: state.peer,
            in_grace: state.session.is_none() && state.grace.is_some(),
            rules: state.picks.counts().map(|(subscription, counts)| (subscription.clone(), counts)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_wanted(&self, now: Mono) -> bool {
        !self.picks.is_idle() || self.asked.is_some_and(|asked| now.since(asked) < ASKED_LASTS)
    }

    fn passed(&mut self, passed: Passed, len: usize, now: Mono) {
        let (wall, mono) = self.known;
        self.last_media = wall.plus(now.since(mono));
        self.facts.passed(passed, len);
    }

    fn progress(&self, sequence: PushSequence) -> PushProgress {
        let Facts { width, height, .. } = self.facts;
        PushProgress { sequence, last_media: self.last_media, width, height }
    }

    fn cut(&mut self, reason: CutReason) -> bool {
        let sender = self.session.as_mut().and_then(|slot| slot.cut.take());
        // A session that ended by itself in this instant no longer listens, which is as good.
        sender.is_some_and(|sender| sender.send(reason).is_ok())
    }
}
