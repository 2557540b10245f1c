//! Lives on real parts, for tests: a database, a spool and a committer in a directory of their own, and no workers.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::catalog::{AdmitPolicy, Catalog};
use framehook_domain::id::PushSequence;
use framehook_domain::pick::Subscription;
use framehook_domain::stream::{PublishAddress, StreamId};
use framehook_domain::time::{Mono, NameZone, UnixMs};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Lives, Parts, Push};
use crate::clock::Clock;
use crate::commit::{CommitParts, Committer};
use crate::db::secret::Vault;
use crate::db::{Db, DirLock};
use crate::entropy::Entropy;
use crate::fatal::Fatal;
use crate::keyframes::Keyframes;
use crate::pipeline::{self, Pipeline};
use crate::push_log::PushLog;
use crate::shutdown::Stage;
use crate::store::spool::{Spool, SpoolLimits};
use crate::store::{Local, LocalStore, Room, Storer, StorerParts, Stores};
use crate::telemetry::Telemetry;
use crate::timeline::Timeline;

/// Long enough for anything on a busy machine; a test that runs into it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Everything between a publisher and the commit point, but the workers.
pub(crate) struct Scene {
    _dir: TempDir,
    pub(crate) lives: Arc<Lives>,
    pub(crate) db: Db,
    pub(crate) catalog: watch::Sender<Arc<Catalog>>,
    pub(crate) stage: Stage,
}

impl Scene {
    /// Nothing is configured, so every push is taken under the built-in rule.
    pub(crate) fn new() -> Self {
        Self::with_spool(1 << 30)
    }

    /// As [`Scene::new`], with so many bytes for the spool.
    pub(crate) fn with_spool(bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (clock, entropy, fatal) = (Clock::start(), Entropy::system(), Fatal::new());
        let lock = DirLock::take(dir.path()).expect("a lock");
        let vault = Vault::open(&lock, None, &entropy).expect("a vault");
        let db = Db::open(lock, &vault, clock, fatal.clone()).expect("a database");
        let limits = SpoolLimits { bytes_max, disk_reserve_bytes: 0 };
        let spool = Arc::new(Spool::open(&dir.path().join("spool"), limits, &[], fatal.clone()).expect("a spool"));
        let files = LocalStore::open(&dir.path().join("objects"), entropy.clone(), fatal.clone()).expect("a store");
        let stores = Stores::new(Local::new(Arc::new(files), "http://127.0.0.1:8080/objects", None));
        let catalog = watch::Sender::new(Arc::new(Catalog::empty()));
        let (timeline, stage) = (Timeline::new(clock), Stage::new("scene", fatal.clone()));
        let telemetry = Telemetry::new(clock);
        // It does not run.
        let storer = Storer::new(StorerParts {
            db: db.clone(),
            spool: Arc::clone(&spool),
            stores: stores.clone(),
            clock,
            timeline: timeline.clone(),
            entropy: entropy.clone(),
            telemetry: Arc::clone(&telemetry),
            conditions: Arc::default(),
            signal: Arc::default(),
            slots: 2,
            stage: stage.clone(),
        });
        let committer = Committer::start(
            CommitParts {
                db: db.clone(),
                spool: Arc::clone(&spool),
                catalog: catalog.subscribe(),
                clock,
                timeline: timeline.clone(),
                entropy: entropy.clone(),
                zone: NameZone::default(),
                gather_max: Duration::ZERO,
                stores: stores.clone(),
                telemetry: Arc::clone(&telemetry),
                storer,
                latest_signal: Arc::default(),
            },
            &stage,
        );
        let keyframes = Arc::new(Keyframes::new(64 << 20));
        let pipeline = Pipeline::new(pipeline::Parts {
            clock,
            entropy: entropy.clone(),
            telemetry: Arc::clone(&telemetry),
            keyframes: Arc::clone(&keyframes),
            room: Room::new(spool, stores, Arc::default()),
            committer,
            render_deadline: PATIENCE,
            commit_stage: stage.clone(),
        });
        let log = PushLog {
            db: db.clone(),
            catalog: catalog.subscribe(),
            clock,
            timeline,
            entropy: entropy.clone(),
            app_id: 1_250_000_000,
        };
        let lives = Lives::new(Parts {
            clock,
            pipeline,
            telemetry,
            catalog: catalog.subscribe(),
            log,
            entropy,
            keyframes,
            policy: AdmitPolicy::default(),
            grace: PATIENCE,
            closings: stage.clone(),
        });
        Self { _dir: dir, lives, db, catalog, stage }
    }

    /// The streams whose pushes have a row and no end.
    pub(crate) async fn open_rows(&self) -> Vec<StreamId> {
        let open = self.lives.log.open_pushes().await.expect("rows");
        open.into_iter().map(|row| row.stream).collect()
    }

    /// Runs a statement on the database, past everything that knows better.
    pub(crate) async fn tamper(&self, sql: &'static str) {
        self.db.write(move |tx| Ok(tx.execute_batch(sql)?)).await.expect("a statement");
    }
}

/// A push of which these pictures are wanted, known to nobody else.
pub(crate) fn push(sequence: PushSequence, wanted: Vec<Subscription>) -> Arc<Push> {
    let (param, now) = (address("room").param, (UnixMs(0), Mono::default()));
    let push = Push::new(stream("room"), sequence, param, [127, 0, 0, 1].into(), now);
    let _ = push.reconcile(1, || (now.1, wanted));
    Arc::new(push)
}

pub(crate) fn address(name: &str) -> PublishAddress {
    PublishAddress::parse("rtmp://push.example.com/live", "live", name).expect("an address")
}

pub(crate) fn stream(name: &str) -> StreamId {
    address(name).stream
}

/// Looks at `condition` until it holds, and fails if it does not for [`PATIENCE`].
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looks = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
