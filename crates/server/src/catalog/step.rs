//! From a decided change to the tables.

use framehook_domain::catalog::{ManagedBy, Step};
use framehook_domain::id::TemplateId;
use framehook_domain::time::UnixMs;

use crate::db::catalog as tables;
use crate::db::secret::Vault;
use crate::db::{DbError, Tx, task};

/// Takes one step. Gives the number of the template that it adds, if it does.
pub(super) fn take(tx: &Tx<'_>, vault: &Vault, step: Step, now: UnixMs) -> Result<Option<TemplateId>, DbError> {
    let by = ManagedBy::Api;
    match step {
        Step::Nothing => {}
        Step::PutDomain(domain) => tables::put_domain(tx, vault, &domain, by, now)?,
        Step::RemoveDomain(name) => tables::remove_domain(tx, &name)?,
        Step::AddSnapshotTemplate(template) => {
            return tables::insert_snapshot_template(tx, &template, by, now).map(Some);
        }
        Step::ChangeSnapshotTemplate(template) => tables::update_snapshot_template(tx, &template, now)?,
        Step::RemoveSnapshotTemplate(id) => tables::remove_snapshot_template(tx, id)?,
        Step::AddCallbackTemplate(template) => {
            return tables::insert_callback_template(tx, vault, &template, by, now).map(Some);
        }
        Step::ChangeCallbackTemplate(template) => tables::update_callback_template(tx, vault, &template, now)?,
        Step::RemoveCallbackTemplate(id) => tables::remove_callback_template(tx, id)?,
        Step::AddSnapshotRule(scope, template) => {
            tables::insert_snapshot_rule(tx, &scope, template, by, now)?;
        }
        Step::RebindSnapshotRule(id, template) => tables::rebind_snapshot_rule(tx, id, template, now)?,
        Step::RemoveSnapshotRule(id) => tables::remove_snapshot_rule(tx, id)?,
        Step::AddCallbackRule(scope, template) => {
            tables::insert_callback_rule(tx, &scope, template, by, now)?;
        }
        Step::RebindCallbackRule(id, template) => tables::rebind_callback_rule(tx, id, template, now)?,
        Step::RemoveCallbackRule(id) => tables::remove_callback_rule(tx, id)?,
        Step::Forbid(forbiddance) => tables::forbid_stream(tx, &forbiddance)?,
        Step::Resume(stream) => tables::resume_stream(tx, &stream)?,
        Step::AddTask(added) => task::insert(tx, &added)?,
        Step::StopTask(id) => task::stop(tx, id, now)?,
        Step::RemoveTask(id) => task::remove(tx, id)?,
    }
    Ok(None)
}
