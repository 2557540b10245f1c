//! `/v1/snapshots`: pictures that a store refuses, and giving one up.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use framehook_domain::id::SnapshotId;
use serde::Serialize;
use uuid::Uuid;

use super::Shared;
use super::problem::Problem;
use crate::db::snapshot::{self, HeldPut};

#[derive(Serialize)]
pub(super) struct HeldList {
    snapshots: Vec<HeldView>,
}

/// A picture that waits because its store refuses it.
#[derive(Serialize)]
struct HeldView {
    id: Uuid,
    store: String,
    bucket: String,
    key: String,
    attempts: u32,
    error: Option<String>,
}

pub(super) async fn held(State(shared): State<Arc<Shared>>) -> Result<Json<HeldList>, Problem> {
    let view = |put: HeldPut| HeldView {
        id: put.id.0,
        store: put.store,
        bucket: put.bucket,
        key: put.key,
        attempts: put.attempts,
        error: put.error,
    };
    let rows = shared.db.read(snapshot::held_puts).await?;
    Ok(Json(HeldList { snapshots: rows.into_iter().map(view).collect() }))
}

/// Gives a picture up: it is not stored, and its callback is cancelled. Only a person does this, and it is recorded.
pub(super) async fn discard(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::bad_field("id", format!("{id:?} is no snapshot's id")))?;
    if shared.storer.discard(SnapshotId(id), "operator").await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("no picture of this id waits for its store"))
    }
}
