//! Hook0, a sender of webhooks for one's own machines, on a PostgreSQL of its own that syncs each commit, as both do unless told
//! otherwise. It is given what a server of ours is given: callbacks that are due, to the same receivers.
//!
//! Its two programs are looked for on the `PATH`. Without them the benchmark runs without it and says so.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use framehook_testkit::http;
use framehook_testkit::process::Process;
use framehook_testkit::wait;
use serde::Serialize;
use tempfile::TempDir;

use super::receivers::Receivers;
use super::{RECEIVERS, middle_per_sec, wait_for};
use crate::workshop::output;

/// What installs it: its API, which makes the tables, its worker, which sends, and PostgreSQL.
const INSTALL: &str = "cargo install --locked hook0-api hook0-output-worker, and on Debian apt-get install --no-install-recommends postgresql";

const API: &str = "hook0-api";
const WORKER: &str = "hook0-output-worker";

/// Requests at a time that it is measured with: its default is 1, its most 100. The best counts.
const AT_A_TIME: [u8; 4] = [1, 8, 32, 100];

/// Debian's `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65534;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hook0 {
    /// Of its worker and of PostgreSQL.
    versions: [String; 2],
    callbacks: usize,
    at_a_time: u8,
    per_sec: f64,
}

/// The best of its rates; `None`: it is not installed.
pub(crate) fn measure(callbacks: usize) -> Result<Option<Hook0>> {
    let Some(programs) = Programs::find() else {
        eprintln!("without Hook0, which is not installed: {INSTALL}");
        return Ok(None);
    };
    let database = Database::start(&programs)?;
    make_tables(&database)?;
    let mut best = Hook0 { versions: programs.versions, callbacks, at_a_time: 0, per_sec: 0.0 };
    for at_a_time in AT_A_TIME {
        let per_sec = rate(&database, callbacks, at_a_time).with_context(|| format!("{at_a_time} at a time"))?;
        eprintln!("Hook0 with {at_a_time} requests at a time: {per_sec:.0}/s");
        if per_sec > best.per_sec {
            best = Hook0 { at_a_time, per_sec, ..best };
        }
    }
    Ok(Some(best))
}

struct Programs {
    /// PostgreSQL's own, which Debian keeps off the `PATH`.
    postgresql: PathBuf,
    versions: [String; 2],
}

impl Programs {
    fn find() -> Option<Self> {
        let installed = std::fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
        let newest = installed.map(|version| version.path().join("bin")).max()?;
        output(API, ["--version"]).ok()?;
        let worker = output(WORKER, ["--version"]).ok()?;
        let postgres = output(&newest.join("postgres").to_string_lossy(), ["--version"]).ok()?;
        Some(Self { postgresql: newest, versions: [worker, postgres].map(|text| text.trim().to_owned()) })
    }
}

/// A PostgreSQL in a folder of its own. Both end with this.
struct Database {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Database {
    fn start(programs: &Programs) -> Result<Self> {
        let folder = TempDir::with_prefix("framehook-bench-").context("make a folder")?;
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).context("give PostgreSQL its folder")?;
        }
        let command = |name: &str| {
            let mut command = Command::new(programs.postgresql.join(name));
            command.arg("-D").arg(folder.path().join("data")).current_dir(folder.path());
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        let mut made = Process::spawn("initdb", command("initdb").args(["--auth", "trust", "--username", "bench"]))?;
        ensure!(made.wait(PATIENCE)?.success(), "initdb: {}", made.stderr_tail());
        let port = free_port()?;
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "unix_socket_directories=".to_owned(),
            // Room for the worker's connections, and for ours.
            format!("max_connections={}", u32::from(AT_A_TIME[AT_A_TIME.len() - 1]) + 20),
        ];
        let process =
            Process::spawn("postgres", command("postgres").args(settings.iter().flat_map(|setting| ["-c", setting])))?;
        let database = Self { process, port, _folder: folder };
        wait::until("PostgreSQL", PATIENCE, || database.ask("postgres", "CREATE DATABASE hook0").ok())?;
        Ok(database)
    }

    fn url(&self) -> String {
        format!("postgres://bench@127.0.0.1:{}/hook0", self.port)
    }

    /// Runs SQL and gives what it found, a row on each line.
    fn run(&self, sql: &str) -> Result<String> {
        self.ask("hook0", sql)
    }

    fn ask(&self, database: &str, sql: &str) -> Result<String> {
        let url =
            format!("postgres://bench@127.0.0.1:{}/{database}?options=-c%20client_min_messages%3Dwarning", self.port);
        output("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql])
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // In order, so that none of its processes writes into a folder that is being removed.
        if let Err(error) = self.process.terminate(PATIENCE) {
            eprintln!("PostgreSQL is killed: {error:#}");
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?.local_addr()?.port())
}

/// Its API makes the tables when it starts, and is not needed afterwards. What else it asks for is never called.
fn make_tables(database: &Database) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let nowhere = "http://127.0.0.1:9/";
    let mut command = Command::new(API);
    command.args(["--ip", "127.0.0.1", "--port", &address.port().to_string(), "--database-url", &database.url()]);
    command.args(["--biscuit-private-key", &"07".repeat(32), "--disable-serving-webapp", "--app-url", nowhere]);
    command.args(["--keycloak-url", nowhere, "--keycloak-realm", "none", "--keycloak-oidc-public-key", "none"]);
    command.args(["--keycloak-client-id", "none", "--keycloak-client-secret", "none"]);
    command.args(["--email-sender-address", "bench@example.com", "--smtp-connection-url", "smtp://127.0.0.1:9"]);
    let mut api = Process::spawn(API, &mut command)?;
    wait::until("Hook0's tables", PATIENCE, || {
        let ended = api.try_wait().map(|status| Err(anyhow::anyhow!("{status}: {}", api.stderr_tail())));
        ended.or_else(|| http::connect(address, Duration::from_secs(1)).ok().map(|_| Ok(())))
    })??;
    api.terminate(PATIENCE).map(drop)
}

/// Callbacks per second while everything is due.
fn rate(database: &Database, callbacks: usize, at_a_time: u8) -> Result<f64> {
    let receivers = Receivers::start(RECEIVERS, 0)?;
    database.run(&fill(&receivers.ports, callbacks))?;
    // What it finds is the planner's to say, which should know the tables as they are.
    database.run("VACUUM ANALYZE")?;
    let mut command = Command::new(WORKER);
    command.args(["--database-url", &database.url(), "--worker-name", "bench", "--disable-target-ip-check"]);
    command.args(["--concurrent", &at_a_time.to_string()]).env("RUST_LOG", "error");
    let worker = Process::spawn(WORKER, &mut command)?;
    wait_for(&receivers, callbacks, PATIENCE).with_context(|| worker.stderr_tail())?;
    let succeeded = || database.run("SELECT count(*) FROM webhook.request_attempt WHERE succeeded_at IS NOT NULL");
    wait::until("every outcome", PATIENCE, || {
        let count: usize = succeeded().ok()?.trim().parse().ok()?;
        (count == callbacks).then_some(())
    })?;
    Ok(middle_per_sec(&receivers, callbacks))
}

/// One subscription for each receiver, and events that match them in turn: its own trigger owes them.
fn fill(ports: &[u16], callbacks: usize) -> String {
    let count = ports.len();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!(
        "BEGIN;
         TRUNCATE iam.organization, event.event, webhook.request_attempt, webhook.response, webhook.subscription,
             webhook.target_http CASCADE;
         INSERT INTO iam.organization (name) VALUES ('bench');
         INSERT INTO event.application (organization__id, name) SELECT organization__id, 'bench' FROM iam.organization;
         INSERT INTO event.service (application__id, service__name) SELECT application__id, 'a' FROM event.application;
         INSERT INTO event.resource_type (application__id, service__name, resource_type__name)
             SELECT application__id, 'a', 'b' FROM event.application;
         INSERT INTO event.verb (application__id, verb__name) SELECT application__id, 'c' FROM event.application;
         INSERT INTO event.event_type (application__id, service__name, resource_type__name, verb__name)
             SELECT application__id, 'a', 'b', 'c' FROM event.application;
         INSERT INTO webhook.subscription (application__id, label_key, label_value, target__id)
             SELECT application__id, 'port', port::text, public.gen_random_uuid()
             FROM event.application, unnest(ARRAY[{ports}]) AS port;
         INSERT INTO webhook.subscription__event_type (subscription__id, event_type__name, application__id)
             SELECT subscription__id, 'a.b.c', application__id FROM webhook.subscription;
         INSERT INTO webhook.target_http (target__id, method, url)
             SELECT target__id, 'POST', 'http://127.0.0.1:' || label_value || '/' FROM webhook.subscription;
         INSERT INTO event.event
             (application__id, event_type__name, payload, payload_content_type, ip, occurred_at, labels)
             SELECT application__id, 'a.b.c', convert_to('{body}', 'UTF8'), 'application/json', '127.0.0.1',
                 statement_timestamp(), jsonb_build_object('port', (ARRAY[{ports}])[1 + number % {count}]::text)
             FROM event.application, generate_series(1, {callbacks}) AS number;
         COMMIT;",
        ports = ports.join(","),
        body = super::outbox::body(0),
    )
}

/// Its line of the table of rates.
pub(crate) fn line(hook0: Option<&Hook0>) -> String {
    match hook0 {
        Some(Hook0 { versions: [worker, postgres], callbacks, at_a_time, per_sec }) => {
            format!("| {worker}, {at_a_time} at a time, {callbacks} due, {postgres} | {per_sec:.0} | | |\n")
        }
        None => "| Hook0 (not installed) | | | |\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_line_says_what_was_measured_and_that_nothing_was() {
        let versions = ["hook0-output-worker 0.3.0".to_owned(), "postgres (PostgreSQL) 15.18".to_owned()];
        let hook0 = Hook0 { versions, callbacks: 4000, at_a_time: 32, per_sec: 512.4 };
        assert_eq!(
            line(Some(&hook0)),
            "| hook0-output-worker 0.3.0, 32 at a time, 4000 due, postgres (PostgreSQL) 15.18 | 512 | | |\n"
        );
        assert!(line(None).contains("not installed"));
    }

    #[test]
    fn callbacks_go_to_each_port_in_turn() {
        let sql = fill(&[7001, 7002], 10);
        assert!(sql.contains("unnest(ARRAY[7001,7002])") && sql.contains("(ARRAY[7001,7002])[1 + number % 2]"));
        assert!(sql.contains("generate_series(1, 10)") && sql.contains("{\"due_us\":0,"));
    }
}
