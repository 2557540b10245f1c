//! Where things lie: the executables to measure, what is kept between runs, the repository.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use framehook_testkit::server::ServerSpec;
use tempfile::TempDir;

use crate::provenance::Provenance;

/// The folders of this build.
#[derive(Debug)]
pub(crate) struct Workshop {
    executables: PathBuf,
    /// `target/bench`: clips, the floor program, results.
    pub(crate) cache: PathBuf,
    pub(crate) repository: PathBuf,
    pub(crate) provenance: Provenance,
    /// What servers leave behind, until all has been measured.
    runs: TempDir,
}

impl Workshop {
    pub(crate) fn open() -> Result<Self> {
        let this = std::env::current_exe().context("find this executable")?;
        let executables = this.parent().context("an executable lies in a folder")?.to_owned();
        let cache = executables.parent().context("a build folder lies in `target`")?.join("bench");
        fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the repository")?;
        let provenance = Provenance::note_down(repository, &executables);
        let runs = TempDir::with_prefix("framehook-bench-").context("make a folder")?;
        Ok(Self { executables, cache, repository: repository.to_owned(), provenance, runs })
    }

    /// The server of this build; `framehook-render` lies beside it. Its files stay until all has been measured: where ext4 has no
    /// journal, it passes over what was deleted within the last minutes one by one whenever a file is made, so that a run would
    /// pay for what the one before has left.
    pub(crate) fn server(&self) -> Result<ServerSpec> {
        let executable = self.executable("framehook", "cargo build --release")?;
        Ok(ServerSpec::new(executable).left_in(self.runs.path()))
    }

    /// Where that is.
    pub(crate) fn runs(&self) -> &Path {
        self.runs.path()
    }

    /// The Python that has the vendors' SDKs.
    pub(crate) fn python(&self) -> Result<PathBuf> {
        let path = self.cache.with_file_name("stores").join("bin/python");
        ensure!(path.exists(), "{} is missing: run `./dev stores`", path.display());
        Ok(path)
    }

    /// An executable of the same build; `made_by` is the command that builds it.
    pub(crate) fn executable(&self, name: &str, made_by: &str) -> Result<PathBuf> {
        let path = self.executables.join(name);
        ensure!(path.exists(), "{} is missing: run `{made_by}`", path.display());
        Ok(path)
    }
}

/// Runs a program to its end and gives what it printed.
pub(crate) fn output<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
