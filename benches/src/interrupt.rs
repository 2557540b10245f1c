//! A run that is stopped before its end, by Ctrl-C or `kill`: what it has started ends too, and its files go.

use std::fs;
use std::path::PathBuf;
use std::process::exit;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use framehook_testkit::process::{Descendant, descendants_of, wait_until_gone};
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// How long a server may take to end as it wants to.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What ends the control groups when this process has ended.
const GUARD: &str = "sh";

/// Waits for the signal on a thread of its own. `runs` is the folder that goes.
pub(crate) fn watch(runs: PathBuf) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build().context("start what waits for signals")?;
    let wait = move || {
        let ended_by = wait_for_signal(&runtime);
        end_started();
        // What cannot be removed lies in the system's folder for such files.
        let _ = fs::remove_dir_all(runs);
        exit(128 + ended_by.as_raw());
    };
    thread::Builder::new().name("interrupt".to_owned()).spawn(wait).context("start what waits for signals")?;
    Ok(())
}

fn wait_for_signal(runtime: &Runtime) -> Signal {
    runtime.block_on(async {
        let wait = async |kind| match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            // This one keeps what it does by default.
            Err(_) => std::future::pending().await,
        };
        tokio::select! {
            () = wait(SignalKind::interrupt()) => Signal::INT,
            () = wait(SignalKind::terminate()) => Signal::TERM,
        }
    })
}

fn end_started() {
    let mut started = descendants_of(std::process::id()).unwrap_or_default();
    started.retain(|process| process.command != GUARD);
    let send = |signal| {
        // Whoever has ended by itself meanwhile is no error.
        started.iter().map(|process: &Descendant| process.signal(signal)).for_each(drop);
    };
    send(Signal::TERM);
    if wait_until_gone(&started, END_PATIENCE).is_err() {
        send(Signal::KILL);
    }
}
