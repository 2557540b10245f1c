//! Documents name files; the files must exist.

use super::{Finding, Tree};

/// Built, not committed.
const BUILT: [&str; 1] = ["target/"];

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (document, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        let directory = document.rfind('/').map_or("", |end| &document[..=end]);
        let mut in_block = false;
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            }
            if in_block {
                continue;
            }
            for path in linked(line).map(|path| joined(directory, path)).chain(quoted(tree, line)) {
                if !tree.has(&path) && !BUILT.iter().any(|prefix| path.starts_with(prefix)) {
                    findings.push(format!("{document}:{number}: {path} does not exist"));
                }
            }
        }
    }
    findings
}

/// The targets of links that stay within the repository, without their anchors.
fn linked(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#']).next()?;
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).then_some(target)
    })
}

/// Code spans that are paths from the root: their first part stands there. A span may go on after the path, as a command.
fn quoted<'a>(tree: &'a Tree, line: &'a str) -> impl Iterator<Item = String> {
    line.split('`').skip(1).step_by(2).filter_map(|span| {
        let word = span.split_whitespace().next()?;
        let path = word.strip_prefix("./").unwrap_or(word);
        // Patterns, placeholders and Rust paths name no single file.
        if !path.contains('/') && word == path
            || path.contains(['*', '<', '{', '$', '…', ':', '['])
            || path.contains("NNNN")
        {
            return None;
        }
        let first = path.split('/').next()?;
        (tree.has(first) || word != path).then(|| path.to_owned())
    })
}

/// A link's target from the root, with `..` taken out.
fn joined(directory: &str, target: &str) -> String {
    let mut parts: Vec<&str> = directory.split_terminator('/').collect();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_links_and_code_spans_that_lead_nowhere() {
        let tree = Tree::of(&[
            ("dev", ""),
            ("crates/media/src/lib.rs", ""),
            ("docs/a.md", "[b](b.md), [up](../crates/media), [web](https://example.com/x), [gone](c.md#part)\n"),
            (
                "docs/b.md",
                "`crates/media/src`, `crates/gone.rs`, `./dev test`, `./nothing`, `crates/*/src`, `other/thing`\n",
            ),
            ("README.md", "```sh\n`crates/in/a/block`\n```\n`target/release/framehook` `a::b/c` [dir](docs/)\n"),
        ]);
        assert_eq!(
            findings(&tree),
            [
                "docs/a.md:1: docs/c.md does not exist",
                "docs/b.md:1: crates/gone.rs does not exist",
                "docs/b.md:1: nothing does not exist",
            ]
        );
    }
}
