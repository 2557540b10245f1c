//! `/v1/deliveries`: what is owed to whom, every attempt at it, and sending it again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, TemplateId};
use framehook_domain::template::CallbackUrl;
use framehook_domain::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::json::JsonBody;
use super::parameter::{InPath, InQuery, parse_stream};
use super::problem::Problem;
use super::route::Route;
use super::{Records, page};
use crate::audit::{Caller, Change};
use crate::catalog::check_receiver;
use crate::db::audit;
use crate::db::outbox::{
    self, AttemptRow, DeliveryDetail, DeliveryRow, EndpointId, Filter, ReplayRefused, State as DeliveryState,
};
use crate::notify::ReplayError;
use crate::notify::resolve::Resolver;

const ALL: &str = "/v1/deliveries";
const COUNT: &str = "/v1/deliveries/count";
const ONE: &str = "/v1/deliveries/{id}";
const REPLAY: &str = "/v1/deliveries/{id}/replay";
const REPLAY_MANY: &str = "/v1/deliveries/replay";
const CANCEL: &str = "/v1/deliveries/{id}/cancel";

/// What to list. Everything may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `waiting`, `due`, `claimed`, `delivered`, `dead` or `cancelled`; several with commas.
    pub(super) state: Option<String>,
    /// `domain/app/name`
    pub(super) stream: Option<String>,
    /// A callback template's number.
    pub(super) template: Option<i64>,
    /// An endpoint's number, as deliveries show it.
    pub(super) endpoint: Option<i64>,
    /// 200 (a picture), 1 (a push began) or 0 (a push ended).
    pub(super) event_type: Option<u16>,
    /// Made at or after, ms since 1970.
    pub(super) since_ms: Option<i64>,
    /// Made before.
    pub(super) until_ms: Option<i64>,
    /// The page after another: its `next_cursor`.
    pub(super) cursor: Option<Uuid>,
    /// At most so many, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) limit: Option<usize>,
}

impl ListQuery {
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let state = |name: &str| {
            DeliveryState::from_name(name).ok_or_else(|| {
                let known: Vec<_> = DeliveryState::ALL.iter().map(|state| state.name()).collect();
                Problem::bad_field("state", format!("{name:?} is no state; there are {}", known.join(", ")))
            })
        };
        let kind = |number: u16| {
            EventKind::from_event_type(number.into())
                .ok_or_else(|| Problem::bad_field("event_type", format!("{number} is not sent; 0, 1 and 200 are")))
        };
        Ok(Filter {
            states: self.state.iter().flat_map(|list| list.split(',')).map(state).collect::<Result<_, _>>()?,
            stream: self.stream.as_deref().map(|text| parse_stream("stream", text)).transpose()?,
            template: self.template.map(TemplateId),
            endpoint: self.endpoint.map(EndpointId),
            kind: self.event_type.map(kind).transpose()?,
            since: self.since_ms.map(UnixMs),
            until: self.until_ms.map(UnixMs),
            before: self.cursor.map(DeliveryId),
        })
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct DeliveryList {
    deliveries: Vec<DeliveryView>,
    /// The `cursor` of the next page, if there may be one.
    next_cursor: Option<Uuid>,
}

/// An event that is or was owed to a receiver.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Delivery")]
pub(super) struct DeliveryView {
    #[serde(flatten)]
    facts: Facts,
    /// Attempts made, all rounds together.
    attempts: u32,
}

/// What a list shows of a delivery and what its own page does.
#[derive(Serialize, JsonSchema)]
struct Facts {
    /// The `webhook-id` of every attempt.
    id: Uuid,
    event_id: Uuid,
    /// 200 (a picture), 1 (a push began) or 0 (a push ended).
    event_type: u16,
    /// `domain/app/name`
    stream: String,
    snapshot_id: Option<Uuid>,
    /// The callback template's number.
    template: i64,
    /// Where it goes: a number for each URL of each template, and for each URL that a replay was given.
    endpoint: i64,
    /// Whether it goes to a URL that was given for a replay.
    has_own_url: bool,
    /// `waiting`, `due`, `claimed`, `delivered`, `dead` or `cancelled`.
    state: &'static str,
    /// When the next attempt falls due.
    due_ms: Option<i64>,
    created_ms: i64,
    settled_ms: Option<i64>,
    /// The last attempt's outcome, or why it was settled without one.
    outcome: Option<String>,
}

impl From<DeliveryRow> for Facts {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id.0,
            event_id: row.event.0,
            event_type: row.kind.event_type(),
            stream: row.stream.to_string(),
            snapshot_id: row.snapshot.map(|id| id.0),
            template: row.template.0,
            endpoint: row.endpoint.0,
            has_own_url: row.has_own_url,
            state: row.state.name(),
            due_ms: (row.state == DeliveryState::Due).then_some(row.due.0),
            created_ms: row.created.0,
            settled_ms: row.settled.map(|at| at.0),
            outcome: row.outcome,
        }
    }
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self { attempts: row.attempts, facts: row.into() }
    }
}

/// A delivery with its body and every attempt.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeliveryDetail")]
pub(super) struct DeliveryDetailView {
    #[serde(flatten)]
    facts: Facts,
    /// The body as it is sent, without `t` and `sign`.
    body: serde_json::Value,
    /// In the order they were made.
    attempts: Vec<AttemptView>,
}

/// One try to deliver.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
struct AttemptView {
    number: u32,
    started_ms: i64,
    duration_ms: u64,
    status: Option<u16>,
    outcome: String,
    error: Option<String>,
    /// The beginning of what the receiver answered.
    response: Option<String>,
    /// Without user and password.
    url: String,
}

impl From<AttemptRow> for AttemptView {
    fn from(row: AttemptRow) -> Self {
        Self {
            number: row.number,
            started_ms: row.started.0,
            duration_ms: row.duration.as_millis() as u64,
            status: row.status,
            outcome: row.outcome,
            error: row.error,
            response: row.response,
            url: row.url,
        }
    }
}

/// Those of [`routes`], for a data directory that no server runs on.
pub(super) fn pages() -> Router<Records> {
    Router::new()
        .route(ALL, get(list))
        .route(COUNT, get(count))
        .route(ONE, get(show))
        .route(REPLAY, post(replay))
        .route(REPLAY_MANY, post(replay_many))
        .route(CANCEL, post(cancel))
}

async fn list(
    State(Records { db, .. }): State<Records>,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<DeliveryList>, Problem> {
    let (filter, limit) = (query.filter()?, page::rows(query.limit)?);
    let rows = db.read(move |conn| outbox::list(conn, &filter, limit)).await?;
    let next_cursor = (rows.len() == limit).then(|| rows.last().map(|row| row.id.0)).flatten();
    Ok(Json(DeliveryList { deliveries: rows.into_iter().map(DeliveryView::from).collect(), next_cursor }))
}

/// How many deliveries match.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeliveryCount")]
struct CountView {
    deliveries: usize,
    /// Whether there may be more: counting ends at a million.
    is_at_least: bool,
}

/// Where counting ends, so that a count among however many takes a reader no longer than this many rows do.
const COUNTED_MAX: usize = 1_000_000;

async fn count(
    State(Records { db, .. }): State<Records>,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<CountView>, Problem> {
    let filter = query.filter()?;
    let deliveries = db.read(move |conn| outbox::count(conn, &filter, COUNTED_MAX)).await?;
    Ok(Json(CountView { deliveries, is_at_least: deliveries == COUNTED_MAX }))
}

async fn show(
    State(Records { db, .. }): State<Records>,
    InPath(id): InPath<String>,
) -> Result<Json<DeliveryDetailView>, Problem> {
    let id = parse_id(&id)?;
    let detail = db.read(move |conn| outbox::show(conn, id)).await?;
    let DeliveryDetail { row, body, attempts } = detail.ok_or_else(unknown)?;
    Ok(Json(DeliveryDetailView {
        facts: row.into(),
        body: serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)),
        attempts: attempts.into_iter().map(AttemptView::from).collect(),
    }))
}

/// How to send a delivery again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplayOrder {
    /// Where to send it instead of the template's URL.
    url: Option<String>,
}

async fn replay(
    State(Records { replayer, resolver, .. }): State<Records>,
    caller: Caller,
    InPath(id): InPath<String>,
    body: JsonBody<ReplayOrder>,
) -> Result<StatusCode, Problem> {
    let (id, order) = (parse_id(&id)?, body.order);
    judge(&resolver, order.url.as_deref()).await?;
    replayer.replay(&caller, id, order.url.as_deref()).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Refuses a URL that callbacks may not go to.
pub(super) async fn judge(resolver: &Resolver, url: Option<&str>) -> Result<(), Problem> {
    let Some(url) = url else { return Ok(()) };
    let judged = check_receiver(resolver, &CallbackUrl::parse("url", url)?).await;
    judged.map_err(|forbidden| Problem::bad_value("url", forbidden.what))
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Refused(ReplayRefused::Unknown) => unknown(),
            ReplayError::Refused(refused) => Self::conflict(refused.to_string()),
            ReplayError::TooMany => Self::conflict(error.to_string()),
            ReplayError::Url(error) => Self::bad_value("url", error.to_string()),
            ReplayError::Store(error) => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            ReplayError::Db(error) => error.into(),
        }
    }
}

/// Most deliveries that one request sends again: each is a commit of its own, some 4 ms on a disk that syncs.
const REPLAYED_AT_ONCE_MAX: usize = 100;

/// Which deliveries to send again, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplayManyOrder {
    /// Their ids.
    #[serde(default)]
    #[schemars(required, length(min = 1, max = 100))]
    ids: Vec<Uuid>,
    /// Where to send them instead of their templates' URLs.
    url: Option<String>,
}

/// What became of each.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Replayed")]
struct ReplayedView {
    /// They will be sent.
    replayed: Vec<Uuid>,
    /// They stay as they are.
    refused: Vec<NotReplayedView>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NotReplayed")]
struct NotReplayedView {
    id: Uuid,
    /// As the status of the request for this one alone would say.
    status: u16,
    detail: String,
}

async fn replay_many(
    State(Records { replayer, resolver, .. }): State<Records>,
    caller: Caller,
    body: JsonBody<ReplayManyOrder>,
) -> Result<Json<ReplayedView>, Problem> {
    let ReplayManyOrder { ids, url } = body.order;
    if !(1..=REPLAYED_AT_ONCE_MAX).contains(&ids.len()) {
        let detail = format!("{} ids; 1 to {REPLAYED_AT_ONCE_MAX} can be given", ids.len());
        return Err(Problem::bad_value("ids", detail));
    }
    judge(&resolver, url.as_deref()).await?;
    let (mut replayed, mut refused) = (Vec::new(), Vec::new());
    for id in ids {
        match replayer.replay(&caller, DeliveryId(id), url.as_deref()).await.map_err(Problem::from) {
            Ok(()) => replayed.push(id),
            Err(problem) => {
                refused.push(NotReplayedView { id, status: problem.status(), detail: problem.into_detail() })
            }
        }
    }
    Ok(Json(ReplayedView { replayed, refused }))
}

async fn cancel(
    State(Records { clock, db, .. }): State<Records>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let wall = clock.wall();
    let cancelled = db.write(move |tx| {
        let Some(before) = outbox::state_of(tx, id)? else { return Ok(None) };
        let cancelled = outbox::cancel(tx, id, caller.who(), wall)?;
        if cancelled {
            audit::note(tx, &caller, &Change::delivery(id, "cancel", Some(before), DeliveryState::Cancelled), wall)?;
        }
        Ok(Some(cancelled))
    });
    match cancelled.await? {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        Some(false) => Err(Problem::conflict("it is delivered or cancelled")),
        None => Err(unknown()),
    }
}

fn parse_id(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map(DeliveryId).map_err(|_| Problem::bad_field("id", format!("{text:?} is no delivery's id")))
}

fn unknown() -> Problem {
    Problem::not_found("there is no such delivery; delivered and cancelled ones are kept for deliver.log_retention")
}

pub(super) fn routes() -> Vec<Route> {
    let id = |route: Route| {
        route.of::<Uuid>("id", "The delivery's id, which receivers see as `webhook-id`.").problems(&[400])
    };
    vec![
        Route::get(ALL, "list_deliveries", "Search deliveries, the newest first", list)
            .query::<ListQuery>()
            .answers::<DeliveryList>(200, "A page of them."),
        Route::get(COUNT, "count_deliveries", "Count the deliveries that such a search would find", count)
            .query::<ListQuery>()
            .answers::<CountView>(200, "How many."),
        id(Route::get(ONE, "get_delivery", "Show a delivery with its body and every attempt", show))
            .answers::<DeliveryDetailView>(200, "The delivery.")
            .problems(&[404]),
        id(Route::post(REPLAY, "replay_delivery", "Send a settled delivery again, under its id", replay))
            .takes::<ReplayOrder>()
            .carried_out_once()
            .answers_nothing(202, "It will be sent.")
            .problems(&[404, 409]),
        Route::post(REPLAY_MANY, "replay_deliveries", "Send several settled deliveries again", replay_many)
            .takes::<ReplayManyOrder>()
            .carried_out_once()
            .answers::<ReplayedView>(200, "What became of each."),
        id(Route::post(CANCEL, "cancel_delivery", "End a delivery for good", cancel))
            .carried_out_once()
            .answers_nothing(204, "It is ended.")
            .problems(&[404, 409]),
    ]
}
