//! The operations of `/v1`: what answers each, and what the document says of it. Both stand in one value, so that there is
//! no route without its description and no description without its route.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, patch, post};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Shared, once};

/// One operation.
pub(super) struct Route {
    pub(super) method: Method,
    /// As axum and OpenAPI both write it: parameters in braces.
    pub(super) path: &'static str,
    /// For programs that make functions of operations; unique.
    pub(super) name: &'static str,
    /// A line for people.
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Parameter>,
    /// The parameters of the query, as the fields of one object.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) answers: Vec<Answer>,
    /// Statuses of problems, beside those that every operation may answer.
    pub(super) problems: Vec<u16>,
    handler: MethodRouter<Arc<Shared>>,
    is_carried_out_once: bool,
}

/// Gives the schema of a type, or a reference to it.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of the path or a header.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) about: &'static str,
    pub(super) schema: SchemaOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    /// Never required.
    Header,
}

/// An answer that is no problem.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    /// Content types, each with its schema; none where nothing follows the head.
    pub(super) content: Vec<(&'static str, SchemaOf)>,
    pub(super) headers: &'static [(&'static str, &'static str)],
}

const ETAG: (&str, &str) =
    ("ETag", "The version. Give it as `If-Match` with a change, or as `If-None-Match` when asking again.");
const LOCATION: (&str, &str) = ("Location", "The path of what was made.");

impl Route {
    pub(super) fn get<H, T>(path: &'static str, name: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self::new(Method::GET, path, name, summary, get(handler))
    }

    pub(super) fn post<H, T>(path: &'static str, name: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self::new(Method::POST, path, name, summary, post(handler))
    }

    pub(super) fn patch<H, T>(path: &'static str, name: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self::new(Method::PATCH, path, name, summary, patch(handler))
    }

    pub(super) fn delete<H, T>(path: &'static str, name: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self::new(Method::DELETE, path, name, summary, delete(handler))
    }

    fn new(
        method: Method,
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: MethodRouter<Arc<Shared>>,
    ) -> Self {
        let (parameters, answers, problems) = (Vec::new(), Vec::new(), Vec::new());
        let (query, body, is_carried_out_once) = (None, None, false);
        Self { method, path, name, summary, parameters, query, body, answers, problems, handler, is_carried_out_once }
    }

    /// Describes one of the path's parameters.
    pub(super) fn of<T: JsonSchema>(self, name: &'static str, about: &'static str) -> Self {
        self.parameter::<T>(Place::Path, name, about)
    }

    pub(super) fn header<T: JsonSchema>(self, name: &'static str, about: &'static str) -> Self {
        self.parameter::<T>(Place::Header, name, about)
    }

    fn parameter<T: JsonSchema>(mut self, place: Place, name: &'static str, about: &'static str) -> Self {
        self.parameters.push(Parameter { name, place, about, schema: |schemas| schemas.subschema_for::<T>() });
        self
    }

    /// Each field of `T` is a parameter of the query.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(|schemas| T::json_schema(schemas)), ..self }.problems(&[400])
    }

    /// Reads JSON.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(|schemas| schemas.subschema_for::<T>()), ..self }.problems(&[400, 413, 422])
    }

    /// Answers JSON.
    pub(super) fn answers<T: JsonSchema>(self, status: u16, about: &'static str) -> Self {
        self.answer(status, about, vec![("application/json", |schemas| schemas.subschema_for::<T>())], &[])
    }

    /// Answers what is no JSON, of one of these types.
    pub(super) fn answers_as(self, status: u16, about: &'static str, content_types: &[&'static str]) -> Self {
        let any: SchemaOf = |_| Schema::default();
        self.answer(status, about, content_types.iter().map(|content_type| (*content_type, any)).collect(), &[])
    }

    /// Answers server-sent events whose data are `T`s. OpenAPI 3.1 has no word for a stream: this describes one event's data.
    pub(super) fn answers_events<T: JsonSchema>(self, status: u16, about: &'static str) -> Self {
        let schema: SchemaOf = |schemas| {
            let data = schemas.subschema_for::<T>();
            json_schema!({ "type": "string", "contentMediaType": "application/json", "contentSchema": data })
        };
        self.answer(status, about, vec![("text/event-stream", schema)], &[])
    }

    pub(super) fn answers_nothing(self, status: u16, about: &'static str) -> Self {
        self.answer(status, about, Vec::new(), &[])
    }

    /// Answers an object of the configuration with its version.
    pub(super) fn answers_version<T: JsonSchema>(self, status: u16, about: &'static str) -> Self {
        let headers: &[_] = if status == 201 { &[ETAG, LOCATION] } else { &[ETAG] };
        self.answer(status, about, vec![("application/json", |schemas| schemas.subschema_for::<T>())], headers)
    }

    fn answer(
        mut self,
        status: u16,
        about: &'static str,
        content: Vec<(&'static str, SchemaOf)>,
        headers: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.answers.push(Answer { status, about, content, headers });
        self
    }

    /// Spares who has the newest version the body.
    pub(super) fn unless_known(self) -> Self {
        self.header::<String>("If-None-Match", "A version that is known already.").answer(
            304,
            "It is that version still.",
            Vec::new(),
            &[ETAG],
        )
    }

    /// Changes only the version that was read.
    pub(super) fn if_unchanged(self) -> Self {
        self.header::<String>("If-Match", "The version to change; anything else is left alone.").problems(&[412])
    }

    /// Does something once, however often it is asked to: the handler sees to that by [`IdempotencyKey`].
    ///
    /// [`IdempotencyKey`]: super::resource::IdempotencyKey
    pub(super) fn once(self) -> Self {
        let about = "A name of the sender's own for this request, 1 to 255 visible ASCII characters. The same request under it \
                     gets the same answer for 24 hours and makes nothing more.";
        self.header::<String>("Idempotency-Key", about).problems(&[400, 409, 413, 422])
    }

    /// As [`Route::once`], for a handler that knows nothing of it.
    pub(super) fn carried_out_once(self) -> Self {
        Self { is_carried_out_once: true, ..self.once() }
    }

    /// Statuses of problems that it may answer.
    pub(super) fn problems(mut self, statuses: &[u16]) -> Self {
        self.problems.extend_from_slice(statuses);
        self.problems.sort_unstable();
        self.problems.dedup();
        self
    }

    pub(super) fn add_to(self, router: Router<Arc<Shared>>, shared: &Arc<Shared>) -> Router<Arc<Shared>> {
        let handler = if self.is_carried_out_once {
            self.handler.layer(from_fn_with_state(Arc::clone(shared), once::carry_out))
        } else {
            self.handler
        };
        router.route(self.path, handler)
    }

    /// What the path is about: its part behind `/v1`.
    pub(super) fn noun(&self) -> &'static str {
        match self.path.split('/').nth(2).unwrap_or_default() {
            "openapi.json" | "docs" => "document",
            noun => noun,
        }
    }
}
