//! One system under load, once: what it used between two readings.
//!
//! A measurement starts the system, lets the publishers join over a ramp, waits until it runs evenly, and then takes the
//! difference of two readings of the CPU time of all its processes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::load::{Load, LoadReport, RunningLoad};
use crate::machine;
use crate::plan::Plan;
use crate::subject::{FloorPicture, Running, Subject};
use crate::workshop::Workshop;

/// How often memory is looked at within the window. Reading the maps of forty processes takes some milliseconds, which
/// are ours and not counted.
const MEMORY_EVERY: Duration = Duration::from_secs(5);

/// One system at one number of streams, once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) subject: Subject,
    pub(crate) streams: u32,
    pub(crate) round: u32,
    /// Between the two readings.
    pub(crate) seconds: f64,
    /// User and system time of all processes of the system.
    pub(crate) cpu_ms: f64,
    pub(crate) pictures: usize,
    /// Pictures that the subject's interval gives.
    pub(crate) pictures_asked: f64,
    /// What the system says about those it left out.
    pub(crate) skipped: Vec<String>,
    /// Proportional set size of all processes before the first publisher.
    pub(crate) idle_bytes: u64,
    /// The most of it seen within the window.
    pub(crate) loaded_bytes: u64,
    /// Cores that were busy with the load generator.
    pub(crate) load_cores: f64,
    /// Cores that were busy with neither of the two.
    pub(crate) others_cores: f64,
    pub(crate) accounting: &'static str,
    pub(crate) load: LoadReport,
    /// Of the floor only: CPU time of each step, mean over the window's pictures.
    pub(crate) floor_steps: Option<FloorSteps>,
}

/// ms of CPU time for one keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct FloorSteps {
    pub(crate) decode_ms: f64,
    pub(crate) convert_ms: f64,
    pub(crate) encode_ms: f64,
}

impl Measurement {
    pub(crate) fn ms_per_stream_second(&self) -> f64 {
        self.cpu_ms / (self.seconds * f64::from(self.streams))
    }

    pub(crate) fn bytes_per_stream(&self) -> f64 {
        self.loaded_bytes.saturating_sub(self.idle_bytes) as f64 / f64::from(self.streams)
    }
}

/// Measures everything that is planned, and says on standard error how far it is.
pub(crate) fn measure_all(workshop: &Workshop, clip: &Path, plan: &Plan) -> Result<Vec<Measurement>> {
    let steps = plan.steps();
    eprintln!("{} measurements, about {} min", steps.len(), plan.longest().as_secs().div_ceil(60));
    let mut measurements = Vec::new();
    for (at, &(streams, round, subject)) in steps.iter().enumerate() {
        let measurement = measure(workshop, clip, plan, streams, round, subject)
            .with_context(|| format!("measure {} with {streams} streams", subject.label()))?;
        eprintln!(
            "{}/{}: {}, {streams} streams, round {round}: {:.2} ms per stream-second, {} pictures",
            at + 1,
            steps.len(),
            subject.label(),
            measurement.ms_per_stream_second(),
            measurement.pictures
        );
        measurements.push(measurement);
    }
    Ok(measurements)
}

fn measure(
    workshop: &Workshop,
    clip: &Path,
    plan: &Plan,
    streams: u32,
    round: u32,
    subject: Subject,
) -> Result<Measurement> {
    let running = subject.start(workshop, clip, streams)?;
    let idle_bytes = running.memory_bytes()?;
    let ramp = Duration::from_secs(plan.ramp_s);
    let window = Duration::from_secs(plan.window_s);
    let before = ramp + Duration::from_secs(plan.settle_s);
    let mut load = Load { streams, ramp, ..Load::of(clip, before + window + Duration::from_secs(2)) }
        .start(workshop, running.rtmp)?;
    std::thread::sleep(before);
    load.check()?;

    let begin = Reading::take(&running, &load)?;
    let mut loaded_bytes = 0;
    while begin.at.elapsed() < window {
        loaded_bytes = loaded_bytes.max(running.memory_bytes()?);
        std::thread::sleep(MEMORY_EVERY.min(window.saturating_sub(begin.at.elapsed())));
    }
    let end = Reading::take(&running, &load)?;
    load.check()?;
    let floor_steps = floor_steps(&running, begin.pictures, end.pictures);
    let skipped = running.skipped()?;
    let load = load.finish()?;

    let seconds = (end.at - begin.at).as_secs_f64();
    let (cpu, load_cpu) = (end.cpu - begin.cpu, end.load_cpu.saturating_sub(begin.load_cpu));
    let others_cpu = (end.busy - begin.busy).saturating_sub(cpu + load_cpu);
    Ok(Measurement {
        subject,
        streams,
        round,
        seconds,
        cpu_ms: cpu.as_secs_f64() * 1000.0,
        pictures: end.pictures - begin.pictures,
        pictures_asked: subject.interval().map_or(0.0, |every| f64::from(streams) * seconds / every.as_secs_f64()),
        skipped,
        idle_bytes,
        loaded_bytes,
        load_cores: load_cpu.as_secs_f64() / seconds,
        others_cores: others_cpu.as_secs_f64() / seconds,
        accounting: running.group.accounting(),
        load,
        floor_steps,
    })
}

/// Everything that is taken as a difference, read at one moment.
struct Reading {
    at: Instant,
    cpu: Duration,
    load_cpu: Duration,
    pictures: usize,
    /// CPU time of the whole machine.
    busy: Duration,
}

impl Reading {
    fn take(running: &Running, load: &RunningLoad) -> Result<Self> {
        let pictures = running.pictures()?;
        let (busy, load_cpu) = (machine::busy()?, load.cpu()?);
        Ok(Self { at: Instant::now(), cpu: running.group.cpu(running.root())?, load_cpu, pictures, busy })
    }
}

fn floor_steps(running: &Running, from: usize, to: usize) -> Option<FloorSteps> {
    let pictures = running.floor_pictures();
    let window = pictures.get(from..to).filter(|window| !window.is_empty())?;
    let mean =
        |step: fn(&FloorPicture) -> u64| window.iter().map(step).sum::<u64>() as f64 / window.len() as f64 / 1000.0;
    Some(FloorSteps {
        decode_ms: mean(|picture| picture.decode_us),
        convert_ms: mean(|picture| picture.convert_us),
        encode_ms: mean(|picture| picture.encode_us),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Ten seconds, with one picture of each stream.
    pub(crate) fn measured(subject: Subject, streams: u32, round: u32, cpu_ms: f64) -> Measurement {
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
            load_cores: 0.3,
            others_cores: 0.2,
            accounting: "a test",
            load: LoadReport { late_ms_max: 3, accept_ms_max: 9, ..LoadReport::default() },
            floor_steps: (subject == Subject::Floor).then_some(FloorSteps {
                decode_ms: 11.0,
                convert_ms: 2.0,
                encode_ms: 2.2,
            }),
        }
    }
}
