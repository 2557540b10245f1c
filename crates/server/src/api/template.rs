//! Snapshot templates.

use framehook_domain::catalog::ChangeRefused;
use framehook_domain::id::TemplateId;
use framehook_domain::template::{SnapshotTemplate, SnapshotTemplateDraft};
use framehook_tc3::action::Response;
use framehook_tc3::action::snapshot_template::{
    Bucket, CreateSnapshotTemplate, ModifySnapshotTemplate, SnapshotOptions, SnapshotTemplateInfo,
};
use framehook_tc3::action::template::OneTemplate;

use super::added;
use super::error::Failure;
use crate::catalog::{CatalogEditor, CatalogStore};

pub(super) async fn create(
    catalog: &CatalogEditor<'_>,
    request: CreateSnapshotTemplate,
    accept_porn_flag: bool,
) -> Result<Response, Failure> {
    let CreateSnapshotTemplate { template_name, bucket, options } = request;
    refuse_moderation(&options, accept_porn_flag)?;
    let mut draft = SnapshotTemplateDraft { name: template_name, ..SnapshotTemplateDraft::default() };
    fill_in(&mut draft, bucket, options);
    Ok(added(catalog.change(move |inventory| inventory.create_snapshot_template(draft)).await?))
}

pub(super) async fn modify(
    catalog: &CatalogEditor<'_>,
    request: ModifySnapshotTemplate,
    accept_porn_flag: bool,
) -> Result<Response, Failure> {
    let ModifySnapshotTemplate { template_id, template_name, bucket, options } = request;
    refuse_moderation(&options, accept_porn_flag)?;
    let edit = move |draft: &mut SnapshotTemplateDraft| {
        if let Some(name) = template_name {
            draft.name = name;
        }
        fill_in(draft, bucket, options);
    };
    catalog.change(move |inventory| inventory.modify_snapshot_template(TemplateId(template_id), edit)).await?;
    Ok(Response::Done {})
}

pub(super) async fn delete(catalog: &CatalogEditor<'_>, request: OneTemplate) -> Result<Response, Failure> {
    let id = TemplateId(request.template_id);
    catalog.change(move |inventory| inventory.delete_snapshot_template(id)).await?;
    Ok(Response::Done {})
}

pub(super) async fn describe(catalog: &CatalogStore, request: OneTemplate) -> Result<Response, Failure> {
    let id = TemplateId(request.template_id);
    let templates = catalog.inventory().await?.snapshot_templates;
    let template = templates.iter().find(|known| known.value.id == id).ok_or(ChangeRefused::TemplateUnknown(id))?;
    Ok(Response::SnapshotTemplate { template: info(&template.value) })
}

pub(super) async fn list(catalog: &CatalogStore) -> Result<Response, Failure> {
    let templates = catalog.inventory().await?.snapshot_templates;
    Ok(Response::SnapshotTemplates { templates: templates.iter().map(|template| info(&template.value)).collect() })
}

/// Pictures are not moderated, and whoever asks for it must not believe that they are, unless an operator says otherwise.
fn refuse_moderation(options: &SnapshotOptions, accept_porn_flag: bool) -> Result<(), Failure> {
    if options.porn_flag != Some(true) {
        return Ok(());
    }
    if !accept_porn_flag {
        return Err(Failure::unsupported("Pictures are not moderated here; `PornFlag` must be 0."));
    }
    tracing::warn!("a snapshot template asks for moderation, which is kept and shown; nothing is moderated");
    Ok(())
}

/// What was not given stays as it is.
fn fill_in(draft: &mut SnapshotTemplateDraft, bucket: Bucket, options: SnapshotOptions) {
    let Bucket { cos_app_id, cos_bucket, cos_region } = bucket;
    (draft.app_id, draft.bucket, draft.region) = (cos_app_id, cos_bucket, cos_region);
    let SnapshotOptions { description, snapshot_interval, width, height, porn_flag, cos_prefix, cos_file_name } =
        options;
    draft.description = description.or(draft.description.take());
    draft.interval_secs = snapshot_interval.or(draft.interval_secs);
    draft.width = width.or(draft.width);
    draft.height = height.or(draft.height);
    draft.porn_flag = porn_flag.or(draft.porn_flag);
    draft.prefix = cos_prefix.or(draft.prefix.take());
    draft.file_name = match cos_file_name {
        // A name cannot be empty; programs that fill in every field mean the default by it.
        Some(name) if name.is_empty() => None,
        name => name.or(draft.file_name.take()),
    };
}

fn info(template: &SnapshotTemplate) -> SnapshotTemplateInfo {
    SnapshotTemplateInfo {
        template_id: template.id.0,
        template_name: template.name.clone(),
        snapshot_interval: template.interval.secs().into(),
        width: template.width.into(),
        height: template.height.into(),
        porn_flag: template.porn_flag.into(),
        cos_app_id: template.store.app_id(),
        cos_bucket: template.store.bucket().to_owned(),
        cos_region: template.store.region().to_owned(),
        description: template.description.clone(),
        cos_prefix: template.pattern.prefix().as_str().to_owned(),
        cos_file_name: template.pattern.file_name().as_str().to_owned(),
    }
}
