//! `bench cost`: CPU time and memory per stream with one picture every 10 s of each stream.
//!
//! For each number of streams, every system is measured once in each round, in turn; what is reported is the median
//! over the rounds.

mod chart;
mod readme;
mod report;

use anyhow::{Result, ensure};
use clap::Args;

use self::report::Report;
use crate::clip::{self, GOP_SECONDS};
use crate::document::Section;
use crate::machine::Machine;
use crate::measurement;
use crate::page::{Purpose, Verdict};
use crate::plan::Plan;
use crate::subject::{self, INTERVAL, Subject};
use crate::workshop::Workshop;

const SECTION: Section = Section("cost");

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Numbers of streams, separated by commas [default: 10,40,100; with --quick: 10,40]
    #[arg(long, value_delimiter = ',', value_name = "K", value_parser = clap::value_parser!(u32).range(1..=2000))]
    streams: Vec<u32>,
    /// Length of one measurement, a multiple of 10 [default: 30; with --quick: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: Option<u64>,
    /// Measurements of each system at each number of streams, at most three of the recipes with a process for each stream
    /// [default: 5; with --quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Only these systems; the floor is always measured, because all are divided by it
    #[arg(long, value_delimiter = ',', value_name = "SYSTEM")]
    subjects: Vec<Subject>,
    /// Short windows and one round: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md, README.md and docs/streams-per-core.svg
    #[arg(long)]
    update: bool,
}

impl Options {
    fn plan(&self) -> Result<Plan> {
        let quick = self.quick;
        let mut subjects = if self.subjects.is_empty() {
            Subject::WITH_PICTURES.to_vec()
        } else {
            self.subjects.iter().copied().chain([Subject::Floor]).collect()
        };
        subjects.sort_unstable();
        subjects.dedup();
        let mut streams = self.streams.clone();
        if streams.is_empty() {
            streams = if quick { vec![10, 40] } else { vec![10, 40, 100] };
        }
        let window_s = self.seconds.unwrap_or(if quick { 10 } else { 30 });
        ensure!(
            window_s.is_multiple_of(INTERVAL.as_secs()),
            "--seconds {window_s}: not a multiple of the {} s between two pictures",
            INTERVAL.as_secs()
        );
        Ok(Plan {
            streams,
            subjects,
            rounds: self.rounds.unwrap_or(if quick { 1 } else { 5 }),
            ramp_s: INTERVAL.as_secs(),
            settle_s: INTERVAL.as_secs() + u64::from(GOP_SECONDS),
            window_s,
        })
    }
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    let plan = options.plan()?;
    ensure!(
        !options.update || plan.subjects == Subject::WITH_PICTURES,
        "--update needs all systems in the run: what is quoted stands side by side"
    );
    subject::prepare(workshop, &plan.subjects)?;
    let clip = clip::HD720.make(workshop)?;
    let measurements = measurement::measure_all(workshop, &clip, &plan)?;
    let report = Report::new(Machine::look(workshop, &plan.subjects), plan, measurements);
    let verdict = report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))?;
    if options.update {
        println!("updated: {}", report.draw(&workshop.repository)?.display());
        println!("updated: {}", report.quote(&workshop.repository)?.display());
    }
    Ok(verdict)
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
        use Subject::{Floor, Framehook, Gstreamer, Plain, Tuned};
        let plan = options(&["--streams", "10,40", "--rounds", "2"]).plan().unwrap();
        let steps = plan.steps();
        let expected = [
            (10, 1, Floor),
            (10, 1, Framehook),
            (10, 1, Tuned),
            (10, 1, Gstreamer),
            (10, 1, Plain),
            (10, 2, Plain),
            (10, 2, Gstreamer),
            (10, 2, Tuned),
            (10, 2, Framehook),
            (10, 2, Floor),
            (40, 1, Floor),
            (40, 1, Framehook),
            (40, 1, Tuned),
            (40, 1, Gstreamer),
            (40, 2, Gstreamer),
            (40, 2, Tuned),
            (40, 2, Framehook),
            (40, 2, Floor),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_whole_run_takes_less_than_three_quarters_of_an_hour() {
        let plan = options(&[]).plan().unwrap();
        let turns = |subject| plan.steps().iter().filter(|step| step.2 == subject).count();
        assert_eq!([turns(Subject::Floor), turns(Subject::Framehook)], [15, 15]);
        assert_eq!([turns(Subject::Tuned), turns(Subject::Gstreamer), turns(Subject::Plain)], [6, 6, 3]);
        assert!(plan.longest() < std::time::Duration::from_secs(45 * 60), "{:?}", plan.longest());
    }

    #[test]
    fn always_measures_the_floor() {
        let plan = options(&["--subjects", "tuned"]).plan().unwrap();
        assert_eq!(plan.subjects, [Subject::Floor, Subject::Tuned]);
    }

    #[test]
    fn refuses_a_window_that_holds_a_broken_interval() {
        assert!(options(&["--seconds", "25"]).plan().unwrap_err().to_string().contains("--seconds 25"));
    }
}
