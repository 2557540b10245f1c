//! `framehook demo`: the whole path on real parts, in one command: a server on a data directory of its own, a receiver
//! that verifies everything, and a publisher that loops a clip.

mod publisher;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use framehook_domain::template::CallbackKey;
use framehook_server::entropy::Entropy;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::output::{self, Tone, paint};
use crate::receive;
use crate::receiver::{Callback, Check, Receiver};
use publisher::Loop;

/// Our own synthetic clip: 720p, 30 fps, a keyframe every two seconds.
const CLIP: &[u8] = include_bytes!("../../../testdata/demo/framehook-demo.flv");

const DOMAIN: &str = "push.demo.localhost";
const STREAM: &str = "room_1001";

/// How long the server may take to start, and to end.
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(20);

#[derive(Args)]
#[command(
    about = "See the whole path at work: publisher, server and receiver on this machine",
    long_about = "See the whole path at work on this machine: a publisher loops a clip, the server takes a picture of it at a \
        fixed interval, and a receiver verifies each callback and the picture it announces. Nothing leaves loopback. Ctrl-C \
        ends it all; the pictures stay.\n\n\
        Exit codes: 0 after --pictures verified pictures or Ctrl-C, 1 when a check failed or a part did not start."
)]
pub(crate) struct DemoArgs {
    /// End after this many verified pictures.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pictures: Option<u64>,
    /// Seconds between pictures.
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u32).range(2..=300))]
    interval: u32,
    /// An FLV file with H.264 to loop instead of the built-in clip.
    #[arg(long, value_name = "FILE.flv")]
    input: Option<PathBuf>,
    /// One JSON object per callback instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: DemoArgs) -> Result<ExitCode> {
    let clip = match &arguments.input {
        Some(path) => Bytes::from(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
        None => Bytes::from_static(CLIP),
    };
    let clip = Loop::parse(clip)?;
    let secret = Entropy::system().draw::<16>();
    let key: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut receiver =
        Receiver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Some(CallbackKey::parse(&key)?)).await?;
    let server = Server::start(&config(arguments.interval, &key, receiver.address)).await?;
    if !arguments.json {
        introduce(&arguments, &server, receiver.address);
    }
    let publishing = publisher::publish(server.addresses.rtmp, DOMAIN, "live", STREAM, &clip);
    let outcome = tokio::select! {
        signal = told_to_end() => signal.map(|()| ExitCode::SUCCESS),
        failed = publishing => failed.map(|()| ExitCode::FAILURE).context("the publisher stopped"),
        outcome = show(&arguments, &mut receiver, &server) => outcome,
    };
    let dir = server.dir.clone();
    let stopped = server.stop().await;
    if let Err(error) = &outcome {
        eprintln!("The server's log is {}", dir.join("server.log").display());
        return Err(anyhow::anyhow!("{error:#}"));
    }
    stopped?;
    if !arguments.json {
        output::line(&format!("Stopped. The pictures stay in {}", dir.join("objects").display()));
    }
    outcome
}

/// Waits for Ctrl-C, for SIGTERM, or for the terminal to be closed: the parts must not outlive any of these.
async fn told_to_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Prints callbacks as they come, until enough pictures were verified or a check fails.
async fn show(arguments: &DemoArgs, receiver: &mut Receiver, server: &Server) -> Result<ExitCode> {
    let mut verified = 0;
    loop {
        let mut callback = receiver.next().await.context("the receiver ended")?;
        if callback.event_type() == Some(200) {
            check_stored_file(&mut callback, &server.dir);
        }
        receive::print(&callback, arguments.json)?;
        if !callback.passed() {
            bail!("a check failed: {}", serde_json::to_string(&callback.checks)?);
        }
        verified += u64::from(callback.event_type() == Some(200));
        if arguments.pictures.is_some_and(|wanted| verified >= wanted) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// The stored file must hold the very bytes that were fetched from the announced URL.
fn check_stored_file(callback: &mut Callback, dir: &Path) {
    let url = callback.body.get("pic_full_url").and_then(|url| url.as_str()).unwrap_or_default();
    let under_objects = url.split_once("/objects/").map(|(_, path)| path.to_owned());
    let path = dir.join("objects").join(under_objects.unwrap_or_default());
    let result = match (fs::read(&path), &callback.picture) {
        (Ok(stored), Some(fetched)) if stored == *fetched => Ok(()),
        (Ok(_), _) => Err("the stored file differs from what was fetched".to_owned()),
        (Err(error), _) => Err(format!("{}: {error}", path.display())),
    };
    callback.file = result.is_ok().then_some(path);
    callback.checks.push(Check::new("stored_file_equal", result));
}

fn introduce(arguments: &DemoArgs, server: &Server, receiver: SocketAddr) {
    let Addresses { rtmp, http } = server.addresses;
    let strong = |text: String| paint(Tone::Strong, &text);
    output::line(&format!(
        "{}  listens for publishers on rtmp://{rtmp}, serves pictures on http://{http}",
        strong("server   ".into())
    ));
    output::line(&format!("{}  loops a clip to rtmp://{DOMAIN}/live/{STREAM}", strong("publisher".into())));
    output::line(&format!(
        "{}  takes one picture every {} s and stores it",
        strong("rule     ".into()),
        arguments.interval
    ));
    output::line(&format!(
        "{}  checks signature, age, object and size on http://{receiver}",
        strong("receiver ".into())
    ));
    output::line(&format!("{}  {}   (Ctrl-C stops all of it)", strong("data     ".into()), server.dir.display()));
}

/// The demonstration's configuration. The push needs no key here; the callback is signed as always.
fn config(interval: u32, key: &str, receiver: SocketAddr) -> String {
    format!(
        r#"# Made by `framehook demo`.
[[domain]]
name = "{DOMAIN}"
auth = "off"

[[snapshot_template]]
name = "demo"
snapshot_interval = "{interval}s"

[[callback_template]]
name = "demo"
callback_key = "{key}"
snapshot_notify_url = "http://{receiver}/callback"
stream_begin_notify_url = "http://{receiver}/callback"
stream_end_notify_url = "http://{receiver}/callback"

[[snapshot_rule]]
domain = "{DOMAIN}"
template = "demo"

[[callback_rule]]
domain = "{DOMAIN}"
template = "demo"
"#
    )
}

/// The server as a process of its own, exactly as `framehook serve` runs it.
struct Server {
    process: Child,
    dir: PathBuf,
    addresses: Addresses,
}

/// `addresses.json` of the data directory.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Addresses {
    rtmp: SocketAddr,
    http: SocketAddr,
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "the demonstration runs the server as its users do, as a process")]
    async fn start(config: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("framehook-demo-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::write(dir.join("framehook.toml"), config)?;
        let log = fs::File::create(dir.join("server.log"))?;
        let process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--data-dir")
            .arg(&dir)
            .arg("--config")
            .arg(dir.join("framehook.toml"))
            .args(["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--allow-receiver", "127.0.0.0/8"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut server = Self { process, addresses: NOWHERE, dir };
        let started = async {
            loop {
                if let Ok(text) = fs::read(server.dir.join("addresses.json")) {
                    return Ok(serde_json::from_slice(&text)?);
                }
                if let Some(status) = server.process.try_wait()? {
                    let log = fs::read_to_string(server.dir.join("server.log")).unwrap_or_default();
                    bail!("the server did not start ({status}):\n{log}");
                }
                tokio::time::sleep(POLL).await;
            }
        };
        server.addresses =
            tokio::time::timeout(START_PATIENCE, started).await.context("the server does not start")??;
        Ok(server)
    }

    /// Ends the server in order.
    async fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = async {
            while self.process.try_wait()?.is_none() {
                tokio::time::sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(STOP_PATIENCE, ended).await.context("the server does not stop")?
    }
}

/// Before the server has said where it listens.
const NOWHERE: Addresses = {
    let nowhere = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    Addresses { rtmp: nowhere, http: nowhere }
};

impl Drop for Server {
    fn drop(&mut self) {
        // Reached with a live process only when something went wrong: it must not outlive the demonstration.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
