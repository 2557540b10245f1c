//! What a picture costs the server itself, beside what is asked.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Beside, Dues, INTERVAL, Run};
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
    per_picture: PerPicture,
    notes: Vec<String>,
    runs: Vec<Run>,
    besides: Vec<Beside>,
}

/// ms of CPU, over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct PerPicture {
    /// What follows the pick, in the server's own process.
    whole: Spread,
    /// Of it, what hands the keyframe to a worker and takes the image back.
    channel: Spread,
    /// What is left of each round.
    rest: Spread,
    /// The kernel's price of what is durable.
    disk: Spread,
    /// Of the rest of each round.
    disk_part: Spread,
    /// The kernel's price of the least that makes a picture durable by itself.
    fewest: Spread,
}

impl PerPicture {
    fn of(runs: &[Run], besides: &[Beside]) -> Self {
        let rounds: Vec<(f64, &Beside)> = by_round(runs, |run| run.cpu_ms)
            .filter_map(|(round, whole)| Some((whole, besides.iter().find(|beside| beside.round == round)?)))
            .collect();
        let over =
            |value: fn(f64, &Beside) -> f64| Spread::of(rounds.iter().map(|(whole, beside)| value(*whole, beside)));
        Self {
            whole: over(|whole, _| whole),
            channel: over(|_, beside| beside.channel_ms),
            rest: over(|whole, beside| whole - beside.channel_ms),
            disk: over(|_, beside| beside.disk_ms),
            disk_part: over(|whole, beside| beside.disk_ms / (whole - beside.channel_ms)),
            fewest: over(|_, beside| beside.fewest_ms),
        }
    }
}

impl Report {
    pub(super) fn new(machine: Machine, streams: u32, besides: Vec<Beside>, runs: Vec<Run>) -> Self {
        let per_picture = PerPicture::of(&runs, &besides);
        let mut notes = vec![notes::describe(&machine), method(&runs)];
        notes.push(per_picture.verdict());
        notes.push(per_picture.by_disk(&runs));
        notes.push(by_thread(&runs));
        let lost = runs.iter().filter_map(|run| {
            notes::lost_by(&run.load)
                .map(|lost| notes::not_good(format_args!("dues {}, round {}: {lost}.", run.dues.label(), run.round)))
        });
        notes.extend(lost);
        Self { machine, streams, per_picture, notes, runs, besides }
    }

    pub(super) fn page(&self) -> Page {
        let rows = [Dues::Taken, Dues::Shed].map(|dues| {
            let over = |value: fn(&Run) -> f64| Spread::of(self.runs.iter().filter(|run| run.dues == dues).map(value));
            let cpu = over(|run| run.cpu_ms / run.seconds);
            [
                dues.label().to_owned(),
                self.streams.to_string(),
                format!("{:.1}", over(|run| (run.pictures as f64 + run.shed) / run.seconds).median),
                cpu.shown(1),
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

/// In each round: what the run with pictures used more than the one that shed them, over the pictures.
fn by_round(runs: &[Run], used_ms: impl Fn(&Run) -> f64) -> impl Iterator<Item = (u32, f64)> {
    runs.iter().filter(|run| run.dues == Dues::Taken).filter_map(move |taken| {
        let shed = runs.iter().find(|run| run.dues == Dues::Shed && run.round == taken.round)?;
        let more_ms_per_s = used_ms(taken) / taken.seconds - used_ms(shed) / shed.seconds;
        Some((taken.round, more_ms_per_s / (taken.pictures as f64 / taken.seconds)))
    })
}

impl PerPicture {
    fn verdict(&self) -> String {
        let Self { whole, channel, rest, .. } = self;
        let said = format!(
            "Behind its pick a picture costs the server's own process {} ms of CPU. The worker's channel, as `bench picture` \
             measures it, took {} of that in the same rounds; commit, store, notify and metrics are what each round has left: \
             {} ms (asked: at most {MS_PER_PICTURE_MAX} at the median).",
            whole.shown(2),
            channel.shown(2),
            rest.shown(2)
        );
        // One that is not a number has kept nothing.
        notes::judged(rest.median <= MS_PER_PICTURE_MAX, said)
    }

    fn by_disk(&self, runs: &[Run]) -> String {
        let image_kb = runs.iter().map(|run| run.image_bytes).max().unwrap_or(0) / 1000;
        format!(
            "{} ms, {:.0} % of what is left, take the same files, names, syncs and pages of a log by a thread that does \
             nothing else, with images of {image_kb} KB. {} ms take the fewest by which a picture and a note of it are durable \
             before the next comes: one file, its name and one page of a log, each synced.",
            self.disk.shown(2),
            self.disk_part.median * 100.0,
            self.fewest.shown(2)
        )
    }
}

fn by_thread(runs: &[Run]) -> String {
    let names: BTreeSet<&str> = runs.iter().flat_map(|run| run.threads.names()).collect();
    let median = |name| Spread::of(by_round(runs, |run| run.threads.ms(name)).map(|(_, ms)| ms)).median;
    let mut parts: Vec<(f64, &str)> = names.into_iter().map(|name| (median(name), name)).collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let parts = parts.iter().filter(|(ms, _)| *ms >= 0.005).map(|(ms, name)| format!("{name} {ms:.2}"));
    format!("By threads of a name, in ms per picture: {}.", parts.collect::<Vec<_>>().join(", "))
}

fn method(runs: &[Run]) -> String {
    format!(
        "Median of {}, in brackets least and most; each {:.0} s long. The CPU time of the server's own process, without its \
         workers, with a picture every {} s of each stream, less that of one which sheds the same dues once they are picked, over \
         the pictures.",
        runs.iter().map(|run| run.round).max().unwrap_or(0),
        runs.first().map_or(0.0, |run| run.seconds),
        INTERVAL.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadReport;
    use crate::machine::tests::a_machine;
    use crate::rest::threads::ThreadTimes;

    fn run(dues: Dues, round: u32, cpu_ms: f64) -> Run {
        let load = LoadReport { late_ms_max: 3, accept_ms_max: 9, ..LoadReport::default() };
        let (threads, image_bytes) = (ThreadTimes::default(), 100_000);
        let (pictures, shed) = if dues == Dues::Taken { (200, 0.0) } else { (0, 200.0) };
        Run { dues, round, seconds: 10.0, cpu_ms, threads, pictures, image_bytes, shed, load }
    }

    /// Rounds by what 200 pictures took, and the channel for each; shedding them takes 200 ms.
    fn report(rounds: &[(f64, f64)]) -> String {
        let machine = a_machine();
        let numbered = || (1..).zip(rounds);
        let runs = numbered()
            .flat_map(|(round, &(taken_ms, _))| [run(Dues::Taken, round, taken_ms), run(Dues::Shed, round, 200.0)]);
        let besides =
            numbered().map(|(round, &(_, channel_ms))| Beside { round, channel_ms, disk_ms: 0.4, fewest_ms: 0.3 });
        Report::new(machine, 200, besides.collect(), runs.collect()).page().text()
    }

    #[test]
    fn divides_what_is_more_by_the_pictures() {
        let text = report(&[(400.0, 0.2)]);
        assert!(text.contains("own process 1.00 (1.00–1.00) ms of CPU"), "{text}");
        assert!(text.contains("took 0.20 (0.20–0.20) of that"), "{text}");
        assert!(text.contains("has left: 0.80 (0.80–0.80) ms (asked") && !text.contains("NOT GOOD"), "{text}");
        assert!(text.contains("0.40 (0.40–0.40) ms, 50 % of what is left, take") && text.contains("100 KB"), "{text}");
        assert!(text.contains("0.30 (0.30–0.30) ms take the fewest"), "{text}");
        let row = text.lines().find(|line| line.starts_with("taken")).expect("a row");
        assert!(row.split_whitespace().eq(["taken", "200", "20.0", "40.0", "(40.0–40.0)", "0.200"]), "{row}");
    }

    #[test]
    fn takes_the_channel_off_in_its_own_round() {
        // One median less the other would be 1.0; the rounds have 0.9, 0.8 and 1.3.
        let text = report(&[(400.0, 0.1), (440.0, 0.4), (500.0, 0.2)]);
        assert!(text.contains("own process 1.20 (1.00–1.50)") && text.contains("took 0.20 (0.10–0.40)"), "{text}");
        assert!(text.contains("has left: 0.90 (0.80–1.30) ms"), "{text}");
    }

    #[test]
    fn says_when_the_bound_is_passed() {
        let passed = "NOT GOOD: Behind its pick a picture costs the server's own process 1.30 (1.30–1.30) ms";
        assert!(report(&[(460.0, 0.2)]).contains(passed), "1.1 ms are left");
    }
}
