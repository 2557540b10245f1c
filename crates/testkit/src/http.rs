//! As much HTTP/1.1 as tests need on plain TCP: reading a message and sending one request. Written by hand because the
//! receiver has to break off, stall and trickle in places where a library would not let it.

mod events;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use events::{Event, Events};

/// Largest head (first line and headers) that is read. Ours are under 1 KiB.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest body that is read: pictures of 2160p are about 2 MiB.
const BODY_BYTES_MAX: usize = 64 << 20;
const HEADERS_MAX: usize = 64;

/// Header lines in the order they came, names as they came.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a header; names are compared without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parsed(headers: &[httparse::Header<'_>]) -> Self {
        let line = |header: &httparse::Header<'_>| {
            (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned())
        };
        Self(headers.iter().map(line).collect())
    }

    fn length(&self) -> Result<Option<usize>> {
        self.get("content-length").map(|value| value.parse().with_context(|| format!("length {value:?}"))).transpose()
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Errors
    /// When the body is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("JSON from {:?}", self.text()))
    }
}

/// Sends one request on a connection of its own and reads the whole answer.
///
/// # Errors
/// When the server cannot be reached, does not speak HTTP or lets more than `patience` pass between two bytes.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    patience: Duration,
) -> Result<Response> {
    let what = || format!("{method} http://{address}{target}");
    let stream = connect(address, patience).with_context(what)?;
    let headers = [&[("connection", "close")], headers].concat();
    Connection::over(stream, address.to_string()).request(method, target, &headers, body).with_context(what)
}

/// A socket on which nothing takes longer than `patience`.
///
/// # Errors
/// When nobody listens.
pub fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// A connection that is kept from request to request.
#[derive(Debug)]
pub struct Connection<S> {
    stream: BufReader<S>,
    host: String,
}

impl<S: Read + Write> Connection<S> {
    /// `host` is what requests name.
    pub fn over(stream: S, host: impl Into<String>) -> Self {
        Self { stream: BufReader::new(stream), host: host.into() }
    }

    /// What lies below.
    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer, or it is not HTTP.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        self.send(method, target, headers, body)?;
        read_response(&mut self.stream, method)
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.host);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        Ok(self.stream.get_mut().flush()?)
    }
}

/// The status and the header lines of an answer.
fn read_answer_head(stream: &mut impl BufRead) -> Result<(u16, Headers)> {
    let head = read_head(stream)?.context("closed without an answer")?;
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut lines);
    ensure!(parsed.parse(&head).context("head of an answer")?.is_complete(), "head of an answer cut off");
    let status = parsed.code.context("an answer has a status")?;
    Ok((status, Headers::parsed(parsed.headers)))
}

fn read_response(stream: &mut impl BufRead, method: &str) -> Result<Response> {
    let (status, headers) = read_answer_head(stream)?;
    let body = if method == "HEAD" || status == 204 || status == 304 {
        Vec::new()
    } else if headers.is_chunked() {
        read_chunks(stream)?
    } else if let Some(length) = headers.length()? {
        read_exactly(stream, length)?
    } else {
        let mut body = Vec::new();
        stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut body).context("body up to the end")?;
        body
    };
    Ok(Response { status, headers, body })
}

/// A request as a server reads it.
#[derive(Clone, Debug)]
pub(crate) struct RawRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// Reads one request; `None` when the peer closed the connection between two.
pub(crate) fn read_request(stream: &mut impl BufRead) -> Result<Option<RawRequest>> {
    let Some(head) = read_head(stream)? else { return Ok(None) };
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    ensure!(parsed.parse(&head).context("head of a request")?.is_complete(), "head of a request cut off");
    let headers = Headers::parsed(parsed.headers);
    let body =
        if headers.is_chunked() { read_chunks(stream)? } else { read_exactly(stream, headers.length()?.unwrap_or(0))? };
    Ok(Some(RawRequest {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers,
        body,
    }))
}

/// Everything up to and including the empty line; `None` when the stream ends before the first byte.
fn read_head(stream: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let left = (HEAD_BYTES_MAX - head.len()) as u64;
        stream.by_ref().take(left).read_until(b'\n', &mut head).context("head")?;
        match &head[before..] {
            b"\r\n" | b"\n" => return Ok(Some(head)),
            b"" if before == 0 => return Ok(None),
            line if line.ends_with(b"\n") => {}
            _ => bail!("head cut off after {} bytes", head.len()),
        }
    }
}

fn read_exactly(stream: &mut impl BufRead, length: usize) -> Result<Vec<u8>> {
    ensure!(length <= BODY_BYTES_MAX, "body of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).context("body")?;
    Ok(body)
}

fn read_chunks(stream: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let length = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .with_context(|| format!("chunk length {line:?}"))?;
        ensure!(body.len() + length <= BODY_BYTES_MAX, "body of {} bytes", body.len() + length);
        body.extend(read_exactly(stream, length)?);
        // Behind data stands an empty line, behind the last chunk the trailers' end.
        ensure!(read_line(stream)?.trim().is_empty(), "a chunk longer than it says");
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.by_ref().take(HEAD_BYTES_MAX as u64).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bodies_of_each_framing() {
        for (framing, bytes) in [
            ("length", &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellorest"[..]),
            (
                "chunks",
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\nrest",
            ),
            ("end of stream", b"HTTP/1.1 200 OK\r\n\r\nhello"),
        ] {
            assert_eq!(read_response(&mut &bytes[..], "GET").unwrap().text(), "hello", "{framing}");
        }
        assert_eq!(
            read_response(&mut &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..], "HEAD").unwrap().text(),
            ""
        );
    }

    #[test]
    fn reads_requests_one_after_another() {
        let mut stream = &b"POST /a?b HTTP/1.1\r\nContent-Length: 2\r\nX-One: 1\r\n\r\n{}GET / HTTP/1.1\r\n\r\n"[..];
        let first = read_request(&mut stream).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.target.as_str(), first.body.as_slice()), ("POST", "/a?b", &b"{}"[..]));
        assert_eq!(first.headers.get("x-one"), Some("1"));
        assert_eq!(read_request(&mut stream).unwrap().unwrap().method, "GET");
        assert!(read_request(&mut stream).unwrap().is_none());
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error() {
        let whole = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        for end in 1..whole.len() {
            assert!(read_request(&mut &whole[..end]).is_err(), "cut at {end}");
        }
    }
}
