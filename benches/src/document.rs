//! Results in the documentation, each between markers that name the benchmark which writes them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The document that quotes every benchmark.
const PERFORMANCE: &str = "docs/performance.md";

/// The part of the document that `./dev bench NAME --update` writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section(pub(crate) &'static str);

impl Section {
    /// Writes `text` between the markers and gives the file.
    pub(crate) fn replace(self, repository: &Path, text: &str) -> Result<PathBuf> {
        let document = repository.join(PERFORMANCE);
        let old = fs::read_to_string(&document).with_context(|| format!("read {}", document.display()))?;
        let new = self
            .replaced(&old, text)
            .with_context(|| format!("{} has no section for bench {}", document.display(), self.0))?;
        fs::write(&document, new).with_context(|| format!("write {}", document.display()))?;
        Ok(document)
    }

    /// `None` when the markers are not there.
    fn replaced(self, document: &str, text: &str) -> Option<String> {
        let Self(name) = self;
        let begin = format!("<!-- bench {name}: what follows is written by `./dev bench {name} --update` -->\n");
        let end = format!("<!-- bench {name}: end -->\n");
        let (before, rest) = document.split_once(&begin)?;
        let (_, after) = rest.split_once(&end)?;
        Some(format!("{before}{begin}\n{text}\n{end}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let marked = |text: &str| {
            let begin = "<!-- bench cost: what follows is written by `./dev bench cost --update` -->\n";
            format!("# Title\n{begin}{text}<!-- bench cost: end -->\nrest\n")
        };
        let cost = Section("cost");
        assert_eq!(cost.replaced(&marked("old"), "new\n"), Some(marked("\nnew\n\n")));
        assert_eq!(cost.replaced("# Title\n", "new\n"), None);
        assert_eq!(Section("latency").replaced(&marked("old"), "new\n"), None);
    }
}
