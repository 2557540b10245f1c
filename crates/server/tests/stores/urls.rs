//! Where receivers fetch objects, and what objects are put with.

use framehook_domain::object_key::{Naming, ObjectFileName, ObjectKey, ObjectPattern, ObjectPrefix};
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use framehook_domain::template::{ImageFormat, RenditionName, StoreTarget};
use framehook_domain::time::{NameZone, UnixMs};
use framehook_server::clock::Clock;
use framehook_server::store::Retry;
use framehook_testkit::http;
use framehook_testkit::object_server::{BUCKETS, Kind};
use framehook_testkit::receiver::{Receiver, Reply, Request};
use std::time::{Duration, Instant};

use crate::subject::{BUCKET, Subject, each_remote};

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key with characters that a URL writes otherwise.
fn odd_key() -> ObjectKey {
    let pattern = ObjectPattern::new(
        ObjectPrefix::parse("a!/{StreamID}").expect("a prefix"),
        ObjectFileName::parse("b*{Ext}").expect("a file name"),
    );
    pattern.expect("a pattern").expand(&Naming {
        stream: &StreamId {
            domain: DomainName::parse("push.example.com").expect("a domain"),
            app: AppName::parse("live").expect("an app"),
            name: StreamName::parse("x+y=z@1~").expect("a stream"),
        },
        create_time: UnixMs(0),
        zone: &NameZone::default(),
        width: 1,
        height: 1,
        rendition: RenditionName::MAIN,
        format: ImageFormat::Jpeg,
    })
}

fn url_of(subject: &Subject, key: &ObjectKey, now: UnixMs) -> String {
    subject.store().full_url(subject.bucket(), key.as_str(), now).expect("a URL")
}

const ODD_PATH: &str = "/a%21/x%2By%3Dz%401~/b%2A.jpg";

fn keys(more: &str) -> String {
    format!("secret_id = \"A\"\nsecret_key = \"B\"\n{more}")
}

#[test]
fn a_url_is_the_stores_own_unless_another_is_configured() {
    let rows = [
        (
            Kind::Cos,
            "public_url = \"https://cdn.example.com/live/\"",
            format!("https://cdn.example.com/live{ODD_PATH}"),
        ),
        (
            Kind::Cos,
            "public_url = \"https://{bucket}.cos.{region}.tencentcos.cn\"",
            format!("https://{BUCKET}.cos.ap-guangzhou.tencentcos.cn{ODD_PATH}"),
        ),
        (
            Kind::S3,
            "public_url = \"https://{bucket}.cdn.example.com\"",
            format!("https://{BUCKET}.cdn.example.com{ODD_PATH}"),
        ),
    ];
    for (kind, more, expected) in rows {
        let subject = Subject::remote_as(kind, &keys(more));
        assert_eq!(url_of(&subject, &odd_key(), UnixMs(0)), expected);
    }
}

#[test]
fn a_cos_url_is_as_in_the_vendors_samples_unless_anything_is_configured() {
    let config = format!("[[object_store]]\nname = \"cos\"\nkind = \"cos\"\n{}", keys(""));
    let subject = Subject::with("cos".to_owned(), &config, None);
    let expected = format!("http://{BUCKET}.cos.ap-guangzhou.myqcloud.com{ODD_PATH}");
    assert_eq!(url_of(&subject, &odd_key(), UnixMs(0)), expected);
}

#[test]
fn an_s3_url_is_awss_own_in_both_styles_unless_anything_is_configured() {
    let rows = [
        ("", format!("https://{BUCKET}.s3.us-east-1.amazonaws.com{ODD_PATH}")),
        ("path_style = true", format!("https://s3.us-east-1.amazonaws.com/{BUCKET}{ODD_PATH}")),
    ];
    for (more, expected) in rows {
        let config =
            format!("[[object_store]]\nname = \"s3\"\nkind = \"s3\"\nregion = \"us-east-1\"\n{more}\n{}", keys(""));
        let subject = Subject::with("s3".to_owned(), &config, None);
        assert_eq!(url_of(&subject, &odd_key(), UnixMs(0)), expected);
    }
}

#[test]
fn a_template_finds_its_store_by_region_account_and_bucket() {
    let subject = Subject::remote(Kind::Cos, "app_ids = [1250000000]");
    let chosen = |app_id, region| {
        let chosen = subject.stores().choose(&StoreTarget::new(app_id, "shots", region).expect("a target"));
        (chosen.name.to_string(), chosen.bucket, chosen.store.is_some())
    };
    assert_eq!(chosen(1_250_000_000, "beijing"), ("cos".to_owned(), BUCKETS[0].to_owned(), true));
    assert_eq!(chosen(1_250_000_000, "local"), ("local".to_owned(), BUCKETS[0].to_owned(), true));
    assert_eq!(chosen(7, "beijing"), ("unclaimed".to_owned(), "shots-7".to_owned(), false));
    let short = Subject::remote(Kind::S3, "short_bucket_names = true");
    let target = StoreTarget::new(7, "shots", "us-east-1").expect("a target");
    assert_eq!(short.stores().choose(&target).bucket, "shots");
}

#[test]
fn a_signed_url_opens_its_object_and_nothing_else_does() {
    each_remote(|subject, server| {
        let more = if subject.to_string().contains("true") { "path_style = true" } else { "" };
        let kind = if subject.to_string().starts_with("cos") { Kind::Cos } else { Kind::S3 };
        let signing = Subject::remote(kind, &format!("{more}\nsigned_urls = true\nsigned_url_life = \"1h\""));
        let (key, now) = (odd_key(), Clock::start().wall());
        signing.put(key.as_str(), b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        let url = url_of(&signing, &key, now);
        let address = signing.server().expect("a server").address();
        let fetch = |url: &str| {
            let (_, rest) = url.split_once("://").expect("a URL");
            let (host, target) = rest.split_once('/').expect("a path");
            let stream = http::connect(address, Duration::from_secs(20)).expect("a connection");
            http::Connection::over(stream, host).request("GET", &format!("/{target}"), &[], b"").expect("an answer")
        };
        let opened = fetch(&url);
        assert_eq!((opened.status, &*opened.body), (200, &b"picture"[..]), "{subject}: {url}");
        assert_eq!(fetch(url.split_once('?').expect("a query").0).status, 403, "{subject}: unsigned");
        let other = url.replace("b%2A.jpg", "c%2A.jpg");
        assert_eq!(fetch(&other).status, 403, "{subject}: another object");
        let old = url_of(&signing, &key, now.minus(Duration::from_secs(3700)));
        assert_eq!(fetch(&old).status, 403, "{subject}: expired");
        let opens = |url: &str| signing.store().still_opens(signing.bucket(), key.as_str(), url, now);
        assert!(opens(&url) && !opens(&old), "{subject}");
        let lasts = |url: &str, secs| {
            let then = now.plus(Duration::from_secs(secs));
            signing.store().opens_for_long(signing.bucket(), key.as_str(), url, then)
        };
        assert!(lasts(&url, 0) && lasts(&url, 1700) && !lasts(&url, 1800), "{subject}: half of its life");
        let plain = url_of(subject, &key, now);
        assert!(!lasts(&plain, 0), "{subject}: from before URLs were signed");
        assert!(subject.store().opens_for_long(subject.bucket(), key.as_str(), &plain, now), "{subject}");
        assert!(!subject.store().opens_for_long(subject.bucket(), key.as_str(), &url, now), "{subject}: signs no more");
        assert!(!plain.contains('?') && plain.ends_with(ODD_PATH), "{plain}");
        let _ = server;
    });
}

#[test]
fn objects_are_put_with_what_is_configured() {
    let rows = [
        (
            Kind::Cos,
            "acl = \"public-read\"\nstorage_class = \"STANDARD_IA\"\nencryption = \"AES256\"",
            vec![
                ("x-cos-acl", "public-read"),
                ("x-cos-storage-class", "STANDARD_IA"),
                ("x-cos-server-side-encryption", "AES256"),
                ("content-type", "image/jpeg"),
            ],
        ),
        (
            Kind::S3,
            "path_style = true\nacl = \"public-read\"\nstorage_class = \"STANDARD_IA\"\nencryption = \"aws:kms\"\n\
             kms_key_id = \"key-1\"",
            vec![
                ("x-amz-acl", "public-read"),
                ("x-amz-storage-class", "STANDARD_IA"),
                ("x-amz-server-side-encryption", "aws:kms"),
                ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
                ("content-type", "image/jpeg"),
            ],
        ),
    ];
    for (kind, more, expected) in rows {
        let subject = Subject::remote(kind, more);
        subject.put("a.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        let read = subject.server().expect("a server").read(BUCKET, "a.jpg").expect("read").expect("an object");
        for (name, value) in expected {
            assert_eq!(read.facts.get(name).map(String::as_str), Some(value), "{kind:?}: {:?}", read.facts);
        }
    }
}

#[test]
fn a_copy_of_what_is_overwritten_is_asked_about_each_time() {
    each_remote(|subject, server| {
        subject.put_overwritten("latest.jpg").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        subject.put("numbered.jpg", b"picture").unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        let caching = |key| {
            let read = server.read(BUCKET, key).expect("read").expect("an object");
            read.facts.get("cache-control").cloned()
        };
        assert_eq!(caching("latest.jpg").as_deref(), Some("no-cache"), "{subject}");
        assert_eq!(caching("numbered.jpg"), None, "{subject}: as the bucket has it");
    });
}

#[test]
fn retention_is_a_tag_and_a_rule_of_the_bucket() {
    each_remote(|subject, server| {
        assert!(!subject.removes_after(7).expect("asked"), "{subject}: nobody has put anything");
        for days in [7, 30, 7] {
            subject.put_for(days, &format!("{days}.jpg")).unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        }
        let rules = server.lifecycle(BUCKET).unwrap_or_else(|error| panic!("{subject}: {error:?}"));
        for days in [7, 30] {
            let id = format!("framehook-retention-days-{days}");
            assert_eq!(rules.iter().filter(|rule| **rule == id).count(), 1, "{subject}: {rules:?}");
            assert!(subject.removes_after(days).expect("asked"), "{subject}: {days}");
        }
        assert!(!subject.removes_after(8).expect("asked"), "{subject}: another number of days");
        server.fault("403").expect("ordered");
        assert_eq!(subject.removes_after(7).expect_err("refused").retry(), Retry::Held, "{subject}");
    });
}

#[test]
fn a_bucket_that_hangs_over_its_rules_holds_up_no_other_of_its_store() {
    let receiver = Receiver::start().expect("a receiver");
    receiver.on_request(|request| {
        let hangs = request.headers.get("host").is_some_and(|host| host.starts_with(BUCKETS[0]));
        if hangs { Reply::Hang } else { Reply::Status(200) }
    });
    let config = format!(
        "[[object_store]]\nname = \"cos\"\nkind = \"cos\"\nconnect_to = \"{}\"\n\
         endpoint = \"http://{{bucket}}.cos.{{region}}.example.com\"\ntimeout = \"10m\"\n{}",
        receiver.address(),
        keys("")
    );
    let subject = Subject::with("cos".to_owned(), &config, None);
    subject.begin_put_for(7, BUCKETS[0]);
    receiver.wait_for(1, PATIENCE).expect("it asks for the rules");
    subject.begin_put_for(7, BUCKETS[1]);
    let is_put = |requests: &[Request]| requests.iter().any(|request| request.method == "PUT").then_some(());
    receiver.wait_until("the other bucket's put", PATIENCE, is_put).expect("it waits for nobody");
}

#[test]
fn a_picture_waits_for_the_rules_of_others_no_longer_than_for_its_own() {
    let receiver = Receiver::start().expect("a receiver");
    // It takes pictures and does not speak of its rules.
    receiver.on_request(|request| if request.method == "GET" { Reply::Hang } else { Reply::Status(200) });
    let config = format!(
        "[[object_store]]\nname = \"cos\"\nkind = \"cos\"\nconnect_to = \"{}\"\n\
         endpoint = \"http://{{bucket}}.cos.{{region}}.example.com\"\ntimeout = \"1s\"\n{}",
        receiver.address(),
        keys("")
    );
    let subject = Subject::with("cos".to_owned(), &config, None);
    let began = Instant::now();
    (1..=20).for_each(|days| subject.begin_put_for(days, BUCKETS[0]));
    let are_put =
        |requests: &[Request]| (requests.iter().filter(|request| request.method == "PUT").count() == 20).then_some(());
    receiver.wait_until("every put", 2 * PATIENCE, are_put).expect("they wait for a second");
    // One after the other they would take 20 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_rule_that_cannot_be_made_keeps_no_picture_back_and_is_not_tried_with_each() {
    each_remote(|subject, server| {
        for (fault, days) in [("403", 7), ("503", 30)] {
            // The first request asks for the rules.
            server.fault(fault).expect("ordered");
            for nth in 0..2 {
                let put = subject.put_for(days, &format!("{days}-{nth}.jpg"));
                put.unwrap_or_else(|error| panic!("{subject} {fault}: {error:?}"));
            }
        }
        assert!(server.lifecycle(BUCKET).is_err(), "{subject}: nothing was written");
    });
}
