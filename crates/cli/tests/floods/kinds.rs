//! What receivers flood a sender with: HTTP/1.1 (RFC 9112) and HTTP/2 (RFC 9113), byte by byte.

use std::time::Duration;

use framehook_testkit::flooder::{Flood, Protocol};
use framehook_testkit::http2::{
    CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, STATUS_103,
    STATUS_200, WINDOW_UPDATE, frame, long_header,
};

/// One kind, and how an attempt at it may end.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) flood: Flood,
    pub(crate) outcomes: &'static [&'static str],
}

/// It ends when the time for it is over.
const TIMED_OUT: &[&str] = &["timeout"];
/// The head was good, and it decides.
const TAKEN: &[&str] = &["delivered"];
/// It is cut off, by our limits or by the library's.
const CUT_OFF: &[&str] = &["head_too_large", "protocol"];
/// The same with HTTP/2, where requests share a connection: others end with the one that was flooded, or begin on one that is
/// about to end.
const CUT_OFF_TOGETHER: &[&str] = &["head_too_large", "protocol", "reset", "cut"];
const TAKEN_OR_CUT_OFF_TOGETHER: &[&str] = &["delivered", "head_too_large", "protocol", "reset", "cut"];

/// A receiver as it should be.
pub(crate) fn polite() -> Flood {
    http1("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"code\":0}", b"")
}

fn http1(start: &str, flood: &[u8]) -> Flood {
    Flood {
        protocol: Protocol::Http1,
        opening: Vec::new(),
        start: start.as_bytes().to_vec(),
        flood: flood.to_vec(),
        pause: Duration::ZERO,
    }
}

fn http2(settings: &[u8], start: &[u8], flood: &[u8]) -> Flood {
    Flood {
        protocol: Protocol::Http2,
        opening: frame(SETTINGS, 0, 0, settings),
        start: start.to_vec(),
        flood: flood.to_vec(),
        pause: Duration::ZERO,
    }
}

/// Zeros behind gzip (RFC 1951, 3.2.6): after the head and a first zero, 13 bits for 258 more, over and over. Eight of these
/// are 13 bytes.
fn gzip_of_zeros() -> (Vec<u8>, Vec<u8>) {
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    // Bits in the order in which they are sent: a block with fixed codes that is not the last, the literal 0.
    let mut bits: Vec<u8> = vec![0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    // Length 258 (code 285), distance 1 (code 0).
    let repeat = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    // 11 bits, five repeats and the first byte's rest: then the pattern of 104 bits begins anew at whole bytes.
    bits.extend(repeat.iter().cycle().take(5));
    let pattern: Vec<u8> = repeat.iter().cycle().skip(5).take(104).copied().collect();
    let bytes = |bits: &[u8]| -> Vec<u8> {
        bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect()
    };
    ([&HEAD[..], &bytes(&bits)].concat(), bytes(&pattern))
}

/// Each kind there is.
pub(crate) fn all() -> Vec<Kind> {
    let kind = |name, flood, outcomes| Kind { name, flood, outcomes };
    let mut kinds = of_http1(kind);
    kinds.extend(of_http2(kind));
    kinds
}

type Make = fn(&'static str, Flood, &'static [&'static str]) -> Kind;

fn of_http1(kind: Make) -> Vec<Kind> {
    let line = [b"x: ".to_vec(), vec![b'y'; 1000], b"\r\n".to_vec()].concat();
    let (gzip, zeros) = gzip_of_zeros();
    let gzip = [&b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n"[..], &gzip].concat();
    let trickle = Flood { pause: Duration::from_millis(50), ..http1("HTTP/1.1 200 OK\r\n", b"x") };
    vec![
        kind("silence", http1("", b""), TIMED_OUT),
        kind("a head that trickles", trickle, TIMED_OUT),
        kind("a status line without end", http1("HTTP/1.1 200 ", b"OOOO"), CUT_OFF),
        kind("header lines without end", http1("HTTP/1.1 200 OK\r\n", &line), CUT_OFF),
        kind("short header lines without end", http1("HTTP/1.1 200 OK\r\n", b"a:b\r\n"), CUT_OFF),
        kind("interim answers without end", http1("", b"HTTP/1.1 103 Early Hints\r\n\r\n"), CUT_OFF),
        kind("a body without end", http1("HTTP/1.1 200 OK\r\n\r\n", b"zzzz"), TAKEN),
        kind("a gzip bomb", Flood { start: gzip, ..http1("", &zeros) }, TAKEN),
        kind(
            "chunks without end",
            http1("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"4\r\nzzzz\r\n"),
            TAKEN,
        ),
        kind(
            "a chunk's extension without end",
            http1("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;", b"zzzz"),
            TAKEN,
        ),
        kind("trailers without end", http1("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", &line), TAKEN),
    ]
}

fn of_http2(kind: Make) -> Vec<Kind> {
    let head = frame(HEADERS, END_HEADERS, 1, STATUS_200);
    let open_head = frame(HEADERS, 0, 1, STATUS_200);
    let bomb = frame(HEADERS, 0, 1, &[STATUS_200, &long_header(true)].concat());
    let before_head = |flood: &[u8]| http2(&[], &[], flood);
    let after_head = |flood: &[u8]| http2(&[], &head, flood);
    let in_head = |start: &[u8], flood: &[u8]| http2(&[], start, &frame(CONTINUATION, 0, 1, flood));
    vec![
        kind("no window", http2(&[0, 4, 0, 0, 0, 0], &[], &[]), TIMED_OUT),
        kind("no streams", http2(&[0, 3, 0, 0, 0, 0], &[], &[]), TIMED_OUT),
        kind("settings", before_head(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])), CUT_OFF_TOGETHER),
        kind("pings", before_head(&frame(PING, 0, 0, &[7; 8])), CUT_OFF_TOGETHER),
        kind("priorities", before_head(&frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])), CUT_OFF_TOGETHER),
        kind("window updates", before_head(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])), CUT_OFF_TOGETHER),
        kind("promises", before_head(&frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), CUT_OFF_TOGETHER),
        kind("farewells", before_head(&frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])), CUT_OFF_TOGETHER),
        kind("frames of an unknown kind", before_head(&frame(0xfa, 0, 0, &[0; 1024])), CUT_OFF_TOGETHER),
        kind("interim heads", before_head(&frame(HEADERS, END_HEADERS, 1, STATUS_103)), CUT_OFF_TOGETHER),
        kind("a head that goes on", in_head(&open_head, &long_header(false)), CUT_OFF_TOGETHER),
        kind("a head that goes on with nothing", in_head(&open_head, &[]), CUT_OFF_TOGETHER),
        // Each byte stands for the 4,000 of the indexed field.
        kind("a head that is a bomb", in_head(&bomb, &[0xbe; 1 << 12]), CUT_OFF_TOGETHER),
        kind("data beyond every window", after_head(&frame(DATA, 0, 1, &[b'z'; 1 << 14])), TAKEN_OR_CUT_OFF_TOGETHER),
        kind("empty data", after_head(&frame(DATA, 0, 1, &[])), TAKEN_OR_CUT_OFF_TOGETHER),
        kind("resets", after_head(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])), TAKEN_OR_CUT_OFF_TOGETHER),
        kind("pings behind the head", after_head(&frame(PING, 0, 0, &[7; 8])), TAKEN_OR_CUT_OFF_TOGETHER),
    ]
}
