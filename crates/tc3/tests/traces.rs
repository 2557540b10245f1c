//! What the vendor's own SDKs sent, replayed. `tests/traces/README.md` says how they were recorded.

use std::fs;
use std::path::{Path, PathBuf};

use framehook_tc3::action::screenshot_count::{DescribeScreenshotCounts, Granularity};
use framehook_tc3::action::snapshot_template::{Bucket, CreateSnapshotTemplate, SnapshotOptions};
use framehook_tc3::action::{Action, Request};
use framehook_tc3::envelope::{Call, HttpRequest};
use framehook_tc3::sign::v1::Digest;
use framehook_tc3::sign::{SignatureKind, Verified};
use framehook_tc3::time::UnixSecs;

const SECRET_ID: &str = "AKIDexampleExampleExampleExample0001";
const SECRET_KEY: &str = "exampleSecretKeyExampleSecretKey01";

/// Some seconds after the last one was recorded.
const NOW: UnixSecs = UnixSecs(1_795_324_700);

/// A request in parts.
struct Trace {
    method: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Trace {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a trace");
        let (head, body) = text.split_once("\n\n").expect("an empty line behind the head");
        let mut lines = head.lines();
        let request_line: Vec<_> = lines.next().expect("a request line").split(' ').collect();
        let query = request_line[1].strip_prefix('/').expect("the path /");
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            method: request_line[0].to_owned(),
            query: query.strip_prefix('?').unwrap_or(query).to_owned(),
            headers: lines.map(|line| header(line).expect("a header")).collect(),
            body: body.strip_suffix('\n').expect("a line feed at the end").into(),
        }
    }

    fn verify(&self, secret_key: &str) -> (Action, Result<Verified, String>, Request) {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = HttpRequest { method: &self.method, query: &self.query, headers: &headers, body: &self.body };
        let mut call = Call::parse(&request).expect("a call");
        assert_eq!(call.unverified.secret_id(), SECRET_ID);
        let verified = call.unverified.verify(secret_key, NOW).map_err(|error| error.code.to_string());
        let request = Request::parse(call.action, &mut call.params, NOW).expect("parameters");
        assert_eq!(call.params.unread().count(), 0, "every parameter is known: {:?}", call.params);
        (call.action, verified, request)
    }
}

fn traces() -> Vec<(String, Trace)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let files = fs::read_dir(directory).expect("the traces").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "http")).collect();
    paths.sort();
    let name = |path: &Path| path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
    paths.iter().map(|path| (name(path), Trace::read(path))).collect()
}

fn expected_kind(name: &str, kind: &SignatureKind) -> bool {
    match kind {
        SignatureKind::Tc3 { payload_is_signed } => {
            name.contains("-tc3-") && *payload_is_signed != name.ends_with("unsigned-payload")
        }
        SignatureKind::V1 { digest: Digest::HmacSha1, .. } => name.contains("-sha1-"),
        SignatureKind::V1 { digest: Digest::HmacSha256, .. } => name.contains("-sha256-"),
    }
}

#[test]
fn every_sdk_is_recognised() {
    let traces = traces();
    assert_eq!(traces.len(), 11);
    for (name, trace) in traces {
        let (action, verified, request) = trace.verify(SECRET_KEY);
        let verified = verified.expect(&name);
        assert_eq!(verified.secret_id, SECRET_ID, "{name}");
        assert!(expected_kind(&name, &verified.kind), "{name}: {verified:?}");
        let expected = match action {
            Action::CreateLiveSnapshotTemplate => Request::CreateLiveSnapshotTemplate(CreateSnapshotTemplate {
                template_name: "封面_10s".into(),
                bucket: Bucket {
                    cos_app_id: 1_250_000_000,
                    cos_bucket: "shots".into(),
                    cos_region: "ap-guangzhou".into(),
                },
                options: SnapshotOptions {
                    snapshot_interval: Some(10),
                    width: Some(0),
                    height: Some(360),
                    ..SnapshotOptions::default()
                },
            }),
            Action::DescribeScreenShotSheetNumList => {
                Request::DescribeScreenShotSheetNumList(DescribeScreenshotCounts {
                    start: UnixSecs(1_793_462_400),
                    end: UnixSecs(1_793_548_800),
                    zone: None,
                    push_domains: vec!["push.example.com".into(), "push2.example.com".into()],
                    granularity: Granularity::Day,
                })
            }
            other => panic!("{name} asks for {other}"),
        };
        assert_eq!(request, expected, "{name}");
    }
}

#[test]
fn another_key_is_refused() {
    for (name, trace) in traces() {
        let (_, verified, _) = trace.verify("exampleSecretKeyExampleSecretKey02");
        assert_eq!(verified, Err("AuthFailure.SignatureFailure".into()), "{name}");
    }
}

#[test]
fn only_the_unsigned_body_can_be_changed() {
    for (name, mut trace) in traces().into_iter().filter(|(_, trace)| trace.method == "POST") {
        let body = String::from_utf8(trace.body).expect("UTF-8");
        trace.body = body.replace("shots", "thief").replace("push2", "thief").into_bytes();
        let (_, verified, _) = trace.verify(SECRET_KEY);
        assert_eq!(verified.is_ok(), name.ends_with("unsigned-payload"), "{name}");
    }
}
