//! The load of benchmarks and soaks: one file, published as many streams by one process, and a report of how that went.
//! `rtmp-load` is the program; its options are [`Arguments`], what it prints is a [`Report`].
//!
//! Each stream is a connection of its own that sends the file over and over, paced by its timestamps, exactly as the bytes
//! stand in it. A stream that is accepted late begins late, so nobody starts with a backlog. At the end all say goodbye and
//! wait for the server to close, so that every byte counted here has been offered to it in order: `wire_bytes` is what a
//! server that was given nothing else has received.
//!
//! It never waits for the server: a socket that takes nothing holds up its own stream alone. What it costs is mostly the
//! kernel's part of a send, which on loopback includes what the kernel does to deliver.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::flv::FlvFile;
use crate::process::raise_open_files_limit;
use crate::publisher::{End, Fleet, Outcome};

/// Publishes one FLV file as many RTMP streams.
#[derive(Clone, Debug, Parser)]
#[command(name = "rtmp-load")]
pub struct Arguments {
    /// Where to push; `{}` becomes the number of the stream, from 0
    #[arg(long)]
    pub url: String,
    /// The FLV file, looped and paced by its timestamps
    #[arg(long)]
    pub file: PathBuf,
    /// How many streams
    #[arg(short = 'n', long = "streams", default_value_t = 1)]
    pub streams: u32,
    /// Seconds over which the starts are spread evenly; 0 is a storm
    #[arg(long, default_value_t = 0.0)]
    pub ramp: f64,
    /// Seconds from the first start to the end of all
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds that a stream may take to be accepted before it counts as refused
    #[arg(long, default_value_t = 30.0)]
    pub patience: f64,
    /// Media seconds per second
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Outgoing RTMP chunk size
    #[arg(long, default_value_t = 4096)]
    pub chunk_bytes: u32,
    /// Write one CSV line for each keyframe: stream, picture number, decode time, bytes, wall time
    #[arg(long)]
    pub keyframe_log: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a load went.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Report {
    pub streams: u32,
    /// Streams that were never accepted: refused, cut off, or not answered in time.
    pub refused: u64,
    /// Streams that were accepted, then ended by the server or the line.
    pub dropped: u64,
    /// Why streams were refused or dropped, each with how many it was; the most frequent first, and a few at most.
    pub reasons: Vec<String>,
    /// From a stream's start to its being accepted: for half of them, and for the one that waited longest.
    pub accept_ms_median: u64,
    pub accept_ms_max: u64,
    pub keyframes: u64,
    pub messages: u64,
    /// Messages that left more than [`LATE`](crate::publisher::LATE) after their time.
    pub messages_late: u64,
    /// How far the latest message was behind its time.
    pub late_ms_max: u64,
    /// The longest that one stream's socket took nothing. What messages are late beyond it is the generator's own doing: it
    /// found no core.
    pub blocked_ms_max: u64,
    /// Tags of the file, without the protocol's own bytes.
    pub media_bytes: u64,
    /// Everything that the kernel took, handshakes and goodbyes included.
    pub wire_bytes: u64,
    /// Time published, over all streams.
    pub stream_seconds: f64,
    /// The generator's own CPU time, and with loopback the kernel's for delivering what it sends.
    pub cpu_ms_per_stream_second: f64,
}

/// Reasons in the report; a thousand streams are usually refused for the same one.
const REASONS_MAX: usize = 5;

/// Runs a load to its end.
///
/// # Errors
/// When the arguments do not fit together, the file is not FLV, or the host has no address. What the server does to streams
/// is in the report.
pub fn run(arguments: &Arguments) -> Result<Report> {
    let Arguments { streams, ramp, duration, .. } = *arguments;
    ensure!(streams == 1 || arguments.url.contains("{}"), "several streams need {{}} in the URL");
    ensure!(ramp < duration, "the last stream would start after the end: --ramp {ramp} --duration {duration}");
    let seconds = |name: &str, value| Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value}"));
    let urls = (0..streams).map(|number| arguments.url.replace("{}", &number.to_string()).parse());
    let fleet = Fleet {
        ramp: seconds("ramp", ramp)?,
        duration: seconds("duration", duration)?,
        patience: seconds("patience", arguments.patience)?,
        speed: arguments.speed,
        chunk_bytes: arguments.chunk_bytes,
        ..Fleet::new(urls.collect::<Result<_>>()?, FlvFile::open(&arguments.file)?)
    };
    ensure!(fleet.speed > 0.0 && fleet.speed.is_finite(), "--speed {}", fleet.speed);
    raise_open_files_limit()?;
    let outcomes = fleet.publish().context("publish")?;
    if let Some(path) = &arguments.keyframe_log {
        write_keyframes(path, &outcomes).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(Report::of(&outcomes, cpu_time()))
}

impl Report {
    fn of(outcomes: &[Outcome], cpu: Duration) -> Self {
        let mut report = Self { streams: outcomes.len() as u32, ..Self::default() };
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        let mut waited_ms = Vec::new();
        let ms = |duration: Duration| duration.as_millis() as u64;
        for Outcome { accepted, log, wire_bytes, blocked_max, published } in outcomes {
            match (accepted, &log.end) {
                (Err(error), _) => {
                    report.refused += 1;
                    *reasons.entry(with_causes(error)).or_default() += 1;
                }
                (Ok(waited), Some(End::Unpublished)) => waited_ms.push(ms(*waited)),
                (Ok(waited), end) => {
                    waited_ms.push(ms(*waited));
                    report.dropped += 1;
                    *reasons.entry(told(end.as_ref())).or_default() += 1;
                }
            }
            report.keyframes += log.keyframes.len() as u64;
            report.messages += log.messages;
            report.messages_late += log.messages_late;
            report.late_ms_max = report.late_ms_max.max(ms(log.late_max));
            report.blocked_ms_max = report.blocked_ms_max.max(ms(*blocked_max));
            report.media_bytes += log.media_bytes;
            report.wire_bytes += wire_bytes;
            report.stream_seconds += published.as_secs_f64();
        }
        waited_ms.sort_unstable();
        report.accept_ms_median = waited_ms.get(waited_ms.len() / 2).copied().unwrap_or_default();
        report.accept_ms_max = waited_ms.last().copied().unwrap_or_default();
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        report.reasons =
            reasons.into_iter().take(REASONS_MAX).map(|(reason, count)| format!("{count} × {reason}")).collect();
        if report.stream_seconds > 0.0 {
            report.cpu_ms_per_stream_second = cpu.as_secs_f64() * 1000.0 / report.stream_seconds;
        }
        report
    }
}

/// An error and what it came from, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn told(end: Option<&End>) -> String {
    match end {
        Some(End::Refused { code, description }) => format!("the server ended it with {code}: {description}"),
        Some(End::Closed(how)) => how.clone(),
        end => format!("{end:?}"),
    }
}

/// What this process has used since its start, user and system.
fn cpu_time() -> Duration {
    // Never before the epoch, which for this clock is the start of the process.
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

fn write_keyframes(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "stream,picture_number,dts_ms,bytes,sent_unix_us")?;
    for (stream, outcome) in outcomes.iter().enumerate() {
        for key in &outcome.log.keyframes {
            let sent_us = key.sent_wall.duration_since(SystemTime::UNIX_EPOCH)?.as_micros();
            writeln!(file, "{stream},{},{},{},{sent_us}", key.picture_number, key.dts_ms, key.bytes)?;
        }
    }
    file.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::publisher::{Log, PublishError};

    fn outcome(accepted: Result<Duration, PublishError>, end: Option<End>) -> Outcome {
        let log = Log { messages: 10, messages_late: 1, media_bytes: 100, end, ..Log::default() };
        let published = Duration::from_secs(if accepted.is_ok() { 2 } else { 0 });
        Outcome { accepted, log, wire_bytes: 120, blocked_max: Duration::from_millis(7), published }
    }

    #[test]
    fn reports_who_was_refused_and_who_was_dropped_with_the_reasons() {
        let refused =
            || Err(PublishError::Refused { code: "NetConnection.Connect.Rejected".into(), description: "full".into() });
        let accepted = |ms| Ok(Duration::from_millis(ms));
        let reset = || Err(PublishError::Io(std::io::ErrorKind::ConnectionReset.into()));
        let report = Report::of(
            &[
                outcome(accepted(5), Some(End::Unpublished)),
                outcome(reset(), None),
                outcome(refused(), None),
                outcome(accepted(900), Some(End::Closed("gone".into()))),
                outcome(refused(), None),
                outcome(accepted(40), Some(End::Unpublished)),
            ],
            Duration::from_millis(3),
        );
        assert_eq!((report.streams, report.refused, report.dropped), (6, 3, 1));
        assert_eq!((report.accept_ms_median, report.accept_ms_max), (40, 900));
        assert_eq!((report.messages, report.messages_late, report.media_bytes, report.wire_bytes), (60, 6, 600, 720));
        assert_eq!((report.stream_seconds, report.cpu_ms_per_stream_second, report.blocked_ms_max), (6.0, 0.5, 7));
        assert_eq!(
            report.reasons,
            [
                "2 × the server refused with NetConnection.Connect.Rejected: full",
                "1 × gone",
                "1 × the connection failed: connection reset",
            ]
        );
    }

    #[test]
    fn refuses_arguments_that_do_not_fit_together() {
        let run = |more: &[&str]| {
            let given = ["rtmp-load", "--file", "missing.flv"].iter().chain(more);
            run(&Arguments::try_parse_from(given).unwrap()).unwrap_err().to_string()
        };
        let url = "rtmp://127.0.0.1/live/room";
        assert!(run(&["--url", url, "-n", "2"]).contains("{}"));
        assert!(run(&["--url", url, "--ramp", "10"]).contains("after the end"));
        assert!(run(&["--url", url]).contains("missing.flv"));
    }
}
