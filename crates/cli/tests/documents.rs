//! What the documents tell people to type: it is there, and it does what they say.

#![expect(clippy::disallowed_methods, reason = "a suite runs the commands that a person would")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use common::{FRAMEHOOK, PATIENCE};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::jpeg;
use framehook_testkit::load;
use framehook_testkit::process::Process;
use framehook_testkit::server::ServerSpec;
use framehook_testkit::wait;
use tempfile::TempDir;

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every document for users and for those who change the code, by its path from the root.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![PathBuf::from("README.md"), "ARCHITECTURE.md".into(), "CHANGELOG.md".into()];
    for dir in ["docs", "docs/decisions"] {
        let files = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().file_name());
        paths
            .extend(files.map(|name| Path::new(dir).join(name)).filter(|path| path.extension() == Some("md".as_ref())));
    }
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(root().join(&path)).unwrap());
    paths.into_iter().map(read).collect()
}

/// The fenced blocks of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The commands of a shell block, without their comments.
fn commands(block: &str) -> Vec<&str> {
    block
        .lines()
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect()
}

/// Everything in a document that somebody may type: lines of shell blocks, indented lines, and what stands between
/// backquotes.
fn typed(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = blocks(text, "sh").into_iter().flat_map(commands).collect();
    found.extend(text.lines().filter_map(|line| line.strip_prefix("    ")).flat_map(commands));
    // Outside of fences every second piece is between backquotes.
    for (index, outside) in text.split("```").enumerate() {
        if index % 2 == 0 {
            found.extend(outside.split('`').skip(1).step_by(2));
        }
    }
    found
}

fn help_of(words: &[&str]) -> Option<String> {
    let output = Command::new(FRAMEHOOK).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_and_flag_that_is_named_exists() {
    let mut looked_at = 0;
    for (document, text) in documents() {
        for typed in typed(&text) {
            let typed = typed.strip_prefix("target/release/").unwrap_or(typed);
            let Some(rest) = typed.strip_prefix("framehook ") else { continue };
            // `deliveries list|show|replay` names three commands.
            let words: Vec<&str> = rest.split_whitespace().collect();
            let is_command = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '|');
            let command: Vec<&str> =
                words.iter().take_while(|word| !word.starts_with("--")).filter(is_command).copied().collect();
            let (last, before) = command.split_last().unwrap_or_else(|| panic!("{document}: {typed}"));
            for last in last.split('|') {
                let command = [before, &[last]].concat();
                let help = help_of(&command).unwrap_or_else(|| panic!("{document} names {command:?}: {typed}"));
                for flag in words.iter().filter(|word| word.starts_with("--")) {
                    assert!(help.contains(flag), "{document}: {command:?} has no {flag}");
                }
                looked_at += 1;
            }
        }
    }
    assert!(looked_at >= 10, "only {looked_at} commands were found, so the search is broken");
}

#[test]
fn every_task_that_is_named_exists() {
    let help = Command::new(root().join("dev")).arg("help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let tasks: Vec<&str> = help.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(tasks.contains(&"demo") && tasks.contains(&"test"), "{help}");
    let mut looked_at = 0;
    for (document, text) in documents() {
        for task in typed(&text).into_iter().filter_map(|typed| typed.strip_prefix("./dev ")) {
            let task = task.split_whitespace().next().unwrap();
            assert!(tasks.contains(&task), "{document} names ./dev {task}");
            looked_at += 1;
        }
    }
    assert!(looked_at >= 5, "only {looked_at} tasks were found, so the search is broken");
}

#[test]
fn the_configuration_in_the_readme_is_accepted() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let dir = TempDir::new().unwrap();
    for (index, block) in blocks(&readme, "toml").into_iter().enumerate() {
        let path = dir.path().join(format!("{index}.toml"));
        fs::write(&path, block).unwrap();
        let checked = Command::new(FRAMEHOOK).args(["config", "check"]).arg(&path).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// The README's way to a first picture, line by line as it stands there. Free ports take the place of 1935 and 8080, and
/// what the suite was built with that of the release build.
#[test]
fn the_readme_leads_from_nothing_to_a_picture() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let block = *blocks(&readme, "sh").iter().find(|block| block.contains("framehook serve")).unwrap();
    let [build, serve, push, list, doctor] = commands(block).try_into().unwrap();
    assert_eq!(build, "cargo build --release");

    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    let built = Path::new(FRAMEHOOK).parent().unwrap();
    std::os::unix::fs::symlink(built, dir.path().join("target/release")).unwrap();
    let shell = |line: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {line}")]).current_dir(dir.path());
        command.envs([("FRAMEHOOK_RTMP_ADDR", "127.0.0.1:0"), ("FRAMEHOOK_HTTP_ADDR", "127.0.0.1:0")]);
        command
    };

    let mut server = Process::spawn("framehook serve", &mut shell(serve)).unwrap();
    let announced = dir.path().join("framehook-data/addresses.json");
    let addresses = wait::until("addresses.json", PATIENCE, || fs::read(&announced).ok()).unwrap();
    let addresses: serde_json::Value = serde_json::from_slice(&addresses).unwrap();
    let rtmp = addresses["rtmp"].as_str().unwrap();

    let clip = ClipSpec { width: 320, height: 180, ..ClipSpec::default() }.build().unwrap();
    fs::copy(&clip.path, dir.path().join("your.flv")).unwrap();
    assert!(push.contains("rtmp://127.0.0.1/"), "{push}");
    let push = push.replace("rtmp://127.0.0.1/", &format!("rtmp://{rtmp}/")).replace("ffmpeg ", "ffmpeg -nostdin ");
    let _encoder = Process::spawn("ffmpeg", &mut shell(&push)).unwrap();

    let picture = wait::until("a picture where the README looks for it", PATIENCE, || {
        let listed = shell(&format!("bash -c '{list}'")).output().ok()?;
        String::from_utf8(listed.stdout).ok()?.split_whitespace().find(|name| name.ends_with(".jpg")).map(str::to_owned)
    });
    let picture = picture.unwrap_or_else(|error| panic!("{error}\n{}", server.stderr_tail()));
    assert!(picture.starts_with("room_1001-screenshot-"), "{picture}");
    let day = fs::read_dir(dir.path().join("framehook-data/objects/framehook-1250000000")).unwrap().next().unwrap();
    let jpeg = fs::read(day.unwrap().path().join(&picture)).unwrap();
    assert_eq!(jpeg::decode(&jpeg).unwrap().width, 320);

    let examined = shell(doctor).output().unwrap();
    assert!(examined.status.success(), "{}", String::from_utf8_lossy(&examined.stdout));
    assert!(server.terminate(framehook_testkit::server::STOP_PATIENCE).unwrap().success());
}

/// The load generator as it is documented, for less time. What cargo would build is called instead.
#[test]
fn the_load_generator_sends_what_the_server_receives_and_reports_what_is_documented() {
    let document = fs::read_to_string(root().join("docs/performance.md")).unwrap();
    let line = typed(&document).into_iter().find(|line| line.contains("--bin rtmp-load --")).unwrap();
    let arguments = line.split_once(" -- ").unwrap().1.split_whitespace();
    let mut arguments = load::Arguments::try_parse_from(["rtmp-load"].into_iter().chain(arguments)).unwrap();
    assert!(arguments.url.starts_with("rtmp://127.0.0.1/") && arguments.streams >= 100, "{arguments:?}");

    let server = ServerSpec::new(FRAMEHOOK).start().unwrap();
    let clip = ClipSpec { width: 320, height: 180, ..ClipSpec::default() }.build().unwrap();
    arguments.url = arguments.url.replace("127.0.0.1", &server.rtmp_address().to_string());
    arguments.file.clone_from(&clip.path);
    (arguments.ramp, arguments.duration) = (1.0, 5.0);
    let report = load::run(&arguments).unwrap();
    assert_eq!((report.streams, report.refused, report.dropped), (arguments.streams, 0, 0), "{report:#?}");
    assert!(report.keyframes >= report.streams.into(), "{report:#?}");
    wait::until("every byte to be read", PATIENCE, || {
        let received = server.metrics().ok()?.sum("framehook_ingest_bytes_total", &[]);
        (received as u64 == report.wire_bytes).then_some(())
    })
    .unwrap();

    let report = serde_json::to_value(&report).unwrap();
    for figure in report.as_object().unwrap().keys() {
        assert!(document.contains(&format!("`{figure}`")), "{figure} is not documented");
    }
    let help = <load::Arguments as clap::CommandFactory>::command().render_long_help().to_string();
    for option in ["--ramp", "--patience", "--speed", "--chunk-bytes", "--keyframe-log", "--json"] {
        assert!(help.contains(option) && document.contains(option), "{option}");
    }
}
