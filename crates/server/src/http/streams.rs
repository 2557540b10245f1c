//! `/v1/streams`: what lives now, with what became of every due; cutting a publisher, and keeping him away.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use framehook_domain::catalog::{ChangeRefused, Forbiddance, ForbiddenStream, Inventory};
use framehook_domain::field::FieldError;
use framehook_domain::pick::Subscriber;
use framehook_domain::time::{Mono, UnixMs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::json::JsonBody;
use super::page::{self, PageQuery};
use super::parameter::{InQuery, StreamInPath, parse_stream};
use super::problem::Problem;
use super::route::Route;
use crate::audit::Caller;
use crate::db::catalog;
use crate::live::{Push, PushSnapshot};

#[derive(Serialize, JsonSchema)]
struct StreamList {
    streams: Vec<StreamView>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// One live push.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Stream")]
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
    /// Pixels, 0 while unknown.
    height: u32,
    fps: f64,
    bits_per_sec: u64,
    gop_ms: u64,
    bytes: u64,
    last_entry_point_age_ms: Option<u64>,
    /// Size of the entry point that is kept in memory; `null` if the budget for all streams had no room for it.
    kept_entry_point_bytes: Option<u64>,
    rules: Vec<RuleView>,
}

/// What became of one rule's dues on one push. `due = taken + skipped + open`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StreamRule")]
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

/// A stream, whether it lives or not.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StreamDetail")]
struct DetailView {
    /// The live push, if there is one.
    push: Option<StreamView>,
    /// Whether and until when it may not be pushed.
    forbidden: Option<ForbiddenView>,
}

/// A stream that may not be pushed for a while.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ForbiddenStream")]
struct ForbiddenView {
    domain: String,
    app: String,
    name: String,
    until_ms: i64,
    /// Empty if nobody said why.
    reason: String,
    created_ms: i64,
}

impl From<&Forbiddance> for ForbiddenView {
    fn from(known: &Forbiddance) -> Self {
        let Forbiddance { stream: ForbiddenStream { stream, until }, reason, created } = known;
        Self {
            domain: stream.domain.to_string(),
            app: stream.app.to_string(),
            name: stream.name.to_string(),
            until_ms: until.0,
            reason: reason.clone(),
            created_ms: created.0,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ForbiddenList {
    forbidden_streams: Vec<ForbiddenView>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// How long a stream may not be pushed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForbidOrder {
    /// ms since 1970, at most 90 days from now.
    #[serde(default)]
    #[schemars(required)]
    until_ms: Option<i64>,
    /// For people, at most 2,048 bytes.
    reason: Option<String>,
}

impl Shared {
    fn stream_view(&self, push: &Push, now: Mono) -> StreamView {
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
            kept_entry_point_bytes: self.keyframes.newest(push.sequence()).map(|kept| kept.bytes()),
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
    }
}

async fn list(
    State(shared): State<Arc<Shared>>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<StreamList>, Problem> {
    let limit = page::rows(query.limit)?;
    let after = query.cursor.map(|text| parse_stream("cursor", &text)).transpose()?;
    let mut pushes = shared.lives.pushes();
    pushes.retain(|push| after.as_ref().is_none_or(|after| push.stream() > after));
    pushes.sort_by(|a, b| a.stream().cmp(b.stream()));
    let is_last = pushes.len() <= limit;
    pushes.truncate(limit);
    let next_cursor = if is_last { None } else { pushes.last().map(|push| push.stream().to_string()) };
    let now = shared.clock.mono();
    Ok(Json(StreamList { streams: pushes.iter().map(|push| shared.stream_view(push, now)).collect(), next_cursor }))
}

async fn show(
    State(shared): State<Arc<Shared>>,
    StreamInPath(stream): StreamInPath,
) -> Result<Json<DetailView>, Problem> {
    let now = shared.clock.wall();
    let push = shared.lives.push_of(&stream);
    let forbidden = shared.db.read(move |conn| catalog::forbiddance_of(conn, &stream)).await?;
    let forbidden = forbidden.filter(|known| now < known.stream.until);
    let mono = shared.clock.mono();
    Ok(Json(DetailView {
        push: push.map(|push| shared.stream_view(&push, mono)),
        forbidden: forbidden.as_ref().map(ForbiddenView::from),
    }))
}

/// Cuts a publisher, who may come back at once. A stream without one is as it should be.
async fn cut(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    StreamInPath(stream): StreamInPath,
) -> Result<StatusCode, Problem> {
    shared.lives.drop_publisher(stream, caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forbid(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    StreamInPath(stream): StreamInPath,
    body: JsonBody<ForbidOrder>,
) -> Result<StatusCode, Problem> {
    let ForbidOrder { until_ms, reason } = body.order;
    let (until, now, reason) = (UnixMs(until_ms.unwrap_or_default()), shared.clock.wall(), reason.unwrap_or_default());
    let decide = move |inventory: &Inventory| match inventory.forbid(stream, until, reason, now) {
        Err(ChangeRefused::Field(error)) if error.field == "until" => {
            Err(FieldError::new("until_ms", until.0, error.allowed).into())
        }
        decided => decided,
    };
    shared.configuration.by(&caller).change(decide).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A stream that is not forbidden is as it should be.
async fn resume(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    StreamInPath(stream): StreamInPath,
) -> Result<StatusCode, Problem> {
    shared.configuration.by(&caller).change(move |inventory| Ok(inventory.resume(stream))).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_forbidden(
    State(shared): State<Arc<Shared>>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<ForbiddenList>, Problem> {
    let limit = page::rows(query.limit)?;
    let after = query.cursor.map(|text| parse_stream("cursor", &text)).transpose()?;
    let now = shared.clock.wall();
    let mut forbidden = shared.configuration.inventory().await?.forbidden;
    forbidden
        .retain(|known| now < known.stream.until && after.as_ref().is_none_or(|after| known.stream.stream > *after));
    let is_last = forbidden.len() <= limit;
    forbidden.truncate(limit);
    let next_cursor = if is_last { None } else { forbidden.last().map(|known| known.stream.stream.to_string()) };
    Ok(Json(ForbiddenList { forbidden_streams: forbidden.iter().map(ForbiddenView::from).collect(), next_cursor }))
}

pub(super) fn routes() -> Vec<Route> {
    const ONE: &str = "/v1/streams/{domain}/{app}/{stream}";
    let stream = |route: Route| {
        route
            .of::<String>("domain", "The push domain.")
            .of::<String>("app", "The app.")
            .of::<String>("stream", "The stream's name.")
            .problems(&[400])
    };
    vec![
        Route::get("/v1/streams", "list_streams", "List live pushes with what became of every due", list)
            .query::<PageQuery>()
            .answers::<StreamList>(200, "A page of them, by stream."),
        stream(Route::get(ONE, "get_stream", "Show what is known of a stream", show))
            .answers::<DetailView>(200, "The stream. One that never was has neither push nor prohibition."),
        stream(Route::post(
            "/v1/streams/{domain}/{app}/{stream}/drop",
            "drop_stream",
            "Cut a publisher, who may come back at once",
            cut,
        ))
        .carried_out_once()
        .answers_nothing(204, "It has no publisher now."),
        stream(Route::post(
            "/v1/streams/{domain}/{app}/{stream}/forbid",
            "forbid_stream",
            "Cut a publisher and keep him away for a while",
            forbid,
        ))
        .takes::<ForbidOrder>()
        .carried_out_once()
        .answers_nothing(204, "It may not be pushed.")
        .problems(&[409]),
        stream(Route::post(
            "/v1/streams/{domain}/{app}/{stream}/resume",
            "resume_stream",
            "Let a forbidden stream be pushed again",
            resume,
        ))
        .carried_out_once()
        .answers_nothing(204, "It may be pushed."),
        Route::get(
            "/v1/forbidden-streams",
            "list_forbidden_streams",
            "List streams that may not be pushed",
            list_forbidden,
        )
        .query::<PageQuery>()
        .answers::<ForbiddenList>(200, "A page of them, by stream."),
    ]
}
