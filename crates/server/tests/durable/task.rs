//! Screenshot tasks in the database, and the counts of pictures.

use std::time::Duration;

use framehook_domain::id::{TaskId, TemplateId, uuid_v7};
use framehook_domain::stream::{AppName, DomainName, StreamId};
use framehook_domain::task::{ScreenshotTask, TaskWindow};
use framehook_domain::time::UnixMs;
use framehook_server::commit::Rendered;
use framehook_server::db::count::{self, Count, CountFilter, Interval};
use framehook_server::db::task::{self, TaskFilter};
use framehook_server::prune::{LogLimits, prune};

use crate::harness::{CREATE_TIME, Place, Process, Settings, room, stream, telling_nobody, template};

const DAY: Duration = Duration::from_secs(86_400);

fn only_commit() -> Settings {
    Settings { stores: false, notifies: false, ..Settings::default() }
}

fn at(secs: i64) -> UnixMs {
    UnixMs::from_secs(CREATE_TIME.secs() + secs)
}

/// A task of a stream from one second to another, counted from [`CREATE_TIME`].
fn task_of(number: u8, stream: StreamId, start: i64, end: i64) -> ScreenshotTask {
    ScreenshotTask {
        id: TaskId(uuid_v7(CREATE_TIME, [number; 10])),
        stream,
        template: TemplateId(9),
        window: TaskWindow::from_stored(at(start), at(end)).expect("a window"),
    }
}

fn add(process: &Process, tasks: &[ScreenshotTask]) {
    for task in tasks {
        let task = task.clone();
        process.block_on(process.db.write(move |tx| task::insert(tx, &task))).expect("added");
    }
}

fn open_at(process: &Process, secs: i64) -> Vec<ScreenshotTask> {
    process.block_on(process.db.read(move |conn| task::open_tasks(conn, at(secs)))).expect("tasks")
}

fn everything() -> TaskFilter {
    TaskFilter { since: at(-3600), until: at(3600), domain: None, app: None, stream: None, after: None }
}

fn list(process: &Process, filter: TaskFilter, limit: usize) -> Vec<(TaskId, Option<UnixMs>)> {
    let records = process.block_on(process.db.read(move |conn| task::list(conn, &filter, limit))).expect("a list");
    records.into_iter().map(|record| (record.task.id, record.stopped)).collect()
}

#[test]
fn a_task_survives_a_kill_until_it_is_stopped_or_over() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let tasks = [task_of(1, room(), 0, 60), task_of(2, room(), 60, 120)];
    add(&process, &tasks);
    process.kill();

    let process = place.start_with(only_commit());
    assert_eq!(open_at(&process, 59), tasks, "one that runs and one that is to run");
    assert_eq!(open_at(&process, 60), tasks[1..], "one is over");
    let id = tasks[1].id;
    for secs in [70, 80] {
        process.block_on(process.db.write(move |tx| task::stop(tx, id, at(secs)))).expect("stopped");
    }
    process.kill();

    let process = place.start_with(only_commit());
    assert!(open_at(&process, 60).is_empty());
    assert_eq!(list(&process, everything(), 9), [(tasks[0].id, None), (id, Some(at(70)))], "the first stop counts");
    process.block_on(process.db.write(move |tx| task::remove(tx, id))).expect("removed");
    let exists = |id| process.block_on(process.db.read(move |conn| task::find(conn, id))).expect("read").is_some();
    assert!(exists(tasks[0].id) && !exists(id));
    assert_eq!(list(&process, everything(), 9), [(tasks[0].id, None)]);
}

#[test]
fn tasks_are_listed_that_lie_within_the_time_asked_about() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let other = stream("b.example.com", "other");
    add(&process, &[task_of(1, room(), 0, 60), task_of(2, other.clone(), 10, 70), task_of(3, room(), 20, 80)]);
    let listed = |filter| -> Vec<u8> {
        let number = |(id, _): (TaskId, _)| *id.0.as_bytes().last().expect("16 bytes");
        list(&process, filter, 9).into_iter().map(number).collect()
    };
    assert_eq!(listed(everything()), [1, 2, 3]);
    assert_eq!(listed(TaskFilter { since: at(0), until: at(60), ..everything() }), [1]);
    assert_eq!(listed(TaskFilter { since: at(1), until: at(80), ..everything() }), [2, 3]);
    assert_eq!(listed(TaskFilter { until: at(79), ..everything() }), [1, 2]);
    assert_eq!(listed(TaskFilter { domain: Some(other.domain), ..everything() }), [2]);
    assert_eq!(listed(TaskFilter { stream: Some(room().name), ..everything() }), [1, 3]);
    assert!(listed(TaskFilter { app: Some(AppName::parse("vod").expect("an app")), ..everything() }).is_empty());

    let (mut pages, mut after) = (Vec::new(), None);
    while let [.., last] = &list(&process, TaskFilter { after, ..everything() }, 2)[..] {
        after = Some(last.0);
        pages.push(last.0.0.as_bytes()[15]);
    }
    assert_eq!(pages, [2, 3], "two pages, the second with one");
}

fn counts(process: &Process, filter: CountFilter) -> Vec<(i64, u64)> {
    let counts = process.block_on(process.db.read(move |conn| count::list(conn, &filter))).expect("counts");
    counts.into_iter().map(|Count { since, pictures }| (since.secs() - CREATE_TIME.secs(), pictures)).collect()
}

fn by(interval: Interval) -> CountFilter {
    CountFilter { since: at(0), until: at(599), domains: Vec::new(), interval }
}

#[test]
fn a_picture_counts_once_it_is_recorded_and_only_then() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    let commit = |stream: &StreamId, secs| {
        let picture = process.picture(stream, &template());
        process.block_on(process.committer.commit(Rendered { create_time: at(secs), ..picture }))
    };
    let other = stream("b.example.com", "room");
    for (stream, secs) in [(&room(), 0), (&room(), 299), (&room(), 300), (&other, 300), (&other, 600), (&room(), -1)] {
        commit(stream, secs).expect("committed");
    }
    // The same id again is a defect of the caller, the only way to make a row impossible.
    let picture = process.picture(&room(), &template());
    process.block_on(process.committer.commit(picture.clone())).expect("committed");
    process.block_on(process.committer.commit(picture)).expect_err("recorded already");
    process.kill();

    let process = place.start_with(only_commit());
    assert_eq!(counts(&process, by(Interval::FiveMinutes)), [(0, 3), (300, 2)]);
    let of = |domain: &DomainName| CountFilter { domains: vec![domain.clone()], ..by(Interval::FiveMinutes) };
    assert_eq!(counts(&process, of(&room().domain)), [(0, 3), (300, 1)]);
    assert_eq!(counts(&process, of(&other.domain)), [(300, 1)]);
    let until_later = CountFilter { until: at(600), ..by(Interval::FiveMinutes) };
    assert_eq!(
        counts(&process, until_later),
        [(0, 3), (300, 2), (600, 1)],
        "the interval that the end lies in is whole"
    );
    // Eight in the morning of UTC+8: the day began then.
    assert_eq!(counts(&process, by(Interval::Day)), [(-8 * 3600, 7)]);
}

#[test]
fn what_nobody_can_ask_for_any_more_is_forgotten() {
    let place = Place::new(telling_nobody());
    let process = place.start_with(only_commit());
    add(&process, &[task_of(1, room(), 0, 60)]);
    process.commit(&room());
    let prune_at = |wall: UnixMs| {
        let limits = LogLimits { age_max: Duration::from_secs(1), bytes_max: u64::MAX };
        process.block_on(prune(&process.db, wall, limits)).expect("pruned");
        (list(&process, everything(), 9).len(), counts(&process, by(Interval::Day)).len())
    };
    let days = |days: u32| CREATE_TIME.plus(DAY.saturating_mul(days));
    assert_eq!(prune_at(days(91)), (1, 1));
    assert_eq!(prune_at(days(92)), (0, 1));
    assert_eq!(prune_at(days(188)), (0, 1));
    assert_eq!(prune_at(days(189)), (0, 0));
}
