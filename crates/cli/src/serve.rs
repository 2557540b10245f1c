//! `framehook serve`: the server.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use framehook_server::app::{self, ServeError};
use framehook_server::catalog::CatalogError;
use framehook_server::config::{Config, Sources};
use framehook_server::telemetry::{self, event::Chain};

#[derive(Args)]
#[command(
    about = "Run the server",
    long_about = "Run the server. It works with no file and no flag: any host is then accepted as push domain, and a \
        picture of each stream is taken every 10 seconds and stored under ./framehook-data.\n\n\
        Each flag has a key of the configuration file and an environment variable; `framehook config reference` lists \
        them all. SIGHUP reads the file again, SIGTERM ends in order.\n\n\
        Exit codes: 0 after SIGTERM or Ctrl-C, 1 when the server cannot go on, 2 when the configuration is wrong."
)]
pub(crate) struct ServeArgs {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "FRAMEHOOK_CONFIG")]
    config: Option<PathBuf>,
    /// Where encoders connect.
    #[arg(long, value_name = "ADDR")]
    rtmp: Option<String>,
    /// Where the API, /v1 and the stored objects are served.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Moves /metrics, /healthz and /readyz away from --http.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A network with private addresses that callbacks may go to; may be repeated.
    #[arg(long, value_name = "CIDR")]
    allow_receiver: Vec<String>,
    /// Run decoders even where the kernel cannot lock them in. A hostile stream may then take over the machine.
    #[arg(long)]
    unsafe_no_jail: bool,
}

impl ServeArgs {
    /// The file, the environment and these flags.
    pub(crate) fn sources(&self) -> Sources {
        let mut sources = Sources::of_process(self.config.clone());
        let flags = [
            ("--data-dir", "data_dir", self.data_dir.as_ref().map(|dir| dir.display().to_string())),
            ("--rtmp", "rtmp.addr", self.rtmp.clone()),
            ("--http", "http.addr", self.http.clone()),
            ("--admin", "http.admin", self.admin.clone()),
            ("--unsafe-no-jail", "render.unsafe_no_jail", self.unsafe_no_jail.then(|| "true".to_owned())),
        ];
        for (name, key, value) in flags {
            if let Some(value) = value {
                sources.flag(name, key, value);
            }
        }
        for network in &self.allow_receiver {
            sources.flag("--allow-receiver", "deliver.allow_receiver", network);
        }
        sources
    }
}

pub(crate) async fn run(arguments: ServeArgs) -> Result<ExitCode> {
    let sources = arguments.sources();
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(2));
        }
    };
    let _flush = telemetry::log::init(&config.log).context("cannot set up the log")?;
    for (name, meant) in sources.unknown_variables() {
        tracing::warn!(name, meant, "environment variable sets nothing");
    }
    match app::serve(config, sources).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Callback URLs are resolved, and what the API manages is compared, when the server starts.
        Err(ServeError::Catalog(CatalogError::Config(error))) => {
            eprintln!("{error}");
            Ok(ExitCode::from(2))
        }
        Err(error @ ServeError::Certificate(_)) => {
            eprintln!("framehook: {}", Chain(&error));
            Ok(ExitCode::from(2))
        }
        Err(error) => Err(error.into()),
    }
}
