//! What goes wrong between us and a store, and what is made of it.

use std::time::{Duration, Instant};

use framehook_domain::fault::Fault;
use framehook_server::store::{Bucket, Retry, Scope, StoreError};
use framehook_testkit::http;
use framehook_testkit::object_server::{ACCOUNT, EXPIRED, Kind, ObjectServer, TEMPORARY};
use framehook_testkit::proxy::{Line, Proxy};
use framehook_testkit::tls::Ca;

use crate::subject::{BUCKET, Subject, each_remote, target, upload};

const KINDS: [Kind; 2] = [Kind::Cos, Kind::S3];

fn credentials(id: &str, key: &str, token: &str) -> String {
    format!("secret_id = \"{id}\"\nsecret_key = \"{key}\"\nsession_token = \"{token}\"")
}

/// The code that the store gave.
fn code(error: &StoreError) -> &str {
    match error {
        StoreError::Answered { refusal, .. } => &refusal.code,
        other => panic!("the store did not answer: {other:?}"),
    }
}

#[test]
fn wrong_credentials_hold_the_picture_for_a_person() {
    const KEYS: &str = "correct the store's secret_id and secret_key";
    const TOKEN: &str = "renew the store's temporary credentials";
    let (id, key) = ACCOUNT;
    let rows = [
        ("an unknown id", credentials("AKIDunknown", key, ""), "InvalidAccessKeyId", KEYS),
        ("a wrong key", credentials(id, "keyOfSomebodyElse", ""), "SignatureDoesNotMatch", KEYS),
        ("a token that has expired", credentials(EXPIRED.0, EXPIRED.1, EXPIRED.2), "ExpiredToken", TOKEN),
        ("another's token", credentials(TEMPORARY.0, TEMPORARY.1, "tok-of-another"), "InvalidAccessKeyId", KEYS),
    ];
    for kind in KINDS {
        for (name, table, expected, mend) in &rows {
            let subject = Subject::remote_as(kind, table);
            let error = subject.put("a.jpg", b"picture").expect_err(name);
            assert_eq!(code(&error), *expected, "{subject} {name}: {error}");
            assert_eq!((error.retry(), error.fault(), error.name()), (Retry::Held, Fault::Dependency, "refused"));
            assert_eq!(error.scope(), Scope::Bucket, "{name}");
            let told = format!("{error} {error:?}");
            assert!(!told.contains("keyOf") && !told.contains("tok-of-another"), "{told}");
            let probed = subject.probe().expect_err(name);
            assert_eq!((code(&probed), probed.mend()), (*expected, *mend), "{subject} {name}: {probed}");
            assert_eq!(error.mend(), *mend, "{subject} {name}");
            assert_eq!(subject.read("a.jpg"), None, "{subject} {name}");
        }
    }
}

#[test]
fn temporary_credentials_put_as_others_do() {
    for kind in KINDS {
        let subject = Subject::remote_as(kind, &credentials(TEMPORARY.0, TEMPORARY.1, TEMPORARY.2));
        subject.put("a b.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        assert_eq!(subject.read("a b.jpg").as_deref(), Some(&b"picture"[..]), "{subject}");
    }
}

#[test]
fn a_file_of_credentials_may_be_mended_while_pictures_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("credentials");
    for kind in KINDS {
        let _ = std::fs::remove_file(&file);
        let subject = Subject::remote_as(kind, &format!("credentials_file = \"{}\"", file.display()));
        let error = subject.put("a.jpg", b"picture").expect_err("no file");
        assert!(matches!(error, StoreError::Credentials { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Held);
        std::fs::write(&file, format!("secret_id={}\nsecret_key={}\n", ACCOUNT.0, ACCOUNT.1)).expect("a file");
        subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
    }
}

#[test]
fn a_bucket_that_is_missing_holds_the_picture() {
    each_remote(|subject, _| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.jpg");
        std::fs::write(&file, b"picture").expect("a file");
        let bucket = Bucket { name: "missing-1250000000", ..subject.bucket() };
        let error = subject.put_into(bucket, "a.jpg", upload(&file)).expect_err("no bucket");
        assert_eq!((code(&error), error.retry()), ("NoSuchBucket", Retry::Held), "{subject}: {error}");
        assert!(error.mend().contains("make the bucket"), "{}", error.mend());
        let probed = subject.probe_of(bucket).expect_err("no bucket");
        assert_eq!((code(&probed), probed.mend()), ("NoSuchBucket", error.mend()), "{subject}: {probed}");
    });
}

#[test]
fn a_bucket_that_has_no_url_holds_its_pictures_for_a_person_and_gives_none_up() {
    each_remote(|subject, _| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.jpg");
        std::fs::write(&file, b"picture").expect("a file");
        let error = subject.put_into(Bucket { name: "Shots_1", ..subject.bucket() }, "a.jpg", upload(&file));
        let error = error.expect_err("no name of a host");
        assert!(matches!(error, StoreError::NoUrl { .. }), "{subject}: {error:?}");
        assert_eq!((error.retry(), error.scope(), error.fault()), (Retry::Held, Scope::Bucket, Fault::Dependency));
        assert!(error.mend().contains("path_style"), "{}", error.mend());
    });
}

#[test]
fn a_store_that_is_busy_or_broken_is_tried_again() {
    each_remote(|subject, server| {
        for (status, name) in [("503", "slow_down"), ("500", "failed")] {
            server.fault(status).expect("ordered");
            let error = subject.put("a.jpg", b"picture").expect_err(status);
            assert_eq!((error.retry(), error.name()), (Retry::Later, name), "{subject}: {error}");
            subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        }
        assert_eq!(subject.read("a.jpg").as_deref(), Some(&b"picture"[..]), "{subject}");
    });
}

#[test]
fn bytes_that_are_damaged_on_the_way_are_refused_and_sent_again() {
    each_remote(|subject, server| {
        server.fault("damage").expect("ordered");
        let error = subject.put("a.jpg", b"picture").expect_err("damaged");
        assert_eq!((code(&error), error.retry()), ("BadDigest", Retry::Later), "{subject}: {error}");
        assert_eq!(error.scope(), Scope::Object, "one object's bytes say nothing of the others");
        assert_eq!(subject.read("a.jpg"), None, "{subject}");
        subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
    });
}

#[test]
fn a_clock_that_is_far_off_holds_the_picture_and_is_named() {
    const CLOCK: &str = "set this machine's clock: it differs from the store's";
    let (id, key) = ACCOUNT;
    for kind in KINDS {
        // Our clock is behind by an hour, then ahead.
        for (ahead_secs, expected) in [(3600, "AccessDenied"), (-3600, "RequestTimeTooSkewed")] {
            let server = ObjectServer::start_with_clock(kind, &target(), ahead_secs).expect("a server");
            let subject = Subject::at(server, kind, &credentials(id, key, ""));
            let error = subject.put("a.jpg", b"picture").expect_err("off by an hour");
            assert_eq!((code(&error), error.retry()), (expected, Retry::Held), "{subject} {ahead_secs}: {error}");
            assert_eq!(error.mend(), CLOCK, "{subject} {ahead_secs}: {error}");
            assert_eq!(subject.probe().expect_err("off by an hour").mend(), CLOCK, "{subject} {ahead_secs}");
        }
        // Ten minutes are within what stores allow.
        for ahead_secs in [600, -600] {
            let server = ObjectServer::start_with_clock(kind, &target(), ahead_secs).expect("a server");
            let subject = Subject::at(server, kind, &credentials(id, key, ""));
            if (kind, ahead_secs) == (Kind::Cos, -600) {
                // COS takes no signature before its window, which begins a minute before our present.
                let error = subject.put("a.jpg", b"picture").expect_err("too early");
                assert_eq!((error.retry(), error.mend()), (Retry::Held, CLOCK), "{error}");
                continue;
            }
            subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject} {ahead_secs}: {error:?}"));
        }
    }
}

#[test]
fn a_store_with_a_certificate_of_a_private_authority_is_believed_with_its_ca_file_alone() {
    let (ca, dir) = (Ca::new().expect("an authority"), tempfile::tempdir().expect("a directory"));
    let [cert, key, ca_file] = ["cert.pem", "key.pem", "ca.pem"].map(|name| dir.path().join(name));
    let issued = ca.issue(2999).expect("a certificate");
    for (path, text) in [(&cert, issued.cert), (&key, issued.key), (&ca_file, ca.pem())] {
        std::fs::write(path, text).expect("a file");
    }
    let server = ObjectServer::start_private(&target(), &cert, &key).expect("a server");
    let address = server.address();
    let has = |key: &str| {
        let stream = ca.connect(address, Duration::from_secs(20)).expect("a private connection");
        let asked = format!("/.has/{BUCKET}/{key}");
        http::Connection::over(stream, "localhost").request("GET", &asked, &[], b"").expect("an answer").status == 200
    };
    let store = |more: &str| {
        let config = format!(
            "[[object_store]]\nname = \"s3\"\nkind = \"s3\"\nregion = \"us-east-1\"\npath_style = true\n\
             endpoint = \"https://localhost:{}\"\nconnect_to = \"{address}\"\n{}\n{more}",
            address.port(),
            credentials(ACCOUNT.0, ACCOUNT.1, "")
        );
        Subject::with("s3".to_owned(), &config, None)
    };
    let error = store("").put("a.jpg", b"picture").expect_err("an authority that nobody knows");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(!has("a.jpg"));
    let believing = store(&format!("ca_file = \"{}\"", ca_file.display()));
    believing.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{error:?}"));
    assert!(has("a.jpg") && believing.exists("a.jpg").expect("asked"));
}

/// A store behind a line that can break.
fn behind_a_line(kind: Kind, timeout: &str) -> (Subject, Proxy) {
    let server = ObjectServer::start(kind, &target()).expect("a server");
    let proxy = Proxy::start(server.address()).expect("a proxy");
    let table = format!("{}\ntimeout = \"{timeout}\"", credentials(ACCOUNT.0, ACCOUNT.1, ""));
    (Subject::through(server, proxy.address(), kind, &table), proxy)
}

#[test]
fn a_store_that_hangs_is_given_up_in_time() {
    for kind in KINDS {
        let (subject, proxy) = behind_a_line(kind, "500ms");
        subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        for line in [Line::Stalled, Line::Slow(1000)] {
            proxy.set(line);
            let began = Instant::now();
            let error = subject.put("b.jpg", &[7; 100_000]).expect_err("it hangs");
            assert!(matches!(error, StoreError::TimedOut { .. }), "{subject} {line:?}: {error:?}");
            assert_eq!(error.retry(), Retry::Later);
            assert!(began.elapsed() < Duration::from_secs(5), "{subject} {line:?}: {:?}", began.elapsed());
        }
    }
}

#[test]
fn a_line_that_breaks_in_the_middle_leaves_no_half_of_a_picture() {
    let picture = vec![7; 3_000_000];
    for kind in KINDS {
        let (subject, proxy) = behind_a_line(kind, "60s");
        proxy.set(Line::Slow(4_000_000));
        std::thread::scope(|scope| {
            let put = scope.spawn(|| subject.put("a.jpg", &picture));
            while proxy.passed_bytes() < 500_000 {
                std::thread::yield_now();
            }
            proxy.set(Line::Reset);
            let error = put.join().expect("no panic").expect_err("the line broke");
            assert!(matches!(error, StoreError::Unreachable { .. }), "{subject}: {error:?}");
            assert_eq!(error.retry(), Retry::Later);
        });
        let unreachable = subject.put("a.jpg", &picture).expect_err("the line is broken");
        assert!(matches!(unreachable, StoreError::Unreachable { .. }), "{subject}: {unreachable:?}");
        proxy.set(Line::Open);
        assert_eq!(subject.read("a.jpg"), None, "{subject}");
        subject.put("a.jpg", &picture).unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        assert!(subject.read("a.jpg").as_ref() == Some(&picture), "{subject}");
    }
}

#[test]
fn a_kept_connection_that_the_store_has_closed_costs_nothing() {
    for kind in KINDS {
        let (subject, proxy) = behind_a_line(kind, "10s");
        for round in 0..20 {
            // Also where the end crosses with the request.
            subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject} {round}: {error:?}"));
            proxy.set(Line::Closed);
            proxy.set(Line::Open);
        }
    }
}
