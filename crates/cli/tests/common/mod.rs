//! What the end-to-end suites share: a server with one rule, a receiver, and the checks that every callback must pass.

#![allow(dead_code, reason = "each suite uses its part of this")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::image;
use framehook_testkit::picture::Picture;
use framehook_testkit::process::Process;
use framehook_testkit::receiver::{Receiver, Request};
use framehook_testkit::server::{Server, ServerSpec};
use serde_json::Value;

/// Signs the callbacks of these suites.
pub(crate) const CALLBACK_KEY: &str = "k3yForTests2026";

/// The push domain of these suites; authentication is off unless a test turns it on.
pub(crate) const DOMAIN: &str = "push.example.com";

/// How long anything may take on a machine that also runs other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The executable under test.
pub(crate) const FRAMEHOOK: &str = env!("CARGO_BIN_EXE_framehook");

/// Where cargo builds, and where `./dev` puts what only tests need.
pub(crate) fn target() -> &'static Path {
    Path::new(FRAMEHOOK).parent().and_then(Path::parent).expect("executables lie in target/PROFILE")
}

/// A configuration with one domain, one rule every `interval_s` and one receiver for all three events. `more` is put in
/// front, where the tables of the server's own settings may stand.
pub(crate) fn config(receiver: &Receiver, interval_s: u32, more: &str) -> String {
    config_for(receiver.address(), interval_s, more)
}

/// [`config`] with a receiver that is not ours.
pub(crate) fn config_for(receiver: SocketAddr, interval_s: u32, more: &str) -> String {
    let url = |action: &str| format!("http://{receiver}/notify?action={action}");
    format!(
        r#"
{more}

[[domain]]
name = "{DOMAIN}"
auth = "off"

[[snapshot_template]]
name = "every"
snapshot_interval = "{interval_s}s"

[[callback_template]]
name = "receiver"
callback_key = "{CALLBACK_KEY}"
snapshot_notify_url = "{snapshot}"
stream_begin_notify_url = "{begin}"
stream_end_notify_url = "{end}"

[[snapshot_rule]]
domain = "{DOMAIN}"
app = "live"
template = "every"

[[callback_rule]]
domain = "{DOMAIN}"
app = "live"
template = "receiver"
"#,
        snapshot = url("snapshot"),
        begin = url("begin"),
        end = url("end"),
    )
}

/// [`config_for`] a receiver at an `https` address, with `of_template` in its callback template.
pub(crate) fn secure_config(receiver: SocketAddr, interval_s: u32, of_template: &str, more: &str) -> String {
    config_for(receiver, interval_s, more)
        .replace("http://", "https://")
        .replace("callback_key =", &format!("{of_template}\ncallback_key ="))
}

/// A server with [`config`], started.
pub(crate) fn serve(receiver: &Receiver, interval_s: u32, more: &str) -> Result<Server> {
    ServerSpec::new(FRAMEHOOK).config(config(receiver, interval_s, more)).start()
}

/// A push URL whose `domain=` override makes loopback look like the push domain.
pub(crate) fn push_url(server: &Server, stream: &str) -> String {
    server.rtmp_url(&format!("live/{stream}?domain={DOMAIN}"))
}

/// A snapshot callback that passed every check, with its picture.
pub(crate) struct Snapshot {
    pub(crate) body: Value,
    pub(crate) picture: Picture,
}

/// Checks one snapshot callback: type and presence of each field, signature, and that the announced object can be fetched
/// now and is what the callback says.
pub(crate) fn check_snapshot(server: &Server, request: &Request) -> Result<Snapshot> {
    let body = request.json()?;
    ensure!(body["event_type"] == 200, "not a snapshot: {body}");
    ensure!(request.method == "POST" && request.headers.get("content-type") == Some("application/json"));
    request.webhook_id()?;
    check_signature(request)?;
    ensure!(body["stream_id"] == body["channel_id"], "{body}");
    let text = |field: &str| body[field].as_str().with_context(|| format!("{field} is no string in {body}"));
    let number = |field: &str| body[field].as_u64().with_context(|| format!("{field} is no number in {body}"));
    ensure!(text("pic_full_url")?.ends_with(text("pic_url")?), "{body}");
    let file = server.fetch(text("pic_full_url")?)?;
    ensure!(file.len() as u64 == number("file_size")?, "{} bytes fetched of {body}", file.len());
    let picture = image::decode(&file)?;
    ensure!(
        (picture.width as u64, picture.height as u64) == (number("width")?, number("height")?),
        "the picture is {}x{}: {body}",
        picture.width,
        picture.height
    );
    Ok(Snapshot { body, picture })
}

/// Checks `t` and `sign` as a receiver does, at the moment of arrival.
pub(crate) fn check_signature(request: &Request) -> Result<()> {
    let arrived = request.arrived_wall.duration_since(std::time::UNIX_EPOCH).context("the clock is before 1970")?;
    let now_secs = arrived.as_secs() as i64;
    let report = framehook_verify::css::report(&request.body, Some(&[CALLBACK_KEY]), now_secs);
    ensure!(report.passed(), "{report:?} of {}", String::from_utf8_lossy(&request.body));
    let body = request.json()?;
    let t = body["t"].as_i64().context("t is no number")?;
    ensure!((t - 600 - now_secs).abs() <= 1, "t is {t}, sent at {now_secs}");
    Ok(())
}

/// Waits for `count` snapshot callbacks in all and returns them.
pub(crate) fn wait_for_snapshots(receiver: &Receiver, count: usize) -> Result<Vec<Request>> {
    receiver.wait_until(&format!("{count} snapshot callbacks"), PATIENCE, |requests| {
        let snapshots: Vec<Request> =
            requests.iter().filter(|request| request.event_type() == Some(200)).cloned().collect();
        (snapshots.len() >= count).then_some(snapshots)
    })
}

/// A push of one second that ends in order: events 1, 200 and 0, and exactly one of each.
pub(crate) fn push_once(server: &Server, stream: &str) -> Result<Process> {
    let spec = ClipSpec {
        width: 320,
        height: 180,
        kbit_per_s: 300,
        duration: Duration::from_secs(1),
        gop: Duration::from_secs(1),
        ..ClipSpec::default()
    };
    encoder::push(Program::Ffmpeg, Source::Clip(&spec.build()?.path), &push_url(server, stream))
}
