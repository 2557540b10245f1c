//! What real encoders sent, replayed at several split sizes. `testdata/rtmp/README.md` says how they were recorded.

use std::{collections::BTreeMap, path::Path};

use framehook_media::{avcc::Avcc, h264::Sps, time::Unwrap};
use framehook_rtmp::{Event, Limits, MediaKind, Phase, Session, handshake::RANDOM_BYTES};

fn trace(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/rtmp").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Replays a trace. The encoder waited for the answer to its `publish`, so the driver answers there: `publish_end` is
/// where the trace must be split if pieces are larger than one byte.
fn replay(trace: &[u8], piece_bytes: usize, publish_end: usize) -> Vec<Event> {
    let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
    let mut events = Vec::new();
    let (before, after) = trace.split_at(publish_end);
    for piece in before.chunks(piece_bytes).chain(after.chunks(piece_bytes)) {
        session.push(piece, |event| events.push(event)).unwrap();
        session.accept_publish();
        session.consume_output(session.output().len());
    }
    assert_eq!(session.phase(), Phase::Publish, "the encoder said goodbye");
    assert_eq!(session.received_bytes(), trace.len() as u64);
    events
}

/// Where the `publish` command ends.
fn publish_end(trace: &[u8]) -> usize {
    let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
    let decided = trace.iter().position(|byte| {
        session.push(&[*byte], |_| {}).unwrap();
        session.phase() == Phase::Decision
    });
    decided.expect("the trace has a publish") + 1
}

struct Expected {
    name: &'static str,
    /// Without the port, which was the kernel's choice.
    tc_url: (&'static str, &'static str),
    stream: &'static str,
    encoder: &'static str,
    size: (u32, u32),
    pictures: usize,
    entry_points_at_ms: &'static [u32],
    /// Messages, of which the first is the decoder's.
    audio: usize,
    /// Whether the handshake is the one with a digest.
    digest: bool,
}

fn check(expected: &Expected) {
    let bytes = trace(expected.name);
    let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
    session.push(&bytes[..1537], |_| {}).unwrap();
    assert_eq!(session.output()[5..9] != [0; 4], expected.digest, "S1 has a version only if C1 had a digest");

    let publish_end = publish_end(&bytes);
    let events = replay(&bytes, 1, publish_end);
    let text: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
    for piece_bytes in [7, 128, 1460, 65_536, usize::MAX] {
        let again: Vec<_> = replay(&bytes, piece_bytes, publish_end).iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(text, again, "pieces of {piece_bytes}");
    }

    let [Event::Publish(request), .., Event::Unpublish { .. }] = &events[..] else {
        panic!("publish first, unpublish last: {text:?}")
    };
    assert!(request.tc_url.starts_with(expected.tc_url.0) && request.tc_url.ends_with(expected.tc_url.1));
    assert_eq!((request.app.as_str(), request.stream.as_str()), ("live", expected.stream));

    let mut counts = BTreeMap::new();
    let mut entry_points_at_ms = Vec::new();
    let mut video_time = Unwrap::new();
    for event in &events {
        match event {
            Event::Metadata(metadata) => {
                assert!(metadata.encoder.as_deref().is_some_and(|name| name.starts_with(expected.encoder)));
                assert_eq!((metadata.width, metadata.height), (Some(expected.size.0), Some(expected.size.1)));
            }
            Event::Config(config) => {
                let avcc = Avcc::parse(&config.record).unwrap();
                let sps = Sps::parse(avcc.sps[0]).unwrap();
                assert_eq!((sps.width, sps.height), expected.size);
                *counts.entry("config").or_default() += 1;
            }
            Event::EntryPoint(unit) => {
                entry_points_at_ms.push(unit.dts_ms);
                assert_eq!(video_time.push(unit.dts_ms).timeline, 0);
                *counts.entry("picture").or_default() += 1;
            }
            Event::Media(media) => match media.kind {
                MediaKind::Audio { codec } => {
                    assert_eq!(codec.map(|codec| codec.to_string()).as_deref(), Some("aac"));
                    *counts.entry("audio").or_default() += 1;
                }
                MediaKind::Picture { keyframe, .. } => {
                    assert!(!keyframe, "all keyframes are entry points");
                    assert_eq!(video_time.push(media.timestamp_ms).timeline, 0);
                    *counts.entry("picture").or_default() += 1;
                }
                MediaKind::Video { .. } | MediaKind::Data => {}
            },
            Event::Publish(_) | Event::Unpublish { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(entry_points_at_ms, expected.entry_points_at_ms);
    let count = |name: &str| counts.get(name).copied().unwrap_or(0_usize);
    assert_eq!((count("config"), count("picture"), count("audio")), (1, expected.pictures, expected.audio));
}

#[test]
fn ffmpeg() {
    check(&Expected {
        name: "ffmpeg-5.1-h264-aac.bin",
        tc_url: ("rtmp://127.0.0.1:", "/live"),
        stream: "ffmpeg?token=abc",
        encoder: "Lavf59",
        size: (160, 90),
        pictures: 100,
        entry_points_at_ms: &[0, 1000, 2000, 3000],
        audio: 175,
        digest: true,
    });
}

#[test]
fn gstreamer_rtmp2sink() {
    check(&Expected {
        name: "gst-1.22-rtmp2sink.bin",
        tc_url: ("rtmp://127.0.0.1:", "/live"),
        stream: "gst2?token=abc",
        encoder: "GStreamer 1.22",
        size: (160, 90),
        pictures: 100,
        entry_points_at_ms: &[10, 1010, 2010, 3010],
        audio: 173,
        digest: false,
    });
}

#[test]
fn gstreamer_rtmpsink() {
    check(&Expected {
        name: "gst-1.22-rtmpsink.bin",
        tc_url: ("rtmp://127.0.0.1:", "/live"),
        stream: "gst1?token=abc",
        encoder: "GStreamer 1.22",
        size: (160, 90),
        pictures: 100,
        entry_points_at_ms: &[1, 1001, 2001, 3001],
        audio: 173,
        digest: false,
    });
}

#[test]
fn obs() {
    check(&Expected {
        name: "obs-29.0-h264-aac.bin",
        tc_url: ("rtmp://127.0.0.1:", "/live"),
        stream: "obs?token=abc",
        encoder: "obs-output",
        size: (640, 360),
        pictures: 181,
        entry_points_at_ms: &[0, 999, 1999, 2999, 3999, 4999, 5999],
        audio: 281,
        digest: false,
    });
}

#[test]
fn a_player_is_told_that_nothing_is_played() {
    let bytes = trace("ffmpeg-5.1-play.bin");
    let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
    session.push(&bytes, |event| panic!("{event:?}")).unwrap();
    let code = b"NetStream.Play.Failed";
    assert!(session.output().windows(code.len()).any(|window| window == code));
    assert_eq!(session.phase(), Phase::Publish);
}
