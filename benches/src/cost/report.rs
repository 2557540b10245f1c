//! The result of a run: as a table for the terminal, as JSON, and in the documentation.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::chart;
use super::summary::{Summary, floor_steps, summarise};
use super::{FloorSteps, Measurement, Plan};
use crate::document::Section;
use crate::load::LoadReport;
use crate::machine::Machine;
use crate::subject::{INTERVAL, Subject};

/// What the floor's steps took where the floor was first measured, as a range from an idle machine to a crowded one
/// (Zen 4 server core, Debian 12): decode, convert, encode in ms. A run that strays further than [`STRAY`] ran on
/// something quite different, and says so.
const KNOWN_STEPS: [(&str, f64, f64); 3] = [("decode", 10.2, 13.5), ("convert", 1.7, 2.6), ("encode", 2.0, 2.6)];
const STRAY: f64 = 0.2;

/// A message that is later than this was held up by a server that takes too little, or by a generator without a core to
/// run on. Either way the streams were not what they should have been.
const LATE_MS_MAX: u64 = 2000;

const HEADER: [&str; 8] = [
    "streams",
    "system",
    "CPU ms per stream-second",
    "× floor",
    "streams per core",
    "CPU ms per picture",
    "pictures / asked",
    "MiB per stream",
];

const CHART: &str = "docs/streams-per-core.svg";
const SECTION: Section = Section("cost");

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    plan: Plan,
    summaries: Vec<Summary>,
    floor_steps: Option<FloorSteps>,
    notes: Vec<String>,
    measurements: Vec<Measurement>,
}

impl Report {
    pub(super) fn new(machine: Machine, plan: Plan, measurements: Vec<Measurement>) -> Self {
        let summaries = summarise(&measurements);
        let floor_steps = floor_steps(&measurements);
        let mut notes = vec![
            describe(&machine),
            format!(
                "Median of {}; each {} s long, after {} s in which the publishers join and {} s to run evenly. \
                 In brackets: least and most.",
                plan.rounds, plan.window_s, plan.ramp_s, plan.settle_s
            ),
        ];
        notes.extend(disturbance(&machine, &measurements));
        notes.extend(floor_steps.map(|steps| describe_floor(steps, &summaries)));
        notes.extend(missing(&summaries, &measurements));
        notes.extend(lost(&measurements));
        Self { machine, plan, summaries, floor_steps, notes, measurements }
    }

    /// For the terminal: columns aligned by spaces.
    pub(super) fn text(&self) -> String {
        let rows: Vec<[String; HEADER.len()]> = [HEADER.map(str::to_owned)].into_iter().chain(self.rows()).collect();
        let widths: [usize; HEADER.len()] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(widths).enumerate();
            let cells = cells.map(|(column, (cell, width))| match column {
                1 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            text += "\n";
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
        }
        text += "\n";
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        text + "\n"
    }

    /// Writes the table and the chart into the documentation and gives the files it wrote.
    pub(super) fn update_docs(&self, repository: &Path) -> Result<[PathBuf; 2]> {
        let document = SECTION.replace(repository, &self.markdown())?;
        let chart = repository.join(CHART);
        fs::write(&chart, chart::streams_per_core(&self.summaries))
            .with_context(|| format!("write {}", chart.display()))?;
        Ok([document, chart])
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&HEADER.map(str::to_owned));
        text += &line(&std::array::from_fn::<_, { HEADER.len() }, _>(|column| {
            if column == 1 { "---".to_owned() } else { "---:".to_owned() }
        }));
        for row in self.rows() {
            text += &line(&row);
        }
        text += "\n";
        for note in &self.notes {
            text += &format!("- {note}\n");
        }
        text
    }

    fn rows(&self) -> impl Iterator<Item = [String; HEADER.len()]> {
        self.summaries.iter().map(|row| {
            [
                row.streams.to_string(),
                row.subject.label().to_owned(),
                format!(
                    "{:.2} ({:.2}–{:.2})",
                    row.ms_per_stream_second, row.ms_per_stream_second_least, row.ms_per_stream_second_most
                ),
                format!("{:.2}", row.times_the_floor),
                format!("{:.0}", row.streams_per_core),
                row.ms_per_picture.map_or("–".to_owned(), |ms| format!("{ms:.1}")),
                format!("{} / {:.0}", row.pictures, row.pictures_asked),
                format!("{:.2}", row.mib_per_stream),
            ]
        })
    }
}

fn describe(machine: &Machine) -> String {
    let Machine { cpu, cores, memory_gib, kernel, versions } = machine;
    format!("{cores} cores of {cpu}, {memory_gib:.0} GiB, Linux {kernel}; {}.", versions.join("; "))
}

/// How busy others kept the machine: CPU time grows a little in a crowd.
fn disturbance(machine: &Machine, measurements: &[Measurement]) -> Option<String> {
    let first = measurements.first()?;
    let mean = measurements.iter().map(|one| one.others_cores).sum::<f64>() / measurements.len() as f64;
    let most = measurements.iter().map(|one| one.others_cores).fold(0.0, f64::max);
    Some(format!(
        "CPU time from {}. Everything else on the machine, the load generator included, took {mean:.1} of {} cores on \
         average and {most:.1} at most.",
        first.accounting, machine.cores
    ))
}

fn describe_floor(steps: FloorSteps, summaries: &[Summary]) -> String {
    let FloorSteps { decode_ms, convert_ms, encode_ms } = steps;
    let mut text = format!(
        "The floor's own picture: {decode_ms:.1} ms to decode, {convert_ms:.1} to convert, {encode_ms:.1} to encode."
    );
    // Rows come with the fewest streams first.
    if let Some(floor) = summaries.iter().rfind(|row| row.subject == Subject::Floor) {
        let pictures_ms = (decode_ms + convert_ms + encode_ms) / INTERVAL.as_secs_f64();
        text += &format!(
            " What is left of its {:.2} ms per stream-second at {} streams, {:.2} ms, is receiving.",
            floor.ms_per_stream_second,
            floor.streams,
            floor.ms_per_stream_second - pictures_ms
        );
    }
    for ((name, least, most), found) in KNOWN_STEPS.into_iter().zip([decode_ms, convert_ms, encode_ms]) {
        if found < least * (1.0 - STRAY) || found > most * (1.0 + STRAY) {
            text += &format!(" To {name} strays by more than 20 % from the known {least} to {most} ms.");
        }
    }
    text
}

/// Whoever made fewer pictures than asked is cheaper than it should be.
fn missing(summaries: &[Summary], measurements: &[Measurement]) -> impl Iterator<Item = String> {
    // A picture may fall just outside of a window.
    let short = summaries.iter().filter(|row| (row.pictures as f64) < row.pictures_asked * 0.95 - 1.0);
    short.map(|row| {
        let &Summary { subject, streams, pictures, pictures_asked, .. } = row;
        let of_row = measurements.iter().filter(|one| (one.subject, one.streams) == (subject, streams));
        let skipped: Vec<&str> = of_row.flat_map(|one| &one.skipped).map(String::as_str).collect();
        let reasons = if skipped.is_empty() { String::new() } else { format!(" It says: {}.", skipped.join(", ")) };
        format!(
            "NOT GOOD: {}, {streams} streams, made {pictures} of {pictures_asked:.0} pictures, so its cost is too \
             low.{reasons}",
            subject.label()
        )
    })
}

/// Publishers that were not served as they should have been.
fn lost(measurements: &[Measurement]) -> impl Iterator<Item = String> {
    let faulty = measurements.iter().filter(|one| {
        let LoadReport { refused, dropped, late_ms_max, .. } = one.load;
        refused + dropped > 0 || late_ms_max > LATE_MS_MAX
    });
    faulty.map(|one| {
        let LoadReport { refused, dropped, late_ms_max, reasons } = &one.load;
        format!(
            "NOT GOOD: {}, {} streams, round {}: {refused} publishers were refused, {dropped} lost their connection \
             and the latest message was {late_ms_max} ms late ({}).",
            one.subject.label(),
            one.streams,
            one.round,
            reasons.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::measured;
    use super::*;

    fn report(measurements: Vec<Measurement>) -> Report {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24.0,
            kernel: "6.1".to_owned(),
            versions: vec!["ffmpeg 5".to_owned()],
        };
        let plan = Plan { streams: vec![10], subjects: Vec::new(), rounds: 1, ramp_s: 10, settle_s: 12, window_s: 60 };
        Report::new(machine, plan, measurements)
    }

    #[test]
    fn prints_a_row_for_each_system_with_its_ratio() {
        let text = report(vec![measured(Subject::Floor, 10, 1, 200.0), measured(Subject::Tuned, 10, 1, 1600.0)]).text();
        let row = text.lines().find(|line| line.contains("nokey")).expect("a row for the tuned recipe");
        let cells: Vec<&str> = row.split_whitespace().collect();
        let expected = ["16.00", "(16.00–16.00)", "8.00", "62", "160.0", "10", "/", "10", "0.50"];
        assert!(cells.ends_with(&expected), "{row}");
        assert!(!text.contains("NOT GOOD") && !text.contains("strays"), "{text}");
    }

    #[test]
    fn says_when_a_run_is_not_to_be_trusted() {
        let mut short = measured(Subject::Plain, 10, 1, 1000.0);
        short.pictures = 5;
        short.load.dropped = 2;
        let mut slow = measured(Subject::Floor, 10, 1, 200.0);
        slow.floor_steps = Some(FloorSteps { decode_ms: 20.0, convert_ms: 2.0, encode_ms: 2.0 });
        let notes = report(vec![slow, short]).notes.join("\n");
        assert!(notes.contains("made 5 of 10 pictures"), "{notes}");
        assert!(notes.contains("2 lost their connection"), "{notes}");
        assert!(notes.contains("To decode strays") && !notes.contains("To convert strays"), "{notes}");
    }
}
