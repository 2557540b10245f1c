//! A certificate authority of the test's own, and a client that believes no other.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http;

/// A private stream over TCP.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// An authority.
pub struct Ca {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for `localhost` and 127.0.0.1, and its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: String,
    pub key: String,
    /// The certificate as it goes over the wire.
    pub der: Vec<u8>,
}

impl Ca {
    /// # Errors
    /// Those of the cryptography library.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than rcgen gives to all: OpenSSL takes a certificate that names itself as its issuer for self-signed.
        parameters.distinguished_name.push(DnType::CommonName, "authority of a test");
        let certificate = parameters.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(parameters, key) })
    }

    /// The authority's own certificate in PEM, for programs that are to believe it.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate that ends on the first day of `year`.
    ///
    /// # Errors
    /// Those of the cryptography library.
    pub fn issue(&self, year: i32) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        parameters.not_after = date_time_ymd(year, 1, 1);
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Issued { cert: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() })
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When nobody listens, or shows a certificate that this authority did not issue.
    pub fn connect(&self, address: SocketAddr, patience: Duration) -> Result<TlsStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut session = ClientConnection::new(Arc::new(config), ServerName::from(address.ip()))?;
        let mut socket = http::connect(address, patience)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).with_context(|| format!("TLS handshake with {address}"))?;
        }
        Ok(StreamOwned::new(session, socket))
    }
}

/// The certificate that the other side has shown.
pub fn shown(stream: &TlsStream) -> Option<Vec<u8>> {
    stream.conn.peer_certificates()?.first().map(|certificate| certificate.to_vec())
}
