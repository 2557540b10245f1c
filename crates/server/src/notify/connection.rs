//! Connections to checked addresses. What is spoken on one, the receiver chooses in the TLS handshake (ALPN): HTTP/2 or
//! HTTP/1.1. Without TLS it is HTTP/1.1.

mod http1;
mod http2;
mod meter;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Version};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(super) use http1::Http1;
pub(super) use http2::{Http2, Stream};
use meter::{Meter, Metered, Transport};

use super::attempt_error::AttemptError;
use super::endpoint::Endpoint;
use super::proxy::Proxy;
use super::resolve::Resolver;
use super::tls::{Certificates, HTTP2, Tls};
use crate::shutdown::Stage;

/// Longest head of an answer, status line included. Twice what common servers accept of a request's head (8 KiB); a
/// receiver that answers with more is broken or hostile.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Most bytes before an answer's head is complete. The head itself is bounded by [`HEAD_BYTES_MAX`]; what is above that
/// is room for interim answers (1xx), which hyper skips without counting, and for a body that came along in the reads
/// which completed the head (hyper reads ahead by at most two buffers of [`HEAD_BYTES_MAX`]).
const BYTES_BEFORE_HEAD_MAX: usize = 4 * HEAD_BYTES_MAX;

/// Most bytes of an answer's body that are read, and kept. The body decides nothing; it is evidence for a person, and is
/// read to its end only so that the connection can be used again. A receiver that answers more pays with a new connection.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Makes connections.
pub(super) struct Dialer {
    pub(super) tls: Tls,
    /// Stands between us and every receiver, if there is one.
    pub(super) proxy: Option<Proxy>,
    /// Drives HTTP/2 connections, which several attempts share.
    pub(super) stage: Stage,
}

/// A connection that was just made.
pub(super) enum Opened {
    Http1(Box<Http1>),
    Http2(Arc<Http2>),
}

impl Dialer {
    /// Connects to `address`, which `resolver` must have handed out for `endpoint`, itself or through the proxy, and does the
    /// TLS handshake if the endpoint wants one. Whoever calls it gives it up after `within`.
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        within: Duration,
        endpoint: &Endpoint,
        resolver: &Resolver,
        certificates: &Certificates,
    ) -> Result<Opened, AttemptError> {
        let stream = match &self.proxy {
            Some(proxy) => proxy.tunnel(address, within, resolver).await?,
            None => connect(address, endpoint, resolver).await?,
        };
        if !endpoint.origin().tls {
            return Http1::start(Box::new(stream), address).await.map(Opened::Http1);
        }
        let failed = |source| AttemptError::Tls { address, source };
        let connector = self.tls.connector(certificates).map_err(|error| failed(io::Error::other(error)))?;
        let stream = connector.connect(endpoint.server_name().clone(), stream).await.map_err(failed)?;
        match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Http2::start(Box::new(stream), address, &self.stage).await.map(Opened::Http2),
            // A receiver that does not know ALPN speaks HTTP/1.1.
            _ => Http1::start(Box::new(stream), address).await.map(Opened::Http1),
        }
    }
}

async fn connect(address: SocketAddr, endpoint: &Endpoint, resolver: &Resolver) -> Result<TcpStream, AttemptError> {
    let failed = |source| AttemptError::connect(address, source);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    // Head and body leave in one write; waiting for more would only add delay.
    stream.set_nodelay(true).map_err(failed)?;
    // The address was judged before; this judges where the kernel says we are.
    let (local, peer) = (stream.local_addr().map_err(failed)?, stream.peer_addr().map_err(failed)?);
    resolver.check_connected(&endpoint.origin().host, local.ip(), peer.ip())?;
    Ok(stream)
}

/// What carries one request: a connection of HTTP/1.1, or a stream of one that others use too.
pub(super) enum Connection {
    Http1(Box<Http1>),
    Http2(Stream),
}

impl Connection {
    /// The address that was judged and connected to.
    pub(super) fn peer(&self) -> SocketAddr {
        match self {
            Self::Http1(connection) => connection.peer(),
            Self::Http2(stream) => stream.peer(),
        }
    }

    pub(super) fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }

    /// Sends `request` and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AttemptError> {
        match self {
            Self::Http1(connection) => connection.send(request).await,
            Self::Http2(stream) => stream.send(request).await,
        }
    }

    /// Reads the body of the answer, at most [`BODY_BYTES_MAX`] and not beyond `until`. Hands the connection back if it
    /// is nobody else's and can carry another request.
    pub(super) async fn finish(self, body: Incoming, until: Instant) -> (BodyExcerpt, Option<Box<Http1>>) {
        match self {
            Self::Http1(connection) => connection.finish(body, until).await,
            Self::Http2(stream) => (stream.finish(body, until).await, None),
        }
    }
}

/// The kept part of an answer's body.
pub(super) struct BodyExcerpt {
    pub(super) bytes: Bytes,
    /// Whether there was, or may have been, more.
    pub(super) truncated: bool,
}

/// Reads a body into `kept`. Whether it ended, and within its limit.
async fn read_to_end(mut body: Incoming, kept: &mut BytesMut) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let Ok(data) = frame.into_data() else { continue };
        let room = BODY_BYTES_MAX - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return false;
        }
    }
    true
}
