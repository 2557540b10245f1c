//! `framehook audit`: who changed what.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use hyper::Method;
use serde_json::Value;

use crate::control::{self, Common, escape};
use crate::output::{self, Tone, ago, paint, text};

#[derive(Args)]
#[command(
    about = "Show who changed what",
    long_about = "Show who changed what, the newest first: domains, templates, rules, keys, streams that were forbidden, resumed or \
        dropped, deliveries that were replayed or cancelled, pictures that were discarded. Secrets are masked: two masks are the \
        same when the secrets are. Speaks to the running server of --data-dir, or works on that directory when none runs.\n\n\
        Exit codes: 0 done, 1 not done."
)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    common: Common,
    /// Only this kind of thing: domain, snapshot_template, callback_template, snapshot_rule, callback_rule, screenshot_task, stream, key,
    /// delivery, replay or snapshot.
    #[arg(long)]
    noun: Option<String>,
    /// Only the thing of this id.
    #[arg(long)]
    id: Option<String>,
    /// Only what this key, `control` or `file` changed.
    #[arg(long)]
    who: Option<String>,
    /// Only from this time on, in ms since 1970.
    #[arg(long, value_name = "MS")]
    since: Option<i64>,
    /// Only before this time, in ms since 1970.
    #[arg(long, value_name = "MS")]
    until: Option<i64>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// The page after an earlier one: what that printed as `next_cursor`.
    #[arg(long)]
    cursor: Option<String>,
}

pub(crate) async fn run(arguments: AuditArgs) -> Result<ExitCode> {
    let AuditArgs { common, noun, id, who, since, until, limit, cursor } = arguments;
    let mut target = format!("/v1/audit?limit={limit}");
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let filters = [
        ("noun", noun),
        ("id", id),
        ("who", who),
        ("since_ms", number(since)),
        ("until_ms", number(until)),
        ("cursor", cursor),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            target.push_str(&format!("&{name}={}", escape(&value)));
        }
    }
    let listed = control::ask(&common, Method::GET, &target, None).await?;
    if common.json {
        output::line(&listed.to_string())
    } else {
        print(&listed)?
    }
    Ok(ExitCode::SUCCESS)
}

fn print(listed: &Value) -> Result<()> {
    let entries = listed["entries"].as_array().context("the server's answer has no list")?;
    if entries.is_empty() {
        output::line("no changes");
    }
    for entry in entries {
        let who = match (entry["name"].as_str(), entry["peer"].as_str()) {
            (Some(name), Some(peer)) => format!("{name} at {peer}"),
            _ => text(entry, "who"),
        };
        let at = entry["at_ms"].as_i64().map(ago).unwrap_or_default();
        let what = format!("{} {} {}", text(entry, "verb"), text(entry, "noun"), text(entry, "id"));
        output::line(&format!("{}  {who:<24}  {what}", paint(Tone::Quiet, &format!("{at:<12}"))));
        for line in differences(&entry["before"], &entry["after"]) {
            output::line(&format!("{:14}{}", "", paint(Tone::Quiet, &line)));
        }
    }
    if let Some(next) = listed["next_cursor"].as_str() {
        output::line(&paint(Tone::Quiet, &format!("more with --cursor {next}")));
    }
    Ok(())
}

/// The fields that differ, as `field: before → after`.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", before, after, &mut lines);
    lines
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for name in names {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(&inner, &before[name.as_str()], &after[name.as_str()], lines);
            }
        }
        // The verb says it: what was made is listed where it is used, and what is gone is gone.
        (Value::Null, Value::Object(_)) | (Value::Object(_), Value::Null) if path.is_empty() => {}
        _ => lines.push(format!("{path}: {before} → {after}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let before = json!({ "name": "a", "auth": { "enabled": true, "main_key": "***1" } });
        let after = json!({ "name": "a", "auth": { "enabled": false, "main_key": "***1" } });
        assert_eq!(differences(&before, &after), ["auth.enabled: true → false"]);
        assert!(differences(&json!(null), &after).is_empty());
    }
}
