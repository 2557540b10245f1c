//! `/v1/domains`: what publishers push to, and the keys that they sign with.
//!
//! The keys are shown on a page of their own and nowhere else: whoever signs push URLs needs them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use framehook_domain::catalog::{ChangeRefused, Domain, Inventory, Managed, PushAuthEdit, Step};
use framehook_domain::push_auth::PushKey;
use framehook_domain::stream::DomainName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::json::JsonBody;
use super::parameter::InPath;
use super::problem::Problem;
use super::resource::{self, IdempotencyKey, Kept, Listing, Noun, given, given_or_null};
use super::route::Route;
use super::version::Conditions;
use crate::audit::Caller;
use crate::credentials::token;

/// What publishers push to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Domain")]
pub(super) struct View {
    name: String,
    /// A disabled domain refuses publishers, and the live ones are cut.
    enabled: bool,
    /// Whether pushes must be signed with one of its keys.
    push_key_enabled: bool,
    #[serde(flatten)]
    kept: Kept,
}

/// A domain to be added. It is enabled, and pushes to it must be signed with a key that is made for it.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDomain {
    /// A host name.
    #[serde(default)]
    #[schemars(required, length(min = 1, max = 45))]
    name: Option<String>,
}

/// What to change of a domain. What is left out stays as it is.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DomainChange {
    /// A disabled domain refuses publishers, and the live ones are cut.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "bool")]
    enabled: Option<bool>,
}

/// The keys that publishers sign with: `txSecret` is the MD5 of key, stream name and `txTime`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PushKey")]
struct PushKeyView {
    /// Whether pushes must be signed.
    enabled: bool,
    main: Option<String>,
    /// As good as the main one, so that keys can be changed one after the other.
    backup: Option<String>,
    /// How much longer than `txTime` says a signature is good.
    auth_delta_s: u64,
}

/// What to change of a domain's keys. What is left out stays as it is.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct PushKeyChange {
    /// Whether pushes must be signed; that needs a main key.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "bool")]
    enabled: Option<bool>,
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String", length(min = 1, max = 256))]
    main: Option<String>,
    /// `null` takes it away.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(min = 1, max = 256))]
    backup: Option<Option<String>>,
    /// How much longer than `txTime` says a signature is good.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "u32")]
    auth_delta_s: Option<u32>,
}

impl Noun for Domain {
    const PATH: &'static str = "/v1/domains";
    const PLURAL: &'static str = "domains";
    type Id = DomainName;
    type View = View;

    fn id(&self) -> DomainName {
        self.name.clone()
    }

    fn parse_id(text: &str) -> Result<DomainName, Problem> {
        DomainName::parse(text).map_err(|error| Problem::bad_parameter("name", error))
    }

    fn all(inventory: &Inventory) -> &[Managed<Self>] {
        &inventory.domains
    }

    fn view(known: &Managed<Self>) -> View {
        View {
            name: known.value.name.to_string(),
            enabled: known.value.enabled,
            push_key_enabled: known.value.keys_to_check().is_some(),
            kept: Kept::of(known),
        }
    }

    fn unknown(id: DomainName) -> ChangeRefused {
        ChangeRefused::DomainUnknown(id)
    }

    fn delete(inventory: &Inventory, id: &DomainName) -> Result<Step, ChangeRefused> {
        inventory.delete_domain(id)
    }
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<NewDomain>,
) -> Result<Response, Problem> {
    let once = key.once::<Domain>(&shared, &body.canonical);
    let name = DomainName::parse(&body.order.name.unwrap_or_default());
    let name = name.map_err(|error| Problem::unprocessable("name", error))?;
    // As many characters as the keys that the other API makes.
    let push_key = PushKey::parse(&token(&shared.entropy.draw::<20>()))?;
    let made = name.clone();
    let decide = move |inventory: &Inventory| inventory.add_domain(name.clone(), push_key.clone());
    resource::create::<Domain>(&shared, &caller, once, decide, move |_, _| Some(made)).await
}

async fn change(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(name): InPath<String>,
    conditions: Conditions,
    body: JsonBody<DomainChange>,
) -> Result<Response, Problem> {
    let name = Domain::parse_id(&name)?;
    let (known, enabled) = (name.clone(), body.order.enabled);
    let decide = move |inventory: &Inventory| {
        let was_enabled = Domain::find(inventory, &known).is_some_and(|domain| domain.value.enabled);
        inventory.switch_domain(&known, enabled.unwrap_or(was_enabled))
    };
    resource::change::<Domain>(&shared, &caller, name, conditions, decide).await
}

async fn show_push_key(
    State(shared): State<Arc<Shared>>,
    InPath(name): InPath<String>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let name = Domain::parse_id(&name)?;
    let inventory = shared.configuration.inventory().await?;
    let known = Domain::find(&inventory, &name).ok_or_else(|| Domain::unknown(name))?;
    Ok(not_kept(resource::versioned(&conditions, known, &push_key(&known.value))))
}

async fn change_push_key(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(name): InPath<String>,
    conditions: Conditions,
    body: JsonBody<PushKeyChange>,
) -> Result<Response, Problem> {
    let name = Domain::parse_id(&name)?;
    let PushKeyChange { enabled, main, backup, auth_delta_s } = body.order;
    for (field, key) in [("main", main.as_ref()), ("backup", backup.as_ref().and_then(Option::as_ref))] {
        if let Some(key) = key {
            PushKey::parse(key).map_err(|error| Problem::unprocessable(field, error))?;
        }
    }
    let edit = PushAuthEdit {
        enabled,
        main,
        // Empty takes it away.
        backup: backup.map(Option::unwrap_or_default),
        auth_delta: auth_delta_s.map(|secs| Duration::from_secs(secs.into())),
    };
    let changed = name.clone();
    let decide = move |inventory: &Inventory| inventory.modify_push_auth(&changed, edit.clone());
    resource::change_and_show(&shared, &caller, name, conditions, decide, |known: &Managed<Domain>| {
        push_key(&known.value)
    })
    .await
    .map(not_kept)
}

fn push_key(domain: &Domain) -> PushKeyView {
    let keys = domain.auth.as_ref().map(|auth| &auth.keys);
    let text = |key: &PushKey| key.expose().to_owned();
    PushKeyView {
        enabled: domain.keys_to_check().is_some(),
        main: keys.map(|keys| text(&keys.main)),
        backup: keys.and_then(|keys| keys.backup.as_ref()).map(text),
        auth_delta_s: keys.map_or(0, |keys| keys.auth_delta.as_secs()),
    }
}

/// No cache on the way keeps a key.
fn not_kept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn routes() -> Vec<Route> {
    const ALL: &str = Domain::PATH;
    const ONE: &str = "/v1/domains/{name}";
    const PUSH_KEY: &str = "/v1/domains/{name}/push-key";
    let name = |route: Route| route.of::<String>("name", "The domain's name.").problems(&[400, 404]);
    vec![
        Route::get(ALL, "list_domains", "List domains", resource::list::<Domain>)
            .query::<super::page::PageQuery>()
            .answers::<Listing<Domain>>(200, "A page of them, by name."),
        Route::post(ALL, "create_domain", "Add a domain", create)
            .takes::<NewDomain>()
            .once()
            .answers_version::<View>(201, "It is added.")
            .problems(&[409]),
        name(Route::get(ONE, "get_domain", "Show a domain", resource::show::<Domain>))
            .unless_known()
            .answers_version::<View>(200, "The domain."),
        name(Route::patch(ONE, "change_domain", "Enable or disable a domain", change))
            .takes::<DomainChange>()
            .if_unchanged()
            .answers_version::<View>(200, "The domain as it is now.")
            .problems(&[409]),
        name(Route::delete(ONE, "delete_domain", "Remove a domain", resource::delete::<Domain>))
            .if_unchanged()
            .answers_nothing(204, "It is gone.")
            .problems(&[409]),
        name(Route::get(PUSH_KEY, "get_push_key", "Show a domain's push keys, in clear", show_push_key))
            .unless_known()
            .answers_version::<PushKeyView>(200, "The keys. The version is the domain's."),
        name(Route::patch(PUSH_KEY, "change_push_key", "Change a domain's push keys", change_push_key))
            .takes::<PushKeyChange>()
            .if_unchanged()
            .answers_version::<PushKeyView>(200, "The keys as they are now, in clear.")
            .problems(&[409]),
    ]
}
