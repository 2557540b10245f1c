use alloc::{collections::BTreeMap, vec};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    id::{PushSequence, TemplateId},
    storm::Phases,
    template::StoreTarget,
    time::UnixMs,
};

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

fn template(interval_secs: i64) -> Arc<SnapshotTemplate> {
    let interval = SnapshotInterval::from_secs(interval_secs).expect("an interval");
    Arc::new(SnapshotTemplate {
        interval,
        id: TemplateId(interval_secs),
        ..SnapshotTemplate::built_in(StoreTarget::default())
    })
}

fn rule(id: i64, interval_secs: i64) -> Subscription {
    Subscription { subscriber: Subscriber::Rule(RuleId(id)), template: template(interval_secs) }
}

fn task_subscriber(id: u128) -> Subscriber {
    Subscriber::Task(TaskId(Uuid::from_u128(id)))
}

fn task(id: u128, interval_secs: i64) -> Subscription {
    Subscription { subscriber: task_subscriber(id), template: template(interval_secs) }
}

fn picks_with(wanted: Vec<Subscription>) -> PushPicks {
    let mut picks = PushPicks::new();
    let _ = picks.reconcile(at(0), 1, wanted);
    picks
}

fn subscribers(wants: &[Want]) -> Vec<Subscriber> {
    wants.iter().map(|want| want.subscriber).collect()
}

#[test]
fn one_entry_point_serves_everybody_who_is_due() {
    let mut picks = picks_with(vec![rule(1, 10), task(7, 4)]);
    let first = picks.on_entry_point(at(0));
    assert_eq!(subscribers(&first), [Subscriber::Rule(RuleId(1)), task_subscriber(7)]);
    assert!(first.iter().all(|want| want.anchored.is_some() && want.due == at(0) && want.catalog_version == 1));
    assert_eq!(subscribers(&picks.on_entry_point(at(4_000))), [task_subscriber(7)]);
    assert_eq!(subscribers(&picks.on_entry_point(at(10_000))), [Subscriber::Rule(RuleId(1)), task_subscriber(7)]);
}

#[test]
fn nobody_wanting_a_push_makes_it_idle() {
    let mut picks = picks_with(Vec::new());
    assert!(picks.is_idle());
    assert!(picks.on_entry_point(at(0)).is_empty());
}

#[test]
fn a_rule_made_on_a_live_push_begins_with_the_next_entry_point() {
    let mut picks = picks_with(Vec::new());
    assert!(picks.on_entry_point(at(0)).is_empty());
    let _ = picks.reconcile(at(900), 2, vec![rule(1, 10)]);
    let wants = picks.on_entry_point(at(2_000));
    assert_eq!((wants[0].due, wants[0].anchored.is_some(), wants[0].catalog_version), (at(2_000), true, 2));
}

#[test]
fn a_changed_interval_begins_a_new_grid_and_keeps_the_counts() {
    let mut picks = picks_with(vec![rule(1, 300)]);
    let mut wants = picks.on_entry_point(at(0));
    let ticket = wants.remove(0).ticket;
    let committing = picks.hand_over(at(100), ticket).expect("in time");
    picks.settle_commit(at(200), committing, Ok(()));
    let _ = picks.reconcile(at(60_000), 2, vec![rule(1, 2)]);
    let wants = picks.on_entry_point(at(60_500));
    assert_eq!((wants[0].due, wants[0].anchored, wants[0].template.interval.secs()), (at(60_000), None, 2));
    assert_eq!((picks.total_counts().due, picks.total_counts().taken), (2, 1));
}

#[test]
fn a_pick_keeps_the_template_it_was_made_under() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let want = picks.on_entry_point(at(0)).remove(0);
    let narrower = SnapshotTemplate { width: 320, ..SnapshotTemplate::clone(&template(10)) };
    let _ = picks.reconcile(at(50), 2, vec![Subscription { template: Arc::new(narrower), ..rule(1, 10) }]);
    assert_eq!((want.template.width, want.catalog_version), (0, 1));
    let committing = picks.hand_over(at(100), want.ticket).expect("it is still good");
    picks.settle_commit(at(200), committing, Ok(()));
    let next = picks.on_entry_point(at(10_000)).remove(0);
    assert_eq!((next.template.width, next.catalog_version), (320, 2));
}

#[test]
fn a_deleted_rule_ends_its_grid_and_leaves_its_counts() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let want = picks.on_entry_point(at(0)).remove(0);
    let _ = picks.reconcile(at(50), 2, Vec::new());
    assert!(picks.is_idle());
    assert_eq!(picks.total_counts().skipped(SkipReason::RuleRemoved), 1);
    assert_eq!(picks.hand_over(at(100), want.ticket), None);
    assert_eq!((picks.counts().count(), picks.total_counts().due), (0, 1));
}

#[test]
fn a_ticket_is_not_good_for_the_same_rule_made_again() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let old = picks.on_entry_point(at(0)).remove(0);
    let _ = picks.reconcile(at(50), 2, Vec::new());
    let _ = picks.reconcile(at(60), 3, vec![rule(1, 10)]);
    let new = picks.on_entry_point(at(2_000)).remove(0);
    assert_eq!(picks.hand_over(at(2_100), old.ticket), None);
    assert!(picks.hand_over(at(2_100), new.ticket).is_some());
}

#[test]
fn another_rule_in_the_place_of_the_first_is_another_grid() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let _ = picks.on_entry_point(at(0));
    let _ = picks.reconcile(at(50), 2, vec![rule(2, 10)]);
    assert_eq!(subscribers(&picks.on_entry_point(at(2_000))), [Subscriber::Rule(RuleId(2))]);
    assert_eq!(picks.total_counts().due, 2);
}

#[test]
fn the_commit_decides_a_due_even_after_its_rule_is_gone() {
    for (outcome, taken, skipped) in [(Ok(()), 1, 0), (Err(SkipReason::SpoolFull), 0, 1)] {
        let mut picks = picks_with(vec![rule(1, 10)]);
        let want = picks.on_entry_point(at(0)).remove(0);
        let committing = picks.hand_over(at(100), want.ticket).expect("in time");
        let _ = picks.reconcile(at(150), 2, Vec::new());
        assert_eq!((picks.total_counts().open, picks.total_counts().skipped_total()), (1, 0));
        picks.settle_commit(at(200), committing, outcome);
        let counts = picks.total_counts();
        assert_eq!((counts.taken, counts.skipped(SkipReason::SpoolFull), counts.open), (taken, skipped, 0));
        assert!(counts.is_balanced());
    }
}

#[test]
fn an_older_catalog_changes_nothing() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let _ = picks.reconcile(at(50), 3, vec![rule(2, 10)]);
    let _ = picks.reconcile(at(60), 2, vec![rule(1, 10)]);
    let want = picks.on_entry_point(at(100)).remove(0);
    assert_eq!((want.subscriber, want.catalog_version), (Subscriber::Rule(RuleId(2)), 3));
}

#[test]
fn a_place_follows_its_grid() {
    let mut phases = Phases::default();
    let push = PushSequence::new(UnixMs(0), 1);
    let mut picks = picks_with(vec![rule(1, 10), task(1, 300)]);
    for want in picks.on_entry_point(at(0)) {
        let anchored = want.anchored.expect("the first picture");
        let (seat, shift) = phases.join(anchored.interval, anchored.due, push);
        assert_eq!(picks.seated(at(0), anchored.grid, seat, shift), None);
    }

    let changed = picks.reconcile(at(60_000), 2, vec![rule(1, 10), task(1, 2)]);
    let [anchored] = changed.anchored[..] else { panic!("only the task's interval changed: {changed:?}") };
    assert_eq!((anchored.interval.secs(), anchored.due, changed.vacated.len()), (2, at(60_000), 1));
    let (seat, _) = phases.join(anchored.interval, anchored.due, push);
    assert_eq!(picks.seated(at(60_000), anchored.grid, seat, Some(Duration::from_millis(700))), None);
    assert_eq!(subscribers(&picks.on_entry_point(at(60_100))).last(), Some(&task_subscriber(1)));
    assert!(picks.on_entry_point(at(62_000)).iter().all(|want| want.subscriber != task_subscriber(1)));
    assert_eq!(subscribers(&picks.on_entry_point(at(62_700))), [task_subscriber(1)], "it was moved by 700 ms");

    let removed = picks.reconcile(at(63_000), 3, vec![task(1, 2)]);
    assert_eq!((removed.vacated.len(), removed.anchored.len()), (1, 0));
    let late = phases.join(anchored.interval, at(0), push).0;
    assert!(picks.seated(at(63_000), GridId(1), late, None).is_some(), "the rule's grid is gone");
    assert_eq!(picks.end(at(64_000)).len(), 1);
}

#[test]
fn no_more_than_one_rule_and_three_tasks_run() {
    let picks = picks_with(vec![task(1, 10), task(2, 10), rule(1, 10), rule(2, 10), task(3, 10), task(4, 10)]);
    let running: Vec<_> = picks.counts().map(|(subscription, _)| subscription.subscriber).collect();
    let [task_1, task_2, task_3] = [1, 2, 3].map(task_subscriber);
    assert_eq!(running, [task_1, task_2, Subscriber::Rule(RuleId(1)), task_3]);
}

#[test]
fn the_end_of_a_push_skips_everything_open() {
    let mut picks = picks_with(vec![rule(1, 10), task(1, 10)]);
    let _ = picks.on_entry_point(at(0));
    assert!(picks.end(at(500)).is_empty(), "no place was taken");
    let counts = picks.total_counts();
    assert_eq!((counts.due, counts.skipped(SkipReason::PushEnded), counts.open), (2, 2, 0));
    assert!(picks.on_entry_point(at(10_000)).is_empty());
}

#[test]
fn a_shift_moves_one_subscriber_only() {
    let mut picks = picks_with(vec![rule(1, 10), task(1, 10)]);
    let anchored = picks.on_entry_point(at(0)).remove(0).anchored.expect("the first picture");
    let (seat, _) = Phases::default().join(anchored.interval, anchored.due, PushSequence::new(UnixMs(0), 1));
    assert_eq!(picks.seated(at(0), anchored.grid, seat, Some(Duration::from_secs(3))), None);
    assert_eq!(subscribers(&picks.on_entry_point(at(10_000))), [task_subscriber(1)]);
    assert_eq!(subscribers(&picks.on_entry_point(at(13_000))), [Subscriber::Rule(RuleId(1))]);
}

#[test]
fn a_place_for_an_interval_of_before_is_given_back_and_moves_nothing() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let anchored = picks.on_entry_point(at(0)).remove(0).anchored.expect("the first picture");
    let (seat, _) = Phases::default().join(anchored.interval, anchored.due, PushSequence::new(UnixMs(0), 1));
    // The catalog changes before the place is taken.
    let changed = picks.reconcile(at(1), 2, vec![rule(1, 4)]);
    assert_eq!((changed.vacated.len(), changed.anchored.len()), (0, 1), "a place for the new interval is under way");
    assert!(picks.seated(at(2), anchored.grid, seat, Some(Duration::from_secs(3))).is_some());
    assert_eq!(picks.on_entry_point(at(4_000)).len(), 1, "four seconds after the last picture, not seven");
}

#[test]
fn counts_wait_for_nobody_but_a_look() {
    let mut picks = picks_with(vec![rule(1, 10)]);
    let want = picks.on_entry_point(at(0)).remove(0);
    picks.settle(at(100), want.ticket, SkipReason::Corrupt);
    picks.advance(at(35_000));
    let counts = picks.total_counts();
    assert_eq!(
        (counts.due, counts.skipped(SkipReason::Corrupt), counts.skipped(SkipReason::NoEntryPoint), counts.open),
        (4, 1, 2, 1)
    );
}

/// What happens to a push: time passes and an entry point comes, or other subscribers want pictures.
#[derive(Clone, Debug)]
enum Happening {
    EntryPoint {
        after_ms: u64,
    },
    /// Whether there is the rule, and which of five tasks.
    Wanted {
        rule: bool,
        tasks: [bool; 5],
    },
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let entry_point = (0..6_000_u64).prop_map(|after_ms| Happening::EntryPoint { after_ms });
    let wanted = any::<(bool, [bool; 5])>().prop_map(|(rule, tasks)| Happening::Wanted { rule, tasks });
    prop::collection::vec(prop_oneof![4 => entry_point, 1 => wanted], 1..60)
}

proptest! {
    /// One push with a rule and tasks that come and go picks for each of them exactly what it would pick for that one alone:
    /// nobody gains or loses by who else is due on an entry point.
    #[test]
    fn everybody_is_picked_for_as_if_nobody_else_were_there(happenings in happenings()) {
        let mut picks = PushPicks::new();
        let mut alone: BTreeMap<Subscriber, Grid> = BTreeMap::new();
        let (mut now, mut version) = (at(0), 0);
        for happening in happenings {
            match happening {
                Happening::Wanted { rule: has_rule, tasks } => {
                    let tasks = (1..).zip(tasks).filter(|(_, wanted)| *wanted);
                    let wanted: Vec<_> = has_rule
                        .then(|| rule(1, 10))
                        .into_iter()
                        .chain(tasks.map(|(id, _)| task(id, 1 + i64::try_from(id).expect("small"))))
                        .collect();
                    version += 1;
                    let _ = picks.reconcile(now, version, wanted.clone());
                    let runs = |subscriber| wanted.iter().take(TASKS_MAX + usize::from(has_rule)).any(|s| s.subscriber == subscriber);
                    alone.retain(|subscriber, _| runs(*subscriber));
                    for subscription in wanted.iter().filter(|s| runs(s.subscriber)) {
                        let grid = || Grid::new(subscription.template.interval);
                        alone.entry(subscription.subscriber).or_insert_with(grid);
                    }
                }
                Happening::EntryPoint { after_ms } => {
                    now = now.plus(Duration::from_millis(after_ms));
                    let mut picked: Vec<_> =
                        picks.on_entry_point(now).iter().map(|want| (want.subscriber, want.due)).collect();
                    picked.sort();
                    let expected: Vec<_> = alone
                        .iter_mut()
                        .filter_map(|(subscriber, grid)| Some((*subscriber, grid.on_entry_point(now)?.due())))
                        .collect();
                    prop_assert_eq!(picked, expected);
                }
            }
            prop_assert!(picks.counts().count() <= 1 + TASKS_MAX);
            prop_assert!(picks.total_counts().is_balanced());
            prop_assert!(picks.counts().all(|(_, counts)| counts.is_balanced()));
        }
    }
}
