//! Deliveries, receivers and crashes in virtual time: what decides is the domain's own code (`dispatch`, `retry`); store and
//! receivers are models. Every run follows from its seed, which each failure names.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::dispatch::{Dispatch, Flow, Gate, Lane, Limits, Ticket};
use framehook_domain::retry::{DeadReason, Failed, Next, Outcome, Plan, Schedule};
use framehook_domain::time::Mono;

const LIMITS: Limits = Limits { slots: 512, window_max: 64, breaker_failures: 5, pause_max: Duration::from_secs(15) };

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

/// What a receiver does with an attempt.
#[derive(Clone, Copy, Debug)]
enum Receiver {
    Healthy,
    /// Answers 503 at once.
    Failing,
    /// Never answers.
    Hanging,
    /// Refuses connections from one time to another, and is healthy otherwise.
    Away {
        from: Mono,
        until: Mono,
    },
    /// Fails every so many attempts, in one way or another.
    Flaky,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due,
    Claimed,
    Delivered,
    Dead,
}

/// A row of the model's outbox.
#[derive(Debug, Clone)]
struct Delivery {
    kind: EventKind,
    receiver: u32,
    state: State,
    due: Mono,
    attempts: u32,
    step: Duration,
    waited: Duration,
    failed_at: Mono,
    /// Requests that its receiver was sent.
    requests: u32,
    /// Those of them that were under way when the process died.
    cut_off: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Something may be done for a receiver.
    Look(u32),
    /// An attempt of so many-th start of the process ended.
    Ended {
        process: u32,
        delivery: u32,
        outcome: u8,
    },
    Crash,
}

const OUTCOMES: [Outcome; 5] =
    [Outcome::Delivered, Outcome::Status(503), Outcome::Timeout, Outcome::Connect, Outcome::Reset];

#[derive(Default)]
struct Queue {
    all: BTreeSet<(Mono, u32)>,
    begun: BTreeSet<(Mono, u32)>,
    /// The next look that is planned.
    look: Option<Mono>,
}

struct World {
    seed: u64,
    random: Random,
    limits: Limits,
    plan: Plan,
    now: Mono,
    process: u32,
    dispatch: Dispatch,
    receivers: Vec<Receiver>,
    queues: Vec<Queue>,
    deliveries: Vec<Delivery>,
    under_way: BTreeMap<u32, Ticket>,
    events: BinaryHeap<Reverse<(Mono, u64, Event)>>,
    next_event: u64,
    /// Receivers with something due for which there was no slot.
    blocked: BTreeSet<u32>,
    /// How late attempts after the first began.
    lateness: Vec<Duration>,
    /// From due to the first attempt, at healthy receivers.
    healthy_delays: Vec<Duration>,
}

impl World {
    fn new(seed: u64, limits: Limits, plan: Plan, receivers: Vec<Receiver>) -> Self {
        let queues = receivers.iter().map(|_| Queue::default()).collect();
        Self {
            seed,
            random: Random(seed),
            limits,
            plan,
            now: Mono::default(),
            process: 0,
            dispatch: Dispatch::new(limits),
            receivers,
            queues,
            deliveries: Vec::new(),
            under_way: BTreeMap::new(),
            events: BinaryHeap::new(),
            next_event: 0,
            blocked: BTreeSet::new(),
            lateness: Vec::new(),
            healthy_delays: Vec::new(),
        }
    }

    fn owe(&mut self, kind: EventKind, receiver: u32, due: Mono) {
        let id = self.deliveries.len() as u32;
        self.deliveries.push(Delivery {
            kind,
            receiver,
            state: State::Due,
            due,
            attempts: 0,
            step: Duration::ZERO,
            waited: Duration::ZERO,
            failed_at: Mono::default(),
            requests: 0,
            cut_off: 0,
        });
        self.queues[receiver as usize].all.insert((due, id));
        self.look_at(receiver, due);
    }

    fn at(&mut self, when: Mono, event: Event) {
        self.events.push(Reverse((when, self.next_event, event)));
        self.next_event += 1;
    }

    fn look_at(&mut self, receiver: u32, when: Mono) {
        let look = &mut self.queues[receiver as usize].look;
        if look.is_none_or(|planned| when < planned) {
            *look = Some(when);
            self.at(when, Event::Look(receiver));
        }
    }

    fn run(&mut self, until: Mono) {
        while let Some(Reverse((when, _, event))) = self.events.pop() {
            if when > until {
                break;
            }
            assert!(when >= self.now, "seed {}: time went back", self.seed);
            self.now = when;
            match event {
                Event::Look(receiver) => {
                    self.queues[receiver as usize].look.take_if(|planned| *planned <= when);
                    self.serve(receiver);
                }
                Event::Ended { process, delivery, outcome } if process == self.process => {
                    self.settle(delivery, OUTCOMES[outcome as usize]);
                }
                // Nobody is left who waits for it.
                Event::Ended { .. } => {}
                Event::Crash => self.crash(),
            }
        }
    }

    fn serve_blocked(&mut self) {
        let mut blocked: Vec<u32> = std::mem::take(&mut self.blocked).into_iter().collect();
        blocked.sort_by_key(|receiver| self.dispatch.turn(Flow((*receiver).into())));
        for receiver in blocked {
            self.serve(receiver);
        }
    }

    /// What one look at the outbox does, for one receiver.
    fn serve(&mut self, receiver: u32) {
        loop {
            let gate = self.dispatch.gate(Lane(receiver), self.now);
            let queue = &self.queues[receiver as usize];
            let (due, is_probe) = match gate {
                Gate::Full => {
                    if queue.all.first().is_some_and(|(due, _)| *due <= self.now) {
                        self.blocked.insert(receiver);
                        if let Some(change) = self.dispatch.next_change() {
                            self.look_at(receiver, change);
                        }
                    } else if let Some(&(due, _)) = queue.all.first() {
                        self.look_at(receiver, due);
                    }
                    return;
                }
                Gate::Any { .. } => (queue.all.first().copied(), false),
                Gate::Probe => (queue.all.first().copied(), true),
                Gate::Begun { .. } => {
                    let waits = queue.all.first().is_some_and(|(due, _)| *due <= self.now);
                    if waits && let Some(probe) = self.dispatch.probe_at(Lane(receiver)) {
                        self.look_at(receiver, probe);
                    }
                    (self.queues[receiver as usize].begun.first().copied(), false)
                }
            };
            match due {
                Some((due, id)) if due <= self.now => self.attempt(id, is_probe),
                Some((due, _)) => return self.look_at(receiver, due),
                None => return,
            }
        }
    }

    fn attempt(&mut self, id: u32, is_probe: bool) {
        let delivery = &mut self.deliveries[id as usize];
        let seed = self.seed;
        assert_eq!(delivery.state, State::Due, "seed {seed}: delivery {id} was taken up twice");
        assert!(delivery.due <= self.now, "seed {seed}: delivery {id} was sent before its time");
        if delivery.attempts > 0 {
            let waited = self.now.since(delivery.failed_at);
            assert!(waited >= delivery.step, "seed {seed}: delivery {id} was sent again after {waited:?}");
            self.lateness.push(waited - delivery.step);
        }
        let receiver = delivery.receiver;
        if matches!(self.receivers[receiver as usize], Receiver::Healthy) && delivery.attempts == 0 {
            self.healthy_delays.push(self.now.since(delivery.due));
        }
        delivery.state = State::Claimed;
        delivery.requests += 1;
        let queue = &mut self.queues[receiver as usize];
        queue.all.remove(&(delivery.due, id));
        queue.begun.remove(&(delivery.due, id));
        let ticket = self.dispatch.begin(Lane(receiver), Flow(receiver.into()), is_probe, self.now);
        self.under_way.insert(id, ticket);
        let (took, outcome) = self.answer(receiver);
        self.at(self.now.plus(took), Event::Ended { process: self.process, delivery: id, outcome });
    }

    /// How long an attempt takes and how it ends.
    fn answer(&mut self, receiver: u32) -> (Duration, u8) {
        const HANGS: Duration = Duration::from_secs(20);
        let random = &mut self.random;
        match self.receivers[receiver as usize] {
            Receiver::Healthy => (random.ms(2, 80), 0),
            Receiver::Failing => (random.ms(2, 30), 1),
            Receiver::Hanging => (HANGS, 2),
            Receiver::Away { from, until } if self.now >= from && self.now < until => (random.ms(0, 1), 3),
            Receiver::Away { .. } => (random.ms(2, 80), 0),
            Receiver::Flaky => match random.below(4) {
                0 => (random.ms(2, 3000), 1),
                1 if random.below(10) == 0 => (HANGS, 2),
                1 => (random.ms(0, 200), 4),
                _ => (random.ms(2, 1500), 0),
            },
        }
    }

    fn settle(&mut self, id: u32, outcome: Outcome) {
        let ticket = self.under_way.remove(&id).expect("an attempt that ends was under way");
        // With fewer under way than the share of slow receivers, nobody can wait for a slot.
        let others_wait = self.dispatch.running() >= self.limits.slots.div_ceil(2);
        self.dispatch.end(ticket, outcome.felt(), self.now);
        let random = self.random.next() as u32;
        let delivery = &mut self.deliveries[id as usize];
        let receiver = delivery.receiver;
        delivery.attempts += 1;
        if outcome.is_delivered() {
            delivery.state = State::Delivered;
        } else {
            let Delivery { attempts: attempt, waited, .. } = *delivery;
            let failed = Failed { attempt, outcome, waited, retry_after: None, random };
            match self.plan.next(Schedule::css(delivery.kind), &failed) {
                Next::Dead(reason) => {
                    assert_eq!(reason, DeadReason::Exhausted, "seed {}", self.seed);
                    delivery.state = State::Dead;
                }
                Next::After(step) => {
                    delivery.state = State::Due;
                    delivery.failed_at = self.now;
                    delivery.due = self.now.plus(step);
                    delivery.step = step;
                    delivery.waited += step;
                    let queue = &mut self.queues[receiver as usize];
                    queue.all.insert((delivery.due, id));
                    queue.begun.insert((delivery.due, id));
                }
            }
        }
        // Its slot is for whoever's turn it is, and it waits for its own like the others.
        if others_wait {
            self.blocked.insert(receiver);
            self.serve_blocked();
        } else {
            self.serve(receiver);
        }
    }

    /// The process dies and the next one starts at once: what was under way is sent again, as the same attempt.
    fn crash(&mut self) {
        self.process += 1;
        self.dispatch = Dispatch::new(self.limits);
        self.blocked.clear();
        for id in std::mem::take(&mut self.under_way).into_keys() {
            let delivery = &mut self.deliveries[id as usize];
            delivery.cut_off += 1;
            delivery.state = State::Due;
            delivery.due = self.now;
            let queue = &mut self.queues[delivery.receiver as usize];
            queue.all.insert((self.now, id));
            if delivery.attempts > 0 {
                queue.begun.insert((self.now, id));
            }
        }
        for receiver in 0..self.receivers.len() as u32 {
            self.serve(receiver);
        }
    }
}

fn at_secs(secs: u64) -> Mono {
    Mono(Duration::from_secs(secs))
}

fn quantile(durations: &mut [Duration], part: f64) -> Duration {
    durations.sort_unstable();
    durations[((durations.len() - 1) as f64 * part) as usize]
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}={number}")))
}

/// A thousand receivers that answer 503: every callback has exactly the attempts of its kind, none early, and nearly all at
/// their time. `SIMULATED_CALLBACKS` says how many there are, a million in a soak; `SIMULATION_SEED` repeats a run.
#[test]
fn failing_callbacks_have_exactly_their_attempts() {
    let callbacks = number_in("SIMULATED_CALLBACKS").unwrap_or(50_000);
    let seed = number_in("SIMULATION_SEED").unwrap_or(20);
    // Without a breaker: with it most would wait for a receiver that never comes.
    let limits = Limits { breaker_failures: 0, ..LIMITS };
    let mut world = World::new(seed, limits, Plan::Css, vec![Receiver::Failing; 1000]);
    // Of each receiver's callbacks every other is of the other kind.
    let kind_of = |nth: u64| [(EventKind::Snapshot, 6), (EventKind::PushBegan, 13)][(nth / 1000 % 2) as usize];
    for nth in 0..callbacks {
        world.owe(kind_of(nth).0, (nth % 1000) as u32, Mono(Duration::from_millis(nth)));
    }
    world.run(at_secs(100_000));
    for (id, delivery) in (0..).zip(&world.deliveries) {
        let (_, attempts) = kind_of(id);
        assert_eq!((delivery.state, delivery.attempts), (State::Dead, attempts), "seed {seed}: delivery {id}");
    }
    let retries: u64 = world.deliveries.iter().map(|delivery| u64::from(delivery.attempts - 1)).sum();
    assert_eq!(world.lateness.len() as u64, retries, "seed {seed}");
    let [median, p99] = [0.5, 0.99].map(|part| quantile(&mut world.lateness, part));
    println!("seed {seed}: {callbacks} callbacks, {retries} retries; late by {median:?} (median), {p99:?} (p99)");
    assert!(p99 < Duration::from_secs(1), "seed {seed}: one in a hundred was {p99:?} late or more");
}

/// A patient round waits a day and no more, whatever the seed.
#[test]
fn a_patient_callback_is_tried_for_a_day() {
    for seed in 0..100 {
        let mut world = World::new(seed, LIMITS, Plan::Patient, vec![Receiver::Failing]);
        world.owe(EventKind::Snapshot, 0, at_secs(0));
        world.run(at_secs(200_000));
        let delivery = &world.deliveries[0];
        assert_eq!(delivery.state, State::Dead, "seed {seed}");
        assert_eq!(delivery.waited, Duration::from_secs(86_400), "seed {seed}");
        assert!((35..100).contains(&delivery.attempts), "seed {seed}: {} attempts", delivery.attempts);
    }
}

/// Receivers of every kind and crashes at any time: nothing is lost, nothing is sent early or by two at once, what repeats
/// was under way at a crash, and healthy receivers wait for nobody.
#[test]
fn nothing_is_lost_among_receivers_and_crashes_of_every_kind() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let receivers: Vec<Receiver> = (0..100)
            .map(|_| match random.below(10) {
                0..3 => Receiver::Healthy,
                3..5 => Receiver::Hanging,
                5 => Receiver::Failing,
                6..8 => {
                    let from = Mono(random.ms(0, 600_000));
                    Receiver::Away { from, until: from.plus(random.ms(1000, 7_200_000)) }
                }
                _ => Receiver::Flaky,
            })
            .collect();
        let limits = Limits { slots: 8 + random.below(200) as usize, ..LIMITS };
        let mut world = World::new(seed, limits, Plan::Css, receivers);
        for _ in 0..5000 {
            let (receiver, due) = (random.below(100) as u32, Mono(random.ms(0, 1_200_000)));
            world.owe(EventKind::Snapshot, receiver, due);
        }
        let crashes = random.below(4);
        for _ in 0..crashes {
            let when = Mono(random.ms(0, 1_500_000));
            world.at(when, Event::Crash);
        }
        world.run(at_secs(12_000));
        for (id, delivery) in world.deliveries.iter().enumerate() {
            let receiver = world.receivers[delivery.receiver as usize];
            match (delivery.state, receiver) {
                (State::Delivered, _) => {}
                (State::Dead, _) => assert_eq!(delivery.attempts, 6, "seed {seed}: delivery {id} of {receiver:?}"),
                // Such receivers never take anything; what waits for them waits on, with all its attempts left.
                (State::Due | State::Claimed, Receiver::Failing | Receiver::Hanging) => {}
                (state, _) => panic!("seed {seed}: delivery {id} of {receiver:?} is {state:?}"),
            }
            let under_way = u32::from(delivery.state == State::Claimed);
            let counted = delivery.attempts + delivery.cut_off + under_way;
            assert_eq!(delivery.requests, counted, "seed {seed}: delivery {id} was sent again without a reason");
            assert!(u64::from(delivery.cut_off) <= crashes, "seed {seed}: delivery {id} was cut off too often");
            if matches!(receiver, Receiver::Healthy) {
                assert_eq!((delivery.state, delivery.attempts), (State::Delivered, 1), "seed {seed}: delivery {id}");
            }
        }
        let cut_off: u32 = world.deliveries.iter().map(|delivery| delivery.cut_off).sum();
        assert_eq!(cut_off > 0, crashes > 0, "seed {seed}: {crashes} crashes cut {cut_off} attempts off");
        let p99 = quantile(&mut world.healthy_delays, 0.99);
        assert!(p99 < Duration::from_millis(100), "seed {seed}: one in a hundred healthy ones waited {p99:?} or more");
    }
}
