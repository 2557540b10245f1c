//! What Framehook costs, measured beside the programs people would use instead and beside the floor: the least that
//! receiving the same bytes and making the same pictures takes with stock parts.
//!
//! Every benchmark starts all systems itself, on loopback, one after another in alternating rounds of one run, because
//! numbers of two runs on a shared machine do not compare. It must never share code with what it measures: `framehook`
//! and the load generator are the executables that lie beside this one.
//!
//! Start from [`cost`] (the plan of a run) and [`subject::Subject`] (what is measured).

#![expect(clippy::disallowed_methods, reason = "a benchmark starts processes, waits out a window and reads the clock")]

mod clip;
mod cost;
mod document;
mod group;
mod latency;
mod load;
mod machine;
mod packages;
mod subject;
mod workshop;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::workshop::Workshop;

/// What Framehook costs, beside what others cost and beside the floor.
#[derive(Debug, Parser)]
#[command(name = "framehook-bench")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// CPU time and memory per stream with one picture every 10 s of each.
    Cost(cost::Options),
    /// From a keyframe's last byte to its callback's first.
    Latency(latency::Options),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(!cfg!(debug_assertions), "this is a debug build; run with `cargo run --release -p framehook-bench`");
    let workshop = Workshop::open()?;
    match arguments.benchmark {
        Benchmark::Cost(options) => cost::run(&workshop, &options),
        Benchmark::Latency(options) => latency::run(&workshop, &options),
    }
}
