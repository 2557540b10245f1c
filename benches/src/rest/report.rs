//! What a picture costs the server itself, beside what is asked.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Dues, INTERVAL, Run};
use crate::machine::Machine;
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::summary::Spread;

/// What we ask of commit, store, notify and metrics, in ms of CPU for one picture.
const MS_PER_PICTURE_MAX: f64 = 1.0;

const COLUMNS: [Column; 5] = [
    Column::Words("dues"),
    Column::Number("streams"),
    Column::Number("per s"),
    Column::Number("server's own CPU, ms per s"),
    Column::Number("ms per stream-second"),
];

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    streams: u32,
    /// Of one picture, in the server's own process.
    ms_per_picture: Spread,
    #[serde(flatten)]
    besides: Besides,
    notes: Vec<String>,
    runs: Vec<Run>,
}

/// What is measured beside the server, in ms of CPU for one picture.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Besides {
    /// What hands a keyframe to a worker and takes the image back, in the server's own process.
    pub(super) channel_ms: f64,
    /// The same files, names, syncs and pages of a log, by a thread that does nothing else.
    pub(super) disk_ms: Spread,
}

impl Report {
    pub(super) fn new(machine: Machine, streams: u32, besides: Besides, runs: Vec<Run>) -> Self {
        let ms_per_picture = per_picture(&runs, |run| run.cpu_ms);
        let mut notes = vec![notes::describe(&machine), method(&runs)];
        notes.push(verdict(ms_per_picture, besides.channel_ms));
        notes.push(by_disk(&runs, besides.disk_ms));
        notes.push(by_thread(&runs));
        let lost = runs.iter().filter_map(|run| {
            notes::lost_by(&run.load)
                .map(|lost| format!("NOT GOOD: dues {}, round {}: {lost}.", run.dues.label(), run.round))
        });
        notes.extend(lost);
        Self { machine, streams, ms_per_picture, besides, notes, runs }
    }

    pub(super) fn page(&self) -> Page {
        let rows = [Dues::Taken, Dues::Shed].map(|dues| {
            let over = |value: fn(&Run) -> f64| Spread::of(self.runs.iter().filter(|run| run.dues == dues).map(value));
            let cpu = over(|run| run.cpu_ms / run.seconds);
            [
                dues.label().to_owned(),
                self.streams.to_string(),
                format!("{:.1}", over(|run| (run.pictures as f64 + run.shed) / run.seconds).median),
                format!("{:.1} ({:.1}–{:.1})", cpu.median, cpu.least, cpu.most),
                format!("{:.3}", cpu.median / f64::from(self.streams)),
            ]
        });
        Page { tables: vec![Table::new(&COLUMNS, rows)], notes: self.notes.clone() }
    }
}

impl Dues {
    fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Shed => "shed",
        }
    }
}

/// Over the rounds: what the runs with pictures used more than those that shed them, over the pictures.
fn per_picture(runs: &[Run], used_ms: impl Fn(&Run) -> f64) -> Spread {
    let each = runs.iter().filter(|run| run.dues == Dues::Taken).filter_map(|taken| {
        let shed = runs.iter().find(|run| run.dues == Dues::Shed && run.round == taken.round)?;
        let more_ms_per_s = used_ms(taken) / taken.seconds - used_ms(shed) / shed.seconds;
        Some(more_ms_per_s / (taken.pictures as f64 / taken.seconds))
    });
    Spread::of(each)
}

fn verdict(whole: Spread, channel_ms: f64) -> String {
    let Spread { median, least, most } = whole;
    let rest = median - channel_ms;
    let said = format!(
        "Behind its pick a picture costs the server's own process {median:.2} ms of CPU ({least:.2}–{most:.2}). {channel_ms:.2} of it \
         is the worker's channel, as `bench picture` measures it; commit, store, notify and metrics are the other {rest:.2} ms \
         (asked: at most {MS_PER_PICTURE_MAX})."
    );
    // One that is not a number has kept nothing.
    if rest <= MS_PER_PICTURE_MAX { said } else { format!("NOT GOOD: {said}") }
}

fn by_disk(runs: &[Run], disk_ms: Spread) -> String {
    let Spread { median, least, most } = disk_ms;
    let image_kb = runs.iter().map(|run| run.image_bytes).max().unwrap_or(0) / 1000;
    format!(
        "{median:.2} ms ({least:.2}–{most:.2}) take the same files, names, syncs and pages of a log by a thread that does nothing else, \
         with images of {image_kb} KB."
    )
}

fn by_thread(runs: &[Run]) -> String {
    let names: BTreeSet<&str> = runs.iter().flat_map(|run| run.threads.names()).collect();
    let mut parts: Vec<(f64, &str)> =
        names.into_iter().map(|name| (per_picture(runs, |run| run.threads.ms(name)).median, name)).collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let parts = parts.iter().filter(|(ms, _)| *ms >= 0.005).map(|(ms, name)| format!("{name} {ms:.2}"));
    format!("By threads of a name, in ms per picture: {}.", parts.collect::<Vec<_>>().join(", "))
}

fn method(runs: &[Run]) -> String {
    format!(
        "Median of {}; each {:.0} s long. The CPU time of the server's own process, without its workers, with a picture every {} s of \
         each stream, less that of one which sheds the same dues once they are picked, over the pictures.",
        runs.iter().map(|run| run.round).max().unwrap_or(0),
        runs.first().map_or(0.0, |run| run.seconds),
        INTERVAL.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadReport;
    use crate::rest::threads::ThreadTimes;

    fn run(dues: Dues, cpu_ms: f64, (pictures, shed): (usize, f64)) -> Run {
        let load = LoadReport { late_ms_max: 3, accept_ms_max: 9, ..LoadReport::default() };
        let (threads, image_bytes) = (ThreadTimes::default(), 100_000);
        Run { dues, round: 1, seconds: 10.0, cpu_ms, threads, pictures, image_bytes, shed, load }
    }

    fn report(taken_ms: f64) -> String {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24.0,
            kernel: "6.1".to_owned(),
            versions: Vec::new(),
        };
        let runs = vec![run(Dues::Taken, taken_ms, (200, 0.0)), run(Dues::Shed, 200.0, (0, 200.0))];
        let besides = Besides { channel_ms: 0.2, disk_ms: Spread { median: 0.5, least: 0.4, most: 0.6 } };
        Report::new(machine, 200, besides, runs).page().text()
    }

    #[test]
    fn divides_what_is_more_by_the_pictures() {
        let text = report(400.0);
        assert!(text.contains("own process 1.00 ms of CPU (1.00–1.00). 0.20 of it"), "{text}");
        assert!(text.contains("are the other 0.80 ms") && !text.contains("NOT GOOD"), "{text}");
        assert!(text.contains("0.50 ms (0.40–0.60) take the same files") && text.contains("100 KB"), "{text}");
        let row = text.lines().find(|line| line.starts_with("taken")).expect("a row");
        assert!(row.split_whitespace().eq(["taken", "200", "20.0", "40.0", "(40.0–40.0)", "0.200"]), "{row}");
    }

    #[test]
    fn says_when_the_bound_is_passed() {
        assert!(
            report(460.0).contains("NOT GOOD: Behind its pick a picture costs the server's own process 1.30 ms"),
            "1.1 ms are left"
        );
    }
}
