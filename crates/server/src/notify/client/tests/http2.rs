//! HTTP/2: what it shares with HTTP/1.1, and what only it has.

mod hostile;

use std::sync::atomic::{AtomicUsize, Ordering};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::secure::{Ca, names, server, url};
use super::*;

type Connection = TlsStream<TcpStream>;

/// A receiver that speaks HTTP/2 and nothing else, and a client that believes it.
struct Place {
    receiver: Receiver,
    client: Arc<Client>,
    stage: Stage,
}

impl Place {
    /// Every connection is handed to `script` once TLS is up.
    async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(receiver::Recorded<Connection>, usize) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let ca = Ca::new();
        let acceptor = acceptor(&ca, &[b"h2"]);
        let receiver = Receiver::start(move |connection, nth| {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            async move {
                let record = connection.layered(());
                if let Ok(stream) = acceptor.accept(connection.stream).await {
                    script(record.layered(stream), nth).await;
                }
            }
        })
        .await;
        let (client, stage) = ca.client(names());
        Self { receiver, client: Arc::new(client), stage }
    }

    fn url(&self) -> Endpoint {
        url(&self.receiver, "127.0.0.1")
    }

    async fn attempt(&self) -> AttemptReport {
        self.client.attempt(&self.url(), &post("{}"), AMPLE).await
    }

    /// Starts as many attempts at the same time.
    fn attempts(&self, count: usize) -> JoinSet<AttemptReport> {
        let mut attempts = JoinSet::new();
        for _ in 0..count {
            let (client, url) = (Arc::clone(&self.client), self.url());
            attempts.spawn(async move { client.attempt(&url, &post("{}"), AMPLE).await });
        }
        attempts
    }
}

fn acceptor(ca: &Ca, protocols: &[&[u8]]) -> TlsAcceptor {
    let (certificate, key) = ca.issue(&["receiver.example", "127.0.0.1"], false);
    server(|builder| {
        let builder = builder.with_no_client_auth().with_single_cert(vec![certificate], key);
        let mut config = builder.expect("a fitting key");
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    })
}

/// Serves requests with a real HTTP/2 server: `handle` gets each with its number on the connection, from 0.
async fn serve<F, Fut>(connection: receiver::Recorded<Connection>, handle: F)
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let record = connection.layered(());
    let Ok(mut connection) = h2::server::handshake(connection.stream).await else { return };
    let mut handled = JoinSet::new();
    let mut nth = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        record.note(format!("{} {} {:?}", request.method(), request.uri(), request.headers()));
        handled.spawn(handle(request, respond, nth));
        nth += 1;
    }
}

/// Reads the request's body and answers.
async fn answer_200(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(b"ok"), true);
    }
}

async fn good() -> Place {
    Place::start(|connection, _| serve(connection, |request, respond, _| answer_200(request, respond))).await
}

#[tokio::test]
async fn request_is_the_same_post_as_over_http_1() {
    let place = good().await;
    let mut request = post("{\"event_type\":200}");
    request.headers.insert("webhook-id", HeaderValue::from_static("msg_1"));
    request.headers.insert(HOST, HeaderValue::from_static("other.example"));
    let address = place.receiver.address();
    let target = endpoint(format!("https://Aladdin:open%20sesame@{address}/notify?a=%20b#top"));

    let report = place.client.attempt(&target, &request, AMPLE).await;

    assert_eq!((status(&report), report.remote), (200, Some(address)));
    let answer = report.outcome.expect("an answer");
    assert_eq!((&answer.body_excerpt[..], answer.body_truncated), (&b"ok"[..], false));
    let text = place.receiver.requests().remove(0);
    assert!(text.starts_with(&format!("POST https://{address}/notify?a=%20b ")), "{text}");
    let headers = [
        "\"content-type\": \"application/json\"",
        "\"content-length\": \"18\"",
        "\"webhook-id\": \"msg_1\"",
        "\"authorization\": \"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\"",
        "\"user-agent\": \"Framehook/",
    ];
    for header in headers {
        assert!(text.contains(header), "{header} in {text}");
    }
    assert!(!text.contains("other.example") && !text.contains("\"host\""), "{text}");
}

#[tokio::test]
async fn receiver_chooses_what_is_spoken() {
    let rows: [(&[&[u8]], &str); 4] = [
        (&[b"http/1.1", b"h2"], "POST / HTTP/1.1"),
        (&[b"http/1.1"], "POST / HTTP/1.1"),
        (&[], "POST / HTTP/1.1"),
        (&[b"h2", b"http/1.1"], "POST https://"),
    ];
    for (protocols, begins) in rows {
        let ca = Ca::new();
        let acceptor = acceptor(&ca, protocols);
        let receiver = Receiver::start(move |connection, _| {
            let acceptor = acceptor.clone();
            async move {
                let record = connection.layered(());
                let Ok(stream) = acceptor.accept(connection.stream).await else { return };
                let chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let mut connection = record.layered(stream);
                if chosen {
                    serve(connection, |request, respond, _| answer_200(request, respond)).await;
                } else {
                    while respond(&mut connection, &answer(200, "ok")).await {}
                }
            }
        })
        .await;
        let (client, _stage) = ca.client(names());
        assert_eq!(status(&client.attempt(&url(&receiver, "127.0.0.1"), &post("{}"), AMPLE).await), 200);
        assert!(receiver.requests()[0].starts_with(begins), "{protocols:?}: {:?}", receiver.requests());
    }
}

/// A place whose receiver answers when `held` attempts wait at the same time, and every later one at once.
async fn holding(held: usize) -> Place {
    let (all_here, seen) = (Arc::new(Barrier::new(held)), Arc::new(AtomicUsize::new(0)));
    Place::start(move |connection, _| {
        let (all_here, seen) = (Arc::clone(&all_here), Arc::clone(&seen));
        serve(connection, move |request, respond, _| {
            let (all_here, seen) = (Arc::clone(&all_here), Arc::clone(&seen));
            async move {
                // The first warms the connection up.
                if (1..=held).contains(&seen.fetch_add(1, Ordering::Relaxed)) {
                    all_here.wait().await;
                }
                answer_200(request, respond).await;
            }
        })
    })
    .await
}

#[tokio::test]
async fn attempts_at_the_same_time_share_a_connection() {
    let place = holding(32).await;
    assert_eq!(status(&place.attempt().await), 200);
    let reports = place.attempts(32).join_all().await;
    assert!(reports.iter().all(|report| status(report) == 200 && report.reused && !report.repeated));
    assert_eq!((place.receiver.connections(), place.receiver.requests().len()), (1, 33));
}

#[tokio::test]
async fn streams_of_a_connection_are_bounded() {
    let place = holding(33).await;
    assert_eq!(status(&place.attempt().await), 200);
    assert!(place.attempts(33).join_all().await.iter().all(|report| status(report) == 200));
    assert_eq!(place.receiver.connections(), 2);
}

#[tokio::test]
async fn request_over_the_receivers_own_bound_waits_for_its_turn() {
    let place = Place::start(|connection, _| async move {
        let mut builder = h2::server::Builder::new();
        let handshake = builder.max_concurrent_streams(1).handshake::<_, Bytes>(connection.stream);
        let Ok(mut connection) = handshake.await else { return };
        // One after another, which only a sender that waits lets happen: more would be refused.
        while let Some(Ok((request, respond))) = connection.accept().await {
            let mut handled = std::pin::pin!(answer_200(request, respond));
            tokio::select! {
                () = &mut handled => {}
                more = connection.accept() => assert!(more.is_none(), "a second stream while one was open"),
            }
        }
    })
    .await;
    assert_eq!(status(&place.attempt().await), 200);
    assert!(place.attempts(8).join_all().await.iter().all(|report| status(report) == 200));
    assert_eq!(place.receiver.connections(), 1);
}

#[tokio::test]
async fn connection_is_not_used_again_after_an_attempt_that_was_cut_off() {
    // The first connection answers its first request and is silent from then on, as one to a machine that is gone.
    let place = Place::start(|connection, nth| {
        serve(connection, move |request, respond, number| async move {
            if (nth, number) == (0, 1) {
                std::future::pending::<()>().await;
            }
            answer_200(request, respond).await;
        })
    })
    .await;
    assert_eq!(status(&place.attempt().await), 200);
    let report = place.client.attempt(&place.url(), &post("{}"), SHORT).await;
    assert_eq!((error_name(&report), report.reused), ("timeout", true));
    assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{:?}", report.duration);
    let report = place.attempt().await;
    assert_eq!((status(&report), report.reused), (200, false));
    assert_eq!(place.receiver.connections(), 2);
}

#[tokio::test]
async fn request_that_was_not_looked_at_is_repeated_at_once_on_a_new_connection() {
    for says_go_away in [false, true] {
        let place = Place::start(move |connection, nth| async move {
            let mut connection = h2::server::handshake(connection.stream).await.expect("HTTP/2");
            let mut number = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                match (nth, number, says_go_away) {
                    (0, 1, false) => respond.send_reset(Reason::REFUSED_STREAM),
                    (0, 1, true) => connection.abrupt_shutdown(Reason::NO_ERROR),
                    _ => answer_200(request, respond).await,
                }
                number += 1;
            }
        })
        .await;
        assert_eq!(status(&place.attempt().await), 200);
        let report = place.attempt().await;
        assert_eq!((status(&report), report.reused, report.repeated), (200, false, true), "{says_go_away}");
        assert_eq!(place.receiver.connections(), 2);
    }
}

#[tokio::test]
async fn request_that_was_cut_off_is_not_repeated() {
    let place = Place::start(|connection, _| {
        serve(connection, |request, mut respond, number| async move {
            match number {
                0 => answer_200(request, respond).await,
                _ => respond.send_reset(Reason::INTERNAL_ERROR),
            }
        })
    })
    .await;
    assert_eq!(status(&place.attempt().await), 200);
    let report = place.attempt().await;
    assert_eq!((error_name(&report), report.reused, report.repeated), ("reset", true, false));
    assert_eq!(place.receiver.connections(), 1);
}

#[tokio::test]
async fn connection_that_the_receiver_ends_costs_no_attempt() {
    let place = Place::start(|connection, _| async move {
        let mut connection = h2::server::handshake(connection.stream).await.expect("HTTP/2");
        while let Some(Ok((request, respond))) = connection.accept().await {
            answer_200(request, respond).await;
            connection.graceful_shutdown();
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(status(&place.attempt().await), 200);
    }
    assert!(place.receiver.connections() > 1);
}

/// A place whose first connection tells when it has ended.
async fn closing_watch(limits: Limits) -> (Place, oneshot::Receiver<()>) {
    let (sender, closed) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let mut place = Place::start(move |connection, _| {
        let sender = sender.lock().expect("not poisoned").take();
        async move {
            serve(connection, |request, respond, _| answer_200(request, respond)).await;
            if let Some(sender) = sender {
                let _ = sender.send(());
            }
        }
    })
    .await;
    let client = Arc::get_mut(&mut place.client).expect("nobody else has it");
    client.pool = Arc::new(Pool::new(limits.idle_timeout, limits.connection_age_max));
    let (swept, end) = (Arc::clone(&client.pool), place.stage.token());
    place.stage.spawn(async move { swept.sweep(end).await });
    (place, closed)
}

#[tokio::test]
async fn idle_connection_is_closed_in_time() {
    let (place, closed) = closing_watch(Limits { idle_timeout: SHORT, ..Limits::default() }).await;
    assert_eq!(status(&place.attempt().await), 200);
    assert_eq!(place.client.pool.connections(), 1);
    tokio::time::timeout(AMPLE, closed).await.expect("closed in time").expect("watched");
    assert_eq!(place.client.pool.connections(), 0);
}

#[tokio::test]
async fn end_of_the_stage_closes_idle_connections_and_leaves_attempts_alone() {
    let (place, closed) = closing_watch(Limits::default()).await;
    assert_eq!(status(&place.attempt().await), 200);
    place.stage.end(AMPLE).await;
    assert_eq!(place.stage.running(), 0);
    tokio::time::timeout(AMPLE, closed).await.expect("closed in time").expect("watched");
    assert_eq!(status(&place.attempt().await), 200);
    assert_eq!(place.client.pool.connections(), 0, "nobody would close what is kept now");
}

#[tokio::test]
async fn old_connection_is_not_used_again() {
    let (place, _closed) = closing_watch(Limits { connection_age_max: Duration::ZERO, ..Limits::default() }).await;
    for _ in 0..2 {
        let report = place.attempt().await;
        assert_eq!((status(&report), report.reused), (200, false));
    }
    assert_eq!(place.receiver.connections(), 2);
}

#[tokio::test]
async fn long_body_is_cut_and_costs_no_connection() {
    let place = Place::start(|connection, _| {
        serve(connection, |_request, mut respond, _| async move {
            let mut stream = respond.send_response(Response::new(()), false).expect("open");
            // As fast as the windows allow, for ever.
            loop {
                stream.reserve_capacity(1 << 14);
                let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
                if stream.send_data(vec![b'z'; room].into(), false).is_err() {
                    return;
                }
            }
        })
    })
    .await;
    for reused in [false, true, true] {
        let report = place.attempt().await;
        assert_eq!(report.reused, reused);
        let got = report.outcome.expect("an answer");
        assert_eq!((got.status, got.body_excerpt.len(), got.body_truncated), (200, 16 << 10, true));
    }
    assert_eq!(place.receiver.connections(), 1);
}

#[tokio::test]
async fn dropped_attempt_ends_its_stream_and_its_connection() {
    let (sender, ended) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let place = Place::start(move |connection, _| {
        let sender = Arc::clone(&sender);
        serve(connection, move |_request, mut respond, _| {
            let sender = sender.lock().expect("not poisoned").take().expect("one request");
            async move {
                let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                let _ = sender.send(reset.is_ok());
            }
        })
    })
    .await;
    let (url, request) = (place.url(), post("{}"));
    {
        let mut attempt = std::pin::pin!(place.client.attempt(&url, &request, AMPLE));
        tokio::select! {
            report = &mut attempt => panic!("nobody answers: {report:?}"),
            () = place.receiver.read(1) => {}
        }
    }
    tokio::time::timeout(AMPLE, ended).await.expect("ended in time").expect("watched");
}
