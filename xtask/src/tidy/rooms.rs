//! The rooms: which crate may use which, and what may not stand in it. The table in ARCHITECTURE.md says why.

use anyhow::{Context, Result};
use toml::Table;

use super::{Finding, Tree};

struct Room {
    directory: &'static str,
    /// Crates of ours that it may use when it is built; for its tests it may also use testkit and what testkit may.
    may_use: &'static [&'static str],
    /// Bytes in, decisions out: no operating system, and no crate that reaches for one.
    is_pure: bool,
}

const ROOMS: [Room; 15] = [
    Room { directory: "crates/media", may_use: &[], is_pure: true },
    Room { directory: "crates/rtmp", may_use: &["framehook-media"], is_pure: true },
    Room { directory: "crates/verify", may_use: &[], is_pure: true },
    Room { directory: "crates/domain", may_use: &["framehook-media", "framehook-verify"], is_pure: true },
    Room { directory: "crates/tc3", may_use: &[], is_pure: true },
    Room { directory: "crates/render-wire", may_use: &["framehook-media"], is_pure: true },
    Room { directory: "crates/render-worker", may_use: &["framehook-media", "framehook-render-wire"], is_pure: false },
    Room {
        directory: "crates/server",
        may_use: &["framehook-media", "framehook-rtmp", "framehook-domain", "framehook-tc3", "framehook-render-wire"],
        is_pure: false,
    },
    Room {
        directory: "crates/cli",
        may_use: &["framehook-media", "framehook-rtmp", "framehook-domain", "framehook-verify", "framehook-server"],
        is_pure: false,
    },
    Room {
        directory: TESTKIT,
        may_use: &["framehook-media", "framehook-rtmp", "framehook-domain", "framehook-verify"],
        is_pure: false,
    },
    Room { directory: "examples/receivers/rust", may_use: &["framehook-verify"], is_pure: false },
    Room { directory: "benches", may_use: &["framehook-testkit"], is_pure: false },
    Room { directory: "benches/instructions", may_use: &["framehook-rtmp", "framehook-domain"], is_pure: false },
    Room { directory: "benches/pool", may_use: &["framehook-media", "framehook-server"], is_pure: false },
    Room { directory: "xtask", may_use: &[], is_pure: false },
];

/// What tests of rooms with effects may use, with what it may use itself.
const TESTKIT: &str = "crates/testkit";
/// The only room that may hold `unsafe` and C.
const WORKER: &str = "crates/render-worker";
/// C code that takes bytes from outside, and what C is built with.
const C_CODE: [&str; 6] = ["turbojpeg", "libwebp-sys", "ffmpeg-sys-next", "rsmpeg", "cc", "pkg-config"];
/// What reaches for the operating system, a clock, a socket or a log.
const EFFECTS: [&str; 14] = [
    "tokio",
    "tokio-util",
    "hyper",
    "hyper-util",
    "axum",
    "rustls",
    "rusqlite",
    "rustix",
    "libc",
    "tracing",
    "log",
    "rand",
    "getrandom",
    "tempfile",
];
/// The room that opens files and nothing else has no use for these.
const NOT_IN_WORKER: [&str; 7] = ["tokio", "hyper", "axum", "rustls", "rusqlite", "tracing", "serde_json"];

pub(super) fn findings(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for manifest in tree.texts.keys().filter(|path| path.ends_with("/Cargo.toml") && *path != "fuzz/Cargo.toml") {
        let directory = manifest.trim_end_matches("/Cargo.toml");
        match ROOMS.iter().find(|room| room.directory == directory) {
            Some(room) => findings.extend(in_room(tree, room, manifest)?),
            None => findings.push(format!("{manifest}: a crate that is no room; say in xtask who it may use")),
        }
    }
    findings.extend(misplaced_sql(tree));
    Ok(findings)
}

fn in_room(tree: &Tree, room: &Room, manifest: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let table: Table = tree.texts[manifest].parse().with_context(|| format!("parse {manifest}"))?;
    let names = |section: &str| -> Vec<String> {
        table
            .get(section)
            .and_then(|section| section.as_table())
            .map_or_else(Vec::new, |section| section.keys().cloned().collect())
    };
    let dependencies = [names("dependencies"), names("build-dependencies")].concat();
    for name in &dependencies {
        let forbidden = name.starts_with("framehook-") && !room.may_use.contains(&name.as_str())
            || room.is_pure && EFFECTS.contains(&name.as_str())
            || room.directory == WORKER && NOT_IN_WORKER.contains(&name.as_str())
            || room.directory != WORKER && C_CODE.contains(&name.as_str());
        if forbidden {
            findings.push(format!("{manifest}: {} must not use {name}", room.directory));
        }
    }
    let testkit = ROOMS.iter().find(|room| room.directory == TESTKIT).expect("it is a room");
    for name in names("dev-dependencies") {
        let may_testkit = |name: &str| name == "framehook-testkit" || testkit.may_use.contains(&name);
        let may_use = room.may_use.contains(&name.as_str()) || !room.is_pure && may_testkit(&name);
        if name.starts_with("framehook-") && !may_use {
            findings.push(format!("{manifest}: the tests of {} must not use {name}", room.directory));
        }
    }
    let inherits_lints = table.get("lints").and_then(|lints| lints.get("workspace")).is_some();
    if room.directory != WORKER && !inherits_lints {
        findings.push(format!("{manifest}: `lints.workspace = true` is missing, and with it the ban on unsafe"));
    }
    let library = format!("{}/src/lib.rs", room.directory);
    if room.is_pure && !tree.texts.get(&library).is_some_and(|text| text.contains("#![no_std]")) {
        findings.push(format!("{library}: a pure crate says `#![no_std]`"));
    }
    Ok(findings)
}

/// SQL stands in `crates/server/src/db`, so that a change of the schema knows where to look.
fn misplaced_sql(tree: &Tree) -> Vec<Finding> {
    const STATEMENTS: [&str; 7] =
        ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA ", "BEGIN IMMEDIATE"];
    let mut findings = Vec::new();
    let sources = tree.texts.iter().filter(|(path, _)| {
        path.starts_with("crates/")
            && path.contains("/src/")
            && path.ends_with(".rs")
            && !path.starts_with("crates/server/src/db")
    });
    for (path, text) in sources {
        // A test may set its rows up by hand, beside what it shows.
        let shipped = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for (number, line) in (1..).zip(shipped) {
            // At the start of a string, or of a line within one.
            let begins = |statement: &&str| {
                line.trim_start().starts_with(*statement) || line.contains(&format!("\"{statement}"))
            };
            if STATEMENTS.iter().any(begins) {
                findings.push(format!("{path}:{number}: SQL outside of crates/server/src/db"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_manifest(path: &str, text: &str) -> Vec<Finding> {
        findings(&Tree::of(&[(path, text), ("crates/media/src/lib.rs", "#![no_std]")])).unwrap()
    }

    const LINTS: &str = "\n[lints]\nworkspace = true\n";

    #[test]
    fn keeps_the_rooms_apart() {
        for (manifest, dependencies, finding) in [
            ("crates/media/Cargo.toml", "[dependencies]\nbytes = \"1\"", None),
            (
                "crates/media/Cargo.toml",
                "[dependencies]\nframehook-rtmp.workspace = true",
                Some("must not use framehook-rtmp"),
            ),
            ("crates/media/Cargo.toml", "[dependencies]\ntokio.workspace = true", Some("must not use tokio")),
            (
                "crates/media/Cargo.toml",
                "[dev-dependencies]\nframehook-testkit.workspace = true",
                Some("the tests of crates/media"),
            ),
            (
                "crates/testkit/Cargo.toml",
                "[dependencies]\nframehook-server.workspace = true",
                Some("must not use framehook-server"),
            ),
            ("crates/server/Cargo.toml", "[build-dependencies]\ncc = \"1\"", Some("must not use cc")),
            ("crates/server/Cargo.toml", "[dev-dependencies]\nframehook-testkit.workspace = true", None),
            ("crates/new/Cargo.toml", "", Some("no room")),
        ] {
            let found = in_manifest(manifest, &format!("{dependencies}{LINTS}"));
            match finding {
                None => assert!(found.is_empty(), "{dependencies}: {found:?}"),
                Some(finding) => assert!(found.len() == 1 && found[0].contains(finding), "{dependencies}: {found:?}"),
            }
        }
        assert!(in_manifest("crates/server/Cargo.toml", "")[0].contains("ban on unsafe"));
    }

    #[test]
    fn a_pure_crate_has_no_standard_library() {
        let tree = Tree::of(&[("crates/rtmp/Cargo.toml", LINTS), ("crates/rtmp/src/lib.rs", "pub mod chunk;")]);
        assert_eq!(findings(&tree).unwrap(), ["crates/rtmp/src/lib.rs: a pure crate says `#![no_std]`"]);
    }

    #[test]
    fn sql_stays_in_its_place() {
        let statement = "let sql = \"SELECT id FROM event\";\n    UPDATE event SET x\n// what SELECT does\nUPDATED ";
        let tree = Tree::of(&[
            ("crates/server/src/db/event.rs", statement),
            ("crates/server/src/db.rs", statement),
            ("crates/server/src/app.rs", statement),
        ]);
        let place = |line| format!("crates/server/src/app.rs:{line}: SQL outside of crates/server/src/db");
        assert_eq!(findings(&tree).unwrap(), [place(1), place(2)]);
    }
}
