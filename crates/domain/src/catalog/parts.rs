//! The parts of a catalog and how they must fit together.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use super::Catalog;
use crate::{
    id::{RuleId, TemplateId},
    push_auth::PushKeys,
    rule::{CallbackRule, RuleScope, SnapshotRule},
    stream::{DomainName, StreamId},
    task::ScreenshotTask,
    template::{CallbackTemplate, SnapshotTemplate, StoreTarget},
    time::UnixMs,
};

/// A push domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    pub name: DomainName,
    /// A disabled domain refuses every push (18/303).
    pub enabled: bool,
    /// `None`: it never had keys.
    pub auth: Option<PushAuth>,
}

/// A domain's keys, kept while authentication is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAuth {
    pub enabled: bool,
    pub keys: PushKeys,
}

impl Domain {
    /// The keys a push must be signed with, if any.
    pub fn keys_to_check(&self) -> Option<&PushKeys> {
        self.auth.as_ref().filter(|auth| auth.enabled).map(|auth| &auth.keys)
    }
}

/// A stream that may not be pushed for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForbiddenStream {
    pub stream: StreamId,
    pub until: UnixMs,
}

/// What a catalog is built from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogParts {
    pub domains: Vec<Domain>,
    pub snapshot_templates: Vec<SnapshotTemplate>,
    pub callback_templates: Vec<CallbackTemplate>,
    pub snapshot_rules: Vec<SnapshotRule>,
    pub callback_rules: Vec<CallbackRule>,
    pub forbidden: Vec<ForbiddenStream>,
    pub tasks: Vec<ScreenshotTask>,
    /// Where the built-in rule's pictures go.
    pub built_in_store: StoreTarget,
}

/// Two parts that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("the domain {0} is declared twice")]
    DuplicateDomain(DomainName),
    #[error("two snapshot templates have the id {0}")]
    DuplicateSnapshotTemplate(TemplateId),
    #[error("two callback templates have the id {0}")]
    DuplicateCallbackTemplate(TemplateId),
    #[error("two snapshot rules apply to {0}")]
    DuplicateSnapshotRule(RuleScope),
    #[error("two callback rules apply to {0}")]
    DuplicateCallbackRule(RuleScope),
    #[error("two snapshot rules have the id {0}")]
    DuplicateRuleId(RuleId),
    #[error("the rule for {0} names a domain that is not declared")]
    UnknownDomain(RuleScope),
    #[error("the rule for {scope} names template {template}, which does not exist")]
    UnknownTemplate { scope: RuleScope, template: TemplateId },
    #[error("the callback rule for {0} names a stream; callback rules cover whole apps")]
    CallbackRuleOfStream(RuleScope),
}

impl CatalogParts {
    pub(super) fn into_catalog(self, version: u64) -> Result<Catalog, CatalogError> {
        let domains = unique(self.domains, |domain| domain.name.clone(), CatalogError::DuplicateDomain)?;
        let snapshot_templates = unique(
            self.snapshot_templates.into_iter().map(Arc::new),
            |template| template.id,
            CatalogError::DuplicateSnapshotTemplate,
        )?;
        let callback_templates = unique(
            self.callback_templates.into_iter().map(Arc::new),
            |template| template.id,
            CatalogError::DuplicateCallbackTemplate,
        )?;
        // Picks are bound to a rule's id, so two rules must not share one even where their scopes differ.
        unique(&self.snapshot_rules, |rule| rule.id, CatalogError::DuplicateRuleId)?;
        let snapshot_rules =
            unique(self.snapshot_rules, |rule| rule.scope.clone(), CatalogError::DuplicateSnapshotRule)?;
        let callback_rules =
            unique(self.callback_rules, |rule| rule.scope.clone(), CatalogError::DuplicateCallbackRule)?;

        for (scope, rule) in &snapshot_rules {
            check_rule(scope, rule.template, &domains, &snapshot_templates)?;
        }
        for (scope, rule) in &callback_rules {
            check_rule(scope, rule.template, &domains, &callback_templates)?;
            if scope.stream.is_some() {
                return Err(CatalogError::CallbackRuleOfStream(scope.clone()));
            }
        }
        let mut tasks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for task in self.tasks {
            tasks.entry(task.stream.clone()).or_default().push(task);
        }
        for tasks in tasks.values_mut() {
            tasks.sort_by_key(|task| task.id);
        }
        Ok(Catalog {
            version,
            domains,
            snapshot_templates,
            callback_templates,
            snapshot_rules,
            callback_rules,
            forbidden: self.forbidden.into_iter().map(|forbidden| (forbidden.stream, forbidden.until)).collect(),
            tasks,
            built_in: Arc::new(SnapshotTemplate::built_in(self.built_in_store)),
        })
    }
}

fn unique<K: Ord + Clone, V>(
    values: impl IntoIterator<Item = V>,
    key: impl Fn(&V) -> K,
    duplicate: impl Fn(K) -> CatalogError,
) -> Result<BTreeMap<K, V>, CatalogError> {
    let mut map = BTreeMap::new();
    for value in values {
        let key = key(&value);
        if map.insert(key.clone(), value).is_some() {
            return Err(duplicate(key));
        }
    }
    Ok(map)
}

fn check_rule<T>(
    scope: &RuleScope,
    template: TemplateId,
    domains: &BTreeMap<DomainName, Domain>,
    templates: &BTreeMap<TemplateId, T>,
) -> Result<(), CatalogError> {
    if !domains.contains_key(&scope.domain) {
        return Err(CatalogError::UnknownDomain(scope.clone()));
    }
    if !templates.contains_key(&template) {
        return Err(CatalogError::UnknownTemplate { scope: scope.clone(), template });
    }
    Ok(())
}
