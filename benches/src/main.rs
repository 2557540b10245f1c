//! What Framehook costs, measured beside the programs people would use instead and beside the floor: the least that
//! receiving the same bytes and making the same pictures takes with stock parts.
//!
//! Every benchmark starts all systems itself, on loopback, one after another in alternating rounds of one run, because
//! numbers of two runs on a shared machine do not compare. It must never share code with what it measures: `framehook`
//! and the load generator are the executables that lie beside this one.
//!
//! Start from [`plan::Plan`] (a run), [`measurement`] (one step of it) and [`subject::Subject`] (what is measured).

#![expect(clippy::disallowed_methods, reason = "a benchmark starts processes, waits out a window and reads the clock")]

mod clip;
mod cost;
mod delivery;
mod document;
mod group;
mod ingest;
mod interrupt;
mod latency;
mod load;
mod machine;
mod measurement;
mod notes;
mod packages;
mod page;
mod picture;
mod plan;
mod provenance;
mod rest;
mod scale;
mod store;
mod subject;
mod summary;
mod workshop;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use framehook_testkit::process::raise_open_files_limit;

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
    /// CPU time and memory per stream of receiving alone.
    Ingest(ingest::Options),
    /// Whether cost per stream stays the same from 10 to 2,000 streams; a storm of publishers; more work than fits.
    Scale(scale::Options),
    /// From a keyframe's last byte to its stored picture and to its callback, on an idle machine and on a busy one.
    Latency(latency::Options),
    /// CPU time of one picture, beside the same libraries and the same code called directly.
    Picture(picture::Options),
    /// CPU time of the server itself for a picture: commit, store, notify, metrics and what else is not rendering.
    Rest(rest::Options),
    /// Callbacks per second, how late they leave, and what hanging receivers do to the others.
    Delivery(delivery::Options),
    /// CPU time and duration of a put into each kind of store.
    Store(store::Options),
}

/// Fails, too, when a bound was not kept, unless the run was only to see that everything runs.
fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    ensure!(!cfg!(debug_assertions), "this is a debug build; run with `cargo run --release -p framehook-bench`");
    raise_open_files_limit()?;
    let workshop = Workshop::open()?;
    interrupt::watch(workshop.runs().to_owned())?;
    let verdict = match arguments.benchmark {
        Benchmark::Cost(options) => cost::run(&workshop, &options),
        Benchmark::Ingest(options) => ingest::run(&workshop, &options),
        Benchmark::Scale(options) => scale::run(&workshop, &options),
        Benchmark::Latency(options) => latency::run(&workshop, &options),
        Benchmark::Picture(options) => picture::run(&workshop, &options),
        Benchmark::Rest(options) => rest::run(&workshop, &options),
        Benchmark::Delivery(options) => delivery::run(&workshop, &options),
        Benchmark::Store(options) => store::run(&workshop, &options),
    };
    Ok(verdict?.into())
}
