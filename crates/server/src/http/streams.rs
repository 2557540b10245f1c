//! `/v1/streams`: what lives now, with what became of every due.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use framehook_domain::pick::Subscriber;
use serde::Serialize;

use super::Shared;
use crate::live::{Push, PushSnapshot};

#[derive(Serialize)]
pub(super) struct StreamList {
    streams: Vec<StreamView>,
}

/// One live push.
#[derive(Serialize)]
struct StreamView {
    domain: String,
    app: String,
    name: String,
    sequence: String,
    /// `live`, `audio_only`, or `grace` while its publisher may come back.
    state: &'static str,
    opened_ms: i64,
    /// Sessions so far.
    sessions: u64,
    user_ip: String,
    encoder: Option<String>,
    codec: Option<String>,
    /// Pixels, 0 while unknown.
    width: u32,
    height: u32,
    fps: f64,
    bits_per_sec: u64,
    gop_ms: u64,
    bytes: u64,
    last_entry_point_age_ms: Option<u64>,
    /// Size of the entry point that is kept in memory; absent if the budget for all streams had no room for it.
    kept_entry_point_bytes: Option<u64>,
    rules: Vec<RuleView>,
}

/// What became of one rule's dues on one push. `due = taken + skipped + open`.
#[derive(Serialize)]
struct RuleView {
    /// The rule's number, or a task's.
    subscriber: String,
    template: String,
    interval_s: u16,
    due: u64,
    taken: u64,
    open: u64,
    /// By reason; reasons without a due are left out.
    skipped: BTreeMap<&'static str, u64>,
}

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<StreamList> {
    let mut pushes = shared.lives.pushes();
    pushes.sort_by(|a, b| a.stream().cmp(b.stream()));
    let now = shared.clock.mono();
    let view = |push: &Arc<Push>| {
        let PushSnapshot { facts, sessions, peer, in_grace, rules } = push.snapshot(now);
        StreamView {
            domain: push.stream().domain.to_string(),
            app: push.stream().app.to_string(),
            name: push.stream().name.to_string(),
            sequence: push.sequence().to_string(),
            state: match (in_grace, &facts.codec, facts.audio) {
                (true, _, _) => "grace",
                (false, None, true) if facts.unsupported.is_none() => "audio_only",
                _ => "live",
            },
            opened_ms: push.opened_at().0,
            sessions,
            user_ip: peer.to_string(),
            encoder: facts.encoder,
            codec: facts.unsupported.or(facts.codec.map(|codec| codec.name().to_owned())),
            width: facts.width,
            height: facts.height,
            fps: facts.frames_per_sec,
            bits_per_sec: facts.bits_per_sec,
            gop_ms: facts.gop_ms,
            bytes: facts.bytes,
            last_entry_point_age_ms: facts.last_entry_point.map(|at| now.since(at).as_millis() as u64),
            kept_entry_point_bytes: shared.keyframes.newest(push.sequence()).map(|kept| kept.bytes()),
            rules: rules
                .into_iter()
                .map(|(subscription, counts)| RuleView {
                    subscriber: match subscription.subscriber {
                        Subscriber::Rule(id) => format!("rule:{id}"),
                        Subscriber::Task(id) => format!("task:{id}"),
                    },
                    template: subscription.template.name.clone(),
                    interval_s: subscription.template.interval.secs(),
                    due: counts.due,
                    taken: counts.taken,
                    open: counts.open,
                    skipped: counts
                        .skipped_by_reason()
                        .filter(|(_, count)| *count > 0)
                        .map(|(reason, count)| (reason.name(), count))
                        .collect(),
                })
                .collect(),
        }
    };
    Json(StreamList { streams: pushes.iter().map(view).collect() })
}
