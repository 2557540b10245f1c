//! What figures are of: the build that was measured, the command that measured it, and the executables of that build, which
//! are to be the same from the first measurement to the last.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::document::{CHART, PERFORMANCE, README};
use crate::workshop::output;

/// What is measured of this build, and what publishes to it.
const EXECUTABLES: [&str; 4] = ["framehook", "framehook-pool", "framehook-render", "rtmp-load"];

/// A run may write these, which makes no other build of the next one.
const WRITTEN: [&str; 3] = [PERFORMANCE, CHART, README];

#[derive(Debug, Serialize)]
pub(crate) struct Provenance {
    /// The commit, with `-dirty` where files of it have been changed. `None` where git knows nothing of this folder.
    build: Option<String>,
    command: String,
    #[serde(skip)]
    executables: Vec<Executable>,
}

/// A file, and what tells it from another one of its name; `None` where there was no file.
#[derive(Debug)]
struct Executable {
    path: PathBuf,
    found: Option<Stamp>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Provenance {
    /// Of a run that begins now, of the executables in a folder.
    pub(crate) fn note_down(repository: &Path, executables: &Path) -> Self {
        let executable = |name| {
            let path = executables.join(name);
            Executable { found: Stamp::of(&path), path }
        };
        Self {
            build: describe(repository),
            command: command(std::env::args_os().skip(1)),
            executables: EXECUTABLES.map(executable).into(),
        }
    }

    /// For below the tables.
    pub(crate) fn note(&self) -> String {
        let Self { build, command, .. } = self;
        let build = build.as_ref().map_or_else(|| "Unknown build".to_owned(), |build| format!("Build {build}"));
        format!("{build}, measured by `{command}`.")
    }

    /// Fails when somebody has built meanwhile: then nobody knows of what the figures are.
    pub(crate) fn ensure_same_executables(&self) -> Result<()> {
        for Executable { path, found } in &self.executables {
            ensure!(
                Stamp::of(path) == *found,
                "{} has changed since this run began, so its figures are of no one build",
                path.display()
            );
        }
        Ok(())
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), bytes: file.len(), modified: (file.mtime(), file.mtime_nsec()) })
    }
}

/// As `git describe --always --dirty` does, which cannot be told to overlook what runs write.
fn describe(repository: &Path) -> Option<String> {
    // Without optional locks it leaves the index alone, which somebody else may be using.
    let here = [OsStr::new("--no-optional-locks"), OsStr::new("-C"), repository.as_os_str()];
    let git = |arguments: &[&str]| output("git", here.into_iter().chain(arguments.iter().map(OsStr::new))).ok();
    let commit = git(&["describe", "--always"])?;
    let overlooked = WRITTEN.map(|path| format!(":(exclude){path}"));
    let mut arguments = vec!["status", "--porcelain", "--untracked-files=no", "--", "."];
    arguments.extend(overlooked.iter().map(String::as_str));
    let dirty = if git(&arguments)?.is_empty() { "" } else { "-dirty" };
    Some(format!("{}{dirty}", commit.trim()))
}

/// As it was typed.
fn command(arguments: impl Iterator<Item = OsString>) -> String {
    arguments.fold("./dev bench".to_owned(), |line, argument| line + " " + &argument.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::group::tests::starting;

    #[test]
    fn what_runs_write_makes_no_build_dirty() {
        let _starting = starting();
        let folder = TempDir::new().unwrap();
        assert_eq!(describe(folder.path()), None);
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let git = |arguments: &[&str]| {
            let who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-C"].map(OsStr::new);
            let arguments = arguments.iter().map(OsStr::new);
            output("git", who.into_iter().chain([folder.path().as_os_str()]).chain(arguments)).unwrap()
        };
        git(&["init", "--quiet"]);
        write("README.md", "old");
        write("code", "old");
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "first"]);
        let clean = git(&["rev-parse", "--short", "HEAD"]).trim().to_owned();
        write("README.md", "new");
        write("untracked", "new");
        assert_eq!(describe(folder.path()), Some(clean.clone()));
        write("code", "new");
        assert_eq!(describe(folder.path()), Some(format!("{clean}-dirty")));
    }

    #[test]
    fn tells_build_and_command() {
        let command = command(["cost", "--streams", "10,100"].into_iter().map(OsString::from));
        let of = |build| Provenance { build, command: command.clone(), executables: Vec::new() }.note();
        assert_eq!(of(Some("c0ffee1".to_owned())), "Build c0ffee1, measured by `./dev bench cost --streams 10,100`.");
        assert_eq!(of(None), "Unknown build, measured by `./dev bench cost --streams 10,100`.");
    }

    #[test]
    fn an_executable_that_was_built_again_ends_a_run() {
        let folder = TempDir::new().unwrap();
        let server = folder.path().join("framehook");
        fs::write(&server, "one").unwrap();
        let provenance = Provenance::note_down(folder.path(), folder.path());
        provenance.ensure_same_executables().unwrap();
        // The same bytes at the same place, and yet another file.
        fs::write(folder.path().join("new"), "one").unwrap();
        fs::rename(folder.path().join("new"), &server).unwrap();
        let refused = provenance.ensure_same_executables().unwrap_err().to_string();
        assert!(refused.contains("framehook has changed since this run began"), "{refused}");
    }
}
