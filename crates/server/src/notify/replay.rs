//! Sending settled deliveries again, by a person's word.

use std::sync::Arc;

use framehook_domain::field::FieldError;
use framehook_domain::id::DeliveryId;
use framehook_domain::template::CallbackUrl;
use tokio::sync::Notify;

use super::attempt::URL_PURPOSE;
use crate::audit::{Caller, Change};
use crate::clock::Clock;
use crate::db::outbox::{self, ObjectRef, OwnUrl, ReplayRefused};
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
    #[error("the database failed")]
    Db(#[from] DbError),
}

/// Takes settled deliveries up again. Whether an address may be called is judged by whoever takes the URL in, and again
/// when it is sent.
#[derive(Clone, Debug)]
pub struct Replayer {
    pub db: Db,
    pub vault: Vault,
    pub stores: Stores,
    pub clock: Clock,
    pub timeline: Timeline,
    pub notifier_wake: Arc<Notify>,
}

impl Replayer {
    /// Owes a settled delivery again: a new round of attempts with the same `webhook-id`, to `url` if one is given.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn replay(&self, by: &Caller, id: DeliveryId, url: Option<&str>) -> Result<(), ReplayError> {
        let url = url.map(|url| CallbackUrl::parse("url", url)).transpose().map_err(ReplayError::Url)?;
        let own_url = url.as_ref().map(|url| {
            let url = url.expose().as_str();
            OwnUrl { sealed: self.vault.seal(URL_PURPOSE, url), digest: self.vault.digest(URL_PURPOSE, url) }
        });
        let object_is_there = match self.db.read(move |conn| outbox::object_of(conn, id)).await? {
            Some(object) if object.is_stored => self.can_be_fetched(object).await?,
            _ => true,
        };
        let (timeline, by, vault) = (self.timeline.clone(), by.clone(), self.vault.clone());
        let replay = move |tx: &Tx<'_>| {
            let before = outbox::state_of(tx, id)?;
            let replayed = outbox::replay(tx, id, own_url.as_ref(), object_is_there, timeline.now())?;
            if replayed.is_ok() {
                let after = outbox::state_of(tx, id)?.ok_or(DbError::Damaged { what: "a delivery" })?;
                let change = Change::delivery_replayed(id, before, after, url.as_ref(), &vault);
                audit::note(tx, &by, &change, timeline.now())?;
            }
            Ok(replayed)
        };
        // Not `write_checked`: a refusal for a picture that is gone is noted with the delivery, and stays.
        self.db.write(replay).await??;
        self.notifier_wake.notify_one();
        Ok(())
    }

    /// Whether an object that was stored is still there, and whether its URL still opens it.
    async fn can_be_fetched(&self, object: ObjectRef) -> Result<bool, ReplayError> {
        let ObjectRef { store, region, bucket, key, pic_full_url, .. } = object;
        let bucket = Bucket { region: &region, name: &bucket };
        let Some(store) = self.stores.named(&store) else {
            return Err(ReplayError::Store(StoreError::Unknown { store }));
        };
        if !store.still_opens(bucket, &key, &pic_full_url, self.clock.wall()) {
            return Ok(false);
        }
        store.exists(bucket, &key).await.map_err(ReplayError::Store)
    }
}
