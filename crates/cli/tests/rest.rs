//! `/v1` as a program without any SDK uses it, against the running server; and that both APIs are about the same things.

#![expect(
    clippy::disallowed_methods,
    reason = "a suite runs the programs that a customer would, by the machine's clock"
)]

#[path = "sdk/client.rs"]
mod client;
mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::Sdk;
use common::{DOMAIN, FRAMEHOOK, PATIENCE, config, push_url, wait_for_snapshots};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::http::{self, Response};
use framehook_testkit::publisher::{End, Publisher, PublisherSpec};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::{Value, json};

/// A client with nothing but HTTP.
struct Rest<'s> {
    server: &'s Server,
    bearer: String,
}

impl<'s> Rest<'s> {
    fn new(server: &'s Server) -> Self {
        Self { server, bearer: format!("Bearer {}", server.credentials().unwrap().secret_key) }
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Response {
        let mut all = vec![("authorization", self.bearer.as_str()), ("content-type", "application/json")];
        all.extend(headers);
        let body = body.map(Value::to_string).unwrap_or_default();
        let address = self.server.http_address();
        http::request(address, method, target, &all, body.as_bytes(), Duration::from_secs(15)).unwrap()
    }

    fn get(&self, target: &str) -> Value {
        let response = self.ask("GET", target, &[], None);
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        response.json().unwrap()
    }

    /// The representation of what was made, which its `Location` must show too.
    fn post(&self, target: &str, body: Value) -> Value {
        let response = self.ask("POST", target, &[], Some(&body));
        assert_eq!(response.status, 201, "{target} {body}: {}", response.text());
        let made = response.json().unwrap();
        assert_eq!(self.get(response.headers.get("location").unwrap()), made);
        made
    }

    fn patch(&self, target: &str, body: Value) -> Value {
        let response = self.ask("PATCH", target, &[], Some(&body));
        assert_eq!(response.status, 200, "{target} {body}: {}", response.text());
        response.json().unwrap()
    }

    fn delete(&self, target: &str) {
        let response = self.ask("DELETE", target, &[], None);
        assert_eq!(response.status, 204, "{target}: {}", response.text());
    }

    /// The problem that a request has.
    fn problem(&self, method: &str, target: &str, body: Value) -> (u16, Value) {
        let response = self.ask(method, target, &[], (!body.is_null()).then_some(&body));
        assert!(response.status >= 400, "{method} {target} {body} was carried out: {}", response.text());
        assert_eq!(response.headers.get("content-type"), Some("application/problem+json"), "{method} {target}");
        let problem = response.json().unwrap();
        assert_eq!(problem["status"], response.status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        (response.status, problem)
    }

    /// Status and field of a problem.
    fn fault(&self, method: &str, target: &str, body: Value) -> (u16, String) {
        let (status, problem) = self.problem(method, target, body);
        (status, problem["field"].as_str().unwrap_or_default().to_owned())
    }
}

fn serve() -> Server {
    ServerSpec::new(FRAMEHOOK).start().unwrap()
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn one(path: &str, made: &Value) -> String {
    format!("{path}/{}", made["id"])
}

#[test]
fn snapshot_templates_and_their_rules_from_creation_to_deletion() {
    let server = serve();
    let rest = Rest::new(&server);
    rest.post("/v1/domains", json!({ "name": DOMAIN }));
    let made = rest.post("/v1/snapshot-templates", json!({ "name": "covers", "width": 640 }));
    let template = one("/v1/snapshot-templates", &made);
    let mut expected = json!({
        "id": made["id"],
        "name": "covers",
        "description": "",
        "interval_s": 10,
        "width": 640,
        "height": 0,
        "jpeg_quality": 85,
        "app_id": 1_250_000_000,
        "bucket": "framehook",
        "region": "local",
        "prefix": "/{Year}-{Month}-{Day}",
        "file_name": "{StreamID}-screenshot-{Hour}-{Minute}-{Second}-{Width}x{Height}{Ext}",
        "objects": "sequence",
        "latest_key": "latest/{PushDomain}/{AppName}/{StreamID}{Ext}",
        "retention_days": null,
        "renditions": [],
        "managed_by": "api",
        "created_ms": made["created_ms"],
        "updated_ms": made["updated_ms"],
    });
    assert_eq!(made, expected);
    assert_eq!(rest.get("/v1/snapshot-templates")["snapshot_templates"], json!([expected]));

    let changed = rest.patch(&template, json!({ "interval_s": 2, "width": null, "description": "of rooms" }));
    for (field, value) in [("interval_s", json!(2)), ("width", json!(0)), ("description", json!("of rooms"))] {
        expected[field] = value;
    }
    assert!(changed["updated_ms"].as_i64() > made["updated_ms"].as_i64());
    expected["updated_ms"] = changed["updated_ms"].clone();
    assert_eq!(changed, expected);
    assert_eq!(rest.patch(&template, json!({})), expected, "what is left out stays");

    let rule = rest.post("/v1/snapshot-rules", json!({ "domain": DOMAIN, "app": "live", "template": made["id"] }));
    assert_eq!((&rule["app"], &rule["stream"], &rule["template"]), (&json!("live"), &Value::Null, &made["id"]));
    let other = rest.post("/v1/snapshot-templates", json!({ "name": "wall" }));
    let rule_path = one("/v1/snapshot-rules", &rule);
    assert_eq!(rest.patch(&rule_path, json!({ "template": other["id"] }))["template"], other["id"]);
    assert_eq!(rest.get("/v1/snapshot-rules")["snapshot_rules"][0]["template"], other["id"]);

    assert_eq!(rest.problem("DELETE", &one("/v1/snapshot-templates", &other), Value::Null).0, 409, "a rule binds it");
    assert_eq!(rest.problem("DELETE", &format!("/v1/domains/{DOMAIN}"), Value::Null).0, 409, "it has a rule");
    rest.delete(&rule_path);
    rest.delete(&template);
    for path in [&rule_path, &template] {
        for method in ["GET", "DELETE"] {
            assert_eq!(rest.problem(method, path, Value::Null).0, 404, "{method} {path}");
        }
        assert_eq!(rest.problem("PATCH", path, json!({ "template": 1 })).0, if path == &rule_path { 404 } else { 422 });
    }
}

#[test]
fn callback_templates_and_their_rules_from_creation_to_deletion() {
    let server = serve();
    let rest = Rest::new(&server);
    rest.post("/v1/domains", json!({ "name": DOMAIN }));
    let order = json!({
        "name": "moderation",
        "key": "callback-key-of-the-test",
        "snapshot_notify_url": "http://user:password-of-the-test@127.0.0.1:9/snapshot",
    });
    let made = rest.post("/v1/callback-templates", order);
    let template = one("/v1/callback-templates", &made);
    assert_eq!((&made["has_key"], &made["verify_tls"]), (&json!(true), &json!(true)));
    assert_eq!(made["snapshot_notify_url"], "http://***@127.0.0.1:9/snapshot");
    assert!(!made.to_string().contains("-of-the-test"), "{made}");

    let end = "http://127.0.0.1:9/end";
    let changed = rest.patch(&template, json!({ "stream_end_notify_url": end, "key": null }));
    assert_eq!((&changed["stream_end_notify_url"], &changed["has_key"]), (&json!(end), &json!(false)));
    let masked = json!({ "snapshot_notify_url": made["snapshot_notify_url"] });
    assert_eq!(rest.fault("PATCH", &template, masked), (422, "snapshot_notify_url".to_owned()));
    let none = json!({ "snapshot_notify_url": null, "stream_end_notify_url": null });
    assert_eq!(rest.fault("PATCH", &template, none), (422, "snapshot_notify_url".to_owned()));
    assert_eq!(rest.patch(&template, json!({ "snapshot_notify_url": null }))["snapshot_notify_url"], Value::Null);

    let rule = rest.post("/v1/callback-rules", json!({ "domain": DOMAIN, "template": made["id"] }));
    assert_eq!((&rule["domain"], &rule["app"]), (&json!(DOMAIN), &Value::Null));
    let again = json!({ "domain": DOMAIN, "app": "*", "template": made["id"] });
    assert_eq!(rest.problem("POST", "/v1/callback-rules", again).0, 409, "the scope has a rule");
    assert_eq!(rest.problem("DELETE", &template, Value::Null).0, 409, "a rule binds it");
    rest.delete(&one("/v1/callback-rules", &rule));
    rest.delete(&template);
    assert_eq!(rest.get("/v1/callback-templates"), json!({ "callback_templates": [], "next_cursor": null }));
}

#[test]
fn domains_and_their_push_keys_from_creation_to_deletion() {
    let server = serve();
    let rest = Rest::new(&server);
    let made = rest.post("/v1/domains", json!({ "name": "Push.Example.com" }));
    assert_eq!(
        (&made["name"], &made["enabled"], &made["push_key_enabled"]),
        (&json!(DOMAIN), &json!(true), &json!(true))
    );
    assert_eq!(rest.problem("POST", "/v1/domains", json!({ "name": DOMAIN })).0, 409);
    let path = format!("/v1/domains/{DOMAIN}");
    let push_key = format!("{path}/push-key");
    let shown = rest.ask("GET", &push_key, &[], None);
    assert_eq!(shown.headers.get("cache-control"), Some("no-store"));
    let generated = shown.json().unwrap()["main"].as_str().unwrap().to_owned();
    assert!(generated.len() >= 32, "{generated}");
    assert!(!rest.get("/v1/domains").to_string().contains(&generated), "keys are on their own page only");

    let changed = rest.patch(&push_key, json!({ "backup": "backup-key", "auth_delta_s": 60 }));
    let expected = json!({ "enabled": true, "main": generated, "backup": "backup-key", "auth_delta_s": 60 });
    assert_eq!(changed, expected);
    assert_eq!(rest.patch(&push_key, json!({ "backup": null }))["backup"], Value::Null);
    assert_eq!(rest.fault("PATCH", &push_key, json!({ "main": "" })), (422, "main".to_owned()));
    rest.patch(&push_key, json!({ "enabled": false }));
    assert_eq!(rest.patch(&path, json!({ "enabled": false }))["enabled"], false);
    assert_eq!(rest.get(&path)["push_key_enabled"], false);
    rest.delete(&path);
    assert_eq!(rest.problem("GET", &push_key, Value::Null).0, 404);
    assert_eq!(rest.fault("GET", "/v1/domains/no%20name", Value::Null), (400, "name".to_owned()));
}

#[test]
fn a_problem_names_the_field_at_fault() {
    let server = serve();
    let rest = Rest::new(&server);
    rest.post("/v1/domains", json!({ "name": DOMAIN }));
    let template = |more: Value| {
        let mut order = json!({ "name": "covers" });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rest.fault("POST", "/v1/snapshot-templates", order)
    };
    let expected = |field: &str| (422, field.to_owned());
    for (field, value) in [
        ("name", json!("a/b")),
        ("name", Value::Null),
        ("interval_s", json!(1)),
        ("interval_s", json!("10")),
        ("interval_s", json!(2.5)),
        ("width", json!(9999)),
        ("jpeg_quality", json!(0)),
        ("bucket", json!("Upper")),
        ("file_name", json!("")),
        ("colour", json!("red")),
        ("objects", json!("all")),
        ("latest_key", json!("{Hour}{Ext}")),
        ("retention_days", json!(0)),
        ("renditions", json!([{ "name": "main" }])),
        ("renditions", json!([{ "name": "a", "format": "gif" }])),
        ("renditions", json!([{ "name": "a" }, { "name": "a" }])),
    ] {
        assert_eq!(template(json!({ field: value })), expected(field), "{value}");
    }
    assert_eq!(rest.fault("POST", "/v1/snapshot-templates", json!({})), expected("name"));
    let (_, problem) = rest.problem("POST", "/v1/snapshot-templates", json!({ "name": "a", "interval_s": 1 }));
    assert_eq!((&problem["value"], &problem["allowed"]), (&json!("1"), &json!("2 to 300 (seconds)")));
    let rule = |domain: &str, template: i64| {
        rest.fault("POST", "/v1/snapshot-rules", json!({ "domain": domain, "template": template }))
    };
    assert_eq!(rule("other.example.com", 1), expected("domain"));
    assert_eq!(rule(DOMAIN, 99), expected("template"));
    let private = json!({ "name": "a", "stream_end_notify_url": "http://10.0.0.1/" });
    assert_eq!(rest.fault("POST", "/v1/callback-templates", private), expected("stream_end_notify_url"));
    for (target, field) in [
        ("/v1/domains?limit=0", "limit"),
        ("/v1/domains?limit=many", "limit"),
        ("/v1/domains?order=name", "order"),
        ("/v1/snapshot-templates?cursor=x", "cursor"),
        ("/v1/snapshot-templates/x", "id"),
        ("/v1/deliveries?state=lost", "state"),
        ("/v1/snapshots?stream=room", "stream"),
    ] {
        assert_eq!(rest.fault("GET", target, Value::Null), (400, field.to_owned()), "{target}");
    }
    let broken = rest.ask("POST", "/v1/domains", &[], Some(&json!([])));
    assert_eq!(broken.status, 400);
}

#[test]
fn a_change_is_made_only_to_the_version_that_was_read() {
    let server = serve();
    let rest = Rest::new(&server);
    let made = rest.ask("POST", "/v1/snapshot-templates", &[], Some(&json!({ "name": "covers" })));
    let (path, etag) = (made.headers.get("location").unwrap(), made.headers.get("etag").unwrap());
    let known = rest.ask("GET", path, &[("if-none-match", etag)], None);
    assert_eq!((known.status, known.body.len(), known.headers.get("etag")), (304, 0, Some(etag)));

    let change = |etag: &str, interval: i64| {
        rest.ask("PATCH", path, &[("if-match", etag)], Some(&json!({ "interval_s": interval })))
    };
    let changed = change(etag, 5);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let newer = changed.headers.get("etag").unwrap();
    assert_ne!(newer, etag);
    assert_eq!(change(etag, 6).status, 412);
    assert_eq!(rest.ask("DELETE", path, &[("if-match", etag)], None).status, 412);
    assert_eq!(rest.get(path)["interval_s"], 5, "nothing of a refused change is made");
    assert_eq!(rest.ask("GET", path, &[("if-none-match", etag)], None).status, 200);

    // Many at once that read the same: one of them is made.
    let statuses = std::thread::scope(|scope| {
        let asking: Vec<_> = (10..18).map(|interval| scope.spawn(move || change(newer, interval).status)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 412)), "{statuses:?}");
    assert_eq!(rest.ask("DELETE", path, &[("if-match", "*")], None).status, 204);
}

#[test]
fn a_request_under_a_key_makes_something_once() {
    let mut server = serve();
    let order = json!({ "name": "covers", "width": 640 });
    let first = {
        let rest = Rest::new(&server);
        let post = |key: &str, order: &Value| {
            rest.ask("POST", "/v1/snapshot-templates", &[("idempotency-key", key)], Some(order))
        };
        // Several at once, as a program that lost its patience sends them.
        let bodies = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| post("k1", &order))).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
        });
        let first = bodies[0].clone();
        assert!(bodies.iter().all(|answer| answer.status == 201 && answer.body == first.body), "{}", first.text());
        assert_eq!(post("k1", &json!({ "name": "covers", "width": 641 })).status, 422);
        let elsewhere = rest.ask("POST", "/v1/domains", &[("idempotency-key", "k1")], Some(&json!({ "name": DOMAIN })));
        assert_eq!(elsewhere.status, 422, "another path is another request");
        assert_ne!(post("k2", &order).body, first.body);
        assert_eq!(post("a key", &order).status, 400);
        // What was refused can be mended under the same key.
        assert_eq!(post("k3", &json!({ "name": "" })).status, 422);
        assert_eq!(post("k3", &order).status, 201);
        assert_eq!(rest.get("/v1/snapshot-templates")["snapshot_templates"].as_array().unwrap().len(), 3);
        first
    };
    server.kill9().unwrap();
    server.restart().unwrap();
    let rest = Rest::new(&server);
    let path = first.headers.get("location").unwrap();
    rest.delete(path);
    let again = rest.ask("POST", "/v1/snapshot-templates", &[("idempotency-key", "k1")], Some(&order));
    assert_eq!((again.status, &again.body), (201, &first.body), "the same answer, whatever has become of it since");
    for header in ["location", "etag", "content-type"] {
        assert_eq!(again.headers.get(header), first.headers.get(header), "{header}");
    }
    assert_eq!(rest.problem("GET", path, Value::Null).0, 404);
}

#[test]
fn what_the_file_declares_is_shown_and_read_only() {
    let receiver = Receiver::start().unwrap();
    let server = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 2, "")).start().unwrap();
    let rest = Rest::new(&server);
    for (noun, change) in [
        ("snapshot-templates", json!({ "width": 1 })),
        ("callback-templates", json!({ "key": null })),
        ("snapshot-rules", json!({ "template": 1 })),
        ("callback-rules", json!({ "template": 1 })),
        ("domains", json!({ "enabled": false })),
    ] {
        let listed = rest.get(&format!("/v1/{noun}"));
        let known = &listed[noun.replace('-', "_")][0];
        assert_eq!(known["managed_by"], "file", "{noun}");
        let id = if noun == "domains" { DOMAIN.to_owned() } else { known["id"].to_string() };
        let path = format!("/v1/{noun}/{id}");
        for (method, body) in [("PATCH", change), ("DELETE", Value::Null)] {
            let (status, problem) = rest.problem(method, &path, body);
            assert_eq!(status, 409, "{method} {path}");
            assert!(problem["detail"].as_str().unwrap().contains("configuration file"), "{problem}");
        }
        assert_eq!(rest.get(&path), *known);
    }
    assert_eq!(rest.problem("PATCH", &format!("/v1/domains/{DOMAIN}/push-key"), json!({ "main": "a" })).0, 409);
}

#[test]
fn lists_come_in_pages() {
    let server = serve();
    let rest = Rest::new(&server);
    for number in 0..5 {
        rest.post("/v1/domains", json!({ "name": format!("d{number}.example.com") }));
        rest.post("/v1/snapshot-templates", json!({ "name": format!("t{number}") }));
    }
    for noun in ["domains", "snapshot-templates"] {
        let field = noun.replace('-', "_");
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = rest.get(&format!("/v1/{noun}?limit=2{cursor}"));
            let rows = page[&field].as_array().unwrap();
            assert!(rows.len() <= 2);
            names.extend(rows.iter().map(|row| row["name"].as_str().unwrap()[..2].to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let prefix = &names[0][..1];
        assert_eq!(names, (0..5).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>(), "{noun}");
    }
    assert_eq!(rest.get("/v1/domains?limit=5")["next_cursor"], Value::Null, "the last page says that it is the last");
}

#[test]
fn both_apis_are_about_the_same_things() {
    let server = serve();
    let (rest, mut sdk) = (Rest::new(&server), Sdk::start(&server));
    rest.post("/v1/domains", json!({ "name": DOMAIN }));
    let template = rest.post("/v1/snapshot-templates", json!({ "name": "covers", "interval_s": 7 }));
    let rule = rest.post("/v1/snapshot-rules", json!({ "domain": DOMAIN, "app": "live", "template": template["id"] }));
    let url = "http://127.0.0.1:9/";
    let callback = json!({ "name": "moderation", "key": "k3y", "stream_end_notify_url": url });
    let callback = rest.post("/v1/callback-templates", callback);
    rest.post("/v1/callback-rules", json!({ "domain": DOMAIN, "template": callback["id"] }));

    let seen = sdk.call("DescribeLiveSnapshotTemplate", json!({ "TemplateId": template["id"] }))["Template"].take();
    assert_eq!((&seen["TemplateName"], &seen["SnapshotInterval"]), (&json!("covers"), &json!(7)));
    let seen = sdk.call("DescribeLiveSnapshotRules", json!({}))["Rules"][0].take();
    assert_eq!((&seen["AppName"], &seen["TemplateId"]), (&json!("live"), &template["id"]));
    let seen = sdk.call("DescribeLiveCallbackTemplate", json!({ "TemplateId": callback["id"] }))["Template"].take();
    assert_eq!((&seen["CallbackKey"], &seen["StreamEndNotifyUrl"]), (&json!("k3y"), &json!(url)));
    assert_eq!(sdk.call("DescribeLiveCallbackRules", json!({}))["Rules"][0]["TemplateId"], callback["id"]);
    let key = sdk.call("DescribeLivePushAuthKey", json!({ "DomainName": DOMAIN }))["PushAuthKeyInfo"].take();
    assert_eq!(key["MasterAuthKey"], rest.get(&format!("/v1/domains/{DOMAIN}/push-key"))["main"]);

    // And the reverse, with what /v1 has no word for left as it is.
    let before = rest.ask("GET", &one("/v1/callback-templates", &callback), &[], None);
    let record = json!({ "TemplateId": callback["id"], "RecordNotifyUrl": "http://127.0.0.1:9/record" });
    sdk.call("ModifyLiveCallbackTemplate", record);
    let etag = before.headers.get("etag").unwrap();
    let path = one("/v1/callback-templates", &callback);
    let late = rest.ask("PATCH", &path, &[("if-match", etag)], Some(&json!({ "description": "late" })));
    assert_eq!(late.status, 412, "a change that cannot be seen here makes a version too");
    rest.patch(&path, json!({ "description": "of rooms" }));
    let seen = sdk.call("DescribeLiveCallbackTemplate", json!({ "TemplateId": callback["id"] }))["Template"].take();
    assert_eq!((&seen["Description"], &seen["CallbackKey"]), (&json!("of rooms"), &json!("k3y")));
    assert_eq!(seen["RecordNotifyUrl"], "http://127.0.0.1:9/record");
    sdk.call("ForbidLiveDomain", json!({ "DomainName": DOMAIN }));
    assert_eq!(rest.get(&format!("/v1/domains/{DOMAIN}"))["enabled"], false);
    sdk.call("DeleteLiveSnapshotRule", json!({ "DomainName": DOMAIN, "AppName": "live" }));
    assert_eq!(rest.problem("GET", &one("/v1/snapshot-rules", &rule), Value::Null).0, 404);
}

/// A publisher with a keyframe every second.
fn publish(server: &Server, stream: &str) -> Publisher {
    let spec = ClipSpec { width: 320, height: 180, gop: Duration::from_secs(1), ..ClipSpec::default() };
    let url = push_url(server, stream).parse().unwrap();
    PublisherSpec::new(url, spec.build().unwrap().flv().unwrap()).looped().start().unwrap()
}

#[test]
fn snapshots_are_found_with_their_facts_and_their_image() {
    let receiver = Receiver::start().unwrap();
    let server = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 2, "")).start().unwrap();
    let rest = Rest::new(&server);
    let (_room, _other) = (publish(&server, "room"), publish(&server, "other"));
    let told = wait_for_snapshots(&receiver, 4).unwrap();
    let told: Vec<Value> = told.iter().map(|request| request.json().unwrap()).collect();

    let stream = format!("{DOMAIN}/live/room");
    let found = rest.get(&format!("/v1/snapshots?stream={stream}&limit=1000"));
    let found = found["snapshots"].as_array().unwrap();
    assert!(!found.is_empty() && found.iter().all(|row| row["stream"] == *stream), "{found:?}");
    assert!(found.is_sorted_by_key(|row| -row["create_time_ms"].as_i64().unwrap()), "the newest first: {found:?}");
    let announced = told.iter().find(|body| body["stream_id"] == "room").unwrap();
    let row = found.iter().find(|row| row["url"] == announced["pic_full_url"]).expect("what was announced is found");
    for (field, announced) in [("width", &announced["width"]), ("file_size_bytes", &announced["file_size"])] {
        assert_eq!(&row[field], announced, "{field}");
    }
    assert_eq!((&row["state"], &row["rule"], &row["store"]), (&json!("stored"), &json!(1), &json!("local")));

    let path = format!("/v1/snapshots/{}", row["id"].as_str().unwrap());
    let detail = wait::until("the delivery", PATIENCE, || {
        let detail = rest.get(&path);
        (detail["deliveries"][0]["state"] == "delivered").then_some(detail)
    });
    let detail = detail.unwrap();
    assert_eq!((&detail["key"], &detail["deliveries"][0]["attempts"]), (&row["key"], &json!(1)));
    let delivery = format!("/v1/deliveries/{}", detail["deliveries"][0]["id"].as_str().unwrap());
    assert_eq!(rest.get(&delivery)["snapshot_id"], row["id"]);

    let image = rest.ask("GET", &format!("{path}/image"), &[], None);
    assert_eq!((image.status, image.headers.get("content-type")), (200, Some("image/jpeg")));
    assert_eq!(image.body, server.fetch(announced["pic_full_url"].as_str().unwrap()).unwrap());
    let etag = image.headers.get("etag").unwrap();
    let known = rest.ask("GET", &format!("{path}/image"), &[("if-none-match", etag)], None);
    assert_eq!(known.status, 304);
    let part = rest.ask("GET", &format!("{path}/image"), &[("range", "bytes=2-9")], None);
    assert_eq!((part.status, &part.body[..]), (206, &image.body[2..10]));

    // One at a time gives the same as all at once.
    let until = row["create_time_ms"].as_i64().unwrap() + 1;
    let all = rest.get(&format!("/v1/snapshots?until_ms={until}"))["snapshots"].take();
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("/v1/snapshots?until_ms={until}&limit=1{cursor}"));
        pages.extend(page["snapshots"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(Value::Array(pages.clone()), all);
    let count = |query: String| rest.get(&query)["snapshots"].as_array().unwrap().len();
    assert_eq!(count(format!("/v1/snapshots?until_ms={until}&rule=1&template={}", row["template"])), pages.len());
    assert_eq!(count("/v1/snapshots?rule=99".to_owned()), 0);
    assert_eq!(count(format!("/v1/snapshots?since_ms={}", now_ms() + 60_000)), 0);

    assert_eq!(rest.problem("GET", "/v1/snapshots/00000000-0000-7000-8000-000000000000", Value::Null).0, 404);
    std::fs::remove_file(
        server
            .data_dir()
            .join("objects")
            .join(row["bucket"].as_str().unwrap())
            .join(row["key"].as_str().unwrap().trim_start_matches('/')),
    )
    .unwrap();
    assert_eq!(rest.problem("GET", &format!("{path}/image"), Value::Null).0, 404, "a person has removed it");
}

#[test]
fn streams_are_shown_dropped_forbidden_and_resumed() {
    let server = serve();
    let rest = Rest::new(&server);
    rest.post("/v1/domains", json!({ "name": DOMAIN }));
    rest.patch(&format!("/v1/domains/{DOMAIN}/push-key"), json!({ "enabled": false }));
    let path = format!("/v1/streams/{DOMAIN}/live/room");
    let order = |action: &str, body: Value| {
        let response = rest.ask("POST", &format!("{path}/{action}"), &[], (!body.is_null()).then_some(&body));
        assert_eq!(response.status, 204, "{action}: {}", response.text());
    };
    let cut_with = |publisher: &Publisher, code: &str| {
        let end = publisher.wait_for_end(PATIENCE).unwrap();
        let End::Refused { description, .. } = end else { panic!("{end:?}") };
        assert!(description.contains(code), "{description}");
    };
    assert_eq!(rest.get(&path), json!({ "push": null, "forbidden": null }));
    order("drop", Value::Null);
    let first = publish(&server, "room");
    first.wait_for_keyframes(1, PATIENCE).unwrap();
    assert_eq!(rest.get(&path)["push"]["name"], "room");
    order("drop", Value::Null);
    cut_with(&first, "21/100");

    let again = publish(&server, "room");
    let until = now_ms() + 3_600_000;
    order("forbid", json!({ "until_ms": until, "reason": "a test" }));
    cut_with(&again, "21/101");
    let forbidden = rest.get(&path)["forbidden"].take();
    assert_eq!((&forbidden["until_ms"], &forbidden["reason"]), (&json!(until), &json!("a test")));
    assert_eq!(rest.get("/v1/forbidden-streams")["forbidden_streams"], json!([forbidden]));
    for bad in [json!({}), json!({ "until_ms": 1 }), json!({ "until_ms": now_ms() + 91 * 86_400_000 })] {
        assert_eq!(rest.fault("POST", &format!("{path}/forbid"), bad), (422, "until_ms".to_owned()));
    }
    order("resume", Value::Null);
    assert_eq!(rest.get("/v1/forbidden-streams")["forbidden_streams"], json!([]));
    let _resumed = publish(&server, "room");
    assert_eq!(rest.fault("GET", "/v1/streams/a/b/no%20name", Value::Null), (400, "stream".to_owned()));
}

#[test]
fn the_document_and_its_page_are_served() {
    let server = serve();
    let rest = Rest::new(&server);
    let document = rest.get("/v1/openapi.json");
    assert_eq!(document["openapi"], "3.1.1");
    let page = rest.ask("GET", "/v1/docs", &[], None);
    assert_eq!((page.status, page.headers.get("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.headers.get("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'sha256-"));
    for (path, methods) in document["paths"].as_object().unwrap() {
        for known in ["get", "post", "put", "patch", "delete"] {
            let target = path.replace("{name}", "a.example").replace("{id}", "1").replace(['{', '}'], "");
            // HEAD is answered as GET is, and ends where an answer goes on.
            let method = if known == "get" { "HEAD".to_owned() } else { known.to_uppercase() };
            let answered = rest.ask(&method, &target, &[], None);
            let is_offered = methods.get(known).is_some();
            assert_eq!(answered.status != 405, is_offered, "{known} {target} gave {}", answered.status);
            assert_eq!(answered.headers.get("allow").is_some(), !is_offered, "{known} {target}");
        }
    }
    assert_eq!(server.get("/v1/docs").unwrap().status, 401, "as the rest of it");
}

#[test]
fn another_site_s_page_changes_nothing_with_the_credentials_of_a_browser() {
    let server = serve();
    let rest = Rest::new(&server);
    let order = json!({ "name": DOMAIN });
    for foreign in [("sec-fetch-site", "cross-site"), ("origin", "https://elsewhere.example")] {
        let refused = rest.ask("POST", "/v1/domains", &[foreign], Some(&order));
        assert_eq!(refused.status, 403, "{foreign:?}: {}", refused.text());
    }
    assert_eq!(rest.get("/v1/domains")["domains"], json!([]));
    let ours = format!("http://{}", server.http_address());
    let made = rest.ask("POST", "/v1/domains", &[("sec-fetch-site", "same-origin"), ("origin", &ours)], Some(&order));
    assert_eq!(made.status, 201, "{}", made.text());
}
