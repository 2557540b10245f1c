//! The objects of the local store, as a static file server would give them: in pieces, as fast as the peer takes them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path as FilePath;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::Shared;
use super::problem::Problem;
use crate::db::latest;
use crate::store::LocalStore;

/// What is read at a time: all of an object that is in memory beside hyper's own buffer, whatever its size. Most pictures
/// take a few of them.
const PIECE_BYTES: usize = 64 << 10;

/// An object that is open. What is written under its name from now on is another file.
struct Object {
    file: Arc<File>,
    len: u64,
    etag: String,
}

pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Path((bucket, key)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Before anything is looked up, so that who has no URL learns of no object.
    let store = shared.stores.local();
    let admitted = store.admit(&bucket, &key, query.as_deref().unwrap_or_default(), shared.clock.wall());
    admitted.map_err(|refused| Problem::new(StatusCode::FORBIDDEN, refused.to_string()))?;
    let (in_bucket, under) = (bucket.clone(), key.clone());
    let is_latest = shared.db.read(move |conn| latest::is_latest(conn, LocalStore::NAME, &in_bucket, &under));
    let is_overwritten = is_latest.await?;
    let shown = Shown { content_type: content_type(&key), is_private: store.is_signed(), is_overwritten };
    serve(&shared, &bucket, &key, shown, &method, &headers).await
}

/// How an object is given out.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub(super) content_type: &'static str,
    /// Whether a cache that serves several people may not keep it.
    pub(super) is_private: bool,
    /// Whether another picture may be under the same name at any moment.
    pub(super) is_overwritten: bool,
}

/// The object, or the part of it that is asked for.
pub(super) async fn serve(
    shared: &Shared,
    bucket: &str,
    key: &str,
    shown: Shown,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("there is no such object");
    // A name that could lead out of the store is answered like one that is not there.
    let path = shared.stores.local().files().path(bucket, key).map_err(|_| missing())?;
    let object = match tokio::task::spawn_blocking(move || open(&path)).await {
        Ok(Ok(object)) => object,
        Ok(Err(error)) if is_missing(&error) => return Err(missing()),
        Ok(Err(error)) => {
            if let Some(left_out) = shared.telemetry.admit("objects", "read") {
                tracing::warn!(%error, left_out, "a stored object cannot be read");
            }
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the object cannot be read"));
        }
        Err(_) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server stops")),
    };
    Ok(answer(&object, shown, method == Method::HEAD, headers))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

fn open(path: &FilePath) -> io::Result<Object> {
    // A pipe that somebody put there would let the opening wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(path)?;
    let found = file.metadata()?;
    // An object is replaced by renaming another file over it, which changes its inode even within one tick of the clock.
    let etag = format!("\"{:x}-{:x}-{:x}\"", found.ino(), found.mtime_nsec() ^ found.mtime(), found.len());
    Ok(Object { file: Arc::new(file), len: found.len(), etag })
}

/// A part of a file as a body. Each piece is read when the one before it was taken.
struct Pieces {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    fn of(file: &Arc<File>, from: u64, end: u64) -> Body {
        Body::new(Self { file: Arc::clone(file), at: from, end, reading: None })
    }

    fn read_next(&self) -> JoinHandle<io::Result<Bytes>> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let wanted = usize::try_from(self.end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; wanted];
            file.read_exact_at(&mut piece, at)?;
            Ok(piece.into())
        })
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let mut reading = self.reading.take().unwrap_or_else(|| self.read_next());
        let Poll::Ready(read) = Pin::new(&mut reading).poll(context) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let piece = read.map_err(io::Error::other).flatten();
        if let Ok(piece) = &piece {
            self.at += piece.len() as u64;
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
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
    Bytes(u64, u64),
    Unsatisfiable,
}

/// Reads one range of bytes (RFC 9110, 14.1.2). Several ranges, other units and nonsense are ignored, as the RFC allows.
fn part(range: Option<&str>, len: u64) -> Part {
    let Some((first, last)) =
        range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let (first, last): (Option<u64>, Option<u64>) = match (first.is_empty(), last.is_empty()) {
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

fn answer(object: &Object, shown: Shown, head_only: bool, asked: &HeaderMap) -> Response {
    let header = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let known = header(header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == object.etag)
    });
    // A range of what was there before is no use: If-Range then asks for the whole.
    let same = header(header::IF_RANGE).is_none_or(|tag| tag == object.etag);
    let len = object.len;
    let (status, from, to, range) = match part(header(header::RANGE).filter(|_| same), len) {
        _ if known => (StatusCode::NOT_MODIFIED, 0, 0, None),
        Part::Whole => (StatusCode::OK, 0, len, None),
        Part::Bytes(from, to) => {
            (StatusCode::PARTIAL_CONTENT, from, to, Some(format!("bytes {from}-{}/{len}", to.saturating_sub(1))))
        }
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0, Some(format!("bytes */{len}"))),
    };
    let length = HeaderValue::from(to - from);
    let body = if head_only { Body::empty() } else { Pieces::of(&object.file, from, to) };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    if status.is_success() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(shown.content_type));
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, HeaderValue::try_from(&object.etag).expect("an entity tag is a header value"));
    let caching = match (shown.is_private, shown.is_overwritten) {
        // It may be kept, and is asked for again each time: a tag that is still right spares the body.
        (true, true) => "private, no-cache",
        (false, true) => "public, no-cache",
        // Keys are given out once, but a person may put another file there.
        (true, false) => "private, max-age=3600",
        (false, false) => "public, max-age=3600",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(range) = range {
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("a range is a header value"));
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

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

    fn object(bytes: &[u8]) -> Object {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Object { file: Arc::new(file), len: bytes.len() as u64, etag: "\"tag\"".to_owned() }
    }

    const JPEG: Shown = Shown { content_type: "image/jpeg", is_private: false, is_overwritten: false };

    fn asked(headers: &[(header::HeaderName, &'static str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        answer(&object(b"0123456789"), JPEG, false, &headers)
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

    #[tokio::test]
    async fn an_object_comes_whole_and_in_pieces_of_a_bounded_size() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let object = object(&bytes);
        let asked = |range: &'static str| HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
        for (range, part) in [
            ("bytes=0-", &bytes[..]),
            ("bytes=100-70000", &bytes[100..=70_000]),
            ("bytes=-5", &bytes[3 * PIECE_BYTES..]),
        ] {
            let mut body = answer(&object, JPEG, false, &asked(range)).into_body();
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE_BYTES);
                got.extend_from_slice(&piece);
            }
            assert!(got == part, "{range}");
        }
    }

    #[tokio::test]
    async fn an_object_that_was_cut_short_breaks_the_answer_off() {
        let object = object(b"0123456789");
        object.file.set_len(4).unwrap();
        assert!(
            answer(&object, JPEG, false, &HeaderMap::new()).into_body().frame().await.is_some_and(|read| read.is_err())
        );
    }
}
