//! The cost of a stream by the number of streams, beside what the same number costs others in the same round.

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

/// Whoever makes a smaller share of the pictures is cheaper than it should be.
const PICTURES_SHARE_MIN: f64 = 0.98;

/// What the streams are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Without a rule.
    Receive,
    /// With a picture every 30 s.
    Pictures,
}

impl Kind {
    /// Those who take turns: us, and what our cost is divided by.
    pub(super) fn subjects(self) -> Vec<Subject> {
        [self.bases(), &[self.ours()]].concat()
    }

    fn ours(self) -> Subject {
        match self {
            Self::Receive => Subject::Receiving,
            Self::Pictures => Subject::Sparse,
        }
    }

    fn bases(self) -> &'static [Subject] {
        match self {
            Self::Receive => &[Subject::Sink, Subject::Nginx],
            Self::Pictures => &[Subject::SparseFloor],
        }
    }

    fn words(self) -> String {
        match self {
            Self::Receive => "Without a rule".to_owned(),
            Self::Pictures => format!("With a picture every {} s", SPARSE_INTERVAL.as_secs()),
        }
    }

    fn plan(self, rounds: u32, quick: bool) -> Plan {
        let subjects = self.subjects();
        match self {
            Self::Receive => Plan {
                streams: if quick { vec![10, 50] } else { vec![10, 100, 500, 2000] },
                subjects,
                rounds,
                ramp_s: if quick { 2 } else { 3 },
                settle_s: 2,
                // The server writes down every ten seconds how far pushes have come: as often in each window.
                window_s: if quick { 10 } else { 20 },
            },
            Self::Pictures => {
                let interval_s = SPARSE_INTERVAL.as_secs();
                // The last of those who join waits for its first keyframe, and for its picture to be made.
                let first_picture_s = 2 * u64::from(GOP_SECONDS);
                Plan {
                    streams: if quick { vec![10] } else { vec![10, 100, 1000] },
                    subjects,
                    rounds,
                    // Joining takes an interval, so that dues are spread over it.
                    ramp_s: interval_s,
                    // Where too many come together the server moves the later dues of some (`crates/domain/src/storm.rs`):
                    // once, their next picture comes up to an interval later than usual. Only after that has each stream
                    // one due in each interval. Ten are never too many.
                    settle_s: first_picture_s + if quick { 0 } else { interval_s },
                    window_s: interval_s,
                }
            }
        }
    }

    fn columns(self) -> &'static [Column; 8] {
        match self {
            Self::Receive => &RECEIVE_COLUMNS,
            Self::Pictures => &PICTURES_COLUMNS,
        }
    }
}

const RECEIVE_COLUMNS: [Column; 8] = [
    Column::Number("streams"),
    Column::Words("system"),
    Column::Number("CPU ms per stream-second"),
    Column::Number("× cheapest of fewer"),
    Column::Number("× sink"),
    Column::Number("× nginx-rtmp"),
    Column::Number("MiB per stream"),
    Column::Number("MiB idle"),
];

const PICTURES_COLUMNS: [Column; 8] = [
    Column::Number("streams"),
    Column::Words("system"),
    Column::Number("CPU ms per stream-second"),
    Column::Number("× cheapest of fewer"),
    Column::Number("× floor"),
    Column::Number("pictures / asked"),
    Column::Number("MiB per stream"),
    Column::Number("MiB idle"),
];

#[derive(Debug, Serialize)]
pub(super) struct Steady {
    kind: Kind,
    plan: Plan,
    rows: Vec<Row>,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    summary: Summary,
    /// Times what a stream costs the same system among that smaller number of them among which it costs least; 1 for the
    /// smallest number.
    growth: f64,
    /// Times what the same number of streams costs each of those that are divided by.
    times: Vec<f64>,
}

impl Steady {
    pub(super) fn measure(workshop: &Workshop, clip: &Path, kind: Kind, rounds: u32, quick: bool) -> Result<Self> {
        let plan = kind.plan(rounds, quick);
        let measurements = measurement::measure_all(workshop, clip, &plan)?;
        Ok(Self::new(kind, plan, measurements))
    }

    fn new(kind: Kind, plan: Plan, measurements: Vec<Measurement>) -> Self {
        let row = |summary: Summary| {
            let Summary { streams, subject, .. } = summary;
            let fewer = plan.streams.iter().filter(|fewer| **fewer < streams);
            let growth = fewer.map(|&fewer| ratio(&measurements, (streams, subject), (fewer, subject)));
            let times = kind.bases().iter().map(|&base| ratio(&measurements, (streams, subject), (streams, base)));
            Row { growth: growth.reduce(f64::max).unwrap_or(1.0), times: times.collect(), summary }
        };
        Self { kind, rows: summarise(&measurements).into_iter().map(row).collect(), plan, measurements }
    }

    pub(super) fn table(&self) -> Table {
        let rows = self.rows.iter().map(|Row { summary, growth, times }| {
            let mut times = times.iter().map(|times| format!("{times:.2}"));
            let pictures = format!("{} / {:.0}", summary.pictures, summary.pictures_asked);
            [
                summary.streams.to_string(),
                summary.subject.label().to_owned(),
                summary.cost(),
                format!("{growth:.2}"),
                times.next().unwrap_or_default(),
                times.next().unwrap_or(pictures),
                format!("{:.3}", summary.mib_per_stream),
                format!("{:.1}", summary.idle_mib),
            ]
        });
        Table::new(self.kind.columns(), rows)
    }

    pub(super) fn notes(&self, machine: &Machine) -> Vec<String> {
        let mut notes = vec![format!("{}. {}", self.kind.words(), notes::method(&self.plan))];
        notes.extend(notes::disturbance(machine, &self.measurements));
        // Of others nothing is asked.
        let ours = || self.rows.iter().filter(|row| row.summary.subject == self.kind.ours());
        let grown = ours().filter(|row| row.growth > GROWTH_MAX);
        notes.extend(grown.map(|Row { summary, growth, .. }| {
            notes::not_good(format_args!(
                "a stream among {} costs {growth:.2} times what it costs among fewer (asked: at most {GROWTH_MAX}).",
                summary.streams
            ))
        }));
        notes.extend(ours().next_back().filter(|row| row.summary.mib_per_stream > MIB_PER_STREAM_MAX).map(|row| {
            notes::not_good(format_args!(
                "a stream among {} takes {:.3} MiB (asked: at most {MIB_PER_STREAM_MAX}).",
                row.summary.streams, row.summary.mib_per_stream
            ))
        }));
        notes.extend(self.rows.iter().filter_map(|row| self.missing(&row.summary)));
        notes.extend(self.measurements.iter().filter_map(|one| self.lost(one)));
        notes
    }

    /// Tells of a system that made too few pictures, whoever it is: its figures, and those divided by them, prove nothing.
    fn missing(&self, summary: &Summary) -> Option<String> {
        let &Summary { subject, streams, pictures, pictures_asked, .. } = summary;
        // One may fall just outside of a window.
        if pictures as f64 + 1.0 >= pictures_asked * PICTURES_SHARE_MIN {
            return None;
        }
        let of_row = self.measurements.iter().filter(|one| (one.subject, one.streams) == (subject, streams));
        let skipped: Vec<&str> = of_row.flat_map(|one| &one.skipped).map(String::as_str).collect();
        let reasons = if skipped.is_empty() { String::new() } else { format!(" It says: {}.", skipped.join(", ")) };
        Some(notes::not_good(format_args!(
            "{}, {streams} streams, made {pictures} of {pictures_asked:.0} pictures (asked: at least {:.0} %), so its cost is \
             too low.{reasons}",
            subject.label(),
            100.0 * PICTURES_SHARE_MIN
        )))
    }

    /// Tells of publishers that were not served as they should have been. Others may not keep up with so many.
    fn lost(&self, one: &Measurement) -> Option<String> {
        let Measurement { subject, streams, round, load, .. } = one;
        let lost = format!("{}, {streams} streams, round {round}: {}", subject.label(), notes::lost_by(load)?);
        Some(if *subject == self.kind.ours() {
            notes::not_good(format_args!("{lost}."))
        } else {
            format!("{lost}, so its cost is too low.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::a_machine;
    use crate::measurement::tests::measured;

    fn steady(kind: Kind, streams: &[u32], rounds: u32, measurements: Vec<Measurement>) -> Steady {
        Steady::new(kind, Plan { streams: streams.to_vec(), ..kind.plan(rounds, true) }, measurements)
    }

    fn notes(steady: &Steady) -> String {
        let machine = a_machine();
        steady.notes(&machine).join("\n")
    }

    fn text(steady: &Steady) -> String {
        crate::page::Page { tables: vec![steady.table()], notes: Vec::new() }.text()
    }

    /// Takes nothing worth mentioning of memory.
    fn light(subject: Subject, streams: u32, round: u32, cpu_ms: f64) -> Measurement {
        let one = measured(subject, streams, round, cpu_ms);
        Measurement { loaded_bytes: one.idle_bytes, ..one }
    }

    #[test]
    fn compares_with_the_cheapest_of_fewer_streams_in_the_same_round() {
        let used_ms = [(10, 100.0), (100, 1300.0), (500, 4000.0), (1000, 13_000.0)];
        let of_round = |round: u32| {
            let measured = move |(streams, ms)| measured(Subject::Receiving, streams, round, ms * f64::from(round));
            used_ms.into_iter().map(measured)
        };
        let steady = steady(Kind::Receive, &[10, 100, 500, 1000], 2, of_round(1).chain(of_round(2)).collect());
        let growth: Vec<f64> = steady.rows.iter().map(|row| row.growth).collect();
        assert_eq!(growth, [1.0, 1.3, 0.8, 1.625]);
        let notes = notes(&steady);
        assert!(notes.contains("a stream among 100 costs 1.30 times"), "{notes}");
        assert!(notes.contains("a stream among 1000 costs 1.62 times"), "{notes}");
        assert!(!notes.contains("a stream among 500"), "{notes}");
        assert!(notes.contains("NOT GOOD: a stream among 1000 takes 0.500 MiB"), "{notes}");
    }

    #[test]
    fn stands_beside_the_sink_and_nginx_of_which_nothing_is_asked() {
        // nginx costs twice as much among a hundred.
        let at = |streams, nginx_ms| {
            [
                light(Subject::Sink, streams, 1, 4.0 * f64::from(streams)),
                measured(Subject::Nginx, streams, 1, nginx_ms),
                light(Subject::Receiving, streams, 1, f64::from(streams)),
            ]
        };
        let steady = steady(Kind::Receive, &[10, 100], 1, at(10, 50.0).into_iter().chain(at(100, 1000.0)).collect());
        let text = text(&steady);
        let cells = |of: &str| {
            let row = text.lines().rfind(|line| line.contains(of)).expect("a row for each");
            row.split_whitespace().rev().take(5).map(str::to_owned).collect::<Vec<_>>()
        };
        // From right to left: idle, per stream, × nginx-rtmp, × sink, growth.
        assert_eq!(cells("framehook"), ["10.0", "0.000", "0.10", "0.25", "1.00"], "{text}");
        assert_eq!(cells("nginx-rtmp"), ["10.0", "0.500", "1.00", "2.50", "2.00"], "{text}");
        assert!(!notes(&steady).contains("NOT GOOD"), "{}", notes(&steady));
    }

    #[test]
    fn stands_beside_the_floor_with_its_pictures() {
        let floor = light(Subject::SparseFloor, 10, 1, 100.0);
        let text = text(&steady(Kind::Pictures, &[10], 1, vec![floor, light(Subject::Sparse, 10, 1, 85.0)]));
        let row = text.lines().find(|line| line.contains("framehook serve")).expect("our row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert!(cells.ends_with(&["1.00", "0.85", "10", "/", "10", "0.000", "10.0"]), "{row}");
        assert!(text.contains("floor program"), "{text}");
    }

    #[test]
    fn says_when_fewer_than_98_in_100_pictures_were_made() {
        let notes_at = |pictures| {
            let ours = Measurement { pictures, ..light(Subject::Sparse, 1000, 1, 100.0) };
            notes(&steady(Kind::Pictures, &[1000], 1, vec![light(Subject::SparseFloor, 1000, 1, 100.0), ours]))
        };
        assert!(!notes_at(979).contains("NOT GOOD"), "{}", notes_at(979));
        let expected = "NOT GOOD: framehook serve, 1000 streams, made 978 of 1000 pictures (asked: at least 98 %)";
        assert!(notes_at(978).contains(expected), "{}", notes_at(978));
    }

    #[test]
    fn others_may_lose_publishers() {
        let dropped = |subject| {
            let mut one = light(subject, 10, 1, 100.0);
            one.load.dropped = 1;
            notes(&steady(Kind::Receive, &[10], 1, vec![one]))
        };
        let (ours, nginx) = (dropped(Subject::Receiving), dropped(Subject::Nginx));
        assert!(ours.contains("NOT GOOD: framehook serve, no rule, 10 streams, round 1: 0 publishers"), "{ours}");
        assert!(nginx.contains("nginx-rtmp, 10 streams, round 1: 0 publishers"), "{nginx}");
        assert!(!nginx.contains("NOT GOOD"), "{nginx}");
    }

    #[test]
    fn waits_until_moved_dues_have_fallen() {
        let plan = Kind::Pictures.plan(2, false);
        assert_eq!((plan.ramp_s, plan.settle_s, plan.window_s), (30, 34, 30));
        assert_eq!(plan.subjects, [Subject::SparseFloor, Subject::Sparse]);
        // With storm and overload, and what each measurement takes beside its plan, some six minutes more.
        let longest = plan.longest() + Kind::Receive.plan(2, false).longest();
        assert!(longest < std::time::Duration::from_secs(30 * 60 + 30), "{longest:?}");
    }
}
