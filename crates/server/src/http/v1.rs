//! Everything that `/v1` offers.

use std::sync::Arc;

use axum::Router;

use super::route::Route;
use super::{
    Shared, audit, callback_templates, deliveries, docs, domains, endpoints, events, keys, on_demand, openapi, replays,
    rules, screenshot_tasks, snapshot_templates, snapshots, stores, streams,
};

/// In the order of the document, which is that of a newcomer's questions.
pub(super) fn routes() -> Vec<Route> {
    let document = vec![
        Route::get("/v1/openapi.json", "get_document", "This document", openapi::show)
            .answers::<serde_json::Value>(200, "OpenAPI 3.1."),
        Route::get("/v1/docs", "get_documentation", "This document as a page for people", docs::show).answers_as(
            200,
            "HTML that needs nothing from elsewhere.",
            &["text/html"],
        ),
    ];
    [
        domains::routes(),
        snapshot_templates::routes(),
        rules::routes(),
        callback_templates::routes(),
        screenshot_tasks::routes(),
        streams::routes(),
        on_demand::routes().into(),
        snapshots::routes(),
        stores::routes(),
        deliveries::routes(),
        replays::routes(),
        endpoints::routes(),
        events::routes(),
        keys::routes(),
        audit::routes(),
        document,
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn router(shared: &Arc<Shared>) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| route.add_to(router, shared))
        .with_state(Arc::clone(shared))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::Method;

    use super::*;
    use crate::http::openapi::DOCUMENT;
    use crate::http::route::Place;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let routed: BTreeSet<(String, String)> =
            routes().iter().map(|route| (route.path.to_owned(), route.method.as_str().to_lowercase())).collect();
        let paths = DOCUMENT["paths"].as_object().expect("paths");
        let documented: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().into_iter().flatten().map(|(method, _)| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(routed, documented);
        assert_eq!(routes().len(), documented.len(), "no operation is there twice");
        let names: BTreeSet<_> = routes().iter().map(|route| route.name).collect();
        assert_eq!(names.len(), routes().len(), "names are unique");
        let tags: Vec<_> =
            DOCUMENT["tags"].as_array().expect("tags").iter().map(|tag| tag["name"].to_string()).collect();
        assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "each noun stands once: {tags:?}");
    }

    #[test]
    fn every_parameter_of_a_path_is_described_in_order() {
        for route in routes() {
            let described: Vec<_> = route
                .parameters
                .iter()
                .filter(|parameter| parameter.place == Place::Path)
                .map(|parameter| parameter.name)
                .collect();
            let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(in_path.collect::<Vec<_>>(), described, "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn what_makes_something_takes_a_key_and_what_changes_it_a_version() {
        // The answer that adds a key tells its secret, which is not kept for a repetition; a key has no versions.
        for route in routes().into_iter().filter(|route| route.noun() != "keys") {
            let takes = |name| route.parameters.iter().any(|parameter| parameter.name == name);
            assert_eq!(takes("Idempotency-Key"), route.method == Method::POST, "{}", route.name);
            let changes = matches!(route.method, Method::PATCH | Method::DELETE);
            assert_eq!(takes("If-Match"), changes, "{}", route.name);
            assert_eq!(route.problems.contains(&412), changes, "{}", route.name);
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references(value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| match value.as_str() {
                    Some(target) if name == "$ref" => found.push(target.to_owned()),
                    _ => references(value, found),
                }),
                serde_json::Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&DOCUMENT, &mut found);
        assert!(found.len() > 50, "{found:?}");
        for target in found {
            assert!(DOCUMENT.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
    }
}
