//! Fetches an object over plain HTTP: what the receiver needs to see that an announced picture is there.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body;

/// Largest object that is fetched: more than the largest JPEG that a template can ask for.
const OBJECT_BYTES_MAX: usize = 64 << 20;

/// Time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of a 200 answer to `GET url`.
///
/// # Errors
/// When the URL is not plain HTTP, nobody answers in time, or the answer is not 200.
pub(crate) async fn get(url: &str) -> Result<Bytes> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    if uri.scheme_str() != Some("http") {
        bail!("only http:// objects are fetched, this is {url}");
    }
    let authority = uri.authority().context("the URL names no host")?.clone();
    let exchange = async {
        let stream =
            TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80)));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream.await?)).await?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let request = Request::get(target).header(header::HOST, authority.as_str()).body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, body::read(response.into_body(), OBJECT_BYTES_MAX).await?))
        };
        tokio::select! {
            answered = answer => answered,
            ended = connection => { ended?; bail!("the connection ended without an answer") }
        }
    };
    let (status, body) = tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")??;
    if status != hyper::StatusCode::OK {
        bail!("GET {url} answered {status}");
    }
    Ok(body)
}
