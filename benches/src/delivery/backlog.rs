//! A start after a crash with much owed: how soon the first callback leaves, and what the process takes meanwhile.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use framehook_testkit::server::Server;
use serde::Serialize;

use super::outbox::{self, Planned};
use super::receivers::{Receivers, wall_us};
use super::{RECEIVERS, wait_for};
use crate::workshop::Workshop;

/// Callbacks after which memory is read: all of the sender's buffers and windows are in use by then.
const SENT: usize = 2000;

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Backlog {
    owed: usize,
    /// From the start of the process to the first byte of a callback.
    first_secs: f64,
    /// The most that the server took until [`SENT`] callbacks had come, workers not counted.
    memory_mib: f64,
}

pub(crate) fn measure(workshop: &Workshop, owed: usize) -> Result<Backlog> {
    let receivers = Receivers::start(RECEIVERS, 0)?;
    let planned: Vec<_> =
        (0..owed).map(|index| Planned { receiver: index % RECEIVERS, after: Duration::ZERO }).collect();
    let mut server = outbox::stopped(workshop, &receivers.ports, &planned, Duration::ZERO)?;
    outbox::leave_claims(&server)?;
    let began_us = wall_us();
    server.restart()?;
    wait_for(&receivers, SENT.min(owed), Duration::from_secs(120))?;
    let memory_mib = most_memory_mib(&server)?;
    let first_us = receivers.arrivals().iter().map(|arrival| arrival.came_us).min().context("no callback came")?;
    Ok(Backlog { owed, first_secs: first_us.saturating_sub(began_us) as f64 / 1e6, memory_mib })
}

fn most_memory_mib(server: &Server) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// As lines of a table.
pub(crate) fn table(backlogs: &[Backlog]) -> String {
    let mut text = String::from(
        "\n| owed at the start after a crash | s to the first callback | memory MiB |\n| ---: | ---: | ---: |\n",
    );
    for Backlog { owed, first_secs, memory_mib } in backlogs {
        text += &format!("| {owed} | {first_secs:.2} | {memory_mib:.0} |\n");
    }
    text
}
