//! The publishers: testkit's load generator in a process of its own, whose CPU time belongs to nobody here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
pub(crate) use framehook_testkit::load::Report as LoadReport;
use framehook_testkit::process::Process;

use crate::machine;
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
        let seconds = |duration: Duration| duration.as_secs_f64().to_string();
        command.args(["--ramp", &seconds(ramp), "--duration", &seconds(duration)]);
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

    /// Kills the generator: every connection breaks where it is, without a goodbye. There is no report then.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill9().map(drop)
    }

    /// What the generator has used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        machine::process_cpu(self.process.pid())
    }

    /// Waits for the end of the generator's time and gives its report.
    pub(crate) fn finish(mut self) -> Result<LoadReport> {
        let status = self.process.wait(REPORT_PATIENCE)?;
        let printed = self.process.stdout();
        anyhow::ensure!(status.success(), "the load generator ended with {status}:\n{}", self.process.stderr_tail());
        serde_json::from_str(printed.trim()).with_context(|| format!("read the load generator's report: {printed:?}"))
    }
}
