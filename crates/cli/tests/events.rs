//! `/v1/events`: what listeners hear of a push, in which order, until when; and what becomes of those who do not read.

#![expect(clippy::disallowed_methods, reason = "a suite runs the commands that a person would")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use common::{DOMAIN, FRAMEHOOK, PATIENCE, config, push_once, push_url, serve};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::http::{self, Connection, Event, Events};
use framehook_testkit::process::Process;
use framehook_testkit::publisher::PublisherSpec;
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::{Value, json};

fn listen_with(server: &Server, key: &str, query: &str) -> anyhow::Result<Events<TcpStream>> {
    let (address, bearer) = (server.http_address(), format!("Bearer {key}"));
    let connection = Connection::over(http::connect(address, PATIENCE)?, address.to_string());
    Events::open(connection, &format!("/v1/events{query}"), &[("authorization", &bearer)])
}

fn listen(server: &Server, query: &str) -> Events<TcpStream> {
    listen_with(server, &server.credentials().unwrap().secret_key, query).unwrap()
}

fn listen_on_socket(server: &Server, query: &str) -> Events<UnixStream> {
    let socket = UnixStream::connect(server.data_dir().join("control.sock")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Events::open(Connection::over(socket, "framehook"), &format!("/v1/events{query}"), &[]).unwrap()
}

/// Events up to and including the first that is `last`.
fn up_to<S: Read + Write>(events: &mut Events<S>, mut last: impl FnMut(&Value) -> bool) -> Vec<(Event, Value)> {
    let mut heard = Vec::new();
    loop {
        let event = events.next_event().unwrap().unwrap_or_else(|| panic!("it ended after {heard:?}"));
        let json = event.json().unwrap();
        assert_eq!(json["kind"], event.kind.as_str());
        assert!(json["at_ms"].is_i64(), "{json}");
        let is_last = last(&json);
        heard.push((event, json));
        if is_last {
            return heard;
        }
    }
}

#[test]
fn a_push_is_told_from_its_beginning_to_its_last_callback() {
    let receiver = Receiver::start().unwrap();
    let toml = config(&receiver, 10, "") + "[[domain]]\nname = \"other.example.com\"\nauth = \"off\"\n";
    let server = ServerSpec::new(FRAMEHOOK).config(toml).start().unwrap();
    let mut events = listen(&server, &format!("?stream={DOMAIN}/live/room"));
    assert_eq!(events.headers.get("cache-control"), Some("no-cache"));
    let mut others = listen(&server, "?domain=other.example.com&app=live");
    let clip = ClipSpec { width: 320, height: 180, duration: Duration::from_secs(1), ..ClipSpec::default() };
    let url = format!("{}&txSecret=hushHushHush", push_url(&server, "room"));
    let _encoder = encoder::push(Program::Ffmpeg, Source::Clip(&clip.build().unwrap().path), &url).unwrap();

    let mut delivered = 0;
    let heard = up_to(&mut events, |json| {
        delivered += u32::from(json["kind"] == "delivery_delivered");
        delivered == 3
    });
    let heard: Vec<Value> = heard.into_iter().map(|(_, json)| json).collect();
    let place = |kind: &str, event_type: Option<u16>| {
        let is_it =
            |json: &Value| json["kind"] == kind && event_type.is_none_or(|event_type| json["event_type"] == event_type);
        heard.iter().position(is_it).unwrap_or_else(|| panic!("no {kind} in {heard:#?}"))
    };
    let orders: [&[usize]; 3] = [
        &[
            place("push_began", None),
            place("session_began", None),
            place("session_ended", None),
            place("push_ended", None),
        ],
        &[
            place("session_began", None),
            place("snapshot_taken", None),
            place("snapshot_stored", None),
            place("delivery_delivered", Some(200)),
        ],
        &[place("push_ended", None), place("delivery_delivered", Some(0))],
    ];
    for order in orders {
        assert!(order.is_sorted(), "{order:?} of {heard:#?}");
    }
    assert!(heard.iter().all(|json| json["stream"] == format!("{DOMAIN}/live/room").as_str()), "{heard:#?}");
    let sequences: BTreeSet<&str> = heard.iter().filter_map(|json| json["sequence"].as_str()).collect();
    assert_eq!(sequences.len(), 1, "{heard:#?}");

    // What is told is what is found.
    let taken = &heard[place("snapshot_taken", None)];
    let found = server.v1("GET", &format!("/v1/snapshots/{}", taken["snapshot_id"].as_str().unwrap()), None).unwrap();
    for field in ["sequence", "width", "height", "file_size_bytes", "create_time_ms", "rule"] {
        assert_eq!(taken[field], found[field], "{field}: {taken} {found}");
    }
    assert_eq!(heard[place("snapshot_stored", None)]["key"], found["key"], "{found}");
    let delivery = &heard[place("delivery_delivered", Some(200))];
    let detail =
        server.v1("GET", &format!("/v1/deliveries/{}", delivery["delivery_id"].as_str().unwrap()), None).unwrap();
    assert_eq!((&detail["state"], &delivery["status"]), (&json!("delivered"), &json!(200)), "{detail}");
    assert_eq!(heard[place("push_ended", None)]["errcode"], 1);

    let text = serde_json::to_string(&heard).unwrap();
    for secret in ["hushHushHush", common::CALLBACK_KEY, &server.credentials().unwrap().secret_key] {
        assert!(!text.contains(secret), "{text}");
    }
    // Whoever listens to another domain has heard nothing: the first event it hears is one of that domain.
    let url = server.rtmp_url("live/hall?domain=other.example.com");
    let file = ClipSpec { width: 320, height: 180, ..ClipSpec::default() }.build().unwrap().flv().unwrap();
    let _publisher = PublisherSpec::new(url.parse().unwrap(), file).start().unwrap();
    let first = up_to(&mut others, |_| true).remove(0).1;
    assert_eq!(first["stream"], "other.example.com/live/hall", "{first}");
}

#[test]
fn a_callback_that_fails_is_told_at_each_attempt_and_when_it_is_given_up() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Status(500));
    let settings = "[deliver]\nsnapshot_retries = 1\nsnapshot_retry_interval = \"200ms\"\n";
    let server = serve(&receiver, 10, settings).unwrap();
    let mut events = listen(&server, "?kind=delivery_failed,delivery_dead");
    let _encoder = push_once(&server, "room").unwrap();
    let heard = up_to(&mut events, |json| json["kind"] == "delivery_dead");
    let of_picture: Vec<&Value> = heard.iter().map(|(_, json)| json).filter(|json| json["event_type"] == 200).collect();
    let [failed, dead] = of_picture[..] else { panic!("{heard:#?}") };
    assert_eq!((&failed["kind"], &failed["retry_in_ms"]), (&json!("delivery_failed"), &json!(200)));
    assert_eq!((&dead["attempt"], &dead["status"], &dead["outcome"]), (&json!(2), &json!(500), &json!("status")));
    assert_eq!(failed["delivery_id"], dead["delivery_id"]);
    assert!(dead["url"].as_str().unwrap().starts_with("http://"), "{dead}");
}

#[test]
fn what_was_skipped_is_told_with_its_reason() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let mut events = listen(&server, "?kind=snapshot_skipped,snapshot_taken");
    // One keyframe, and then none: the dues that follow find nothing to take.
    let long = ClipSpec {
        width: 320,
        height: 180,
        kbit_per_s: 300,
        gop: Duration::from_secs(20),
        duration: Duration::from_secs(20),
        ..ClipSpec::default()
    };
    let url = push_url(&server, "room").parse().unwrap();
    let publisher = PublisherSpec::new(url, long.build().unwrap().flv().unwrap()).start().unwrap();
    let heard = up_to(&mut events, |json| json["kind"] == "snapshot_skipped");
    assert_eq!(heard[0].1["kind"], "snapshot_taken");
    let skipped = &heard.last().unwrap().1;
    assert_eq!((&skipped["reason"], &skipped["dues"]), (&json!("no_entry_point"), &json!(1)), "{skipped}");
    publisher.stop();
    let last = up_to(&mut events, |json| json["reason"] == "push_ended").pop().unwrap().1;
    assert_eq!(last["stream"], format!("{DOMAIN}/live/room").as_str());
}

#[test]
fn a_change_of_the_configuration_is_told_on_the_control_socket_too() {
    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let mut events = listen_on_socket(&server, "?kind=configuration_changed,login_refused");
    server.v1("POST", "/v1/domains", Some(&json!({ "name": "a.example.com" }))).unwrap();
    let first = up_to(&mut events, |_| true).remove(0).1;
    assert_eq!((&first["kind"], &first["version"]), (&json!("configuration_changed"), &json!(1)));
    assert!(listen_with(&server, "no key", "").is_err());
    let second = up_to(&mut events, |_| true).remove(0).1;
    assert_eq!((&second["kind"], &second["reason"]), (&json!("login_refused"), &json!("wrong")));
    assert_eq!(second["peer"], "127.0.0.1");
    for query in ["?kind=picture", "?stream=room", "?domain=a%20b", "?since=1"] {
        let bearer = format!("Bearer {}", server.credentials().unwrap().secret_key);
        let target = format!("/v1/events{query}");
        let headers = [("authorization", bearer.as_str())];
        let answer = http::request(server.http_address(), "GET", &target, &headers, b"", PATIENCE).unwrap();
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert_eq!(answer.headers.get("content-type"), Some("application/problem+json"));
    }
}

#[test]
fn it_ends_with_its_key_and_with_the_server() {
    let mut server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let added = server.v1("POST", "/v1/keys", Some(&json!({ "name": "wall", "read_only": true }))).unwrap();
    let mut of_key = listen_with(&server, added["secret_key"].as_str().unwrap(), "").unwrap();
    let mut of_first = listen(&server, "?kind=push_began");
    let mut of_owner = listen_on_socket(&server, "?kind=push_began");
    server.v1("DELETE", &format!("/v1/keys/{}", added["id"].as_str().unwrap()), None).unwrap();
    assert!(of_key.next_event().unwrap().is_none(), "a key that is revoked hears no more");
    assert_eq!(server.terminate().unwrap().code(), Some(0));
    assert!(of_first.next_event().unwrap().is_none(), "the end is in order, and no reset");
    assert!(of_owner.next_event().unwrap().is_none());
}

#[test]
fn it_says_that_it_is_there_and_there_are_not_too_many_of_it() {
    let settings = "[http]\nevent_streams_max = 1\nevent_keep_alive = \"1s\"\n";
    let server = ServerSpec::new(FRAMEHOOK).config(settings).start().unwrap();
    let mut one = listen(&server, "");
    one.wait_for_comment().unwrap();
    one.wait_for_comment().unwrap();
    let bearer = format!("Bearer {}", server.credentials().unwrap().secret_key);
    let ask = || {
        let headers = [("authorization", bearer.as_str())];
        http::request(server.http_address(), "HEAD", "/v1/events", &headers, b"", PATIENCE).unwrap()
    };
    let refused = ask();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers.get("content-type"), Some("application/problem+json"));
    drop(one);
    // The next word to the one that is gone finds that out.
    wait::until("its place to be free", PATIENCE, || (ask().status == 200).then_some(())).unwrap();
}

#[test]
fn who_does_not_read_is_told_how_much_it_missed_and_goes_on() {
    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let mut slow = listen_on_socket(&server, "");
    let address = server.http_address();
    let mut knocking = Connection::over(http::connect(address, PATIENCE).unwrap(), address.to_string());
    // Each is an event of some 100 bytes: more than the socket's buffers, the answer's own and the feed hold together.
    for _ in 0..8000 {
        let answer = knocking.request("GET", "/v1/streams", &[("authorization", "Bearer wrong")], b"").unwrap();
        assert!([401, 429].contains(&answer.status), "{}", answer.status);
    }
    let heard = up_to(&mut slow, |json| json["kind"] == "missed");
    let missed = heard.last().unwrap().1["count"].as_u64().unwrap();
    assert!(missed > 0 && heard.len() as u64 + missed <= 8000 + 1, "{missed} and {}", heard.len());
    // What is left is 8,000 less what was missed, none twice; then the stream is as new.
    let mut left = 8000 + 1 - missed - heard.len() as u64;
    while left > 0 {
        let event = slow.next_event().unwrap().unwrap();
        left -= if event.kind == "missed" { event.json().unwrap()["count"].as_u64().unwrap() } else { 1 };
    }
    server.v1("POST", "/v1/domains", Some(&json!({ "name": "a.example.com" }))).unwrap();
    assert_eq!(slow.next_event().unwrap().unwrap().kind, "configuration_changed");
}

/// The line in the documents, by the program that it names.
#[test]
fn curl_shows_it_as_the_documents_say() {
    let documents = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md");
    let text = std::fs::read_to_string(documents).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("$ ").filter(|line| line.contains("/v1/events")));
    let line = line.expect("an example of /v1/events");
    let receiver = Receiver::start().unwrap();
    let server = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 10, "")).start().unwrap();
    let line = line.replace("127.0.0.1:8080", &server.http_address().to_string());
    assert!(line.starts_with("curl -N"), "{line}");
    let mut curl = Command::new("bash");
    curl.args(["-c", &format!("exec {line}")]).env("KEY", server.credentials().unwrap().secret_key);
    let curl = Process::spawn("curl", &mut curl).unwrap();
    server.v1("POST", "/v1/domains", Some(&json!({ "name": "a.example.com" }))).unwrap();
    // Nothing is told before curl listens, so something is changed again and again.
    let mut enabled = true;
    wait::until("an event on curl's output", PATIENCE, || {
        enabled = !enabled;
        server.v1("PATCH", "/v1/domains/a.example.com", Some(&json!({ "enabled": enabled }))).ok()?;
        curl.stdout().contains("event: configuration_changed\n").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", curl.stdout()));
}
