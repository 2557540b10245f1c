//! From measurements to what is reported: medians over the rounds, and ratios to the floor of the same run.

use serde::Serialize;

use super::{FloorSteps, Measurement};
use crate::subject::Subject;

/// One system at one number of streams, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) subject: Subject,
    pub(super) streams: u32,
    /// Median, least and most over the rounds.
    pub(super) ms_per_stream_second: f64,
    pub(super) ms_per_stream_second_least: f64,
    pub(super) ms_per_stream_second_most: f64,
    /// Median over the rounds of the ratio to the floor in the same round: what disturbs one round disturbs both.
    pub(super) times_the_floor: f64,
    /// Extrapolated: 1000 ms over the cost of a stream-second.
    pub(super) streams_per_core: f64,
    /// All CPU time, receiving included, over the pictures made. `None` when there was none.
    pub(super) ms_per_picture: Option<f64>,
    pub(super) pictures: usize,
    pub(super) pictures_asked: f64,
    pub(super) mib_per_stream: f64,
    pub(super) idle_mib: f64,
}

/// One row for each system and number of streams that was measured, fewest streams first.
pub(super) fn summarise(measurements: &[Measurement]) -> Vec<Summary> {
    let mut keys: Vec<(u32, Subject)> = measurements.iter().map(|one| (one.streams, one.subject)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|(streams, subject)| {
            let of = |subject| {
                let rows = measurements.iter().filter(move |one: &&Measurement| one.streams == streams);
                rows.filter(move |one| one.subject == subject)
            };
            let over = |value: fn(&Measurement) -> f64| Spread::of(of(subject).map(value));
            let cost = over(Measurement::ms_per_stream_second);
            let ratio = Spread::of(of(subject).filter_map(|one| {
                let floor = of(Subject::Floor).find(|floor| floor.round == one.round)?;
                Some(one.ms_per_stream_second() / floor.ms_per_stream_second())
            }));
            let pictures: usize = of(subject).map(|one| one.pictures).sum();
            let cpu_ms: f64 = of(subject).map(|one| one.cpu_ms).sum();
            Summary {
                subject,
                streams,
                ms_per_stream_second: cost.median,
                ms_per_stream_second_least: cost.least,
                ms_per_stream_second_most: cost.most,
                times_the_floor: ratio.median,
                streams_per_core: 1000.0 / cost.median,
                ms_per_picture: (pictures > 0).then(|| cpu_ms / pictures as f64),
                pictures,
                pictures_asked: of(subject).map(|one| one.pictures_asked).sum(),
                mib_per_stream: over(Measurement::bytes_per_stream).median / f64::from(1 << 20),
                idle_mib: over(|one| one.idle_bytes as f64).median / f64::from(1 << 20),
            }
        })
        .collect()
}

/// The floor's own steps: the median over its measurements.
pub(super) fn floor_steps(measurements: &[Measurement]) -> Option<FloorSteps> {
    let steps: Vec<FloorSteps> = measurements.iter().filter_map(|one| one.floor_steps).collect();
    let median = |step: fn(&FloorSteps) -> f64| Spread::of(steps.iter().map(step)).median;
    (!steps.is_empty()).then(|| FloorSteps {
        decode_ms: median(|steps| steps.decode_ms),
        convert_ms: median(|steps| steps.convert_ms),
        encode_ms: median(|steps| steps.encode_ms),
    })
}

/// Median, least and most; not a number where there is no value.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.as_slice() {
            [] => f64::NAN,
            values if values.len() % 2 == 1 => values[middle],
            values => f64::midpoint(values[middle - 1], values[middle]),
        };
        let edge = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self { median, least: edge(values.first()), most: edge(values.last()) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::LoadReport;

    pub(in crate::cost) fn measured(subject: Subject, streams: u32, round: u32, cpu_ms: f64) -> Measurement {
        Measurement {
            subject,
            streams,
            round,
            seconds: 10.0,
            cpu_ms,
            pictures: streams as usize,
            pictures_asked: f64::from(streams),
            skipped: Vec::new(),
            idle_bytes: 10 << 20,
            loaded_bytes: (10 << 20) + (u64::from(streams) << 19),
            others_cores: 0.5,
            accounting: "a test",
            load: LoadReport { refused: 0, dropped: 0, late_ms_max: 3, reasons: Vec::new() },
            floor_steps: (subject == Subject::Floor).then_some(FloorSteps {
                decode_ms: 11.0,
                convert_ms: 2.0,
                encode_ms: 2.4,
            }),
        }
    }

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
        assert_eq!((floor.times_the_floor, framehook.times_the_floor), (1.0, 1.5));
        assert_eq!((framehook.ms_per_stream_second, framehook.ms_per_picture), (4.5, Some(45.0)));
        assert_eq!((framehook.ms_per_stream_second_least, framehook.ms_per_stream_second_most), (3.0, 6.0));
        assert_eq!((framehook.mib_per_stream, framehook.idle_mib), (0.5, 10.0));
    }

    #[test]
    fn median_of_an_odd_and_an_even_number() {
        assert_eq!(Spread::of([3.0, 1.0, 9.0].into_iter()).median, 3.0);
        assert_eq!(Spread::of([3.0, 1.0, 9.0, 5.0].into_iter()).median, 4.0);
    }
}
