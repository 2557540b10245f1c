//! Domains, templates and rules: the one place that changes them, whoever asks.
//!
//! The tables are the truth. A change is one transaction; after it the whole [`Catalog`] is built again, with a new version,
//! and published to everybody who decides by it. A reader never sees half of a change.

mod declare;
mod once;
mod receiver;
mod step;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::catalog::{Catalog, CatalogError as UnfitParts, ChangeRefused, Inventory, Step};
use framehook_domain::field::FieldError;
use framehook_domain::id::TemplateId;
use framehook_domain::template::{CallbackTemplate, CallbackTemplateDraft, CallbackUrl, StoreTarget};
use framehook_domain::time::{UnixMs, wall_jumped};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Caller, Change};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ObjectStore, Sources};
use crate::db::secret::Vault;
use crate::db::{Db, DbError, Tx, audit as log, catalog as tables, task};
use crate::notify::address::AddressPolicy;
use crate::notify::resolve::Resolver;
use crate::notify::tls::check_authorities;
use crate::shutdown::Stage;
use crate::store::is_taken;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{Chain, Reloaded};

/// How often the wall clock is looked at: it may be set.
const WALL_CLOCK_READ_EVERY: Duration = Duration::from_secs(10);

pub(crate) use once::{Begun, Once, OnceError};
pub use receiver::check_receivers;
pub(crate) use receiver::{ForbiddenReceiver, check_receiver};
use receiver::{RELOAD_PATIENCE, RESOLVE_PATIENCE, check_declared};

/// Domains, templates and rules, stored and published.
#[derive(Debug)]
pub struct CatalogStore {
    db: Db,
    vault: Vault,
    clock: Clock,
    built_in_store: StoreTarget,
    /// What this process was started with. Only domains, templates and rules change while it runs.
    running: Config,
    /// Judges receivers as the sender does: by what this process was started with.
    resolver: Arc<Resolver>,
    published: watch::Sender<Arc<Catalog>>,
    /// Whose tasks the changes are.
    stage: Stage,
}

/// Why a change was not made. What was in force before still is, and nothing of the change is stored.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file has problems, or contradicts what the API manages.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It could not be read or stored.
    #[error("the configuration could not be read or stored")]
    Db(#[from] DbError),
    /// The tables were changed by something else than Framehook.
    #[error("the stored domains, templates and rules do not fit together")]
    Unfit(#[from] UnfitParts),
}

/// Why a change that somebody asked for was not made. Nothing of it is stored, and nothing will be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// Callbacks may not go to one of the template's URLs.
    #[error("{}", .forbidden.what)]
    Receiver { field: &'static str, forbidden: ForbiddenReceiver },
    /// It could not be read or stored.
    #[error("the change could not be stored")]
    Db(#[from] DbError),
    /// The tables were changed by something else than Framehook.
    #[error("the stored domains, templates and rules do not fit together")]
    Unfit(#[from] UnfitParts),
}

impl CatalogStore {
    /// Reads what is stored, applies what the file declares, and publishes the result.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn open(db: Db, vault: Vault, clock: Clock, config: &Config, stage: Stage) -> Result<Self, CatalogError> {
        let (key, built_in_store, now) = (vault.clone(), config.built_in_store(), clock.wall());
        let stored = db.read(move |conn| tables::load(conn, &key, now)).await?;
        let catalog = stored.into_catalog(built_in_store.clone())?;
        warn_of_unverified(None, &catalog);
        let published = watch::Sender::new(Arc::new(catalog));
        let resolver = Arc::new(Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone())));
        let store = Self { db, vault, clock, built_in_store, running: config.clone(), resolver, published, stage };
        store.apply(config, RESOLVE_PATIENCE).await?;
        Ok(store)
    }

    /// What applies now.
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.published.borrow())
    }

    /// What applies now, and every change from here on. Only the newest is kept for a slow reader.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.published.subscribe()
    }

    /// Reads the configuration again from where it was read at the start and applies its domains, templates and rules. With
    /// any problem everything stays as it was, and every problem is logged.
    pub async fn reload(&self, sources: &Sources, telemetry: &Telemetry) {
        let applied = match Config::load(sources) {
            Ok(config) => self.apply(&config, RELOAD_PATIENCE).await.map(|catalog| (catalog, config)),
            Err(error) => Err(error.into()),
        };
        match &applied {
            Ok((catalog, config)) => {
                let waiting = config.differing_settings(&self.running);
                Reloaded::Applied { version: catalog.version(), waiting: &waiting }.emit(telemetry);
            }
            Err(CatalogError::Config(error)) => Reloaded::Refused(error).emit(telemetry),
            Err(error) => Reloaded::Failed(error).emit(telemetry),
        }
    }

    /// Makes the file's part of the tables what `config` declares: adds, changes and removes, and leaves what the API manages
    /// alone. A template keeps its id as long as its name stays, a rule as long as its scope does. If nothing differs,
    /// nothing is written and the version stays.
    async fn apply(&self, config: &Config, patience: Duration) -> Result<Arc<Catalog>, CatalogError> {
        check_declared(&self.resolver, &config.declared, patience).await?;
        let (vault, declared, now) = (self.vault.clone(), config.declared.clone(), self.clock.wall());
        let changed = self.db.write_checked(move |tx| declare::apply(tx, &vault, &declared, now)).await??;
        if let Some(stored) = changed {
            publish(&self.published, stored.into_catalog(self.built_in_store.clone())?);
        }
        Ok(self.current())
    }

    /// Reads everything again whenever the wall clock was set back, until `token` ends it: what was over by the clock that was
    /// wrong, such as a screenshot task, may not be over.
    pub async fn follow_wall_clock(self: Arc<Self>, token: CancellationToken) {
        let look = || (self.clock.wall(), self.clock.mono());
        let mut before = look();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(WALL_CLOCK_READ_EVERY) => {}
            }
            let now = look();
            if !wall_jumped(before, now) {
                continue;
            }
            match self.read_again().await {
                Ok(()) => before = now,
                Err(CatalogError::Db(DbError::Stopped)) => return,
                // The next look finds the same jump.
                Err(error) => tracing::warn!(error = %Chain(&error), "the configuration could not be read again"),
            }
        }
    }

    /// Publishes what is stored by the clock of now, as a new version.
    async fn read_again(&self) -> Result<(), CatalogError> {
        let (vault, now) = (self.vault.clone(), self.clock.wall());
        let read = move |tx: &Tx<'_>| {
            tables::next_version(tx)?;
            tables::load(tx, &vault, now)
        };
        let stored = self.db.write(read).await?;
        publish(&self.published, stored.into_catalog(self.built_in_store.clone())?);
        Ok(())
    }

    /// Where pictures go when nobody says where.
    pub(crate) fn built_in_store(&self) -> &StoreTarget {
        &self.built_in_store
    }

    /// Everything configured, with who manages it and since when.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn inventory(&self) -> Result<Inventory, DbError> {
        let (vault, now) = (self.vault.clone(), self.clock.wall());
        self.db.read(move |conn| tables::load(conn, &vault, now)).await
    }

    /// The store as `caller` changes it.
    pub(crate) fn by<'a>(&'a self, caller: &'a Caller) -> CatalogEditor<'a> {
        CatalogEditor { store: self, caller }
    }
}

/// The store, and who changes it: what is changed through it is noted in the audit log under that name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatalogEditor<'a> {
    store: &'a CatalogStore,
    caller: &'a Caller,
}

impl Deref for CatalogEditor<'_> {
    type Target = CatalogStore;

    fn deref(&self) -> &CatalogStore {
        self.store
    }
}

impl CatalogEditor<'_> {
    /// Makes the change that `decide` decides on, and publishes it, also if this future is dropped half-way. Gives the number
    /// of the template that was added, if one was.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub(crate) async fn change<F>(&self, decide: F) -> Result<Option<TemplateId>, ChangeError>
    where
        F: FnOnce(&Inventory) -> Result<Step, ChangeRefused> + Send + 'static,
    {
        let (vault, now, caller) = (self.vault.clone(), self.clock.wall(), self.caller.clone());
        let stores = self.running.object_stores.clone();
        let decide = move |inventory: &Inventory| decide(inventory).and_then(|step| with_store(&stores, step));
        let change = move |tx: &Tx<'_>| carry_out(tx, &vault, now, &caller, decide);
        let (db, published, built_in) = (self.db.clone(), self.published.clone(), self.built_in_store.clone());
        // Whoever asks may hang up while the database writes; what it has written must be published all the same.
        let work = async move {
            let Changed { stored, added, is_new } = db.write_checked(change).await??;
            if is_new {
                publish(&published, stored.into_catalog(built_in)?);
            }
            Ok(added)
        };
        self.stage.finish(work).await.unwrap_or(Err(DbError::Stopped.into()))
    }

    /// As [`CatalogEditor::change`], for what makes or changes a callback template: `edit` fills in the draft. The URLs that it
    /// gives are judged first, outside of the transaction, since names are looked up for it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub(crate) async fn put_callback_template<F>(
        &self,
        id: Option<TemplateId>,
        edit: F,
    ) -> Result<Option<TemplateId>, ChangeError>
    where
        F: Fn(&mut CallbackTemplateDraft) + Send + 'static,
    {
        let decide = move |inventory: &Inventory| match id {
            Some(id) => inventory.modify_callback_template(id, &edit),
            None => {
                let mut draft = CallbackTemplateDraft::default();
                edit(&mut draft);
                inventory.create_callback_template(draft)
            }
        };
        if let Step::AddCallbackTemplate(template) | Step::ChangeCallbackTemplate(template) =
            decide(&self.inventory().await?)?
        {
            self.check_receivers(&template).await?;
        }
        // Between the two a request beside this one may have changed the template; the URLs of each were judged.
        self.change(decide).await
    }
}

impl CatalogStore {
    /// Judges the authorities of a template's receivers, and the URLs that are sent to, all at the same time: each may wait for
    /// a resolver.
    async fn check_receivers(&self, template: &CallbackTemplate) -> Result<(), ChangeError> {
        if let Some(authorities) = &template.authorities
            && let Err(error) = check_authorities(authorities)
        {
            tracing::info!(error = %Chain(&error), "authorities of a callback template were refused");
            let allowed = "certificates in PEM, each of which can be an authority";
            let error = FieldError::secret("ca_certificates", authorities.pem(), allowed);
            return Err(ChangeRefused::from(error).into());
        }
        let urls = &template.urls;
        let check = async |field, url: &Option<CallbackUrl>| match url {
            Some(url) => {
                let judged = check_receiver(&self.resolver, url).await;
                judged.map_err(|forbidden| ChangeError::Receiver { field, forbidden })
            }
            None => Ok(()),
        };
        tokio::try_join!(
            check("snapshot_notify_url", &urls.snapshot_notify),
            check("stream_begin_notify_url", &urls.stream_begin_notify),
            check("stream_end_notify_url", &urls.stream_end_notify),
        )?;
        Ok(())
    }
}

/// Warns of templates whose receivers need not prove who they are, unless that was so `before`.
fn warn_of_unverified(before: Option<&Catalog>, now: &Catalog) {
    let is_unverified = |template: &CallbackTemplate| {
        let mut urls = EventKind::ALL.into_iter().filter_map(|kind| template.urls.of(kind));
        !template.verify_tls && urls.any(|url| url.expose().scheme() == "https")
    };
    for template in now.callback_templates().filter(|template| is_unverified(template)) {
        let known = before.and_then(|before| before.callback_template(template.id));
        if !known.is_some_and(|known| is_unverified(known)) {
            tracing::warn!(
                template = template.id.0,
                name = template.name,
                "certificates of this template's receivers are not checked: whoever can answer in their place gets its \
                 callbacks; name the receivers' authority in the template and turn verify_tls on"
            );
        }
    }
}

/// Puts a catalog in force.
fn publish(published: &watch::Sender<Arc<Catalog>>, catalog: Catalog) {
    // Two changes may come back from the database in either order; the newer one must stay.
    published.send_if_modified(|current| {
        let newer = current.version() < catalog.version();
        if newer {
            warn_of_unverified(Some(current), &catalog);
            *current = Arc::new(catalog);
        }
        newer
    });
}

/// What a change came to.
struct Changed {
    /// Everything configured, after it.
    stored: Inventory,
    added: Option<TemplateId>,
    /// Whether anything is not as it was.
    is_new: bool,
}

/// Refuses a snapshot template whose pictures no object store would take.
fn with_store(stores: &[ObjectStore], step: Step) -> Result<Step, ChangeRefused> {
    let template = match &step {
        Step::AddSnapshotTemplate(template) | Step::ChangeSnapshotTemplate(template) => template,
        _ => return Ok(step),
    };
    let untaken = template.all_renditions().map(|rendition| rendition.store).find(|target| !is_taken(stores, target));
    let refused = untaken.map(|target| {
        let value = format!("{} ({})", target.region(), target.full_bucket());
        let allowed = "the region of a bucket that a configured object store takes, or local";
        FieldError::new("region", value, allowed)
    });
    refused.map_or(Ok(step), |error| Err(error.into()))
}

/// Decides on what is stored, takes the step, and notes in the audit log what `caller` has changed by it.
fn carry_out(
    tx: &Tx<'_>,
    vault: &Vault,
    now: UnixMs,
    caller: &Caller,
    decide: impl FnOnce(&Inventory) -> Result<Step, ChangeRefused>,
) -> Result<Result<Changed, ChangeRefused>, DbError> {
    let before = tables::load(tx, vault, now)?;
    let step = match decide(&before) {
        Ok(Step::Nothing) => return Ok(Ok(Changed { stored: before, added: None, is_new: false })),
        Ok(step) => step,
        Err(refused) => return Ok(Err(refused)),
    };
    // Of what is configured nothing may change by it: the task may be over.
    let deleted = match &step {
        Step::RemoveTask(id) => task::find(tx, *id)?,
        _ => None,
    };
    let added = step::take(tx, vault, step, now)?;
    tables::next_version(tx)?;
    let stored = tables::load(tx, vault, now)?;
    let changes = match &deleted {
        Some(task) => vec![Change::task_deleted(task)],
        None => audit::changes(&before, &stored, vault, now),
    };
    for change in changes {
        log::note(tx, caller, &change, now)?;
    }
    Ok(Ok(Changed { stored, added, is_new: true }))
}

#[cfg(test)]
mod tests;
