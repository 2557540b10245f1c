//! A data directory and the processes that run on it, one after another.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use framehook_domain::callback::EventKind;
use framehook_domain::catalog::{Catalog, CatalogParts, Domain};
use framehook_domain::dispatch::Limits;
use framehook_domain::id::{DeliveryId, PushSequence, RuleId, SnapshotId, TemplateId, uuid_v7};
use framehook_domain::pick::Subscriber;
use framehook_domain::retry::Schedule;
use framehook_domain::rule::{CallbackRule, RuleScope};
use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName, StreamParam};
use framehook_domain::template::{
    CallbackTemplate, CallbackTemplateDraft, CallbackUrls, SigningDraft, SnapshotTemplate, SnapshotTemplateDraft,
};
use framehook_domain::time::{NameZone, UnixMs};
use framehook_server::clock::Clock;
use framehook_server::commit::{CommitParts, Committer, Rendered, RenderedRendition, Taken};
use framehook_server::config::{Config, Sources};
use framehook_server::db::outbox::{self, DeliveryDetail, DeliveryRow, Filter, State};
use framehook_server::db::secret::Vault;
use framehook_server::db::snapshot::owed_files;
use framehook_server::db::{Db, DirLock, OpenError};
use framehook_server::entropy::Entropy;
use framehook_server::fatal::Fatal;
use framehook_server::notify::address::AddressPolicy;
use framehook_server::notify::client::{Client, Limits as ClientLimits};
use framehook_server::notify::resolve::Resolver;
use framehook_server::notify::tls::Tls;
use framehook_server::notify::{Notifier, NotifierParts, Recovered, Replayer, Replays, Schedules, StorePlaces};
use framehook_server::push_log::PushLog;
use framehook_server::shutdown::Stage;
use framehook_server::store::spool::{Spool, SpoolLimits};
use framehook_server::store::{
    LatestStorer, Local, LocalStore, PutSignal, Storer, StorerParts, Stores, UrlSigner, clear_recorded_leftovers,
};
use framehook_server::telemetry::Telemetry;
use framehook_server::timeline::Timeline;
use framehook_testkit::wait;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

/// Long enough for anything on a busy machine; a test that runs into it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const KEY: &str = "k3yForDocs2024";

/// 2025-01-01 00:00:00 UTC, 08:00:00 in UTC+8.
pub(crate) const CREATE_TIME: UnixMs = UnixMs::from_secs(1_735_689_600);

/// What differs between processes of one test.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) stores: bool,
    pub(crate) notifies: bool,
    pub(crate) schedule: Schedule,
    pub(crate) deadline: Duration,
    pub(crate) overdue_after: Duration,
    pub(crate) held_max: Duration,
    pub(crate) slots: usize,
    pub(crate) slots_per_receiver: usize,
    pub(crate) spool: SpoolLimits,
    pub(crate) gather_max: Duration,
    pub(crate) allow: &'static str,
    /// Signs the URLs of objects, each for so long.
    pub(crate) url_life: Option<Duration>,
    /// `[[object_store]]` tables.
    pub(crate) object_stores: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stores: true,
            notifies: true,
            schedule: Schedule { step: Duration::from_millis(200), retries: 3 },
            deadline: Duration::from_secs(20),
            overdue_after: Duration::from_secs(600),
            held_max: Duration::from_secs(24 * 3600),
            slots: 64,
            slots_per_receiver: 8,
            spool: SpoolLimits { bytes_max: 1 << 30, disk_reserve_bytes: 0 },
            gather_max: Duration::from_millis(20),
            allow: "127.0.0.0/8",
            url_life: None,
            object_stores: String::new(),
        }
    }
}

/// A data directory with the configuration that its processes see.
pub(crate) struct Place {
    _own: Option<TempDir>,
    dir: PathBuf,
    catalog: watch::Sender<Arc<Catalog>>,
}

impl Place {
    pub(crate) fn new(catalog: Catalog) -> Self {
        let own = tempfile::tempdir().expect("a directory");
        let dir = own.path().to_owned();
        Self { _own: Some(own), ..Self::at(&dir, catalog) }
    }

    pub(crate) fn at(dir: &Path, catalog: Catalog) -> Self {
        Self { _own: None, dir: dir.to_owned(), catalog: watch::Sender::new(Arc::new(catalog)) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn configure(&self, catalog: Catalog) {
        self.catalog.send_replace(Arc::new(catalog));
    }

    /// Changes the file from outside, while no process runs.
    pub(crate) fn tamper(&self, sql: &str) {
        let conn = rusqlite::Connection::open(self.dir.join("framehook.db")).expect("a database");
        conn.execute_batch(sql).expect("a statement");
    }

    pub(crate) fn start(&self) -> Process {
        self.start_with(Settings::default())
    }

    pub(crate) fn start_with(&self, settings: Settings) -> Process {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        let process = runtime.block_on(self.build(settings));
        Process { runtime, ..process }
    }

    async fn build(&self, settings: Settings) -> Process {
        let (clock, entropy, fatal) = (Clock::start(), Entropy::system(), Fatal::new());
        // A process that was killed in a test lets go of its lock when its last thread ends.
        let take = || match DirLock::take(&self.dir) {
            Err(OpenError::Locked { .. }) => None,
            taken => Some(taken.expect("a lock")),
        };
        let lock = wait::until("the data directory to be free", PATIENCE, take).expect("free");
        let vault = Vault::open(&lock, None, &entropy).expect("a vault");
        let db = Db::open(lock, &vault, clock, fatal.clone()).expect("a database");
        let owed = db.read(owed_files).await.expect("owed files");
        let spool = Spool::open(&self.dir.join("spool"), settings.spool, &owed, fatal.clone()).expect("a spool");
        let spool = Arc::new(spool);
        clear_recorded_leftovers(&db, &spool, clock.wall()).await.expect("leftovers");
        let files = LocalStore::open(&self.dir.join("objects"), entropy.clone(), fatal.clone()).expect("a store");
        let timeline = Timeline::new(clock);
        let telemetry = Telemetry::new(clock);
        let signer = settings.url_life.map(|life| UrlSigner::new(vault.clone(), life));
        let files = Arc::new(files);
        let local = Local::new(Arc::clone(&files), "http://127.0.0.1:8080/objects", signer);
        let config = Config::parse(&settings.object_stores, &Sources::default()).expect("a configuration");
        let stores = Stores::open(local, &config.object_stores, clock).expect("stores");
        let latest_signal = Arc::<PutSignal>::default();
        let [commits, puts, attempts] = ["commits", "puts", "attempts"].map(|name| Stage::new(name, fatal.clone()));
        let storer_parts = StorerParts {
            db: db.clone(),
            spool: Arc::clone(&spool),
            stores: stores.clone(),
            clock,
            timeline: timeline.clone(),
            entropy: entropy.clone(),
            telemetry: Arc::clone(&telemetry),
            conditions: Arc::default(),
            signal: Arc::default(),
            slots: 4,
            stage: puts.clone(),
        };
        let latest = LatestStorer::new(StorerParts { signal: Arc::clone(&latest_signal), ..storer_parts.clone() });
        let storer = Storer::new(storer_parts);
        let committer = Committer::start(
            CommitParts {
                db: db.clone(),
                spool: Arc::clone(&spool),
                catalog: self.catalog.subscribe(),
                clock,
                timeline: timeline.clone(),
                entropy: entropy.clone(),
                zone: NameZone::default(),
                gather_max: settings.gather_max,
                stores: stores.clone(),
                telemetry: Arc::clone(&telemetry),
                storer: Arc::clone(&storer),
                latest_signal,
            },
            &commits,
        );
        let policy = AddressPolicy::new(vec![settings.allow.parse().expect("a block")]);
        let tls = Tls::new(None).expect("system roots");
        let client = Arc::new(Client::new(Resolver::new(policy), tls, None, ClientLimits::default(), &attempts));
        let recovered = Recovered::default();
        let notifier = Notifier::new(NotifierParts {
            db: db.clone(),
            catalog: self.catalog.subscribe(),
            vault: vault.clone(),
            client,
            clock,
            entropy: entropy.clone(),
            timeline: timeline.clone(),
            telemetry: Arc::clone(&telemetry),
            recovered: recovered.clone(),
            schedules: Schedules { snapshot: settings.schedule, push: settings.schedule },
            deadline: settings.deadline,
            overdue_after: settings.overdue_after,
            held_max: settings.held_max,
            limits: Limits {
                slots: settings.slots,
                window_max: settings.slots_per_receiver,
                breaker_failures: 5,
                pause_max: Schedules { snapshot: settings.schedule, push: settings.schedule }.pause_max(),
            },
        });
        if settings.stores {
            puts.spawn(Arc::clone(&storer).run());
            puts.spawn(latest.run(storer.prepared()));
        }
        if settings.notifies {
            attempts.spawn(Arc::clone(&notifier).run(attempts.clone()));
        }
        let log = PushLog {
            db: db.clone(),
            catalog: self.catalog.subscribe(),
            clock,
            timeline: timeline.clone(),
            entropy: entropy.clone(),
            app_id: 1_250_000_000,
        };
        let (watched, token) = (Arc::clone(&spool), commits.token());
        commits.spawn(async move { watched.watch_disk(token).await });
        let replays_wake = Arc::new(Notify::new());
        let replayer = Replayer {
            db: db.clone(),
            vault,
            stores,
            store_places: StorePlaces::default(),
            clock,
            timeline,
            replays_wake,
        };
        if settings.notifies {
            let replays = Replays { replayer: replayer.clone(), catalog: self.catalog.subscribe(), recovered };
            attempts.spawn(replays.run(attempts.token()));
        }
        Process {
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a placeholder"),
            stages: [commits, puts, attempts],
            clock,
            entropy,
            fatal,
            db,
            spool,
            committer,
            storer,
            files,
            log,
            replayer,
            notifier,
            telemetry,
        }
    }
}

/// Everything from the commit point to the callback, running.
pub(crate) struct Process {
    runtime: Runtime,
    stages: [Stage; 3],
    pub(crate) clock: Clock,
    entropy: Entropy,
    pub(crate) fatal: Fatal,
    pub(crate) db: Db,
    pub(crate) spool: Arc<Spool>,
    pub(crate) committer: Committer,
    pub(crate) storer: Arc<Storer>,
    /// The local store's.
    pub(crate) files: Arc<LocalStore>,
    pub(crate) log: PushLog,
    pub(crate) replayer: Replayer,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Process {
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(future)
    }

    /// Waits until what an earlier process owed is in order: from then on pictures are put ahead of their rows.
    pub(crate) fn wait_until_prepared(&self) {
        self.block_on(async { tokio::time::timeout(PATIENCE, self.storer.prepared()).await }).expect("prepared");
    }

    /// Ends every task where it stands, as a kill does.
    pub(crate) fn kill(self) {
        let Self { runtime, .. } = self;
        runtime.shutdown_background();
    }

    /// Ends in order.
    pub(crate) fn stop(self) {
        self.stop_with(async {});
    }

    /// Ends in order, and gives what came of something that goes on meanwhile.
    pub(crate) fn stop_with<T>(self, meanwhile: impl Future<Output = T>) -> T {
        let Self { runtime, stages, db, .. } = self;
        runtime.block_on(async {
            for stage in &stages {
                stage.end(PATIENCE).await;
            }
            db.close().await;
            meanwhile.await
        })
    }

    pub(crate) fn snapshot_id(&self) -> SnapshotId {
        SnapshotId(uuid_v7(self.clock.wall(), self.entropy.id_bytes()))
    }

    /// A picture of `stream` under `template`, with some bytes of its own.
    pub(crate) fn picture(&self, stream: &StreamId, template: &Arc<SnapshotTemplate>) -> Rendered {
        let id = self.snapshot_id();
        Rendered {
            stream: stream.clone(),
            param: StreamParam::parse("txSecret=abc&txTime=6955B8FF").expect("a query"),
            sequence: PushSequence::new(CREATE_TIME, 7),
            create_time: CREATE_TIME,
            trace: id,
            pictures: vec![self.taken(id, template)],
        }
    }

    /// A picture as `template` makes it, whose main rendition has this id. Each has some bytes of its own.
    pub(crate) fn taken(&self, id: SnapshotId, template: &Arc<SnapshotTemplate>) -> Taken {
        let ids = std::iter::once(id).chain(std::iter::repeat_with(|| self.snapshot_id()));
        let renditions = template.all_renditions().zip(ids).map(|(rendition, snapshot_id)| RenderedRendition {
            snapshot_id,
            latest_id: self.snapshot_id(),
            width: if rendition.width == 0 { 1280 } else { rendition.width },
            height: if rendition.width == 0 { 720 } else { rendition.width * 9 / 16 },
            bytes: Bytes::from(format!("a picture called {snapshot_id}").into_bytes()),
        });
        Taken {
            subscriber: Some(Subscriber::Rule(RuleId(1))),
            renditions: renditions.collect(),
            objects: template.objects,
            template: Arc::clone(template),
            catalog_version: 1,
        }
    }

    /// Commits a picture of `stream` with the default names.
    pub(crate) fn commit(&self, stream: &StreamId) -> framehook_server::commit::Recorded {
        let picture = self.picture(stream, &template());
        let recorded = self.block_on(self.committer.commit(picture)).expect("committed");
        recorded.into_iter().next().expect("one rendition")
    }

    pub(crate) fn list(&self, filter: Filter) -> Vec<DeliveryRow> {
        self.block_on(self.db.read(move |conn| outbox::list(conn, &filter, 1000))).expect("a list")
    }

    pub(crate) fn show(&self, id: DeliveryId) -> DeliveryDetail {
        self.block_on(self.db.read(move |conn| outbox::show(conn, id))).expect("read").expect("a delivery")
    }

    /// Waits until the only delivery is in `state`.
    pub(crate) fn wait_for_state(&self, state: State) -> DeliveryDetail {
        let look = || {
            let rows = self.list(Filter::default());
            rows.iter().all(|row| row.state == state).then_some(rows).filter(|rows| !rows.is_empty())
        };
        let rows = wait::until(&format!("state {}", state.name()), PATIENCE, look);
        let rows = rows.unwrap_or_else(|error| panic!("{error}; there are {:?}", self.list(Filter::default())));
        self.show(rows[0].id)
    }

    pub(crate) fn count(&self, state: State) -> usize {
        self.list(Filter { states: vec![state], ..Filter::default() }).len()
    }
}

/// Every file in a directory and those below it.
pub(crate) fn files_below(dir: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    Ok(files)
}

pub(crate) fn stream(domain: &str, name: &str) -> StreamId {
    StreamId {
        domain: DomainName::parse(domain).expect("a domain"),
        app: AppName::parse("live").expect("an app"),
        name: StreamName::parse(name).expect("a stream"),
    }
}

/// The stream that most tests use.
pub(crate) fn room() -> StreamId {
    stream("push.example.com", "room_1001")
}

/// A snapshot template with the default names.
pub(crate) fn template() -> Arc<SnapshotTemplate> {
    template_named(None)
}

pub(crate) fn template_named(file_name: Option<&str>) -> Arc<SnapshotTemplate> {
    let draft = SnapshotTemplateDraft {
        name: "shots".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "ap-guangzhou".into(),
        file_name: file_name.map(str::to_owned),
        ..SnapshotTemplateDraft::default()
    };
    Arc::new(SnapshotTemplate::validate(TemplateId(1), draft).expect("a template"))
}

/// A configuration in which the streams of each domain are told to a URL, by a template whose id is its place from 1.
pub(crate) fn telling(receivers: &[(&str, &str)]) -> Catalog {
    let mut parts = CatalogParts::default();
    for (index, (domain, url)) in receivers.iter().enumerate() {
        let id = TemplateId(index as i64 + 1);
        let name = DomainName::parse(domain).expect("a domain");
        let scope = RuleScope { domain: name.clone(), app: None, stream: None };
        parts.domains.push(Domain { name, enabled: true, auth: None });
        parts.callback_templates.push(callback_template(id, url, KEY));
        parts.callback_rules.push(CallbackRule { id: RuleId(id.0), scope, template: id });
    }
    Catalog::build(1, parts).expect("a catalog")
}

/// The same for [`room`] alone.
pub(crate) fn telling_room(url: &str) -> Catalog {
    telling(&[("push.example.com", url)])
}

/// Domains and nothing else.
pub(crate) fn telling_nobody() -> Catalog {
    let name = DomainName::parse("push.example.com").expect("a domain");
    let domain = Domain { name, enabled: true, auth: None };
    Catalog::build(2, CatalogParts { domains: vec![domain], ..CatalogParts::default() }).expect("a catalog")
}

pub(crate) fn callback_template(id: TemplateId, url: &str, key: &str) -> CallbackTemplate {
    let draft = CallbackTemplateDraft {
        name: format!("receiver {id}"),
        signing: SigningDraft { key: Some(key.to_owned()), ..SigningDraft::default() },
        urls: CallbackUrls {
            snapshot_notify: Some(url.to_owned()),
            stream_begin_notify: Some(url.to_owned()),
            stream_end_notify: Some(url.to_owned()),
            ..CallbackUrls::default()
        },
        ..CallbackTemplateDraft::default()
    };
    CallbackTemplate::validate(id, draft).expect("a template")
}

/// Which deliveries are of this kind.
pub(crate) fn of_kind(kind: EventKind) -> Filter {
    Filter { kind: Some(kind), ..Filter::default() }
}
