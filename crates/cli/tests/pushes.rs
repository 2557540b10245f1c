//! Pushes from their first byte to their last: who is admitted, what an encoder is told that is not, and which events
//! receivers hear when publishers leave, return and fight.

#![expect(clippy::disallowed_methods, reason = "a suite runs the commands that a person would")]

mod common;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{DOMAIN, FRAMEHOOK, PATIENCE, config, push_url, serve, wait_for_snapshots};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::process::Process;
use framehook_testkit::publisher::PublisherSpec;
use framehook_testkit::receiver::{Receiver, Request};
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::Value;

fn push(server: &Server, stream: &str) -> Process {
    encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(server, stream)).unwrap()
}

/// The bodies of one event type so far.
fn events(requests: &[Request], event_type: u64) -> Vec<Value> {
    requests.iter().filter_map(|request| request.json().ok()).filter(|body| body["event_type"] == event_type).collect()
}

fn wait_for_events(receiver: &Receiver, event_type: u64, count: usize) -> Vec<Value> {
    receiver
        .wait_until(&format!("{count} events of type {event_type}"), PATIENCE, |requests| {
            let found = events(requests, event_type);
            (found.len() >= count).then_some(found)
        })
        .unwrap()
}

/// The one live stream as `/v1/streams` shows it.
fn live(server: &Server) -> Result<Value> {
    let listed = server.v1("GET", "/v1/streams", None)?;
    listed["streams"].as_array().and_then(|streams| streams.first()).cloned().context("no stream is live")
}

#[test]
fn an_orderly_end_is_announced_at_once_under_the_same_sequence() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let mut encoder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    let began = wait_for_events(&receiver, 1, 1).remove(0);
    encoder.terminate(PATIENCE).unwrap();
    let ended = wait_for_events(&receiver, 0, 1).remove(0);
    assert_eq!(ended["sequence"], began["sequence"]);
    assert!(ended["sequence"].as_str().unwrap().parse::<u64>().unwrap() < 1 << 63);
    assert!(matches!(ended["errcode"].as_u64(), Some(1 | 2)), "{ended}");
    assert_eq!((&ended["width"], &ended["height"]), (&640.into(), &360.into()));
    let lasted: u64 = ended["push_duration"].as_str().unwrap().parse().unwrap();
    assert!((1..60_000).contains(&lasted), "{ended}");
    assert_eq!(ended["user_ip"], "127.0.0.1");
    assert_eq!(ended["appid"], 1_250_000_000);
}

#[test]
fn a_publisher_that_returns_within_the_grace_keeps_its_push() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "[ingest]\nreconnect_grace = \"30s\"\n").unwrap();
    let mut encoder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    let sequence = live(&server).unwrap()["sequence"].clone();
    encoder.kill9().unwrap();
    wait::until("the push to be in its grace", PATIENCE, || (live(&server).ok()?["state"] == "grace").then_some(()))
        .unwrap();
    let _encoder = push(&server, "room_1001");
    wait::until("the push to live again", PATIENCE, || (live(&server).ok()?["state"] == "live").then_some(())).unwrap();
    wait_for_snapshots(&receiver, 3).unwrap();
    assert_eq!(live(&server).unwrap()["sequence"], sequence);
    let requests = receiver.requests();
    assert_eq!((events(&requests, 1).len(), events(&requests, 0).len()), (1, 0));
}

#[test]
fn a_return_within_the_grace_goes_on_with_the_grid() {
    const INTERVAL_S: i64 = 6;
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, INTERVAL_S as u32, "[ingest]\nreconnect_grace = \"30s\"\n").unwrap();
    // A keyframe every second, so that the grid shows in whole seconds.
    let spec = ClipSpec { width: 320, height: 180, gop: Duration::from_secs(1), ..ClipSpec::default() };
    let publish = || {
        let url = push_url(&server, "room_1001").parse().unwrap();
        PublisherSpec::new(url, spec.build().unwrap().flv().unwrap()).looped().start().unwrap()
    };
    let publisher = publish();
    publisher.wait_for_keyframes(3, PATIENCE).unwrap();
    publisher.reset();
    let _publisher = publish();
    let requests = wait_for_snapshots(&receiver, 3).unwrap();
    let created: Vec<i64> =
        requests.iter().map(|request| request.json().unwrap()["create_time"].as_i64().unwrap()).collect();
    for (index, at) in created.iter().enumerate() {
        let off = at - created[0] - INTERVAL_S * index as i64;
        assert!((-1..=1).contains(&off), "pictures at {created:?}");
    }
}

#[test]
fn what_an_ended_push_lasted_ends_with_its_last_byte() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "[ingest]\nreconnect_grace = \"4s\"\n").unwrap();
    let spec = ClipSpec { width: 320, height: 180, ..ClipSpec::default() };
    let url = push_url(&server, "room_1001").parse().unwrap();
    let publisher = PublisherSpec::new(url, spec.build().unwrap().flv().unwrap()).looped().start().unwrap();
    publisher.wait_for_keyframes(2, PATIENCE).unwrap();
    let log = publisher.close();
    let sent = log.keyframes[1].sent - log.keyframes[0].sent;
    let ended = wait_for_events(&receiver, 0, 1).remove(0);
    let lasted: u64 = ended["push_duration"].as_str().unwrap().parse().unwrap();
    let lasted = Duration::from_millis(lasted);
    assert!(lasted >= sent && lasted < sent + Duration::from_secs(2), "{lasted:?} of media over {sent:?}");
}

#[test]
fn a_publisher_that_falls_silent_is_ended_for_that_reason() {
    let receiver = Receiver::start().unwrap();
    let settings = "[ingest]\nreconnect_grace = \"200ms\"\nidle_timeout = \"1s\"\n";
    let server = serve(&receiver, 2, settings).unwrap();
    let spec = ClipSpec { width: 320, height: 180, ..ClipSpec::default() };
    let url = push_url(&server, "room_1001").parse().unwrap();
    let publisher = PublisherSpec::new(url, spec.build().unwrap().flv().unwrap()).looped().start().unwrap();
    publisher.wait_for_keyframes(1, PATIENCE).unwrap();
    publisher.stall();
    let ended = wait_for_events(&receiver, 0, 1).remove(0);
    assert_eq!(ended["errcode"], 8, "{ended}");
}

#[test]
fn a_publisher_that_stays_away_is_announced_as_gone_and_comes_back_as_a_new_push() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "[ingest]\nreconnect_grace = \"300ms\"\n").unwrap();
    let mut encoder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    encoder.kill9().unwrap();
    let ended = wait_for_events(&receiver, 0, 1).remove(0);
    assert!(matches!(ended["errcode"].as_u64(), Some(3 | 4)), "{ended}");
    let _encoder = push(&server, "room_1001");
    let began = wait_for_events(&receiver, 1, 2);
    assert_ne!(began[0]["sequence"], began[1]["sequence"]);
    assert_eq!(ended["sequence"], began[0]["sequence"]);
}

#[test]
fn a_newer_push_displaces_the_older_without_a_pair_of_events() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let mut older = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    let sequence = live(&server).unwrap()["sequence"].clone();
    let _newer = push(&server, "room_1001");
    older.wait(PATIENCE).unwrap();
    let before = wait_for_snapshots(&receiver, 1).unwrap().len();
    wait_for_snapshots(&receiver, before + 2).unwrap();
    assert_eq!(live(&server).unwrap()["sequence"], sequence);
    let requests = receiver.requests();
    assert_eq!((events(&requests, 1).len(), events(&requests, 0).len()), (1, 0));
    server.wait_for_log("21/102", PATIENCE).unwrap();
}

#[test]
fn encoders_that_fight_over_a_name_are_told_to_wait() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let mut holder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    for _ in 0..3 {
        let next = push(&server, "room_1001");
        holder.wait(PATIENCE).unwrap();
        holder = next;
    }
    let mut refused = push(&server, "room_1001");
    refused.wait(PATIENCE).unwrap();
    assert!(refused.stderr().contains("18/601"), "{}", refused.stderr());
    assert!(holder.try_wait().is_none(), "the last holder was cut although the newcomer was refused");
}

#[test]
fn hotlink_keys_are_checked_and_the_encoder_shows_why_it_was_refused() {
    let receiver = Receiver::start().unwrap();
    let key = "M4sterPushKey0123456789abcdefXYZ";
    let toml = config(&receiver, 2, "").replace("auth = \"off\"", &format!("main_key = \"{key}\""));
    let server = ServerSpec::new(FRAMEHOOK).config(toml).start().unwrap();
    let cases = [
        ("no txTime", String::new(), "18/500"),
        ("expired", "&txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF".to_owned(), "18/501"),
        ("no txSecret", "&txTime=FFFFFFFF".to_owned(), "18/502"),
        ("wrong txSecret", "&txSecret=00000000000000000000000000000000&txTime=FFFFFFFF".to_owned(), "18/503"),
    ];
    for (name, query, code) in cases {
        let url = push_url(&server, "room_1001") + &query;
        let mut encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &url).unwrap();
        encoder.wait(PATIENCE).unwrap();
        assert!(encoder.stderr().contains(code), "{name}: {}", encoder.stderr());
    }
    let output = Command::new(FRAMEHOOK)
        .args(["push-url", "--key", key, "--domain", DOMAIN, "--app", "live", "--stream", "room_1001"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let signed = String::from_utf8(output.stdout).unwrap();
    let query = signed.trim().split_once('?').expect("the signed URL has a query").1;
    let url = push_url(&server, "room_1001") + "&" + query;
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &url).unwrap();
    let snapshot = wait_for_snapshots(&receiver, 1).unwrap().remove(0).json().unwrap();
    // CSS sends the query as pushed, signature included; our own log must not.
    assert_eq!(snapshot["stream_param"], format!("domain={DOMAIN}&{query}"));
    let secret = query.split('&').find_map(|part| part.strip_prefix("txSecret=")).unwrap();
    assert!(!server.log().contains(secret), "the log holds a txSecret");
}

#[test]
fn refusals_name_the_part_of_the_url_that_is_wrong() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let cases = [
        ("unknown domain", "live/room?domain=other.example.com", "18/301"),
        ("bare address", "live/room", "18/300"),
        ("bad stream name", "live/ro%20om?domain=push.example.com", "18/308"),
    ];
    for (name, path, code) in cases {
        let mut encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &server.rtmp_url(path)).unwrap();
        encoder.wait(PATIENCE).unwrap();
        assert!(encoder.stderr().contains(code), "{name}: {}", encoder.stderr());
    }
    assert!(receiver.requests().is_empty(), "a refused push was announced");
}

#[test]
fn an_empty_configuration_takes_every_host_until_the_first_object_is_configured() {
    let receiver = Receiver::start().unwrap();
    let mut server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &server.rtmp_url("live/room")).unwrap();
    let taken = wait::until("a picture under the built-in rule", PATIENCE, || {
        let stream = live(&server).ok()?;
        (stream["rules"][0]["taken"].as_u64()? >= 1).then_some(stream)
    })
    .unwrap();
    assert_eq!((&taken["domain"], &taken["rules"][0]["interval_s"]), (&"127.0.0.1".into(), &10.into()));
    server.reload(&config(&receiver, 2, "")).unwrap();
    let mut refused = encoder::push(Program::Ffmpeg, Source::TestPicture, &server.rtmp_url("live/another")).unwrap();
    refused.wait(PATIENCE).unwrap();
    assert!(refused.stderr().contains("18/300"), "{}", refused.stderr());
}

#[test]
fn an_audio_only_stream_is_alive_and_visibly_yields_no_pictures() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let url = push_url(&server, "radio");
    let mut command = Command::new("ffmpeg");
    command.args("-nostdin -v warning -re -f lavfi -i sine=sample_rate=48000 -c:a aac -f flv".split(' ')).arg(&url);
    let _encoder = Process::spawn("ffmpeg", &mut command).unwrap();
    let stream = wait::until("the stream to be seen as audio only", PATIENCE, || {
        let stream = live(&server).ok()?;
        (stream["state"] == "audio_only").then_some(stream)
    })
    .unwrap();
    assert_eq!(stream["rules"][0]["taken"], 0, "{stream}");
}

#[test]
fn a_change_of_size_in_mid_stream_changes_the_next_picture() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let first = ClipSpec { width: 640, height: 360, kbit_per_s: 600, ..ClipSpec::default() };
    let second = ClipSpec { width: 480, height: 272, ..first.clone() };
    let joined = first.build().unwrap().flv().unwrap().followed_by(&second.build().unwrap().flv().unwrap());
    let url = push_url(&server, "room_1001").parse().unwrap();
    let _publisher = PublisherSpec::new(url, joined).start().unwrap();
    let sizes = receiver
        .wait_until("pictures of both sizes", PATIENCE, |requests| {
            let sizes: Vec<(u64, u64)> = events(requests, 200)
                .iter()
                .filter_map(|body| Some((body["width"].as_u64()?, body["height"].as_u64()?)))
                .collect();
            (sizes.contains(&(640, 360)) && sizes.contains(&(480, 272))).then_some(sizes)
        })
        .unwrap();
    assert_eq!(sizes[0], (640, 360));
    for request in wait_for_snapshots(&receiver, sizes.len()).unwrap() {
        common::check_snapshot(&server, &request).unwrap();
    }
}

#[test]
fn a_push_survives_kill_9_of_the_server_under_its_sequence() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve(&receiver, 2, "").unwrap();
    let encoder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    let sequence = live(&server).unwrap()["sequence"].clone();
    server.kill9().unwrap();
    drop(encoder);
    server.restart().unwrap();
    assert_eq!(live(&server).unwrap()["state"], "grace");
    let _encoder = push(&server, "room_1001");
    let pictures = wait_for_snapshots(&receiver, 1).unwrap().len();
    wait_for_snapshots(&receiver, pictures + 1).unwrap();
    assert_eq!(live(&server).unwrap()["sequence"], sequence);
    let requests = receiver.requests();
    assert_eq!((events(&requests, 1).len(), events(&requests, 0).len()), (1, 0));
}

#[test]
fn a_push_that_does_not_return_after_a_crash_ends_when_its_grace_is_over() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve(&receiver, 2, "[ingest]\nreconnect_grace = \"1s\"\n").unwrap();
    let encoder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    server.kill9().unwrap();
    drop(encoder);
    server.restart().unwrap();
    let ended = wait_for_events(&receiver, 0, 1).remove(0);
    let began = events(&receiver.requests(), 1).remove(0);
    assert_eq!(ended["sequence"], began["sequence"]);
}

#[test]
fn a_changed_rule_reaches_a_live_stream_without_a_new_push() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve(&receiver, 300, "").unwrap();
    let _encoder = push(&server, "room_1001");
    wait_for_snapshots(&receiver, 1).unwrap();
    server.reload(&config(&receiver, 2, "")).unwrap();
    wait_for_snapshots(&receiver, 3).unwrap();
    let stream = live(&server).unwrap();
    assert_eq!((&stream["rules"][0]["interval_s"], &stream["sessions"]), (&2.into(), &1.into()));
}

fn balanced(stream: &Value) -> Result<()> {
    for rule in stream["rules"].as_array().context("a stream without rules")? {
        let count = |name: &str| rule[name].as_u64().unwrap_or_default();
        let skipped: u64 =
            rule["skipped"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        ensure!(count("due") == count("taken") + skipped + count("open"), "{rule}");
        ensure!(count("open") <= 1, "{rule}");
    }
    Ok(())
}

#[test]
fn dues_are_taken_skipped_or_open_at_every_instant() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let _encoder = push(&server, "room_1001");
    wait::until("five dues", PATIENCE, || {
        let stream = live(&server).ok()?;
        balanced(&stream).unwrap();
        let metrics = server.metrics().unwrap();
        let sum = |name: &str| metrics.sum(name, &[]);
        assert_eq!(
            sum("framehook_due_total"),
            sum("framehook_taken_total") + sum("framehook_skipped_total") + sum("framehook_open_dues")
        );
        (stream["rules"][0]["due"].as_u64()? >= 5).then_some(())
    })
    .unwrap();
}
