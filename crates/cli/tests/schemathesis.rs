//! The document of `/v1` against the running server, by a program that is not ours: schemathesis makes requests of it, good
//! and bad ones, and compares every answer with what the document says.

#![expect(clippy::disallowed_methods, reason = "a suite runs the programs that a customer would")]

mod common;

use std::process::Command;

use common::{DOMAIN, FRAMEHOOK, config, push_once, target, wait_for_snapshots};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::ServerSpec;
use serde_json::json;

/// What no answer may do. That nobody gets in without a key is tested elsewhere: too many tries would lock this one out.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method";

#[test]
fn no_answer_is_other_than_the_document_says() {
    let schemathesis = target().join("schemathesis/bin/schemathesis");
    assert!(schemathesis.exists(), "schemathesis is not installed: run ./dev sdk");
    let receiver = Receiver::start().unwrap();
    let server = ServerSpec::new(FRAMEHOOK).config(config(&receiver, 2, "")).start().unwrap();
    // Something of each noun, so that answers have something to show.
    let _encoder = push_once(&server, "room").unwrap();
    wait_for_snapshots(&receiver, 1).unwrap();
    let made = |path: &str, order| server.v1("POST", path, Some(&order)).unwrap()["id"].take();
    made("/v1/domains", json!({ "name": "api.example.com" }));
    let template = made("/v1/snapshot-templates", json!({ "name": "covers" }));
    made("/v1/snapshot-rules", json!({ "domain": DOMAIN, "app": "vod", "template": template }));
    let url = "http://127.0.0.1:9/";
    let callback = made("/v1/callback-templates", json!({ "name": "moderation", "snapshot_notify_url": url }));
    made("/v1/callback-rules", json!({ "domain": DOMAIN, "app": "vod", "template": callback }));

    let dir = tempfile::tempdir().unwrap();
    let run = Command::new(schemathesis)
        .current_dir(dir.path())
        .args(["--no-color", "run", &format!("http://{}/v1/openapi.json", server.http_address())])
        .args(["--header", &format!("Authorization: Bearer {}", server.credentials().unwrap().secret_key)])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "10"])
        // Its answer has no end; tests/events.rs reads it.
        .args(["--exclude-path", "/v1/events"])
        // The same requests each time: a test that fails fails again. One worker: with more, CPython 3.11 on a busy machine
        // at times stops with "AST constructor recursion depth mismatch", as threads that parse Python share that depth.
        .args(["--generation-deterministic", "--workers", "1", "--request-timeout", "10"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}\nthe server logged:\n{}", server.log());
    assert!(said.contains("operations"), "it tested nothing:\n{said}");
    assert_eq!(server.get("/healthz").unwrap().status, 200);
}
