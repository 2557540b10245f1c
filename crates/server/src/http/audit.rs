//! `/v1/audit`: who changed what.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use framehook_domain::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Records;
use super::page::{self, bad_cursor};
use super::parameter::InQuery;
use super::problem::Problem;
use super::route::Route;
use crate::audit::Noun;
use crate::db::audit::{self, Entry, Filter};

const PATH: &str = "/v1/audit";

pub(super) fn pages() -> Router<Records> {
    Router::new().route(PATH, get(list))
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get(PATH, "list_audit", "Search who changed what, the newest first", list)
            .query::<ListQuery>()
            .answers::<AuditList>(200, "A page of it."),
    ]
}

/// What to list. Everything may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `domain`, `key`, …
    noun: Option<String>,
    /// What was changed, as entries name it.
    id: Option<String>,
    /// A key's id, `control` or `file`.
    who: Option<String>,
    /// At or after, ms since 1970.
    since_ms: Option<i64>,
    /// Before.
    until_ms: Option<i64>,
    /// The page after another: its `next_cursor`.
    cursor: Option<String>,
    /// At most so many, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
struct AuditList {
    entries: Vec<EntryView>,
    /// The `cursor` of the next page, if there may be one.
    next_cursor: Option<String>,
}

/// One change of one thing.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
struct EntryView {
    entry: i64,
    at_ms: i64,
    who: String,
    /// The key's name at that time.
    name: Option<String>,
    peer: Option<String>,
    noun: String,
    id: String,
    verb: String,
    /// With secrets masked: two masks are the same when the secrets are.
    before: Option<Value>,
    after: Option<Value>,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        // What we wrote is JSON; a row that somebody else changed is shown without it.
        let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        Self {
            entry: entry.id,
            at_ms: entry.at.0,
            who: entry.who,
            name: entry.name,
            peer: entry.peer,
            noun: entry.noun,
            id: entry.object,
            verb: entry.verb,
            before: json(entry.before),
            after: json(entry.after),
        }
    }
}

async fn list(
    State(Records { db, .. }): State<Records>,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<AuditList>, Problem> {
    let noun = |name: &String| {
        Noun::from_name(name).ok_or_else(|| {
            let known: Vec<_> = Noun::ALL.iter().map(|noun| noun.name()).collect();
            Problem::bad_field("noun", format!("{name:?} is not noted; there are {}", known.join(", ")))
        })
    };
    let filter = Filter {
        noun: query.noun.as_ref().map(noun).transpose()?,
        object: query.id,
        who: query.who,
        since: query.since_ms.map(UnixMs),
        until: query.until_ms.map(UnixMs),
        before: query.cursor.map(|text| text.parse().map_err(|_| bad_cursor(&text))).transpose()?,
    };
    let limit = page::rows(query.limit)?;
    let entries = db.read(move |conn| audit::list(conn, &filter, limit)).await?;
    let last = entries.last().filter(|_| entries.len() == limit);
    let next_cursor = last.map(|entry| entry.id.to_string());
    Ok(Json(AuditList { entries: entries.into_iter().map(EntryView::from).collect(), next_cursor }))
}
