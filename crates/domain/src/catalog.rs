//! Everything configured, as one immutable value.
//!
//! The server builds a [`Catalog`] from the configuration file and the database, swaps it in whole, and every decision
//! about a stream is made against one version of it. While nothing at all is configured a built-in rule takes its
//! place, so that the first push of a newcomer just works.

mod change;
mod inventory;
mod parts;

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

pub use change::{
    ChangeRefused, DOMAINS_MAX, FORBIDDEN_MAX, PushAuthEdit, RULES_MAX, Step, TASKS_OPEN_MAX, TEMPLATES_MAX,
};
pub use inventory::{Forbiddance, Inventory, Managed, ManagedBy};
pub use parts::{CatalogError, CatalogParts, Domain, ForbiddenStream, PushAuth};

use crate::{
    id::{RuleId, TemplateId},
    pick::{Subscriber, Subscription},
    push_auth,
    refusal::{CutReason, Refusal},
    rule::{self, CallbackRule, RuleScope, SnapshotRule},
    stream::{DomainName, HostKind, PublishAddress, StreamId},
    task::ScreenshotTask,
    template::{CallbackTemplate, SnapshotTemplate},
    time::UnixMs,
};

/// Everything configured, at one version.
#[derive(Clone, Debug)]
pub struct Catalog {
    version: u64,
    domains: BTreeMap<DomainName, Domain>,
    snapshot_templates: BTreeMap<TemplateId, Arc<SnapshotTemplate>>,
    callback_templates: BTreeMap<TemplateId, Arc<CallbackTemplate>>,
    snapshot_rules: BTreeMap<RuleScope, SnapshotRule>,
    callback_rules: BTreeMap<RuleScope, CallbackRule>,
    forbidden: BTreeMap<StreamId, UnixMs>,
    /// In the order of their ids, which is that of their creation.
    tasks: BTreeMap<StreamId, Vec<ScreenshotTask>>,
    built_in: Arc<SnapshotTemplate>,
}

/// The rule that applies while nothing is configured.
pub const BUILT_IN_RULE: RuleId = RuleId(0);

/// What admission needs to know beside the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmitPolicy {
    /// `ingest.default_domain`: the push domain of pushes to a bare IP address or to localhost.
    pub default_domain: Option<DomainName>,
}

/// A push that may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// As addressed, or under the default domain.
    pub stream: StreamId,
    pub by: AdmittedBy,
}

/// What let a push begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmittedBy {
    /// Its domain is configured.
    Domain,
    /// Nothing is configured, so every host is taken.
    EmptyCatalog,
}

impl Catalog {
    /// Nothing configured.
    pub fn empty() -> Self {
        Self::build(0, CatalogParts::default()).expect("no parts have no conflicts")
    }

    /// Checks that the parts fit together. Each part was validated on its own before.
    ///
    /// # Errors
    /// Two parts with one identity, or a rule whose domain or template is not there.
    pub fn build(version: u64, parts: CatalogParts) -> Result<Self, CatalogError> {
        parts.into_catalog(version)
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether no domain, template or rule exists, so that the built-in rule applies.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
            && self.snapshot_templates.is_empty()
            && self.callback_templates.is_empty()
            && self.snapshot_rules.is_empty()
            && self.callback_rules.is_empty()
    }

    /// May this push begin? The checks in order: domain known, domain enabled, stream not forbidden, signature.
    ///
    /// # Errors
    /// [`Refusal::BareIp`], [`Refusal::DomainUnknown`], [`Refusal::DomainDisabled`], [`Refusal::StreamForbidden`], or
    /// what [`push_auth::check`] says.
    pub fn admit(&self, address: &PublishAddress, now: UnixMs, policy: &AdmitPolicy) -> Result<Admission, Refusal> {
        let mut stream = address.stream.clone();
        if !self.is_empty() && !self.domains.contains_key(&stream.domain) {
            stream.domain = stand_in(&stream.domain, policy)?;
        }
        let by = match self.standing(&stream, now)? {
            Some(domain) => {
                if let Some(keys) = domain.keys_to_check() {
                    push_auth::check(keys, &stream.name, &address.param, now)?;
                }
                AdmittedBy::Domain
            }
            None => AdmittedBy::EmptyCatalog,
        };
        Ok(Admission { stream, by })
    }

    /// Must a running push be cut? What would refuse a new push for the sake of its stream cuts a running one too, but
    /// for one thing: a push that was admitted while nothing was configured does not lose its stream to the first object
    /// that is. It goes on until its publisher leaves, with the pictures that the rules then ask for.
    pub fn cut_reason(&self, stream: &StreamId, by: AdmittedBy, now: UnixMs) -> Option<CutReason> {
        match (self.standing(stream, now), by) {
            (Ok(_), _) => None,
            (Err(Refusal::DomainUnknown), AdmittedBy::EmptyCatalog) if !self.is_forbidden(stream, now) => None,
            (Err(_), _) => Some(CutReason::Forbidden),
        }
    }

    /// What the configuration says of a stream itself, whether its push is to begin or runs. `None` for the domain while
    /// nothing is configured.
    fn standing(&self, stream: &StreamId, now: UnixMs) -> Result<Option<&Domain>, Refusal> {
        let domain = match self.domains.get(&stream.domain) {
            Some(domain) if !domain.enabled => return Err(Refusal::DomainDisabled),
            Some(domain) => Some(domain),
            None if self.is_empty() => None,
            None => return Err(Refusal::DomainUnknown),
        };
        if self.is_forbidden(stream, now) { Err(Refusal::StreamForbidden) } else { Ok(domain) }
    }

    /// The one snapshot rule that applies to a stream, with its template.
    pub fn snapshot_rule_for(&self, stream: &StreamId) -> Option<(RuleId, Arc<SnapshotTemplate>)> {
        if self.is_empty() {
            return Some((BUILT_IN_RULE, Arc::clone(&self.built_in)));
        }
        let rule = rule::most_specific(&self.snapshot_rules, stream)?;
        let template = self.snapshot_templates.get(&rule.template)?;
        Some((rule.id, Arc::clone(template)))
    }

    /// Who wants pictures of a stream at `now`, for [`PushPicks::reconcile`](crate::pick::PushPicks::reconcile): its rule,
    /// and the screenshot tasks that run and whose template exists. That holds until the [next
    /// edge](Catalog::next_task_edge) of a task.
    pub fn subscriptions_for(&self, stream: &StreamId, now: UnixMs) -> Vec<Subscription> {
        let rule = self.snapshot_rule_for(stream);
        let rule = rule.map(|(rule, template)| Subscription { subscriber: Subscriber::Rule(rule), template });
        let running = self.tasks.get(stream).into_iter().flatten().filter(|task| task.window.contains(now));
        let tasks = running.filter_map(|task| {
            let template = self.snapshot_templates.get(&task.template)?;
            Some(Subscription { subscriber: Subscriber::Task(task.id), template: Arc::clone(template) })
        });
        rule.into_iter().chain(tasks).collect()
    }

    /// When the next screenshot task begins or ends.
    pub fn next_task_edge(&self, after: UnixMs) -> Option<UnixMs> {
        let windows = self.tasks.values().flatten().map(|task| task.window);
        windows.flat_map(|window| [window.start(), window.end()]).filter(|edge| *edge > after).min()
    }

    /// Whom to tell about a stream's events.
    pub fn callback_template_for(&self, stream: &StreamId) -> Option<Arc<CallbackTemplate>> {
        let rule = rule::most_specific(&self.callback_rules, stream)?;
        self.callback_templates.get(&rule.template).map(Arc::clone)
    }

    /// Whether a stream is forbidden at `now`.
    fn is_forbidden(&self, stream: &StreamId, now: UnixMs) -> bool {
        self.forbidden.get(stream).is_some_and(|until| now < *until)
    }

    /// Of a delivery's template, read again for each attempt.
    pub fn callback_template(&self, id: TemplateId) -> Option<&Arc<CallbackTemplate>> {
        self.callback_templates.get(&id)
    }

    pub fn snapshot_template(&self, id: TemplateId) -> Option<&Arc<SnapshotTemplate>> {
        self.snapshot_templates.get(&id)
    }

    /// By name.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }

    /// By id, without the built-in one.
    pub fn snapshot_templates(&self) -> impl Iterator<Item = &Arc<SnapshotTemplate>> {
        self.snapshot_templates.values()
    }

    /// By id.
    pub fn callback_templates(&self) -> impl Iterator<Item = &Arc<CallbackTemplate>> {
        self.callback_templates.values()
    }

    /// By scope, without the built-in one.
    pub fn snapshot_rules(&self) -> impl Iterator<Item = &SnapshotRule> {
        self.snapshot_rules.values()
    }

    /// By scope.
    pub fn callback_rules(&self) -> impl Iterator<Item = &CallbackRule> {
        self.callback_rules.values()
    }
}

/// The domain that stands in for an address nobody added.
fn stand_in(host: &DomainName, policy: &AdmitPolicy) -> Result<DomainName, Refusal> {
    match (host.kind(), &policy.default_domain) {
        (HostKind::Ip | HostKind::Localhost, Some(default_domain)) => Ok(default_domain.clone()),
        (HostKind::Ip, None) => Err(Refusal::BareIp),
        (HostKind::Localhost, None) | (HostKind::Name, _) => Err(Refusal::DomainUnknown),
    }
}

#[cfg(test)]
mod tests;
