use alloc::vec;
use core::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    id::TaskId,
    push_auth::{PushKey, PushKeys},
    stream::{AppName, StreamName, StreamParam},
    task::TaskWindow,
    template::{CallbackTemplateDraft, CallbackUrls, SnapshotTemplateDraft},
};

const NOW: UnixMs = UnixMs::from_secs(1_735_689_600);

fn domain_name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a domain")
}

fn domain(name: &str) -> Domain {
    Domain { name: domain_name(name), enabled: true, auth: None }
}

fn guarded(name: &str, enabled: bool) -> Domain {
    let keys = PushKeys {
        main: PushKey::parse("M4sterPushKey0123456789abcdefXYZ").expect("a key"),
        backup: None,
        auth_delta: Duration::ZERO,
    };
    Domain { auth: Some(PushAuth { enabled, keys }), ..domain(name) }
}

fn stream(domain: &str, app: &str, name: &str) -> StreamId {
    StreamId {
        domain: domain_name(domain),
        app: AppName::parse(app).expect("an app"),
        name: StreamName::parse(name).expect("a stream"),
    }
}

fn address(domain: &str, query: &str) -> PublishAddress {
    PublishAddress { stream: stream(domain, "live", "room_1001"), param: StreamParam::parse(query).expect("a query") }
}

fn scope(domain: &str, app: &str, stream: &str) -> RuleScope {
    RuleScope::parse(domain, app, stream).expect("a scope")
}

fn snapshot_template(id: i64) -> SnapshotTemplate {
    let draft = SnapshotTemplateDraft {
        name: "shots".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "ap-guangzhou".into(),
        ..SnapshotTemplateDraft::default()
    };
    SnapshotTemplate::validate(TemplateId(id), draft).expect("a template")
}

fn callback_template(id: i64) -> CallbackTemplate {
    let draft = CallbackTemplateDraft {
        name: "callbacks".into(),
        urls: CallbackUrls { snapshot_notify: Some("https://a.example/".into()), ..CallbackUrls::default() },
        ..CallbackTemplateDraft::default()
    };
    CallbackTemplate::validate(TemplateId(id), draft).expect("a template")
}

fn snapshot_rule(id: i64, scope: RuleScope, template: i64) -> SnapshotRule {
    SnapshotRule { id: RuleId(id), scope, template: TemplateId(template) }
}

fn callback_rule(id: i64, scope: RuleScope, template: i64) -> CallbackRule {
    CallbackRule { id: RuleId(id), scope, template: TemplateId(template) }
}

#[test]
fn admits_known_domains_and_refuses_others_with_their_code() {
    let signed = "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF";
    let catalog = Catalog::build(
        1,
        CatalogParts {
            domains: vec![
                domain("open.example"),
                guarded("guarded.example", true),
                guarded("unguarded.example", false),
                Domain { enabled: false, ..guarded("off.example", true) },
                domain("192.0.2.1"),
            ],
            forbidden: vec![
                ForbiddenStream { stream: stream("forbidden.example", "live", "room_1001"), until: NOW },
                ForbiddenStream { stream: stream("open.example", "vod", "room_1001"), until: UnixMs(NOW.0 + 1) },
            ],
            ..CatalogParts::default()
        },
    )
    .expect("a catalog");
    let cases = [
        ("known", "open.example", "", Ok(())),
        ("known, signature not needed", "unguarded.example", "", Ok(())),
        ("known IP", "192.0.2.1", "", Ok(())),
        ("signed", "guarded.example", signed, Ok(())),
        ("not signed", "guarded.example", "", Err(Refusal::TxTimeMissing)),
        ("disabled comes before the signature", "off.example", "", Err(Refusal::DomainDisabled)),
        ("unknown", "other.example", "", Err(Refusal::DomainUnknown)),
        ("bare IP", "192.0.2.2", "", Err(Refusal::BareIp)),
        ("bare IPv6", "::1", "", Err(Refusal::BareIp)),
        ("localhost", "localhost", "", Err(Refusal::DomainUnknown)),
    ];
    for (name, host, query, expected) in cases {
        let address = address(host, query);
        let admitted = catalog.admit(&address, NOW, &AdmitPolicy::default());
        assert_eq!(admitted, expected.map(|()| Admission { stream: address.stream, by: AdmittedBy::Domain }), "{name}");
    }
}

#[test]
fn refuses_a_forbidden_stream_until_its_time() {
    let forbidden = ForbiddenStream { stream: stream("open.example", "live", "room_1001"), until: NOW };
    let parts = CatalogParts {
        domains: vec![domain("open.example")],
        forbidden: vec![forbidden.clone()],
        ..Default::default()
    };
    let catalog = Catalog::build(1, parts).expect("a catalog");
    let admit = |now| catalog.admit(&address("open.example", ""), now, &AdmitPolicy::default()).map(|_| ());
    assert_eq!(admit(UnixMs(NOW.0 - 1)), Err(Refusal::StreamForbidden));
    assert_eq!(admit(NOW), Ok(()));

    let parts = CatalogParts { forbidden: vec![forbidden], ..Default::default() };
    let catalog = Catalog::build(1, parts).expect("a catalog");
    assert!(catalog.is_empty());
    let admitted = catalog.admit(&address("open.example", ""), UnixMs(NOW.0 - 1), &AdmitPolicy::default());
    assert_eq!(admitted, Err(Refusal::StreamForbidden), "also while nothing else is configured");
}

#[test]
fn the_default_domain_stands_in_for_addresses_only() {
    let parts =
        CatalogParts { domains: vec![guarded("push.example", true), domain("192.0.2.1")], ..Default::default() };
    let catalog = Catalog::build(1, parts).expect("a catalog");
    let policy = AdmitPolicy { default_domain: Some(domain_name("push.example")) };
    let signed = "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF";
    let cases = [
        ("bare IP", "192.0.2.9", signed, Ok("push.example")),
        ("localhost", "localhost", signed, Ok("push.example")),
        ("an IP that was added stays itself", "192.0.2.1", "", Ok("192.0.2.1")),
        ("its signature is checked", "192.0.2.9", "", Err(Refusal::TxTimeMissing)),
        ("not for names", "other.example", signed, Err(Refusal::DomainUnknown)),
    ];
    for (name, host, query, expected) in cases {
        let admitted = catalog.admit(&address(host, query), NOW, &policy);
        assert_eq!(admitted.map(|admission| admission.stream.domain), expected.map(domain_name), "{name}");
    }
    let policy = AdmitPolicy { default_domain: Some(domain_name("gone.example")) };
    assert_eq!(catalog.admit(&address("192.0.2.9", ""), NOW, &policy), Err(Refusal::DomainUnknown));
}

#[test]
fn while_nothing_is_configured_every_host_is_accepted_with_the_built_in_rule() {
    let catalog = Catalog::empty();
    for host in ["push.example.com", "192.0.2.1", "::1", "localhost"] {
        let address = address(host, "");
        assert!(catalog.admit(&address, NOW, &AdmitPolicy::default()).is_ok(), "{host}");
        let (rule, template) = catalog.snapshot_rule_for(&address.stream).expect("the built-in rule");
        assert_eq!((rule, template.id, template.interval.secs()), (BUILT_IN_RULE, TemplateId(0), 10));
        assert_eq!(template.store.full_bucket(), "framehook-1250000000");
        assert_eq!(catalog.callback_template_for(&address.stream), None);
        assert_eq!(catalog.subscriptions_for(&address.stream, NOW).len(), 1);
    }
    assert_eq!(catalog.snapshot_templates().count() + catalog.snapshot_rules().count(), 0, "no list shows it");
}

#[test]
fn the_built_in_rule_ends_with_the_first_object() {
    let firsts = [
        ("domain", CatalogParts { domains: vec![domain("a.example")], ..Default::default() }),
        ("snapshot template", CatalogParts { snapshot_templates: vec![snapshot_template(1)], ..Default::default() }),
        ("callback template", CatalogParts { callback_templates: vec![callback_template(1)], ..Default::default() }),
    ];
    for (name, parts) in firsts {
        let catalog = Catalog::build(1, parts).expect("a catalog");
        assert_eq!(catalog.snapshot_rule_for(&stream("b.example", "live", "room")), None, "{name}");
        let refused = catalog.admit(&address("b.example", ""), NOW, &AdmitPolicy::default());
        assert_eq!(refused, Err(Refusal::DomainUnknown), "{name}");
    }
}

#[test]
fn a_running_push_is_cut_for_what_would_refuse_it_but_not_for_the_first_object() {
    let room = stream("a.example", "live", "room");
    let forbidding = vec![ForbiddenStream { stream: room.clone(), until: UnixMs(NOW.0 + 1) }];
    let lone_template = || CatalogParts { callback_templates: vec![callback_template(1)], ..Default::default() };
    let with_domain =
        |enabled| CatalogParts { domains: vec![Domain { enabled, ..domain("a.example") }], ..CatalogParts::default() };
    let cases = [
        ("nothing is configured", CatalogParts::default(), false, false),
        (
            "nothing but that it is forbidden",
            CatalogParts { forbidden: forbidding.clone(), ..CatalogParts::default() },
            true,
            true,
        ),
        ("its domain is there", with_domain(true), false, false),
        ("its domain is disabled", with_domain(false), true, true),
        ("it is forbidden", CatalogParts { forbidden: forbidding.clone(), ..with_domain(true) }, true, true),
        ("its domain is not there", lone_template(), true, false),
        (
            "its domain is not there, and it is forbidden",
            CatalogParts { forbidden: forbidding, ..lone_template() },
            true,
            true,
        ),
    ];
    for (name, parts, by_domain, by_empty_catalog) in cases {
        let catalog = Catalog::build(1, parts).expect("a catalog");
        for (by, is_cut) in [(AdmittedBy::Domain, by_domain), (AdmittedBy::EmptyCatalog, by_empty_catalog)] {
            let reason = catalog.cut_reason(&room, by, NOW);
            assert_eq!(reason, is_cut.then_some(CutReason::Forbidden), "{name}, admitted by {by:?}");
        }
    }
}

#[test]
fn the_most_specific_rule_gives_the_template() {
    let catalog = Catalog::build(
        1,
        CatalogParts {
            domains: vec![domain("a.example")],
            snapshot_templates: vec![snapshot_template(1), snapshot_template(2)],
            callback_templates: vec![callback_template(1), callback_template(2)],
            snapshot_rules: vec![
                snapshot_rule(11, scope("a.example", "*", "*"), 1),
                snapshot_rule(12, scope("a.example", "live", "room"), 2),
            ],
            callback_rules: vec![
                callback_rule(21, scope("a.example", "live", "*"), 1),
                callback_rule(22, scope("a.example", "*", "*"), 2),
            ],
            ..CatalogParts::default()
        },
    )
    .expect("a catalog");
    let cases = [
        ("its own rule", stream("a.example", "live", "room"), Some((12, 2)), Some(1)),
        ("the domain's", stream("a.example", "live", "other"), Some((11, 1)), Some(1)),
        ("the domain's on another app", stream("a.example", "vod", "room"), Some((11, 1)), Some(2)),
        ("none", stream("b.example", "live", "room"), None, None),
    ];
    for (name, stream, snapshot, callback) in cases {
        let found = catalog.snapshot_rule_for(&stream).map(|(rule, template)| (rule.0, template.id.0));
        assert_eq!(found, snapshot, "{name}");
        assert_eq!(catalog.callback_template_for(&stream).map(|template| template.id.0), callback, "{name}");
    }
}

#[test]
fn refuses_parts_that_do_not_fit_together() {
    let base = || CatalogParts {
        domains: vec![domain("a.example")],
        snapshot_templates: vec![snapshot_template(1)],
        callback_templates: vec![callback_template(1)],
        ..CatalogParts::default()
    };
    let whole = || scope("a.example", "*", "*");
    let cases = [
        (
            CatalogParts { domains: vec![domain("a.example"), domain("A.example")], ..base() },
            CatalogError::DuplicateDomain(domain_name("a.example")),
        ),
        (
            CatalogParts { snapshot_templates: vec![snapshot_template(1), snapshot_template(1)], ..base() },
            CatalogError::DuplicateSnapshotTemplate(TemplateId(1)),
        ),
        (
            CatalogParts { callback_templates: vec![callback_template(1), callback_template(1)], ..base() },
            CatalogError::DuplicateCallbackTemplate(TemplateId(1)),
        ),
        (
            CatalogParts { snapshot_rules: vec![snapshot_rule(1, whole(), 1), snapshot_rule(2, whole(), 1)], ..base() },
            CatalogError::DuplicateSnapshotRule(whole()),
        ),
        (
            CatalogParts {
                snapshot_rules: vec![snapshot_rule(1, whole(), 1), snapshot_rule(1, scope("a.example", "x", "*"), 1)],
                ..base()
            },
            CatalogError::DuplicateRuleId(RuleId(1)),
        ),
        (
            CatalogParts { callback_rules: vec![callback_rule(1, whole(), 1), callback_rule(2, whole(), 1)], ..base() },
            CatalogError::DuplicateCallbackRule(whole()),
        ),
        (
            CatalogParts { snapshot_rules: vec![snapshot_rule(1, scope("b.example", "*", "*"), 1)], ..base() },
            CatalogError::UnknownDomain(scope("b.example", "*", "*")),
        ),
        (
            CatalogParts { snapshot_rules: vec![snapshot_rule(1, whole(), 2)], ..base() },
            CatalogError::UnknownTemplate { scope: whole(), template: TemplateId(2) },
        ),
        (
            CatalogParts { callback_rules: vec![callback_rule(1, whole(), 2)], ..base() },
            CatalogError::UnknownTemplate { scope: whole(), template: TemplateId(2) },
        ),
        (
            CatalogParts { callback_rules: vec![callback_rule(1, scope("a.example", "*", "room"), 1)], ..base() },
            CatalogError::CallbackRuleOfStream(scope("a.example", "*", "room")),
        ),
    ];
    for (parts, expected) in cases {
        assert_eq!(Catalog::build(1, parts).err(), Some(expected));
    }
}

fn task(id: u128, name: &str, template: i64, window: (i64, i64)) -> ScreenshotTask {
    let (start, end) = (UnixMs(window.0), UnixMs(window.1));
    ScreenshotTask {
        id: TaskId(Uuid::from_u128(id)),
        stream: stream("a.example", "live", name),
        template: TemplateId(template),
        window: TaskWindow::from_stored(start, end).expect("a window"),
    }
}

/// A domain with a rule for every stream, and tasks.
fn with_tasks(tasks: Vec<ScreenshotTask>) -> Catalog {
    let parts = CatalogParts {
        domains: vec![domain("a.example")],
        snapshot_templates: vec![snapshot_template(1), snapshot_template(2)],
        snapshot_rules: vec![snapshot_rule(11, scope("a.example", "*", "*"), 1)],
        tasks,
        ..CatalogParts::default()
    };
    Catalog::build(1, parts).expect("a catalog")
}

fn subscribers(catalog: &Catalog, name: &str, at: i64) -> Vec<(Subscriber, i64)> {
    let wanted = catalog.subscriptions_for(&stream("a.example", "live", name), UnixMs(at));
    wanted.iter().map(|subscription| (subscription.subscriber, subscription.template.id.0)).collect()
}

#[test]
fn a_task_wants_pictures_beside_the_rule_while_its_window_is_open() {
    let catalog = with_tasks(vec![task(2, "room", 2, (15, 30)), task(1, "room", 1, (10, 20))]);
    let rule = (Subscriber::Rule(RuleId(11)), 1);
    let [first, second] =
        [(1, 1), (2, 2)].map(|(id, template)| (Subscriber::Task(TaskId(Uuid::from_u128(id))), template));
    for (at, expected) in [
        (9, vec![rule]),
        (10, vec![rule, first]),
        (15, vec![rule, first, second]),
        (20, vec![rule, second]),
        (30, vec![rule]),
    ] {
        assert_eq!(subscribers(&catalog, "room", at), expected, "at {at}");
        assert_eq!(subscribers(&catalog, "other", at), [rule], "at {at}");
    }
    let edges = [9, 10, 14, 15, 29, 30].map(|after| catalog.next_task_edge(UnixMs(after)).map(|edge| edge.0));
    assert_eq!(edges, [Some(10), Some(15), Some(15), Some(20), Some(30), None]);
}

#[test]
fn a_task_whose_template_does_not_exist_takes_nothing() {
    let catalog = with_tasks(vec![task(1, "room", 0, (10, 20)), task(2, "room", 9, (10, 20))]);
    assert_eq!(subscribers(&catalog, "room", 10), [(Subscriber::Rule(RuleId(11)), 1)]);
}

proptest! {
    #[test]
    fn who_wants_pictures_agrees_with_looking_at_every_task(
        windows in prop::collection::vec(("[ab]", 0..4_i64, 0..30_i64, 1..20_i64), 0..12),
        at in 0..50_i64,
    ) {
        let tasks: Vec<_> = (1..)
            .zip(windows)
            .map(|(id, (name, template, start, length))| task(id, &name, template, (start, start + length)))
            .collect();
        let catalog = with_tasks(tasks.clone());
        for name in ["a", "b"] {
            let runs = |task: &&ScreenshotTask| {
                let template_exists = (1..=2).contains(&task.template.0);
                task.stream.name.as_str() == name && task.window.contains(UnixMs(at)) && template_exists
            };
            let expected: Vec<_> = [(Subscriber::Rule(RuleId(11)), 1)]
                .into_iter()
                .chain(tasks.iter().filter(runs).map(|task| (Subscriber::Task(task.id), task.template.0)))
                .collect();
            prop_assert_eq!(subscribers(&catalog, name, at), &expected[..]);
            // Nothing changes before the next edge.
            let until = catalog.next_task_edge(UnixMs(at)).map_or(60, |edge| edge.0);
            prop_assert!((at..until).all(|later| subscribers(&catalog, name, later) == expected));
        }
    }
}
