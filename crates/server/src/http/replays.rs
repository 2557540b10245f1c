//! `/v1/replays`: sending many settled deliveries again, and how far that has come.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use framehook_domain::callback::EventKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Records;
use super::deliveries::{ListQuery, judge};
use super::json::JsonBody;
use super::page::{self, PageQuery};
use super::parameter::{InPath, InQuery};
use super::problem::Problem;
use super::route::Route;
use crate::audit::Caller;
use crate::db::outbox;
use crate::db::replays::{self, Found, Replay, ReplayId};

const ALL: &str = "/v1/replays";
const ONE: &str = "/v1/replays/{id}";
const CANCEL: &str = "/v1/replays/{id}/cancel";

/// Deliveries per second when nobody says how many: what one small receiver takes beside its other work.
const PER_SEC: u32 = 50;

/// Most deliveries per second of one replay.
const PER_SEC_MAX: u32 = 1000;

/// Which deliveries to send again, and how. What is left out limits nothing; deliveries made after the order are not meant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct NewReplay {
    /// `dead`, `cancelled` or `delivered`; several with commas. `dead` if it is left out.
    state: Option<String>,
    /// `domain/app/name`
    stream: Option<String>,
    /// A callback template's number.
    template: Option<i64>,
    /// An endpoint's number.
    endpoint: Option<i64>,
    /// 200 (a picture), 1 (a push began) or 0 (a push ended).
    event_type: Option<u16>,
    /// Made at or after, ms since 1970.
    since_ms: Option<i64>,
    /// Made before.
    until_ms: Option<i64>,
    /// Where to send them instead of their templates' URLs.
    url: Option<String>,
    /// At most so many in a second, 50 if it is left out, and only while nothing else is due where they go.
    #[schemars(range(min = 1, max = 1000))]
    per_sec: Option<u32>,
}

impl NewReplay {
    fn filter(&self) -> Result<outbox::Filter, Problem> {
        let query = ListQuery {
            state: Some(self.state.clone().unwrap_or_else(|| outbox::State::Dead.name().to_owned())),
            stream: self.stream.clone(),
            template: self.template,
            endpoint: self.endpoint,
            event_type: self.event_type,
            since_ms: self.since_ms,
            until_ms: self.until_ms,
            ..ListQuery::default()
        };
        let filter = query.filter().map_err(Problem::of_body)?;
        match filter.states.iter().find(|state| state.is_open()) {
            Some(open) => {
                let detail = format!(
                    "what is {} is sent by itself; dead, cancelled and delivered ones can be sent again",
                    open.name()
                );
                Err(Problem::bad_value("state", detail))
            }
            None => Ok(filter),
        }
    }
}

/// An order to send many deliveries again, and what has come of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Replay")]
struct ReplayView {
    id: i64,
    /// `dead`, `cancelled` and `delivered`, as it was ordered, with commas between them.
    state: String,
    /// `domain/app/name`; `null`: every stream.
    stream: Option<String>,
    /// A callback template's number; `null`: every one.
    template: Option<i64>,
    /// An endpoint's number; `null`: every one.
    endpoint: Option<i64>,
    /// 200, 1 or 0; `null`: every kind.
    event_type: Option<u16>,
    /// Made at or after.
    since_ms: Option<i64>,
    /// Made before.
    until_ms: Option<i64>,
    /// Whether they go to a URL that was given for this.
    has_own_url: bool,
    per_sec: u32,
    /// Whether nobody ordered it: a receiver had recovered, and its template has `replay_recovered_ms`.
    is_automatic: bool,
    created_ms: i64,
    /// When all had been looked at, or it was cancelled; `null` while it goes on.
    ended_ms: Option<i64>,
    is_cancelled: bool,
    /// Deliveries that were taken up again so far. What became of them is told by the list of deliveries.
    replayed: u64,
    /// Those that were not, since their pictures are gone or their stores do not tell.
    refused: u64,
}

impl From<Replay> for ReplayView {
    fn from(replay: Replay) -> Self {
        let Replay { id, order, created, ended, is_cancelled, replayed, refused } = replay;
        let filter = order.filter;
        let states: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
        Self {
            id: id.0,
            state: states.join(","),
            stream: filter.stream.map(|stream| stream.to_string()),
            template: filter.template.map(|template| template.0),
            endpoint: filter.endpoint.map(|endpoint| endpoint.0),
            event_type: filter.kind.map(EventKind::event_type),
            since_ms: filter.since.map(|since| since.0),
            until_ms: filter.until.map(|until| until.0),
            has_own_url: order.own_url.is_some(),
            per_sec: order.per_sec,
            is_automatic: order.is_automatic,
            created_ms: created.0,
            ended_ms: ended.map(|ended| ended.0),
            is_cancelled,
            replayed,
            refused,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ReplayList {
    replays: Vec<ReplayView>,
    /// Numbers of orders on this page that cannot be read, since their rows in the database are damaged.
    damaged: Vec<i64>,
    /// The `cursor` of the next page, if there may be one.
    next_cursor: Option<String>,
}

/// Those of [`routes`], for a data directory that no server runs on: the next start carries out what is ordered.
pub(super) fn pages() -> Router<Records> {
    Router::new().route(ALL, get(list).post(create)).route(ONE, get(show)).route(CANCEL, post(cancel))
}

async fn create(
    State(Records { db, replayer, resolver, .. }): State<Records>,
    caller: Caller,
    body: JsonBody<NewReplay>,
) -> Result<Response, Problem> {
    let order = body.order;
    let filter = order.filter()?;
    let per_sec = order.per_sec.unwrap_or(PER_SEC);
    if !(1..=PER_SEC_MAX).contains(&per_sec) {
        return Err(Problem::bad_value("per_sec", format!("{per_sec} is not from 1 to {PER_SEC_MAX}")));
    }
    judge(&resolver, order.url.as_deref()).await?;
    let id = replayer.order(&caller, filter, order.url.as_deref(), per_sec).await?;
    let made = db.read(move |conn| replays::show(conn, id)).await?.ok_or_else(unknown)?;
    let location = [(header::LOCATION, format!("{ALL}/{}", id.0))];
    Ok((StatusCode::CREATED, location, Json(ReplayView::from(made))).into_response())
}

async fn list(
    State(Records { db, .. }): State<Records>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<ReplayList>, Problem> {
    let limit = page::rows(query.limit)?;
    let before = query.cursor.as_deref().map(|text| text.parse().map(ReplayId).map_err(|_| page::bad_cursor(text)));
    let before = before.transpose()?;
    let Found { replays, damaged } = db.read(move |conn| replays::list(conn, before, limit)).await?;
    let damaged: Vec<i64> = damaged.into_iter().map(|id| id.0).collect();
    let is_full = replays.len() + damaged.len() == limit;
    let last = replays.iter().map(|replay| replay.id.0).chain(damaged.iter().copied()).min();
    let next_cursor = last.filter(|_| is_full).map(|id| id.to_string());
    Ok(Json(ReplayList { replays: replays.into_iter().map(ReplayView::from).collect(), damaged, next_cursor }))
}

async fn show(
    State(Records { db, .. }): State<Records>,
    InPath(id): InPath<String>,
) -> Result<Json<ReplayView>, Problem> {
    let id = parse_id(&id)?;
    let found = db.read(move |conn| replays::show(conn, id)).await?;
    Ok(Json(found.ok_or_else(unknown)?.into()))
}

async fn cancel(
    State(Records { db, replayer, .. }): State<Records>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> Result<Json<ReplayView>, Problem> {
    let id = parse_id(&id)?;
    let cancelled = replayer.cancel(&caller, id).await?;
    let found = db.read(move |conn| replays::show(conn, id)).await?.ok_or_else(unknown)?;
    if cancelled { Ok(Json(found.into())) } else { Err(Problem::conflict("it has ended")) }
}

fn parse_id(text: &str) -> Result<ReplayId, Problem> {
    text.parse().map(ReplayId).map_err(|_| Problem::bad_field("id", format!("{text:?} is no replay's number")))
}

fn unknown() -> Problem {
    Problem::not_found("there is no such replay; those that have ended are kept for deliver.log_retention")
}

pub(super) fn routes() -> Vec<Route> {
    let id = |route: Route| route.of::<i64>("id", "The replay's number.").problems(&[400, 404]);
    vec![
        Route::get(ALL, "list_replays", "List replays of many deliveries, the newest first", list)
            .query::<PageQuery>()
            .answers::<ReplayList>(200, "A page of them."),
        Route::post(ALL, "create_replay", "Send all settled deliveries again that match, a few per second", create)
            .takes::<NewReplay>()
            .carried_out_once()
            .answers::<ReplayView>(201, "It goes on from now.")
            .problems(&[409]),
        id(Route::get(ONE, "get_replay", "Show a replay and how far it has come", show))
            .answers::<ReplayView>(200, "The replay."),
        id(Route::post(CANCEL, "cancel_replay", "Let a replay take up no more deliveries", cancel))
            .carried_out_once()
            .answers::<ReplayView>(200, "The replay as it ended. What it has taken up already is sent.")
            .problems(&[409]),
    ]
}
