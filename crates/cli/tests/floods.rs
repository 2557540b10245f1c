//! Receivers that flood the sender of callbacks, over HTTP/1.1 and HTTP/2, dozens at a time: the executable's memory stays
//! within what so many attempts may take, each attempt ends in its time, and who answers as it should is served as before.
#![expect(clippy::disallowed_methods, reason = "reads the clock, and runs sqlite3")]

mod common;
#[path = "floods/kinds.rs"]
mod kinds;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use common::{FRAMEHOOK, PATIENCE};
use framehook_testkit::flooder::Flooder;
use framehook_testkit::metrics::Metrics;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::tls::Ca;
use framehook_testkit::wait;
use kinds::Kind;
use serde_json::json;
use tempfile::TempDir;

/// Receivers, and callbacks to each of them in every round. All receivers are sent to at the same time.
const RECEIVERS: usize = 64;
const CALLBACKS_EACH: usize = 2;
const CALLBACKS: usize = RECEIVERS * CALLBACKS_EACH;

/// Receivers that must have been connected to at the same time in each round: on a machine that is busy not all are.
const AT_A_TIME_MIN: usize = RECEIVERS / 2;

/// Time for one attempt.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a machine that also builds programs may add to it before it notices.
const TIMEOUT_SLACK: Duration = Duration::from_secs(2);

/// By how much the server's memory may ever exceed what it took before the first flood. For each attempt under way: 112 KiB
/// that a receiver may send for one request, with as much again in the buffers of TLS and HTTP and for heads that were
/// unpacked, 256 KiB in all; twice that for what the allocator keeps.
const GROWTH_KIB_MAX: u64 = CALLBACKS as u64 * 256 * 2;

/// One template for each receiver. None is paused for failing.
fn config(receivers: &[SocketAddr], authority: &Path) -> Result<String> {
    let mut config = format!(
        "[render]\nworkers = 1\n[deliver]\ntimeout = \"{TIMEOUT:?}\"\npush_retries = 0\nbreaker_failures = 0\nconcurrency = {}\n",
        // Slow receivers get half.
        2 * CALLBACKS
    );
    for (number, receiver) in receivers.iter().enumerate() {
        writeln!(
            config,
            "[[callback_template]]\nname = \"receiver-{number}\"\nca_file = {authority:?}\n\
             stream_begin_notify_url = \"https://{receiver}/\""
        )?;
    }
    Ok(config)
}

/// Callbacks as a server leaves them that was stopped before they were due.
fn owe(data_dir: &Path) -> Result<()> {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut sql = String::from(
        "BEGIN; INSERT INTO endpoint (id, callback_template_id, kind) SELECT id, id, 1 FROM callback_template;",
    );
    for number in 0..CALLBACKS as u64 {
        // Ids begin with the time (UUIDv7, RFC 9562).
        let id = format!("x'{:012x}7000{:016x}'", now_ms, number | 1 << 63);
        let endpoint = number % RECEIVERS as u64;
        writeln!(
            sql,
            "INSERT INTO event (id, kind, push_sequence, domain, app, stream, body, created_ms, is_told)
                 VALUES ({id}, 1, 1, 'push.example.com', 'live', 'room', '{{\"event_type\":1}}', {now_ms}, 1);
             INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, step_ms, created_ms)
                 SELECT {id}, {id}, id, 'due', {now_ms}, 0, {now_ms} FROM endpoint ORDER BY id LIMIT 1 OFFSET {endpoint};"
        )?;
    }
    sql += "COMMIT;";
    let output = Command::new("sqlite3").arg(data_dir.join("framehook.db")).arg(sql).output().context("run sqlite3")?;
    ensure!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A line of `/proc/PID/status` in KiB: `VmRSS`, memory now, or `VmHWM`, the most there was.
fn memory_kib(server: &Server, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process().pid()))?;
    let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')).context("no such line")?;
    Ok(found.trim().trim_end_matches(" kB").parse()?)
}

/// Lets `VmHWM` begin anew (`proc_pid_clear_refs(5)`).
fn forget_most_memory(server: &Server) -> Result<()> {
    fs::write(format!("/proc/{}/clear_refs", server.process().pid()), "5").context("reset the most memory")
}

fn attempts(metrics: &Metrics, outcome: Option<&str>) -> usize {
    let labels: Vec<_> = outcome.iter().map(|&outcome| ("outcome", outcome)).collect();
    metrics.sum("framehook_attempts_total", &labels) as usize
}

/// Waits until every callback has had another attempt since `before`, and gives the metrics then.
fn wait_for_round(server: &Server, before: usize) -> Result<Metrics> {
    wait::until("an attempt at each callback", PATIENCE, || {
        let metrics = server.metrics().ok()?;
        let is_over =
            attempts(&metrics, None) >= before + CALLBACKS && metrics.sum("framehook_deliveries_owed", &[]) == 0.0;
        is_over.then_some(metrics)
    })
    .with_context(|| format!("the server logged:\n{}", server.process().stderr_tail()))
}

/// Sends every callback again.
fn send_all_again(server: &Server) -> Result<()> {
    server.v1("POST", "/v1/replays", Some(&json!({ "state": "dead,delivered", "per_sec": 1000 }))).map(drop)
}

/// One attempt at every callback, each flooded, and how much memory that took at most.
fn endure(server: &Server, flooder: &Flooder, kind: &Kind) -> Result<u64> {
    flooder.turn_to(kind.flood.clone());
    forget_most_memory(server)?;
    let before = server.metrics()?;
    send_all_again(server)?;
    let after = wait_for_round(server, attempts(&before, None))?;
    let ended = |outcome: &&str| attempts(&after, Some(outcome)) - attempts(&before, Some(outcome));
    let as_expected: usize = kind.outcomes.iter().map(ended).sum();
    ensure!(
        as_expected == CALLBACKS,
        "{as_expected} of {CALLBACKS} ended with {:?}: {:?}",
        kind.outcomes,
        after.samples
    );
    let at_a_time = flooder.open_most();
    ensure!(at_a_time >= AT_A_TIME_MIN, "only {at_a_time} connections were open at a time");
    memory_kib(server, "VmHWM")
}

/// How long each attempt of every callback took.
fn durations(server: &Server) -> Result<Vec<Duration>> {
    let listed = server.v1("GET", &format!("/v1/deliveries?limit={CALLBACKS}"), None)?;
    let mut durations = Vec::new();
    for delivery in listed["deliveries"].as_array().context("a list")? {
        let id = delivery["id"].as_str().context("an id")?;
        let shown = server.v1("GET", &format!("/v1/deliveries/{id}"), None)?;
        let attempts = shown["attempts"].as_array().context("attempts")?;
        durations.extend(attempts.iter().map(|attempt| attempt["duration_ms"].as_u64().map(Duration::from_millis)));
    }
    durations.into_iter().collect::<Option<_>>().context("an attempt without a duration")
}

#[test]
fn floods_from_many_receivers_at_once_take_neither_memory_nor_time() -> Result<()> {
    let (ca, files) = (Ca::new()?, TempDir::new()?);
    let flooder = Flooder::start(RECEIVERS, &ca.issue(2040)?, kinds::polite())?;
    let authority = files.path().join("ca.pem");
    fs::write(&authority, ca.pem())?;
    let mut server = ServerSpec::new(FRAMEHOOK).config(config(&flooder.addresses(), &authority)?).start()?;
    server.terminate()?;
    owe(&server.data_dir())?;
    server.restart()?;

    // Twice in order: buffers, sessions and windows are as large as a good day makes them.
    wait_for_round(&server, 0)?;
    send_all_again(&server)?;
    let polite = wait_for_round(&server, CALLBACKS)?;
    ensure!(attempts(&polite, Some("delivered")) == 2 * CALLBACKS, "{:?}", polite.samples);
    let before_kib = memory_kib(&server, "VmRSS")?;

    let kinds = kinds::all();
    let mut most_kib = 0;
    for kind in &kinds {
        let kib = endure(&server, &flooder, kind).context(kind.name)?;
        println!("{}: {kib} KiB at most", kind.name);
        ensure!(kib < before_kib + GROWTH_KIB_MAX, "{}: {before_kib} KiB before, {kib} KiB in it", kind.name);
        most_kib = most_kib.max(kib);
    }

    flooder.turn_to(kinds::polite());
    let before = server.metrics()?;
    send_all_again(&server)?;
    let after = wait_for_round(&server, attempts(&before, None))?;
    let delivered = attempts(&after, Some("delivered")) - attempts(&before, Some("delivered"));
    ensure!(delivered == CALLBACKS, "{delivered} of {CALLBACKS} were taken afterwards");
    let durations = durations(&server)?;
    ensure!(durations.len() == CALLBACKS * (kinds.len() + 3), "{} attempts", durations.len());
    let longest = durations.into_iter().max().unwrap_or_default();
    ensure!(longest < TIMEOUT + TIMEOUT_SLACK, "an attempt took {longest:?}");
    let status = server.terminate()?;
    ensure!(status.success() && !server.log().contains("panicked"), "it ended with {status}:\n{}", server.log());
    println!(
        "{before_kib} KiB before, {most_kib} KiB at most in {} floods; the longest attempt took {longest:?}",
        kinds.len()
    );
    Ok(())
}
