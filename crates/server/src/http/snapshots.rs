//! `/v1/snapshots`: every picture that is remembered, with its image; those that a store refuses, and giving one up.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use framehook_domain::id::{RuleId, SnapshotId, TemplateId};
use framehook_domain::template::ImageFormat;
use framehook_domain::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::deliveries::DeliveryView;
use super::objects::Shown;
use super::page::bad_cursor;
use super::parameter::{InPath, InQuery, parse_stream};
use super::problem::Problem;
use super::route::Route;
use super::{Shared, objects, page};
use crate::audit::Caller;
use crate::db::outbox;
use crate::db::snapshot::{self, Cursor, Filter, HeldPut, PutState, SnapshotRow};
use crate::store::LocalStore;

/// What to list. Everything may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `domain/app/name`
    stream: Option<String>,
    /// A snapshot rule's number.
    rule: Option<i64>,
    /// A snapshot template's number.
    template: Option<i64>,
    /// Taken at or after, ms since 1970.
    since_ms: Option<i64>,
    /// Taken before.
    until_ms: Option<i64>,
    /// The page after another: its `next_cursor`.
    cursor: Option<String>,
    /// At most so many, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
struct SnapshotList {
    snapshots: Vec<SnapshotView>,
    /// The `cursor` of the next page, if there may be one.
    next_cursor: Option<String>,
}

/// One picture.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Snapshot")]
pub(super) struct SnapshotView {
    id: Uuid,
    /// `domain/app/name`
    stream: String,
    /// Of the push that it was taken of.
    sequence: String,
    /// The rule that wanted it; 0 is the built-in one. `null` if a task did, or somebody who asked.
    rule: Option<i64>,
    /// The task that wanted it.
    task: Option<String>,
    /// The snapshot template it was made by; 0 is the built-in one.
    template: i64,
    state: Progress,
    width: u32,
    height: u32,
    /// `jpeg`, `png`, `webp` or `avif`.
    format: &'static str,
    /// Which of its template's renditions it is. `null` if the template made only one.
    rendition: Option<String>,
    file_size_bytes: u64,
    /// Of the file, in hexadecimal.
    sha256: String,
    /// `local`: this server keeps it.
    store: String,
    bucket: String,
    key: String,
    /// Where callbacks say that it is. `null`: that is not known before it is stored.
    url: Option<String>,
    /// When its keyframe had arrived.
    create_time_ms: i64,
    /// When it was durable.
    recorded_ms: i64,
    /// When it was stored or discarded.
    settled_ms: Option<i64>,
    /// Puts that failed.
    put_attempts: u32,
    /// Why the last put failed.
    put_error: Option<String>,
}

/// `owed`: committed and on its way to the store. `stored`: it can be fetched. `discarded`: given up by a person. `expired`: removed when it was
/// older than its template keeps pictures.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "SnapshotState")]
enum Progress {
    Owed,
    Stored,
    Discarded,
    Expired,
}

impl From<SnapshotRow> for SnapshotView {
    fn from(row: SnapshotRow) -> Self {
        Self {
            id: row.id.0,
            stream: row.stream.to_string(),
            sequence: row.sequence.to_string(),
            rule: row.rule.map(|rule| rule.0),
            task: row.task,
            template: row.template.0,
            state: match row.state {
                PutState::Owed => Progress::Owed,
                PutState::Stored => Progress::Stored,
                PutState::Discarded => Progress::Discarded,
                PutState::Expired => Progress::Expired,
            },
            width: row.width,
            height: row.height,
            format: row.format.name(),
            rendition: row.rendition,
            file_size_bytes: row.file_size_bytes,
            sha256: row.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            store: row.store,
            bucket: row.bucket,
            key: row.key,
            url: row.pic_full_url,
            create_time_ms: row.create_time.0,
            recorded_ms: row.recorded.0,
            settled_ms: row.settled.map(|at| at.0),
            put_attempts: row.attempts,
            put_error: row.error,
        }
    }
}

/// One picture, and whom it was announced to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SnapshotDetail")]
struct DetailView {
    #[serde(flatten)]
    snapshot: SnapshotView,
    deliveries: Vec<DeliveryView>,
}

#[derive(Serialize, JsonSchema)]
struct HeldList {
    snapshots: Vec<HeldView>,
}

/// A picture that waits because its store refuses it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HeldSnapshot")]
struct HeldView {
    id: Uuid,
    store: String,
    bucket: String,
    key: String,
    attempts: u32,
    error: Option<String>,
}

async fn list(
    State(shared): State<Arc<Shared>>,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<SnapshotList>, Problem> {
    let limit = page::rows(query.limit)?;
    let filter = Filter {
        stream: query.stream.as_deref().map(|text| parse_stream("stream", text)).transpose()?,
        rule: query.rule.map(RuleId),
        template: query.template.map(TemplateId),
        since: query.since_ms.map(UnixMs),
        until: query.until_ms.map(UnixMs),
        after: query.cursor.as_deref().map(parse_cursor).transpose()?,
    };
    let rows = shared.db.read(move |conn| snapshot::list(conn, &filter, limit)).await?;
    let next_cursor = (rows.len() == limit).then(|| rows.last().map(write_cursor)).flatten();
    Ok(Json(SnapshotList { snapshots: rows.into_iter().map(SnapshotView::from).collect(), next_cursor }))
}

/// Time and id of the last picture of a page.
fn write_cursor(row: &SnapshotRow) -> String {
    format!("{}.{}", row.create_time.0, row.id)
}

fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    let parsed = text.split_once('.').and_then(|(create_time, id)| {
        Some(Cursor { create_time: UnixMs(create_time.parse().ok()?), id: id.parse().ok()? })
    });
    parsed.ok_or_else(|| bad_cursor(text))
}

async fn show(State(shared): State<Arc<Shared>>, InPath(id): InPath<String>) -> Result<Json<DetailView>, Problem> {
    let id = parse_id(&id)?;
    let found = shared.db.read(move |conn| {
        let Some(row) = snapshot::show(conn, id)? else { return Ok(None) };
        let deliveries = outbox::of_event(conn, row.event)?;
        Ok(Some((row, deliveries)))
    });
    let (row, deliveries) = found.await?.ok_or_else(unknown)?;
    Ok(Json(DetailView { snapshot: row.into(), deliveries: deliveries.into_iter().map(DeliveryView::from).collect() }))
}

async fn image(
    State(shared): State<Arc<Shared>>,
    InPath(id): InPath<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let row = shared.db.read(move |conn| snapshot::show(conn, id)).await?.ok_or_else(unknown)?;
    match row.state {
        // Whoever may see it fetches it from where it is.
        PutState::Stored if row.store != LocalStore::NAME => {
            let url = row.pic_full_url.ok_or_else(|| Problem::not_found("it is not known where the picture is"))?;
            Ok(Redirect::temporary(&url).into_response())
        }
        PutState::Stored => {
            let shown = Shown { content_type: row.format.content_type(), is_private: true, is_overwritten: false };
            objects::serve(&shared, &row.bucket, &row.key, shown, &method, &headers).await
        }
        PutState::Owed => Err(Problem::not_found("the picture is not stored yet")),
        PutState::Discarded => Err(Problem::not_found("the picture was discarded")),
        PutState::Expired => {
            let detail = "the picture was older than its template keeps them, and was removed";
            Err(Problem::new(StatusCode::GONE, detail))
        }
    }
}

async fn held(State(shared): State<Arc<Shared>>) -> Result<Json<HeldList>, Problem> {
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
async fn discard(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> Result<StatusCode, Problem> {
    if shared.storer.discard(parse_id(&id)?, &caller).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("no picture of this id waits for its store"))
    }
}

fn parse_id(text: &str) -> Result<SnapshotId, Problem> {
    text.parse().map_err(|_| Problem::bad_field("id", format!("{text:?} is no snapshot's id")))
}

fn unknown() -> Problem {
    Problem::not_found("there is no such snapshot; stored ones are remembered for deliver.log_retention")
}

/// Of every format that a rendition can have.
const IMAGE_TYPES: [&str; 4] = [
    ImageFormat::Jpeg.content_type(),
    ImageFormat::Png.content_type(),
    ImageFormat::Webp.content_type(),
    ImageFormat::Avif.content_type(),
];

pub(super) fn routes() -> Vec<Route> {
    let id = |route: Route| route.of::<Uuid>("id", "The snapshot's id.").problems(&[400, 404]);
    vec![
        Route::get("/v1/snapshots", "list_snapshots", "Search snapshots, the newest first", list)
            .query::<ListQuery>()
            .answers::<SnapshotList>(200, "A page of them."),
        Route::get(
            "/v1/snapshots/held",
            "list_held_snapshots",
            "List snapshots that their store refuses, the oldest first",
            held,
        )
        .answers::<HeldList>(200, "At most 1,000 of them: they come from one cause."),
        id(Route::get("/v1/snapshots/{id}", "get_snapshot", "Show a snapshot with its deliveries", show))
            .answers::<DetailView>(200, "The snapshot."),
        id(Route::get("/v1/snapshots/{id}/image", "get_snapshot_image", "Fetch a snapshot's image", image))
            .header::<String>("Range", "The bytes that are wanted, in one range.")
            .unless_known()
            .problems(&[410])
            .answers_as(200, "The stored bytes, in the format that the snapshot has.", &IMAGE_TYPES)
            .answers_as(206, "A range of them.", &IMAGE_TYPES)
            .answers_nothing(307, "It is in a store that is not ours to read from; its URL is in `Location`.")
            .answers_nothing(416, "No byte of it lies in the range that is asked for."),
        id(Route::post(
            "/v1/snapshots/{id}/discard",
            "discard_snapshot",
            "Give up a snapshot that its store refuses",
            discard,
        ))
        .carried_out_once()
        .answers_nothing(204, "It is given up, and its callback cancelled."),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nothing_else_is_one() {
        let text = "1735689600000.017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let cursor = parse_cursor(text).ok().map(|cursor| (cursor.create_time.0, cursor.id.to_string()));
        assert_eq!(cursor, Some((1_735_689_600_000, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".to_owned())));
        for bad in ["", ".", "1", "1.", "a.017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "1.2"] {
            assert!(parse_cursor(bad).is_err(), "{bad}");
        }
    }
}
