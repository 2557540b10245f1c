//! One push: an activity with one sequence. It may span sessions, and keeps its due grids while it does.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::id::PushSequence;
use framehook_domain::pick::{DueCounts, PickTicket, PushPicks, SkipReason, Subscriber, Subscription, TakenPick, Want};
use framehook_domain::refusal::{CutReason, PushEnd, Refusal};
use framehook_domain::storm::Seat;
use framehook_domain::stream::{StreamId, StreamParam};
use framehook_domain::time::{Mono, UnixMs};
use framehook_media::{AccessUnit, Codec};
use tokio::sync::{OnceCell, oneshot};

use super::facts::Facts;
use crate::keyframes::Arrival;

/// Takeovers of one stream within [`TAKEOVER_WINDOW`] that are still a reconnecting encoder and not two encoders
/// fighting over a name.
const TAKEOVERS_MAX: usize = 3;

/// The window in which takeovers are counted, and for how long newcomers are refused after too many.
const TAKEOVER_WINDOW: Duration = Duration::from_secs(10);

/// A push while it lives. All its state sits behind one lock that is held for arithmetic only, never over I/O.
#[derive(Debug)]
pub(crate) struct Push {
    stream: StreamId,
    sequence: PushSequence,
    opened_at: UnixMs,
    /// Filled once the push's row and its event 1 are durable. Sessions wait for it before they tell the publisher.
    pub(super) opened: OnceCell<()>,
    /// Whether any rule can want an entry point, readable without the lock: it is asked at every read of the socket.
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
    /// Places in the storm's table, given back when the push ends.
    seats: Vec<Seat>,
    facts: Facts,
    last_media: UnixMs,
    last_media_saved: UnixMs,
    grace: Option<Grace>,
    takeovers: VecDeque<Mono>,
    refuses_until: Option<Mono>,
}

#[derive(Debug)]
struct SessionSlot {
    number: u64,
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

/// What is left of a push once it has ended.
pub(super) struct Ended {
    pub(super) counts: DueCounts,
    pub(super) seats: Vec<Seat>,
    pub(super) last_media: UnixMs,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Push {
    /// A push that has no session yet.
    pub(super) fn new(
        stream: StreamId,
        sequence: PushSequence,
        param: StreamParam,
        peer: IpAddr,
        opened_at: UnixMs,
    ) -> Self {
        let state = State {
            session: None,
            sessions: 0,
            param,
            peer,
            picks: PushPicks::new(),
            seats: Vec::new(),
            facts: Facts::default(),
            last_media: opened_at,
            last_media_saved: opened_at,
            grace: None,
            takeovers: VecDeque::new(),
            refuses_until: None,
        };
        let (opened, wanted) = (OnceCell::new(), AtomicBool::new(false));
        Self { stream, sequence, opened_at, opened, wanted, state: Mutex::new(state) }
    }

    /// A push whose row was found open at the start: already recorded, without a session, in its grace.
    pub(super) fn restored(self, last_media: UnixMs, grace: Grace) -> Self {
        {
            let mut state = self.lock();
            state.last_media = last_media;
            state.last_media_saved = last_media;
            state.grace = Some(grace);
        }
        Self { opened: OnceCell::new_with(Some(())), ..self }
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

    /// The `stream_param` of the session that pushes now, or pushed last.
    pub(crate) fn param(&self) -> StreamParam {
        self.lock().param.clone()
    }

    /// Whether any rule or task can want an entry point of this push.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether a session holds the push.
    pub(super) fn held(&self) -> bool {
        self.lock().session.is_some()
    }

    /// Gives the push to a new session, cutting the one before it.
    ///
    /// # Errors
    /// [`Refusal::TooManyPushes`] while the stream is fought over: three takeovers within ten seconds refuse newcomers
    /// for the next ten.
    pub(super) fn take_over(
        &self,
        param: StreamParam,
        peer: IpAddr,
        now: Mono,
    ) -> Result<(u64, oneshot::Receiver<CutReason>), Refusal> {
        let mut state = self.lock();
        if state.refuses_until.is_some_and(|until| now < until) {
            return Err(Refusal::TooManyPushes);
        }
        if state.session.is_some() {
            while state.takeovers.front().is_some_and(|&at| now.since(at) >= TAKEOVER_WINDOW) {
                state.takeovers.pop_front();
            }
            if state.takeovers.len() >= TAKEOVERS_MAX {
                state.refuses_until = Some(now.plus(TAKEOVER_WINDOW));
                return Err(Refusal::TooManyPushes);
            }
            state.takeovers.push_back(now);
            state.cut(CutReason::Displaced);
        }
        state.sessions += 1;
        let number = state.sessions;
        let (cut, was_cut) = oneshot::channel();
        state.session = Some(SessionSlot { number, cut: Some(cut) });
        state.grace = None;
        state.param = param;
        state.peer = peer;
        Ok((number, was_cut))
    }

    /// Tells the current session to end; it then ends like any other. False if there is none to tell.
    pub(super) fn cut(&self, reason: CutReason) -> bool {
        self.lock().cut(reason)
    }

    /// Takes the push away from `session`. False if another one holds it by now.
    pub(super) fn release(&self, session: u64) -> bool {
        let mut state = self.lock();
        let holds = state.session.as_ref().is_some_and(|slot| slot.number == session);
        if holds {
            state.session = None;
        }
        holds
    }

    /// Starts the grace in which the push may come back.
    pub(super) fn enter_grace(&self, grace: Grace) {
        self.lock().grace = Some(grace);
    }

    /// The grace that runs now, if no session holds the push.
    pub(super) fn grace(&self) -> Option<Grace> {
        let state = self.lock();
        if state.session.is_none() { state.grace } else { None }
    }

    /// Brings the grids in line with what the catalog wants of this push now.
    pub(super) fn reconcile(&self, now: Mono, catalog_version: u64, wanted: Vec<Subscription>) {
        let mut state = self.lock();
        state.picks.reconcile(now, catalog_version, wanted);
        self.wanted.store(!state.picks.is_idle(), Ordering::Relaxed);
    }

    /// Ends every grid; an open due becomes `push_ended`.
    pub(super) fn end(&self, now: Mono) -> Ended {
        let mut state = self.lock();
        state.picks.end(now);
        self.wanted.store(false, Ordering::Relaxed);
        Ended {
            counts: state.picks.total_counts(),
            seats: std::mem::take(&mut state.seats),
            last_media: state.last_media,
            width: state.facts.width,
            height: state.facts.height,
        }
    }

    /// What the rules want of an entry point that has just arrived.
    pub(crate) fn entry_point(&self, unit: &AccessUnit, arrival: Arrival) -> Vec<Want> {
        let mut state = self.lock();
        state.facts.entry_point(unit.config.codec, unit.dts_ms, unit.data.len(), arrival.mono);
        state.last_media = arrival.wall;
        state.picks.on_entry_point(arrival.mono)
    }

    /// Remembers a place in the storm's table, and moves the grid if the storm asks for it.
    pub(super) fn seated(&self, now: Mono, subscriber: Subscriber, seat: Seat, shift: Option<Duration>) {
        let mut state = self.lock();
        state.seats.push(seat);
        if let Some(shift) = shift {
            state.picks.shift_phase(now, subscriber, shift);
        }
    }

    /// Counts media that no picture can come from: one message of `len` bytes.
    pub(crate) fn media(&self, audio: bool, len: usize, wall: UnixMs) {
        let mut state = self.lock();
        if audio {
            state.facts.audio(len);
        } else {
            state.facts.video(len);
        }
        state.last_media = wall;
    }

    /// Notes the picture size that the decoder config or the metadata announces.
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

    /// Moves a due over the commit point: from here it counts as taken. `None` once its next due has fallen: then it was
    /// counted as `renderer_busy`.
    pub(crate) fn hand_over(&self, now: Mono, ticket: PickTicket) -> Option<TakenPick> {
        self.lock().picks.hand_over(now, ticket)
    }

    /// Settles a due that was picked and did not become a picture.
    pub(crate) fn skip(&self, now: Mono, ticket: PickTicket, reason: SkipReason) {
        self.lock().picks.settle(now, ticket, reason);
    }

    /// Takes back a due that was handed over and then did not fit on the disk.
    pub(crate) fn undo_taken(&self, taken: TakenPick, reason: SkipReason) {
        self.lock().picks.undo_taken(taken, reason);
    }

    /// The sum of all grids' counts at `now`.
    pub(crate) fn totals(&self, now: Mono) -> DueCounts {
        let mut state = self.lock();
        state.picks.advance(now);
        state.picks.total_counts()
    }

    /// The last media time if it moved since it was last asked for, to be written down.
    pub(super) fn unsaved_last_media(&self) -> Option<UnixMs> {
        let mut state = self.lock();
        if state.last_media == state.last_media_saved {
            return None;
        }
        state.last_media_saved = state.last_media;
        Some(state.last_media)
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
    fn cut(&mut self, reason: CutReason) -> bool {
        let sender = self.session.as_mut().and_then(|slot| slot.cut.take());
        // A session that ended by itself in this instant no longer listens, which is as good.
        sender.is_some_and(|sender| sender.send(reason).is_ok())
    }
}
