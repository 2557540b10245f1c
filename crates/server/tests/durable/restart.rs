//! What a killed process leaves to the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use framehook_domain::callback::{EventKind, PushBegan, PushFacts};
use framehook_domain::id::PushSequence;
use framehook_domain::retry::Schedule;
use framehook_domain::stream::StreamParam;
use framehook_server::db::outbox::{Announcing, NewEvent, State, announce};
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::wait;

use crate::harness::{KEY, PATIENCE, Place, Process, Settings, room, telling_room};

/// Longest time from a start to the first request of owed work. Two seconds are promised, on a machine that has nothing
/// else to do; here it must only be less than the five after which the notifier would look a second time.
const UNDER_WAY: Duration = Duration::from_secs(4);

fn receiver() -> Receiver {
    Receiver::start().expect("a receiver")
}

/// Owes `count` deliveries that are due, without any picture behind them.
fn owe(process: &Process, url: &str, count: u32) {
    let (log, catalog) = (process.log.clone(), Arc::new(telling_room(url)));
    let write = move |tx: &framehook_server::db::Tx<'_>| {
        let (room, param, wall) = (room(), StreamParam::default(), log.clock.wall());
        let announcing = Announcing { catalog: &catalog, entropy: &log.entropy, wall, now: log.timeline.now() };
        for number in 0..count {
            let sequence = PushSequence::new(wall, number);
            let (node, user_ip) = ([192, 0, 2, 10].into(), [203, 0, 113, 7].into());
            let push = PushFacts { stream: &room, param: &param, app_id: 1, sequence, node, user_ip };
            let body = PushBegan { push, event_time: wall, width: 0, height: 0 }.body();
            let kind = EventKind::PushBegan;
            let event =
                NewEvent { kind, stream: &room, sequence, snapshot: None, waits_for_object: false, body: &body };
            announce(tx, &announcing, &event)?;
        }
        Ok(())
    };
    process.block_on(process.db.write(write)).expect("owed");
}

#[test]
fn an_attempt_cut_off_by_a_kill_is_made_again_at_once_as_the_same_attempt() {
    let receiver = receiver();
    receiver.reply_always(Reply::Hang);
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_secs(3600), retries: 5 };
    let settings = Settings { schedule, ..Settings::default() };
    let process = place.start_with(settings.clone());
    let epoch = process.db.epoch();
    process.commit(&room());
    let cut_off = receiver.wait_for(1, PATIENCE).expect("an attempt").remove(0);
    process.wait_for_state(State::Claimed);
    process.kill();

    receiver.reply_always(Reply::Status(200));
    let process = place.start_with(settings);
    let started = Instant::now();
    assert_eq!(process.db.epoch().0, epoch.0 + 1);
    let again = receiver.wait_for(2, PATIENCE).expect("the same attempt again").remove(1);
    assert!(started.elapsed() < UNDER_WAY, "owed work was under way only after {:?}", started.elapsed());
    assert_eq!(again.webhook_id().expect("an id"), cut_off.webhook_id().expect("an id"));
    again.verify(KEY).expect("signed anew");
    let delivered = process.wait_for_state(State::Delivered);
    let numbers: Vec<_> = delivered.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1], "the attempt that was cut off and its repetition are one");
}

#[test]
fn a_claim_of_this_process_is_not_taken_back() {
    let receiver = receiver();
    receiver.reply_always(Reply::Hang);
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    owe(&process, &receiver.url("/"), 1);
    receiver.wait_for(1, PATIENCE).expect("an attempt");
    // Another delivery comes and goes while the first is still under way.
    receiver.reply_always(Reply::Status(200));
    process.commit(&room());
    receiver.wait_for(2, PATIENCE).expect("the second");
    wait::until("it is settled", PATIENCE, || (process.count(State::Delivered) == 1).then_some(())).expect("settled");
    assert_eq!(process.count(State::Claimed), 1);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn a_retry_keeps_its_place_in_the_schedule_over_restarts() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_millis(300), retries: 3 };
    let settings = Settings { schedule, ..Settings::default() };
    let mut process = place.start_with(settings.clone());
    process.commit(&room());
    for attempts in 1..=3 {
        receiver.wait_for(attempts, PATIENCE).expect("an attempt");
        wait::until("its record", PATIENCE, || {
            let rows = process.list(Default::default());
            (rows.len() == 1 && rows[0].attempts as usize >= attempts).then_some(())
        })
        .expect("recorded");
        process.kill();
        process = place.start_with(settings.clone());
    }
    let dead = process.wait_for_state(State::Dead);
    assert_eq!(dead.attempts.len(), 4, "one attempt and three retries in four lives");
    assert_eq!(receiver.requests().len(), 4);
    let ids: BTreeSet<_> =
        receiver.requests().iter().map(|request| request.webhook_id().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), 1);
}

/// A place whose process has ended after one attempt that its receiver refused, as it refuses every further one.
fn after_a_refused_attempt(schedule: Schedule) -> (Receiver, Place, Settings) {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let settings = Settings { schedule, ..Settings::default() };
    let process = place.start_with(settings.clone());
    process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("the first attempt");
    process.wait_for_state(State::Due);
    process.stop();
    (receiver, place, settings)
}

#[test]
fn a_clock_that_was_set_back_while_nobody_watched_makes_nothing_wait_for_hours() {
    let schedule = Schedule { step: Duration::from_millis(500), retries: 2 };
    let (receiver, place, settings) = after_a_refused_attempt(schedule);
    // As if everything had been written with a clock six hours ahead.
    place.tamper("UPDATE delivery SET due_ms = due_ms + 6 * 3600 * 1000");

    let process = place.start_with(settings);
    receiver.wait_for(2, PATIENCE).expect("the second attempt, after its step and not after six hours");
    process.wait_for_state(State::Dead);
    assert_eq!(receiver.requests().len(), 3, "and no attempt more than the schedule has");
}

#[test]
fn a_clock_that_was_set_forward_makes_one_attempt_early_and_no_second() {
    let schedule = Schedule { step: Duration::from_millis(1500), retries: 3 };
    let (receiver, place, settings) = after_a_refused_attempt(schedule);
    place.tamper("UPDATE delivery SET due_ms = due_ms - 6 * 3600 * 1000");

    let _process = place.start_with(settings);
    let requests = receiver.wait_for(3, PATIENCE).expect("two more attempts");
    let gap = requests[2].arrived - requests[1].arrived;
    assert!(gap >= schedule.step, "the one after the early one came after {gap:?}");
}

#[test]
fn ten_thousand_owed_deliveries_are_under_way_within_two_seconds_of_a_start() {
    const OWED: u32 = 10_000;
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    owe(&process, &receiver.url("/"), OWED);
    process.kill();

    // The best of three starts: other programs on the machine can only make one worse.
    let mut took = Vec::new();
    let process = loop {
        let so_far = receiver.requests().len();
        let process = place.start();
        let started = Instant::now();
        receiver.wait_for(so_far + 1, PATIENCE).expect("a request");
        took.push(started.elapsed());
        if took.len() == 3 {
            break process;
        }
        process.kill();
    };
    assert!(took.iter().min() < Some(&Duration::from_secs(2)), "under way only after {took:?}");
    let so_far = receiver.requests().len();
    let requests = receiver.wait_for(so_far + 500, PATIENCE).expect("and on it goes").split_off(so_far);
    let ids: BTreeSet<_> = requests.iter().map(|request| request.webhook_id().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), requests.len(), "none twice by one process");
    process.kill();
}

#[test]
fn an_orderly_stop_finishes_attempts_and_leaves_nothing_claimed() {
    let receiver = receiver();
    receiver.reply_always(Reply::After(Duration::from_millis(300), 200));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("an attempt under way");
    process.stop();
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let delivered = process.wait_for_state(State::Delivered);
    assert_eq!(delivered.attempts.len(), 1);
}
