//! The one place of operations on domains, templates and rules. The file uses it at the start and at each SIGHUP.
//!
//! What applies is a [`Catalog`]: an immutable snapshot with a version, built from the database's tables and handed out on
//! a watch channel, so that a change reaches every live stream at once and nobody ever sees half of one.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::catalog::{Catalog, CatalogError as UnfitParts};
use framehook_domain::template::{CallbackUrl, StoreTarget};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{Config, ConfigError, Problem, Sources};
use crate::db::catalog as tables;
use crate::db::secret::Vault;
use crate::db::{Db, DbError};
use crate::notify::address::AddressPolicy;
use crate::notify::attempt_error::AttemptError;
use crate::notify::endpoint::Endpoint;
use crate::notify::resolve::Resolver;
use crate::telemetry::Metrics;
use crate::telemetry::event::Reloaded;

/// How long the names of receivers may take to resolve at a start or reload. A name that does not resolve is no reason to
/// refuse: it may be up again when the first callback is due, and is judged again then.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);

/// Why a configuration could not be applied. The one before it stays in force.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the database failed")]
    Db(#[from] DbError),
    #[error("the stored configuration does not fit together")]
    Unfit(#[from] UnfitParts),
}

/// Owns the configuration tables and what is published from them.
pub struct CatalogStore {
    db: Db,
    vault: Vault,
    clock: Clock,
    built_in: StoreTarget,
    current: watch::Sender<Arc<Catalog>>,
}

impl CatalogStore {
    /// Applies what the file declares to the tables and publishes the result.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn open(db: Db, vault: Vault, clock: Clock, config: &Config) -> Result<Self, CatalogError> {
        let built_in = config.built_in_store();
        let store = Self { db, vault, clock, built_in, current: watch::Sender::new(Arc::new(Catalog::empty())) };
        store.apply(config).await?;
        Ok(store)
    }

    /// What applies now, and every change from here on.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.current.subscribe()
    }

    /// Reads the configuration again and applies its domains, templates and rules. With any problem everything stays as
    /// it was, and every problem is logged.
    pub async fn reload(&self, sources: &Sources, metrics: &Metrics) {
        let applied = match Config::load(sources) {
            Ok(config) => self.apply(&config).await,
            Err(error) => Err(error.into()),
        };
        match &applied {
            Ok(catalog) => Reloaded::Applied { version: catalog.version() }.emit(metrics),
            Err(CatalogError::Config(error)) => Reloaded::Refused(error).emit(metrics),
            Err(error) => Reloaded::Failed(error).emit(metrics),
        }
    }

    /// Makes the tables what `config` declares and publishes the result.
    async fn apply(&self, config: &Config) -> Result<Arc<Catalog>, CatalogError> {
        check_receivers(config).await?;
        let (vault, declared, wall) = (self.vault.clone(), config.declared.clone(), self.clock.wall());
        let loaded = self.db.write(move |tx| tables::apply_file(tx, &vault, &declared, wall)).await?;
        let parts = framehook_domain::catalog::CatalogParts { built_in_store: self.built_in.clone(), ..loaded.parts };
        let catalog = Arc::new(Catalog::build(loaded.version, parts)?);
        self.current.send_replace(Arc::clone(&catalog));
        Ok(catalog)
    }
}

/// Refuses receivers whose names resolve to private addresses now. The sender checks again for each attempt.
///
/// # Errors
/// A problem for each.
pub async fn check_receivers(config: &Config) -> Result<(), ConfigError> {
    let resolver = Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone()));
    let mut problems = Vec::new();
    for (index, template) in config.declared.callback_templates.iter().enumerate() {
        let urls = [
            ("snapshot_notify_url", &template.urls.snapshot_notify),
            ("stream_begin_notify_url", &template.urls.stream_begin_notify),
            ("stream_end_notify_url", &template.urls.stream_end_notify),
        ];
        for (field, url) in urls {
            if let Some(url) = url
                && let Some(what) = forbidden(&resolver, url).await
            {
                let key = format!("callback_template[{}].{field}", index + 1);
                problems.push(Problem::in_file(key, Some(format!("{:?}", url.to_string())), what));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
}

async fn forbidden(resolver: &Resolver, url: &CallbackUrl) -> Option<String> {
    let endpoint = Endpoint::parse(url.expose().as_str()).ok()?;
    match tokio::time::timeout(RESOLVE_PATIENCE, resolver.addresses(&endpoint)).await {
        Ok(Err(error @ AttemptError::AddressForbidden { .. })) => {
            Some(format!("is at an address that is not called unless --allow-receiver names it: {}", error.chain()))
        }
        _ => None,
    }
}
