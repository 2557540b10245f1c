//! The server's count of dues against one made here, from the publisher's own log of the keyframes it sent.

#![expect(clippy::disallowed_methods, reason = "compares the publisher's clock with now")]

mod common;

use std::time::Duration;

use common::{PATIENCE, push_url, serve, wait_for_snapshots};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::publisher::PublisherSpec;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::Server;
use framehook_testkit::wait;

const INTERVAL: Duration = Duration::from_secs(2);

/// How early an entry point may come and still serve a due: a quarter of the interval, half a second at most.
const EARLY: Duration = Duration::from_millis(500);

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    due: u64,
    taken: u64,
    no_entry_point: u64,
    push_ended: u64,
}

/// What should become of a push whose keyframes were sent at these times and which ended at `end`, all since the first.
fn recount(keyframes: &[Duration], end: Duration) -> Counts {
    let mut counts = Counts { due: 1, taken: 1, ..Counts::default() };
    let mut next_due = INTERVAL;
    for &sent in &keyframes[1..] {
        let mut waiting = 0;
        while next_due <= sent + EARLY {
            waiting += 1;
            next_due += INTERVAL;
        }
        if waiting > 0 {
            counts.due += waiting;
            counts.taken += 1;
            counts.no_entry_point += waiting - 1;
        }
    }
    let mut waiting = 0;
    while next_due <= end {
        waiting += 1;
        next_due += INTERVAL;
    }
    counts.due += waiting;
    counts.no_entry_point += waiting.saturating_sub(1);
    counts.push_ended += waiting.min(1);
    counts
}

fn counted(server: &Server) -> Counts {
    let metrics = server.metrics().unwrap();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels) as u64;
    let counts = Counts {
        due: sum("framehook_due_total", &[]),
        taken: sum("framehook_taken_total", &[]),
        no_entry_point: sum("framehook_skipped_total", &[("reason", "no_entry_point")]),
        push_ended: sum("framehook_skipped_total", &[("reason", "push_ended")]),
    };
    let skipped = sum("framehook_skipped_total", &[]);
    assert_eq!(counts.due, counts.taken + skipped + sum("framehook_open_dues", &[]));
    counts
}

#[test]
fn a_push_with_a_stall_is_counted_as_its_keyframes_say() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    // Keyframes lie on the grid and in the middle between two dues: milliseconds on the way change nothing.
    let clip = ClipSpec {
        width: 320,
        height: 180,
        kbit_per_s: 300,
        gop: Duration::from_secs(1),
        duration: Duration::from_secs(6),
        ..ClipSpec::default()
    };
    let file = clip.build().unwrap().flv().unwrap();
    let url = push_url(&server, "room_1001").parse().unwrap();
    let publisher = PublisherSpec::new(url, file).looped().start().unwrap();
    let began = publisher.wait_for_keyframes(1, PATIENCE).unwrap()[0].sent;
    publisher.wait_for_keyframes(6, PATIENCE).unwrap();
    publisher.stall();
    wait::until("two dues to pass during the stall", PATIENCE, || (counted(&server).no_entry_point >= 1).then_some(()))
        .unwrap();
    publisher.resume();
    let before = publisher.log().keyframes.len();
    publisher.wait_for_keyframes(before + 6, PATIENCE).unwrap();
    let log = publisher.stop();
    wait::until("the push to be over", PATIENCE, || {
        (server.metrics().ok()?.sum("framehook_live_streams", &[]) == 0.0).then_some(())
    })
    .unwrap();
    let end = std::time::Instant::now() - began;
    let keyframes: Vec<Duration> = log.keyframes.iter().map(|keyframe| keyframe.sent - began).collect();
    let expected = recount(&keyframes, end);
    assert_eq!(counted(&server), expected, "keyframes at {keyframes:?}");
    // Never a burst after a stall: pictures are at least half an interval apart.
    let pictures = wait_for_snapshots(&receiver, expected.taken as usize).unwrap();
    let created: Vec<u64> =
        pictures.iter().map(|request| request.json().unwrap()["create_time"].as_u64().unwrap()).collect();
    for pair in created.windows(2) {
        assert!(pair[1] - pair[0] >= 1, "pictures at {created:?}");
    }
}
