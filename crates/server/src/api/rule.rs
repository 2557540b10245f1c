//! Rules: which streams a snapshot template or a callback template is for.

use framehook_domain::catalog::Managed;
use framehook_domain::id::TemplateId;
use framehook_domain::rule::{CallbackRule, RuleScope, SnapshotRule};
use framehook_domain::stream::{AppName, StreamName};
use framehook_domain::time::UnixMs;
use framehook_tc3::action::Response;
use framehook_tc3::action::callback_rule::{CallbackRuleInfo, CallbackRuleScope, CreateCallbackRule};
use framehook_tc3::action::snapshot_rule::{CreateSnapshotRule, SnapshotRuleInfo, SnapshotRuleScope};
use framehook_tc3::time::{ApiTime, UnixSecs};

use super::error::Failure;
use crate::catalog::{CatalogEditor, CatalogStore};

pub(super) async fn create_snapshot_rule(
    catalog: &CatalogEditor<'_>,
    request: CreateSnapshotRule,
) -> Result<Response, Failure> {
    let (scope, template) = (snapshot_scope(&request.scope)?, TemplateId(request.template_id));
    catalog.change(move |inventory| inventory.create_snapshot_rule(scope, template)).await?;
    Ok(Response::Done {})
}

pub(super) async fn delete_snapshot_rule(
    catalog: &CatalogEditor<'_>,
    request: SnapshotRuleScope,
) -> Result<Response, Failure> {
    let scope = snapshot_scope(&request)?;
    catalog.change(move |inventory| inventory.delete_snapshot_rule(&scope)).await?;
    Ok(Response::Done {})
}

pub(super) async fn list_snapshot_rules(catalog: &CatalogStore) -> Result<Response, Failure> {
    let info = |rule: &Managed<SnapshotRule>| SnapshotRuleInfo {
        create_time: beijing(rule.created),
        update_time: beijing(rule.updated),
        template_id: rule.value.template.0,
        domain_name: rule.value.scope.domain.to_string(),
        app_name: app(&rule.value.scope),
        stream_name: rule.value.scope.stream.as_ref().map_or("", StreamName::as_str).to_owned(),
    };
    let rules = catalog.inventory().await?.snapshot_rules;
    Ok(Response::SnapshotRules { rules: rules.iter().map(info).collect() })
}

pub(super) async fn create_callback_rule(
    catalog: &CatalogEditor<'_>,
    request: CreateCallbackRule,
) -> Result<Response, Failure> {
    let (scope, template) = (callback_scope(&request.scope)?, TemplateId(request.template_id));
    catalog.change(move |inventory| inventory.put_callback_rule(scope, template)).await?;
    Ok(Response::Done {})
}

pub(super) async fn delete_callback_rule(
    catalog: &CatalogEditor<'_>,
    request: CallbackRuleScope,
) -> Result<Response, Failure> {
    let scope = callback_scope(&request)?;
    catalog.change(move |inventory| inventory.delete_callback_rule(&scope)).await?;
    Ok(Response::Done {})
}

pub(super) async fn list_callback_rules(catalog: &CatalogStore) -> Result<Response, Failure> {
    let info = |rule: &Managed<CallbackRule>| CallbackRuleInfo {
        create_time: beijing(rule.created),
        update_time: beijing(rule.updated),
        template_id: rule.value.template.0,
        domain_name: rule.value.scope.domain.to_string(),
        app_name: app(&rule.value.scope),
    };
    let rules = catalog.inventory().await?.callback_rules;
    Ok(Response::CallbackRules { rules: rules.iter().map(info).collect() })
}

fn snapshot_scope(scope: &SnapshotRuleScope) -> Result<RuleScope, Failure> {
    Ok(RuleScope::parse(&scope.domain_name, &scope.app_name, &scope.stream_name)?)
}

fn callback_scope(scope: &CallbackRuleScope) -> Result<RuleScope, Failure> {
    Ok(RuleScope::parse(&scope.domain_name, &scope.app_name, "")?)
}

/// Empty for every app.
fn app(scope: &RuleScope) -> String {
    scope.app.as_ref().map_or("", AppName::as_str).to_owned()
}

fn beijing(at: UnixMs) -> ApiTime {
    ApiTime::beijing(UnixSecs(at.secs()))
}
