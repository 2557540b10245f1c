use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use framehook_domain::id::{RuleId, SnapshotId, TaskId, uuid_v7};
use framehook_domain::pick::{Subscriber, Subscription};
use framehook_domain::template::{SnapshotInterval, SnapshotTemplate, StoreTarget};
use framehook_domain::time::UnixMs;
use framehook_media::{AccessUnit, Codec, DecoderConfig};
use uuid::Uuid;

use super::*;
use crate::keyframes::Arrival;
use crate::live::{Push, scene};

const TASK: Subscriber = Subscriber::Task(TaskId(Uuid::from_u128(1)));

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

/// A push whose rule wants a picture every 10 s, and its task one every 4 s.
fn push(number: u32) -> Arc<Push> {
    let subscription = |subscriber, secs| {
        let interval = SnapshotInterval::from_secs(secs).expect("an interval");
        let template = SnapshotTemplate { interval, ..SnapshotTemplate::built_in(StoreTarget::default()) };
        Subscription { subscriber, template: Arc::new(template) }
    };
    let wanted = vec![subscription(Subscriber::Rule(RuleId(1)), 10), subscription(TASK, 4)];
    scene::push(PushSequence::new(UnixMs(1_735_689_600_000), number), wanted)
}

/// The pick that an entry point of `bytes` bytes at `ms` leads to.
fn pick(push: &Arc<Push>, ms: u64, bytes: usize) -> Pick {
    let arrival = Arrival { mono: at(ms), wall: UnixMs(ms as i64) };
    let config = Arc::new(DecoderConfig { codec: Codec::H264, record: Bytes::new() });
    let unit = AccessUnit { config, data: Bytes::from(vec![0; bytes]), dts_ms: ms as u32 };
    let wants = push.entry_point(&unit, arrival);
    assert!(!wants.is_empty(), "nothing is due at {ms} ms");
    Pick { trace: SnapshotId(uuid_v7(arrival.wall, [0; 10])), push: Arc::clone(push), unit, arrival, wants }
}

fn subscribers(pick: &Pick) -> Vec<Subscriber> {
    let mut subscribers: Vec<_> = pick.wants.iter().map(|want| want.subscriber).collect();
    subscribers.sort();
    subscribers
}

#[tokio::test]
async fn the_pick_that_is_due_first_comes_first() {
    let queue = PickQueue::default();
    let (early, late) = (push(1), push(2));
    queue.put(pick(&late, 2_000, 1)).expect("room");
    queue.put(pick(&early, 1_000, 1)).expect("room");
    assert_eq!(queue.len(), 2);
    let order =
        [queue.next(Mono::default).await.expect("the first"), queue.next(Mono::default).await.expect("the second")];
    assert_eq!(order.map(|pick| pick.push.sequence()), [early.sequence(), late.sequence()]);
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

#[tokio::test]
async fn the_newer_entry_point_of_a_push_wins_and_serves_what_both_were_wanted_for() {
    let queue = PickQueue::default();
    let (twice, between) = (push(1), push(2));
    queue.put(pick(&twice, 0, 70)).expect("room");
    queue.put(pick(&between, 1_000, 1)).expect("room");
    // Only the task is due again; the rule's due still waits in the older pick.
    queue.put(pick(&twice, 4_000, 50)).expect("room");
    assert_eq!((queue.len(), queue.bytes()), (2, 51));
    let first = queue.next(Mono::default).await.expect("a pick");
    assert_eq!((first.push.sequence(), first.unit.data.len()), (twice.sequence(), 50), "it keeps its place");
    assert_eq!(subscribers(&first), [Subscriber::Rule(RuleId(1)), TASK]);
    assert_eq!(first.wants.iter().map(|want| want.due).max(), Some(at(4_000)));
}

#[tokio::test]
async fn a_push_whose_pick_is_late_keeps_its_place() {
    let queue = PickQueue::default();
    let (late, other) = (push(1), push(2));
    queue.put(pick(&late, 0, 1)).expect("room");
    queue.put(pick(&other, 5_000, 1)).expect("room");
    // Both dues of the first are over by then; those of the other are not.
    let next = queue.next(|| at(10_000)).await.expect("a pick");
    assert_eq!((next.push.sequence(), queue.len(), queue.bytes()), (other.sequence(), 0, 0));
    queue.put(pick(&other, 12_000, 1)).expect("room");
    queue.put(pick(&late, 13_000, 1)).expect("room");
    let next = queue.next(|| at(13_000)).await.expect("a pick");
    assert_eq!(next.push.sequence(), late.sequence(), "it has waited longest");
    // It has had its turn.
    queue.put(pick(&late, 20_000, 1)).expect("room");
    assert_eq!(queue.next(|| at(12_500)).await.expect("a pick").push.sequence(), other.sequence());
}

#[tokio::test]
async fn a_push_for_which_there_was_no_room_keeps_its_place() {
    let queue = PickQueue::default();
    let (refused, other) = (push(1), push(2));
    queue.put(pick(&refused, 0, BYTES_MAX + 1)).expect_err("no room");
    queue.put(pick(&other, 1_000, 1)).expect("room");
    queue.put(pick(&refused, 4_000, 1)).expect("room");
    assert_eq!(queue.next(Mono::default).await.expect("a pick").push.sequence(), refused.sequence());
}

#[tokio::test]
async fn what_waits_is_handed_out_after_the_close_and_then_every_worker_is_told() {
    let queue = PickQueue::default();
    let (one, other) = (push(1), push(2));
    queue.put(pick(&one, 0, 1)).expect("room");
    queue.put(pick(&other, 0, 1)).expect("room");
    queue.close();
    let (a, b, c) = tokio::join!(queue.next(Mono::default), queue.next(Mono::default), queue.next(Mono::default));
    assert_eq!([a, b, c].iter().filter(|pick| pick.is_some()).count(), 2);
    assert!(queue.next(Mono::default).await.is_none());
}

#[tokio::test]
async fn every_waiting_worker_is_woken_by_a_pick_of_its_own() {
    let queue = PickQueue::default();
    let pushes: Vec<_> = (0..3).map(push).collect();
    let workers =
        async { tokio::join!(queue.next(Mono::default), queue.next(Mono::default), queue.next(Mono::default)) };
    let feed = async {
        // The workers wait by now: a join polls its futures in order.
        for push in &pushes {
            queue.put(pick(push, 0, 1)).expect("room");
        }
    };
    let (picks, ()) = tokio::join!(workers, feed);
    let mut got = [picks.0, picks.1, picks.2].map(|pick| pick.expect("a pick").push.sequence());
    got.sort();
    assert_eq!(got.to_vec(), pushes.iter().map(|push| push.sequence()).collect::<Vec<_>>());
}

#[test]
fn a_pick_beyond_the_budget_of_bytes_is_refused_with_all_its_wants() {
    let queue = PickQueue::default();
    let (small, big) = (push(1), push(2));
    queue.put(pick(&small, 0, 100)).expect("room");
    queue.put(pick(&big, 0, 100)).expect("room");
    let refused = queue.put(pick(&big, 4_000, BYTES_MAX - 99)).expect_err("too many bytes");
    assert_eq!(refused.wants.len(), 2, "also those of the pick that it replaced");
    assert_eq!((queue.len(), queue.bytes()), (1, 100));
    queue.put(pick(&big, 10_000, BYTES_MAX - 100)).expect("room to the last byte");
}
