//! Makes pictures through the server's own render pool, one after the other, and says what they cost on either side of the
//! process boundary: `bench picture` compares that with what the same code costs when it is called directly.
//!
//!     framehook-pool WIDTH ROUNDS CONFIG UNIT...
//!
//! Renders every unit ROUNDS times, after a round to warm up, WIDTH pixels wide or with 0 at its own size; all are H.264
//! under one config. The worker is the `framehook-render` that lies beside this executable.

use std::env;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use framehook_media::{Codec, DecoderConfig};
use framehook_server::render::{RenderConfig, RenderJob, RenditionSpec, WorkerSet};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Far more than a picture takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [width, rounds, config, units @ ..] = arguments.as_slice() else {
        bail!("usage: framehook-pool WIDTH ROUNDS CONFIG UNIT...")
    };
    let rendition = RenditionSpec { width: width.parse().context("WIDTH")?, ..RenditionSpec::ORIGINAL };
    let rounds: u32 = rounds.parse().context("ROUNDS")?;
    let read = |path: &String| fs::read(path).with_context(|| format!("read {path}"));
    let config = Arc::new(DecoderConfig { codec: Codec::H264, record: read(config)?.into() });
    let job = |path: &String| {
        anyhow::Ok(RenderJob { config: Arc::clone(&config), data: read(path)?.into(), renditions: vec![rendition] })
    };
    let jobs = units.iter().map(job).collect::<Result<Vec<_>>>()?;
    // The runtime that the server has, and a task on it, as the one that drives a worker is.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(runtime.spawn(measure(jobs, rounds)))?
}

async fn measure(jobs: Vec<RenderJob>, rounds: u32) -> Result<()> {
    let config = RenderConfig { workers: 1, ..RenderConfig::new() };
    let WorkerSet { mut workers, health } = WorkerSet::start(&config).await?;
    let mut worker = workers.pop().context("one was asked for")?;
    let pid = health.workers().first().and_then(|worker| worker.pid).context("a worker that is up has a process")?;
    let mut before = Used::now(pid)?;
    let mut steps_us = 0;
    for round in 0..=rounds {
        for job in &jobs {
            let timings = worker.render(job, Instant::now() + PATIENCE).await?.timings;
            let steps = [timings.decode_us, timings.scale_us, timings.encode_us];
            steps_us += steps.into_iter().map(u64::from).sum::<u64>();
        }
        if round == 0 {
            before = Used::now(pid)?;
            steps_us = 0;
        }
    }
    let after = Used::now(pid)?;
    let pictures = u64::from(rounds) * jobs.len() as u64;
    println!("pictures {pictures}");
    println!("server_us {}", (after.server - before.server).as_micros());
    println!("worker_us {}", (after.worker - before.worker).as_micros());
    println!("steps_us {steps_us}");
    Ok(())
}

/// CPU time, user and system, so far.
struct Used {
    /// Of this process, all threads.
    server: Duration,
    worker: Duration,
}

impl Used {
    fn now(worker: u32) -> Result<Self> {
        let server = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?;
        // Its first field is the ns that the thread ran for; a worker has one thread. `stat` would count in ticks of 10 ms.
        let path = format!("/proc/{worker}/schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let ran_ns = text.split_whitespace().next().and_then(|field| field.parse().ok()).context("schedstat")?;
        Ok(Self { server, worker: Duration::from_nanos(ran_ns) })
    }
}
