//! `framehook verify`: checks a saved callback body and says which check failed.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use framehook_domain::template::CallbackKey;
use framehook_server::clock::Clock;
use framehook_verify::css;

use crate::output::{self, Tone, paint};
use crate::receiver;

/// Longest body that is read.
const BODY_BYTES_MAX: u64 = 1 << 20;

#[derive(Args)]
#[command(
    about = "Check a saved callback body against a key",
    long_about = "Check a saved callback body against a key, check by check.\n\n\
        A body that was saved long ago is no longer fresh; --at checks it as of the second it was received.\n\n\
        Exit codes: 0 every check passed, 1 a check failed, 2 the arguments or the file are unusable."
)]
pub(crate) struct VerifyArgs {
    /// The callback key of the template.
    #[arg(long, env = "FRAMEHOOK_CALLBACK_KEY", hide_env_values = true)]
    key: String,
    /// Check as of this time, in seconds since 1970 (UTC), instead of now.
    #[arg(long, value_name = "UNIX_SECONDS")]
    at: Option<i64>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// The body exactly as it was received; `-` is standard input.
    file: PathBuf,
}

pub(crate) fn run(arguments: &VerifyArgs) -> ExitCode {
    match check(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("framehook: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Prints every check; whether all passed.
fn check(arguments: &VerifyArgs) -> Result<bool> {
    let key = CallbackKey::parse(&arguments.key)?;
    let mut body = Vec::new();
    let file = &arguments.file;
    let mut source: Box<dyn std::io::Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
    };
    let mut head = source.by_ref().take(BODY_BYTES_MAX + 1);
    head.read_to_end(&mut body).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(body.len() as u64 <= BODY_BYTES_MAX, "{} is no callback: it has more than 1 MiB", file.display());
    let now_secs = arguments.at.unwrap_or_else(|| Clock::start().wall().secs());
    let checks = receiver::findings(css::report(&body, Some(&[key.expose()]), now_secs));
    let passed = checks.iter().all(|check| check.ok);
    if arguments.json {
        output::line(&serde_json::json!({ "passed": passed, "checks": checks }).to_string());
    } else {
        for check in &checks {
            match &check.error {
                None => output::line(&format!("{}  {}", paint(Tone::Good, "passed"), check.name)),
                Some(why) => output::line(&format!("{}  {}: {why}", paint(Tone::Bad, "FAILED"), check.name)),
            }
        }
    }
    Ok(passed)
}
