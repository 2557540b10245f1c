//! The sender against receivers on loopback sockets that answer, misbehave or vanish.

mod guard;
mod hostile;
mod http2;
mod proxied;
mod receiver;
mod reuse;
mod secure;

use std::net::IpAddr;

use receiver::{Receiver, answer, hang, read_request, respond};

use super::*;
use crate::fatal::Fatal;
use crate::notify::address::AddressPolicy;
use crate::notify::names::ScriptedNames;

/// Long enough for any exchange on loopback on a busy machine; a test that runs into it has failed.
const AMPLE: Duration = Duration::from_secs(20);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// A client that may talk to loopback, and the stage whose end closes its pool.
fn client() -> (Client, Stage) {
    client_with(Resolver::new(loopback()), Limits::default())
}

fn client_with(resolver: Resolver, limits: Limits) -> (Client, Stage) {
    let stage = Stage::new("test", Fatal::new());
    (Client::new(resolver, Tls::new(None).expect("system roots"), None, limits, &stage), stage)
}

fn loopback() -> AddressPolicy {
    AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("a block")])
}

fn endpoint(url: impl AsRef<str>) -> Endpoint {
    Endpoint::parse(url.as_ref()).expect("a callback URL")
}

fn post(body: &'static str) -> AttemptRequest {
    AttemptRequest {
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
        certificates: Certificates::Verified,
        connect_timeout: None,
    }
}

fn status(report: &AttemptReport) -> u16 {
    report.outcome.as_ref().unwrap_or_else(|error| panic!("no answer: {}", error.chain())).status
}

fn error_name(report: &AttemptReport) -> &'static str {
    match &report.outcome {
        Ok(answer) => panic!("answered {}", answer.status),
        Err(error) => error.outcome().name(),
    }
}

#[tokio::test]
async fn request_is_a_plain_json_post() {
    let receiver = Receiver::start(|mut stream, _| async move {
        respond(&mut stream, &answer(200, "{\"code\":0}")).await;
    })
    .await;
    let (client, _stage) = client();
    let mut request = post("{\"event_type\":200}");
    request.headers.insert("webhook-id", HeaderValue::from_static("msg_1"));

    let report = client.attempt(&endpoint(receiver.url("/notify?action=snapshot&a=%20b#top")), &request, AMPLE).await;

    assert_eq!(
        report.outcome.expect("an answer"),
        Answer {
            status: 200,
            body_excerpt: Bytes::from_static(b"{\"code\":0}"),
            body_truncated: false,
            retry_after: None
        }
    );
    assert_eq!(report.remote, Some(receiver.address()));
    assert!(!report.reused && !report.repeated);
    let text = receiver.requests().remove(0);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /notify?action=snapshot&a=%20b HTTP/1.1");
    lines.sort_unstable();
    let (host, agent) =
        (format!("host: {}", receiver.address()), format!("user-agent: Framehook/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(lines, ["content-length: 18", "content-type: application/json", &host, &agent, "webhook-id: msg_1"]);
    assert_eq!(body, "{\"event_type\":200}");
}

#[tokio::test]
async fn every_status_is_an_answer() {
    for sent in [200, 204, 302, 404, 410, 500, 503] {
        let receiver = Receiver::start(move |mut stream, _| async move {
            respond(&mut stream, &answer(sent, "")).await;
        })
        .await;
        let (client, _stage) = client();
        let report = client.attempt(&endpoint(receiver.url("/")), &post("{}"), AMPLE).await;
        assert_eq!(status(&report), sent);
    }
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let receiver = Receiver::start(|mut stream, _| async move {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
        respond(&mut stream, &format!("{interim}{}", answer(200, "ok"))).await;
    })
    .await;
    let (client, _stage) = client();
    assert_eq!(status(&client.attempt(&endpoint(receiver.url("/")), &post("{}"), AMPLE).await), 200);
}

#[tokio::test]
async fn user_information_is_sent_as_basic_credentials() {
    let receiver = Receiver::start(|mut stream, _| async move {
        respond(&mut stream, &answer(200, "")).await;
    })
    .await;
    let (client, _stage) = client();
    let url = format!("http://Aladdin:open%20sesame@{}/", receiver.address());
    let mut request = post("{}");
    request.headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
    request.headers.insert(HOST, HeaderValue::from_static("other.example"));

    assert_eq!(status(&client.attempt(&endpoint(url), &request, AMPLE).await), 200);

    let text = receiver.requests().remove(0);
    assert!(text.contains("\r\nauthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{text}");
    assert!(text.contains(&format!("\r\nhost: {}\r\n", receiver.address())), "{text}");
    assert!(!text.contains("other") && !text.contains('@'), "{text}");
}

#[tokio::test]
async fn compressed_body_is_neither_asked_for_nor_unpacked() {
    let receiver = Receiver::start(|mut stream, _| async move {
        respond(&mut stream, "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n\x1f\x0bbomb")
            .await;
    })
    .await;
    let (client, _stage) = client();
    let report = client.attempt(&endpoint(receiver.url("/")), &post("{}"), AMPLE).await;
    let got = report.outcome.expect("an answer");
    assert_eq!((got.status, &got.body_excerpt[..]), (200, &b"\x1f\x0bbom"[..]));
    assert!(!receiver.requests().remove(0).contains("accept-encoding"));
}

#[tokio::test]
async fn refused_connection_is_told_apart_from_silence() {
    // Bound and dropped: nothing listens there, and the port was free a moment ago.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (client, _stage) = client();
    let report = client.attempt(&endpoint(format!("http://{address}/")), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "connect");
    assert_eq!(report.remote, None);
}

#[tokio::test]
async fn no_error_repeats_credentials_or_query() {
    let receiver = Receiver::start(|_stream, _| async {}).await;
    let (client, _stage) = client();
    let url = format!("http://us3r:p4ss@{}/notify?token=s3cret", receiver.address());
    let report = client.attempt(&endpoint(url), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "reset");
    let error = report.outcome.expect_err("no answer");
    let printed = format!("{} {error:?}", error.chain());
    for secret in ["us3r", "p4ss", "s3cret", "Basic"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[tokio::test]
async fn slow_receivers_delay_no_other() {
    let hanging = Receiver::start(|connection, _| hang(connection)).await;
    let healthy =
        Receiver::start(|mut stream, _| async move { while respond(&mut stream, &answer(200, "")).await {} }).await;
    let (client, _stage) = client();
    let client = Arc::new(client);
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (client, url) = (Arc::clone(&client), receiver_url(&hanging));
        slow.spawn(async move { client.attempt(&url, &post("{}"), AMPLE).await });
    }
    hanging.accepted(64).await;
    for _ in 0..16 {
        assert_eq!(status(&client.attempt(&receiver_url(&healthy), &post("{}"), AMPLE).await), 200);
    }
    assert!(slow.try_join_next().is_none(), "the hanging attempts are still waiting");
}

fn receiver_url(receiver: &Receiver) -> Endpoint {
    endpoint(receiver.url("/"))
}
