//! Several images of one picture: rows, objects and callbacks of each, and one count for all.

use std::sync::Arc;

use framehook_domain::callback::EventKind;
use framehook_domain::id::TemplateId;
use framehook_domain::template::{RenditionDraft, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_server::commit::CommitError;
use framehook_server::db::count::{CountFilter, Interval, list as counts};
use framehook_server::db::outbox::State;
use framehook_server::db::snapshot::{self, PutState};
use framehook_testkit::wait;

use crate::harness::{CREATE_TIME, PATIENCE, Place, Process, Settings, of_kind, room, telling_room};

/// The picture, a thumbnail of it, and a copy for the archive in a bucket of its own.
fn template() -> Arc<SnapshotTemplate> {
    let rendition = |name: &str, width, format: &str, bucket: Option<&str>| RenditionDraft {
        name: name.to_owned(),
        width: Some(width),
        format: Some(format.to_owned()),
        bucket: bucket.map(str::to_owned),
        ..RenditionDraft::default()
    };
    let draft = SnapshotTemplateDraft {
        name: "shots".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "ap-guangzhou".into(),
        renditions: vec![rendition("thumb", 320, "webp", None), rendition("archive", 0, "png", Some("archive"))],
        ..SnapshotTemplateDraft::default()
    };
    Arc::new(SnapshotTemplate::validate(TemplateId(1), draft).expect("a template"))
}

fn body(process: &Process, event: usize) -> serde_json::Value {
    let deliveries = process.list(of_kind(EventKind::Snapshot));
    serde_json::from_str(&process.show(deliveries[event].id).body).expect("a body")
}

#[test]
fn each_rendition_has_an_object_a_row_and_a_callback_and_the_picture_counts_once() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { notifies: false, ..Settings::default() });
    let picture = process.picture(&room(), &template());
    let recorded = process.block_on(process.committer.commit(picture)).expect("committed");
    let keys: Vec<&str> = recorded.iter().map(|recorded| recorded.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "2025-01-01/room_1001-screenshot-08-00-00-1280x720.jpg",
            "2025-01-01/room_1001-screenshot-08-00-00-320x180-thumb.webp",
            "2025-01-01/room_1001-screenshot-08-00-00-1280x720-archive.png",
        ]
    );
    let due = || (process.count(State::Due) == 3).then_some(());
    wait::until("three callbacks to fall due", PATIENCE, due).expect("stored");
    for (bucket, recorded) in ["shots", "shots", "archive"].into_iter().zip(&recorded) {
        let object = place.dir().join(format!("objects/{bucket}-1250000000")).join(recorded.key.as_str());
        let stored = std::fs::read_to_string(object).expect("an object");
        assert_eq!(stored, format!("a picture called {}", recorded.snapshot_id));
    }

    let mut told: Vec<_> = (0..3).map(|event| body(&process, event)).collect();
    told.sort_by_key(|body| body["rendition"].to_string());
    let told: Vec<_> = told.iter().map(|body| (&body["rendition"], &body["width"], &body["pic_url"])).collect();
    let expected = [("archive", 1280, 2), ("main", 1280, 0), ("thumb", 320, 1)];
    for ((rendition, width, pic_url), (name, pixels, index)) in told.into_iter().zip(expected) {
        assert_eq!((rendition.as_str(), width.as_i64()), (Some(name), Some(pixels)));
        assert_eq!(pic_url.as_str(), Some(&*recorded[index].key.pic_url()));
    }

    let rows = process.block_on(process.db.read(|conn| snapshot::list(conn, &snapshot::Filter::default(), 10)));
    let mut rows: Vec<_> = rows
        .expect("rows")
        .into_iter()
        .map(|row| (row.rendition.expect("a name"), row.format.name(), row.state))
        .collect();
    rows.sort_by_key(|(name, ..)| name.clone());
    let stored = |name: &str, format| (name.to_owned(), format, PutState::Stored);
    assert_eq!(rows, [stored("archive", "png"), stored("main", "jpeg"), stored("thumb", "webp")]);

    let filter = CountFilter {
        since: CREATE_TIME.minus(std::time::Duration::from_secs(86_400)),
        until: CREATE_TIME.plus(std::time::Duration::from_secs(86_400)),
        domains: Vec::new(),
        interval: Interval::Day,
    };
    let counted = process.block_on(process.db.read(move |conn| counts(conn, &filter))).expect("counts");
    assert_eq!(counted.iter().map(|count| count.pictures).sum::<u64>(), 1);
}

#[test]
fn a_lone_rendition_is_announced_as_css_does() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    process.commit(&room());
    assert_eq!(body(&process, 0).get("rendition"), None);
}

#[test]
fn a_picture_is_committed_with_all_its_renditions_or_with_none() {
    let place = Place::new(telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..Settings::default() });
    let mut picture = process.picture(&room(), &template());
    // The third has the id of the first, which its row cannot have.
    picture.pictures[0].renditions[2].snapshot_id = picture.pictures[0].renditions[0].snapshot_id;
    let refused = process.block_on(process.committer.commit(picture));
    assert!(matches!(refused, Err(CommitError::Db(_) | CommitError::Spool(_))), "{refused:?}");
    assert!(process.list(of_kind(EventKind::Snapshot)).is_empty());
    let left = std::fs::read_dir(place.dir().join("spool")).expect("a directory").count();
    assert_eq!(left, 0, "files in the spool");
}
