//! Through an egress proxy.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::secure::{Ca, names, plain_server, serve, url};
use super::*;
use crate::notify::proxy::{Proxy, ProxyError};

/// Reads a `CONNECT`, notes it, and gives where it leads.
async fn read_connect(connection: &mut receiver::Recorded<TcpStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("ASCII");
    connection.note(head.clone());
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split_once(" HTTP/1.1\r\n"));
    target.expect("a CONNECT").0.to_owned()
}

/// A proxy that tunnels to wherever it is asked to.
async fn proxy() -> Receiver {
    Receiver::start(|mut connection, _| async move {
        let target = read_connect(&mut connection).await;
        let mut onward = TcpStream::connect(target).await.expect("the receiver listens");
        let _ = connection.stream.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n").await;
        let _ = copy_bidirectional(&mut connection.stream, &mut onward).await;
    })
    .await
}

/// A proxy that answers every `CONNECT` with `text` and nothing else.
async fn answering(text: &'static str) -> Receiver {
    Receiver::start(move |mut connection, _| async move {
        read_connect(&mut connection).await;
        let _ = connection.stream.write_all(text.as_bytes()).await;
        hang(connection).await;
    })
    .await
}

fn through(proxy: &Receiver, resolver: Resolver, tls: Tls) -> (Client, Stage) {
    let stage = Stage::new("test", Fatal::new());
    let proxy = Proxy::parse(&format!("http://us3r:p4ss@{}", proxy.address())).expect("a proxy");
    (Client::new(resolver, tls, Some(proxy), Limits::default(), &stage), stage)
}

fn client_through(proxy: &Receiver) -> (Client, Stage) {
    through(proxy, Resolver::new(loopback()), Tls::new(None).expect("system roots"))
}

#[tokio::test]
async fn http_and_https_go_through_a_tunnel_to_the_checked_address() {
    let ca = Ca::new();
    let proxy = proxy().await;
    let plain =
        Receiver::start(|mut stream, _| async move { while respond(&mut stream, &answer(200, "ok")).await {} }).await;
    let acceptor = plain_server(ca.issue(&["receiver.example"], false));
    let secure = Receiver::start(move |connection, _| serve(connection, acceptor.clone())).await;
    let tls = Tls::new(Some(ca.pem().as_bytes())).expect("one CA");
    let (client, _stage) = through(&proxy, Resolver::scripted(loopback(), names()), tls);
    let plain_url = endpoint(format!("http://receiver.example:{}/notify", plain.address().port()));

    for (receiver, url) in [(&plain, plain_url), (&secure, url(&secure, "receiver.example"))] {
        for reused in [false, true] {
            let report = client.attempt(&url, &post("{}"), AMPLE).await;
            assert_eq!((status(&report), report.reused, report.remote), (200, reused, Some(receiver.address())));
        }
        let asked = proxy.requests().pop().expect("a CONNECT");
        let address = receiver.address();
        assert!(asked.starts_with(&format!("CONNECT {address} HTTP/1.1\r\n")), "an address, never a name: {asked}");
        assert!(asked.contains(&format!("\r\nhost: {address}\r\n")), "{asked}");
        assert!(asked.contains("\r\nproxy-authorization: Basic dXMzcjpwNHNz\r\n"), "{asked}");
        let request = receiver.requests().remove(0);
        assert!(!request.contains("proxy-authorization"), "that is the proxy's own: {request}");
    }
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn forbidden_address_is_refused_before_the_proxy_is_asked() {
    let proxy = proxy().await;
    let names = ScriptedNames::new(&["private.example"], &[&["10.0.0.1"]]);
    let (client, _stage) =
        through(&proxy, Resolver::scripted(AddressPolicy::default(), names), Tls::new(None).expect("system roots"));
    for host in ["private.example", "10.0.0.1", "[::1]", "169.254.169.254"] {
        let report = client.attempt(&endpoint(format!("http://{host}/")), &post("{}"), AMPLE).await;
        assert_eq!(error_name(&report), "address_forbidden", "{host}");
    }
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn answers_of_the_proxy_are_told_apart_from_those_of_receivers() {
    let rows = [
        ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "proxy"),
        ("HTTP/1.1 403 Filtered\r\ncontent-length: 4\r\n\r\nnope", "proxy"),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", "proxy"),
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "connect"),
        ("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n", "connect"),
        ("HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n", "connect"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "proxy"),
        // Bytes of a tunnel in which nobody has asked for any.
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "proxy"),
    ];
    for (text, expected) in rows {
        let proxy = answering(text).await;
        let (client, _stage) = client_through(&proxy);
        let report = client.attempt(&endpoint("http://127.0.0.9:9/"), &post("{}"), AMPLE).await;
        assert_eq!((error_name(&report), report.remote), (expected, None), "{text:?}");
        let error = report.outcome.expect_err("no answer");
        assert!(!error.chain().contains("p4ss") && !format!("{error:?}").contains("p4ss"), "{error:?}");
    }
}

#[tokio::test]
async fn endless_head_of_the_proxy_is_cut_off() {
    let proxy = Receiver::start(|mut connection, _| async move {
        read_connect(&mut connection).await;
        let _ = connection.stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while connection.stream.write_all(&[b'y'; 1024]).await.is_ok() {}
    })
    .await;
    let (client, _stage) = client_through(&proxy);
    let report = client.attempt(&endpoint("http://127.0.0.9:9/"), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "proxy");
    assert!(report.duration < AMPLE / 2, "{:?}", report.duration);
}

#[tokio::test]
async fn silent_proxy_ends_at_the_deadline() {
    let proxy = Receiver::start(|connection, _| hang(connection)).await;
    let (client, _stage) = client_through(&proxy);
    let report = client.attempt(&endpoint("http://127.0.0.9:9/"), &post("{}"), SHORT).await;
    let error = report.outcome.expect_err("no answer");
    assert!(matches!(error, AttemptError::TimedOut { phase: Phase::Connecting, .. }), "{error:?}");
    assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{:?}", report.duration);
}

#[tokio::test]
async fn proxy_that_is_not_there_is_not_the_receivers_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (client, _stage) = client_to(&format!("http://{address}"), Resolver::new(loopback()));
    let report = client.attempt(&endpoint("http://127.0.0.9:9/"), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "proxy");
    let error = report.outcome.expect_err("no answer");
    assert!(matches!(error, AttemptError::Proxy { source: ProxyError::Unreachable(_), .. }), "{error:?}");
}

/// An address whose packets are swallowed: its queue of connections is full, and nobody takes one up. It is one as long as
/// what comes with it lives.
async fn swallowing(ip: &str, port: u16) -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(ip.parse().expect("an address"), port)).expect("a free port");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("bound");
    let mut queued = Vec::new();
    while let Ok(Ok(connection)) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queued.push(connection);
    }
    (address, (listener, queued))
}

fn client_to(proxy: &str, resolver: Resolver) -> (Client, Stage) {
    let stage = Stage::new("test", Fatal::new());
    let proxy = Proxy::parse(proxy).expect("a proxy");
    let tls = Tls::new(None).expect("system roots");
    (Client::new(resolver, tls, Some(proxy), Limits::default(), &stage), stage)
}

#[tokio::test]
async fn proxy_that_swallows_packets_is_not_the_receivers_fault() {
    let (address, _queue) = swallowing("127.0.0.1", 0).await;
    let (client, _stage) = client_to(&format!("http://{address}"), Resolver::new(loopback()));
    let report = client.attempt(&endpoint("http://127.0.0.9:9/"), &post("{}"), SHORT).await;
    assert_eq!(error_name(&report), "proxy");
    let error = report.outcome.expect_err("no answer");
    assert!(matches!(error, AttemptError::Proxy { source: ProxyError::Unreachable(_), .. }), "{error:?}");
}

#[tokio::test]
async fn proxy_is_tried_at_each_of_its_addresses() {
    let proxy = answering("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    let port = proxy.address().port();
    let (_, _queue) = swallowing("127.0.0.2", port).await;
    let names = ScriptedNames::new(&["proxy.example"], &[&["127.0.0.2", "127.0.0.1"]]);
    let url = format!("http://proxy.example:{port}");
    let (client, _stage) = client_to(&url, Resolver::scripted(loopback(), names));
    let report = client.attempt(&endpoint("http://127.0.0.9:9/"), &post("{}"), SHORT * 8).await;
    assert_eq!((error_name(&report), proxy.connections()), ("connect", 1));
}
