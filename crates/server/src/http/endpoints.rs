//! `/v1/endpoints`: whom callbacks go to, and how their receivers do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use framehook_domain::dispatch::{BreakerState, LaneFacts};
use framehook_domain::time::Mono;
use schemars::JsonSchema;
use serde::Serialize;

use super::Shared;
use super::page::{self, PageQuery};
use super::parameter::InQuery;
use super::problem::Problem;
use super::route::Route;
use crate::db::outbox::{self, EndpointId, EndpointOwed};

#[derive(Serialize, JsonSchema)]
struct EndpointList {
    endpoints: Vec<EndpointView>,
    /// The `cursor` of the next page, if there may be one.
    next_cursor: Option<String>,
}

/// One URL of one callback template, or a URL that was given for a replay, and the receiver that it leads to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Endpoint")]
struct EndpointView {
    id: i64,
    /// The callback template's number.
    template: i64,
    /// The kind of event that goes there: 200 (a picture), 1 (a push began) or 0 (a push ended).
    event_type: u16,
    /// Whether it is a URL that was given for a replay.
    has_own_url: bool,
    /// For how long the oldest of its callbacks has been due and not sent; 0 when none is.
    oldest_due_age_ms: u64,
    /// Whether something is due or under way there, or was a moment ago. Nothing is known of a receiver otherwise.
    receiver: Option<ReceiverView>,
}

/// A host and a port, with everything that goes there.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Receiver")]
struct ReceiverView {
    /// Attempts that it may have at a time.
    window: usize,
    /// Attempts under way.
    running: usize,
    /// Whether its last attempt took a second or more, or one does.
    is_slow: bool,
    /// Whether it failed several times in a row, so that new callbacks wait for it.
    is_paused: bool,
    /// Attempts in a row that failed, while it is not paused.
    failures: u32,
    /// In how many ms it is tried next, while it is paused.
    next_probe_in_ms: Option<u64>,
}

impl ReceiverView {
    fn of(facts: LaneFacts, now: Mono) -> Self {
        let LaneFacts { window, running, is_slow, breaker } = facts;
        let (is_paused, failures, next_probe_in_ms) = match breaker {
            BreakerState::Closed { failures } => (false, failures, None),
            BreakerState::Open { probe_at, .. } => (true, 0, Some(probe_at.since(now).as_millis() as u64)),
        };
        Self { window, running, is_slow, is_paused, failures, next_probe_in_ms }
    }
}

async fn list(
    State(shared): State<Arc<Shared>>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<EndpointList>, Problem> {
    let limit = page::rows(query.limit)?;
    let after = match &query.cursor {
        Some(text) => text.parse().map_err(|_| page::bad_cursor(text))?,
        None => 0,
    };
    let rows = shared.db.read(move |conn| outbox::endpoints(conn, EndpointId(after), limit)).await?;
    let next_cursor = (rows.len() == limit).then(|| rows.last().map(|row| row.id.0.to_string())).flatten();
    let (mono, now) = (shared.clock.mono(), shared.replayer.timeline.now());
    let view = |row: EndpointOwed| EndpointView {
        id: row.id.0,
        template: row.template.0,
        event_type: row.kind.event_type(),
        has_own_url: row.has_own_url,
        oldest_due_age_ms: row.first_due.map_or(0, |due| now.since(due).as_millis() as u64),
        receiver: shared.notifier.receiver_of(row.id).map(|facts| ReceiverView::of(facts, mono)),
    };
    Ok(Json(EndpointList { endpoints: rows.into_iter().map(view).collect(), next_cursor }))
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/endpoints", "list_endpoints", "List whom callbacks go to, and how their receivers do", list)
            .query::<PageQuery>()
            .answers::<EndpointList>(200, "A page of them, by number."),
    ]
}
