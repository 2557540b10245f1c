//! Changes of what is configured, whoever asks for them: whether one may be made, and what it then is.
//!
//! Each function judges one wish against the whole [`Inventory`] and answers with the one [`Step`] that fulfils it. The
//! caller reads the inventory and takes the step in one transaction.

mod rules;

use alloc::string::String;
use core::time::Duration;

use super::{Domain, Forbiddance, ForbiddenStream, Inventory, Managed, ManagedBy, PushAuth};
use crate::{
    field::FieldError,
    id::{RuleId, TaskId, TemplateId},
    pick::TASKS_MAX,
    push_auth::{PushKey, PushKeys},
    rule::RuleScope,
    stream::{DomainName, StreamId},
    task::ScreenshotTask,
    template::{CallbackTemplate, CallbackTemplateDraft, SnapshotTemplate, SnapshotTemplateDraft},
    time::UnixMs,
};

/// Most domains (CSS, 267/35970).
pub const DOMAINS_MAX: usize = 100;

/// Most snapshot templates, and most callback templates (CSS, 267/30834 and 267/30815).
pub const TEMPLATES_MAX: usize = 50;

/// Most snapshot rules, and most callback rules. CSS says that there is a limit and not which. All rules are read at each
/// change, some microseconds for each.
pub const RULES_MAX: usize = 1000;

/// Most streams forbidden at a time. CSS names no limit; ten for each rule.
pub const FORBIDDEN_MAX: usize = 10_000;

/// Most screenshot tasks that run or are still to run. CSS names no limit in all; as many as forbidden streams.
pub const TASKS_OPEN_MAX: usize = 10_000;

/// Longest time that a stream may be forbidden for at once (CSS, 267/20468).
const FORBIDDEN_TIME_MAX: Duration = Duration::from_secs(90 * 86_400);

/// Longest reason for it, in bytes (CSS, 267/20468).
const REASON_BYTES_MAX: usize = 2048;

/// The id of a template that the database is still to number.
const UNNUMBERED: TemplateId = TemplateId(0);

/// One change, decided and not yet made. What it adds or changes is managed by the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is so already.
    Nothing,
    /// Adds it, or changes the one of that name.
    PutDomain(Domain),
    RemoveDomain(DomainName),
    /// The template's id is still to be given.
    AddSnapshotTemplate(SnapshotTemplate),
    ChangeSnapshotTemplate(SnapshotTemplate),
    RemoveSnapshotTemplate(TemplateId),
    /// The template's id is still to be given.
    AddCallbackTemplate(CallbackTemplate),
    ChangeCallbackTemplate(CallbackTemplate),
    RemoveCallbackTemplate(TemplateId),
    AddSnapshotRule(RuleScope, TemplateId),
    RebindSnapshotRule(RuleId, TemplateId),
    RemoveSnapshotRule(RuleId),
    AddCallbackRule(RuleScope, TemplateId),
    RebindCallbackRule(RuleId, TemplateId),
    RemoveCallbackRule(RuleId),
    /// Until another time, if it is forbidden already.
    Forbid(Forbiddance),
    Resume(StreamId),
    AddTask(ScreenshotTask),
    StopTask(TaskId),
    /// Also one that is over.
    RemoveTask(TaskId),
}

/// Why a change may not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the domain {0} exists already")]
    DomainExists(DomainName),
    #[error("there is no domain {0}")]
    DomainUnknown(DomainName),
    #[error("the domain {domain} has a rule for {scope}; delete that first")]
    DomainInUse { domain: DomainName, scope: RuleScope },
    #[error("authentication cannot be on without a main key")]
    PushKeyMissing,
    #[error("there is no template {0}")]
    TemplateUnknown(TemplateId),
    #[error("template {id} is bound by the rule for {scope}; delete that first")]
    TemplateInUse { id: TemplateId, scope: RuleScope },
    #[error("there is a rule for {0} already")]
    RuleExists(RuleScope),
    #[error("there is no rule for {0}")]
    RuleUnknown(RuleScope),
    #[error("there is no rule {0}")]
    RuleIdUnknown(RuleId),
    #[error("it is not any more what it was when it was read")]
    Changed,
    #[error("there cannot be more than {DOMAINS_MAX} domains")]
    TooManyDomains,
    #[error("there cannot be more than {TEMPLATES_MAX} templates of a kind")]
    TooManyTemplates,
    #[error("there cannot be more than {RULES_MAX} rules of a kind")]
    TooManyRules,
    #[error("there cannot be more than {FORBIDDEN_MAX} forbidden streams")]
    TooManyForbidden,
    #[error("the domain {domain} has the screenshot task {task}; stop that first")]
    DomainInTask { domain: DomainName, task: TaskId },
    #[error("template {id} is used by the screenshot task {task}; stop that first")]
    TemplateInTask { id: TemplateId, task: TaskId },
    #[error("there cannot be more than {TASKS_MAX} screenshot tasks of {0} at a time")]
    TooManyTasksAtATime(StreamId),
    #[error("there cannot be more than {TASKS_OPEN_MAX} screenshot tasks that are not over")]
    TooManyTasks,
    #[error("it is declared in the configuration file; change it there")]
    ManagedByFile,
}

/// What to change of a domain's push keys; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushAuthEdit {
    pub enabled: Option<bool>,
    /// Empty only where there is no key, since a program may send back what it has read.
    pub main: Option<String>,
    /// Empty removes it.
    pub backup: Option<String>,
    pub auth_delta: Option<Duration>,
}

/// Snapshot templates and their rules.
impl Inventory {
    pub fn create_snapshot_template(&self, draft: SnapshotTemplateDraft) -> Result<Step, ChangeRefused> {
        room(&self.snapshot_templates, TEMPLATES_MAX, ChangeRefused::TooManyTemplates)?;
        Ok(Step::AddSnapshotTemplate(SnapshotTemplate::validate(UNNUMBERED, draft)?))
    }

    pub fn modify_snapshot_template(
        &self,
        id: TemplateId,
        edit: impl FnOnce(&mut SnapshotTemplateDraft),
    ) -> Result<Step, ChangeRefused> {
        let known = of_api(find(&self.snapshot_templates, |known| known.id == id), ChangeRefused::TemplateUnknown(id))?;
        let mut draft = known.to_draft();
        edit(&mut draft);
        let template = SnapshotTemplate::validate(id, draft)?;
        Ok(if template == *known { Step::Nothing } else { Step::ChangeSnapshotTemplate(template) })
    }

    pub fn delete_snapshot_template(&self, id: TemplateId) -> Result<Step, ChangeRefused> {
        of_api(find(&self.snapshot_templates, |known| known.id == id), ChangeRefused::TemplateUnknown(id))?;
        if let Some(rule) = find(&self.snapshot_rules, |rule| rule.template == id) {
            return Err(ChangeRefused::TemplateInUse { id, scope: rule.value.scope.clone() });
        }
        // CSS does not say whether a task keeps its template. It would take nothing any more, in silence.
        match self.tasks.iter().find(|task| task.template == id) {
            Some(task) => Err(ChangeRefused::TemplateInTask { id, task: task.id }),
            None => Ok(Step::RemoveSnapshotTemplate(id)),
        }
    }

    /// A scope has one rule: a second one is refused, as CSS does.
    pub fn create_snapshot_rule(&self, scope: RuleScope, template: TemplateId) -> Result<Step, ChangeRefused> {
        self.domain(&scope.domain)?;
        find(&self.snapshot_templates, |known| known.id == template).ok_or(ChangeRefused::TemplateUnknown(template))?;
        if find(&self.snapshot_rules, |rule| rule.scope == scope).is_some() {
            return Err(ChangeRefused::RuleExists(scope));
        }
        room(&self.snapshot_rules, RULES_MAX, ChangeRefused::TooManyRules)?;
        Ok(Step::AddSnapshotRule(scope, template))
    }

    /// The scope must be the rule's own, empty names included; a wider one does not reach it.
    pub fn delete_snapshot_rule(&self, scope: &RuleScope) -> Result<Step, ChangeRefused> {
        let rule = find(&self.snapshot_rules, |rule| rule.scope == *scope);
        Ok(Step::RemoveSnapshotRule(of_api(rule, ChangeRefused::RuleUnknown(scope.clone()))?.id))
    }
}

/// Callback templates and their rules. Whether a URL may be called is judged elsewhere: it takes a look at the network.
impl Inventory {
    pub fn create_callback_template(&self, draft: CallbackTemplateDraft) -> Result<Step, ChangeRefused> {
        room(&self.callback_templates, TEMPLATES_MAX, ChangeRefused::TooManyTemplates)?;
        Ok(Step::AddCallbackTemplate(CallbackTemplate::validate(UNNUMBERED, draft)?))
    }

    pub fn modify_callback_template(
        &self,
        id: TemplateId,
        edit: impl FnOnce(&mut CallbackTemplateDraft),
    ) -> Result<Step, ChangeRefused> {
        let known = of_api(find(&self.callback_templates, |known| known.id == id), ChangeRefused::TemplateUnknown(id))?;
        let mut draft = known.to_draft();
        edit(&mut draft);
        let template = CallbackTemplate::validate(id, draft)?;
        Ok(if template == *known { Step::Nothing } else { Step::ChangeCallbackTemplate(template) })
    }

    pub fn delete_callback_template(&self, id: TemplateId) -> Result<Step, ChangeRefused> {
        of_api(find(&self.callback_templates, |known| known.id == id), ChangeRefused::TemplateUnknown(id))?;
        match find(&self.callback_rules, |rule| rule.template == id) {
            Some(rule) => Err(ChangeRefused::TemplateInUse { id, scope: rule.value.scope.clone() }),
            None => Ok(Step::RemoveCallbackTemplate(id)),
        }
    }

    /// The rule of a scope that has one is bound to the other template: CSS has no error for it.
    pub fn put_callback_rule(&self, scope: RuleScope, template: TemplateId) -> Result<Step, ChangeRefused> {
        self.domain(&scope.domain)?;
        find(&self.callback_templates, |known| known.id == template).ok_or(ChangeRefused::TemplateUnknown(template))?;
        if scope.stream.is_some() {
            let allowed = "nothing: callback rules cover whole apps";
            return Err(FieldError::new("stream", scope, allowed).into());
        }
        match find(&self.callback_rules, |rule| rule.scope == scope) {
            None => {
                room(&self.callback_rules, RULES_MAX, ChangeRefused::TooManyRules)?;
                Ok(Step::AddCallbackRule(scope, template))
            }
            Some(rule) if rule.by == ManagedBy::File => Err(ChangeRefused::ManagedByFile),
            Some(rule) if rule.value.template == template => Ok(Step::Nothing),
            Some(rule) => Ok(Step::RebindCallbackRule(rule.value.id, template)),
        }
    }

    /// The scope must be the rule's own, an empty app included.
    pub fn delete_callback_rule(&self, scope: &RuleScope) -> Result<Step, ChangeRefused> {
        let rule = find(&self.callback_rules, |rule| rule.scope == *scope);
        Ok(Step::RemoveCallbackRule(of_api(rule, ChangeRefused::RuleUnknown(scope.clone()))?.id))
    }
}

/// Domains and their push keys.
impl Inventory {
    /// A new domain is enabled and asks for signatures made with `key`.
    pub fn add_domain(&self, name: DomainName, key: PushKey) -> Result<Step, ChangeRefused> {
        if self.domain(&name).is_ok() {
            return Err(ChangeRefused::DomainExists(name));
        }
        room(&self.domains, DOMAINS_MAX, ChangeRefused::TooManyDomains)?;
        let keys = PushKeys { main: key, backup: None, auth_delta: Duration::ZERO };
        Ok(Step::PutDomain(Domain { name, enabled: true, auth: Some(PushAuth { enabled: true, keys }) }))
    }

    pub fn delete_domain(&self, name: &DomainName) -> Result<Step, ChangeRefused> {
        self.domain_of_api(name)?;
        let mut scopes = self
            .snapshot_rules
            .iter()
            .map(|rule| &rule.value.scope)
            .chain(self.callback_rules.iter().map(|rule| &rule.value.scope));
        if let Some(scope) = scopes.find(|scope| scope.domain == *name) {
            return Err(ChangeRefused::DomainInUse { domain: name.clone(), scope: scope.clone() });
        }
        match self.tasks.iter().find(|task| task.stream.domain == *name) {
            Some(task) => Err(ChangeRefused::DomainInTask { domain: name.clone(), task: task.id }),
            None => Ok(Step::RemoveDomain(name.clone())),
        }
    }

    pub fn switch_domain(&self, name: &DomainName, enabled: bool) -> Result<Step, ChangeRefused> {
        let known = self.domain_of_api(name)?;
        Ok(put_domain(known, Domain { enabled, ..known.clone() }))
    }

    pub fn modify_push_auth(&self, name: &DomainName, edit: PushAuthEdit) -> Result<Step, ChangeRefused> {
        let known = self.domain_of_api(name)?;
        let PushAuthEdit { enabled, main, backup, auth_delta } = edit;
        let key =
            |text: Option<String>| text.filter(|text| !text.is_empty()).map(|text| PushKey::parse(&text)).transpose();
        let auth = match &known.auth {
            Some(PushAuth { enabled: was_enabled, keys }) => {
                let keys = PushKeys {
                    main: main.map(|text| PushKey::parse(&text)).transpose()?.unwrap_or_else(|| keys.main.clone()),
                    backup: if backup.is_some() { key(backup)? } else { keys.backup.clone() },
                    auth_delta: auth_delta.unwrap_or(keys.auth_delta),
                };
                Some(PushAuth { enabled: enabled.unwrap_or(*was_enabled), keys })
            }
            None => match key(main)? {
                Some(main) => {
                    let keys = PushKeys { main, backup: key(backup)?, auth_delta: auth_delta.unwrap_or_default() };
                    Some(PushAuth { enabled: enabled.unwrap_or(false), keys })
                }
                None if enabled == Some(true) || key(backup)?.is_some() => return Err(ChangeRefused::PushKeyMissing),
                None => None,
            },
        };
        Ok(put_domain(known, Domain { auth, ..known.clone() }))
    }

    fn domain(&self, name: &DomainName) -> Result<&Managed<Domain>, ChangeRefused> {
        find(&self.domains, |domain| domain.name == *name).ok_or_else(|| ChangeRefused::DomainUnknown(name.clone()))
    }

    fn domain_of_api(&self, name: &DomainName) -> Result<&Domain, ChangeRefused> {
        of_api(self.domain(name).ok(), ChangeRefused::DomainUnknown(name.clone()))
    }
}

/// Forbidden streams. A stream need not have been pushed, nor its domain be known.
impl Inventory {
    /// Until `until`, which lies after `now`.
    pub fn forbid(&self, stream: StreamId, until: UnixMs, reason: String, now: UnixMs) -> Result<Step, ChangeRefused> {
        if until <= now || until.since(now) > FORBIDDEN_TIME_MAX {
            return Err(FieldError::new("until", until.secs(), "after now and at most 90 days from it").into());
        }
        if reason.len() > REASON_BYTES_MAX {
            return Err(FieldError::new("reason", reason, "at most 2048 bytes").into());
        }
        let others = self.forbidden.iter().map(|known| &known.stream).filter(|known| known.stream != stream);
        if others.filter(|known| now < known.until).count() >= FORBIDDEN_MAX {
            return Err(ChangeRefused::TooManyForbidden);
        }
        Ok(Step::Forbid(Forbiddance { stream: ForbiddenStream { stream, until }, reason, created: now }))
    }

    pub fn resume(&self, stream: StreamId) -> Step {
        let is_forbidden = self.forbidden.iter().any(|known| known.stream.stream == stream);
        if is_forbidden { Step::Resume(stream) } else { Step::Nothing }
    }
}

/// Screenshot tasks. The inventory holds those that are not over; whether there was ever one of an id is known elsewhere.
impl Inventory {
    /// The stream need not be live. A template that does not exist is taken, as CSS takes it: the task then takes nothing.
    pub fn create_task(&self, task: ScreenshotTask) -> Result<Step, ChangeRefused> {
        self.domain(&task.stream.domain)?;
        if self.tasks.len() >= TASKS_OPEN_MAX {
            return Err(ChangeRefused::TooManyTasks);
        }
        let of_stream = self.tasks.iter().filter(|known| known.stream == task.stream).map(|known| known.window);
        if !task.window.fits_beside(of_stream) {
            return Err(ChangeRefused::TooManyTasksAtATime(task.stream));
        }
        Ok(Step::AddTask(task))
    }

    /// Ends it for good. One that is over stays as it was.
    pub fn stop_task(&self, id: TaskId) -> Step {
        if self.tasks.iter().any(|task| task.id == id) { Step::StopTask(id) } else { Step::Nothing }
    }

    /// Ends it and forgets it. Where CSS lets pushes that live go on, it ends for them too, as a deleted rule does: what
    /// nobody can see any more should not go on.
    pub fn delete_task(&self, id: TaskId) -> Step {
        Step::RemoveTask(id)
    }
}

fn put_domain(known: &Domain, wanted: Domain) -> Step {
    if *known == wanted { Step::Nothing } else { Step::PutDomain(wanted) }
}

fn find<T>(rows: &[Managed<T>], is_it: impl Fn(&T) -> bool) -> Option<&Managed<T>> {
    rows.iter().find(|row| is_it(&row.value))
}

/// What was looked for, if it is there and requests may change it.
fn of_api<T>(row: Option<&Managed<T>>, unknown: ChangeRefused) -> Result<&T, ChangeRefused> {
    match row {
        None => Err(unknown),
        Some(row) if row.by == ManagedBy::File => Err(ChangeRefused::ManagedByFile),
        Some(row) => Ok(&row.value),
    }
}

fn room<T>(rows: &[Managed<T>], max: usize, full: ChangeRefused) -> Result<(), ChangeRefused> {
    if rows.len() < max { Ok(()) } else { Err(full) }
}

#[cfg(test)]
mod tests;
