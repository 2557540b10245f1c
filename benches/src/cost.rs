//! `bench cost`: CPU time and memory per stream with one picture every 10 s of each stream.
//!
//! For each number of streams, every system is measured once in each round, in turn; what is reported is the median
//! over the rounds. A measurement starts the system, lets the publishers join over a ramp, waits until it runs evenly,
//! and then takes the difference of two readings of the CPU time of all its processes.

mod chart;
mod report;
mod summary;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use self::report::Report;
use crate::clip::{self, GOP_SECONDS};
use crate::load::{Load, LoadReport};
use crate::machine::{self, Machine};
use crate::packages::{self, Need};
use crate::subject::{self, INTERVAL, Running, Subject};
use crate::workshop::Workshop;

/// How often memory is looked at within the window. Reading the maps of forty processes takes some milliseconds, which
/// are ours and not counted.
const MEMORY_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Numbers of streams, separated by commas [default: 1,10,40,200; with --quick: 1,10,40]
    #[arg(long, value_delimiter = ',', value_name = "K", value_parser = clap::value_parser!(u32).range(1..=2000))]
    streams: Vec<u32>,
    /// Length of one measurement, a multiple of 10 [default: 60; with --quick: 20]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: Option<u64>,
    /// Measurements of each system at each number of streams [default: 5; with --quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Only these systems; the floor is always measured, because all are divided by it
    #[arg(long, value_delimiter = ',', value_name = "SYSTEM")]
    subjects: Vec<Subject>,
    /// Short windows and one round: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md and docs/streams-per-core.svg
    #[arg(long)]
    update: bool,
}

/// A run, with defaults filled in.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    streams: Vec<u32>,
    subjects: Vec<Subject>,
    rounds: u32,
    /// Over how long the publishers join: one interval, so that pictures fall due evenly and nobody works in bursts.
    ramp_s: u64,
    /// From the last publisher to the first reading: one interval and a GOP at least, so that whoever needs a first
    /// picture to get going has had it.
    settle_s: u64,
    window_s: u64,
}

impl Plan {
    fn new(options: &Options) -> Result<Self> {
        let quick = options.quick;
        let mut subjects = if options.subjects.is_empty() {
            Subject::ALL.to_vec()
        } else {
            options.subjects.iter().copied().chain([Subject::Floor]).collect()
        };
        subjects.sort_unstable();
        subjects.dedup();
        let mut streams = options.streams.clone();
        if streams.is_empty() {
            streams = if quick { vec![1, 10, 40] } else { vec![1, 10, 40, 200] };
        }
        let window_s = options.seconds.unwrap_or(if quick { 20 } else { 60 });
        ensure!(
            window_s.is_multiple_of(INTERVAL.as_secs()),
            "--seconds {window_s}: not a multiple of the {} s between two pictures",
            INTERVAL.as_secs()
        );
        Ok(Self {
            streams,
            subjects,
            rounds: options.rounds.unwrap_or(if quick { 1 } else { 5 }),
            ramp_s: INTERVAL.as_secs(),
            settle_s: INTERVAL.as_secs() + u64::from(GOP_SECONDS),
            window_s,
        })
    }

    /// What is measured, in order. Systems take turns within a round, and every other round goes backwards, so that
    /// none is always the one that runs after another.
    fn steps(&self) -> Vec<(u32, u32, Subject)> {
        let mut steps = Vec::new();
        for &streams in &self.streams {
            for round in 1..=self.rounds {
                let mut turn: Vec<Subject> = self.subjects.clone();
                turn.retain(|subject| streams <= subject.streams_max());
                if round % 2 == 0 {
                    turn.reverse();
                }
                steps.extend(turn.into_iter().map(|subject| (streams, round, subject)));
            }
        }
        steps
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(self.steps().len() as u64 * (self.ramp_s + self.settle_s + self.window_s + 2))
    }
}

/// One system at one number of streams, once.
#[derive(Clone, Debug, Serialize)]
struct Measurement {
    subject: Subject,
    streams: u32,
    round: u32,
    /// Between the two readings.
    seconds: f64,
    /// User and system time of all processes of the system.
    cpu_ms: f64,
    pictures: usize,
    /// Pictures that a grid of one in ten seconds gives.
    pictures_asked: f64,
    /// What the system says about those it left out.
    skipped: Vec<String>,
    /// Proportional set size of all processes before the first publisher.
    idle_bytes: u64,
    /// The most of it seen within the window.
    loaded_bytes: u64,
    /// Cores that were busy with anything else, the load generator included.
    others_cores: f64,
    accounting: &'static str,
    load: LoadReport,
    /// Of the floor only: CPU time of each step, mean over the window's pictures.
    floor_steps: Option<FloorSteps>,
}

/// ms of CPU time for one keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct FloorSteps {
    decode_ms: f64,
    convert_ms: f64,
    encode_ms: f64,
}

impl Measurement {
    fn ms_per_stream_second(&self) -> f64 {
        self.cpu_ms / (self.seconds * f64::from(self.streams))
    }

    fn bytes_per_stream(&self) -> f64 {
        self.loaded_bytes.saturating_sub(self.idle_bytes) as f64 / f64::from(self.streams)
    }
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<()> {
    let plan = Plan::new(options)?;
    ensure!(
        !options.update || plan.subjects == Subject::ALL,
        "--update needs all systems in the run: what is quoted stands side by side"
    );
    let needs: Vec<Need> = plan.subjects.iter().flat_map(|subject| subject.needs()).copied().collect();
    packages::require(&[&[Need::Ffmpeg], needs.as_slice()].concat())?;
    for subject in &plan.subjects {
        subject.prepare(workshop)?;
    }
    let clip = clip::hd720(workshop)?;

    let steps = plan.steps();
    eprintln!("{} measurements, about {} min", steps.len(), plan.longest().as_secs().div_ceil(60));
    let mut measurements = Vec::new();
    for (at, &(streams, round, subject)) in steps.iter().enumerate() {
        let measurement = measure(workshop, &clip, &plan, streams, round, subject)
            .with_context(|| format!("measure {} with {streams} streams", subject.label()))?;
        eprintln!(
            "{}/{}: {}, {streams} streams, round {round}: {:.2} ms per stream-second, {} pictures",
            at + 1,
            steps.len(),
            subject.label(),
            measurement.ms_per_stream_second(),
            measurement.pictures
        );
        measurements.push(measurement);
    }

    let report = Report::new(Machine::look(workshop, &plan.subjects), plan, measurements);
    println!("{}", report.text());
    let json = workshop.cache.join("cost.json");
    std::fs::write(&json, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("write {}", json.display()))?;
    println!("written: {}", json.display());
    if options.update {
        for path in report.update_docs(&workshop.repository)? {
            println!("updated: {}", path.display());
        }
    }
    Ok(())
}

fn measure(
    workshop: &Workshop,
    clip: &Path,
    plan: &Plan,
    streams: u32,
    round: u32,
    subject: Subject,
) -> Result<Measurement> {
    let running = subject.start(workshop, clip, streams)?;
    let idle_bytes = running.group.memory_bytes(running.root())?;
    let ramp = Duration::from_secs(plan.ramp_s);
    let window = Duration::from_secs(plan.window_s);
    let before = ramp + Duration::from_secs(plan.settle_s);
    let mut load = Load::start(workshop, clip, running.rtmp, streams, ramp, before + window + Duration::from_secs(2))?;
    std::thread::sleep(before);
    load.check()?;

    let begin = Reading::take(&running)?;
    let mut loaded_bytes = 0;
    while begin.at.elapsed() < window {
        loaded_bytes = loaded_bytes.max(running.group.memory_bytes(running.root())?);
        std::thread::sleep(MEMORY_EVERY.min(window.saturating_sub(begin.at.elapsed())));
    }
    let end = Reading::take(&running)?;
    load.check()?;
    let floor_steps = floor_steps(&running, begin.pictures, end.pictures);
    let skipped = running.skipped()?;
    let load = load.finish()?;

    let seconds = (end.at - begin.at).as_secs_f64();
    let cpu = end.cpu - begin.cpu;
    Ok(Measurement {
        subject,
        streams,
        round,
        seconds,
        cpu_ms: cpu.as_secs_f64() * 1000.0,
        pictures: end.pictures - begin.pictures,
        pictures_asked: f64::from(streams) * seconds / INTERVAL.as_secs_f64(),
        skipped,
        idle_bytes,
        loaded_bytes,
        others_cores: ((end.busy - begin.busy).as_secs_f64() - cpu.as_secs_f64()).max(0.0) / seconds,
        accounting: running.group.accounting(),
        load,
        floor_steps,
    })
}

/// Everything that is taken as a difference, read at one moment.
struct Reading {
    at: Instant,
    cpu: Duration,
    pictures: usize,
    /// CPU time of the whole machine.
    busy: Duration,
}

impl Reading {
    fn take(running: &Running) -> Result<Self> {
        let pictures = running.pictures()?;
        let busy = machine::busy()?;
        Ok(Self { at: Instant::now(), cpu: running.group.cpu(running.root())?, pictures, busy })
    }
}

fn floor_steps(running: &Running, from: usize, to: usize) -> Option<FloorSteps> {
    let pictures = running.floor_pictures();
    let window = pictures.get(from..to).filter(|window| !window.is_empty())?;
    let mean = |step: fn(&subject::FloorPicture) -> u64| {
        window.iter().map(step).sum::<u64>() as f64 / window.len() as f64 / 1000.0
    };
    Some(FloorSteps {
        decode_ms: mean(|picture| picture.decode_us),
        convert_ms: mean(|picture| picture.convert_us),
        encode_ms: mean(|picture| picture.encode_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        <Line as clap::Parser>::try_parse_from(["cost"].iter().chain(arguments)).unwrap().options
    }

    #[test]
    fn takes_turns_and_leaves_out_who_cannot_follow() {
        use Subject::{Floor, Framehook, Plain, Tuned};
        let plan = Plan::new(&options(&["--streams", "10,40", "--rounds", "2"])).unwrap();
        let steps = plan.steps();
        let expected = [
            (10, 1, Floor),
            (10, 1, Framehook),
            (10, 1, Tuned),
            (10, 1, Plain),
            (10, 2, Plain),
            (10, 2, Tuned),
            (10, 2, Framehook),
            (10, 2, Floor),
            (40, 1, Floor),
            (40, 1, Framehook),
            (40, 1, Tuned),
            (40, 2, Tuned),
            (40, 2, Framehook),
            (40, 2, Floor),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn always_measures_the_floor() {
        let plan = Plan::new(&options(&["--subjects", "tuned"])).unwrap();
        assert_eq!(plan.subjects, [Subject::Floor, Subject::Tuned]);
    }

    #[test]
    fn refuses_a_window_that_holds_a_broken_interval() {
        assert!(Plan::new(&options(&["--seconds", "25"])).unwrap_err().to_string().contains("--seconds 25"));
    }
}
