//! Where a process spends its CPU time, by the names of its threads.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// CPU time of all threads of each name that are there at the moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct ThreadTimes(BTreeMap<String, Duration>);

impl ThreadTimes {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let mut times = BTreeMap::<String, Duration>::new();
        let tasks = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
            let folder = entry?.path();
            // It may end while we look.
            let (Ok(name), Ok(ran)) =
                (fs::read_to_string(folder.join("comm")), fs::read_to_string(folder.join("schedstat")))
            else {
                continue;
            };
            *times.entry(name.trim().to_owned()).or_default() += ran_for(&ran).context("schedstat")?;
        }
        Ok(Self(times))
    }

    /// What has been added to each name. Threads that ended in between may have taken more along than was added: nothing then.
    pub(super) fn since(self, before: &Self) -> Self {
        let added = |(name, time): (String, Duration)| {
            let before = before.0.get(&name).copied().unwrap_or_default();
            (name, time.saturating_sub(before))
        };
        Self(self.0.into_iter().map(added).collect())
    }

    pub(super) fn ms(&self, name: &str) -> f64 {
        self.0.get(name).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The first field of `schedstat`: ns that the thread has run for.
fn ran_for(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_a_named_thread_of_this_process_burns() {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let burn = move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {};
        let before = ThreadTimes::of(std::process::id()).unwrap();
        let thread = std::thread::Builder::new().name("burner".to_owned()).spawn(burn).unwrap();
        framehook_testkit::wait::until("10 ms of CPU time", Duration::from_secs(30), || {
            let added = ThreadTimes::of(std::process::id()).unwrap().since(&before);
            (added.ms("burner") > 10.0 && added.names().any(|name| name == "burner")).then_some(())
        })
        .unwrap();
        drop(stop);
        thread.join().unwrap();
    }
}
