//! `/v1/deliveries`: what is owed to whom, every attempt at it, and sending it again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use framehook_domain::callback::EventKind;
use framehook_domain::id::{DeliveryId, TemplateId};
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use framehook_domain::template::CallbackUrl;
use framehook_domain::time::UnixMs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Shared;
use super::json::JsonBody;
use super::problem::Problem;
use crate::catalog::check_receiver;
use crate::db::outbox::{
    self, AttemptRow, DeliveryDetail, DeliveryRow, Filter, PAGE_ROWS_MAX, ReplayRefused, State as DeliveryState,
};
use crate::notify::ReplayError;

/// Rows of a page when nobody says how many.
const PAGE_ROWS: usize = 100;

/// What to list. Everything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `waiting`, `due`, `claimed`, `delivered`, `dead` or `cancelled`; several with commas.
    state: Option<String>,
    /// `domain/app/name`
    stream: Option<String>,
    /// A callback template's number.
    template: Option<i64>,
    event_type: Option<u16>,
    /// Made at or after, ms since 1970.
    since_ms: Option<i64>,
    /// Made before.
    until_ms: Option<i64>,
    /// The page after this one: `next` of the page before.
    cursor: Option<Uuid>,
    limit: Option<usize>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, Problem> {
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
            stream: self.stream.as_deref().map(parse_stream).transpose()?,
            template: self.template.map(TemplateId),
            kind: self.event_type.map(kind).transpose()?,
            since: self.since_ms.map(UnixMs),
            until: self.until_ms.map(UnixMs),
            before: self.cursor.map(DeliveryId),
        })
    }
}

fn parse_stream(text: &str) -> Result<StreamId, Problem> {
    let bad = |detail: String| Problem::bad_field("stream", detail);
    let mut parts = text.split('/');
    let (Some(domain), Some(app), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(bad(format!("{text:?} is not domain/app/name")));
    };
    Ok(StreamId {
        domain: DomainName::parse(domain).map_err(|error| bad(error.to_string()))?,
        app: AppName::parse(app).map_err(|error| bad(error.to_string()))?,
        name: StreamName::parse(name).map_err(|error| bad(error.to_string()))?,
    })
}

#[derive(Serialize)]
pub(super) struct DeliveryList {
    deliveries: Vec<DeliveryView>,
    /// Give it as `cursor` for the next page.
    next: Option<Uuid>,
}

#[derive(Serialize)]
struct DeliveryView {
    /// The `webhook-id` of every attempt.
    id: Uuid,
    event_id: Uuid,
    event_type: u16,
    stream: String,
    snapshot_id: Option<Uuid>,
    template: i64,
    /// Whether it goes to a URL that was given for a replay.
    has_own_url: bool,
    state: &'static str,
    attempts: u32,
    /// When the next attempt falls due.
    due_ms: Option<i64>,
    created_ms: i64,
    settled_ms: Option<i64>,
    outcome: Option<String>,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id.0,
            event_id: row.event.0,
            event_type: row.kind.event_type(),
            stream: row.stream.to_string(),
            snapshot_id: row.snapshot.map(|id| id.0),
            template: row.template.0,
            has_own_url: row.has_own_url,
            state: row.state.name(),
            attempts: row.attempts,
            due_ms: (row.state == DeliveryState::Due).then_some(row.due.0),
            created_ms: row.created.0,
            settled_ms: row.settled.map(|at| at.0),
            outcome: row.outcome,
        }
    }
}

/// A delivery with its body and every attempt. The list under `attempts` takes the place of their number.
#[derive(Serialize)]
pub(super) struct DeliveryDetailView {
    #[serde(flatten)]
    delivery: serde_json::Value,
    /// The body as it is sent, without `t` and `sign`.
    body: serde_json::Value,
    attempts: Vec<AttemptView>,
}

#[derive(Serialize)]
struct AttemptView {
    number: u32,
    started_ms: i64,
    duration_ms: u64,
    status: Option<u16>,
    outcome: String,
    error: Option<String>,
    /// The beginning of what the receiver answered.
    response: Option<String>,
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

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<DeliveryList>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let filter = query.filter()?;
    let limit = query.limit.unwrap_or(PAGE_ROWS);
    if !(1..=PAGE_ROWS_MAX).contains(&limit) {
        return Err(Problem::bad_field("limit", format!("{limit} is not from 1 to {PAGE_ROWS_MAX}")));
    }
    let rows = shared.db.read(move |conn| outbox::list(conn, &filter, limit)).await?;
    let next = (rows.len() == limit).then(|| rows.last().map(|row| row.id.0)).flatten();
    Ok(Json(DeliveryList { deliveries: rows.into_iter().map(DeliveryView::from).collect(), next }))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<DeliveryDetailView>, Problem> {
    let id = parse_id(&id)?;
    let detail = shared.db.read(move |conn| outbox::show(conn, id)).await?;
    let DeliveryDetail { row, body, attempts } = detail.ok_or_else(unknown)?;
    let mut delivery = serde_json::to_value(DeliveryView::from(row)).expect("a view is JSON");
    delivery.as_object_mut().expect("a view is an object").remove("attempts");
    Ok(Json(DeliveryDetailView {
        delivery,
        body: serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)),
        attempts: attempts.into_iter().map(AttemptView::from).collect(),
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayOrder {
    /// Where to send it instead of the template's URL.
    url: Option<String>,
}

pub(super) async fn replay(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    JsonBody(order): JsonBody<ReplayOrder>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    if let Some(url) = &order.url {
        let url = CallbackUrl::parse("url", url).map_err(|error| Problem::bad_field("url", error.to_string()))?;
        let judged = check_receiver(&shared.resolver, &url).await;
        judged.map_err(|forbidden| Problem::bad_field("url", forbidden.what))?;
    }
    match shared.replayer.replay(id, order.url.as_deref()).await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(ReplayError::Refused(ReplayRefused::Unknown)) => Err(unknown()),
        Err(ReplayError::Refused(refused)) => Err(Problem::new(StatusCode::CONFLICT, refused.to_string())),
        Err(ReplayError::Url(error)) => Err(Problem::bad_field("url", error.to_string())),
        Err(ReplayError::Store(error)) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        Err(ReplayError::Db(error)) => Err(error.into()),
    }
}

pub(super) async fn cancel(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let wall = shared.clock.wall();
    let cancelled = shared.db.write(move |tx| outbox::cancel(tx, id, "operator", wall)).await?;
    if cancelled {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(StatusCode::CONFLICT, "it is delivered or unknown"))
    }
}

fn parse_id(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map(DeliveryId).map_err(|_| Problem::bad_field("id", format!("{text:?} is no delivery's id")))
}

fn unknown() -> Problem {
    Problem::not_found("there is no such delivery; delivered and cancelled ones are kept for deliver.log_retention")
}
