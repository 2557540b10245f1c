//! The numbers of `/metrics`, in the Prometheus text format (OpenMetrics 1.0.0).
//!
//! Names start with `framehook_` and end with their unit. Labels take their values from small, fixed sets; a stream, an
//! endpoint or an address is never one, since whoever pushes would then choose how much memory this page takes. Per
//! stream there is `/v1/streams`.

mod sample;

use std::fmt::{Debug, Write as _};
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::refusal::{Code, PushEnd, Refusal};
use framehook_domain::retry::Outcome;
use framehook_domain::time::UnixMs;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use self::sample::{MaybeGauge, Sampled};
use super::event::HandshakeFault;
use crate::render::RenderError;
use crate::store::StoreError;

pub use self::sample::{BucketSample, Owed, Sample};

/// Seconds from a millisecond to half a minute: from decoding a small keyframe to a receiver that times out.
const SECONDS_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const REFERENCE_HEAD: &str = "\
# Metrics

Made by `./dev gen` from `crates/server/src/telemetry/metric.rs`; edit it there.

`/metrics` answers in the OpenMetrics text format, version 1.0, which Prometheus reads. Labels take their values from small, fixed sets; per stream there is
`/v1/streams`.

| Name | Kind | Meaning |
|---|---|---|
";

/// One reason, from a fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// How something ended, from a fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// How an attempt at a callback of one event type ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabel {
    event_type: u16,
    outcome: &'static str,
}

/// The release that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

/// A code of CSS's interruption table and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: String,
    reason: &'static str,
}

impl CodeLabel {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code: code.to_string(), reason }
    }
}

/// Everything that is counted and measured. Shared by every part of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,

    ingest_bytes: Counter,
    ingest_reads: Counter,
    sessions: Counter,
    session_ends: Family<ReasonLabel, Counter>,
    refusals: Family<CodeLabel, Counter>,
    phase_moves: Counter,

    picked: Counter,
    render_wait: Histogram,
    decode: Histogram,
    scale: Histogram,
    encode: Histogram,
    render_failures: Family<ReasonLabel, Counter>,

    snapshots: Counter,
    commit: Histogram,
    put: Histogram,
    puts: Family<OutcomeLabel, Counter>,
    attempt: Histogram,
    attempts: Family<AttemptLabel, Counter>,
    dead_letters: Counter,
    endpoints_overdue: Gauge<u64, AtomicU64>,
    oldest_due_age: Gauge<f64, AtomicU64>,
    frame_to_callback: Histogram,

    logins_refused: Counter,
    handshakes: Family<OutcomeLabel, Counter>,
    certificate_reads: Family<OutcomeLabel, Counter>,
    reloads: Family<OutcomeLabel, Counter>,

    sampled: Sampled,
}

impl Metrics {
    /// All at zero. `started` is the wall time at which the process began.
    pub fn new(started: UnixMs) -> Self {
        let mut page = Page { registry: Registry::with_prefix("framehook"), described: Vec::new() };
        let build = Family::<VersionLabel, Gauge>::default();
        build.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        page.add("build_info", "Always 1; the label is this program's version", None, build);
        let start = page.gauge_seconds("process_start_time", "Wall time at which the process began, since 1970");
        // Milliseconds until the year 287396 fit a double without loss.
        start.set(started.0 as f64 / 1000.0);

        let sampled = Sampled::register(&mut page);
        let metrics = Self {
            ingest_bytes: page.counter_bytes("ingest", "Bytes received from publishers"),
            ingest_reads: page.counter("ingest_reads", "Reads of publishers' sockets that gave bytes"),
            sessions: page.counter("sessions", "Connections that were accepted as publishers"),
            session_ends: page.family("session_ends", "Ends of publishing sessions by reason"),
            refusals: page.family("refusals", "Refused publishes by code"),
            phase_moves: page
                .counter("phase_moves", "Due grids that were moved because too many pushes shared a phase"),
            picked: page.counter("picked", "Dues for which an entry point was chosen and put into the queue"),
            render_wait: page.histogram("render_wait", "From an entry point's last byte to a worker taking it"),
            decode: page.histogram("render_decode", "Decoding one entry point"),
            scale: page.histogram("render_scale", "Scaling and colour conversion of all renditions of one picture"),
            encode: page.histogram("render_encode", "Encoding all renditions of one picture"),
            render_failures: page.family("render_failures", "Entry points that gave no picture by reason"),
            snapshots: page.counter("snapshots", "Snapshots that passed the commit point"),
            commit: page.histogram("commit", "From an entry point's last byte to its snapshot being durable"),
            put: page.histogram("put", "One upload to a store"),
            puts: page.family("puts", "Uploads by outcome"),
            attempt: page.histogram("attempt", "One attempt at a callback"),
            attempts: page.family("attempts", "Attempts at callbacks by event type and outcome"),
            dead_letters: page.counter(
                "dead_letters",
                "Deliveries given up: after their last attempt, or before it for a reason such as 410, deliver.held_max, \
                 a template that is gone or damaged rows",
            ),
            endpoints_overdue: page.gauge(
                "endpoints_overdue",
                "Endpoints whose oldest due callback has waited for longer than deliver.overdue_after",
            ),
            oldest_due_age: page.gauge_seconds(
                "delivery_oldest_due_age",
                "For how long the oldest callback that is due has not been sent, looked at every five seconds",
            ),
            frame_to_callback: page.histogram(
                "frame_to_callback",
                "From an entry point's last byte to the receiver's 200, first attempts only",
            ),
            logins_refused: page.counter("logins_refused", "Requests to / and /v1 without the right credentials"),
            handshakes: page.family("tls_handshakes", "TLS handshakes with clients by outcome"),
            certificate_reads: page.family("certificate_reloads", "Readings of a changed certificate by outcome"),
            reloads: page.family("reloads", "Readings of the configuration file by outcome"),
            sampled,
            registry: page.registry,
            described: page.described,
        };
        // A series that appears only with its first failure hides that failure from `rate()`.
        for reason in RenderError::reasons() {
            drop(metrics.render_failures.get_or_create(&ReasonLabel { reason }));
        }
        for end in PushEnd::ALL {
            drop(metrics.session_ends.get_or_create(&ReasonLabel { reason: end.name() }));
        }
        for outcome in ["stored"].into_iter().chain(StoreError::NAMES) {
            drop(metrics.puts.get_or_create(&OutcomeLabel { outcome }));
        }
        for kind in EventKind::ALL {
            for outcome in Outcome::names() {
                let event_type = kind.event_type();
                drop(metrics.attempts.get_or_create(&AttemptLabel { event_type, outcome }));
            }
        }
        for outcome in ["done"].into_iter().chain(HandshakeFault::NAMES) {
            drop(metrics.handshakes.get_or_create(&OutcomeLabel { outcome }));
        }
        for refusal in Refusal::ALL {
            drop(metrics.refusals.get_or_create(&CodeLabel::new(refusal.code(), refusal.name())));
        }
        metrics
    }

    /// The page of `/metrics`.
    pub fn page(&self, sample: &Sample) -> String {
        self.sampled.set(sample);
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }

    /// The text of `docs/metrics.md`: every name with its kind and meaning.
    pub fn reference() -> String {
        let mut out = String::from(REFERENCE_HEAD);
        for Described { name, kind, help } in Self::new(UnixMs(0)).described {
            let _ = writeln!(out, "| `{name}` | {kind} | {help} |");
        }
        out
    }

    /// A read of a publisher's socket gave this many bytes.
    pub fn ingested(&self, bytes: usize) {
        self.ingest_bytes.inc_by(bytes as u64);
        self.ingest_reads.inc();
    }

    /// Bytes that publishers' sockets have given, and in how many reads.
    #[cfg(test)]
    pub(crate) fn ingest(&self) -> (u64, u64) {
        (self.ingest_bytes.get(), self.ingest_reads.get())
    }

    /// A due grid was moved away from a crowd.
    pub fn phase_moved(&self) {
        self.phase_moves.inc();
    }

    /// Due grids that were moved so far.
    #[cfg(test)]
    pub(crate) fn phases_moved(&self) -> u64 {
        self.phase_moves.get()
    }

    /// An entry point was chosen for this many dues.
    pub fn picked(&self, dues: usize) {
        self.picked.inc_by(dues as u64);
    }

    /// An entry point waited this long, from its last byte to a worker taking it.
    pub fn render_waited(&self, waited: Duration) {
        self.render_wait.observe(waited.as_secs_f64());
    }

    /// A worker made a picture.
    pub fn rendered(&self, timings: &crate::render::Timings) {
        let seconds = |micros: u32| f64::from(micros) / 1e6;
        self.decode.observe(seconds(timings.decode_us));
        self.scale.observe(seconds(timings.scale_us));
        self.encode.observe(seconds(timings.encode_us));
    }

    /// `snapshots` of one entry point are durable, this long after its last byte.
    pub fn committed(&self, snapshots: usize, since_arrival: Duration) {
        self.snapshots.inc_by(snapshots as u64);
        self.commit.observe(since_arrival.as_secs_f64());
    }

    /// A picture that somebody asked for is durable. How old its entry point was says nothing about us.
    pub fn committed_on_demand(&self) {
        self.snapshots.inc();
    }

    /// A receiver answered 200 to a first attempt, this long after the entry point's last byte.
    pub fn announced(&self, since_arrival: Duration) {
        self.frame_to_callback.observe(since_arrival.as_secs_f64());
    }

    pub(super) fn session_began(&self) {
        self.sessions.inc();
    }

    pub(super) fn session_ended(&self, reason: &'static str) {
        self.session_ends.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refusals.get_or_create(&CodeLabel::new(refusal.code(), refusal.name())).inc();
    }

    pub(super) fn render_failed(&self, reason: &'static str) {
        self.render_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn put_ended(&self, outcome: &'static str, took: Duration) {
        self.puts.get_or_create(&OutcomeLabel { outcome }).inc();
        self.put.observe(took.as_secs_f64());
    }

    pub(super) fn attempt_ended(&self, event_type: u16, outcome: &'static str, took: Duration) {
        self.attempts.get_or_create(&AttemptLabel { event_type, outcome }).inc();
        self.attempt.observe(took.as_secs_f64());
    }

    /// So many endpoints are overdue, and the oldest due delivery has been due for so long.
    pub fn overdue(&self, endpoints: usize, oldest: Duration) {
        self.endpoints_overdue.set(endpoints as u64);
        self.oldest_due_age.set(oldest.as_secs_f64());
    }

    pub(crate) fn given_up(&self) {
        self.dead_letters.inc();
    }

    pub(super) fn login_refused(&self) {
        self.logins_refused.inc();
    }

    pub(crate) fn handshake_ended(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn certificate_read(&self, outcome: &'static str) {
        self.certificate_reads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

/// One line of the reference.
#[derive(Debug)]
struct Described {
    name: String,
    kind: &'static str,
    help: String,
}

/// Registers metrics and hands each out in the same step, so that none can be counted and not shown.
struct Page {
    registry: Registry,
    described: Vec<Described>,
}

impl Page {
    /// Adds a metric. The registry appends the unit and, for counters, `_total` to the name; so does the reference.
    fn add<M>(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M
    where
        M: prometheus_client::registry::Metric + TypedMetric + Clone,
    {
        let suffix = unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let (kind, total) = match M::TYPE {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Gauge => ("gauge", ""),
            MetricType::Histogram => ("histogram", ""),
            MetricType::Info | MetricType::Unknown => ("unknown", ""),
        };
        let name_on_page = format!("framehook_{name}{suffix}{total}");
        self.described.push(Described { name: name_on_page, kind, help: help.to_owned() });
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
            None => self.registry.register(name, help, metric.clone()),
        }
        metric
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, None, Counter::default())
    }

    fn counter_bytes(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Some(Unit::Bytes), Counter::default())
    }

    fn counter_seconds(&mut self, name: &str, help: &str) -> Counter<f64, AtomicU64> {
        self.add(name, help, Some(Unit::Seconds), Counter::default())
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge<u64, AtomicU64> {
        self.add(name, help, None, Gauge::default())
    }

    fn gauge_bytes(&mut self, name: &str, help: &str) -> Gauge<u64, AtomicU64> {
        self.add(name, help, Some(Unit::Bytes), Gauge::default())
    }

    fn gauge_seconds(&mut self, name: &str, help: &str) -> Gauge<f64, AtomicU64> {
        self.add(name, help, Some(Unit::Seconds), Gauge::default())
    }

    fn maybe_gauge<T>(&mut self, name: &str, unit: Option<Unit>, help: &str) -> MaybeGauge<T>
    where
        T: EncodeGaugeValue + Clone + Debug + Send + 'static,
    {
        let help = format!("{help}; left out while the database does not answer");
        self.add(name, &help, unit, MaybeGauge::unknown())
    }

    fn family<L>(&mut self, name: &str, help: &str) -> Family<L, Counter>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
    {
        self.add(name, help, None, Family::default())
    }

    fn histogram(&mut self, name: &str, help: &str) -> Histogram {
        self.add(name, help, Some(Unit::Seconds), Histogram::new(SECONDS_BUCKETS))
    }
}

#[cfg(test)]
mod tests {
    use framehook_domain::id::{DeliveryId, uuid_v7};

    use super::*;
    use crate::clock::Clock;
    use crate::db::DbStats;
    use crate::telemetry::Telemetry;
    use crate::telemetry::event::{AttemptEnded, Next, PublishRefused};

    fn value(page: &str, series: &str) -> String {
        let line = page.lines().find(|line| line.split(' ').next() == Some(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in:\n{page}"));
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_reference_names_series_as_the_page_does() {
        let metrics = Metrics::new(UnixMs(0));
        let page = metrics.page(&Sample::default());
        for name in ["framehook_spool_bytes", "framehook_due_total", "framehook_db_commit_seconds_total"] {
            assert_eq!(value(&page, name).parse(), Ok(0.0), "{name}");
            assert!(metrics.described.iter().any(|described| described.name == name), "{name}");
        }
        assert!(page.contains("\nframehook_build_info{"), "{page}");
    }

    #[test]
    fn a_sample_is_shown_as_it_is() {
        let metrics = Metrics::new(UnixMs(1_735_689_600_500));
        let mut sample = Sample {
            due: 10,
            taken: 7,
            skipped: vec![("renderer_busy", 2), ("corrupt", 0)],
            open: 1,
            owed: Some(Owed { puts: 3, delivery_oldest_age: Duration::from_millis(1500), ..Owed::default() }),
            db: DbStats { commit_time: Duration::from_millis(250), ..DbStats::default() },
            buckets: vec![BucketSample { store: "s".into(), bucket: "b".into(), owed: 4, is_taking: false }],
            ..Sample::default()
        };
        let page = metrics.page(&sample);
        assert_eq!(value(&page, "framehook_bucket_owed{store=\"s\",bucket=\"b\"}"), "4");
        assert_eq!(value(&page, "framehook_bucket_taking{store=\"s\",bucket=\"b\"}"), "0");
        assert_eq!(value(&page, "framehook_due_total"), "10");
        assert_eq!(value(&page, "framehook_taken_total"), "7");
        assert_eq!(value(&page, "framehook_skipped_total{reason=\"renderer_busy\"}"), "2");
        assert_eq!(value(&page, "framehook_skipped_total{reason=\"corrupt\"}"), "0");
        assert_eq!(value(&page, "framehook_open_dues"), "1");
        assert_eq!(value(&page, "framehook_delivery_oldest_age_seconds"), "1.5");
        assert_eq!(value(&page, "framehook_puts_owed"), "3");
        assert_eq!(value(&page, "framehook_db_commit_seconds_total"), "0.25");
        assert_eq!(value(&page, "framehook_process_start_time_seconds"), "1735689600.5");
        (sample.due, sample.owed, sample.buckets) = (11, None, Vec::new());
        let page = metrics.page(&sample);
        assert!(!page.contains("store=\"s\""), "a bucket that is gone: {page}");
        assert_eq!(value(&page, "framehook_due_total"), "11");
        for name in ["puts_owed", "puts_held", "deliveries_owed", "deliveries_dead", "delivery_oldest_age_seconds"] {
            assert!(!page.lines().any(|line| line.starts_with(&format!("framehook_{name} "))), "{name} in:\n{page}");
        }
    }

    #[test]
    fn every_refusal_and_failure_is_there_before_its_first_time() {
        let page = Metrics::new(UnixMs(0)).page(&Sample::default());
        for refusal in Refusal::ALL {
            let series =
                format!("framehook_refusals_total{{code=\"{}\",reason=\"{}\"}}", refusal.code(), refusal.name());
            assert_eq!(value(&page, &series), "0");
        }
        for reason in RenderError::reasons() {
            assert_eq!(value(&page, &format!("framehook_render_failures_total{{reason=\"{reason}\"}}")), "0");
        }
        for series in [
            "framehook_session_ends_total{reason=\"silent\"}",
            "framehook_puts_total{outcome=\"stored\"}",
            "framehook_puts_total{outcome=\"refused\"}",
            "framehook_attempts_total{event_type=\"0\",outcome=\"status\"}",
            "framehook_attempts_total{event_type=\"200\",outcome=\"delivered\"}",
        ] {
            assert_eq!(value(&page, series), "0");
        }
    }

    #[test]
    fn an_event_moves_its_counter_each_time_though_its_line_is_written_once() {
        let telemetry = Telemetry::new(Clock::start());
        let attempt = AttemptEnded {
            trace: None,
            delivery: DeliveryId(uuid_v7(UnixMs(0), [0; 10])),
            event_type: 200,
            endpoint: "https://receiver.example/***",
            attempt: 6,
            outcome: "timeout",
            status: None,
            took: Duration::from_secs(20),
            error: Some("no answer"),
            next: Next::Dead,
        };
        attempt.emit(&telemetry);
        attempt.emit(&telemetry);
        let peer = "192.0.2.1:50000".parse().expect("an address");
        PublishRefused { peer, tried: "a/b/c", refusal: Refusal::Expired }.emit(&telemetry);
        let page = telemetry.metrics.page(&Sample::default());
        assert_eq!(value(&page, "framehook_attempts_total{event_type=\"200\",outcome=\"timeout\"}"), "2");
        assert_eq!(value(&page, "framehook_dead_letters_total"), "2");
        assert_eq!(value(&page, "framehook_attempt_seconds_count"), "2");
        assert_eq!(value(&page, "framehook_refusals_total{code=\"18/501\",reason=\"expired\"}"), "1");
    }
}
