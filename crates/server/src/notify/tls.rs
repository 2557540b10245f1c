//! TLS towards receivers: which certificates are believed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use framehook_domain::template::Authorities;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier};
use tokio_rustls::TlsConnector;

/// HTTP/2's name in the handshake (RFC 9113, 3.2), as the receiver chooses it.
pub(super) const HTTP2: &[u8] = b"h2";

/// Whether a receiver must prove that it is the host named in the callback URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Certificates {
    /// A chain to a trusted root, for this host, valid now. Revocation is not checked: that would send each receiver's
    /// name to a third party and wait for it.
    #[default]
    Verified,
    /// The same, with further roots of the callback template's own.
    VerifiedWith(Authorities),
    /// Any certificate. Keeps out eavesdroppers, not impostors. A switch of the callback template.
    Unverified,
}

/// The TLS configurations. They share nothing: a session that was resumed under verification was begun under it, and under
/// the same roots.
pub struct Tls {
    verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
    /// With roots beside those of `verified`; made when they are first needed.
    private: Mutex<Recent>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

/// Most configurations with roots of their own that are kept: 25 MiB at some 200 KiB each, the system's roots among it.
const PRIVATE_MAX: usize = 128;

/// The configurations that were asked for last, each with the roots that are its own. One that is forgotten is made anew, which
/// costs its next connections full handshakes.
#[derive(Default)]
struct Recent {
    /// The one asked for last is the last. Few enough to be looked through for each connection.
    configs: VecDeque<(Authorities, Arc<ClientConfig>)>,
}

impl Recent {
    fn get(&mut self, authorities: &Authorities) -> Option<Arc<ClientConfig>> {
        let at = self.configs.iter().rposition(|(of, _)| of == authorities)?;
        let found = self.configs.remove(at)?;
        let config = Arc::clone(&found.1);
        self.configs.push_back(found);
        Some(config)
    }

    fn put(&mut self, authorities: &Authorities, config: &Arc<ClientConfig>) {
        if self.configs.len() >= PRIVATE_MAX {
            self.configs.pop_front();
        }
        self.configs.push_back((authorities.clone(), Arc::clone(config)));
    }
}

/// Why TLS could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of additional CAs is not PEM, or holds no certificate.
    #[error("additional CAs are not PEM certificates")]
    Pem(#[source] Option<pem::Error>),
    /// A certificate among the additional CAs cannot be a trust anchor.
    #[error("additional CA number {number} is not usable")]
    Root { number: usize, source: rustls::Error },
    /// The cryptography library lacks a protocol version we ask for.
    #[error("cryptography library does not fit")]
    Provider(#[source] rustls::Error),
}

/// Whether certificates can be trusted as authorities.
///
/// # Errors
/// [`TlsError::Pem`] and [`TlsError::Root`].
pub(crate) fn check_authorities(authorities: &Authorities) -> Result<(), TlsError> {
    add_extra_roots(&mut RootCertStore::empty(), authorities.pem().as_bytes())
}

impl Tls {
    /// Trusts the system's roots and the certificates in `extra_ca_pem`. Reads the system's store once (`SSL_CERT_FILE`
    /// and `SSL_CERT_DIR` move it, as for OpenSSL); entries that cannot be read are logged and left out.
    ///
    /// # Errors
    /// Each variant of [`TlsError`].
    pub fn new(extra_ca_pem: Option<&[u8]>) -> Result<Self, TlsError> {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "some of the system's root certificates could not be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system.certs);
        if let Some(pem) = extra_ca_pem {
            add_extra_roots(&mut roots, pem)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let any = Arc::new(AnyCertificate { provider: Arc::clone(&provider) });
        let unverified = builder(&provider)?.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        Ok(Self {
            verified: verified(&provider, roots.clone())?,
            unverified: for_receivers(unverified),
            private: Mutex::default(),
            roots,
            provider,
        })
    }

    /// How many roots are trusted. With none, every verified handshake fails: worth a warning at the start.
    pub fn roots(&self) -> usize {
        self.roots.len()
    }

    /// What a client of its own is configured with to believe whom we believe.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.verified);
        // Each client says itself what it speaks.
        config.alpn_protocols.clear();
        config
    }

    pub(super) fn connector(&self, certificates: &Certificates) -> Result<TlsConnector, TlsError> {
        let config = match certificates {
            Certificates::Verified => Arc::clone(&self.verified),
            Certificates::Unverified => Arc::clone(&self.unverified),
            Certificates::VerifiedWith(authorities) => self.private(authorities)?,
        };
        Ok(TlsConnector::from(config))
    }

    fn private(&self, authorities: &Authorities) -> Result<Arc<ClientConfig>, TlsError> {
        // A panic elsewhere leaves it whole, or one configuration short.
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = private.get(authorities) {
            return Ok(config);
        }
        let mut roots = self.roots.clone();
        add_extra_roots(&mut roots, authorities.pem().as_bytes())?;
        let config = verified(&self.provider, roots)?;
        private.put(authorities, &config);
        Ok(config)
    }
}

fn builder(provider: &Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    builder.with_safe_default_protocol_versions().map_err(TlsError::Provider)
}

fn verified(provider: &Arc<CryptoProvider>, roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(for_receivers(builder(provider)?.with_root_certificates(roots).with_no_client_auth()))
}

fn for_receivers(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

fn add_extra_roots(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), TlsError> {
    let before = roots.len();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|source| TlsError::Pem(Some(source)))?;
        roots.add(certificate).map_err(|source| TlsError::Root { number: index + 1, source })?;
    }
    if roots.len() == before { Err(TlsError::Pem(None)) } else { Ok(()) }
}

/// Believes every certificate. The handshake's signature is still checked, so the peer holds the key of what it shows.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_additional_cas_that_are_none() {
        assert!(matches!(Tls::new(Some(b"")), Err(TlsError::Pem(None))));
        assert!(matches!(Tls::new(Some(b"not PEM at all")), Err(TlsError::Pem(None))));
        let torn = b"-----BEGIN CERTIFICATE-----\nMIIB\n";
        assert!(matches!(Tls::new(Some(torn)), Err(TlsError::Pem(Some(_)))));
        let rubbish = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::new(Some(rubbish)), Err(TlsError::Root { number: 1, .. })));
    }

    /// An authority's certificate in PEM.
    fn authority() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn forgets_the_authorities_that_nobody_asked_for_longest() {
        let tls = Tls::new(None).expect("system roots");
        let authorities: Vec<_> =
            (0..=PRIVATE_MAX).map(|_| Authorities::parse(&authority()).expect("authorities")).collect();
        let config = |number: usize| tls.private(&authorities[number]).expect("a configuration");
        let first: Vec<_> = (0..PRIVATE_MAX).map(config).collect();
        let is_kept = |number: usize| Arc::ptr_eq(&config(number), &first[number]);
        // One too many takes the place of the second, since the first was asked for again.
        assert!(is_kept(0));
        config(PRIVATE_MAX);
        assert!(is_kept(0) && (2..PRIVATE_MAX).all(is_kept));
        assert!(!is_kept(1));
    }

    #[test]
    fn counts_an_additional_ca_among_the_roots() {
        let pem = authority();
        let without = Tls::new(None).expect("system roots").roots();
        assert_eq!(Tls::new(Some(pem.as_bytes())).expect("one CA").roots(), without + 1);
    }
}
