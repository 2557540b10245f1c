use std::path::Path;

use framehook_domain::catalog::{AdmittedBy, ManagedBy};
use framehook_domain::id::{TaskId, uuid_v7};
use framehook_domain::pick::Subscriber;
use framehook_domain::push_auth::PushKey;
use framehook_domain::rule::RuleScope;
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use framehook_domain::task::{ScreenshotTask, TaskWindow};
use framehook_domain::template::SnapshotTemplateDraft;
use framehook_domain::time::UnixMs;

use super::*;
use crate::audit::Caller;
use crate::db::DirLock;
use crate::db::idempotency::Answer;
use crate::entropy::Entropy;
use crate::fatal::Fatal;
use crate::telemetry::{Sample, Telemetry};

fn config(text: &str) -> Config {
    Config::parse(text, &Sources::default()).unwrap_or_else(|error| panic!("{error}"))
}

async fn open(dir: &Path, text: &str) -> CatalogStore {
    let clock = Clock::start();
    let lock = DirLock::take(dir).unwrap();
    let vault = Vault::open(&lock, None, &Entropy::system()).unwrap();
    let db = Db::open(lock, &vault, clock, Fatal::new()).unwrap();
    let stage = Stage::new("changes", Fatal::new());
    CatalogStore::open(db, vault, clock, &config(text), stage).await.unwrap()
}

const ALLOWED: &str = "[deliver]\nallow_receiver = [\"192.0.2.0/24\"]";

const WHOLE: &str = r#"
        [[domain]]
        name = "push.example.com"
        main_key = "main-key-of-the-test"
        backup_key = "backup-key-of-the-test"
        [[snapshot_template]]
        name = "covers"
        [[snapshot_template]]
        name = "wall"
        snapshot_interval = "2s"
        [[callback_template]]
        name = "moderation"
        callback_key = "callback-key-of-the-test"
        snapshot_notify_url = "https://user:password-of-the-test@192.0.2.1/snapshot"
        [[snapshot_rule]]
        domain = "push.example.com"
        template = "covers"
        [[callback_rule]]
        domain = "push.example.com"
        template = "moderation"
        [deliver]
        allow_receiver = ["192.0.2.0/24"]
    "#;

fn ids(catalog: &Catalog) -> Vec<(String, TemplateId)> {
    catalog.snapshot_templates().map(|template| (template.name.clone(), template.id)).collect()
}

#[tokio::test]
async fn what_was_declared_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let (catalog, declared) = (store.current(), config(WHOLE).declared);
    assert_eq!(catalog.domains().cloned().collect::<Vec<_>>(), declared.domains);
    let template = catalog.callback_templates().next().unwrap();
    assert_eq!(
        (&template.urls, &template.signing),
        (&declared.callback_templates[0].urls, &declared.callback_templates[0].signing)
    );
    let rule = catalog.snapshot_rules().next().unwrap();
    assert_eq!(catalog.snapshot_template(rule.template).unwrap().name, "covers");
}

#[tokio::test]
async fn no_secret_is_readable_in_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    store.db.close().await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("-of-the-test"));
    }
}

#[tokio::test]
async fn a_restart_with_the_same_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let (version, before) = (store.current().version(), ids(&store.current()));
    store.db.close().await;
    let store = open(dir.path(), WHOLE).await;
    assert_eq!((store.current().version(), ids(&store.current())), (version, before));
}

#[tokio::test]
async fn a_change_keeps_the_ids_of_what_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let before = store.current();
    let rule = before.snapshot_rules().next().unwrap().clone();
    // The template that the rule is bound to goes, the rule stays and is bound to the other one.
    let text = WHOLE
        .replace("[[snapshot_template]]\n        name = \"covers\"", "")
        .replace("template = \"covers\"", "template = \"wall\"");
    let after = store.apply(&config(&text), RELOAD_PATIENCE).await.unwrap();
    assert!(after.version() > before.version());
    assert_eq!(ids(&after), [ids(&before)[1].clone()]);
    let rebound = after.snapshot_rules().next().unwrap();
    assert_eq!((rebound.id, rebound.template), (rule.id, ids(&before)[1].1));
    // A name that comes back is a new template: deliveries and pictures of the old one are not its.
    let again = store.apply(&config(WHOLE), RELOAD_PATIENCE).await.unwrap();
    assert!(ids(&again).iter().all(|(name, id)| name != "covers" || *id > ids(&before)[1].1), "{again:?}");
}

#[tokio::test]
async fn an_empty_file_removes_everything_it_had_declared() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let catalog = store.apply(&config(""), RELOAD_PATIENCE).await.unwrap();
    assert!(catalog.is_empty());
}

#[tokio::test]
async fn every_watcher_sees_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let mut watching = store.watch();
    assert!(watching.borrow_and_update().is_empty());
    store.apply(&config(WHOLE), RELOAD_PATIENCE).await.unwrap();
    assert!(watching.has_changed().unwrap() && !watching.borrow().is_empty());
}

/// Makes the API the manager of a domain, a template and a rule, as requests will.
async fn manage_by_api(store: &CatalogStore) {
    let (vault, declared) = (store.vault.clone(), config(WHOLE).declared);
    let added = store.db.write(move |tx| {
        let now = UnixMs(0);
        tables::put_domain(tx, &vault, &declared.domains[0], ManagedBy::Api, now)?;
        let template = tables::insert_snapshot_template(tx, &declared.snapshot_templates[0], ManagedBy::Api, now)?;
        let scope = &declared.snapshot_rules[0].scope;
        tables::insert_snapshot_rule(tx, scope, template, ManagedBy::Api, now)?;
        tables::next_version(tx)
    });
    added.await.unwrap();
}

#[tokio::test]
async fn the_file_leaves_alone_what_the_api_manages_and_cannot_take_it_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    manage_by_api(&store).await;
    let error = store.apply(&config(WHOLE), RELOAD_PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("domain[1].name = \"push.example.com\": is managed by the API"), "{error}");
    assert!(error.contains("snapshot_rule[1].domain = \"push.example.com/live/*\": is managed by the API"), "{error}");
    // What does not collide is taken, and what the API has stays when the file goes.
    let other = "[[domain]]\nname = \"other.example.com\"\nauth = \"off\"";
    assert_eq!(store.apply(&config(other), RELOAD_PATIENCE).await.unwrap().domains().count(), 2);
    let left = store.apply(&config(""), RELOAD_PATIENCE).await.unwrap();
    assert_eq!((left.domains().count(), left.snapshot_rules().count()), (1, 1));
}

#[tokio::test]
async fn what_a_rule_of_the_api_still_uses_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let template = ids(&store.current())[0].1;
    let added = store.db.write(move |tx| {
        let scope = RuleScope::parse("push.example.com", "vod", "").unwrap();
        tables::insert_snapshot_rule(tx, &scope, template, ManagedBy::Api, UnixMs(0))?;
        tables::next_version(tx)
    });
    added.await.unwrap();
    let error = store.apply(&config(""), RELOAD_PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("template \"covers\" is still used by the rule for push.example.com/vod/*"), "{error}");
    assert!(
        error.contains("domain \"push.example.com\" is still used by the rule for push.example.com/vod/*"),
        "{error}"
    );
    assert_eq!(store.current().domains().count(), 1, "nothing was removed");
}

#[tokio::test]
async fn a_receiver_at_a_private_address_is_refused_by_name() {
    let text = WHOLE.replace("allow_receiver = [\"192.0.2.0/24\"]", "");
    let error = check_receivers(&config(&text)).await.unwrap_err().to_string();
    assert!(error.contains("callback_template[1].snapshot_notify_url = \"https://***@192.0.2.1/snapshot\""), "{error}");
    assert!(error.contains("--allow-receiver"), "{error}");
    assert!(!error.contains("password"), "{error}");
    let resolving = text.replace("user:password-of-the-test@192.0.2.1", "localhost");
    assert!(check_receivers(&config(&resolving)).await.unwrap_err().to_string().contains("loopback"));
    assert!(check_receivers(&config(WHOLE)).await.is_ok());
}

#[tokio::test]
async fn a_reload_judges_receivers_as_the_sender_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "").await;
    // The file allows its receiver; the sender, which was started without, would refuse every attempt.
    let refused = store.apply(&config(WHOLE), RELOAD_PATIENCE).await.unwrap_err();
    assert!(refused.to_string().contains("snapshot_notify_url"), "{refused}");
    let changed = config("app_id = 7\n[deliver]\nallow_receiver = [\"192.0.2.0/24\"]");
    assert_eq!(changed.differing_settings(&store.running), ["app_id", "deliver.allow_receiver"]);
    assert!(config(WHOLE).differing_settings(&config(WHOLE)).is_empty());
}

#[tokio::test]
async fn a_reload_with_a_problem_keeps_the_old_state_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let file = dir.path().join("framehook.toml");
    let sources = Sources { file: Some(file.clone()), ..Sources::default() };
    let telemetry = Telemetry::new(Clock::start());
    std::fs::write(&file, "[[domain]]\nname = \"other.example.com\"\n").unwrap();
    let before = store.current().version();
    store.reload(&sources, &telemetry).await;
    assert_eq!(store.current().version(), before);
    std::fs::write(&file, "[[domain]]\nname = \"other.example.com\"\nauth = \"off\"\n").unwrap();
    store.reload(&sources, &telemetry).await;
    let names: Vec<_> = store.current().domains().map(|domain| domain.name.to_string()).collect();
    assert_eq!(names, ["other.example.com"]);
    let page = telemetry.metrics.page(&Sample::default());
    assert!(page.contains("framehook_reloads_total{outcome=\"refused\"} 1"), "{page}");
    assert!(page.contains("framehook_reloads_total{outcome=\"applied\"} 1"), "{page}");
}

#[tokio::test]
async fn a_change_is_in_force_although_its_asker_has_hung_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "").await;
    let mut watched = store.watch();
    let name = DomainName::parse("api.example.com").unwrap();
    let key = PushKey::parse("push-key-of-the-test").unwrap();
    let editor = store.by(&Caller::Control);
    let mut change = Box::pin(editor.change(move |inventory| inventory.add_domain(name, key)));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(change.as_mut().poll(cx).is_pending())).await);
    drop(change);
    watched.changed().await.unwrap();
    assert_eq!(store.current().domains().count(), 1);
}

fn draft(name: &str) -> SnapshotTemplateDraft {
    let (app_id, bucket, region) = (1_250_000_000, "shots".to_owned(), "ap-guangzhou".to_owned());
    SnapshotTemplateDraft { name: name.to_owned(), app_id, bucket, region, ..SnapshotTemplateDraft::default() }
}

fn stream() -> StreamId {
    let name = StreamName::parse("room").unwrap();
    StreamId { domain: DomainName::parse("api.example.com").unwrap(), app: AppName::parse("live").unwrap(), name }
}

fn fill_in(draft: &mut CallbackTemplateDraft) {
    draft.name = "moderation".to_owned();
    draft.signing.key = Some("callback-key-of-the-test".to_owned());
    draft.urls.snapshot_notify = Some("https://192.0.2.1/snapshot".to_owned());
    draft.urls.record_notify = Some("https://10.0.0.1/never-sent".to_owned());
    draft.record_exception_levels = vec!["error".to_owned(), "alarm".to_owned()];
}

fn is_forbidden(store: &CatalogStore) -> bool {
    store.current().cut_reason(&stream(), AdmittedBy::Domain, store.clock.wall()).is_some()
}

/// A domain, both templates, both rules and a forbidden stream, as requests make them.
async fn configure(store: &CatalogStore) -> (TemplateId, TemplateId) {
    let scope = || RuleScope::parse("api.example.com", "live", "").unwrap();
    let key = PushKey::parse("push-key-of-the-test").unwrap();
    let name = DomainName::parse("api.example.com").unwrap();
    store.by(&Caller::Control).change(move |inventory| inventory.add_domain(name, key)).await.unwrap();
    let snapshot = store
        .by(&Caller::Control)
        .change(|inventory| inventory.create_snapshot_template(draft("covers")))
        .await
        .unwrap();
    let callback = store.by(&Caller::Control).put_callback_template(None, fill_in).await.unwrap();
    let (snapshot, callback) = (snapshot.unwrap(), callback.unwrap());
    store
        .by(&Caller::Control)
        .change(move |inventory| inventory.create_snapshot_rule(scope(), snapshot))
        .await
        .unwrap();
    store.by(&Caller::Control).change(move |inventory| inventory.put_callback_rule(scope(), callback)).await.unwrap();
    let now = store.clock.wall();
    let until = now.plus(Duration::from_secs(3600));
    store
        .by(&Caller::Control)
        .change(move |inventory| inventory.forbid(stream(), until, "a reason".to_owned(), now))
        .await
        .unwrap();
    (snapshot, callback)
}

#[tokio::test]
async fn what_requests_make_is_in_force_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (snapshot, callback) = configure(&store).await;
    let inventory = store.inventory().await.unwrap();
    assert!(inventory.domains.iter().all(|domain| domain.by == ManagedBy::Api));
    let catalog = store.current();
    assert_eq!(inventory.version, catalog.version());
    assert_eq!(catalog.snapshot_rule_for(&stream()).unwrap().1.id, snapshot);
    let template = catalog.callback_template_for(&stream()).unwrap();
    assert_eq!((template.id, template.record_exception_levels.len()), (callback, 2));
    assert!(is_forbidden(&store));
    assert!(catalog.domains().next().unwrap().keys_to_check().is_some());
    store.db.close().await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("-of-the-test"), "a secret lies in the clear");
    }
    let store = open(dir.path(), ALLOWED).await;
    assert_eq!(store.inventory().await.unwrap(), inventory);
    assert!(is_forbidden(&store));
}

#[tokio::test]
async fn a_change_is_seen_by_watchers_and_one_that_changes_nothing_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (snapshot, callback) = configure(&store).await;
    let mut watching = store.watch();
    watching.mark_unchanged();
    store
        .by(&Caller::Control)
        .change(move |inventory| inventory.modify_snapshot_template(snapshot, |_| ()))
        .await
        .unwrap();
    store
        .by(&Caller::Control)
        .change(|inventory| Ok(inventory.resume(StreamId { app: AppName::parse("vod").unwrap(), ..stream() })))
        .await
        .unwrap();
    let refused =
        store.by(&Caller::Control).change(move |inventory| inventory.delete_callback_template(callback)).await;
    assert!(matches!(refused, Err(ChangeError::Refused(ChangeRefused::TemplateInUse { .. }))), "{refused:?}");
    assert!(!watching.has_changed().unwrap());

    let edit = |draft: &mut SnapshotTemplateDraft| draft.interval_secs = Some(2);
    store
        .by(&Caller::Control)
        .change(move |inventory| inventory.modify_snapshot_template(snapshot, edit))
        .await
        .unwrap();
    assert!(watching.has_changed().unwrap());
    let (_, template) = watching.borrow_and_update().snapshot_rule_for(&stream()).unwrap();
    assert_eq!(template.interval.secs(), 2);
}

#[tokio::test]
async fn everything_that_requests_made_they_can_remove() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (snapshot, callback) = configure(&store).await;
    let scope = || RuleScope::parse("api.example.com", "live", "").unwrap();
    let name = DomainName::parse("api.example.com").unwrap();
    store.by(&Caller::Control).change(move |inventory| inventory.delete_snapshot_rule(&scope())).await.unwrap();
    store.by(&Caller::Control).change(move |inventory| inventory.delete_callback_rule(&scope())).await.unwrap();
    store.by(&Caller::Control).change(move |inventory| inventory.delete_snapshot_template(snapshot)).await.unwrap();
    store.by(&Caller::Control).change(move |inventory| inventory.delete_callback_template(callback)).await.unwrap();
    assert!(!store.current().is_empty(), "the domain is left");
    store.by(&Caller::Control).change(move |inventory| inventory.delete_domain(&name)).await.unwrap();
    assert!(store.current().is_empty());
    assert!(is_forbidden(&store), "a forbidden stream stays forbidden");
}

#[tokio::test]
async fn a_callback_template_with_a_private_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (_, callback) = configure(&store).await;
    let private = |draft: &mut CallbackTemplateDraft| {
        fill_in(draft);
        draft.urls.stream_end_notify = Some("http://10.0.0.1/".to_owned());
    };
    for id in [None, Some(callback)] {
        let refused = store.by(&Caller::Control).put_callback_template(id, private).await;
        let Err(ChangeError::Receiver { field, forbidden }) = refused else { panic!("{refused:?}") };
        assert_eq!(field, "stream_end_notify_url");
        assert!(forbidden.what.contains("--allow-receiver 10.0.0.1"), "{forbidden:?}");
    }
    let templates = store.inventory().await.unwrap().callback_templates;
    assert_eq!(templates.len(), 1);
    assert_eq!(templates[0].value.urls.stream_end_notify, None);
}

#[tokio::test]
async fn a_task_is_in_force_at_once_and_after_a_restart_until_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (snapshot, _) = configure(&store).await;
    let now = store.clock.wall();
    let task = |number: u8, secs| {
        let window = TaskWindow::new(now, now.plus(Duration::from_secs(secs)), now).unwrap();
        ScreenshotTask { id: TaskId(uuid_v7(now, [number; 10])), stream: stream(), template: snapshot, window }
    };
    let running = |catalog: &Catalog| -> Vec<Subscriber> {
        let wanted = catalog.subscriptions_for(&stream(), now);
        wanted.iter().map(|one| one.subscriber).filter(|one| matches!(one, Subscriber::Task(_))).collect()
    };
    let [first, second] = [task(1, 3600), task(2, 7200)];
    let ids = [first.id, second.id].map(Subscriber::Task);
    for task in [first.clone(), second] {
        store.by(&Caller::Control).change(move |inventory| inventory.create_task(task)).await.unwrap();
    }
    assert_eq!(running(&store.current()), ids);
    store.db.close().await;

    let store = open(dir.path(), ALLOWED).await;
    assert_eq!(running(&store.current()), ids);
    let refused =
        store.by(&Caller::Control).change(move |inventory| inventory.delete_snapshot_template(snapshot)).await;
    assert!(matches!(refused, Err(ChangeError::Refused(ChangeRefused::TemplateInUse { .. }))), "{refused:?}");
    store.by(&Caller::Control).change(move |inventory| Ok(inventory.stop_task(first.id))).await.unwrap();
    assert_eq!(running(&store.current()), ids[1..]);
    store.db.close().await;
    assert_eq!(running(&open(dir.path(), ALLOWED).await.current()), ids[1..]);
}

/// What was noted, the oldest first, as `who verb noun id`.
async fn noted(store: &CatalogStore) -> Vec<String> {
    let entries = store.db.read(|conn| log::list(conn, &log::Filter::default(), 100)).await.unwrap();
    let told = |entry: log::Entry| format!("{} {} {} {}", entry.who, entry.verb, entry.noun, entry.object);
    entries.into_iter().rev().map(told).collect()
}

#[tokio::test]
async fn a_task_s_beginning_and_end_are_noted_also_when_it_is_over_already() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (template, _) = configure(&store).await;
    let so_far = noted(&store).await.len();
    let now = store.clock.wall();
    let window = TaskWindow::new(now, now.plus(Duration::from_secs(3600)), now).unwrap();
    let tasks = [1, 2].map(|number| TaskId(uuid_v7(now, [number; 10])));
    for id in tasks {
        let task = ScreenshotTask { id, stream: stream(), template, window };
        store.by(&Caller::Control).change(move |inventory| inventory.create_task(task)).await.unwrap();
    }
    let [stopped, running] = tasks;
    store.by(&Caller::Control).change(move |inventory| Ok(inventory.stop_task(stopped))).await.unwrap();
    for id in tasks {
        store.by(&Caller::Control).change(move |inventory| Ok(inventory.delete_task(id))).await.unwrap();
    }
    let told = |verb: &str, id: TaskId| format!("control {verb} screenshot_task {id}");
    let expected = [
        told("create", stopped),
        told("create", running),
        told("stop", stopped),
        told("delete", stopped),
        told("delete", running),
    ];
    assert_eq!(noted(&store).await[so_far..], expected);
}

/// A screenshot task of the template and the domain that the file declares, for an hour from now.
async fn task_of_file(store: &CatalogStore) -> TaskId {
    let (now, template) = (store.clock.wall(), ids(&store.current())[0].1);
    let window = TaskWindow::new(now, now.plus(Duration::from_secs(3600)), now).unwrap();
    let id = TaskId(uuid_v7(now, [7; 10]));
    let task = ScreenshotTask { id, stream: stream_of_file(), template, window };
    store.by(&Caller::Control).change(move |inventory| inventory.create_task(task)).await.unwrap();
    id
}

/// Of the domain that [`WHOLE`] declares.
fn stream_of_file() -> StreamId {
    StreamId { domain: DomainName::parse("push.example.com").unwrap(), ..stream() }
}

#[tokio::test]
async fn a_file_cannot_drop_what_a_screenshot_task_uses() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let id = task_of_file(&store).await;
    let before = store.current().version();
    let refused = store.apply(&config(ALLOWED), RELOAD_PATIENCE).await.unwrap_err();
    let CatalogError::Config(ConfigError { problems }) = refused else { panic!("{refused}") };
    let told: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
    let user = format!("is still used by the screenshot task {id}; delete that first");
    assert_eq!(
        told,
        [format!("the snapshot template \"covers\" {user}"), format!("the domain \"push.example.com\" {user}")]
    );
    assert_eq!(store.current().version(), before);
    store.by(&Caller::Control).change(move |inventory| Ok(inventory.stop_task(id))).await.unwrap();
    store.apply(&config(ALLOWED), RELOAD_PATIENCE).await.expect("nothing uses it any more");
}

#[tokio::test]
async fn what_a_wrong_clock_took_for_over_is_there_when_it_was_set_right() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    task_of_file(&store).await;
    // As it is read by a clock that is a day ahead.
    let (vault, ahead) = (store.vault.clone(), store.clock.wall().plus(Duration::from_secs(86_400)));
    let stored = store.db.read(move |conn| tables::load(conn, &vault, ahead)).await.unwrap();
    let version = stored.version;
    store.published.send_replace(Arc::new(stored.into_catalog(StoreTarget::default()).unwrap()));
    assert_eq!(store.current().subscriptions_for(&stream_of_file(), store.clock.wall()).len(), 1, "the rule alone");
    store.read_again().await.unwrap();
    assert_eq!(
        store.current().subscriptions_for(&stream_of_file(), store.clock.wall()).len(),
        2,
        "the rule and the task"
    );
    assert!(store.current().version() > version, "live streams follow it");
}

#[tokio::test]
async fn a_request_that_was_begun_is_carried_out_once_and_forgotten_if_it_did_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ALLOWED).await;
    let (once, by) = (store.once("key".to_owned(), "POST /one"), Caller::Control);
    assert!(matches!(store.begin(&by, &once).await, Ok(Begun::Now)));
    assert!(matches!(store.begin(&by, &once).await, Ok(Begun::Unanswered)), "under way, or cut off");
    let other = store.once("key".to_owned(), "POST /two");
    assert!(matches!(store.begin(&by, &other).await, Err(OnceError::KeyReused)));
    store.end(&by, &once, None).await.unwrap();
    assert!(matches!(store.begin(&by, &other).await, Ok(Begun::Now)), "the first did nothing");
    let answer = Answer { status: 202, location: "/one".to_owned(), etag: String::new(), body: "{}".to_owned() };
    store.end(&by, &other, Some(answer.clone())).await.unwrap();
    let Ok(Begun::Answered(before)) = store.begin(&by, &other).await else { panic!("it was answered") };
    assert_eq!(before, answer);
    let stranger = Caller::Key { id: "FHID1".to_owned(), name: "ci".to_owned(), peer: [192, 0, 2, 1].into() };
    assert!(matches!(store.begin(&stranger, &once).await, Ok(Begun::Now)), "each sender has names of its own");
}

#[tokio::test]
async fn each_change_is_noted_under_who_made_it_with_the_secrets_masked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), WHOLE).await;
    let by_file: Vec<String> = noted(&store).await;
    assert_eq!(by_file.len(), 6, "{by_file:?}");
    assert!(by_file.iter().all(|told| told.starts_with("file create ")), "{by_file:?}");
    store.apply(&config(WHOLE), RELOAD_PATIENCE).await.unwrap();
    assert_eq!(noted(&store).await.len(), 6, "nothing changed");
    store.apply(&config(&WHOLE.replace("callback-key-of", "another-key-of")), RELOAD_PATIENCE).await.unwrap();

    let caller = Caller::Key { id: "FHID1".to_owned(), name: "ci".to_owned(), peer: [192, 0, 2, 1].into() };
    let name = DomainName::parse("api.example.com").unwrap();
    let key = PushKey::parse("push-key-of-the-test").unwrap();
    let added = name.clone();
    store.by(&caller).change(move |inventory| inventory.add_domain(added, key)).await.unwrap();
    let gone = name.clone();
    store.by(&caller).change(move |inventory| inventory.switch_domain(&name, false)).await.unwrap();
    let again = gone.clone();
    store.by(&caller).change(move |inventory| inventory.switch_domain(&again, false)).await.unwrap();
    store.by(&caller).change(move |inventory| inventory.delete_domain(&gone)).await.unwrap();
    let unknown = DomainName::parse("unknown.example.com").unwrap();
    store.by(&caller).change(move |inventory| inventory.delete_domain(&unknown)).await.unwrap_err();
    assert_eq!(
        noted(&store).await[6..],
        [
            "file change callback_template 1",
            "FHID1 create domain api.example.com",
            "FHID1 change domain api.example.com",
            "FHID1 delete domain api.example.com",
        ]
    );

    let entries = store.db.read(|conn| log::list(conn, &log::Filter::default(), 100)).await.unwrap();
    for hidden in ["key-of-the-test", "password-of-the-test", "user:"] {
        assert!(!format!("{entries:?}").contains(hidden), "{hidden}: {entries:?}");
    }
    let only = log::Filter { noun: Some(audit::Noun::Domain), who: Some("FHID1".to_owned()), ..Default::default() };
    let only = store.db.read(move |conn| log::list(conn, &only, 2)).await.unwrap();
    assert_eq!(only.iter().map(|entry| entry.verb.as_str()).collect::<Vec<_>>(), ["delete", "change"]);
    let (before, after) = (only[1].before.as_deref().unwrap(), only[1].after.as_deref().unwrap());
    assert_eq!(before.replace("\"enabled\":true,\"managed", "\"enabled\":false,\"managed"), after, "one field differs");
}
