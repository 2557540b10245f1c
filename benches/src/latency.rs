//! `bench latency`: from a keyframe's last byte on the wire to its picture in the store, and to its callback at the receiver.
//!
//! A few streams get a picture of each keyframe, and all of these are timed: once with nobody else there, and once beside
//! as many streams with a picture every ten seconds as it takes to keep the asked part of all cores busy. Then the recipes take
//! their turns, with nobody else there.

mod background;
mod least;
mod recipe;
mod report;
mod shown;
mod timed;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::Server;

use self::background::Background;
use self::least::Least;
use self::recipe::RECIPES;
use self::report::{Measured, Report, Row};
use self::timed::Timed;
use self::watch::{Watch, Whole};
use crate::clip::{self, GOP_SECONDS};
use crate::document::Section;
use crate::load::LoadReport;
use crate::machine::{self, Machine};
use crate::page::{Purpose, Verdict};
use crate::subject::{self, INTERVAL, Subject};
use crate::workshop::Workshop;

const SECTION: Section = Section("latency");
const GOP: Duration = Duration::from_secs(GOP_SECONDS as u64);

/// The app of the streams that are timed; its rule is more specific than the one of the others.
const TIMED_APP: &str = "timed";

/// The systems of a run, and what their programs are of.
const SUBJECTS: [Subject; 4] = [Subject::Floor, Subject::Framehook, Subject::Tuned, Subject::Gstreamer];

/// How far above the asked load is aimed, as a part of all cores: the streams that are to make it join after a look of ten
/// seconds at what others cost, which may be a little off.
const AIM_ABOVE: f64 = 0.02;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Streams that are timed, each with a picture every two seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    streams: u32,
    /// Percent of all cores that are to be busy in the second measurement
    #[arg(long, default_value_t = 40, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(5..=95))]
    load: u32,
    /// Length of the first measurement; the busy one is twice as long, those of the recipes a third or a sixth [default: 60;
    /// with --quick: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(4..=600))]
    seconds: Option<u64>,
    /// Short measurements: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

impl Options {
    fn window(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 10 } else { 60 }))
    }

    /// With ten streams 600 pictures, of which six are above p99.
    fn busy_window(&self) -> Duration {
        self.window() * 2
    }
}

/// Delays in ascending order.
pub(crate) struct Delays(Vec<Duration>);

impl Delays {
    pub(crate) fn of(mut delays: Vec<Duration>) -> Self {
        delays.sort_unstable();
        Self(delays)
    }

    /// The smallest delay that so large a part of them does not exceed (nearest rank).
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    subject::prepare(workshop, &SUBJECTS)?;
    let clip = clip::HD720.make(workshop)?;
    eprintln!("what each recipe makes of the clip's pictures");
    let recipes = RECIPES.map(|recipe| recipe.prepare(workshop, &clip)).into_iter().collect::<Result<Vec<_>>>()?;
    let least = Least::measure(workshop, &clip)?;
    // First, because what the recipes write is not synced, and the kernel writes it to the disk later.
    let (rows, others) = measure_own(workshop, options, &clip)?;
    let mut rivals = Vec::new();
    for recipe in recipes {
        let rival = recipe.measure(workshop, options.streams, options.window());
        rivals.push(rival.with_context(|| format!("measure {}", recipe.label()))?);
    }
    let asked = f64::from(options.load) / 100.0;
    let machine = Machine::look(workshop, &SUBJECTS);
    let report = Report::new(machine, options.streams, asked, Measured { rows, rivals, least, others });
    report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))
}

/// Alone, then loaded, and how the others fared.
fn measure_own(workshop: &Workshop, options: &Options, clip: &Path) -> Result<([Row; 2], Vec<LoadReport>)> {
    let receiver = Receiver::start()?;
    let server = workshop.server()?.config(config(&receiver)).start()?;
    let timed = Timed::start(clip, server.rtmp_address(), TIMED_APP, options.streams)?;
    // First pictures are taken while everybody joins, and the store makes its folders for them.
    std::thread::sleep(GOP);
    let watch = Watch::start(&server.data_dir().join("objects"), Whole::Named)?;
    let system = System { timed, receiver, watch, server };

    let (window, busy_window) = (options.window(), options.busy_window());
    eprintln!("{} streams alone, {} s", options.streams, window.as_secs());
    let alone = system.measure(0, window)?;
    let target = f64::from(machine::cores()) * (f64::from(options.load) / 100.0 + AIM_ABOVE);
    let background =
        Background::start(workshop, clip, system.server.rtmp_address(), (alone.cores_busy, target), busy_window)?;
    eprintln!("beside {} others, {} s", background.streams(), busy_window.as_secs());
    let loaded = system.measure(background.streams(), busy_window)?;
    Ok(([alone, loaded], background.finish()?))
}

/// What runs through both measurements.
struct System {
    timed: Timed,
    receiver: Receiver,
    watch: Watch,
    server: Server,
}

impl System {
    /// Times every keyframe that leaves within the window, beside so many other streams.
    fn measure(&self, others: u32, window: Duration) -> Result<Row> {
        let skipped = || anyhow::Ok(self.server.metrics()?.sum("framehook_skipped_total", &[]));
        let (began, busy_before, skipped_before) = (Instant::now(), machine::busy()?, skipped()?);
        std::thread::sleep(window);
        let ended = Instant::now();
        let cores_busy = (machine::busy()? - busy_before).as_secs_f64() / (ended - began).as_secs_f64();
        // What has no callback by now is counted as missing; twice what is allowed to one in a hundred.
        std::thread::sleep(GOP);
        let objects = self.server.data_dir().join("objects");
        let (pictures, missing) =
            self.timed.pictures(&self.receiver.requests(), (&objects, &self.watch), began..ended)?;
        Ok(Row::new(others, cores_busy, &pictures, missing, skipped()? - skipped_before))
    }
}

/// Everybody publishes to the server's own address, which is therefore the push domain.
fn config(receiver: &Receiver) -> String {
    format!(
        r#"
[ingest]
connections_max = 8192
connections_per_address_max = 8192

[[domain]]
name = "127.0.0.1"
auth = "off"

[[snapshot_template]]
name = "every-keyframe"
snapshot_interval = "{GOP_SECONDS}s"

[[snapshot_template]]
name = "now-and-then"
snapshot_interval = "{}s"

[[callback_template]]
name = "receiver"
callback_key = "keyOfTheBenchmark"
snapshot_notify_url = "{}"

[[snapshot_rule]]
domain = "127.0.0.1"
app = "*"
template = "now-and-then"

[[snapshot_rule]]
domain = "127.0.0.1"
app = "{TIMED_APP}"
template = "every-keyframe"

[[callback_rule]]
domain = "127.0.0.1"
app = "*"
template = "receiver"
"#,
        INTERVAL.as_secs(),
        receiver.url("/")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let delays = Delays::of((1..=100).rev().map(Duration::from_millis).collect());
        let of = |part| delays.quantile(part).as_millis();
        assert_eq!([of(0.5), of(0.9), of(0.99), of(1.0), of(0.0)], [50, 90, 99, 100, 1]);
        assert_eq!(Delays::of(vec![Duration::from_millis(7)]).quantile(0.5), Duration::from_millis(7));
    }
}
