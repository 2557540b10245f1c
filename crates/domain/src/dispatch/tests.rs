use alloc::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { slots: 8, window_max: 16, breaker_failures: 5, pause_max: Duration::from_secs(16) };

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

fn begin(dispatch: &mut Dispatch, lane: u32, now: Mono) -> Option<Ticket> {
    let is_probe = match dispatch.gate(Lane(lane), now) {
        Gate::Any { .. } => false,
        Gate::Probe => true,
        Gate::Begun { .. } | Gate::Full => return None,
    };
    Some(dispatch.begin(Lane(lane), Flow(lane.into()), is_probe, now))
}

/// Begins as many attempts as are allowed.
fn fill(dispatch: &mut Dispatch, lane: u32, now: Mono) -> Vec<Ticket> {
    core::iter::from_fn(|| begin(dispatch, lane, now)).collect()
}

/// Makes one attempt that takes so long and ends so.
fn attempt(dispatch: &mut Dispatch, lane: u32, began: Mono, took_ms: u64, felt: Felt) -> Mono {
    let ticket = begin(dispatch, lane, began).expect("allowed");
    let ended = began.plus(Duration::from_millis(took_ms));
    dispatch.end(ticket, felt, ended);
    ended
}

#[test]
fn a_window_opens_with_good_ends_and_halves_once_for_a_window_of_bad_ones() {
    let mut dispatch = Dispatch::new(Limits { slots: 100, breaker_failures: 0, ..LIMITS });
    assert_eq!(dispatch.lane(Lane(1)).window, 4);
    let mut now = at(0);
    for _ in 0..20 {
        now = attempt(&mut dispatch, 1, now, 5, Felt::Good);
    }
    assert_eq!(dispatch.lane(Lane(1)).window, 16, "at its bound");
    let tickets = fill(&mut dispatch, 1, now);
    assert_eq!(tickets.len(), 16);
    now = now.plus(Duration::from_millis(5));
    for ticket in tickets {
        dispatch.end(ticket, Felt::Bad, now);
    }
    assert_eq!(dispatch.lane(Lane(1)).window, 8, "sixteen failures of one cause halve it once");
    for window in [4, 2, 1, 1] {
        now = attempt(&mut dispatch, 1, now, 5, Felt::Bad);
        assert_eq!(dispatch.lane(Lane(1)).window, window);
    }
    // From its threshold on it takes a window of good ends for one more.
    for window in [2, 2, 3, 3, 3, 4] {
        now = attempt(&mut dispatch, 1, now, 5, Felt::Good);
        assert_eq!(dispatch.lane(Lane(1)).window, window);
    }
    attempt(&mut dispatch, 1, now, 5, Felt::Nothing);
    assert_eq!(dispatch.lane(Lane(1)).window, 4, "what says nothing changes nothing");
}

#[test]
fn a_prompt_lane_always_has_a_slot_for_itself() {
    let mut dispatch = Dispatch::new(LIMITS);
    let mut now = at(0);
    // Three lanes take all that is shared.
    let held: Vec<_> = (1..=3).flat_map(|lane| fill(&mut dispatch, lane, now)).collect();
    assert_eq!(held.len(), 3 + 8, "one of its own each, and the shared eight");
    for lane in 10..20 {
        assert_eq!(fill(&mut dispatch, lane, now).len(), 1, "lane {lane}");
    }
    now = now.plus(SLOW_AFTER);
    assert_eq!(fill(&mut dispatch, 30, now).len(), 4, "what hangs keeps half of them and no more");
}

#[test]
fn slow_lanes_share_half_of_the_slots() {
    let mut dispatch = Dispatch::new(LIMITS);
    let mut now = at(0);
    let mut held = Vec::new();
    for lane in 0..50 {
        held.push(begin(&mut dispatch, lane, now).expect("nothing is known against it"));
    }
    now = now.plus(Duration::from_secs(20));
    for ticket in held.drain(..) {
        dispatch.end(ticket, Felt::Bad, now);
    }
    for lane in 0..50 {
        held.extend(fill(&mut dispatch, lane, now));
    }
    assert_eq!(held.len(), 4, "of all fifty together");
    assert_eq!(dispatch.gate(Lane(49), now), Gate::Full);
    assert_eq!(dispatch.gate(Lane(100), now), Gate::Any { room: 4 }, "a prompt one has what it had");
    // One that ends promptly is prompt again.
    let ticket = held.pop().expect("four");
    dispatch.end(ticket, Felt::Good, now.plus(Duration::from_millis(20)));
    let prompt = (0..50).filter(|lane| dispatch.gate(Lane(*lane), now) != Gate::Full).count();
    assert_eq!(prompt, 49, "its slot is free for whichever comes first, but for the one whose window is full");
}

#[test]
fn what_becomes_slow_makes_room_and_tells_when() {
    let mut dispatch = Dispatch::new(Limits { slots: 2, ..LIMITS });
    let held: Vec<_> = fill(&mut dispatch, 1, at(0));
    assert_eq!(held.len(), 3);
    assert_eq!(fill(&mut dispatch, 2, at(10)).len(), 1);
    assert_eq!(dispatch.gate(Lane(2), at(999)), Gate::Full);
    assert_eq!(dispatch.next_change(), Some(at(1000)));
    assert_eq!(dispatch.gate(Lane(2), at(1000)), Gate::Any { room: 3 });
    assert_eq!(dispatch.next_change(), Some(at(1010)));
}

#[test]
fn a_breaker_opens_after_failures_in_a_row_and_probes_ever_more_seldom() {
    let mut dispatch = Dispatch::new(LIMITS);
    let mut now = at(0);
    for _ in 0..4 {
        now = attempt(&mut dispatch, 1, now, 5, Felt::Bad);
    }
    now = attempt(&mut dispatch, 1, now, 5, Felt::Good);
    for _ in 0..5 {
        assert!(matches!(dispatch.gate(Lane(1), now), Gate::Any { .. }));
        now = attempt(&mut dispatch, 1, now, 5, Felt::Bad);
    }
    // 2, 4, 8, 16, 16 s.
    for pause_secs in [2, 4, 8, 16, 16] {
        assert_eq!(dispatch.gate(Lane(1), now), Gate::Begun { room: 1 });
        let probe_at = now.plus(Duration::from_secs(pause_secs));
        assert_eq!(dispatch.probe_at(Lane(1)), Some(probe_at));
        let just_before = Mono(probe_at.0 - Duration::from_millis(1));
        assert_eq!(dispatch.gate(Lane(1), just_before), Gate::Begun { room: 1 });
        assert_eq!(dispatch.gate(Lane(1), probe_at), Gate::Probe);
        now = attempt(&mut dispatch, 1, probe_at, 5, Felt::Bad);
    }
    let probe_at = dispatch.probe_at(Lane(1)).expect("open");
    now = attempt(&mut dispatch, 1, probe_at, 5, Felt::Good);
    assert!(matches!(dispatch.gate(Lane(1), now), Gate::Any { .. }), "one good end closes it");
    assert_eq!(dispatch.lane(Lane(1)).breaker, BreakerState::Closed { failures: 0 });
}

#[test]
fn only_one_probe_runs_and_retries_count_as_probes() {
    let mut dispatch = Dispatch::new(Limits { breaker_failures: 1, ..LIMITS });
    let now = attempt(&mut dispatch, 1, at(0), 5, Felt::Good);
    let now = attempt(&mut dispatch, 1, now, 5, Felt::Bad);
    let probe_at = dispatch.probe_at(Lane(1)).expect("open");
    // A delivery that has had an attempt goes on meanwhile; that it fails puts the probe off.
    assert_eq!(dispatch.gate(Lane(1), now), Gate::Begun { room: 2 });
    let retry = dispatch.begin(Lane(1), Flow(1), false, now);
    dispatch.end(retry, Felt::Bad, probe_at);
    let put_off = dispatch.probe_at(Lane(1)).expect("open");
    assert_eq!(put_off, probe_at.plus(Duration::from_secs(4)));
    let probe = dispatch.begin(Lane(1), Flow(1), true, put_off);
    assert_eq!(dispatch.probe_at(Lane(1)), None, "it is being probed");
    assert_eq!(dispatch.gate(Lane(1), put_off), Gate::Full, "its window is 1 by now");
    dispatch.end(probe, Felt::Nothing, put_off);
    assert_eq!(dispatch.probe_at(Lane(1)), Some(put_off.plus(Duration::from_secs(8))), "it told nothing; later again");
}

#[test]
fn retries_that_fail_for_ever_do_not_put_a_probe_off_for_ever() {
    let mut dispatch = Dispatch::new(Limits { breaker_failures: 1, ..LIMITS });
    let mut now = attempt(&mut dispatch, 1, at(0), 5, Felt::Bad);
    let opened = now;
    // One flow's retries fail every second, more often than the longest pause is long.
    while dispatch.gate(Lane(1), now) != Gate::Probe {
        assert!(now.since(opened) < Duration::from_secs(200), "nobody else is ever asked for");
        let retry = dispatch.begin(Lane(1), Flow(1), false, now);
        now = now.plus(Duration::from_secs(1));
        dispatch.end(retry, Felt::Bad, now);
    }
    // Another flow is taken, which closes the breaker for all.
    let probe = dispatch.begin(Lane(1), Flow(2), true, now);
    dispatch.end(probe, Felt::Good, now);
    assert!(matches!(dispatch.gate(Lane(1), now), Gate::Any { .. }));
}

#[test]
fn failures_of_before_it_opened_put_no_probe_off() {
    let mut dispatch = Dispatch::new(Limits { breaker_failures: 2, ..LIMITS });
    let held = fill(&mut dispatch, 1, at(0));
    assert_eq!(held.len(), 4);
    let mut ends = [5, 6, 7, 900].into_iter();
    for ticket in held {
        dispatch.end(ticket, Felt::Bad, at(ends.next().expect("four")));
    }
    assert_eq!(dispatch.probe_at(Lane(1)), Some(at(6 + 2000)));
}

#[test]
fn a_breaker_that_is_switched_off_never_opens() {
    let mut dispatch = Dispatch::new(Limits { breaker_failures: 0, ..LIMITS });
    let mut now = at(0);
    for _ in 0..100 {
        now = attempt(&mut dispatch, 1, now, 5, Felt::Bad);
    }
    assert!(matches!(dispatch.gate(Lane(1), now), Gate::Any { .. }));
}

/// One slot, two endpoints that always have work: each gets half of the time, not half of the attempts.
#[test]
fn turns_are_charged_by_time_held() {
    let mut dispatch = Dispatch::new(LIMITS);
    let (quick, slow) = (Flow(1), Flow(2));
    let (mut now, mut held) = (at(0), [Duration::ZERO; 2]);
    for _ in 0..10_000 {
        let flow = if dispatch.turn(quick) <= dispatch.turn(slow) { quick } else { slow };
        let took = Duration::from_millis(if flow == quick { 10 } else { 700 });
        held[usize::from(flow == slow)] += took;
        let ticket = dispatch.begin(Lane(1), flow, false, now);
        now = now.plus(took);
        dispatch.end(ticket, Felt::Good, now);
    }
    let ratio = held[0].as_secs_f64() / held[1].as_secs_f64();
    assert!((0.95..1.05).contains(&ratio), "{held:?}");
}

#[test]
fn who_was_away_gets_no_credit_for_it() {
    let mut dispatch = Dispatch::new(LIMITS);
    let mut now = at(0);
    now = attempt(&mut dispatch, 1, now, 10, Felt::Good);
    for _ in 0..1000 {
        now = attempt(&mut dispatch, 2, now, 10, Felt::Good);
    }
    let behind = dispatch.turn(Flow(2)) - dispatch.turn(Flow(1));
    assert!(behind <= 50_000, "one attempt's worth at most, and it is {behind} us");
}

#[derive(Clone, Debug)]
enum Step {
    Begin { lane: u32 },
    End { which: usize, felt: Felt },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let felt = prop_oneof![3 => Just(Felt::Good), 2 => Just(Felt::Bad), 1 => Just(Felt::Nothing)];
    prop_oneof![
        5 => (0..12_u32).prop_map(|lane| Step::Begin { lane }),
        4 => (any::<usize>(), felt).prop_map(|(which, felt)| Step::End { which, felt }),
        2 => prop_oneof![0..50_u64, 500..30_000_u64].prop_map(|ms| Step::Wait { ms }),
    ]
}

proptest! {
    /// Whatever receivers do: no lane exceeds its window, nobody takes more than there is, who is prompt is never locked
    /// out by others, and in the end everything is given back.
    #[test]
    fn bounds_hold_whatever_happens(steps in proptest::collection::vec(step(), 0..400)) {
        let mut dispatch = Dispatch::new(LIMITS);
        let mut now = at(0);
        let mut under_way: Vec<(u32, Ticket)> = vec![];
        for step in steps {
            match step {
                Step::Wait { ms } => now = now.plus(Duration::from_millis(ms)),
                Step::End { which, felt } if !under_way.is_empty() => {
                    let (_, ticket) = under_way.swap_remove(which % under_way.len());
                    dispatch.end(ticket, felt, now);
                }
                Step::End { .. } => {}
                Step::Begin { lane } => {
                    let gate = dispatch.gate(Lane(lane), now);
                    let before = dispatch.lane(Lane(lane));
                    prop_assert_eq!(before.running, under_way.iter().filter(|(of, _)| *of == lane).count());
                    if gate == Gate::Full {
                        let is_full = before.running >= before.window;
                        prop_assert!(is_full || before.is_slow || before.running > 0, "a prompt lane was locked out");
                        continue;
                    }
                    prop_assert!(before.running < before.window);
                    let ticket = dispatch.begin(Lane(lane), Flow(lane.into()), gate == Gate::Probe, now);
                    under_way.push((lane, ticket));
                    prop_assert!(dispatch.shared <= LIMITS.slots);
                    prop_assert!(!before.is_slow || dispatch.slow <= LIMITS.slots / 2);
                }
            }
            let window = 1..=LIMITS.window_max;
            prop_assert!((0..12).all(|lane| window.contains(&dispatch.lane(Lane(lane)).window)));
        }
        for (_, ticket) in under_way {
            dispatch.end(ticket, Felt::Good, now);
        }
        prop_assert_eq!((dispatch.running(), dispatch.shared, dispatch.slow), (0, 0, 0));
        prop_assert!((0..12).all(|lane| dispatch.lane(Lane(lane)).running == 0));
    }
}
