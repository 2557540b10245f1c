//! Receivers that are not ours to trust: the examples, each as its reader would start it, against the real server; and the
//! reference libraries of Standard Webhooks against its headers.
//!
//! A language or library that is not installed fails its test; `./dev test` installs them all.

#![expect(
    clippy::disallowed_methods,
    reason = "starts the programs that it tests, and reads the clock as their sender"
)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use common::{CALLBACK_KEY, DOMAIN, FRAMEHOOK, PATIENCE, config_for, push_once, target};
use framehook_testkit::http;
use framehook_testkit::process::Process;
use framehook_testkit::receiver::{Receiver, Request};
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use framehook_verify::css;
use framehook_verify::webhook::{self, WebhookSecret};
use serde_json::{Value, json};

/// The repository's root.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// How to get what a test starts and does not find.
const INSTALL: &str = "`./dev test receivers` installs what these tests need, and runs them";

/// An example receiver that listens.
struct Example {
    process: Process,
    address: SocketAddr,
}

impl Example {
    /// Starts a program that prints the address it listens on.
    fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut process = Process::spawn(name, command.env("FRAMEHOOK_CALLBACK_KEY", CALLBACK_KEY)).context(INSTALL)?;
        let mut ended = None;
        let address = wait::until(&format!("the address of {name}"), PATIENCE, || {
            ended = process.try_wait();
            ended.map(|_| None).or_else(|| address_in(&printed(&process)).map(Some))
        })?;
        let address = address.with_context(|| format!("{name} ended: {}", printed(&process)))?;
        Ok(Self { process, address })
    }

    /// What it said of events so far.
    fn lines(&self) -> Vec<String> {
        // PHP's own server puts a time in brackets before each line, and writes lines of its own.
        let events = ["snapshot ", "push-began ", "push-ended ", "event-"];
        let line = |line: &str| events.iter().find_map(|event| line.find(event).map(|at| line[at..].to_owned()));
        printed(&self.process).lines().filter_map(line).collect()
    }

    fn lines_with(&self, needle: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(needle)).count()
    }

    /// Sends a genuine callback of `stream` and waits for its line, before which stand those of all earlier ones: a line can
    /// reach us later than the answer that followed it.
    fn wait_for_all_lines(&self, stream: &str) -> Result<()> {
        let now = now_secs();
        let status = self.post(&Signed::new(CALLBACK_KEY, stream, now, now))?;
        ensure!(status == 200, "a genuine callback got {status}: {}", printed(&self.process));
        wait::until("its line", PATIENCE, || (self.lines_with(stream) == 1).then_some(()))
    }

    fn post(&self, request: &Signed) -> Result<u16> {
        let headers: Vec<_> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = http::request(self.address, "POST", "/notify?action=snapshot", &headers, &request.body, PATIENCE)?;
        Ok(answer.status)
    }
}

fn printed(process: &Process) -> String {
    process.stdout() + &process.stderr()
}

fn address_in(printed: &str) -> Option<SocketAddr> {
    let (_, rest) = printed.split_once("http://")?;
    // Without what follows the address it may have been printed in part.
    rest[..rest.find(['/', ')'])?].parse().ok()
}

/// A callback as the server would sign it, or nearly so.
struct Signed {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Signed {
    /// A push's begin on `stream`, whose body is signed as of `body_secs` and whose headers as of `headers_secs`.
    fn new(key: &str, stream: &str, body_secs: i64, headers_secs: i64) -> Self {
        let t = css::expiry_secs(body_secs);
        let body = json!({
            "event_type": 1, "app": DOMAIN, "appname": "live", "stream_id": stream, "channel_id": stream,
            "stream_param": "", "appid": 1, "errcode": 0, "errmsg": "ok", "event_time": body_secs, "sequence": "1",
            "node": "127.0.0.1", "user_ip": "127.0.0.1", "set_id": 2, "width": 0, "height": 0,
            "t": t, "sign": css::sign(key, t),
        });
        let body = body.to_string().into_bytes();
        let (id, timestamp) = (format!("delivery-of-{stream}"), headers_secs.to_string());
        let signature = WebhookSecret::from_callback_key(key).sign(&id, &timestamp, &body);
        Self {
            headers: vec![(webhook::ID, id), (webhook::TIMESTAMP, timestamp), (webhook::SIGNATURE, signature)],
            body,
        }
    }

    fn replace(mut self, from: &str, to: &str) -> Self {
        self.body = String::from_utf8_lossy(&self.body).replace(from, to).into_bytes();
        self
    }

    fn without(mut self, header: &str) -> Self {
        self.headers.retain(|(name, _)| *name != header);
        self
    }
}

fn now_secs() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// A server that calls back `address`, and a short push to it.
fn serve_and_push(address: SocketAddr, stream: &str) -> Result<(Server, Process)> {
    let server = ServerSpec::new(FRAMEHOOK).config(config_for(address, 10, "")).start()?;
    let encoder = push_once(&server, stream)?;
    Ok((server, encoder))
}

/// Whether an example takes what the server sends, once, and nothing that only looks like it.
fn receives_and_refuses(example: &Example) -> Result<()> {
    accepts_real_callbacks(example)?;
    let now = now_secs();
    let genuine = || Signed::new(CALLBACK_KEY, "crafted", now, now);
    ensure!(example.post(&genuine())? == 200, "a genuine callback was refused: {}", printed(&example.process));
    ensure!(example.post(&genuine())? == 200, "a callback that came again was refused");
    example.wait_for_all_lines("marker-1")?;
    ensure!(example.lines_with("crafted") == 1, "dealt with twice: {:?}", example.lines());

    let refused = [
        ("forged body", Signed::new(CALLBACK_KEY, "forged-1", now, now).replace("forged-1", "forged-2")),
        ("stale t", Signed::new(CALLBACK_KEY, "forged-3", now - 700, now)),
        ("t too far ahead", Signed::new(CALLBACK_KEY, "forged-4", now + 400, now)),
        ("stale timestamp", Signed::new(CALLBACK_KEY, "forged-5", now, now - 400)),
        ("timestamp ahead", Signed::new(CALLBACK_KEY, "forged-6", now, now + 400)),
        ("wrong key", Signed::new("another key", "forged-7", now, now)),
        ("no id", Signed::new(CALLBACK_KEY, "forged-8", now, now).without(webhook::ID)),
        ("no timestamp", Signed::new(CALLBACK_KEY, "forged-9", now, now).without(webhook::TIMESTAMP)),
        ("no signature", Signed::new(CALLBACK_KEY, "forged-10", now, now).without(webhook::SIGNATURE)),
        ("headers of another key", headers_of_another_key(now)),
        ("sign of another key", sign_of_another_key(now)),
        ("no object", signed_body(now, b"[200]")),
        ("no JSON", signed_body(now, b"forged-13")),
        ("no body", signed_body(now, b"")),
        ("long body", signed_body(now, &vec![b' '; 1 << 20])),
    ];
    for (name, request) in refused {
        // A receiver may hang up on a long body before it is sent whole, which is a refusal too.
        if let Ok(status) = example.post(&request) {
            ensure!((400..500).contains(&status), "{name}: answered {status}; {}", printed(&example.process));
        } else {
            ensure!(name == "long body", "{name}: no answer; {}", printed(&example.process));
        }
    }
    let got = http::request(example.address, "GET", "/", &[], b"", PATIENCE)?.status;
    ensure!((400..=501).contains(&got), "GET: answered {got}");
    example.wait_for_all_lines("marker-2")?;
    ensure!(example.lines_with("forged") == 0, "{:?}", example.lines());
    Ok(())
}

fn accepts_real_callbacks(example: &Example) -> Result<()> {
    let (server, _encoder) = serve_and_push(example.address, "room_1001")?;
    let stream = format!("{DOMAIN}/live/room_1001");
    let expected =
        [format!("push-began {stream}"), format!("snapshot {stream} 320x180 http://"), format!("push-ended {stream}")];
    wait::until("a line for each event", PATIENCE, || {
        expected.iter().all(|line| example.lines_with(line) == 1).then_some(())
    })
    .with_context(|| printed(&example.process))?;
    // A line alone could stand before an answer that the server did not take for one.
    wait::until("three settled deliveries", PATIENCE, || {
        let delivered = deliveries(&server, "delivered").ok()?;
        (delivered.len() == 3 && delivered.iter().all(|delivery| delivery["attempts"] == 1)).then_some(())
    })
    .with_context(|| format!("{:?}", deliveries(&server, "delivered")))
}

fn deliveries(server: &Server, state: &str) -> Result<Vec<Value>> {
    let listed = Command::new(FRAMEHOOK)
        .args(["deliveries", "list", "--json", "--state", state, "--data-dir"])
        .arg(server.data_dir())
        .output()?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    listed["deliveries"].as_array().cloned().context("no list of deliveries")
}

/// The body is right, and whoever made the headers did not know the key.
fn headers_of_another_key(now: i64) -> Signed {
    let body = Signed::new(CALLBACK_KEY, "forged-11", now, now).body;
    Signed { body, ..Signed::new("another key", "forged-11", now, now) }
}

/// The headers are right, and `sign` is not.
fn sign_of_another_key(now: i64) -> Signed {
    signed_body(now, &Signed::new("another key", "forged-12", now, now).body)
}

/// Any body behind headers that are right for it.
fn signed_body(now: i64, body: &[u8]) -> Signed {
    let (id, timestamp) = ("delivery-of-a-body".to_owned(), now.to_string());
    let signature = WebhookSecret::from_callback_key(CALLBACK_KEY).sign(&id, &timestamp, body);
    let headers = vec![(webhook::ID, id), (webhook::TIMESTAMP, timestamp), (webhook::SIGNATURE, signature)];
    Signed { headers, body: body.to_vec() }
}

const ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

fn example(path: &str) -> PathBuf {
    Path::new(ROOT).join("examples/receivers").join(path)
}

#[test]
fn the_rust_example() {
    let program = Path::new(FRAMEHOOK).with_file_name("framehook-example-receiver");
    receives_and_refuses(&Example::start("the Rust example", Command::new(program).args(ANY_PORT)).unwrap()).unwrap();
}

#[test]
fn the_python_example() {
    let mut command = Command::new("python3");
    command.arg(example("python/receiver.py")).args(ANY_PORT);
    receives_and_refuses(&Example::start("the Python example", &mut command).unwrap()).unwrap();
}

#[test]
fn the_node_example() {
    let mut command = Command::new("node");
    command.arg(example("node/receiver.mjs")).args(ANY_PORT);
    receives_and_refuses(&Example::start("the Node example", &mut command).unwrap()).unwrap();
}

#[test]
fn the_go_example() {
    // Built first: `go run` would leave the program behind when it is killed.
    let program = target().join("framehook-example-receiver-go");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(example("go"));
    let built = build.output().context(INSTALL).unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    receives_and_refuses(&Example::start("the Go example", Command::new(program).args(ANY_PORT)).unwrap()).unwrap();
}

#[test]
fn the_php_example() {
    let seen = tempfile::tempdir().unwrap();
    let mut command = Command::new("php");
    command.args(["-S", "127.0.0.1:0"]).arg(example("php/receiver.php")).env("FRAMEHOOK_SEEN_DIR", seen.path());
    receives_and_refuses(&Example::start("the PHP example", &mut command).unwrap()).unwrap();
}

/// One reference library's view of a request: the signature that it makes itself, or why it refuses.
type Library = fn(&Request, &str) -> Result<String>;

fn rust_library(request: &Request, body: &str) -> Result<String> {
    let library = standardwebhooks::Webhook::new(&secret())?;
    let mut headers = hyper::HeaderMap::new();
    for name in [webhook::ID, webhook::TIMESTAMP, webhook::SIGNATURE] {
        headers.insert(name, header(request, name)?.parse()?);
    }
    library.verify(body.as_bytes(), &headers)?;
    Ok(library.sign(header(request, webhook::ID)?, header(request, webhook::TIMESTAMP)?.parse()?, body.as_bytes())?)
}

fn python_library(request: &Request, body: &str) -> Result<String> {
    let mut command = Command::new(target().join("standard-webhooks/python/bin/python"));
    run_library(command.arg(library_test("verify.py")), request, body)
}

fn node_library(request: &Request, body: &str) -> Result<String> {
    let modules = target().join("standard-webhooks/node_modules");
    ensure!(modules.is_dir(), "{} is missing; {INSTALL}", modules.display());
    run_library(Command::new("node").env("NODE_PATH", modules).arg(library_test("verify.js")), request, body)
}

fn library_test(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standard_webhooks").join(file)
}

fn run_library(command: &mut Command, request: &Request, body: &str) -> Result<String> {
    let mut headers = serde_json::Map::new();
    for name in [webhook::ID, webhook::TIMESTAMP, webhook::SIGNATURE] {
        headers.insert(name.to_owned(), header(request, name)?.into());
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, json!({ "secret": secret(), "body": body, "headers": headers }).to_string())?;
    let output = command.arg(file.path()).output().context(INSTALL)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn secret() -> String {
    WebhookSecret::from_callback_key(CALLBACK_KEY).to_text()
}

fn header<'a>(request: &'a Request, name: &str) -> Result<&'a str> {
    request.headers.get(name).with_context(|| format!("no {name}"))
}

#[test]
fn the_reference_libraries_agree_with_every_byte_of_the_headers() {
    let receiver = Receiver::start().unwrap();
    let (_server, _encoder) = serve_and_push(receiver.address(), "room_1001").unwrap();
    let requests = receiver.wait_for(3, PATIENCE).unwrap();
    let libraries: [(&str, Library); 3] = [("Rust", rust_library), ("Python", python_library), ("Node", node_library)];
    for request in &requests {
        let body = String::from_utf8(request.body.clone()).unwrap();
        for (name, library) in libraries {
            let made = library(request, &body).with_context(|| format!("{name} refuses {body}")).unwrap();
            assert_eq!(made, header(request, webhook::SIGNATURE).unwrap(), "{name} signs otherwise");
            let refusal = library(request, &body.replace("room_1001", "room_1002")).expect_err(name);
            // A library that could not be run refuses nothing.
            let says = format!("{refusal:?}").to_lowercase();
            assert!(says.contains("signature"), "{name}: {says}");
        }
    }
}
