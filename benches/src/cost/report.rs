//! The result of a run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{SECTION, chart, readme};
use crate::document::{CHART, README};
use crate::machine::Machine;
use crate::measurement::{FloorSteps, Measurement};
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::plan::Plan;
use crate::subject::{INTERVAL, Subject};
use crate::summary::{Spread, Summary, floor_steps, ratios, summarise};

/// What the floor's steps took on an idle machine (Zen 4 server core, Debian 12), in ms. A run in which one of them is further
/// off than [`STRAY`] had another machine or a crowd, and says so.
const KNOWN_STEPS: [(&str, f64); 3] = [("decode", 10.2), ("convert", 1.7), ("encode", 2.0)];
const STRAY: f64 = 0.2;

/// What we ask of ourselves, in times the floor, at [`BOUND_AT`] streams and more: batched reads and a conversion with SIMD
/// save more than protocol, commit and store add. Nobody is told of these pictures; in `bench rest` somebody is. With fewer
/// streams what a server does beside them weighs more.
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
    times_the_floor: Spread,
    times_the_floor_by_round: Vec<f64>,
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
        let summaries: Vec<Row> = summaries.into_iter().map(|summary| Row::new(summary, &measurements)).collect();
        notes.extend(summaries.iter().filter_map(Row::verdict));
        Self { machine, plan, summaries, floor_steps, notes, measurements }
    }

    pub(super) fn page(&self) -> Page {
        Page { tables: vec![Table::new(&COLUMNS, self.rows())], notes: self.notes.clone() }
    }

    /// Draws the chart into the documentation and gives its file.
    pub(super) fn draw(&self, repository: &Path) -> Result<PathBuf> {
        let path = repository.join(CHART);
        let drawn = chart::streams_per_core(&self.summaries());
        fs::write(&path, drawn).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Writes the README's part of the results and gives the file.
    pub(super) fn quote(&self, repository: &Path) -> Result<PathBuf> {
        SECTION.replace_in(README, repository, &readme::excerpt(&self.summaries()))
    }

    fn summaries(&self) -> Vec<Summary> {
        self.summaries.iter().map(|row| row.summary.clone()).collect()
    }

    fn rows(&self) -> impl Iterator<Item = [String; COLUMNS.len()]> {
        self.summaries.iter().map(|Row { summary, times_the_floor, .. }| {
            [
                summary.streams.to_string(),
                summary.subject.label().to_owned(),
                summary.cost(),
                format!("{:.2}", times_the_floor.median),
                format!("{:.0}", summary.streams_per_core),
                summary.ms_per_picture.map_or("–".to_owned(), |ms| format!("{ms:.1}")),
                format!("{} / {:.0}", summary.pictures, summary.pictures_asked),
                format!("{:.2}", summary.mib_per_stream),
            ]
        })
    }
}

impl Row {
    fn new(summary: Summary, measurements: &[Measurement]) -> Self {
        let Summary { streams, subject, .. } = summary;
        let by_round: Vec<f64> = ratios(measurements, (streams, subject), (streams, Subject::Floor)).collect();
        Self { summary, times_the_floor: Spread::of(by_round.iter().copied()), times_the_floor_by_round: by_round }
    }

    /// Whether we keep what we ask of ourselves; nothing is asked of others, nor of few streams.
    fn verdict(&self) -> Option<String> {
        let Self { summary: Summary { subject, streams, .. }, times_the_floor, times_the_floor_by_round } = self;
        if *subject != Subject::Framehook || *streams < BOUND_AT {
            return None;
        }
        let Spread { median, least, most } = times_the_floor;
        let above = times_the_floor_by_round.iter().filter(|times| **times > TIMES_THE_FLOOR_MAX).count();
        let bound = format!(
            "At {streams} streams: {median:.3} × the floor ({least:.3}–{most:.3}, above {TIMES_THE_FLOOR_MAX} in {above} of {} \
             rounds; asked: at most {TIMES_THE_FLOOR_MAX} at the median).",
            times_the_floor_by_round.len()
        );
        Some(notes::judged(*median <= TIMES_THE_FLOOR_MAX, bound))
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
    for ((name, known), found) in KNOWN_STEPS.into_iter().zip([decode_ms, convert_ms, encode_ms]) {
        let off = found / known - 1.0;
        if off.abs() > STRAY {
            let way = if off > 0.0 { "more" } else { "less" };
            text += &format!(
                " To {name} takes {:.0} % {way} than the {known:.1} ms known of an idle machine.",
                off.abs() * 100.0
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::a_machine;
    use crate::measurement::tests::measured;

    fn report(measurements: Vec<Measurement>) -> Report {
        let machine = a_machine();
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
        assert!(!text.contains("NOT GOOD") && !text.contains("idle machine"), "{text}");
    }

    #[test]
    fn the_median_decides_whether_the_bound_is_kept_where_there_is_one() {
        let notes = |streams, ours_ms: &[f64]| {
            let round = |(round, &ms): (u32, &f64)| {
                let floor = measured(Subject::Floor, streams, round, 2000.0);
                [floor, measured(Subject::Framehook, streams, round, ms)]
            };
            report((1..).zip(ours_ms).flat_map(round).collect()).notes.join("\n")
        };
        let kept = notes(100, &[1600.0, 1800.0, 1700.0, 1640.0, 1720.0]);
        let said = "At 100 streams: 0.850 × the floor (0.800–0.900, above 0.85 in 2 of 5 rounds; asked: at most 0.85 at \
                    the median).";
        assert!(kept.contains(said) && !kept.contains("NOT GOOD"), "{kept}");
        let passed = notes(100, &[1600.0, 1702.0, 1704.0]);
        assert!(
            passed.contains("NOT GOOD: At 100 streams: 0.851 × the floor (0.800–0.852, above 0.85 in 2 of 3"),
            "{passed}"
        );
        assert!(!notes(40, &[1800.0]).contains("asked"));
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
        assert!(notes.contains("To decode takes 96 % more than the 10.2 ms known of an idle machine."), "{notes}");
        assert!(!notes.contains("To convert") && !notes.contains("NOT GOOD: The floor"), "{notes}");
    }
}
