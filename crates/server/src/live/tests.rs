use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use framehook_domain::catalog::{CatalogParts, Domain, ForbiddenStream};
use framehook_domain::id::{RuleId, TaskId, TemplateId, uuid_v7};
use framehook_domain::pick::{SkipReason, Subscriber};
use framehook_domain::rule::{RuleScope, SnapshotRule};
use framehook_domain::task::{ScreenshotTask, TaskWindow};
use framehook_domain::template::{
    CallbackTemplate, CallbackTemplateDraft, CallbackUrls, SnapshotTemplate, SnapshotTemplateDraft,
};
use framehook_domain::time::UnixMs;
use framehook_media::{Codec, DecoderConfig};

use super::scene::{Scene, address, stream, until};
use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Scene {
    async fn admit(&self, name: &str) -> Result<Hold, Refusal> {
        self.lives.admit(&address(name), PEER, PEER).await
    }

    fn configure(&self, version: u64, parts: CatalogParts) {
        self.catalog.send_replace(Arc::new(Catalog::build(version, parts).expect("a catalog")));
        // What `watch_catalog` does when it is woken.
        let catalog = Arc::clone(&self.catalog.borrow());
        for push in self.lives.pushes() {
            self.lives.follow(&push, &catalog);
        }
    }
}

fn domain() -> Domain {
    Domain { name: stream("room").domain, enabled: true, auth: None }
}

/// The domain of all streams here, with a picture every so many seconds.
fn every(interval_secs: i64) -> CatalogParts {
    let draft = SnapshotTemplateDraft {
        name: "shots".into(),
        interval_secs: Some(interval_secs),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "ap-guangzhou".into(),
        ..SnapshotTemplateDraft::default()
    };
    let scope = RuleScope { domain: domain().name, app: None, stream: None };
    CatalogParts {
        domains: vec![domain()],
        snapshot_templates: vec![SnapshotTemplate::validate(TemplateId(1), draft).expect("a template")],
        snapshot_rules: vec![SnapshotRule { id: RuleId(1), scope, template: TemplateId(1) }],
        ..CatalogParts::default()
    }
}

fn unit() -> AccessUnit {
    let config = Arc::new(DecoderConfig { codec: Codec::H264, record: Bytes::new() });
    AccessUnit { config, data: Bytes::from_static(b"a keyframe"), dts_ms: 0 }
}

#[tokio::test]
async fn a_session_that_fails_late_does_not_take_the_name_from_the_next_push() {
    let scene = Scene::new();
    let admission = Catalog::empty().admit(&address("room"), UnixMs(0), &AdmitPolicy::default()).expect("admitted");
    let take_over = || scene.lives.take_over(&admission, &address("room").param, PEER).expect("taken over");
    let (displaced, displacer) = (take_over(), take_over());
    // Neither could write the row. The one that holds the push says so first, and the next publisher begins anew.
    displacer.give_back(PushEnd::Unpublished);
    let next = take_over();
    displaced.give_back(PushEnd::Unpublished);
    assert!(Arc::ptr_eq(&scene.lives.pushes()[0], &next.push), "the new push is not listed any more");
}

#[tokio::test]
async fn a_push_that_cannot_be_recorded_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    scene.tamper("ALTER TABLE push RENAME TO push_away").await;
    assert_eq!(scene.admit("room").await.err(), Some(Refusal::Internal));
    assert!(scene.lives.pushes().is_empty());
    scene.tamper("ALTER TABLE push_away RENAME TO push").await;
    let _hold = scene.admit("room").await.expect("admitted");
    assert_eq!(scene.open_rows().await, [stream("room")]);
}

#[tokio::test]
async fn a_stream_that_was_fought_over_is_free_once_nobody_pushes_it() {
    let scene = Scene::new();
    let mut holder = scene.admit("room").await.expect("the first");
    for _ in 0..3 {
        holder = scene.admit("room").await.expect("a displacement");
    }
    assert_eq!(scene.admit("room").await.err(), Some(Refusal::TooManyPushes));
    holder.give_back(PushEnd::PeerClosed);
    let _newcomer = scene.admit("room").await.expect("nobody pushes it any more");
}

#[tokio::test]
async fn a_publisher_is_dropped_once_that_is_noted_and_not_before() {
    let scene = Scene::new();
    let mut hold = scene.admit("room").await.expect("admitted");
    let noted = async || scene.db.read(|conn| audit::list(conn, &audit::Filter::default(), 10)).await.expect("rows");
    scene.tamper("ALTER TABLE audit RENAME TO audit_away").await;
    assert!(scene.lives.drop_publisher(stream("room"), Caller::Control).await.is_err());
    assert!(hold.cut.try_recv().is_err(), "it was cut and nobody can tell by whom");
    scene.tamper("ALTER TABLE audit_away RENAME TO audit").await;
    scene.lives.drop_publisher(stream("nobody"), Caller::Control).await.expect("as it should be");
    assert!(noted().await.is_empty());
    scene.lives.drop_publisher(stream("room"), Caller::Control).await.expect("dropped");
    assert_eq!(hold.cut.try_recv(), Ok(CutReason::Dropped));
    let entry = noted().await.remove(0);
    assert_eq!((entry.verb.as_str(), entry.object), ("drop", stream("room").to_string()));
}

#[tokio::test]
async fn a_push_that_is_forbidden_while_its_row_is_written_is_cut() {
    let scene = Scene::new();
    let address = address("room");
    let mut admit = pin!(scene.lives.admit(&address, PEER, PEER));
    let is_pending = std::future::poll_fn(|cx| Poll::Ready(admit.as_mut().poll(cx).is_pending())).await;
    assert!(is_pending, "a row takes longer than nothing");
    let forbidden = vec![ForbiddenStream { stream: stream("room"), until: UnixMs(i64::MAX) }];
    let parts = CatalogParts { domains: vec![domain()], forbidden, ..CatalogParts::default() };
    scene.catalog.send_replace(Arc::new(Catalog::build(1, parts).expect("a catalog")));
    let mut hold = admit.await.expect("admitted by the catalog before");
    assert_eq!(hold.cut.try_recv(), Ok(CutReason::Forbidden));
}

#[tokio::test]
async fn the_first_object_leaves_running_pushes_alive_without_the_built_in_pictures() {
    let scene = Scene::new();
    let mut hold = scene.admit("room").await.expect("admitted");
    assert!(hold.push.wanted());
    let urls = CallbackUrls { snapshot_notify: Some("https://a.example/".into()), ..CallbackUrls::default() };
    let draft = CallbackTemplateDraft { name: "lone".into(), urls, ..CallbackTemplateDraft::default() };
    let template = CallbackTemplate::validate(TemplateId(1), draft).expect("a template");
    scene.configure(1, CatalogParts { callback_templates: vec![template], ..CatalogParts::default() });
    assert!(hold.cut.try_recv().is_err(), "it was cut");
    assert!(!hold.push.wanted());
    assert_eq!(scene.admit("other").await.err(), Some(Refusal::DomainUnknown));

    scene.configure(2, every(10));
    assert!(hold.push.wanted(), "the rules of its domain apply to it");
    let forbidden = vec![ForbiddenStream { stream: stream("room"), until: UnixMs(i64::MAX) }];
    scene.configure(3, CatalogParts { forbidden, ..CatalogParts::default() });
    assert_eq!(hold.cut.try_recv(), Ok(CutReason::Forbidden), "also while nothing else is configured");
}

#[tokio::test]
async fn a_changed_interval_spreads_the_pushes_it_reaches_and_their_places_come_back() {
    let scene = Scene::new();
    scene.configure(1, every(300));
    let mut holds = Vec::new();
    for number in 0..60 {
        holds.push(scene.admit(&format!("room_{number}")).await.expect("admitted"));
    }
    // At once, so that they are due at once under any interval.
    for hold in &holds {
        scene.lives.entry_point(&hold.push, unit());
    }
    let before = scene.lives.telemetry.metrics.phases_moved();
    scene.configure(2, every(2));
    assert!(scene.lives.telemetry.metrics.phases_moved() > before, "60 pushes share one phase");
    for hold in holds {
        hold.give_back(PushEnd::DeleteStream);
    }
    assert_eq!(format!("{:?}", scene.lives.lock().phases), format!("{:?}", Phases::default()));
}

#[tokio::test]
async fn of_two_open_rows_of_one_stream_a_restart_takes_up_the_newer_and_ends_the_older() {
    let scene = Scene::new();
    let [older, newer] = [1, 2].map(|number| PushSequence::new(UnixMs(60_000), number));
    for sequence in [older, newer] {
        let opening = PushOpening {
            sequence,
            stream: stream("room"),
            param: address("room").param,
            user_ip: PEER,
            node: PEER,
            opened_at: UnixMs(60_000),
        };
        scene.lives.log.open_push(opening).await.expect("a row");
    }
    scene.lives.restore(scene.lives.log.open_pushes().await.expect("rows"));
    until("the older push to be ended", async || scene.open_rows().await.len() == 1).await;
    let open = scene.lives.log.open_pushes().await.expect("rows");
    assert_eq!(open[0].sequence, newer);
    let returned = scene.admit("room").await.expect("admitted");
    assert_eq!(returned.push.sequence(), newer, "its publisher goes on with it");
}

#[tokio::test]
async fn a_restart_keeps_the_size_and_the_length_of_a_push() {
    let row = OpenPush {
        sequence: PushSequence::new(UnixMs(0), 1),
        stream: stream("room"),
        param: address("room").param,
        user_ip: PEER,
        node: PEER,
        opened_at: UnixMs(0),
        last_media: UnixMs(60_000),
        width: 1280,
        height: 720,
    };
    let at = |secs| Mono(Duration::from_secs(secs));
    let grace = Grace { until: at(70), end: PushEnd::ServerStopped };
    let push = Push::restored(row, (UnixMs(90_000), at(5)), grace);
    let PushProgress { last_media, width, height, .. } = push.progress();
    assert_eq!((last_media, width, height), (UnixMs(60_000), 1280, 720));
    assert_eq!(push.unsaved_progress(), None, "it is what the row says");
    push.media(Passed::Audio, 10, at(8));
    assert_eq!(push.progress().last_media, UnixMs(93_000), "told by the monotonic clock from the restart on");
    push.announce(Codec::H264, 640, 360);
    let unsaved = push.unsaved_progress().expect("both have changed");
    assert_eq!((unsaved.width, unsaved.height), (640, 360));
}

#[tokio::test]
async fn a_task_begins_and_ends_by_itself_on_a_push_that_lives() {
    let scene = Scene::new();
    scene.stage.spawn(Arc::clone(&scene.lives).watch_catalog(scene.stage.token()));
    let parts = CatalogParts { snapshot_rules: Vec::new(), ..every(10) };
    scene.configure(1, parts.clone());
    let hold = scene.admit("room").await.expect("admitted");
    assert!(!hold.push.wanted(), "no rule, no task");

    let now = scene.lives.clock.wall();
    let after = |ms| now.plus(Duration::from_millis(ms));
    let task = ScreenshotTask {
        id: TaskId(uuid_v7(now, [1; 10])),
        stream: stream("room"),
        template: TemplateId(1),
        window: TaskWindow::from_stored(after(300), after(1_500)).expect("a window"),
    };
    let id = Subscriber::Task(task.id);
    scene.configure(2, CatalogParts { tasks: vec![task], ..parts });
    assert!(!hold.push.wanted(), "it is still to begin");
    until("the task to begin", async || hold.push.wanted()).await;
    assert!(scene.lives.clock.wall() >= after(300));
    scene.lives.entry_point(&hold.push, unit());
    let rules = hold.push.snapshot(scene.lives.clock.mono()).rules;
    let [(subscription, counts)] = &rules[..] else { panic!("one grid") };
    assert_eq!((subscription.subscriber, counts.due, counts.open), (id, 1, 1));

    until("the task to end", async || !hold.push.wanted()).await;
    assert!(scene.lives.clock.wall() >= after(1_500));
    let totals = scene.lives.totals();
    assert_eq!((totals.due, totals.skipped(SkipReason::RuleRemoved), totals.open), (1, 1, 0), "nobody rendered it");
}
