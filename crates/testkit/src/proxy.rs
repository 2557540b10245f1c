//! A TCP proxy between two real programs, to break the line between them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::listener::{Accepted, Listener, Stop, lock, reset_on_close};

/// What the line does from now on, to connections that are open and to new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Passes everything on.
    Open,
    /// Passes nothing on and keeps everything open; what the kernels can hold piles up.
    Stalled,
    /// Passes on at most this many bytes per second, in each direction of each connection.
    Slow(u32),
    /// Ends what is open in order; accepts and ends what is new.
    Closed,
    /// As `Closed`, with resets.
    Reset,
}

/// Bytes moved at once. Small, so that `Slow` is even and little is in flight when the line breaks.
const BLOCK_BYTES: usize = 16 << 10;

/// How often a thread that waits for the line or for a peer that does not read looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Shared {
    upstream: SocketAddr,
    line: Mutex<Line>,
    connections: Mutex<Vec<Weak<Connection>>>,
    passed_bytes: AtomicU64,
}

/// Both ends of one connection through the proxy.
struct Connection {
    client: Arc<TcpStream>,
    server: TcpStream,
    resets: AtomicBool,
}

/// Listens on a free loopback port until dropped and connects each connection to its upstream.
pub struct Proxy {
    listener: Listener,
    shared: Arc<Shared>,
}

impl Proxy {
    /// # Errors
    /// When no port can be had.
    pub fn start(upstream: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared {
            upstream,
            line: Mutex::new(Line::Open),
            connections: Mutex::default(),
            passed_bytes: AtomicU64::new(0),
        });
        let listener = Listener::start({
            let shared = Arc::clone(&shared);
            move |accepted| serve(accepted, &shared)
        })?;
        Ok(Self { listener, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Changes what the line does.
    pub fn set(&self, line: Line) {
        *lock(&self.shared.line) = line;
        match line {
            Line::Open | Line::Stalled | Line::Slow(_) => {}
            Line::Closed => self.end_connections(false),
            Line::Reset => self.end_connections(true),
        }
    }

    /// Resets what is open now; new connections pass as before.
    pub fn reset_open_connections(&self) {
        self.end_connections(true);
    }

    /// Bytes passed on towards the upstream so far, over all connections.
    pub fn passed_bytes(&self) -> u64 {
        self.shared.passed_bytes.load(Ordering::Relaxed)
    }

    fn end_connections(&self, with_reset: bool) {
        for connection in lock(&self.shared.connections).drain(..).filter_map(|connection| connection.upgrade()) {
            connection.resets.store(with_reset, Ordering::Relaxed);
            // Ends the reads of both threads. An orderly end is then passed on by them; a reset must not be, since an
            // end of stream would reach the peer first.
            for stream in [&*connection.client, &connection.server] {
                let _ = stream.shutdown(Shutdown::Read);
            }
        }
    }
}

fn serve(accepted: Accepted, shared: &Arc<Shared>) {
    let Accepted { stream: client, stop, .. } = accepted;
    let Some(connection) = connect(client, shared) else { return };
    let back = thread::spawn({
        let (connection, shared, stop) = (Arc::clone(&connection), Arc::clone(shared), Arc::clone(&stop));
        move || pass(&connection.server, &connection.client, &connection.resets, &shared, &stop, None)
    });
    pass(&connection.client, &connection.server, &connection.resets, shared, &stop, Some(&shared.passed_bytes));
    let _ = back.join();
    if connection.resets.load(Ordering::Relaxed) {
        reset_on_close(&connection.client);
        reset_on_close(&connection.server);
    }
}

fn connect(client: Arc<TcpStream>, shared: &Shared) -> Option<Arc<Connection>> {
    // Held until the connection is in the list, so that whoever ends connections sees all that the upstream has seen.
    let mut connections = lock(&shared.connections);
    match *lock(&shared.line) {
        Line::Closed => return None,
        Line::Reset => {
            reset_on_close(&client);
            return None;
        }
        Line::Open | Line::Stalled | Line::Slow(_) => {}
    }
    let server = TcpStream::connect(shared.upstream).ok()?;
    let _ = server.set_nodelay(true);
    for stream in [&*client, &server] {
        let _ = stream.set_write_timeout(Some(LOOK_EVERY));
    }
    let connection = Arc::new(Connection { client, server, resets: AtomicBool::new(false) });
    connections.retain(|connection| connection.strong_count() > 0);
    connections.push(Arc::downgrade(&connection));
    Some(connection)
}

/// Passes one direction on until it ends, then hands that end on.
fn pass(
    mut from: &TcpStream,
    to: &TcpStream,
    resets: &AtomicBool,
    shared: &Shared,
    stop: &Stop,
    count: Option<&AtomicU64>,
) {
    let ends = || stop.is_stopped() || resets.load(Ordering::Relaxed);
    let mut block = [0; BLOCK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut block) {
        while *lock(&shared.line) == Line::Stalled && !ends() {
            stop.pause(LOOK_EVERY);
        }
        // Read first: a lock in the condition would be held through the pause, in which everybody else then waits.
        let line = *lock(&shared.line);
        if let Line::Slow(bytes_per_sec) = line {
            stop.pause(Duration::from_secs_f64(length as f64 / f64::from(bytes_per_sec.max(1))));
        }
        if ends() || write_unless(ends, to, &block[..length]).is_err() {
            break;
        }
        if let Some(count) = count {
            count.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
    if !ends() {
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Writes everything, or gives up when `ends` says so while the peer does not read.
fn write_unless(ends: impl Fn() -> bool, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            // The write time-out.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ends() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A proxy with one connection through it.
    struct Through {
        proxy: Proxy,
        client: TcpStream,
        server: TcpStream,
    }

    fn through() -> Through {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(upstream.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (server, _) = upstream.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Through { proxy, client, server }
    }

    fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn passes_both_ways_and_counts_one() {
        let Through { proxy, mut client, mut server } = through();
        client.write_all(b"ask").unwrap();
        assert_eq!(read(&mut server, 3), b"ask");
        server.write_all(b"answer").unwrap();
        assert_eq!(read(&mut client, 6), b"answer");
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        assert_eq!(proxy.passed_bytes(), 3);
    }

    #[test]
    fn a_stalled_line_keeps_what_it_was_given() {
        let Through { proxy, mut client, mut server } = through();
        proxy.set(Line::Stalled);
        client.write_all(b"late").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        proxy.set(Line::Open);
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(read(&mut server, 4), b"late");
    }

    #[test]
    fn a_slow_line_takes_its_time() {
        let Through { proxy, mut client, mut server } = through();
        proxy.set(Line::Slow(1000));
        let start = Instant::now();
        client.write_all(&[7; 100]).unwrap();
        assert_eq!(read(&mut server, 100), [7; 100]);
        assert!(start.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn a_connection_that_waits_on_a_slow_line_holds_up_no_other() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(upstream.local_addr().unwrap()).unwrap();
        proxy.set(Line::Slow(100));
        // Ten minutes for the one, a hundredth of a second for the other.
        let mut ends = Vec::new();
        for length in [60_000, 1] {
            let mut client = TcpStream::connect(proxy.address()).unwrap();
            let (mut server, _) = upstream.accept().unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(&vec![7; length]).unwrap();
            if length == 1 {
                assert_eq!(read(&mut server, 1), [7]);
            }
            ends.push((client, server));
        }
    }

    #[test]
    fn closes_in_order_and_refuses_to_go_on() {
        let Through { proxy, mut client, mut server } = through();
        proxy.set(Line::Closed);
        assert_eq!((client.read(&mut [0]).unwrap(), server.read(&mut [0]).unwrap()), (0, 0));
        assert_eq!(TcpStream::connect(proxy.address()).unwrap().read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn resets_both_ends_even_when_one_does_not_read() {
        let Through { proxy, mut client, mut server } = through();
        client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        while client.write(&[0; 1 << 16]).is_ok() {}
        proxy.reset_open_connections();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let end = loop {
            match server.read(&mut [0; 1 << 16]) {
                Ok(0) => panic!("an orderly end"),
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(end, io::ErrorKind::ConnectionReset);
    }
}
