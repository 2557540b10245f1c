//! The log of deliveries: looked up, and pruned.

use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::TemplateId;
use framehook_domain::retry::Schedule;
use framehook_server::db::outbox::{self, Filter, State};
use framehook_server::db::prune::log_size;
use framehook_server::prune::{LogLimits, prune};
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::wait;

use crate::harness::{PATIENCE, Place, Settings, room, stream, telling};

#[test]
fn deliveries_are_found_by_what_they_are() {
    let (good, bad) = (Receiver::start().expect("a receiver"), Receiver::start().expect("a receiver"));
    bad.reply_always(Reply::Status(500));
    let place = Place::new(telling(&[("push.example.com", &good.url("/")), ("b.example.com", &bad.url("/"))]));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 0 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    let other = stream("b.example.com", "other");
    for _ in 0..3 {
        process.commit(&room());
        process.commit(&other);
    }
    wait::until("all settled", PATIENCE, || {
        (process.count(State::Delivered) == 3 && process.count(State::Dead) == 3).then_some(())
    })
    .expect("settled");

    let count = |filter: Filter| process.list(filter).len();
    let all = Filter::default;
    assert_eq!(count(all()), 6);
    assert_eq!(count(Filter { states: vec![State::Dead], ..all() }), 3);
    assert_eq!(count(Filter { states: vec![State::Dead, State::Delivered], ..all() }), 6);
    assert_eq!(count(Filter { states: vec![State::Due, State::Cancelled], ..all() }), 0);
    assert_eq!(count(Filter { stream: Some(other.clone()), ..all() }), 3);
    assert_eq!(count(Filter { stream: Some(other), states: vec![State::Delivered], ..all() }), 0);
    assert_eq!(count(Filter { template: Some(TemplateId(1)), ..all() }), 3);
    assert_eq!(count(Filter { template: Some(TemplateId(9)), ..all() }), 0);
    assert_eq!(count(Filter { kind: Some(EventKind::Snapshot), ..all() }), 6);
    assert_eq!(count(Filter { kind: Some(EventKind::PushBegan), ..all() }), 0);
    let oldest = process.list(all()).last().expect("a row").created;
    let now = process.clock.wall().plus(Duration::from_secs(1));
    assert_eq!(count(Filter { since: Some(oldest), until: Some(now), ..all() }), 6);
    assert_eq!(count(Filter { since: Some(now), ..all() }), 0);
    assert_eq!(count(Filter { until: Some(oldest), ..all() }), 0);
}

#[test]
fn pages_follow_one_another_without_gap_or_repetition() {
    let place = Place::new(telling(&[("push.example.com", "http://127.0.0.1:1/")]));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    for _ in 0..7 {
        process.commit(&room());
    }
    let all: Vec<_> = process.list(Filter::default()).into_iter().map(|row| row.id).collect();
    assert!(all.windows(2).all(|pair| pair[0] > pair[1]), "the newest first");
    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let filter = Filter { before, ..Filter::default() };
        let page = process.block_on(process.db.read(move |conn| outbox::list(conn, &filter, 3))).expect("a page");
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        paged.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(paged, all);
}

#[test]
fn what_is_owed_or_dead_is_never_pruned() {
    let (good, bad, hanging) =
        (Receiver::start().expect("good"), Receiver::start().expect("bad"), Receiver::start().expect("hanging"));
    bad.reply_always(Reply::Status(500));
    hanging.reply_always(Reply::Hang);
    let place = Place::new(telling(&[
        ("push.example.com", &good.url("/")),
        ("bad.example.com", &bad.url("/")),
        ("hanging.example.com", &hanging.url("/")),
    ]));
    let schedule = Schedule { step: Duration::from_millis(20), retries: 0 };
    let process = place.start_with(Settings { schedule, ..Settings::default() });
    for _ in 0..5 {
        process.commit(&room());
    }
    process.commit(&stream("bad.example.com", "room"));
    process.commit(&stream("hanging.example.com", "room"));
    wait::until("all but one settled", PATIENCE, || {
        let counts = [State::Delivered, State::Dead, State::Claimed].map(|state| process.count(state));
        (counts == [5, 1, 1]).then_some(())
    })
    .expect("settled");

    let keep_nothing = LogLimits { age_max: Duration::ZERO, bytes_max: 0 };
    let later = process.clock.wall().plus(Duration::from_secs(60));
    let rows = process.block_on(prune(&process.db, later, keep_nothing)).expect("pruned");
    assert_eq!(rows, 22, "five deliveries, attempts, events and pictures, and two names that were wanted again");
    let left: Vec<_> = process.list(Filter::default()).into_iter().map(|row| row.state).collect();
    assert_eq!(left, [State::Claimed, State::Dead]);
    assert_eq!(
        process.show(process.list(Filter { states: vec![State::Dead], ..Filter::default() })[0].id).attempts.len(),
        1
    );
}

#[test]
fn dead_letters_do_not_push_the_delivered_history_out() {
    let place = Place::new(telling(&[("push.example.com", "http://127.0.0.1:1/")]));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    for _ in 0..60 {
        process.commit(&room());
    }
    process.stop();
    place.tamper(
        "UPDATE delivery SET state = 'dead', outcome = 'status', settled_ms = created_ms WHERE rowid > 10;
         UPDATE delivery SET state = 'delivered', outcome = 'delivered', settled_ms = created_ms WHERE rowid <= 10;
         UPDATE snapshot SET put_state = 'stored', settled_ms = recorded_ms;",
    );
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    // Ten rows' worth fit; all sixty do not.
    let ten_rows = process.block_on(process.db.read(log_size)).expect("a size").bytes;
    let limits = LogLimits { age_max: Duration::from_secs(1 << 20), bytes_max: 30_000 };
    process.block_on(prune(&process.db, process.clock.wall(), limits)).expect("pruned");
    assert_eq!((process.count(State::Delivered), process.count(State::Dead)), (10, 50));
    assert!(ten_rows < 30_000, "what is dead is not counted: {ten_rows}");
}

#[test]
fn events_that_nobody_is_told_of_take_no_more_than_their_share() {
    let place = Place::new(telling(&[("push.example.com", "http://127.0.0.1:1/")]));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    for _ in 0..10 {
        process.commit(&room());
    }
    let unheard = stream("quiet.example.com", "room");
    for _ in 0..60 {
        process.commit(&unheard);
    }
    process.stop();
    place.tamper(
        "UPDATE delivery SET state = 'delivered', outcome = 'delivered', settled_ms = created_ms;
         UPDATE snapshot SET put_state = 'stored', settled_ms = recorded_ms;",
    );
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let untold = || {
        let count = "SELECT count(*) FROM event WHERE is_told = 0";
        let read = process.db.read(move |conn| Ok(conn.query_row(count, [], |row| row.get::<_, i64>(0))?));
        process.block_on(read).expect("read")
    };
    assert_eq!((process.count(State::Delivered), untold()), (10, 60));
    let size = process.block_on(process.db.read(log_size)).expect("a size").bytes;
    let half = LogLimits { age_max: Duration::from_secs(1 << 20), bytes_max: size / 2 };
    process.block_on(prune(&process.db, process.clock.wall(), half)).expect("pruned");
    assert_eq!((process.count(State::Delivered), untold()), (5, 30));
    let oldest_left = "SELECT min(rowid) FROM event WHERE is_told = 0";
    let read = process.db.read(move |conn| Ok(conn.query_row(oldest_left, [], |row| row.get::<_, i64>(0))?));
    assert_eq!(process.block_on(read).expect("read"), 41, "the oldest went first");
    assert_eq!(names(&process).0, 35, "their pictures' rows went with them");
    // What is owed to its store stays, and with it its event.
    process.commit(&unheard);
    process.commit(&room());
    let nothing = LogLimits { age_max: Duration::from_secs(1 << 20), bytes_max: 0 };
    process.block_on(prune(&process.db, process.clock.wall().plus(Duration::from_secs(1)), nothing)).expect("pruned");
    assert_eq!((names(&process).0, untold()), (2, 1));
}

/// Rows of the pictures, and of the names that were wanted more than once.
fn names(process: &crate::harness::Process) -> (i64, i64) {
    let count = "SELECT (SELECT count(*) FROM snapshot), (SELECT count(*) FROM key_suffix)";
    let read = process.db.read(move |conn| Ok(conn.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?)))?));
    process.block_on(read).expect("read")
}

#[test]
fn old_pictures_are_forgotten_and_names_in_use_are_not_given_out_again() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling(&[("push.example.com", &receiver.url("/"))]));
    let process = place.start();
    for _ in 0..5 {
        process.commit(&room());
    }
    wait::until("all delivered", PATIENCE, || (process.count(State::Delivered) == 5).then_some(())).expect("delivered");
    process.stop();
    let age = |seconds: i64| {
        format!(
            "UPDATE snapshot SET recorded_ms = recorded_ms - {seconds} * 1000, settled_ms = settled_ms - {seconds} * 1000"
        )
    };
    place.tamper(&format!("{}; UPDATE delivery SET settled_ms = settled_ms - 7200 * 1000", age(7200)));

    let process = place.start_with(Settings { stores: false, ..Settings::default() });
    let limits = LogLimits { age_max: Duration::from_secs(3600), bytes_max: u64::MAX };
    let rows = process.block_on(prune(&process.db, process.clock.wall(), limits)).expect("pruned");
    assert_eq!(rows, 20, "five deliveries, attempts, events and pictures");
    assert_eq!(names(&process), (0, 1), "the name was wanted within the hour");
    let again = process.commit(&room());
    assert!(again.key.as_str().ends_with("1280x720-6.jpg"), "an object may still lie under it: {}", again.key.as_str());
    // What is owed to its store stays, however old; a name that nobody wants any more goes.
    let later = process.clock.wall().plus(Duration::from_secs(7200));
    process.block_on(prune(&process.db, later, limits)).expect("pruned");
    assert_eq!(names(&process), (1, 0));
}

#[test]
fn the_log_keeps_its_age_and_its_size() {
    const DELIVERIES: usize = 1200;
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling(&[("push.example.com", &receiver.url("/"))]));
    let process = place.start_with(Settings { stores: false, ..Settings::default() });
    let pictures: Vec<_> = (0..DELIVERIES).map(|_| process.picture(&room(), &crate::harness::template())).collect();
    process.block_on(async {
        let mut commits = tokio::task::JoinSet::new();
        for picture in pictures {
            let committer = process.committer.clone();
            commits.spawn(async move { committer.commit(picture).await.expect("committed") });
        }
        commits.join_all().await
    });
    process.stop();
    // Settled one second apart, so that there is an oldest. The first attempts are recorded as a receiver would cause them.
    place.tamper(
        "UPDATE delivery SET state = 'delivered', outcome = 'delivered', attempts = 1,
                settled_ms = created_ms + 1000 * rowid;
         UPDATE snapshot SET put_state = 'stored', settled_ms = recorded_ms;
         INSERT INTO attempt (delivery_id, number, epoch, started_ms, duration_ms, status, outcome, response, url)
         SELECT id, 1, 1, created_ms, 5, 200, 'delivered', '{\"code\":0}', 'http://127.0.0.1:8080/notify' FROM delivery;",
    );
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let log_size = || process.block_on(process.db.read(log_size)).expect("a size").bytes;
    let newest = process.clock.wall().plus(Duration::from_secs(DELIVERIES as u64 + 60));
    let prune_to = |limits| process.block_on(prune(&process.db, newest, limits)).expect("pruned");

    let ages = LogLimits { age_max: Duration::from_secs(800 + 60), bytes_max: u64::MAX };
    let rows = prune_to(ages);
    assert!((1500..=1700).contains(&rows), "{rows} rows: a third of four times {DELIVERIES}");
    assert_eq!(prune_to(ages), 0, "once is enough");

    let before = log_size();
    let half = LogLimits { age_max: Duration::from_secs(1 << 20), bytes_max: before / 2 };
    prune_to(half);
    let after = log_size();
    assert!((before * 45 / 100..=before * 51 / 100).contains(&after), "{after} of {before}");
    let left = process.list(Filter::default());
    let oldest_left = left.iter().filter_map(|row| row.settled).min().expect("some are left");
    assert!(oldest_left > newest.minus(Duration::from_secs(800)), "the oldest went first");
}

#[test]
fn the_estimate_of_the_log_s_size_is_near_the_truth() {
    let place = Place::new(telling(&[("push.example.com", "http://127.0.0.1:1/")]));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let pictures: Vec<_> = (0..1000).map(|_| process.picture(&room(), &crate::harness::template())).collect();
    process.block_on(async {
        let mut commits = tokio::task::JoinSet::new();
        for picture in pictures {
            let committer = process.committer.clone();
            commits.spawn(async move { committer.commit(picture).await.expect("committed") });
        }
        commits.join_all().await
    });
    process.stop();
    place.tamper(
        "UPDATE delivery SET state = 'delivered', outcome = 'delivered', settled_ms = created_ms;
         INSERT INTO attempt (delivery_id, number, epoch, started_ms, duration_ms, status, outcome, response, url)
         SELECT id, 1, 1, created_ms, 5, 200, 'delivered', '{\"code\":0}', 'http://127.0.0.1:8080/notify' FROM delivery;",
    );
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let estimate = process.block_on(process.db.read(log_size)).expect("a size").bytes as f64;
    let truth = process.block_on(process.db.read(|conn| {
        let pages = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%event%' OR name LIKE '%delivery%' OR name LIKE '%attempt%'";
        Ok(conn.query_row(pages, [], |row| row.get::<_, i64>(0))?)
    }));
    let truth = truth.expect("a size") as f64;
    let ratio = estimate / truth;
    assert!((0.66..1.5).contains(&ratio), "estimated {estimate}, really {truth}");
}
