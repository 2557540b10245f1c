//! `/v1/callback-templates`: whom to tell about what happens, and how that is signed.
//!
//! The key can be set and never read: who has lost it sets another one. URLs are shown without user and password.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use framehook_domain::catalog::{ChangeRefused, Inventory, Managed, Step};
use framehook_domain::field::FieldError;
use framehook_domain::id::TemplateId;
use framehook_domain::template::{CallbackTemplate, CallbackTemplateDraft, CallbackUrl, Ed25519Key, SigningDraft};
use framehook_domain::time::UnixMs;
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
    /// The authorities that receivers may have their certificates from, beside those that the machine trusts: PEM.
    ca_certificates: Option<String>,
    /// Whether a key that `key` took the place of signs too.
    has_previous_key: bool,
    /// Until when it does, ms since 1970; without it, until it is taken away.
    previous_key_until_ms: Option<i64>,
    /// `whpk_` and base64, where callbacks bear an ed25519 signature (`v1a`) too. Receivers check it with this.
    ed25519_public_key: Option<String>,
    /// `css` or `patient`.
    schedule: &'static str,
    /// Time for a connection to one of the receiver's addresses.
    connect_timeout_ms: Option<u64>,
    /// Time for one attempt; `deliver.timeout` of the configuration where there is none.
    timeout_ms: Option<u64>,
    /// How old dead letters may be that are sent again by themselves when their receiver takes callbacks again.
    replay_recovered_ms: Option<u64>,
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
    /// Whether a receiver's certificate must be good, as it must by default. Without that, whoever can answer in a receiver's
    /// place gets its callbacks; for an authority of your own, give `ca_certificates` instead.
    #[serde(deserialize_with = "given_or_null")]
    verify_tls: Option<Option<bool>>,
    /// Authorities that receivers may have their certificates from, beside those that the machine trusts: certificates in PEM.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(max = 65_536))]
    ca_certificates: Option<Option<String>>,
    /// The key before, which signs too while receivers may still have it alone; `webhook-signature` then holds one signature
    /// for each. `null` takes it away.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(min = 1, max = 128))]
    previous_key: Option<Option<String>>,
    /// Until when the key before signs, ms since 1970. Given with `key` and without `previous_key`, the key that `key` takes
    /// the place of becomes the key before.
    #[serde(deserialize_with = "given_or_null")]
    previous_key_until_ms: Option<Option<i64>>,
    /// Whether callbacks bear an ed25519 signature (`v1a`) too. Turned on, a key is made, whose public half is shown; turned
    /// off, it is forgotten.
    #[serde(deserialize_with = "given_or_null")]
    ed25519: Option<Option<bool>>,
    /// When a callback that failed is sent again. `css`: as CSS does, whatever the receiver answers. `patient`: in ever
    /// longer steps for 24 hours; `Retry-After` is heeded, and 410 ends it.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(extend("enum" = ["css", "patient", null]))]
    schedule: Option<Option<String>>,
    /// Time for a connection to one of the receiver's addresses, TLS included.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 100, max = 60_000))]
    connect_timeout_ms: Option<Option<u64>>,
    /// Time for one attempt.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 100, max = 300_000))]
    timeout_ms: Option<Option<u64>>,
    /// Dead letters no older than this are sent again by themselves, once each, when their receiver takes callbacks again.
    /// Without it they wait for a person.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 60_000, max = 2_592_000_000_u64))]
    replay_recovered_ms: Option<Option<u64>>,
    /// What an ed25519 key is made of, if one is needed.
    #[serde(skip)]
    seed: Option<[u8; 32]>,
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
        self.sign(&mut draft.signing);
        set(&mut draft.sending.schedule, &self.schedule);
        let ms = |given: &Option<Option<u64>>| given.map(|given| given.map(Duration::from_millis));
        set(&mut draft.sending.connect_timeout, &ms(&self.connect_timeout_ms));
        set(&mut draft.sending.timeout, &ms(&self.timeout_ms));
        set(&mut draft.sending.replay_recovered, &ms(&self.replay_recovered_ms));
        set(&mut draft.urls.snapshot_notify, &self.snapshot_notify_url);
        set(&mut draft.urls.stream_begin_notify, &self.stream_begin_notify_url);
        set(&mut draft.urls.stream_end_notify, &self.stream_end_notify_url);
        set(&mut draft.verify_tls, &self.verify_tls);
        set(&mut draft.authorities, &self.ca_certificates);
    }

    fn sign(&self, draft: &mut SigningDraft) {
        // A request that is sent twice must not put the new key in the place of the one before.
        if let (Some(key), None, Some(Some(_))) = (&self.key, &self.previous_key, self.previous_key_until_ms)
            && *key != draft.key
        {
            draft.previous_key = draft.key.take();
        }
        if let Some(key) = &self.key {
            draft.key.clone_from(key);
        }
        if let Some(key) = &self.previous_key {
            draft.previous_key.clone_from(key);
            draft.previous_key_until = None;
        }
        if let Some(until) = self.previous_key_until_ms {
            draft.previous_key_until = until.map(UnixMs);
        }
        match (self.ed25519, self.seed) {
            (None, _) => {}
            (Some(Some(true)), Some(seed)) if draft.ed25519_key.is_none() => {
                draft.ed25519_key = Some(Ed25519Key::from_seed(seed).to_text());
            }
            (Some(Some(true)), _) => {}
            (Some(_), _) => draft.ed25519_key = None,
        }
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
        let previous = template.signing.previous.as_ref();
        let masked = |url: &Option<CallbackUrl>| url.as_ref().map(ToString::to_string);
        View {
            id: template.id.0,
            name: template.name.clone(),
            description: template.description.clone(),
            has_key: template.signing.key.is_some(),
            snapshot_notify_url: masked(&template.urls.snapshot_notify),
            stream_begin_notify_url: masked(&template.urls.stream_begin_notify),
            stream_end_notify_url: masked(&template.urls.stream_end_notify),
            verify_tls: template.verify_tls,
            ca_certificates: template.authorities.as_ref().map(|authorities| authorities.pem().to_owned()),
            has_previous_key: previous.is_some(),
            previous_key_until_ms: previous.and_then(|previous| previous.until).map(|until| until.0),
            ed25519_public_key: template.signing.ed25519.as_ref().map(Ed25519Key::public_text),
            schedule: template.sending.plan.name(),
            connect_timeout_ms: template.sending.connect_timeout.map(|time| time.as_millis() as u64),
            timeout_ms: template.sending.timeout.map(|time| time.as_millis() as u64),
            replay_recovered_ms: template.sending.replay_recovered.map(|age| age.as_millis() as u64),
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
    let order = Order { seed: Some(shared.entropy.draw()), ..body.order };
    order.apply(&mut draft);
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
    let order = Order { seed: Some(shared.entropy.draw()), ..body.order };
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
    fn a_key_that_is_changed_can_stay_as_the_key_before() {
        let start = SigningDraft { key: Some("old".into()), ..SigningDraft::default() };
        let signed = |order: Order| {
            let mut draft = start.clone();
            order.sign(&mut draft);
            (draft.key, draft.previous_key, draft.previous_key_until)
        };
        let new = || Order { key: Some(Some("new".into())), ..Order::default() };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(signed(new()), (text("new"), None, None), "it is gone unless its time is given");
        let until = Order { previous_key_until_ms: Some(Some(9)), ..new() };
        assert_eq!(signed(until), (text("new"), text("old"), Some(UnixMs(9))));
        let mut twice = start.clone();
        for _ in 0..2 {
            Order { previous_key_until_ms: Some(Some(9)), ..new() }.sign(&mut twice);
        }
        assert_eq!(twice.previous_key, text("old"), "the same request again changes nothing");
        let other = Order { previous_key: Some(text("older")), ..new() };
        assert_eq!(signed(other), (text("new"), text("older"), None));
        let alone = Order { previous_key_until_ms: Some(Some(9)), ..Order::default() };
        assert_eq!(signed(alone), (text("old"), None, Some(UnixMs(9))), "a time alone changes no key");
    }

    #[test]
    fn an_ed25519_key_is_made_once() {
        let order = |ed25519, seed| Order { ed25519: Some(ed25519), seed: Some([seed; 32]), ..Order::default() };
        let mut draft = SigningDraft::default();
        order(Some(true), 1).sign(&mut draft);
        let made = draft.ed25519_key.clone();
        assert_eq!(made, Some(Ed25519Key::from_seed([1; 32]).to_text()));
        order(Some(true), 2).sign(&mut draft);
        assert_eq!(draft.ed25519_key, made);
        order(None, 3).sign(&mut draft);
        assert_eq!(draft.ed25519_key, None);
    }

    #[test]
    fn a_masked_password_is_not_taken_for_a_user() {
        let order = |url: &str| Order { snapshot_notify_url: Some(Some(url.to_owned())), ..Order::default() };
        let error = order("https://***@receiver.example/").check().expect_err("masked");
        assert_eq!((error.field, error.value.contains("receiver")), ("snapshot_notify_url", false));
        assert_eq!(order("https://user:***@receiver.example/").check(), Ok(()));
        assert_eq!(Order::default().check(), Ok(()));
    }
}
