//! Rules by their number, for whoever keeps that instead of the scope.

use super::{ChangeRefused, Step, find, of_api};
use crate::{
    catalog::Inventory,
    id::{RuleId, TemplateId},
    rule::RuleScope,
};

impl Inventory {
    /// Binds the rule to another template. It keeps its number, so live pushes keep their grid.
    pub fn rebind_snapshot_rule(&self, id: RuleId, template: TemplateId) -> Result<Step, ChangeRefused> {
        let rule = of_api(find(&self.snapshot_rules, |rule| rule.id == id), ChangeRefused::RuleIdUnknown(id))?;
        find(&self.snapshot_templates, |known| known.id == template).ok_or(ChangeRefused::TemplateUnknown(template))?;
        Ok(if rule.template == template { Step::Nothing } else { Step::RebindSnapshotRule(id, template) })
    }

    pub fn delete_snapshot_rule_by_id(&self, id: RuleId) -> Result<Step, ChangeRefused> {
        of_api(find(&self.snapshot_rules, |rule| rule.id == id), ChangeRefused::RuleIdUnknown(id))?;
        Ok(Step::RemoveSnapshotRule(id))
    }

    /// As [`Inventory::put_callback_rule`], for a scope that has none yet.
    pub fn create_callback_rule(&self, scope: RuleScope, template: TemplateId) -> Result<Step, ChangeRefused> {
        match find(&self.callback_rules, |rule| rule.scope == scope) {
            Some(_) => Err(ChangeRefused::RuleExists(scope)),
            None => self.put_callback_rule(scope, template),
        }
    }

    pub fn rebind_callback_rule(&self, id: RuleId, template: TemplateId) -> Result<Step, ChangeRefused> {
        let rule = of_api(find(&self.callback_rules, |rule| rule.id == id), ChangeRefused::RuleIdUnknown(id))?;
        self.put_callback_rule(rule.scope.clone(), template)
    }

    pub fn delete_callback_rule_by_id(&self, id: RuleId) -> Result<Step, ChangeRefused> {
        of_api(find(&self.callback_rules, |rule| rule.id == id), ChangeRefused::RuleIdUnknown(id))?;
        Ok(Step::RemoveCallbackRule(id))
    }
}
