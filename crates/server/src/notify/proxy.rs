//! The egress proxy: where a network lets nothing out but through one (RFC 9110, 9.3.6).
//!
//! It is asked for a tunnel (`CONNECT`) to an address that was resolved and judged here, and never for a name: what a
//! callback's host means is decided in one place, proxy or not. Nothing is read from the environment.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::AddressPolicy;
use super::attempt_error::AttemptError;
use super::endpoint::{Endpoint, EndpointError};
use super::resolve::Resolver;

/// Longest head of the proxy's answer: what is taken of a receiver's.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Where the proxy is, and who may use it. `Display` and `Debug` mask the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(Endpoint);

/// Why a text is not a proxy's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// The way to the proxy is plain TCP. What goes through it to an `https` receiver is encrypted all the same.
    #[error("only http:// proxies can be used")]
    Tls,
    /// A proxy has no path and no query.
    #[error("must not have a path or a query")]
    Path,
}

/// Why the proxy gave no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("it could not be reached")]
    Unreachable(#[source] io::Error),
    #[error("its answer is not that of an HTTP proxy")]
    Protocol(#[source] hyper::Error),
    #[error("it answered {0}")]
    Answered(u16),
    /// Bytes that came with the answer: no receiver speaks first.
    #[error("it sent {0} bytes before the receiver was asked for any")]
    Spoke(usize),
}

impl ProxyError {
    /// Whether the proxy works, and it is the receiver that cannot be reached (RFC 9110, 15.6.3 to 15.6.5).
    pub(super) fn blames_receiver(&self) -> bool {
        matches!(self, Self::Answered(502..=504))
    }
}

impl Proxy {
    /// Parses `http://[user:password@]host:port`.
    ///
    /// # Errors
    /// Each variant of [`ProxyUrlError`].
    pub fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let endpoint = Endpoint::parse(text)?;
        if endpoint.origin().tls {
            Err(ProxyUrlError::Tls)
        } else if endpoint.target().as_str() != "/" {
            Err(ProxyUrlError::Path)
        } else {
            Ok(Self(endpoint))
        }
    }

    /// Whether anybody listens where the proxy is said to be.
    ///
    /// # Errors
    /// Nobody does, or its name has no address, or that cannot be told `within` so long.
    pub(crate) async fn reach(&self, within: Duration) -> io::Result<()> {
        self.connect(within, &Resolver::new(AddressPolicy::default())).await.map(drop)
    }

    /// A connection to `address` through the proxy. The proxy's own address is the operator's choice, so it is not judged.
    /// The way to the proxy may take half of `within`, so that a proxy which is silent before it was asked for anything is
    /// told apart from a receiver which is. One that was asked and is silent cannot be: it may be waiting for the receiver.
    pub(super) async fn tunnel(
        &self,
        address: SocketAddr,
        within: Duration,
        resolver: &Resolver,
    ) -> Result<TcpStream, AttemptError> {
        let failed = |source| AttemptError::Proxy { proxy: self.to_string(), address, source };
        let stream =
            self.connect(within / 2, resolver).await.map_err(|error| failed(ProxyError::Unreachable(error)))?;
        self.ask(stream, address).await.map_err(failed)
    }

    /// Connects to the first of the proxy's addresses that lets us. Each gets an equal share of the time left.
    async fn connect(&self, within: Duration, resolver: &Resolver) -> io::Result<TcpStream> {
        let ends = Instant::now() + within;
        let addresses = timeout_at(ends, resolver.unjudged(&self.0)).await?.map_err(io::Error::other)?;
        let mut failure = io::Error::from(io::ErrorKind::TimedOut);
        for (address, untried) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
            let share = ends.saturating_duration_since(Instant::now()) / untried;
            failure = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => error,
                Err(late) => late.into(),
            };
        }
        Err(failure)
    }

    async fn ask(&self, stream: TcpStream, address: SocketAddr) -> Result<TcpStream, ProxyError> {
        let (mut requests, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ProxyError::Protocol)?;
        let asking = async {
            let answer = requests.send_request(self.request(address)).await.map_err(ProxyError::Protocol)?;
            match answer.status().as_u16() {
                200..=299 => hyper::upgrade::on(answer).await.map_err(ProxyError::Protocol),
                status => Err(ProxyError::Answered(status)),
            }
        };
        let driving = async { connection.with_upgrades().await.map_err(ProxyError::Protocol) };
        let (tunnel, ()) = tokio::try_join!(asking, driving)?;
        let parts = tunnel.downcast::<TokioIo<TcpStream>>().expect("it was made of this type");
        match parts.read_buf.len() {
            0 => Ok(parts.io.into_inner()),
            early => Err(ProxyError::Spoke(early)),
        }
    }

    fn request(&self, address: SocketAddr) -> Request<Empty<Bytes>> {
        let authority = address.to_string();
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::try_from(authority.as_str()).expect("an address and a port are an authority");
        let host = HeaderValue::try_from(authority).expect("an address and a port are ASCII");
        request.headers_mut().insert(HOST, host);
        if let Some(credentials) = self.0.authorization() {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        request
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.origin().fmt(f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_a_place_and_credentials() {
        let shown = |text: &str| Proxy::parse(text).map(|proxy| proxy.to_string());
        assert_eq!(shown("http://proxy.example:3128").as_deref(), Ok("http://proxy.example:3128"));
        assert_eq!(shown("http://us3r:p4ss@10.0.0.1:3128/").as_deref(), Ok("http://10.0.0.1:3128"));
        assert_eq!(shown("https://proxy.example:3128"), Err(ProxyUrlError::Tls));
        assert_eq!(shown("http://proxy.example:3128/path"), Err(ProxyUrlError::Path));
        assert_eq!(shown("http://proxy.example:3128/?q"), Err(ProxyUrlError::Path));
        assert_eq!(shown("socks5://proxy.example"), Err(ProxyUrlError::Url(EndpointError::Scheme)));
    }

    #[test]
    fn asks_for_an_address_of_either_family() {
        let proxy = Proxy::parse("http://us3r:p4ss@proxy.example:3128").expect("a proxy");
        for text in ["192.0.2.1:443", "[2001:db8::1]:80"] {
            let request = proxy.request(text.parse().expect("an address"));
            assert_eq!(
                (request.uri().to_string().as_str(), &request.headers()[HOST]),
                (text, &HeaderValue::from_static(text))
            );
            assert_eq!(request.headers()[PROXY_AUTHORIZATION], "Basic dXMzcjpwNHNz");
        }
        assert!(!format!("{proxy:?} {proxy}").contains("p4ss"));
    }
}
