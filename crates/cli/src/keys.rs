//! `framehook keys`: who may use the API.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use framehook_domain::secret::Secret;
use framehook_server::credentials::write_new_key;
use hyper::Method;
use serde_json::{Value, json};

use crate::control::{self, Common, escape};
use crate::output::{self, Tone, ago, paint, text};

#[derive(Args)]
#[command(
    about = "Add, list and revoke keys of the API",
    long_about = "Add, list and revoke keys of the API, beside the one in DIR/credentials. A key is a SecretId and a SecretKey: SDKs \
        sign with them, and /v1 takes the SecretKey as `Authorization: Bearer …`. Speaks to the running server of --data-dir, \
        or works on that directory when none runs.\n\nExit codes: 0 done, 1 not done."
)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Add a key. Its secret is shown once, on a terminal; otherwise it is written to a file, whose path is said.
    Add {
        #[command(flatten)]
        common: Common,
        /// What the key is for: 1 to 64 characters.
        name: String,
        /// Let it look and not change: the API's `Describe…` actions, and GET of /v1.
        #[arg(long)]
        read_only: bool,
    },
    /// List the keys in force, without their secrets.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Take a key out of force, at once and for good.
    Revoke {
        #[command(flatten)]
        common: Common,
        /// The key's SecretId.
        id: String,
    },
}

pub(crate) async fn run(arguments: KeysArgs) -> Result<ExitCode> {
    match arguments.command {
        KeysCommand::Add { common, name, read_only } => {
            let order = json!({ "name": name, "read_only": read_only });
            let mut added = control::ask(&common, Method::POST, "/v1/keys", Some(&order)).await?;
            let secret = added["secret_key"].as_str().map(Secret::new).context("the server's answer has no key")?;
            if !io::stdout().is_terminal() {
                // What is not a terminal may be a log.
                let id = text(&added, "id");
                let written = write_new_key(&common.data_dir, &id, &secret);
                let file = written.with_context(|| format!("the key {id} is in force and lost; revoke it"))?;
                let fields = added.as_object_mut().context("the server's answer is no object")?;
                fields.remove("secret_key");
                fields.insert("file".to_owned(), file.display().to_string().into());
            }
            if common.json { output::line(&added.to_string()) } else { print_added(&added) }
        }
        KeysCommand::List { common } => {
            let listed = control::ask(&common, Method::GET, "/v1/keys", None).await?;
            if common.json { output::line(&listed.to_string()) } else { print_list(&listed)? }
        }
        KeysCommand::Revoke { common, id } => {
            let target = format!("/v1/keys/{}", escape(&id));
            control::ask(&common, Method::DELETE, &target, None).await?;
            let said = if common.json { json!({ "revoked": id }).to_string() } else { format!("{id}  is revoked") };
            output::line(&said);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_added(added: &Value) {
    match added["secret_key"].as_str() {
        Some(secret) => {
            output::line(&format!("secret_id={}\nsecret_key={secret}", text(added, "id")));
            output::line(&paint(Tone::Quiet, "the secret is shown this once and kept nowhere that it can be read"));
        }
        None => output::line(&format!("{}  its secret is in {}", text(added, "id"), text(added, "file"))),
    }
}

fn print_list(listed: &Value) -> Result<()> {
    for key in listed["keys"].as_array().context("the server's answer has no list")? {
        let may = if key["read_only"] == true { "read only" } else { "full" };
        let used =
            key["last_used_ms"].as_i64().map_or_else(|| "never used".to_owned(), |at| format!("used {}", ago(at)));
        let name = text(key, "name");
        output::line(&format!("{}  {may:<9}  {}  {name}", text(key, "id"), paint(Tone::Quiet, &format!("{used:<18}"))));
    }
    Ok(())
}
