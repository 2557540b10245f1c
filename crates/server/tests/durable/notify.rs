//! Claim, attempt, settle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::catalog::{Catalog, CatalogParts};
use framehook_domain::id::TemplateId;
use framehook_domain::retry::Schedule;
use framehook_server::audit::Caller;
use framehook_server::db::outbox::{ReplayRefused, State};
use framehook_server::notify::ReplayError;
use framehook_server::prune::{LogLimits, prune};
use framehook_testkit::receiver::{Receiver, Reply, Request};
use framehook_testkit::wait;

use crate::harness::{
    KEY, PATIENCE, Place, Process, Settings, callback_template, room, stream, telling, telling_nobody, telling_room,
};

fn receiver() -> Receiver {
    Receiver::start().expect("a receiver")
}

fn ids(requests: &[Request]) -> BTreeSet<String> {
    requests.iter().map(|request| request.webhook_id().expect("an id").to_owned()).collect()
}

/// The body without what each attempt makes anew.
fn fixed_part(request: &Request) -> serde_json::Value {
    let mut body = request.json().expect("JSON");
    let fields = body.as_object_mut().expect("an object");
    fields.remove("t");
    fields.remove("sign");
    body
}

#[test]
fn a_delivery_is_attempted_exactly_as_its_schedule_says() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/notify?action=snapshot")));
    let step = Duration::from_millis(400);
    let process = place.start_with(Settings { schedule: Schedule { step, retries: 5 }, ..Settings::default() });
    process.commit(&room());

    let dead = process.wait_for_state(State::Dead);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 6, "one attempt and five retries");
    for request in &requests {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/notify?action=snapshot"));
        request.verify(KEY).expect("both signatures are good at each attempt");
        assert_eq!(fixed_part(request), fixed_part(&requests[0]));
    }
    assert_eq!(ids(&requests), BTreeSet::from([dead.row.id.to_string()]));
    for pair in requests.windows(2) {
        let gap = pair[1].arrived - pair[0].arrived;
        assert!(gap >= step, "sent again after {gap:?}, before its step of {step:?}");
        // Woken for it: the notifier looks by itself every five seconds, on a busy machine too.
        assert!(gap < step + Duration::from_secs(4), "sent again only after {gap:?}");
    }
    assert_eq!((dead.row.attempts, dead.row.outcome.as_deref()), (6, Some("status")));
    let attempts: Vec<_> =
        dead.attempts.iter().map(|attempt| (attempt.number, attempt.status, attempt.outcome.as_str())).collect();
    assert_eq!(attempts, (1..=6).map(|number| (number, Some(500), "status")).collect::<Vec<_>>());
    assert_eq!(dead.attempts[0].response.as_deref(), Some(r#"{"code":0}"#));
    assert_eq!(dead.attempts[0].url, format!("{}?***", receiver.url("/notify")));
}

/// A lone picture takes two transactions: recorded, stored and claimed; delivered. Looking for more after each attempt would
/// be a third.
#[test]
fn a_picture_is_claimed_as_it_is_stored_and_followed_by_no_look() {
    const PICTURES: u64 = 20;
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    process.commit(&room());
    process.wait_for_state(State::Delivered);
    let before = process.db.stats().commits;
    for number in 0..PICTURES {
        process.commit(&stream("push.example.com", &format!("room_{number}")));
        process.wait_for_state(State::Delivered);
    }
    let commits = process.db.stats().commits - before;
    // What is done every few seconds anyway has the other half of a third.
    assert!(commits < 2 * PICTURES + PICTURES / 2, "{commits} transactions for {PICTURES} pictures");
}

/// That a callback was delivered is written down with the next picture, if that comes before long.
#[test]
fn what_was_delivered_is_written_down_along_with_something_else() {
    const PICTURES: usize = 10;
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    let mut pictures = 0;
    // A busy machine may take too long for each of them; not for ever.
    wait::until("outcomes that went along", PATIENCE, || {
        let before = process.db.stats();
        for _ in 0..PICTURES {
            process.commit(&stream("push.example.com", &format!("room_{pictures}")));
            pictures += 1;
            receiver.wait_for(pictures, PATIENCE).expect("a callback");
        }
        let all_settled = || (process.count(State::Delivered) == pictures).then_some(());
        wait::until("all to be settled", PATIENCE, all_settled).expect("settled");
        let after = process.db.stats();
        assert!(after.operations - before.operations > 2 * PICTURES as u64, "claims and outcomes are operations too");
        // One of each, one for the last outcome, and one of the notifier that comes every few seconds.
        (after.commits - before.commits <= PICTURES as u64 + 2).then_some(())
    })
    .expect("one transaction of each picture");
}

#[test]
fn only_200_delivers() {
    let receiver = receiver();
    receiver.on_request(|request| Reply::Status([204, 302, 404, 200][request.index.min(3)]));
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 5 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    let delivered = process.wait_for_state(State::Delivered);
    let statuses: Vec<_> = delivered.attempts.iter().map(|attempt| attempt.status.expect("an answer")).collect();
    assert_eq!(statuses, [204, 302, 404, 200]);
    assert_eq!(delivered.row.outcome.as_deref(), Some("delivered"));
}

#[test]
fn what_went_wrong_is_recorded_with_each_attempt() {
    let cases = [
        ("a reset", Reply::Reset, "reset"),
        ("no answer in time", Reply::Hang, "timeout"),
        ("no HTTP", Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "protocol"),
    ];
    for (name, reply, outcome) in cases {
        let receiver = receiver();
        receiver.reply_always(reply);
        let place = Place::new(telling_room(&receiver.url("/")));
        let schedule = Schedule { step: Duration::from_millis(20), retries: 0 };
        let process =
            place.start_with(Settings { schedule, deadline: Duration::from_millis(300), ..Settings::default() });
        process.commit(&room());
        let dead = process.wait_for_state(State::Dead);
        assert_eq!(dead.attempts.len(), 1, "{name}");
        assert_eq!(dead.attempts[0].outcome, outcome, "{name}");
        assert!(dead.attempts[0].error.is_some() && dead.attempts[0].status.is_none(), "{name}");
    }
}

#[test]
fn a_forbidden_address_is_a_recorded_attempt() {
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 1 };
    let process = place.start_with(Settings { schedule, allow: "10.0.0.0/8", ..Settings::default() });
    process.commit(&room());
    let dead = process.wait_for_state(State::Dead);
    let outcomes: Vec<_> = dead.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert_eq!(outcomes, ["address_forbidden", "address_forbidden"]);
    assert!(receiver.requests().is_empty());
}

#[test]
fn credentials_of_a_url_are_sent_and_shown_nowhere() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let url = format!("http://us3r:p4ss@{}/notify?token=s3cret", receiver.address());
    let place = Place::new(telling_room(&url));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 0 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    let dead = process.wait_for_state(State::Dead);
    let sent = receiver.requests().remove(0);
    assert_eq!(sent.headers.get("authorization"), Some("Basic dXMzcjpwNHNz"));
    let shown = format!("{dead:?}");
    for secret in ["us3r", "p4ss", "s3cret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn url_and_key_are_read_again_for_each_attempt() {
    let (old, new) = (receiver(), receiver());
    old.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&old.url("/")));
    let schedule = Schedule { step: Duration::from_millis(500), retries: 3 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    let first = old.wait_for(1, PATIENCE).expect("the first attempt").remove(0);
    first.verify(KEY).expect("signed with the old key");
    let moved = callback_template(TemplateId(1), &new.url("/moved"), "another key");
    place.configure(
        Catalog::build(2, CatalogParts { callback_templates: vec![moved], ..CatalogParts::default() })
            .expect("a catalog"),
    );
    let second = new.wait_for(1, PATIENCE).expect("the second attempt").remove(0);
    second.verify("another key").expect("signed with the new key");
    assert_eq!(second.webhook_id().expect("an id"), first.webhook_id().expect("an id"));
    assert_eq!(second.target, "/moved");
    process.wait_for_state(State::Delivered);
    assert_eq!(old.requests().len(), 1);
}

#[test]
fn a_deleted_template_makes_dead_letters_that_another_url_revives() {
    let (old, new) = (receiver(), receiver());
    old.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&old.url("/")));
    let schedule = Schedule { step: Duration::from_secs(3600), retries: 3 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    old.wait_for(1, PATIENCE).expect("the first attempt");
    process.wait_for_state(State::Due);

    place.configure(telling_nobody());
    let dead = process.wait_for_state(State::Dead);
    assert_eq!((dead.row.outcome.as_deref(), dead.row.attempts), (Some("template_deleted"), 1));

    let id = dead.row.id;
    process.block_on(process.replayer.replay(&Caller::Control, id, Some(&new.url("/replayed")))).expect("replayed");
    let delivered = process.wait_for_state(State::Delivered);
    let request = new.requests().remove(0);
    assert_eq!(request.webhook_id().expect("an id"), id.to_string());
    assert_eq!(request.target, "/replayed");
    // With its template the key is gone, and a signature under an empty key could be forged by anybody.
    assert!(request.json().expect("JSON").get("sign").is_none());
    assert_eq!((delivered.row.attempts, delivered.row.has_own_url), (2, true));
}

#[test]
fn a_replay_is_a_new_round_with_the_same_id() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(503));
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 2 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    let dead = process.wait_for_state(State::Dead);
    assert_eq!(dead.attempts.len(), 3);

    process.block_on(process.replayer.replay(&Caller::Control, dead.row.id, None)).expect("replayed");
    receiver.wait_for(6, PATIENCE).expect("another full round");
    let dead = process.wait_for_state(State::Dead);
    assert_eq!(dead.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);

    receiver.reply_always(Reply::Status(200));
    process.block_on(process.replayer.replay(&Caller::Control, dead.row.id, None)).expect("replayed");
    process.wait_for_state(State::Delivered);
    assert_eq!(ids(&receiver.requests()), BTreeSet::from([dead.row.id.to_string()]));
    // What was delivered may be asked for again too.
    process.block_on(process.replayer.replay(&Caller::Control, dead.row.id, None)).expect("replayed");
    receiver.wait_for(8, PATIENCE).expect("sent again");
}

#[test]
fn a_replay_is_refused_where_it_makes_no_sense() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(Settings {
        schedule: Schedule { step: Duration::from_secs(3600), retries: 1 },
        ..Settings::default()
    });
    let recorded = process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("an attempt");
    let open = process.wait_for_state(State::Due);
    let replay = |id, url: Option<&str>| process.block_on(process.replayer.replay(&Caller::Control, id, url));
    assert!(matches!(replay(open.row.id, None), Err(ReplayError::Refused(ReplayRefused::Open))));
    let unknown = "0197a000-0000-7000-8000-000000000000".parse().expect("an id");
    assert!(matches!(replay(unknown, None), Err(ReplayError::Refused(ReplayRefused::Unknown))));

    place.configure(telling_nobody());
    let dead = process.wait_for_state(State::Dead);
    assert!(matches!(replay(dead.row.id, Some("ftp://example.com/")), Err(ReplayError::Url(_))));
    let object = place.dir().join("objects/shots-1250000000").join(recorded.key.as_str());
    std::fs::remove_file(object).expect("the object is gone");
    let refused = replay(dead.row.id, Some(&receiver.url("/")));
    assert!(matches!(refused, Err(ReplayError::Refused(ReplayRefused::ObjectExpired))), "{refused:?}");
    let detail = process.show(dead.row.id);
    assert_eq!((detail.row.state, detail.row.outcome.as_deref()), (State::Dead, Some("object_expired")));
    assert_eq!(receiver.requests().len(), 1, "nothing names an object that is gone");
}

#[test]
fn a_replay_names_no_url_that_opens_nothing_any_more() {
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let replay = |process: &Process| {
        let delivered = process.wait_for_state(State::Delivered);
        process.block_on(process.replayer.replay(&Caller::Control, delivered.row.id, None))
    };

    let process = place.start_with(Settings { url_life: Some(Duration::from_secs(3600)), ..Settings::default() });
    let recorded = process.commit(&room());
    let url = recorded.pic_full_url.expect("a URL");
    assert!(url.contains("?expires="), "{url}");
    replay(&process).expect("the URL lives");
    let requests = receiver.wait_for(2, PATIENCE).expect("sent again");
    assert_eq!(fixed_part(&requests[1])["pic_full_url"], url);
    process.wait_for_state(State::Delivered);
    process.stop();

    // Nobody can fetch under a URL without a signature that was made before, nor under one whose life is over.
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(Settings { url_life: Some(Duration::ZERO), ..Settings::default() });
    process.commit(&room());
    let refused = replay(&process);
    assert!(matches!(refused, Err(ReplayError::Refused(ReplayRefused::ObjectExpired))), "{refused:?}");
    process.stop();
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    process.commit(&room());
    process.wait_for_state(State::Delivered);
    process.stop();
    let process = place.start_with(Settings { url_life: Some(Duration::from_secs(3600)), ..Settings::default() });
    let refused = replay(&process);
    assert!(matches!(refused, Err(ReplayError::Refused(ReplayRefused::ObjectExpired))), "{refused:?}");
}

#[test]
fn a_receiver_that_hangs_delays_nobody_else() {
    let hanging: Vec<Receiver> = (0..6).map(|_| receiver()).collect();
    hanging.iter().for_each(|receiver| receiver.reply_always(Reply::Hang));
    let healthy = receiver();
    let mut told: Vec<(String, String)> = Vec::new();
    for (index, receiver) in hanging.iter().enumerate() {
        told.push((format!("slow{index}.example.com"), receiver.url("/")));
    }
    told.push(("push.example.com".into(), healthy.url("/")));
    let told: Vec<(&str, &str)> = told.iter().map(|(domain, url)| (domain.as_str(), url.as_str())).collect();
    let place = Place::new(telling(&told));
    // Far fewer slots than the hanging receivers would take.
    let process = place.start_with(Settings { slots: 4, slots_per_receiver: 4, ..Settings::default() });
    for index in 0..6 {
        for _ in 0..8 {
            process.commit(&stream(&format!("slow{index}.example.com"), "room"));
        }
    }
    // Four shared slots, and one of its own for each of the six.
    wait::until("all slots taken", PATIENCE, || (process.notifier.running() == 10).then_some(())).expect("hanging");
    for _ in 0..20 {
        process.commit(&room());
    }
    healthy.wait_for(20, Duration::from_secs(10)).expect("every callback of the healthy receiver");
    wait::until("they are settled", PATIENCE, || (process.count(State::Delivered) == 20).then_some(()))
        .expect("settled");
    assert_eq!(process.count(State::Claimed), 10);
}

#[test]
fn no_receiver_gets_more_at_a_time_than_it_may() {
    let receiver = receiver();
    receiver.reply_always(Reply::Hang);
    // Two templates that lead to one host and port share its allowance.
    let place =
        Place::new(telling(&[("push.example.com", &receiver.url("/a")), ("b.example.com", &receiver.url("/b"))]));
    let process = place.start_with(Settings { slots: 64, slots_per_receiver: 3, ..Settings::default() });
    for _ in 0..6 {
        process.commit(&room());
        process.commit(&stream("b.example.com", "room"));
    }
    receiver.wait_for(3, PATIENCE).expect("three attempts");
    wait::until("all are due", PATIENCE, || (process.count(State::Due) == 9).then_some(())).expect("due");
    assert_eq!(process.notifier.running(), 3);
    assert_eq!(receiver.requests().len(), 3);
}

#[test]
fn a_busy_endpoint_shares_a_receiver_fairly() {
    let receiver = receiver();
    receiver.reply_always(Reply::After(Duration::from_millis(20), 200));
    let place =
        Place::new(telling(&[("push.example.com", &receiver.url("/a")), ("b.example.com", &receiver.url("/b"))]));
    let quiet = Settings { notifies: false, ..Settings::default() };
    let process = place.start_with(quiet);
    for _ in 0..40 {
        process.commit(&room());
    }
    for _ in 0..5 {
        process.commit(&stream("b.example.com", "room"));
    }
    wait::until("all are due", PATIENCE, || (process.count(State::Due) == 45).then_some(())).expect("due");
    process.stop();
    let process = place.start_with(Settings { slots_per_receiver: 2, ..Settings::default() });
    let requests = receiver.wait_for(45, PATIENCE).expect("every callback");
    let last_of_b = requests.iter().rposition(|request| request.target == "/b").expect("b was told");
    assert!(last_of_b < 20, "the five of the quiet endpoint were done only after {last_of_b} requests");
    process.wait_for_state(State::Delivered);
}

#[test]
fn a_cancelled_delivery_is_sent_no_more() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_millis(300), retries: 100 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("an attempt");
    let open = process.wait_for_state(State::Due);
    let (id, wall) = (open.row.id, process.clock.wall());
    let cancelled =
        process.block_on(process.db.write(move |tx| framehook_server::db::outbox::cancel(tx, id, "anna", wall)));
    assert!(cancelled.expect("written"));
    let detail = process.show(id);
    assert_eq!((detail.row.state, detail.row.outcome.as_deref()), (State::Cancelled, Some("cancelled by anna")));
    let again =
        process.block_on(process.db.write(move |tx| framehook_server::db::outbox::cancel(tx, id, "bert", wall)));
    assert!(!again.expect("written"), "who ended it stays");
    assert_eq!(process.show(id).row.outcome.as_deref(), Some("cancelled by anna"));
    // A later delivery goes its way, and by then the cancelled one would have been sent again.
    receiver.reply_always(Reply::Status(200));
    let before = receiver.requests().len();
    process.commit(&room());
    receiver.wait_for(before + 1, PATIENCE).expect("the later one");
    assert_eq!(
        receiver.requests().iter().filter(|request| request.webhook_id().ok() == Some(&id.to_string())).count(),
        before
    );
}

#[test]
fn a_signal_that_gets_lost_costs_seconds_and_no_delivery() {
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    // Owed without a word to anybody: what a task leaves that dies between its commit and its signal.
    let announced = process.log.clone();
    let (catalog, room) = (Arc::new(telling_room(&receiver.url("/"))), room());
    process
        .block_on(process.db.write(move |tx| {
            let opening = framehook_server::db::push::PushOpening {
                sequence: framehook_domain::id::PushSequence::new(announced.clock.wall(), 1),
                stream: room,
                param: Default::default(),
                user_ip: [203, 0, 113, 7].into(),
                node: [192, 0, 2, 10].into(),
                opened_at: announced.clock.wall(),
            };
            let announcing = framehook_server::db::outbox::Announcing {
                catalog: &catalog,
                entropy: &announced.entropy,
                wall: announced.clock.wall(),
                now: announced.timeline.now(),
            };
            framehook_server::db::push::open_push(tx, &announcing, 1, &opening)
        }))
        .expect("written");
    receiver.wait_for(1, PATIENCE).expect("found in the database");
    process.wait_for_state(State::Delivered);
}

#[test]
fn an_outcome_settles_only_the_claim_that_it_belongs_to() {
    let receiver = receiver();
    receiver.on_request(|request| match request.index {
        0 => Reply::After(Duration::from_millis(500), 500),
        _ => Reply::Hang,
    });
    let place = Place::new(telling_room(&receiver.url("/")));
    let schedule = Schedule { step: Duration::from_secs(3600), retries: 3 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("the first attempt");
    // A person cancels and sends again while the first attempt is still under way.
    let (id, wall) = (process.wait_for_state(State::Claimed).row.id, process.clock.wall());
    let cancel = process.db.write(move |tx| framehook_server::db::outbox::cancel(tx, id, "anna", wall));
    assert!(process.block_on(cancel).expect("written"));
    process.block_on(process.replayer.replay(&Caller::Control, id, None)).expect("replayed");
    receiver.wait_for(2, PATIENCE).expect("the second attempt");
    wait::until("the first outcome", PATIENCE, || (process.show(id).attempts.len() == 1).then_some(()))
        .expect("recorded");
    assert_eq!(process.show(id).row.state, State::Claimed, "the second is still under way");
}

#[test]
fn a_claim_whose_outcome_could_not_be_written_is_taken_up_again() {
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    place.start_with(Settings { notifies: false, ..Settings::default() }).stop();
    // A defect, as it would show: the outcome is refused for good.
    place.tamper("CREATE TRIGGER defect BEFORE INSERT ON attempt BEGIN SELECT RAISE(ABORT, 'defect'); END");
    let process = place.start();
    process.commit(&room());
    receiver.wait_for(1, PATIENCE).expect("the first attempt");
    wait::until("its end", PATIENCE, || (process.notifier.running() == 0).then_some(())).expect("ended");
    assert_eq!(process.count(State::Delivered), 0);
    process.block_on(process.db.write(|tx| Ok(tx.execute_batch("DROP TRIGGER defect")?))).expect("mended");
    process.wait_for_state(State::Delivered);
    assert_eq!(ids(&receiver.requests()).len(), 1);
}

#[test]
fn replays_to_one_url_share_an_endpoint_that_goes_with_its_last_delivery() {
    let (old, new) = (receiver(), receiver());
    let place = Place::new(telling_room(&old.url("/")));
    let process = place.start();
    for _ in 0..3 {
        process.commit(&room());
    }
    wait::until("all delivered", PATIENCE, || (process.count(State::Delivered) == 3).then_some(())).expect("delivered");
    for row in process.list(Default::default()) {
        for path in ["/a", "/b", "/a"] {
            process
                .block_on(process.replayer.replay(&Caller::Control, row.id, Some(&new.url(path))))
                .expect("replayed");
            wait::until("it", PATIENCE, || (process.show(row.id).row.state == State::Delivered).then_some(()))
                .expect("sent");
        }
    }
    let endpoints = || {
        let count = "SELECT count(*) FROM endpoint WHERE url_override IS NOT NULL";
        process
            .block_on(process.db.read(|conn| Ok(conn.query_row(count, [], |row| row.get::<_, i64>(0))?)))
            .expect("read")
    };
    assert_eq!(endpoints(), 2, "one for each URL");
    let everything = LogLimits { age_max: Duration::ZERO, bytes_max: u64::MAX };
    let later = process.clock.wall().plus(Duration::from_secs(60));
    process.block_on(prune(&process.db, later, everything)).expect("pruned");
    assert_eq!(endpoints(), 0, "nothing goes there any more");
}
