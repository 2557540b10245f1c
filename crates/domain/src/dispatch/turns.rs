//! Whose turn it is, by the time that each endpoint has held slots: start-time fair queueing (Goyal, Vin and Cheng, 1996)
//! with slot-time in the place of packet lengths.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::Flow;

/// What an attempt of an unknown endpoint is expected to take; put right when it ends.
const EXPECTED_START_US: u64 = 50_000;

/// Endpoints that are remembered though they are not ahead of anybody: 40 bytes each.
const FLOWS_MAX: usize = 10_000;

/// Times held, in microseconds of slot-time.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The turn of the last attempt that began. Who was away comes back here, without credit for having been away.
    now: u64,
    flows: BTreeMap<Flow, FlowState>,
}

#[derive(Clone, Copy, Debug)]
struct FlowState {
    next: u64,
    /// What the next attempt is charged when it begins: a moving average of what they took.
    expected_us: u64,
    running: u32,
}

impl Turns {
    pub(super) fn of(&self, flow: Flow) -> u64 {
        self.flows.get(&flow).map_or(self.now, |state| state.next.max(self.now))
    }

    /// Begins an attempt. Tells what it was charged, for [`Turns::end`].
    pub(super) fn begin(&mut self, flow: Flow) -> u64 {
        if self.flows.len() >= FLOWS_MAX {
            let now = self.now;
            self.flows.retain(|_, state| state.running > 0 || state.next > now);
        }
        self.now = self.of(flow);
        let unknown = FlowState { next: 0, expected_us: EXPECTED_START_US, running: 0 };
        let state = self.flows.entry(flow).or_insert(unknown);
        state.next = self.now.saturating_add(state.expected_us);
        state.running += 1;
        state.expected_us
    }

    pub(super) fn end(&mut self, flow: Flow, charged: u64, held: Duration) {
        let Some(state) = self.flows.get_mut(&flow) else { return };
        let held_us = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
        state.running = state.running.saturating_sub(1);
        state.next = state.next.saturating_add(held_us).saturating_sub(charged);
        state.expected_us = state.expected_us - state.expected_us / 4 + held_us / 4;
    }
}
