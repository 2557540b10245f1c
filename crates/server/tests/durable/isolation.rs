//! Receivers that hang or fail, beside receivers that do not.

use std::time::Duration;

use framehook_domain::dispatch::BreakerState;
use framehook_domain::retry::Schedule;
use framehook_server::audit::Caller;
use framehook_server::db::outbox::{self, EndpointId, Filter, State};
use framehook_server::telemetry::Sample;
use framehook_server::telemetry::feed::Heard;
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::wait;

use crate::harness::{PATIENCE, Place, Settings, room, stream, telling, telling_room};

fn receiver() -> Receiver {
    Receiver::start().expect("a receiver")
}

#[test]
fn new_callbacks_wait_for_a_receiver_that_fails_and_lose_no_attempt_by_it() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(503));
    let place = Place::new(telling_room(&receiver.url("/")));
    // Its longest pause is a quarter of the step.
    let schedule = Schedule { step: Duration::from_secs(8), retries: 5 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    for failed in 1..=5 {
        process.commit(&room());
        wait::until("a failed attempt", PATIENCE, || {
            (process.list(Filter::default()).iter().filter(|row| row.attempts == 1).count() == failed).then_some(())
        })
        .expect("attempted");
    }
    for _ in 0..20 {
        process.commit(&room());
    }
    let endpoints = process.block_on(process.db.read(|conn| outbox::endpoints(conn, EndpointId(0), 10))).expect("read");
    assert_eq!(endpoints.len(), 1);
    let facts = process.notifier.receiver_of(endpoints[0].id).expect("known");
    assert!(matches!(facts.breaker, BreakerState::Open { .. }) && facts.window == 1, "{facts:?}");
    let all_due = || (process.count(State::Due) == 25).then_some(());
    wait::until("they wait", PATIENCE, all_due).expect("due");
    receiver.reply_always(Reply::Status(200));
    wait::until("all are delivered", PATIENCE, || (process.count(State::Delivered) == 25).then_some(()))
        .expect("delivered");
    let attempts: Vec<u32> = process.list(Filter::default()).iter().map(|row| row.attempts).collect();
    let at_once = attempts.iter().filter(|attempts| **attempts == 1).count();
    // The first probe after the fifth failure comes within a quarter of a second, and so may have failed as well.
    assert!(at_once >= 18, "of twenty that waited {at_once} needed one attempt: {attempts:?}");
}

#[test]
fn what_waits_too_long_for_a_receiver_that_never_answers_becomes_a_dead_letter_and_no_other_does() {
    const EACH: usize = 30;
    let (gone, slow) = (receiver(), receiver());
    gone.reply_always(Reply::Hang);
    // What is owed to it waits twelve seconds, far over the bound, and it answers.
    slow.reply_always(Reply::After(Duration::from_millis(400), 200));
    let place = Place::new(telling(&[("gone.example.com", &gone.url("/")), ("push.example.com", &slow.url("/"))]));
    let process = place.start_with(Settings {
        // Probes are up to two seconds apart, so that they are few.
        schedule: Schedule { step: Duration::from_secs(8), retries: 1 },
        deadline: Duration::from_millis(600),
        held_max: Duration::from_secs(1),
        slots_per_receiver: 1,
        ..Settings::default()
    });
    let mut listener = process.telemetry.feed.listen();
    for _ in 0..EACH {
        process.commit(&stream("gone.example.com", "room"));
        process.commit(&room());
    }
    wait::until("every delivery's end", PATIENCE, || {
        (process.count(State::Dead) + process.count(State::Delivered) == 2 * EACH).then_some(())
    })
    .expect("settled");
    let mut held = Vec::new();
    for row in process.list(Filter::default()) {
        let outcome = row.outcome.as_deref();
        match (row.stream.domain.as_str(), row.state, outcome, row.attempts) {
            ("push.example.com", State::Delivered, ..) => {}
            ("gone.example.com", State::Dead, Some("held"), 0) => held.push(row.id),
            // Those that were begun have had their schedule.
            ("gone.example.com", State::Dead, Some("timeout"), 2) => {}
            _ => panic!("{row:?}"),
        }
    }
    assert!((EACH / 2..=EACH - 5).contains(&held.len()), "{} of {EACH} were given up unsent", held.len());
    let page = process.telemetry.metrics.page(&Sample::default());
    assert!(page.lines().any(|line| line == format!("framehook_dead_letters_total {EACH}")), "{page}");
    let told = async {
        let mut told = 0;
        while told < held.len() {
            match listener.next().await {
                Some(Heard::Event(event)) if event.kind == "delivery_dead" => {
                    told += usize::from(event.json.contains("\"outcome\":\"held\""));
                }
                Some(_) => {}
                None => panic!("the feed is gone"),
            }
        }
    };
    process.block_on(async { tokio::time::timeout(PATIENCE, told).await }).expect("each was told of");
    // They are kept like every dead letter.
    gone.reply_always(Reply::Status(200));
    process.block_on(process.replayer.replay(&Caller::Control, held[0], None)).expect("replayed");
    wait::until("its delivery", PATIENCE, || (process.count(State::Delivered) == EACH + 1).then_some(()))
        .expect("sent");
    assert_eq!(process.show(held[0]).row.attempts, 1);
}

#[test]
fn what_was_begun_keeps_its_schedule_while_new_ones_wait() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let step = Duration::from_millis(600);
    let process = place.start_with(Settings { schedule: Schedule { step, retries: 4 }, ..Settings::default() });
    for _ in 0..4 {
        process.commit(&room());
    }
    let dead = || (process.count(State::Dead) == 4).then_some(());
    wait::until("all four are dead", PATIENCE, dead).expect("dead");
    for row in process.list(Filter::default()) {
        let detail = process.show(row.id);
        assert_eq!(detail.attempts.len(), 5, "{:?}", detail.attempts);
        for pair in detail.attempts.windows(2) {
            let gap = pair[1].started.since(pair[0].started);
            assert!(gap >= step && gap < step + Duration::from_secs(4), "sent again after {gap:?}");
        }
    }
}

#[test]
fn hanging_receivers_keep_no_more_than_their_share_and_nobody_waits_for_them() {
    let (hanging, healthy) = (30, receiver());
    let slow: Vec<Receiver> = (0..hanging).map(|_| receiver()).collect();
    slow.iter().for_each(|receiver| receiver.reply_always(Reply::Hang));
    let mut told: Vec<(String, String)> =
        slow.iter().enumerate().map(|(at, receiver)| (format!("slow{at}.example.com"), receiver.url("/"))).collect();
    told.push(("push.example.com".into(), healthy.url("/")));
    let told: Vec<(&str, &str)> = told.iter().map(|(domain, url)| (domain.as_str(), url.as_str())).collect();
    let place = Place::new(telling(&told));
    let schedule = Schedule { step: Duration::from_secs(3600), retries: 1 };
    let deadline = Duration::from_secs(3);
    let process = place.start_with(Settings { schedule, deadline, slots: 8, ..Settings::default() });
    for at in 0..hanging {
        for _ in 0..3 {
            process.commit(&stream(&format!("slow{at}.example.com"), "room"));
        }
    }
    // Once all of them are known to be slow, they share four of the eight slots.
    wait::until("the share of the slow", PATIENCE, || {
        let first_round_is_over = process.list(Filter::default()).iter().filter(|row| row.attempts > 0).count() >= 30;
        (first_round_is_over && process.notifier.running() <= 4).then_some(())
    })
    .expect("four at most");
    for _ in 0..40 {
        process.commit(&room());
    }
    healthy.wait_for(40, Duration::from_secs(10)).expect("every callback of the healthy receiver");
    // A delivered one gives its slot back a moment after that stands in the database.
    let only_hanging = || process.count(State::Delivered) == 40 && process.notifier.running() <= 4;
    wait::until("no more to hang than four", PATIENCE, || only_hanging().then_some(())).expect("settled");
}

#[test]
fn callbacks_that_are_due_for_long_are_told_of_until_they_are_sent() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_secs(60), retries: 5 };
    let overdue_after = Duration::from_millis(100);
    let process = place.start_with(Settings { schedule, overdue_after, ..Settings::default() });
    for failed in 1..=5 {
        process.commit(&room());
        receiver.wait_for(failed, PATIENCE).expect("an attempt");
        wait::until("its end", PATIENCE, || (process.notifier.running() == 0).then_some(())).expect("ended");
    }
    // Two that wait for the receiver: one may be its next probe.
    process.commit(&room());
    process.commit(&room());
    let mut listener = process.telemetry.feed.listen();
    let mut told_of = |kind: &str| {
        let hear = async {
            loop {
                match listener.next().await {
                    Some(Heard::Event(told)) if told.kind == kind => return told.json.clone(),
                    Some(_) => {}
                    None => panic!("the feed is gone"),
                }
            }
        };
        process.block_on(async { tokio::time::timeout(PATIENCE, hear).await })
    };
    let overdue = |count: usize| {
        let line = format!("framehook_endpoints_overdue {count}");
        wait::until(&line, PATIENCE, || {
            process.telemetry.metrics.page(&Sample::default()).lines().any(|shown| shown == line).then_some(())
        })
    };
    overdue(1).expect("counted");
    let told = told_of("endpoint_overdue").expect("told of");
    assert!(told.contains("\"event_type\":200") && told.contains("\"oldest_due_age_ms\":"), "{told}");
    receiver.reply_always(Reply::Status(200));
    overdue(0).expect("over");
    told_of("endpoint_caught_up").expect("told of its end");
}
