//! Receivers that abuse HTTP/2. They write their frames by hand (RFC 9113, 4.1 and 6).

use framehook_testkit::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    STATUS_103, STATUS_200, WINDOW_UPDATE, frame, long_header,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::*;

/// Reads frames until the end of the first request.
async fn read_request_frames(connection: &mut Connection) -> bool {
    let mut preface = [0; 24];
    if connection.read_exact(&mut preface).await.is_err() {
        return false;
    }
    loop {
        let mut head = [0; 9];
        if connection.read_exact(&mut head).await.is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if connection.read_exact(&mut payload).await.is_err() {
            return false;
        }
        if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
            return true;
        }
    }
}

/// One attempt at a receiver that sends `settings`, reads the request, sends `start` and then `flood` without end, if it is
/// not empty. Tells besides whether we closed the connection, which ends the flood.
async fn flooded(deadline: Duration, settings: &[u8], start: Vec<u8>, flood: Vec<u8>) -> (AttemptReport, bool) {
    // Whoever does not flood is let go with the client's other idle connections.
    let ends_by_itself = flood.is_empty();
    let closed = Arc::new(Semaphore::new(0));
    let (settings, told) = (frame(SETTINGS, 0, 0, settings), Arc::clone(&closed));
    let place = Place::start(move |mut connection, _| {
        let (settings, start, flood, told) = (settings.clone(), start.clone(), flood.repeat(64), Arc::clone(&told));
        async move {
            let stream = &mut connection.stream;
            if stream.write_all(&settings).await.is_ok()
                && read_request_frames(stream).await
                && stream.write_all(&start).await.is_ok()
            {
                while !flood.is_empty() && stream.write_all(&flood).await.is_ok() {}
                // Until our side has ended it.
                while stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {}
            }
            told.add_permits(1);
        }
    })
    .await;
    let report = place.client.attempt(&place.url(), &post("{}"), deadline).await;
    if ends_by_itself {
        place.stage.end(AMPLE).await;
    }
    let is_closed = tokio::time::timeout(AMPLE, closed.acquire()).await.is_ok();
    (report, is_closed)
}

#[tokio::test]
async fn floods_before_the_head_are_cut_off() {
    let floods = [
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("frames of an unknown kind", frame(0xfa, 0, 0, &[0; 1024])),
        ("interim heads", frame(HEADERS, END_HEADERS, 1, STATUS_103)),
    ];
    for (name, flood) in floods {
        let (report, is_closed) = flooded(AMPLE, &[], Vec::new(), flood).await;
        // The library counts some of these itself, and ends the connection sooner than we do.
        assert!(["head_too_large", "protocol"].contains(&error_name(&report)), "{name}: {report:?}");
        assert!(report.duration < AMPLE / 2 && is_closed, "{name}: {:?}", report.duration);
    }
}

#[tokio::test]
async fn heads_without_end_are_cut_off() {
    let continuation = frame(CONTINUATION, 0, 1, &long_header(false));
    let (report, is_closed) = flooded(AMPLE, &[], frame(HEADERS, 0, 1, STATUS_200), continuation).await;
    assert!(["head_too_large", "protocol"].contains(&error_name(&report)), "{report:?}");
    assert!(is_closed);

    let empty = frame(CONTINUATION, 0, 1, &[]);
    let (report, is_closed) = flooded(AMPLE, &[], frame(HEADERS, 0, 1, STATUS_200), empty).await;
    assert!(["head_too_large", "protocol"].contains(&error_name(&report)), "{report:?}");
    assert!(is_closed);
}

#[tokio::test]
async fn head_over_its_limit_is_refused() {
    let block = [STATUS_200.to_vec(), long_header(false).repeat(3)].concat();
    let (report, _) = flooded(AMPLE, &[], frame(HEADERS, END_HEADERS | END_STREAM, 1, &block), Vec::new()).await;
    assert_eq!(status(&report), 200, "12 KiB are within it");
    let block = [STATUS_200.to_vec(), long_header(false).repeat(2)].concat();
    let rest = frame(CONTINUATION, END_HEADERS, 1, &long_header(false).repeat(3));
    let head = [frame(HEADERS, END_STREAM, 1, &block), rest].concat();
    let (report, _) = flooded(AMPLE, &[], head, Vec::new()).await;
    assert_eq!(error_name(&report), "protocol", "{report:?}");
}

#[tokio::test]
async fn floods_after_the_head_spoil_only_the_body() {
    let floods = [
        ("empty data", frame(DATA, 0, 1, &[])),
        ("data beyond every window", frame(DATA, 0, 1, &[b'z'; 1 << 14])),
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("resets", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("data on another stream", frame(DATA, 0, 7, b"z")),
    ];
    for (name, flood) in floods {
        let head = frame(HEADERS, END_HEADERS, 1, STATUS_200);
        let (report, is_closed) = flooded(AMPLE, &[], head, flood).await;
        let got = report.outcome.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        assert_eq!((got.status, got.body_truncated), (200, true), "{name}");
        assert!(got.body_excerpt.len() <= 16 << 10, "{name}");
        assert!(is_closed, "{name}");
    }
}

#[tokio::test]
async fn silence_and_closed_windows_end_at_the_deadline() {
    let no_window = [0, 4, 0, 0, 0, 0];
    let no_streams = [0, 3, 0, 0, 0, 0];
    for (name, settings) in [("silence", &[][..]), ("no window", &no_window), ("no streams", &no_streams)] {
        let (report, is_closed) = flooded(SHORT, settings, Vec::new(), Vec::new()).await;
        assert_eq!(error_name(&report), "timeout", "{name}");
        assert!(report.duration >= SHORT && report.duration < AMPLE / 2, "{name}: {:?}", report.duration);
        assert!(is_closed, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_http_2_is_a_failure_with_its_name() {
    let no_error = [0, 0, 0, 0, 0, 0, 0, 0];
    let rows = [
        ("text", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), "protocol"),
        ("data before the head", frame(DATA, END_STREAM, 1, b"ok"), "protocol"),
        ("a promise that we do not take", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), "protocol"),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), "protocol"),
        ("a head that is not HPACK", frame(HEADERS, END_HEADERS, 1, &[0xff; 64]), "protocol"),
        ("a head without a status", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]), "protocol"),
        ("a frame over its size", frame(DATA, 0, 1, &[0; (1 << 14) + 1]), "protocol"),
        ("farewell at once", frame(GOAWAY, 0, 0, &no_error), "reset"),
        ("calm down", frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xb]), "reset"),
        ("a refusal", frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), "reset"),
    ];
    for (name, start, expected) in rows {
        let (report, is_closed) = flooded(AMPLE, &[], start, Vec::new()).await;
        assert_eq!(error_name(&report), expected, "{name}: {report:?}");
        assert!(is_closed && !report.repeated, "{name}");
        assert!(report.duration < AMPLE / 2, "{name}: {:?}", report.duration);
    }
}

#[tokio::test]
async fn connection_lost_before_the_head_is_a_reset() {
    let place = Place::start(|mut connection, _| async move {
        read_request_frames(&mut connection.stream).await;
    })
    .await;
    let report = place.attempt().await;
    assert_eq!((error_name(&report), report.repeated), ("reset", false));
}
