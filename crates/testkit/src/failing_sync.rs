//! A disk that fails to sync, on demand.
//!
//! No file system does that without privileges, so a small library stands in front of the C library's `fsync` and
//! `fdatasync` (`LD_PRELOAD`). Programs that are linked dynamically do not notice until a sync fails.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Names the plan's file to the library.
const PLAN_VARIABLE: &str = "SYNC_FAILS_PLAN";

/// The library, and the plan that it goes by.
#[derive(Debug)]
pub struct FailingSync {
    library: PathBuf,
    plan: SyncPlan,
    _dir: TempDir,
}

impl FailingSync {
    /// Builds the library, with a plan by which nothing fails.
    ///
    /// # Errors
    /// When there is no C compiler; the one that built SQLite for the server will do.
    pub fn build() -> Result<Self> {
        let dir = tempfile::tempdir().context("make a directory")?;
        let (source, library) = (dir.path().join("failing_sync.c"), dir.path().join("failing_sync.so"));
        fs::write(&source, include_str!("failing_sync.c")).context("write the library's source")?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let compiled = compile.output().context("start cc (install it with: apt-get install build-essential)")?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let plan = SyncPlan { file: dir.path().join("plan") };
        plan.fail_none();
        Ok(Self { library, plan, _dir: dir })
    }

    /// What a program must be started with for its syncs to fail.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &PathBuf| path.display().to_string();
        [("LD_PRELOAD", text(&self.library)), (PLAN_VARIABLE, text(&self.plan.file))]
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
