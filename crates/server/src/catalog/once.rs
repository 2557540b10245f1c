//! Changes that are answered with what they made, and made at most once however often they are asked for.

use std::time::Duration;

use framehook_domain::catalog::{ChangeRefused, Inventory, Step};
use framehook_domain::id::TemplateId;

use super::{Caller, CatalogEditor, CatalogStore, ChangeError, Changed, UnfitParts, carry_out, publish, with_store};
use crate::db::idempotency::{self, Answer, Answered};
use crate::db::{DbError, Tx};

/// How long a key is remembered: a program that was away for a night still learns what became of its request.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What makes a request recognisable when it comes again.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    key: String,
    request: [u8; 32],
}

/// Why a change was not made. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OnceError {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("another request was made under this key")]
    KeyReused,
    #[error("no more keys can be remembered within a day")]
    TooManyKeys,
}

impl From<DbError> for OnceError {
    fn from(error: DbError) -> Self {
        Self::Change(error.into())
    }
}

impl From<UnfitParts> for OnceError {
    fn from(error: UnfitParts) -> Self {
        Self::Change(error.into())
    }
}

impl Once {
    fn recognise(&self, before: Answered) -> Result<Answer, OnceError> {
        if before.request == self.request { Ok(before.answer) } else { Err(OnceError::KeyReused) }
    }
}

/// What is known of a request that is to be carried out.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing: it is remembered now, and is to be carried out.
    Now,
    /// It was carried out.
    Answered(Answer),
    /// It was begun, and has no answer.
    Unanswered,
}

/// What is remembered of a request before it is answered.
const UNANSWERED: Answer = Answer { status: 0, location: String::new(), etag: String::new(), body: String::new() };

impl Once {
    /// Each sender has names of its own. No SecretId holds a space.
    fn of(&self, caller: &Caller) -> Self {
        Self { key: format!("{} {}", caller.who(), self.key), request: self.request }
    }
}

impl CatalogStore {
    /// Remembers a request that is not one for a change of the catalog, before it is carried out.
    ///
    /// # Errors
    /// See [`OnceError`]; it is not to be carried out then.
    pub(crate) async fn begin(&self, caller: &Caller, once: &Once) -> Result<Begun, OnceError> {
        let (vault, now, once) = (self.vault.clone(), self.clock.wall(), once.of(caller));
        let since = now.minus(REMEMBERED);
        let begin = move |tx: &Tx<'_>| {
            if let Some(before) = idempotency::find(tx, &vault, &once.key, since)? {
                return Ok(once.recognise(before).map(|answer| match answer.status {
                    0 => Begun::Unanswered,
                    _ => Begun::Answered(answer),
                }));
            }
            let unanswered = Answered { request: once.request, answer: UNANSWERED };
            let has_room = idempotency::remember(tx, &vault, &once.key, &unanswered, now, since)?;
            Ok(if has_room { Ok(Begun::Now) } else { Err(OnceError::TooManyKeys) })
        };
        self.db.write_checked(begin).await?
    }

    /// Remembers how such a request was answered, or forgets it if it did nothing.
    ///
    /// # Errors
    /// Those of the database; nobody knows any more how it was answered then.
    pub(crate) async fn end(&self, caller: &Caller, once: &Once, answer: Option<Answer>) -> Result<(), DbError> {
        let (vault, once) = (self.vault.clone(), once.of(caller));
        let end = move |tx: &Tx<'_>| match &answer {
            Some(answer) => idempotency::answer(tx, &vault, &once.key, answer),
            None => idempotency::forget(tx, &once.key),
        };
        self.db.write(end).await
    }

    /// Runs `work` to its end, also if this future is dropped half-way.
    pub(crate) async fn finish<T, E>(&self, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        self.stage.finish(work).await.unwrap_or_else(|| Err(DbError::Stopped.into()))
    }

    /// `request` is everything by which two requests differ. Only a keyed digest of it is kept.
    pub(crate) fn once(&self, key: String, request: &str) -> Once {
        Once { key, request: self.vault.digest("request", request) }
    }
}

impl CatalogEditor<'_> {
    /// Makes the change that `decide` decides on, publishes it, and gives what `answer` makes of everything as it then is and
    /// of the number of the template that was added. With `once`, a request that was answered before gets the same answer
    /// and changes nothing. The URLs of a callback template are judged first.
    ///
    /// # Errors
    /// See [`OnceError`].
    pub(crate) async fn change_once<D, A>(&self, once: Option<Once>, decide: D, answer: A) -> Result<Answer, OnceError>
    where
        D: Fn(&Inventory) -> Result<Step, ChangeRefused> + Send + 'static,
        A: FnOnce(&Inventory, Option<TemplateId>) -> Answer + Send + 'static,
    {
        let stores = self.running.object_stores.clone();
        let decide = move |inventory: &Inventory| decide(inventory).and_then(|step| with_store(&stores, step));
        let (vault, now, caller) = (self.vault.clone(), self.clock.wall(), self.caller.clone());
        let since = now.minus(REMEMBERED);
        let once = once.map(|once| once.of(&caller));
        if let Some(once) = once.clone() {
            let (key, vault) = (once.key.clone(), vault.clone());
            if let Some(before) = self.db.read(move |conn| idempotency::find(conn, &vault, &key, since)).await? {
                return once.recognise(before);
            }
        }
        if let Step::AddCallbackTemplate(template) | Step::ChangeCallbackTemplate(template) =
            decide(&self.inventory().await?).map_err(ChangeError::from)?
        {
            self.check_receivers(&template).await?;
        }
        let change = move |tx: &Tx<'_>| {
            if let Some(once) = &once
                && let Some(before) = idempotency::find(tx, &vault, &once.key, since)?
            {
                return Ok(once.recognise(before).map(|answer| (answer, None)));
            }
            let changed = match carry_out(tx, &vault, now, &caller, decide)? {
                Ok(changed) => changed,
                Err(refused) => return Ok(Err(ChangeError::from(refused).into())),
            };
            let Changed { stored, added, is_new } = changed;
            let answer = answer(&stored, added);
            if let Some(Once { key, request }) = once {
                let answered = Answered { request, answer: answer.clone() };
                if !idempotency::remember(tx, &vault, &key, &answered, now, since)? {
                    return Ok(Err(OnceError::TooManyKeys));
                }
            }
            Ok(Ok((answer, is_new.then_some(stored))))
        };
        let (db, published, built_in) = (self.db.clone(), self.published.clone(), self.built_in_store.clone());
        let work = async move {
            let (answer, stored) = db.write_checked(change).await??;
            if let Some(stored) = stored {
                publish(&published, stored.into_catalog(built_in)?);
            }
            Ok(answer)
        };
        self.stage.finish(work).await.unwrap_or(Err(DbError::Stopped.into()))
    }
}
