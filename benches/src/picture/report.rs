//! What the ways cost, beside what is asked.

use serde::Serialize;

use super::ways::{ImageSize, SIZES, Taken, WAYS, Way};
use crate::machine::Machine;
use crate::notes;
use crate::page::{Column, Page, Table};
use crate::summary::Quartiles;

/// What we ask of the server's pool, in times the libraries.
const TIMES_LIBRARIES_MAX: f64 = 1.1;

/// What we ask of the process boundary: copies through shared memory and a wake-up each way may take so much of a picture.
const BOUNDARY_MAX: f64 = 0.02;

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
    ms: Quartiles,
    times_libraries: Quartiles,
    times_direct: Quartiles,
}

impl Report {
    pub(super) fn new(machine: Machine, keyframes: usize, taken: Vec<Taken>) -> Self {
        let keys = SIZES.into_iter().flat_map(|size| WAYS.map(|way| (size, way)));
        let rows: Vec<Row> = keys
            .map(|(size, way)| Row {
                way,
                size,
                ms: Quartiles::of(of(&taken, size, way).map(Taken::ms)),
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
            [
                row.size.label().to_owned(),
                row.way.label().to_owned(),
                row.ms.shown(2),
                row.times_libraries.shown(3),
                row.times_direct.shown(3),
            ]
        });
        Page { tables: vec![Table::new(&COLUMNS, rows)], notes: self.notes.clone() }
    }
}

impl Row {
    /// Whether the pool keeps what is asked; nothing is asked of the other ways.
    fn verdict(&self, taken: &[Taken]) -> Option<String> {
        let Self { way, size, times_libraries, .. } = self;
        if *way != Way::Pool {
            return None;
        }
        let asking = Quartiles::of(of(taken, *size, Way::Pool).map(Taken::asking_ms)).median;
        let boundary = boundary(taken, *size);
        let bounds = format!(
            "{}: {:.2} × the libraries (asked: at most {TIMES_LIBRARIES_MAX}); the process boundary takes {:.1} % of a picture \
             ({:.1} to {:.1} in the middle half of the turns; asked: at most {:.0} % at the median), the server's side of it \
             {asking:.2} ms of CPU.",
            size.label(),
            times_libraries.median,
            boundary.median * 100.0,
            boundary.first * 100.0,
            boundary.third * 100.0,
            BOUNDARY_MAX * 100.0
        );
        let kept = times_libraries.median <= TIMES_LIBRARIES_MAX && boundary.median <= BOUNDARY_MAX;
        Some(notes::judged(kept, bounds))
    }
}

fn of(taken: &[Taken], size: ImageSize, way: Way) -> impl Iterator<Item = &Taken> {
    taken.iter().filter(move |one| (one.size, one.way) == (size, way))
}

/// Over the rounds: the ratio within a round.
fn ratio(taken: &[Taken], size: ImageSize, (way, base): (Way, Way)) -> Quartiles {
    let ratios = of(taken, size, way).filter_map(|one| {
        let base = of(taken, size, base).find(|base| base.round == one.round)?;
        Some(one.ms() / base.ms())
    });
    Quartiles::of(ratios)
}

/// What the pool does for a picture beside the steps of rendering and what the worker's code called directly does not, as a part of
/// what that takes for all of it. The ratios of the rows hold it too, but decoding alone varies by more from one turn to the next.
fn boundary(taken: &[Taken], size: ImageSize) -> Quartiles {
    let parts = of(taken, size, Way::Pool).filter_map(|pool| {
        let direct = of(taken, size, Way::Direct).find(|direct| direct.round == pool.round)?;
        Some((pool.beside_steps_ms() - direct.beside_steps_ms()) / direct.ms())
    });
    Quartiles::of(parts)
}

fn method(taken: &[Taken], keyframes: usize) -> String {
    let rounds = taken.iter().map(|one| one.round).max().unwrap_or(0);
    format!(
        "Median of {rounds} short turns, in brackets the quartiles; each is {keyframes} different keyframes, warmed up before. \
         Ratios are within a turn, and the order of a turn is that of the one before backwards."
    )
}

fn steps(taken: &[Taken]) -> String {
    let step = |index: usize| {
        let of_libraries = of(taken, ImageSize::Own, Way::Libraries);
        Quartiles::of(of_libraries.filter_map(|one| Some(one.each_ms(one.steps_us?[index])))).median
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
    use crate::machine::tests::a_machine;

    /// Pictures of 15 ms by the libraries, 14 ms by the worker's code, 13.9 of them decoding, converting and encoding, in rounds
    /// on a machine that becomes slower; what the pool's ten take is given as it would be on the machine of the first round, and
    /// how much dearer the steps are for it.
    fn report(pool_us: &[u64], dearer_us: u64) -> String {
        let machine = a_machine();
        let rounds = (1..).zip(pool_us).flat_map(|(round, &pool_us)| {
            SIZES.into_iter().flat_map(move |size| {
                let slower = u64::from(round);
                let one = |way, rendering_us, asking_us| Taken {
                    way,
                    size,
                    round,
                    pictures: 10,
                    rendering_us: rendering_us * slower,
                    asking_us: asking_us * slower,
                    steps_us: (way == Way::Libraries).then_some([110_000, 20_000, 20_000]),
                    own_steps_us: 139_000 * slower,
                };
                let pool = one(Way::Pool, 140_000 + dearer_us, pool_us - 140_000);
                [
                    one(Way::Libraries, 150_000, 0),
                    one(Way::Direct, 140_000, 0),
                    Taken { own_steps_us: pool.own_steps_us + dearer_us * slower, ..pool },
                ]
            })
        });
        Report::new(machine, 32, rounds.collect()).page().text()
    }

    #[test]
    fn stands_beside_the_libraries_and_the_workers_own_code() {
        let text = report(&[142_000], 0);
        let row = text.lines().find(|line| line.starts_with("1280x720") && line.contains("pool")).expect("a row");
        let cells = ["14.20", "(14.20–14.20)", "0.947", "(0.947–0.947)", "1.014", "(1.014–1.014)"];
        assert!(row.split_whitespace().collect::<Vec<_>>().ends_with(&cells), "{row}");
        assert!(text.contains("640x360: 0.95 × the libraries (asked: at most 1.1)"), "{text}");
        assert!(text.contains("takes 1.4 % of a picture (1.4 to 1.4 in the middle half"), "{text}");
        assert!(text.contains("at most 2 % at the median), the server's side of it 0.20 ms"), "{text}");
        assert!(text.contains("11.0 ms to decode, 2.0 to convert, 2.0 to encode"), "{text}");
        assert!(!text.contains("NOT GOOD"), "{text}");
    }

    #[test]
    fn the_boundary_is_what_is_done_beside_the_steps_within_each_turn() {
        // 1, 2, 3, 4 and 5 % more, while the machine itself becomes five times as slow, and decoding dearer by chance.
        for dearer_us in [0, 7_000] {
            let text = report(&[141_400, 142_800, 144_200, 145_600, 147_000], dearer_us);
            assert!(
                text.contains(
                    "takes 3.0 % of a picture (2.0 to 4.0 in the middle half of the turns; asked: at most 2 %"
                ),
                "{text}"
            );
            assert!(text.contains("NOT GOOD: 1280x720: "), "{text}");
        }
    }
}
