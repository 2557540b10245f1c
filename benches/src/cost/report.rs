//! The result of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::chart;
use crate::machine::Machine;
use crate::measurement::{FloorSteps, Measurement};
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::plan::Plan;
use crate::subject::{INTERVAL, Subject};
use crate::summary::{Summary, floor_steps, ratio, summarise};

/// What the floor's steps took where the floor was first measured, as a range from an idle machine to a crowded one
/// (Zen 4 server core, Debian 12): decode, convert, encode in ms. A run that strays further than [`STRAY`] ran on
/// something quite different, and says so.
const KNOWN_STEPS: [(&str, f64, f64); 3] = [("decode", 10.2, 13.5), ("convert", 1.7, 2.6), ("encode", 2.0, 2.6)];
const STRAY: f64 = 0.2;

/// What we ask of ourselves, in times the floor, at [`BOUND_AT`] streams and more: batched reads and a conversion with SIMD
/// save more than protocol, commit, store and callbacks add. With fewer streams what a server does beside them weighs more.
const TIMES_THE_FLOOR_MAX: f64 = 0.85;
const BOUND_AT: u32 = 100;

const COLUMNS: [Column; 8] = [
    Column::Number("streams"),
    Column::Words("system"),
    Column::Number("CPU ms per stream-second"),
    Column::Number("× floor"),
    Column::Number("streams per core"),
    Column::Number("CPU ms per picture"),
    Column::Number("pictures / asked"),
    Column::Number("MiB per stream"),
];

const CHART: &str = "docs/streams-per-core.svg";

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    plan: Plan,
    summaries: Vec<Row>,
    floor_steps: Option<FloorSteps>,
    notes: Vec<String>,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    summary: Summary,
    times_the_floor: f64,
}

impl Report {
    pub(super) fn new(machine: Machine, plan: Plan, measurements: Vec<Measurement>) -> Self {
        let summaries = summarise(&measurements);
        let floor_steps = floor_steps(&measurements);
        let mut notes = vec![notes::describe(&machine), notes::method(&plan)];
        notes.extend(notes::disturbance(&machine, &measurements));
        notes.extend(floor_steps.map(|steps| describe_floor(steps, &summaries)));
        notes.extend(notes::missing(&summaries, &measurements));
        notes.extend(notes::lost(&measurements));
        let times_the_floor =
            |row: &Summary| ratio(&measurements, (row.streams, row.subject), (row.streams, Subject::Floor));
        let summaries: Vec<Row> =
            summaries.into_iter().map(|row| Row { times_the_floor: times_the_floor(&row), summary: row }).collect();
        notes.extend(summaries.iter().filter_map(Row::verdict));
        Self { machine, plan, summaries, floor_steps, notes, measurements }
    }

    pub(super) fn page(&self) -> Page {
        Page { tables: vec![Table::new(&COLUMNS, self.rows())], notes: self.notes.clone() }
    }

    /// Draws the chart into the documentation and gives its file.
    pub(super) fn draw(&self, repository: &Path) -> Result<PathBuf> {
        let path = repository.join(CHART);
        let summaries: Vec<Summary> = self.summaries.iter().map(|row| row.summary.clone()).collect();
        fs::write(&path, chart::streams_per_core(&summaries)).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn rows(&self) -> impl Iterator<Item = [String; COLUMNS.len()]> {
        self.summaries.iter().map(|Row { summary, times_the_floor }| {
            [
                summary.streams.to_string(),
                summary.subject.label().to_owned(),
                summary.cost(),
                format!("{times_the_floor:.2}"),
                format!("{:.0}", summary.streams_per_core),
                summary.ms_per_picture.map_or("–".to_owned(), |ms| format!("{ms:.1}")),
                format!("{} / {:.0}", summary.pictures, summary.pictures_asked),
                format!("{:.2}", summary.mib_per_stream),
            ]
        })
    }
}

impl Row {
    /// Whether we keep what we ask of ourselves; nothing is asked of others, nor of few streams.
    fn verdict(&self) -> Option<String> {
        let Self { summary: Summary { subject, streams, .. }, times_the_floor } = self;
        if *subject != Subject::Framehook || *streams < BOUND_AT {
            return None;
        }
        let bound =
            format!("At {streams} streams: {times_the_floor:.2} × the floor (asked: at most {TIMES_THE_FLOOR_MAX}).");
        Some(if *times_the_floor <= TIMES_THE_FLOOR_MAX { bound } else { format!("NOT GOOD: {bound}") })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::tests::measured;

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
        let text = report(vec![measured(Subject::Floor, 10, 1, 200.0), measured(Subject::Tuned, 10, 1, 1600.0)]);
        let text = text.page().text();
        let row = text.lines().find(|line| line.contains("nokey")).expect("a row for the tuned recipe");
        let cells: Vec<&str> = row.split_whitespace().collect();
        let expected = ["16.00", "(16.00–16.00)", "8.00", "62", "160.0", "10", "/", "10", "0.50"];
        assert!(cells.ends_with(&expected), "{row}");
        assert!(!text.contains("NOT GOOD") && !text.contains("strays"), "{text}");
    }

    #[test]
    fn says_whether_the_bound_is_kept_where_there_is_one() {
        let notes = |streams, ours_ms| {
            let floor = measured(Subject::Floor, streams, 1, 2000.0);
            report(vec![floor, measured(Subject::Framehook, streams, 1, ours_ms)]).notes.join("\n")
        };
        let kept = "At 100 streams: 0.80 × the floor (asked: at most 0.85).";
        assert!(notes(100, 1600.0).contains(kept) && !notes(100, 1600.0).contains("NOT GOOD"));
        assert!(notes(100, 1800.0).contains("NOT GOOD: At 100 streams: 0.90 × the floor"));
        assert!(!notes(40, 1800.0).contains("asked"));
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
