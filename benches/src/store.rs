//! `bench store`: what a put costs and how long it takes, for each kind of store, beside the vendors' SDKs and `rclone`.
//!
//! Everybody puts the same picture into a store that answers at once ([`stand_in`]). Of the server everything is counted that
//! it does for a put, the database and the spool included, since that is what a user pays; of the others nothing but reading,
//! signing and sending.

mod report;
mod rivals;
mod spooled;
mod stand_in;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use self::report::Report;
use self::stand_in::StandIn;
use crate::document::Section;
use crate::latency::Delays;
use crate::machine::Machine;
use crate::packages::{self, Need};
use crate::page::{Purpose, Verdict};
use crate::subject::Subject;
use crate::workshop::{Workshop, output};

const SECTION: Section = Section("store");

/// About a 720p JPEG.
const PICTURE_BYTES: usize = 100 << 10;

const BUCKET: &str = "shots-1250000000";

/// What the server gives to a backlog of its 16 slots, and so everybody's puts at a time when all are due at once.
const AT_A_TIME: usize = 8;

/// One after another: what a machine with 200 streams and a picture of each every 10 s puts.
const PER_SEC: u32 = 20;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measurements of each client [default: 5; with --quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Few puts and one round: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

/// Where pictures go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Local,
    S3,
    Cos,
}

impl Place {
    fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "S3",
            Self::Cos => "COS",
        }
    }

    /// What the server calls it.
    fn store(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
            Self::Cos => "cos",
        }
    }

    fn region(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "us-east-1",
            Self::Cos => "ap-guangzhou",
        }
    }
}

/// Who puts them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Client {
    Framehook,
    Sdk,
    Rclone,
}

/// Nobody but the server keeps pictures in its data directory, and of rclone COS is one more S3.
const SUBJECTS: [(Place, Client); 6] = [
    (Place::Local, Client::Framehook),
    (Place::S3, Client::Framehook),
    (Place::S3, Client::Sdk),
    (Place::S3, Client::Rclone),
    (Place::Cos, Client::Framehook),
    (Place::Cos, Client::Sdk),
];

fn label((place, client): (Place, Client)) -> &'static str {
    match (client, place) {
        (Client::Framehook, _) => "framehook serve",
        (Client::Sdk, Place::Cos) => "cos-python-sdk-v5",
        (Client::Sdk, _) => "boto3",
        (Client::Rclone, _) => "rclone",
    }
}

/// When puts are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Pace {
    /// Evenly, so that none waits for another. `rclone` is started as soon as the one before has ended.
    PerSec(u32),
    AtOnce,
}

impl Pace {
    /// From the first due to this one.
    fn after(self, number: usize) -> Duration {
        match self {
            Self::PerSec(per_sec) => Duration::from_secs_f64(number as f64 / f64::from(per_sec)),
            Self::AtOnce => Duration::ZERO,
        }
    }
}

/// A put from its due to its end, both in microseconds of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    due_us: u64,
    ended_us: u64,
}

/// One client, once.
#[derive(Clone, Debug, Serialize)]
struct Measurement {
    place: Place,
    client: Client,
    pace: Pace,
    round: u32,
    puts: usize,
    cpu_ms_per_put: f64,
    /// From due to taken. `None` where a put's due is not known, as of a folder's files.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// Of the middle eight tenths of the puts.
    per_sec: f64,
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    packages::require(&[Need::Rclone])?;
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let mut machine = Machine::look(workshop, &[Subject::Framehook]);
    machine.versions.extend(output("rclone", ["version"])?.lines().next().map(str::to_owned));
    let mut measurements = Vec::new();
    for pace in [Pace::PerSec(PER_SEC), Pace::AtOnce] {
        for round in 1..=rounds {
            let mut turn = SUBJECTS;
            if round % 2 == 0 {
                turn.reverse();
            }
            for subject in turn {
                let puts = puts(subject.1, pace, options.quick);
                let (measurement, version) = measure(workshop, subject, (puts, pace), round)
                    .with_context(|| format!("measure {} with {}", subject.0.label(), label(subject)))?;
                eprintln!(
                    "{pace:?}, round {round}: {} with {}: {:.2} ms per put, {:.0}/s",
                    subject.0.label(),
                    label(subject),
                    measurement.cpu_ms_per_put,
                    measurement.per_sec
                );
                measurements.push(measurement);
                machine.versions.extend(version.filter(|version| !machine.versions.contains(version)));
            }
        }
    }
    let report = Report::new(machine, rounds, measurements);
    report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))
}

/// How many: a few seconds of each, and of a program that starts for each put fewer.
fn puts(client: Client, pace: Pace, quick: bool) -> usize {
    match (client, pace, quick) {
        (Client::Rclone, Pace::PerSec(_), false) => 40,
        (Client::Rclone, Pace::PerSec(_), true) => 4,
        (_, Pace::PerSec(_), false) => 400,
        (_, Pace::PerSec(_), true) => 60,
        (_, Pace::AtOnce, false) => 2000,
        (_, Pace::AtOnce, true) => 200,
    }
}

fn measure(
    workshop: &Workshop,
    (place, client): (Place, Client),
    (puts, pace): (usize, Pace),
    round: u32,
) -> Result<(Measurement, Option<String>)> {
    let store = StandIn::start()?;
    let folder = TempDir::with_prefix("framehook-bench-").context("make a folder")?;
    let picture = picture();
    // Of a folder as many as are put; otherwise one is enough.
    let files = if (client, pace) == (Client::Rclone, Pace::AtOnce) { puts } else { 1 };
    for number in 0..files {
        std::fs::write(folder.path().join(format!("{number}.jpg")), &picture).context("write a picture")?;
    }
    let (cpu, local, version) = match client {
        Client::Framehook => {
            let spooled = spooled::put(workshop, place, store.address(), &picture, (puts, pace))?;
            (spooled.cpu, (place == Place::Local).then_some(spooled.written_down), None)
        }
        Client::Sdk => {
            let picture = folder.path().join("0.jpg");
            let rival = rivals::sdk(workshop, place, store.address(), &picture, (puts, pace))?;
            (rival.cpu(), None, Some(rival.name))
        }
        Client::Rclone => (rivals::rclone(store.address(), folder.path(), (puts, pace))?.cpu(), None, None),
    };
    let (mut delays, mut ended_us) = (Vec::new(), Vec::new());
    match local {
        Some(written_down) => {
            delays.extend(written_down.iter().map(Ended::took));
            ended_us.extend(written_down.iter().map(|put| put.ended_us));
        }
        None => {
            let taken = store.taken();
            let known = taken.iter().filter_map(|put| Some(Ended { due_us: put.due_us?, ended_us: put.answered_us }));
            delays.extend(known.map(|put| put.took()));
            ended_us.extend(taken.iter().map(|put| put.answered_us));
        }
    }
    // An SDK's first put is one more.
    let expected = puts + usize::from(client == Client::Sdk);
    ensure!(ended_us.len() == expected, "{} of {expected} puts arrived", ended_us.len());
    let measurement = Measurement {
        place,
        client,
        pace,
        round,
        puts,
        cpu_ms_per_put: cpu.as_secs_f64() * 1000.0 / puts as f64,
        p50_ms: quantile_ms(&delays, 0.5),
        p99_ms: quantile_ms(&delays, 0.99),
        per_sec: per_sec(ended_us),
    };
    Ok((measurement, version))
}

/// Bytes that do not shrink, as those of a JPEG.
fn picture() -> Vec<u8> {
    (0..PICTURE_BYTES as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

impl Ended {
    fn took(&self) -> Duration {
        Duration::from_micros(self.ended_us.saturating_sub(self.due_us))
    }
}

fn quantile_ms(delays: &[Duration], part: f64) -> Option<f64> {
    (!delays.is_empty()).then(|| Delays::of(delays.to_vec()).quantile(part).as_secs_f64() * 1000.0)
}

fn per_sec(mut ended_us: Vec<u64>) -> f64 {
    ended_us.sort_unstable();
    let (from, to) = (ended_us.len() / 10, ended_us.len() * 9 / 10);
    match (ended_us.get(from), ended_us.get(to)) {
        (Some(first), Some(last)) if last > first => (to - from) as f64 * 1e6 / (last - first) as f64,
        _ => f64::NAN,
    }
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_middle() {
        // Ten a second, but for a first one that came late and a last one that came later.
        let mut ended_us: Vec<u64> = (0..20).map(|number| number * 100_000).collect();
        ended_us[0] = 50_000;
        ended_us[19] = 9_000_000;
        assert_eq!(per_sec(ended_us), 10.0);
        assert!(per_sec(Vec::new()).is_nan());
    }
}
