//! From what the file declares to the tables: what is new, what differs, what has gone.

use std::collections::BTreeMap;

use framehook_domain::catalog::{Domain, Inventory, Managed, ManagedBy};
use framehook_domain::id::{RuleId, TemplateId};
use framehook_domain::rule::{CallbackRule, RuleScope, SnapshotRule};
use framehook_domain::template::{CallbackTemplate, SnapshotTemplate};
use framehook_domain::time::UnixMs;

use crate::audit::{self, Caller};
use crate::config::{ConfigError, Declared, DeclaredRule, Problem};
use crate::db::audit as log;
use crate::db::catalog as tables;
use crate::db::secret::Vault;
use crate::db::{DbError, Tx};

/// Makes the rows that the file manages what `declared` says. `None`: they were so already.
pub(super) fn apply(
    tx: &Tx<'_>,
    vault: &Vault,
    declared: &Declared,
    now: UnixMs,
) -> Result<Result<Option<Inventory>, ConfigError>, DbError> {
    let stored = tables::load(tx, vault, now)?;
    let problems = conflicts(&stored, declared);
    if !problems.is_empty() {
        return Ok(Err(ConfigError { problems }));
    }
    let change = Change { tx, vault, now };
    // Rules refer to templates and domains, so those they refer to come before them and go after them.
    let domains = change.put_domains(&stored, declared)?;
    let (snapshot_templates, snapshot_changed) = change.put_snapshot_templates(&stored, declared)?;
    let (callback_templates, callback_changed) = change.put_callback_templates(&stored, declared)?;
    let snapshot_rules = change.put_snapshot_rules(&stored, declared, &snapshot_templates)?;
    let callback_rules = change.put_callback_rules(&stored, declared, &callback_templates)?;
    let removed = change.remove_unreferred(&stored, declared)?;
    if !(domains || snapshot_changed || callback_changed || snapshot_rules || callback_rules || removed) {
        return Ok(Ok(None));
    }
    tables::next_version(tx)?;
    let after = tables::load(tx, vault, now)?;
    for change in audit::changes(&stored, &after, vault, now) {
        log::note(tx, &Caller::File, &change, now)?;
    }
    Ok(Ok(Some(after)))
}

/// What the file declares and the API manages, and what the file no longer declares and the API still refers to.
fn conflicts(stored: &Inventory, declared: &Declared) -> Vec<Problem> {
    let mut problems = Vec::new();
    let by_api = "is managed by the API; delete it there or here".to_owned();
    let mut refuse = |path: &str, index: usize, field: &str, value: &dyn ToString| {
        let (key, value) = (format!("{path}[{}].{field}", index + 1), format!("{:?}", value.to_string()));
        problems.push(Problem::in_file(key, Some(value), by_api.clone()));
    };
    for (index, domain) in declared.domains.iter().enumerate() {
        if managed(&stored.domains, ManagedBy::Api).any(|known| known.name == domain.name) {
            refuse("domain", index, "name", &domain.name);
        }
    }
    for (index, rule) in declared.snapshot_rules.iter().enumerate() {
        if managed(&stored.snapshot_rules, ManagedBy::Api).any(|known| known.scope == rule.scope) {
            refuse("snapshot_rule", index, "domain", &rule.scope);
        }
    }
    for (index, rule) in declared.callback_rules.iter().enumerate() {
        if managed(&stored.callback_rules, ManagedBy::Api).any(|known| known.scope == rule.scope) {
            refuse("callback_rule", index, "domain", &rule.scope);
        }
    }
    for rule in managed(&stored.snapshot_rules, ManagedBy::Api) {
        let template = gone_snapshot_templates(stored, declared).find(|gone| gone.id == rule.template);
        problems.extend(template.map(|gone| still_used("snapshot template", &gone.name, &rule_of(&rule.scope))));
        let domain = gone_domains(stored, declared).find(|gone| gone.name == rule.scope.domain);
        problems.extend(domain.map(|gone| still_used("domain", gone.name.as_str(), &rule_of(&rule.scope))));
    }
    for rule in managed(&stored.callback_rules, ManagedBy::Api) {
        let template = gone_callback_templates(stored, declared).find(|gone| gone.id == rule.template);
        problems.extend(template.map(|gone| still_used("callback template", &gone.name, &rule_of(&rule.scope))));
        let domain = gone_domains(stored, declared).find(|gone| gone.name == rule.scope.domain);
        problems.extend(domain.map(|gone| still_used("domain", gone.name.as_str(), &rule_of(&rule.scope))));
    }
    for task in &stored.tasks {
        let user = format!("the screenshot task {}", task.id);
        let template = gone_snapshot_templates(stored, declared).find(|gone| gone.id == task.template);
        problems.extend(template.map(|gone| still_used("snapshot template", &gone.name, &user)));
        let domain = gone_domains(stored, declared).find(|gone| gone.name == task.stream.domain);
        problems.extend(domain.map(|gone| still_used("domain", gone.name.as_str(), &user)));
    }
    problems
}

fn rule_of(scope: &RuleScope) -> String {
    format!("the rule for {scope}, which the API manages")
}

/// The file cannot drop what it does not manage itself and what refers to it.
fn still_used(noun: &str, name: &str, user: &str) -> Problem {
    Problem::in_file("", None, format!("the {noun} {name:?} is still used by {user}; delete that first"))
}

/// One change of the tables.
struct Change<'a> {
    tx: &'a Tx<'a>,
    vault: &'a Vault,
    now: UnixMs,
}

impl Change<'_> {
    fn put_domains(&self, stored: &Inventory, declared: &Declared) -> Result<bool, DbError> {
        let mut changed = false;
        let is_stored = |domain: &Domain| managed(&stored.domains, ManagedBy::File).any(|known| known == domain);
        for domain in declared.domains.iter().filter(|domain| !is_stored(domain)) {
            tables::put_domain(self.tx, self.vault, domain, ManagedBy::File, self.now)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Also says which id each declared template has.
    fn put_snapshot_templates(
        &self,
        stored: &Inventory,
        declared: &Declared,
    ) -> Result<(BTreeMap<String, TemplateId>, bool), DbError> {
        let mut ids = BTreeMap::new();
        let mut changed = false;
        for template in &declared.snapshot_templates {
            let known = managed(&stored.snapshot_templates, ManagedBy::File).find(|known| known.name == template.name);
            let id = match known {
                Some(known) => {
                    let template = SnapshotTemplate { id: known.id, ..template.clone() };
                    if template != *known {
                        tables::update_snapshot_template(self.tx, &template, self.now)?;
                        changed = true;
                    }
                    known.id
                }
                None => {
                    changed = true;
                    tables::insert_snapshot_template(self.tx, template, ManagedBy::File, self.now)?
                }
            };
            ids.insert(template.name.clone(), id);
        }
        Ok((ids, changed))
    }

    /// Also says which id each declared template has.
    fn put_callback_templates(
        &self,
        stored: &Inventory,
        declared: &Declared,
    ) -> Result<(BTreeMap<String, TemplateId>, bool), DbError> {
        let mut ids = BTreeMap::new();
        let mut changed = false;
        for template in &declared.callback_templates {
            let known = managed(&stored.callback_templates, ManagedBy::File).find(|known| known.name == template.name);
            let id = match known {
                Some(known) => {
                    let template = CallbackTemplate { id: known.id, ..template.clone() };
                    if template != *known {
                        tables::update_callback_template(self.tx, self.vault, &template, self.now)?;
                        changed = true;
                    }
                    known.id
                }
                None => {
                    changed = true;
                    tables::insert_callback_template(self.tx, self.vault, template, ManagedBy::File, self.now)?
                }
            };
            ids.insert(template.name.clone(), id);
        }
        Ok((ids, changed))
    }

    fn put_snapshot_rules(
        &self,
        stored: &Inventory,
        declared: &Declared,
        templates: &BTreeMap<String, TemplateId>,
    ) -> Result<bool, DbError> {
        let known = managed(&stored.snapshot_rules, ManagedBy::File);
        let steps = rule_steps(known.map(SnapshotRule::parts), &declared.snapshot_rules, templates);
        for step in &steps {
            match *step {
                RuleStep::Insert(scope, template) => {
                    tables::insert_snapshot_rule(self.tx, scope, template, ManagedBy::File, self.now)?;
                }
                RuleStep::Rebind(id, template) => tables::rebind_snapshot_rule(self.tx, id, template, self.now)?,
                RuleStep::Remove(id) => tables::remove_snapshot_rule(self.tx, id)?,
            }
        }
        Ok(!steps.is_empty())
    }

    fn put_callback_rules(
        &self,
        stored: &Inventory,
        declared: &Declared,
        templates: &BTreeMap<String, TemplateId>,
    ) -> Result<bool, DbError> {
        let known = managed(&stored.callback_rules, ManagedBy::File);
        let steps = rule_steps(known.map(CallbackRule::parts), &declared.callback_rules, templates);
        for step in &steps {
            match *step {
                RuleStep::Insert(scope, template) => {
                    tables::insert_callback_rule(self.tx, scope, template, ManagedBy::File, self.now)?;
                }
                RuleStep::Rebind(id, template) => tables::rebind_callback_rule(self.tx, id, template, self.now)?,
                RuleStep::Remove(id) => tables::remove_callback_rule(self.tx, id)?,
            }
        }
        Ok(!steps.is_empty())
    }

    /// Removes the templates and domains that the file no longer declares. Their rules are gone by now.
    fn remove_unreferred(&self, stored: &Inventory, declared: &Declared) -> Result<bool, DbError> {
        let mut removed = false;
        for template in gone_snapshot_templates(stored, declared) {
            tables::remove_snapshot_template(self.tx, template.id)?;
            removed = true;
        }
        for template in gone_callback_templates(stored, declared) {
            tables::remove_callback_template(self.tx, template.id)?;
            removed = true;
        }
        for domain in gone_domains(stored, declared) {
            tables::remove_domain(self.tx, &domain.name)?;
            removed = true;
        }
        Ok(removed)
    }
}

/// What makes the stored rules of one kind the declared ones.
enum RuleStep<'a> {
    Insert(&'a RuleScope, TemplateId),
    Rebind(RuleId, TemplateId),
    Remove(RuleId),
}

type RuleParts<'a> = (RuleId, &'a RuleScope, TemplateId);

/// Both kinds of rules have these.
trait HasParts {
    fn parts(&self) -> RuleParts<'_>;
}

impl HasParts for SnapshotRule {
    fn parts(&self) -> RuleParts<'_> {
        (self.id, &self.scope, self.template)
    }
}

impl HasParts for CallbackRule {
    fn parts(&self) -> RuleParts<'_> {
        (self.id, &self.scope, self.template)
    }
}

fn rule_steps<'a>(
    stored: impl Iterator<Item = RuleParts<'a>>,
    declared: &'a [DeclaredRule],
    templates: &BTreeMap<String, TemplateId>,
) -> Vec<RuleStep<'a>> {
    let mut gone: BTreeMap<&RuleScope, (RuleId, TemplateId)> =
        stored.map(|(id, scope, template)| (scope, (id, template))).collect();
    let mut steps = Vec::new();
    for rule in declared {
        let template = *templates.get(&rule.template).expect("a declared rule names a declared template");
        match gone.remove(&rule.scope) {
            None => steps.push(RuleStep::Insert(&rule.scope, template)),
            Some((id, bound)) if bound != template => steps.push(RuleStep::Rebind(id, template)),
            Some(_) => {}
        }
    }
    steps.extend(gone.into_values().map(|(id, _)| RuleStep::Remove(id)));
    steps
}

fn managed<T>(rows: &[Managed<T>], by: ManagedBy) -> impl Iterator<Item = &T> {
    rows.iter().filter(move |row| row.by == by).map(|row| &row.value)
}

fn gone_snapshot_templates<'a>(
    stored: &'a Inventory,
    declared: &'a Declared,
) -> impl Iterator<Item = &'a SnapshotTemplate> {
    let kept = |name: &str| declared.snapshot_templates.iter().any(|kept| kept.name == name);
    managed(&stored.snapshot_templates, ManagedBy::File).filter(move |template| !kept(&template.name))
}

fn gone_callback_templates<'a>(
    stored: &'a Inventory,
    declared: &'a Declared,
) -> impl Iterator<Item = &'a CallbackTemplate> {
    let kept = |name: &str| declared.callback_templates.iter().any(|kept| kept.name == name);
    managed(&stored.callback_templates, ManagedBy::File).filter(move |template| !kept(&template.name))
}

fn gone_domains<'a>(stored: &'a Inventory, declared: &'a Declared) -> impl Iterator<Item = &'a Domain> {
    managed(&stored.domains, ManagedBy::File)
        .filter(|domain| !declared.domains.iter().any(|kept| kept.name == domain.name))
}
