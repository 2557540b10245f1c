//! Server-sent events (WHATWG HTML 9.2) as a client reads them: one answer that goes on.

use std::io::{BufRead as _, BufReader, Read, Write};

use anyhow::{Context, Result, ensure};

use super::{Connection, HEAD_BYTES_MAX, Headers, read_answer_head, read_line};

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name.
    pub kind: String,
    pub data: String,
}

impl Event {
    /// # Errors
    /// When the data is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.data).with_context(|| format!("JSON from {:?}", self.data))
    }
}

/// An answer that goes on, read as it comes.
#[derive(Debug)]
pub struct Events<S> {
    lines: BufReader<Chunks<S>>,
    pub headers: Headers,
    /// Lines so far that only say that the server is there.
    pub comments: u32,
}

impl<S: Read + Write> Events<S> {
    /// Asks for a stream of events and reads the head of the answer.
    ///
    /// # Errors
    /// When the answer is none.
    pub fn open(mut connection: Connection<S>, target: &str, headers: &[(&str, &str)]) -> Result<Self> {
        connection.send("GET", target, headers, b"")?;
        let (status, headers) = read_answer_head(&mut connection.stream)?;
        ensure!(status == 200, "GET {target} gave {status}");
        ensure!(headers.get("content-type") == Some("text/event-stream"), "{headers:?}");
        ensure!(headers.is_chunked(), "{headers:?}");
        let chunks = Chunks { stream: connection.stream, left: 0, has_ended: false };
        Ok(Self { lines: BufReader::new(chunks), headers, comments: 0 })
    }

    /// The next event; `None` once the server has ended the answer in order.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for as long as its socket waits.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let Some(line) = self.next_line()? else { return Ok(None) };
            match line.split_once(':') {
                None if line.is_empty() && kind.is_empty() && data.is_empty() => {}
                None if line.is_empty() => return Ok(Some(Event { kind, data })),
                Some(("", _)) => self.comments += 1,
                Some(("event", name)) => kind = name.trim_start().to_owned(),
                Some(("data", more)) => data += more.trim_start(),
                _ => anyhow::bail!("no line of an event: {line:?}"),
            }
        }
    }

    /// Reads one line that only says that the server is there.
    ///
    /// # Errors
    /// When something else comes, or nothing does.
    pub fn wait_for_comment(&mut self) -> Result<()> {
        loop {
            match self.next_line()?.context("the answer has ended")?.as_str() {
                "" => {}
                line if line.starts_with(':') => {
                    self.comments += 1;
                    return Ok(());
                }
                line => anyhow::bail!("no comment: {line:?}"),
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let read = self.lines.by_ref().take(HEAD_BYTES_MAX as u64).read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// A chunked body without its chunks' frames.
#[derive(Debug)]
struct Chunks<S> {
    stream: BufReader<S>,
    /// Bytes of the chunk that are still to come.
    left: u64,
    has_ended: bool,
}

impl<S: Read> Read for Chunks<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.has_ended {
            let line = read_line(&mut self.stream)?;
            let length = line.trim_end();
            self.left = u64::from_str_radix(length, 16)
                .map_err(|_| std::io::Error::other(format!("the answer breaks off: chunk length {length:?}")))?;
            if self.left == 0 {
                read_line(&mut self.stream)?;
                self.has_ended = true;
            }
        }
        let read = self.stream.by_ref().take(self.left).read(buffer)?;
        if read == 0 && self.left > 0 {
            return Err(std::io::Error::other("the answer breaks off in a chunk"));
        }
        self.left -= read as u64;
        if self.left == 0 && read > 0 {
            read_line(&mut self.stream)?;
        }
        Ok(read)
    }
}
