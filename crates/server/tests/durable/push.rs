//! Pushes and their events.

use std::time::Duration;

use framehook_domain::callback::EventKind;
use framehook_domain::id::PushSequence;
use framehook_domain::refusal::PushEnd;
use framehook_domain::stream::StreamParam;
use framehook_server::db::outbox::State;
use framehook_server::db::push::{PushClosing, PushOpening, PushProgress};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::wait;

use crate::harness::{CREATE_TIME, KEY, PATIENCE, Place, Process, Settings, of_kind, room, telling_room};

fn opening(sequence: PushSequence) -> PushOpening {
    PushOpening {
        sequence,
        stream: room(),
        param: StreamParam::parse("txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF").expect("a query"),
        user_ip: [203, 0, 113, 7].into(),
        node: [192, 0, 2, 10].into(),
        opened_at: CREATE_TIME,
    }
}

fn closing(sequence: PushSequence) -> PushClosing {
    PushClosing {
        sequence,
        ended_at: CREATE_TIME.plus(Duration::from_secs(4275)),
        last_media: CREATE_TIME.plus(Duration::from_secs(4270)),
        end: PushEnd::DeleteStream,
        width: 1280,
        height: 720,
    }
}

fn all_delivered(process: &Process, count: usize) {
    wait::until("every event", PATIENCE, || (process.count(State::Delivered) == count).then_some(()))
        .expect("delivered");
}

#[test]
fn both_events_are_told_with_one_sequence() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/")));
    let process = place.start();
    let sequence = PushSequence::new(CREATE_TIME, 1);
    process.block_on(process.log.open_push(opening(sequence))).expect("opened");
    all_delivered(&process, 1);
    process.block_on(process.log.close_push(closing(sequence))).expect("closed");
    all_delivered(&process, 2);

    let requests = receiver.requests();
    requests.iter().for_each(|request| request.verify(KEY).expect("a good signature"));
    let began = requests[0].json().expect("JSON");
    assert_eq!((began["event_type"].as_i64(), began["errmsg"].as_str()), (Some(1), Some("ok")));
    let ended = requests[1].json().expect("JSON");
    assert_eq!((ended["event_type"].as_i64(), ended["errmsg"].as_str()), (Some(0), Some("recv rtmp deleteStream")));
    assert_eq!(ended["push_duration"], "4270000", "up to the last media byte");
    assert_eq!((ended["width"].as_i64(), ended["height"].as_i64()), (Some(1280), Some(720)));
    for body in [&began, &ended] {
        assert_eq!(body["sequence"], sequence.to_string());
        assert_eq!((body["user_ip"].as_str(), body["node"].as_str()), (Some("203.0.113.7"), Some("192.0.2.10")));
        assert_eq!(body["stream_param"], "txSecret=97672276ddfff159cdb1ab726863f7bd&txTime=6955B8FF");
    }
}

#[test]
fn a_push_is_closed_once() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let sequence = PushSequence::new(CREATE_TIME, 1);
    process.block_on(process.log.open_push(opening(sequence))).expect("opened");
    for _ in 0..2 {
        process.block_on(process.log.close_push(closing(sequence))).expect("closed");
    }
    assert_eq!(process.list(of_kind(EventKind::PushEnded)).len(), 1);
    let again = process.block_on(process.log.open_push(opening(sequence)));
    assert!(again.expect_err("a sequence is used once").is_taken());
    assert_eq!(process.list(of_kind(EventKind::PushBegan)).len(), 1, "nothing of the refused push is left");
}

#[test]
fn a_push_without_a_receiver_is_recorded_all_the_same() {
    let place = Place::new(crate::harness::telling_nobody());
    let process = place.start();
    let sequence = PushSequence::new(CREATE_TIME, 1);
    process.block_on(process.log.open_push(opening(sequence))).expect("opened");
    assert_eq!(process.block_on(process.log.open_pushes()).expect("read").len(), 1);
    assert!(process.list(of_kind(EventKind::PushBegan)).is_empty());
}

#[test]
fn open_pushes_are_found_again_with_their_progress_after_a_kill() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let [gone, goes_on] = [1, 2].map(|random| PushSequence::new(CREATE_TIME, random));
    for sequence in [gone, goes_on] {
        process.block_on(process.log.open_push(opening(sequence))).expect("opened");
    }
    process.block_on(process.log.close_push(closing(gone))).expect("closed");
    let last_media = CREATE_TIME.plus(Duration::from_secs(60));
    let moved = [gone, goes_on].map(|sequence| PushProgress { sequence, last_media, width: 1280, height: 720 });
    process.block_on(process.log.save_progress(moved.to_vec())).expect("saved");
    process.kill();

    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let open = process.block_on(process.log.open_pushes()).expect("read");
    assert_eq!(open.len(), 1);
    let expected = opening(goes_on);
    assert_eq!((open[0].sequence, open[0].last_media), (goes_on, last_media));
    assert_eq!((open[0].width, open[0].height), (1280, 720));
    assert_eq!((&open[0].stream, &open[0].param), (&expected.stream, &expected.param));
    assert_eq!((open[0].user_ip, open[0].node, open[0].opened_at), (expected.user_ip, expected.node, CREATE_TIME));
}
