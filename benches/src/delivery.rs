//! `bench delivery`: how many callbacks per second leave with their outcomes durable, how late they are at half and at nine
//! tenths of that, what receivers that hang do to receivers that do not, and how soon a start with much owed sends.
//!
//! Everything that the server sends was written into its outbox before it started ([`outbox`]); what is timed lies between
//! that and the first byte at the receiver.

mod backlog;
mod hook0;
mod outbox;
mod plain;
mod receivers;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use framehook_testkit::server::Server;
use framehook_testkit::wait;
use serde::Serialize;

use self::backlog::Backlog;
use self::hook0::Hook0;
use self::outbox::Planned;
use self::receivers::{Arrival, Receivers};
use crate::document::Section;
use crate::latency::Delays;
use crate::machine::Machine;
use crate::page::{self, Verdict};
use crate::subject::Subject;
use crate::workshop::Workshop;

const SECTION: Section = Section("delivery");

/// Receivers of the runs in which nobody hangs: more than a connection each can keep busy.
const RECEIVERS: usize = 20;

/// Receivers of the runs in which some hang.
const RECEIVERS_ISOLATION: usize = 1000;

/// Callbacks per second to the healthy receivers of those runs together, and to the others. Far below the peak: what is
/// asked is who waits for whom, not how much there can be.
const HEALTHY_PER_SEC: f64 = 150.0;
const OTHERS_PER_SEC: f64 = 150.0;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Short runs, to see that it works; their figures are too noisy to quote
    #[arg(long)]
    quick: bool,
    /// Write the results into docs/performance.md
    #[arg(long, conflicts_with = "quick")]
    update: bool,
}

/// How long each part takes.
struct Lengths {
    peak_callbacks: usize,
    paced: Duration,
    isolation: Duration,
    /// Of each isolation ratio; the median is told. The p99 of one run is that of some fifty callbacks.
    isolation_rounds: usize,
    plain: Duration,
    owed: usize,
    /// Of Hook0: each of its claims looks at all that is due, so with more it would be slower.
    hook0_callbacks: usize,
}

impl Options {
    fn lengths(&self) -> Lengths {
        let secs = Duration::from_secs;
        match self.quick {
            false => Lengths {
                peak_callbacks: 40_000,
                paced: secs(20),
                isolation: secs(30),
                isolation_rounds: 3,
                plain: secs(10),
                owed: 1_000_000,
                hook0_callbacks: 4000,
            },
            true => Lengths {
                peak_callbacks: 4000,
                paced: secs(4),
                isolation: secs(10),
                isolation_rounds: 1,
                plain: secs(2),
                owed: 50_000,
                hook0_callbacks: 1000,
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    peak: Peak,
    paced: Vec<Paced>,
    isolation: Vec<Isolation>,
    backlog: Vec<Backlog>,
    plain_one_at_a_time_per_sec: f64,
    plain_64_at_a_time_per_sec: f64,
    hook0: Option<Hook0>,
}

#[derive(Debug, Serialize)]
struct Peak {
    callbacks: usize,
    per_sec: f64,
    costs: Costs,
}

/// What the database did for one callback.
#[derive(Clone, Copy, Debug, Serialize)]
struct Costs {
    syncs: f64,
    statements: f64,
}

#[derive(Debug, Serialize)]
struct Paced {
    part_of_peak: f64,
    per_sec: f64,
    callbacks: usize,
    delays: Quantiles,
    costs: Costs,
}

#[derive(Debug, Serialize)]
struct Isolation {
    hanging: usize,
    healthy: usize,
    clean: Quantiles,
    beside_hanging: Quantiles,
    ratio_p99: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    callbacks: usize,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<Verdict> {
    raise_descriptor_limit();
    let lengths = options.lengths();
    let peak = peak(workshop, lengths.peak_callbacks)?;
    eprintln!("peak: {:.0}/s", peak.per_sec);
    let mut paced = Vec::new();
    for part in [0.5, 0.9] {
        paced.push(at_part_of(workshop, part, peak.per_sec, lengths.paced)?);
        eprintln!("at {part} of it: {:?}", paced.last());
    }
    let mut isolation = Vec::new();
    for hanging in [500, 900, 990] {
        let mut rounds = (0..lengths.isolation_rounds)
            .map(|_| beside(workshop, hanging, lengths.isolation))
            .collect::<Result<Vec<_>>>()?;
        rounds.sort_by(|one, other| one.ratio_p99.total_cmp(&other.ratio_p99));
        isolation.push(rounds.swap_remove(rounds.len() / 2));
        eprintln!("beside {hanging} that hang: {:?}", isolation.last());
    }
    let backlog = [2000, lengths.owed].map(|owed| backlog::measure(workshop, owed));
    let backlog = backlog.into_iter().collect::<Result<Vec<_>>>()?;
    eprintln!("starts: {backlog:?}");
    let receivers = Receivers::start(RECEIVERS, 0)?;
    let plain = |at_a_time| plain::rate(&receivers, at_a_time, lengths.plain);
    let report = Report {
        machine: Machine::look(workshop, &[Subject::Framehook]),
        peak,
        paced,
        isolation,
        backlog,
        plain_one_at_a_time_per_sec: plain(1)?,
        plain_64_at_a_time_per_sec: plain(64)?,
        hook0: hook0::measure(lengths.hook0_callbacks)?,
    };
    let text = format!("{}- {}\n", table(&report), workshop.provenance.note());
    println!("{text}");
    println!("written: {}", page::write_json(workshop, SECTION, &report)?.display());
    if options.update {
        println!("updated: {}", SECTION.replace(&workshop.repository, &text)?.display());
    }
    // Its figures stand beside those of others; no bound is asked of them here.
    Ok(Verdict::Good)
}

/// Everything is due at once.
fn peak(workshop: &Workshop, callbacks: usize) -> Result<Peak> {
    let receivers = Receivers::start(RECEIVERS, 0)?;
    let planned: Vec<_> =
        (0..callbacks).map(|index| Planned { receiver: index % RECEIVERS, after: Duration::ZERO }).collect();
    let mut server = outbox::start(workshop, &receivers.ports, &planned)?;
    wait_for(&receivers, callbacks, Duration::from_secs(120))?;
    let costs = costs(&server, callbacks)?;
    all_delivered(&mut server, callbacks)?;
    Ok(Peak { callbacks, per_sec: middle_per_sec(&receivers, callbacks), costs })
}

/// Callbacks per second, without the first, while connections are opened, and the last, when some receivers have nothing left.
fn middle_per_sec(receivers: &Receivers, callbacks: usize) -> f64 {
    let mut came: Vec<u64> = receivers.arrivals().iter().map(|arrival| arrival.came_us).collect();
    came.sort_unstable();
    let (from, to) = (callbacks / 10, callbacks * 9 / 10);
    let took = Duration::from_micros(came[to] - came[from]);
    (to - from) as f64 / took.as_secs_f64()
}

/// Callbacks fall due evenly, to all receivers in turn.
fn at_part_of(workshop: &Workshop, part: f64, peak_per_sec: f64, length: Duration) -> Result<Paced> {
    let receivers = Receivers::start(RECEIVERS, 0)?;
    let per_sec = peak_per_sec * part;
    let planned = evenly(per_sec, length, 0..RECEIVERS);
    let mut server = outbox::start(workshop, &receivers.ports, &planned)?;
    wait_for(&receivers, planned.len(), length + Duration::from_secs(60))?;
    let costs = costs(&server, planned.len())?;
    all_delivered(&mut server, planned.len())?;
    let delays = Quantiles::of(&receivers.arrivals());
    Ok(Paced { part_of_peak: part, per_sec, callbacks: planned.len(), delays, costs })
}

/// The same plan twice, once with the first `hanging` of a thousand receivers never answering.
fn beside(workshop: &Workshop, hanging: usize, length: Duration) -> Result<Isolation> {
    let healthy = hanging..RECEIVERS_ISOLATION;
    let mut planned = evenly(HEALTHY_PER_SEC, length, healthy.clone());
    let expected = planned.len();
    planned.extend(evenly(OTHERS_PER_SEC, length, 0..hanging));
    let measure = |hanging_now: usize| -> Result<Quantiles> {
        let receivers = Receivers::start(RECEIVERS_ISOLATION, hanging_now)?;
        let _server = outbox::start(workshop, &receivers.ports, &planned)?;
        let came = || -> Vec<Arrival> {
            let arrivals = receivers.arrivals();
            arrivals.into_iter().filter(|arrival| healthy.contains(&arrival.receiver)).collect()
        };
        let patience = length + Duration::from_secs(60);
        let all = wait::until("every callback of a healthy receiver", patience, || {
            Some(came()).filter(|came| came.len() >= expected)
        });
        Ok(Quantiles::of(&all?))
    };
    let (clean, beside_hanging) = (measure(0)?, measure(hanging)?);
    let ratio_p99 = beside_hanging.p99_ms / clean.p99_ms;
    Ok(Isolation { hanging, healthy: healthy.len(), clean, beside_hanging, ratio_p99 })
}

/// So many per second for so long, to each of `receivers` in turn.
fn evenly(per_sec: f64, length: Duration, receivers: std::ops::Range<usize>) -> Vec<Planned> {
    let count = (per_sec * length.as_secs_f64()) as usize;
    let nth = |index: usize| Planned {
        receiver: receivers.start + index % receivers.len(),
        after: Duration::from_secs_f64(index as f64 / per_sec),
    };
    (0..count).map(nth).collect()
}

fn wait_for(receivers: &Receivers, callbacks: usize, patience: Duration) -> Result<()> {
    wait::until("every callback", patience, || (receivers.count() >= callbacks).then_some(()))
        .with_context(|| format!("{} of {callbacks} came", receivers.count()))
}

fn costs(server: &Server, callbacks: usize) -> Result<Costs> {
    let metrics = server.metrics()?;
    let per_callback = |name| metrics.sum(name, &[]) / callbacks as f64;
    Ok(Costs {
        syncs: per_callback("framehook_db_syncs_total"),
        statements: per_callback("framehook_db_statements_total"),
    })
}

fn all_delivered(server: &mut Server, callbacks: usize) -> Result<()> {
    let delivered = outbox::delivered(server)?;
    ensure!(delivered == callbacks, "{delivered} of {callbacks} callbacks were written down as delivered");
    Ok(())
}

impl Quantiles {
    fn of(arrivals: &[Arrival]) -> Self {
        let delay = |arrival: &Arrival| Duration::from_micros(arrival.came_us.saturating_sub(arrival.due_us));
        let delays = Delays::of(arrivals.iter().map(delay).collect());
        let ms = |part| delays.quantile(part).as_secs_f64() * 1000.0;
        Self { callbacks: arrivals.len(), p50_ms: ms(0.5), p99_ms: ms(0.99), p999_ms: ms(0.999) }
    }
}

fn table(report: &Report) -> String {
    let Report {
        machine,
        peak,
        paced,
        isolation,
        backlog,
        plain_one_at_a_time_per_sec,
        plain_64_at_a_time_per_sec,
        hook0,
    } = report;
    let mut text = format!(
        "| | callbacks/s | syncs per callback | statements per callback |\n| --- | ---: | ---: | ---: |\n\
         | framehook serve | {:.0} | {:.3} | {:.2} |\n\
         | plain loop, one at a time | {plain_one_at_a_time_per_sec:.0} | 1 | 1 |\n\
         | plain loops, 64 at a time | {plain_64_at_a_time_per_sec:.0} | 1 | 1 |\n\
         {}\n\
         | load | callbacks/s | p50 ms | p99 ms | p99.9 ms | syncs per callback | statements per callback |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        peak.per_sec,
        peak.costs.syncs,
        peak.costs.statements,
        hook0::line(hook0.as_ref())
    );
    for Paced { part_of_peak, per_sec, delays, costs, .. } in paced {
        let Quantiles { p50_ms, p99_ms, p999_ms, .. } = delays;
        text += &format!(
            "| {:.0} % of the peak | {per_sec:.0} | {p50_ms:.1} | {p99_ms:.1} | {p999_ms:.1} | {:.3} | {:.2} |\n",
            part_of_peak * 100.0,
            costs.syncs,
            costs.statements
        );
    }
    text += "\n| of 1,000 receivers hang | callbacks to the others | p50 ms clean | beside them | p99 ms clean | beside them | ratio |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for Isolation { hanging, clean, beside_hanging, ratio_p99, .. } in isolation {
        text += &format!(
            "| {hanging} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {ratio_p99:.2} |\n",
            clean.callbacks, clean.p50_ms, beside_hanging.p50_ms, clean.p99_ms, beside_hanging.p99_ms
        );
    }
    text += &backlog::table(backlog);
    let Machine { cpu, cores, memory_gib, kernel, .. } = machine;
    text + &format!("\n- {cpu}, {cores} cores, {memory_gib:.0} GiB, kernel {kernel}\n")
}

/// A thousand receivers and their connections.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        eprintln!("the limit of open files could not be raised: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_spread_over_time_and_receivers() {
        let planned = evenly(10.0, Duration::from_secs(2), 5..8);
        let receivers: Vec<usize> = planned.iter().map(|planned| planned.receiver).collect();
        assert_eq!((receivers.len(), &receivers[..4]), (20, &[5, 6, 7, 5][..]));
        assert_eq!(planned[19].after, Duration::from_millis(1900));
    }

    #[test]
    fn delays_are_from_due_to_first_byte() {
        let arrival = |late_us: u64| Arrival { receiver: 0, came_us: 1_000_000 + late_us, due_us: 1_000_000 };
        let quantiles = Quantiles::of(&[arrival(3000), arrival(1000), arrival(2000)]);
        assert_eq!((quantiles.callbacks, quantiles.p50_ms, quantiles.p99_ms), (3, 2.0, 3.0));
    }
}
