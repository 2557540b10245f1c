//! Callbacks against receivers that misbehave: which answers count, how often and how long apart it is tried again, what
//! is kept when nobody ever says 200, and what a restart does with what is owed.

#![expect(clippy::disallowed_methods, reason = "a suite runs the commands that a person would")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{FRAMEHOOK, PATIENCE, check_signature, config, push_once, push_url, serve, wait_for_snapshots};
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::http;
use framehook_testkit::receiver::{Receiver, Reply, Request};
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::Value;

/// CSS's schedule at a six-hundredth: 200 ms for the 2 min of event 200, 100 ms for the 1 min of events 1 and 0. The
/// time-out stays long, so that a busy machine is not taken for a receiver that hangs.
const SCALED: &str = "[deliver]\nsnapshot_retry_interval = \"200ms\"\npush_retry_interval = \"100ms\"\n";

fn of_type(requests: &[Request], event_type: u64) -> Vec<Request> {
    requests.iter().filter(|request| request.event_type() == Some(event_type)).cloned().collect()
}

/// All attempts at the one delivery of an event type, once `attempts` have come and it is settled.
fn attempts(receiver: &Receiver, event_type: u64, attempts: usize) -> Result<Vec<Request>> {
    receiver.wait_until(&format!("{attempts} attempts at event {event_type}"), PATIENCE, |requests| {
        let found = of_type(requests, event_type);
        (found.len() >= attempts).then_some(found)
    })
}

fn deliveries(server: &Server, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(FRAMEHOOK)
        .args(["deliveries"])
        .args(arguments)
        .args(["--json", "--data-dir"])
        .arg(server.data_dir())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("deliveries --json printed no JSON")
}

fn wait_until_dead(server: &Server, count: usize) -> Result<Vec<Value>> {
    wait::until(&format!("{count} dead letters"), PATIENCE, || {
        let listed = deliveries(server, &["list", "--state", "dead"]).ok()?;
        let dead = listed["deliveries"].as_array()?.clone();
        (dead.len() >= count).then_some(dead)
    })
}

/// Like [`SCALED`], with CSS's 20 s time-out scaled too.
const SCALED_AND_SHORT: &str =
    "[deliver]\nsnapshot_retry_interval = \"200ms\"\npush_retry_interval = \"100ms\"\ntimeout = \"400ms\"\n";

/// Retries exactly as CSS does, whatever the answer is that is not 200, then keeps the delivery as a dead letter.
fn retried_to_death(reply: Reply, settings: &str) -> Result<()> {
    let receiver = Receiver::start()?;
    receiver.reply_always(reply.clone());
    let server = serve(&receiver, 10, settings)?;
    let _encoder = push_once(&server, "room_1001")?;
    let snapshots = attempts(&receiver, 200, 6)?;
    let begins = attempts(&receiver, 1, 13)?;
    attempts(&receiver, 0, 13)?;
    let dead = wait_until_dead(&server, 3)?;
    ensure!(dead.iter().all(|delivery| delivery["state"] == "dead"), "{dead:?}");
    // Nothing comes after the last attempt: the dead letters were listed, and the counts have not moved since.
    let all = receiver.requests();
    ensure!(of_type(&all, 200).len() == 6, "{} attempts at event 200 after {reply:?}", of_type(&all, 200).len());
    ensure!(of_type(&all, 1).len() == 13, "{} attempts at event 1 after {reply:?}", of_type(&all, 1).len());
    for (of_one, gap) in [(&snapshots, 200), (&begins, 100)] {
        let ids: BTreeSet<&str> = of_one.iter().map(|request| request.webhook_id()).collect::<Result<_>>()?;
        ensure!(ids.len() == 1, "the attempts bear {} ids", ids.len());
        for pair in of_one.windows(2) {
            let apart = pair[1].arrived - pair[0].arrived;
            ensure!(apart >= Duration::from_millis(gap), "two attempts only {apart:?} apart after {reply:?}");
        }
        let mut bodies = BTreeSet::new();
        for request in of_one {
            check_signature(request)?;
            let mut body = request.json()?;
            let object = body.as_object_mut().context("the body is no object")?;
            object.remove("t");
            object.remove("sign");
            bodies.insert(body.to_string());
        }
        ensure!(bodies.len() == 1, "more than t and sign changed between attempts");
    }
    Ok(())
}

#[test]
fn a_204_is_not_a_200() {
    retried_to_death(Reply::Status(204), SCALED).unwrap();
}

#[test]
fn a_500_is_tried_again() {
    retried_to_death(Reply::Status(500), SCALED).unwrap();
}

#[test]
fn a_redirect_is_a_failure_and_nobody_follows_it() {
    let elsewhere = Receiver::start().unwrap();
    retried_to_death(Reply::Redirect(elsewhere.url("/elsewhere")), SCALED).unwrap();
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_receiver_that_never_answers_times_out() {
    retried_to_death(Reply::Hang, SCALED_AND_SHORT).unwrap();
}

#[test]
fn a_receiver_that_resets_is_tried_again() {
    retried_to_death(Reply::Reset, SCALED).unwrap();
}

#[test]
fn a_200_with_any_body_ends_it_at_once() {
    let receiver = Receiver::start().unwrap();
    let failed_before = |request: &Request| match request.event_type() {
        Some(200) if request.index < 3 => Reply::Status(503),
        _ => Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot json!".to_vec()),
    };
    receiver.on_request(failed_before);
    let server = serve(&receiver, 10, SCALED).unwrap();
    let _encoder = push_once(&server, "room_1001").unwrap();
    wait::until("everything delivered", PATIENCE, || {
        let owed = deliveries(&server, &["list", "--state", "delivered"]).ok()?;
        (owed["deliveries"].as_array()?.len() == 3).then_some(())
    })
    .unwrap();
}

#[test]
fn a_dead_letter_is_shown_with_every_attempt_and_replayed_under_its_id() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Status(500));
    let server = serve(&receiver, 10, &format!("{SCALED}snapshot_retries = 2\npush_retries = 0\n")).unwrap();
    let _encoder = push_once(&server, "room_1001").unwrap();
    let dead = wait_until_dead(&server, 3).unwrap();
    let snapshot = dead.iter().find(|delivery| delivery["event_type"] == 200).expect("a dead snapshot callback");
    let id = snapshot["id"].as_str().unwrap();
    let shown = deliveries(&server, &["show", id]).unwrap();
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        assert_eq!(attempt["status"], 500, "{attempt}");
        assert!(attempt["duration_ms"].is_u64() && attempt["started_ms"].is_i64(), "{attempt}");
    }
    let before = receiver.requests().len();
    receiver.reply_always(Reply::Status(200));
    deliveries(&server, &["replay", id]).unwrap();
    let again = receiver.wait_for(before + 1, PATIENCE).unwrap().pop().unwrap();
    assert_eq!(again.webhook_id().unwrap(), id);
    check_signature(&again).unwrap();
    wait::until("the replayed one delivered", PATIENCE, || {
        let state = deliveries(&server, &["show", id]).ok()?["state"].clone();
        (state == "delivered").then_some(())
    })
    .unwrap();
}

#[test]
fn a_replay_under_a_key_is_made_once() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Status(500));
    let settings = "[deliver]\nsnapshot_retries = 0\npush_retries = 0\n";
    let server = serve(&receiver, 10, settings).unwrap();
    let _encoder = push_once(&server, "room_1001").unwrap();
    let dead = wait_until_dead(&server, 3).unwrap();
    let (id, other) = (dead[0]["id"].as_str().unwrap(), dead[1]["id"].as_str().unwrap());
    let bearer = format!("Bearer {}", server.credentials().unwrap().secret_key);
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "again")];
    let ask = |id: &str| {
        let target = format!("/v1/deliveries/{id}/replay");
        http::request(server.http_address(), "POST", &target, &headers, b"", PATIENCE).unwrap().status
    };
    // Several at once: each is judged by itself.
    let unknown = "00000000-0000-7000-8000-000000000000";
    let order = serde_json::json!({ "ids": [unknown] });
    let replayed = server.v1("POST", "/v1/deliveries/replay", Some(&order)).unwrap();
    assert_eq!((&replayed["replayed"], &replayed["refused"][0]["status"]), (&serde_json::json!([]), &404.into()));
    let before = receiver.requests().len();
    assert_eq!(ask(id), 202);
    receiver.wait_for(before + 1, PATIENCE).unwrap();
    wait::until("it to be dead again", PATIENCE, || {
        let shown = deliveries(&server, &["show", id]).ok()?;
        (shown["state"] == "dead" && shown["attempts"].as_array()?.len() == 2).then_some(())
    })
    .unwrap();
    assert_eq!(ask(id), 202, "the answer of before");
    assert_eq!(ask(other), 422, "another request");
    let shown = deliveries(&server, &["show", id]).unwrap();
    assert_eq!(
        (&shown["state"], shown["attempts"].as_array().unwrap().len()),
        (&"dead".into(), 2),
        "it is not sent again"
    );
    let order = serde_json::json!({ "ids": dead.iter().map(|row| &row["id"]).collect::<Vec<_>>() });
    let before = receiver.requests().len();
    let replayed = server.v1("POST", "/v1/deliveries/replay", Some(&order)).unwrap();
    assert_eq!(replayed["replayed"], order["ids"], "{replayed}");
    receiver.wait_for(before + 3, PATIENCE).unwrap();
}

#[test]
fn dead_letters_are_looked_at_replayed_and_cancelled_without_a_server() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Status(500));
    let settings = "[deliver]\nsnapshot_retries = 0\npush_retries = 0\n";
    let mut server = serve(&receiver, 10, settings).unwrap();
    let _encoder = push_once(&server, "room_1001").unwrap();
    let beside = wait_until_dead(&server, 3).unwrap();
    assert_eq!(server.terminate().unwrap().code(), Some(0));

    let dead = wait_until_dead(&server, 3).unwrap();
    assert_eq!(dead, beside, "a list is the same without a server");
    let id = |event_type: u64| dead.iter().find(|row| row["event_type"] == event_type).unwrap()["id"].as_str().unwrap();
    let shown = deliveries(&server, &["show", id(200)]).unwrap();
    assert_eq!((&shown["attempts"][0]["status"], &shown["body"]["stream_id"]), (&500.into(), &"room_1001".into()));

    // Whether the receiver of the template may be called is told by the configuration; that of a new URL is judged now.
    let private = ["replay", "--url", "http://127.0.0.1:9/", id(0)];
    assert!(format!("{:#}", deliveries(&server, &private).unwrap_err()).contains("--allow-receiver"));
    let unknown = "00000000-0000-7000-8000-000000000000";
    assert!(deliveries(&server, &["replay", unknown]).unwrap_err().to_string().contains("no such delivery"));
    deliveries(&server, &["replay", id(200)]).unwrap();
    assert_eq!(deliveries(&server, &["show", id(200)]).unwrap()["state"], "due");
    let endpoint = dead.iter().find(|row| row["event_type"] == 1).unwrap()["endpoint"].to_string();
    let of_endpoint = deliveries(&server, &["list", "--endpoint", &endpoint]).unwrap();
    assert_eq!(of_endpoint["deliveries"].as_array().unwrap().len(), 1, "{of_endpoint}");
    deliveries(&server, &["cancel", id(1), id(0)]).unwrap();

    let before = receiver.requests().len();
    receiver.reply_always(Reply::Status(200));
    server.restart().unwrap();
    let again = receiver.wait_for(before + 1, PATIENCE).unwrap().pop().unwrap();
    assert_eq!(again.webhook_id().unwrap(), id(200));
    wait::until("the replayed one delivered", PATIENCE, || {
        let delivered = deliveries(&server, &["list", "--state", "delivered"]).ok()?;
        (delivered["deliveries"].as_array()?.len() == 1).then_some(())
    })
    .unwrap();
    let noted = server.v1("GET", "/v1/audit?noun=delivery", None).unwrap();
    let told = |entry: &Value| format!("{} by {}", entry["verb"], entry["who"]).replace('"', "");
    let noted: Vec<_> = noted["entries"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(noted, ["cancel by control", "cancel by control", "replay by control"]);
}

#[test]
fn all_dead_letters_are_counted_and_sent_again_with_a_server_and_without() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Status(500));
    let settings = "[deliver]\nsnapshot_retries = 0\npush_retries = 0\n";
    let mut server = serve(&receiver, 10, settings).unwrap();
    let _encoder = push_once(&server, "room_1001").unwrap();
    let dead = wait_until_dead(&server, 3).unwrap();
    let before = receiver.requests().len();
    let counted = deliveries(&server, &["replay", "--state", "dead", "--dry-run"]).unwrap();
    assert_eq!((&counted["deliveries"], &counted["is_at_least"]), (&3.into(), &false.into()));
    let elsewhere = ["replay", "--state", "dead", "--stream", "push.example.com/live/nobody", "--dry-run"];
    assert_eq!(deliveries(&server, &elsewhere).unwrap()["deliveries"], 0);
    let open = deliveries(&server, &["replay", "--state", "due"]).unwrap_err();
    assert!(open.to_string().contains("is sent by itself"), "{open}");

    receiver.reply_always(Reply::Status(200));
    let made = deliveries(&server, &["replay", "--state", "dead", "--per-sec", "100"]).unwrap();
    assert_eq!((&made["per_sec"], &made["ended_ms"]), (&100.into(), &Value::Null), "{made}");
    receiver.wait_for(before + 3, PATIENCE).unwrap();
    let ended = |number: i64| {
        wait::until("the replay's end", PATIENCE, || {
            let listed = deliveries(&server, &["replays"]).ok()?;
            let replay = listed["replays"].as_array()?.iter().find(|replay| replay["id"] == number)?.clone();
            (!replay["ended_ms"].is_null()).then_some(replay)
        })
    };
    assert_eq!(ended(1).unwrap()["replayed"], 3);
    let over = deliveries(&server, &["replays", "--cancel", "1"]).unwrap_err();
    assert!(over.to_string().contains("it has ended"), "{over}");

    assert_eq!(server.terminate().unwrap().code(), Some(0));
    let since = dead.iter().map(|row| row["created_ms"].as_i64().unwrap()).max().unwrap().to_string();
    let last = ["replay", "--state", "delivered", "--since", &since];
    assert_eq!(deliveries(&server, &last).unwrap()["state"], "delivered");
    let before = receiver.requests().len();
    server.restart().unwrap();
    receiver.wait_for(before + 1, PATIENCE).unwrap();
    let noted = server.v1("GET", "/v1/audit?noun=replay", None).unwrap();
    assert_eq!(noted["entries"].as_array().unwrap().len(), 2, "{noted}");
    assert_eq!(noted["entries"][1]["after"]["per_sec"], 100);
}

#[test]
fn what_is_owed_survives_kill_9_and_keeps_its_id() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Hang);
    let slow = "[deliver]\nsnapshot_retry_interval = \"1s\"\npush_retry_interval = \"1s\"\n";
    let mut server = serve(&receiver, 10, slow).unwrap();
    let encoder = push_once(&server, "room_1001").unwrap();
    let first = wait_for_snapshots(&receiver, 1).unwrap().remove(0);
    drop(encoder);
    server.kill9().unwrap();
    receiver.reply_always(Reply::Status(200));
    let before = receiver.requests().len();
    server.restart().unwrap();
    let after = receiver
        .wait_until("the owed snapshot callback after the restart", PATIENCE, |requests| {
            of_type(&requests[before..], 200).pop()
        })
        .unwrap();
    assert_eq!(after.webhook_id().unwrap(), first.webhook_id().unwrap());
    common::check_snapshot(&server, &after).unwrap();
}

#[test]
fn one_dead_receiver_delays_nobody_elses_callbacks() {
    let (dead, healthy) = (Receiver::start().unwrap(), Receiver::start().unwrap());
    dead.reply_always(Reply::Hang);
    let toml = config(&healthy, 2, "")
        + &format!(
            "[[callback_template]]\nname = \"hangs\"\nsnapshot_notify_url = \"{url}\"\nstream_begin_notify_url = \"{url}\"\n\
             [[callback_rule]]\ndomain = \"{domain}\"\napp = \"dead\"\ntemplate = \"hangs\"\n\
             [[snapshot_rule]]\ndomain = \"{domain}\"\napp = \"dead\"\ntemplate = \"every\"\n",
            url = dead.url("/"),
            domain = common::DOMAIN
        );
    let server = ServerSpec::new(FRAMEHOOK).config(toml).start().unwrap();
    let url = server.rtmp_url(&format!("dead/d0?domain={}", common::DOMAIN));
    let _hanging = encoder::push(Program::Ffmpeg, Source::TestPicture, &url).unwrap();
    dead.wait_for(2, PATIENCE).unwrap();
    let _pushing = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room_1001")).unwrap();
    for request in wait_for_snapshots(&healthy, 3).unwrap() {
        let body = request.json().unwrap();
        let created = std::time::UNIX_EPOCH + Duration::from_secs(body["create_time"].as_u64().unwrap());
        let late = request.arrived_wall.duration_since(created).unwrap_or_default();
        assert!(late < Duration::from_secs(4), "a callback came {late:?} after its picture");
    }
}

#[test]
fn an_empty_key_sends_neither_t_nor_sign_and_an_empty_url_sends_nothing() {
    let receiver = Receiver::start().unwrap();
    let toml = config(&receiver, 10, "")
        .replace(&format!("callback_key = \"{}\"\n", common::CALLBACK_KEY), "")
        .replace(&format!("stream_begin_notify_url = \"{}\"\n", receiver.url("/notify?action=begin")), "");
    let server = ServerSpec::new(FRAMEHOOK).config(toml).start().unwrap();
    let _encoder = push_once(&server, "room_1001").unwrap();
    let snapshot = wait_for_snapshots(&receiver, 1).unwrap().remove(0).json().unwrap();
    assert!(snapshot.get("t").is_none() && snapshot.get("sign").is_none(), "{snapshot}");
    receiver.wait_until("event 0", PATIENCE, |requests| (!of_type(requests, 0).is_empty()).then_some(())).unwrap();
    assert!(of_type(&receiver.requests(), 1).is_empty());
}
