//! What operators rely on: the pages, the log, signals, and that a machine which runs out of something is not brought down.

#![expect(clippy::disallowed_methods, reason = "a suite runs commands, and measures from outside")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use common::{CALLBACK_KEY, FRAMEHOOK, PATIENCE, config, push_url, serve, wait_for_snapshots};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::failing_sync::FailingSync;
use framehook_testkit::http::{self, Connection, Response};
use framehook_testkit::process::Process;
use framehook_testkit::publisher::PublisherSpec;
use framehook_testkit::receiver::{Receiver, Reply, Request};
use framehook_testkit::server::{STOP_PATIENCE, Server, ServerSpec};
use framehook_testkit::wait;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

fn push(server: &Server, stream: &str) -> Process {
    encoder::push(Program::Ffmpeg, Source::TestPicture, &push_url(server, stream)).unwrap()
}

/// What is asked of the server for the object that a callback names.
fn object_target(snapshot: &Request) -> String {
    let body = snapshot.json().unwrap();
    let url = body["pic_full_url"].as_str().unwrap();
    url[url.find("/objects/").unwrap()..].to_owned()
}

fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Response {
    http::request(address, "GET", target, headers, b"", PATIENCE).unwrap()
}

/// The files that a process has mapped.
fn mapped(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap()
}

#[test]
fn the_process_that_holds_sockets_and_secrets_maps_no_decoder() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let _encoder = push(&server, "room");
    wait_for_snapshots(&receiver, 1).unwrap();
    let maps = mapped(server.process().pid());
    assert!(maps.contains("/framehook"), "{maps}");
    for library in ["libav", "libsw", "jpeg", "framehook-render"] {
        assert!(!maps.contains(library), "{library} is mapped:\n{maps}");
    }
    let workers = server.children().unwrap();
    assert!(!workers.is_empty());
    for worker in workers {
        assert!(mapped(worker.pid).contains("framehook-render"));
        let status = fs::read_to_string(format!("/proc/{}/status", worker.pid)).unwrap();
        // 2 is a seccomp filter (`proc(5)`).
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "no {line:?} in\n{status}");
        }
    }
}

#[test]
fn v1_over_tcp_always_asks_for_a_login() {
    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let address = server.http_address();
    let credentials = server.credentials().unwrap();
    let key = &credentials.secret_key;
    let basic = |user: &str, password: &str| {
        let pair = format!("{user}:{password}");
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    };
    let cases = [
        (None, 401),
        (Some("Bearer nonsense".to_owned()), 401),
        (Some(format!("Bearer {key}x")), 401),
        (Some(basic(&credentials.secret_id, "nonsense")), 401),
        (Some(basic("nonsense", key)), 401),
        (Some(format!("Bearer {key}")), 200),
        (Some(basic(&credentials.secret_id, key)), 200),
    ];
    for (authorization, status) in cases {
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let answer = get(address, "/v1/streams", &headers);
        assert_eq!(answer.status, status, "{authorization:?}");
        if status == 401 {
            assert_eq!(answer.headers.get("content-type"), Some("application/problem+json"));
            assert!(answer.headers.get("www-authenticate").is_some());
        }
    }
    for target in ["/v1/deliveries", "/v1/snapshots/held", "/v1/deliveries/00000000-0000-7000-8000-000000000000"] {
        assert_eq!(get(address, target, &[]).status, 401, "{target}");
    }
    let mode = |file: &str| fs::metadata(server.data_dir().join(file)).unwrap().permissions().mode() & 0o777;
    for file in ["control.sock", "credentials", "master.key"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn one_address_cannot_use_up_the_connections() {
    let settings = "[http]\nconnections_per_address_max = 8\n";
    let server = ServerSpec::new(FRAMEHOOK).config(settings).start().unwrap();
    let address = server.http_address();
    let open = || Connection::over(http::connect(address, PATIENCE).unwrap(), address.to_string());
    let mut kept: Vec<_> = (0..8).map(|_| open()).collect();
    for connection in &mut kept {
        assert_eq!(connection.request("GET", "/healthz", &[], b"").unwrap().status, 200);
    }
    assert!(open().request("GET", "/healthz", &[], b"").is_err(), "the ninth is closed");
    server.wait_for_log("connection refused: too many connections", PATIENCE).unwrap();
    kept.pop();
    wait::until("the place that was given back", PATIENCE, || open().request("GET", "/healthz", &[], b"").ok())
        .unwrap();
    // The owner of the data directory comes another way.
    let listed = Command::new(FRAMEHOOK).args(["keys", "list", "--data-dir"]).arg(server.data_dir()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[test]
fn readyz_names_every_check_and_fails_with_its_workers() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    assert_eq!(server.get("/healthz").unwrap().text(), "ok\n");
    let ready = wait::until("readiness", PATIENCE, || server.get("/readyz").ok().filter(|page| page.status == 200));
    let ready = ready.unwrap().json().unwrap();
    let detail = |name: &str| {
        let checks = ready["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {ready}"))["detail"]
            .to_string()
    };
    for name in ["database", "workers", "spool", "disk"] {
        detail(name);
    }
    assert!(detail("jail").contains("seccomp"), "{}", detail("jail"));

    // A worker that cannot be started again: its executable's descriptor stays, so every one that appears is killed.
    let unready = wait::until("a page that says so", PATIENCE, || {
        for worker in server.children().ok()? {
            let _ = worker.kill9();
        }
        server.get("/readyz").ok().filter(|page| page.status == 503)
    });
    let unready = unready.unwrap().json().unwrap();
    let workers = unready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "workers").unwrap();
    assert_eq!(workers["ok"], false, "{unready}");
    wait::until("readiness again", PATIENCE, || server.get("/readyz").ok().filter(|page| page.status == 200)).unwrap();
}

#[test]
fn an_admin_address_takes_the_operators_pages_away_from_the_others() {
    let server = ServerSpec::new(FRAMEHOOK).args(["--admin", "127.0.0.1:0"]).start().unwrap();
    let addresses = fs::read(server.data_dir().join("addresses.json")).unwrap();
    let addresses: Value = serde_json::from_slice(&addresses).unwrap();
    let admin: SocketAddr = addresses["admin"].as_str().unwrap().parse().unwrap();
    for page in ["/metrics", "/healthz", "/readyz"] {
        assert_ne!(get(admin, page, &[]).status, 404, "{page}");
        assert_eq!(get(server.http_address(), page, &[]).status, 404, "{page}");
    }
    for page in ["/v1/streams", "/objects/framehook-1250000000/a.jpg"] {
        assert_eq!(get(admin, page, &[]).status, 404, "{page}");
    }
}

#[test]
fn objects_lead_nowhere_else() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let _encoder = push(&server, "room");
    let target = &object_target(&wait_for_snapshots(&receiver, 1).unwrap()[0]);
    let whole = server.get(target).unwrap();
    assert_eq!((whole.status, whole.headers.get("content-type")), (200, Some("image/jpeg")));
    let tag = whole.headers.get("etag").unwrap();
    assert_eq!(get(server.http_address(), target, &[("if-none-match", tag)]).status, 304);
    let part = get(server.http_address(), target, &[("range", "bytes=0-1")]);
    assert_eq!((part.status, part.body.as_slice()), (206, &[0xFF, 0xD8][..]));
    for target in [
        "/objects/../framehook.db",
        "/objects/framehook-1250000000/../../framehook.db",
        "/objects/framehook-1250000000/..%2f..%2fmaster.key",
        "/objects/%2e%2e/master.key",
        "/objects/..%2fmaster.key/x",
        "/objects/framehook-1250000000//etc/passwd",
        "/objects/framehook-1250000000/",
        "/objects/framehook-1250000000/%00",
        "/objects//etc/passwd",
    ] {
        let answer = server.get(target).unwrap();
        assert_eq!(answer.status, 404, "{target}: {}", answer.text());
    }
}

#[test]
fn one_id_follows_a_picture_from_pick_to_callback() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "[log]\nlevel = \"debug\"\nformat = \"json\"\n").unwrap();
    let _encoder = push(&server, "room");
    wait_for_snapshots(&receiver, 1).unwrap();
    let followed = wait::until("one trace in all three lines", PATIENCE, || {
        let log = server.log();
        // The last line may not be whole yet.
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let traces = |message: &str| -> BTreeSet<String> {
            let lines = lines.iter().filter(|line| line["message"] == message);
            lines.filter_map(|line| line["trace"].as_str().map(str::to_owned)).collect()
        };
        let (stored, delivered) = (traces("stored"), traces("callback delivered"));
        traces("picked an entry point").into_iter().find(|trace| stored.contains(trace) && delivered.contains(trace))
    });
    followed.unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
}

#[test]
fn no_secret_and_no_stream_name_is_where_it_must_not_be() {
    let receiver = Receiver::start().unwrap();
    let push_key = "pushKeyThatNobodyMaySee01";
    let toml = config(&receiver, 2, "[log]\nlevel = \"trace\"\n")
        .replace("auth = \"off\"", &format!("main_key = \"{push_key}\""));
    // A password in a callback URL is sent as Basic and shown nowhere.
    let toml = toml.replacen("http://", "http://user:passwordThatNobodyMaySee@", 1);
    let server = ServerSpec::new(FRAMEHOOK).config(toml).start().unwrap();
    let signed = framehook_domain::push_auth::sign(
        &framehook_domain::push_auth::PushKey::parse(push_key).unwrap(),
        &framehook_domain::stream::StreamName::parse("quiet_room").unwrap(),
        framehook_domain::time::UnixMs(4_000_000_000_000),
    );
    let url = push_url(&server, "quiet_room") + &format!("&txSecret={}&txTime={}", signed.0, signed.1);
    let _encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &url).unwrap();
    let request = wait_for_snapshots(&receiver, 1).unwrap().remove(0);
    assert!(request.headers.get("authorization").unwrap().starts_with("Basic "));

    let secret_key = server.credentials().unwrap().secret_key;
    let master_key = fs::read_to_string(server.data_dir().join("master.key")).unwrap();
    let mut titles = fs::read_to_string(format!("/proc/{}/cmdline", server.process().pid())).unwrap();
    for worker in server.children().unwrap() {
        titles += &fs::read_to_string(format!("/proc/{}/cmdline", worker.pid)).unwrap();
        titles += &fs::read_to_string(format!("/proc/{}/environ", worker.pid)).unwrap_or_default();
    }
    let metrics = server.get("/metrics").unwrap().text();
    let streams = server.v1("GET", "/v1/streams", None).unwrap().to_string();
    let deliveries = server.v1("GET", "/v1/deliveries", None).unwrap().to_string();
    let places = [
        ("log", server.log()),
        ("metrics", metrics),
        ("titles", titles),
        ("streams", streams),
        ("deliveries", deliveries),
    ];
    for (place, text) in &places {
        for secret in [push_key, CALLBACK_KEY, &secret_key, master_key.trim(), &signed.0, "passwordThatNobodyMaySee"] {
            assert!(!text.contains(secret), "{secret} in the {place}:\n{text}");
        }
    }
    assert!(!places[1].1.contains("quiet_room"), "a stream's name is a label");
    assert!(places[0].1.contains("credentials"), "the log says where the credentials are");
}

#[test]
fn sigterm_ends_in_time_with_everything_under_way_stuck() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve(&receiver, 2, "").unwrap();
    let _encoder = push(&server, "room");
    wait_for_snapshots(&receiver, 1).unwrap();
    receiver.reply_always(Reply::Hang);
    let arrived = receiver.requests().len();
    wait::until("a callback that hangs", PATIENCE, || (receiver.requests().len() > arrived).then_some(())).unwrap();
    for worker in server.children().unwrap() {
        worker.signal(Signal::STOP).unwrap();
    }
    let asked = Instant::now();
    let status = server.terminate().unwrap();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(asked.elapsed() < Duration::from_secs(25), "it took {:?}", asked.elapsed());

    // What hung is owed, and is sent by the next start under the same id.
    receiver.reply_always(Reply::Status(200));
    let hung = receiver.requests().last().unwrap().webhook_id().unwrap().to_owned();
    server.restart().unwrap();
    receiver
        .wait_until("the callback that hung", PATIENCE, |requests| {
            let times = requests.iter().filter(|request| request.webhook_id().ok() == Some(&hung)).count();
            (times >= 2).then_some(())
        })
        .unwrap();
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let dir = server.data_dir();
    let mut second = Command::new(FRAMEHOOK);
    second.args(["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(&dir);
    let refused = second.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains(dir.to_str().unwrap()), "{said}");
    assert_eq!(server.get("/healthz").unwrap().status, 200);
}

#[test]
fn a_wrong_configuration_ends_the_start_before_any_port_opens() {
    let dir = TempDir::new().unwrap();
    let start = |toml: &str, more: &[&str]| {
        let (file, data) = (dir.path().join("framehook.toml"), dir.path().join("data"));
        fs::write(&file, toml).unwrap();
        let mut serve = Command::new(FRAMEHOOK);
        serve.args(["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(&data);
        let ended = serve.arg("--config").arg(&file).args(more).output().unwrap();
        assert!(!data.join("addresses.json").exists(), "{toml}");
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let receiver = "[[callback_template]]\nname = \"t\"\nsnapshot_notify_url = \"http://10.1.2.3/cb\"\n";
    let (code, said) = start(receiver, &[]);
    assert_eq!(code, Some(2), "{said}");
    for part in ["callback_template[1].snapshot_notify_url", "--allow-receiver 10.1.2.3"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let (code, said) = start("[ingest]\ndefault_domain = \"a b\"\n", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("ingest.default_domain"), "{said}");
    // A line that cannot be read may hold a key, and is not repeated.
    let (code, said) = start("[[domain]]\nname = \"d.example.com\"\nmain_key = \"halfAKey\n", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains('3') && !said.contains("halfAKey"), "{said}");
}

#[test]
fn decoders_without_their_jail_are_told_of_loudly() {
    let server = ServerSpec::new(FRAMEHOOK).args(["--unsafe-no-jail"]).start().unwrap();
    server.wait_for_log("render.unsafe_no_jail is on", PATIENCE).unwrap();
}

#[test]
fn a_changed_rule_is_in_force_within_a_second() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve(&receiver, 300, "").unwrap();
    let _encoder = push(&server, "room");
    wait_for_snapshots(&receiver, 1).unwrap();
    let mut took = Vec::new();
    for interval in [2, 250, 3, 200, 5] {
        let asked = Instant::now();
        server.reload(&config(&receiver, interval, "")).unwrap();
        wait::until("the new interval", PATIENCE, || {
            let streams = server.v1("GET", "/v1/streams", None).ok()?;
            (streams["streams"][0]["rules"][0]["interval_s"] == interval).then_some(())
        })
        .unwrap();
        took.push(asked.elapsed());
    }
    took.sort();
    assert!(took[2] < Duration::from_secs(1), "{took:?}");
}

/// The server under another limit of open files.
fn limited(dir: &TempDir, soft: u32, hard: u32) -> PathBuf {
    let path = dir.path().join("framehook");
    let script = format!("#!/bin/sh\nulimit -Sn {soft} && ulimit -Hn {hard} && exec {FRAMEHOOK} \"$@\"\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn running_out_of_descriptors_stops_neither_the_server_nor_those_who_are_in() {
    const HARD: u32 = 128;
    let dir = TempDir::new().unwrap();
    let receiver = Receiver::start().unwrap();
    let spec = ServerSpec::new(limited(&dir, 64, HARD)).config(config(
        &receiver,
        2,
        "[ingest]\nhandshake_timeout = \"60s\"\n",
    ));
    let mut server = spec.start().unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.process().pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some(HARD.to_string().as_str()), "raised to the hard limit: {files}");

    let clip = ClipSpec { width: 320, height: 180, ..ClipSpec::default() }.build().unwrap().flv().unwrap();
    let publisher = PublisherSpec::new(push_url(&server, "room").parse().unwrap(), clip).looped().start().unwrap();
    wait_for_snapshots(&receiver, 1).unwrap();
    let crowd: Vec<TcpStream> = (0..2 * HARD).map(|_| TcpStream::connect(server.rtmp_address()).unwrap()).collect();
    server.wait_for_log("Too many open files", PATIENCE).unwrap();
    // Several dues fall while not even a directory can be opened.
    let sent = publisher.log().keyframes.len();
    publisher.wait_for_keyframes(sent + 8, PATIENCE).unwrap();
    assert!(server.try_wait().is_none(), "{}", server.log());
    drop(crowd);
    let before = wait_for_snapshots(&receiver, 1).unwrap().len();
    wait_for_snapshots(&receiver, before + 2).unwrap();
    let _another = push(&server, "another_room");
    wait::until("the newcomer to be live", PATIENCE, || {
        let streams = server.v1("GET", "/v1/streams", None).ok()?;
        (streams["streams"].as_array()?.len() == 2).then_some(())
    })
    .unwrap();
    assert!(server.terminate().unwrap().success());
}

#[test]
fn a_failed_sync_ends_the_server_and_the_next_start_goes_on() {
    let failing = FailingSync::build().unwrap();
    let receiver = Receiver::start().unwrap();
    let spec = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 2, ""));
    let shaky = failing.environment().into_iter().fold(spec.clone(), |spec, (name, value)| spec.env(name, value));
    let mut server = shaky.start().unwrap();
    let _encoder = push(&server, "room");
    wait_for_snapshots(&receiver, 1).unwrap();
    failing.plan().fail("framehook.db-wal");
    let status = server.wait_for_end(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert!(server.log().contains("database cannot go on"), "{}", server.log());
    assert_eq!(failing.plan().failures(), 1, "a failed sync is not tried again");

    let before = receiver.requests().len();
    server.restart_as(spec).unwrap();
    let _encoder = push(&server, "room");
    receiver
        .wait_until("callbacks of the next start", PATIENCE, |requests| (requests.len() > before + 1).then_some(()))
        .unwrap();
}

#[test]
fn what_is_not_there_is_a_problem_in_json() {
    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let answer = server.get("/nowhere").unwrap();
    assert_eq!((answer.status, answer.headers.get("content-type")), (404, Some("application/problem+json")));
    let answer = http::request(server.http_address(), "POST", "/metrics", &[], b"", STOP_PATIENCE).unwrap();
    assert_eq!(answer.status, 405);
}

#[test]
fn signed_urls_open_their_own_object_and_nothing_else_does() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "[store.local]\nsigned_urls = true\n").unwrap();
    let _encoder = push(&server, "room");
    let snapshots = wait_for_snapshots(&receiver, 2).unwrap();
    let targets: Vec<String> = snapshots.iter().map(object_target).collect();
    let whole = server.get(&targets[0]).unwrap();
    assert_eq!((whole.status, whole.headers.get("content-type")), (200, Some("image/jpeg")));
    assert!(whole.headers.get("cache-control").is_some_and(|caching| caching.starts_with("private")));

    let (path, query) = targets[0].split_once('?').unwrap();
    let other = targets[1].split_once('?').unwrap().1;
    let forged = query.replace("expires=", "expires=1");
    for (what, target) in [
        ("no signature", path.to_owned()),
        ("another object's", format!("{path}?{other}")),
        ("a later end", format!("{path}?{forged}")),
        ("no object", "/objects/framehook-1250000000/nothing.jpg".to_owned()),
    ] {
        let answer = server.get(&target).unwrap();
        assert_eq!(
            (answer.status, answer.headers.get("content-type")),
            (403, Some("application/problem+json")),
            "{what}"
        );
    }
}
