//! Numbers that belong to other parts and are gathered from them for each page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeGaugeValue, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Unit;

use super::{Page, ReasonLabel};
use crate::db::DbStats;

/// Where a [`Sample`] is put before a page is written.
#[derive(Debug)]
pub(super) struct Sampled {
    due: Counter,
    taken: Counter,
    skipped: Family<ReasonLabel, Counter>,
    open: Gauge<u64, AtomicU64>,
    live_streams: Gauge<u64, AtomicU64>,
    streams_in_grace: Gauge<u64, AtomicU64>,
    connections: Gauge<u64, AtomicU64>,
    keyframe_bytes: Gauge<u64, AtomicU64>,
    picks_queued: Gauge<u64, AtomicU64>,
    picks_queued_bytes: Gauge<u64, AtomicU64>,
    commit_bytes: Gauge<u64, AtomicU64>,
    reassembly_bytes: Gauge<u64, AtomicU64>,
    spool_bytes: Gauge<u64, AtomicU64>,
    disk_free_bytes: Gauge<u64, AtomicU64>,
    puts_owed: MaybeGauge<u64>,
    puts_held: MaybeGauge<u64>,
    bucket_owed: Family<BucketLabel, Gauge<u64, AtomicU64>>,
    bucket_taking: Family<BucketLabel, Gauge<u64, AtomicU64>>,
    deliveries_owed: MaybeGauge<u64>,
    deliveries_dead: MaybeGauge<u64>,
    delivery_oldest_age: MaybeGauge<f64>,
    workers_ready: Gauge<u64, AtomicU64>,
    worker_restarts: Counter,
    db_queued: Gauge<u64, AtomicU64>,
    db_operations: Counter,
    db_commits: Counter,
    db_syncs: Counter,
    db_statements: Counter,
    db_commit_seconds: Counter<f64, AtomicU64>,
    db_batch_max: Gauge<u64, AtomicU64>,
    db_full: Counter,
    db_wal_pages: Gauge<u64, AtomicU64>,
    catalog_version: Gauge<u64, AtomicU64>,
    certificate_days: MaybeGauge<i64>,
}

/// What the server is at one instant, gathered from its parts for one page.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Dues that fell since the start, all pushes together. `due = taken + skipped + open`.
    pub due: u64,
    /// Dues whose picture passed the commit point.
    pub taken: u64,
    /// Dues without a picture, by the name of the reason. Every reason should be there from the start, with 0.
    pub skipped: Vec<(&'static str, u64)>,
    /// Dues that are neither yet.
    pub open: u64,
    /// Pushes with a session.
    pub live_streams: u64,
    /// Pushes that may come back.
    pub streams_in_grace: u64,
    /// RTMP connections, publishing or not.
    pub connections: u64,
    /// Memory held by the newest keyframes.
    pub keyframe_bytes: u64,
    /// Picks that wait for a worker.
    pub picks_queued: u64,
    /// Memory held by the entry points of those.
    pub picks_queued_bytes: u64,
    /// Memory held by images on their way over the commit point.
    pub commit_bytes: u64,
    /// Memory reserved for messages that have not come in full.
    pub reassembly_bytes: u64,
    /// Pictures on the disk that are not stored yet.
    pub spool_bytes: u64,
    /// What the file system of the data directory has left for us.
    pub disk_free_bytes: u64,
    /// What the database says is owed; `None` when it does not answer.
    pub owed: Option<Owed>,
    /// How each bucket does that something waits for, or went to since the start.
    pub buckets: Vec<BucketSample>,
    /// Worker processes that are up.
    pub workers_ready: u64,
    /// Worker processes that were replaced because they crashed, hung or broke the rules.
    pub worker_restarts: u64,
    /// The database writer's own counters.
    pub db: DbStats,
    /// The configuration's version: one more at each change.
    pub catalog_version: u64,
    /// Whole days until the certificate ends, negative when it has; `None` without one.
    pub certificate_days: Option<i64>,
}

/// One bucket.
#[derive(Clone, Debug, Default)]
pub struct BucketSample {
    pub store: String,
    pub bucket: String,
    /// Pictures that wait for it, latest objects among them.
    pub owed: u64,
    /// Whether the last upload was taken, none has failed, or none waits.
    pub is_taking: bool,
}

/// A bucket and the store that it is in, both of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BucketLabel {
    store: String,
    bucket: String,
}

/// What is owed, as far as the page tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owed {
    /// Pictures that are committed and not stored, latest objects among them.
    pub puts: u64,
    /// Those of them that a store refused and a person should look at.
    pub puts_held: u64,
    /// Deliveries that are neither delivered nor dead.
    pub deliveries: u64,
    /// Dead letters that are kept.
    pub deliveries_dead: u64,
    /// Age of the oldest delivery that is owed.
    pub delivery_oldest_age: Duration,
}

impl Sampled {
    pub(super) fn register(page: &mut Page) -> Self {
        Self {
            due: page.counter("due", "Dues that fell; the sum of taken, skipped and open"),
            taken: page.counter("taken", "Dues whose picture passed the commit point"),
            skipped: page.family("skipped", "Dues that got no picture by reason"),
            open: page.gauge("open_dues", "Dues that are neither taken nor skipped yet"),
            live_streams: page.gauge("live_streams", "Pushes with a session"),
            streams_in_grace: page.gauge("streams_in_grace", "Pushes without a session that may come back"),
            connections: page.gauge("connections", "RTMP connections, publishing or not"),
            keyframe_bytes: page.gauge_bytes("keyframe_memory", "Memory held by the newest keyframe of every stream"),
            picks_queued: page.gauge("picks_queued", "Picks that wait for a worker"),
            picks_queued_bytes: page.gauge_bytes(
                "picks_queued_memory",
                "Memory held by the entry points of picks that wait; at most 256 MiB",
            ),
            commit_bytes: page
                .gauge_bytes("commit_memory", "Memory held by images that are being made durable; at most 64 MiB"),
            reassembly_bytes: page.gauge_bytes(
                "reassembly_memory",
                "Memory reserved for messages that have not come in full; at 512 MiB no new keyframe is assembled",
            ),
            spool_bytes: page.gauge_bytes("spool", "Pictures on the disk that are not stored yet"),
            disk_free_bytes: page.gauge_bytes("disk_free", "Room left on the file system of the data directory"),
            puts_owed: page.maybe_gauge(
                "puts_owed",
                None,
                "Pictures that are committed and not stored, latest objects among them",
            ),
            puts_held: page.maybe_gauge(
                "puts_held",
                None,
                "Pictures that a store refused and a person should look at, latest objects among them",
            ),
            bucket_owed: page.add(
                "bucket_owed",
                "Pictures that wait for a bucket, latest objects among them",
                None,
                Family::default(),
            ),
            bucket_taking: page.add(
                "bucket_taking",
                "1: the bucket takes pictures; 0: it fails or refuses",
                None,
                Family::default(),
            ),
            deliveries_owed: page.maybe_gauge(
                "deliveries_owed",
                None,
                "Deliveries that are neither delivered nor dead",
            ),
            deliveries_dead: page.maybe_gauge("deliveries_dead", None, "Dead letters that are kept"),
            delivery_oldest_age: page.maybe_gauge(
                "delivery_oldest_age",
                Some(Unit::Seconds),
                "Age of the oldest delivery that is owed",
            ),
            workers_ready: page.gauge("workers_ready", "Render workers that are up"),
            worker_restarts: page.counter("worker_restarts", "Render workers that crashed, hung or broke the rules"),
            db_queued: page.gauge("db_queued", "Operations that wait for the database's writer"),
            db_operations: page.counter("db_operations", "Operations stored in the database"),
            db_commits: page.counter("db_commits", "Commits, each of one or more operations"),
            db_syncs: page.counter("db_syncs", "Commits that changed something, each with one sync"),
            db_statements: page.counter("db_statements", "SQL statements of the database's writer"),
            db_commit_seconds: page.counter_seconds("db_commit", "Time spent in commits"),
            db_batch_max: page.gauge("db_batch_max", "Operations in the largest commit"),
            db_full: page.counter("db_full", "Operations that failed because the disk was full"),
            db_wal_pages: page.gauge("db_wal_pages", "Pages in the write-ahead log after the last commit"),
            catalog_version: page
                .gauge("catalog_version", "Version of the configuration of domains, templates and rules"),
            certificate_days: page.add(
                "certificate_days",
                "Whole days until the certificate of HTTPS and RTMPS ends, negative when it has; left out without one",
                None,
                MaybeGauge::unknown(),
            ),
        }
    }

    pub(super) fn set(&self, sample: &Sample) {
        // Those that are gone would go on saying what they last did.
        self.bucket_owed.clear();
        self.bucket_taking.clear();
        for BucketSample { store, bucket, owed, is_taking } in &sample.buckets {
            let label = BucketLabel { store: store.clone(), bucket: bucket.clone() };
            self.bucket_owed.get_or_create(&label).set(*owed);
            self.bucket_taking.get_or_create(&label).set(u64::from(*is_taking));
        }
        // These counters belong to other parts, which only ever raise them; here they are copied.
        let copy = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        copy(&self.due, sample.due);
        copy(&self.taken, sample.taken);
        for &(reason, count) in &sample.skipped {
            copy(&self.skipped.get_or_create(&ReasonLabel { reason }), count);
        }
        self.open.set(sample.open);
        self.live_streams.set(sample.live_streams);
        self.streams_in_grace.set(sample.streams_in_grace);
        self.connections.set(sample.connections);
        self.keyframe_bytes.set(sample.keyframe_bytes);
        self.picks_queued.set(sample.picks_queued);
        self.picks_queued_bytes.set(sample.picks_queued_bytes);
        self.commit_bytes.set(sample.commit_bytes);
        self.reassembly_bytes.set(sample.reassembly_bytes);
        self.spool_bytes.set(sample.spool_bytes);
        self.disk_free_bytes.set(sample.disk_free_bytes);
        self.puts_owed.set(sample.owed.map(|owed| owed.puts));
        self.puts_held.set(sample.owed.map(|owed| owed.puts_held));
        self.deliveries_owed.set(sample.owed.map(|owed| owed.deliveries));
        self.deliveries_dead.set(sample.owed.map(|owed| owed.deliveries_dead));
        self.delivery_oldest_age.set(sample.owed.map(|owed| owed.delivery_oldest_age.as_secs_f64()));
        self.workers_ready.set(sample.workers_ready);
        copy(&self.worker_restarts, sample.worker_restarts);
        self.db_queued.set(sample.db.queued);
        copy(&self.db_operations, sample.db.operations);
        copy(&self.db_commits, sample.db.commits);
        copy(&self.db_syncs, sample.db.syncs);
        copy(&self.db_statements, sample.db.statements);
        self.db_commit_seconds.inner().store(sample.db.commit_time.as_secs_f64().to_bits(), Ordering::Relaxed);
        self.db_batch_max.set(sample.db.batch_max);
        copy(&self.db_full, sample.db.full);
        self.db_wal_pages.set(sample.db.wal_pages);
        self.catalog_version.set(sample.catalog_version);
        self.certificate_days.set(sample.certificate_days);
    }
}

/// A gauge that is left out of the page while its value is not known: a zero would say that all is well.
#[derive(Clone, Debug)]
pub(super) struct MaybeGauge<T>(Arc<Mutex<Option<T>>>);

impl<T> MaybeGauge<T> {
    pub(super) fn unknown() -> Self {
        Self(Arc::default())
    }

    fn set(&self, value: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> TypedMetric for MaybeGauge<T> {
    const TYPE: MetricType = MetricType::Gauge;
}

impl<T: EncodeGaugeValue> EncodeMetric for MaybeGauge<T> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(value) => encoder.encode_gauge(value),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
