//! What a session reads from and writes to: a socket, or TLS on one. Both are tried when they say that they are ready, or
//! when it is time to look, so that a connection that waits holds no buffer of ours.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use nix::libc::{self, SO_RCVLOWAT, SOL_SOCKET};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetUsize;
use rustix::net::RecvFlags;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Bytes that TLS may hold for a peer that does not read: a session's replies to one publish have some 4 KB.
const UNSENT_BYTES_MAX: usize = 16 << 10;

/// The longest record of TLS, with its header (RFC 8446, 5.2).
const RECORD_BYTES_MAX: usize = (16 << 10) + 256 + 5;

/// Bytes of the wire after which one try to read ends, whatever came of them. A peer may send records with nothing in them
/// for as long as it likes; each turn of its session must end all the same.
const WIRE_BYTES_PER_TRY: usize = 256 << 10;

/// From how many bytes on a socket says that it is ready: `SO_RCVLOWAT` of socket(7), in bytes.
#[derive(Clone, Copy)]
struct ReceiveLowWater;

nix::setsockopt_impl!(ReceiveLowWater, SOL_SOCKET, SO_RCVLOWAT, usize, SetUsize);

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
    /// What went wrong behind the bytes that the last try gave.
    failed: Option<io::Error>,
    /// Bytes read from the socket since somebody asked.
    wire_bytes: usize,
}

impl Transport {
    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        let (socket, mut session) = stream.into_inner();
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        // The peer's first bytes may have come with the end of its handshake.
        Self::Tls(Box::new(Tls { socket, session, may_hold_more: true, failed: None, wire_bytes: 0 }))
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
            Self::Plain(socket) => receive(socket, buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// The socket says that it is ready when so many bytes can be read, or when its peer cannot send more or has ended. For TLS
    /// up to a record earlier.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn set_low_water(&self, bytes: usize) -> io::Result<()> {
        let bytes = match self {
            Self::Plain(_) => bytes,
            // Some of them may be here already, in a record that is not whole.
            Self::Tls(_) => bytes.saturating_sub(RECORD_BYTES_MAX).max(1),
        };
        Ok(setsockopt(self.socket(), ReceiveLowWater, &bytes)?)
    }

    /// Bytes of the wire that were read since this was last asked. A plain socket's are those that it gave.
    pub(super) fn take_wire_bytes(&mut self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => std::mem::take(&mut tls.wire_bytes),
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
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled = 0;
        let mut wire_bytes = 0;
        let end = loop {
            match self.session.reader().read(&mut buffer[filled..]) {
                // The peer's end, or a buffer that is full: either way there is something left to tell.
                Ok(0) => break End::Told,
                Ok(count) => {
                    filled += count;
                    continue;
                }
                // A peer that closes without a farewell: encoders do, and a cut-off message is no message in RTMP either.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break End::Told,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => break End::Failed(error),
            }
            if wire_bytes >= WIRE_BYTES_PER_TRY {
                break End::TurnOver;
            }
            match self.session.read_tls(&mut TrySocket(&self.socket)) {
                Ok(count) => wire_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break End::Empty,
                Err(error) => break End::Failed(error),
            }
            if let Err(error) = self.session.process_new_packets() {
                // Its alert says to the peer why.
                let _ = self.push();
                break End::Failed(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        self.wire_bytes += wire_bytes;
        self.may_hold_more = !matches!(end, End::Empty);
        match end {
            // What was read before it comes first.
            End::Failed(error) if filled > 0 => {
                self.failed = Some(error);
                Ok(filled)
            }
            End::Failed(error) => Err(error),
            _ if filled > 0 => Ok(filled),
            End::Told => Ok(0),
            End::TurnOver | End::Empty => Err(io::ErrorKind::WouldBlock.into()),
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

/// Why a try to read has ended.
enum End {
    /// The socket has nothing more now.
    Empty,
    /// The peer's end, or no room in the buffer: the next try says more.
    Told,
    /// It has read enough for one turn.
    TurnOver,
    Failed(io::Error),
}

/// Reads what the socket has, whether or not it has said that it is ready. When less comes than was asked for, it holds
/// nothing more: it then counts as not ready until something comes, which saves the try that would only learn so.
fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let asked_for = buffer.len();
    let mut from_kernel = || Ok::<_, io::Error>(rustix::net::recv(socket, &mut *buffer, RecvFlags::empty())?.1);
    let mut received = None;
    // What it gives is in `received`; all it is told is whether there may be more.
    let _ = socket.try_io(Interest::READABLE, || {
        let result = received.insert(from_kernel());
        match result {
            Ok(count) if *count > 0 && *count < asked_for => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    received.unwrap_or_else(from_kernel)
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
        receive(self.0, buffer)
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;

    use framehook_testkit::tls::{Ca, TlsStream};
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::live::scene::{PATIENCE, until};

    /// A peer on a thread's socket, and our side of its connection.
    async fn pair() -> (TlsStream, Transport) {
        let ca = Ca::new().expect("an authority");
        let issued = ca.issue(2040).expect("a certificate");
        let certificate = CertificateDer::from_pem_slice(issued.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let peer = tokio::task::spawn_blocking(move || ca.connect(address, PATIENCE).expect("shaken hands"));
        let (socket, _) = listener.accept().await.expect("accepted");
        let ours = TlsAcceptor::from(Arc::new(config)).accept(socket).await.expect("shaken hands");
        (peer.await.expect("connected"), Transport::tls(ours))
    }

    #[tokio::test]
    async fn a_turn_ends_however_little_there_is_in_what_the_peer_sends() {
        let (mut peer, mut ours) = pair().await;
        // Each byte in a record of its own, as much as the sockets hold.
        peer.sock.set_nonblocking(true).expect("set");
        let mut sent = 0;
        while peer.write(b"x").is_ok() && peer.flush().is_ok() {
            sent += 1;
        }
        let (mut buffer, mut read) = (vec![0; 1 << 20], 0);
        let mut turns = Vec::new();
        while read < sent {
            ours.readable().await.expect("readable");
            match ours.try_read(&mut buffer) {
                Ok(count) => read += count,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            turns.push(ours.take_wire_bytes());
        }
        let record = 16 << 10;
        assert!(turns.iter().all(|bytes| *bytes <= WIRE_BYTES_PER_TRY + record), "{turns:?}");
        assert!(turns.iter().sum::<usize>() > 2 * WIRE_BYTES_PER_TRY, "the sockets held too little: {turns:?}");
    }

    #[tokio::test]
    async fn a_burst_is_read_to_its_end_although_the_socket_falls_silent() {
        let (mut peer, mut ours) = pair().await;
        let sent: Vec<u8> = (0..1_u32 << 20).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let sending = tokio::task::spawn_blocking(move || {
            peer.write_all(&sent).and_then(|()| peer.flush()).expect("sent");
            peer
        });
        // A buffer that is often full, while the session holds more than the socket.
        let (mut buffer, mut read) = (vec![0; 5000], Vec::new());
        while read.len() < expected.len() {
            ours.readable().await.expect("readable");
            match ours.try_read(&mut buffer) {
                Ok(count) => read.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(read == expected);
        let mut peer = sending.await.expect("sent");
        peer.conn.send_close_notify();
        peer.flush().expect("sent");
        let end = loop {
            ours.readable().await.expect("readable");
            match ours.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                end => break end,
            }
        };
        assert_eq!(end.expect("the end"), 0);
    }

    #[tokio::test]
    async fn a_socket_that_is_left_alone_is_not_ready_for_less_and_can_be_read_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (socket, _) = listener.accept().await.expect("accepted");
        let mut ours = Transport::Plain(socket);
        ours.set_low_water(1000).expect("set");
        let mut buffer = [0; 4096];
        // tokio takes an accepted socket for readable until a read says otherwise.
        assert_eq!(ours.try_read(&mut buffer).expect_err("nothing yet").kind(), io::ErrorKind::WouldBlock);
        peer.write_all(&[1; 999]).await.expect("sent");
        until("the bytes", async || {
            let peeked = rustix::net::recv(ours.socket(), &mut [0; 4096], RecvFlags::PEEK);
            peeked.is_ok_and(|(_, count)| count == 999)
        })
        .await;
        // Had the kernel woken us, a turn of the reactor would know by now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let is_ready = tokio::time::timeout(std::time::Duration::ZERO, ours.readable()).await.is_ok();
        assert!(!is_ready, "ready for 999 bytes of 1000");
        assert_eq!(ours.try_read(&mut buffer).expect("read"), 999);

        peer.write_all(&[2; 1000]).await.expect("sent");
        ours.readable().await.expect("readable");
        assert_eq!(ours.try_read(&mut buffer).expect("read"), 1000);

        ours.set_low_water(1).expect("set");
        peer.write_all(&[3]).await.expect("sent");
        ours.readable().await.expect("readable");
        assert_eq!(ours.try_read(&mut buffer).expect("read"), 1);

        // The end of the peer is told whatever the mark is.
        ours.set_low_water(1000).expect("set");
        drop(peer);
        ours.readable().await.expect("readable");
        assert_eq!(ours.try_read(&mut buffer).expect("the end"), 0);
    }

    #[tokio::test]
    async fn tls_says_that_bytes_are_there_although_a_part_of_their_record_was_read_before() {
        const BYTES: usize = 10_000;
        let (mut peer, mut ours) = pair().await;
        let mut buffer = [0; 2 * BYTES];
        // Whatever the handshake has left.
        until("nothing to read", async || ours.try_read(&mut buffer).is_err()).await;
        ours.take_wire_bytes();
        peer.conn.writer().write_all(&[7; BYTES]).expect("room");
        let mut record = Vec::new();
        peer.conn.write_tls(&mut record).expect("sealed");
        let (first, rest) = record.split_at(6000);
        peer.sock.write_all(first).expect("sent");
        let mut read = 0;
        until("a part of the record", async || {
            assert!(ours.try_read(&mut buffer).is_err(), "half a record gives nothing");
            read += ours.take_wire_bytes();
            read == first.len()
        })
        .await;
        ours.set_low_water(BYTES).expect("set");
        peer.sock.write_all(rest).expect("sent");
        tokio::time::timeout(PATIENCE, ours.readable()).await.expect("ready").expect("readable");
        assert_eq!(ours.try_read(&mut buffer).expect("read"), BYTES);
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_given_first_and_then_the_error() {
        let (mut peer, mut ours) = pair().await;
        peer.write_all(b"said").and_then(|()| peer.flush()).expect("sent");
        peer.sock.write_all(b"\x17\x03\x03\x00\x20no record that anybody has sealed").expect("sent");
        let mut buffer = [0; 100];
        let mut given = Vec::new();
        until("the error", async || match ours.try_read(&mut buffer) {
            Ok(count) => {
                given.extend_from_slice(&buffer[..count]);
                false
            }
            Err(error) => error.kind() == io::ErrorKind::InvalidData,
        })
        .await;
        assert_eq!(given, b"said");
        let _ = peer.read(&mut buffer);
    }
}
