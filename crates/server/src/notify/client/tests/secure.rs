//! TLS towards receivers, with a CA of the test's own.

use framehook_domain::template::Authorities;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::TlsAcceptor;

use super::*;

pub(super) struct Ca {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for `names` and its key.
    pub(super) fn issue(&self, names: &[&str], expired: bool) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 12, 31);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), key.into())
    }

    pub(super) fn client(&self, names: ScriptedNames) -> (Client, Stage) {
        let stage = Stage::new("test", Fatal::new());
        let tls = Tls::new(Some(self.pem().as_bytes())).expect("one CA");
        let resolver = Resolver::scripted(loopback(), names);
        (Client::new(resolver, tls, None, Limits::default(), &stage), stage)
    }
}

pub(super) fn server(
    builder: impl FnOnce(rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>) -> ServerConfig,
) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    TlsAcceptor::from(Arc::new(builder(versions.expect("both versions"))))
}

/// A receiver behind TLS that answers every request with 200.
async fn receiver(acceptor: TlsAcceptor) -> Receiver {
    Receiver::start(move |connection, _| {
        let acceptor = acceptor.clone();
        async move { serve(connection, acceptor).await }
    })
    .await
}

pub(super) async fn serve(connection: receiver::Recorded<tokio::net::TcpStream>, acceptor: TlsAcceptor) {
    let record = connection.layered(());
    if let Ok(stream) = acceptor.accept(connection.stream).await {
        let mut connection = record.layered(stream);
        while respond(&mut connection, &answer(200, "ok")).await {}
    }
}

pub(super) fn plain_server((certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>)) -> TlsAcceptor {
    server(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a fitting key"))
}

pub(super) fn names() -> ScriptedNames {
    ScriptedNames::new(&["receiver.example", "receiver.example."], &[&["127.0.0.1"]])
}

pub(super) fn url(receiver: &Receiver, host: &str) -> Endpoint {
    endpoint(format!("https://{host}:{}/", receiver.address().port()))
}

fn unverified(body: &'static str) -> AttemptRequest {
    AttemptRequest { certificates: Certificates::Unverified, ..post(body) }
}

#[tokio::test]
async fn additional_ca_is_believed_for_names_and_addresses_and_the_connection_is_kept() {
    let ca = Ca::new();
    let receiver = receiver(plain_server(ca.issue(&["receiver.example", "127.0.0.1"], false))).await;
    let (client, _stage) = ca.client(names());
    let names = ["receiver.example", "receiver.example.", "127.0.0.1"];
    for (host, reused) in names.into_iter().flat_map(|name| [(name, false), (name, true)]) {
        let report = client.attempt(&url(&receiver, host), &post("{}"), AMPLE).await;
        assert_eq!((status(&report), report.reused), (200, reused), "{host}");
    }
    assert!(receiver.requests()[0].contains(&format!("host: receiver.example:{}\r\n", receiver.address().port())));
}

#[tokio::test]
async fn bad_certificates_are_refused_unless_verification_is_off() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let rows = [
        ("another host", ca.issue(&["other.example"], false)),
        ("another address", ca.issue(&["127.0.0.2"], false)),
        ("expired", ca.issue(&["receiver.example"], true)),
        ("unknown CA", stranger.issue(&["receiver.example"], false)),
    ];
    for (name, certificate) in rows {
        let receiver = receiver(plain_server(certificate)).await;
        let (client, _stage) = ca.client(names());
        let report = client.attempt(&url(&receiver, "receiver.example"), &post("{}"), AMPLE).await;
        assert_eq!(error_name(&report), "tls", "{name}");
        assert!(receiver.requests().is_empty(), "{name}: nothing was sent");

        let report = client.attempt(&url(&receiver, "receiver.example"), &unverified("{}"), AMPLE).await;
        assert_eq!(status(&report), 200, "{name}");

        // Neither the idle connection nor the resumable session of the unverified attempt serves a verified one.
        let report = client.attempt(&url(&receiver, "receiver.example"), &post("{}"), AMPLE).await;
        assert_eq!(error_name(&report), "tls", "{name}");
    }
}

#[tokio::test]
async fn authorities_of_one_template_are_believed_for_no_other() {
    let (ca, other) = (Ca::new(), Ca::new());
    let receiver = receiver(plain_server(ca.issue(&["127.0.0.1"], false))).await;
    let (client, _stage) = client();
    let with = |ca: &Ca| {
        let authorities = Authorities::parse(&ca.pem()).expect("PEM");
        AttemptRequest { certificates: Certificates::VerifiedWith(authorities), ..post("{}") }
    };
    let url = url(&receiver, "127.0.0.1");
    for reused in [false, true] {
        let report = client.attempt(&url, &with(&ca), AMPLE).await;
        assert_eq!((status(&report), report.reused), (200, reused));
    }
    // Neither the idle connection nor the resumable session serves another template.
    for request in [post("{}"), with(&other)] {
        let report = client.attempt(&url, &request, AMPLE).await;
        assert_eq!(error_name(&report), "tls");
    }
    let report = client.attempt(&url, &with(&ca), AMPLE).await;
    assert_eq!((status(&report), report.reused), (200, true));
}

#[tokio::test]
async fn own_authorities_vouch_for_no_wrong_name_and_no_old_certificate() {
    let ca = Ca::new();
    let authorities = Authorities::parse(&ca.pem()).expect("PEM");
    let request = AttemptRequest { certificates: Certificates::VerifiedWith(authorities), ..post("{}") };
    for certificate in [ca.issue(&["127.0.0.2"], false), ca.issue(&["127.0.0.1"], true)] {
        let receiver = receiver(plain_server(certificate)).await;
        let (client, _stage) = client();
        let report = client.attempt(&url(&receiver, "127.0.0.1"), &request, AMPLE).await;
        assert_eq!(error_name(&report), "tls");
    }
}

#[tokio::test]
async fn self_made_ca_is_not_believed_unless_it_is_named() {
    let receiver = receiver(plain_server(Ca::new().issue(&["127.0.0.1"], false))).await;
    let (client, _stage) = client();
    let report = client.attempt(&url(&receiver, "127.0.0.1"), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "tls");
    let error = report.outcome.expect_err("no answer");
    assert!(error.chain().contains("UnknownIssuer"), "{}", error.chain());
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_a_tls_failure() {
    let receiver = Receiver::start(|mut connection, _| async move {
        // An HTTP server answers the handshake's first bytes like this.
        let mut hello = [0; 32];
        let _ = connection.stream.read_exact(&mut hello).await;
        let text = answer(400, "The plain HTTP request was sent to HTTPS port");
        let _ = tokio::io::AsyncWriteExt::write_all(&mut connection.stream, text.as_bytes()).await;
        while connection.stream.read(&mut hello).await.is_ok_and(|length| length > 0) {}
    })
    .await;
    let (client, _stage) = client();
    let report = client.attempt(&url(&receiver, "127.0.0.1"), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "tls");
}

#[tokio::test]
async fn demand_for_a_client_certificate_is_a_tls_failure() {
    let ca = Ca::new();
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.der().clone()).expect("a CA");
    let (certificate, key) = ca.issue(&["127.0.0.1"], false);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
    let acceptor = server(|builder| {
        builder.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).expect("a fitting key")
    });
    let receiver = receiver(acceptor).await;
    let (client, _stage) = ca.client(names());
    let report = client.attempt(&url(&receiver, "127.0.0.1"), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "tls", "{report:?}");
}

#[tokio::test]
async fn stalled_handshake_ends_at_the_deadline() {
    let receiver = Receiver::start(|connection, _| hang(connection)).await;
    let (client, _stage) = client();
    let report = client.attempt(&url(&receiver, "127.0.0.1"), &post("{}"), SHORT).await;
    let error = report.outcome.expect_err("no answer");
    assert!(matches!(error, AttemptError::TimedOut { phase: Phase::Connecting, .. }), "{error:?}");
    assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{:?}", report.duration);
}

#[tokio::test]
async fn stalled_address_costs_only_its_share_of_the_deadline() {
    let ca = Ca::new();
    let (stalled, listening) = super::guard::twins().await;
    let stalled = Receiver::on(stalled, |connection, _| hang(connection));
    let acceptor = plain_server(ca.issue(&["receiver.example"], false));
    let receiver = Receiver::on(listening, move |connection, _| serve(connection, acceptor.clone()));
    let (client, _stage) = ca.client(ScriptedNames::new(&["receiver.example"], &[&["127.0.0.1", "127.0.0.2"]]));
    let deadline = 10 * SHORT;

    let report = client.attempt(&url(&receiver, "receiver.example"), &post("{}"), deadline).await;

    assert_eq!((status(&report), report.remote), (200, Some(receiver.address())));
    assert_eq!(stalled.connections(), 1);
    assert!(report.duration >= deadline / 2 - SHORT / 10 && report.duration < deadline, "{:?}", report.duration);
}
