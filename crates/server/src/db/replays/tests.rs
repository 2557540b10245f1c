//! Which deliveries an order finds, and what it makes of them.

use super::*;
use crate::db::planned;

/// Endpoint 1 has deliveries 1 to 9: the odd ones dead, the others delivered; those over 5 are of stream `b`.
fn filled() -> Connection {
    let conn = planned::database();
    conn.execute_batch(
        "INSERT INTO endpoint (id, callback_template_id, kind) VALUES (1, 1, 200), (2, 1, 0);
         INSERT INTO event VALUES (x'00', 200, 1, NULL, 'push.example.com', 'live', 'a', '{}', 0, 1),
                                  (x'01', 200, 1, NULL, 'push.example.com', 'live', 'b', '{}', 0, 1);",
    )
    .unwrap();
    for ms in 1..=9_u8 {
        let state = if ms % 2 == 1 { "dead" } else { "delivered" };
        conn.execute(
            "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, created_ms, settled_ms, outcome)
             VALUES (?1, ?2, 1, ?3, 0, 0, 1, 'timeout')",
            params![blob(id(ms).0), [u8::from(ms > 5)], state],
        )
        .unwrap();
    }
    conn
}

fn id(ms: u8) -> DeliveryId {
    DeliveryId(framehook_domain::id::uuid_v7(UnixMs(ms.into()), [ms; 10]))
}

fn order_of(filter: Filter) -> Order {
    Order { filter, own_url: None, per_sec: 10, is_automatic: false }
}

fn dead() -> Filter {
    Filter { states: vec![State::Dead], ..Filter::default() }
}

/// Goes through a replay in portions of two, whose receivers take everything at once, and tells the milliseconds of what it
/// found.
fn walk(conn: &Connection, order: &Order) -> Vec<u128> {
    let tx = Tx { conn };
    let id = super::order(&tx, order, UnixMs(100)).unwrap();
    let mut found = Vec::new();
    loop {
        let replay = show(conn, id).unwrap().unwrap();
        let Some(part) = parts(conn, id, EndpointId(0), 1).unwrap().first().copied() else {
            assert_eq!((replay.ended, replay.replayed), (Some(UnixMs(101)), found.len() as u64));
            return found;
        };
        assert_eq!(replay.ended, None);
        let portion = next_portion(conn, &replay, &part, 2).unwrap();
        found.extend(portion.deliveries.iter().map(|id| id.0.as_u128() >> 80));
        let pictures = vec![Picture::There; portion.deliveries.len()];
        take_up(&tx, &replay, &portion, &pictures, UnixMs(1), UnixMs(101)).unwrap();
        conn.execute("UPDATE delivery SET state = 'delivered', settled_ms = 101 WHERE state = 'due'", []).unwrap();
    }
}

#[test]
fn a_replay_finds_what_was_asked_for_once_from_the_oldest_on() {
    let stream = |name: &str| StreamId {
        domain: framehook_domain::stream::DomainName::parse("push.example.com").unwrap(),
        app: framehook_domain::stream::AppName::parse("live").unwrap(),
        name: framehook_domain::stream::StreamName::parse(name).unwrap(),
    };
    let rows = [
        ("dead ones", dead(), vec![1, 3, 5, 7, 9]),
        ("of a stream", Filter { stream: Some(stream("b")), ..dead() }, vec![7, 9]),
        ("since and until", Filter { since: Some(UnixMs(3)), until: Some(UnixMs(7)), ..dead() }, vec![3, 5]),
        ("of another endpoint", Filter { endpoint: Some(EndpointId(2)), ..dead() }, vec![]),
        ("of another template", Filter { template: Some(TemplateId(7)), ..dead() }, vec![]),
        ("of a kind", Filter { kind: Some(EventKind::Snapshot), since: Some(UnixMs(8)), ..dead() }, vec![9]),
        (
            "delivered ones too",
            Filter { states: vec![State::Delivered, State::Dead], since: Some(UnixMs(6)), ..dead() },
            vec![6, 7, 8, 9],
        ),
    ];
    for (name, filter, expected) in rows {
        let conn = filled();
        // One that is not due yet is no reason to wait, and none of what is asked for.
        conn.execute("UPDATE delivery SET round_start = 1 WHERE id = ?1", [blob(id(3).0)]).unwrap();
        if expected.is_empty() {
            let id = super::order(&Tx { conn: &conn }, &order_of(filter.clone()), UnixMs(100)).unwrap();
            let parts = parts(&conn, id, EndpointId(0), 9).unwrap();
            let found: usize = parts
                .iter()
                .map(|part| next_portion(&conn, &show(&conn, id).unwrap().unwrap(), part, 9).unwrap().deliveries.len())
                .sum();
            assert_eq!(found, 0, "{name}");
            continue;
        }
        assert_eq!(walk(&conn, &order_of(filter)), expected, "{name}");
    }
}

#[test]
fn an_automatic_replay_leaves_alone_what_was_sent_again_before() {
    let conn = filled();
    conn.execute("UPDATE delivery SET round_start = 1 WHERE id = ?1", [blob(id(3).0)]).unwrap();
    conn.execute("UPDATE delivery SET outcome = 'gone' WHERE id = ?1", [blob(id(7).0)]).unwrap();
    // It was never sent: its receiver was away.
    conn.execute("UPDATE delivery SET outcome = 'held', attempts = 0 WHERE id = ?1", [blob(id(9).0)]).unwrap();
    assert!(has_dead_letters(&conn, EndpointId(1), UnixMs(9), UnixMs(100)).unwrap());
    for (endpoint, since, wall) in [(1, 10, 100), (1, 9, 9), (2, 0, 100)] {
        let found = has_dead_letters(&conn, EndpointId(endpoint), UnixMs(since), UnixMs(wall)).unwrap();
        assert!(!found, "endpoint {endpoint} since {since} at {wall}");
    }
    let order = Order { is_automatic: true, ..order_of(Filter { endpoint: Some(EndpointId(1)), ..dead() }) };
    let replay = super::order(&Tx { conn: &conn }, &order, UnixMs(100)).unwrap();
    assert!(!has_dead_letters(&conn, EndpointId(1), UnixMs(9), UnixMs(100)).unwrap(), "one goes on");
    assert!(cancel(&Tx { conn: &conn }, replay, UnixMs(101)).unwrap());
    assert!(!cancel(&Tx { conn: &conn }, replay, UnixMs(102)).unwrap());
    assert_eq!(walk(&conn, &order), [1, 5, 9]);
}

/// Endpoint 3 is that of a URL that was given for a replay before, and took delivery 4 then.
fn with_own_url(conn: &Connection) -> OwnUrl {
    let url = OwnUrl { sealed: vec![1], digest: [7; 32] };
    conn.execute(
        "INSERT INTO endpoint (id, callback_template_id, kind, url_override, url_digest) VALUES (3, 1, 200, ?1, ?2)",
        params![&url.sealed, &url.digest[..]],
    )
    .unwrap();
    conn.execute("UPDATE delivery SET endpoint_id = 3 WHERE id = ?1", [blob(id(4).0)]).unwrap();
    url
}

#[test]
fn what_a_replay_moves_to_its_own_url_is_not_found_there_again() {
    let conn = filled();
    let own_url = Some(with_own_url(&conn));
    let states = vec![State::Dead, State::Delivered];
    let order = Order { own_url, ..order_of(Filter { states, ..Filter::default() }) };
    let mut found = walk(&conn, &order);
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let elsewhere = "SELECT count(*) FROM delivery WHERE endpoint_id <> 3";
    assert_eq!(conn.query_row(elsewhere, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn what_a_person_does_between_the_look_and_the_write_holds() {
    let conn = filled();
    let tx = Tx { conn: &conn };
    let order = order_of(dead());
    let ordered = super::order(&tx, &order, UnixMs(100)).unwrap();
    let replay = show(&conn, ordered).unwrap().unwrap();
    let part = parts(&conn, ordered, EndpointId(0), 1).unwrap()[0];
    let portion = next_portion(&conn, &replay, &part, 9).unwrap();
    assert_eq!(portion.deliveries, [1, 3, 5, 7, 9].map(id));
    outbox::cancel(&tx, id(1), "somebody", UnixMs(110)).unwrap();
    let set = |changes: &str, ms| {
        conn.execute(&format!("UPDATE delivery SET {changes} WHERE id = ?1"), [blob(id(ms).0)]).unwrap();
    };
    set("state = 'delivered', settled_ms = 110", 3);
    set("settled_ms = 110", 5);
    set("state = 'due', settled_ms = NULL, due_ms = 77", 7);
    take_up(&tx, &replay, &portion, &[Picture::There; 5], UnixMs(120), UnixMs(121)).unwrap();
    let due: String = conn
        .query_row(
            "SELECT group_concat(state || due_ms, ' ' ORDER BY id) FROM delivery WHERE id > ?1",
            [[0_u8; 16]],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(due, "cancelled0 delivered0 delivered0 delivered0 dead0 delivered0 due77 delivered0 due120");
    assert_eq!(show(&conn, ordered).unwrap().unwrap().replayed, 1);
}

#[test]
fn a_cancelled_replay_takes_up_nothing() {
    let conn = filled();
    let tx = Tx { conn: &conn };
    let ordered = super::order(&tx, &order_of(dead()), UnixMs(100)).unwrap();
    let replay = show(&conn, ordered).unwrap().unwrap();
    let part = parts(&conn, ordered, EndpointId(0), 1).unwrap()[0];
    let portion = next_portion(&conn, &replay, &part, 9).unwrap();
    assert!(cancel(&tx, ordered, UnixMs(101)).unwrap());
    take_up(&tx, &replay, &portion, &[Picture::There; 5], UnixMs(120), UnixMs(121)).unwrap();
    assert_eq!(next_portion(&conn, &replay, &part, 9).unwrap(), portion, "all are dead still");
}

#[test]
fn an_endpoint_has_one_automatic_replay_at_a_time() {
    let conn = filled();
    let tx = Tx { conn: &conn };
    let wants_one = |endpoint| has_dead_letters(&conn, EndpointId(endpoint), UnixMs(0), UnixMs(100)).unwrap();
    assert_eq!([1, 2].map(wants_one), [true, false]);
    let order_for = |endpoint, is_automatic| {
        let filter = Filter { endpoint: Some(EndpointId(endpoint)), ..dead() };
        super::order(&tx, &Order { is_automatic, ..order_of(filter) }, UnixMs(100)).unwrap()
    };
    order_for(1, false);
    assert!(wants_one(1), "a person's order is another matter");
    let ordered = order_for(1, true);
    assert!(!wants_one(1), "one is sending them");
    assert!(cancel(&tx, ordered, UnixMs(101)).unwrap());
    assert!(wants_one(1));
}

#[test]
fn an_order_that_cannot_be_read_hides_no_other() {
    let conn = filled();
    let tx = Tx { conn: &conn };
    let automatic = Order { is_automatic: true, ..order_of(dead()) };
    let ids =
        [order_of(dead()), automatic, order_of(dead())].map(|order| super::order(&tx, &order, UnixMs(100)).unwrap());
    assert_eq!(open_count(&conn).unwrap(), OpenCount { all: 3, automatic: 1 });
    conn.execute("UPDATE replay SET states = 'no such state' WHERE id = ?1", [ids[0].0]).unwrap();
    let found = open(&conn).unwrap();
    let readable: Vec<_> = found.replays.iter().map(|replay| replay.id).collect();
    assert_eq!((readable, found.damaged), (vec![ids[1], ids[2]], vec![ids[0]]));
    let numbers = |before, limit| {
        let Found { replays, damaged } = list(&conn, before, limit).unwrap();
        (replays.into_iter().map(|replay| replay.id).collect::<Vec<_>>(), damaged)
    };
    assert_eq!(numbers(None, 2), (vec![ids[2], ids[1]], vec![]));
    assert_eq!(numbers(Some(ids[1]), 2), (vec![], vec![ids[0]]));
    assert_eq!(numbers(None, 9), (vec![ids[2], ids[1]], vec![ids[0]]));
    assert!(cancel(&tx, ids[0], UnixMs(101)).unwrap());
    assert_eq!(open(&conn).unwrap().damaged, []);
}

#[test]
fn an_endpoint_is_busy_while_something_is_due_there() {
    let conn = filled();
    let url = with_own_url(&conn);
    let busy = |now| [1, 3].map(|id| is_busy(&conn, EndpointId(id), UnixMs(now)).unwrap());
    let url_busy = |now| is_url_busy(&conn, &url, UnixMs(now)).unwrap();
    assert_eq!((busy(50), url_busy(50)), ([false, false], false));
    let owe = |ms| {
        conn.execute("UPDATE delivery SET state = 'due', due_ms = 51 WHERE id = ?1", [blob(id(ms).0)]).unwrap();
    };
    owe(1);
    assert_eq!((busy(50), url_busy(50)), ([false, false], false), "it is not due yet");
    assert_eq!((busy(51), url_busy(51)), ([true, false], false));
    owe(4);
    assert_eq!((busy(51), url_busy(51)), ([true, true], true));
}

#[test]
fn no_search_of_a_replay_walks_the_log() {
    let conn = filled();
    let rows = [
        (DEAD_ONCE, "SEARCH delivery USING INDEX delivery_dead_once (endpoint_id=? AND id>? AND id<?)"),
        (DEAD, "SEARCH delivery USING INDEX delivery_dead_by_endpoint (endpoint_id=? AND id>? AND id<?)"),
        (SETTLED, "SEARCH delivery USING INDEX delivery_by_endpoint (endpoint_id=? AND id>? AND id<?)"),
        (URL_BUSY, "SEARCH endpoint USING INDEX endpoint_of_url (url_digest=?)"),
        (URL_BUSY, "SEARCH delivery USING COVERING INDEX delivery_due (endpoint_id=? AND due_ms<?)"),
    ];
    for (sql, index) in rows {
        let plan = planned::plan(&conn, sql);
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{plan}");
    }
}
