//! Pictures whose files are written gather here until their rows are.
//!
//! While few come, each goes on at once. While many do, each waits a little for those behind it: the syncs of a transaction
//! cost the same for one as for many. Whoever adds the first of a group takes it, on its own thread, and then
//! what has come meanwhile; so there is one transaction at a time, and a thread is woken for a group and not for a picture.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::time::Mono;

use crate::clock::Clock;

/// Pictures that do not wait for more. With six of them a seventh would save less than a thirtieth of what one alone costs.
const GROUP_FULL: usize = 6;

/// Bytes of images that do not wait for more: they would hold memory for little.
const GROUP_BYTES_FULL: usize = 8 << 20;

/// Many come if the last [`GROUP_FULL`] came within so many times the longest wait: more than one will come in that wait.
const MANY_WITHIN: u32 = 4;

/// What waits, and who takes it.
#[derive(Debug)]
pub(super) struct Gathering<T> {
    clock: Clock,
    wait_max: Duration,
    state: Mutex<State<T>>,
    /// Rung when the group is not to be waited for any longer.
    bell: Condvar,
}

/// What is added of one picture.
#[derive(Debug)]
pub(super) struct Added<T> {
    pub(super) picture: T,
    pub(super) bytes: usize,
    /// Whether something of it begins only once it is recorded, such as a put.
    pub(super) is_urgent: bool,
}

#[derive(Debug)]
struct State<T> {
    pictures: Vec<T>,
    bytes: usize,
    is_urgent: bool,
    /// When the first of them has waited for long enough. Of no meaning where there are none.
    due: Mono,
    /// When the last [`GROUP_FULL`] pictures came, of this group and those before it.
    came: VecDeque<Mono>,
    is_being_taken: bool,
    is_ending: bool,
}

impl<T> Gathering<T> {
    /// In which a picture waits for `wait_max` at most; zero: none waits.
    pub(super) fn new(clock: Clock, wait_max: Duration) -> Self {
        let state = State {
            pictures: Vec::new(),
            bytes: 0,
            is_urgent: false,
            due: Mono::default(),
            came: VecDeque::new(),
            is_being_taken: false,
            is_ending: false,
        };
        Self { clock, wait_max, state: Mutex::new(state), bell: Condvar::new() }
    }

    /// Adds pictures that come together. `true`: whoever has added them is to take what waits, by [`Gathering::take`], until
    /// nothing does.
    pub(super) fn add(&self, added: Vec<Added<T>>) -> bool {
        let now = self.clock.mono();
        let mut state = self.state();
        added.into_iter().for_each(|added| state.add(added, now, self.wait_max));
        if state.is_being_taken {
            if state.wait(now).is_zero() {
                self.bell.notify_one();
            }
            return false;
        }
        state.is_being_taken = !state.pictures.is_empty();
        state.is_being_taken
    }

    /// Waits until a group is not to be waited for any longer, and takes it. `None`: nothing waits, and whoever adds something
    /// next is to take it. Blocks.
    pub(super) fn take(&self) -> Option<Vec<T>> {
        let mut state = self.state();
        loop {
            if state.pictures.is_empty() {
                state.is_being_taken = false;
                return None;
            }
            let wait = state.wait(self.clock.mono());
            if wait.is_zero() {
                (state.bytes, state.is_urgent) = (0, false);
                return Some(std::mem::take(&mut state.pictures));
            }
            state = self.bell.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// From now on nothing waits for others.
    pub(super) fn end(&self) {
        self.state().is_ending = true;
        self.bell.notify_one();
    }

    /// Pictures that wait now.
    pub(super) fn len(&self) -> usize {
        self.state().pictures.len()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn add(&mut self, added: Added<T>, now: Mono, wait_max: Duration) {
        if self.pictures.is_empty() {
            let are_many = self.came.len() == GROUP_FULL && now.since(self.came[0]) <= wait_max * MANY_WITHIN;
            self.due = if are_many { now.plus(wait_max) } else { now };
        }
        if self.came.len() == GROUP_FULL {
            self.came.pop_front();
        }
        self.came.push_back(now);
        self.bytes += added.bytes;
        self.is_urgent |= added.is_urgent;
        self.pictures.push(added.picture);
    }

    /// How long the group is still to be waited for.
    fn wait(&self, now: Mono) -> Duration {
        let is_full = self.pictures.len() >= GROUP_FULL || self.bytes >= GROUP_BYTES_FULL;
        if is_full || self.is_urgent || self.is_ending { Duration::ZERO } else { self.due.since(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MAX: Duration = Duration::from_millis(250);

    fn ms(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    /// Where nothing has come yet.
    fn state() -> State<u64> {
        Gathering::new(Clock::start(), WAIT_MAX).state.into_inner().expect("no thread has it")
    }

    impl State<u64> {
        /// Adds a picture that comes at this millisecond, and tells for how many more its group waits.
        fn come(&mut self, at: u64) -> u128 {
            self.add(Added { picture: at, bytes: 100_000, is_urgent: false }, ms(at), WAIT_MAX);
            self.wait(ms(at)).as_millis()
        }

        fn record(&mut self) {
            (self.pictures, self.bytes, self.is_urgent) = (Vec::new(), 0, false);
        }

        /// After enough for those that follow at once to wait.
        fn with_many_until(at: u64) -> Self {
            let mut state = state();
            for number in (0..6).rev() {
                state.come(at - number * 50);
                state.record();
            }
            state
        }
    }

    #[test]
    fn what_comes_now_and_then_never_waits() {
        let mut state = state();
        for number in 0..50 {
            assert_eq!(state.come(number * 201), 0, "five a second");
            state.record();
        }
        // Nor do a few of them that come at once.
        let mut state = State::with_many_until(1_000);
        for number in 0..6 {
            assert_eq!(state.come(20_000 + number), 0, "{number}");
            state.record();
        }
    }

    #[test]
    fn while_many_come_the_first_of_a_group_waits_as_long_as_it_may() {
        let mut state = State::with_many_until(1_000);
        assert_eq!([1_050, 1_100, 1_150, 1_200].map(|at| state.come(at)), [250, 200, 150, 100]);
        assert_eq!((state.wait(ms(1_299)).as_millis(), state.wait(ms(1_300)).as_millis()), (1, 0));
        assert_eq!(state.come(1_250), 50);
        assert_eq!(state.come(1_251), 0, "six are enough");
    }

    #[test]
    fn what_must_go_on_and_what_is_large_does_not_wait() {
        let mut state = State::with_many_until(1_000);
        assert_eq!(state.come(1_010), 250);
        state.add(Added { picture: 0, bytes: 1, is_urgent: true }, ms(1_020), WAIT_MAX);
        assert_eq!(state.wait(ms(1_020)), Duration::ZERO);
        state.record();
        state.add(Added { picture: 0, bytes: GROUP_BYTES_FULL - 1, is_urgent: false }, ms(1_030), WAIT_MAX);
        assert_eq!(state.wait(ms(1_030)), WAIT_MAX);
        assert_eq!(state.come(1_040), 0);
        state.record();
        assert_eq!(state.come(1_050), 250);
        state.is_ending = true;
        assert_eq!(state.wait(ms(1_050)), Duration::ZERO);
    }

    #[test]
    fn one_thread_at_a_time_takes_what_others_add() {
        let gathering = Gathering::new(Clock::start(), Duration::ZERO);
        let of = |picture| vec![Added { picture, bytes: 1, is_urgent: false }];
        assert!(!gathering.add(Vec::new()), "there is nothing to take");
        assert!(gathering.add(of(1)));
        assert_eq!(gathering.take(), Some(vec![1]));
        assert!(!gathering.add(of(2)), "it is taken by who took the first");
        assert!(!gathering.add(of(3)));
        assert_eq!((gathering.len(), gathering.take(), gathering.take()), (2, Some(vec![2, 3]), None));
        assert!(gathering.add(of(4)));
    }
}
