use bytes::Bytes;
use framehook_domain::id::{RuleId, TaskId};
use framehook_domain::pick::{Subscriber, Subscription};
use framehook_domain::refusal::PushEnd;
use framehook_domain::template::StoreTarget;
use framehook_domain::time::UnixMs;
use framehook_media::{Codec, DecoderConfig};
use framehook_render_wire::{Failure, Size};

use super::*;
use crate::db::DbError;
use crate::live::scene::{self, Scene, address, until};
use crate::live::{Hold, Lives};
use crate::store::IMAGE_BYTES_EXPECTED;
use crate::store::spool::SpoolError;

fn unit(data: Bytes) -> AccessUnit {
    AccessUnit { config: Arc::new(DecoderConfig { codec: Codec::H264, record: Bytes::new() }), data, dts_ms: 0 }
}

/// A push whose first entry point has been rendered, and the picture of it.
async fn rendered(scene: &Scene) -> (Hold, Pick, Vec<RenderedImage>) {
    let peer = [127, 0, 0, 1].into();
    let hold = scene.lives.admit(&address("room"), peer, peer).await.expect("admitted");
    scene.lives.entry_point(&hold.push, unit(Bytes::from_static(b"a keyframe")));
    let pick = scene.lives.pipeline.queue.next(Mono::default).await.expect("a pick");
    let image = RenderedImage { size: Size::new(64, 48), bytes: Bytes::from_static(b"a picture") };
    (hold, pick, vec![image])
}

/// Due, taken, skipped for this reason, open.
fn counts(lives: &Lives, reason: SkipReason) -> (u64, u64, u64, u64) {
    let counts = lives.totals();
    assert!(counts.is_balanced(), "{counts:?}");
    (counts.due, counts.taken, counts.skipped(reason), counts.open)
}

#[tokio::test]
async fn a_due_is_open_until_its_picture_is_durable() {
    let scene = Scene::new();
    let (_hold, pick, images) = rendered(&scene).await;
    scene.lives.pipeline.hand_over(pick, images).await;
    assert_eq!(counts(&scene.lives, SkipReason::CommitFailed), (1, 0, 0, 1));
    assert!(scene.lives.pipeline.committing_bytes() > 0);
    until("the commit", async || counts(&scene.lives, SkipReason::CommitFailed) == (1, 1, 0, 0)).await;
    until("its memory to be free", async || scene.lives.pipeline.committing_bytes() == 0).await;
}

#[tokio::test]
async fn a_picture_that_cannot_be_recorded_counts_as_such_also_when_its_push_has_ended() {
    for is_over in [false, true] {
        let scene = Scene::new();
        let (hold, pick, images) = rendered(&scene).await;
        scene.tamper("ALTER TABLE snapshot RENAME TO snapshot_away").await;
        scene.lives.pipeline.hand_over(pick, images).await;
        let held = if is_over {
            hold.give_back(PushEnd::DeleteStream);
            assert!(scene.lives.pushes().is_empty());
            None
        } else {
            Some(hold)
        };
        assert_eq!(counts(&scene.lives, SkipReason::CommitFailed), (1, 0, 0, 1), "push over: {is_over}");
        let expected = (1, 0, 1, 0);
        until("the answer", async || counts(&scene.lives, SkipReason::CommitFailed) == expected).await;
        drop(held);
    }
}

#[tokio::test]
async fn a_commit_that_never_answers_counts_as_failed() {
    let scene = Scene::new();
    let (hold, mut pick, _) = rendered(&scene).await;
    let lives = &scene.lives;
    let due = pick.wants.remove(0).ticket;
    let due = hold.push.hand_over(lives.clock.mono(), due).expect("in time");
    drop(Committing { push: Arc::clone(&hold.push), clock: lives.clock, dues: vec![due] });
    assert_eq!(counts(lives, SkipReason::CommitFailed), (1, 0, 1, 0));
}

#[tokio::test]
async fn a_due_for_which_there_is_no_room_is_counted_before_any_work_is_done() {
    let peer = [127, 0, 0, 1].into();
    let scene = Scene::with_spool(IMAGE_BYTES_EXPECTED - 1);
    let hold = scene.lives.admit(&address("room"), peer, peer).await.expect("admitted");
    scene.lives.entry_point(&hold.push, unit(Bytes::from_static(b"a keyframe")));
    assert_eq!(counts(&scene.lives, SkipReason::SpoolFull), (1, 0, 1, 0));
    assert_eq!(scene.lives.pipeline.queued(), 0);

    // The queue's own memory: pages that nobody writes to take none.
    let scene = Scene::new();
    let hold = scene.lives.admit(&address("room"), peer, peer).await.expect("admitted");
    scene.lives.entry_point(&hold.push, unit(vec![0; queue::BYTES_MAX + 1].into()));
    assert_eq!(counts(&scene.lives, SkipReason::Overload), (1, 0, 1, 0));
}

#[test]
fn a_due_without_a_picture_is_counted_under_what_went_wrong() {
    let failed = |reason| RenderError::Failed(Failure { reason, detail: String::new() });
    let cases = [
        (failed(FailureReason::Corrupt), SkipReason::Corrupt),
        (failed(FailureReason::NoPicture), SkipReason::Corrupt),
        (failed(FailureReason::Unsupported), SkipReason::UnsupportedCodec),
        (failed(FailureReason::HdrUnsupported), SkipReason::HdrUnsupported),
        (failed(FailureReason::TooLarge), SkipReason::TooLarge),
        (failed(FailureReason::OutOfMemory), SkipReason::WorkerOutOfMemory),
        (failed(FailureReason::Internal), SkipReason::RenderFailed),
        (RenderError::TimedOut, SkipReason::WorkerTimedOut),
        (RenderError::WorkerCrashed { signal: Some(11), last_words: String::new() }, SkipReason::WorkerCrashed),
        (RenderError::WorkerUnavailable, SkipReason::RendererBusy),
        (RenderError::WorkerBroken(String::new()), SkipReason::RenderFailed),
    ];
    for (error, expected) in cases {
        assert_eq!(skip_reason(&error), expected, "{error}");
    }
    let io = || Arc::new(std::io::Error::from(std::io::ErrorKind::Other));
    let cases = [
        (CommitError::SpoolFull, SkipReason::SpoolFull),
        (CommitError::Stopped, SkipReason::PushEnded),
        (CommitError::Spool(SpoolError::Sync { source: io() }), SkipReason::CommitFailed),
        (CommitError::Db(DbError::Stopped), SkipReason::CommitFailed),
    ];
    for (error, expected) in cases {
        assert_eq!(uncommitted_reason(&error), expected, "{error}");
    }
}

/// A pick of an entry point that a rule and a task want, the task in this width.
fn pick_of_two(task_width: u32) -> Pick {
    let subscription = |subscriber, width| {
        let template = SnapshotTemplate { width, ..SnapshotTemplate::built_in(StoreTarget::default()) };
        Subscription { subscriber, template: Arc::new(template) }
    };
    let wanted = vec![
        subscription(Subscriber::Rule(RuleId(1)), 0),
        subscription(Subscriber::Task(TaskId(uuid_v7(UnixMs(0), [0; 10]))), task_width),
    ];
    let push = scene::push(PushSequence::new(UnixMs(0), 1), wanted);
    let arrival = Arrival { mono: Mono::default(), wall: UnixMs(0) };
    let unit = unit(Bytes::from_static(b"a keyframe"));
    let wants = push.entry_point(&unit, arrival);
    Pick { trace: SnapshotId(uuid_v7(UnixMs(0), [1; 10])), push, unit, arrival, wants }
}

#[test]
fn wants_whose_next_due_has_fallen_are_let_go() {
    let mut pick = pick_of_two(160);
    let (due, interval) = (pick.wants[0].due, pick.wants[0].template.interval.duration());
    pick.drop_late(due.plus(interval.saturating_sub(Duration::from_millis(1))));
    assert_eq!(pick.wants.len(), 2);
    pick.drop_late(due.plus(interval));
    assert!(pick.wants.is_empty());
}

#[test]
fn wants_are_rendered_apart_where_that_may_save_some_of_them() {
    let failed = |reason| RenderError::Failed(Failure { reason, detail: String::new() });
    let different = pick_of_two(160);
    for (error, expected) in [
        (failed(FailureReason::TooLarge), true),
        (failed(FailureReason::OutOfMemory), true),
        (RenderError::TimedOut, false),
        (failed(FailureReason::Corrupt), false),
        (failed(FailureReason::HdrUnsupported), false),
        (RenderError::WorkerUnavailable, false),
    ] {
        assert_eq!(different.may_fare_better_alone(&error), expected, "{error}");
        assert!(!pick_of_two(0).may_fare_better_alone(&error), "both want the same image: {error}");
    }
    let (trace, other) = (different.trace, SnapshotId(uuid_v7(UnixMs(0), [2; 10])));
    let subscribers: Vec<_> = different.wants.iter().map(|want| want.subscriber).collect();
    let apart = different.apart(|| other);
    assert_eq!(apart.iter().map(|pick| pick.trace).collect::<Vec<_>>(), [trace, other]);
    assert_eq!(apart.iter().map(|pick| pick.wants[0].subscriber).collect::<Vec<_>>(), subscribers);
    assert!(apart.iter().all(|pick| pick.wants.len() == 1));
}
