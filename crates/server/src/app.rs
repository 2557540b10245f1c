//! Builds every part once and joins them; the only place that knows all of them.
//!
//! Shutdown follows the arrows from left to right: stop accepting, end sessions, finish renders, commits, puts and
//! attempts, close the database. Each step has its grace; what it gives up on, the next start finds in the database.

mod announce;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::catalog::AdmitPolicy;
use framehook_domain::dispatch::Limits as DispatchLimits;
use framehook_domain::retry::Schedule;
use framehook_rtmp::Limits;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore};

use crate::api;
use crate::catalog::{CatalogError, CatalogStore};
use crate::clock::Clock;
use crate::commit::{CommitParts, Committer};
use crate::config::{Config, Shutdown, Sources};
use crate::credentials::{Credentials, CredentialsError};
use crate::db::secret::{MASTER_KEY_ENV, Vault, VaultError};
use crate::db::snapshot::owed_files;
use crate::db::{Db, DbError, DirLock, OpenError};
use crate::entropy::Entropy;
use crate::fatal::{Fatal, FatalError};
use crate::http::{self, HttpLimits, Listener, Shared};
use crate::ingest;
use crate::ingest::rtmp::{RtmpIngest, RtmpSettings};
use crate::key_store::KeyStore;
use crate::keyframes::Keyframes;
use crate::live::{self, Lives};
use crate::notify::address::AddressPolicy;
use crate::notify::client::{Client, Limits as ClientLimits};
use crate::notify::resolve::Resolver;
use crate::notify::tls::{Tls, TlsError};
use crate::notify::{Notifier, NotifierParts, Recovered, Replayer, Replays, Schedules, StorePlaces};
use crate::pipeline::{self, Pipeline};
use crate::prune::{self, AuditLimits, LogLimits};
use crate::push_log::PushLog;
use crate::render::{RenderConfig, StartError, WorkerSet};
use crate::shutdown::Stage;
use crate::store::spool::{Spool, SpoolLimits};
use crate::store::{
    Conditions, LatestStorer, Local, LocalStore, PutSignal, Room, Storer, StorerParts, Stores, StoresError, UrlSigner,
    clear_recorded_leftovers,
};
use crate::telemetry::Telemetry;
use crate::timeline::Timeline;
use crate::tls::{self, CertificateError, Certificates, TlsServer};
use announce::{ADDRESSES, Addresses, announce, public_url};

/// How long a start waits for a command that works on the data directory. Such a command takes some 10 ms, and 100 where the
/// disk is slow; a start beside another server is refused this much later.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// For everything that ends by being told: listeners, watchers, requests for a page. Not configurable, as the two below.
const PROMPT_GRACE: Duration = Duration::from_secs(1);

/// Commits that are still under way when everything before them has ended, and the committer after them: milliseconds on
/// any disk that works.
const COMMIT_GRACE: Duration = Duration::from_secs(1);

/// Pushes that are being recorded as ended, and housekeeping.
const REST_GRACE: Duration = Duration::from_secs(2);

/// What an orderly end takes beside the configurable graces: accept and http, commits and committer, the rest.
pub(crate) const FIXED_GRACES: Duration =
    Duration::from_secs(2 * PROMPT_GRACE.as_secs() + 2 * COMMIT_GRACE.as_secs() + REST_GRACE.as_secs());

/// The end as a whole, closing the database included. SIGTERM is promised to end the process within 25 s.
const STOP_MAX: Duration = Duration::from_millis(24_500);

/// Why the server did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {addr} ({what})")]
    Listen { what: &'static str, addr: String, source: io::Error },
    #[error("cannot use {}", path.display())]
    Files { path: PathBuf, source: io::Error },
    #[error("the database cannot be opened")]
    Database(#[from] OpenError),
    #[error("the database failed at the start")]
    Db(#[from] DbError),
    #[error("the master key cannot be used")]
    Vault(#[from] VaultError),
    #[error("the credentials cannot be used")]
    Credentials(#[from] CredentialsError),
    #[error("the configured domains, templates and rules cannot be applied")]
    Catalog(#[from] CatalogError),
    #[error("the render workers do not start")]
    Render(#[from] StartError),
    #[error("the certificate of tls.cert and tls.key cannot be used")]
    Certificate(#[from] CertificateError),
    #[error("the object stores cannot be used")]
    Stores(#[from] StoresError),
    #[error("TLS for callbacks cannot be set up")]
    Tls(#[from] TlsError),
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Fatal(#[from] FatalError),
}

/// The stages, in the order in which they end.
struct Stages {
    /// Listeners and everything that only keeps time.
    accept: Stage,
    sessions: Stage,
    renders: Stage,
    commits: Stage,
    committer: Stage,
    puts: Stage,
    attempts: Stage,
    http: Stage,
    rest: Stage,
}

impl Stages {
    fn new(fatal: &Fatal) -> Self {
        let stage = |name| Stage::new(name, fatal.clone());
        Self {
            accept: stage("accept"),
            sessions: stage("sessions"),
            renders: stage("renders"),
            commits: stage("commits"),
            committer: stage("committer"),
            puts: stage("puts"),
            attempts: stage("attempts"),
            http: stage("http"),
            rest: stage("rest"),
        }
    }
}

/// The signals that the server listens to, from before its start: one that came too early would kill it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> Result<Self, ServeError> {
        let catch = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }
}

/// Runs the server until SIGTERM or SIGINT, or until it cannot go on.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(config: Config, sources: Sources) -> Result<(), ServeError> {
    raise_descriptor_limit();
    let mut signals = Signals::catch()?;
    // A start that is broken off is a kill like any other: the next one picks up what it finds.
    let server = tokio::select! {
        server = Server::start(&config) => server?,
        _ = signals.terminate.recv() => return Ok(()),
        _ = signals.interrupt.recv() => return Ok(()),
    };
    let outcome = server.run(&sources, signals).await;
    server.stop(&config).await;
    outcome
}

/// Everything that runs, as far as somebody must still hold it.
struct Server {
    stages: Stages,
    fatal: Fatal,
    db: Db,
    pipeline: Arc<Pipeline>,
    catalog: Arc<CatalogStore>,
    certificates: Option<Arc<Certificates>>,
    telemetry: Arc<Telemetry>,
    control_socket: PathBuf,
}

impl Server {
    async fn start(config: &Config) -> Result<Self, ServeError> {
        let (clock, entropy, fatal) = (Clock::start(), Entropy::system(), Fatal::new());
        let stages = Stages::new(&fatal);
        let dir = config.data_dir.as_path();

        // What is durable. The lock comes first, since the first start makes keys.
        let lock = DirLock::take_within(dir, LOCK_PATIENCE).await?;
        let master_key = std::env::var(MASTER_KEY_ENV).ok();
        let vault = Vault::open(&lock, master_key.as_deref(), &entropy)?;
        let db = Db::open(lock, &vault, clock, fatal.clone())?;
        let (credentials, credentials_are_new) = Credentials::open(dir, &entropy)?;
        let credentials = Arc::new(credentials);
        let keys = KeyStore::open(
            db.clone(),
            vault.clone(),
            clock,
            entropy.clone(),
            Arc::clone(&credentials),
            stages.rest.clone(),
        )
        .await?;
        let keys = Arc::new(keys);
        let catalog =
            Arc::new(CatalogStore::open(db.clone(), vault.clone(), clock, config, stages.rest.clone()).await?);
        let timeline = Timeline::new(clock);
        let telemetry = Telemetry::new(clock);

        // Listeners first: their addresses are part of what is announced.
        let rtmp_listener = ingest::bind(config.rtmp.addr).map_err(|source| ServeError::Listen {
            what: "rtmp.addr",
            addr: config.rtmp.addr.to_string(),
            source,
        })?;
        let http_listener = bind("http.addr", config.http.addr).await?;
        let admin_listener = match config.http.admin {
            Some(addr) => Some(bind("http.admin", addr).await?),
            None => None,
        };
        let certificates = match tls::files(config) {
            Some(files) => Some(Arc::new(Certificates::open(files)?)),
            None => None,
        };
        let (https_listener, rtmps_listener) = match certificates {
            Some(_) => {
                let rtmps = ingest::bind(config.tls.rtmps).map_err(|source| ServeError::Listen {
                    what: "tls.rtmps",
                    addr: config.tls.rtmps.to_string(),
                    source,
                })?;
                (Some(bind("tls.https", config.tls.https).await?), Some(rtmps))
            }
            None => (None, None),
        };
        let control_socket = dir.join("control.sock");
        let control_listener = Listener::control(&control_socket)
            .map_err(|source| ServeError::Files { path: control_socket.clone(), source })?;
        let local = |listener: io::Result<SocketAddr>| {
            listener.map_err(|source| ServeError::Files { path: dir.to_owned(), source })
        };
        let addresses = Addresses {
            rtmp: local(rtmp_listener.local_addr())?,
            http: local(http_listener.local_addr())?,
            admin: admin_listener.as_ref().map(|listener| local(listener.local_addr())).transpose()?,
            rtmps: rtmps_listener.as_ref().map(|listener| local(listener.local_addr())).transpose()?,
            https: https_listener.as_ref().map(|listener| local(listener.local_addr())).transpose()?,
        };

        // From commit to callback.
        let latest_signal = Arc::<PutSignal>::default();
        let replays_wake = Arc::new(Notify::new());
        let owed = db.read(owed_files).await?;
        let limits =
            SpoolLimits { bytes_max: config.spool.bytes_max.0, disk_reserve_bytes: config.spool.disk_reserve.0 };
        let spool_dir = dir.join("spool");
        let spool = Spool::open(&spool_dir, limits, &owed, fatal.clone())
            .map_err(|source| ServeError::Files { path: spool_dir, source })?;
        let spool = Arc::new(spool);
        clear_recorded_leftovers(&db, &spool, clock.wall()).await?;
        let objects_dir = dir.join("objects");
        let files = LocalStore::open(&objects_dir, entropy.clone(), fatal.clone())
            .map_err(|source| ServeError::Files { path: objects_dir, source })?;
        let files = Arc::new(files);
        let public_url = public_url(config, addresses.http);
        let signer =
            config.store_local.signed_urls.then(|| UrlSigner::new(vault.clone(), config.store_local.signed_url_life));
        let stores = Stores::open(Local::new(Arc::clone(&files), &public_url, signer), &config.object_stores, clock)?;
        let conditions = Arc::<Conditions>::default();
        let storer_parts = StorerParts {
            db: db.clone(),
            spool: Arc::clone(&spool),
            stores: stores.clone(),
            clock,
            timeline: timeline.clone(),
            entropy: entropy.clone(),
            telemetry: Arc::clone(&telemetry),
            conditions: Arc::clone(&conditions),
            signal: Arc::default(),
            slots: config.store.concurrency as usize,
            stage: stages.puts.clone(),
        };
        let latest = LatestStorer::new(StorerParts { signal: Arc::clone(&latest_signal), ..storer_parts.clone() });
        let storer = Storer::new(storer_parts);
        let committer = Committer::start(
            CommitParts {
                db: db.clone(),
                spool: Arc::clone(&spool),
                catalog: catalog.watch(),
                clock,
                timeline: timeline.clone(),
                entropy: entropy.clone(),
                zone: config.names.time_zone.clone(),
                gather_max: config.spool.gather_max,
                stores: stores.clone(),
                telemetry: Arc::clone(&telemetry),
                storer: Arc::clone(&storer),
                latest_signal,
            },
            &stages.committer,
        );
        let tls = Tls::new(None)?;
        if tls.roots() == 0 {
            tracing::warn!(
                "no certificate authority was found: callbacks to https:// receivers will fail; install ca-certificates"
            );
        }
        let resolver = Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone()));
        let client = Arc::new(Client::new(
            resolver,
            tls,
            config.deliver.proxy.clone(),
            ClientLimits::default(),
            &stages.attempts,
        ));
        let recovered = Recovered::default();
        let notifier = Notifier::new(NotifierParts {
            db: db.clone(),
            catalog: catalog.watch(),
            vault: vault.clone(),
            client,
            clock,
            entropy: entropy.clone(),
            timeline: timeline.clone(),
            telemetry: Arc::clone(&telemetry),
            recovered: recovered.clone(),
            schedules: schedules(config),
            deadline: config.deliver.timeout,
            overdue_after: config.deliver.overdue_after,
            held_max: config.deliver.held_max,
            limits: DispatchLimits {
                slots: config.deliver.concurrency as usize,
                window_max: config.deliver.per_endpoint as usize,
                breaker_failures: config.deliver.breaker_failures,
                pause_max: schedules(config).pause_max(),
            },
        });

        // From the publisher to commit.
        let workers = WorkerSet::start(&RenderConfig {
            workers: match config.render.workers {
                0 => RenderConfig::new().workers,
                workers => workers as usize,
            },
            executable: config.render.executable.clone(),
            jail_required: !config.render.unsafe_no_jail,
        })
        .await?;
        let keyframes = Arc::new(Keyframes::new(config.ingest.keyframe_bytes_max.0));
        let pipeline = Pipeline::new(pipeline::Parts {
            clock,
            entropy: entropy.clone(),
            telemetry: Arc::clone(&telemetry),
            keyframes: Arc::clone(&keyframes),
            room: Room::new(Arc::clone(&spool), stores.clone(), Arc::clone(&conditions)),
            committer,
            render_deadline: config.render.deadline,
            commit_stage: stages.commits.clone(),
        });
        let log = PushLog {
            db: db.clone(),
            catalog: catalog.watch(),
            clock,
            timeline: timeline.clone(),
            entropy: entropy.clone(),
            app_id: config.app_id,
        };
        let open = log.open_pushes().await?;
        let lives = Lives::new(live::Parts {
            clock,
            pipeline: Arc::clone(&pipeline),
            telemetry: Arc::clone(&telemetry),
            catalog: catalog.watch(),
            log,
            entropy: entropy.clone(),
            keyframes: Arc::clone(&keyframes),
            policy: AdmitPolicy { default_domain: config.ingest.default_domain.clone() },
            grace: config.ingest.reconnect_grace,
            closings: stages.rest.clone(),
        });
        lives.restore(open);
        let rtmp = RtmpIngest::new(
            Arc::clone(&lives),
            entropy.clone(),
            RtmpSettings {
                limits: Limits::default(),
                handshake_timeout: config.ingest.handshake_timeout,
                idle_timeout: config.ingest.idle_timeout,
                read_interval: config.ingest.read_interval,
                connections_max: config.ingest.connections_max as usize,
                connections_per_address_max: config.ingest.connections_per_address_max as usize,
            },
        );

        // The pages.
        let api = api::page(api::Parts {
            clock,
            entropy: entropy.clone(),
            db: db.clone(),
            catalog: Arc::clone(&catalog),
            lives: Arc::clone(&lives),
            credentials: Arc::clone(&credentials),
            telemetry: Arc::clone(&telemetry),
            request_timeout: config.http.request_timeout,
            accept_porn_flag: config.accept_porn_flag,
        });
        let shared = Arc::new(Shared {
            clock,
            entropy: entropy.clone(),
            telemetry: Arc::clone(&telemetry),
            lives: Arc::clone(&lives),
            pipeline: Arc::clone(&pipeline),
            rtmp: Arc::clone(&rtmp),
            keyframes,
            workers: workers.health,
            jail_required: !config.render.unsafe_no_jail,
            db: db.clone(),
            spool: Arc::clone(&spool),
            spool_bytes_max: config.spool.bytes_max,
            disk_reserve: config.spool.disk_reserve,
            stores: stores.clone(),
            storer: Arc::clone(&storer),
            catalog: catalog.watch(),
            configuration: Arc::clone(&catalog),
            resolver: Arc::new(Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone()))),
            replayer: Replayer {
                db: db.clone(),
                vault,
                stores,
                store_places: StorePlaces::default(),
                clock,
                timeline: timeline.clone(),
                replays_wake,
            },
            notifier: Arc::clone(&notifier),
            credentials,
            keys: Arc::clone(&keys),
            event_streams: Arc::new(Semaphore::new(config.http.event_streams_max as usize)),
            event_keep_alive: config.http.event_keep_alive,
            certificates: certificates.clone(),
        });

        // Everything is there: let it run, from right to left, so that nothing is handed to a part that does not.
        stages.attempts.spawn_vital("notifier", Arc::clone(&notifier).run(stages.attempts.clone()));
        let replays = Replays { replayer: shared.replayer.clone(), catalog: catalog.watch(), recovered };
        stages.attempts.spawn_vital("replays", replays.run(stages.attempts.token()));
        stages.puts.spawn_vital("storer", Arc::clone(&storer).run());
        stages.puts.spawn_vital("latest storer", latest.run(storer.prepared()));
        for worker in workers.workers {
            stages.renders.spawn_vital("render worker", Arc::clone(&pipeline).drive(worker));
        }
        let rest = &stages.rest;
        let log_limits = LogLimits { age_max: config.deliver.log_retention, bytes_max: config.deliver.log_bytes_max.0 };
        let audit_limits = AuditLimits { age_max: config.audit.retention, bytes_max: config.audit.bytes_max.0 };
        rest.spawn_vital("prune", prune::run(db.clone(), files, clock, log_limits, audit_limits, rest.token()));
        rest.spawn_vital("wall clock", Arc::clone(&catalog).follow_wall_clock(rest.token()));
        rest.spawn_vital("key uses", keys.note_uses(rest.token()));
        rest.spawn_vital("timeline", timeline.follow(db.clone(), rest.token()));
        rest.spawn_vital("disk watch", {
            let (spool, token) = (Arc::clone(&spool), rest.token());
            async move { spool.watch_disk(token).await }
        });
        let accept = &stages.accept;
        accept.spawn_vital("grace watch", Arc::clone(&lives).watch_grace(accept.token()));
        accept.spawn_vital("catalog watch", Arc::clone(&lives).watch_catalog(accept.token()));
        accept.spawn_vital("skips", Arc::clone(&lives).tell_skips(accept.token()));
        accept.spawn_vital("push progress", Arc::clone(&lives).save_progress(accept.token()));
        let http_limits = HttpLimits {
            request_timeout: config.http.request_timeout,
            body_bytes_max: config.http.body_bytes_max.0 as usize,
            connections_max: config.http.connections_max as usize,
            connections_per_address_max: config.http.connections_per_address_max as usize,
        };
        let tls_server = |listener, certificates: &Arc<Certificates>, protocols, timeout| {
            Arc::new(TlsServer::new(listener, Arc::clone(certificates), protocols, timeout, Arc::clone(&telemetry)))
        };
        let mut pages = http::public_pages(&shared, http_limits).merge(api);
        let mut listeners = vec![(control_listener, http::control_pages(&shared, http_limits))];
        match admin_listener {
            Some(listener) => listeners.push((Listener::Tcp(listener), http::operator_pages(&shared))),
            None => pages = pages.merge(http::operator_pages(&shared)),
        }
        if let (Some(listener), Some(certificates)) = (https_listener, &certificates) {
            let tls = tls_server("https", certificates, &["http/1.1"], http::HEAD_TIMEOUT);
            listeners.push((Listener::Tls(listener, tls), pages.clone()));
        }
        listeners.push((Listener::Tcp(http_listener), pages));
        for (listener, pages) in listeners {
            let (shared, stage) = (Arc::clone(&shared), stages.http.clone());
            stages
                .http
                .spawn_vital("http", http::serve(listener, pages, shared, http_limits, stage.clone(), stage.token()));
        }
        let mut publishers = vec![("rtmp", rtmp_listener, None)];
        if let (Some(listener), Some(certificates)) = (rtmps_listener, &certificates) {
            let tls = tls_server("rtmps", certificates, &[], config.ingest.handshake_timeout);
            publishers.push(("rtmps", listener, Some(tls)));
            let watch = Arc::clone(certificates).watch(Arc::clone(&telemetry), accept.token());
            accept.spawn_vital("certificate watch", watch);
        }
        for (name, listener, tls) in publishers {
            let (sessions, stop, rtmp) = (stages.sessions.clone(), stages.sessions.token(), Arc::clone(&rtmp));
            let serve = move |stream, peer| Arc::clone(&rtmp).serve(stream, peer, tls.clone(), stop.clone());
            accept.spawn_vital(name, ingest::accept(listener, sessions, accept.token(), Arc::clone(&telemetry), serve));
        }

        addresses.write(dir).map_err(|source| ServeError::Files { path: dir.join(ADDRESSES), source })?;
        announce(config, &addresses, &public_url, &shared.credentials, credentials_are_new);
        Ok(Self { stages, fatal, db, pipeline, catalog, certificates, telemetry, control_socket })
    }

    /// Waits for the end, reading the configuration again at each SIGHUP.
    async fn run(&self, sources: &Sources, mut signals: Signals) -> Result<(), ServeError> {
        // A reload may wait for a resolver; neither an end nor a fatal error waits for the reload.
        tokio::select! {
            _ = signals.terminate.recv() => Ok(()),
            _ = signals.interrupt.recv() => Ok(()),
            error = self.fatal.wait() => Err(error.into()),
            never = self.reload_at_each(&mut signals.hangup, sources) => match never {},
        }
    }

    async fn reload_at_each(&self, hangup: &mut Signal, sources: &Sources) -> Infallible {
        loop {
            hangup.recv().await;
            if let Some(certificates) = &self.certificates {
                certificates.reload(&self.telemetry);
            }
            self.catalog.reload(sources, &self.telemetry).await;
        }
    }

    /// Ends in order and in bounded time. After a fatal error nothing is worth waiting for: no outcome could be written down.
    async fn stop(&self, config: &Config) {
        if self.fatal.is_raised() {
            return;
        }
        tracing::info!("stopping");
        match tokio::time::timeout(STOP_MAX, self.stop_in_order(&config.shutdown)).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped in the middle of something; the next start picks it up"),
        }
        // The next start would remove it too; until then its absence says that nobody listens.
        let _ = fs::remove_file(&self.control_socket);
    }

    async fn stop_in_order(&self, graces: &Shutdown) {
        let Stages { accept, sessions, renders, commits, committer, puts, attempts, http, rest } = &self.stages;
        accept.end(PROMPT_GRACE).await;
        sessions.end(graces.sessions).await;
        self.pipeline.close();
        renders.end(graces.renders).await;
        commits.end(COMMIT_GRACE).await;
        committer.end(COMMIT_GRACE).await;
        puts.end(graces.puts).await;
        attempts.end(graces.attempts).await;
        http.end(PROMPT_GRACE).await;
        rest.end(REST_GRACE).await;
        self.db.close().await;
    }
}

async fn bind(what: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr).await.map_err(|source| ServeError::Listen { what, addr: addr.to_string(), source })
}

fn schedules(config: &Config) -> Schedules {
    let deliver = &config.deliver;
    Schedules {
        snapshot: Schedule { retries: deliver.snapshot_retries, step: deliver.snapshot_retry_interval },
        push: Schedule { retries: deliver.push_retries, step: deliver.push_retry_interval },
    }
}

/// A live stream is a descriptor, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
