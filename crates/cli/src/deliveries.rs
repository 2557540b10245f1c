//! `framehook deliveries`: what is owed to receivers, every attempt at it, and sending it again.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::control::{self, Common, escape};
use crate::output::{self, Tone, paint, text};

#[derive(Args)]
#[command(
    about = "List callbacks, show every attempt, send dead ones again",
    long_about = "List callbacks, show every attempt, send dead ones again. Speaks to the running server of --data-dir, or works on \
        that directory when none runs: what is to be sent again is then sent by the next start.\n\n\
        A delivery is waiting (its picture is not stored yet), due, claimed (an attempt is under way), delivered, dead (given \
        up after its last attempt, and kept) or cancelled.\n\nExit codes: 0 done, 1 not done."
)]
pub(crate) struct DeliveriesArgs {
    #[command(subcommand)]
    command: DeliveriesCommand,
}

#[derive(Subcommand)]
enum DeliveriesCommand {
    /// List deliveries, the newest first.
    List {
        #[command(flatten)]
        common: Common,
        /// Only these states, with commas between: waiting, due, claimed, delivered, dead, cancelled.
        #[arg(long)]
        state: Option<String>,
        /// Only this stream, as domain/app/name.
        #[arg(long)]
        stream: Option<String>,
        /// Only those that go to this endpoint, by the number that `show` tells.
        #[arg(long)]
        endpoint: Option<i64>,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// The page after an earlier one: what that printed as `next_cursor`.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show one delivery with its body and every attempt.
    Show {
        #[command(flatten)]
        common: Common,
        /// The delivery's id, which receivers see as `webhook-id`.
        id: String,
    },
    /// Send settled deliveries again, under the same id, with a new round of attempts.
    Replay {
        #[command(flatten)]
        common: Common,
        /// Where to send it instead of its template's URL.
        #[arg(long)]
        url: Option<String>,
        /// The ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// End deliveries for good: no further attempt is made, and nobody counts them as owed. A replay takes them up again.
    Cancel {
        #[command(flatten)]
        common: Common,
        /// The ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

pub(crate) async fn run(arguments: DeliveriesArgs) -> Result<ExitCode> {
    match arguments.command {
        DeliveriesCommand::List { common, state, stream, endpoint, limit, cursor } => {
            let mut target = format!("/v1/deliveries?limit={limit}");
            let endpoint = endpoint.map(|number| number.to_string());
            for (name, value) in [("state", state), ("stream", stream), ("endpoint", endpoint), ("cursor", cursor)] {
                if let Some(value) = value {
                    target.push_str(&format!("&{name}={}", escape(&value)));
                }
            }
            let listed = control::ask(&common, Method::GET, &target, None).await?;
            if common.json { output::line(&listed.to_string()) } else { print_list(&listed)? }
        }
        DeliveriesCommand::Show { common, id } => {
            let target = format!("/v1/deliveries/{}", escape(&id));
            let shown = control::ask(&common, Method::GET, &target, None).await?;
            if common.json { output::line(&shown.to_string()) } else { print_detail(&shown)? }
        }
        DeliveriesCommand::Replay { common, url, ids } => {
            let order = url.map_or_else(|| json!({}), |url| json!({ "url": url }));
            for id in &ids {
                let target = format!("/v1/deliveries/{}/replay", escape(id));
                control::ask(&common, Method::POST, &target, Some(&order)).await.with_context(|| id.clone())?;
                if !common.json {
                    output::line(&format!("{id}  will be sent again"));
                }
            }
            if common.json {
                output::line(&json!({ "replayed": ids }).to_string());
            }
        }
        DeliveriesCommand::Cancel { common, ids } => {
            for id in &ids {
                let target = format!("/v1/deliveries/{}/cancel", escape(id));
                control::ask(&common, Method::POST, &target, None).await.with_context(|| id.clone())?;
                if !common.json {
                    output::line(&format!("{id}  is cancelled"));
                }
            }
            if common.json {
                output::line(&json!({ "cancelled": ids }).to_string());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_list(listed: &Value) -> Result<()> {
    let deliveries = listed["deliveries"].as_array().context("the server's answer has no list")?;
    if deliveries.is_empty() {
        output::line("no deliveries");
    }
    for delivery in deliveries {
        output::line(&format!(
            "{}  {}  event {:<3}  {:>2} attempts  {}  {}",
            text(delivery, "id"),
            state(&text(delivery, "state")),
            delivery["event_type"],
            delivery["attempts"],
            text(delivery, "stream"),
            paint(Tone::Quiet, &text(delivery, "outcome")),
        ));
    }
    if let Some(next) = listed["next_cursor"].as_str() {
        output::line(&paint(Tone::Quiet, &format!("more with --cursor {next}")));
    }
    Ok(())
}

fn print_detail(shown: &Value) -> Result<()> {
    output::line(&format!("delivery   {}", text(shown, "id")));
    output::line(&format!("state      {}", state(text(shown, "state").trim())));
    output::line(&format!("event      {} of {}", shown["event_type"], text(shown, "stream")));
    output::line(&format!("endpoint   {} of callback template {}", shown["endpoint"], shown["template"]));
    output::line(&format!("body       {}", shown["body"]));
    for attempt in shown["attempts"].as_array().context("the server's answer has no attempts")? {
        let status = attempt["status"].as_u64().map_or_else(String::new, |status| format!(" status {status}"));
        output::line(&format!(
            "attempt {:<2} {} ms since 1970, took {} ms:{status} {} {}",
            attempt["number"],
            attempt["started_ms"],
            attempt["duration_ms"],
            text(attempt, "outcome"),
            paint(Tone::Quiet, &text(attempt, "error")),
        ));
    }
    Ok(())
}

/// A state in a column of its own, coloured where it matters.
fn state(name: &str) -> String {
    let padded = format!("{name:<9}");
    match name {
        "delivered" => paint(Tone::Good, &padded),
        "dead" => paint(Tone::Bad, &padded),
        _ => padded,
    }
}
