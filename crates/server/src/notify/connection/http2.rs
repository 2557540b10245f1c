//! A connection of HTTP/2 (RFC 9113), shared by attempts at the same receiver.
//!
//! A task drives it, since no attempt owns it; it ends when the pool and the last attempt have let go of it. What the
//! receiver may send is metered by what it was asked: each open stream buys so many bytes, and whoever sends more (pings,
//! settings, empty frames, headers without end) loses the connection.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::Reason;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    BODY_BYTES_MAX, BYTES_BEFORE_HEAD_MAX, BodyExcerpt, HEAD_BYTES_MAX, Meter, Metered, Transport, read_to_end,
};
use crate::notify::attempt_error::AttemptError;
use crate::shutdown::Stage;

/// Most requests at a time on one connection; further ones open another. Below what common servers take (nginx 128,
/// Apache 100, Go 250), so that theirs is seldom the limit; where it is, a request waits for its turn within its deadline.
const STREAMS_MAX: usize = 32;

/// How much of a body a receiver may send ahead: all that is read of it and as much again.
const STREAM_WINDOW_BYTES: u32 = 2 * BODY_BYTES_MAX as u32;

/// The same over all streams. A quarter of them may have their windows full, since bodies are read as they come.
const CONNECTION_WINDOW_BYTES: u32 = (STREAMS_MAX as u32 / 4) * STREAM_WINDOW_BYTES;

/// Most bytes that a receiver sends for one request: what HTTP/1.1 allows before the body, the body, and what was under way
/// when enough of it was read. What the protocol itself needs (settings, acknowledgements, pings) is a part of a per cent.
const EXCHANGE_BYTES_MAX: usize = BYTES_BEFORE_HEAD_MAX + BODY_BYTES_MAX + STREAM_WINDOW_BYTES as usize;

/// A connection on which requests are sent at the same time.
pub(in crate::notify) struct Http2 {
    requests: http2::SendRequest<Full<Bytes>>,
    meter: Arc<Meter>,
    peer: SocketAddr,
    opened: Instant,
    /// Free streams.
    streams: Arc<Semaphore>,
    /// When a request last ended.
    used: Mutex<Instant>,
    /// Takes no further request: one was not answered.
    is_retired: AtomicBool,
    /// Ends its tasks.
    _tasks: DropGuard,
}

impl Http2 {
    pub(super) async fn start(
        transport: Box<dyn Transport>,
        peer: SocketAddr,
        stage: &Stage,
    ) -> Result<Arc<Self>, AttemptError> {
        let (io, meter) = Metered::in_sips(transport);
        meter.allow(EXCHANGE_BYTES_MAX);
        let tasks = Tasks { stage: stage.clone(), end: CancellationToken::new() };
        let guard = tasks.end.clone().drop_guard();
        let (requests, connection) = http2::Builder::new(tasks.clone())
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|source| AttemptError::Protocol { address: peer, source })?;
        tasks.execute(async {
            // Its error went to the requests on it, and with none there is nobody to tell.
            let _: hyper::Result<()> = connection.await;
        });
        let opened = Instant::now();
        Ok(Arc::new(Self {
            requests,
            meter,
            peer,
            opened,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            used: Mutex::new(opened),
            is_retired: AtomicBool::new(false),
            _tasks: guard,
        }))
    }

    /// A stream for one request, if one is free.
    pub(in crate::notify) fn stream(self: &Arc<Self>) -> Option<Stream> {
        let slot = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        Some(Stream { connection: Arc::clone(self), _slot: slot, is_settled: false })
    }

    /// Whether it takes further requests, as far as is known without asking.
    pub(in crate::notify) fn is_open(&self) -> bool {
        !self.is_retired.load(Ordering::Relaxed) && !self.requests.is_closed()
    }

    /// How long ago the connection, and with it the name's resolution, was made.
    pub(in crate::notify) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Since when no request has been on it; `None` while one is.
    pub(in crate::notify) fn idle_since(&self) -> Option<Instant> {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (self.streams.available_permits() == STREAMS_MAX).then_some(used)
    }

    fn explain(&self, error: hyper::Error) -> AttemptError {
        let address = self.peer;
        if self.meter.has_overrun() {
            return AttemptError::HeadTooLarge { address };
        }
        if let Some(alert) = self.meter.alert() {
            return AttemptError::Tls { address, source: alert };
        }
        let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
            // The connection ended, or was about to when the request came to it.
            return AttemptError::Ended { address, source: error };
        };
        match cause.reason() {
            // A head over the size that we told the receiver is among these: the library does not tell it apart.
            _ if !cause.is_remote() => AttemptError::Protocol { address, source: error },
            // RFC 9113, 8.7: these say that the request was not looked at.
            Some(Reason::REFUSED_STREAM) => AttemptError::Refused { address, source: error },
            _ if cause.is_go_away() => AttemptError::Refused { address, source: error },
            _ => AttemptError::Cut { address, source: error },
        }
    }
}

/// One request's stream.
pub(in crate::notify) struct Stream {
    connection: Arc<Http2>,
    _slot: OwnedSemaphorePermit,
    /// Whether the request was answered.
    is_settled: bool,
}

impl Stream {
    pub(super) fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AttemptError> {
        let Http2 { requests, meter, streams, .. } = &*self.connection;
        let open = STREAMS_MAX - streams.available_permits();
        meter.allow(open * EXCHANGE_BYTES_MAX);
        let answer = requests.clone().send_request(request).await;
        answer.map_err(|error| self.connection.explain(error))
    }

    pub(super) async fn finish(mut self, body: Incoming, until: Instant) -> BodyExcerpt {
        let mut kept = BytesMut::new();
        let read = timeout_at(until, read_to_end(body, &mut kept)).await;
        self.is_settled = true;
        BodyExcerpt { bytes: kept.freeze(), truncated: read != Ok(true) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_settled {
            // The receiver may be gone without a word, which nothing but silence would ever say.
            self.connection.is_retired.store(true, Ordering::Relaxed);
        }
        *self.connection.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Runs what hyper starts for a connection: the driver, and a task for each request that waits.
#[derive(Clone)]
struct Tasks {
    stage: Stage,
    end: CancellationToken,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let end = self.end.clone();
        self.stage.spawn(async move {
            let _: Option<()> = end.run_until_cancelled(task).await;
        });
    }
}
