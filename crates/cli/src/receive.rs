//! `framehook receive`: a verifying receiver to develop against.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use framehook_domain::template::CallbackKey;

use crate::image;
use crate::output::{self, Tone, paint};
use crate::receiver::{Callback, Receiver};

#[derive(Args)]
#[command(
    about = "Receive callbacks, check them, and say what was checked",
    long_about = "Receive callbacks, check them, and say what was checked.\n\n\
        Answers 200 only if every check passed, so a wrong key shows on both sides. For event 200 the announced object is \
        fetched, over HTTP or HTTPS, and compared with the callback; what only a login opens cannot be, so its callback is \
        refused. Runs until Ctrl-C."
)]
pub(crate) struct ReceiveArgs {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDR")]
    listen: SocketAddr,
    /// The callback key of the template. Without it the form is checked and no signature.
    #[arg(long, env = "FRAMEHOOK_CALLBACK_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Save each picture and each callback into this directory.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// One JSON object per callback instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: ReceiveArgs) -> Result<ExitCode> {
    let key = arguments.key.as_deref().map(CallbackKey::parse).transpose()?;
    if let Some(dir) = &arguments.save {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let mut receiver = Receiver::start(arguments.listen, key).await?;
    if !arguments.json {
        output::line(&format!("Receiving callbacks on http://{}/ (any path). Ctrl-C ends.", receiver.address));
    } else {
        output::line(&serde_json::json!({ "listening": receiver.address }).to_string());
    }
    loop {
        let mut callback = tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            callback = receiver.next() => callback.context("the listener ended")?,
        };
        if let Some(dir) = &arguments.save {
            save(dir, &mut callback)?;
        }
        print(&callback, arguments.json)?;
    }
}

/// Writes the callback, and its picture if there is one, under the delivery's id.
fn save(dir: &Path, callback: &mut Callback) -> Result<()> {
    let id = callback.webhook_id.as_deref().filter(|id| is_plain(id));
    let stem = id.map_or_else(|| format!("callback-{}", callback.received_ms), str::to_owned);
    let path = dir.join(format!("{stem}.json"));
    std::fs::write(&path, &callback.raw).with_context(|| format!("cannot write {}", path.display()))?;
    if let Some(picture) = &callback.picture {
        // What is no picture of ours is kept all the same, for who looks for what went wrong.
        let path = dir.join(format!("{stem}.{}", image::extension(picture).unwrap_or("bin")));
        std::fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        callback.file = Some(path);
    }
    Ok(())
}

/// Whether a header's value can be a file name: whoever sends a callback chooses it.
fn is_plain(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Prints one callback: as a JSON object, or as a line and one more for each check that failed.
pub(crate) fn print(callback: &Callback, json: bool) -> Result<()> {
    if json {
        output::line(&serde_json::to_string(callback)?);
        return Ok(());
    }
    let text = |field: &str| callback.body.get(field).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
    let number = |field: &str| callback.body.get(field).and_then(|value| value.as_u64()).unwrap_or_default();
    let what = match callback.event_type() {
        Some(200) => format!("picture {}x{}, {} bytes, of", number("width"), number("height"), number("file_size")),
        Some(1) => "push began:".to_owned(),
        Some(0) => format!("push ended ({}):", text("errmsg")),
        _ => "unknown event from".to_owned(),
    };
    let checks = callback.checks.len();
    let verdict = if callback.passed() {
        paint(Tone::Good, &format!("verified ({checks} checks)"))
    } else {
        paint(Tone::Bad, "REFUSED")
    };
    let stream = format!("{}/{}/{}", text("app"), text("appname"), text("stream_id"));
    output::line(&format!("{verdict}  {what} {}", paint(Tone::Strong, &stream)));
    for check in callback.checks.iter().filter(|check| !check.ok) {
        let why = check.error.as_deref().unwrap_or("failed");
        output::line(&format!("          {} {}: {why}", paint(Tone::Bad, "failed"), check.name));
    }
    if let Some(file) = &callback.file {
        output::line(&format!("          {}", file.display()));
    }
    Ok(())
}
