//! Receivers behind TLS that send more than an answer, or less, for as long as somebody listens. They write the bytes of HTTP
//! themselves, since no library would.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::http;
use crate::listener::{Accepted, Listener, Stop, lock};
use crate::tls::Issued;

/// Bytes written at once where a flood has no pauses.
const BLOCK_BYTES: usize = 16 << 10;

/// How long the first floods wait for the others, so that all ports flood at the same time.
const GATHER_WAIT: Duration = Duration::from_millis(300);

/// The first bytes of whoever speaks HTTP/2 to a server (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What is done with a connection.
#[derive(Clone, Debug)]
pub struct Flood {
    pub protocol: Protocol,
    /// Sent before anything is read.
    pub opening: Vec<u8>,
    /// Sent once a request is there as a whole, and as many requests as there are ports, if they come soon.
    pub start: Vec<u8>,
    /// Sent then, over and over, until the other side hangs up. Empty: nothing more is sent before the next request.
    pub flood: Vec<u8>,
    /// Between two of these.
    pub pause: Duration,
}

/// Listens on free loopback ports until dropped, and does with every connection what it was told last.
pub struct Flooder {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
}

struct Shared {
    flood: Mutex<Arc<Flood>>,
    ports: usize,
    /// Requests since it was told what to do.
    requests: Mutex<usize>,
    gathered: Condvar,
    open: AtomicUsize,
    open_most: AtomicUsize,
    configs: [Arc<ServerConfig>; 2],
}

impl Flooder {
    /// Listens on `count` ports with a certificate.
    ///
    /// # Errors
    /// When the certificate cannot be used, or no port can be had.
    pub fn start(count: usize, issued: &Issued, flood: Flood) -> Result<Self> {
        let shared = Arc::new(Shared {
            flood: Mutex::new(Arc::new(flood)),
            ports: count,
            requests: Mutex::new(0),
            gathered: Condvar::new(),
            open: AtomicUsize::new(0),
            open_most: AtomicUsize::new(0),
            configs: [server_config(issued, b"http/1.1")?, server_config(issued, b"h2")?],
        });
        let listen = |_| {
            let shared = Arc::clone(&shared);
            // However a connection ends, the other side has seen it.
            Listener::start(move |accepted| shared.serve(&accepted).unwrap_or_default())
        };
        Ok(Self { listeners: (0..count).map(listen).collect::<Result<_>>()?, shared })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// Does something else with connections from now on. Those from before are closed at their next request.
    pub fn turn_to(&self, flood: Flood) {
        *lock(&self.shared.flood) = Arc::new(flood);
        *lock(&self.shared.requests) = 0;
        self.shared.open_most.store(self.shared.open.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The most connections that were open at the same time since it was told what to do.
    pub fn open_most(&self) -> usize {
        self.shared.open_most.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, accepted: &Accepted) -> io::Result<()> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_most.fetch_max(open, Ordering::Relaxed);
        let served = self.flood(&accepted.stream, &accepted.stop);
        self.open.fetch_sub(1, Ordering::Relaxed);
        served
    }

    /// Waits for the requests at the other ports, though not for ever.
    fn gather(&self) {
        let mut requests = lock(&self.requests);
        *requests += 1;
        self.gathered.notify_all();
        drop(self.gathered.wait_timeout_while(requests, GATHER_WAIT, |requests| *requests < self.ports));
    }

    fn flood(&self, socket: &TcpStream, stop: &Stop) -> io::Result<()> {
        let flood = Arc::clone(&lock(&self.flood));
        let config = &self.configs[usize::from(flood.protocol == Protocol::Http2)];
        let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(session, socket));
        stream.get_mut().write_all(&flood.opening)?;
        if flood.protocol == Protocol::Http2 {
            stream.read_exact(&mut [0; PREFACE_BYTES])?;
        }
        let repeats = if flood.pause.is_zero() { BLOCK_BYTES / flood.flood.len().max(1) } else { 1 };
        let block = flood.flood.repeat(repeats.max(1));
        while read_request(&mut stream, flood.protocol)? {
            if !Arc::ptr_eq(&flood, &lock(&self.flood)) {
                break;
            }
            self.gather();
            stream.get_mut().write_all(&flood.start)?;
            while !block.is_empty() {
                stream.get_mut().write_all(&block)?;
                if !flood.pause.is_zero() && !stop.pause(flood.pause) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Reads one request to its end. `false`: there is none any more.
fn read_request(stream: &mut impl BufRead, protocol: Protocol) -> io::Result<bool> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    if protocol == Protocol::Http1 {
        return Ok(http::read_request(stream).map_err(io::Error::other)?.is_some());
    }
    loop {
        // Length, kind, flags and stream (RFC 9113, 4.1). No frame that we allow is longer than 16 KiB.
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
        if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
            return Ok(true);
        }
    }
}

fn server_config(issued: &Issued, protocol: &[u8]) -> Result<Arc<ServerConfig>> {
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).context("read a certificate")?];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).context("read a key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Ca;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn flood(start: &[u8], flood: &[u8]) -> Flood {
        Flood {
            protocol: Protocol::Http1,
            opening: Vec::new(),
            start: start.to_vec(),
            flood: flood.to_vec(),
            pause: Duration::ZERO,
        }
    }

    #[test]
    fn floods_until_the_other_side_hangs_up_and_does_what_it_was_told_last() {
        let ca = Ca::new().unwrap();
        let flooder = Flooder::start(2, &ca.issue(2040).unwrap(), flood(b"first", b"")).unwrap();
        let ask = |address| {
            let mut stream = ca.connect(address, PATIENCE).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            stream
        };
        let [one, other] = flooder.addresses()[..] else { panic!("two addresses") };
        let mut told = [0; 5];
        let mut first = ask(one);
        first.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"first");

        flooder.turn_to(flood(b"then ", b"water"));
        let mut second = ask(other);
        for expected in [b"then ", b"water", b"water"] {
            second.read_exact(&mut told).unwrap();
            assert_eq!(&told, expected);
        }
        assert_eq!(flooder.open_most(), 2);
        first.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(first.read_exact(&mut told).is_err(), "it is closed at its next request");
    }
}
