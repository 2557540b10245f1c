//! TLS towards clients: HTTPS and RTMPS.
//!
//! Both listeners show the same certificate. A handshake happens in the task and in the place of its connection, so there
//! are never more of them than connections, and none of them keeps another from being accepted.

mod certificate;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Config, ConfigError, Problem};
use crate::telemetry::Telemetry;
use crate::telemetry::event::{Chain, HandshakeFailed, HandshakeFault};

#[cfg(test)]
pub(crate) use certificate::tests;
pub use certificate::{Certificate, CertificateError, CertificateFiles};
pub(crate) use reload::Certificates;

/// The first byte of every TLS connection: a record that holds a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How long a peer that does not speak TLS may take to read that its connection ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How much of what it sends is read meanwhile: closing on unread bytes would reset the connection.
const FAREWELL_BYTES_MAX: u64 = 64 << 10;

/// The files of the certificate, if one is configured.
pub fn files(config: &Config) -> Option<CertificateFiles> {
    let (cert, key) = (config.tls.cert.clone()?, config.tls.key.clone()?);
    Some(CertificateFiles { cert, key })
}

/// Whether the certificate that is configured, if one is, can be used.
///
/// # Errors
/// The problem, as the configuration's.
pub fn check_certificate(config: &Config) -> Result<(), ConfigError> {
    match files(config).map(|files| Certificate::load(&files)) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Problem::in_file("tls", None, Chain(&error).to_string()).into()),
    }
}

/// Makes connections of one listener private.
pub(crate) struct TlsServer {
    /// `https` or `rtmps`.
    listener: &'static str,
    acceptor: TlsAcceptor,
    timeout: Duration,
    telemetry: Arc<Telemetry>,
}

impl TlsServer {
    /// `protocols` are those of ALPN; none are asked for where it is empty. A handshake has `timeout`.
    pub(crate) fn new(
        listener: &'static str,
        certificates: Arc<Certificates>,
        protocols: &[&str],
        timeout: Duration,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the cryptography library has the versions that it is built for")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), timeout, telemetry }
    }

    /// The connection once it is private; `None` when it will not be, which is counted and told.
    pub(crate) async fn accept(&self, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let handshake = async {
            let mut first = [0];
            // Looked at and left in its place.
            if stream.peek(&mut first).await.map_err(HandshakeFault::Failed)? == 0 {
                return Err(HandshakeFault::Closed);
            }
            if first != [HANDSHAKE_RECORD] {
                return Ok(Err(stream));
            }
            self.acceptor.accept(stream).await.map(Ok).map_err(HandshakeFault::Failed)
        };
        let fault = match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(Ok(stream))) => {
                self.telemetry.metrics.handshake_ended("done");
                return Some(stream);
            }
            Ok(Ok(Err(stream))) => {
                say_goodbye(stream).await;
                HandshakeFault::Plaintext
            }
            Ok(Err(fault)) => fault,
            Err(_) => HandshakeFault::TimedOut,
        };
        let failed = HandshakeFailed { peer, listener: self.listener, fault: &fault };
        failed.emit(&self.telemetry);
        None
    }
}

/// Ends a connection so that its peer sees an end and not a reset.
async fn say_goodbye(stream: TcpStream) {
    let goodbye = async {
        rustix::net::shutdown(&stream, rustix::net::Shutdown::Write)?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES_MAX), &mut tokio::io::sink()).await.map(drop)
    };
    // Whether the peer read it or not, the connection is over.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(FAREWELL, goodbye).await;
}
