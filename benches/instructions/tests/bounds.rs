//! How many instructions a message may cost, so that ingest cannot become dearer by small steps that no clock would show.
//!
//! Callgrind counts them. The count is the same from run to run, to the instruction, and from machine to machine as long as
//! compiler and C library are. It is one of the development profile, which checks for overflow, so it says how cost moves
//! and not what it is.

// Elsewhere the same code takes another number of instructions.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::disallowed_methods, reason = "counts the instructions of a process of its own")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

const FILE: &str = file!();

/// What OBS sent in six seconds: 640x360, 30 pictures and 47 pieces of sound a second, a keyframe of 7 KB every second
/// (`testdata/rtmp/README.md`).
const TRACE: &str = "testdata/rtmp/obs-29.0-h264-aac.bin";

/// Messages behind the accepted publish: metadata, two decoder configs, 181 pictures, 280 pieces of sound and the end.
const MESSAGES: u64 = 465;

/// glibc chooses its loop for copying memory by the processor. With this it takes the one that every x86-64 has, so that
/// another machine counts the same (0.2 to 0.8 % lie between them here).
const SAME_COPYING: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-ERMS,-FSRM";

/// Instructions of a stream for a message of [`TRACE`].
static WITHOUT_PICTURES: LazyLock<u64> = LazyLock::new(|| instructions_per_message("skip"));
static WITH_PICTURES: LazyLock<u64> = LazyLock::new(|| instructions_per_message("pick"));

fn instructions_per_message(workload: &str) -> u64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{workload}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=framehook_instructions::replay"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env!("CARGO_BIN_EXE_framehook-instructions"))
        .arg(workload)
        .arg(root.join(TRACE))
        .env("GLIBC_TUNABLES", SAME_COPYING)
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("valgrind: {error}; on Debian: apt-get install --no-install-recommends valgrind")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let messages: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number of messages");
    assert_eq!(messages, MESSAGES, "{said}");

    let profile = fs::read_to_string(&profile).expect("callgrind's profile");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total in the profile");
    let each = total.trim().parse::<u64>().expect("a number of instructions") / messages;
    println!("{workload}: {each} instructions per message");
    assert!(each > 0, "nothing was counted: has `replay` another name now?");
    each
}

/// Fails when `what` takes more than `most` instructions for a message, and when it takes so few that the bound tells nothing.
fn stays_within(what: &str, each: u64, most: u64) {
    assert!(
        each <= most,
        "{what}: {each} instructions per message, at most {most}; if the growth is wanted, raise the bound in {FILE} and say why"
    );
    assert!(
        each * 5 >= most * 4,
        "{what}: {each} instructions per message, so the bound of {most} in {FILE} no longer binds: lower it"
    );
}

// Measured with Rust 1.95 and glibc 2.36: 977 and 1106, so pictures add 129. The bounds leave 8 % of a stream to a compiler that
// decides otherwise, and 12 % of what pictures add.

#[test]
fn a_stream_without_pictures_stays_within_its_instructions() {
    stays_within("a stream without pictures", *WITHOUT_PICTURES, 1050);
}

#[test]
fn a_stream_with_a_picture_every_two_seconds_stays_within_its_instructions() {
    stays_within("a stream with pictures", *WITH_PICTURES, 1190);
}

/// Of this the bound of the whole would let pass two thirds more.
#[test]
fn picking_stays_within_its_instructions() {
    stays_within("what pictures add to a stream", WITH_PICTURES.saturating_sub(*WITHOUT_PICTURES), 144);
}
