//! `/v1/events`: what happens, as it happens (server-sent events, WHATWG HTML 9.2).

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use framehook_domain::stream::{AppName, DomainName, StreamId};
use futures_util::stream::unfold;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::parameter::{InQuery, parse_stream};
use super::problem::Problem;
use super::route::Route;
use super::{Ending, Shared};
use crate::audit::Caller;
use crate::clock::Clock;
use crate::telemetry::feed::{Heard, Listener, Told};
use crate::telemetry::happening::{Event, Happening};

/// What to tell. Everything may be left out; what is given narrows it down.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListenQuery {
    /// Names of kinds, several with commas. `missed` is told all the same.
    kind: Option<String>,
    /// `domain/app/name`: only what is about this stream.
    stream: Option<String>,
    /// Only what is about streams of this push domain.
    domain: Option<String>,
    /// Only what is about streams of this app.
    app: Option<String>,
}

#[derive(Debug, Default)]
struct Filter {
    /// Empty: all.
    kinds: Vec<&'static str>,
    stream: Option<StreamId>,
    domain: Option<DomainName>,
    app: Option<AppName>,
}

impl ListenQuery {
    fn filter(&self) -> Result<Filter, Problem> {
        let kind = |name: &str| {
            Happening::KINDS.into_iter().find(|known| *known == name).ok_or_else(|| {
                let known = Happening::KINDS.join(", ");
                Problem::bad_field("kind", format!("{name:?} is not told; there are {known}"))
            })
        };
        let domain = |text: &String| DomainName::parse(text).map_err(|error| Problem::bad_parameter("domain", error));
        let app = |text: &String| AppName::parse(text).map_err(|error| Problem::bad_parameter("app", error));
        Ok(Filter {
            kinds: self.kind.iter().flat_map(|list| list.split(',')).map(kind).collect::<Result<_, _>>()?,
            stream: self.stream.as_deref().map(|text| parse_stream("stream", text)).transpose()?,
            domain: self.domain.as_ref().map(domain).transpose()?,
            app: self.app.as_ref().map(app).transpose()?,
        })
    }
}

impl Filter {
    fn admits(&self, told: &Told) -> bool {
        let of = told.stream.as_ref();
        (self.kinds.is_empty() || self.kinds.contains(&told.kind))
            && self.stream.as_ref().is_none_or(|wanted| of == Some(wanted))
            && self.domain.as_ref().is_none_or(|wanted| of.is_some_and(|stream| stream.domain == *wanted))
            && self.app.as_ref().is_none_or(|wanted| of.is_some_and(|stream| stream.app == *wanted))
    }
}

/// One answer that goes on.
struct Telling {
    clock: Clock,
    listener: Listener,
    filter: Filter,
    /// The key that it was asked with was revoked.
    revoked: CancellationToken,
    /// The server ends.
    ending: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Telling {
    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        loop {
            let heard = tokio::select! {
                // Nothing more is told to a key that is revoked, whatever there is to tell.
                biased;
                () = self.revoked.cancelled() => return None,
                heard = self.listener.next() => heard?,
                // Behind what has happened, so that an end is told to its end.
                () = self.ending.cancelled() => return None,
            };
            match heard {
                Heard::Event(told) if self.filter.admits(&told) => {
                    return Some(Message::default().event(told.kind).data(&told.json));
                }
                Heard::Event(_) => {}
                Heard::Missed(count) => {
                    let missed = Happening::Missed { count };
                    let (kind, event) = (missed.kind(), Event::new(self.clock.wall(), None, missed));
                    return Some(Message::default().event(kind).data(event.json()));
                }
            }
        }
    }
}

/// Keeps proxies from holding events back (nginx).
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

async fn listen(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Extension(Ending(ending)): Extension<Ending>,
    InQuery(query): InQuery<ListenQuery>,
) -> Result<Response, Problem> {
    let filter = query.filter()?;
    let place = Arc::clone(&shared.event_streams).try_acquire_owned().map_err(|_| {
        let detail = "as many listen as may (http.event_streams_max)";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let revoked = match &caller {
        // One that was revoked since the login has no token any more: nothing is told to it.
        Caller::Key { id, .. } => shared.credentials.key_of(id).map_or_else(cancelled, |key| key.revoked().clone()),
        Caller::Control | Caller::File => CancellationToken::new(),
    };
    let (clock, listener) = (shared.clock, shared.telemetry.feed.listen());
    let telling = Telling { clock, listener, filter, revoked, ending, _place: place };
    let messages = unfold(telling, |mut telling| async move {
        let message = telling.next().await?;
        Some((Ok::<_, Infallible>(message), telling))
    });
    let keep_alive = KeepAlive::new().interval(shared.event_keep_alive);
    Ok(([UNBUFFERED], Sse::new(messages).keep_alive(keep_alive)).into_response())
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/events",
            "listen_to_events",
            "Listen to what happens, from now on, as server-sent events",
            listen,
        )
        .query::<ListenQuery>()
        .answers_events::<Event>(
            200,
            "It goes on until either side ends it, or the key is revoked. `event` is the kind, `data` the JSON. What \
                 happened before is not told: search snapshots, deliveries and the audit log for it.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &'static str, stream: Option<&str>) -> Told {
        let stream = stream.map(|text| parse_stream("stream", text).expect("a stream"));
        Told { kind, stream, json: String::new() }
    }

    #[test]
    fn what_is_asked_for_is_told_and_nothing_else() {
        let query = |kind: &str, stream: &str, domain: &str, app: &str| {
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            ListenQuery { kind: given(kind), stream: given(stream), domain: given(domain), app: given(app) }.filter()
        };
        let room = told("snapshot_taken", Some("a.example/live/room"));
        let change = told("configuration_changed", None);
        for (name, filter, of_room, of_change) in [
            ("everything", query("", "", "", ""), true, true),
            ("a kind", query("snapshot_taken", "", "", ""), true, false),
            ("two kinds", query("push_began,configuration_changed", "", "", ""), false, true),
            ("the stream", query("", "a.example/live/room", "", ""), true, false),
            ("another stream", query("", "a.example/live/hall", "", ""), false, false),
            ("the domain", query("", "", "a.example", ""), true, false),
            ("another domain", query("", "", "b.example", ""), false, false),
            ("the app", query("", "", "", "live"), true, false),
            ("another app", query("", "", "", "vod"), false, false),
            ("domain and kind", query("push_ended", "", "a.example", ""), false, false),
        ] {
            let filter = filter.expect(name);
            assert_eq!((filter.admits(&room), filter.admits(&change)), (of_room, of_change), "{name}");
        }
        for bad in
            [query("picture", "", "", ""), query("", "room", "", ""), query("", "", "a b", ""), query(",", "", "", "")]
        {
            assert!(bad.is_err(), "{bad:?}");
        }
    }
}
