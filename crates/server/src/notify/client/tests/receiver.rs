//! A receiver whose every byte the test decides.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::AMPLE;

/// Listens on loopback and hands each connection, numbered from 0, to a script. Ends with its owner.
pub(super) struct Receiver {
    address: SocketAddr,
    accepted: watch::Receiver<usize>,
    requests: watch::Sender<Vec<String>>,
    _tasks: JoinSet<()>,
}

/// A connection that notes the requests read from it.
pub(super) struct Recorded<S> {
    pub(super) stream: S,
    requests: watch::Sender<Vec<String>>,
}

impl Receiver {
    pub(super) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Recorded<TcpStream>, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), script)
    }

    pub(super) fn on<F, Fut>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(Recorded<TcpStream>, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("bound");
        let (count, accepted) = watch::channel(0);
        let requests = watch::Sender::default();
        let noted = requests.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut scripts = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let nth = *count.borrow();
                scripts.spawn(script(Recorded { stream, requests: noted.clone() }, nth));
                count.send_replace(nth + 1);
            }
        });
        Self { address, accepted, requests, _tasks: tasks }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// Waits until `count` connections were accepted.
    pub(super) async fn accepted(&self, count: usize) {
        let mut accepted = self.accepted.clone();
        let reached = tokio::time::timeout(AMPLE, accepted.wait_for(|&so_far| so_far >= count)).await;
        reached.expect("connections arrive").expect("the receiver runs");
    }

    /// Waits until `count` requests were read.
    pub(super) async fn read(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        let reached = tokio::time::timeout(AMPLE, requests.wait_for(|requests| requests.len() >= count)).await;
        reached.expect("requests arrive").expect("the receiver runs");
    }

    pub(super) fn connections(&self) -> usize {
        *self.accepted.borrow()
    }

    /// The requests read so far, as received.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }
}

impl<S> Recorded<S> {
    /// The same record over another layer (TLS).
    pub(super) fn layered<T>(&self, stream: T) -> Recorded<T> {
        Recorded { stream, requests: self.requests.clone() }
    }

    /// Notes a request that something else has read.
    pub(super) fn note(&self, request: String) {
        self.requests.send_modify(|requests| requests.push(request));
    }
}

impl Recorded<TcpStream> {
    /// Ends the connection with a reset instead of an orderly close.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().expect("an open socket");
    }
}

/// Reads one request; false at the end of the connection.
pub(super) async fn read_request<S: AsyncRead + Unpin>(connection: &mut Recorded<S>) -> bool {
    let mut text = Vec::new();
    loop {
        match connection.stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => return false,
        }
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).expect("ASCII");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    if connection.stream.read_exact(&mut body).await.is_err() {
        return false;
    }
    let request = head + std::str::from_utf8(&body).expect("UTF-8");
    connection.note(request);
    true
}

/// Reads one request and writes `text`; false at the end of the connection.
pub(super) async fn respond<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut Recorded<S>, text: &str) -> bool {
    read_request(connection).await && connection.stream.write_all(text.as_bytes()).await.is_ok()
}

/// Keeps the connection open and says nothing.
pub(super) async fn hang<S>(connection: Recorded<S>) {
    let _open = connection;
    std::future::pending().await
}

/// A complete answer.
pub(super) fn answer(status: u16, body: &str) -> String {
    // 204 has neither body nor length (RFC 9110, 8.6).
    let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} Whatever\r\n{length}\r\n{body}")
}
