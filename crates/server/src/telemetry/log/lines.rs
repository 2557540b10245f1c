//! Lines on their way to standard error, written by a thread of their own: a pipe that nobody reads fills up after 64 KiB,
//! and a publisher's thread that writes to it would wait for ever.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. A line has some 200 bytes, so these are written within a millisecond by anything that reads.
const LINES_MAX: usize = 1024;

/// Longest line; what is behind it is cut off. No line of ours comes near, but errors quote what they were given. With
/// [`LINES_MAX`] this bounds the memory to 16 MiB.
const LINE_BYTES_MAX: usize = 16 << 10;

/// How long the end of the process waits for lines to be written. The last ones say why it ended, and a reader that is
/// there takes them at once.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// Where lines wait. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// Lines that found no room since that was last told.
    left_out: u64,
    /// A line has been taken out and is being written.
    is_writing: bool,
}

/// Waits on drop until what was logged is written, for a while: hold it until the process has nothing more to say.
#[derive(Debug)]
#[must_use = "dropped at once, the last lines of the process are lost"]
pub struct Flush {
    lines: Lines,
}

impl Lines {
    /// Starts the thread that writes to `out`. `tell` is called after lines were left out, with their number.
    pub(super) fn start(out: impl Write + Send + 'static, tell: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        let lines = Self { shared: Arc::default() };
        let shared = Arc::clone(&lines.shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write(out, tell))?;
        Ok(lines)
    }

    pub(super) fn flush_on_drop(&self) -> Flush {
        Flush { lines: self.clone() }
    }

    /// Never waits.
    fn put(&self, line: &[u8]) {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() >= LINES_MAX {
            waiting.left_out += 1;
            return;
        }
        let kept = &line[..line.len().min(LINE_BYTES_MAX)];
        let mut kept = kept.to_vec();
        if kept.len() < line.len() {
            kept.push(b'\n');
        }
        waiting.lines.push_back(kept);
        drop(waiting);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// The writing thread. It ends with the process: nothing it could do at an end would be better than being cut off.
    fn write(&self, mut out: impl Write, tell: impl Fn(u64)) {
        loop {
            let waiting = self.lock();
            let is_idle = |waiting: &mut Waiting| waiting.lines.is_empty();
            let mut waiting = self.changed.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner);
            let line = waiting.lines.pop_front().unwrap_or_default();
            waiting.is_writing = true;
            let left_out = std::mem::take(&mut waiting.left_out);
            drop(waiting);
            // There is nobody left who could be told that the log cannot be written.
            let _ = out.write_all(&line);
            if left_out > 0 {
                tell(left_out);
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let shared = &self.lines.shared;
        let is_behind = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // Whether it is done or out of time, the process goes on to its end.
        let _ = shared.changed.wait_timeout_while(shared.lock(), FLUSH_GRACE, is_behind);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line: the subscriber writes each whole.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, pipe};
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_full_pipe_holds_nobody_up_and_what_was_left_out_is_counted() {
        let (reader, writer) = pipe().expect("a pipe");
        let (told, tells) = mpsc::sync_channel(LINES_MAX);
        let lines = Lines::start(writer, move |count| told.send(count).expect("heard")).expect("a thread");
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // Far more than the pipe and the queue hold together; the test would hang here if anybody waited.
        let all = 4 * LINES_MAX;
        for _ in 0..all {
            lines.make_writer().write_all(&line).expect("it never fails");
        }
        let mut file = File::from(OwnedFd::from(reader));
        let (mut read, mut left_out) = (0, 0);
        let mut buffer = vec![0; line.len()];
        while read + left_out < all {
            file.read_exact(&mut buffer).expect("a line");
            read += 1;
            left_out += tells.try_iter().sum::<u64>() as usize;
            if read >= LINES_MAX && left_out == 0 {
                left_out += tells.recv_timeout(PATIENCE).expect("the number of lines left out") as usize;
            }
        }
        assert!(read >= LINES_MAX && left_out > 0, "{read} read, {left_out} left out");
        assert_eq!(read + left_out, all);
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let (reader, writer) = pipe().expect("a pipe");
        let lines = Lines::start(writer, |_| {}).expect("a thread");
        lines.make_writer().write_all(&vec![b'x'; 2 * LINE_BYTES_MAX]).expect("it never fails");
        let mut read = vec![0; LINE_BYTES_MAX + 1];
        File::from(OwnedFd::from(reader)).read_exact(&mut read).expect("the line");
        assert_eq!(read.last(), Some(&b'\n'));
    }

    #[test]
    fn the_end_waits_for_what_was_said_but_not_for_a_reader_that_is_not_there() {
        let (reader, writer) = pipe().expect("a pipe");
        let lines = Lines::start(writer, |_| {}).expect("a thread");
        lines.make_writer().write_all(b"the last line\n").expect("it never fails");
        drop(lines.flush_on_drop());
        let mut read = [0; 14];
        let mut file = File::from(OwnedFd::from(reader));
        file.read_exact(&mut read).expect("the line");
        assert_eq!(&read, b"the last line\n");

        let line = vec![b'x'; LINE_BYTES_MAX];
        (0..100).for_each(|_| lines.make_writer().write_all(&line).expect("it never fails"));
        // Nobody reads: this comes back all the same.
        drop(lines.flush_on_drop());
    }
}
