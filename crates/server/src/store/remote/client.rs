//! One HTTP exchange with a store, within one deadline.
//!
//! Connections are kept and used again. No redirect is followed and no proxy is taken from the environment: a store is where
//! the configuration says.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

/// Longest answer that is read. Errors take a kilobyte; the longest list of lifecycle rules, a thousand of them, some 400.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Longest head of an answer: twice what common servers send at most.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// How long a connection may wait for its next request. S3 closes idle ones after some 20 s, COS after 30 s or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Most of the deadline that connecting may take, so that one address that swallows packets leaves time for another.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Sends requests to one store.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    timeout: Duration,
}

/// What a store answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there was no answer. Whether the store took the request is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the exchange broke off")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}

impl Client {
    /// `connect_to` stands in for whatever the names of the requests lead to.
    pub(super) fn new(tls: rustls::ClientConfig, connect_to: Option<SocketAddr>, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver { connect_to });
        connector.enforce_http(false);
        // Head and body leave in one write; waiting for more would only add delay.
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT_MAX.min(timeout)));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Self { http, timeout }
    }

    /// How long one request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request and reads the whole answer. A request on a connection that closes without a word goes out once more
    /// within the same time: mostly that is a kept connection which the store was just closing. Every request to a store may
    /// be repeated.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answered, NoAnswer> {
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(answered) => answered.map_err(NoAnswer::Broken),
            Err(_) => Err(NoAnswer::TimedOut(self.timeout)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answered, Box<dyn Error + Send + Sync>> {
        let response: Response<Incoming> = match self.http.request(request.clone()).await {
            Err(error) if was_hung_up_on(&error) => self.http.request(request).await?,
            answered => answered?,
        };
        let (head, body) = response.into_parts();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await?;
        Ok(Answered { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// Whether a connection that was made ended before a byte of an answer came.
fn was_hung_up_on(error: &legacy::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<hyper::Error>()) else { return false };
    let io_error = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let hangs_up = |kind| matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    error.is_incomplete_message() || io_error.is_some_and(|error| hangs_up(error.kind()))
}

/// Where names lead: to the addresses that the system knows, or all to the one that is configured.
#[derive(Clone, Copy, Debug)]
struct Resolver {
    connect_to: Option<SocketAddr>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let connect_to = self.connect_to;
        Box::pin(async move {
            let addresses = match connect_to {
                Some(address) => vec![address],
                // The port comes from the URL.
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(addresses.into_iter())
        })
    }
}
