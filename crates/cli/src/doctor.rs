//! `framehook doctor`: can this machine and this configuration serve?

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use framehook_server::doctor::{self, Finding, Status};
use serde_json::json;

use crate::output::{self, Tone, paint};
use crate::serve::ServeArgs;

#[derive(Args)]
#[command(
    about = "Check ports, clock, disk, jail, codecs, store, database and configuration, and how to mend each",
    long_about = "Check ports, clock, disk, jail, codecs, store, database and configuration, and say how to mend what is wrong. \
        Takes the flags of `framehook serve`, so that what is checked is what would be served. It changes nothing, and may \
        run beside a running server.\n\n\
        Exit codes: 0 when the server can do its work, warnings or not, 1 when something is bad."
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: DoctorArgs) -> Result<ExitCode> {
    let findings = doctor::examine(&arguments.serve.sources()).await;
    let ok = findings.iter().all(|finding| finding.status != Status::Bad);
    if arguments.json {
        output::line(&json!({ "ok": ok, "checks": findings }).to_string());
    } else {
        findings.iter().for_each(print);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(finding: &Finding) {
    let Finding { check, status, found, mend } = finding;
    let (tone, word) = match status {
        Status::Good => (Tone::Good, "good"),
        Status::Warning => (Tone::Strong, "warning"),
        Status::Bad => (Tone::Bad, "bad"),
    };
    // Padded before it is painted: the codes have no width.
    output::line(&format!("{}  {check:<13}  {found}", paint(tone, &format!("{word:<7}"))));
    if let Some(mend) = mend {
        output::line(&format!("{:24}{}", "", paint(Tone::Quiet, mend)));
    }
}
