//! Receivers that are slow, endless, broken or gone.

use tokio::io::AsyncWriteExt as _;

use super::*;

/// One attempt at a receiver that reads the request and then runs `script`.
async fn attempt_at<F, Fut>(deadline: Duration, script: F) -> AttemptReport
where
    F: Fn(receiver::Recorded<tokio::net::TcpStream>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    let receiver = Receiver::start(move |mut connection, _| {
        let script = Arc::clone(&script);
        async move {
            if read_request(&mut connection).await {
                script(connection).await;
            }
        }
    })
    .await;
    let (client, _stage) = client();
    client.attempt(&receiver_url(&receiver), &post("{}"), deadline).await
}

/// Writes `text` over and over until the other side has enough.
async fn flood(mut connection: receiver::Recorded<tokio::net::TcpStream>, start: &str, text: String) {
    let _ = connection.stream.write_all(start.as_bytes()).await;
    while connection.stream.write_all(text.as_bytes()).await.is_ok() {}
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let report = attempt_at(SHORT, hang).await;
    assert_eq!(error_name(&report), "timeout");
    assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{:?}", report.duration);
    let error = report.outcome.expect_err("no answer");
    assert!(matches!(error, AttemptError::TimedOut { phase: Phase::Answering, .. }), "{error}");
    assert!(report.remote.is_some());
}

#[tokio::test]
async fn trickled_head_ends_at_the_deadline() {
    let report = attempt_at(SHORT, |mut connection| async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        let head = b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'y'));
        for byte in head {
            pace.tick().await;
            if connection.stream.write_u8(*byte).await.is_err() {
                return;
            }
        }
    })
    .await;
    assert_eq!(error_name(&report), "timeout");
    assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{:?}", report.duration);
}

#[tokio::test]
async fn head_over_its_limit_is_cut_off() {
    let endless_header = attempt_at(AMPLE, |c| flood(c, "HTTP/1.1 200 OK\r\nx: ", "y".repeat(1 << 10)));
    assert_eq!(error_name(&endless_header.await), "head_too_large");
    let endless_headers = attempt_at(AMPLE, |c| flood(c, "HTTP/1.1 200 OK\r\n", "x: y\r\n".repeat(100)));
    assert_eq!(error_name(&endless_headers.await), "head_too_large");
    let endless_status = attempt_at(AMPLE, |c| flood(c, "HTTP/1.1 200 ", "O".repeat(1 << 10)));
    assert_eq!(error_name(&endless_status.await), "head_too_large");
    let interim_flood = attempt_at(AMPLE, |c| flood(c, "", "HTTP/1.1 102 Processing\r\n\r\n".repeat(40)));
    assert_eq!(error_name(&interim_flood.await), "head_too_large");
}

#[tokio::test]
async fn head_within_its_limits_is_read() {
    // 16 KiB less the status line, the blank line and the names, in as many lines as are allowed.
    let headers: String = (0..100).map(|n| format!("x{n:02}: {}\r\n", "y".repeat(150))).collect();
    let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
    assert!(text.len() > 15_000 && text.len() < 16 << 10);
    let report = attempt_at(AMPLE, move |mut connection| {
        let text = text.clone();
        async move {
            let _ = connection.stream.write_all(text.as_bytes()).await;
        }
    })
    .await;
    assert_eq!(status(&report), 200);

    let headers = "x: y\r\n".repeat(101);
    let report = attempt_at(AMPLE, move |mut connection| {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        async move {
            let _ = connection.stream.write_all(text.as_bytes()).await;
        }
    })
    .await;
    assert_eq!(error_name(&report), "head_too_large");
}

#[tokio::test]
async fn endless_body_is_cut_and_changes_nothing() {
    let heads = [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1152921504606846976\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ];
    for head in heads {
        let piece =
            if head.contains("chunked") { format!("400\r\n{}\r\n", "z".repeat(1 << 10)) } else { "z".repeat(1 << 10) };
        let report = attempt_at(AMPLE, move |c| flood(c, head, piece.clone())).await;
        let got = report.outcome.expect("an answer");
        assert_eq!((got.status, got.body_excerpt.len(), got.body_truncated), (200, 16 << 10, true), "{head}");
        assert!(got.body_excerpt.iter().all(|&byte| byte == b'z'));
    }
}

/// A receiver whose answer has a head, half a body and no end.
async fn half_a_body() -> Receiver {
    Receiver::start(|mut connection, _| async move {
        respond(&mut connection, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nstart").await;
        hang(connection).await;
    })
    .await
}

#[tokio::test]
async fn body_that_does_not_end_changes_nothing_and_is_not_waited_for() {
    let receiver = half_a_body().await;
    let limits = Limits { body_wait: SHORT, ..Limits::default() };
    let (client, _stage) = client_with(Resolver::new(loopback()), limits);
    let began = Instant::now();
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    let took = began.elapsed();
    assert!(took >= report.duration + SHORT && took < AMPLE / 2, "{took:?} {report:?}");
    let got = report.outcome.expect("an answer");
    assert_eq!((got.status, &got.body_excerpt[..], got.body_truncated), (200, &b"start"[..], true));
}

#[tokio::test]
async fn deadline_bounds_the_wait_for_the_body_too() {
    let receiver = half_a_body().await;
    let limits = Limits { body_wait: AMPLE, ..Limits::default() };
    let (client, _stage) = client_with(Resolver::new(loopback()), limits);
    let began = Instant::now();
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), 2 * SHORT).await;
    assert_eq!(status(&report), 200);
    assert!(began.elapsed() >= 2 * SHORT && began.elapsed() < AMPLE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn banner_before_the_request_is_a_protocol_failure() {
    let receiver = Receiver::start(|mut connection, _| async move {
        let _ = connection.stream.write_all(b"220 mail.example ESMTP\r\n").await;
        hang(connection).await;
    })
    .await;
    let (client, _stage) = client();
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "protocol");
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_failure() {
    let rows = [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "\0\0\0\0",
    ];
    for text in rows {
        let report = attempt_at(AMPLE, move |mut connection| async move {
            let _ = connection.stream.write_all(text.as_bytes()).await;
            std::future::pending::<()>().await;
        })
        .await;
        assert_eq!(error_name(&report), "protocol", "{text:?}");
    }
}

#[tokio::test]
async fn bad_chunking_spoils_only_the_body() {
    for chunks in ["zz\r\n", "ffffffffffffffffff\r\n", "5\r\nstartX", "5;x=\0\r\n", "-1\r\n"] {
        let report = attempt_at(AMPLE, move |mut connection| async move {
            let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
            let _ = connection.stream.write_all(text.as_bytes()).await;
        })
        .await;
        let got = report.outcome.expect("an answer");
        assert_eq!((got.status, got.body_truncated), (200, true), "{chunks:?}");
    }
}

#[tokio::test]
async fn connection_lost_before_the_head_is_a_reset_with_its_evidence() {
    // What was sent before the end, and whether the end was a reset or an orderly close.
    for orderly in [true, false] {
        for sent in ["", "HTTP/1.1 ", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 100 Continue\r\n\r\n"] {
            let report = attempt_at(AMPLE, move |mut connection| async move {
                let _ = connection.stream.write_all(sent.as_bytes()).await;
                if !orderly {
                    connection.reset();
                }
            })
            .await;
            assert_eq!(error_name(&report), "reset", "{sent:?} orderly={orderly}");
            let Err(AttemptError::Reset { received, .. }) = report.outcome else { unreachable!("named so above") };
            // A reset discards what the kernel has not handed over yet.
            assert!(received == sent.len() || !orderly && received == 0, "{received} of {sent:?}");
            assert!(!report.repeated, "a fresh connection is not repeated");
        }
    }
}

#[tokio::test]
async fn connection_lost_after_the_head_leaves_the_answer() {
    let rows = [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsta",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsta",
    ];
    for text in rows {
        let report = attempt_at(AMPLE, move |mut connection| async move {
            let _ = connection.stream.write_all(text.as_bytes()).await;
        })
        .await;
        let got = report.outcome.expect("an answer");
        assert_eq!((got.status, &got.body_excerpt[..], got.body_truncated), (200, &b"sta"[..], true));
    }
}

#[tokio::test]
async fn connection_lost_before_the_request_was_read_is_a_reset() {
    let receiver = Receiver::start(|connection, _| async move { connection.reset() }).await;
    let (client, _stage) = client();
    let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
    // The reset may overtake the end of our own connect.
    assert!(["reset", "connect"].contains(&error_name(&report)), "{report:?}");
    assert_eq!(receiver.connections(), 1);
}
