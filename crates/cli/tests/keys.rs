//! Keys of the API: added, listed and revoked by command and by request, with a server and without one; and the log of who
//! changed what.

#![expect(clippy::disallowed_methods, reason = "a suite runs the commands that a person would")]

#[path = "sdk/client.rs"]
mod client;
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use client::Sdk;
use common::{DOMAIN, FRAMEHOOK, PATIENCE, config, push_once};
use framehook_testkit::http::{self, Connection, Response};
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use serde_json::{Value, json};

fn serve() -> Server {
    ServerSpec::new(FRAMEHOOK).start().unwrap()
}

/// Runs `framehook` on a data directory, `--json`, as a program would: no terminal.
fn command(data_dir: &Path, words: &[&str]) -> Result<Value> {
    let output = Command::new(FRAMEHOOK).args(words).args(["--json", "--data-dir"]).arg(data_dir).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("no JSON")
}

fn refused(data_dir: &Path, words: &[&str]) -> String {
    let output = Command::new(FRAMEHOOK).args(words).arg("--data-dir").arg(data_dir).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// The pair in the file that a command named.
fn pair(added: &Value) -> (String, String) {
    let text = fs::read_to_string(added["file"].as_str().unwrap()).unwrap();
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    (line("secret_id="), line("secret_key="))
}

fn request(server: &Server, key: &str, method: &str, target: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(server.http_address(), method, target, &headers, body.as_bytes(), PATIENCE).unwrap()
}

fn audit(server: &Server, words: &[&str]) -> Vec<Value> {
    let listed = command(&server.data_dir(), &[&["audit"], words].concat()).unwrap();
    listed["entries"].as_array().unwrap().clone()
}

#[test]
fn a_key_by_command_works_until_it_is_revoked_also_on_a_connection_that_is_open() {
    let server = serve();
    let dir = server.data_dir();
    let added = command(&dir, &["keys", "add", "ci of the shop"]).unwrap();
    assert!(added.get("secret_key").is_none(), "no terminal, no secret: {added}");
    let (id, secret) = pair(&added);
    assert_eq!(added["id"], id.as_str());
    let mode = fs::metadata(added["file"].as_str().unwrap()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", bearer.as_str())];
    let address = server.http_address();
    let mut connection = Connection::over(http::connect(address, PATIENCE).unwrap(), address.to_string());
    assert_eq!(connection.request("GET", "/v1/streams", &headers, b"").unwrap().status, 200);

    let listed = command(&dir, &["keys", "list"]).unwrap();
    let keys = listed["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2, "{listed}");
    assert_eq!((&keys[0]["name"], &keys[0]["created_ms"]), (&json!("credentials"), &Value::Null));
    assert_eq!((&keys[1]["name"], &keys[1]["read_only"]), (&json!("ci of the shop"), &json!(false)));
    assert!(keys[1]["created_ms"].is_i64() && keys[1]["last_used_ms"].is_i64(), "{listed}");
    assert!(!listed.to_string().contains(&secret));

    command(&dir, &["keys", "revoke", &id]).unwrap();
    assert_eq!(connection.request("GET", "/v1/streams", &headers, b"").unwrap().status, 401);
    let mut sdk = Sdk::start(&server);
    sdk.with("secret_id", id.as_str()).with("secret_key", secret.as_str());
    assert_eq!(sdk.code("DescribeLiveDomains", json!({})), "AuthFailure.SecretIdNotFound");
    assert!(refused(&dir, &["keys", "revoke", &id]).contains("no such key"));
    let first = server.credentials().unwrap().secret_id;
    assert!(refused(&dir, &["keys", "revoke", &first]).contains("DIR/credentials"));
    assert!(!server.log().contains(&secret), "the log holds a secret");
}

#[test]
fn a_terminal_is_shown_the_secret_and_no_file_is_left() {
    let server = serve();
    let dir = server.data_dir();
    // `script` gives the command a terminal.
    let line = format!("{FRAMEHOOK} keys add laptop --data-dir {}", dir.display());
    let ran = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    let secret =
        text.lines().find_map(|line| line.trim_end().strip_prefix("secret_key=")).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(request(&server, secret, "GET", "/v1/streams", &Value::Null).status, 200);
    assert!(!dir.join("keys").exists());
}

#[test]
fn a_read_only_key_looks_and_changes_nothing() {
    let server = serve();
    let added = command(&server.data_dir(), &["keys", "add", "wall", "--read-only"]).unwrap();
    let (id, secret) = pair(&added);
    for target in ["/v1/streams", "/v1/keys", "/v1/audit", "/v1/deliveries"] {
        assert_eq!(request(&server, &secret, "GET", target, &Value::Null).status, 200, "{target}");
    }
    let some = "00000000-0000-7000-8000-000000000000";
    for (method, target) in [
        ("POST", "/v1/keys".to_owned()),
        ("DELETE", format!("/v1/keys/{id}")),
        ("POST", format!("/v1/deliveries/{some}/replay")),
        ("POST", format!("/v1/snapshots/{some}/discard")),
    ] {
        let answer = request(&server, &secret, method, &target, &Value::Null);
        assert_eq!(answer.status, 403, "{method} {target}: {}", answer.text());
        assert_eq!(answer.headers.get("content-type"), Some("application/problem+json"));
    }
    let mut sdk = Sdk::start(&server);
    sdk.with("secret_id", id.as_str()).with("secret_key", secret.as_str());
    sdk.call("DescribeLiveDomains", json!({}));
    sdk.call("DescribeLiveSnapshotTemplates", json!({}));
    let domain = json!({ "DomainName": DOMAIN, "DomainType": 0 });
    assert_eq!(sdk.code("AddLiveDomain", domain.clone()), "UnauthorizedOperation");
    let forbid = json!({ "DomainName": DOMAIN, "AppName": "live", "StreamName": "room" });
    assert_eq!(sdk.code("DropLiveStream", forbid), "UnauthorizedOperation");

    // The same program with a full key.
    let full = command(&server.data_dir(), &["keys", "add", "terraform"]).unwrap();
    let (id, secret) = pair(&full);
    sdk.with("secret_id", id.as_str()).with("secret_key", secret.as_str());
    sdk.call("AddLiveDomain", domain);
}

#[test]
fn a_key_by_request_tells_its_secret_once() {
    let server = serve();
    let first = server.credentials().unwrap().secret_key;
    let answer = request(&server, &first, "POST", "/v1/keys", &json!({ "name": "console", "read_only": true }));
    assert_eq!((answer.status, answer.headers.get("cache-control")), (201, Some("no-store")), "{}", answer.text());
    let added = answer.json().unwrap();
    let secret = added["secret_key"].as_str().unwrap();
    assert_eq!(request(&server, secret, "GET", "/v1/streams", &Value::Null).status, 200);
    let listed = request(&server, secret, "GET", "/v1/keys", &Value::Null);
    assert!(!listed.text().contains(secret) && !listed.text().contains("secret_key"), "{}", listed.text());

    for (order, status) in [
        (json!({ "name": "console" }), 409),
        (json!({ "name": "credentials" }), 409),
        (json!({ "name": "" }), 422),
        (json!({ "name": " padded" }), 422),
        (json!({ "name": "x".repeat(65) }), 422),
        (json!({ "title": "x" }), 422),
    ] {
        let answer = request(&server, &first, "POST", "/v1/keys", &order);
        assert_eq!(answer.status, status, "{order}: {}", answer.text());
    }
    let target = format!("/v1/keys/{}", added["id"].as_str().unwrap());
    assert_eq!(request(&server, &first, "DELETE", &target, &Value::Null).status, 204);
    assert_eq!(request(&server, &first, "DELETE", &target, &Value::Null).status, 404);
    assert_eq!(request(&server, secret, "GET", "/v1/streams", &Value::Null).status, 401);
}

#[test]
fn keys_outlive_the_server_and_are_managed_without_one() {
    let mut server = serve();
    let dir = server.data_dir();
    let (id, secret) = pair(&command(&dir, &["keys", "add", "before"]).unwrap());
    assert_eq!(request(&server, &secret, "GET", "/v1/streams", &Value::Null).status, 200);
    assert_eq!(server.terminate().unwrap().code(), Some(0));

    // The database holds no secret that can be read.
    for file in ["framehook.db", "framehook.db-wal"] {
        let bytes = fs::read(dir.join(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
    }
    let listed = command(&dir, &["keys", "list"]).unwrap();
    assert!(listed["keys"][1]["last_used_ms"].is_i64(), "a use is kept over the end: {listed}");
    let offline = pair(&command(&dir, &["keys", "add", "offline"]).unwrap());
    command(&dir, &["keys", "revoke", &id]).unwrap();
    let noted = command(&dir, &["audit", "--noun", "key"]).unwrap();
    let verbs: Vec<_> = noted["entries"].as_array().unwrap().iter().map(|entry| entry["verb"].clone()).collect();
    assert_eq!(verbs, ["revoke", "create", "create"]);

    server.restart().unwrap();
    assert_eq!(request(&server, &secret, "GET", "/v1/streams", &Value::Null).status, 401);
    assert_eq!(request(&server, &offline.1, "GET", "/v1/streams", &Value::Null).status, 200);

    let nowhere = dir.join("nowhere");
    assert!(refused(&nowhere, &["keys", "list"]).contains("no server has run"), "{}", nowhere.display());
    assert!(!nowhere.exists(), "looking makes nothing");
}

#[test]
fn every_change_is_noted_with_who_made_it_and_without_secrets() {
    let receiver = Receiver::start().unwrap();
    let mut server = serve();
    let (id, secret) = pair(&command(&server.data_dir(), &["keys", "add", "terraform"]).unwrap());
    let mut sdk = Sdk::start(&server);
    sdk.with("secret_id", id.as_str()).with("secret_key", secret.as_str());
    sdk.call("AddLiveDomain", json!({ "DomainName": "a.example.com", "DomainType": 0 }));
    let keys = |main: &str| json!({ "DomainName": "a.example.com", "MasterAuthKey": main, "Enable": 1 });
    sdk.call("ModifyLivePushAuthKey", keys("MainKeyOfTheTest2026"));
    sdk.call("ModifyLivePushAuthKey", keys("AnotherKeyOfTheTest2026"));
    let stream = json!({ "DomainName": "a.example.com", "AppName": "live", "StreamName": "room" });
    sdk.call("ForbidLiveStream", stream.clone());
    sdk.call("ResumeLiveStream", stream.clone());
    sdk.call("DropLiveStream", stream); // Nobody publishes, so nothing is changed.
    sdk.call("DeleteLiveDomain", json!({ "DomainName": "a.example.com", "DomainType": 0 }));
    assert_eq!(
        sdk.code("DeleteLiveDomain", json!({ "DomainName": "a.example.com", "DomainType": 0 })),
        "ResourceNotFound.DomainNotExist"
    );

    let entries = audit(&server, &["--who", &id]);
    let told: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| (entry["verb"].as_str().unwrap(), entry["noun"].as_str().unwrap(), entry["id"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("create", "domain", "a.example.com"),
            ("change", "domain", "a.example.com"),
            ("change", "domain", "a.example.com"),
            ("forbid", "stream", "a.example.com/live/room"),
            ("resume", "stream", "a.example.com/live/room"),
            ("delete", "domain", "a.example.com"),
        ]
    );
    for entry in &entries {
        assert_eq!((&entry["name"], &entry["peer"]), (&json!("terraform"), &json!("127.0.0.1")), "{entry}");
    }
    let changed = entries.iter().rev().nth(2).unwrap();
    let (before, after) = (&changed["before"]["auth"]["main_key"], &changed["after"]["auth"]["main_key"]);
    assert!(before.as_str().unwrap().starts_with("***") && before != after, "{changed}");
    let last = entries.first().unwrap();
    assert_eq!((&last["before"]["auth"]["main_key"], &last["after"]), (after, &Value::Null), "{last}");

    // The file, at a reload: what it declares, with the callback key masked.
    server.reload(&config(&receiver, 2, "")).unwrap();
    let by_file = wait::until("the file's changes", PATIENCE, || {
        let entries = audit(&server, &["--who", "file"]);
        (entries.len() == 5).then_some(entries)
    });
    let nouns: Vec<_> = by_file.unwrap().iter().map(|entry| entry["noun"].as_str().unwrap().to_owned()).collect();
    for noun in ["domain", "snapshot_template", "callback_template", "snapshot_rule", "callback_rule"] {
        assert!(nouns.iter().any(|found| found == noun), "{noun}: {nouns:?}");
    }

    let everything = audit(&server, &[]);
    let text = serde_json::to_string(&everything).unwrap();
    for hidden in ["MainKeyOfTheTest2026", "AnotherKeyOfTheTest2026", common::CALLBACK_KEY, secret.as_str()] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    // Page by page, the same.
    let mut paged = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut words = vec!["audit", "--limit", "4"];
        if let Some(at) = &cursor {
            words.extend(["--cursor", at]);
        }
        let page = command(&server.data_dir(), &words).unwrap();
        paged.extend(page["entries"].as_array().unwrap().clone());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, everything);
    let first = server.credentials().unwrap().secret_key;
    for target in ["/v1/audit?noun=recording", "/v1/audit?limit=0", "/v1/audit?unknown=1"] {
        assert_eq!(request(&server, &first, "GET", target, &Value::Null).status, 400, "{target}");
    }
}

#[test]
fn what_is_replayed_and_cancelled_is_noted() {
    let receiver = Receiver::start().unwrap();
    receiver.reply_always(Reply::Status(500));
    let settings = "[deliver]\nsnapshot_retries = 0\npush_retries = 0\n";
    let server = common::serve(&receiver, 10, settings).unwrap();
    let _encoder = push_once(&server, "room").unwrap();
    let dead = wait::until("dead letters", PATIENCE, || {
        let listed = server.v1("GET", "/v1/deliveries?state=dead", None).ok()?;
        let dead = listed["deliveries"].as_array()?.clone();
        (dead.len() == 3).then_some(dead)
    });
    let dead = dead.unwrap();
    let id = |index: usize| dead[index]["id"].as_str().unwrap();
    receiver.reply_always(Reply::Status(200));
    command(&server.data_dir(), &["deliveries", "replay", id(0)]).unwrap();
    server.v1("POST", &format!("/v1/deliveries/{}/cancel", id(1)), None).unwrap();
    assert!(
        server.v1("POST", &format!("/v1/deliveries/{}/cancel", id(1)), None).unwrap_err().to_string().contains("409")
    );
    let replayed = audit(&server, &["--noun", "delivery", "--id", id(0)]);
    assert_eq!((&replayed[0]["verb"], &replayed[0]["who"]), (&json!("replay"), &json!("control")), "{replayed:?}");
    assert_eq!(replayed[0]["before"], json!({ "state": "dead" }));
    let cancelled = audit(&server, &["--noun", "delivery", "--id", id(1)]);
    let who = server.credentials().unwrap().secret_id;
    assert_eq!((&cancelled[0]["verb"], &cancelled[0]["who"]), (&json!("cancel"), &json!(who)), "{cancelled:?}");
    let elsewhere = receiver.url("/elsewhere?token=hushHush");
    command(&server.data_dir(), &["deliveries", "replay", "--url", &elsewhere, id(2)]).unwrap();
    let replayed = audit(&server, &["--noun", "delivery", "--id", id(2)]);
    let url = replayed[0]["after"]["url"].as_str().unwrap();
    assert!(url.starts_with(&receiver.url("/elsewhere?***")) && !url.contains("hushHush"), "{replayed:?}");
    // One that nobody knows: nothing is done and nothing noted.
    let unknown = "00000000-0000-7000-8000-000000000000";
    assert!(server.v1("POST", &format!("/v1/deliveries/{unknown}/cancel"), None).is_err());
    assert_eq!(audit(&server, &["--noun", "delivery"]).len(), 3);
}

#[test]
fn the_table_is_for_people() {
    let server = serve();
    command(&server.data_dir(), &["keys", "add", "ci"]).unwrap();
    let text = |words: &[&str]| {
        let output = Command::new(FRAMEHOOK).args(words).arg("--data-dir").arg(server.data_dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let keys = text(&["keys", "list"]);
    assert!(keys.contains("full") && keys.contains("never used") && keys.contains("ci"), "{keys}");
    let changes = text(&["audit"]);
    assert!(changes.contains("control") && changes.contains("create key FHID"), "{changes}");
    assert!(text(&["audit", "--noun", "domain"]).contains("no changes"));
}

#[test]
fn a_command_without_a_server_makes_nothing_that_a_server_makes() {
    let mut server = ServerSpec::new(FRAMEHOOK).env("FRAMEHOOK_MASTER_KEY", "07".repeat(32)).start().unwrap();
    server.terminate().unwrap();
    let data = server.data_dir();
    let files = || {
        let mut names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let mut list = Command::new(FRAMEHOOK);
    list.args(["keys", "list", "--data-dir"]).arg(&data).env_remove("FRAMEHOOK_MASTER_KEY");
    let refused = list.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("FRAMEHOOK_MASTER_KEY"), "{told}");
    assert_eq!(files(), before);
    fs::remove_file(data.join("credentials")).unwrap();
    let before = files();
    let refused = list.env("FRAMEHOOK_MASTER_KEY", "07".repeat(32)).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("credentials"));
    assert_eq!(files(), before);
}
