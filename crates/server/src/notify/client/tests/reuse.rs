//! Connections across attempts.

use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{Barrier, oneshot};

use super::*;

/// A receiver that keeps its connections open and answers 200.
async fn keeping() -> Receiver {
    Receiver::start(|mut connection, _| async move { while respond(&mut connection, &answer(200, "ok")).await {} })
        .await
}

#[tokio::test]
async fn attempts_in_a_row_share_a_connection() {
    let receiver = keeping().await;
    let (client, _stage) = client();
    let first = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    let second = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    assert_eq!((status(&first), first.reused), (200, false));
    assert_eq!((status(&second), second.reused, second.repeated), (200, true, false));
    assert_eq!(second.remote, Some(receiver.address()));
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 2));
}

#[tokio::test]
async fn connection_is_not_reused_after_an_answer_that_ends_it() {
    let closing = [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        // Longer than is read of a body.
        &format!("HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n{}", "z".repeat(20_000)),
        // More than was announced.
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 Smuggled\r\n\r\n",
    ];
    for (text, expected) in closing.into_iter().zip([200, 200, 101, 200, 200]) {
        let text = text.to_owned();
        let receiver = Receiver::start(move |mut connection, _| {
            let text = text.clone();
            async move { while respond(&mut connection, &text).await {} }
        })
        .await;
        let (client, _stage) = client();
        for _ in 0..2 {
            let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
            assert_eq!((status(&report), report.reused), (expected, false));
        }
        assert_eq!(receiver.connections(), 2);
    }
}

#[tokio::test]
async fn reset_of_a_reused_connection_is_repeated_at_once() {
    for orderly in [true, false] {
        let receiver = Receiver::start(move |mut connection, nth| async move {
            respond(&mut connection, &answer(200, "")).await;
            if nth == 0 {
                // The second request on the first connection is read and never answered.
                read_request(&mut connection).await;
                if !orderly {
                    connection.reset();
                }
            }
        })
        .await;
        let (client, _stage) = client();
        let mut request = post("{\"n\":1}");
        request.headers.insert("webhook-id", HeaderValue::from_static("msg_same"));
        assert_eq!(status(&client.attempt(&receiver_url(&receiver), &request, AMPLE).await), 200);

        let report = client.attempt(&receiver_url(&receiver), &request, AMPLE).await;

        assert_eq!((status(&report), report.reused, report.repeated), (200, false, true));
        let requests = receiver.requests();
        assert_eq!((receiver.connections(), requests.len()), (2, 3));
        assert_eq!(requests[1], requests[2], "the repeat is the same request");
    }
}

#[tokio::test]
async fn a_repeat_is_not_repeated() {
    let receiver = Receiver::start(|mut connection, nth| async move {
        if nth == 0 {
            respond(&mut connection, &answer(200, "")).await;
        }
        read_request(&mut connection).await;
    })
    .await;
    let (client, _stage) = client();
    assert_eq!(status(&client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await), 200);
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    assert_eq!((error_name(&report), report.repeated), ("reset", true));
    assert_eq!((receiver.connections(), receiver.requests().len()), (2, 3));
}

#[tokio::test]
async fn a_repeat_shares_the_deadline() {
    let receiver = Receiver::start(|mut connection, nth| async move {
        if nth == 0 {
            respond(&mut connection, &answer(200, "")).await;
            read_request(&mut connection).await;
        } else {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let (client, _stage) = client();
    assert_eq!(status(&client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await), 200);
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), SHORT).await;
    assert_eq!((error_name(&report), report.repeated), ("timeout", true));
    assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{:?}", report.duration);
}

#[tokio::test]
async fn a_begun_answer_is_not_repeated() {
    let receiver = Receiver::start(|mut connection, _| async move {
        respond(&mut connection, &answer(200, "")).await;
        respond(&mut connection, "HTTP/1.1 20").await;
    })
    .await;
    let (client, _stage) = client();
    assert_eq!(status(&client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await), 200);
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    assert_eq!((error_name(&report), report.reused, report.repeated), ("reset", true, false));
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 2));
}

/// Whichever notices first that the receiver has closed, the look at the idle connection or the send, the attempt succeeds.
#[tokio::test]
async fn connection_closed_while_idle_costs_no_attempt() {
    let receiver = Receiver::start(|mut connection, _| async move {
        respond(&mut connection, &answer(200, "")).await;
    })
    .await;
    let (client, _stage) = client();
    for _ in 0..50 {
        let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
        assert_eq!((status(&report), report.reused), (200, false));
    }
    assert_eq!(receiver.requests().len(), 50);
}

/// A receiver that tells how its first connection ended after the first answer.
async fn closing_watch() -> (Receiver, oneshot::Receiver<std::io::Result<usize>>) {
    let (sender, closed) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let receiver = Receiver::start(move |mut connection, _| {
        let sender = sender.lock().expect("not poisoned").take();
        async move {
            respond(&mut connection, &answer(200, "")).await;
            if let Some(sender) = sender {
                let _ = sender.send(connection.stream.read(&mut [0; 64]).await);
            }
        }
    })
    .await;
    (receiver, closed)
}

#[tokio::test]
async fn idle_connection_is_closed_in_time() {
    let (receiver, closed) = closing_watch().await;
    let limits = Limits { idle_timeout: SHORT, ..Limits::default() };
    let (client, _stage) = client_with(Resolver::new(loopback()), limits);
    let began = Instant::now();
    assert_eq!(status(&client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await), 200);
    let end = tokio::time::timeout(AMPLE, closed).await.expect("closed in time").expect("watched");
    assert_eq!(end.expect("an orderly close"), 0);
    assert!(began.elapsed() >= SHORT);
    assert_eq!(client.pool.connections(), 0);
}

#[tokio::test]
async fn end_of_the_stage_closes_idle_connections_and_leaves_attempts_alone() {
    let (receiver, closed) = closing_watch().await;
    let (client, stage) = client();
    assert_eq!(status(&client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await), 200);
    assert_eq!(client.pool.connections(), 1);
    stage.end(AMPLE).await;
    assert_eq!(stage.running(), 0);
    let end = tokio::time::timeout(AMPLE, closed).await.expect("closed in time").expect("watched");
    assert_eq!(end.expect("an orderly close"), 0);
    assert_eq!(status(&client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await), 200);
    assert_eq!(client.pool.connections(), 0, "nobody would close what is kept now");
}

#[tokio::test]
async fn old_connection_is_not_used_again() {
    let receiver = keeping().await;
    let limits = Limits { connection_age_max: Duration::ZERO, ..Limits::default() };
    let (client, _stage) = client_with(Resolver::new(loopback()), limits);
    for _ in 0..2 {
        let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
        assert_eq!((status(&report), report.reused), (200, false));
    }
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn kept_connections_are_bounded_per_receiver() {
    // All attempts are in flight before the first is answered.
    let all_here = Arc::new(Barrier::new(48));
    let receiver = Receiver::start(move |mut connection, _| {
        let all_here = Arc::clone(&all_here);
        async move {
            read_request(&mut connection).await;
            all_here.wait().await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection.stream, answer(200, "").as_bytes()).await;
            while respond(&mut connection, &answer(200, "")).await {}
        }
    })
    .await;
    let (client, _stage) = client();
    let (client, url) = (Arc::new(client), receiver_url(&receiver));
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..48 {
        let (client, url) = (Arc::clone(&client), url.clone());
        attempts.spawn(async move { client.attempt(&url, &post("{}"), AMPLE).await });
    }
    assert!(attempts.join_all().await.iter().all(|report| status(report) == 200));
    assert_eq!(receiver.connections(), 48);
    assert_eq!(client.pool.connections(), 32);
}

#[tokio::test]
async fn dropped_attempt_takes_its_connection_along() {
    let (sender, closed) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let receiver = Receiver::start(move |mut connection, _| {
        let sender = sender.lock().expect("not poisoned").take().expect("one connection");
        async move {
            read_request(&mut connection).await;
            let _ = sender.send(connection.stream.read(&mut [0; 64]).await);
        }
    })
    .await;
    let (client, _stage) = client();
    let (url, request) = (receiver_url(&receiver), post("{}"));
    {
        let mut attempt = std::pin::pin!(client.attempt(&url, &request, AMPLE));
        tokio::select! {
            report = &mut attempt => panic!("nobody answers: {report:?}"),
            () = receiver.read(1) => {}
        }
    }
    let end = tokio::time::timeout(AMPLE, closed).await.expect("closed in time").expect("watched");
    assert_eq!(end.expect("an orderly close"), 0);
}
