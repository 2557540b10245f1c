//! The publishers: testkit's load generator in a process of its own, whose CPU time belongs to nobody here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use framehook_testkit::process::Process;
use serde::{Deserialize, Serialize};

use crate::workshop::Workshop;

/// How long the generator may take to report after its time is up.
const REPORT_PATIENCE: Duration = Duration::from_secs(20);

/// Publishers to be: they publish one clip, looped and paced by its timestamps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) clip: &'a Path,
    /// What the streams' names begin with; their number follows.
    pub(crate) names: &'a str,
    pub(crate) streams: u32,
    /// Over how long their starts are spread.
    pub(crate) ramp: Duration,
    /// From the first start to the end of all.
    pub(crate) duration: Duration,
}

/// Publishers under way.
#[derive(Debug)]
pub(crate) struct RunningLoad {
    process: Process,
}

/// What the generator says about its own run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LoadReport {
    /// Publishers that were never accepted.
    pub(crate) refused: u64,
    /// Publishers that were accepted and then ended by the server or the line.
    pub(crate) dropped: u64,
    /// How far the latest message was behind its time.
    pub(crate) late_ms_max: u64,
    /// How long the publisher that waited longest took from its start to being accepted.
    pub(crate) accept_ms_max: u64,
    /// Why publishers were refused or dropped.
    pub(crate) reasons: Vec<String>,
}

impl<'a> Load<'a> {
    /// One publisher.
    pub(crate) fn of(clip: &'a Path, duration: Duration) -> Self {
        Self { clip, names: "s", streams: 1, ramp: Duration::ZERO, duration }
    }

    pub(crate) fn start(self, workshop: &Workshop, to: SocketAddr) -> Result<RunningLoad> {
        let Self { clip, names, streams, ramp, duration } = self;
        let mut command = Command::new(workshop.executable("rtmp-load", "cargo build --release -p framehook-testkit")?);
        command.args(["--url", &format!("rtmp://{to}/live/{names}{{}}")]).arg("--file").arg(clip).arg("--json");
        command.args(["-n", &streams.to_string()]);
        command.args(["--ramp", &ramp.as_secs().to_string(), "--duration", &duration.as_secs().to_string()]);
        Ok(RunningLoad { process: Process::spawn("rtmp-load", &mut command)? })
    }
}

impl RunningLoad {
    /// Fails when the generator has ended before its time, for one because it was refused.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait() {
            None => Ok(()),
            Some(status) => anyhow::bail!("the load generator ended with {status}:\n{}", self.process.stderr_tail()),
        }
    }

    /// Waits for the end of the generator's time and gives its report.
    pub(crate) fn finish(mut self) -> Result<LoadReport> {
        let status = self.process.wait(REPORT_PATIENCE)?;
        let printed = self.process.stdout();
        anyhow::ensure!(status.success(), "the load generator ended with {status}:\n{}", self.process.stderr_tail());
        serde_json::from_str(printed.trim()).with_context(|| format!("read the load generator's report: {printed:?}"))
    }
}
