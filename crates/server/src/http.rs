//! HTTP: the operator's pages, `/v1`, and the stored objects of the local store.
//!
//! Over TCP `/v1` always needs credentials; over the control socket, which only its owner can open, it needs none. The
//! routes are the same, so whatever a command can do a program can do.

mod audit;
mod auth;
mod callback_templates;
mod deliveries;
mod docs;
mod domains;
mod endpoints;
mod events;
mod json;
mod keys;
mod objects;
mod on_demand;
mod once;
mod openapi;
mod operator;
mod page;
mod parameter;
mod patience;
mod problem;
mod replays;
mod resource;
mod route;
mod rules;
mod screenshot_tasks;
mod snapshot_templates;
mod snapshots;
mod stores;
mod streams;
mod v1;
mod version;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRef, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use framehook_domain::catalog::Catalog;
use framehook_domain::id::uuid_v7;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::Caller;
use crate::catalog::CatalogStore;
use crate::clock::Clock;
use crate::config::ByteSize;
use crate::credentials::Credentials;
use crate::db::Db;
use crate::durable::remove_if_there;
use crate::entropy::Entropy;
use crate::ingest::rtmp::RtmpIngest;
use crate::key_store::KeyStore;
use crate::keyframes::Keyframes;
use crate::live::Lives;
use crate::notify::resolve::Resolver;
use crate::notify::{Notifier, Replayer};
use crate::pipeline::Pipeline;
use crate::places::Places;
use crate::render::PoolHealth;
use crate::shutdown::Stage;
use crate::store::spool::Spool;
use crate::store::{Storer, Stores};
use crate::telemetry::Telemetry;
use crate::telemetry::event::ConnectionRefused;
use crate::tls::{Certificates, TlsServer};
use patience::Patient;
use problem::Problem;

/// The header that names a request in a user's report, and in our log where it was not granted (level `debug`).
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Time for a request's head to arrive, and before it for a TLS handshake; bodies have the whole request's.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which a peer must take at least some of an answer.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Wait after a connection that could not be accepted: most often for want of descriptors, which come back one by one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages look at. Nothing in here is made for them.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) lives: Arc<Lives>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) rtmp: Arc<RtmpIngest>,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) workers: PoolHealth,
    pub(crate) jail_required: bool,
    pub(crate) db: Db,
    pub(crate) spool: Arc<Spool>,
    pub(crate) spool_bytes_max: ByteSize,
    pub(crate) disk_reserve: ByteSize,
    pub(crate) stores: Stores,
    pub(crate) storer: Arc<Storer>,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    /// Changes what `catalog` shows.
    pub(crate) configuration: Arc<CatalogStore>,
    pub(crate) replayer: Replayer,
    pub(crate) notifier: Arc<Notifier>,
    /// Judges the URLs that requests bring.
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) keys: Arc<KeyStore>,
    /// Places for those who listen to `/v1/events`.
    pub(crate) event_streams: Arc<Semaphore>,
    pub(crate) event_keep_alive: Duration,
    /// `None`: no certificate is configured.
    pub(crate) certificates: Option<Arc<Certificates>>,
}

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpLimits {
    pub(crate) request_timeout: Duration,
    pub(crate) body_bytes_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
}

/// Whom a request comes from; an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Says that nobody on the way could read or change the request; an extension of those over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls;

/// Tells answers that go on for ever when to end; an extension of each request.
#[derive(Clone, Debug)]
pub(crate) struct Ending(pub(crate) CancellationToken);

/// What the answer names the request by; an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId(pub(crate) Uuid);

/// `/metrics`, `/healthz` and `/readyz`.
pub(crate) fn operator_pages(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(operator::metrics))
        .route("/healthz", get(operator::healthz))
        .route("/readyz", get(operator::readyz))
        .with_state(Arc::clone(shared))
}

/// The stored objects, and `/v1` behind a login.
pub(crate) fn public_pages(shared: &Arc<Shared>, limits: HttpLimits) -> Router {
    let objects = Router::new().route("/objects/{bucket}/{*key}", get(objects::get)).with_state(Arc::clone(shared));
    let login = axum::middleware::from_fn_with_state(Arc::clone(shared), auth::require_login);
    v1::router(shared).layer(login).merge(objects).layer(DefaultBodyLimit::max(limits.body_bytes_max))
}

/// `/v1` as it is on the control socket: no login, since only the owner can open it.
pub(crate) fn control_pages(shared: &Arc<Shared>, limits: HttpLimits) -> Router {
    v1::router(shared)
        .layer(Extension(Caller::Control))
        .merge(operator_pages(shared))
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
}

/// What the pages need that look at nothing but the data directory.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) clock: Clock,
    pub(crate) keys: Arc<KeyStore>,
    pub(crate) db: Db,
    pub(crate) replayer: Replayer,
    pub(crate) resolver: Arc<Resolver>,
}

impl FromRef<Arc<Shared>> for Records {
    fn from_ref(shared: &Arc<Shared>) -> Self {
        Self {
            clock: shared.clock,
            keys: Arc::clone(&shared.keys),
            db: shared.db.clone(),
            replayer: shared.replayer.clone(),
            resolver: Arc::clone(&shared.resolver),
        }
    }
}

/// These pages alone, for the owner of a data directory that no server runs on.
pub(crate) fn offline_pages(records: Records) -> Router {
    let pages = keys::pages().merge(audit::pages()).merge(deliveries::pages()).merge(replays::pages());
    pages.layer(Extension(Caller::Control)).with_state(records)
}

/// Where connections come from.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Arc<TlsServer>),
    /// The control socket.
    Unix(UnixListener),
}

impl Listener {
    /// Binds the control socket, readable and writable by its owner only.
    pub(crate) fn control(path: &Path) -> io::Result<Self> {
        // Left behind by a process that was killed; the lock on the data directory says that none runs now.
        remove_if_there(path)?;
        // Bound under another name and shown under its own when only its owner can open it: in a data directory that a
        // person made, others may look at what is in it.
        let unfinished = path.with_extension("sock.partial");
        remove_if_there(&unfinished)?;
        let listener = UnixListener::bind(&unfinished)?;
        std::fs::set_permissions(&unfinished, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::fs::rename(&unfinished, path)?;
        Ok(Self::Unix(listener))
    }

    fn tls(&self) -> Option<Arc<TlsServer>> {
        match self {
            Self::Tls(_, tls) => Some(Arc::clone(tls)),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<(Connection, SocketAddr)> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Either::Left(stream), SocketAddr::new(peer.ip().to_canonical(), peer.port())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            }
        }
    }
}

type Connection = Either<tokio::net::TcpStream, tokio::net::UnixStream>;

/// Serves `pages` until `token` ends it; connections under way finish their request.
pub(crate) async fn serve(
    listener: Listener,
    pages: Router,
    shared: Arc<Shared>,
    limits: HttpLimits,
    stage: Stage,
    token: CancellationToken,
) {
    let pages = pages.fallback(|| async { Problem::not_found("there is no such page") }).method_not_allowed_fallback(
        || async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this page does not take this method") },
    );
    let waiting = Arc::new(Semaphore::new(limits.connections_max));
    let places = Places::new(usize::MAX, limits.connections_per_address_max);
    loop {
        let next = async {
            let turn = Arc::clone(&waiting).acquire_owned().await.expect("the semaphore is never closed");
            (turn, listener.accept().await)
        };
        let (turn, accepted) = tokio::select! {
            () = token.cancelled() => return,
            next = next => next,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = shared.telemetry.admit("http", "accept") {
                    tracing::warn!(%error, left_out, "an HTTP connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match listener {
            // Whoever can open it could as well end the server.
            Listener::Unix(_) => None,
            Listener::Tcp(_) | Listener::Tls(..) => match places.take(peer.ip()) {
                Some(place) => Some(place),
                None => {
                    ConnectionRefused { peer }.emit(&shared.telemetry);
                    continue;
                }
            },
        };
        let (pages, shared, token) = (pages.clone(), Arc::clone(&shared), token.clone());
        let timeout = limits.request_timeout;
        let tls = listener.tls();
        stage.spawn(async move {
            let (stream, is_private) = match (stream, tls) {
                (Either::Left(stream), Some(tls)) => tokio::select! {
                    () = token.cancelled() => return,
                    accepted = tls.accept(stream, peer) => match accepted {
                        Some(private) => (Either::Left(private), true),
                        None => return,
                    },
                },
                (stream, _) => (Either::Right(stream), false),
            };
            let ending = Ending(token.clone());
            let service = tower_service(move |mut request: Request| {
                request.extensions_mut().insert(ending.clone());
                if is_private {
                    request.extensions_mut().insert(OverTls);
                }
                answer(pages.clone(), request, peer, Arc::clone(&shared), timeout)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(Patient::new(stream, READ_PATIENCE)), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = token.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "an HTTP connection broke");
            }
            drop((place, turn));
        });
    }
}

/// A function as hyper's service.
fn tower_service<F, A>(
    answer: F,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = Response,
    Error = std::convert::Infallible,
    Future: Send,
>
where
    F: Fn(Request) -> A + Clone + Send + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answered = answer(request.map(Body::new));
        async move { Ok(answered.await) }
    })
}

/// Answers one request within its time, with its id in the answer.
async fn answer(
    pages: Router,
    mut request: Request,
    peer: SocketAddr,
    shared: Arc<Shared>,
    timeout: Duration,
) -> Response {
    let id = uuid_v7(shared.clock.wall(), shared.entropy.id_bytes());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(Peer(peer));
    request.extensions_mut().insert(RequestId(id));
    let answered = tokio::time::timeout(timeout, tower::ServiceExt::oneshot(pages, request)).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the request took too long").into_response(),
    };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        tracing::debug!(request = %id, %peer, %method, ?path, status = status.as_u16(), "a request was not granted");
    }
    let id = HeaderValue::try_from(id.to_string()).expect("a UUID is a header value");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
