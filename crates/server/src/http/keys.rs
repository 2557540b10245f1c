//! `/v1/keys`: who may use the API.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Records;
use super::json::JsonBody;
use super::parameter::InPath;
use super::problem::Problem;
use super::route::Route;
use crate::audit::Caller;
use crate::credentials::AccessKey;
use crate::key_store::KeyError;

const ALL: &str = "/v1/keys";
const ONE: &str = "/v1/keys/{id}";

pub(super) fn pages() -> Router<Records> {
    Router::new().route(ALL, get(list).post(add)).route(ONE, delete(revoke))
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get(ALL, "list_keys", "List the keys of the API", list).answers::<KeyList>(200, "All of them."),
        Route::post(ALL, "add_key", "Add a key", add)
            .takes::<KeyOrder>()
            .answers::<NewKey>(201, "The key, with its secret this once.")
            .problems(&[409]),
        Route::delete(ONE, "revoke_key", "Revoke a key, at once and for good", revoke)
            .of::<String>("id", "The key's SecretId.")
            .answers_nothing(204, "It lets nobody in any more.")
            .problems(&[400, 404, 409]),
    ]
}

#[derive(Serialize, JsonSchema)]
struct KeyList {
    keys: Vec<KeyView>,
}

/// A key without its secret.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Key")]
struct KeyView {
    /// Its SecretId.
    id: String,
    name: String,
    read_only: bool,
    /// Null for the key in `DIR/credentials`, which cannot be revoked.
    created_ms: Option<i64>,
    /// To the minute. Null: never.
    last_used_ms: Option<i64>,
}

impl From<&AccessKey> for KeyView {
    fn from(key: &AccessKey) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            read_only: key.read_only,
            created_ms: key.created.map(|at| at.0),
            last_used_ms: key.last_used().map(|at| at.0),
        }
    }
}

/// A new key. This answer is the only place that tells its secret: whoever may ask for one could change everything before,
/// so the answer gives nothing away that its reader did not have.
#[derive(Serialize, JsonSchema)]
struct NewKey {
    #[serde(flatten)]
    key: KeyView,
    secret_key: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyOrder {
    #[serde(default)]
    name: String,
    #[serde(default)]
    read_only: bool,
}

async fn list(State(Records { keys, .. }): State<Records>) -> Json<KeyList> {
    Json(KeyList { keys: keys.list().iter().map(|key| KeyView::from(&**key)).collect() })
}

async fn add(
    State(Records { keys, .. }): State<Records>,
    caller: Caller,
    body: JsonBody<KeyOrder>,
) -> Result<Response, Problem> {
    let key = keys.add(&caller, &body.order.name, body.order.read_only).await?;
    let new = NewKey { key: KeyView::from(&*key), secret_key: key.secret().expose().to_owned() };
    let mut response = (StatusCode::CREATED, Json(new)).into_response();
    // Nothing on the way may keep it.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn revoke(
    State(Records { keys, .. }): State<Records>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> Result<StatusCode, Problem> {
    keys.revoke(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Name(error) => Self::unprocessable("name", error),
            KeyError::NameTaken | KeyError::TooMany | KeyError::First => Self::conflict(error.to_string()),
            KeyError::Unknown => Self::not_found(error.to_string()),
            KeyError::Db(error) => error.into(),
        }
    }
}
