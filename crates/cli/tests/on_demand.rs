//! Pictures for who asks: `GET /v1/streams/{domain}/{app}/{stream}/latest.jpg`, and `POST …/snapshot`.

mod common;

use std::net::SocketAddr;

use common::{DOMAIN, FRAMEHOOK, PATIENCE, check_snapshot, push_url, serve, wait_for_snapshots};
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::http::{self, Response};
use framehook_testkit::jpeg;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::{Value, json};

/// Asks a server's pages with its key.
struct Viewer {
    address: SocketAddr,
    bearer: String,
}

impl Viewer {
    fn of(server: &Server) -> Self {
        let key = server.credentials().unwrap().secret_key;
        Self { address: server.http_address(), bearer: format!("Bearer {key}") }
    }

    fn get(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        let headers = [&[("authorization", self.bearer.as_str())], headers].concat();
        http::request(self.address, "GET", target, &headers, b"", PATIENCE).unwrap()
    }

    fn post(&self, target: &str, order: &Value) -> Response {
        self.post_with(target, &[], order)
    }

    fn post_with(&self, target: &str, headers: &[(&str, &str)], order: &Value) -> Response {
        let headers = [&[("authorization", self.bearer.as_str())], headers].concat();
        http::request(self.address, "POST", target, &headers, order.to_string().as_bytes(), PATIENCE).unwrap()
    }

    /// The first picture that a page gives, asked for until there is one.
    fn picture(&self, target: &str) -> Response {
        let ask = || Some(self.get(target, &[])).filter(|answer| answer.status == 200);
        wait::until("a picture", PATIENCE, ask).unwrap()
    }
}

fn latest(stream: &str) -> String {
    format!("/v1/streams/{DOMAIN}/live/{stream}/latest.jpg")
}

#[test]
fn a_live_stream_shows_its_newest_keyframe_in_the_size_that_is_asked_for() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 300, "").unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let viewer = Viewer::of(&server);
    let first = viewer.picture(&latest("room"));
    assert_eq!(first.headers.get("content-type"), Some("image/jpeg"));
    assert_eq!(first.headers.get("cache-control"), Some("private, no-cache"));
    assert!(first.headers.get("age").unwrap().parse::<u64>().unwrap() <= 30);
    let whole = jpeg::decode(&first.body).unwrap();
    let small = viewer.picture(&format!("{}?width=160", latest("room")));
    let small = jpeg::decode(&small.body).unwrap();
    assert_eq!(small.width, 160);
    assert_eq!(small.height, (whole.height * 160 / whole.width) & !1, "of {}x{}", whole.width, whole.height);

    // Another keyframe may come between the two requests, but not each time.
    let unchanged = || {
        let shown = viewer.picture(&latest("room"));
        let answer = viewer.get(&latest("room"), &[("if-none-match", shown.headers.get("etag").unwrap())]);
        (answer.status == 304).then_some(answer)
    };
    assert!(wait::until("an answer without a body", PATIENCE, unchanged).unwrap().body.is_empty());
    let tag = first.headers.get("etag").unwrap().to_owned();
    let moved_on = || Some(viewer.picture(&latest("room"))).filter(|answer| answer.headers.get("etag") != Some(&tag));
    wait::until("the next keyframe", PATIENCE, moved_on).unwrap();

    // Nobody is told of a look, and no due is taken by it.
    wait_for_snapshots(&receiver, 1).unwrap();
    let streams = viewer.get("/v1/streams", &[]).json().unwrap();
    let rule = &streams["streams"][0]["rules"][0];
    assert_eq!((&rule["due"], &rule["taken"]), (&1.into(), &1.into()), "{rule}");
    assert_eq!(receiver.requests().iter().filter(|request| request.event_type() == Some(200)).count(), 1);
}

#[test]
fn a_stream_that_no_rule_wants_is_shown_to_who_asks() {
    let config = format!("[[domain]]\nname = \"{DOMAIN}\"\nauth = \"off\"\n");
    let server = ServerSpec::new(FRAMEHOOK).config(config).start().unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let viewer = Viewer::of(&server);
    // Its keyframes are kept from the first question on, so that the next one is there for a later question.
    let not_yet = || Some(viewer.get(&latest("room"), &[])).filter(|answer| answer.status == 503);
    let not_yet = wait::until("a live stream", PATIENCE, not_yet).unwrap();
    assert_eq!(not_yet.headers.get("content-type"), Some("application/problem+json"));
    assert!(not_yet.text().contains("no keyframe"), "{}", not_yet.text());
    jpeg::decode(&viewer.picture(&latest("room")).body).unwrap();
}

#[test]
fn a_picture_that_is_asked_for_is_stored_and_announced_like_any_other() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 300, "").unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let viewer = Viewer::of(&server);
    wait_for_snapshots(&receiver, 1).unwrap();

    let target = format!("/v1/streams/{DOMAIN}/live/room/snapshot");
    let taken = viewer.post(&target, &json!({}));
    assert_eq!(taken.status, 202, "{}", taken.text());
    let location = taken.headers.get("location").unwrap().to_owned();
    let taken = taken.json().unwrap();
    assert_eq!(location, format!("/v1/snapshots/{}", taken["id"].as_str().unwrap()));
    let callback = check_snapshot(&server, &wait_for_snapshots(&receiver, 2).unwrap()[1]).unwrap().body;
    assert_eq!(callback["pic_full_url"], taken["url"]);
    assert_eq!((&callback["width"], &callback["file_size"]), (&taken["width"], &taken["file_size_bytes"]));
    assert!(callback.get("task_id").is_none(), "{callback}");
    let shown = viewer.get(&location, &[]).json().unwrap();
    assert_eq!((&shown["rule"], &shown["task"], &shown["template"]), (&Value::Null, &Value::Null, &json!(1)));
    assert_eq!(server.metrics().unwrap().sum("framehook_snapshots_total", &[]), 2.0);
    let streams = viewer.get("/v1/streams", &[]).json().unwrap();
    assert_eq!(streams["streams"][0]["rules"][0]["taken"], 1, "the rule's own picture, and no other: {streams}");

    for (target, order, status, said) in [
        (format!("/v1/streams/{DOMAIN}/live/nobody/snapshot"), json!({}), 404, "not live"),
        (target.clone(), json!({ "template": 99 }), 422, "template"),
        (target.clone(), json!({ "width": 99 }), 422, "width"),
        (target, json!({ "max_age": -1 }), 422, "max_age"),
    ] {
        let answer = viewer.post(&target, &order);
        assert_eq!(answer.status, status, "{order}: {}", answer.text());
        assert!(answer.text().contains(said), "{order}: {}", answer.text());
    }
    assert_eq!(receiver.requests().iter().filter(|request| request.event_type() == Some(200)).count(), 2);
}

#[test]
fn a_picture_that_is_asked_for_under_a_key_is_taken_once() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve(&receiver, 300, "").unwrap();
    let encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let target = format!("/v1/streams/{DOMAIN}/live/room/snapshot");
    let key = [("idempotency-key", "cover of the day")];
    let bad = Viewer::of(&server).post_with(&target, &key, &json!({}));
    assert_eq!((bad.status, &bad.json().unwrap()["field"]), (400, &json!("Idempotency-Key")), "a space is in it");
    let key = [("idempotency-key", "cover-of-the-day")];
    // What did nothing is not remembered: before the first keyframe there is no picture.
    let ask = || {
        let answer = Viewer::of(&server).post_with(&target, &key, &json!({}));
        (answer.status == 202).then_some(answer)
    };
    let taken = wait::until("a picture", PATIENCE, ask).unwrap();
    let again = Viewer::of(&server).post_with(&target, &key, &json!({}));
    assert_eq!((again.status, again.text()), (202, taken.text()));
    assert_eq!(again.headers.get("location"), taken.headers.get("location"));
    assert_eq!(again.headers.get("content-type"), Some("application/json"));
    let other = Viewer::of(&server).post_with(&target, &key, &json!({ "max_age": 60 }));
    assert_eq!(other.status, 422, "another request under the same key: {}", other.text());
    // One of the rule, one that was asked for.
    wait_for_snapshots(&receiver, 2).unwrap();
    drop(encoder);
    server.kill9().unwrap();
    server.restart().unwrap();
    assert_eq!(Viewer::of(&server).post_with(&target, &key, &json!({})).text(), taken.text(), "after a crash too");
    let found = server.v1("GET", &format!("/v1/snapshots?stream={DOMAIN}/live/room"), None).unwrap();
    assert_eq!(found["snapshots"].as_array().unwrap().len(), 2, "{found}");
}

#[test]
fn an_answer_without_a_picture_says_why_and_when_to_come_back() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 300, "").unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let viewer = Viewer::of(&server);
    viewer.picture(&latest("room"));
    let too_old = || {
        let answer = viewer.get(&format!("{}?max_age=0", latest("room")), &[]);
        answer.headers.get("retry-after").is_some().then_some(answer)
    };
    let too_old = wait::until("a whole GOP", PATIENCE, too_old).unwrap();
    assert_eq!(too_old.status, 503);
    assert!(too_old.text().contains("max_age"), "{}", too_old.text());
    for (target, status, said) in [
        (latest("nobody"), 404, "not live"),
        (latest("b%20d"), 400, "stream"),
        (format!("{}?width=3001", latest("room")), 400, "3000"),
        (format!("{}?width=wide", latest("room")), 400, "width"),
        (format!("{}?height=3", latest("room")), 400, "height"),
    ] {
        let answer = viewer.get(&target, &[]);
        assert_eq!((answer.status, answer.headers.get("content-type")), (status, Some("application/problem+json")));
        assert!(answer.text().contains(said), "{target}: {}", answer.text());
    }
    let stranger = http::request(server.http_address(), "GET", &latest("room"), &[], b"", PATIENCE).unwrap();
    assert_eq!(stranger.status, 401);
}
