//! What a session reads from and writes to: a socket, or TLS on one. Both are asked whether they are ready and then tried,
//! so that a connection that waits holds no buffer of ours.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Bytes that TLS may hold for a peer that does not read: a session's replies to one publish have some 4 KB.
const UNSENT_BYTES_MAX: usize = 16 << 10;

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// TLS without tasks or waiting of its own. What it holds of the peer's bytes is at most one record of 16 KiB.
pub(super) struct Tls {
    socket: TcpStream,
    session: ServerConnection,
    /// Whether it may have something to read that the socket has not any more.
    may_hold_more: bool,
}

impl Transport {
    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        let (socket, mut session) = stream.into_inner();
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        // The peer's first bytes may have come with the end of its handshake.
        Self::Tls(Box::new(Tls { socket, session, may_hold_more: true }))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Waits until there may be something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.may_hold_more => Ok(()),
            _ => self.socket().readable().await,
        }
    }

    /// Reads what is there, as much as fits; 0 at the peer's end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; what the kernel said, or `InvalidData` for what is no TLS.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// Takes what can be taken of `bytes`.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can; what the kernel said.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Sends what was taken and waits in here, as far as the peer reads.
    ///
    /// # Errors
    /// What the kernel said, but for `WouldBlock`.
    pub(super) fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => unless_it_blocks(tls.push()),
        }
    }

    /// Ends our side. The peer may go on sending.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
        }
        self.push()?;
        Ok(rustix::net::shutdown(self.socket(), rustix::net::Shutdown::Write)?)
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }
}

impl Tls {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let end = loop {
            match self.session.reader().read(&mut buffer[filled..]) {
                // The peer's end, or a buffer that is full: either way there is something left to tell.
                Ok(0) => break Ok(true),
                Ok(count) => {
                    filled += count;
                    continue;
                }
                // A peer that closes without a farewell: encoders do, and a cut-off message is no message in RTMP either.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => break Err(error),
            }
            if let Err(error) = self.session.read_tls(&mut TrySocket(&self.socket)) {
                break if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
            }
            if let Err(error) = self.session.process_new_packets() {
                // Its alert says to the peer why.
                let _ = self.push();
                break Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        // An error is met again by the next try; first comes what was read before it.
        self.may_hold_more = !matches!(end, Ok(false));
        match end {
            _ if filled > 0 => Ok(filled),
            Ok(true) => Ok(0),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let taken = self.session.writer().write(bytes)?;
        unless_it_blocks(self.push())?;
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut TrySocket(&self.socket))?;
        }
        Ok(())
    }
}

fn unless_it_blocks(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        done => done,
    }
}

/// A socket as rustls wants it: what cannot be done at once is `WouldBlock`.
struct TrySocket<'a>(&'a TcpStream);

impl io::Read for TrySocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for TrySocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
