//! Object stores that are away, hang or refuse, and what becomes of the pictures meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::{SnapshotId, TemplateId};
use framehook_domain::template::{Objects, SnapshotTemplate, SnapshotTemplateDraft};
use framehook_server::audit::Caller;
use framehook_server::commit::Recorded;
use framehook_server::db::outbox::{self, Filter, State};
use framehook_server::store::{PlaceState, PlaceStatus};
use framehook_testkit::http;
use framehook_testkit::object_server::{ACCOUNT, BUCKETS, Kind, ObjectServer, TEMPORARY};
use framehook_testkit::proxy::{Line, Proxy};
use framehook_testkit::receiver::{Receiver, Reply};
use framehook_testkit::wait;

use crate::harness::{PATIENCE, Place, Process, Settings, room, stream, telling_room, template, template_named};

fn target() -> PathBuf {
    let test = std::env::current_exe().expect("an executable");
    test.ancestors().nth(3).expect("executables lie in target/PROFILE/deps").to_owned()
}

/// A COS server behind a line that can break, and the settings of a process that puts there.
struct Cos {
    server: ObjectServer,
    line: Proxy,
}

impl Cos {
    fn start() -> Self {
        let server = ObjectServer::start(Kind::Cos, &target()).expect("an object server");
        let line = Proxy::start(server.address()).expect("a proxy");
        Self { server, line }
    }

    fn settings(&self, key: &str) -> Settings {
        self.settings_with(&format!("secret_id = \"{}\"\nsecret_key = \"{key}\"", ACCOUNT.0))
    }

    /// Settings with `more` in the store's table.
    fn settings_with(&self, more: &str) -> Settings {
        let (address, port) = (self.line.address(), self.line.address().port());
        let object_stores = format!(
            "[[object_store]]\nname = \"tencent\"\nkind = \"cos\"\n{more}\n\
             endpoint = \"http://{{bucket}}.cos.{{region}}.example.com:{port}\"\nconnect_to = \"{address}\"\ntimeout = \"20s\""
        );
        Settings { object_stores, ..Settings::default() }
    }

    /// Whether every object is there, by the word of the vendor's SDK.
    fn has_all(&self, keys: &[String]) -> bool {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.server.read_all(BUCKETS[0], &keys).expect("the SDK").iter().all(Option::is_some)
    }
}

fn places(process: &Process) -> Vec<PlaceStatus> {
    process.block_on(process.storer.places()).expect("places")
}

fn place(process: &Process, store: &str) -> Option<PlaceStatus> {
    places(process).into_iter().find(|place| place.store == store)
}

/// A template whose pictures stay in the data directory.
fn local_template() -> Arc<SnapshotTemplate> {
    let draft = SnapshotTemplateDraft {
        name: "local".into(),
        app_id: 1_250_000_000,
        bucket: "shots".into(),
        region: "local".into(),
        ..SnapshotTemplateDraft::default()
    };
    Arc::new(SnapshotTemplate::validate(TemplateId(2), draft).expect("a template"))
}

fn commit(process: &Process, template: &Arc<SnapshotTemplate>) -> Recorded {
    let picture = process.picture(&room(), template);
    process.block_on(process.committer.commit(picture)).expect("committed").remove(0)
}

fn wait_for_delivered(process: &Process, count: usize) {
    wait::until("every delivery", PATIENCE, || (process.count(State::Delivered) == count).then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {:?}", places(process)));
}

#[test]
fn a_store_that_hangs_holds_up_no_other() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    cos.line.set(Line::Stalled);
    let process = place_.start_with(cos.settings(ACCOUNT.1));
    for _ in 0..20 {
        process.commit(&room());
    }
    for stored in 1..=10 {
        commit(&process, &local_template());
        wait_for_delivered(&process, stored);
    }
    assert_eq!(place(&process, "tencent").expect("it is owed to").owed.pictures, 20);
    cos.line.set(Line::Open);
    wait_for_delivered(&process, 30);
}

#[test]
fn an_outage_costs_a_few_tries_and_ends_with_everything_stored() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    cos.line.set(Line::Reset);
    let process = place_.start_with(cos.settings(ACCOUNT.1));
    let mut keys: Vec<String> = (0..100).map(|_| process.commit(&room()).key.to_string()).collect();
    let failing = || place(&process, "tencent").filter(|place| place.state == PlaceState::Failing);
    let failing = wait::until("the failure to be known", PATIENCE, failing).expect("failing");
    assert_eq!((failing.owed.pictures, failing.owed.held), (100, 0));
    let (error, mend) = failing.error.expect("an error");
    assert!(error.contains("cannot be reached") && mend.contains("endpoint"), "{error}: {mend}");

    // Killed in the middle of it, and started again on what it left.
    process.kill();
    let process = place_.start_with(cos.settings(ACCOUNT.1));
    keys.extend((0..50).map(|_| process.commit(&room()).key.to_string()));
    let tries = || {
        let sum = "SELECT sum(put_attempts) FROM snapshot";
        process.block_on(process.db.read(move |conn| Ok(conn.query_row(sum, [], |row| row.get::<_, i64>(0))?)))
    };
    wait::until("the circuit to open again", PATIENCE, || (tries().ok()? >= 6).then_some(())).expect("tried");
    assert!(tries().expect("a sum") < 30, "the others are not tried while a few find out: {:?}", tries());
    assert!(receiver.requests().is_empty(), "nobody is told of what is not there");

    cos.line.set(Line::Open);
    wait_for_delivered(&process, 150);
    assert!(cos.has_all(&keys));
    assert_eq!((process.spool.bytes(), receiver.requests().len()), (0, 150));
    assert_eq!(place(&process, "tencent").map(|place| place.state), Some(PlaceState::Taking));
}

#[test]
fn after_an_outage_fresh_pictures_do_not_wait_for_the_backlog() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    let process = place_.start_with(Settings { stores: false, ..cos.settings(ACCOUNT.1) });
    let old: Vec<_> = (0..200).map(|_| process.commit(&room()).snapshot_id).collect();
    process.stop();
    place_.tamper("UPDATE snapshot SET recorded_ms = recorded_ms - 3600 * 1000");
    // Slow enough for the backlog to be under way for a while.
    receiver.on_request(|_| Reply::Status(200));
    let process = place_.start_with(cos.settings(ACCOUNT.1));
    let fresh: Vec<_> = (0..10).map(|_| process.commit(&room()).snapshot_id).collect();
    wait_for_delivered(&process, 210);
    let before = stored_before_all_of(&process, &fresh, &old);
    assert!(before < 150, "{before} of 200 old pictures came before the last of 10 fresh ones");
}

#[test]
fn a_backlog_is_put_while_fresh_pictures_could_take_every_slot() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    let without_stores = || Settings { stores: false, ..cos.settings(ACCOUNT.1) };
    let process = place_.start_with(without_stores());
    let old: Vec<_> = (0..10).map(|_| process.commit(&room()).snapshot_id).collect();
    process.stop();
    place_.tamper("UPDATE snapshot SET recorded_ms = recorded_ms - 3600 * 1000");
    let process = place_.start_with(without_stores());
    let fresh: Vec<_> = (0..200).map(|_| process.commit(&room()).snapshot_id).collect();
    process.stop();
    let process = place_.start_with(cos.settings(ACCOUNT.1));
    wait_for_delivered(&process, 210);
    // One slot of four is theirs.
    let before = stored_before_all_of(&process, &old, &fresh);
    assert!(before < 100, "{before} of 200 fresh pictures came before the last of 10 old ones");
}

/// How many of `others` were stored before the last of `these` was.
fn stored_before_all_of(process: &Process, these: &[SnapshotId], others: &[SnapshotId]) -> usize {
    let stored = process.block_on(process.db.read(move |conn| {
        let mut rows = conn.prepare("SELECT id, settled_ms FROM snapshot")?;
        let rows = rows.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)))?;
        Ok(rows.collect::<Result<BTreeMap<_, _>, _>>()?)
    }));
    let stored = stored.expect("rows");
    let at = |id: &SnapshotId| stored[&id.0.as_bytes()[..]];
    let last = these.iter().map(at).max().expect("some");
    others.iter().filter(|id| at(id) <= last).count()
}

#[test]
fn a_failure_ends_when_nothing_is_left_to_put() {
    let place_ = Place::new(telling_room("http://127.0.0.1:1/"));
    let objects = place_.dir().join("objects");
    std::fs::create_dir_all(&objects).expect("a directory");
    std::fs::write(objects.join(BUCKETS[0]), b"in the way").expect("a file");
    let process = place_.start_with(Settings { notifies: false, ..Settings::default() });
    let ids: Vec<_> = (0..3).map(|_| process.commit(&room()).snapshot_id).collect();
    let refusing = || place(&process, "local").filter(|place| place.state == PlaceState::Refusing);
    wait::until("the refusal to be known", PATIENCE, refusing).expect("refusing");
    for id in ids {
        assert!(process.block_on(process.storer.discard(id, &Caller::Control)).expect("discarded"));
    }
    let place = place(&process, "local").expect("known");
    assert_eq!((place.state, place.owed.pictures, place.error), (PlaceState::Taking, 0, None));
}

#[test]
fn wrong_credentials_hold_everything_until_somebody_mends_them() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    let process = place_.start_with(cos.settings("keyOfSomebodyElse"));
    for _ in 0..20 {
        process.commit(&room());
    }
    let refusing = || place(&process, "tencent").filter(|place| place.state == PlaceState::Refusing);
    let refusing = wait::until("the refusal to be known", PATIENCE, refusing).expect("refusing");
    assert_eq!((refusing.owed.pictures, refusing.owed.held), (20, 20));
    let (error, mend) = refusing.error.expect("an error");
    assert!(error.contains("SignatureDoesNotMatch") && mend.contains("secret_key"), "{error}: {mend}");
    let counts = process.block_on(process.db.read(outbox::owed_counts)).expect("counts");
    assert!(counts.puts_held > 0, "the alarm is raised");
    process.stop();

    let process = place_.start_with(cos.settings(ACCOUNT.1));
    wait_for_delivered(&process, 20);
    assert_eq!(place(&process, "tencent").map(|place| place.state), Some(PlaceState::Taking));
}

/// What receivers were told of pictures, in order.
fn told(receiver: &Receiver) -> Vec<serde_json::Value> {
    receiver.requests().iter().map(|request| request.json().expect("JSON")).collect()
}

#[test]
fn pictures_that_no_store_takes_wait_for_a_start_that_has_one_and_say_where_they_are_then() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    let one_name = template_named(Some("{StreamID}{Ext}"));
    let process = place_.start_with(cos.settings(ACCOUNT.1));
    let first = commit(&process, &one_name);
    wait_for_delivered(&process, 1);
    process.stop();

    let mut settings = cos.settings(ACCOUNT.1);
    settings.object_stores.push_str("\napp_ids = [7]");
    let process = place_.start_with(settings);
    let recorded = commit(&process, &one_name);
    // Nobody knows yet that the store has a picture of this name.
    assert_eq!((&recorded.key, recorded.pic_full_url), (&first.key, None));
    let latest = SnapshotTemplate { objects: Objects::Latest, ..SnapshotTemplate::clone(&template()) };
    let latest = process.picture(&room(), &Arc::new(latest));
    process.block_on(process.committer.commit(latest)).expect("committed");
    let held = || place(&process, "unclaimed").filter(|place| place.owed.held == 2);
    wait::until("the alarm", PATIENCE, held).expect("held");
    process.stop();

    let process = place_.start_with(cos.settings(ACCOUNT.1));
    wait_for_delivered(&process, 2);
    wait::until("an empty spool", PATIENCE, || (process.spool.bytes() == 0).then_some(())).expect("nothing is owed");
    let second = first.key.with_suffix(2);
    let url = first.pic_full_url.expect("a URL").replace(first.key.as_str(), second.as_str());
    let told = told(&receiver).pop().expect("a callback");
    assert_eq!((&told["pic_url"], &told["pic_full_url"]), (&second.pic_url().into(), &url.into()), "{told}");
    let keys = [&first.key, &second].map(ToString::to_string);
    assert!(cos.has_all(&[&keys[..], &["latest/push.example.com/live/room_1001.jpg".to_owned()]].concat()));
}

#[test]
fn of_two_latest_pictures_the_newer_is_put_when_a_claim_comes_back() {
    let place_ = Place::new(telling_room("http://127.0.0.1:1/"));
    let cos = Cos::start();
    let claimed = || Settings { notifies: false, ..cos.settings(ACCOUNT.1) };
    let mut unclaimed = claimed();
    unclaimed.object_stores.push_str("\napp_ids = [7]");
    let template = Arc::new(SnapshotTemplate { objects: Objects::Latest, ..SnapshotTemplate::clone(&template()) });
    // A process that owes a picture of each room, so many seconds after the others, and what their bytes are.
    let owe = |settings: &Settings, pictures: [(&str, u64); 2]| {
        let process = place_.start_with(Settings { stores: false, ..settings.clone() });
        let bytes = pictures.map(|(name, secs)| {
            let mut picture = process.picture(&stream("push.example.com", name), &template);
            picture.create_time = picture.create_time.plus(Duration::from_secs(secs));
            let bytes = picture.pictures[0].renditions[0].bytes.to_vec();
            process.block_on(process.committer.commit(picture)).expect("committed");
            bytes
        });
        process.stop();
        bytes
    };
    let put = |settings: Settings| {
        let process = place_.start_with(settings);
        wait::until("an empty spool", PATIENCE, || (process.spool.bytes() == 0).then_some(()))
            .expect("nothing is owed");
        process.stop();
    };
    let objects = || {
        let keys = ["stored", "waiting", "behind"].map(|name| format!("latest/push.example.com/live/{name}.jpg"));
        let read = cos.server.read_all(BUCKETS[0], &keys.each_ref().map(String::as_str)).expect("the SDK");
        read.into_iter().map(|object| object.expect("an object").body).collect::<Vec<_>>()
    };
    // The store has a picture of the one, and will have a newer one of the other.
    owe(&claimed(), [("stored", 0), ("behind", 20)]);
    put(claimed());
    owe(&claimed(), [("waiting", 0), ("behind", 30)]);
    let [stored, _] = owe(&unclaimed, [("stored", 10), ("behind", 10)]);
    let [waiting, _] = owe(&unclaimed, [("waiting", 10), ("stored", 5)]);
    let [_, behind] = owe(&claimed(), [("waiting", 5), ("behind", 40)]);
    put(claimed());
    assert!(objects() == [stored, waiting, behind], "the newest of each");
}

#[test]
fn a_url_is_signed_when_there_is_something_to_sign_it_with() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    let file = place_.dir().join("cos-credentials");
    let settings = cos.settings_with(&format!("credentials_file = \"{}\"\nsigned_urls = true", file.display()));
    let process = place_.start_with(settings.clone());
    let recorded = process.commit(&room());
    assert_eq!(recorded.pic_full_url, None);
    let refusing = || place(&process, "tencent").filter(|place| place.state == PlaceState::Refusing);
    let refusing = wait::until("the alarm", PATIENCE, refusing).expect("refusing");
    assert!(refusing.error.expect("an error").0.contains("cos-credentials"));
    process.stop();

    std::fs::write(&file, format!("secret_id={}\nsecret_key={}\n", ACCOUNT.0, ACCOUNT.1)).expect("a file");
    let process = place_.start_with(settings);
    wait_for_delivered(&process, 1);
    let told = told(&receiver).pop().expect("a callback");
    let url = told["pic_full_url"].as_str().expect("a URL");
    assert!(url.contains(recorded.key.as_str()) && url.contains("&q-signature="), "{url}");
    let known = "SELECT pic_full_url FROM snapshot";
    let known = process.db.read(move |conn| Ok(conn.query_row(known, [], |row| row.get::<_, Option<String>>(0))?));
    assert_eq!(process.block_on(known).expect("a row").as_deref(), Some(url));
}

#[test]
fn after_an_outage_that_outlasts_a_urls_life_the_callback_bears_a_new_one() {
    let receiver = Receiver::start().expect("a receiver");
    let place = Place::new(telling_room(&receiver.url("/")));
    let living = |secs| Settings { url_life: Some(Duration::from_secs(secs)), ..Settings::default() };
    // One whose life is over, and one of which less than a half is left.
    let mut old = Vec::new();
    for secs in [0, 1700] {
        let process = place.start_with(Settings { stores: false, ..living(secs) });
        old.push(process.commit(&room()).pic_full_url.expect("a URL"));
        process.stop();
    }
    let process = place.start_with(Settings { stores: false, ..living(3600) });
    let fresh = process.commit(&room()).pic_full_url.expect("a URL");
    process.stop();

    let process = place.start_with(living(3600));
    wait_for_delivered(&process, 3);
    let told: Vec<_> = told(&receiver).iter().map(|told| told["pic_full_url"].clone()).collect();
    assert!(told.contains(&fresh.into()), "it lives for long yet, and stays: {told:?}");
    assert!(!old.iter().any(|old| told.contains(&old.as_str().into())), "{old:?}: {told:?}");
    // A replay looks whether the URL opens anything.
    for delivery in process.list(Filter::default()) {
        process.block_on(process.replayer.replay(&Caller::Control, delivery.id, None)).expect("its URL opens");
    }
}

#[test]
fn after_an_outage_that_outlasts_credentials_the_callback_bears_a_url_of_the_new_ones() {
    let receiver = Receiver::start().expect("a receiver");
    let place_ = Place::new(telling_room(&receiver.url("/")));
    let cos = Cos::start();
    let file = place_.dir().join("cos-credentials");
    let (id, key, token) = TEMPORARY;
    std::fs::write(&file, format!("secret_id={id}\nsecret_key={key}\nsession_token={token}\n")).expect("a file");
    let settings = cos.settings_with(&format!("credentials_file = \"{}\"\nsigned_urls = true", file.display()));
    cos.line.set(Line::Reset);
    let process = place_.start_with(settings.clone());
    let url = process.commit(&room()).pic_full_url.expect("a URL");
    assert!(url.contains(id), "{url}");
    process.stop();

    std::fs::write(&file, format!("secret_id={}\nsecret_key={}\n", ACCOUNT.0, ACCOUNT.1)).expect("a file");
    let server = cos.server.address();
    receiver.on_request(move |request| {
        let body = request.json().expect("JSON");
        let (_, url) = body["pic_full_url"].as_str().expect("text").split_once("://").expect("a URL");
        let (host, path) = url.split_once('/').expect("a path");
        let stream = http::connect(server, PATIENCE).expect("a connection");
        let fetched = http::Connection::over(stream, host).request("GET", &format!("/{path}"), &[], b"");
        Reply::Status(if !url.contains(id) && fetched.expect("an answer").status == 200 { 200 } else { 500 })
    });
    cos.line.set(Line::Open);
    let process = place_.start_with(settings);
    wait_for_delivered(&process, 1);
    assert_eq!(receiver.requests().len(), 1, "it was accepted the first time");
}

#[test]
fn latest_objects_know_what_is_known_of_their_bucket() {
    let place_ = Place::new(telling_room("http://127.0.0.1:1/"));
    let cos = Cos::start();
    cos.line.set(Line::Reset);
    let process = place_.start_with(Settings { notifies: false, ..cos.settings(ACCOUNT.1) });
    let template = Arc::new(SnapshotTemplate { objects: Objects::Latest, ..SnapshotTemplate::clone(&template()) });
    let names: Vec<String> = (0..40).map(|number| format!("room_{number}")).collect();
    for name in &names {
        let picture = process.picture(&stream("push.example.com", name), &template);
        process.block_on(process.committer.commit(picture)).expect("committed");
    }
    let failing = || place(&process, "tencent").filter(|place| place.state == PlaceState::Failing);
    let failing = wait::until("the failure to be known", PATIENCE, failing).expect("failing");
    assert_eq!((failing.owed.pictures, failing.owed.held), (40, 0));
    // At most four are under way when the third fails, and then one at a time finds out.
    let tries = "SELECT sum(put_attempts), sum(put_attempts > 0) FROM latest_object";
    let tries = || -> Option<(i64, i64)> {
        let tries = process.db.read(move |conn| Ok(conn.query_row(tries, [], |row| Ok((row.get(0)?, row.get(1)?)))?));
        process.block_on(tries).ok()
    };
    wait::until("further tries", PATIENCE, || tries().filter(|(all, _)| *all >= 5)).expect("tried");
    assert!(tries().expect("counts").1 < 20, "most of them were spared: {:?}", tries());

    cos.line.set(Line::Open);
    wait::until("an empty spool", PATIENCE, || (process.spool.bytes() == 0).then_some(())).expect("nothing is owed");
    assert_eq!(
        place(&process, "tencent").map(|place| (place.state, place.owed.pictures)),
        Some((PlaceState::Taking, 0))
    );
    assert!(
        cos.has_all(&names.iter().map(|name| format!("latest/push.example.com/live/{name}.jpg")).collect::<Vec<_>>())
    );
}
