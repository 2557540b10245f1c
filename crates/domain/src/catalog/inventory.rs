//! What is configured, as it is kept: each part with who changes it and since when it is so.

use alloc::{string::String, vec::Vec};

use super::{Catalog, CatalogError, CatalogParts, Domain, ForbiddenStream};
use crate::{
    rule::{CallbackRule, SnapshotRule},
    task::ScreenshotTask,
    template::{CallbackTemplate, SnapshotTemplate, StoreTarget},
    time::UnixMs,
};

/// Where an object is changed: what the file declares, the API cannot change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedBy {
    File,
    Api,
}

/// An object and who changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed<T> {
    pub value: T,
    pub by: ManagedBy,
    pub created: UnixMs,
    pub updated: UnixMs,
}

/// A forbidden stream, why and since when. The file forbids none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbiddance {
    pub stream: ForbiddenStream,
    /// May be empty.
    pub reason: String,
    pub created: UnixMs,
}

/// Everything configured, at one version. Changes are decided on it; [`Catalog`] is what streams are judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Grows with every change.
    pub version: u64,
    pub domains: Vec<Managed<Domain>>,
    pub snapshot_templates: Vec<Managed<SnapshotTemplate>>,
    pub callback_templates: Vec<Managed<CallbackTemplate>>,
    pub snapshot_rules: Vec<Managed<SnapshotRule>>,
    pub callback_rules: Vec<Managed<CallbackRule>>,
    /// Those whose time is over are in it until the next one is added.
    pub forbidden: Vec<Forbiddance>,
    /// Those that were neither stopped nor over when this was read. The file has none.
    pub tasks: Vec<ScreenshotTask>,
}

impl Inventory {
    /// As streams see it.
    ///
    /// # Errors
    /// [`CatalogError`] if the parts do not fit together.
    pub fn into_catalog(self, built_in_store: StoreTarget) -> Result<Catalog, CatalogError> {
        fn values<T>(rows: Vec<Managed<T>>) -> Vec<T> {
            rows.into_iter().map(|row| row.value).collect()
        }
        let parts = CatalogParts {
            domains: values(self.domains),
            snapshot_templates: values(self.snapshot_templates),
            callback_templates: values(self.callback_templates),
            snapshot_rules: values(self.snapshot_rules),
            callback_rules: values(self.callback_rules),
            forbidden: self.forbidden.into_iter().map(|forbiddance| forbiddance.stream).collect(),
            tasks: self.tasks,
            built_in_store,
        };
        Catalog::build(self.version, parts)
    }
}
