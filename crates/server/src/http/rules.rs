//! `/v1/snapshot-rules` and `/v1/callback-rules`: which streams a template is for. Of a rule only the template can be changed:
//! another scope is another rule.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use framehook_domain::catalog::{ChangeRefused, Inventory, Managed, Step};
use framehook_domain::field::FieldError;
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::rule::{CallbackRule, RuleScope, SnapshotRule};
use framehook_domain::stream::{AppName, StreamName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::json::JsonBody;
use super::parameter::InPath;
use super::problem::Problem;
use super::resource::{self, IdempotencyKey, Kept, Listing, Noun};
use super::route::Route;
use super::version::Conditions;
use crate::audit::Caller;

/// Which streams a snapshot template is for. Of those that cover a stream the most specific applies: one with an app before
/// one with a stream's name alone.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SnapshotRule")]
pub(super) struct SnapshotRuleView {
    id: i64,
    domain: String,
    /// `null`: every app.
    app: Option<String>,
    /// `null`: every stream.
    stream: Option<String>,
    /// The snapshot template's number.
    template: i64,
    #[serde(flatten)]
    kept: Kept,
}

/// Which apps a callback template is for. Of those that cover a stream the most specific applies.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CallbackRule")]
pub(super) struct CallbackRuleView {
    id: i64,
    domain: String,
    /// `null`: every app.
    app: Option<String>,
    /// The callback template's number.
    template: i64,
    #[serde(flatten)]
    kept: Kept,
}

/// A snapshot rule to be made. A scope has one.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSnapshotRule {
    /// A domain that was added.
    #[serde(default)]
    #[schemars(required, length(min = 1, max = 45))]
    domain: Option<String>,
    /// Left out, `null` or `*`: every app.
    #[schemars(length(min = 1, max = 64))]
    app: Option<String>,
    /// Left out, `null` or `*`: every stream.
    #[schemars(length(min = 1, max = 128))]
    stream: Option<String>,
    /// The snapshot template's number.
    #[serde(default)]
    #[schemars(required, range(min = 1))]
    template: Option<i64>,
}

/// A callback rule to be made. A scope has one.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCallbackRule {
    /// A domain that was added.
    #[serde(default)]
    #[schemars(required, length(min = 1, max = 45))]
    domain: Option<String>,
    /// Left out, `null` or `*`: every app.
    #[schemars(length(min = 1, max = 64))]
    app: Option<String>,
    /// The callback template's number.
    #[serde(default)]
    #[schemars(required, range(min = 1))]
    template: Option<i64>,
}

/// Binds a rule to another template.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleChange {
    /// The template's number.
    #[serde(default)]
    #[schemars(required, range(min = 1))]
    template: Option<i64>,
}

fn scope(domain: Option<&str>, app: Option<&str>, stream: Option<&str>) -> Result<RuleScope, FieldError> {
    RuleScope::parse(domain.unwrap_or_default(), app.unwrap_or_default(), stream.unwrap_or_default())
}

/// No template has the number 0, so that it is refused as unknown where none is given.
fn template(number: Option<i64>) -> TemplateId {
    TemplateId(number.unwrap_or_default())
}

/// What is not there and was named in a body: that field is at fault, not the path.
fn in_body(refused: ChangeRefused) -> ChangeRefused {
    match refused {
        ChangeRefused::DomainUnknown(name) => FieldError::new("domain", name, "a domain that was added").into(),
        ChangeRefused::TemplateUnknown(id) => FieldError::new("template", id, "the number of such a template").into(),
        other => other,
    }
}

impl Noun for SnapshotRule {
    const PATH: &'static str = "/v1/snapshot-rules";
    const PLURAL: &'static str = "snapshot_rules";
    type Id = RuleId;
    type View = SnapshotRuleView;

    fn id(&self) -> RuleId {
        self.id
    }

    fn parse_id(text: &str) -> Result<RuleId, Problem> {
        resource::parse_number(text).map(RuleId)
    }

    fn all(inventory: &Inventory) -> &[Managed<Self>] {
        &inventory.snapshot_rules
    }

    fn view(known: &Managed<Self>) -> SnapshotRuleView {
        let Self { id, scope, template } = &known.value;
        SnapshotRuleView {
            id: id.0,
            domain: scope.domain.to_string(),
            app: scope.app.as_ref().map(AppName::to_string),
            stream: scope.stream.as_ref().map(StreamName::to_string),
            template: template.0,
            kept: Kept::of(known),
        }
    }

    fn unknown(id: RuleId) -> ChangeRefused {
        ChangeRefused::RuleIdUnknown(id)
    }

    fn delete(inventory: &Inventory, id: &RuleId) -> Result<Step, ChangeRefused> {
        inventory.delete_snapshot_rule_by_id(*id)
    }
}

impl Noun for CallbackRule {
    const PATH: &'static str = "/v1/callback-rules";
    const PLURAL: &'static str = "callback_rules";
    type Id = RuleId;
    type View = CallbackRuleView;

    fn id(&self) -> RuleId {
        self.id
    }

    fn parse_id(text: &str) -> Result<RuleId, Problem> {
        resource::parse_number(text).map(RuleId)
    }

    fn all(inventory: &Inventory) -> &[Managed<Self>] {
        &inventory.callback_rules
    }

    fn view(known: &Managed<Self>) -> CallbackRuleView {
        let Self { id, scope, template } = &known.value;
        CallbackRuleView {
            id: id.0,
            domain: scope.domain.to_string(),
            app: scope.app.as_ref().map(AppName::to_string),
            template: template.0,
            kept: Kept::of(known),
        }
    }

    fn unknown(id: RuleId) -> ChangeRefused {
        ChangeRefused::RuleIdUnknown(id)
    }

    fn delete(inventory: &Inventory, id: &RuleId) -> Result<Step, ChangeRefused> {
        inventory.delete_callback_rule_by_id(*id)
    }
}

/// The rule of a scope.
fn of_scope<N: Noun>(inventory: &Inventory, is_it: impl Fn(&N) -> bool) -> Option<N::Id> {
    N::all(inventory).iter().find(|known| is_it(&known.value)).map(|known| known.value.id())
}

async fn create_snapshot_rule(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<NewSnapshotRule>,
) -> Result<Response, Problem> {
    let once = key.once::<SnapshotRule>(&shared, &body.canonical);
    let NewSnapshotRule { domain, app, stream, template: number } = body.order;
    let scope = scope(domain.as_deref(), app.as_deref(), stream.as_deref())?;
    let made = scope.clone();
    let decide =
        move |inventory: &Inventory| inventory.create_snapshot_rule(scope.clone(), template(number)).map_err(in_body);
    let which = move |inventory: &Inventory, _| of_scope::<SnapshotRule>(inventory, |rule| rule.scope == made);
    resource::create::<SnapshotRule>(&shared, &caller, once, decide, which).await
}

async fn create_callback_rule(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<NewCallbackRule>,
) -> Result<Response, Problem> {
    let once = key.once::<CallbackRule>(&shared, &body.canonical);
    let NewCallbackRule { domain, app, template: number } = body.order;
    let scope = scope(domain.as_deref(), app.as_deref(), None)?;
    let made = scope.clone();
    let decide =
        move |inventory: &Inventory| inventory.create_callback_rule(scope.clone(), template(number)).map_err(in_body);
    let which = move |inventory: &Inventory, _| of_scope::<CallbackRule>(inventory, |rule| rule.scope == made);
    resource::create::<CallbackRule>(&shared, &caller, once, decide, which).await
}

async fn change_snapshot_rule(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
    conditions: Conditions,
    body: JsonBody<RuleChange>,
) -> Result<Response, Problem> {
    let (id, template) = (SnapshotRule::parse_id(&id)?, template(body.order.template));
    let decide = move |inventory: &Inventory| inventory.rebind_snapshot_rule(id, template).map_err(in_body);
    resource::change::<SnapshotRule>(&shared, &caller, id, conditions, decide).await
}

async fn change_callback_rule(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
    conditions: Conditions,
    body: JsonBody<RuleChange>,
) -> Result<Response, Problem> {
    let (id, template) = (CallbackRule::parse_id(&id)?, template(body.order.template));
    let decide = move |inventory: &Inventory| inventory.rebind_callback_rule(id, template).map_err(in_body);
    resource::change::<CallbackRule>(&shared, &caller, id, conditions, decide).await
}

pub(super) fn routes() -> Vec<Route> {
    const SNAPSHOT_RULE: &str = "/v1/snapshot-rules/{id}";
    const CALLBACK_RULE: &str = "/v1/callback-rules/{id}";
    let id = |route: Route| route.of::<i64>("id", "The rule's number.").problems(&[400, 404]);
    vec![
        Route::get(SnapshotRule::PATH, "list_snapshot_rules", "List snapshot rules", resource::list::<SnapshotRule>)
            .query::<super::page::PageQuery>()
            .answers::<Listing<SnapshotRule>>(200, "A page of them, by number."),
        Route::post(SnapshotRule::PATH, "create_snapshot_rule", "Make a snapshot rule", create_snapshot_rule)
            .takes::<NewSnapshotRule>()
            .once()
            .answers_version::<SnapshotRuleView>(201, "It is made.")
            .problems(&[409]),
        id(Route::get(SNAPSHOT_RULE, "get_snapshot_rule", "Show a snapshot rule", resource::show::<SnapshotRule>))
            .unless_known()
            .answers_version::<SnapshotRuleView>(200, "The rule."),
        id(Route::patch(
            SNAPSHOT_RULE,
            "change_snapshot_rule",
            "Bind a snapshot rule to another template",
            change_snapshot_rule,
        ))
        .takes::<RuleChange>()
        .if_unchanged()
        .answers_version::<SnapshotRuleView>(200, "The rule as it is now.")
        .problems(&[409]),
        id(Route::delete(
            SNAPSHOT_RULE,
            "delete_snapshot_rule",
            "Delete a snapshot rule",
            resource::delete::<SnapshotRule>,
        ))
        .if_unchanged()
        .answers_nothing(204, "It is gone.")
        .problems(&[409]),
        Route::get(CallbackRule::PATH, "list_callback_rules", "List callback rules", resource::list::<CallbackRule>)
            .query::<super::page::PageQuery>()
            .answers::<Listing<CallbackRule>>(200, "A page of them, by number."),
        Route::post(CallbackRule::PATH, "create_callback_rule", "Make a callback rule", create_callback_rule)
            .takes::<NewCallbackRule>()
            .once()
            .answers_version::<CallbackRuleView>(201, "It is made.")
            .problems(&[409]),
        id(Route::get(CALLBACK_RULE, "get_callback_rule", "Show a callback rule", resource::show::<CallbackRule>))
            .unless_known()
            .answers_version::<CallbackRuleView>(200, "The rule."),
        id(Route::patch(
            CALLBACK_RULE,
            "change_callback_rule",
            "Bind a callback rule to another template",
            change_callback_rule,
        ))
        .takes::<RuleChange>()
        .if_unchanged()
        .answers_version::<CallbackRuleView>(200, "The rule as it is now.")
        .problems(&[409]),
        id(Route::delete(
            CALLBACK_RULE,
            "delete_callback_rule",
            "Delete a callback rule",
            resource::delete::<CallbackRule>,
        ))
        .if_unchanged()
        .answers_nothing(204, "It is gone.")
        .problems(&[409]),
    ]
}
