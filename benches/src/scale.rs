//! `bench scale`: what becomes of the cost of a stream when there are many, beside the plain sink, nginx-rtmp and the floor
//! program, and what happens when all publishers come at once or there are more than the machine can serve.

mod dues;
mod memory;
mod moments;
mod overload;
mod reconnect;
mod steady;
mod storm;

use std::path::Path;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::overload::Overload;
use self::steady::{Kind, Steady};
use self::storm::Storm;
use crate::clip;
use crate::document::Section;
use crate::machine::Machine;
use crate::notes;
use crate::page::{Page, Purpose, Verdict};
use crate::subject::{self, Subject};
use crate::workshop::Workshop;

const SECTION: Section = Section("scale");

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART", default_value = "receive,pictures,storm,overload")]
    parts: Vec<Part>,
    /// Measurements at each number of streams [default: 2; with --quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Publishers of the storm [default: 2000; with --quick: 200]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(20..=4000))]
    storm: Option<u32>,
    /// Streams of the overload, with a picture every two seconds of each [default: 1000; with --quick: 500]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(20..=4000))]
    overload: Option<u32>,
    /// Short windows and one round: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Cost per stream without rules, from 10 to 2,000 streams.
    Receive,
    /// Cost per stream with a picture every 30 s, from 10 to 1,000 streams.
    Pictures,
    /// Everybody at once, and then cut off and back at once.
    Storm,
    /// More pictures than the cores can make.
    Overload,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    receive: Option<Steady>,
    pictures: Option<Steady>,
    storm: Option<Storm>,
    overload: Option<Overload>,
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    ensure!(
        !options.update || Part::value_variants().iter().all(|part| options.wants(*part)),
        "--update needs all parts in the run"
    );
    let subjects = options.subjects();
    subject::prepare(workshop, &subjects)?;
    let clip = clip::SD360.make(workshop)?;
    let report = Report::measure(workshop, &clip, options, Machine::look(workshop, &subjects))?;
    report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// All that the parts start.
    fn subjects(&self) -> Vec<Subject> {
        let parts = [(Part::Receive, Kind::Receive), (Part::Pictures, Kind::Pictures)];
        let steady = parts.into_iter().filter(|(part, _)| self.wants(*part)).flat_map(|(_, kind)| kind.subjects());
        // Every part runs the server.
        steady.chain([Subject::Sparse]).collect()
    }
}

impl Report {
    fn measure(workshop: &Workshop, clip: &Path, options: &Options, machine: Machine) -> Result<Self> {
        let Options { quick, .. } = *options;
        let rounds = options.rounds.unwrap_or(if quick { 1 } else { 2 });
        let publishers = options.storm.unwrap_or(if quick { 200 } else { 2000 });
        let streams = options.overload.unwrap_or(if quick { 500 } else { 1000 });
        let mut report = Self { machine, receive: None, pictures: None, storm: None, overload: None };
        if options.wants(Part::Receive) {
            report.receive = Some(Steady::measure(workshop, clip, Kind::Receive, rounds, quick)?);
        }
        if options.wants(Part::Pictures) {
            report.pictures = Some(Steady::measure(workshop, clip, Kind::Pictures, rounds, quick)?);
        }
        if options.wants(Part::Storm) {
            report.storm = Some(Storm::measure(workshop, clip, publishers)?);
        }
        if options.wants(Part::Overload) {
            report.overload = Some(Overload::measure(workshop, clip, streams, quick)?);
        }
        Ok(report)
    }

    fn page(&self) -> Page {
        let mut page = Page { tables: Vec::new(), notes: vec![notes::describe(&self.machine)] };
        for steady in self.receive.iter().chain(&self.pictures) {
            page.tables.push(steady.table());
            page.notes.extend(steady.notes(&self.machine));
        }
        page.notes.extend(self.storm.iter().flat_map(Storm::notes));
        page.notes.extend(self.overload.iter().flat_map(Overload::notes));
        page
    }
}
