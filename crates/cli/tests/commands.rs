//! Each command as a person or a script uses it: what it prints, and the exit code it ends with.

#![expect(clippy::disallowed_methods, reason = "a suite runs the commands that a person would")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{CALLBACK_KEY, DOMAIN, FRAMEHOOK, PATIENCE};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::jpeg;
use framehook_testkit::process::Process;
use framehook_testkit::server::{STOP_PATIENCE, ServerSpec};
use framehook_testkit::wait;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A command of `framehook` in an environment without its variables.
fn framehook(arguments: &[&str]) -> Command {
    let mut command = Command::new(FRAMEHOOK);
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FRAMEHOOK_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    framehook(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Whether a check of that name passed in a callback that `--json` printed.
fn passed(callback: &Value, name: &str) -> bool {
    let checks = callback["checks"].as_array().unwrap();
    checks.iter().any(|check| check["name"] == name && check["ok"] == true)
}

/// `text` in a file of its own.
fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn demo_shows_five_lines_and_every_verified_picture() {
    let output = run(&["demo", "--pictures", "2"]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    for (line, names) in lines.iter().zip(["server", "publisher", "rule", "receiver", "data"]) {
        assert!(line.starts_with(names), "{text}");
    }
    assert!(text.contains("push began: push.demo.localhost/live/room_1001"), "{text}");
    let pictures: Vec<&str> = lines.iter().filter(|line| line.contains(".jpg")).map(|line| line.trim()).collect();
    assert_eq!(pictures.len(), 2, "{text}");
    for path in pictures {
        let picture = jpeg::decode(&fs::read(path).unwrap()).unwrap();
        assert_eq!((picture.width, picture.height), (1280, 720));
    }
    assert!(lines.last().unwrap().starts_with("Stopped. The pictures stay in "), "{text}");
    // Not a terminal, so no colour.
    assert!(!text.contains('\x1b'), "{text}");
    remove_data_of(&text);
}

/// Removes what a demonstration leaves for its user.
fn remove_data_of(text: &str) {
    let objects = Path::new(text.trim_end().rsplit_once(' ').unwrap().1);
    assert!(objects.ends_with("objects"), "{text}");
    fs::remove_dir_all(objects.parent().unwrap()).unwrap();
}

#[test]
fn demo_as_json_is_an_object_per_callback_with_its_checks_and_its_file() {
    let output = run(&["demo", "--pictures", "1", "--interval", "3", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let callbacks = json_lines(&stdout(&output));
    let picture = callbacks.last().unwrap();
    assert_eq!(picture["body"]["event_type"], 200);
    let checks = [
        "signature_equal",
        "webhook_signature",
        "object_fetched",
        "file_size_equal",
        "picture_size_equal",
        "stored_file_equal",
    ];
    for check in checks {
        assert!(passed(picture, check), "{check}: {picture}");
    }
    let path = Path::new(picture["file"].as_str().unwrap());
    assert_eq!(fs::metadata(path).unwrap().len(), picture["body"]["file_size"].as_u64().unwrap());
    let objects = path.ancestors().find(|path| path.ends_with("objects")).unwrap();
    fs::remove_dir_all(objects.parent().unwrap()).unwrap();
}

#[test]
fn demo_loops_a_clip_of_the_users_own() {
    let clip = ClipSpec { width: 320, height: 180, ..ClipSpec::default() }.build().unwrap();
    let output = run(&["demo", "--pictures", "1", "--json", "--input", utf8(&clip.path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let picture = json_lines(&stdout(&output)).pop().unwrap();
    assert_eq!((&picture["body"]["width"], &picture["body"]["height"]), (&320.into(), &180.into()));
    let objects = Path::new(picture["file"].as_str().unwrap()).ancestors().find(|path| path.ends_with("objects"));
    fs::remove_dir_all(objects.unwrap().parent().unwrap()).unwrap();
}

#[test]
fn demo_stops_all_its_parts_at_ctrl_c_and_with_its_terminal() {
    for signal in [Signal::INT, Signal::HUP] {
        let mut demo = Process::spawn("framehook demo", &mut framehook(&["demo"])).unwrap();
        wait::until("a picture", PATIENCE, || demo.stdout().contains(".jpg").then_some(())).unwrap();
        let parts = demo.descendants().unwrap();
        assert!(parts.iter().any(|part| part.command.starts_with("framehook-ren")), "{parts:?}");
        demo.signal(signal).unwrap();
        assert_eq!(demo.wait(STOP_PATIENCE).unwrap().code(), Some(0));
        framehook_testkit::process::wait_until_gone(&parts, PATIENCE).unwrap();
        remove_data_of(&demo.stdout());
    }
}

#[test]
fn demo_refuses_a_file_that_is_no_clip() {
    let dir = TempDir::new().unwrap();
    let clip = file(&dir, "clip.flv", "not a clip");
    let output = run(&["demo", "--input", utf8(&clip)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("framehook: ") && stderr(&output).contains("FLV"), "{}", stderr(&output));
    let output = run(&["demo", "--input", "/nowhere.flv"]);
    assert!(stderr(&output).contains("cannot read /nowhere.flv"), "{}", stderr(&output));
}

/// A server whose callbacks go to `framehook receive`, an encoder, and what the receiver prints.
struct Rig {
    receiver: Process,
    _encoder: Process,
    _server: framehook_testkit::server::Server,
}

impl Rig {
    fn start(receive: &[&str], signing_key: &str) -> Self {
        let mut arguments = vec!["receive", "--listen", "127.0.0.1:0"];
        arguments.extend(receive);
        let receiver = Process::spawn("framehook receive", &mut framehook(&arguments)).unwrap();
        let address = wait::until("the receiver's address", PATIENCE, || {
            let text = receiver.stdout();
            let address = text.split_once("127.0.0.1:")?.1.split(['"', '/', ' ']).next()?.to_owned();
            text.contains('\n').then_some(address)
        });
        let address = format!("127.0.0.1:{}", address.unwrap());
        let config = format!(
            r#"
[[domain]]
name = "{DOMAIN}"
auth = "off"
[[snapshot_template]]
name = "every"
snapshot_interval = "2s"
[[callback_template]]
name = "receiver"
callback_key = "{signing_key}"
snapshot_notify_url = "http://{address}/"
[[snapshot_rule]]
domain = "{DOMAIN}"
template = "every"
[[callback_rule]]
domain = "{DOMAIN}"
template = "receiver"
"#
        );
        let server = ServerSpec::new(FRAMEHOOK).config(config).start().unwrap();
        let encoder = encoder::push(Program::Ffmpeg, Source::TestPicture, &common::push_url(&server, "room")).unwrap();
        Self { receiver, _encoder: encoder, _server: server }
    }

    fn wait_for(&self, what: &str) -> String {
        let printed = || self.receiver.stdout();
        wait::until(&format!("{what:?} from the receiver"), PATIENCE, || printed().contains(what).then(printed))
            .unwrap()
    }
}

#[test]
fn receive_saves_what_verify_accepts() {
    let dir = TempDir::new().unwrap();
    let saved = dir.path().join("saved");
    let mut rig = Rig::start(&["--key", CALLBACK_KEY, "--json", "--save", utf8(&saved)], CALLBACK_KEY);
    let printed = rig.wait_for("\"event_type\":200");
    let callbacks = json_lines(&printed);
    assert!(callbacks[0]["listening"].is_string(), "{printed}");
    let callback = &callbacks[1];
    assert!(passed(callback, "signature_equal") && passed(callback, "object_fetched"), "{callback}");
    let id = callback["webhook_id"].as_str().unwrap();
    let picture = fs::read(saved.join(format!("{id}.jpg"))).unwrap();
    assert_eq!(jpeg::decode(&picture).unwrap().width as u64, callback["body"]["width"].as_u64().unwrap());
    assert_eq!(callback["file"], utf8(&saved.join(format!("{id}.jpg"))));

    let body = saved.join(format!("{id}.json"));
    assert!(run(&["verify", "--key", CALLBACK_KEY, utf8(&body)]).status.success());
    let refused = run(&["verify", "--key", "another", utf8(&body)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stdout(&refused).contains("FAILED  signature_equal"), "{}", stdout(&refused));
    let late = (callback["body"]["t"].as_i64().unwrap() + 1).to_string();
    let late = run(&["verify", "--key", CALLBACK_KEY, "--at", &late, "--json", utf8(&body)]);
    assert_eq!(late.status.code(), Some(1), "a signature ends at its t");
    let report = &json_lines(&stdout(&late))[0];
    assert_eq!(report["passed"], false);
    let failed: Vec<_> = report["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["name"], "fresh");

    rig.receiver.signal(Signal::INT).unwrap();
    assert!(rig.receiver.wait(PATIENCE).unwrap().success());
}

#[test]
fn receive_names_the_check_that_a_wrong_key_fails() {
    let rig = Rig::start(&["--key", "another"], CALLBACK_KEY);
    let printed = rig.wait_for("failed signature_equal");
    assert!(printed.starts_with("Receiving callbacks on http://127.0.0.1:"), "{printed}");
    assert!(printed.contains("REFUSED  picture"), "{printed}");
}

#[test]
fn verify_tells_a_bad_file_from_a_bad_callback() {
    let dir = TempDir::new().unwrap();
    let garbage = file(&dir, "garbage", "{");
    assert_eq!(run(&["verify", "--key", "k", utf8(&garbage)]).status.code(), Some(1));
    let missing = run(&["verify", "--key", "k", "/nowhere"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("cannot open /nowhere"), "{}", stderr(&missing));
    let endless = run(&["verify", "--key", "k", "/dev/zero"]);
    assert_eq!(endless.status.code(), Some(2));
    assert!(stderr(&endless).contains("more than 1 MiB"), "{}", stderr(&endless));
}

#[test]
fn push_url_makes_the_url_that_the_vector_shows() {
    // The vector published with Tencent's push authentication (document 267/31560).
    let key = "e12c46f2612d5106e2034781ab261ca3";
    let url =
        ["push-url", "--key", key, "--domain", "push.example.com", "--stream", "test", "--expires-at", "1546064025"];
    let made = run(&url);
    let query = "txSecret=f85a2ab363fe4deaffef9754d79da6fe&txTime=5C271099";
    assert_eq!(stdout(&made), format!("rtmp://push.example.com/live/test?{query}\n"));
    let made = run(&[&url[..], &["--server", "127.0.0.1:1935"]].concat());
    assert_eq!(stdout(&made), format!("rtmp://127.0.0.1:1935/live/test?domain=push.example.com&{query}\n"));
    let refused = run(&["push-url", "--key", "k", "--domain", "d", "--stream", "s", "--expires", "5w"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("5w") && stderr(&refused).contains("24h"), "{}", stderr(&refused));
    let refused = run(&["push-url", "--key", "k", "--domain", "push.example.com", "--stream", "a/b"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("a/b"), "{}", stderr(&refused));
}

#[test]
fn config_check_names_every_problem_with_its_key_and_value() {
    let dir = TempDir::new().unwrap();
    let wrong = file(
        &dir,
        "wrong.toml",
        "[[snapshot_template]]\nname = \"t\"\nsnapshot_interval = \"1s\"\nwidth = 99999\n[http]\nadr = \"x\"\n",
    );
    let checked = run(&["config", "check", utf8(&wrong)]);
    assert_eq!(checked.status.code(), Some(2));
    let text = stdout(&checked);
    for part in ["snapshot_template[1].snapshot_interval", "1s", "snapshot_template[1].width", "99999", "http.adr"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let checked = run(&["config", "check", "--json", utf8(&wrong)]);
    let report = &json_lines(&stdout(&checked))[0];
    assert_eq!(report["ok"], false);
    assert!(report["problems"].as_array().unwrap().len() >= 3, "{report}");

    let private = file(
        &dir,
        "private.toml",
        "[[callback_template]]\nname = \"t\"\nsnapshot_notify_url = \"http://10.1.2.3/cb\"\n",
    );
    let checked = run(&["config", "check", utf8(&private)]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(stdout(&checked).contains("--allow-receiver 10.1.2.3"), "{}", stdout(&checked));
    assert!(run(&["config", "check", "--allow-receiver", "10.0.0.0/8", utf8(&private)]).status.success());
    assert!(run(&["config", "check"]).status.success(), "no file at all works");
}

#[test]
fn the_example_configuration_is_accepted_as_it_is_and_with_every_line_in_force() {
    let dir = TempDir::new().unwrap();
    let example = stdout(&run(&["config", "example"]));
    let path = file(&dir, "example.toml", &example);
    assert!(run(&["config", "check", utf8(&path)]).status.success());

    let in_force: Vec<&str> = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    let path = file(&dir, "in-force.toml", &in_force.join("\n"));
    let checked = run(&["config", "check", utf8(&path)]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    assert!(
        stdout(&checked)
            .contains("1 domain, 2 snapshot templates, 1 callback template, 1 snapshot rule, 1 callback rule"),
        "{}",
        stdout(&checked)
    );
    assert!(stdout(&run(&["config", "reference"])).contains("snapshot_interval"));
}

#[test]
fn doctor_says_what_is_bad_how_to_mend_it_and_fails_for_it() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let free = ["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut arguments = vec!["doctor", "--json", "--data-dir", utf8(&data)];
    arguments.extend(free);
    let healthy = run(&arguments);
    assert!(healthy.status.success(), "{}", stdout(&healthy));
    let report = &json_lines(&stdout(&healthy))[0];
    let checks: Vec<&str> =
        report["checks"].as_array().unwrap().iter().filter_map(|check| check["check"].as_str()).collect();
    for check in ["config", "clock", "disk", "jail", "codecs", "store", "database"] {
        assert!(checks.contains(&check), "{check} is not among {checks:?}");
    }
    assert!(!data.exists(), "looking changes nothing");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ill = run(&["doctor", "--data-dir", utf8(&data), "--rtmp", &address, "--http", "127.0.0.1:0"]);
    assert_eq!(ill.status.code(), Some(1));
    let text = stdout(&ill);
    assert!(text.contains("bad") && text.contains(&address), "{text}");
}

#[test]
fn wrong_use_is_exit_code_2_and_help_is_enough() {
    for arguments in [&["serve", "--rtmpp", "x"][..], &["nonsense"], &["deliveries", "list", "--limit", "0"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let serve = run(&["serve", "--rtmp", "nowhere"]);
    assert_eq!(serve.status.code(), Some(2));
    assert!(stderr(&serve).contains("rtmp.addr") && stderr(&serve).contains("nowhere"), "{}", stderr(&serve));
    for command in ["serve", "demo", "receive", "verify", "push-url", "doctor", "config", "deliveries", "keys", "audit"]
    {
        let help = run(&[command, "--help"]);
        assert!(help.status.success() && stdout(&help).contains("Usage: framehook"), "{command}");
    }
    assert!(stdout(&run(&["--help"])).starts_with("Watches live streams"), "{}", stdout(&run(&["--help"])));
    let unreachable = run(&["deliveries", "list", "--data-dir", "/nowhere"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(stderr(&unreachable).contains("/nowhere/control.sock"), "{}", stderr(&unreachable));
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    // `script` gives the command a terminal.
    let on_terminal = |environment: &str| {
        let line = format!("{environment} {FRAMEHOOK} config check");
        let ran = Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output().unwrap();
        stdout(&ran)
    };
    assert!(on_terminal("").contains("\x1b[32mgood\x1b[0m"), "{}", on_terminal(""));
    assert!(!on_terminal("NO_COLOR=1").contains('\x1b'));
    assert!(!stdout(&run(&["config", "check"])).contains('\x1b'));
}

#[test]
fn a_terminal_is_shown_text_and_the_first_start_s_secret_once() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let start_and_end = || {
        let line = format!(
            "{FRAMEHOOK} serve --data-dir {data} --rtmp 127.0.0.1:0 --http 127.0.0.1:0 & \
             until [ -e {data}/addresses.json ]; do sleep 0.05; done; kill $!; wait $!; rm {data}/addresses.json",
            data = utf8(&data)
        );
        stdout(&Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap())
    };
    let first = start_and_end();
    let secret = fs::read_to_string(data.join("credentials")).unwrap();
    let secret = secret.lines().find_map(|line| line.strip_prefix("secret_key=")).unwrap();
    assert!(first.contains(&format!("secret_key={secret}")), "{first}");
    let again = start_and_end();
    assert!(!again.contains(secret), "{again}");
    for text in [first, again] {
        assert!(text.contains("listens") && !text.lines().any(|line| line.starts_with('{')), "{text}");
    }
}
