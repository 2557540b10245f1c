//! Counts what a receiver sends, and ends the connection where it is more than any answer needs.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::fail_point;

/// What a connection speaks over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// What was received so far, and how much more is taken. Shared with the transport, which hyper owns.
#[derive(Debug, Default)]
pub(super) struct Meter {
    received: AtomicUsize,
    limit: AtomicUsize,
    alert: OnceLock<rustls::Error>,
}

// Relaxed everywhere: each count stands for itself, and a limit that is seen a read late is off by that read.
impl Meter {
    /// Counts from zero again, up to `limit`.
    pub(super) fn count_anew(&self, limit: usize) {
        self.received.store(0, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes `more` bytes from here on.
    pub(super) fn allow(&self, more: usize) {
        self.limit.store(self.received().saturating_add(more), Ordering::Relaxed);
    }

    pub(super) fn lift(&self) {
        self.limit.store(usize::MAX, Ordering::Relaxed);
    }

    pub(super) fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn has_overrun(&self) -> bool {
        self.received() >= self.limit.load(Ordering::Relaxed)
    }

    /// The TLS error that ended the connection, if one did.
    pub(super) fn alert(&self) -> Option<io::Error> {
        self.alert.get().cloned().map(io::Error::other)
    }
}

/// Most bytes of a sip. Interim heads of HTTP/2, the dearest to keep, are 14 bytes on the wire and some 200 in memory, so a sip of
/// them is 60 KiB.
const SIP_BYTES: usize = 4 << 10;

/// The transport, its reads counted and ended at the meter's limit.
pub(super) struct Metered {
    transport: Box<dyn Transport>,
    meter: Arc<Meter>,
    sips: Sips,
}

/// Whether reads are cut into sips, with other tasks' turns between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sips {
    No,
    Taken,
    Next,
}

impl Metered {
    /// Nothing is read before the meter allows it.
    pub(super) fn new(transport: Box<dyn Transport>) -> (Self, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        (Self { transport, meter: Arc::clone(&meter), sips: Sips::No }, meter)
    }

    /// The same for a connection that is read in one task for requests in others: what was read for these is kept until they
    /// have taken it, so they must have their turn before there is more.
    pub(super) fn in_sips(transport: Box<dyn Transport>) -> (Self, Arc<Meter>) {
        let (metered, meter) = Self::new(transport);
        (Self { sips: Sips::Next, ..metered }, meter)
    }

    fn sip(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.sips == Sips::Taken {
            self.sips = Sips::Next;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut sip = ReadBuf::new(buf.initialize_unfilled_to(SIP_BYTES.min(buf.remaining())));
        let read = Pin::new(&mut self.transport).poll_read(cx, &mut sip);
        let length = sip.filled().len();
        buf.advance(length);
        if read.is_ready() {
            self.sips = Sips::Taken;
        }
        read
    }

    /// Keeps a TLS error, which HTTP libraries hand on as text at best.
    fn note<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done
            && let Some(alert) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
        {
            // The first one is the cause.
            let _ = self.meter.alert.set(alert.clone());
        }
        done
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.has_overrun() {
            return Poll::Ready(Err(io::Error::other("more bytes than an answer needs")));
        }
        let before = buf.filled().len();
        let read = match self.sips {
            Sips::No => Pin::new(&mut self.transport).poll_read(cx, buf),
            Sips::Taken | Sips::Next => self.sip(cx, buf),
        };
        self.meter.received.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        self.note(read)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        sent(self.note(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        sent(self.note(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}

/// From here on the receiver may have the request: with HTTP/1.1, head and body leave in one write.
fn sent(written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(1..)) = written {
        fail_point::pass("attempt_sent");
    }
    written
}
