//! Fetches an object over HTTP or HTTPS: what the receiver needs to see that an announced picture is there.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body;

/// Largest object that is fetched: more than the largest JPEG that a template can ask for.
const OBJECT_BYTES_MAX: usize = 64 << 20;

/// Time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(10);

/// Believes the authorities that the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
static SYSTEM: LazyLock<TlsConnector> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    // With none that can be read every certificate is refused, and the check says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    believing(roots)
});

fn believing(roots: RootCertStore) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the library's own provider has the versions that are on by default")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

/// The body of a 200 answer to `GET url`.
///
/// # Errors
/// When the URL is neither HTTP nor HTTPS, nobody answers in time, the certificate is not to be believed, or the answer is
/// not 200.
pub(crate) async fn get(url: &str) -> Result<Bytes> {
    get_over(&SYSTEM, url).await
}

async fn get_over(tls: &TlsConnector, url: &str) -> Result<Bytes> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    let is_private = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("only http:// and https:// objects are fetched, this is {url}"),
    };
    let host = uri.host().context("the URL names no host")?.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if is_private { 443 } else { 80 });
    let exchange = async {
        let stream = TcpStream::connect((host, port)).await?;
        if is_private {
            let name = ServerName::try_from(host.to_owned())?;
            ask(tls.connect(name, stream).await.context("TLS")?, &uri).await
        } else {
            ask(stream, &uri).await
        }
    };
    let (status, body) = tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")??;
    if status != StatusCode::OK {
        bail!("GET {url} answered {status}");
    }
    Ok(body)
}

/// One request over a connection of its own.
async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uri: &Uri) -> Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(target).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, body::read(response.into_body(), OBJECT_BYTES_MAX).await?))
    });
    tokio::select! {
        answered = &mut answer => answered,
        // A store may answer and close at once. If that was no whole answer, the error says why.
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use framehook_testkit::tls::Ca;
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A store with a certificate from `ca` that answers one request with `picture`.
    async fn serve_once(listener: TcpListener, ca: &Ca) -> Result<()> {
        let issued = ca.issue(2040)?;
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(issued.der)], key)?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(listener.accept().await?.0).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        assert!(head.starts_with(b"GET /a%20b.jpg?sign=1 HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\npicture").await?;
        Ok(stream.shutdown().await?)
    }

    async fn fetched_from(ca: &Ca, believed: &Ca) -> Result<Bytes> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/a%20b.jpg?sign=1", listener.local_addr()?);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(believed.pem().as_bytes())?)?;
        let tls = believing(roots);
        // Whether the store is content is not asked where its certificate is refused.
        tokio::join!(get_over(&tls, &url), serve_once(listener, ca)).0
    }

    #[tokio::test]
    async fn an_object_comes_over_https_from_a_store_that_is_believed() {
        let (ours, other) = (Ca::new().unwrap(), Ca::new().unwrap());
        assert_eq!(fetched_from(&ours, &ours).await.unwrap(), "picture");
        let refused = format!("{:#}", fetched_from(&other, &ours).await.unwrap_err());
        assert!(refused.starts_with("TLS: ") && refused.contains("certificate"), "{refused}");
    }

    #[tokio::test]
    async fn nothing_but_http_and_https_is_fetched() {
        for url in ["ftp://127.0.0.1/a", "/a", "file:///etc/passwd"] {
            assert!(get(url).await.is_err(), "{url}");
        }
    }
}
