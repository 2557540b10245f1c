//! What stands below every table: on what it was measured, how, and what casts doubt on it.

use crate::load::LoadReport;
use crate::machine::Machine;
use crate::measurement::Measurement;
use crate::plan::Plan;
use crate::summary::Summary;

/// A message that is later than this was held up by a server that takes too little, or by a generator without a core to
/// run on. Either way the streams were not what they should have been.
const LATE_MS_MAX: u64 = 2000;

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

/// How busy others kept the machine: CPU time grows a little in a crowd.
pub(crate) fn disturbance(machine: &Machine, measurements: &[Measurement]) -> Option<String> {
    let first = measurements.first()?;
    let mean = measurements.iter().map(|one| one.others_cores).sum::<f64>() / measurements.len() as f64;
    let most = measurements.iter().map(|one| one.others_cores).fold(0.0, f64::max);
    Some(format!(
        "CPU time from {}. Everything else on the machine, the load generator included, took {mean:.1} of {} cores on \
         average and {most:.1} at most.",
        first.accounting, machine.cores
    ))
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
        format!(
            "NOT GOOD: {}, {streams} streams, made {pictures} of {pictures_asked:.0} pictures, so its cost is too \
             low.{reasons}",
            subject.label()
        )
    })
}

/// Publishers that were not served as they should have been.
pub(crate) fn lost(measurements: &[Measurement]) -> impl Iterator<Item = String> {
    measurements.iter().filter_map(|one| {
        let lost = lost_by(&one.load)?;
        Some(format!("NOT GOOD: {}, {} streams, round {}: {lost}.", one.subject.label(), one.streams, one.round))
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
