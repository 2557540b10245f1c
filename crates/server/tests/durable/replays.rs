//! Many deliveries sent again: by order, and for a receiver that has recovered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use framehook_domain::catalog::{Catalog, CatalogParts, Domain};
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::retry::Schedule;
use framehook_domain::rule::{CallbackRule, RuleScope};
use framehook_domain::template::{CallbackTemplate, CallbackTemplateDraft, CallbackUrls, SendingDraft};
use framehook_server::audit::Caller;
use framehook_server::db::outbox::{Filter, State};
use framehook_server::db::replays::{self, Replay, ReplayId};
use framehook_server::notify::{REPLAYS_MAX, ReplayError};
use framehook_server::telemetry::feed::Heard;
use framehook_server::telemetry::metric::Sample;
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::wait;

use crate::harness::{PATIENCE, Place, Process, Settings, room, stream, telling, telling_nobody, telling_room};

/// How long a store has to say whether it holds a picture (`STORE_PATIENCE` of the server).
const STORE_PATIENCE: Duration = Duration::from_secs(5);

fn receiver() -> Receiver {
    Receiver::start().expect("a receiver")
}

/// One attempt and no more.
fn impatient() -> Settings {
    Settings { schedule: Schedule { step: Duration::from_millis(20), retries: 0 }, ..Settings::default() }
}

fn wait_for_count(process: &Process, state: State, count: usize) {
    let counted = || (process.count(state) == count).then_some(());
    let what = format!("{count} deliveries in state {}", state.name());
    wait::until(&what, PATIENCE, counted).unwrap_or_else(|error| panic!("{error}: there are {}", process.count(state)));
}

fn dead() -> Filter {
    Filter { states: vec![State::Dead], ..Filter::default() }
}

fn wait_for_end(process: &Process, id: ReplayId) -> Replay {
    wait::until("the replay's end", PATIENCE, || {
        let replay = process.block_on(process.db.read(move |conn| replays::show(conn, id))).expect("read");
        replay.filter(|replay| replay.ended.is_some())
    })
    .expect("ended")
}

#[test]
fn a_replay_sends_what_matches_under_its_ids_and_nothing_else() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(400));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(impatient());
    let other = stream("push.example.com", "another");
    let gone = process.commit(&room());
    for _ in 0..4 {
        process.commit(&room());
        process.commit(&other);
    }
    wait_for_count(&process, State::Dead, 9);
    let object = place.dir().join("objects/shots-1250000000").join(gone.key.as_str());
    std::fs::remove_file(object).expect("an object that is gone");
    let sent_before = receiver.requests().len();
    receiver.reply_always(Reply::Status(200));

    let of_room = Filter { stream: Some(room()), ..dead() };
    let ordered = process.block_on(process.replayer.order(&Caller::Control, of_room, None, 1000));
    let replay = wait_for_end(&process, ordered.expect("ordered"));
    assert_eq!((replay.replayed, replay.refused, replay.is_cancelled), (4, 1, false));
    wait_for_count(&process, State::Delivered, 4);
    assert_eq!(process.count(State::Dead), 5);
    assert_eq!(receiver.requests().len(), sent_before + 4);
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for request in receiver.requests() {
        *sent.entry(request.webhook_id().expect("an id").to_owned()).or_default() += 1;
    }
    assert_eq!(sent.len(), 9, "each has one id, however often it is sent");
    let expired = process.list(dead()).into_iter().find(|row| row.stream == room()).expect("the one without a picture");
    assert_eq!(expired.outcome.as_deref(), Some("object_expired"));
}

#[test]
fn a_replay_goes_on_where_a_killed_process_left_it_and_to_another_url() {
    let (old, new) = (receiver(), receiver());
    old.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&old.url("/")));
    let process = place.start_with(impatient());
    for _ in 0..12 {
        process.commit(&room());
    }
    wait_for_count(&process, State::Due, 0);
    place.configure(telling_nobody());
    wait_for_count(&process, State::Dead, 12);
    // Slow enough that most are still to be sent when the process is gone.
    let ordered = process.block_on(process.replayer.order(&Caller::Control, dead(), Some(&new.url("/again")), 8));
    let id = ordered.expect("ordered");
    new.wait_for(2, PATIENCE).expect("the first of them");
    process.kill();

    let process = place.start_with(impatient());
    let replay = wait_for_end(&process, id);
    assert_eq!((replay.replayed, replay.refused), (12, 0));
    wait_for_count(&process, State::Delivered, 12);
    assert!(new.requests().iter().all(|request| request.target == "/again"));
}

#[test]
fn a_replay_to_a_url_that_was_used_before_sends_each_once() {
    let (old, new) = (receiver(), receiver());
    old.reply_always(Reply::Status(400));
    let place = Place::new(telling_room(&old.url("/")));
    let process = place.start_with(impatient());
    let order = |states: Vec<State>, per_sec| {
        let filter = Filter { states, ..Filter::default() };
        let url = new.url("/again");
        process.block_on(process.replayer.order(&Caller::Control, filter, Some(&url), per_sec)).expect("ordered")
    };
    for dead in [3, 6] {
        for _ in 0..3 {
            process.commit(&room());
        }
        wait_for_count(&process, State::Dead, 3);
        // The first round moves three deliveries to the URL's own endpoint, which the second has both to send to and from.
        let ended = wait_for_end(&process, order(vec![State::Dead, State::Delivered], 1000));
        assert_eq!((ended.replayed, ended.refused), (dead, 0));
        wait_for_count(&process, State::Delivered, dead as usize);
    }
    assert_eq!(new.requests().len(), 9);
}

#[test]
fn a_picture_of_which_no_store_tells_holds_no_other_up() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(400));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(impatient());
    for _ in 0..3 {
        process.commit(&room());
    }
    wait_for_count(&process, State::Dead, 3);
    process.stop();
    place.tamper("UPDATE snapshot SET store = 'removed' WHERE rowid = (SELECT min(rowid) FROM snapshot)");
    receiver.reply_always(Reply::Status(200));

    let process = place.start_with(impatient());
    let id = process.block_on(process.replayer.order(&Caller::Control, dead(), None, 1000)).expect("ordered");
    let replay = wait_for_end(&process, id);
    assert_eq!((replay.replayed, replay.refused), (2, 1));
    wait_for_count(&process, State::Delivered, 2);
    assert_eq!(process.list(dead())[0].outcome.as_deref(), Some("object_unknown"));
}

/// A process whose configuration has a store of S3 named `elsewhere`, where `store` answers.
fn knowing(store: &Receiver) -> Settings {
    let object_stores = format!(
        "[[object_store]]\nname = \"elsewhere\"\nkind = \"s3\"\nregion = \"us-east-1\"\nendpoint = \"{0}\"\npath_style = true\n\
         public_url = \"{0}/{{bucket}}\"\nsecret_id = \"AKIDofNobody\"\nsecret_key = \"keyOfNobody\"",
        store.url("")
    );
    Settings { object_stores, ..impatient() }
}

/// By the word of the database, the room's pictures are there.
const MOVED_ELSEWHERE: &str = "UPDATE snapshot SET store = 'elsewhere' WHERE stream = 'room_1001'";

#[test]
fn a_picture_whose_store_refuses_to_tell_is_not_sent_again() {
    let (receiver, store) = (receiver(), receiver());
    receiver.reply_always(Reply::Status(400));
    store.reply_always(Reply::Raw(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec()));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(impatient());
    for _ in 0..2 {
        process.commit(&room());
    }
    process.commit(&stream("push.example.com", "another"));
    wait_for_count(&process, State::Dead, 3);
    process.stop();
    place.tamper(MOVED_ELSEWHERE);
    receiver.reply_always(Reply::Status(200));

    let process = place.start_with(knowing(&store));
    // One by one, a person is told why; of many, each is noted.
    let of_room = process.list(Filter { stream: Some(room()), ..dead() });
    let refused = process.block_on(process.replayer.replay(&Caller::Control, of_room[0].id, None));
    assert!(matches!(refused, Err(ReplayError::Store(_))), "{refused:?}");
    let id = process.block_on(process.replayer.order(&Caller::Control, dead(), None, 1000)).expect("ordered");
    let replay = wait_for_end(&process, id);
    assert_eq!((replay.replayed, replay.refused), (1, 2));
    wait_for_count(&process, State::Delivered, 1);
    let outcomes: Vec<_> = process.list(dead()).into_iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Some("object_unknown".to_owned()), Some("object_unknown".to_owned())]);
    let asked: Vec<_> = store.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(asked, ["HEAD"; 3]);
}

#[test]
fn a_store_that_hangs_delays_only_what_is_in_it() {
    let (receiver, store) = (receiver(), receiver());
    receiver.reply_always(Reply::Status(400));
    store.reply_always(Reply::Hang);
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(impatient());
    let other = stream("push.example.com", "another");
    for _ in 0..3 {
        process.commit(&room());
        process.commit(&other);
    }
    wait_for_count(&process, State::Dead, 6);
    process.stop();
    place.tamper(MOVED_ELSEWHERE);
    receiver.reply_always(Reply::Status(200));

    let process = place.start_with(knowing(&store));
    let order = |stream| {
        let filter = Filter { stream: Some(stream), ..dead() };
        process.block_on(process.replayer.order(&Caller::Control, filter, None, 1000)).expect("ordered")
    };
    let stuck = order(room());
    store.wait_for(3, PATIENCE).expect("the store is asked");
    let given_up = Instant::now() + STORE_PATIENCE;
    assert_eq!(wait_for_end(&process, order(other)).replayed, 3);
    wait_for_count(&process, State::Delivered, 3);
    assert!(Instant::now() < given_up, "it waited until the store was given up");
    let stuck = process.block_on(process.db.read(move |conn| replays::show(conn, stuck))).expect("read");
    assert_eq!(stuck.and_then(|replay| replay.ended), None);
    assert_eq!(store.requests().len(), 3, "the store was asked once for each of its pictures");
}

#[test]
fn an_order_that_cannot_be_read_ends_and_stops_no_other() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(400));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(impatient());
    for _ in 0..2 {
        process.commit(&room());
    }
    wait_for_count(&process, State::Dead, 2);
    let order = |per_sec| process.block_on(process.replayer.order(&Caller::Control, dead(), None, per_sec));
    let (damaged, sound) = (order(1).expect("ordered"), order(1).expect("ordered"));
    process.stop();
    place.tamper(&format!("UPDATE replay SET states = 'no such', ended_ms = NULL WHERE id = {}", damaged.0));
    receiver.reply_always(Reply::Status(200));

    let process = place.start_with(impatient());
    wait_for_end(&process, sound);
    wait::until("the damaged order's end", PATIENCE, || {
        let open = process.block_on(process.db.read(replays::open_count)).expect("read");
        (open.all == 0).then_some(())
    })
    .expect("ended");
}

#[test]
fn a_cancelled_replay_takes_up_no_more() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(400));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(impatient());
    for _ in 0..30 {
        process.commit(&room());
    }
    wait_for_count(&process, State::Dead, 30);
    receiver.reply_always(Reply::Status(200));
    let id = process.block_on(process.replayer.order(&Caller::Control, dead(), None, 1)).expect("ordered");
    assert!(process.block_on(process.replayer.cancel(&Caller::Control, id)).expect("written"));
    let replay = wait_for_end(&process, id);
    assert!(replay.is_cancelled && replay.replayed < 30, "{replay:?}");
    // Another order finds all that this one has left.
    let id = process.block_on(process.replayer.order(&Caller::Control, dead(), None, 1000)).expect("ordered");
    assert_eq!(wait_for_end(&process, id).replayed + replay.replayed, 30);
    wait_for_count(&process, State::Delivered, 30);
}

/// [`room`] is told to `url` by a template whose dead letters of an hour are sent again by themselves.
fn forgiving(url: &str) -> Catalog {
    let draft = CallbackTemplateDraft {
        name: "forgiving".into(),
        sending: SendingDraft { replay_recovered: Some(Duration::from_secs(3600)), ..SendingDraft::default() },
        urls: CallbackUrls { snapshot_notify: Some(url.to_owned()), ..CallbackUrls::default() },
        ..CallbackTemplateDraft::default()
    };
    let (template, name) = (TemplateId(1), room().domain);
    let scope = RuleScope { domain: name.clone(), app: None, stream: None };
    let parts = CatalogParts {
        domains: vec![Domain { name, enabled: true, auth: None }],
        callback_templates: vec![CallbackTemplate::validate(template, draft).expect("a template")],
        callback_rules: vec![CallbackRule { id: RuleId(1), scope, template }],
        ..CatalogParts::default()
    };
    Catalog::build(1, parts).expect("a catalog")
}

#[test]
fn dead_letters_are_sent_again_once_when_their_receiver_recovers() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(400));
    let place = Place::new(forgiving(&receiver.url("/")));
    let process = place.start_with(impatient());
    for _ in 0..4 {
        process.commit(&room());
    }
    wait_for_count(&process, State::Dead, 4);
    // One of them is never taken.
    let poison = process.list(dead())[0].id.to_string();
    receiver.on_request(move |request| match request.webhook_id() {
        Ok(id) if id == poison => Reply::Status(400),
        _ => Reply::Status(200),
    });
    process.commit(&room());
    wait_for_count(&process, State::Delivered, 4);
    wait_for_count(&process, State::Dead, 1);
    let rounds = |process: &Process| process.list(dead())[0].attempts;
    wait::until("its second round", PATIENCE, || (rounds(&process) == 2).then_some(())).expect("sent again");

    // The receiver is asked about once in five seconds at most. By then it would have been sent a third time.
    process.commit(&room());
    wait_for_count(&process, State::Delivered, 5);
    let orders = || process.block_on(process.db.read(|conn| replays::list(conn, None, 10))).expect("a list");
    let orders = orders().replays;
    assert_eq!(orders.len(), 1, "nothing is left to be sent again");
    assert!(orders[0].order.is_automatic);
    assert_eq!(rounds(&process), 2);
}

#[test]
fn automatic_replays_leave_room_for_those_that_people_order() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(400));
    let place = Place::new(forgiving(&receiver.url("/")));
    let process = place.start_with(impatient());
    process.commit(&room());
    wait_for_count(&process, State::Dead, 1);
    process.stop();
    // As many as may go on, of endpoints that nobody hears of again.
    place.tamper(&format!(
        "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {})
         INSERT INTO replay (states, endpoint_id, until_ms, per_sec, is_automatic, created_ms)
         SELECT 'dead', 1000 + n, 0, 1, 1, 0 FROM counted",
        REPLAYS_MAX / 2
    ));
    receiver.reply_always(Reply::Status(200));

    let process = place.start_with(impatient());
    process.commit(&room());
    wait_for_count(&process, State::Delivered, 1);
    let orders = || process.block_on(process.db.read(|conn| replays::list(conn, None, 100))).expect("a list").replays;
    // A person's order is carried out, behind a look at the receiver that has recovered.
    let of_nobody = Filter { stream: Some(stream("push.example.com", "nobody")), ..dead() };
    let ordered = process.block_on(process.replayer.order(&Caller::Control, of_nobody, None, 1000));
    wait_for_end(&process, ordered.expect("ordered"));
    assert_eq!(orders().len(), REPLAYS_MAX / 2 + 1);
    assert_eq!(process.count(State::Dead), 1);

    // Where one of them has ended, the next callback that is taken asks again.
    let first = orders().pop().expect("an automatic one").id;
    assert!(process.block_on(process.replayer.cancel(&Caller::Control, first)).expect("written"));
    process.commit(&room());
    wait_for_count(&process, State::Delivered, 3);
    assert_eq!(orders().len(), REPLAYS_MAX / 2 + 2);
}

#[test]
fn a_damaged_row_is_dead_and_stops_nobody() {
    let receiver = receiver();
    let place =
        Place::new(telling(&[("push.example.com", &receiver.url("/")), ("b.example.com", &receiver.url("/b"))]));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    for _ in 0..6 {
        process.commit(&room());
    }
    process.commit(&stream("b.example.com", "room"));
    wait_for_count(&process, State::Due, 7);
    process.stop();
    place.tamper(
        "UPDATE event SET stream = 'no such name' WHERE rowid = 2;
         UPDATE event SET body = CAST(x'ff' AS TEXT) WHERE rowid = 4;
         UPDATE endpoint SET kind = 77 WHERE callback_template_id = 2;",
    );
    let process = place.start();
    receiver.wait_for(4, PATIENCE).expect("the others");
    wait_for_count(&process, State::Delivered, 4);
    let outcomes = process.block_on(process.db.read(|conn| {
        let mut select = conn.prepare("SELECT outcome FROM delivery WHERE state = 'dead'")?;
        let rows = select.query_map([], |row| row.get::<_, String>(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }));
    assert_eq!(outcomes.expect("read"), ["damaged", "damaged"]);
    let page = process.telemetry.metrics.page(&Sample::default());
    assert!(page.contains("\nframehook_dead_letters_total 2\n"), "{page}");
    // What goes to an endpoint that nobody can read waits for a person.
    let owed = process.block_on(process.db.read(framehook_server::db::outbox::owed_counts)).expect("read");
    assert_eq!((owed.deliveries_owed, owed.deliveries_dead), (1, 2));
}

#[test]
fn listeners_hear_of_every_delivery_that_dies_with_its_template() {
    let receiver = receiver();
    receiver.reply_always(Reply::Status(500));
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(Settings { stores: false, ..Settings::default() });
    // They wait for their pictures, so no attempt is under way.
    for _ in 0..20 {
        process.commit(&room());
    }
    let mut listener = process.telemetry.feed.listen();
    place.configure(telling_nobody());
    let hear_all = async {
        let mut heard = Vec::new();
        while heard.len() < 20 {
            match listener.next().await.expect("the feed") {
                Heard::Event(told) if told.kind == "delivery_dead" => heard.push(told.clone()),
                _ => {}
            }
        }
        heard
    };
    let heard = process.block_on(async { tokio::time::timeout(PATIENCE, hear_all).await }).expect("all are told of");
    assert!(heard.iter().all(|told| told.json.contains("\"outcome\":\"template_deleted\"")));
    assert!(heard.iter().all(|told| told.stream.as_ref() == Some(&room())));
}

#[test]
fn listeners_hear_of_a_delivery_that_dies_since_its_row_is_damaged() {
    let receiver = receiver();
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start_with(Settings { stores: false, ..Settings::default() });
    process.commit(&room());
    let mut listener = process.telemetry.feed.listen();
    let damage = process.db.write(|tx| {
        tx.execute("UPDATE event SET body = CAST(x'ff' AS TEXT)", [])?;
        Ok(tx.execute("UPDATE delivery SET state = 'due'", [])?)
    });
    assert_eq!(process.block_on(damage).expect("written"), 1);
    let heard = process.block_on(async {
        let hear = async {
            loop {
                match listener.next().await.expect("the feed") {
                    Heard::Event(told) if told.kind == "delivery_dead" => return told.clone(),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, hear).await.expect("it is told of")
    });
    assert!(heard.json.contains("\"outcome\":\"damaged\""), "{}", heard.json);
    assert_eq!(heard.stream.as_ref(), Some(&room()));
}
