//! What `/v1` is, as an OpenAPI 3.1 document, made of the routes themselves.
//!
//! Schemas are JSON Schema 2020-12, as OpenAPI 3.1 takes it, made by `schemars` of the types that are read and written.

use std::sync::LazyLock;

use axum::Json;
use axum::http::{Method, StatusCode};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::{PROBLEM_JSON, Problem};
use super::route::{Answer, Parameter, Place, Route};

/// Made once. It depends on nothing but the code.
pub(super) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&super::v1::routes()));

/// What every operation may answer: who asks is not known, asks too often without being known, or it is our own fault.
pub(super) const EVERYWHERE: [u16; 4] = [401, 429, 500, 503];

pub(super) async fn show() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

fn document(routes: &[Route]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for route in routes {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.as_str().to_lowercase()] = operation(route, &mut schemas);
    }
    let mut nouns: Vec<&str> = Vec::new();
    for noun in routes.iter().map(Route::noun) {
        if !nouns.contains(&noun) {
            nouns.push(noun);
        }
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Framehook",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Takes pictures of live streams and tells about them. Times are milliseconds since 1970 in UTC. \
                Lists come in pages: `next_cursor` of one is the `cursor` of the next, and `null` at the end. What the \
                configuration file declares (`managed_by` is `file`) is read-only here. A change is durable when it is \
                answered, and reaches live streams at once. Errors are problems as RFC 9457 has them.",
        },
        "tags": nouns.iter().map(|noun| json!({ "name": noun })).collect::<Vec<_>>(),
        "security": [{ "bearer": [] }, { "basic": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A secret key." },
                "basic": { "type": "http", "scheme": "basic", "description": "A secret id and its key." },
            },
        },
    })
}

/// Generators of schemas: a type is described as it is read, or as it is written.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self { read: settings().for_deserialize().into(), written: settings().for_serialize().into() }
    }

    fn finish(mut self) -> Value {
        let mut all = self.read.take_definitions(true);
        all.extend(self.written.take_definitions(true));
        Value::Object(all)
    }
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let mut parameters: Vec<Value> =
        route.parameters.iter().map(|parameter| stated(parameter, &mut schemas.read)).collect();
    if let Some(query) = route.query {
        parameters.extend(fields(query(&mut schemas.read)));
    }
    let mut responses = Map::new();
    for answer in &route.answers {
        responses.insert(answer.status.to_string(), response(answer, &mut schemas.written));
    }
    let forbidden: &[u16] = if route.method == Method::GET { &[] } else { &[403] };
    for status in route.problems.iter().chain(forbidden).chain(&EVERYWHERE) {
        let problem = schemas.written.subschema_for::<Problem>();
        let content = json!({ PROBLEM_JSON: { "schema": problem } });
        responses.insert(status.to_string(), json!({ "description": meaning(*status), "content": content }));
    }
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.noun()],
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = route.body {
        let schema = body(&mut schemas.read);
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn stated(parameter: &Parameter, schemas: &mut SchemaGenerator) -> Value {
    let Parameter { name, place, about, schema } = parameter;
    let is_in_path = *place == Place::Path;
    json!({
        "name": name,
        "in": if is_in_path { "path" } else { "header" },
        "required": is_in_path,
        "description": about,
        "schema": schema(schemas),
    })
}

/// The fields of an object as parameters of a query.
fn fields(object: Schema) -> Vec<Value> {
    let Some(Value::Object(fields)) = object.get("properties").cloned() else { return Vec::new() };
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        // What may be left out may be `null` in JSON; a query has no word for that.
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
        }
        json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
    };
    fields.into_iter().map(parameter).collect()
}

fn response(answer: &Answer, schemas: &mut SchemaGenerator) -> Value {
    let mut response = json!({ "description": answer.about });
    for (content_type, schema) in &answer.content {
        response["content"][content_type] = json!({ "schema": schema(schemas) });
    }
    for (name, about) in answer.headers {
        response["headers"][name] = json!({ "description": about, "required": true, "schema": { "type": "string" } });
    }
    response
}

/// What a problem's status says here.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The path, the query or a header cannot be used, or the body is no JSON object.",
        401 => "No credentials, or wrong ones.",
        403 => "The key may only read, or a browser sends this for the page of another site.",
        404 => "There is no such thing.",
        409 => {
            "What is there does not allow it: it exists already, is in use, is declared in the configuration file, or a limit is \
                reached."
        }
        412 => "It has been changed since it was read.",
        413 => "The body is larger than `http.body_bytes_max`.",
        416 => "No byte of it lies in the range that is asked for.",
        422 => "A field of the body cannot be taken, or the idempotency key was used for another request.",
        429 => {
            "Too many requests without right credentials came from this address; or a day's idempotency keys are used up."
        }
        500 => "What is stored cannot be read.",
        503 => {
            "It cannot be done now: the database does not take it, the request took too long, there is no picture yet, or as \
             many listen to events as may."
        }
        _ => StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default(),
    }
}
