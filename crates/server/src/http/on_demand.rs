//! Pictures that somebody asks for: `latest.jpg` shows what a live stream shows now, `snapshot` takes a picture of it that is
//! stored and announced like any other. Both are made of the keyframe that is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use framehook_domain::id::TemplateId;
use framehook_domain::stream::StreamId;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Shared;
use super::json::JsonBody;
use super::parameter::{InQuery, StreamInPath};
use super::problem::Problem;
use super::route::Route;
use super::snapshots::SnapshotView;
use super::version::{Conditions, Etag};
use crate::db::snapshot;
use crate::keyframes::EntryPoint;
use crate::live::Push;
use crate::pipeline::{LookError, TakeError};

/// Age in seconds up to which a keyframe is shown when nobody says how old it may be: longer than most GOPs.
const MAX_AGE_SECS: u64 = 30;

/// The widest picture that can be asked for, as in a template.
const WIDTH_MAX: u16 = 3000;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LatestQuery {
    /// How old the picture may be, in seconds, 30 if it is left out.
    max_age: Option<u64>,
    /// Pixels; the height follows. 0, or left out, is the stream's own width.
    #[schemars(range(max = 3000))]
    width: Option<u16>,
}

async fn get(
    State(shared): State<Arc<Shared>>,
    StreamInPath(stream): StreamInPath,
    InQuery(query): InQuery<LatestQuery>,
    conditions: Conditions,
) -> Result<Response, Response> {
    let refused = |problem: Problem| problem.into_response();
    let width = query.width.unwrap_or(0);
    if width > WIDTH_MAX {
        let detail = format!("{width} is no width; 0 to {WIDTH_MAX} pixels can be asked for");
        return Err(refused(Problem::bad_field("width", detail)));
    }
    let Newest { push, entry_point, age, wait } = newest(&shared, &stream, query.max_age)?;
    let etag = Etag::of_picture(push.sequence(), entry_point.arrival.wall, width);
    let (status, image) = if conditions.knows(&etag) {
        (StatusCode::NOT_MODIFIED, None)
    } else {
        match shared.pipeline.look(push.sequence(), &entry_point, width).await {
            Ok(image) => (StatusCode::OK, Some(image.bytes)),
            Err(LookError::Busy) => return Err(later(&LookError::Busy.to_string(), Some(Duration::from_secs(1)))),
            Err(LookError::Render(error)) => {
                return Err(later(&format!("no picture could be made of the newest keyframe: {error}"), wait));
            }
        }
    };
    let mut response = image.map_or_else(|| status.into_response(), |bytes| (status, bytes).into_response());
    let answer = response.headers_mut();
    if status == StatusCode::OK {
        answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    }
    answer.insert(header::AGE, HeaderValue::from(age.as_secs()));
    answer.insert(header::ETAG, etag.header());
    // It may be kept, and is asked for again each time: a tag that is still right costs no rendering.
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// The newest keyframe of a live stream.
struct Newest {
    push: Arc<Push>,
    entry_point: EntryPoint,
    age: Duration,
    /// Until the next one is expected.
    wait: Option<Duration>,
}

/// Why no picture can be made now.
enum Missing {
    /// Not of this stream as it is.
    Never(Problem),
    /// Not yet; how long until then, where that can be told.
    Yet(String, Option<Duration>),
}

impl From<Missing> for Response {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Never(problem) => problem.into_response(),
            Missing::Yet(detail, wait) => later(&detail, wait),
        }
    }
}

/// Finds the keyframe that a picture can be made of now, at most `max_age` seconds old, and lets the stream's keyframes be
/// kept from now on. Otherwise says why there is none, and when to come back.
fn newest(shared: &Shared, stream: &StreamId, max_age: Option<u64>) -> Result<Newest, Missing> {
    let never = |detail: String| Missing::Never(Problem::not_found(detail));
    let push = shared.lives.push_of(stream).ok_or_else(|| never(format!("{stream} is not live")))?;
    let now = shared.clock.mono();
    push.ask(now);
    let facts = push.facts();
    if let Some(codec) = &facts.unsupported {
        return Err(never(format!("no picture can be made of this stream's video, {codec}")));
    }
    let wait = expected_wait(facts.gop_ms, now.since(facts.last_entry_point.unwrap_or(now)));
    let Some(entry_point) = shared.keyframes.newest(push.sequence()) else {
        return Err(Missing::Yet("no keyframe of this stream is at hand yet".to_owned(), wait));
    };
    let age = now.since(entry_point.arrival.mono);
    let max_age = max_age.unwrap_or(MAX_AGE_SECS);
    if age > Duration::from_secs(max_age) {
        let detail = format!("the newest keyframe is {:.1} s old, and max_age is {max_age} s", age.as_secs_f64());
        return Err(Missing::Yet(detail, wait));
    }
    Ok(Newest { push, entry_point, age, wait })
}

/// What to take, and of what. Everything may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SnapshotOrder {
    /// The snapshot template to take it by; that of the stream's rule if it is left out.
    template: Option<i64>,
    /// How old the keyframe may be, in seconds, 30 if it is left out.
    max_age: Option<u64>,
}

async fn take(
    State(shared): State<Arc<Shared>>,
    StreamInPath(stream): StreamInPath,
    body: JsonBody<SnapshotOrder>,
) -> Result<Response, Response> {
    let refused = |problem: Problem| problem.into_response();
    let SnapshotOrder { template, max_age } = body.order;
    let catalog = Arc::clone(&shared.catalog.borrow());
    let template = match template {
        Some(number) => catalog.snapshot_template(TemplateId(number)).cloned(),
        None => catalog.snapshot_rule_for(&stream).map(|(_, template)| template),
    };
    let missing =
        || Problem::bad_value("template", "there is no such template, or no rule covers the stream: name one");
    let template = template.ok_or_else(|| refused(missing()))?;
    let Newest { push, entry_point, wait, .. } = newest(&shared, &stream, max_age)?;
    let taken = match shared.pipeline.take(push, &entry_point, template, catalog.version()).await {
        Ok(taken) => taken,
        Err(TakeError::Look(LookError::Render(error))) => {
            return Err(later(&format!("no picture could be made of the newest keyframe: {error}"), wait));
        }
        Err(error) => return Err(later(&error.to_string(), Some(Duration::from_secs(1)))),
    };
    let row = shared.db.read(move |conn| snapshot::show(conn, taken)).await.map_err(|error| refused(error.into()))?;
    let view = SnapshotView::from(row.expect("what was committed is there for days"));
    let location = HeaderValue::try_from(format!("/v1/snapshots/{taken}")).expect("an id is a header value");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// How long the next keyframe will take, told from the length of the last GOP and from when one was last seen. `None`
/// before a whole GOP has passed.
fn expected_wait(gop_ms: u64, since_last: Duration) -> Option<Duration> {
    (gop_ms > 0).then(|| Duration::from_millis(gop_ms - since_last.as_millis() as u64 % gop_ms))
}

/// 503: there is nothing to be shown now, and this is how long that will last.
fn later(detail: &str, wait: Option<Duration>) -> Response {
    let secs = wait.map(|wait| wait.as_millis().div_ceil(1000).max(1));
    let detail = match secs {
        Some(secs) => format!("{detail}; the next attempt is worth making in about {secs} s"),
        None => detail.to_owned(),
    };
    let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    if let Some(secs) = secs {
        let secs = HeaderValue::try_from(secs.to_string()).expect("digits are a header value");
        response.headers_mut().insert(header::RETRY_AFTER, secs);
    }
    response
}

pub(super) fn routes() -> [Route; 2] {
    let stream = |route: Route| {
        route
            .of::<String>("domain", "The push domain.")
            .of::<String>("app", "The app.")
            .of::<String>("stream", "The stream's name.")
            .problems(&[400, 404])
    };
    const LATEST: &str = "/v1/streams/{domain}/{app}/{stream}/latest.jpg";
    const SNAPSHOT: &str = "/v1/streams/{domain}/{app}/{stream}/snapshot";
    [
        stream(Route::get(LATEST, "get_latest_picture", "Fetch what a stream shows now, of its newest keyframe", get))
            .query::<LatestQuery>()
            .unless_known()
            .answers_as(200, "The picture. `Age` says how old it is.", &["image/jpeg"]),
        stream(Route::post(SNAPSHOT, "take_snapshot", "Take a picture now, stored and announced as any other", take))
            .takes::<SnapshotOrder>()
            .carried_out_once()
            .answers::<SnapshotView>(202, "The picture: durable, and on its way to its store."),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_keyframe_is_expected_a_gop_after_one_that_was_seen() {
        let ms = Duration::from_millis;
        let cases = [
            ("before the first whole GOP", 0, 500, None),
            ("just seen", 2000, 0, Some(2000)),
            ("half way", 2000, 1000, Some(1000)),
            ("some GOPs ago, which nobody looked at", 2000, 7500, Some(500)),
        ];
        for (name, gop_ms, since_last, expected) in cases {
            assert_eq!(expected_wait(gop_ms, ms(since_last)), expected.map(ms), "{name}");
        }
    }

    #[test]
    fn a_refusal_says_in_whole_seconds_when_to_come_back() {
        let retry_after = |wait| later("nothing", wait).headers().get(header::RETRY_AFTER).cloned();
        assert_eq!(retry_after(None), None);
        assert_eq!(retry_after(Some(Duration::from_millis(1))), Some(HeaderValue::from_static("1")));
        assert_eq!(retry_after(Some(Duration::from_millis(1001))), Some(HeaderValue::from_static("2")));
    }
}
