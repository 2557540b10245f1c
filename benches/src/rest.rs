//! `bench rest`: what the server itself spends on a picture beside rendering it: commit, store, notify, metrics.
//!
//! The same streams with the same dues are published to two servers: one takes the pictures, the other has been told to leave
//! more of the disk free than there is, so that it sheds every due once it is picked. Both read ahead of a due, put the
//! keyframe together and pick it; the server's own process does everything but decode and encode. So the difference of its
//! CPU time over the pictures is what follows the pick, and nothing in the product is switched off for it.

mod bare;
mod report;
mod threads;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use framehook_testkit::receiver::{Receiver, Request};
use serde::Serialize;
use tempfile::TempDir;

use self::bare::Way;
use self::report::Report;
use self::threads::ThreadTimes;
use crate::clip::{self, GOP_SECONDS};
use crate::document::Section;
use crate::load::{Load, LoadReport};
use crate::machine::{self, Machine};
use crate::packages::{self, Need};
use crate::page::{Purpose, Verdict};
use crate::picture;
use crate::subject::{INTERVAL, Subject, framehook_config};
use crate::workshop::Workshop;

const SECTION: Section = Section("rest");

/// More than disks have free, and the most that the setting takes.
const RESERVE_OF_ALL: &str = "1TiB";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Streams, each with a picture every ten seconds [default: 200, which is 20 pictures a second; with --quick: 50]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=2000))]
    streams: Option<u32>,
    /// Length of one measurement, a multiple of 10 [default: 30; with --quick: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: Option<u64>,
    /// Measurements of each [default: 5; with --quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Few streams and one round: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

/// What becomes of the dues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Dues {
    Taken,
    /// Skipped as `spool_full`.
    Shed,
}

/// One run of the server.
#[derive(Clone, Debug, Serialize)]
struct Run {
    dues: Dues,
    round: u32,
    seconds: f64,
    /// Of the server's process without its workers.
    cpu_ms: f64,
    /// The part of it that threads of each name took. Those that ended within the window are in none.
    threads: ThreadTimes,
    /// Callbacks of stored pictures.
    pictures: usize,
    /// Bytes of their images, on the average.
    image_bytes: usize,
    /// Dues that were skipped because the disk was full.
    shed: f64,
    load: LoadReport,
}

/// What is measured in the same round beside the server, in ms of CPU for one picture.
#[derive(Clone, Copy, Debug, Serialize)]
struct Beside {
    round: u32,
    /// What hands a keyframe to a worker and takes the image back, in the server's own process.
    channel_ms: f64,
    /// The same files, names, syncs and pages of a log, by a thread that does nothing else.
    disk_ms: f64,
    /// The fewest of them that make a picture and a note of it durable, by such a thread.
    fewest_ms: f64,
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    packages::require(&[Need::Ffmpeg])?;
    let clip = clip::HD720.make(workshop)?;
    let quick = options.quick;
    let streams = options.streams.unwrap_or(if quick { 50 } else { 200 });
    let window = Duration::from_secs(options.seconds.unwrap_or(if quick { 10 } else { 30 }));
    let (mut runs, mut besides, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds.unwrap_or(if quick { 1 } else { 5 }) {
        let mut turn = [Dues::Taken, Dues::Shed];
        if round % 2 == 0 {
            turn.reverse();
        }
        for dues in turn {
            let run = measure(workshop, &clip, (streams, window), dues, round)?;
            eprintln!("round {round}: {:.0} ms, {} pictures taken, {} shed", run.cpu_ms, run.pictures, run.shed);
            if run.dues == Dues::Taken {
                let (beside, files) = measure_beside(workshop, &clip, &run, window)?;
                besides.push(beside);
                // They stay until all is measured, like the servers'.
                written.push(files);
            }
            runs.push(run);
        }
    }
    let report = Report::new(Machine::look(workshop, &[Subject::Framehook]), streams, besides, runs);
    report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))
}

fn measure(
    workshop: &Workshop,
    clip: &Path,
    (streams, window): (u32, Duration),
    dues: Dues,
    round: u32,
) -> Result<Run> {
    let receiver = Receiver::start()?;
    let server = workshop.server()?.config(config(dues, &receiver)).start()?;
    // They join over an interval, so that pictures fall due evenly, and have another one to run evenly.
    let before = INTERVAL + INTERVAL + Duration::from_secs(u64::from(GOP_SECONDS));
    let duration = before + window + Duration::from_secs(2);
    let mut load =
        Load { streams, ramp: INTERVAL, ..Load::of(clip, duration) }.start(workshop, server.rtmp_address())?;
    std::thread::sleep(before);
    load.check()?;
    let shed = || anyhow::Ok(server.metrics()?.sum("framehook_skipped_total", &[("reason", "spool_full")]));
    let (shed_before, pictures_before) = (shed()?, pictures(&receiver));
    let threads = ThreadTimes::of(server.process().pid())?;
    let (began, cpu_before) = (Instant::now(), machine::process_cpu(server.process().pid())?);
    std::thread::sleep(window);
    let (ended, cpu_after) = (Instant::now(), machine::process_cpu(server.process().pid())?);
    let threads = ThreadTimes::of(server.process().pid())?.since(&threads);
    let image_bytes = image_bytes(&receiver);
    let (pictures, shed) = (pictures(&receiver) - pictures_before, shed()? - shed_before);
    ensure!(
        dues == Dues::Taken || pictures == 0 && shed > 0.0,
        "{pictures} pictures were taken and {shed} shed, of a server that was to leave {RESERVE_OF_ALL} free: has this disk more?"
    );
    load.check()?;
    Ok(Run {
        dues,
        round,
        seconds: (ended - began).as_secs_f64(),
        cpu_ms: cpu_after.checked_sub(cpu_before).context("a process lost CPU time")?.as_secs_f64() * 1000.0,
        threads,
        pictures,
        image_bytes,
        shed,
        load: load.finish()?,
    })
}

/// What can be told apart of a run that has just been, in the same minute: neighbours on the machine come and go. Gives the
/// files that were written, too.
fn measure_beside(workshop: &Workshop, clip: &Path, run: &Run, window: Duration) -> Result<(Beside, TempDir)> {
    let channel_ms = picture::pool_server_ms(workshop, clip)?;
    let files = TempDir::with_prefix("framehook-bench-").context("make a folder")?;
    let per_second = run.pictures as f64 / run.seconds;
    let disk_ms = |name, way| {
        let dir = files.path().join(name);
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        bare::disk_ms_per_picture(&dir, way, run.image_bytes, per_second, window)
    };
    let (disk_ms, fewest_ms) = (disk_ms("ours", Way::Ours)?, disk_ms("fewest", Way::Fewest)?);
    Ok((Beside { round: run.round, channel_ms, disk_ms, fewest_ms }, files))
}

fn pictures(receiver: &Receiver) -> usize {
    receiver.requests().iter().filter(|request| request.event_type() == Some(200)).count()
}

/// Of all pictures so far, on the average.
fn image_bytes(receiver: &Receiver) -> usize {
    let size = |request: &Request| request.json().ok()?.get("file_size")?.as_u64();
    let sizes: Vec<u64> = receiver.requests().iter().filter_map(size).collect();
    (sizes.iter().sum::<u64>() / (sizes.len() as u64).max(1)) as usize
}

/// As in `bench cost`, and everybody is told of every picture.
fn config(dues: Dues, receiver: &Receiver) -> String {
    let spool = match dues {
        Dues::Taken => String::new(),
        Dues::Shed => format!("[spool]\ndisk_reserve = \"{RESERVE_OF_ALL}\"\n"),
    };
    let callbacks = format!(
        r#"
[[callback_template]]
name = "receiver"
callback_key = "keyOfTheBenchmark"
snapshot_notify_url = "{}"

[[callback_rule]]
domain = "127.0.0.1"
template = "receiver"
"#,
        receiver.url("/")
    );
    spool + &framehook_config(Some(INTERVAL)) + &callbacks
}
