//! Adding and revoking keys of the API, and noting when each was last used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::field::FieldError;
use framehook_domain::time::UnixMs;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::audit::{Caller, Change};
use crate::clock::Clock;
use crate::credentials::{AccessKey, Credentials, FIRST_NAME, new_pair};
use crate::db::access_key::{self as table, StoredKey};
use crate::db::secret::Vault;
use crate::db::{Db, DbError, Tx, audit};
use crate::entropy::Entropy;
use crate::shutdown::Stage;
use crate::telemetry::event::Chain;

/// Most keys beside the one in `DIR/credentials`. Each request's key is compared with all of them.
pub const KEYS_MAX: usize = 100;

/// Longest name, in characters: a line of a table.
const NAME_CHARS_MAX: usize = 64;

/// How often uses are noted. Not at each request, since each note is a sync of the disk; after a crash "last used" may be
/// this much too early.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// Why a key was not added or revoked. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Name(#[from] FieldError),
    #[error("there is a key of this name already")]
    NameTaken,
    #[error("there cannot be more than {KEYS_MAX} keys; revoke one")]
    TooMany,
    #[error("there is no such key")]
    Unknown,
    #[error("this is the key in DIR/credentials; to replace it, remove that file and start again")]
    First,
    #[error("the database failed")]
    Db(#[from] DbError),
}

/// The keys, stored and in force.
#[derive(Debug)]
pub struct KeyStore {
    db: Db,
    vault: Vault,
    clock: Clock,
    entropy: Entropy,
    credentials: Arc<Credentials>,
    /// Where a change that has begun goes on although its asker has hung up.
    stage: Stage,
    /// Held from the write of a change until it is in force, so that changes come into force in the order of their writes.
    changing: Arc<Mutex<()>>,
}

impl KeyStore {
    /// Puts the stored keys in force.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open(
        db: Db,
        vault: Vault,
        clock: Clock,
        entropy: Entropy,
        credentials: Arc<Credentials>,
        stage: Stage,
    ) -> Result<Self, DbError> {
        let key = vault.clone();
        let (keys, uses) = db.read(move |conn| Ok((table::list(conn, &key)?, table::uses(conn)?))).await?;
        for StoredKey { id, name, read_only, secret, created } in keys {
            credentials.put_in_force(Arc::new(AccessKey::new(id, name, read_only, Some(created), secret)));
        }
        for (id, used) in uses {
            if let Some(key) = credentials.key_of(&id) {
                key.note_use(used);
            }
        }
        Ok(Self { db, vault, clock, entropy, credentials, stage, changing: Arc::default() })
    }

    /// Every key in force, the one in `DIR/credentials` first.
    pub fn list(&self) -> Vec<Arc<AccessKey>> {
        self.credentials.all()
    }

    /// Makes a key. It is in force when this returns.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn add(&self, by: &Caller, name: &str, read_only: bool) -> Result<Arc<AccessKey>, KeyError> {
        let is_long = name.chars().count() > NAME_CHARS_MAX;
        if name.is_empty() || is_long || name.trim() != name || name.contains(char::is_control) {
            let allowed = "1 to 64 characters without control characters, and without spaces around them";
            return Err(FieldError::new("name", name, allowed).into());
        }
        let (id, secret) = new_pair(&self.entropy);
        let created = self.clock.wall();
        let key = StoredKey { id, name: name.to_owned(), read_only, secret, created };
        let (stored, vault, by) = (key.clone(), self.vault.clone(), by.clone());
        let add = move |tx: &Tx<'_>| {
            let (keys, is_taken) = table::count(tx, &stored.name)?;
            if is_taken || stored.name == FIRST_NAME {
                return Ok(Err(KeyError::NameTaken));
            }
            if keys >= KEYS_MAX {
                return Ok(Err(KeyError::TooMany));
            }
            table::insert(tx, &vault, &stored)?;
            audit::note(tx, &by, &Change::key_added(&stored.id, &stored.name, read_only), created)?;
            Ok(Ok(()))
        };
        let (db, credentials, changing) = (self.db.clone(), Arc::clone(&self.credentials), Arc::clone(&self.changing));
        let work = async move {
            let _changing = changing.lock().await;
            db.write_checked(add).await??;
            let StoredKey { id, name, secret, .. } = key;
            let key = Arc::new(AccessKey::new(id, name, read_only, Some(created), secret));
            credentials.put_in_force(Arc::clone(&key));
            Ok(key)
        };
        self.stage.finish(work).await.unwrap_or(Err(DbError::Stopped.into()))
    }

    /// Takes a key out of force: the next request with it is refused, on connections that are open too.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn revoke(&self, by: &Caller, id: &str) -> Result<(), KeyError> {
        if id == self.credentials.first().id {
            return Err(KeyError::First);
        }
        let (by, now, removed) = (by.clone(), self.clock.wall(), id.to_owned());
        let revoke = move |tx: &Tx<'_>| {
            let Some((name, read_only)) = table::remove(tx, &removed)? else { return Ok(Err(KeyError::Unknown)) };
            audit::note(tx, &by, &Change::key_revoked(&removed, &name, read_only), now)?;
            Ok(Ok(()))
        };
        let (db, credentials, id) = (self.db.clone(), Arc::clone(&self.credentials), id.to_owned());
        let changing = Arc::clone(&self.changing);
        let work = async move {
            let _changing = changing.lock().await;
            db.write_checked(revoke).await??;
            credentials.put_out_of_force(&id);
            Ok(())
        };
        self.stage.finish(work).await.unwrap_or(Err(DbError::Stopped.into()))
    }

    /// Notes when keys were last used, once a minute and when `token` ends it.
    pub async fn note_uses(self: Arc<Self>, token: CancellationToken) {
        let mut noted: HashMap<String, UnixMs> = self.used().into_iter().collect();
        loop {
            let ends = tokio::select! {
                () = token.cancelled() => true,
                () = tokio::time::sleep(NOTED_EVERY) => false,
            };
            let used = self.used();
            let news: Vec<_> = used.iter().filter(|(id, at)| noted.get(id) != Some(at)).cloned().collect();
            if !news.is_empty() {
                match self.db.write(move |tx| table::note_uses(tx, &news)).await {
                    Ok(()) => noted = used.into_iter().collect(),
                    Err(DbError::Stopped) => return,
                    Err(error) => tracing::warn!(error = %Chain(&error), "the use of keys could not be noted"),
                }
            }
            if ends {
                return;
            }
        }
    }

    fn used(&self) -> Vec<(String, UnixMs)> {
        self.credentials.all().iter().filter_map(|key| Some((key.id.clone(), key.last_used()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::DirLock;
    use crate::fatal::Fatal;

    async fn open(dir: &std::path::Path) -> (KeyStore, Db) {
        let (clock, entropy) = (Clock::start(), Entropy::system());
        let lock = DirLock::take(dir).unwrap();
        let vault = Vault::open(&lock, None, &entropy).unwrap();
        let db = Db::open(lock, &vault, clock, Fatal::new()).unwrap();
        let credentials = Arc::new(Credentials::open(dir, &entropy).unwrap().0);
        let stage = Stage::new("keys", Fatal::new());
        (KeyStore::open(db.clone(), vault, clock, entropy, credentials, stage).await.unwrap(), db)
    }

    #[tokio::test]
    async fn keys_come_back_as_they_were_and_are_not_without_number() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, db) = open(dir.path()).await;
        let first = keys.add(&Caller::Control, "key 1", true).await.unwrap();
        for number in 2..=KEYS_MAX {
            keys.add(&Caller::Control, &format!("key {number}"), false).await.unwrap();
        }
        assert!(matches!(keys.add(&Caller::Control, "one more", false).await, Err(KeyError::TooMany)));
        assert!(matches!(keys.add(&Caller::Control, "key 1", false).await, Err(KeyError::NameTaken)));
        db.close().await;
        drop((keys, db));

        let (keys, db) = open(dir.path()).await;
        let known = keys.list();
        assert_eq!(known.len(), 1 + KEYS_MAX);
        let again = known.iter().find(|key| key.id == first.id).unwrap();
        assert_eq!(
            (&again.name, again.read_only, again.created, again.secret()),
            (&first.name, true, first.created, first.secret())
        );
        keys.revoke(&Caller::Control, &first.id).await.unwrap();
        assert!(matches!(keys.revoke(&Caller::Control, &first.id).await, Err(KeyError::Unknown)));
        keys.add(&Caller::Control, "key 1", false).await.expect("the name is free again");
        db.close().await;
    }

    #[tokio::test]
    async fn a_use_is_noted_at_the_latest_when_the_server_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, db) = open(dir.path()).await;
        let keys = Arc::new(keys);
        let key = keys.add(&Caller::Control, "ci", false).await.unwrap();
        let token = CancellationToken::new();
        let used = async {
            key.note_use(UnixMs(5));
            token.cancel();
        };
        tokio::join!(Arc::clone(&keys).note_uses(token.clone()), used);
        let noted = db.read(table::uses).await.unwrap();
        assert_eq!(noted, [(key.id.clone(), UnixMs(5))]);
        db.close().await;
    }
}
