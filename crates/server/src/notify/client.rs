//! The HTTP sender for callbacks: one attempt at one endpoint, from name to answer, within one deadline.
//!
//! It never follows a redirect, takes a proxy from the configuration only, keeps no cookies and does not ask for or undo
//! compression: what a receiver answers can change nothing but the record of the attempt. Whether a status means success is
//! the caller's to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, Uri, Version};
use tokio::time::{Instant, timeout, timeout_at};

use super::attempt_error::{AttemptError, Phase};
use super::connection::{Connection, Dialer, Opened};
use super::endpoint::Endpoint;
use super::pool::{Pool, PoolKey};
use super::proxy::Proxy;
use super::resolve::Resolver;
use super::tls::{Certificates, Tls};
use crate::shutdown::Stage;

/// Most addresses of one name that an attempt tries. With the default deadline each still gets two and a half seconds.
const ADDRESSES_TRIED_MAX: usize = 8;

/// The times that govern connections, besides each attempt's deadline.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a connection may wait for its next request. Below the five seconds after which common receivers close
    /// (Node, Gunicorn, Apache), so that they rarely close on us in the middle of a request.
    pub idle_timeout: Duration,
    /// How long after it was opened a connection still takes requests. Its address was resolved when it was opened, so
    /// this is how long a busy receiver's move to another address can go unnoticed.
    pub connection_age_max: Duration,
    /// Longest wait for the body of an answer whose head is already there. The head decides; a receiver that trickles its
    /// body should not hold an attempt's slot for the rest of the deadline.
    pub body_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(4),
            connection_age_max: Duration::from_secs(60),
            body_wait: Duration::from_secs(1),
        }
    }
}

/// What is sent in one attempt. `content-type`, `content-length`, `host` (HTTP/2: `:authority`), `user-agent` and the
/// credentials in the URL are added, and win over `headers`.
#[derive(Clone, Debug)]
pub struct AttemptRequest {
    /// Further headers: `webhook-id` and its kin.
    pub headers: HeaderMap,
    /// The JSON body, sent byte for byte.
    pub body: Bytes,
    /// Whom to believe about the receiver's certificate.
    pub certificates: Certificates,
    /// Time for a connection to one address, TLS included; an equal share of what is left of the deadline where there is
    /// none, and never more than that.
    pub connect_timeout: Option<Duration>,
}

/// How an attempt went.
#[derive(Debug)]
pub struct AttemptReport {
    /// The answer, whatever its status, or why there was none.
    pub outcome: Result<Answer, AttemptError>,
    /// From the start of the attempt until the answer's head was complete or the attempt had failed. The wait for the
    /// body is not in it.
    pub duration: Duration,
    /// Whom we were connected to, if to anyone.
    pub remote: Option<SocketAddr>,
    /// Whether the outcome came over a connection that had carried an earlier attempt.
    pub reused: bool,
    /// Whether the request was sent twice: a reused connection ended without a byte of an answer, and the request went
    /// out again at once on a new one. The receiver may have seen it twice.
    pub repeated: bool,
}

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status of the final answer; interim ones (1xx) are skipped, but 101 is final.
    pub status: u16,
    /// The start of the body as sent, compressed or not, at most 16 KiB.
    pub body_excerpt: Bytes,
    /// Whether the body was longer than the excerpt, broke off or did not end in time.
    pub body_truncated: bool,
    /// The value of `Retry-After`.
    pub retry_after: Option<HeaderValue>,
}

/// Sends callbacks. One per process and address policy; it holds the idle connections.
pub struct Client {
    resolver: Resolver,
    dialer: Dialer,
    pool: Arc<Pool>,
    body_wait: Duration,
}

impl Client {
    /// Starts a task in `stage` that closes idle connections; it ends with the stage, attempts under way do not. Connections
    /// of HTTP/2 are tasks of the stage as well, and end with their attempts.
    pub fn new(resolver: Resolver, tls: Tls, proxy: Option<Proxy>, limits: Limits, stage: &Stage) -> Self {
        let pool = Arc::new(Pool::new(limits.idle_timeout, limits.connection_age_max));
        let swept = Arc::clone(&pool);
        let end = stage.token();
        stage.spawn(async move { swept.sweep(end).await });
        let dialer = Dialer { tls, proxy, stage: stage.clone() };
        Self { resolver, dialer, pool, body_wait: limits.body_wait }
    }

    /// Posts `request` to `endpoint`. `deadline` (CSS: 20 s) covers resolving, connecting, TLS, sending and the answer's
    /// head; what is left of it, up to [`Limits::body_wait`], for the body, which decides nothing. Dropping the future ends the attempt
    /// and closes its connection.
    pub async fn attempt(&self, endpoint: &Endpoint, request: &AttemptRequest, deadline: Duration) -> AttemptReport {
        let started = Instant::now();
        let ends = started + deadline;
        let key = PoolKey { origin: endpoint.origin().clone(), certificates: request.certificates.clone() };
        let mut progress = Progress::new(ends);
        let exchange = timeout_at(ends, self.exchange(endpoint, request, &key, &mut progress)).await;
        let duration = started.elapsed();
        let outcome = match exchange {
            Ok(Ok((connection, response))) => Ok(self.finish(key, connection, response, ends).await),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(AttemptError::TimedOut { phase: progress.phase, after: duration }),
        };
        let Progress { remote, reused, repeated, .. } = progress;
        AttemptReport { outcome, duration, remote, reused, repeated }
    }

    /// Sends the request over a connection at hand if there is one, else over a new one.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: &AttemptRequest,
        key: &PoolKey,
        progress: &mut Progress,
    ) -> Result<(Connection, Response<Incoming>), AttemptError> {
        if let Some(mut connection) = self.pool.take(key) {
            progress.answering(&connection);
            progress.reused = true;
            match connection.send(http_request(endpoint, request, connection.version())).await {
                Err(error) if error.may_be_of_an_idle_end() => progress.repeat(),
                outcome => return outcome.map(|response| (connection, response)),
            }
        }
        let opened = self.connect(endpoint, request, progress).await?;
        let mut connection = self.pool.share(key, opened);
        progress.answering(&connection);
        let response = connection.send(http_request(endpoint, request, connection.version())).await?;
        Ok((connection, response))
    }

    /// Opens a connection to the first of the endpoint's addresses that lets us. Each gets an equal share of the time left.
    async fn connect(
        &self,
        endpoint: &Endpoint,
        request: &AttemptRequest,
        progress: &mut Progress,
    ) -> Result<Opened, AttemptError> {
        progress.phase = Phase::Resolving;
        let addresses = self.resolver.addresses(endpoint).await?;
        progress.phase = Phase::Connecting;
        let tried = addresses.len().min(ADDRESSES_TRIED_MAX);
        let mut failure = AttemptError::TimedOut { phase: Phase::Connecting, after: Duration::ZERO };
        for (address, untried) in addresses.into_iter().zip((1..=tried as u32).rev()) {
            let share = progress.ends.saturating_duration_since(Instant::now()) / untried;
            let share = request.connect_timeout.map_or(share, |most| most.min(share));
            let open = self.dialer.open(address, share, endpoint, &self.resolver, &request.certificates);
            failure = match timeout(share, open).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => AttemptError::TimedOut { phase: Phase::Connecting, after: share },
            };
        }
        Err(failure)
    }

    /// Reads what there is of the body and keeps the connection if it can be used again.
    async fn finish(
        &self,
        key: PoolKey,
        connection: Connection,
        response: Response<Incoming>,
        ends: Instant,
    ) -> Answer {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).cloned();
        let until = ends.min(Instant::now() + self.body_wait);
        let (body, reusable) = connection.finish(response.into_body(), until).await;
        if let Some(connection) = reusable {
            self.pool.put(key, connection);
        }
        Answer { status, body_excerpt: body.bytes, body_truncated: body.truncated, retry_after }
    }
}

/// What is known of an attempt when its deadline cuts it off.
struct Progress {
    ends: Instant,
    phase: Phase,
    remote: Option<SocketAddr>,
    reused: bool,
    repeated: bool,
}

impl Progress {
    fn new(ends: Instant) -> Self {
        Self { ends, phase: Phase::Resolving, remote: None, reused: false, repeated: false }
    }

    fn answering(&mut self, connection: &Connection) {
        self.phase = Phase::Answering;
        self.remote = Some(connection.peer());
    }

    fn repeat(&mut self) {
        self.remote = None;
        self.reused = false;
        self.repeated = true;
    }
}

fn http_request(endpoint: &Endpoint, request: &AttemptRequest, version: Version) -> Request<Full<Bytes>> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    const AGENT: HeaderValue = HeaderValue::from_static(concat!("Framehook/", env!("CARGO_PKG_VERSION")));
    // hyper adds `content-length`, since it knows the length of this body.
    let mut post = Request::new(Full::new(request.body.clone()));
    *post.method_mut() = Method::POST;
    *post.headers_mut() = request.headers.clone();
    let headers = post.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(USER_AGENT, AGENT);
    if let Some(credentials) = endpoint.authorization() {
        headers.insert(AUTHORIZATION, credentials.clone());
    }
    if version == Version::HTTP_2 {
        // Its `:authority` takes the place of `host`.
        headers.remove(HOST);
        *post.uri_mut() = endpoint.uri().clone();
    } else {
        headers.insert(HOST, endpoint.host_header().clone());
        *post.uri_mut() = Uri::from(endpoint.target().clone());
    }
    post
}

#[cfg(test)]
mod tests;
