//! Sending settled deliveries again, by a person's word.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::field::FieldError;
use framehook_domain::id::DeliveryId;
use framehook_domain::template::CallbackUrl;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::attempt::URL_PURPOSE;
use crate::audit::{Caller, Change};
use crate::clock::Clock;
use crate::db::outbox::{self, Filter, ObjectRef, OwnUrl, Picture, ReplayRefused};
use crate::db::replays::{self, Order, ReplayId};
use crate::db::secret::Vault;
use crate::db::{Db, DbError, Tx, audit};
use crate::store::{Bucket, StoreError, Stores};
use crate::timeline::Timeline;

/// Why a delivery was not taken up again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Refused(#[from] ReplayRefused),
    #[error("the URL cannot be used")]
    Url(#[source] FieldError),
    #[error("cannot tell whether the picture still exists")]
    Store(#[source] StoreError),
    /// More replays of many deliveries than [`REPLAYS_MAX`] go on.
    #[error("{REPLAYS_MAX} replays go on; cancel one, or wait until one has ended")]
    TooMany,
    #[error("the database failed")]
    Db(#[from] DbError),
}

/// Replays of many deliveries that may go on at a time: each takes its turn several times in a second.
pub const REPLAYS_MAX: usize = 100;

/// How long a store has to say whether it holds a picture. It is asked with a request of a few hundred bytes, and others
/// wait for the answer, so this is less than an upload may take.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Pictures that one store is asked for at a time, by all replays together: what two of them ask for at once.
const ASKED_PER_STORE_MAX: usize = 2 * ASKED_AT_ONCE;

/// Pictures that one replay asks its stores for at a time.
pub(super) const ASKED_AT_ONCE: usize = 16;

/// Counts, by the names of stores, what they are being asked for. Who hangs uses up its own places and nobody else's. Clones
/// share them.
#[derive(Clone, Debug, Default)]
pub struct StorePlaces(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

impl StorePlaces {
    /// Waits for a place at a store of the configuration.
    async fn take(&self, store: &str) -> OwnedSemaphorePermit {
        let places = {
            // Every change is one call on the map, so a panic elsewhere leaves it whole.
            let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(ASKED_PER_STORE_MAX));
            Arc::clone(stores.entry(store.to_owned()).or_insert_with(new))
        };
        places.acquire_owned().await.expect("nobody closes the places of a store")
    }
}

/// Takes settled deliveries up again. Whether an address may be called is judged by whoever takes the URL in, and again
/// when it is sent.
#[derive(Clone, Debug)]
pub struct Replayer {
    pub db: Db,
    pub vault: Vault,
    pub stores: Stores,
    pub store_places: StorePlaces,
    pub clock: Clock,
    pub timeline: Timeline,
    /// Wakes who carries out replays of many deliveries.
    pub replays_wake: Arc<Notify>,
}

impl Replayer {
    /// Owes a settled delivery again: a new round of attempts with the same `webhook-id`, to `url` if one is given.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn replay(&self, by: &Caller, id: DeliveryId, url: Option<&str>) -> Result<(), ReplayError> {
        let url = url.map(|url| CallbackUrl::parse("url", url)).transpose().map_err(ReplayError::Url)?;
        let own_url = url.as_ref().map(|url| self.own_url(url));
        let picture = self.picture(id).await?;
        let (timeline, by, vault) = (self.timeline.clone(), by.clone(), self.vault.clone());
        let replay = move |tx: &Tx<'_>| {
            let before = outbox::state_of(tx, id)?;
            let replayed = outbox::replay(tx, id, own_url.as_ref(), picture, timeline.now())?;
            if replayed.is_ok() {
                let after = outbox::state_of(tx, id)?.ok_or(DbError::Damaged { what: "a delivery" })?;
                let change = Change::delivery_replayed(id, before, after, url.as_ref(), &vault);
                audit::note(tx, &by, &change, timeline.now())?;
            }
            Ok(replayed)
        };
        // Not `write_checked`: a refusal for a picture that is gone is noted with the delivery, and stays.
        self.db.write(replay).await??;
        Ok(())
    }

    /// Owes settled deliveries again that match `filter`, `per_sec` of them in a second and only while nothing else is due
    /// where they go: to `url` if one is given. Returns the order's number; it is carried out from now on.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn order(
        &self,
        by: &Caller,
        filter: Filter,
        url: Option<&str>,
        per_sec: u32,
    ) -> Result<ReplayId, ReplayError> {
        let url = url.map(|url| CallbackUrl::parse("url", url)).transpose().map_err(ReplayError::Url)?;
        let own_url = url.as_ref().map(|url| self.own_url(url));
        let order = Order { filter, own_url, per_sec, is_automatic: false };
        let (clock, by, vault) = (self.clock, by.clone(), self.vault.clone());
        let write = move |tx: &Tx<'_>| {
            if replays::open_count(tx)?.all >= REPLAYS_MAX {
                return Ok(Err(ReplayError::TooMany));
            }
            let wall = clock.wall();
            let id = replays::order(tx, &order, wall)?;
            audit::note(tx, &by, &Change::replay_ordered(id, &order, url.as_ref(), &vault), wall)?;
            Ok(Ok(id))
        };
        let id = self.db.write_checked(write).await??;
        self.replays_wake.notify_one();
        Ok(id)
    }

    /// Lets an order send nothing more. `false`: it had ended, or is not known.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cancel(&self, by: &Caller, id: ReplayId) -> Result<bool, DbError> {
        let (clock, by) = (self.clock, by.clone());
        let cancel = move |tx: &Tx<'_>| {
            let cancelled = replays::cancel(tx, id, clock.wall())?;
            if cancelled {
                audit::note(tx, &by, &Change::replay_cancelled(id), clock.wall())?;
            }
            Ok(cancelled)
        };
        self.db.write(cancel).await
    }

    fn own_url(&self, url: &CallbackUrl) -> OwnUrl {
        let url = url.expose().as_str();
        OwnUrl { sealed: self.vault.seal(URL_PURPOSE, url), digest: self.vault.digest(URL_PURPOSE, url) }
    }

    /// What the store says about the picture that a delivery announces.
    ///
    /// # Errors
    /// The store does not tell, or the database failed.
    pub(super) async fn picture(&self, id: DeliveryId) -> Result<Picture, ReplayError> {
        match self.db.read(move |conn| outbox::object_of(conn, id)).await? {
            Some(object) if object.is_stored => {
                let can_be_fetched = self.can_be_fetched(object).await.map_err(ReplayError::Store)?;
                Ok(if can_be_fetched { Picture::There } else { Picture::Gone })
            }
            _ => Ok(Picture::There),
        }
    }

    /// Whether an object that was stored is still there, and whether its URL still opens it.
    async fn can_be_fetched(&self, object: ObjectRef) -> Result<bool, StoreError> {
        let ObjectRef { store: name, region, bucket, key, pic_full_url, .. } = object;
        let bucket = Bucket { region: &region, name: &bucket };
        let Some(store) = self.stores.named(&name) else {
            return Err(StoreError::Unknown { store: name });
        };
        if !store.still_opens(bucket, &key, &pic_full_url, self.clock.wall()) {
            return Ok(false);
        }
        let ask = async {
            let _place = self.store_places.take(&name).await;
            store.exists(bucket, &key).await
        };
        let answered = tokio::time::timeout(STORE_PATIENCE, ask).await;
        answered.unwrap_or(Err(StoreError::TimedOut { host: name, waited: STORE_PATIENCE }))
    }
}
