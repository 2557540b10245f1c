//! Compiles the shim against whichever libavcodec pkg-config finds: the system's, or, when `PKG_CONFIG_PATH` or the
//! minimal static build under `target/ffmpeg` say so, that one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Oldest and newest major versions that the shim has been compiled against: FFmpeg 5.1 and 9 (and 7.1 between them).
const LIBAVCODEC_MAJORS: std::ops::RangeInclusive<u32> = 59..=63;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-changed=src/shim.h");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let minimal = minimal_prefix();
    let is_static = minimal.is_some();
    if let Some(prefix) = &minimal {
        // SAFETY: a build script has one thread here.
        unsafe { env::set_var("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")) };
    }
    let find = |library: &str| {
        pkg_config::Config::new().statik(is_static).probe(library).map_err(|error| {
            format!(
                "{library} was not found.\n\
                 On Debian: apt-get install libavcodec-dev libavutil-dev pkg-config\n\
                 or build the minimal one: ./dev ffmpeg\n\n{error}"
            )
        })
    };
    let avcodec = find("libavcodec")?;
    let avutil = find("libavutil")?;
    let major = avcodec.version.split('.').next().and_then(|major| major.parse().ok());
    if !major.is_some_and(|major| LIBAVCODEC_MAJORS.contains(&major)) {
        println!(
            "cargo::warning=libavcodec {} is outside of the versions this was tried with ({LIBAVCODEC_MAJORS:?})",
            avcodec.version
        );
    }
    cc::Build::new()
        .file("src/shim.c")
        .includes(avcodec.include_paths.iter().chain(&avutil.include_paths))
        .warnings(true)
        .extra_warnings(true)
        .flag_if_supported("-fstack-protector-strong")
        .define("_FORTIFY_SOURCE", "2")
        .try_compile("framehook_shim")
        .map_err(|error| error.to_string())
}

/// `target/ffmpeg` of this checkout, where `./dev ffmpeg` puts the minimal build; an explicit `PKG_CONFIG_PATH` wins.
fn minimal_prefix() -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    if env::var_os("PKG_CONFIG_PATH").is_some() {
        return None;
    }
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).ancestors().nth(2)?.to_owned();
    let prefix = root.join("target/ffmpeg");
    println!("cargo::rerun-if-changed={}", prefix.join("lib/pkgconfig/libavcodec.pc").display());
    prefix.join("lib/pkgconfig/libavcodec.pc").exists().then_some(prefix)
}
