//! A store that takes whatever comes and answers at once, so that what a put costs and how long it takes is its client's doing.
//! It knows as much of S3 and COS as the clients ask about: puts, what was put, and empty lists. Signatures it believes; that
//! they are right is a matter of the tests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use md5::{Digest as _, Md5};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::wall_us;

/// Far more than a picture of these benchmarks.
const BODY_BYTES_MAX: usize = 16 << 20;

const EMPTY_LIST: &str =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// A put that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// When it was due by the word of its key, and when it was answered, both in microseconds of the wall clock.
    pub(super) due_us: Option<u64>,
    pub(super) answered_us: u64,
}

#[derive(Debug, Default)]
struct Memory {
    taken: Vec<Taken>,
    /// Length and tag of each object by its path.
    objects: HashMap<String, (usize, String)>,
}

/// Listens on a free loopback port until dropped.
#[derive(Debug)]
pub(super) struct StandIn {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    runtime: Option<Runtime>,
}

impl StandIn {
    pub(super) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("bind a store")?;
        let address = listener.local_addr()?;
        let memory = Arc::<Mutex<Memory>>::default();
        runtime.spawn(accept(listener, Arc::clone(&memory)));
        Ok(Self { address, memory, runtime: Some(runtime) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The puts so far.
    pub(super) fn taken(&self) -> Vec<Taken> {
        lock(&self.memory).taken.clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, memory: Arc<Mutex<Memory>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let memory = Arc::clone(&memory);
        let service = service_fn(move |request| {
            let memory = Arc::clone(&memory);
            async move { Ok::<_, Infallible>(answer(request, &memory).await) }
        });
        // A client that hangs up in the middle is counted as one whose put is missing.
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, memory: &Mutex<Memory>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match *request.method() {
        Method::PUT => {
            let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
                return with_status(StatusCode::BAD_REQUEST);
            };
            let body = body.to_bytes();
            let tag = tag(&body);
            let taken = Taken { due_us: due_us(&path), answered_us: wall_us() };
            let mut memory = lock(memory);
            memory.taken.push(taken);
            memory.objects.insert(path, (body.len(), tag.clone()));
            let mut response = with_status(StatusCode::OK);
            response.headers_mut().insert(ETAG, tag.parse().expect("digits in quotes"));
            response
        }
        Method::HEAD => {
            let Some((length, tag)) = lock(memory).objects.get(&path).cloned() else {
                return with_status(StatusCode::NOT_FOUND);
            };
            let mut response = with_status(StatusCode::OK);
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, length.into());
            headers.insert(ETAG, tag.parse().expect("digits in quotes"));
            headers.insert(LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".parse().expect("a date"));
            response
        }
        Method::GET => {
            let mut response = Response::new(Full::from(EMPTY_LIST));
            response.headers_mut().insert(CONTENT_TYPE, "application/xml".parse().expect("a type"));
            response
        }
        _ => with_status(StatusCode::NO_CONTENT),
    }
}

fn with_status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// The MD5 of the bytes in quotes, which clients compare with their own.
fn tag(body: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in Md5::digest(body) {
        let _ = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

/// The digits in front of a key such as `/bucket/1767225600000000-7.jpg`.
fn due_us(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use framehook_testkit::http;

    use super::*;

    #[test]
    fn what_was_put_is_known_by_its_length_and_sum() {
        let store = StandIn::start().unwrap();
        let ask = |method, key: &str, body: &[u8]| {
            let path = format!("/shots/{key}");
            http::request(store.address(), method, &path, &[], body, Duration::from_secs(10)).unwrap()
        };
        assert_eq!(ask("HEAD", "1767225600000000-7.jpg", b"").status, 404);
        let put = ask("PUT", "1767225600000000-7.jpg", b"picture");
        assert_eq!(put.headers.get("etag"), Some("\"5456fc54c74a297ce994998c2873b370\""));
        let known = ask("HEAD", "1767225600000000-7.jpg", b"");
        assert_eq!((known.status, known.headers.get("content-length")), (200, Some("7")));
        assert_eq!(known.headers.get("etag"), put.headers.get("etag"));
        ask("PUT", "first.jpg", b"picture");
        let due: Vec<_> = store.taken().iter().map(|taken| taken.due_us).collect();
        assert_eq!(due, [Some(1_767_225_600_000_000), None]);
    }
}
