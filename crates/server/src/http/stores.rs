//! `/v1/stores`: how the buckets do that pictures go to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::Shared;
use super::problem::Problem;
use super::route::Route;
use crate::store::PlaceStatus;

#[derive(Serialize, JsonSchema)]
struct StoreList {
    stores: Vec<StoreView>,
}

/// A bucket, and what waits for it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Store")]
struct StoreView {
    /// As the configuration names it; `local` is the data directory, `unclaimed` none at all.
    store: String,
    bucket: String,
    /// `taking`; `failing`, in a way that should pass; or `refusing`, until somebody mends it.
    state: &'static str,
    /// Pictures that wait for it, latest objects among them.
    owed: u64,
    /// Those of them that a person should look at.
    held: u64,
    /// When the oldest that waits was committed. A latest object whose place newer ones have taken is as old as the first.
    oldest_ms: Option<i64>,
    /// Why uploads fail, if the last ones did for a reason that is the bucket's.
    error: Option<String>,
    /// What may be done about it.
    mend: Option<&'static str>,
}

impl From<PlaceStatus> for StoreView {
    fn from(place: PlaceStatus) -> Self {
        let (error, mend) = place.error.unzip();
        Self {
            store: place.store,
            bucket: place.bucket,
            state: place.state.name(),
            owed: place.owed.pictures,
            held: place.owed.held,
            oldest_ms: place.owed.oldest.map(|at| at.0),
            error,
            mend,
        }
    }
}

async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<StoreList>, Problem> {
    let places = shared.storer.places().await?;
    Ok(Json(StoreList { stores: places.into_iter().map(StoreView::from).collect() }))
}

pub(super) fn routes() -> Vec<Route> {
    let what = "List the buckets that pictures wait for or went to since the start";
    vec![Route::get("/v1/stores", "list_stores", what, list).answers::<StoreList>(200, "Every one of them.")]
}
