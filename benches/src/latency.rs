//! `bench latency`: from a keyframe's last byte on the wire to the first byte of its callback at the receiver.
//!
//! Every keyframe becomes a picture: the interval is the clip's own distance of keyframes. So the keyframe that a callback
//! tells of is the last one that left before it came, and both clocks are the same.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use framehook_testkit::flv::FlvFile;
use framehook_testkit::publisher::{Publisher, PublisherSpec, PushUrl};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::ServerSpec;

use crate::clip::{self, GOP_SECONDS};
use crate::document::Section;
use crate::machine::{self, Machine};
use crate::packages::{self, Need};
use crate::subject::{Subject, framehook_executable};
use crate::workshop::Workshop;

const SECTION: Section = Section("latency");
const DOMAIN: &str = "push.example.com";
const GOP: Duration = Duration::from_secs(GOP_SECONDS as u64);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Streams at a time, each with a picture every two seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    streams: u32,
    /// Length of the measurement in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=600))]
    seconds: u64,
    /// Write the results into docs/performance.md
    #[arg(long)]
    update: bool,
}

/// Delays in ascending order.
pub(crate) struct Delays(Vec<Duration>);

impl Delays {
    pub(crate) fn of(mut delays: Vec<Duration>) -> Self {
        delays.sort_unstable();
        Self(delays)
    }

    /// The smallest delay that so large a part of them does not exceed (nearest rank).
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

pub(crate) fn run(workshop: &Workshop, options: &Options) -> Result<()> {
    packages::require(&[Need::Ffmpeg])?;
    let clip = clip::HD720.make(workshop)?;
    let receiver = Receiver::start()?;
    let executable = framehook_executable(workshop)?;
    let server = ServerSpec::new(executable).config(config(&receiver)).start()?;
    let publishers = start(&clip, server.rtmp_url("live"), options.streams)?;

    // First pictures are taken while everybody joins.
    std::thread::sleep(GOP);
    let (began, busy) = (Instant::now(), machine::busy()?);
    std::thread::sleep(Duration::from_secs(options.seconds));
    let (ended, busy) = (Instant::now(), machine::busy()? - busy);

    let mut delays = Vec::new();
    for request in receiver.requests() {
        if request.event_type() != Some(200) || request.arrived < began || request.arrived > ended {
            continue;
        }
        let body = request.json()?;
        let stream = body["stream_id"].as_str().context("a callback without stream_id")?;
        let index: usize =
            stream.strip_prefix("room_").and_then(|index| index.parse().ok()).context("a foreign stream")?;
        let keyframes = publishers[index].log().keyframes;
        let sent = keyframes.iter().map(|keyframe| keyframe.sent).rfind(|sent| *sent <= request.arrived);
        delays.push(request.arrived - sent.context("a callback came before its keyframe")?);
    }
    let skipped = server.metrics()?.sum("framehook_skipped_total", &[]);
    let expected = f64::from(options.streams) * options.seconds as f64 / GOP.as_secs_f64();
    ensure!(
        delays.len() as f64 > expected * 0.95 && skipped == 0.0,
        "{} callbacks of {expected} came and {skipped} dues were skipped: this machine is saturated",
        delays.len()
    );
    let load = busy.as_secs_f64() / (ended - began).as_secs_f64();
    let text = report(&Machine::look(workshop, &[Subject::Framehook]), options, &Delays::of(delays), load);
    println!("{text}");
    if options.update {
        println!("updated: {}", SECTION.replace(&workshop.repository, &text)?.display());
    }
    Ok(())
}

/// Publishers that join evenly over one interval.
fn start(clip: &Path, rtmp: String, streams: u32) -> Result<Vec<Publisher>> {
    let file = std::sync::Arc::new(FlvFile::open(clip)?);
    let began = Instant::now();
    (0..streams)
        .map(|index| {
            std::thread::sleep((GOP * index / streams).saturating_sub(began.elapsed()));
            let url: PushUrl = format!("{rtmp}/room_{index}?domain={DOMAIN}").parse()?;
            Ok(PublisherSpec::new(url, std::sync::Arc::clone(&file)).looped().start()?)
        })
        .collect()
}

fn config(receiver: &Receiver) -> String {
    format!(
        r#"
[[domain]]
name = "{DOMAIN}"
auth = "off"
[[snapshot_template]]
name = "every-keyframe"
snapshot_interval = "{GOP_SECONDS}s"
[[callback_template]]
name = "receiver"
callback_key = "keyOfTheBenchmark"
snapshot_notify_url = "{}"
[[snapshot_rule]]
domain = "{DOMAIN}"
template = "every-keyframe"
[[callback_rule]]
domain = "{DOMAIN}"
template = "receiver"
"#,
        receiver.url("/")
    )
}

fn report(machine: &Machine, options: &Options, delays: &Delays, load: f64) -> String {
    let ms = |part: f64| format!("{:.0}", delays.quantile(part).as_secs_f64() * 1000.0);
    format!(
        "| streams | pictures | p50 ms | p90 ms | p99 ms | most ms |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n\
         | {} | {} | {} | {} | {} | {} |\n\n\
         - {}, {} cores, {:.0} GiB, kernel {}\n\
         - {:.2} cores were busy, the publishers and the receiver included.\n",
        options.streams,
        delays.0.len(),
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0),
        machine.cpu,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        load,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let delays = Delays::of((1..=100).rev().map(Duration::from_millis).collect());
        let of = |part| delays.quantile(part).as_millis();
        assert_eq!([of(0.5), of(0.9), of(0.99), of(1.0), of(0.0)], [50, 90, 99, 100, 1]);
        assert_eq!(Delays::of(vec![Duration::from_millis(7)]).quantile(0.5), Duration::from_millis(7));
    }
}
