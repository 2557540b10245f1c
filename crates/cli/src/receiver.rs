//! A receiver of callbacks that checks everything a careful one would: the signatures, the age, and the announced object.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use framehook_domain::template::CallbackKey;
use framehook_domain::time::UnixMs;
use framehook_server::clock::Clock;
use framehook_verify::css;
use framehook_verify::webhook::{self, WebhookSecret};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{body, fetch, image};

/// Longest callback that is read. CSS's largest, with a query of 4 KiB in it, stays under 6 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Time for one callback to arrive in full.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Rest after a connection that could not be accepted: the usual cause, too many open files, does not go away at once.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Callbacks that may wait to be printed; a sender waits for its answer meanwhile.
const QUEUE: usize = 64;

/// One check and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Check {
    pub(crate) fn new(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, ok: result.is_ok(), error: result.err() }
    }
}

/// One callback with every check that was made of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Callback {
    /// The `webhook-id` header: the same for every attempt at one delivery.
    pub(crate) webhook_id: Option<String>,
    pub(crate) received_ms: i64,
    /// The JSON body, or the text if it is none.
    pub(crate) body: Value,
    /// The body exactly as it came.
    #[serde(skip)]
    pub(crate) raw: Bytes,
    pub(crate) checks: Vec<Check>,
    /// Where the picture was saved or is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The announced object's bytes, if they could be fetched.
    #[serde(skip)]
    pub(crate) picture: Option<Bytes>,
}

impl Callback {
    pub(crate) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    pub(crate) fn event_type(&self) -> Option<u64> {
        self.body.get("event_type")?.as_u64()
    }
}

/// A receiver that listens until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    callbacks: mpsc::Receiver<Callback>,
}

impl Receiver {
    /// Listens on `address` and checks what comes with `key`, if there is one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn start(address: SocketAddr, key: Option<CallbackKey>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let (sender, callbacks) = mpsc::channel(QUEUE);
        let key = Arc::new(key);
        spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = sender.closed() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                };
                let (sender, key) = (sender.clone(), Arc::clone(&key));
                let answer = service_fn(move |request| answer(request, Arc::clone(&key), sender.clone()));
                spawn(async move {
                    // A sender that breaks off has its own idea of what went wrong.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(BODY_PATIENCE)
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Ok(Self { address, callbacks })
    }

    /// The next callback.
    pub(crate) async fn next(&mut self) -> Option<Callback> {
        self.callbacks.recv().await
    }
}

/// These tasks end with the receiver: the accepting one when its channel closes, a connection's when its peer does.
#[expect(clippy::disallowed_methods, reason = "a command's tasks live as long as the command")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn answer(
    request: Request<Incoming>,
    key: Arc<Option<CallbackKey>>,
    sender: mpsc::Sender<Callback>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    if request.method() != Method::POST {
        return Ok(reply(StatusCode::METHOD_NOT_ALLOWED, r#"{"code":1,"message":"callbacks are POST requests"}"#));
    }
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_PATIENCE, body::read(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Ok(reply(StatusCode::PAYLOAD_TOO_LARGE, r#"{"code":1,"message":"body too long"}"#)),
        Err(_) => return Ok(reply(StatusCode::REQUEST_TIMEOUT, r#"{"code":1,"message":"body too slow"}"#)),
    };
    let header = |name: &str| head.headers.get(name)?.to_str().ok();
    let callback = check(&body, header, (*key).as_ref(), Clock::start().wall()).await;
    let passed = callback.passed();
    // Whoever prints may have gone; the sender then gets no 200 and keeps its callback.
    if sender.send(callback).await.is_err() {
        return Ok(reply(StatusCode::SERVICE_UNAVAILABLE, r#"{"code":1,"message":"receiver stops"}"#));
    }
    Ok(if passed {
        reply(StatusCode::OK, r#"{"code":0}"#)
    } else {
        reply(StatusCode::BAD_REQUEST, r#"{"code":1,"message":"a check failed"}"#)
    })
}

fn reply(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Makes every check that the request allows.
async fn check<'h>(
    body: &Bytes,
    header: impl Fn(&str) -> Option<&'h str>,
    key: Option<&CallbackKey>,
    now: UnixMs,
) -> Callback {
    let keys = key.map(|key| [key.expose()]);
    let mut checks = findings(css::report(body, keys.as_ref().map(<[_; 1]>::as_slice), now.secs()));
    if let Some(key) = key {
        checks.push(Check::new("webhook_signature", webhook_signature(body, &header, key, now)));
    }
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let mut picture = None;
    let announces = parsed.as_ref().filter(|parsed| parsed.get("event_type") == Some(&200.into()));
    // Only what a verified sender names is fetched: anybody can send a body.
    if let Some(announces) = announces.filter(|_| checks.iter().all(|check| check.ok)) {
        picture = check_object(announces, &mut checks).await;
    }
    Callback {
        webhook_id: header(webhook::ID).map(str::to_owned),
        received_ms: now.0,
        raw: body.clone(),
        body: parsed.unwrap_or_else(|| Value::String(String::from_utf8_lossy(body).into_owned())),
        checks,
        file: None,
        picture,
    }
}

/// The report on the signature in the body, as checks.
pub(crate) fn findings(report: css::Report) -> Vec<Check> {
    report.findings.into_iter().map(|(check, result)| Check::new(check.name(), result)).collect()
}

fn webhook_signature<'h>(
    body: &[u8],
    header: &impl Fn(&str) -> Option<&'h str>,
    key: &CallbackKey,
    now: UnixMs,
) -> Result<(), String> {
    let secret = WebhookSecret::from_callback_key(key.expose());
    let verified =
        webhook::Headers::read(header).and_then(|headers| webhook::verify([&secret], headers, body, now.secs()));
    verified.map(|_| ()).map_err(|error| error.to_string())
}

/// The object that is announced must be there now, and be what the callback says.
async fn check_object(body: &Value, checks: &mut Vec<Check>) -> Option<Bytes> {
    let url = body.get("pic_full_url").and_then(Value::as_str).unwrap_or_default();
    let fetched = fetch::get(url).await;
    checks.push(Check::new("object_fetched", fetched.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"))));
    let picture = fetched.ok()?;
    let says = |field: &str| body.get(field).and_then(Value::as_u64);
    let equal = |field: &str, found: u64| match says(field) {
        Some(announced) if announced == found => Ok(()),
        announced => Err(format!("{field} says {announced:?}, the object has {found}")),
    };
    checks.push(Check::new("file_size_equal", equal("file_size", picture.len() as u64)));
    let size = image::size(&picture).ok_or_else(|| "the object is no JPEG, PNG, WebP or AVIF".to_owned());
    let size = size.and_then(|(width, height)| equal("width", width).and(equal("height", height)));
    checks.push(Check::new("picture_size_equal", size));
    Some(picture)
}
