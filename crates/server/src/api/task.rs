//! Screenshot tasks.

use framehook_domain::id::{TaskId, TemplateId, uuid_v7};
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
use framehook_domain::task::{self, TaskWindow};
use framehook_domain::time::UnixMs;
use framehook_tc3::action::Response;
use framehook_tc3::action::screenshot_task::{
    CreateScreenshotTask, DescribeScreenshotTask, OneTask, ScreenshotTask, StreamType,
};
use framehook_tc3::error::{ApiError, ErrorCode};
use framehook_tc3::time::UnixSecs;

use super::Parts;
use super::error::Failure;
use crate::catalog::CatalogEditor;
use crate::db::Db;
use crate::db::task::{self as tasks, TaskFilter, TaskRecord};

/// Tasks in one answer. The documents give no number, since clients follow the token until it is empty.
const PAGE_TASKS: usize = 100;

pub(super) async fn create(
    parts: &Parts,
    catalog: &CatalogEditor<'_>,
    request: CreateScreenshotTask,
) -> Result<Response, Failure> {
    let CreateScreenshotTask { domain_name, app_name, stream_name, start, end, template_id, stream_type } = request;
    if stream_type == StreamType::Mixed {
        return Err(Failure::unsupported("Streams are not mixed here; `StreamType` must be 0."));
    }
    let stream = StreamId {
        domain: DomainName::parse(&domain_name)?,
        app: AppName::parse(&app_name)?,
        name: StreamName::parse(&stream_name)?,
    };
    let now = parts.clock.wall();
    let window = TaskWindow::new(UnixMs::from_secs(start.0), UnixMs::from_secs(end.0), now)?;
    let id = TaskId(uuid_v7(now, parts.entropy.id_bytes()));
    let task = task::ScreenshotTask { id, stream, template: TemplateId(template_id), window };
    catalog.change(move |inventory| inventory.create_task(task)).await?;
    Ok(Response::TaskCreated { task_id: id.to_string() })
}

pub(super) async fn stop(parts: &Parts, catalog: &CatalogEditor<'_>, request: OneTask) -> Result<Response, Failure> {
    let id = known_task(&parts.db, &request).await?;
    catalog.change(move |inventory| Ok(inventory.stop_task(id))).await?;
    Ok(Response::Done {})
}

pub(super) async fn delete(parts: &Parts, catalog: &CatalogEditor<'_>, request: OneTask) -> Result<Response, Failure> {
    let id = known_task(&parts.db, &request).await?;
    catalog.change(move |inventory| Ok(inventory.delete_task(id))).await?;
    Ok(Response::Done {})
}

pub(super) async fn list(db: &Db, request: DescribeScreenshotTask) -> Result<Response, Failure> {
    let after = request.scroll_token.map(|token| token.parse::<TaskId>()).transpose();
    let filter = TaskFilter {
        since: UnixMs::from_secs(request.start.0),
        until: UnixMs::from_secs(request.end.0),
        domain: request.domain_name.map(|name| DomainName::parse(&name)).transpose()?,
        app: request.app_name.map(|name| AppName::parse(&name)).transpose()?,
        stream: request.stream_name.map(|name| StreamName::parse(&name)).transpose()?,
        after: after.map_err(|_| ApiError::malformed("ScrollToken", "one that an answer has given"))?,
    };
    // One more tells whether another page follows.
    let mut records = db.read(move |conn| tasks::list(conn, &filter, PAGE_TASKS + 1)).await?;
    let is_last = records.len() <= PAGE_TASKS;
    records.truncate(PAGE_TASKS);
    let last = records.last().filter(|_| !is_last);
    let scroll_token = last.map(|record| record.task.id.to_string()).unwrap_or_default();
    Ok(Response::Tasks { scroll_token, task_list: records.iter().map(info).collect() })
}

/// # Errors
/// `InvalidParameter` for a task that is not there: the documents name nothing narrower.
async fn known_task(db: &Db, request: &OneTask) -> Result<TaskId, Failure> {
    let unknown = || ApiError::new(ErrorCode::InvalidParameter, "There is no task of this `TaskId`.");
    let id: TaskId = request.task_id.parse().map_err(|_| unknown())?;
    if db.read(move |conn| tasks::find(conn, id)).await?.is_some() { Ok(id) } else { Err(unknown().into()) }
}

fn info(record: &TaskRecord) -> ScreenshotTask {
    let TaskRecord { task, stopped } = record;
    let secs = |at: UnixMs| UnixSecs(at.secs());
    ScreenshotTask {
        task_id: task.id.to_string(),
        domain_name: task.stream.domain.to_string(),
        app_name: task.stream.app.to_string(),
        stream_name: task.stream.name.to_string(),
        start_time: secs(task.window.start()),
        end_time: secs(task.window.end()),
        template_id: task.template.0,
        stopped: stopped.map_or(UnixSecs(0), secs),
    }
}
