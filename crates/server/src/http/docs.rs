//! The document of `/v1` as a page for people: plain HTML, one style, no script, nothing from elsewhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::openapi::{DOCUMENT, EVERYWHERE};

/// Made once, as the document is.
static PAGE: LazyLock<String> = LazyLock::new(|| page(&DOCUMENT));

/// Lets a browser take this style and nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let sum = BASE64_STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{sum}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
});

pub(super) async fn show() -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, &POLICY), (header::REFERRER_POLICY, "no-referrer")];
    (headers, Html(PAGE.as_str()))
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1f23; --quiet: #5d6670; --line: #d9dee3; --paper: #fff; --tint: #f5f7f9; --link: #0b57a4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --quiet: #9aa5b1; --line: #343b43; --paper: #14171a; --tint: #1c2125; --link: #7db7f2 }
}
* { box-sizing: border-box }
html { scroll-padding-top: 1rem }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
header, main { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem }
header { padding-top: 2.5rem }
h1 { margin: 0; font-size: 1.9rem } h1 small { color: var(--quiet); font-size: 1rem; font-weight: normal }
h2 { margin: 3rem 0 .5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.35rem }
h3 { margin: 2rem 0 .3rem; font-size: 1.05rem } h4 { margin: 1rem 0 .2rem; font-size: .9rem; color: var(--quiet) }
p { margin: .3rem 0 }
a { color: var(--link); text-decoration: none } a:hover, a:focus-visible { text-decoration: underline }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1.5rem 0 0; padding: 0; list-style: none }
code { font: .9em ui-monospace, monospace } h3 code { font-weight: normal }
.method { display: inline-block; min-width: 4.4em; font: bold .85em ui-monospace, monospace }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: .92rem }
th, td { padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top }
th { width: 13rem; font-weight: normal; white-space: nowrap } td.type { width: 13rem; color: var(--quiet) }
article { padding: .1rem 0 } footer { height: 4rem }
";

fn page(document: &Value) -> String {
    let mut html = String::new();
    let text = |pointer: &str| escape(document.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default();
    let nouns: Vec<&str> = names(&document["tags"]).collect();
    let title = text("/info/title");
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} API</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head>\
         <body><header><h1>{title} API <small>{}</small></h1><p>{}</p><p>For programs: \
         <a href=\"openapi.json\">openapi.json</a>, OpenAPI {}.</p><nav><ul>",
        text("/info/version"),
        code(&text("/info/description")),
        text("/openapi"),
    );
    for noun in nouns.iter().copied().chain(["objects"]) {
        let _ = write!(html, "<li><a href=\"#{0}\">{0}</a></li>", escape(noun));
    }
    html.push_str("</ul></nav><p>Every operation may also answer:</p>");
    if let Some(any) = document["paths"].as_object().into_iter().flatten().flat_map(operations).next() {
        responses(&mut html, any.2, |status| EVERYWHERE.iter().any(|always| always.to_string() == status));
    }
    html.push_str("</header><main>");
    for noun in nouns {
        let _ = write!(html, "<section><h2 id=\"{0}\">{0}</h2>", escape(noun));
        for (path, method, about) in document["paths"].as_object().into_iter().flatten().flat_map(operations) {
            if about["tags"][0] == *noun {
                operation(&mut html, path, method, about);
            }
        }
        html.push_str("</section>");
    }
    html.push_str("<section><h2 id=\"objects\">objects</h2>");
    for (name, schema) in &schemas {
        object(&mut html, name, schema);
    }
    html.push_str("</section></main><footer></footer></body></html>");
    html
}

fn names(tags: &Value) -> impl Iterator<Item = &str> {
    tags.as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str())
}

/// Path, method and description of each operation of a path.
fn operations<'a>((path, methods): (&'a String, &'a Value)) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> {
    methods.as_object().into_iter().flatten().map(|(method, about)| (path.as_str(), method.as_str(), about))
}

fn operation(html: &mut String, path: &str, method: &str, about: &Value) {
    let text = |name: &str| escape(about[name].as_str().unwrap_or_default());
    let _ = write!(
        html,
        "<article id=\"{}\"><h3><span class=\"method\">{}</span> <code>{}</code></h3><p>{}.</p>",
        text("operationId"),
        method.to_uppercase(),
        escape(path),
        code(&text("summary")),
    );
    let parameters = about["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        html.push_str("<h4>Parameters</h4><div class=\"scroll\"><table>");
        for parameter in parameters {
            let field = |name: &str| escape(parameter[name].as_str().unwrap_or_default());
            let place = field("in");
            let is = format!("{}, {place}", type_of(&parameter["schema"]));
            row(html, &field("name"), &is, &code(&field("description")));
        }
        html.push_str("</table></div>");
    }
    if let Some(body) = about.pointer("/requestBody/content/application~1json/schema") {
        let _ = write!(html, "<h4>Body</h4><p>{}</p>", type_of(body));
    }
    html.push_str("<h4>Answers</h4>");
    responses(html, about, |status| EVERYWHERE.iter().all(|always| always.to_string() != status));
    html.push_str("</article>");
}

fn responses(html: &mut String, about: &Value, is_wanted: impl Fn(&str) -> bool) {
    html.push_str("<div class=\"scroll\"><table>");
    for (status, response) in about["responses"].as_object().into_iter().flatten() {
        if !is_wanted(status) {
            continue;
        }
        let content = response["content"].as_object().into_iter().flatten();
        let is = content.map(|(content_type, content)| match &content["schema"] {
            Value::Object(schema) if !schema.is_empty() => type_of(&content["schema"]),
            _ => escape(content_type),
        });
        row(
            html,
            status,
            &is.collect::<Vec<_>>().join(", "),
            &code(&escape(response["description"].as_str().unwrap_or_default())),
        );
    }
    html.push_str("</table></div>");
}

fn object(html: &mut String, name: &str, schema: &Value) {
    let description = code(&escape(schema["description"].as_str().unwrap_or_default()));
    let _ = write!(html, "<article id=\"object-{0}\"><h3>{0}</h3><p>{description}</p>", escape(name));
    if schema["properties"].is_object() {
        fields(html, schema);
    } else {
        let _ = write!(html, "<p>{}</p>", type_of(schema));
    }
    // One of several kinds, each with fields of its own beside those of all.
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        if let Some(kind) = variant.pointer("/properties/kind/const").and_then(Value::as_str) {
            let about = code(&escape(variant["description"].as_str().unwrap_or_default()));
            let _ = write!(html, "<h4><code>{}</code></h4><p>{about}</p>", escape(kind));
            fields(html, variant);
        }
    }
    html.push_str("</article>");
}

fn fields(html: &mut String, schema: &Value) {
    html.push_str("<div class=\"scroll\"><table>");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let description = code(&escape(field["description"].as_str().unwrap_or_default()));
        row(html, &escape(name), &type_of(field), &description);
    }
    html.push_str("</table></div>");
}

/// Takes HTML.
fn row(html: &mut String, name: &str, is: &str, about: &str) {
    let _ =
        write!(html, "<tr><th scope=\"row\"><code>{name}</code></th><td class=\"type\">{is}</td><td>{about}</td></tr>");
}

/// What a schema allows, in a few words of HTML.
fn type_of(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = escape(target.rsplit('/').next().unwrap_or_default());
        let needed: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let tail = if needed.is_empty() { String::new() } else { format!(" with {}", escape(&needed.join(", "))) };
        return format!("<a href=\"#object-{name}\">{name}</a>{tail}");
    }
    if schema["contentSchema"].is_object() {
        return format!("events of {}", type_of(&schema["contentSchema"]));
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escape(&value.to_string()));
    }
    for several in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[several].as_array() {
            return schemas.iter().map(type_of).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("<code>{}</code>", escape(&value.to_string())))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec!["anything"],
    };
    let mut is = types.join(" or ");
    if schema["items"].is_object() {
        let _ = write!(is, " of {}", type_of(&schema["items"]));
    }
    let bound = |name: &str| schema[name].as_f64().map_or_else(|| "…".to_owned(), |bound| bound.to_string());
    for (least, most, unit) in [("minimum", "maximum", ""), ("minLength", "maxLength", " characters")] {
        if schema[least].is_number() || schema[most].is_number() {
            let _ = write!(is, ", {} to {}{unit}", bound(least), bound(most));
        }
    }
    is
}

/// Text between backquotes as code. Takes HTML.
fn code(html: &str) -> String {
    let mut parts = html.split('`');
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut is_code = false;
    for part in parts {
        is_code = !is_code;
        out.push_str(if is_code { "<code>" } else { "</code>" });
        out.push_str(part);
    }
    if is_code {
        out.push_str("</code>");
    }
    out
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::v1;

    #[test]
    fn the_page_shows_every_operation_and_loads_nothing() {
        for route in v1::routes() {
            assert!(PAGE.contains(&format!("<article id=\"{}\">", route.name)), "{}", route.name);
            assert!(PAGE.contains(&format!("<code>{}</code>", route.path)), "{}", route.path);
        }
        for loading in ["<script", "src=", "@import", "url(", "<link", "http://", "https://"] {
            assert!(!PAGE.contains(loading), "{loading}");
        }
    }

    #[test]
    fn every_link_of_the_page_leads_to_a_place_on_it() {
        let targets = PAGE.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next());
        for target in targets {
            assert!(PAGE.contains(&format!("id=\"{target}\"")), "{target}");
        }
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(code(&escape("a `<b>` & \"c\"")), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
        assert_eq!(code("a ` b"), "a <code> b</code>");
    }
}
