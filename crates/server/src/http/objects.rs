//! The objects of the local store, as a static file server would give them.
//!
//! Objects are pictures of some hundred kilobytes, so each is read whole; how many are read at a time is bounded.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::Shared;
use super::problem::Problem;

/// Larger files are none of ours: no picture passes a worker's limit of 64 MiB.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// Objects that are read into memory at a time.
pub(crate) const READS_MAX: usize = 16;

struct Object {
    bytes: Bytes,
    etag: String,
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Path((bucket, key)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("there is no such object");
    // A name that could lead out of the store is answered like one that is not there.
    let path = shared.store.path(&bucket, &key).map_err(|_| missing())?;
    let _turn = shared.object_reads.acquire().await.expect("the semaphore is never closed");
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let object = match read {
        Ok(Ok(object)) => object,
        Ok(Err(error)) if is_missing(&error) => return Err(missing()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a stored object cannot be read");
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the object cannot be read"));
        }
        Err(_) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server stops")),
    };
    Ok(answer(&object, content_type(&key), method == Method::HEAD, &headers))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

fn read(path: &FilePath) -> io::Result<Object> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if found.len() > OBJECT_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(found.len() as usize);
    file.by_ref().take(OBJECT_BYTES_MAX).read_to_end(&mut bytes)?;
    // An object is replaced by renaming another file over it, which changes its inode even within one tick of the clock.
    let etag = format!("\"{:x}-{:x}-{:x}\"", found.ino(), found.mtime_nsec() ^ found.mtime(), found.len());
    Ok(Object { bytes: bytes.into(), etag })
}

fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("avif") => "image/avif",
        _ => "application/octet-stream",
    }
}

/// What part of an object a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From, and to (not included).
    Bytes(usize, usize),
    Unsatisfiable,
}

/// Reads one range of bytes (RFC 9110, 14.1.2). Several ranges, other units and nonsense are ignored, as the RFC allows.
fn part(range: Option<&str>, len: usize) -> Part {
    let Some((first, last)) =
        range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let (first, last): (Option<usize>, Option<usize>) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Part::Whole,
        (true, false) => (None, last.parse().ok()),
        (false, true) => (first.parse().ok(), None),
        (false, false) => match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => (Some(first), Some(last)),
            _ => return Part::Whole,
        },
    };
    match (first, last) {
        (None, None) => Part::Whole,
        (None, Some(0)) => Part::Unsatisfiable,
        (None, Some(suffix)) => Part::Bytes(len.saturating_sub(suffix), len),
        (Some(first), _) if first >= len => Part::Unsatisfiable,
        (Some(first), last) => Part::Bytes(first, last.map_or(len, |last| last.saturating_add(1).min(len))),
    }
}

fn answer(object: &Object, content_type: &'static str, head_only: bool, asked: &HeaderMap) -> Response {
    let header = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let known = header(header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == object.etag)
    });
    // A range of what was there before is no use: If-Range then asks for the whole.
    let same = header(header::IF_RANGE).is_none_or(|tag| tag == object.etag);
    let len = object.bytes.len();
    let (status, body, range) = match part(header(header::RANGE).filter(|_| same), len) {
        _ if known => (StatusCode::NOT_MODIFIED, Bytes::new(), None),
        Part::Whole => (StatusCode::OK, object.bytes.clone(), None),
        Part::Bytes(from, to) => {
            let range = format!("bytes {from}-{}/{len}", to.saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, object.bytes.slice(from..to), Some(range))
        }
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(format!("bytes */{len}"))),
    };
    let length = HeaderValue::from(body.len());
    let body = if head_only { Body::empty() } else { Body::from(body) };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_LENGTH, length);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, HeaderValue::try_from(&object.etag).expect("an entity tag is a header value"));
    // Keys are given out once, but a person may put another file there.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(range) = range {
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("a range is a header value"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_the_rest_ignored() {
        let cases = [
            ("none", None, Part::Whole),
            ("from and to", Some("bytes=0-9"), Part::Bytes(0, 10)),
            ("from", Some("bytes=90-"), Part::Bytes(90, 100)),
            ("the last ten", Some("bytes=-10"), Part::Bytes(90, 100)),
            ("more than there is", Some("bytes=50-1000"), Part::Bytes(50, 100)),
            ("the last thousand", Some("bytes=-1000"), Part::Bytes(0, 100)),
            ("behind the end", Some("bytes=100-"), Part::Unsatisfiable),
            ("the last none", Some("bytes=-0"), Part::Unsatisfiable),
            ("backwards", Some("bytes=9-0"), Part::Whole),
            ("several", Some("bytes=0-1,5-6"), Part::Whole),
            ("another unit", Some("lines=0-1"), Part::Whole),
            ("nonsense", Some("bytes=a-b"), Part::Whole),
            ("nothing", Some("bytes=-"), Part::Whole),
            ("huge", Some("bytes=18446744073709551615-18446744073709551615"), Part::Unsatisfiable),
        ];
        for (name, range, expected) in cases {
            assert_eq!(part(range, 100), expected, "{name}");
        }
    }

    fn object() -> Object {
        Object { bytes: Bytes::from_static(b"0123456789"), etag: "\"tag\"".to_owned() }
    }

    fn asked(headers: &[(header::HeaderName, &'static str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        answer(&object(), "image/jpeg", false, &headers)
    }

    #[test]
    fn a_known_tag_spares_the_body_and_an_old_one_asks_for_the_whole() {
        let status = |headers: &[_]| asked(headers).status().as_u16();
        assert_eq!(status(&[]), 200);
        assert_eq!(status(&[(header::IF_NONE_MATCH, "\"other\", \"tag\"")]), 304);
        assert_eq!(status(&[(header::IF_NONE_MATCH, "W/\"tag\"")]), 304);
        assert_eq!(status(&[(header::IF_NONE_MATCH, "\"other\"")]), 200);
        assert_eq!(status(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"tag\"")]), 206);
        assert_eq!(status(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"other\"")]), 200);
        assert_eq!(status(&[(header::RANGE, "bytes=10-")]), 416);
    }
}
