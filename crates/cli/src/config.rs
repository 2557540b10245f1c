//! `framehook config`: check a configuration, and see what can be configured.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use framehook_server::catalog::check_receivers;
use framehook_server::config::{Config, ConfigError, Problem, Sources};
use framehook_server::tls::check_certificate;
use serde::Serialize;

use crate::output::{self, Tone, paint};

#[derive(Args)]
#[command(
    about = "Check a configuration, or see what can be configured",
    long_about = "Check a configuration, or see what can be configured. A value of the command line wins over the environment, \
        that over the file, and the file over the default."
)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    Check(CheckArgs),
    /// Print a file with every setting at its default and one of each object, all commented out
    Example,
    /// Print every setting with its meaning, default, range and environment variable (Markdown)
    Reference,
}

#[derive(Args)]
#[command(
    about = "Check a configuration file and the environment, as a start or a reload would",
    long_about = "Check a configuration file and the environment, as a start or a reload would, without starting anything. \
        Every problem is listed with its key. Names of receivers are resolved, since callbacks to private addresses and to this \
        machine's own are refused unless deliver.allow_receiver names their network.\n\n\
        Exit codes: 0 when it can be used, 2 when it has problems."
)]
pub(crate) struct CheckArgs {
    /// The configuration file (TOML); without one, the defaults and the environment are checked.
    #[arg(value_name = "FILE", env = "FRAMEHOOK_CONFIG")]
    file: Option<PathBuf>,
    /// A network with private addresses that callbacks may go to; may be repeated.
    #[arg(long, value_name = "CIDR")]
    allow_receiver: Vec<String>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: ConfigArgs) -> Result<ExitCode> {
    match arguments.command {
        ConfigCommand::Check(arguments) => check(arguments).await,
        ConfigCommand::Example => print(&Config::example()),
        ConfigCommand::Reference => print(&Config::reference()),
    }
}

fn print(text: &str) -> Result<ExitCode> {
    output::line(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// What the check says.
#[derive(Serialize)]
struct Report {
    ok: bool,
    problems: Vec<ProblemView>,
    /// Things that are allowed and probably not meant.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ProblemView {
    key: String,
    value: Option<String>,
    origin: String,
    what: String,
}

impl From<Problem> for ProblemView {
    fn from(problem: Problem) -> Self {
        let Problem { key, value, origin, what } = problem;
        Self { key, value, origin: origin.to_string(), what }
    }
}

async fn check(arguments: CheckArgs) -> Result<ExitCode> {
    let mut sources = Sources::of_process(arguments.file);
    for network in &arguments.allow_receiver {
        sources.flag("--allow-receiver", "deliver.allow_receiver", network);
    }
    let checked = match Config::load(&sources) {
        Ok(config) => match check_receivers(&config).await {
            Ok(()) => check_certificate(&config).map(|()| config),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let warnings = sources.unknown_variables().into_iter().map(|(name, meant)| match meant {
        Some(meant) => format!("the environment variable {name} sets nothing; did you mean {meant}?"),
        None => format!("the environment variable {name} sets nothing"),
    });
    let warnings: Vec<String> = warnings.collect();
    let code = if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    if arguments.json {
        let ok = checked.is_ok();
        let problems = checked.err().map(|ConfigError { problems }| problems).unwrap_or_default();
        let problems = problems.into_iter().map(ProblemView::from).collect();
        output::line(&serde_json::to_string(&Report { ok, problems, warnings })?);
        return Ok(code);
    }
    for warning in warnings {
        output::line(&format!("{}  {warning}", paint(Tone::Strong, "warning")));
    }
    match checked {
        Ok(config) => output::line(&format!("{}  {}", paint(Tone::Good, "good"), summary(&config))),
        Err(ConfigError { problems }) => {
            for problem in problems {
                output::line(&format!("{}  {problem}", paint(Tone::Bad, "problem")));
            }
        }
    }
    Ok(code)
}

/// What is declared, so that a person sees whether it is what was meant.
fn summary(config: &Config) -> String {
    let declared = &config.declared;
    if declared.domains.is_empty() && declared.snapshot_templates.is_empty() && declared.callback_templates.is_empty() {
        return "nothing is declared: every publisher is accepted and gets a picture every 10 s".to_owned();
    }
    let counted = [
        (declared.domains.len(), "domain"),
        (declared.snapshot_templates.len(), "snapshot template"),
        (declared.callback_templates.len(), "callback template"),
        (declared.snapshot_rules.len(), "snapshot rule"),
        (declared.callback_rules.len(), "callback rule"),
    ];
    let counted = counted.map(|(count, noun)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }));
    counted.join(", ")
}
