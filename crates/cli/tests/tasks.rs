//! Screenshot tasks under `/v1`: made, listed, stopped and deleted, with pictures while they run.

#![expect(
    clippy::disallowed_methods,
    reason = "runs the vendor's SDK, and windows of tasks are told by the wall clock"
)]

#[path = "sdk/client.rs"]
mod client;
mod common;

use std::time::Duration;

use client::Sdk;
use common::{DOMAIN, FRAMEHOOK, PATIENCE, config, push_url};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::http::{self, Response};
use framehook_testkit::publisher::PublisherSpec;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::{Value, json};

const ALL: &str = "/v1/screenshot-tasks";

fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)], order: &Value) -> Response {
    let bearer = format!("Bearer {}", server.credentials().unwrap().secret_key);
    let headers = [&[("authorization", bearer.as_str())], headers].concat();
    let body = if order.is_null() { String::new() } else { order.to_string() };
    http::request(server.http_address(), method, target, &headers, body.as_bytes(), PATIENCE).unwrap()
}

/// The server's wall clock is this machine's.
fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since_1970.as_millis() as i64
}

#[test]
fn a_task_takes_pictures_until_it_is_stopped() {
    let receiver = Receiver::start().unwrap();
    let settings = config(&receiver, 300, "");
    let server = ServerSpec::new(FRAMEHOOK).config(settings).start().unwrap();
    let template = json!({ "name": "closer", "interval_s": 2, "width": 160, "height": 0 });
    let template = server.v1("POST", "/v1/snapshot-templates", Some(&template)).unwrap()["id"].take();
    let stream = format!("{DOMAIN}/live/room");
    let clip = ClipSpec { width: 320, height: 180, gop: Duration::from_secs(1), ..ClipSpec::default() };
    let url = push_url(&server, "room").parse().unwrap();
    let _publisher = PublisherSpec::new(url, clip.build().unwrap().flv().unwrap()).looped().start().unwrap();

    let order = json!({ "stream": stream, "template": template, "end_ms": now_ms() + 3_600_000 });
    let key = [("idempotency-key", "one-task")];
    let made = ask(&server, "POST", ALL, &key, &order);
    assert_eq!(made.status, 201, "{}", made.text());
    let again = ask(&server, "POST", ALL, &key, &order);
    assert_eq!((again.status, again.text()), (201, made.text()), "the same request makes nothing more");
    let task = made.json().unwrap();
    let one = made.headers.get("location").unwrap();
    assert_eq!(
        (&task["state"], &task["stream"], &task["stopped_ms"]),
        (&json!("running"), &json!(stream), &Value::Null)
    );

    let id = task["id"].as_str().unwrap();
    receiver
        .wait_until("two pictures of the task", PATIENCE, |requests| {
            let of_task = |request: &&framehook_testkit::receiver::Request| {
                request.json().is_ok_and(|body| body["task_id"] == id && body["width"] == 160)
            };
            (requests.iter().filter(of_task).count() >= 2).then_some(())
        })
        .unwrap();

    let shown = ask(&server, "GET", one, &[], &Value::Null);
    let etag = shown.headers.get("etag").unwrap();
    assert_eq!((shown.json().unwrap(), Some(etag)), (task.clone(), made.headers.get("etag")));
    assert_eq!(ask(&server, "GET", one, &[("if-none-match", etag)], &Value::Null).status, 304);
    let stopped = ask(&server, "POST", &format!("{one}/stop"), &[], &Value::Null);
    assert_eq!(
        (stopped.status, stopped.json().unwrap()["state"].take()),
        (200, json!("stopped")),
        "{}",
        stopped.text()
    );
    let live = server.v1("GET", &format!("/v1/streams/{stream}"), None).unwrap();
    assert!(!live.to_string().contains(id), "it is gone from the live stream at once: {live}");
    assert_eq!(ask(&server, "POST", &format!("{one}/stop"), &[], &Value::Null).text(), stopped.text());

    assert_eq!(ask(&server, "DELETE", one, &[("if-match", etag)], &Value::Null).status, 412, "it was stopped since");
    let newest = stopped.headers.get("etag").unwrap();
    assert_eq!(ask(&server, "DELETE", one, &[("if-match", newest)], &Value::Null).status, 204);
    assert_eq!(ask(&server, "GET", one, &[], &Value::Null).status, 404);
    let noted = server.v1("GET", &format!("/v1/audit?noun=screenshot_task&id={id}"), None).unwrap();
    let verbs: Vec<_> = noted["entries"].as_array().unwrap().iter().map(|entry| entry["verb"].clone()).collect();
    assert_eq!(verbs, ["delete", "stop", "create"], "{noted}");
}

#[test]
fn what_a_task_cannot_have_costs_the_rule_nothing() {
    let receiver = Receiver::start().unwrap();
    let server = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 2, "")).start().unwrap();
    // Of a picture that is higher than wide, 3,000 pixels of width are more than an AVIF can hold.
    let large = json!({ "name": "large", "width": 3000, "height": 0, "format": "avif" });
    let template = json!({ "name": "closer", "interval_s": 2, "renditions": [large] });
    let template = server.v1("POST", "/v1/snapshot-templates", Some(&template)).unwrap()["id"].take();
    let order =
        json!({ "stream": format!("{DOMAIN}/live/room"), "template": template, "end_ms": now_ms() + 3_600_000 });
    assert_eq!(ask(&server, "POST", ALL, &[], &order).status, 201);
    // Both are due on the same keyframes.
    let clip = ClipSpec { width: 180, height: 320, gop: Duration::from_secs(2), ..ClipSpec::default() };
    let url = push_url(&server, "room").parse().unwrap();
    let _publisher = PublisherSpec::new(url, clip.build().unwrap().flv().unwrap()).looped().start().unwrap();
    let too_large = || {
        let metrics = server.metrics().ok()?;
        (metrics.sum("framehook_skipped_total", &[("reason", "too_large")]) >= 2.0).then_some(())
    };
    wait::until("two dues of the task to be skipped", PATIENCE, too_large).unwrap();
    let before = receiver.requests().len();
    let of_rule = |requests: &[framehook_testkit::receiver::Request]| {
        let new = requests[before..].iter().filter_map(|request| request.json().ok());
        let (of_task, of_rule): (Vec<_>, Vec<_>) =
            new.filter(|body| body["event_type"] == 200).partition(|body| body["task_id"].is_string());
        assert_eq!(of_task, Vec::<Value>::new(), "a picture has all renditions or is none");
        (of_rule.len() >= 2).then_some(())
    };
    receiver.wait_until("the rule's pictures", PATIENCE, of_rule).unwrap();
}

#[test]
fn tasks_are_listed_in_pages_and_are_those_of_the_control_api() {
    let receiver = Receiver::start().unwrap();
    let server = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 300, "")).start().unwrap();
    let end_ms = now_ms() + 3_600_000;
    let make = |stream: &str, start_ms: i64| {
        let order = json!({ "stream": stream, "template": 1, "start_ms": start_ms, "end_ms": start_ms + 3_600_000 });
        server.v1("POST", ALL, Some(&order)).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let room = format!("{DOMAIN}/live/room");
    let made: Vec<String> = (0..3).map(|number| make(&room, end_ms + number)).collect();
    let other = make(&format!("{DOMAIN}/live/hall"), end_ms);
    let fourth = json!({ "stream": room, "template": 1, "start_ms": end_ms + 2, "end_ms": end_ms + 3 });
    assert_eq!(ask(&server, "POST", ALL, &[], &fourth).status, 409, "three at a time");

    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.v1("GET", &format!("{ALL}?stream={room}&limit=2{cursor}"), None).unwrap();
        listed.extend(page["screenshot_tasks"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let ids = |tasks: &[Value]| tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&listed), made);
    assert!(listed.iter().all(|task| task["state"] == "waiting"), "{listed:?}");
    let all = server.v1("GET", ALL, None).unwrap();
    assert_eq!(ids(all["screenshot_tasks"].as_array().unwrap()), [made.as_slice(), &[other]].concat());

    let mut sdk = Sdk::start(&server);
    let window = json!({ "StartTime": end_ms / 1000 - 1, "EndTime": end_ms / 1000 + 7200 });
    let told = sdk.call("DescribeScreenshotTask", window);
    assert_eq!(told["TaskList"].as_array().unwrap().len(), 4, "{told}");
    sdk.call("StopScreenshotTask", json!({ "TaskId": made[0] }));
    assert_eq!(server.v1("GET", &format!("{ALL}/{}", made[0]), None).unwrap()["state"], "stopped");

    for (order, field) in [
        (json!({ "template": 1, "end_ms": end_ms }), "stream"),
        (json!({ "stream": "live/room", "template": 1, "end_ms": end_ms }), "stream"),
        (json!({ "stream": "unknown.example.com/live/room", "template": 1, "end_ms": end_ms }), "stream"),
        (json!({ "stream": room, "template": 99, "end_ms": end_ms }), "template"),
        (json!({ "stream": room, "template": 1 }), "end_ms"),
        (json!({ "stream": room, "template": 1, "end_ms": end_ms + 8 * 86_400_000 }), "end_ms"),
        (json!({ "stream": room, "template": 1, "end_ms": end_ms, "every": 1 }), "every"),
    ] {
        let answer = ask(&server, "POST", ALL, &[], &order);
        assert_eq!(
            (answer.status, &answer.json().unwrap()["field"]),
            (422, &json!(field)),
            "{order}: {}",
            answer.text()
        );
    }
    let unknown = format!("{ALL}/00000000-0000-7000-8000-000000000000");
    for (method, target, status) in [
        ("GET", unknown.clone(), 404),
        ("DELETE", unknown.clone(), 404),
        ("POST", format!("{unknown}/stop"), 404),
        ("GET", format!("{ALL}/one"), 400),
        ("GET", format!("{ALL}?cursor=one"), 400),
    ] {
        assert_eq!(ask(&server, method, &target, &[], &Value::Null).status, status, "{method} {target}");
    }
    wait::until("the server to be well", PATIENCE, || server.get("/healthz").ok()).unwrap();
}
