//! One HTTP/1.1 connection to a checked address. It has no task of its own: whoever uses it drives it, so an attempt that
//! is dropped takes its socket along.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::attempt_error::AttemptError;
use super::endpoint::Endpoint;
use super::resolve::Resolver;
use super::tls::{Certificates, Tls};
use crate::fail_point;

/// Longest head of an answer, status line included. Twice what common servers accept of a request's head (8 KiB); a
/// receiver that answers with more is broken or hostile.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Most header lines of an answer. It is also hyper's own limit, up to which it needs no allocation.
const HEADERS_MAX: usize = 100;

/// Most bytes before an answer's head is complete. The head itself is bounded by [`HEAD_BYTES_MAX`]; what is above that
/// is room for interim answers (1xx), which hyper skips without counting, and for a body that came along in the reads
/// which completed the head (hyper reads ahead by at most two buffers of [`HEAD_BYTES_MAX`]).
const BYTES_BEFORE_HEAD_MAX: usize = 4 * HEAD_BYTES_MAX;

/// Most bytes of an answer's body that are read, and kept. The body decides nothing; it is evidence for a person, and is
/// read to its end only so that the connection can be used again. A receiver that answers more pays with a new connection.
const BODY_BYTES_MAX: usize = 16 << 10;

type Driver = http1::Connection<TokioIo<Metered>, Full<Bytes>>;

/// A connection on which requests are sent one after another.
pub(super) struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    /// `None` once the connection has ended.
    driver: Option<Driver>,
    meter: Arc<Meter>,
    peer: SocketAddr,
    opened: Instant,
}

/// The kept part of an answer's body.
pub(super) struct BodyExcerpt {
    pub(super) bytes: Bytes,
    /// Whether there was, or may have been, more.
    pub(super) truncated: bool,
}

impl Connection {
    /// Connects to `address`, which `resolver` must have handed out for `endpoint`, and does the TLS handshake if the
    /// endpoint wants one. An egress proxy or HTTP/2 would be chosen here.
    pub(super) async fn open(
        address: SocketAddr,
        endpoint: &Endpoint,
        resolver: &Resolver,
        tls: &Tls,
        certificates: Certificates,
    ) -> Result<Self, AttemptError> {
        let failed = |source| AttemptError::connect(address, source);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        // Head and body leave in one write; waiting for more would only add delay.
        stream.set_nodelay(true).map_err(failed)?;
        // The address was judged before; this judges where the kernel says we are.
        let peer = stream.peer_addr().map_err(failed)?;
        resolver.check(&endpoint.origin().host, peer.ip())?;

        let transport: Box<dyn Transport> = if endpoint.origin().tls {
            let connector = tls.connector(certificates);
            let handshake = connector.connect(endpoint.server_name().clone(), stream);
            Box::new(handshake.await.map_err(|source| AttemptError::Tls { address, source })?)
        } else {
            Box::new(stream)
        };

        let meter = Arc::new(Meter::default());
        let io = TokioIo::new(Metered { transport, meter: Arc::clone(&meter) });
        let (requests, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(io)
            .await
            .map_err(|source| AttemptError::Protocol { address, source })?;
        Ok(Self { requests, driver: Some(driver), meter, peer, opened: Instant::now() })
    }

    /// The address that was judged and connected to.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How long ago the connection, and with it the name's resolution, was made.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether an idle connection can take a request, as far as is known without waiting: not closed, not spoken on.
    pub(super) fn is_ready(&mut self) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        // The next use registers a waker that counts.
        let ended = Pin::new(driver).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        !ended && self.requests.is_ready()
    }

    /// Sends `request` and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AttemptError> {
        self.meter.start();
        let answer = self.requests.send_request(request);
        let answer = drive(&mut self.driver, answer).await;
        self.meter.head_is_complete();
        answer.map_err(|error| self.explain(error))
    }

    /// Reads the body of the answer, at most [`BODY_BYTES_MAX`] and not beyond `until`. Hands the connection back if it
    /// can carry another request.
    pub(super) async fn finish(mut self, mut body: Incoming, until: Instant) -> (BodyExcerpt, Option<Self>) {
        let mut kept = BytesMut::new();
        let (driver, requests) = (&mut self.driver, &mut self.requests);
        let read_to_end_and_ready = async {
            while let Some(frame) = body.frame().await {
                let Some(data) = frame.ok()?.into_data().ok() else { continue };
                let room = BODY_BYTES_MAX - kept.len();
                kept.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    return None;
                }
            }
            Some(requests.ready().await.is_ok())
        };
        let whole = timeout_at(until, drive(driver, read_to_end_and_ready)).await.ok().flatten();
        let excerpt = BodyExcerpt { bytes: kept.freeze(), truncated: whole.is_none() };
        (excerpt, (whole == Some(true)).then_some(self))
    }

    fn explain(&self, error: hyper::Error) -> AttemptError {
        let address = self.peer;
        if error.is_parse_too_large() || self.meter.overran() {
            AttemptError::HeadTooLarge { address }
        } else if error.is_parse() {
            AttemptError::Protocol { address, source: error }
        } else if let Some(alert) = tls_error(&error) {
            // With TLS 1.3 a receiver's refusal arrives only after our side of the handshake is done.
            AttemptError::Tls { address, source: io::Error::other(alert) }
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

/// The TLS error at the root of `error`, if that is what it comes from.
fn tls_error(error: &hyper::Error) -> Option<rustls::Error> {
    let io_error: &io::Error = error.source()?.downcast_ref()?;
    io_error.get_ref()?.downcast_ref().cloned()
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// What one exchange has received so far. Shared with the transport, which hyper owns.
#[derive(Debug, Default)]
struct Meter {
    received: AtomicUsize,
    limit: AtomicUsize,
}

// Relaxed everywhere: connection and meter are only ever used by the one attempt that holds them.
impl Meter {
    fn start(&self) {
        self.received.store(0, Ordering::Relaxed);
        self.limit.store(BYTES_BEFORE_HEAD_MAX, Ordering::Relaxed);
    }

    /// From here on [`BODY_BYTES_MAX`] rules.
    fn head_is_complete(&self) {
        self.limit.store(usize::MAX, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    fn overran(&self) -> bool {
        self.received() >= BYTES_BEFORE_HEAD_MAX
    }

    fn is_at_limit(&self) -> bool {
        self.received() >= self.limit.load(Ordering::Relaxed)
    }
}

/// The transport, its reads counted and ended at the meter's limit.
struct Metered {
    transport: Box<dyn Transport>,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.is_at_limit() {
            return Poll::Ready(Err(io::Error::other("more bytes before an answer than are read")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        self.meter.add(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        sent(Pin::new(&mut self.transport).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        sent(Pin::new(&mut self.transport).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}

/// From here on the receiver may have the request: head and body leave in one write.
fn sent(written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(1..)) = written {
        fail_point::pass("attempt_sent");
    }
    written
}
