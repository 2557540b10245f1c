//! The server's count of dues against one made here, from the publisher's own log of the keyframes it sent; and what becomes
//! of dues when pictures cannot be made.

#![expect(clippy::disallowed_methods, reason = "compares the publisher's clock with now")]

mod common;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use common::{PATIENCE, check_snapshot, push_url, serve, wait_for_snapshots};
use framehook_testkit::clip::{self, ClipSpec};
use framehook_testkit::flv::FlvFile;
use framehook_testkit::publisher::{Publisher, PublisherSpec};
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::server::Server;
use framehook_testkit::wait;
use rustix::process::Signal;
use serde_json::Value;

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

/// What should become of a push whose keyframes were sent at these times and which ended at `end`, all since the first; and
/// which keyframes should become pictures.
fn recount(keyframes: &[Duration], end: Duration) -> (Counts, Vec<usize>) {
    let mut counts = Counts { due: 1, taken: 1, ..Counts::default() };
    let mut picked = vec![0];
    let mut next_due = INTERVAL;
    for (index, &sent) in keyframes.iter().enumerate().skip(1) {
        let mut waiting = 0;
        while next_due <= sent + EARLY {
            waiting += 1;
            next_due += INTERVAL;
        }
        if waiting > 0 {
            counts.due += waiting;
            counts.taken += 1;
            counts.no_entry_point += waiting - 1;
            picked.push(index);
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
    (counts, picked)
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
    // A picture that is still being rendered when its push ends in order is skipped for that; this push ends behind its last.
    let sent: Vec<Duration> = publisher.log().keyframes.iter().map(|keyframe| keyframe.sent - began).collect();
    let taken = recount(&sent, Duration::ZERO).0.taken;
    wait::until("the last picture to be taken", PATIENCE, || (counted(&server).taken >= taken).then_some(())).unwrap();
    let log = publisher.stop();
    wait::until("the push to be over", PATIENCE, || {
        let metrics = server.metrics().ok()?;
        let is_zero = |name| metrics.sum(name, &[]) == 0.0;
        (is_zero("framehook_live_streams") && is_zero("framehook_open_dues")).then_some(())
    })
    .unwrap();
    let end = std::time::Instant::now() - began;
    let keyframes: Vec<Duration> = log.keyframes.iter().map(|keyframe| keyframe.sent - began).collect();
    let (expected, picked) = recount(&keyframes, end);
    assert_eq!(counted(&server), expected, "keyframes at {keyframes:?}");
    // Each picture shows the very keyframe that its due fell on, and says when that arrived.
    let pictures = wait_for_snapshots(&receiver, expected.taken as usize).unwrap();
    let mut snapshots: Vec<_> = pictures.iter().map(|request| check_snapshot(&server, request).unwrap()).collect();
    snapshots.sort_by_key(|snapshot| snapshot.body["create_time"].as_i64());
    assert_eq!(snapshots.len(), picked.len());
    for (snapshot, index) in snapshots.iter().zip(&picked) {
        let keyframe = &log.keyframes[*index];
        assert_eq!(clip::frame_number(&snapshot.picture), Some(keyframe.picture_number), "{}", snapshot.body);
        let sent = keyframe.sent_wall.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let created = snapshot.body["create_time"].as_f64().unwrap();
        // Whole seconds, and what the way takes on a loaded machine.
        assert!((-0.5..=1.5).contains(&(sent - created)), "sent at {sent}: {}", snapshot.body);
    }
    // Never a burst after a stall: pictures are at least half an interval apart.
    for pair in picked.windows(2) {
        assert!(keyframes[pair[1]] - keyframes[pair[0]] >= INTERVAL / 2, "{picked:?} of {keyframes:?}");
    }
}

/// A small clip with a keyframe every second.
fn clip() -> FlvFile {
    let spec = ClipSpec {
        width: 320,
        height: 180,
        kbit_per_s: 300,
        gop: Duration::from_secs(1),
        duration: Duration::from_secs(6),
        ..ClipSpec::default()
    };
    spec.build().unwrap().flv().unwrap()
}

fn publish(server: &Server, stream: &str, file: FlvFile) -> Publisher {
    PublisherSpec::new(push_url(server, stream).parse().unwrap(), file).looped().start().unwrap()
}

/// The only rule's counts of a live stream, which must balance.
fn rule(server: &Server, stream: &str) -> Result<Value> {
    let listed = server.v1("GET", "/v1/streams", None)?;
    let streams = listed["streams"].as_array().context("no list")?;
    let found =
        streams.iter().find(|entry| entry["name"] == stream).with_context(|| format!("{stream} is not live"))?;
    let rule = found["rules"][0].clone();
    let count = |name: &str| rule[name].as_u64().unwrap_or_default();
    let skipped: u64 = rule["skipped"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    ensure!(count("due") == count("taken") + skipped + count("open") && count("open") <= 1, "{rule}");
    Ok(rule)
}

fn skipped(rule: &Value, reason: &str) -> u64 {
    rule["skipped"][reason].as_u64().unwrap_or_default()
}

#[test]
fn workers_and_receivers_that_hang_make_no_publisher_wait() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "[render]\nworkers = 1\ndeadline = \"30s\"\n").unwrap();
    let publisher = publish(&server, "room", clip());
    wait_for_snapshots(&receiver, 1).unwrap();
    receiver.reply_always(Reply::Hang);
    let workers = server.children().unwrap();
    for worker in &workers {
        worker.signal(Signal::STOP).unwrap();
    }
    let stuck = wait::until("three dues that no worker had time for", PATIENCE, || {
        let rule = rule(&server, "room").unwrap();
        (skipped(&rule, "renderer_busy") >= 3).then_some(rule)
    });
    let stuck = stuck.unwrap();
    let log = publisher.log();
    assert!(log.end.is_none() && log.late_max < Duration::from_millis(500), "late by {:?}", log.late_max);
    for worker in &workers {
        worker.signal(Signal::CONT).unwrap();
    }
    receiver.reply_always(Reply::Status(200));
    wait::until("pictures again", PATIENCE, || {
        let now = rule(&server, "room").unwrap();
        (now["taken"].as_u64() > stuck["taken"].as_u64().map(|taken| taken + 1)).then_some(())
    })
    .unwrap();
}

/// The keyframe of [`clip`] that is damaged: the one two seconds in, on which a due of each round falls.
const DAMAGED: u32 = 60;

/// The clip with that keyframe's slices overwritten in their middle, as a line that flips bits would leave it.
fn damaged(mut file: FlvFile) -> FlvFile {
    let numbers = file.picture_numbers();
    let at = numbers.iter().position(|number| *number == Some(DAMAGED)).expect("a clip of six seconds");
    assert!(file.tags[at].is_keyframe());
    let mut data = BytesMut::from(&file.tags[at].data[..]);
    let middle = data.len() / 2;
    data[middle..middle + 400].iter_mut().for_each(|byte| *byte ^= 0x5A);
    file.tags[at].data = Bytes::from(data);
    file
}

#[test]
fn a_damaged_keyframe_costs_its_own_picture_and_nobody_elses() {
    let receiver = Receiver::start().unwrap();
    let server = serve(&receiver, 2, "").unwrap();
    let _healthy = publish(&server, "healthy", clip());
    let _damaged = publish(&server, "damaged", damaged(clip()));
    wait::until("two damaged pictures to be told of", PATIENCE, || {
        let rule = rule(&server, "damaged").unwrap();
        (skipped(&rule, "corrupt") >= 2 && rule["taken"].as_u64() >= Some(1)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", rule(&server, "damaged"), server.log()));
    let healthy = rule(&server, "healthy").unwrap();
    assert_eq!(healthy["skipped"], serde_json::json!({}), "{healthy}");
    let mut shown = std::collections::BTreeSet::new();
    for request in receiver.requests().iter().filter(|request| request.event_type() == Some(200)) {
        let snapshot = check_snapshot(&server, request).unwrap();
        let number = clip::frame_number(&snapshot.picture).unwrap();
        shown.insert((snapshot.body["stream_id"].as_str().unwrap().to_owned(), number));
    }
    assert!(shown.contains(&("healthy".to_owned(), DAMAGED)), "{shown:?}");
    assert!(!shown.contains(&("damaged".to_owned(), DAMAGED)), "{shown:?}");
}

#[test]
fn pushes_that_arrive_at_once_are_spread_over_the_interval() {
    let receiver = Receiver::start().unwrap();
    // A twentieth of eight seconds is what "at once" means then.
    let server = serve(&receiver, 8, "").unwrap();
    let clip = clip();
    let publishers: Vec<Publisher> = std::thread::scope(|scope| {
        let start = |index| {
            let (server, clip) = (&server, clip.clone());
            scope.spawn(move || publish(server, &format!("room_{index}"), clip))
        };
        let starting: Vec<_> = (0..24).map(start).collect();
        starting.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });
    wait::until("two pictures of each", PATIENCE, || {
        let all = (0..24).all(|index| {
            let rule = rule(&server, &format!("room_{index}")).unwrap();
            rule["taken"].as_u64() >= Some(2)
        });
        all.then_some(())
    })
    .unwrap();
    let metrics = server.metrics().unwrap();
    let moves = metrics.sum("framehook_phase_moves_total", &[]);
    assert!((1.0..=24.0).contains(&moves), "{moves} moves");
    drop(publishers);
}
