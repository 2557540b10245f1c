//! `/v1` for the owner of a data directory that no server runs on: the pages that need nothing but the database, answered
//! without a socket. So a command means the same whether it finds a server or not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;

use crate::clock::Clock;
use crate::config::{Config, ConfigError, Sources};
use crate::credentials::{self, Credentials, CredentialsError};
use crate::db::secret::{MASTER_KEY_ENV, Vault, VaultError};
use crate::db::{Db, DbError, DirLock, FILE_NAME, OpenError};
use crate::entropy::Entropy;
use crate::fatal::Fatal;
use crate::http::{self, Records};
use crate::key_store::KeyStore;
use crate::notify::address::AddressPolicy;
use crate::notify::resolve::Resolver;
use crate::notify::{Replayer, StorePlaces};
use crate::shutdown::Stage;
use crate::store::{Local, LocalStore, Stores, StoresError, UrlSigner};
use crate::timeline::Timeline;

/// Why a data directory could not be used without a server.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("no server has run on {} yet; is it the right --data-dir?", .0.display())]
    Unused(PathBuf),
    #[error(transparent)]
    Stores(#[from] StoresError),
    #[error("no server answers, and its data cannot be used")]
    Open(#[from] OpenError),
    #[error("there is no master key: set FRAMEHOOK_MASTER_KEY as the server has it")]
    NoMasterKey,
    #[error("there is no {}, which a server's start makes", .0.display())]
    NoCredentials(PathBuf),
    #[error("the master key cannot be used")]
    Vault(#[from] VaultError),
    #[error("the credentials cannot be used")]
    Credentials(#[from] CredentialsError),
    #[error("the stored pictures cannot be looked at")]
    Objects(#[source] io::Error),
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    #[error("the database failed")]
    Db(#[from] DbError),
    #[error("this asks for a running server, and none runs")]
    NeedsServer,
}

/// Answers one request as the control socket of a server would. Of the configuration in `sources` it reads what a replay is
/// judged by: where callbacks may go, and how objects are opened.
///
/// # Errors
/// See [`OfflineError`].
pub async fn ask(
    dir: &Path,
    sources: &Sources,
    method: Method,
    target: &str,
    body: impl Into<Body>,
) -> Result<(StatusCode, Bytes), OfflineError> {
    if !dir.join(FILE_NAME).exists() {
        return Err(OfflineError::Unused(dir.to_owned()));
    }
    let config = Config::load(sources)?;
    let (clock, entropy) = (Clock::start(), Entropy::system());
    let lock = DirLock::take(dir)?;
    // A command that looks must not make what a server would make at its first start.
    let master_key = std::env::var(MASTER_KEY_ENV).ok();
    let vault = Vault::open_known(lock.dir(), master_key.as_deref())?.ok_or(OfflineError::NoMasterKey)?;
    if !dir.join(credentials::FILE_NAME).exists() {
        return Err(OfflineError::NoCredentials(dir.join(credentials::FILE_NAME)));
    }
    let fatal = Fatal::new();
    let db = Db::open(lock, &vault, clock, fatal.clone())?;
    let files =
        LocalStore::open(&dir.join("objects"), entropy.clone(), fatal.clone()).map_err(OfflineError::Objects)?;
    let local = &config.store_local;
    let signer = local.signed_urls.then(|| UrlSigner::new(vault.clone(), local.signed_url_life));
    let replayer = Replayer {
        db: db.clone(),
        vault: vault.clone(),
        // Nothing is committed here, so no URL is made.
        stores: Stores::open(Local::new(Arc::new(files), "", signer), &config.object_stores, clock)?,
        store_places: StorePlaces::default(),
        clock,
        timeline: Timeline::new(clock),
        // The next start finds what is owed.
        replays_wake: Arc::default(),
    };
    let resolver = Arc::new(Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone())));
    let credentials = Arc::new(Credentials::open(dir, &entropy)?.0);
    let stage = Stage::new("offline", fatal);
    let keys = Arc::new(KeyStore::open(db.clone(), vault, clock, entropy, credentials, stage).await?);
    let records = Records { clock, keys, db: db.clone(), replayer, resolver };
    let pages = http::offline_pages(records).fallback(|| async { NOT_HERE });
    let request = Request::builder().method(method).uri(target).body(body.into());
    let request = request.expect("commands ask for targets of their own making");
    let Ok(response) = tower::ServiceExt::oneshot(pages, request).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await;
    db.close().await;
    if status == NOT_HERE {
        return Err(OfflineError::NeedsServer);
    }
    Ok((status, body.expect("an answer of ours is in memory")))
}

/// What no page here answers.
const NOT_HERE: StatusCode = StatusCode::NOT_IMPLEMENTED;
