//! `bench picture`: what a picture costs through the server's render pool, beside the same code called directly, and beside
//! the same libraries called directly.
//!
//! All three make the same pictures of the same keyframes, one directly after the other, each in processes of its own that
//! do nothing else and measure their own CPU time. They take turns, many and short ones: what is divided ran within seconds
//! of each other, and the median of many such ratios tells a hundredth where single figures lie a tenth apart.

mod report;
mod ways;

use anyhow::Result;
use clap::Args;

use self::report::Report;
use self::ways::{Keyframes, SIZES, Taken, WAYS};
use crate::clip;
use crate::document::Section;
use crate::machine::Machine;
use crate::page::{Purpose, Verdict};
use crate::subject::{self, Subject};
use crate::workshop::{Workshop, output};

pub(crate) use self::ways::pool_server_ms;

const SECTION: Section = Section("picture");

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measurements of each way at each size [default: 32; with --quick: 4]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200))]
    rounds: Option<u32>,
    /// Few rounds: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    subject::prepare(workshop, &[Subject::Floor])?;
    let clip = clip::HD720.make(workshop)?;
    let keyframes = Keyframes::of(&clip)?;
    let mut taken: Vec<Taken> = Vec::new();
    // An even number, so that either order comes as often.
    for round in 1..=options.rounds.unwrap_or(if options.quick { 4 } else { 32 }) {
        let mut turn: Vec<_> = SIZES.into_iter().flat_map(|size| WAYS.map(|way| (size, way))).collect();
        // So that none is always the one that runs after another.
        if round % 2 == 0 {
            turn.reverse();
        }
        for (size, way) in turn {
            let one = way.take(workshop, &keyframes, size, round)?;
            eprintln!("round {round}: {}, {}: {:.2} ms", size.label(), way.label(), one.ms());
            taken.push(one);
        }
    }
    let mut machine = Machine::look(workshop, &[Subject::Floor]);
    let worker = workshop.executable("framehook-render", "cargo build --release")?;
    machine.versions.push(output(&worker.to_string_lossy(), ["--version"])?.trim().to_owned());
    let report = Report::new(machine, keyframes.count(), taken);
    report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))
}
