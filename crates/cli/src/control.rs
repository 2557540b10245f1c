//! Speaks `/v1` to a running server over its control socket, which only its owner can open; where no server runs, the pages
//! that need only the database are asked on the data directory itself.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use framehook_server::config::Sources;
use framehook_server::offline;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::body;

/// Largest answer that is read: a page of a thousand deliveries has some 500 KB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Time for one exchange.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Common {
    /// The server's data directory.
    #[arg(long, value_name = "DIR", env = "FRAMEHOOK_DATA_DIR", default_value = "./framehook-data")]
    pub(crate) data_dir: PathBuf,
    /// The server's configuration file, for what is asked while no server runs.
    #[arg(long, value_name = "FILE", env = "FRAMEHOOK_CONFIG")]
    config: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Asks the server of a data directory, or that directory itself if no server runs; the answer's JSON, or null if it has none.
///
/// # Errors
/// When neither can answer, or what is said to be wrong with the request.
pub(crate) async fn ask(common: &Common, method: Method, target: &str, order: Option<&Value>) -> Result<Value> {
    let socket = common.data_dir.join("control.sock");
    let order = order.map(ToString::to_string).unwrap_or_default();
    let asked = async {
        match UnixStream::connect(&socket).await {
            Ok(stream) => exchange(stream, method, target, order).await,
            // Left behind by a server that was killed, or not there.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                let sources = Sources::of_process(common.config.clone());
                let answered = offline::ask(&common.data_dir, &sources, method, target, order).await;
                answered.with_context(|| {
                    format!(
                        "no server answers on {}; is `framehook serve` running, and is this its --data-dir?",
                        socket.display()
                    )
                })
            }
            Err(error) => Err(error).with_context(|| format!("cannot speak to the server on {}", socket.display())),
        }
    };
    let (status, body) =
        tokio::time::timeout(PATIENCE, asked).await.context("the server does not answer in time")??;
    if body.is_empty() && status.is_success() {
        return Ok(Value::Null);
    }
    let answer: Value =
        serde_json::from_slice(&body).with_context(|| format!("the server answered {status} without JSON"))?;
    if !status.is_success() {
        let detail = answer.get("detail").and_then(Value::as_str).unwrap_or_default();
        bail!("the server answered {status}: {detail}");
    }
    Ok(answer)
}

/// One request over the socket.
async fn exchange(stream: UnixStream, method: Method, target: &str, order: String) -> Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "framehook")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(order)))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, body::read(response.into_body(), ANSWER_BYTES_MAX).await?))
    };
    tokio::select! {
        answered = answer => answered,
        ended = connection => { ended?; bail!("the server ended the connection without an answer") }
    }
}

/// Percent-encodes everything that is not unreserved (RFC 3986, 2.3): these values come from a person's fingers.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_a_person_types_stays_one_value() {
        assert_eq!(escape("push.example.com/live/a b&state=dead"), "push.example.com%2Flive%2Fa%20b%26state%3Ddead");
        assert_eq!(escape("é"), "%C3%A9");
    }
}
