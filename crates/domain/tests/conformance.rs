//! Conformance items of the CSS specification that cross several modules, through the public interface only.

use framehook_domain::callback::{SnapshotStored, render};
use framehook_domain::catalog::{AdmitPolicy, Catalog, CatalogParts, Domain, PushAuth};
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::object_key::Naming;
use framehook_domain::push_auth::{self, PushKey, PushKeys};
use framehook_domain::refusal::Refusal;
use framehook_domain::rule::{RuleScope, SnapshotRule};
use framehook_domain::stream::{DomainName, PublishAddress};
use framehook_domain::template::{CallbackKey, ImageFormat, RenditionName, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_domain::time::{NameZone, UnixMs};

/// A catalog with one guarded domain and one rule, whose template has CSS's defaults but for `prefix`.
fn catalog(domain: &str, prefix: Option<&str>) -> Catalog {
    let keys = PushKeys {
        main: PushKey::parse("M4sterPushKey0123456789abcdefXYZ").expect("a key"),
        backup: None,
        auth_delta: std::time::Duration::ZERO,
    };
    let draft = SnapshotTemplateDraft {
        name: "shots".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "ap-guangzhou".into(),
        prefix: prefix.map(Into::into),
        ..SnapshotTemplateDraft::default()
    };
    let parts = CatalogParts {
        domains: vec![Domain {
            name: DomainName::parse(domain).expect("a domain"),
            enabled: true,
            auth: Some(PushAuth { enabled: true, keys }),
        }],
        snapshot_templates: vec![SnapshotTemplate::validate(TemplateId(1), draft).expect("a template")],
        snapshot_rules: vec![SnapshotRule {
            id: RuleId(1),
            scope: RuleScope::parse(domain, "live", "").expect("a scope"),
            template: TemplateId(1),
        }],
        ..CatalogParts::default()
    };
    Catalog::build(1, parts).expect("a catalog")
}

struct Picture {
    captured_secs: i64,
    sent_secs: i64,
    bytes: u64,
}

/// From what an encoder sends to the callback about a 1280×720 picture of it.
fn callback_for(catalog: &Catalog, address: &PublishAddress, picture: &Picture) -> String {
    let now = UnixMs::from_secs(picture.captured_secs);
    let stream = catalog.admit(address, now, &AdmitPolicy::default()).expect("admitted").stream;
    let (_, template) = catalog.snapshot_rule_for(&stream).expect("a rule");
    let naming = Naming {
        stream: &stream,
        create_time: now,
        zone: &NameZone::default(),
        width: 1280,
        height: 720,
        rendition: RenditionName::MAIN,
        format: ImageFormat::Jpeg,
    };
    let key = template.pattern.expand(&naming);
    let body = SnapshotStored {
        stream: &stream,
        param: &address.param,
        create_time: now,
        file_size_bytes: picture.bytes,
        width: 1280,
        height: 720,
        pic_url: &key.pic_url(),
        pic_full_url: &key.pic_full_url(&format!("http://{}", template.store.cos_host())),
        task_id: None,
        rendition: None,
    }
    .body();
    let callback_key = CallbackKey::parse("k3yForDocs2024").expect("a key");
    String::from_utf8(render(&body, Some(&callback_key), UnixMs::from_secs(picture.sent_secs))).expect("UTF-8")
}

#[test]
fn item_2_the_golden_body_follows_from_the_push_and_the_template() {
    let golden = include_str!("../src/callback/golden/snapshot.json").trim_ascii_end();
    let publish_name = "room_1001?txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF";
    let address = PublishAddress::parse("rtmp://push.example.com/live", "live", publish_name).expect("an address");
    let picture = Picture { captured_secs: 1735689600, sent_secs: 1735689601, bytes: 48213 };
    assert_eq!(callback_for(&catalog("push.example.com", None), &address, &picture), golden);

    let report = framehook_verify::css::report(golden.as_bytes(), Some(&["k3yForDocs2024"]), 1735689602);
    assert!(report.passed(), "{report:?}");
}

#[test]
fn the_published_sample_follows_from_its_stream_and_create_time() {
    let published: serde_json::Value =
        serde_json::from_str(include_str!("../src/callback/golden/published_sample.json")).expect("JSON");
    let key = PushKey::parse("M4sterPushKey0123456789abcdefXYZ").expect("a key");
    let catalog = catalog("test.app", Some("{StreamID}"));
    let stream = framehook_domain::stream::StreamName::parse("channelid").expect("a stream");
    let (tx_secret, tx_time) = push_auth::sign(&key, &stream, UnixMs::from_secs(1622700000));
    let publish_name = format!("channelid?txSecret={tx_secret}&txTime={tx_time}");
    let address = PublishAddress::parse("rtmp://test.app/live", "live", publish_name).expect("an address");

    let picture = Picture { captured_secs: 1622599925, sent_secs: 1622599925, bytes: 30670 };
    let sent: serde_json::Value = serde_json::from_str(&callback_for(&catalog, &address, &picture)).expect("JSON");
    for field in ["app", "appname", "create_time", "event_type", "file_size", "height", "pic_url", "t", "width"] {
        assert_eq!(sent[field], published[field], "{field}");
    }
    let names =
        |value: &serde_json::Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    assert_eq!(names(&sent), names(&published));
}

#[test]
fn the_full_push_url_of_the_specification_is_admitted_until_it_expires() {
    let url = "rtmp://push.example.com/live/room_1001?txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF";
    // An encoder that splits nothing sends the whole URL as tcUrl and an empty publish name.
    let address = PublishAddress::parse(url, "live", "").expect("an address");
    let catalog = catalog("push.example.com", None);
    let admit = |now_secs| catalog.admit(&address, UnixMs::from_secs(now_secs), &AdmitPolicy::default()).map(|_| ());
    assert_eq!(admit(1_767_225_599), Ok(()));
    assert_eq!(admit(1_767_225_600), Err(Refusal::Expired));
}
