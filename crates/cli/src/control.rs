//! Speaks `/v1` to a running server over its control socket, which only its owner can open.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::body;

/// Largest answer that is read: a page of a thousand deliveries has some 500 KB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Time for one exchange.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the server of `data_dir`; the answer's JSON, or null if it has none.
///
/// # Errors
/// When no server runs there, or what the server says is wrong with the request.
pub(crate) async fn ask(data_dir: &Path, method: Method, target: &str, order: Option<&Value>) -> Result<Value> {
    let socket = data_dir.join("control.sock");
    let exchange = async {
        let stream = UnixStream::connect(&socket).await.with_context(|| {
            format!(
                "no server answers on {}; is `framehook serve` running, and is this its --data-dir?",
                socket.display()
            )
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let order = order.map(ToString::to_string).unwrap_or_default();
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
    };
    let (status, body) =
        tokio::time::timeout(PATIENCE, exchange).await.context("the server does not answer in time")??;
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
