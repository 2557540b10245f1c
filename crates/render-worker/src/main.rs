//! `framehook-render`: the jailed process that turns one entry point into images.
//!
//! It is started by the server, locks itself in before it reads the first byte, and ends when its socket does. It must
//! never open a file or a socket, never start a thread, and never trust a length. C code and `unsafe` exist in this
//! executable only: libavcodec behind `shim.c`, libjpeg-turbo, libwebp, and the system calls of the jail.
//!
//! Start from [`render::Renderer`] (what a job becomes) and [`jail`] (what a hostile one can do).
//!
//! | Specification | Used for |
//! |---|---|
//! | ITU-T H.273 (07/2021) | matrices, ranges and transfer functions of the decoded picture |
//! | ITU-T T.871 (05/2011), JFIF | colours and header of a JPEG |
//! | PNG (3rd edition), RFC 6386 (VP8), AVIF 1.1 | the other formats |
//! | ITU-T H.264 (08/2021) | what `unit` looks at; decoding itself is libavcodec's |

mod colour;
mod decode;
mod decoders;
mod encode;
mod exchange;
mod fingerprint;
mod jail;
mod judge;
mod measure;
mod memory;
mod orientation;
mod picture;
mod probe;
mod render;
mod scale;
mod serve;
mod stopwatch;
mod unit;

use std::error::Error;
use std::process::ExitCode;

use framehook_render_wire::{JailReport, Landlock, VERSION};
use rustix::process::Pid;

use crate::jail::Conditions;
use crate::serve::JailMode;

const USAGE: &str = "\
framehook-render turns one entry point of a video stream into images. The server starts it; by hand it can only:

  framehook-render --self-test               lock itself in, try the lock, say what it found; 0 if all holds
  framehook-render --measure WIDTH CONFIG UNIT...  CPU time to decode and encode these files, without jail or server;
                                             images are WIDTH pixels wide, with 0 as wide as the picture
  framehook-render --measure-formats CONFIG UNIT...  the same for each format of the image
  framehook-render --version
";

fn main() -> ExitCode {
    decode::silence_library();
    memory::keep_freed();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match *arguments {
        ["--worker", "--parent", parent] => worker(parent, JailMode::Required),
        ["--worker", "--parent", parent, "--unsafe-no-jail"] => worker(parent, JailMode::Off),
        ["--self-test"] => return self_test(),
        ["--measure", width, config, ref units @ ..] if !units.is_empty() => measure::measure(width, config, units),
        ["--measure-formats", config, ref units @ ..] if !units.is_empty() => measure::measure_formats(config, units),
        ["--version"] => {
            println!("framehook-render {} (wire {VERSION}, {})", env!("CARGO_PKG_VERSION"), decode::library());
            Ok(())
        }
        ["--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("framehook-render: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn worker(parent: &str, mode: JailMode) -> Result<(), Box<dyn Error>> {
    let parent = parent.parse().ok().and_then(Pid::from_raw).ok_or("--parent is not a process id")?;
    if mode == JailMode::Off {
        eprintln!("framehook-render: running WITHOUT its jail (--unsafe-no-jail)");
    }
    // Started by descriptor, the process would else be listed by that descriptor's number.
    rustix::thread::set_name(c"framehook-render")?;
    Ok(serve::serve(parent, mode)?)
}

/// Locks in as a worker would, and prints the report.
fn self_test() -> ExitCode {
    let conditions = Conditions { parent: None };
    let tested = serve::prepare(conditions, JailMode::Required);
    match tested {
        Ok(prepared) => {
            let works = prepared.report.is_locked() && !prepared.decoders.is_empty();
            let names: Vec<&str> = prepared.decoders.iter().map(|codec| codec.name()).collect();
            eprint!("{}", report_text(&prepared.report));
            eprintln!("decoders that work in it: {} ({})", names.join(", "), decode::library());
            if works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("framehook-render: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn report_text(report: &JailReport) -> String {
    let held = |held: bool| if held { "yes" } else { "NO" };
    let landlock = match report.landlock {
        Landlock::Absent => "not in this kernel".to_owned(),
        Landlock::Enforced { abi } => format!("yes, ABI {abi}"),
    };
    let lines = [
        ("no_new_privs", held(report.no_new_privs).to_owned()),
        ("seccomp filter", held(report.seccomp).to_owned()),
        ("Landlock", landlock),
        ("user", report.uid.to_string()),
        ("address space", format!("{} MiB", report.memory_bytes_max >> 20)),
        ("socket refused", held(report.socket_refused).to_owned()),
        ("open refused", held(report.open_refused).to_owned()),
        ("exec refused", held(report.exec_refused).to_owned()),
        ("executable memory refused", held(report.executable_memory_refused).to_owned()),
    ];
    lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
