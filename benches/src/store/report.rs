//! What a run has found, as tables.

use serde::Serialize;

use super::{AT_A_TIME, Measurement, PER_SEC, PICTURE_BYTES, Pace, SUBJECTS, label};
use crate::machine::Machine;
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::summary::Spread;

const PACED_COLUMNS: [Column; 5] = [
    Column::Words("store"),
    Column::Words("client"),
    Column::Number("CPU ms per put"),
    Column::Number("p50 ms"),
    Column::Number("p99 ms"),
];
const AT_ONCE_COLUMNS: [Column; 4] =
    [Column::Words("store"), Column::Words("client"), Column::Number("CPU ms per put"), Column::Number("puts/s")];

/// Everything that a run has found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    rounds: u32,
    notes: Vec<String>,
    measurements: Vec<Measurement>,
}

impl Report {
    pub(super) fn new(machine: Machine, rounds: u32, measurements: Vec<Measurement>) -> Self {
        let notes = notes(&machine, rounds);
        Self { machine, rounds, notes, measurements }
    }

    pub(super) fn page(&self) -> Page {
        let cell = |subject, pace, value: fn(&Measurement) -> Option<f64>, digits: usize| {
            let of_subject =
                self.measurements.iter().filter(|one| ((one.place, one.client), one.pace) == (subject, pace));
            let Spread { median, least, most } = Spread::of(of_subject.filter_map(value));
            if median.is_nan() {
                return "–".to_owned();
            }
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        };
        let paced = SUBJECTS.iter().map(|&subject| {
            let cell = |value, digits| cell(subject, Pace::PerSec(PER_SEC), value, digits);
            [
                subject.0.label().to_owned(),
                label(subject).to_owned(),
                cell(|one| Some(one.cpu_ms_per_put), 2),
                cell(|one| one.p50_ms, 1),
                cell(|one| one.p99_ms, 1),
            ]
        });
        let at_once = SUBJECTS.iter().map(|&subject| {
            let cell = |value, digits| cell(subject, Pace::AtOnce, value, digits);
            [
                subject.0.label().to_owned(),
                label(subject).to_owned(),
                cell(|one| Some(one.cpu_ms_per_put), 2),
                cell(|one| Some(one.per_sec), 0),
            ]
        });
        let tables = vec![Table::new(&PACED_COLUMNS, paced), Table::new(&AT_ONCE_COLUMNS, at_once)];
        Page { tables, notes: self.notes.clone() }
    }
}

fn notes(machine: &Machine, rounds: u32) -> Vec<String> {
    vec![
        notes::describe(machine),
        format!("Median of {rounds}; in brackets: least and most. A picture of {} KiB.", PICTURE_BYTES >> 10),
        format!(
            "One after another: {PER_SEC} puts a second, timed from the due to the moment at which the store has the picture; of \
             the local store, to the moment at which the database says so, in whole milliseconds. rclone is started for each \
             picture, and its start is counted, as a script pays for it."
        ),
        format!("All at once: {AT_A_TIME} at a time; rclone is started once, for a folder."),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Place};
    use super::*;

    #[test]
    fn each_client_has_a_row_in_both_tables() {
        let measurement = |round, cpu_ms_per_put| Measurement {
            place: Place::S3,
            client: Client::Sdk,
            pace: Pace::AtOnce,
            round,
            puts: 10,
            cpu_ms_per_put,
            p50_ms: None,
            p99_ms: None,
            per_sec: 300.0,
        };
        let machine = Machine { cpu: "a".into(), cores: 2, memory_gib: 24.0, kernel: "6".into(), versions: Vec::new() };
        let measurements = vec![measurement(1, 3.0), measurement(2, 5.0), measurement(3, 4.0)];
        let report = Report::new(machine, 3, measurements);
        let text = report.page().markdown();
        assert!(text.contains("| S3 | boto3 | 4.00 (3.00–5.00) | 300 (300–300) |"), "{text}");
        assert_eq!(text.matches("| framehook serve |").count(), 6, "{text}");
    }
}
