//! `/v1/screenshot-tasks`: pictures of one stream for a while, beside those that its rule asks for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use framehook_domain::catalog::{ChangeRefused, Inventory};
use framehook_domain::field::FieldError;
use framehook_domain::id::{TaskId, TemplateId, uuid_v7};
use framehook_domain::stream::StreamId;
use framehook_domain::task::{ScreenshotTask, TaskWindow};
use framehook_domain::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::json::JsonBody;
use super::page::bad_cursor;
use super::parameter::{InPath, InQuery, parse_stream};
use super::problem::Problem;
use super::resource::{self, IdempotencyKey};
use super::route::Route;
use super::version::{Conditions, Etag};
use super::{Shared, page};
use crate::audit::Caller;
use crate::db::idempotency::Answer;
use crate::db::task::{self as tasks, TaskFilter, TaskRecord};

const ALL: &str = "/v1/screenshot-tasks";
const ONE: &str = "/v1/screenshot-tasks/{id}";

/// Pictures of one stream for a while.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ScreenshotTask")]
struct TaskView {
    /// `task_id` in the callbacks of its pictures.
    id: Uuid,
    /// `domain/app/name`
    stream: String,
    /// The snapshot template's number.
    template: i64,
    /// When it begins, ms since 1970.
    start_ms: i64,
    /// When it ends.
    end_ms: i64,
    /// When it was stopped before its end.
    stopped_ms: Option<i64>,
    state: Progress,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Progress {
    /// It has not begun.
    Waiting,
    Running,
    Over,
    Stopped,
}

impl Progress {
    fn of(record: &TaskRecord, now: UnixMs) -> Self {
        let window = record.task.window;
        match record.stopped {
            Some(_) => Self::Stopped,
            None if now < window.start() => Self::Waiting,
            None if now < window.end() => Self::Running,
            None => Self::Over,
        }
    }

    /// Whether it may still take pictures: those tasks are what the configuration holds.
    fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

impl TaskView {
    fn of(record: &TaskRecord, now: UnixMs) -> Self {
        let TaskRecord { task, stopped } = record;
        Self {
            id: task.id.0,
            stream: task.stream.to_string(),
            template: task.template.0,
            start_ms: task.window.start().0,
            end_ms: task.window.end().0,
            stopped_ms: stopped.map(|at| at.0),
            state: Progress::of(record, now),
        }
    }
}

/// A task changes by its time and by being stopped.
fn etag(record: &TaskRecord, now: UnixMs) -> Etag {
    Etag::of_task(record.task.id, Progress::of(record, now) as u8)
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ScreenshotTaskList")]
struct TaskList {
    screenshot_tasks: Vec<TaskView>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// What to list. Everything may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `domain/app/name`
    stream: Option<String>,
    /// Begins at or after, ms since 1970.
    since_ms: Option<i64>,
    /// Ends at or before.
    until_ms: Option<i64>,
    /// The page after another: its `next_cursor`.
    cursor: Option<String>,
    /// At most so many, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

async fn list(
    State(shared): State<Arc<Shared>>,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<TaskList>, Problem> {
    let limit = page::rows(query.limit)?;
    let stream = query.stream.as_deref().map(|text| parse_stream("stream", text)).transpose()?;
    let (domain, app, stream) = match stream {
        Some(StreamId { domain, app, name }) => (Some(domain), Some(app), Some(name)),
        None => (None, None, None),
    };
    let filter = TaskFilter {
        since: UnixMs(query.since_ms.unwrap_or(i64::MIN)),
        until: UnixMs(query.until_ms.unwrap_or(i64::MAX)),
        domain,
        app,
        stream,
        after: query.cursor.as_deref().map(|text| text.parse().map_err(|_| bad_cursor(text))).transpose()?,
    };
    // One more tells whether another page follows.
    let mut records = shared.db.read(move |conn| tasks::list(conn, &filter, limit + 1)).await?;
    let is_last = records.len() <= limit;
    records.truncate(limit);
    let next_cursor = records.last().filter(|_| !is_last).map(|record| record.task.id.to_string());
    let now = shared.clock.wall();
    let screenshot_tasks = records.iter().map(|record| TaskView::of(record, now)).collect();
    Ok(Json(TaskList { screenshot_tasks, next_cursor }))
}

/// A task to be made.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewTask {
    /// `domain/app/name`, of a domain that was added. The stream need not be live.
    #[serde(default)]
    #[schemars(required, length(min = 5))]
    stream: Option<String>,
    /// The snapshot template's number.
    #[serde(default)]
    #[schemars(required, range(min = 1))]
    template: Option<i64>,
    /// When it begins, ms since 1970; now if it is left out. At most 6 days from now.
    start_ms: Option<i64>,
    /// When it ends: at most 24 hours after its start, less than 7 days from now.
    #[serde(default)]
    #[schemars(required)]
    end_ms: Option<i64>,
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<NewTask>,
) -> Result<Response, Problem> {
    let once = key.once_at(ALL, &shared, &body.canonical);
    let NewTask { stream, template, start_ms, end_ms } = body.order;
    let stream = parse_stream("stream", stream.as_deref().unwrap_or_default()).map_err(Problem::of_body)?;
    let template = TemplateId(template.unwrap_or_default());
    let now = shared.clock.wall();
    let (start, end) = (start_ms.map_or(now, UnixMs), UnixMs(end_ms.unwrap_or_default()));
    let window = TaskWindow::new(start, end, now).map_err(|error| match error.field {
        "start" => FieldError::new("start_ms", start.0, error.allowed),
        _ => FieldError::new("end_ms", end.0, error.allowed),
    })?;
    let id = TaskId(uuid_v7(now, shared.entropy.id_bytes()));
    let task = ScreenshotTask { id, stream, template, window };
    let record = TaskRecord { task: task.clone(), stopped: None };
    let decide = move |inventory: &Inventory| {
        // CSS takes any number here; a task without a template takes nothing, in silence.
        if !inventory.snapshot_templates.iter().any(|known| known.value.id == template) {
            return Err(FieldError::new("template", template, "the number of such a template").into());
        }
        inventory.create_task(task.clone()).map_err(|refused| match refused {
            ChangeRefused::DomainUnknown(_) => {
                FieldError::new("stream", &task.stream, "a stream of a domain that was added").into()
            }
            other => other,
        })
    };
    let answer = move |_: &Inventory, _| Answer {
        status: StatusCode::CREATED.as_u16(),
        location: format!("{ALL}/{id}"),
        etag: etag(&record, now).as_str().to_owned(),
        body: serde_json::to_string(&TaskView::of(&record, now)).expect("a view is JSON"),
    };
    let answer = shared.configuration.by(&caller).change_once(once, decide, answer).await?;
    Ok(resource::created(answer))
}

async fn known(shared: &Shared, id: TaskId) -> Result<TaskRecord, Problem> {
    let found = shared.db.read(move |conn| tasks::record_of(conn, id)).await?;
    found.ok_or_else(|| Problem::not_found("there is no such task; those that are over are kept for 90 days"))
}

fn parse_id(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|_| Problem::bad_field("id", format!("{text:?} is no task's id")))
}

async fn show(
    State(shared): State<Arc<Shared>>,
    InPath(id): InPath<String>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let record = known(&shared, parse_id(&id)?).await?;
    let now = shared.clock.wall();
    let etag = etag(&record, now);
    if conditions.knows(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag.header())]).into_response());
    }
    Ok(shown(&record, now))
}

fn shown(record: &TaskRecord, now: UnixMs) -> Response {
    let etag: HeaderValue = etag(record, now).header();
    ([(header::ETAG, etag)], Json(TaskView::of(record, now))).into_response()
}

/// A task that is over or stopped stays as it is.
async fn stop(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    known(&shared, id).await?;
    shared.configuration.by(&caller).change(move |inventory| Ok(inventory.stop_task(id))).await?;
    Ok(shown(&known(&shared, id).await?, shared.clock.wall()))
}

/// Its pictures stay.
async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let record = known(&shared, id).await?;
    let now = shared.clock.wall();
    conditions.check_tag(&etag(&record, now))?;
    let was_open = Progress::of(&record, now).is_open();
    let decide = move |inventory: &Inventory| {
        // It may have been stopped since it was read.
        let is_open = inventory.tasks.iter().any(|task| task.id == id);
        if conditions.are_any() && is_open != was_open {
            return Err(ChangeRefused::Changed);
        }
        Ok(inventory.delete_task(id))
    };
    shared.configuration.by(&caller).change(decide).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Vec<Route> {
    let id = |route: Route| route.of::<Uuid>("id", "The task's id.").problems(&[400, 404]);
    vec![
        Route::get(ALL, "list_screenshot_tasks", "List screenshot tasks, over or not", list)
            .query::<ListQuery>()
            .answers::<TaskList>(200, "A page of them, in the order they were made."),
        Route::post(
            ALL,
            "create_screenshot_task",
            "Take pictures of a stream for a while, three tasks at a time",
            create,
        )
        .takes::<NewTask>()
        .once()
        .answers_version::<TaskView>(201, "It is made.")
        .problems(&[409]),
        id(Route::get(ONE, "get_screenshot_task", "Show a screenshot task", show))
            .unless_known()
            .answers_version::<TaskView>(200, "The task."),
        id(Route::post(
            "/v1/screenshot-tasks/{id}/stop",
            "stop_screenshot_task",
            "Let a screenshot task take no more pictures",
            stop,
        ))
        .carried_out_once()
        .answers_version::<TaskView>(200, "The task as it is now: stopped, or over before."),
        id(Route::delete(ONE, "delete_screenshot_task", "Stop and forget a screenshot task", delete))
            .if_unchanged()
            .answers_nothing(204, "It is gone. Its pictures stay."),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_as_far_as_its_time_says_until_it_is_stopped() {
        let window = TaskWindow::from_stored(UnixMs(10), UnixMs(20)).unwrap();
        let stream = parse_stream("stream", "a.example/live/room").unwrap();
        let task = ScreenshotTask { id: TaskId(Uuid::nil()), stream, template: TemplateId(1), window };
        let record = |stopped| TaskRecord { task: task.clone(), stopped };
        for (at, state) in
            [(9, Progress::Waiting), (10, Progress::Running), (19, Progress::Running), (20, Progress::Over)]
        {
            assert_eq!(Progress::of(&record(None), UnixMs(at)), state, "{at}");
            assert_eq!(Progress::of(&record(Some(UnixMs(15))), UnixMs(at)), Progress::Stopped, "{at}");
        }
        assert_ne!(etag(&record(None), UnixMs(9)), etag(&record(None), UnixMs(10)), "each state is a version");
    }
}
