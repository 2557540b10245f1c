//! Results in the documentation, each between markers that name the benchmark which writes them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The document that quotes every benchmark.
pub(crate) const PERFORMANCE: &str = "docs/performance.md";
/// Quotes what a stream costs.
pub(crate) const README: &str = "README.md";
/// The README's chart of the same figures.
pub(crate) const CHART: &str = "docs/streams-per-core.svg";

/// The part of a document that `./dev bench NAME --update` writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section(pub(crate) &'static str);

impl Section {
    /// Writes `text` between the markers of [`PERFORMANCE`] and gives the file.
    pub(crate) fn replace(self, repository: &Path, text: &str) -> Result<PathBuf> {
        self.replace_in(PERFORMANCE, repository, text)
    }

    /// Does so in another document.
    pub(crate) fn replace_in(self, document: &str, repository: &Path, text: &str) -> Result<PathBuf> {
        let document = repository.join(document);
        let old = fs::read_to_string(&document).with_context(|| format!("read {}", document.display()))?;
        let new = self
            .replaced(&old, text)
            .with_context(|| format!("{} has no section for bench {}", document.display(), self.0))?;
        fs::write(&document, new).with_context(|| format!("write {}", document.display()))?;
        Ok(document)
    }

    /// `None` when the markers are not there.
    fn replaced(self, document: &str, text: &str) -> Option<String> {
        let [before, _, after] = self.cut(document)?;
        Some(format!("{before}\n{text}\n{after}"))
    }

    /// What is before the section, in it, and behind it; the markers are outside.
    fn cut(self, document: &str) -> Option<[&str; 3]> {
        let Self(name) = self;
        let begin = format!("<!-- bench {name}: what follows is written by `./dev bench {name} --update` -->\n");
        let end = format!("<!-- bench {name}: end -->\n");
        let from = document.find(&begin)? + begin.len();
        let to = from + document[from..].find(&end)?;
        Some([&document[..from], &document[from..to], &document[to..]])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A document of this repository.
    pub(crate) fn read(document: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap()
    }

    /// What stands between the markers of a document of this repository.
    pub(crate) fn section_of(document: &str, section: Section) -> String {
        let text = read(document);
        let [_, written, _] = section.cut(&text).expect("its markers");
        written.trim_matches('\n').to_owned() + "\n"
    }

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

    /// That sentence is written by hand, so that a new run does not change the table alone.
    #[test]
    fn the_readme_tells_the_delays_of_the_table() {
        let section = section_of(PERFORMANCE, Section("latency"));
        let mut rows = section.lines().map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
        let head = rows.next().unwrap();
        let cell = |row: &[&str], title| {
            let column = head.iter().position(|of| *of == title);
            row[column.expect(title)].to_owned()
        };
        let callbacks: Vec<Vec<&str>> = rows.filter(|row| row.contains(&"callback")).collect();
        let [alone, loaded] = &callbacks[..] else { panic!("{callbacks:?}") };
        let busy = cell(loaded, "cores busy");
        let (_, part) = busy.trim_end_matches(')').split_once('(').expect("cores, and in brackets percent of all");
        let told = format!(
            "{} ms at the median and {} ms at p99; {} and {} ms beside {} others, when {part} of all cores are busy.",
            cell(alone, "p50 ms"),
            cell(alone, "p99 ms"),
            cell(loaded, "p50 ms"),
            cell(loaded, "p99 ms"),
            cell(loaded, "others")
        );
        let readme = read(README).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(readme.contains(&told), "{README} has another sentence than {told:?}");
    }
}
