//! `bench ingest`: CPU time and memory per stream of receiving alone, when nobody wants pictures.
//!
//! What is divided by is a plain sink, which drops the bytes without looking at them, and nginx-rtmp, which takes them apart
//! as we do and does nothing with them.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::clip;
use crate::document::Section;
use crate::machine::Machine;
use crate::measurement::{self, Measurement};
use crate::notes;
use crate::page::{Column, Page, Purpose, Table, Verdict};
use crate::plan::Plan;
use crate::subject::{self, Subject};
use crate::summary::{Summary, ratio, summarise};
use crate::workshop::Workshop;

const SECTION: Section = Section("ingest");
const SUBJECTS: [Subject; 3] = [Subject::Sink, Subject::Nginx, Subject::Receiving];

/// What we ask of ourselves at [`BOUND_AT`] streams and more.
const TIMES_THE_SINK_MAX: f64 = 0.8;
const TIMES_NGINX_MAX: f64 = 0.5;
/// 0.2 MB.
const MIB_PER_STREAM_MAX: f64 = 0.19;
/// With fewer streams what a server does beside its streams weighs more, and batching has less to gather.
const BOUND_AT: u32 = 500;

const COLUMNS: [Column; 7] = [
    Column::Number("streams"),
    Column::Words("system"),
    Column::Number("CPU ms per stream-second"),
    Column::Number("× sink"),
    Column::Number("× nginx-rtmp"),
    Column::Number("% of a core"),
    Column::Number("MiB per stream"),
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Numbers of streams, separated by commas [default: 50,200,500; with --quick: 10,50]
    #[arg(long, value_delimiter = ',', value_name = "K", value_parser = clap::value_parser!(u32).range(1..=2000))]
    streams: Vec<u32>,
    /// Length of one measurement [default: 30; with --quick: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: Option<u64>,
    /// Measurements of each system at each number of streams [default: 5; with --quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Short windows and one round: to see that everything runs, not to be quoted
    #[arg(long, conflicts_with = "update")]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        let quick = self.quick;
        let streams = match self.streams.as_slice() {
            [] if quick => vec![10, 50],
            [] => vec![50, 200, 500],
            given => given.to_vec(),
        };
        Plan {
            streams,
            subjects: SUBJECTS.to_vec(),
            rounds: self.rounds.unwrap_or(if quick { 1 } else { 5 }),
            ramp_s: if quick { 2 } else { 10 },
            settle_s: if quick { 2 } else { 10 },
            window_s: self.seconds.unwrap_or(if quick { 10 } else { 30 }),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    plan: Plan,
    rows: Vec<Row>,
    notes: Vec<String>,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    summary: Summary,
    times_the_sink: f64,
    times_nginx: f64,
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    let plan = options.plan();
    subject::prepare(workshop, &plan.subjects)?;
    let clip = clip::SD360.make(workshop)?;
    let measurements = measurement::measure_all(workshop, &clip, &plan)?;
    let report = Report::new(Machine::look(workshop, &plan.subjects), plan, measurements);
    report.page().publish(workshop, SECTION, &report, Purpose::of(options.quick, options.update))
}

impl Report {
    fn new(machine: Machine, plan: Plan, measurements: Vec<Measurement>) -> Self {
        let times = |row: &Summary, base| ratio(&measurements, (row.streams, row.subject), (row.streams, base));
        let row = |summary| Row {
            times_the_sink: times(&summary, Subject::Sink),
            times_nginx: times(&summary, Subject::Nginx),
            summary,
        };
        let rows: Vec<Row> = summarise(&measurements).into_iter().map(row).collect();
        let mut notes = vec![notes::describe(&machine), notes::method(&plan)];
        notes.extend(notes::disturbance(&machine, &measurements));
        notes.extend(rows.iter().filter_map(Row::verdict));
        notes.extend(notes::lost(&measurements));
        Self { machine, plan, rows, notes, measurements }
    }

    fn page(&self) -> Page {
        let rows = self.rows.iter().map(|Row { summary, times_the_sink, times_nginx }| {
            [
                summary.streams.to_string(),
                summary.subject.label().to_owned(),
                summary.cost(),
                format!("{times_the_sink:.2}"),
                format!("{times_nginx:.2}"),
                format!("{:.1}", summary.ms_per_stream_second * f64::from(summary.streams) / 10.0),
                format!("{:.3}", summary.mib_per_stream),
            ]
        });
        Page { tables: vec![Table::new(&COLUMNS, rows)], notes: self.notes.clone() }
    }
}

impl Row {
    /// Whether we keep what we ask of ourselves; nothing is asked of others, nor of few streams.
    fn verdict(&self) -> Option<String> {
        let Self { summary: Summary { subject, streams, mib_per_stream, .. }, times_the_sink, times_nginx } = self;
        if *subject != Subject::Receiving || *streams < BOUND_AT {
            return None;
        }
        let kept = *times_the_sink <= TIMES_THE_SINK_MAX
            && *times_nginx <= TIMES_NGINX_MAX
            && *mib_per_stream <= MIB_PER_STREAM_MAX;
        let bounds = format!(
            "At {streams} streams: {times_the_sink:.2} × the sink (asked: at most {TIMES_THE_SINK_MAX}), {times_nginx:.2} × \
             nginx-rtmp (at most {TIMES_NGINX_MAX}), {mib_per_stream:.3} MiB per stream (at most {MIB_PER_STREAM_MAX})."
        );
        Some(notes::judged(kept, bounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::a_machine;
    use crate::measurement::tests::measured;

    fn report(ours_ms: f64) -> Report {
        let machine = a_machine();
        let plan =
            Plan { streams: vec![500], subjects: SUBJECTS.to_vec(), rounds: 1, ramp_s: 10, settle_s: 10, window_s: 10 };
        let mut measurements = vec![
            measured(Subject::Sink, 500, 1, 2000.0),
            measured(Subject::Nginx, 500, 1, 3000.0),
            measured(Subject::Receiving, 500, 1, ours_ms),
        ];
        for one in &mut measurements {
            one.loaded_bytes = one.idle_bytes + 500 * (100 << 10);
        }
        Report::new(machine, plan, measurements)
    }

    #[test]
    fn stands_beside_the_sink_and_nginx() {
        let text = report(1000.0).page().text();
        let row = text.lines().find(|line| line.contains("framehook")).expect("our row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert!(cells.ends_with(&["0.20", "(0.20–0.20)", "0.50", "0.33", "10.0", "0.098"]), "{row}");
        assert!(text.contains("0.50 × the sink") && !text.contains("NOT GOOD"), "{text}");
    }

    #[test]
    fn says_when_a_bound_is_passed() {
        let text = report(1700.0).page().text();
        assert!(
            text.contains("NOT GOOD: At 500 streams: 0.85 × the sink (asked: at most 0.8), 0.57 × nginx-rtmp"),
            "{text}"
        );
    }
}
