//! A connection of HTTP/1.1. It has no task of its own: whoever uses it drives it, so an attempt that is dropped takes its
//! socket along.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::{BYTES_BEFORE_HEAD_MAX, BodyExcerpt, HEAD_BYTES_MAX, Meter, Metered, Transport, read_to_end};
use crate::notify::attempt_error::AttemptError;

/// Most header lines of an answer. It is also hyper's own limit, up to which it needs no allocation.
const HEADERS_MAX: usize = 100;

type Driver = http1::Connection<TokioIo<Metered>, Full<Bytes>>;

/// A connection on which requests are sent one after another.
pub(in crate::notify) struct Http1 {
    requests: http1::SendRequest<Full<Bytes>>,
    /// `None` once the connection has ended.
    driver: Option<Driver>,
    meter: Arc<Meter>,
    peer: SocketAddr,
    opened: Instant,
}

impl Http1 {
    pub(super) async fn start(transport: Box<dyn Transport>, peer: SocketAddr) -> Result<Box<Self>, AttemptError> {
        let (io, meter) = Metered::new(transport);
        let (requests, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|source| AttemptError::Protocol { address: peer, source })?;
        Ok(Box::new(Self { requests, driver: Some(driver), meter, peer, opened: Instant::now() }))
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How long ago the connection, and with it the name's resolution, was made.
    pub(in crate::notify) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether an idle connection can take a request, as far as is known without waiting: not closed, not spoken on.
    pub(in crate::notify) fn is_ready(&mut self) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        // The next use registers a waker that counts.
        let ended = Pin::new(driver).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        !ended && self.requests.is_ready()
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AttemptError> {
        self.meter.count_anew(BYTES_BEFORE_HEAD_MAX);
        let answer = self.requests.send_request(request);
        let answer = drive(&mut self.driver, answer).await;
        // From here on the limit of the body rules.
        let has_overrun = self.meter.has_overrun();
        self.meter.lift();
        answer.map_err(|error| self.explain(error, has_overrun))
    }

    pub(super) async fn finish(
        mut self: Box<Self>,
        body: Incoming,
        until: Instant,
    ) -> (BodyExcerpt, Option<Box<Self>>) {
        let mut kept = BytesMut::new();
        let (driver, requests) = (&mut self.driver, &mut self.requests);
        let read_to_end_and_ready = async {
            let is_whole = read_to_end(body, &mut kept).await;
            (is_whole, is_whole && requests.ready().await.is_ok())
        };
        let read = timeout_at(until, drive(driver, read_to_end_and_ready)).await;
        let (is_whole, is_ready) = read.unwrap_or_default();
        (BodyExcerpt { bytes: kept.freeze(), truncated: !is_whole }, is_ready.then_some(self))
    }

    fn explain(&self, error: hyper::Error, has_overrun: bool) -> AttemptError {
        let address = self.peer;
        if error.is_parse_too_large() || has_overrun {
            AttemptError::HeadTooLarge { address }
        } else if error.is_parse() {
            AttemptError::Protocol { address, source: error }
        } else if let Some(alert) = self.meter.alert() {
            // With TLS 1.3 a receiver's refusal arrives only after our side of the handshake is done.
            AttemptError::Tls { address, source: alert }
        } else {
            AttemptError::Reset { address, received: self.meter.received(), source: error }
        }
    }
}

/// Runs `work`, which waits on the connection, together with the connection.
async fn drive<F: Future>(driver: &mut Option<Driver>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        if let Some(running) = driver
            && Pin::new(running).poll(context).is_ready()
        {
            // Its error, if any, went to whoever waited on it; dropping it wakes those who still do.
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}
