//! Reads a body whole, but never more of it than was agreed.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

/// The body's bytes.
///
/// # Errors
/// When it has more than `bytes_max`, or breaks off.
#[expect(clippy::disallowed_methods, reason = "this is the reading through a cap that the rule asks for")]
pub(crate) async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes> {
    let read = Limited::new(body, bytes_max).collect().await.map_err(|error| anyhow::anyhow!(error))?;
    Ok(read.to_bytes())
}
