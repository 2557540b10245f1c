//! What is known of one lane: its window and its breaker.

use core::time::Duration;

use super::{Felt, LaneFacts, Limits};
use crate::time::Mono;

/// The window of a receiver of which nothing is known yet: enough that four streams' pictures of one instant go out
/// together, few enough that a receiver which serves one request at a time is not flooded.
const WINDOW_START: usize = 4;

/// The part of the longest pause that the first takes; each later one is twice as long.
const PAUSE_START: u32 = 8;

/// For so many of the longest pauses failures of begun deliveries may put a probe off.
const PUT_OFF_MAX: u32 = 4;

/// Whether a receiver is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Work goes out. So many attempts in a row failed since the last that did not.
    Closed { failures: u32 },
    /// New work waits, since the receiver failed too often in a row.
    Open {
        since: Mono,
        /// When it is tried next, at the latest when something is due.
        probe_at: Mono,
        /// The wait after the next failure.
        pause: Duration,
    },
}

#[derive(Clone, Debug)]
pub(super) struct LaneState {
    limits: Limits,
    window: usize,
    /// Below it the window grows by one with each good end, above it by one with each window of them, as TCP's does.
    threshold: usize,
    /// Good ends since the window grew last.
    credits: usize,
    /// An attempt that began before it says nothing about the window as it is now.
    halved_at: Option<Mono>,
    running: usize,
    running_slow: usize,
    last_was_slow: bool,
    breaker: BreakerState,
    is_probing: bool,
    /// When the last probe ended.
    asked_at: Option<Mono>,
}

/// An attempt's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) felt: Felt,
    pub(super) started: Mono,
    pub(super) now: Mono,
    pub(super) was_slow: bool,
    pub(super) is_probe: bool,
}

impl LaneState {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            window: WINDOW_START.min(limits.window_max),
            threshold: limits.window_max,
            credits: 0,
            halved_at: None,
            running: 0,
            running_slow: 0,
            last_was_slow: false,
            breaker: BreakerState::Closed { failures: 0 },
            is_probing: false,
            asked_at: None,
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// What the window leaves.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.running)
    }

    pub(super) fn is_slow(&self) -> bool {
        self.running_slow > 0 || self.last_was_slow
    }

    pub(super) fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// When the receiver may be probed, while its breaker is open.
    pub(super) fn probe_at(&self) -> Option<Mono> {
        match self.breaker {
            BreakerState::Closed { .. } => None,
            BreakerState::Open { probe_at, .. } => Some(probe_at),
        }
    }

    /// Whether forgetting it changes nothing but that its window starts anew.
    pub(super) fn is_forgettable(&self) -> bool {
        self.running == 0 && matches!(self.breaker, BreakerState::Closed { .. })
    }

    pub(super) fn facts(&self) -> LaneFacts {
        LaneFacts { window: self.window, running: self.running, is_slow: self.is_slow(), breaker: self.breaker }
    }

    pub(super) fn begin(&mut self, is_slow: bool, is_probe: bool) {
        self.running += 1;
        self.running_slow += usize::from(is_slow);
        self.is_probing |= is_probe;
    }

    pub(super) fn became_slow(&mut self) {
        self.running_slow += 1;
    }

    pub(super) fn end(&mut self, ended: Ended) {
        self.running -= 1;
        self.running_slow -= usize::from(ended.was_slow);
        self.last_was_slow = ended.now.since(ended.started) >= super::SLOW_AFTER;
        if ended.is_probe {
            self.is_probing = false;
            self.asked_at = Some(ended.now);
        }
        match ended.felt {
            Felt::Good => self.grow(),
            Felt::Bad => self.shrink(ended),
            Felt::Nothing => {}
        }
        self.breaker = self.breaker_after(ended);
    }

    fn grow(&mut self) {
        self.credits += 1;
        let needed = if self.window < self.threshold { 1 } else { self.window };
        if self.credits >= needed {
            self.credits = 0;
            self.window = (self.window + 1).min(self.limits.window_max);
        }
    }

    fn shrink(&mut self, ended: Ended) {
        // The attempts of one window fail together, of one cause: that is one reason to halve it and not as many as there
        // were attempts.
        if self.halved_at.is_some_and(|at| ended.started < at) {
            return;
        }
        self.halved_at = Some(ended.now);
        self.credits = 0;
        self.window = (self.window / 2).max(1);
        self.threshold = self.window;
    }

    fn breaker_after(&self, ended: Ended) -> BreakerState {
        let Limits { breaker_failures, pause_max, .. } = self.limits;
        let pause_start = pause_max / PAUSE_START;
        match (self.breaker, ended.felt) {
            (_, Felt::Good) => BreakerState::Closed { failures: 0 },
            (BreakerState::Closed { failures }, Felt::Bad) => {
                let failures = failures.saturating_add(1);
                if breaker_failures == 0 || failures < breaker_failures {
                    return BreakerState::Closed { failures };
                }
                let pause = (pause_start * 2).min(pause_max);
                BreakerState::Open { since: ended.now, probe_at: ended.now.plus(pause_start), pause }
            }
            // What began before it opened failed of what opened it.
            (BreakerState::Open { since, pause, .. }, Felt::Bad) if ended.started >= since => {
                // One that goes on failing says that it is too early for another, but not for ever: it may be of a flow
                // that fails for reasons of its own, while the others of this receiver would be taken.
                let put_off_until = self.asked_at.unwrap_or(since).plus(pause_max * PUT_OFF_MAX);
                let probe_at = ended.now.plus(pause).min(put_off_until);
                BreakerState::Open { since, probe_at, pause: (pause * 2).min(pause_max) }
            }
            // A probe that could not even be sent: try again later, but learn nothing from it.
            (BreakerState::Open { since, pause, .. }, Felt::Nothing) if ended.is_probe => {
                BreakerState::Open { since, probe_at: ended.now.plus(pause), pause }
            }
            (unchanged, _) => unchanged,
        }
    }
}
