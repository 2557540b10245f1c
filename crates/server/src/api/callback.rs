//! Callback templates.

use framehook_domain::catalog::ChangeRefused;
use framehook_domain::id::TemplateId;
use framehook_domain::template::{CallbackKey, CallbackTemplate, CallbackTemplateDraft, CallbackUrl};
use framehook_tc3::action::Response;
use framehook_tc3::action::callback_template::{
    CallbackOptions, CallbackTemplateInfo, CreateCallbackTemplate, ModifyCallbackTemplate, NotifyUrls,
};
use framehook_tc3::action::template::OneTemplate;
use framehook_tc3::secret::Secret;

use super::added;
use super::error::Failure;
use crate::catalog::{CatalogEditor, CatalogStore};

pub(super) async fn create(catalog: &CatalogEditor<'_>, request: CreateCallbackTemplate) -> Result<Response, Failure> {
    let CreateCallbackTemplate { template_name, options } = request;
    let edit = move |draft: &mut CallbackTemplateDraft| {
        draft.name.clone_from(&template_name);
        fill_in(draft, &options);
    };
    Ok(added(catalog.put_callback_template(None, edit).await?))
}

pub(super) async fn modify(catalog: &CatalogEditor<'_>, request: ModifyCallbackTemplate) -> Result<Response, Failure> {
    let ModifyCallbackTemplate { template_id, template_name, options } = request;
    let edit = move |draft: &mut CallbackTemplateDraft| {
        if let Some(name) = &template_name {
            draft.name.clone_from(name);
        }
        fill_in(draft, &options);
    };
    catalog.put_callback_template(Some(TemplateId(template_id)), edit).await?;
    Ok(Response::Done {})
}

pub(super) async fn delete(catalog: &CatalogEditor<'_>, request: OneTemplate) -> Result<Response, Failure> {
    let id = TemplateId(request.template_id);
    catalog.change(move |inventory| inventory.delete_callback_template(id)).await?;
    Ok(Response::Done {})
}

pub(super) async fn describe(catalog: &CatalogStore, request: OneTemplate) -> Result<Response, Failure> {
    let id = TemplateId(request.template_id);
    let templates = catalog.inventory().await?.callback_templates;
    let template = templates.iter().find(|known| known.value.id == id).ok_or(ChangeRefused::TemplateUnknown(id))?;
    Ok(Response::CallbackTemplate { template: info(&template.value) })
}

pub(super) async fn list(catalog: &CatalogStore) -> Result<Response, Failure> {
    let templates = catalog.inventory().await?.callback_templates;
    Ok(Response::CallbackTemplates { templates: templates.iter().map(|template| info(&template.value)).collect() })
}

/// What was not given stays as it is; an empty string removes it.
fn fill_in(draft: &mut CallbackTemplateDraft, options: &CallbackOptions) {
    let CallbackOptions { description, callback_key, urls, record_exception_levels } = options;
    if description.is_some() {
        draft.description.clone_from(description);
    }
    if let Some(levels) = record_exception_levels {
        draft.record_exception_levels = levels.iter().map(|&level| level.to_owned()).collect();
    }
    let set = |field: &mut Option<String>, given: &Option<Secret>| {
        if let Some(given) = given {
            *field = Some(given.expose().to_owned());
        }
    };
    set(&mut draft.signing.key, callback_key);
    let NotifyUrls {
        stream_begin,
        stream_end,
        record,
        record_status,
        snapshot,
        porn_censorship,
        push_exception,
        audio_audit,
        record_exception,
    } = urls;
    set(&mut draft.urls.stream_begin_notify, stream_begin);
    set(&mut draft.urls.stream_end_notify, stream_end);
    set(&mut draft.urls.record_notify, record);
    set(&mut draft.urls.record_status_notify, record_status);
    set(&mut draft.urls.snapshot_notify, snapshot);
    set(&mut draft.urls.porn_censorship_notify, porn_censorship);
    set(&mut draft.urls.push_exception_notify, push_exception);
    set(&mut draft.urls.audio_audit_notify, audio_audit);
    set(&mut draft.urls.record_exception_notify, record_exception);
}

fn info(template: &CallbackTemplate) -> CallbackTemplateInfo {
    let url = |url: &Option<CallbackUrl>| Secret::new(url.as_ref().map_or("", |url| url.expose().as_str()));
    let urls = &template.urls;
    CallbackTemplateInfo {
        template_id: template.id.0,
        template_name: template.name.clone(),
        description: template.description.clone(),
        stream_begin_notify_url: url(&urls.stream_begin_notify),
        stream_mix_notify_url: "",
        stream_end_notify_url: url(&urls.stream_end_notify),
        record_notify_url: url(&urls.record_notify),
        snapshot_notify_url: url(&urls.snapshot_notify),
        porn_censorship_notify_url: url(&urls.porn_censorship_notify),
        callback_key: Secret::new(template.signing.key.as_ref().map_or("", CallbackKey::expose)),
        push_exception_notify_url: url(&urls.push_exception_notify),
        audio_audit_notify_url: url(&urls.audio_audit_notify),
        record_exception_notify_url: url(&urls.record_exception_notify),
        record_exception_levels: template.record_exception_levels.iter().map(|level| level.name().to_owned()).collect(),
    }
}
