//! `/v1/snapshot-templates`: how pictures are made, and where they go.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use framehook_domain::catalog::{ChangeRefused, Inventory, Managed, Step};
use framehook_domain::id::TemplateId;
use framehook_domain::template::{
    NamedRendition, OwnPlace, RenditionDraft, SnapshotTemplate, SnapshotTemplateDraft, StoreTarget,
};
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

/// How pictures are made, and where they go.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SnapshotTemplate")]
pub(super) struct View {
    id: i64,
    name: String,
    description: String,
    /// Seconds between two pictures.
    interval_s: u16,
    /// Pixels; 0 follows the stream's picture.
    width: u32,
    /// Pixels; 0 follows the stream's picture.
    height: u32,
    /// 1 to 100.
    jpeg_quality: u8,
    /// The tail of the bucket's full name.
    app_id: i64,
    /// The bucket without that tail.
    bucket: String,
    /// `local` for the local store.
    region: String,
    /// What the objects' names begin with; braces hold placeholders.
    prefix: String,
    /// What follows it.
    file_name: String,
    /// `sequence`: each picture is an object of its own. `latest`: each overwrites the one before, and none is announced.
    /// `both`: both.
    objects: &'static str,
    /// The key of the object that is overwritten.
    latest_key: String,
    /// Days after which pictures are removed; `null` keeps them.
    retention_days: Option<u16>,
    /// What is made of each picture beside the image that the fields above describe, which is called `main`.
    renditions: Vec<RenditionView>,
    #[serde(flatten)]
    kept: Kept,
}

/// One more image of each picture, of the same decode.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rendition")]
struct RenditionView {
    /// Callbacks and snapshots name it so.
    name: String,
    /// Pixels; 0 follows the stream's picture.
    width: u32,
    /// Pixels; 0 follows the stream's picture.
    height: u32,
    /// `jpeg`, `png`, `webp` or `avif`.
    format: &'static str,
    /// 1 to 100 on the format's own scale; PNG has none.
    quality: u8,
    /// The tail of the bucket's full name; `null`: as the template.
    app_id: Option<i64>,
    /// The bucket without that tail; `null`: as the template.
    bucket: Option<String>,
    /// `null`: as the template.
    region: Option<String>,
    /// `null`: as the template.
    prefix: Option<String>,
    /// `null`: as the template, with the rendition's name before the extension.
    file_name: Option<String>,
}

impl From<&NamedRendition> for RenditionView {
    fn from(rendition: &NamedRendition) -> Self {
        let OwnPlace { app_id, bucket, region, prefix, file_name } = rendition.own.clone();
        Self {
            name: rendition.name.to_string(),
            width: rendition.width,
            height: rendition.height,
            format: rendition.format.name(),
            quality: rendition.quality,
            app_id,
            bucket,
            region,
            prefix,
            file_name,
        }
    }
}

/// One more image of each picture. What is left out takes the default, or the template's value where it has one.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "NewRendition", extend("required" = ["name"]))]
struct RenditionOrder {
    /// `a-z`, `0-9`, `-` and `_`; not `main`.
    #[schemars(length(min = 1, max = 32))]
    name: String,
    /// Pixels; 0, the default, follows the stream's picture.
    #[schemars(range(min = 0, max = 3000))]
    width: Option<i64>,
    /// Pixels; 0, the default, follows the stream's picture.
    #[schemars(range(min = 0, max = 2000))]
    height: Option<i64>,
    /// `jpeg`, the default, `png`, `webp` or `avif`.
    format: Option<String>,
    /// 85 by default; PNG has none.
    #[schemars(range(min = 1, max = 100))]
    quality: Option<i64>,
    #[schemars(range(min = 1))]
    app_id: Option<i64>,
    bucket: Option<String>,
    region: Option<String>,
    prefix: Option<String>,
    file_name: Option<String>,
}

impl From<RenditionOrder> for RenditionDraft {
    fn from(order: RenditionOrder) -> Self {
        let RenditionOrder { name, width, height, format, quality, app_id, bucket, region, prefix, file_name } = order;
        Self { name, width, height, format, quality, app_id, bucket, region, prefix, file_name }
    }
}

/// What to change of a snapshot template. What is left out stays as it is; `null` takes the default.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "SnapshotTemplateChange")]
pub(super) struct Order {
    /// Letters, digits, `_`, `-`, `.` and spaces.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String", length(min = 1, max = 255))]
    name: Option<String>,
    /// Empty by default.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(max = 1024))]
    description: Option<Option<String>>,
    /// Seconds between two pictures, 10 by default.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 2, max = 300))]
    interval_s: Option<Option<i64>>,
    /// Pixels; 0, the default, follows the stream's picture.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 0, max = 3000))]
    width: Option<Option<i64>>,
    /// Pixels; 0, the default, follows the stream's picture.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 0, max = 2000))]
    height: Option<Option<i64>>,
    /// 85 by default.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 1, max = 100))]
    jpeg_quality: Option<Option<i64>>,
    /// The tail of the bucket's full name, `app_id` of the configuration by default.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "i64", range(min = 1))]
    app_id: Option<i64>,
    /// The bucket without that tail, `framehook` by default.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String", length(min = 1))]
    bucket: Option<String>,
    /// `local`, the default, names the local store.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String", length(min = 1))]
    region: Option<String>,
    /// What the objects' names begin with, `/{Year}-{Month}-{Day}` by default.
    #[serde(deserialize_with = "given_or_null")]
    prefix: Option<Option<String>>,
    /// What follows it, `{StreamID}-screenshot-{Hour}-{Minute}-{Second}-{Width}x{Height}{Ext}` by default.
    #[serde(deserialize_with = "given_or_null")]
    file_name: Option<Option<String>>,
    /// `sequence`, the default, `latest` or `both`.
    #[serde(deserialize_with = "given_or_null")]
    objects: Option<Option<String>>,
    /// `latest/{PushDomain}/{AppName}/{StreamID}{Ext}` by default.
    #[serde(deserialize_with = "given_or_null")]
    latest_key: Option<Option<String>>,
    /// Days after which pictures are removed; `null`, the default, keeps them. It applies to those that are there, too.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(range(min = 1, max = 3650))]
    retention_days: Option<Option<i64>>,
    /// All that there are to be beside `main`, none by default.
    #[serde(deserialize_with = "given_or_null")]
    #[schemars(length(max = 7))]
    renditions: Option<Option<Vec<RenditionOrder>>>,
}

/// A snapshot template to be made; only its name has no default.
#[derive(JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "NewSnapshotTemplate", extend("required" = ["name"]))]
#[expect(dead_code, reason = "describes what `Order` reads when a template is made")]
struct New(Order);

impl Order {
    fn apply(&self, draft: &mut SnapshotTemplateDraft) {
        fn set<T: Clone>(field: &mut T, given: &Option<T>) {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        set(&mut draft.name, &self.name);
        set(&mut draft.description, &self.description);
        set(&mut draft.interval_secs, &self.interval_s);
        set(&mut draft.width, &self.width);
        set(&mut draft.height, &self.height);
        set(&mut draft.jpeg_quality, &self.jpeg_quality);
        set(&mut draft.app_id, &self.app_id);
        set(&mut draft.bucket, &self.bucket);
        set(&mut draft.region, &self.region);
        set(&mut draft.prefix, &self.prefix);
        set(&mut draft.file_name, &self.file_name);
        set(&mut draft.objects, &self.objects);
        set(&mut draft.latest_key, &self.latest_key);
        set(&mut draft.retention_days, &self.retention_days);
        if let Some(renditions) = &self.renditions {
            let renditions = renditions.clone().unwrap_or_default();
            draft.renditions = renditions.into_iter().map(RenditionDraft::from).collect();
        }
    }

    fn draft(&self, store: &StoreTarget) -> SnapshotTemplateDraft {
        let mut draft = SnapshotTemplateDraft {
            app_id: store.app_id(),
            bucket: store.bucket().to_owned(),
            region: store.region().to_owned(),
            ..SnapshotTemplateDraft::default()
        };
        self.apply(&mut draft);
        draft
    }
}

impl Noun for SnapshotTemplate {
    const PATH: &'static str = "/v1/snapshot-templates";
    const PLURAL: &'static str = "snapshot_templates";
    type Id = TemplateId;
    type View = View;

    fn id(&self) -> TemplateId {
        self.id
    }

    fn parse_id(text: &str) -> Result<TemplateId, Problem> {
        resource::parse_number(text).map(TemplateId)
    }

    fn all(inventory: &Inventory) -> &[Managed<Self>] {
        &inventory.snapshot_templates
    }

    fn view(known: &Managed<Self>) -> View {
        let template = &known.value;
        View {
            id: template.id.0,
            name: template.name.clone(),
            description: template.description.clone(),
            interval_s: template.interval.secs(),
            width: template.width,
            height: template.height,
            jpeg_quality: template.jpeg_quality,
            app_id: template.store.app_id(),
            bucket: template.store.bucket().to_owned(),
            region: template.store.region().to_owned(),
            prefix: template.pattern.prefix().as_str().to_owned(),
            file_name: template.pattern.file_name().as_str().to_owned(),
            objects: template.objects.name(),
            latest_key: template.latest_key.as_str().to_owned(),
            retention_days: template.retention_days,
            renditions: template.renditions.iter().map(RenditionView::from).collect(),
            kept: Kept::of(known),
        }
    }

    fn unknown(id: TemplateId) -> ChangeRefused {
        ChangeRefused::TemplateUnknown(id)
    }

    fn delete(inventory: &Inventory, id: &TemplateId) -> Result<Step, ChangeRefused> {
        inventory.delete_snapshot_template(*id)
    }
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody<Order>,
) -> Result<Response, Problem> {
    let once = key.once::<SnapshotTemplate>(&shared, &body.canonical);
    let draft = body.order.draft(shared.configuration.built_in_store());
    let decide = move |inventory: &Inventory| inventory.create_snapshot_template(draft.clone());
    resource::create::<SnapshotTemplate>(&shared, &caller, once, decide, |_, added| added).await
}

async fn change(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    InPath(id): InPath<String>,
    conditions: Conditions,
    body: JsonBody<Order>,
) -> Result<Response, Problem> {
    let id = SnapshotTemplate::parse_id(&id)?;
    let order = body.order;
    let decide = move |inventory: &Inventory| inventory.modify_snapshot_template(id, |draft| order.apply(draft));
    resource::change::<SnapshotTemplate>(&shared, &caller, id, conditions, decide).await
}

pub(super) fn routes() -> Vec<Route> {
    const ALL: &str = SnapshotTemplate::PATH;
    const ONE: &str = "/v1/snapshot-templates/{id}";
    let id = |route: Route| route.of::<i64>("id", "The template's number.").problems(&[400, 404]);
    vec![
        Route::get(ALL, "list_snapshot_templates", "List snapshot templates", resource::list::<SnapshotTemplate>)
            .query::<super::page::PageQuery>()
            .answers::<Listing<SnapshotTemplate>>(200, "A page of them, by number."),
        Route::post(ALL, "create_snapshot_template", "Make a snapshot template", create)
            .takes::<New>()
            .once()
            .answers_version::<View>(201, "It is made.")
            .problems(&[409]),
        id(Route::get(ONE, "get_snapshot_template", "Show a snapshot template", resource::show::<SnapshotTemplate>))
            .unless_known()
            .answers_version::<View>(200, "The template."),
        id(Route::patch(ONE, "change_snapshot_template", "Change a snapshot template", change))
            .takes::<Order>()
            .if_unchanged()
            .answers_version::<View>(200, "The template as it is now.")
            .problems(&[409]),
        id(Route::delete(
            ONE,
            "delete_snapshot_template",
            "Delete a snapshot template",
            resource::delete::<SnapshotTemplate>,
        ))
        .if_unchanged()
        .answers_nothing(204, "It is gone.")
        .problems(&[409]),
    ]
}
