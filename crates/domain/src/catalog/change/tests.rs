use alloc::{format, vec, vec::Vec};

use uuid::Uuid;

use super::*;
use crate::{
    catalog::{Catalog, CatalogError},
    rule::{CallbackRule, SnapshotRule},
    stream::{AppName, StreamName},
    task::TaskWindow,
    template::{CallbackUrls, SigningDraft, StoreTarget},
};

const NOW: UnixMs = UnixMs::from_secs(1_735_689_600);

fn managed<T>(value: T, by: ManagedBy) -> Managed<T> {
    Managed { value, by, created: NOW, updated: NOW }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a domain")
}

fn scope(domain: &str, app: &str, stream: &str) -> RuleScope {
    RuleScope::parse(domain, app, stream).expect("a scope")
}

fn stream(text: &str) -> StreamId {
    StreamId {
        domain: name("api.example"),
        app: AppName::parse("live").expect("an app"),
        name: StreamName::parse(text).expect("a stream"),
    }
}

fn snapshot_draft() -> SnapshotTemplateDraft {
    SnapshotTemplateDraft {
        name: "covers".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "ap-guangzhou".into(),
        ..SnapshotTemplateDraft::default()
    }
}

fn callback_draft() -> CallbackTemplateDraft {
    CallbackTemplateDraft {
        name: "moderation".into(),
        signing: SigningDraft { key: Some("k3y".into()), ..SigningDraft::default() },
        urls: CallbackUrls { snapshot_notify: Some("https://a.example/".into()), ..CallbackUrls::default() },
        ..CallbackTemplateDraft::default()
    }
}

fn domain(text: &str) -> Domain {
    Domain { name: name(text), enabled: true, auth: None }
}

/// Template 1 is the file's, template 2 the API's and bound, template 3 the API's and free; of both kinds.
fn inventory() -> Inventory {
    let snapshot = |id, by| {
        let draft = snapshot_draft();
        managed(SnapshotTemplate::validate(TemplateId(id), draft).expect("a template"), by)
    };
    let callback = |id, by| {
        let draft = callback_draft();
        managed(CallbackTemplate::validate(TemplateId(id), draft).expect("a template"), by)
    };
    let (file, api) = (ManagedBy::File, ManagedBy::Api);
    let snapshot_rule = |id, scope, template| SnapshotRule { id: RuleId(id), scope, template: TemplateId(template) };
    let callback_rule = |id, scope, template| CallbackRule { id: RuleId(id), scope, template: TemplateId(template) };
    Inventory {
        version: 7,
        domains: vec![managed(domain("file.example"), file), managed(domain("api.example"), api)],
        snapshot_templates: vec![snapshot(1, file), snapshot(2, api), snapshot(3, api)],
        callback_templates: vec![callback(1, file), callback(2, api), callback(3, api)],
        snapshot_rules: vec![
            managed(snapshot_rule(1, scope("file.example", "live", ""), 1), file),
            managed(snapshot_rule(2, scope("api.example", "live", ""), 2), api),
        ],
        callback_rules: vec![
            managed(callback_rule(1, scope("file.example", "live", ""), 1), file),
            managed(callback_rule(2, scope("api.example", "live", ""), 2), api),
        ],
        forbidden: Vec::new(),
        tasks: Vec::new(),
    }
}

fn unknown(id: i64) -> ChangeRefused {
    ChangeRefused::TemplateUnknown(TemplateId(id))
}

fn field(result: Result<Step, ChangeRefused>) -> &'static str {
    match result {
        Err(ChangeRefused::Field(error)) => error.field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_file_declares_is_read_only() {
    let inventory = inventory();
    let one = TemplateId(1);
    let (file, rule) = (name("file.example"), scope("file.example", "live", ""));
    for (what, step) in [
        ("modify snapshot template", inventory.modify_snapshot_template(one, |draft| draft.width = Some(1))),
        ("delete snapshot template", inventory.delete_snapshot_template(one)),
        ("delete snapshot rule", inventory.delete_snapshot_rule(&rule)),
        ("modify callback template", inventory.modify_callback_template(one, |draft| draft.signing.key = None)),
        ("delete callback template", inventory.delete_callback_template(one)),
        ("rebind callback rule", inventory.put_callback_rule(rule.clone(), TemplateId(3))),
        ("delete callback rule", inventory.delete_callback_rule(&rule)),
        ("delete domain", inventory.delete_domain(&file)),
        ("switch domain", inventory.switch_domain(&file, false)),
        ("modify keys", inventory.modify_push_auth(&file, PushAuthEdit::default())),
    ] {
        assert_eq!(step, Err(ChangeRefused::ManagedByFile), "{what}");
    }
}

#[test]
fn a_modification_changes_what_it_names_and_is_judged_as_a_whole() {
    let inventory = inventory();
    let modified = inventory.modify_snapshot_template(TemplateId(3), |draft| draft.interval_secs = Some(2));
    let Ok(Step::ChangeSnapshotTemplate(template)) = modified else { panic!("{modified:?}") };
    assert_eq!((template.id, template.interval.secs(), &*template.name), (TemplateId(3), 2, "covers"));
    assert_eq!(inventory.modify_snapshot_template(TemplateId(3), |_| ()), Ok(Step::Nothing));
    assert_eq!(field(inventory.modify_snapshot_template(TemplateId(3), |draft| draft.width = Some(3001))), "width");
    assert_eq!(inventory.modify_snapshot_template(TemplateId(9), |_| ()), Err(unknown(9)));

    let modified = inventory.modify_callback_template(TemplateId(3), |draft| draft.signing.key = Some(String::new()));
    let Ok(Step::ChangeCallbackTemplate(template)) = modified else { panic!("{modified:?}") };
    assert_eq!((template.id, template.signing.key), (TemplateId(3), None));
    assert_eq!(inventory.modify_callback_template(TemplateId(3), |_| ()), Ok(Step::Nothing));
    let without_urls =
        inventory.modify_callback_template(TemplateId(3), |draft| draft.urls.snapshot_notify = Some(String::new()));
    assert_eq!(field(without_urls), "snapshot_notify_url");
    assert_eq!(inventory.modify_callback_template(TemplateId(9), |_| ()), Err(unknown(9)));
}

#[test]
fn a_bound_template_is_not_deleted() {
    let inventory = inventory();
    let in_use = ChangeRefused::TemplateInUse { id: TemplateId(2), scope: scope("api.example", "live", "") };
    assert_eq!(inventory.delete_snapshot_template(TemplateId(2)), Err(in_use.clone()));
    assert_eq!(inventory.delete_callback_template(TemplateId(2)), Err(in_use));
    assert_eq!(inventory.delete_snapshot_template(TemplateId(3)), Ok(Step::RemoveSnapshotTemplate(TemplateId(3))));
    assert_eq!(inventory.delete_callback_template(TemplateId(3)), Ok(Step::RemoveCallbackTemplate(TemplateId(3))));
    assert_eq!(inventory.delete_snapshot_template(TemplateId(9)), Err(unknown(9)));
    assert_eq!(inventory.delete_callback_template(TemplateId(9)), Err(unknown(9)));
}

#[test]
fn a_scope_has_one_snapshot_rule_and_deleting_needs_it_exactly() {
    let inventory = inventory();
    let taken = scope("API.example", "live", "*");
    assert_eq!(
        inventory.create_snapshot_rule(taken.clone(), TemplateId(3)),
        Err(ChangeRefused::RuleExists(taken.clone()))
    );
    for free in [scope("api.example", "", ""), scope("api.example", "live", "room"), scope("api.example", "vod", "")] {
        let step = inventory.create_snapshot_rule(free.clone(), TemplateId(1));
        assert_eq!(step, Ok(Step::AddSnapshotRule(free.clone(), TemplateId(1))));
        assert_eq!(inventory.delete_snapshot_rule(&free), Err(ChangeRefused::RuleUnknown(free)));
    }
    assert_eq!(inventory.delete_snapshot_rule(&taken), Ok(Step::RemoveSnapshotRule(RuleId(2))));
    assert_eq!(inventory.create_snapshot_rule(scope("api.example", "", ""), TemplateId(9)), Err(unknown(9)));
    assert_eq!(
        inventory.create_snapshot_rule(scope("other.example", "", ""), TemplateId(1)),
        Err(ChangeRefused::DomainUnknown(name("other.example")))
    );
}

#[test]
fn a_callback_rule_is_replaced_by_another_of_its_scope() {
    let inventory = inventory();
    let taken = scope("api.example", "live", "");
    let put = |scope: &RuleScope, id| inventory.put_callback_rule(scope.clone(), TemplateId(id));
    assert_eq!(put(&taken, 3), Ok(Step::RebindCallbackRule(RuleId(2), TemplateId(3))));
    assert_eq!(put(&taken, 2), Ok(Step::Nothing));
    let free = scope("api.example", "*", "");
    assert_eq!(put(&free, 1), Ok(Step::AddCallbackRule(free.clone(), TemplateId(1))));
    assert_eq!(put(&free, 9), Err(unknown(9)));
    assert_eq!(field(put(&scope("api.example", "live", "room"), 1)), "stream");
    assert_eq!(inventory.delete_callback_rule(&taken), Ok(Step::RemoveCallbackRule(RuleId(2))));
    assert_eq!(inventory.delete_callback_rule(&free), Err(ChangeRefused::RuleUnknown(free)));
}

#[test]
fn rules_are_rebound_and_deleted_by_their_number() {
    let inventory = inventory();
    let (file, api, none) = (RuleId(1), RuleId(2), RuleId(9));
    let (two, three) = (TemplateId(2), TemplateId(3));
    for (what, rebind, step) in [
        ("snapshot", inventory.rebind_snapshot_rule(api, three), Step::RebindSnapshotRule(api, three)),
        ("callback", inventory.rebind_callback_rule(api, three), Step::RebindCallbackRule(api, three)),
        ("snapshot, the same", inventory.rebind_snapshot_rule(api, two), Step::Nothing),
        ("callback, the same", inventory.rebind_callback_rule(api, two), Step::Nothing),
        ("delete snapshot", inventory.delete_snapshot_rule_by_id(api), Step::RemoveSnapshotRule(api)),
        ("delete callback", inventory.delete_callback_rule_by_id(api), Step::RemoveCallbackRule(api)),
    ] {
        assert_eq!(rebind, Ok(step), "{what}");
    }
    for (what, id, refused) in
        [("the file's", file, ChangeRefused::ManagedByFile), ("unknown", none, ChangeRefused::RuleIdUnknown(none))]
    {
        assert_eq!(inventory.rebind_snapshot_rule(id, three), Err(refused.clone()), "{what}");
        assert_eq!(inventory.rebind_callback_rule(id, three), Err(refused.clone()), "{what}");
        assert_eq!(inventory.delete_snapshot_rule_by_id(id), Err(refused.clone()), "{what}");
        assert_eq!(inventory.delete_callback_rule_by_id(id), Err(refused), "{what}");
    }
    assert_eq!(inventory.rebind_snapshot_rule(api, TemplateId(9)), Err(unknown(9)));
    assert_eq!(inventory.rebind_callback_rule(api, TemplateId(9)), Err(unknown(9)));
    let taken = scope("api.example", "live", "");
    let step = inventory.create_callback_rule(taken.clone(), three);
    assert_eq!(step, Err(ChangeRefused::RuleExists(taken)), "a rule is not replaced by who asks for a new one");
    let free = scope("api.example", "vod", "");
    assert_eq!(inventory.create_callback_rule(free.clone(), three), Ok(Step::AddCallbackRule(free, three)));
}

#[test]
fn a_new_domain_asks_for_signatures_and_a_bound_one_stays() {
    let inventory = inventory();
    let key = || PushKey::parse("generated").expect("a key");
    let added = inventory.add_domain(name("new.example"), key());
    let Ok(Step::PutDomain(domain)) = added else { panic!("{added:?}") };
    assert!(domain.enabled && domain.keys_to_check().is_some_and(|keys| keys.main == key()));
    for known in ["file.example", "api.example"] {
        assert_eq!(inventory.add_domain(name(known), key()), Err(ChangeRefused::DomainExists(name(known))));
    }

    let bound = name("api.example");
    let in_use = ChangeRefused::DomainInUse { domain: bound.clone(), scope: scope("api.example", "live", "") };
    assert_eq!(inventory.delete_domain(&bound), Err(in_use.clone()));
    let without_snapshot_rules = Inventory { snapshot_rules: Vec::new(), ..inventory.clone() };
    assert_eq!(without_snapshot_rules.delete_domain(&bound), Err(in_use), "a callback rule holds it too");
    let unbound = Inventory { callback_rules: Vec::new(), ..without_snapshot_rules };
    assert_eq!(unbound.delete_domain(&bound), Ok(Step::RemoveDomain(bound.clone())));

    assert_eq!(inventory.switch_domain(&bound, true), Ok(Step::Nothing));
    let switched = Domain { enabled: false, ..inventory.domains[1].value.clone() };
    assert_eq!(inventory.switch_domain(&bound, false), Ok(Step::PutDomain(switched)));
    let other = name("other.example");
    assert_eq!(inventory.switch_domain(&other, true), Err(ChangeRefused::DomainUnknown(other)));
}

#[test]
fn push_keys_change_one_by_one_and_authentication_needs_a_main_key() {
    let mut inventory = inventory();
    let api = name("api.example");
    let text = |text: &str| Some(String::from(text));
    let edit = |inventory: &Inventory, edit| inventory.modify_push_auth(&api, edit);
    let only = |main: Option<String>, enabled| PushAuthEdit { main, enabled, ..PushAuthEdit::default() };
    assert_eq!(edit(&inventory, only(None, Some(true))), Err(ChangeRefused::PushKeyMissing));
    assert_eq!(edit(&inventory, only(text(""), Some(false))), Ok(Step::Nothing), "what was read may be sent back");
    let backup_only = PushAuthEdit { backup: text("backup"), ..PushAuthEdit::default() };
    assert_eq!(edit(&inventory, backup_only.clone()), Err(ChangeRefused::PushKeyMissing));

    let mut apply = |change: PushAuthEdit| {
        let step = edit(&inventory, change);
        let Ok(Step::PutDomain(domain)) = step else { panic!("{step:?}") };
        let PushAuth { enabled, keys } = domain.auth.clone().expect("keys");
        inventory.domains[1].value = domain;
        let backup = keys.backup.map(|key| String::from(key.expose()));
        (enabled, String::from(keys.main.expose()), backup, keys.auth_delta)
    };
    let none = Duration::ZERO;
    assert_eq!(apply(only(text("main"), Some(true))), (true, "main".into(), None, none));
    assert_eq!(apply(backup_only), (true, "main".into(), text("backup"), none));
    let hour = Duration::from_secs(3600);
    let delta = PushAuthEdit { auth_delta: Some(hour), ..PushAuthEdit::default() };
    assert_eq!(apply(delta), (true, "main".into(), text("backup"), hour));
    assert_eq!(apply(only(text("other"), None)), (true, "other".into(), text("backup"), hour));
    let no_backup = PushAuthEdit { backup: text(""), enabled: Some(false), ..PushAuthEdit::default() };
    assert_eq!(apply(no_backup), (false, "other".into(), None, hour));
    assert_eq!(field(edit(&inventory, only(text(""), None))), "push_key");
}

#[test]
fn streams_are_forbidden_for_a_time_and_resumed() {
    let mut inventory = inventory();
    let room = stream("room");
    let forbid = |inventory: &Inventory, secs| {
        inventory.forbid(room.clone(), NOW.plus(Duration::from_secs(secs)), "why".into(), NOW)
    };
    assert_eq!(inventory.resume(room.clone()), Step::Nothing);
    let Ok(Step::Forbid(forbiddance)) = forbid(&inventory, 60) else { panic!("not forbidden") };
    assert_eq!((forbiddance.created, &*forbiddance.reason), (NOW, "why"));
    inventory.forbidden.push(forbiddance);
    assert_eq!(inventory.resume(room.clone()), Step::Resume(room.clone()));
    assert_eq!(inventory.resume(stream("other")), Step::Nothing);

    assert!(forbid(&inventory, 90 * 86_400).is_ok());
    for secs in [0, 90 * 86_400 + 1] {
        assert_eq!(field(forbid(&inventory, secs)), "until");
    }
    assert_eq!(field(inventory.forbid(stream("other"), UnixMs(NOW.0 + 1), "x".repeat(2049), NOW)), "reason");
}

fn task(id: u128, name: &str, (start_secs, end_secs): (i64, i64)) -> ScreenshotTask {
    let at = |secs| UnixMs::from_secs(NOW.secs() + secs);
    ScreenshotTask {
        id: TaskId(Uuid::from_u128(id)),
        stream: stream(name),
        template: TemplateId(3),
        window: TaskWindow::new(at(start_secs), at(end_secs), NOW).expect("a window"),
    }
}

#[test]
fn three_tasks_run_on_a_stream_at_a_time() {
    let mut inventory = inventory();
    inventory.tasks = vec![task(1, "room", (0, 60)), task(2, "room", (0, 60)), task(3, "room", (30, 60))];
    for (what, wanted, fits) in [
        ("a fourth", task(4, "room", (40, 50)), false),
        ("one that is over before the third", task(4, "room", (0, 30)), true),
        ("one after all of them", task(4, "room", (60, 90)), true),
        ("of another stream", task(4, "other", (40, 50)), true),
    ] {
        let refused = ChangeRefused::TooManyTasksAtATime(stream("room"));
        let expected = if fits { Ok(Step::AddTask(wanted.clone())) } else { Err(refused) };
        assert_eq!(inventory.create_task(wanted), expected, "{what}");
    }
}

#[test]
fn a_task_needs_its_domain_and_not_its_template() {
    let inventory = inventory();
    let lost = ScreenshotTask { template: TemplateId(99), ..task(1, "room", (0, 60)) };
    assert_eq!(inventory.create_task(lost.clone()), Ok(Step::AddTask(lost)));
    let mut elsewhere = task(1, "room", (0, 60));
    elsewhere.stream.domain = name("new.example");
    assert_eq!(inventory.create_task(elsewhere), Err(ChangeRefused::DomainUnknown(name("new.example"))));
}

#[test]
fn a_task_that_is_not_over_keeps_its_template_and_its_domain() {
    let mut inventory = inventory();
    (inventory.snapshot_rules, inventory.callback_rules) = (Vec::new(), Vec::new());
    let (three, api) = (TemplateId(3), name("api.example"));
    let running = task(1, "room", (0, 60));
    inventory.tasks.push(running.clone());
    let of_template = ChangeRefused::TemplateInTask { id: three, task: running.id };
    assert_eq!(inventory.delete_snapshot_template(three), Err(of_template));
    assert_eq!(inventory.delete_snapshot_template(TemplateId(2)), Ok(Step::RemoveSnapshotTemplate(TemplateId(2))));
    let of_domain = ChangeRefused::DomainInTask { domain: api.clone(), task: running.id };
    assert_eq!(inventory.delete_domain(&api), Err(of_domain));
    assert_eq!(inventory.stop_task(running.id), Step::StopTask(running.id));

    // Stopped or over, it is no longer in the inventory.
    inventory.tasks.clear();
    assert_eq!(inventory.stop_task(running.id), Step::Nothing);
    assert_eq!(inventory.delete_task(running.id), Step::RemoveTask(running.id));
    assert_eq!(inventory.delete_snapshot_template(three), Ok(Step::RemoveSnapshotTemplate(three)));
    assert_eq!(inventory.delete_domain(&api), Ok(Step::RemoveDomain(api)));
}

#[test]
fn everything_has_a_limit() {
    let mut full = inventory();
    full.snapshot_templates = vec![full.snapshot_templates[1].clone(); TEMPLATES_MAX];
    full.callback_templates = vec![full.callback_templates[1].clone(); TEMPLATES_MAX];
    full.snapshot_rules = vec![full.snapshot_rules[1].clone(); RULES_MAX];
    full.callback_rules = vec![full.callback_rules[1].clone(); RULES_MAX];
    full.domains = vec![full.domains[1].clone(); DOMAINS_MAX];
    let until = |secs| UnixMs::from_secs(NOW.secs() + secs);
    full.forbidden = (0..FORBIDDEN_MAX)
        .map(|index| Forbiddance {
            stream: ForbiddenStream { stream: stream(&format!("s{index}")), until: until(60) },
            reason: String::new(),
            created: NOW,
        })
        .collect();
    full.tasks = (0..TASKS_OPEN_MAX as u128).map(|id| task(id, &format!("s{id}"), (0, 60))).collect();
    let free = scope("api.example", "free", "");
    let key = PushKey::parse("generated").expect("a key");
    let two = TemplateId(2);
    for (what, step, refused) in [
        ("snapshot template", full.create_snapshot_template(snapshot_draft()), ChangeRefused::TooManyTemplates),
        ("callback template", full.create_callback_template(callback_draft()), ChangeRefused::TooManyTemplates),
        ("snapshot rule", full.create_snapshot_rule(free.clone(), two), ChangeRefused::TooManyRules),
        ("callback rule", full.put_callback_rule(free, two), ChangeRefused::TooManyRules),
        ("domain", full.add_domain(name("new.example"), key), ChangeRefused::TooManyDomains),
        ("task", full.create_task(task(TASKS_OPEN_MAX as u128, "new", (0, 1))), ChangeRefused::TooManyTasks),
        ("forbidden", full.forbid(stream("new"), until(1), String::new(), NOW), ChangeRefused::TooManyForbidden),
    ] {
        assert_eq!(step, Err(refused), "{what}");
    }
    assert!(full.forbid(stream("s7"), until(90), String::new(), NOW).is_ok(), "one of them, for longer");
    assert!(
        full.forbid(stream("new"), until(90), String::new(), until(60)).is_ok(),
        "those whose time is over are out"
    );
}

#[test]
fn an_inventory_becomes_a_catalog_if_its_parts_fit() {
    let catalog: Result<Catalog, CatalogError> = inventory().into_catalog(StoreTarget::default());
    assert_eq!(catalog.expect("they fit").version(), 7);
    let unfit = Inventory { domains: Vec::new(), ..inventory() };
    assert!(matches!(unfit.into_catalog(StoreTarget::default()), Err(CatalogError::UnknownDomain(_))));
}
