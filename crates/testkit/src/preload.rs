//! Small libraries that stand in front of the C library (`LD_PRELOAD`), for what no file system does without privileges.
//! Programs that are linked dynamically do not notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The variable by which the dynamic linker is told of a library.
pub(crate) const VARIABLE: &str = "LD_PRELOAD";

/// A library that was built, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Preload {
    library: PathBuf,
    dir: TempDir,
}

impl Preload {
    /// Builds a library from one file of C.
    ///
    /// # Errors
    /// When there is no C compiler; the one that built SQLite for the server will do.
    pub(crate) fn build(name: &str, source: &str) -> Result<Self> {
        let dir = tempfile::tempdir().context("make a directory")?;
        let [file, library] = ["c", "so"].map(|extension| dir.path().join(name).with_extension(extension));
        fs::write(&file, source).context("write the library's source")?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
            .arg(&library)
            .arg(&file)
            .arg("-ldl");
        let compiled = compile.output().context("start cc (install it with: apt-get install build-essential)")?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Ok(Self { library, dir })
    }

    /// The value of [`VARIABLE`].
    pub(crate) fn library(&self) -> String {
        self.library.display().to_string()
    }

    /// A directory of its own, which goes with it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}
