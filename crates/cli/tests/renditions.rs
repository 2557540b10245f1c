//! Several images of each picture, from the push to the callbacks: sizes, formats and buckets of one decode.

#![expect(clippy::disallowed_methods, reason = "starts our own receiver")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use common::{CALLBACK_KEY, DOMAIN, FRAMEHOOK, PATIENCE, check_snapshot, config, config_for, push_url};
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::http;
use framehook_testkit::image::{self, Format};
use framehook_testkit::process::Process;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::ServerSpec;
use framehook_testkit::wait;
use serde_json::{Value, json};

const RENDITIONS: &str = r#"
[[snapshot_rendition]]
template = "every"
name = "thumb"
width = 160
format = "webp"

[[snapshot_rendition]]
template = "every"
name = "archive"
format = "png"
cos_bucket = "archive"

[[snapshot_rendition]]
template = "every"
name = "small"
height = 120
format = "avif"
"#;

#[test]
fn each_rendition_of_each_picture_is_stored_where_it_belongs_and_announced_by_name() {
    let receiver = Receiver::start().unwrap();
    let spec = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 2, "") + RENDITIONS);
    let server = spec.start().unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();

    let mut pictures: BTreeMap<i64, BTreeMap<String, serde_json::Value>> = BTreeMap::new();
    let requests = receiver
        .wait_until("two whole pictures", PATIENCE, |requests| {
            let snapshots: Vec<_> = requests.iter().filter(|request| request.event_type() == Some(200)).collect();
            (snapshots.len() >= 8).then(|| snapshots.into_iter().cloned().collect::<Vec<_>>())
        })
        .unwrap();
    for request in &requests {
        let snapshot = check_snapshot(&server, request).unwrap();
        let name = snapshot.body["rendition"].as_str().unwrap().to_owned();
        let earlier = pictures.entry(snapshot.body["create_time"].as_i64().unwrap()).or_default();
        assert!(earlier.insert(name, snapshot.body).is_none(), "announced twice");
    }
    let whole: Vec<_> = pictures.values().filter(|renditions| renditions.len() == 4).collect();
    assert!(!whole.is_empty(), "{pictures:?}");
    for renditions in whole {
        let (width, height) = (&renditions["main"]["width"], &renditions["main"]["height"]);
        assert_eq!((&renditions["archive"]["width"], &renditions["archive"]["height"]), (width, height));
        assert_eq!((&renditions["thumb"]["width"], &renditions["small"]["height"]), (&160.into(), &120.into()));
        for (name, format, content_type, bucket) in [
            ("main", Format::Jpeg, "image/jpeg", "/framehook-1250000000/"),
            ("thumb", Format::Webp, "image/webp", "/framehook-1250000000/"),
            ("archive", Format::Png, "image/png", "/archive-1250000000/"),
            ("small", Format::Avif, "image/avif", "/framehook-1250000000/"),
        ] {
            let url = renditions[name]["pic_full_url"].as_str().unwrap();
            assert!(url.contains(bucket), "{url}");
            let path = &url[url.find("/objects/").unwrap()..];
            let answer = http::request(server.http_address(), "GET", path, &[], b"", PATIENCE).unwrap();
            assert_eq!(answer.headers.get("content-type"), Some(content_type), "{name}");
            assert_eq!(image::format(&answer.body), Some(format), "{name}");
        }
    }

    // Dues and pictures count once, however many images are made of each.
    let metrics = server.metrics().unwrap();
    let taken = metrics.sum("framehook_snapshots_total", &[]);
    assert!(taken >= 2.0 && taken <= pictures.len() as f64 + 1.0, "{taken} of {}", pictures.len());

    let key = format!("Bearer {}", server.credentials().unwrap().secret_key);
    let target = format!("/v1/snapshots?stream={DOMAIN}/live/room&limit=8");
    let listed = http::request(server.http_address(), "GET", &target, &[("authorization", &key)], b"", PATIENCE);
    let listed = listed.unwrap().json().unwrap();
    let thumb = listed["snapshots"].as_array().unwrap().iter().find(|row| row["rendition"] == "thumb").unwrap();
    assert_eq!((&thumb["format"], &thumb["width"]), (&"webp".into(), &160.into()));
    let target = format!("/v1/snapshots/{}/image", thumb["id"].as_str().unwrap());
    let shown =
        http::request(server.http_address(), "GET", &target, &[("authorization", &key)], b"", PATIENCE).unwrap();
    assert_eq!((shown.status, shown.headers.get("content-type")), (200, Some("image/webp")));
}

#[test]
fn renditions_are_set_and_taken_away_through_v1() {
    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let order = json!({ "name": "covers", "renditions": [{ "name": "thumb", "width": 320, "format": "webp" }] });
    let made = server.v1("POST", "/v1/snapshot-templates", Some(&order)).unwrap();
    let thumb = json!({
        "name": "thumb",
        "width": 320,
        "height": 0,
        "format": "webp",
        "quality": 85,
        "app_id": null,
        "bucket": null,
        "region": null,
        "prefix": null,
        "file_name": null,
    });
    assert_eq!(made["renditions"], json!([thumb]));
    let template = format!("/v1/snapshot-templates/{}", made["id"]);
    let changed = server.v1("PATCH", &template, Some(&json!({ "interval_s": 5 }))).unwrap();
    assert_eq!(changed["renditions"], json!([thumb]), "what is left out stays");
    let changed = server.v1("PATCH", &template, Some(&json!({ "renditions": null }))).unwrap();
    assert_eq!(changed["renditions"], json!([]));
}

#[test]
fn receive_checks_and_saves_every_format() {
    let saved = tempfile::tempdir().unwrap();
    let mut receive = Command::new(FRAMEHOOK);
    receive.args(["receive", "--listen", "127.0.0.1:0", "--key", CALLBACK_KEY, "--json", "--save"]).arg(saved.path());
    let receiver = Process::spawn("framehook receive", &mut receive).unwrap();
    let lines =
        || -> Vec<Value> { receiver.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    let address =
        wait::until("the receiver's address", PATIENCE, || lines().first()?["listening"].as_str()?.parse().ok());
    let spec = ServerSpec::new(FRAMEHOOK).config(config_for(address.unwrap(), 2, "") + RENDITIONS);
    let server = spec.start().unwrap();
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(&server, "room")).unwrap();
    let of_pictures = || -> Option<Vec<Value>> {
        let pictures: Vec<_> = lines().into_iter().filter(|line| line["body"]["event_type"] == 200).collect();
        let names: BTreeSet<_> = pictures.iter().map(|line| line["body"]["rendition"].to_string()).collect();
        (names.len() == 4).then_some(pictures)
    };
    let mut extensions = BTreeSet::new();
    for line in wait::until("a picture in each format", PATIENCE, of_pictures).unwrap() {
        let failed = line["checks"].as_array().unwrap().iter().find(|check| check["ok"] != true);
        assert_eq!(failed, None, "{line}");
        let file = std::path::Path::new(line["file"].as_str().unwrap());
        let format = image::format(&std::fs::read(file).unwrap()).unwrap();
        let extension = file.extension().unwrap().to_str().unwrap().to_owned();
        let expected = match format {
            Format::Jpeg => "jpg",
            Format::Png => "png",
            Format::Webp => "webp",
            Format::Avif => "avif",
        };
        assert_eq!(extension, expected, "{line}");
        extensions.insert(extension);
    }
    assert_eq!(extensions.len(), 4, "{extensions:?}");
}
