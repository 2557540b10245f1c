//! What stands below every table: on what it was measured, how, and what casts doubt on it.

use std::fmt::Display;

use crate::load::LoadReport;
use crate::machine::Machine;
use crate::measurement::Measurement;
use crate::plan::Plan;
use crate::summary::Summary;

/// A message that is later than this was held up by a server that takes too little, or by a generator without a core to
/// run on. Either way the streams were not what they should have been.
const LATE_MS_MAX: u64 = 2000;

/// Part of all cores that may go to what neither is measured nor publishes, within one measurement. CPU time grows in a
/// crowd, and not everybody's alike.
const OTHERS_MAX: f64 = 0.25;

const NOT_GOOD: &str = "NOT GOOD: ";

/// Tells of a bound that was not kept, or of a run that proves nothing.
pub(crate) fn not_good(what: impl Display) -> String {
    format!("{NOT_GOOD}{what}")
}

/// The note as it is, if what it tells of was kept.
pub(crate) fn judged(kept: bool, note: String) -> String {
    if kept { note } else { not_good(note) }
}

pub(crate) fn is_not_good(note: &str) -> bool {
    note.starts_with(NOT_GOOD)
}

pub(crate) fn describe(machine: &Machine) -> String {
    let Machine { cpu, cores, memory_gib, kernel, versions } = machine;
    format!("{cores} cores of {cpu}, {memory_gib:.0} GiB, Linux {kernel}; {}.", versions.join("; "))
}

pub(crate) fn method(plan: &Plan) -> String {
    let rounds_least = plan.subjects.iter().map(|subject| subject.rounds_max()).min().unwrap_or(u32::MAX);
    let of_rivals = if rounds_least < plan.rounds {
        format!(" (of {rounds_least} for recipes with a process for each stream)")
    } else {
        String::new()
    };
    format!(
        "Median of {}{of_rivals}; each {} s long, after {} s in which the publishers join and {} s to run evenly. In \
         brackets: least and most.",
        plan.rounds, plan.window_s, plan.ramp_s, plan.settle_s
    )
}

/// How busy others kept the machine, and whether that was too much.
pub(crate) fn disturbance(machine: &Machine, measurements: &[Measurement]) -> Vec<String> {
    let Some(first) = measurements.first() else { return Vec::new() };
    let over = |cores: fn(&Measurement) -> f64| {
        let mean = measurements.iter().map(cores).sum::<f64>() / measurements.len() as f64;
        (mean, measurements.iter().map(cores).fold(0.0, f64::max))
    };
    let ((load, load_most), (others, others_most)) = (over(|one| one.load_cores), over(|one| one.others_cores));
    let said = format!(
        "CPU time from {}. Of {} cores the load generator took {load:.1} on average and {load_most:.1} at most, and everything \
         else on the machine {others:.1} and {others_most:.1}.",
        first.accounting, machine.cores
    );
    let crowded = |one: &&Measurement| one.others_cores > OTHERS_MAX * machine.cores as f64;
    let crowded = measurements.iter().filter(crowded).count();
    let not_kept = (crowded > 0).then(|| {
        not_good(format_args!(
            "in {crowded} of {} measurements others on the machine took more than {:.0} % of all cores.",
            measurements.len(),
            OTHERS_MAX * 100.0
        ))
    });
    [said].into_iter().chain(not_kept).collect()
}

/// Whoever made fewer pictures than asked is cheaper than it should be.
pub(crate) fn missing(summaries: &[Summary], measurements: &[Measurement]) -> impl Iterator<Item = String> {
    // A picture may fall just outside of a window.
    let short = summaries.iter().filter(|row| (row.pictures as f64) < row.pictures_asked * 0.95 - 1.0);
    short.map(|row| {
        let &Summary { subject, streams, pictures, pictures_asked, .. } = row;
        let of_row = measurements.iter().filter(|one| (one.subject, one.streams) == (subject, streams));
        let skipped: Vec<&str> = of_row.flat_map(|one| &one.skipped).map(String::as_str).collect();
        let reasons = if skipped.is_empty() { String::new() } else { format!(" It says: {}.", skipped.join(", ")) };
        not_good(format_args!(
            "{}, {streams} streams, made {pictures} of {pictures_asked:.0} pictures, so its cost is too low.{reasons}",
            subject.label()
        ))
    })
}

/// Publishers that were not served as they should have been.
pub(crate) fn lost(measurements: &[Measurement]) -> impl Iterator<Item = String> {
    measurements.iter().filter_map(|one| {
        let lost = lost_by(&one.load)?;
        Some(not_good(format_args!("{}, {} streams, round {}: {lost}.", one.subject.label(), one.streams, one.round)))
    })
}

/// What is wrong with the streams of one run of the generator; `None` when nothing is.
pub(crate) fn lost_by(load: &LoadReport) -> Option<String> {
    let LoadReport { refused, dropped, late_ms_max, blocked_ms_max, reasons, .. } = load;
    (refused + dropped > 0 || *late_ms_max > LATE_MS_MAX).then(|| {
        format!(
            "{refused} publishers were refused, {dropped} lost their connection and the latest message was {late_ms_max} ms \
             late, {blocked_ms_max} of them at most by the server ({})",
            reasons.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::a_machine;
    use crate::measurement::tests::measured;
    use crate::subject::Subject;

    #[test]
    fn says_when_others_took_much_of_the_machine() {
        let machine = a_machine();
        let round = |others_cores| Measurement { others_cores, ..measured(Subject::Floor, 10, 1, 200.0) };
        let quiet = disturbance(&machine, &[round(0.1), round(0.5)]);
        let said = "CPU time from a test. Of 2 cores the load generator took 0.3 on average and 0.3 at most, and everything \
                    else on the machine 0.3 and 0.5.";
        assert_eq!(quiet, [said]);
        let crowded = disturbance(&machine, &[round(0.1), round(0.1), round(1.6)]);
        assert!(crowded[0].ends_with("everything else on the machine 0.6 and 1.6."), "{crowded:?}");
        let not_kept = "NOT GOOD: in 1 of 3 measurements others on the machine took more than 25 % of all cores.";
        assert_eq!(crowded[1..], [not_kept]);
    }
}
