//! Pictures in several object stores at once, as their publishers, their receivers and whoever runs the server see it: S3, COS
//! and the data directory, all of them well, one of them away, full or wrongly set up.

#![expect(clippy::disallowed_methods, reason = "runs the doctor as a person would")]

mod common;
#[path = "stores/remote.rs"]
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{FRAMEHOOK, PATIENCE, check_signature, config, push_once, push_url};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::flv::FlvFile;
use framehook_testkit::http::{self, Connection, Events};
use framehook_testkit::image::{self, Format};
use framehook_testkit::metrics::Metrics;
use framehook_testkit::object_server::{ACCOUNT, BUCKETS, Kind};
use framehook_testkit::proxy::Line;
use framehook_testkit::publisher::{Publisher, PublisherSpec};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use remote::{Remote, write_credentials};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The shortest that there is.
const INTERVAL_SECS: u32 = 2;

/// A server whose template has these fields as well, with `tables` of stores and of renditions.
fn serve(receiver: &Receiver, stores: &str, fields: &str, renditions: &str) -> Server {
    ServerSpec::new(FRAMEHOOK).config(toml(receiver, stores, fields, renditions)).start().unwrap()
}

fn toml(receiver: &Receiver, stores: &str, fields: &str, renditions: &str) -> String {
    let template = format!("name = \"every\"\n{fields}");
    config(receiver, INTERVAL_SECS, stores).replace("name = \"every\"\n", &template) + renditions
}

/// A rendition of the template.
fn rendition(name: &str, fields: &str) -> String {
    format!("\n[[snapshot_rendition]]\ntemplate = \"every\"\nname = \"{name}\"\n{fields}\n")
}

fn clip(width: u32, height: u32) -> Arc<FlvFile> {
    let gop = Duration::from_secs(1);
    let spec = ClipSpec { width, height, gop, duration: 2 * gop, audio: false, ..ClipSpec::default() };
    Arc::new(spec.build().unwrap().flv().unwrap())
}

/// So many streams of a file.
fn publish(server: &Server, file: &Arc<FlvFile>, streams: usize) -> Vec<Publisher> {
    let start = |number| {
        let url = push_url(server, &format!("room_{number}")).parse().unwrap();
        PublisherSpec::new(url, Arc::clone(file)).looped().start().unwrap()
    };
    (0..streams).map(start).collect()
}

/// Ends the pushes and waits until it is known what became of each of their dues. How many pictures were taken.
fn stop(server: &Server, publishers: Vec<Publisher>) -> usize {
    publishers.into_iter().for_each(|publisher| drop(publisher.stop()));
    let settled = || {
        let metrics = server.metrics().ok()?;
        let sum = |name: &str| metrics.sum(name, &[]);
        let under_way = sum("framehook_live_streams") + sum("framehook_open_dues");
        (under_way == 0.0).then_some(metrics)
    };
    let metrics = wait::until("every due to be taken or skipped", PATIENCE, settled).unwrap();
    let [due, taken, skipped] =
        ["due", "taken", "skipped"].map(|name| metrics.sum(&format!("framehook_{name}_total"), &[]));
    assert_eq!(due, taken + skipped);
    pictures(&metrics)
}

/// Pictures that passed the commit point, each with all of its renditions.
fn pictures(metrics: &Metrics) -> usize {
    metrics.sum("framehook_snapshots_total", &[]) as usize
}

/// What receivers were told of pictures so far, with every signature checked.
fn announced(receiver: &Receiver) -> Vec<Value> {
    let told = receiver.requests().into_iter().filter(|request| request.event_type() == Some(200));
    told.map(|request| {
        check_signature(&request).unwrap();
        request.json().unwrap()
    })
    .collect()
}

/// Waits for so many callbacks of this rendition, and gives all that came.
fn wait_for_rendition(receiver: &Receiver, name: &str, count: usize) -> Vec<Value> {
    let of_rendition = || {
        let told: Vec<Value> = announced(receiver).into_iter().filter(|told| told["rendition"] == name).collect();
        (told.len() >= count).then_some(told)
    };
    // A bucket that was away is asked again half a minute later at times.
    wait::until(&format!("{count} callbacks of {name}"), 2 * PATIENCE, of_rendition)
        .unwrap_or_else(|error| panic!("{error}: {}", announced(receiver).len()))
}

/// How the bucket of a store does, as `/v1/stores` tells.
fn told_of(server: &Server, store: &str) -> Option<Value> {
    let told = server.v1("GET", "/v1/stores", None).unwrap();
    told["stores"].as_array().unwrap().iter().find(|told| told["store"] == store).cloned()
}

fn owed(server: &Server, store: &str) -> usize {
    server.metrics().unwrap().sum("framehook_bucket_owed", &[("store", store)]) as usize
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text<'a>(told: &'a Value, field: &str) -> &'a str {
    told[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {told}"))
}

#[test]
fn one_decode_goes_into_every_store_and_each_object_is_announced_where_it_can_be_fetched() {
    let (cos, s3) = (Remote::start(Kind::Cos), Remote::start(Kind::S3));
    let receiver = Receiver::start().unwrap();
    let renditions = rendition("mirror", &s3.place())
        + &rendition("here", "cos_region = \"local\"")
        + &rendition(
            "thumb",
            &format!("cos_bucket = \"covers\"\nformat = \"webp\"\nwidth = 160\ncos_region = \"{}\"", s3.region()),
        );
    let stores = cos.settings("") + &s3.settings("");
    let server = serve(&receiver, &stores, &cos.place(), &renditions);
    let publishers = publish(&server, &clip(640, 360), 1);
    wait_for_rendition(&receiver, "thumb", 3);
    let pictures = stop(&server, publishers);
    wait::until("every callback", PATIENCE, || (announced(&receiver).len() >= 4 * pictures).then_some(())).unwrap();

    let metrics = server.metrics().unwrap();
    assert_eq!(metrics.sum("framehook_render_decode_seconds_count", &[]) as usize, pictures, "one decode for each due");
    assert_eq!(metrics.sum("framehook_taken_total", &[]) as usize, pictures);
    assert_eq!(metrics.sum("framehook_puts_total", &[("outcome", "stored")]) as usize, 4 * pictures);

    let (in_cos, in_s3) = (cos.server.puts().unwrap(), s3.server.puts().unwrap());
    assert_eq!((in_cos.len(), in_s3.len()), (pictures, 2 * pictures));
    let mut fetched: BTreeMap<i64, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for told in announced(&receiver) {
        let (name, url) = (text(&told, "rendition"), text(&told, "pic_full_url"));
        let (remote, bucket) = match name {
            "main" => (Some((&cos, &in_cos)), BUCKETS[0]),
            "mirror" => (Some((&s3, &in_s3)), BUCKETS[0]),
            "thumb" => (Some((&s3, &in_s3)), BUCKETS[1]),
            _ => (None, BUCKETS[0]),
        };
        let bytes = match remote {
            None => server.fetch(url).unwrap(),
            Some((store, puts)) => {
                let answer = store.get(url);
                assert_eq!(answer.status, 200, "{url}: {}", answer.text());
                let (unsigned, _) = url.split_once('?').expect("a signature");
                assert_eq!(store.get(unsigned).status, 403, "{url} opens without its signature");
                let key = text(&told, "pic_url").trim_start_matches('/');
                let of_key: Vec<_> = puts.iter().filter(|put| put.bucket == bucket && put.key == key).collect();
                assert!(matches!(of_key[..], [put] if put.sha256 == sha256(&answer.body)), "{of_key:?} of {told}");
                answer.body
            }
        };
        assert_eq!(Some(bytes.len() as u64), told["file_size"].as_u64(), "{told}");
        let format = if name == "thumb" { Format::Webp } else { Format::Jpeg };
        assert_eq!(image::format(&bytes), Some(format), "{told}");
        let picture = fetched.entry(told["create_time"].as_i64().unwrap()).or_default();
        assert_eq!(picture.insert(name.to_owned(), bytes), None, "announced twice: {told}");
    }
    assert_eq!(fetched.len(), pictures);
    for renditions in fetched.values() {
        assert_eq!(renditions.len(), 4, "{:?}", renditions.keys());
        assert!(
            renditions["main"] == renditions["mirror"] && renditions["main"] == renditions["here"],
            "not one picture"
        );
    }
}

#[test]
fn the_days_of_a_template_reach_each_store_as_its_tag_and_its_rule() {
    let (cos, s3) = (Remote::start(Kind::Cos), Remote::start(Kind::S3));
    let receiver = Receiver::start().unwrap();
    let toml = |days: u32| {
        let fields = format!("{}objects = \"both\"\nretention_days = {days}\n", cos.place());
        toml(&receiver, &(cos.settings("") + &s3.settings("")), &fields, &rendition("mirror", &s3.place()))
    };
    let mut server = ServerSpec::new(FRAMEHOOK).config(toml(7)).start().unwrap();
    let publishers = publish(&server, &clip(320, 180), 1);
    for (days, is_first) in [(7, true), (30, false)] {
        if !is_first {
            server.reload(&toml(days)).unwrap();
        }
        let tag = format!("framehook-retention-days={days}");
        for store in [&cos, &s3] {
            let is_tagged = || {
                let puts = store.server.puts().ok()?;
                puts.iter().any(|put| put.tags.as_ref() == Some(&tag)).then_some(puts)
            };
            let puts = wait::until(&format!("{tag} in {}", store.name()), PATIENCE, is_tagged).unwrap();
            let numbered = |key: &str| !key.starts_with("latest/");
            let untagged = puts.iter().find(|put| numbered(&put.key) != put.tags.is_some());
            assert_eq!(untagged, None, "retention is of numbered objects, and of all of them");
            let rules = store.server.lifecycle(BUCKETS[0]).unwrap();
            let of_days = rules.iter().filter(|rule| **rule == tag.replace('=', "-")).count();
            assert_eq!((of_days, rules.len()), (1, if is_first { 1 } else { 2 }), "{}: {rules:?}", store.name());
        }
    }
    let latest = |store: &Remote| store.server.puts().unwrap().iter().any(|put| put.key.starts_with("latest/"));
    assert!(latest(&cos) && latest(&s3));
    stop(&server, publishers);
}

#[test]
fn a_store_that_hangs_leaves_the_pictures_of_another_as_they_were() {
    let (cos, s3) = (Remote::start(Kind::Cos), Remote::start(Kind::S3));
    cos.set(Line::Stalled);
    let receiver = Receiver::start().unwrap();
    // What hangs hangs until the line is open, and leaves no slot free.
    let stores = format!("[store]\nconcurrency = 2\n{}{}", cos.settings("timeout = \"10m\""), s3.settings(""));
    let server = serve(&receiver, &stores, &cos.place(), &rendition("mirror", &s3.place()));
    let publishers = publish(&server, &clip(320, 180), 3);
    wait_for_rendition(&receiver, "mirror", 9);
    let pictures = stop(&server, publishers);

    wait_for_rendition(&receiver, "mirror", pictures);
    assert_eq!(announced(&receiver).len(), pictures, "nobody is told of what is not there");
    assert_eq!((owed(&server, "cos"), owed(&server, "s3")), (pictures, 0));
    cos.set(Line::Open);
    let late = wait_for_rendition(&receiver, "main", pictures);
    assert!(late.iter().all(|told| cos.get(text(told, "pic_full_url")).status == 200));
    assert_eq!(announced(&receiver).len(), 2 * pictures);
}

#[test]
fn a_full_spool_skips_what_is_new_and_keeps_what_is_owed_until_the_store_is_back() {
    let s3 = Remote::start(Kind::S3);
    s3.set(Line::Reset);
    let receiver = Receiver::start().unwrap();
    let stores = format!("[spool]\nbytes_max = \"16MiB\"\ndisk_reserve = \"0\"\n{}", s3.settings(""));
    let large: String = ["a", "b", "c"].map(|name| rendition(name, "format = \"png\"")).concat();
    let server = serve(&receiver, &stores, &s3.place(), &large);
    let publishers = publish(&server, &clip(1280, 720), 4);
    let skipped = |count: f64| {
        let skipped = || {
            let metrics = server.metrics().ok()?;
            (metrics.sum("framehook_skipped_total", &[("reason", "spool_full")]) >= count).then_some(metrics)
        };
        wait::until("pictures to be skipped", 2 * PATIENCE, skipped).unwrap()
    };
    let full = pictures(&skipped(1.0));
    skipped(9.0);
    let taken = stop(&server, publishers);
    assert!(full > 0 && taken >= full);
    assert_eq!(owed(&server, "s3"), 4 * taken, "nothing that is owed is given up");
    assert!(announced(&receiver).is_empty());

    s3.set(Line::Open);
    wait::until("all that was owed", 2 * PATIENCE, || (announced(&receiver).len() >= 4 * taken).then_some(())).unwrap();
    let objects: BTreeSet<String> = announced(&receiver).iter().map(|told| text(told, "pic_url").to_owned()).collect();
    assert_eq!((announced(&receiver).len(), objects.len()), (4 * taken, 4 * taken), "each once");
    assert_eq!(owed(&server, "s3"), 0);
    let _encoder = push_once(&server, "room").unwrap();
    wait::until("a new picture", PATIENCE, || (announced(&receiver).len() == 4 * taken + 4).then_some(())).unwrap();
}

/// Buckets as the doctor finds them, by store: `good` or `bad`, and what may be done about it.
fn doctor(server: &Server) -> BTreeMap<&'static str, (String, String)> {
    let data_dir = server.data_dir();
    let mut command = Command::new(FRAMEHOOK);
    command.args(["doctor", "--json", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
    command.arg("--config").arg(data_dir.with_file_name("framehook.toml"));
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let buckets = report["checks"].as_array().unwrap().iter().filter(|check| check["check"] == "bucket");
    buckets
        .map(|check| {
            let store = if text(check, "found").contains("the store cos") { "cos" } else { "s3" };
            (store, (text(check, "status").to_owned(), check["mend"].as_str().unwrap_or_default().to_owned()))
        })
        .collect()
}

fn listen(server: &Server, kinds: &str) -> Events<TcpStream> {
    let (address, bearer) = (server.http_address(), format!("Bearer {}", server.credentials().unwrap().secret_key));
    let connection = Connection::over(http::connect(address, PATIENCE).unwrap(), address.to_string());
    Events::open(connection, &format!("/v1/events?kind={kinds}"), &[("authorization", &bearer)]).unwrap()
}

#[test]
fn wrong_credentials_and_a_missing_bucket_are_told_once_everywhere_and_gone_when_mended() {
    let (cos, s3) = (Remote::start(Kind::Cos), Remote::start(Kind::S3));
    let receiver = Receiver::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("credentials");
    write_credentials(&credentials, "keyOfSomebodyElse");
    let stores = cos.settings_of(&format!("credentials_file = \"{}\"", credentials.display())) + &s3.settings("");
    let missing = s3.place().replace("shots", "missing");
    let server = serve(&receiver, &stores, &cos.place(), &rendition("mirror", &missing));
    let mut events = listen(&server, "bucket_failing,bucket_taking");
    let publishers = publish(&server, &clip(320, 180), 4);

    let expected = [
        ("cos", "SignatureDoesNotMatch", "correct the store's secret_id and secret_key"),
        ("s3", "NoSuchBucket", "make the bucket, or correct the template's bucket, app_id and region"),
    ];
    for (store, code, mend) in expected {
        // Several pictures later it is as it was.
        let refuses =
            || told_of(&server, store).filter(|told| told["state"] == "refusing" && told["owed"].as_u64() >= Some(8));
        let told = wait::until(&format!("{store} to refuse"), PATIENCE, refuses).unwrap();
        assert!(text(&told, "error").contains(code) && text(&told, "mend") == mend, "{told}");
        assert_eq!(told["held"], told["owed"], "{told}");
    }
    let taking = |store: &str| server.metrics().unwrap().sum("framehook_bucket_taking", &[("store", store)]);
    assert_eq!([taking("cos"), taking("s3")], [0.0, 0.0]);
    let bad = expected.map(|(store, _, mend)| (store, ("bad".to_owned(), mend.to_owned())));
    assert_eq!(doctor(&server), bad.into());
    assert!(announced(&receiver).is_empty());

    write_credentials(&credentials, ACCOUNT.1);
    s3.server.make_bucket("missing-1250000000").unwrap();
    let pictures = stop(&server, publishers);
    wait_for_rendition(&receiver, "main", pictures);
    wait_for_rendition(&receiver, "mirror", pictures);
    assert_eq!([taking("cos"), taking("s3")], [1.0, 1.0]);
    for (store, ..) in expected {
        let told = told_of(&server, store).unwrap();
        assert_eq!(
            (&told["state"], &told["owed"], &told["error"]),
            (&"taking".into(), &0.into(), &Value::Null),
            "{told}"
        );
    }
    assert_eq!(doctor(&server), ["cos", "s3"].map(|store| (store, ("good".to_owned(), String::new()))).into());

    let heard: Vec<Value> = (0..4).map(|_| events.next_event().unwrap().unwrap().json().unwrap()).collect();
    for (store, code, mend) in expected {
        let [failing, taking] = &heard.iter().filter(|event| event["store"] == store).collect::<Vec<_>>()[..] else {
            panic!("{heard:?}");
        };
        assert_eq!((text(failing, "kind"), text(taking, "kind")), ("bucket_failing", "bucket_taking"));
        assert!(failing["alarm"] == true && failing["reason"] == "refused" && failing["mend"] == mend, "{failing}");
        assert!(text(failing, "error").contains(code), "{failing}");
    }
    let lines = |text: &str| server.log().lines().filter(|line| line.contains(text)).count();
    let over = || (lines("the bucket takes pictures again") == 2).then_some(());
    wait::until("the last line", PATIENCE, over).unwrap();
    let log = server.log();
    assert_eq!(lines("the bucket refuses pictures: they wait for you to mend it"), 2, "{log}");
    assert!(!log.contains("keyOfSomebodyElse") && !log.contains(ACCOUNT.1), "{log}");
}
