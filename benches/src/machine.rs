//! What the run ran on, for whoever compares.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::subject::{Subject, framehook_executable};
use crate::workshop::{Workshop, output};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// First lines of what programs say about their version.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    pub(crate) fn look(workshop: &Workshop, subjects: &[Subject]) -> Self {
        let versions = subjects.iter().flat_map(|subject| subject.versions(workshop));
        let mut versions: Vec<String> = versions.collect();
        versions.sort_unstable();
        versions.dedup();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            cores: cores() as usize,
            memory_gib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok())
                .map_or(0.0, |kib| kib / f64::from(1 << 20)),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            versions,
        }
    }
}

/// Processors that this process may use.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// CPU time that the whole machine has been busy for since it started.
pub(crate) fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let ticks = busy_ticks(&stat).context("/proc/stat has no line for all processors")?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// CPU time, user and system, that a process has used, threads that have ended included and its children not (`proc(5)`,
/// fields 14 and 15).
pub(crate) fn process_cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = own_ticks(&stat).with_context(|| format!("{path} is not as expected"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn own_ticks(stat: &str) -> Option<u64> {
    // The command is in parentheses and may hold any byte; the fields behind it start with the third.
    let (_, tail) = stat.rsplit_once(')')?;
    tail.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum()
}

/// user, nice, system, irq and softirq of the first line (`proc(5)`); not idle, iowait, and what other guests took.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().flat_map(str::parse).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

/// The value behind `key` in a file of lines `key : value`.
fn field(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

impl Subject {
    fn versions(self, workshop: &Workshop) -> Vec<String> {
        let found = match self {
            // Its program has the decoder in it and never calls it.
            Self::Sink => Vec::new(),
            Self::Floor | Self::SparseFloor => ["libavcodec", "libswscale", "libjpeg"]
                .into_iter()
                .filter_map(|library| {
                    Some(format!("{library} {}", output("pkg-config", ["--modversion", library]).ok()?))
                })
                .collect(),
            Self::Framehook | Self::Sparse | Self::Receiving => {
                let version =
                    framehook_executable(workshop).and_then(|path| output(&path.to_string_lossy(), ["--version"]));
                version.into_iter().collect()
            }
            Self::Tuned | Self::Plain => {
                Vec::from_iter(output("ffmpeg", ["-version"]).into_iter().chain(nginx_version()))
            }
            Self::Gstreamer => {
                Vec::from_iter(output("gst-launch-1.0", ["--version"]).into_iter().chain(nginx_version()))
            }
            Self::Nginx => nginx_version().into_iter().collect(),
        };
        let first_lines = found.iter().filter_map(|text| text.lines().next());
        first_lines.map(|line| line.split(" Copyright").next().unwrap_or(line).trim().to_owned()).collect()
    }
}

/// nginx prints its version to standard error.
fn nginx_version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// With the two cores that figures here are of.
    pub(crate) fn a_machine() -> Machine {
        Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_gib: 24.0,
            kernel: "6.1".to_owned(),
            versions: vec!["ffmpeg 5".to_owned()],
        }
    }

    #[test]
    fn counts_a_process_without_its_children() {
        let fields = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(own_ticks(&format!("17 (a) b) S {fields}")), Some(14 + 15));
    }

    #[test]
    fn counts_neither_idle_nor_waiting_as_busy() {
        let stat = "cpu  100 20 30 4000 500 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(busy_ticks(stat), Some(163));
    }
}
