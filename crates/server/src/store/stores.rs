//! Which store a bucket is in.

use std::sync::Arc;

use framehook_domain::template::StoreTarget;

use super::{Bucket, Local, LocalStore, ObjectStore};

/// Every store there is. Clones share them.
#[derive(Clone, Debug)]
pub struct Stores {
    local: Arc<Local>,
}

/// A store by the name that the database has for it.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub name: Arc<str>,
    pub store: Arc<dyn ObjectStore>,
}

impl Stores {
    pub fn new(local: Local) -> Self {
        Self { local: Arc::new(local) }
    }

    /// The store in the data directory.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The store that a template's pictures go to.
    pub fn choose(&self, _target: &StoreTarget) -> Chosen {
        Chosen { name: LocalStore::NAME.into(), store: Arc::clone(&self.local) as Arc<dyn ObjectStore> }
    }

    /// The store of that name; `None` if none is configured under it.
    pub fn named(&self, name: &str, _bucket: Bucket<'_>) -> Option<Arc<dyn ObjectStore>> {
        (name == LocalStore::NAME).then(|| Arc::clone(&self.local) as Arc<dyn ObjectStore>)
    }
}
