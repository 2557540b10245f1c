//! A disk that fails to sync, on demand.
//!
//! A small library stands in front of the C library's `fsync` and `fdatasync`. Programs do not notice until a sync fails.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::preload::{self, Preload};

/// Names the plan's file to the library.
const PLAN_VARIABLE: &str = "SYNC_FAILS_PLAN";

/// The library, and the plan that it goes by.
#[derive(Debug)]
pub struct FailingSync {
    preload: Preload,
    plan: SyncPlan,
}

impl FailingSync {
    /// Builds the library, with a plan by which nothing fails.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn build() -> Result<Self> {
        let preload = Preload::build("failing_sync", include_str!("failing_sync.c"))?;
        let plan = SyncPlan { file: preload.dir().join("plan") };
        plan.fail_none();
        Ok(Self { preload, plan })
    }

    /// What a program must be started with for its syncs to fail.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [(preload::VARIABLE, self.preload.library()), (PLAN_VARIABLE, self.plan.file.display().to_string())]
    }

    pub fn plan(&self) -> &SyncPlan {
        &self.plan
    }
}

/// Which syncs fail.
#[derive(Clone, Debug)]
pub struct SyncPlan {
    /// The first line says which paths, each further one stands for a failure.
    file: PathBuf,
}

impl SyncPlan {
    /// That of this very process, if it was started under the library.
    pub fn of_this_process() -> Option<Self> {
        Some(Self { file: std::env::var_os(PLAN_VARIABLE)?.into() })
    }

    /// Fails every sync of a file or directory whose path contains `part`, from now on; counts from zero.
    pub fn fail(&self, part: &str) {
        fs::write(&self.file, format!("{part}\n")).expect("the plan is a file of our own");
    }

    /// Fails no sync any more.
    pub fn fail_none(&self) {
        self.fail("");
    }

    /// How many have failed since [`SyncPlan::fail`].
    pub fn failures(&self) -> usize {
        fs::read_to_string(&self.file).expect("the plan is a file of our own").lines().skip(1).count()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_what_the_plan_names_fails() {
        let failing = FailingSync::build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let sync = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "x").unwrap();
            Command::new("sync").arg("-d").arg(path).envs(failing.environment()).output().unwrap().status.success()
        };
        assert!(sync("good") && sync("bad"));
        failing.plan().fail("/bad");
        assert!(sync("good") && !sync("bad"));
        assert_eq!(failing.plan().failures(), 1);
        failing.plan().fail_none();
        assert!(sync("bad"));
    }
}
