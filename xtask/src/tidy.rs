//! Checks that no compiler makes: that documents name what exists, that files stay readable, and that the rooms stay
//! apart (who may depend on whom, and what may stand where).

mod paths;
mod rooms;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The repository's text files by path from its root, with what git ignores left out.
struct Tree {
    /// Every file, text or not.
    paths: Vec<String>,
    texts: BTreeMap<String, String>,
}

/// Something that has to change, as `path:line: what`.
type Finding = String;

/// Files whose bytes are what they are: pictures, clips, wire traces, inputs of a fuzzer.
const NOT_OURS_TO_WRITE: [&str; 2] = ["fuzz/corpus/", "LICENSE"];

/// Checks everything; fails when anything is found.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings = text::findings(&tree);
    findings.extend(paths::findings(&tree));
    findings.extend(rooms::findings(&tree)?);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} things to tidy", findings.len());
    }
    Ok(())
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("start git")?;
        ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        let listed = String::from_utf8(listed.stdout).context("paths are UTF-8")?;
        // What is deleted but not yet committed is still listed.
        let paths: Vec<String> =
            listed.split_terminator('\0').filter(|path| root.join(path).is_file()).map(str::to_owned).collect();
        let mut texts = BTreeMap::new();
        for path in paths.iter().filter(|path| !NOT_OURS_TO_WRITE.iter().any(|prefix| path.starts_with(prefix))) {
            let bytes = fs::read(root.join(path)).with_context(|| format!("read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes).map(|text| (!text.contains('\0')).then_some(text))
                && let Some(text) = text
            {
                texts.insert(path.clone(), text);
            }
        }
        Ok(Self { paths, texts })
    }

    /// Whether there is a file or a directory of this path.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.paths
            .iter()
            .any(|file| file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    #[cfg(test)]
    fn of(texts: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<_, _> = texts.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self { paths: texts.keys().cloned().collect(), texts }
    }
}
