//! What differs between two states of everything configured, whatever led from one to the other.

use std::collections::{BTreeMap, BTreeSet};

use framehook_domain::catalog::{Domain, Forbiddance, Inventory, Managed, ManagedBy};
use framehook_domain::id::TemplateId;
use framehook_domain::rule::RuleScope;
use framehook_domain::stream::{AppName, StreamName};
use framehook_domain::task::ScreenshotTask;
use framehook_domain::template::{
    Authorities, CallbackTemplate, CallbackUrl, Ed25519Key, NamedRendition, OwnPlace, SnapshotTemplate,
};
use framehook_domain::time::UnixMs;
use serde_json::{Map, Value, json};

use super::{Change, Noun, masked};
use crate::db::secret::Vault;

/// The changes from `before` to `after`. A forbidden stream whose time is over at `now` was let go by nobody.
pub(crate) fn changes(before: &Inventory, after: &Inventory, vault: &Vault, now: UnixMs) -> Vec<Change> {
    let mut found = Vec::new();
    let (old, new) = (&before.domains, &after.domains);
    compare(&mut found, Noun::Domain, (old, new), |domain| domain.name.clone(), |domain| domain_view(domain, vault));
    let (old, new) = (&before.snapshot_templates, &after.snapshot_templates);
    compare(&mut found, Noun::SnapshotTemplate, (old, new), |template| template.id, snapshot_template_view);
    let (old, new) = (&before.callback_templates, &after.callback_templates);
    let view = |template: &CallbackTemplate| callback_template_view(template, vault);
    compare(&mut found, Noun::CallbackTemplate, (old, new), |template| template.id, view);
    let (old, new) = (&before.snapshot_rules, &after.snapshot_rules);
    compare(&mut found, Noun::SnapshotRule, (old, new), |rule| rule.id, |rule| rule_view(&rule.scope, rule.template));
    let (old, new) = (&before.callback_rules, &after.callback_rules);
    compare(&mut found, Noun::CallbackRule, (old, new), |rule| rule.id, |rule| rule_view(&rule.scope, rule.template));
    compare_tasks(&mut found, &before.tasks, &after.tasks);
    compare_forbidden(&mut found, &before.forbidden, &after.forbidden, now);
    found
}

fn compare<T: PartialEq, K: Ord + ToString>(
    found: &mut Vec<Change>,
    noun: Noun,
    (before, after): (&[Managed<T>], &[Managed<T>]),
    key: impl Fn(&T) -> K,
    view: impl Fn(&T) -> Value,
) {
    let view = |row: &Managed<T>| {
        let mut seen = view(&row.value);
        seen["managed_by"] = by_name(row.by).into();
        seen
    };
    let mut gone: BTreeMap<K, &Managed<T>> = before.iter().map(|row| (key(&row.value), row)).collect();
    for row in after {
        let key = key(&row.value);
        let (verb, before) = match gone.remove(&key) {
            Some(old) if old.value == row.value && old.by == row.by => continue,
            Some(old) => ("change", Some(view(old))),
            None => ("create", None),
        };
        found.push(Change { noun, id: key.to_string(), verb, before, after: Some(view(row)) });
    }
    for (key, old) in gone {
        found.push(Change { noun, id: key.to_string(), verb: "delete", before: Some(view(old)), after: None });
    }
}

/// A task is made and stopped, and never changed in between. Both states are as of one time, so none of them ends by itself.
fn compare_tasks(found: &mut Vec<Change>, before: &[ScreenshotTask], after: &[ScreenshotTask]) {
    let noun = Noun::ScreenshotTask;
    let ids = |tasks: &[ScreenshotTask]| tasks.iter().map(|task| task.id).collect::<BTreeSet<_>>();
    let (known, left) = (ids(before), ids(after));
    for task in after.iter().filter(|task| !known.contains(&task.id)) {
        let (before, after) = (None, Some(task_view(task)));
        found.push(Change { noun, id: task.id.to_string(), verb: "create", before, after });
    }
    for task in before.iter().filter(|task| !left.contains(&task.id)) {
        let (before, after) = (Some(task_view(task)), None);
        found.push(Change { noun, id: task.id.to_string(), verb: "stop", before, after });
    }
}

fn compare_forbidden(found: &mut Vec<Change>, before: &[Forbiddance], after: &[Forbiddance], now: UnixMs) {
    let stream = |row: &Forbiddance| row.stream.stream.clone();
    let mut gone: BTreeMap<_, _> = before.iter().map(|row| (stream(row), row)).collect();
    for row in after {
        let old = gone.remove(&row.stream.stream);
        if old != Some(row) {
            let (before, after) = (old.map(forbiddance_view), Some(forbiddance_view(row)));
            let id = row.stream.stream.to_string();
            found.push(Change { noun: Noun::Stream, id, verb: "forbid", before, after });
        }
    }
    for (stream, old) in gone {
        if now < old.stream.until {
            let before = Some(forbiddance_view(old));
            found.push(Change { noun: Noun::Stream, id: stream.to_string(), verb: "resume", before, after: None });
        }
    }
}

fn domain_view(domain: &Domain, vault: &Vault) -> Value {
    let auth = domain.auth.as_ref().map(|auth| {
        json!({
            "enabled": auth.enabled,
            "main_key": masked(vault, auth.keys.main.expose()),
            "backup_key": auth.keys.backup.as_ref().map(|key| masked(vault, key.expose())),
            "auth_delta_s": auth.keys.auth_delta.as_secs(),
        })
    });
    json!({ "enabled": domain.enabled, "auth": auth })
}

fn snapshot_template_view(template: &SnapshotTemplate) -> Value {
    json!({
        "name": template.name,
        "description": template.description,
        "interval_s": template.interval.secs(),
        "width": template.width,
        "height": template.height,
        "jpeg_quality": template.jpeg_quality,
        "porn_flag": template.porn_flag,
        "app_id": template.store.app_id(),
        "bucket": template.store.bucket(),
        "region": template.store.region(),
        "prefix": template.pattern.prefix().as_str(),
        "file_name": template.pattern.file_name().as_str(),
        "objects": template.objects.name(),
        "latest_key": template.latest_key.as_str(),
        "retention_days": template.retention_days,
        "renditions": template.renditions.iter().map(rendition_view).collect::<Vec<_>>(),
    })
}

fn rendition_view(rendition: &NamedRendition) -> Value {
    let OwnPlace { app_id, bucket, region, prefix, file_name } = &rendition.own;
    json!({
        "name": rendition.name.as_str(),
        "width": rendition.width,
        "height": rendition.height,
        "format": rendition.format.name(),
        "quality": rendition.quality,
        "app_id": app_id,
        "bucket": bucket,
        "region": region,
        "prefix": prefix,
        "file_name": file_name,
    })
}

fn callback_template_view(template: &CallbackTemplate, vault: &Vault) -> Value {
    let urls = &template.urls;
    let urls = [
        ("snapshot_notify", &urls.snapshot_notify),
        ("stream_begin_notify", &urls.stream_begin_notify),
        ("stream_end_notify", &urls.stream_end_notify),
        ("record_notify", &urls.record_notify),
        ("record_status_notify", &urls.record_status_notify),
        ("record_exception_notify", &urls.record_exception_notify),
        ("porn_censorship_notify", &urls.porn_censorship_notify),
        ("push_exception_notify", &urls.push_exception_notify),
        ("audio_audit_notify", &urls.audio_audit_notify),
    ];
    let urls: Map<String, Value> = urls
        .into_iter()
        .filter_map(|(name, url)| Some((name.to_owned(), url_view(url.as_ref()?, vault).into())))
        .collect();
    let previous = template.signing.previous.as_ref();
    let levels: Vec<&str> = template.record_exception_levels.iter().map(|level| level.name()).collect();
    json!({
        "name": template.name,
        "description": template.description,
        "key": template.signing.key.as_ref().map(|key| masked(vault, key.expose())),
        "previous_key": previous.map(|previous| masked(vault, previous.key.expose())),
        "previous_key_until_ms": previous.and_then(|previous| previous.until).map(|until| until.0),
        "ed25519_public_key": template.signing.ed25519.as_ref().map(Ed25519Key::public_text),
        "schedule": template.sending.plan.name(),
        "connect_timeout_ms": template.sending.connect_timeout.map(|time| time.as_millis() as u64),
        "timeout_ms": template.sending.timeout.map(|time| time.as_millis() as u64),
        "replay_recovered_ms": template.sending.replay_recovered.map(|age| age.as_millis() as u64),
        "urls": urls,
        "record_exception_levels": levels,
        "verify_tls": template.verify_tls,
        "ca_certificates": template.authorities.as_ref().map(Authorities::pem),
    })
}

/// With what may be secret masked: the user's name and password together, and the query, where receivers put their tokens.
pub(super) fn url_view(url: &CallbackUrl, vault: &Vault) -> String {
    let mut exposed = url.expose().clone();
    if let Some(query) = exposed.query() {
        let query = masked(vault, query);
        exposed.set_query(Some(&query));
    }
    if !exposed.username().is_empty() || exposed.password().is_some() {
        let pair = masked(vault, &format!("{}:{}", exposed.username(), exposed.password().unwrap_or_default()));
        // An address with a user has a host, which is all that these can fail for.
        let _ = exposed.set_password(None);
        let _ = exposed.set_username(&pair);
    }
    exposed.into()
}

fn rule_view(scope: &RuleScope, template: TemplateId) -> Value {
    json!({
        "domain": scope.domain.as_str(),
        "app": scope.app.as_ref().map(AppName::as_str),
        "stream": scope.stream.as_ref().map(StreamName::as_str),
        "template": template.0,
    })
}

pub(super) fn task_view(task: &ScreenshotTask) -> Value {
    json!({
        "stream": task.stream.to_string(),
        "template": task.template.0,
        "start_ms": task.window.start().0,
        "end_ms": task.window.end().0,
    })
}

fn forbiddance_view(row: &Forbiddance) -> Value {
    json!({ "until_ms": row.stream.until.0, "reason": row.reason })
}

fn by_name(by: ManagedBy) -> &'static str {
    match by {
        ManagedBy::File => "file",
        ManagedBy::Api => "api",
    }
}
