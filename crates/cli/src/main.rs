//! The executable `framehook`: a page per command, and no decisions of its own.

mod audit;
mod body;
mod config;
mod control;
mod deliveries;
mod demo;
mod doctor;
mod fetch;
mod image;
mod keys;
mod output;
mod push_url;
mod receive;
mod receiver;
mod serve;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Watches live streams, takes a picture of each at a fixed interval, stores it, and tells your server with a signed
/// callback that does not get lost.
#[derive(Parser)]
#[command(name = "framehook", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Receive(receive::ReceiveArgs),
    Verify(verify::VerifyArgs),
    PushUrl(push_url::PushUrlArgs),
    Doctor(doctor::DoctorArgs),
    Config(config::ConfigArgs),
    Deliveries(deliveries::DeliveriesArgs),
    Keys(keys::KeysArgs),
    Audit(audit::AuditArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // Before the log is set up, or after it is gone, this is all that a person sees.
            eprintln!("framehook: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Verify(arguments) => Ok(verify::run(&arguments)),
        Command::PushUrl(arguments) => push_url::run(&arguments),
        Command::Serve(arguments) => on_runtime(serve::run(arguments)),
        Command::Demo(arguments) => on_runtime(demo::run(arguments)),
        Command::Receive(arguments) => on_runtime(receive::run(arguments)),
        Command::Doctor(arguments) => on_runtime(doctor::run(arguments)),
        Command::Config(arguments) => on_runtime(config::run(arguments)),
        Command::Deliveries(arguments) => on_runtime(deliveries::run(arguments)),
        Command::Keys(arguments) => on_runtime(keys::run(arguments)),
        Command::Audit(arguments) => on_runtime(audit::run(arguments)),
    }
}

/// Runs a command that waits for sockets and clocks.
fn on_runtime(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // Dropping it would wait for every blocking call, and a sync on a disk that is gone never returns.
    runtime.shutdown_background();
    outcome
}
