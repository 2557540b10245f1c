//! What has happened: callbacks that were sent, and pushes that have ended. Both go back as far as the log does.

use framehook_domain::retry::Outcome;
use framehook_domain::stream::{AppName, DomainName};
use framehook_domain::time::UnixMs;
use framehook_tc3::action::Response;
use framehook_tc3::action::callback_record::{CallbackRecord, DescribeCallbackRecords};
use framehook_tc3::action::page::Page;
use framehook_tc3::action::stream_event::{DescribeStreamEvents, StreamEvent};
use framehook_tc3::time::{ApiTime, UnixSecs};

use super::error::Failure;
use crate::db::Db;
use crate::db::history::{self, AttemptFilter, AttemptRecord, EndedPush, NameFilter, PushFilter, Range};

/// Every attempt is a record of its own.
pub(super) async fn list_callbacks(db: &Db, request: DescribeCallbackRecords) -> Result<Response, Failure> {
    let DescribeCallbackRecords { start, end, notation, stream_name, page, event_type, result_code } = request;
    let filter = AttemptFilter {
        stream_name,
        since: UnixMs::from_secs(start.0),
        until: last_of(end),
        event_type,
        is_delivered: result_code.map(|code| code == 0),
    };
    let part = db.read(move |conn| history::attempts(conn, &filter, range(page))).await?;
    let time = |at: UnixMs| ApiTime { at: UnixSecs(at.secs()), notation };
    let record = |record: AttemptRecord| CallbackRecord {
        event_time: time(record.event_at),
        event_type: record.event_type,
        request: record.body,
        response: record.response.unwrap_or_default(),
        response_time: time(record.ended_at),
        result_code: result_code_of(record.outcome),
        stream_id: record.stream_name,
    };
    let data_info_list = part.rows.into_iter().map(record).collect();
    Ok(Response::CallbackRecords { data_info_list, paging: page.of(total(part.total)) })
}

/// Pushes that ended within the time asked about; one that lives has no end to list it by.
pub(super) async fn list_pushes(db: &Db, request: DescribeStreamEvents) -> Result<Response, Failure> {
    let page = request.page;
    let filter = PushFilter {
        since: UnixMs::from_secs(request.start.0),
        until: last_of(request.end),
        domain: request.domain_name.map(|name| DomainName::parse(&name)).transpose()?,
        app: request.app_name.map(|name| AppName::parse(&name)).transpose()?,
        stream_name: request
            .stream_name
            .map(|name| if request.is_strict { NameFilter::Whole(name) } else { NameFilter::Part(name) }),
        is_ascending: request.is_asc,
    };
    // `IsFilter` asks for pushes that succeeded. No others are written down.
    let part = db.read(move |conn| history::ended_pushes(conn, &filter, range(page))).await?;
    let time = |at: UnixMs| ApiTime::utc(UnixSecs(at.secs()));
    let event = |push: EndedPush| StreamEvent {
        app_name: push.stream.app.to_string(),
        domain_name: push.stream.domain.to_string(),
        stream_name: push.stream.name.to_string(),
        stream_start_time: time(push.opened_at),
        stream_end_time: time(push.ended_at),
        stop_reason: push.errmsg,
        duration: total(push.last_media.since(push.opened_at).as_secs()),
        client_ip: push.user_ip,
        resolution: format!("{}x{}", push.width, push.height),
    };
    let event_list = part.rows.into_iter().map(event).collect();
    Ok(Response::StreamEvents { event_list, paging: page.of(total(part.total)) })
}

/// The documents say only that 0 is a success. The status tells most about a failure; without an answer there is none.
fn result_code_of(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Delivered => 0,
        Outcome::Status(status) => status.into(),
        Outcome::Timeout => -2,
        _ => -1,
    }
}

fn range(page: Page) -> Range {
    Range { offset: page.offset().unsigned_abs(), limit: page.size.unsigned_abs() }
}

/// The end of a second that is asked about in whole seconds.
fn last_of(second: UnixSecs) -> UnixMs {
    UnixMs(UnixMs::from_secs(second.0).0.saturating_add(999))
}

fn total(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
