//! What was timed, beside what is asked.

use std::time::Duration;

use serde::Serialize;

use super::Delays;
use super::timed::Picture;
use crate::load::LoadReport;
use crate::machine::Machine;
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::subject::INTERVAL;

/// What we ask of ourselves while the asked part of the machine is busy, in ms.
const STORED_ASKED: Asked = Asked { what: "stored", p50_ms: 60.0, p99_ms: 250.0 };
const CALLED_ASKED: Asked = Asked { what: "callback", p50_ms: 150.0, p99_ms: 1000.0 };

/// How far the load may stay below what was asked.
const LOAD_TOLERANCE: f64 = 0.04;

const COLUMNS: [Column; 9] = [
    Column::Number("cores busy"),
    Column::Number("timed streams"),
    Column::Number("others"),
    Column::Words("until"),
    Column::Number("pictures"),
    Column::Number("p50 ms"),
    Column::Number("p90 ms"),
    Column::Number("p99 ms"),
    Column::Number("most ms"),
];

struct Asked {
    what: &'static str,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    timed_streams: u32,
    /// Part of all cores that was to be busy in the last row.
    load_asked: f64,
    rows: Vec<Row>,
    others: Vec<LoadReport>,
    notes: Vec<String>,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    others: u32,
    /// Publishers and receiver included.
    pub(super) cores_busy: f64,
    pictures: usize,
    /// Keyframes without a callback.
    missing: usize,
    /// Dues without a picture, of all streams.
    skipped: f64,
    stored: Quantiles,
    called: Quantiles,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    most_ms: f64,
}

impl Quantiles {
    fn of(delays: impl Iterator<Item = Duration>) -> Self {
        let delays = Delays::of(delays.collect());
        let ms = |part| delays.quantile(part).as_secs_f64() * 1000.0;
        Self { p50_ms: ms(0.5), p90_ms: ms(0.9), p99_ms: ms(0.99), most_ms: ms(1.0) }
    }

    fn cells(self) -> [String; 4] {
        [self.p50_ms, self.p90_ms, self.p99_ms, self.most_ms].map(|ms| format!("{ms:.0}"))
    }

    /// Whether it keeps what is asked, and a sentence that says so.
    fn judge(self, asked: &Asked) -> (bool, String) {
        let Asked { what, p50_ms, p99_ms } = asked;
        let kept = self.p50_ms <= *p50_ms && self.p99_ms <= *p99_ms;
        let said = format!(
            "{what} after {:.0} ms at the median (asked: at most {p50_ms}) and {:.0} ms at p99 (at most {p99_ms})",
            self.p50_ms, self.p99_ms
        );
        (kept, said)
    }
}

impl Row {
    pub(super) fn new(others: u32, cores_busy: f64, pictures: &[Picture], missing: usize, skipped: f64) -> Self {
        Self {
            others,
            cores_busy,
            pictures: pictures.len(),
            missing,
            skipped,
            stored: Quantiles::of(pictures.iter().map(|picture| picture.stored)),
            called: Quantiles::of(pictures.iter().map(|picture| picture.called)),
        }
    }
}

impl Report {
    /// `rows`: alone, then loaded.
    pub(super) fn new(
        machine: Machine,
        timed_streams: u32,
        load_asked: f64,
        rows: Vec<Row>,
        others: Vec<LoadReport>,
    ) -> Self {
        let mut notes = vec![notes::describe(&machine), method(&rows)];
        notes.extend(rows.iter().map(|row| row.verdict(&machine)));
        notes.extend(rows.last().and_then(|row| too_idle(row, &machine, load_asked)));
        notes.extend(rows.iter().filter_map(Row::left_out));
        notes.extend(others.iter().filter_map(|load| notes::lost_by(load).map(|lost| format!("NOT GOOD: {lost}."))));
        Self { machine, timed_streams, load_asked, rows, others, notes }
    }

    pub(super) fn page(&self) -> Page {
        let rows = self.rows.iter().flat_map(|row| {
            [("stored", row.stored), ("callback", row.called)].map(|(until, delays)| {
                let [p50, p90, p99, most] = delays.cells();
                [
                    format!("{:.2} ({:.0} %)", row.cores_busy, row.load(&self.machine) * 100.0),
                    self.timed_streams.to_string(),
                    row.others.to_string(),
                    until.to_owned(),
                    row.pictures.to_string(),
                    p50,
                    p90,
                    p99,
                    most,
                ]
            })
        });
        Page { tables: vec![Table::new(&COLUMNS, rows)], notes: self.notes.clone() }
    }
}

impl Row {
    /// Part of all cores.
    fn load(&self, machine: &Machine) -> f64 {
        self.cores_busy / machine.cores as f64
    }

    fn verdict(&self, machine: &Machine) -> String {
        let (stored_kept, stored) = self.stored.judge(&STORED_ASKED);
        let (called_kept, called) = self.called.judge(&CALLED_ASKED);
        let said = format!("With {:.0} % of all cores busy: {stored}; {called}.", self.load(machine) * 100.0);
        if stored_kept && called_kept { said } else { format!("NOT GOOD: {said}") }
    }

    /// Whoever has no picture has no delay either.
    fn left_out(&self) -> Option<String> {
        let Self { missing, skipped, others, .. } = self;
        (*missing > 0 || *skipped > 0.0).then(|| {
            format!("NOT GOOD: beside {others} others, {missing} timed keyframes had no callback, {skipped} dues no picture.")
        })
    }
}

fn too_idle(row: &Row, machine: &Machine, asked: f64) -> Option<String> {
    let load = row.load(machine);
    (load < asked - LOAD_TOLERANCE).then(|| {
        format!("NOT GOOD: {:.0} % of all cores were busy, {:.0} asked; see `--load`.", load * 100.0, asked * 100.0)
    })
}

fn method(rows: &[Row]) -> String {
    let others = rows.last().map_or(0, |row| row.others);
    format!(
        "A timed stream has a picture every two seconds, one of the {others} others every {} s. Busy are all processes of the \
         machine: publishers, server, receiver.",
        INTERVAL.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(others: u32, cores_busy: f64, stored_ms: u64) -> Row {
        let picture = |ms| Picture { stored: Duration::from_millis(ms), called: Duration::from_millis(ms + 2) };
        Row::new(others, cores_busy, &[picture(20), picture(stored_ms), picture(stored_ms)], 0, 0.0)
    }

    fn report(loaded: Row) -> String {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24.0,
            kernel: "6.1".to_owned(),
            versions: Vec::new(),
        };
        Report::new(machine, 10, 0.4, vec![row(0, 0.2, 25), loaded], Vec::new()).page().text()
    }

    #[test]
    fn shows_each_load_with_its_bounds() {
        let text = report(row(180, 0.82, 40));
        let cells = |until: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.contains("180") && line.contains(until)).expect("a row");
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(cells("stored")[..], ["0.82", "(41", "%)", "10", "180", "stored", "3", "40", "40", "40", "40"]);
        assert_eq!(cells("callback")[7..], ["42", "42", "42", "42"]);
        assert!(
            text.contains("With 10 % of all cores busy: stored after 25 ms at the median (asked: at most 60)"),
            "{text}"
        );
        assert!(!text.contains("NOT GOOD"), "{text}");
    }

    #[test]
    fn says_when_a_bound_is_passed_or_the_load_was_not_reached() {
        assert!(report(row(180, 0.8, 61)).contains("NOT GOOD: With 40 % of all cores busy: stored after 61 ms"));
        assert!(report(row(180, 0.7, 40)).contains("NOT GOOD: 35 % of all cores were busy, 40 asked"));
        let skipped = Row { missing: 2, skipped: 3.0, ..row(180, 0.8, 40) };
        assert!(report(skipped).contains("NOT GOOD: beside 180 others, 2 timed keyframes had no callback, 3 dues"));
    }
}
