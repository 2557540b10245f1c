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
        up, and kept until somebody replays or cancels it: most often after its last attempt, and `show` says what came of \
        each) or cancelled.\n\nExit codes: 0 done, 1 not done."
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
    /// Send settled deliveries again, under the same id, with a new round of attempts: some by their ids, or all in a state.
    Replay {
        #[command(flatten)]
        common: Common,
        /// Where to send it instead of its template's URL.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        matching: Matching,
        /// The ids.
        #[arg(required_unless_present = "state", conflicts_with = "state")]
        ids: Vec<String>,
    },
    /// List the replays of all deliveries in a state, and how far each has come.
    Replays {
        #[command(flatten)]
        common: Common,
        /// Let this one take up no more, by its number.
        #[arg(long, value_name = "NUMBER")]
        cancel: Option<i64>,
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

/// Which deliveries to send again.
#[derive(Args)]
struct Matching {
    /// All in these states, with commas between: dead, cancelled, delivered.
    #[arg(long)]
    state: Option<String>,
    /// Of those only this stream's, as domain/app/name.
    #[arg(long, requires = "state")]
    stream: Option<String>,
    /// Only those that went to this endpoint, by the number that `show` tells.
    #[arg(long, requires = "state")]
    endpoint: Option<i64>,
    /// Only those made at or after, in ms since 1970.
    #[arg(long, requires = "state", value_name = "MS")]
    since: Option<i64>,
    /// Only those made before.
    #[arg(long, requires = "state", value_name = "MS")]
    until: Option<i64>,
    /// At most so many in a second, and only while nothing else is due where they go.
    #[arg(long, requires = "state", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    per_sec: u32,
    /// Count them and send nothing.
    #[arg(long, requires = "state")]
    dry_run: bool,
}

impl Matching {
    /// As parameters of a query.
    fn query(&self) -> String {
        let number = |given: Option<i64>| given.map(|number| number.to_string());
        let given = [
            ("state", self.state.clone()),
            ("stream", self.stream.clone()),
            ("endpoint", number(self.endpoint)),
            ("since_ms", number(self.since)),
            ("until_ms", number(self.until)),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escape(&value?))));
        given.collect::<Vec<_>>().join("&")
    }
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
        DeliveriesCommand::Replay { common, url, matching, .. } if matching.state.is_some() => {
            replay_matching(&common, url, &matching).await?;
        }
        DeliveriesCommand::Replays { common, cancel } => {
            let asked = match cancel {
                Some(id) => control::ask(&common, Method::POST, &format!("/v1/replays/{id}/cancel"), None).await?,
                None => control::ask(&common, Method::GET, "/v1/replays", None).await?,
            };
            if common.json { output::line(&asked.to_string()) } else { print_replays(&asked) }
        }
        DeliveriesCommand::Replay { common, url, ids, .. } => {
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

/// Counts what matches, and orders it to be sent again unless it was only to be counted.
async fn replay_matching(common: &Common, url: Option<String>, matching: &Matching) -> Result<()> {
    let target = format!("/v1/deliveries/count?{}", matching.query());
    let counted = control::ask(common, Method::GET, &target, None).await?;
    let least = if counted["is_at_least"] == true { "at least " } else { "" };
    if matching.dry_run {
        if common.json {
            output::line(&counted.to_string());
        } else {
            output::line(&format!("{least}{} deliveries match; nothing is sent", counted["deliveries"]));
        }
        return Ok(());
    }
    let Matching { state, stream, endpoint, since, until, per_sec, .. } = matching;
    let order = json!({
        "state": state, "stream": stream, "endpoint": endpoint, "since_ms": since, "until_ms": until,
        "per_sec": per_sec, "url": url,
    });
    let made = control::ask(common, Method::POST, "/v1/replays", Some(&order)).await?;
    if common.json {
        output::line(&made.to_string());
    } else {
        let (id, count) = (&made["id"], &counted["deliveries"]);
        output::line(&format!(
            "replay {id}: {least}{count} deliveries will be sent again, at most {per_sec} in a second"
        ));
    }
    Ok(())
}

/// One replay or a page of them.
fn print_replays(shown: &Value) {
    let one = std::slice::from_ref(shown);
    let replays = shown["replays"].as_array().map_or(one, Vec::as_slice);
    let damaged = shown["damaged"].as_array().map_or(&[][..], Vec::as_slice);
    if replays.is_empty() && damaged.is_empty() {
        output::line("no replays");
    }
    for replay in replays {
        let state = match (&replay["ended_ms"], &replay["is_cancelled"]) {
            (Value::Null, _) => "goes on",
            (_, Value::Bool(true)) => "cancelled",
            _ => "ended",
        };
        output::line(&format!(
            "replay {}  {state:<9}  {} sent again, {} refused  {}",
            replay["id"],
            replay["replayed"],
            replay["refused"],
            paint(Tone::Quiet, &text(replay, "state")),
        ));
    }
    for id in damaged {
        output::line(&format!("replay {id}  damaged: its row in the database cannot be read"));
    }
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
