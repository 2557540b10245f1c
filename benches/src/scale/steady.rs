//! The cost of a stream by the number of streams.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::clip::GOP_SECONDS;
use crate::machine::Machine;
use crate::measurement::{self, Measurement};
use crate::notes;
use crate::page::{Column, Table};
use crate::plan::Plan;
use crate::subject::{SPARSE_INTERVAL, Subject};
use crate::summary::{Summary, ratio, summarise};
use crate::workshop::Workshop;

/// A stream among many may cost this many times what it costs where fewer are the cheapest: what one run differs from another
/// by. The fewest are no measure by themselves, since what a server costs without any stream is shared by few there.
const GROWTH_MAX: f64 = 1.2;

/// What a stream may take of memory among the most, in MiB: the 0.2 MB that `bench ingest` asks for.
const MIB_PER_STREAM_MAX: f64 = 0.19;

const COLUMNS: [Column; 7] = [
    Column::Number("streams"),
    Column::Number("a picture every"),
    Column::Number("CPU ms per stream-second"),
    Column::Number("× cheapest of fewer"),
    Column::Number("pictures / asked"),
    Column::Number("MiB per stream"),
    Column::Number("MiB idle"),
];

#[derive(Debug, Serialize)]
pub(super) struct Steady {
    plan: Plan,
    rows: Vec<Row>,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    summary: Summary,
    /// Times what a stream costs among that smaller number of them among which it costs least; 1 for the smallest number.
    growth: f64,
}

/// Without a rule.
pub(super) fn receive(rounds: u32, quick: bool) -> Plan {
    Plan {
        streams: if quick { vec![10, 50] } else { vec![10, 100, 500, 2000] },
        subjects: vec![Subject::Receiving],
        rounds,
        ramp_s: if quick { 2 } else { 10 },
        settle_s: if quick { 2 } else { 5 },
        window_s: if quick { 10 } else { 20 },
    }
}

/// With a picture every 30 s.
pub(super) fn pictures(rounds: u32, quick: bool) -> Plan {
    let interval_s = SPARSE_INTERVAL.as_secs();
    Plan {
        streams: if quick { vec![10] } else { vec![10, 100, 1000] },
        subjects: vec![Subject::Sparse],
        rounds,
        ramp_s: interval_s,
        // Joining takes an interval, so dues are spread over it already; only the last of those who joined is waited for,
        // until its first keyframe has come and its picture is made.
        settle_s: 2 * u64::from(GOP_SECONDS),
        window_s: interval_s,
    }
}

impl Steady {
    pub(super) fn measure(workshop: &Workshop, clip: &Path, plan: Plan) -> Result<Self> {
        let measurements = measurement::measure_all(workshop, clip, &plan)?;
        Ok(Self::new(plan, measurements))
    }

    fn new(plan: Plan, measurements: Vec<Measurement>) -> Self {
        let row = |summary: Summary| {
            let Summary { streams, subject, .. } = summary;
            let fewer = plan.streams.iter().filter(|fewer| **fewer < streams);
            let ratios = fewer.map(|&fewer| ratio(&measurements, (streams, subject), (fewer, subject)));
            Row { growth: ratios.reduce(f64::max).unwrap_or(1.0), summary }
        };
        Self { rows: summarise(&measurements).into_iter().map(row).collect(), plan, measurements }
    }

    pub(super) fn table(&self) -> Table {
        let rows = self.rows.iter().map(|Row { summary, growth }| {
            [
                summary.streams.to_string(),
                summary.subject.interval().map_or("–".to_owned(), |every| format!("{} s", every.as_secs())),
                summary.cost(),
                format!("{growth:.2}"),
                format!("{} / {:.0}", summary.pictures, summary.pictures_asked),
                format!("{:.3}", summary.mib_per_stream),
                format!("{:.1}", summary.idle_mib),
            ]
        });
        Table::new(&COLUMNS, rows)
    }

    pub(super) fn notes(&self, machine: &Machine) -> Vec<String> {
        let summaries: Vec<Summary> = self.rows.iter().map(|row| row.summary.clone()).collect();
        let what = match self.plan.subjects[..] {
            [Subject::Sparse] => format!("With a picture every {} s", SPARSE_INTERVAL.as_secs()),
            _ => "Without a rule".to_owned(),
        };
        let mut notes = vec![format!("{what}. {}", notes::method(&self.plan))];
        notes.extend(notes::disturbance(machine, &self.measurements));
        let grown = self.rows.iter().filter(|row| row.growth > GROWTH_MAX);
        notes.extend(grown.map(|Row { summary, growth }| {
            format!(
                "NOT GOOD: a stream among {} costs {growth:.2} times what it costs among fewer (asked: at most \
                 {GROWTH_MAX}).",
                summary.streams
            )
        }));
        notes.extend(self.rows.last().filter(|row| row.summary.mib_per_stream > MIB_PER_STREAM_MAX).map(|row| {
            format!(
                "NOT GOOD: a stream among {} takes {:.3} MiB (asked: at most {MIB_PER_STREAM_MAX}).",
                row.summary.streams, row.summary.mib_per_stream
            )
        }));
        notes.extend(notes::missing(&summaries, &self.measurements));
        notes.extend(notes::lost(&self.measurements));
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::tests::measured;

    #[test]
    fn compares_with_the_cheapest_of_fewer_streams_in_the_same_round() {
        let plan = Plan { streams: vec![10, 100, 500, 1000], ..receive(2, true) };
        let used_ms = [(10, 100.0), (100, 1300.0), (500, 4000.0), (1000, 13_000.0)];
        let of_round = |round: u32| {
            let measured = move |(streams, ms)| measured(Subject::Receiving, streams, round, ms * f64::from(round));
            used_ms.into_iter().map(measured)
        };
        let steady = Steady::new(plan, of_round(1).chain(of_round(2)).collect());
        let growth: Vec<f64> = steady.rows.iter().map(|row| row.growth).collect();
        assert_eq!(growth, [1.0, 1.3, 0.8, 1.625]);
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24.0,
            kernel: "6.1".to_owned(),
            versions: Vec::new(),
        };
        let notes = steady.notes(&machine).join("\n");
        assert!(notes.contains("a stream among 100 costs 1.30 times"), "{notes}");
        assert!(notes.contains("a stream among 1000 costs 1.62 times"), "{notes}");
        assert!(!notes.contains("a stream among 500"), "{notes}");
    }
}
