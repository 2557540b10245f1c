//! Publishes one file as many streams, each at its own pace, and says how that went: the load of benchmarks and soaks.

#![expect(clippy::disallowed_methods, reason = "publishers start at given moments, and end at one")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use framehook_testkit::flv::FlvFile;
use framehook_testkit::process::raise_open_files_limit;
use framehook_testkit::publisher::{End, Log, Publisher, PublisherSpec};
use serde::Serialize;

/// Publishes one FLV file as many RTMP streams.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to push; `{}` becomes the number of the stream, from 0
    #[arg(long)]
    url: String,
    /// The FLV file, looped and paced by its timestamps
    #[arg(long)]
    file: PathBuf,
    /// How many streams
    #[arg(short = 'n', long = "streams", default_value_t = 1)]
    streams: u32,
    /// Seconds over which the starts are spread evenly
    #[arg(long, default_value_t = 0.0)]
    ramp: f64,
    /// Seconds from the first start to the end of all
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Media seconds per second
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Outgoing RTMP chunk size
    #[arg(long, default_value_t = 4096)]
    chunk_bytes: u32,
    /// Write one CSV line for each keyframe: stream, picture number, decode time, bytes, wall time
    #[arg(long)]
    keyframe_log: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    streams: u32,
    /// Never accepted.
    refused: u64,
    /// Accepted, then ended by the server or the line.
    dropped: u64,
    keyframes: usize,
    media_bytes: u64,
    /// How far the latest message was behind its time: the generator's own, or a server that takes too little.
    late_ms_max: u128,
    /// How long the publisher that waited longest took from its start to being accepted.
    accept_ms_max: u128,
    /// The first few reasons for what was refused or dropped.
    reasons: Vec<String>,
}

/// Reasons in the report; a thousand streams are usually refused for the same one.
const REASONS_MAX: usize = 5;

impl Report {
    fn reason(&mut self, reason: String) {
        if self.reasons.len() < REASONS_MAX && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.streams == 1 || arguments.url.contains("{}"), "several streams need {{}} in the URL");
    let file = Arc::new(FlvFile::open(&arguments.file)?);
    let mut report = Report { streams: arguments.streams, ..Report::default() };

    raise_open_files_limit()?;

    let start = Instant::now();
    let mut opening = Vec::new();
    for number in 0..arguments.streams {
        let offset = arguments.ramp * f64::from(number) / f64::from(arguments.streams);
        thread::sleep((start + Duration::from_secs_f64(offset)).saturating_duration_since(Instant::now()));
        let url = arguments.url.replace("{}", &number.to_string()).parse()?;
        let spec = PublisherSpec {
            speed: arguments.speed,
            chunk_bytes: arguments.chunk_bytes,
            ..PublisherSpec::new(url, Arc::clone(&file)).looped()
        };
        // On threads of their own: without a ramp all knock at once, and nobody waits for one that is slow to be let in.
        opening.push(thread::spawn(move || {
            let knocked = Instant::now();
            (number, spec.start(), knocked.elapsed())
        }));
    }
    let mut publishers: Vec<(u32, Publisher)> = Vec::new();
    for opening in opening {
        let (number, opened, waited) = opening.join().expect("starting does not panic");
        match opened {
            Ok(publisher) => {
                report.accept_ms_max = report.accept_ms_max.max(waited.as_millis());
                publishers.push((number, publisher));
            }
            Err(error) => {
                report.refused += 1;
                report.reason(format!("{:#}", anyhow::Error::from(error)));
            }
        }
    }
    thread::sleep((start + Duration::from_secs_f64(arguments.duration)).saturating_duration_since(Instant::now()));

    // All at once: each waits for its server to say goodbye.
    let stopping: Vec<_> =
        publishers.into_iter().map(|(number, publisher)| (number, thread::spawn(move || publisher.stop()))).collect();
    let mut logs = Vec::new();
    for (number, stopping) in stopping {
        logs.push((number, stopping.join().expect("stopping does not panic")));
    }
    for (_, log) in &logs {
        report.keyframes += log.keyframes.len();
        report.media_bytes += log.media_bytes;
        report.late_ms_max = report.late_ms_max.max(log.late_max.as_millis());
        if log.end != Some(End::Unpublished) {
            report.dropped += 1;
            report.reason(format!("{:?}", log.end));
        }
    }
    if let Some(path) = &arguments.keyframe_log {
        write_keyframes(path, &logs).with_context(|| format!("write {}", path.display()))?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report:#?}");
    }
    Ok(())
}

fn write_keyframes(path: &PathBuf, logs: &[(u32, Log)]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "stream,picture_number,dts_ms,bytes,sent_unix_us")?;
    for (stream, log) in logs {
        for key in &log.keyframes {
            let sent_us = key.sent_wall.duration_since(SystemTime::UNIX_EPOCH)?.as_micros();
            writeln!(file, "{stream},{},{},{},{sent_us}", key.picture_number, key.dts_ms, key.bytes)?;
        }
    }
    file.flush()?;
    Ok(())
}
