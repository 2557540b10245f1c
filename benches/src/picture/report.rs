//! What the ways cost, beside what is asked.

use serde::Serialize;

use super::ways::{ImageSize, SIZES, Taken, WAYS, Way};
use crate::machine::Machine;
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::summary::Spread;

/// What we ask of the server's pool: in times the libraries, and in times the worker's own code, which is the price of the
/// process boundary: two copies through shared memory and a wake-up each way.
const TIMES_LIBRARIES_MAX: f64 = 1.1;
const TIMES_DIRECT_MAX: f64 = 1.02;

const COLUMNS: [Column; 5] = [
    Column::Words("image"),
    Column::Words("way"),
    Column::Number("CPU ms per picture"),
    Column::Number("× libraries"),
    Column::Number("× worker's code"),
];

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    keyframes: usize,
    rows: Vec<Row>,
    notes: Vec<String>,
    taken: Vec<Taken>,
}

/// One way at one size, over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    way: Way,
    size: ImageSize,
    ms: Spread,
    times_libraries: f64,
    times_direct: f64,
}

impl Report {
    pub(super) fn new(machine: Machine, keyframes: usize, taken: Vec<Taken>) -> Self {
        let keys = SIZES.into_iter().flat_map(|size| WAYS.map(|way| (size, way)));
        let rows: Vec<Row> = keys
            .map(|(size, way)| Row {
                way,
                size,
                ms: Spread::of(of(&taken, size, way).map(Taken::ms)),
                times_libraries: ratio(&taken, size, (way, Way::Libraries)),
                times_direct: ratio(&taken, size, (way, Way::Direct)),
            })
            .collect();
        let mut notes = vec![notes::describe(&machine), method(&taken, keyframes), steps(&taken)];
        notes.extend(rows.iter().filter_map(|row| row.verdict(&taken)));
        Self { machine, keyframes, rows, notes, taken }
    }

    pub(super) fn page(&self) -> Page {
        let rows = self.rows.iter().map(|row| {
            let Spread { median, least, most } = row.ms;
            [
                row.size.label().to_owned(),
                row.way.label().to_owned(),
                format!("{median:.2} ({least:.2}–{most:.2})"),
                format!("{:.3}", row.times_libraries),
                format!("{:.3}", row.times_direct),
            ]
        });
        Page { tables: vec![Table::new(&COLUMNS, rows)], notes: self.notes.clone() }
    }
}

impl Row {
    /// Whether the pool keeps what is asked; nothing is asked of the other ways.
    fn verdict(&self, taken: &[Taken]) -> Option<String> {
        let Self { way, size, times_libraries, times_direct, .. } = self;
        if *way != Way::Pool {
            return None;
        }
        let asking = Spread::of(of(taken, *size, Way::Pool).map(Taken::asking_ms)).median;
        let bounds = format!(
            "{}: {times_libraries:.2} × the libraries (asked: at most {TIMES_LIBRARIES_MAX}); the process boundary costs \
             {:.1} % (at most {:.0} %), the server's side of it {asking:.2} ms of CPU.",
            size.label(),
            (times_direct - 1.0) * 100.0,
            (TIMES_DIRECT_MAX - 1.0) * 100.0
        );
        let kept = *times_libraries <= TIMES_LIBRARIES_MAX && *times_direct <= TIMES_DIRECT_MAX;
        Some(if kept { bounds } else { format!("NOT GOOD: {bounds}") })
    }
}

fn of(taken: &[Taken], size: ImageSize, way: Way) -> impl Iterator<Item = &Taken> {
    taken.iter().filter(move |one| (one.size, one.way) == (size, way))
}

/// The median over the rounds of the ratio within a round.
fn ratio(taken: &[Taken], size: ImageSize, (way, base): (Way, Way)) -> f64 {
    let ratios = of(taken, size, way).filter_map(|one| {
        let base = of(taken, size, base).find(|base| base.round == one.round)?;
        Some(one.ms() / base.ms())
    });
    Spread::of(ratios).median
}

fn method(taken: &[Taken], keyframes: usize) -> String {
    let rounds = taken.iter().map(|one| one.round).max().unwrap_or(0);
    format!(
        "Median of {rounds}; each is {keyframes} different keyframes several times over, warmed up before. In brackets: least \
         and most. Ratios are within a round."
    )
}

fn steps(taken: &[Taken]) -> String {
    let step = |index: usize| {
        let of_libraries = of(taken, ImageSize::Own, Way::Libraries);
        Spread::of(of_libraries.filter_map(|one| Some(one.each_ms(one.steps_us?[index])))).median
    };
    format!(
        "The libraries at the picture's own size: {:.1} ms to decode, {:.1} to convert, {:.1} to encode.",
        step(0),
        step(1),
        step(2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of 15 ms by the libraries, 14 ms by the worker's code; the pool's are given.
    fn report(pool_us: u64) -> String {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24.0,
            kernel: "6.1".to_owned(),
            versions: Vec::new(),
        };
        let taken = SIZES.into_iter().flat_map(|size| {
            let one = |way, rendering_us, asking_us| Taken {
                way,
                size,
                round: 1,
                pictures: 10,
                rendering_us,
                asking_us,
                steps_us: (way == Way::Libraries).then_some([110_000, 20_000, 20_000]),
            };
            [one(Way::Libraries, 150_000, 0), one(Way::Direct, 140_000, 0), one(Way::Pool, 140_000, pool_us - 140_000)]
        });
        Report::new(machine, 32, taken.collect()).page().text()
    }

    #[test]
    fn stands_beside_the_libraries_and_the_workers_own_code() {
        let text = report(142_000);
        let row = text.lines().find(|line| line.starts_with("1280x720") && line.contains("pool")).expect("a row");
        assert!(row.ends_with("14.20 (14.20–14.20)        0.947            1.014"), "{row}");
        assert!(text.contains("640x360: 0.95 × the libraries (asked: at most 1.1)"), "{text}");
        assert!(text.contains("costs 1.4 % (at most 2 %), the server's side of it 0.20 ms"), "{text}");
        assert!(text.contains("11.0 ms to decode, 2.0 to convert, 2.0 to encode"), "{text}");
        assert!(!text.contains("NOT GOOD"), "{text}");
    }

    #[test]
    fn says_when_a_bound_is_passed() {
        assert!(report(144_000).contains("NOT GOOD: 1280x720: 0.96 × the libraries"), "the boundary costs too much");
    }
}
