//! The server under test: the real executable, with a data directory of its own and free loopback ports. Tests talk to it
//! over sockets, as customers do.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::metrics::Metrics;
use crate::process::{Descendant, Process, wait_until_gone};
use crate::wait;

/// How long a start may take on a machine that also runs other tests.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The stop is promised within 25 s of SIGTERM; this leaves a loaded machine a little more.
pub const STOP_PATIENCE: Duration = Duration::from_secs(30);
const HTTP_PATIENCE: Duration = Duration::from_secs(15);

/// How to start a server. Nothing but the executable has to be given.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    executable: PathBuf,
    config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    allows_loopback: bool,
    left_in: Option<PathBuf>,
}

impl ServerSpec {
    /// `executable` is `framehook`, in a test of its package `env!("CARGO_BIN_EXE_framehook")`. `framehook-render` stands
    /// beside it.
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        Self {
            executable: executable.into(),
            config: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            allows_loopback: true,
            left_in: None,
        }
    }

    /// The configuration file's text.
    #[must_use]
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = toml.into();
        self
    }

    /// More arguments of `framehook serve`.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Leaves out `--allow-receiver 127.0.0.0/8`, without which no test receiver is ever called.
    #[must_use]
    pub fn refusing_loopback_receivers(mut self) -> Self {
        self.allows_loopback = false;
        self
    }

    /// Makes its directory in `folder` and leaves it there, for somebody else to remove.
    #[must_use]
    pub fn left_in(mut self, folder: &Path) -> Self {
        self.left_in = Some(folder.to_owned());
        self
    }

    /// Starts with a new data directory and waits until the ports are bound.
    ///
    /// # Errors
    /// When the server ends or does not bind in time; the message repeats its log.
    pub fn start(self) -> Result<Server> {
        let parent = self.left_in.clone().unwrap_or_else(std::env::temp_dir);
        let mut dir = TempDir::with_prefix_in("framehook-test-", parent).context("make a data directory")?;
        dir.disable_cleanup(self.left_in.is_some());
        let (process, addresses) = launch(&self, dir.path(), Addresses::ANY)?;
        Ok(Server { spec: self, dir, addresses, process, earlier_logs: String::new() })
    }
}

/// `addresses.json` of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Addresses {
    pub rtmp: SocketAddr,
    pub http: SocketAddr,
    /// Only with a certificate.
    #[serde(default)]
    pub rtmps: Option<SocketAddr>,
    #[serde(default)]
    pub https: Option<SocketAddr>,
}

impl Addresses {
    const ANY: Self = {
        let any = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
        Self { rtmp: any, http: any, rtmps: None, https: None }
    };
}

/// A running server. Killed when dropped; its data directory goes with it, unless it was to be left.
#[derive(Debug)]
pub struct Server {
    spec: ServerSpec,
    dir: TempDir,
    addresses: Addresses,
    process: Process,
    earlier_logs: String,
}

impl Server {
    pub fn rtmp_address(&self) -> SocketAddr {
        self.addresses.rtmp
    }

    pub fn http_address(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Every address that it listens on.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The URL to push to; `path` is app and stream name, such as `live/room?txSecret=…`.
    pub fn rtmp_url(&self, path: &str) -> String {
        format!("rtmp://{}/{path}", self.addresses.rtmp)
    }

    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Everything logged so far, earlier starts included.
    pub fn log(&self) -> String {
        self.earlier_logs.clone() + &self.process.stderr()
    }

    /// Waits until the log of this start contains `needle`.
    ///
    /// # Errors
    /// When it does not within `patience`.
    pub fn wait_for_log(&self, needle: &str, patience: Duration) -> Result<()> {
        self.process.wait_for_stderr(needle, patience)
    }

    /// GET without credentials.
    ///
    /// # Errors
    /// When there is no answer; a status other than 200 is none.
    pub fn get(&self, target: &str) -> Result<Response> {
        http::request(self.addresses.http, "GET", target, &[], b"", HTTP_PATIENCE)
    }

    /// GET of a URL that a callback named, which must be on this server.
    ///
    /// # Errors
    /// When it is not or cannot be fetched.
    pub fn fetch(&self, url: &str) -> Result<Vec<u8>> {
        let base = format!("http://{}", self.addresses.http);
        let target = url.strip_prefix(&base).with_context(|| format!("{url} is not below {base}"))?;
        let response = self.get(target)?;
        ensure!(response.status == 200, "GET {url} gave {}", response.status);
        Ok(response.body)
    }

    /// The metrics page.
    ///
    /// # Errors
    /// When it cannot be fetched or read.
    pub fn metrics(&self) -> Result<Metrics> {
        let response = self.get("/metrics")?;
        ensure!(response.status == 200, "/metrics gave {}: {}", response.status, response.text());
        Metrics::parse(&response.text())
    }

    /// One request to `/v1` with the generated credentials, such as `v1("GET", "/v1/streams", None)`.
    ///
    /// # Errors
    /// When the answer is not a 2xx with JSON.
    pub fn v1(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Value> {
        let bearer = format!("Bearer {}", self.credentials()?.secret_key);
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let response = http::request(self.addresses.http, method, target, &headers, body.as_bytes(), HTTP_PATIENCE)?;
        ensure!(
            (200..300).contains(&response.status),
            "{method} {target} gave {}: {}",
            response.status,
            response.text()
        );
        if response.body.is_empty() { Ok(Value::Null) } else { response.json() }
    }

    /// The credentials made at first start.
    ///
    /// # Errors
    /// When the file is missing or lacks a line.
    pub fn credentials(&self) -> Result<Credentials> {
        let path = self.data_dir().join("credentials");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).with_context(|| format!("no {name} in {}", path.display()))
        };
        Ok(Credentials { secret_id: value("secret_id")?, secret_key: value("secret_key")? })
    }

    /// Writes another configuration and asks the server to read it (SIGHUP).
    ///
    /// # Errors
    /// When the file cannot be written or the server is gone.
    pub fn reload(&mut self, toml: &str) -> Result<()> {
        toml.clone_into(&mut self.spec.config);
        write_config(self.dir.path(), toml)?;
        self.process.signal(Signal::HUP)
    }

    /// SIGTERM, then waits for the end and that no process of the server is left.
    ///
    /// # Errors
    /// When it does not end in time or leaves an orphan.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let children = self.process.descendants()?;
        let status = self.process.terminate(STOP_PATIENCE)?;
        wait_until_gone(&children, Duration::from_secs(5)).map_err(|failure| self.with_log(&failure))?;
        Ok(status)
    }

    /// SIGKILL, then waits that no process of the server is left.
    ///
    /// # Errors
    /// When an orphan stays.
    pub fn kill9(&mut self) -> Result<()> {
        let children = self.process.descendants()?;
        self.process.kill9()?;
        wait_until_gone(&children, Duration::from_secs(5)).map_err(|failure| self.with_log(&failure))
    }

    /// Waits for a server that ends by itself, as at a fail point.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.process.wait(patience)
    }

    /// The processes that it has started and that still run: the render workers.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn children(&self) -> Result<Vec<Descendant>> {
        self.process.descendants()
    }

    /// Starts again on the same data directory and the same ports, so that URLs which were announced stay good and
    /// encoders find it. The server must have ended.
    ///
    /// # Errors
    /// As [`ServerSpec::start`].
    pub fn restart(&mut self) -> Result<()> {
        let spec = self.spec.clone();
        self.restart_as(spec)
    }

    /// As [`Server::restart`], with other arguments or another environment.
    ///
    /// # Errors
    /// As [`ServerSpec::start`].
    pub fn restart_as(&mut self, spec: ServerSpec) -> Result<()> {
        ensure!(self.process.try_wait().is_some(), "the server still runs");
        let (process, addresses) = launch(&spec, self.dir.path(), self.addresses)?;
        self.earlier_logs += &std::mem::replace(&mut self.process, process).stderr();
        self.addresses = addresses;
        self.spec = spec;
        Ok(())
    }

    /// Starts again as [`Server::restart_as`] does, without waiting until the ports are bound: for a server that is to
    /// die on the way.
    ///
    /// # Errors
    /// When it still runs or cannot be started.
    pub fn restart_blindly(&mut self, spec: ServerSpec) -> Result<()> {
        ensure!(self.process.try_wait().is_some(), "the server still runs");
        let (process, _) = spawn(&spec, self.dir.path(), self.addresses)?;
        self.earlier_logs += &std::mem::replace(&mut self.process, process).stderr();
        self.spec = spec;
        Ok(())
    }

    /// Whether it has ended, and how.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    fn with_log(&self, failure: &anyhow::Error) -> anyhow::Error {
        anyhow!("{failure}; the server logged:\n{}", self.process.stderr_tail())
    }
}

/// The pair in `DIR/credentials`.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub secret_id: String,
    pub secret_key: String,
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn write_config(dir: &Path, toml: &str) -> Result<PathBuf> {
    let path = dir.join("framehook.toml");
    fs::write(&path, toml).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Starts the process; gives also where it will announce its addresses.
fn spawn(spec: &ServerSpec, dir: &Path, at: Addresses) -> Result<(Process, PathBuf)> {
    let config = write_config(dir, &spec.config)?;
    let data_dir = data_dir(dir);
    let announced = data_dir.join("addresses.json");
    // What an earlier start announced must not be taken for this one's.
    if announced.exists() {
        fs::remove_file(&announced).context("remove the old addresses.json")?;
    }
    let mut command = Command::new(&spec.executable);
    command.arg("serve").arg("--data-dir").arg(&data_dir).arg("--config").arg(config);
    command.args(["--rtmp", &at.rtmp.to_string(), "--http", &at.http.to_string()]);
    if spec.allows_loopback {
        command.args(["--allow-receiver", "127.0.0.0/8"]);
    }
    command.args(&spec.arguments).envs(spec.environment.iter().map(|(name, value)| (name, value)));
    Ok((Process::spawn("framehook serve", &mut command)?, announced))
}

fn launch(spec: &ServerSpec, dir: &Path, at: Addresses) -> Result<(Process, Addresses)> {
    let (mut process, announced) = spawn(spec, dir, at)?;
    let started = wait::until("addresses.json", START_PATIENCE, || {
        if let Some(status) = process.try_wait() {
            return Some(Err(status));
        }
        fs::read_to_string(&announced).ok().map(Ok)
    });
    match started.with_context(|| format!("the server logged:\n{}", process.stderr_tail()))? {
        Ok(text) => Ok((process, serde_json::from_str(&text).with_context(|| format!("addresses.json: {text:?}"))?)),
        Err(_) => {
            let status = process.wait(START_PATIENCE)?;
            bail!("the server ended at its start with {status}:\n{}", process.stderr_tail())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in that writes the files a server writes; its log repeats its arguments and each SIGHUP.
    fn stand_in(dir: &Path, body: &str) -> ServerSpec {
        script(dir, "#!/bin/bash", body)
    }

    fn script(dir: &Path, interpreter: &str, body: &str) -> ServerSpec {
        let path = dir.join("framehook");
        fs::write(&path, format!("{interpreter}\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        ServerSpec::new(path)
    }

    /// Not for bash, in which a signal may be lost between two commands: here it stays pending until it is taken.
    const RUNS: &str = r#"
import os, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM])
say = lambda text: print(text, file=sys.stderr, flush=True)
say(f"args: {' '.join(sys.argv[1:])} value: {os.environ['VALUE']}")
data, config = sys.argv[3], sys.argv[5]
os.makedirs(data, exist_ok=True)
with open(f"{data}/credentials", "w") as file:
    file.write("secret_id=AKID1\nsecret_key=k3y\n")
child = subprocess.Popen(["sleep", "600"])
with open(f"{data}/new", "w") as file:
    file.write('{"rtmp":"127.0.0.1:41235","http":"127.0.0.1:40123"}')
os.rename(f"{data}/new", f"{data}/addresses.json")
while signal.sigwait([signal.SIGHUP, signal.SIGTERM]) == signal.SIGHUP:
    say(open(config).read())
child.kill()
child.wait()"#;

    #[test]
    fn starts_reloads_restarts_and_leaves_nothing() {
        let dir = TempDir::new().unwrap();
        let spec = script(dir.path(), "#!/usr/bin/env python3", RUNS).args(["--more"]).env("VALUE", "seven");
        let mut server = spec.start().unwrap();
        assert_eq!(server.rtmp_url("live/a"), "rtmp://127.0.0.1:41235/live/a");
        assert_eq!(server.credentials().unwrap().secret_key, "k3y");
        assert!(
            server
                .log()
                .contains("--rtmp 127.0.0.1:0 --http 127.0.0.1:0 --allow-receiver 127.0.0.0/8 --more value: seven")
        );

        server.reload("fresh = 1").unwrap();
        server.wait_for_log("fresh = 1", START_PATIENCE).unwrap();
        assert!(server.restart().is_err(), "it still runs");
        assert_eq!(server.children().unwrap().len(), 1);
        assert_eq!(server.terminate().unwrap().code(), Some(0));

        server.restart().unwrap();
        server.wait_for_log("--rtmp 127.0.0.1:41235 --http 127.0.0.1:40123", START_PATIENCE).unwrap();
        assert_eq!(server.log().matches("args:").count(), 2);
        // Its child goes on sleeping, as an orphan.
        let orphan = server.children().unwrap().remove(0);
        let failure = server.kill9().unwrap_err().to_string();
        assert!(failure.contains("sleep"), "{failure}");
        orphan.kill9().unwrap();
    }

    #[test]
    fn a_failed_start_repeats_the_log() {
        let dir = TempDir::new().unwrap();
        let failure =
            stand_in(dir.path(), "echo 'no such key: intervall' >&2; exit 2").start().unwrap_err().to_string();
        assert!(failure.contains("exit status: 2") && failure.contains("no such key"), "{failure}");
    }
}
