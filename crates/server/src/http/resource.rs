//! What is configured as resources: the same five things are done with each noun, in the same way.
//!
//! A change names what it changes and leaves the rest (`PATCH`, RFC 7396): nobody has to send back a secret that is not shown.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{self, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use framehook_domain::catalog::{ChangeRefused, Inventory, Managed, ManagedBy, Step};
use framehook_domain::id::TemplateId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Shared;
use super::page::{self, PageQuery, bad_cursor};
use super::parameter::{InPath, InQuery};
use super::problem::Problem;
use super::version::{Conditions, Etag};
use crate::audit::Caller;
use crate::catalog::Once;
use crate::db::idempotency::Answer;

/// A noun of the configuration, as `/v1` finds and shows it.
pub(super) trait Noun: Sized + Send + 'static {
    /// Where its list is.
    const PATH: &'static str;
    /// What a list calls them.
    const PLURAL: &'static str;
    /// In the order of the list.
    type Id: Clone + Ord + ToString + Send + 'static;
    type View: Serialize + JsonSchema;

    fn id(&self) -> Self::Id;
    fn parse_id(text: &str) -> Result<Self::Id, Problem>;
    /// By id.
    fn all(inventory: &Inventory) -> &[Managed<Self>];
    fn view(known: &Managed<Self>) -> Self::View;
    fn unknown(id: Self::Id) -> ChangeRefused;
    fn delete(inventory: &Inventory, id: &Self::Id) -> Result<Step, ChangeRefused>;

    fn find<'a>(inventory: &'a Inventory, id: &Self::Id) -> Option<&'a Managed<Self>> {
        Self::all(inventory).iter().find(|known| known.value.id() == *id)
    }
}

/// Who changes an object, and since when it is as it is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Kept {
    /// `file`: the configuration file declares it, and only a change there changes it. `api`: requests do.
    managed_by: Manager,
    created_ms: i64,
    updated_ms: i64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Manager {
    File,
    Api,
}

impl Kept {
    pub(super) fn of<T>(known: &Managed<T>) -> Self {
        let managed_by = match known.by {
            ManagedBy::File => Manager::File,
            ManagedBy::Api => Manager::Api,
        };
        Self { managed_by, created_ms: known.created.0, updated_ms: known.updated.0 }
    }
}

/// A page of a noun's list.
pub(super) struct Listing<N: Noun> {
    rows: Vec<N::View>,
    next_cursor: Option<String>,
}

impl<N: Noun> Serialize for Listing<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(N::PLURAL, &self.rows)?;
        map.serialize_entry("next_cursor", &self.next_cursor)?;
        map.end()
    }
}

impl<N: Noun> JsonSchema for Listing<N> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}List", N::View::schema_name()).into()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        let row = schemas.subschema_for::<N::View>();
        json_schema!({
            "type": "object",
            "required": [N::PLURAL, "next_cursor"],
            "properties": {
                N::PLURAL: { "type": "array", "items": row },
                "next_cursor": { "type": ["string", "null"], "description": "The `cursor` of the next page, if there is one." },
            },
        })
    }
}

pub(super) async fn list<N: Noun>(
    State(shared): State<Arc<Shared>>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Listing<N>>, Problem> {
    let limit = page::rows(query.limit)?;
    let after = query.cursor.map(|text| N::parse_id(&text).map_err(|_| bad_cursor(&text))).transpose()?;
    let inventory = shared.configuration.inventory().await?;
    let rest = N::all(&inventory).iter().filter(|known| after.as_ref().is_none_or(|after| known.value.id() > *after));
    let mut rows: Vec<&Managed<N>> = rest.take(limit + 1).collect();
    let is_last = rows.len() <= limit;
    rows.truncate(limit);
    let next_cursor = if is_last { None } else { rows.last().map(|known| known.value.id().to_string()) };
    Ok(Json(Listing { rows: rows.into_iter().map(N::view).collect(), next_cursor }))
}

pub(super) async fn show<N: Noun>(
    State(shared): State<Arc<Shared>>,
    InPath(id): InPath<String>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let id = N::parse_id(&id)?;
    let inventory = shared.configuration.inventory().await?;
    let known = N::find(&inventory, &id).ok_or_else(|| N::unknown(id))?;
    Ok(versioned(&conditions, known, &N::view(known)))
}

/// A view of an object, or that the sender of the request has it.
pub(super) fn versioned<T>(conditions: &Conditions, known: &Managed<T>, view: &impl Serialize) -> Response {
    let etag = Etag::of(known);
    let headers = [(header::ETAG, etag.header())];
    if conditions.knows(&etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, Json(view)).into_response()
}

/// Makes what `decide` decides on; `which` finds it among everything that is then configured.
pub(super) async fn create<N: Noun>(
    shared: &Shared,
    caller: &Caller,
    once: Option<Once>,
    decide: impl Fn(&Inventory) -> Result<Step, ChangeRefused> + Send + 'static,
    which: impl FnOnce(&Inventory, Option<TemplateId>) -> Option<N::Id> + Send + 'static,
) -> Result<Response, Problem> {
    let answer = move |inventory: &Inventory, added: Option<TemplateId>| {
        let known = which(inventory, added).and_then(|id| N::find(inventory, &id));
        answer(known.expect("what a change has made is there after it"), N::view)
    };
    Ok(created(shared.configuration.by(caller).change_once(once, decide, answer).await?))
}

/// What was made, and where it is.
pub(super) fn created(Answer { status: _, location, etag, body }: Answer) -> Response {
    let mut response = written(StatusCode::CREATED, etag, body);
    let location = HeaderValue::try_from(location).expect("names and numbers of ours are a header value");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Changes an object as `decide` says, if it is what the sender has read.
pub(super) async fn change<N: Noun>(
    shared: &Shared,
    caller: &Caller,
    id: N::Id,
    conditions: Conditions,
    decide: impl Fn(&Inventory) -> Result<Step, ChangeRefused> + Send + 'static,
) -> Result<Response, Problem> {
    change_and_show(shared, caller, id, conditions, decide, N::view).await
}

/// As [`change`], with another view of the object.
pub(super) async fn change_and_show<N: Noun, V: Serialize>(
    shared: &Shared,
    caller: &Caller,
    id: N::Id,
    conditions: Conditions,
    decide: impl Fn(&Inventory) -> Result<Step, ChangeRefused> + Send + 'static,
    view: impl FnOnce(&Managed<N>) -> V + Send + 'static,
) -> Result<Response, Problem> {
    let decide = {
        let id = id.clone();
        move |inventory: &Inventory| {
            conditions.check(N::find(inventory, &id))?;
            decide(inventory)
        }
    };
    let answer = move |inventory: &Inventory, _| {
        let known = N::find(inventory, &id).expect("what a change has changed is there after it");
        answer(known, view)
    };
    let Answer { etag, body, .. } = shared.configuration.by(caller).change_once(None, decide, answer).await?;
    Ok(written(StatusCode::OK, etag, body))
}

pub(super) async fn delete<N: Noun>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let id = N::parse_id(&id)?;
    let decide = move |inventory: &Inventory| {
        conditions.check(N::find(inventory, &id))?;
        N::delete(inventory, &id)
    };
    shared.configuration.by(&caller).change(decide).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn answer<N: Noun, V: Serialize>(known: &Managed<N>, view: impl FnOnce(&Managed<N>) -> V) -> Answer {
    Answer {
        status: StatusCode::CREATED.as_u16(),
        location: format!("{}/{}", N::PATH, known.value.id().to_string()),
        etag: Etag::of(known).as_str().to_owned(),
        body: serde_json::to_string(&view(known)).expect("a view is JSON"),
    }
}

fn written(status: StatusCode, etag: String, body: String) -> Response {
    let etag = HeaderValue::try_from(etag).expect("a version is a header value");
    let json = HeaderValue::from_static("application/json");
    (status, [(header::ETAG, etag), (header::CONTENT_TYPE, json)], body).into_response()
}

/// A number that names an object.
pub(super) fn parse_number(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::bad_field("id", format!("{text:?} is no number")))
}

/// What the sender of a request calls it, if it has a name.
pub(super) struct IdempotencyKey(Option<String>);

/// Longest name: a UUID has 36 characters, and whoever builds one of his own parts has room.
const KEY_BYTES_MAX: usize = 255;

impl IdempotencyKey {
    const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

    /// What recognises the request when it comes again. Its body stands in `canonical`.
    pub(super) fn once<N: Noun>(self, shared: &Shared, canonical: &str) -> Option<Once> {
        self.once_at(N::PATH, shared, canonical)
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// As [`IdempotencyKey::once`], of a request to any path.
    pub(super) fn once_at(self, path: &str, shared: &Shared, canonical: &str) -> Option<Once> {
        self.0.map(|key| shared.configuration.once(key, &format!("{path} {canonical}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut keys = parts.headers.get_all(Self::HEADER).iter();
        match (keys.next(), keys.next()) {
            (None, _) => Ok(Self(None)),
            (Some(key), None) if is_key(key.as_bytes()) => Ok(Self(key.to_str().ok().map(str::to_owned))),
            _ => {
                let detail = format!("it is not one name of 1 to {KEY_BYTES_MAX} visible ASCII characters");
                Err(Problem::bad_field("Idempotency-Key", detail))
            }
        }
    }
}

fn is_key(bytes: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// A field of a change that may be left out and then stays as it is, and that cannot be taken away with `null`.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A field of a change that may be left out and then stays as it is; `null` makes it what it is for who says nothing.
pub(super) fn given_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Change {
        #[serde(deserialize_with = "given")]
        name: Option<String>,
        #[serde(deserialize_with = "given_or_null")]
        width: Option<Option<i64>>,
    }

    #[test]
    fn a_change_tells_what_is_left_out_from_what_is_taken_away() {
        let change = |text| serde_json::from_str::<Change>(text).ok();
        assert_eq!(change("{}"), Some(Change::default()));
        assert_eq!(change(r#"{"width": null}"#), Some(Change { name: None, width: Some(None) }));
        assert_eq!(change(r#"{"width": 7}"#), Some(Change { name: None, width: Some(Some(7)) }));
        assert_eq!(change(r#"{"name": null}"#), None);
    }

    #[test]
    fn a_key_is_visible_and_of_a_bounded_length() {
        for (key, good) in [("a", true), ("8e03978e-40d5-43dd-bc93-6894a57f9324", true), ("", false), ("a b", false)] {
            assert_eq!(is_key(key.as_bytes()), good, "{key:?}");
        }
        assert!(is_key(&[b'k'; 255]) && !is_key(&[b'k'; 256]) && !is_key("é".as_bytes()));
    }
}
