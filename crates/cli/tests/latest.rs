//! Objects that each newer picture overwrites, and pictures that are older than their template keeps them, as whoever fetches
//! them over HTTP sees it.

#![expect(clippy::disallowed_methods, reason = "ages the rows of a server that does not run with the sqlite3 program")]

mod common;

use std::process::Command;

use common::{DOMAIN, FRAMEHOOK, PATIENCE, check_snapshot, config, push_url, wait_for_snapshots};
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::http::{self, Response};
use framehook_testkit::image::{self, Format};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;

const LATEST: &str = "/objects/framehook-1250000000/latest/push.example.com/live/room.jpg";

/// [`config`] whose template has these fields as well.
fn config_with(receiver: &Receiver, fields: &str) -> String {
    config(receiver, 2, "").replace("name = \"every\"\n", &format!("name = \"every\"\n{fields}\n"))
}

fn get(server: &Server, target: &str, headers: &[(&str, &str)]) -> Response {
    http::request(server.http_address(), "GET", target, headers, b"", PATIENCE).unwrap()
}

/// Waits until an object is there that has another tag than `known`.
fn newer(server: &Server, known: Option<&str>) -> Response {
    wait::until("a newer picture", PATIENCE, || {
        let answer = get(server, LATEST, &[]);
        (answer.status == 200 && answer.headers.get("etag") != known).then_some(answer)
    })
    .unwrap()
}

#[test]
fn the_latest_object_changes_with_each_picture_and_is_asked_for_again_each_time() {
    let receiver = Receiver::start().unwrap();
    let spec = ServerSpec::new(FRAMEHOOK).config(config_with(&receiver, "objects = \"both\""));
    let server = spec.start().unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();

    let first = newer(&server, None);
    assert_eq!(first.headers.get("cache-control"), Some("public, no-cache"));
    assert_eq!(
        (first.headers.get("content-type"), image::format(&first.body)),
        (Some("image/jpeg"), Some(Format::Jpeg))
    );
    let tag = first.headers.get("etag").unwrap();
    let again = get(&server, LATEST, &[("if-none-match", tag)]);
    // Unless a newer picture came just then.
    assert!(again.status == 304 && again.body.is_empty() || again.headers.get("etag") != Some(tag), "{}", again.status);
    let second = newer(&server, Some(tag));
    assert_ne!(first.body, second.body);
    assert_eq!(image::format(&second.body), Some(Format::Jpeg));
    let stale = get(&server, LATEST, &[("if-none-match", tag)]);
    assert_eq!(stale.status, 200, "what is known is no more what is there");

    // Receivers are told of the numbered ones, which stay as they are.
    for request in wait_for_snapshots(&receiver, 2).unwrap() {
        let snapshot = check_snapshot(&server, &request).unwrap();
        let url = snapshot.body["pic_full_url"].as_str().unwrap();
        assert!(!url.contains("/latest/"), "{url}");
        let numbered = get(&server, &url[url.find("/objects/").unwrap()..], &[]);
        assert_eq!(numbered.headers.get("cache-control"), Some("public, max-age=3600"));
    }
}

#[test]
fn with_latest_alone_nobody_is_told_and_nothing_is_listed() {
    let receiver = Receiver::start().unwrap();
    let spec = ServerSpec::new(FRAMEHOOK).config(config_with(&receiver, "objects = \"latest\""));
    let server = spec.start().unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let first = newer(&server, None);
    newer(&server, first.headers.get("etag"));
    assert!(receiver.requests().iter().all(|request| request.event_type() != Some(200)));
    let listed = server.v1("GET", &format!("/v1/snapshots?stream={DOMAIN}/live/room"), None).unwrap();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 0);
    assert!(server.metrics().unwrap().sum("framehook_snapshots_total", &[]) >= 2.0, "they are counted all the same");
}

#[test]
fn a_picture_that_has_expired_is_gone_and_the_latest_stays() {
    let receiver = Receiver::start().unwrap();
    let fields = "objects = \"both\"\nretention_days = 1";
    let spec = ServerSpec::new(FRAMEHOOK).config(config_with(&receiver, fields));
    let mut server = spec.start().unwrap();
    let encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    newer(&server, None);
    let request = wait_for_snapshots(&receiver, 1).unwrap().remove(0);
    let url = check_snapshot(&server, &request).unwrap().body["pic_full_url"].as_str().unwrap().to_owned();
    let object = url[url.find("/objects/").unwrap()..].to_owned();
    drop(encoder);
    let is_settled = || {
        let waiting = server.metrics().ok()?;
        (waiting.sum("framehook_deliveries_owed", &[]) == 0.0 && waiting.sum("framehook_bucket_owed", &[]) == 0.0)
            .then_some(())
    };
    wait::until("everything to be stored and told", PATIENCE, is_settled).unwrap();
    let listed = server.v1("GET", &format!("/v1/snapshots?stream={DOMAIN}/live/room"), None).unwrap();
    let of_object = |row: &&serde_json::Value| object.ends_with(row["key"].as_str().unwrap());
    let id = listed["snapshots"].as_array().unwrap().iter().find(of_object).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(server.terminate().unwrap().success());

    // A start looks for what has expired.
    let database = server.data_dir().join("framehook.db");
    let aged = "UPDATE snapshot SET create_time_ms = create_time_ms - 2 * 86400000";
    assert!(Command::new("sqlite3").arg(database).arg(aged).status().unwrap().success());
    server.restart().unwrap();
    let key = format!("Bearer {}", server.credentials().unwrap().secret_key);
    let image = format!("/v1/snapshots/{id}/image");
    let gone = wait::until("the picture to expire", PATIENCE, || {
        let answer = get(&server, &image, &[("authorization", &key)]);
        (answer.status != 200).then_some(answer)
    })
    .unwrap();
    assert_eq!(gone.status, 410, "{}", gone.text());
    assert_eq!(server.v1("GET", &format!("/v1/snapshots/{id}"), None).unwrap()["state"], "expired");
    assert_eq!(get(&server, &object, &[]).status, 404);
    assert_eq!(get(&server, LATEST, &[]).status, 200, "retention is of numbered pictures");
}
