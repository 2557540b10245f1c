//! From measurements to what is reported: medians over the rounds, and ratios within the same round.

use serde::Serialize;

use crate::measurement::{FloorSteps, Measurement};
use crate::subject::Subject;

/// One system at one number of streams, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) subject: Subject,
    pub(crate) streams: u32,
    /// Median, least and most over the rounds.
    pub(crate) ms_per_stream_second: f64,
    pub(crate) ms_per_stream_second_least: f64,
    pub(crate) ms_per_stream_second_most: f64,
    /// Extrapolated: 1000 ms over the cost of a stream-second.
    pub(crate) streams_per_core: f64,
    /// All CPU time, receiving included, over the pictures made. `None` when there was none.
    pub(crate) ms_per_picture: Option<f64>,
    pub(crate) pictures: usize,
    pub(crate) pictures_asked: f64,
    pub(crate) mib_per_stream: f64,
    pub(crate) idle_mib: f64,
}

impl Summary {
    /// Its cost as tables show it: the median, and in brackets least and most.
    pub(crate) fn cost(&self) -> String {
        let Self { ms_per_stream_second, ms_per_stream_second_least, ms_per_stream_second_most, .. } = self;
        format!("{ms_per_stream_second:.2} ({ms_per_stream_second_least:.2}–{ms_per_stream_second_most:.2})")
    }
}

/// One row for each system and number of streams that was measured, fewest streams first.
pub(crate) fn summarise(measurements: &[Measurement]) -> Vec<Summary> {
    let mut keys: Vec<(u32, Subject)> = measurements.iter().map(|one| (one.streams, one.subject)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|(streams, subject)| {
            let rows = || of(measurements, streams, subject);
            let over = |value: fn(&Measurement) -> f64| Spread::of(rows().map(value));
            let cost = over(Measurement::ms_per_stream_second);
            let pictures: usize = rows().map(|one| one.pictures).sum();
            let cpu_ms: f64 = rows().map(|one| one.cpu_ms).sum();
            Summary {
                subject,
                streams,
                ms_per_stream_second: cost.median,
                ms_per_stream_second_least: cost.least,
                ms_per_stream_second_most: cost.most,
                streams_per_core: 1000.0 / cost.median,
                ms_per_picture: (pictures > 0).then(|| cpu_ms / pictures as f64),
                pictures,
                pictures_asked: rows().map(|one| one.pictures_asked).sum(),
                mib_per_stream: over(Measurement::bytes_per_stream).median / f64::from(1 << 20),
                idle_mib: over(|one| one.idle_bytes as f64).median / f64::from(1 << 20),
            }
        })
        .collect()
}

fn of(measurements: &[Measurement], streams: u32, subject: Subject) -> impl Iterator<Item = &Measurement> {
    measurements.iter().filter(move |one| (one.streams, one.subject) == (streams, subject))
}

/// What one row costs per stream-second over what another does: the median over the rounds of the ratio within a round,
/// because what disturbs one disturbs both. Not a number where one of them was not measured.
pub(crate) fn ratio(measurements: &[Measurement], row: (u32, Subject), base: (u32, Subject)) -> f64 {
    Spread::of(ratios(measurements, row, base)).median
}

/// That ratio in each round that has both.
pub(crate) fn ratios(
    measurements: &[Measurement],
    row: (u32, Subject),
    base: (u32, Subject),
) -> impl Iterator<Item = f64> {
    of(measurements, row.0, row.1).filter_map(move |one| {
        let base = of(measurements, base.0, base.1).find(|base| base.round == one.round)?;
        Some(one.ms_per_stream_second() / base.ms_per_stream_second())
    })
}

/// The floor's own steps: the median over its measurements.
pub(crate) fn floor_steps(measurements: &[Measurement]) -> Option<FloorSteps> {
    let steps: Vec<FloorSteps> = measurements.iter().filter_map(|one| one.floor_steps).collect();
    let median = |step: fn(&FloorSteps) -> f64| Spread::of(steps.iter().map(step)).median;
    (!steps.is_empty()).then(|| FloorSteps {
        decode_ms: median(|steps| steps.decode_ms),
        convert_ms: median(|steps| steps.convert_ms),
        encode_ms: median(|steps| steps.encode_ms),
    })
}

/// Median, least and most; not a number where there is no value.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let values = in_order(values);
        let edge = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self { median: at(&values, 0.5), least: edge(values.first()), most: edge(values.last()) }
    }

    /// The median with so many decimals, and in brackets least and most.
    pub(crate) fn shown(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

/// Median and quartiles, for many rounds, of which least and most tell little; not a number where there is no value.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quartiles {
    pub(crate) first: f64,
    pub(crate) median: f64,
    pub(crate) third: f64,
}

impl Quartiles {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let values = in_order(values);
        Self { first: at(&values, 0.25), median: at(&values, 0.5), third: at(&values, 0.75) }
    }

    /// The median with so many decimals, and in brackets the other two.
    pub(crate) fn shown(self, digits: usize) -> String {
        let Self { first, median, third } = self;
        format!("{median:.digits$} ({first:.digits$}–{third:.digits$})")
    }
}

fn in_order(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The value that so large a part of the others is below, in between where that falls between two.
fn at(values: &[f64], part: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = part * last as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::tests::measured;

    #[test]
    fn divides_each_round_by_its_own_floor() {
        // The second round ran on a machine that was twice as slow.
        let rounds = [
            measured(Subject::Floor, 10, 1, 200.0),
            measured(Subject::Framehook, 10, 1, 300.0),
            measured(Subject::Floor, 10, 2, 400.0),
            measured(Subject::Framehook, 10, 2, 600.0),
        ];
        let summaries = summarise(&rounds);
        let [floor, framehook] = summaries.as_slice() else { panic!("two rows expected: {summaries:?}") };
        let times = |subject| ratio(&rounds, (10, subject), (10, Subject::Floor));
        assert_eq!((times(Subject::Floor), times(Subject::Framehook)), (1.0, 1.5));
        assert!(times(Subject::Plain).is_nan());
        assert_eq!(floor.ms_per_stream_second, 3.0);
        assert_eq!((framehook.ms_per_stream_second, framehook.ms_per_picture), (4.5, Some(45.0)));
        assert_eq!((framehook.ms_per_stream_second_least, framehook.ms_per_stream_second_most), (3.0, 6.0));
        assert_eq!((framehook.mib_per_stream, framehook.idle_mib), (0.5, 10.0));
    }

    #[test]
    fn median_of_an_odd_and_an_even_number() {
        assert_eq!(Spread::of([3.0, 1.0, 9.0].into_iter()).median, 3.0);
        assert_eq!(Spread::of([3.0, 1.0, 9.0, 5.0].into_iter()).median, 4.0);
        assert!(Spread::of(std::iter::empty()).median.is_nan());
    }

    #[test]
    fn quartiles_leave_a_quarter_on_either_side() {
        let shown = |values: &[f64]| Quartiles::of(values.iter().copied()).shown(2);
        assert_eq!(shown(&[9.0, 1.0, 3.0, 2.0, 4.0]), "3.00 (2.00–4.00)");
        assert_eq!(shown(&[4.0, 3.0, 2.0, 1.0]), "2.50 (1.75–3.25)");
        assert_eq!(shown(&[7.0]), "7.00 (7.00–7.00)");
        assert!(Quartiles::of(std::iter::empty()).third.is_nan());
    }
}
