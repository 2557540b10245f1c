//! `/v1/callback-templates`: whom to tell about what happens, and how that is signed.
//!
//! The key can be set and never read: who has lost it sets another one. URLs are shown without user and password.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use framehook_domain::catalog::{ChangeRefused, Inventory, Managed, Step};
use framehook_domain::field::FieldError;
use framehook_domain::id::TemplateId;
use framehook_domain::template::{CallbackTemplate, CallbackTemplateDraft, CallbackUrl};
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

/// Whom to tell about what happens, and how that is signed. URLs are shown with `***` for user and password.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CallbackTemplate")]
pub(super) struct View {
    id: i64,
    name: String,
    description: String,
    /// Whether callbacks are signed. The key itself is never shown.
    has_key: bool,
    /// Where a stored picture is announced.
    snapshot_notify_url: Option<String>,
    /// Where the begin of a push is announced.
    stream_begin_notify_url: Option<String>,
    /// Where the end of a push is announced.
    stream_end_notify_url: Option<String>,
    /// Whether a receiver's certificate must be good.
    verify_tls: bool,
    #[serde(flatten)]
    kept: Kept,
}

/// What to change of a callback template. What is left out stays as it is; `null` takes it away, or takes the default. At
/// least one URL must be left.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "CallbackTemplateChange")]
pub(super) struct Order {
    /// Letters, digits, `_`, `-`, `.` and spaces.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String", length(min = 1, max = 255))]
    name: Option<String>,
    /// Empty by default.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(max = 1024))]
    description: Option<Option<String>>,
    /// Signs the callbacks; without it they are not signed.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(min = 1, max = 128))]
    key: Option<Option<String>>,
    /// Where a stored picture is announced: `http` or `https`, at most 2,048 bytes.
    #[serde(deserialize_with = "given_or_null")]
    snapshot_notify_url: Option<Option<String>>,
    /// Where the begin of a push is announced.
    #[serde(deserialize_with = "given_or_null")]
    stream_begin_notify_url: Option<Option<String>>,
    /// Where the end of a push is announced.
    #[serde(deserialize_with = "given_or_null")]
    stream_end_notify_url: Option<Option<String>>,
    /// Whether a receiver's certificate must be good, as it must by default.
    #[serde(deserialize_with = "given_or_null")]
    verify_tls: Option<Option<bool>>,
}

/// A callback template to be made: a name and at least one URL.
#[derive(JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "NewCallbackTemplate", extend("required" = ["name"]))]
#[expect(dead_code, reason = "describes what `Order` reads when a template is made")]
struct New(Order);

impl Order {
    /// What is shown for user and password is no user: whoever sends it back would lose them.
    fn check(&self) -> Result<(), FieldError> {
        for (field, url) in [
            ("snapshot_notify_url", &self.snapshot_notify_url),
            ("stream_begin_notify_url", &self.stream_begin_notify_url),
            ("stream_end_notify_url", &self.stream_end_notify_url),
        ] {
            if let Some(Some(url)) = url
                && url.contains("://***@")
            {
                return Err(FieldError::secret(field, url, "user and password themselves; *** only stands for them"));
            }
        }
        Ok(())
    }

    fn apply(&self, draft: &mut CallbackTemplateDraft) {
        fn set<T: Clone>(field: &mut T, given: &Option<T>) {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        set(&mut draft.name, &self.name);
        set(&mut draft.description, &self.description);
        set(&mut draft.key, &self.key);
        set(&mut draft.urls.snapshot_notify, &self.snapshot_notify_url);
        set(&mut draft.urls.stream_begin_notify, &self.stream_begin_notify_url);
        set(&mut draft.urls.stream_end_notify, &self.stream_end_notify_url);
        set(&mut draft.verify_tls, &self.verify_tls);
    }
}

impl Noun for CallbackTemplate {
    const PATH: &'static str = "/v1/callback-templates";
    const PLURAL: &'static str = "callback_templates";
    type Id = TemplateId;
    type View = View;

    fn id(&self) -> TemplateId {
        self.id
    }

    fn parse_id(text: &str) -> Result<TemplateId, Problem> {
        resource::parse_number(text).map(TemplateId)
    }

    fn all(inventory: &Inventory) -> &[Managed<Self>] {
        &inventory.callback_templates
    }

    fn view(known: &Managed<Self>) -> View {
        let template = &known.value;
        let masked = |url: &Option<CallbackUrl>| url.as_ref().map(ToString::to_string);
        View {
            id: template.id.0,
            name: template.name.clone(),
            description: template.description.clone(),
            has_key: template.key.is_some(),
            snapshot_notify_url: masked(&template.urls.snapshot_notify),
            stream_begin_notify_url: masked(&template.urls.stream_begin_notify),
            stream_end_notify_url: masked(&template.urls.stream_end_notify),
            verify_tls: template.verify_tls,
            kept: Kept::of(known),
        }
    }

    fn unknown(id: TemplateId) -> ChangeRefused {
        ChangeRefused::TemplateUnknown(id)
    }

    fn delete(inventory: &Inventory, id: &TemplateId) -> Result<Step, ChangeRefused> {
        inventory.delete_callback_template(*id)
    }
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<Order>,
) -> Result<Response, Problem> {
    let once = key.once::<CallbackTemplate>(&shared, &body.canonical);
    body.order.check()?;
    let mut draft = CallbackTemplateDraft::default();
    body.order.apply(&mut draft);
    let decide = move |inventory: &Inventory| inventory.create_callback_template(draft.clone());
    resource::create::<CallbackTemplate>(&shared, &caller, once, decide, |_, added| added).await
}

async fn change(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
    conditions: Conditions,
    body: JsonBody<Order>,
) -> Result<Response, Problem> {
    let id = CallbackTemplate::parse_id(&id)?;
    let order = body.order;
    order.check()?;
    let decide = move |inventory: &Inventory| inventory.modify_callback_template(id, |draft| order.apply(draft));
    resource::change::<CallbackTemplate>(&shared, &caller, id, conditions, decide).await
}

pub(super) fn routes() -> Vec<Route> {
    const ALL: &str = CallbackTemplate::PATH;
    const ONE: &str = "/v1/callback-templates/{id}";
    let id = |route: Route| route.of::<i64>("id", "The template's number.").problems(&[400, 404]);
    vec![
        Route::get(ALL, "list_callback_templates", "List callback templates", resource::list::<CallbackTemplate>)
            .query::<super::page::PageQuery>()
            .answers::<Listing<CallbackTemplate>>(200, "A page of them, by number."),
        Route::post(ALL, "create_callback_template", "Make a callback template", create)
            .takes::<New>()
            .once()
            .answers_version::<View>(201, "It is made.")
            .problems(&[409]),
        id(Route::get(ONE, "get_callback_template", "Show a callback template", resource::show::<CallbackTemplate>))
            .unless_known()
            .answers_version::<View>(200, "The template."),
        id(Route::patch(ONE, "change_callback_template", "Change a callback template", change))
            .takes::<Order>()
            .if_unchanged()
            .answers_version::<View>(200, "The template as it is now.")
            .problems(&[409]),
        id(Route::delete(
            ONE,
            "delete_callback_template",
            "Delete a callback template",
            resource::delete::<CallbackTemplate>,
        ))
        .if_unchanged()
        .answers_nothing(204, "It is gone. What is owed by it becomes dead letters.")
        .problems(&[409]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_password_is_not_taken_for_a_user() {
        let order = |url: &str| Order { snapshot_notify_url: Some(Some(url.to_owned())), ..Order::default() };
        let error = order("https://***@receiver.example/").check().expect_err("masked");
        assert_eq!((error.field, error.value.contains("receiver")), ("snapshot_notify_url", false));
        assert_eq!(order("https://user:***@receiver.example/").check(), Ok(()));
        assert_eq!(Order::default().check(), Ok(()));
    }
}
