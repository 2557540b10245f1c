//! What was timed, beside what is asked.

use std::time::Duration;

use serde::Serialize;

use super::least::Least;
use super::timed::Picture;
use super::{AIM_ABOVE, Delays};
use crate::load::LoadReport;
use crate::machine::Machine;
use crate::notes::{self, not_good};
use crate::page::{Column, Page, Table};
use crate::subject::{INTERVAL, Subject};

/// What we ask of ourselves while the asked part of the machine is busy, in ms.
const STORED_ASKED: Asked = Asked { what: "stored", p50_ms: 60.0, p99_ms: 250.0 };
const CALLED_ASKED: Asked = Asked { what: "callback", p50_ms: 150.0, p99_ms: 1000.0 };

/// How far the load may stay below what was asked, of which it was to be above: see [`AIM_ABOVE`].
const LOAD_TOLERANCE: f64 = 0.01;

const COLUMNS: [Column; 11] = [
    Column::Words("system"),
    Column::Number("cores busy"),
    Column::Number("timed streams"),
    Column::Number("others"),
    Column::Words("until"),
    Column::Number("pictures"),
    Column::Number("p50 ms"),
    Column::Number("p90 ms"),
    Column::Number("p99 ms"),
    Column::Number("most ms"),
    Column::Number("× ours"),
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
    /// Part of all cores that was to be busy in our last row.
    load_asked: f64,
    #[serde(flatten)]
    measured: Measured,
    notes: Vec<String>,
}

/// What a run has found.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// Ours: alone, then loaded.
    pub(super) rows: [Row; 2],
    pub(super) rivals: Vec<Rival>,
    pub(super) least: Least,
    /// The streams that made the load.
    pub(super) others: Vec<LoadReport>,
}

/// One measurement of ours.
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

/// One of a recipe, on a machine that had nothing else to do.
#[derive(Debug, Serialize)]
pub(super) struct Rival {
    system: &'static str,
    streams: u32,
    cores_busy: f64,
    pictures: usize,
    /// Keyframes that left meanwhile.
    due: usize,
    /// Pictures that show nothing of the clip.
    unknown: usize,
    written: Quantiles,
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

impl Rival {
    pub(super) fn new(
        system: &'static str,
        streams: u32,
        cores_busy: f64,
        delays: &[Duration],
        (due, unknown): (usize, usize),
    ) -> Self {
        let written = Quantiles::of(delays.iter().copied());
        Self { system, streams, cores_busy, pictures: delays.len(), due, unknown, written }
    }

    /// Pictures that it did not write, or that nobody recognises. At each end of the window a picture of each stream may fall
    /// just outside of it.
    fn doubts(&self) -> Option<String> {
        let Self { system, streams, pictures, due, unknown, .. } = self;
        let is_short = pictures + unknown + (*streams as usize) < *due;
        (is_short || *unknown > 0).then(|| {
            not_good(format_args!(
                "{system}: {due} keyframes left and {} pictures came, {unknown} of which show nothing of the clip.",
                pictures + unknown
            ))
        })
    }
}

impl Report {
    pub(super) fn new(machine: Machine, timed_streams: u32, load_asked: f64, measured: Measured) -> Self {
        let Measured { rows, rivals, least, others } = &measured;
        let [alone, loaded] = rows;
        let mut notes =
            vec![notes::describe(&machine), method(loaded, rivals, load_asked), least.note(alone.stored.p50_ms)];
        notes.extend(beside(alone, rivals));
        notes.extend(rows.iter().map(|row| row.verdict(&machine)));
        notes.extend(too_idle(loaded, &machine, load_asked));
        notes.extend(rows.iter().filter_map(Row::left_out));
        notes.extend(rivals.iter().filter_map(Rival::doubts));
        notes.extend(
            others.iter().filter_map(|load| notes::lost_by(load).map(|lost| not_good(format_args!("{lost}.")))),
        );
        Self { machine, timed_streams, load_asked, measured, notes }
    }

    pub(super) fn page(&self) -> Page {
        let Measured { rows: [alone, loaded], rivals, .. } = &self.measured;
        let own = |row: &Row, until: &str, delays, times: Option<f64>| {
            let counts = [self.timed_streams as usize, row.others as usize, row.pictures];
            self.line((Subject::Framehook.label(), until), row.cores_busy, counts, (delays, times))
        };
        let own = [
            own(alone, "stored", alone.stored, Some(1.0)),
            own(alone, "callback", alone.called, None),
            own(loaded, "stored", loaded.stored, None),
            own(loaded, "callback", loaded.called, None),
        ];
        let rivals = rivals.iter().map(|rival| {
            let counts = [rival.streams as usize, 0, rival.pictures];
            let times = rival.times(alone);
            self.line((rival.system, "written"), rival.cores_busy, counts, (rival.written, Some(times)))
        });
        Page { tables: vec![Table::new(&COLUMNS, own.into_iter().chain(rivals))], notes: self.notes.clone() }
    }

    fn line(
        &self,
        (system, until): (&str, &str),
        cores_busy: f64,
        [streams, others, pictures]: [usize; 3],
        (delays, times): (Quantiles, Option<f64>),
    ) -> [String; 11] {
        let [p50, p90, p99, most] = delays.cells();
        [
            system.to_owned(),
            format!("{cores_busy:.2} ({:.0} %)", cores_busy / self.machine.cores as f64 * 100.0),
            streams.to_string(),
            others.to_string(),
            until.to_owned(),
            pictures.to_string(),
            p50,
            p90,
            p99,
            most,
            times.map_or_else(|| "–".to_owned(), |times| format!("{times:.1}")),
        ]
    }
}

impl Rival {
    /// Its median in times that of our stored pictures, nobody else there for both.
    fn times(&self, alone: &Row) -> f64 {
        self.written.p50_ms / alone.stored.p50_ms
    }
}

/// The recipe that makes one wait the least.
fn beside(alone: &Row, rivals: &[Rival]) -> Option<String> {
    let quickest = rivals.iter().min_by(|a, b| a.written.p50_ms.total_cmp(&b.written.p50_ms))?;
    Some(format!(
        "With nobody else there, the quickest of the recipes ({}) takes {:.1} × as long as Framehook at the median.",
        quickest.system,
        quickest.times(alone)
    ))
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
        notes::judged(stored_kept && called_kept, said)
    }

    /// Whoever has no picture has no delay either.
    fn left_out(&self) -> Option<String> {
        let Self { missing, skipped, others, .. } = self;
        (*missing > 0 || *skipped > 0.0).then(|| {
            not_good(format_args!(
                "beside {others} others, {missing} timed keyframes had no callback, {skipped} dues no picture."
            ))
        })
    }
}

fn too_idle(row: &Row, machine: &Machine, asked: f64) -> Option<String> {
    let load = row.load(machine);
    (load < asked - LOAD_TOLERANCE).then(|| {
        not_good(format_args!(
            "{:.0} % of all cores were busy, {:.0} asked; see `--load`.",
            load * 100.0,
            asked * 100.0
        ))
    })
}

fn method(loaded: &Row, rivals: &[Rival], load_asked: f64) -> String {
    let fewest = rivals.iter().map(|rival| rival.pictures).min().unwrap_or_default();
    format!(
        "A timed stream has a picture every two seconds, one of the {} others every {} s; their number was to keep {:.0} % of all \
         cores busy. Busy are all processes of the machine: publishers, system, receiver. Of a recipe there are {fewest} pictures \
         and more, so that its p99 is little less than its most.",
        loaded.others,
        INTERVAL.as_secs(),
        (load_asked + AIM_ABOVE) * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::a_machine;

    fn row(others: u32, cores_busy: f64, stored_ms: u64) -> Row {
        let picture = |ms| Picture { stored: Duration::from_millis(ms), called: Duration::from_millis(ms + 2) };
        Row::new(others, cores_busy, &[picture(20), picture(stored_ms), picture(stored_ms)], 0, 0.0)
    }

    fn rival(system: &'static str, written_ms: u64, counts: (usize, usize)) -> Rival {
        let delays = [written_ms, written_ms - 10, written_ms + 10].map(Duration::from_millis);
        Rival::new(system, 2, 0.5, &delays, counts)
    }

    fn report_beside(loaded: Row, rivals: Vec<Rival>) -> String {
        let machine = a_machine();
        let least = Least { p50_ms: 20.0, p99_ms: 22.0, steps_ms: [15.0, 2.0, 3.0] };
        let measured = Measured { rows: [row(0, 0.2, 25), loaded], rivals, least, others: Vec::new() };
        Report::new(machine, 10, 0.4, measured).page().text()
    }

    fn report(loaded: Row) -> String {
        report_beside(loaded, vec![rival("a slow recipe", 4000, (5, 0)), rival("a quick one", 80, (3, 0))])
    }

    fn cells(text: &str, parts: [&str; 2]) -> Vec<String> {
        let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part))).expect("a row");
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn shows_each_load_with_its_bounds() {
        let text = report(row(180, 0.82, 40));
        let stored = cells(&text, ["180", "stored"]);
        let expected =
            ["framehook", "serve", "0.82", "(41", "%)", "10", "180", "stored", "3", "40", "40", "40", "40", "–"];
        assert_eq!(stored, expected);
        assert_eq!(cells(&text, ["180", "callback"])[9..], ["42", "42", "42", "42", "–"]);
        assert!(
            text.contains("With 10 % of all cores busy: stored after 25 ms at the median (asked: at most 60)"),
            "{text}"
        );
        assert!(!text.contains("NOT GOOD"), "{text}");
    }

    #[test]
    fn divides_recipes_by_our_stored_pictures_with_nobody_else_there() {
        let text = report(row(180, 0.82, 40));
        assert_eq!(cells(&text, ["framehook", "stored"])[9..], ["25", "25", "25", "25", "1.0"]);
        let expected = ["0.50", "(25", "%)", "2", "0", "written", "3", "4000", "4010", "4010", "4010", "160.0"];
        assert_eq!(cells(&text, ["a slow recipe", "written"])[3..], expected);
        assert!(text.contains("the quickest of the recipes (a quick one) takes 3.2 × as long as Framehook"), "{text}");
        assert!(text.contains("Framehook's is stored after 1.25 × that"), "{text}");
    }

    #[test]
    fn says_when_a_bound_is_passed_or_the_load_was_not_reached() {
        assert!(report(row(180, 0.8, 61)).contains("NOT GOOD: With 40 % of all cores busy: stored after 61 ms"));
        let skipped = Row { missing: 2, skipped: 3.0, ..row(180, 0.8, 40) };
        assert!(report(skipped).contains("NOT GOOD: beside 180 others, 2 timed keyframes had no callback, 3 dues"));
        assert!(!report(row(180, 0.79, 40)).contains("NOT GOOD"), "39.5 % is near enough");
        assert!(report(row(180, 0.77, 40)).contains("NOT GOOD: 38 % of all cores were busy, 40 asked"));
    }

    #[test]
    fn says_when_a_recipe_left_pictures_out_or_wrote_what_nobody_knows() {
        let beside = |counts| report_beside(row(180, 0.82, 40), vec![rival("a recipe", 80, counts)]);
        // Three pictures of two streams.
        assert!(!beside((5, 0)).contains("NOT GOOD"), "one of each stream may fall outside");
        let short = beside((6, 0));
        assert!(short.contains("NOT GOOD: a recipe: 6 keyframes left and 3 pictures came, 0 of which"), "{short}");
        let unknown = beside((4, 1));
        assert!(unknown.contains("NOT GOOD: a recipe: 4 keyframes left and 4 pictures came, 1 of which"), "{unknown}");
    }
}
