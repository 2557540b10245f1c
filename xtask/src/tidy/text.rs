//! How text files look.

use super::{Finding, Tree};

/// A file longer than this holds two ideas.
const LINES_MAX: usize = 600;

/// Longer files that hold one, with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Endings of what is written by hand and read for its length.
const CODE: [&str; 10] = [".rs", ".c", ".h", ".sql", ".py", ".js", ".mjs", ".go", ".php", ".sh"];

/// Notes that comments were once written beside and that are not in the repository; comments name the vendor's page, as
/// 267/31072. Split in two so that these very lines are none.
const NO_SOURCES: [&str; 2] = [concat!("css", ".md"), concat!("CSS ", "§")];

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| *path != "Cargo.lock" && *path != "fuzz/Cargo.lock") {
        for (number, line) in (1..).zip(text.split('\n')) {
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(format!("{path}:{number}: space at the end of the line"));
            }
            if path.ends_with(".rs") && NO_SOURCES.iter().any(|source| line.contains(source)) {
                findings.push(format!("{path}:{number}: names notes that nobody has; name the vendor's page"));
            }
            // gofmt indents with tabs and knows nothing else.
            if line.contains('\t') && !path.ends_with(".go") {
                findings.push(format!("{path}:{number}: a tab; write spaces"));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            findings.push(format!("{path}: no newline at the end"));
        }
        let lines = text.lines().count();
        let is_code = CODE.iter().any(|ending| path.ends_with(ending)) || path == "dev";
        let excused = LONG_FILES.iter().any(|(long, _)| path == long);
        if is_code && lines > LINES_MAX && !excused {
            findings.push(format!("{path}: {lines} lines; which two ideas does it hold?"));
        }
        if excused && lines <= LINES_MAX {
            findings.push(format!("{path}: no longer long; take it off the list in xtask"));
        }
        // Split in two so that this very line is none.
        if path.ends_with(".rs") && text.contains(concat!("#[", "ignore")) {
            findings.push(format!("{path}: a test that does not run"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_does_not_show() {
        let long = "x\n".repeat(601);
        let tree = Tree::of(&[
            ("a.md", "fine\n"),
            ("b.rs", "one \n\ttwo\nthree"),
            ("b.go", "func main() {\n\treturn\n}\n"),
            ("c.rs", &long),
            ("c.md", &long),
            ("d.rs", concat!("#[", "ignore]\n")),
            ("e.rs", concat!("/// (CSS ", "§4)\n/// (`css", ".md` 4)\n/// (CSS, 267/30834)\n")),
        ]);
        assert_eq!(
            findings(&tree),
            [
                "b.rs:1: space at the end of the line",
                "b.rs:2: a tab; write spaces",
                "b.rs: no newline at the end",
                "c.rs: 601 lines; which two ideas does it hold?",
                "d.rs: a test that does not run",
                "e.rs:1: names notes that nobody has; name the vendor's page",
                "e.rs:2: names notes that nobody has; name the vendor's page",
            ]
        );
    }
}
