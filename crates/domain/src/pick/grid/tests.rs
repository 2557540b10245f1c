use alloc::{collections::VecDeque, format, string::String, vec::Vec};

use super::*;

mod reference;

fn secs(secs: i64) -> SnapshotInterval {
    SnapshotInterval::from_secs(secs).expect("an interval")
}

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

/// Plays a story on a grid of 10 s and tells the counts at its end, without what is zero.
///
/// A story is steps with their time in seconds. An entry point `picks D` for the due at D, or `passes`. The oldest ticket
/// out `goes to commit`, `is stale` when it tries to, or `fails`. The commit `answers` that the picture is durable, or
/// `cannot`; `commits` is going there and being answered at once. `interval S` and `shift S` change the grid, somebody
/// `looks` at the counts, and the push `ends`.
fn play(name: &str, story: &str) -> String {
    let mut grid = Grid::new(secs(10));
    let mut tickets = VecDeque::new();
    let mut committing = None;
    let mut taken_before = 0;
    for step in story.split(", ") {
        let context = format!("{name}: {step}");
        let mut words = step.split(' ');
        let now = Mono(seconds(words.next().expect(&context)));
        match (words.next().expect(&context), words.next()) {
            ("picks", Some(due)) => {
                let ticket = grid.on_entry_point(now).expect(&context);
                assert_eq!(ticket.due(), Mono(seconds(due)), "{context}");
                tickets.push_back(ticket);
            }
            ("passes", None) => assert_eq!(grid.on_entry_point(now), None, "{context}"),
            ("goes", Some("to")) => {
                committing = grid.hand_over(now, tickets.pop_front().expect(&context));
                assert!(committing.is_some(), "{context}");
            }
            ("commits", None) => {
                let ticket = grid.hand_over(now, tickets.pop_front().expect(&context)).expect(&context);
                grid.settle_commit(now, ticket, Ok(()));
            }
            ("answers", None) => grid.settle_commit(now, committing.take().expect(&context), Ok(())),
            ("cannot", None) => {
                grid.settle_commit(now, committing.take().expect(&context), Err(SkipReason::SpoolFull));
            }
            ("is", Some("stale")) => {
                assert_eq!(grid.hand_over(now, tickets.pop_front().expect(&context)), None, "{context}");
            }
            ("fails", None) => grid.settle(now, tickets.pop_front().expect(&context), SkipReason::Corrupt),
            ("interval", Some(new)) => {
                grid.change_interval(now, secs(new.parse().expect(&context)));
            }
            ("shift", Some(by)) => grid.shift_phase(now, seconds(by)),
            ("looks", None) => grid.advance(now),
            ("ends", None) => grid.end(now),
            _ => panic!("{context} is not a step"),
        }
        assert!(grid.counts().is_balanced() && grid.counts().open <= 1, "{context}: {:?}", grid.counts());
        assert!(grid.counts().taken >= taken_before, "{context}: a counter goes back");
        taken_before = grid.counts().taken;
    }
    told(&grid.counts())
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().expect("seconds"))
}

fn told(counts: &DueCounts) -> String {
    let skipped = counts.skipped_by_reason().map(|(reason, dues)| (reason.name(), dues));
    let parts =
        [("due", counts.due), ("taken", counts.taken)].into_iter().chain(skipped).chain([("open", counts.open)]);
    let parts: Vec<_> = parts.filter(|(_, dues)| *dues > 0).map(|(name, dues)| format!("{name} {dues}")).collect();
    parts.join(", ")
}

#[test]
fn tells_the_stories_of_the_specification() {
    let cases = [
        ("nothing is due before the first entry point", "60 looks", ""),
        ("the first entry point is picked at once", "3 picks 3", "due 1, open 1"),
        (
            "and anchors the grid",
            "3 picks 3, 3.1 commits, 13 picks 13, 23 picks 23",
            "due 3, taken 1, renderer_busy 1, open 1",
        ),
        (
            "entry points between dues pass",
            "0 picks 0, 0.05 commits, 2 passes, 4 passes, 6 passes, 8 passes, 10 picks 10",
            "due 2, taken 1, open 1",
        ),
        (
            "half a second early serves the due",
            "0 picks 0, 0.05 commits, 9.499 passes, 9.5 picks 10, 9.6 commits, 19.5 picks 20",
            "due 3, taken 2, open 1",
        ),
        (
            "a due served early counts when it is served",
            "0 picks 0, 0.05 commits, 9.5 picks 10, 9.6 commits, 10 looks",
            "due 2, taken 2",
        ),
        (
            "a late entry point serves the due that waits",
            "0 picks 0, 0.05 commits, 14 picks 10, 14.1 commits, 19.4 passes, 19.5 picks 20",
            "due 3, taken 2, open 1",
        ),
        (
            "a due without an entry point is skipped when the next falls",
            "0 picks 0, 0.05 commits, 20 looks",
            "due 3, taken 1, no_entry_point 1, open 1",
        ),
        (
            "several passed dues collapse into the latest",
            "0 picks 0, 0.05 commits, 47 picks 40, 47.1 commits",
            "due 5, taken 2, no_entry_point 3",
        ),
        (
            "a waiting due collapses into one whose window is open",
            "0 picks 0, 0.05 commits, 19.6 picks 20",
            "due 3, taken 1, no_entry_point 1, open 1",
        ),
        (
            "never a burst after a stall",
            "0 picks 0, 0.05 commits, 47 picks 40, 47.1 commits, 47.5 passes, 49 passes, 50.5 passes, 52 picks 50",
            "due 6, taken 2, no_entry_point 3, open 1",
        ),
        (
            "picks keep half an interval between them",
            "0 picks 0, 0.05 commits, 15.5 picks 10, 15.6 commits, 20.4 passes, 20.5 picks 20",
            "due 3, taken 2, open 1",
        ),
        (
            "in flight when the next falls: the renderer was busy",
            "0 picks 0, 10 looks, 10.1 is stale",
            "due 2, renderer_busy 1, open 1",
        ),
        (
            "in flight when the next is served early: the same",
            "0 picks 0, 9.6 picks 10, 9.7 is stale, 9.8 commits",
            "due 2, taken 1, renderer_busy 1",
        ),
        ("a moment before the next falls is early enough", "0 picks 0, 9.999 commits", "due 1, taken 1"),
        ("the moment it falls is not", "0 picks 0, 10 is stale", "due 2, renderer_busy 1, open 1"),
        ("a failure is counted with its reason", "0 picks 0, 0.1 fails, 2 passes", "due 1, corrupt 1"),
        (
            "a failure after the next due fell keeps the first reason",
            "0 picks 0, 10.5 fails",
            "due 2, renderer_busy 1, open 1",
        ),
        ("a due is open until the commit has answered", "0 picks 0, 0.1 goes to commit, 0.2 looks", "due 1, open 1"),
        ("and taken from then on", "0 picks 0, 0.1 goes to commit, 0.2 answers", "due 1, taken 1"),
        ("a full disk at commit makes it skipped", "0 picks 0, 0.1 goes to commit, 0.2 cannot", "due 1, spool_full 1"),
        (
            "a due that falls while the commit is busy gives way",
            "0 picks 0, 0.1 goes to commit, 10 passes, 12 answers, 19.5 picks 20",
            "due 3, taken 1, commit_busy 1, open 1",
        ),
        (
            "however late somebody looks",
            "0 picks 0, 0.1 goes to commit, 45 answers, 46 passes, 49.5 picks 50",
            "due 6, taken 1, commit_busy 4, open 1",
        ),
        (
            "one whose window is open does not give way before it falls",
            "0 picks 0, 0.1 goes to commit, 9.6 passes, 9.7 answers, 9.8 picks 10",
            "due 2, taken 1, open 1",
        ),
        (
            "the end waits for the commit's answer",
            "0 picks 0, 0.1 goes to commit, 0.5 ends, 90 looks, 91 answers",
            "due 1, taken 1",
        ),
        (
            "a changed interval does not take the due from the commit",
            "0 picks 0, 0.1 goes to commit, 5 interval 4, 5.5 answers, 8.5 picks 9",
            "due 3, taken 1, commit_busy 1, open 1",
        ),
        ("the end skips what is open", "0 picks 0, 0.05 commits, 12 ends", "due 2, taken 1, push_ended 1"),
        (
            "the end skips what is in flight",
            "0 picks 0, 0.5 ends, 0.6 is stale, 0.7 passes, 90 looks",
            "due 1, push_ended 1",
        ),
        (
            "dues go on falling while the publisher is away",
            "0 picks 0, 0.05 commits, 75 ends",
            "due 8, taken 1, no_entry_point 6, push_ended 1",
        ),
        (
            "a longer interval counts from the last pick",
            "0 picks 0, 0.05 commits, 5 interval 30, 29.4 passes, 29.5 picks 30",
            "due 2, taken 1, open 1",
        ),
        (
            "a shorter one too",
            "0 picks 0, 0.05 commits, 1 interval 4, 3.499 passes, 3.5 picks 4",
            "due 2, taken 1, open 1",
        ),
        (
            "and now if that is past",
            "0 picks 0, 0.05 commits, 7 interval 4, 7.1 picks 7, 7.2 commits, 10.5 picks 11",
            "due 3, taken 2, open 1",
        ),
        (
            "a due that waits does not outlive its interval",
            "0 picks 0, 0.05 commits, 12 interval 300, 20 passes, 299.5 picks 300",
            "due 3, taken 1, rule_changed 1, open 1",
        ),
        ("a pick in flight does", "0 picks 0, 0.1 interval 300, 0.2 commits", "due 1, taken 1"),
        (
            "the same interval changes nothing",
            "0 picks 0, 0.05 commits, 12 interval 10, 14 picks 10",
            "due 2, taken 1, open 1",
        ),
        (
            "before the first picture it only changes the interval",
            "0 interval 4, 1 picks 1, 1.05 commits, 4.5 picks 5",
            "due 2, taken 1, open 1",
        ),
        (
            "a shift moves the later dues once",
            "0 picks 0, 0 shift 3, 0.05 commits, 12.4 passes, 12.5 picks 13, 12.6 commits, 22.5 picks 23",
            "due 3, taken 2, open 1",
        ),
        (
            "and leaves a due alone that waits",
            "0 picks 0, 0.05 commits, 11 shift 3, 12 picks 10, 12.1 commits, 22.5 picks 23",
            "due 3, taken 2, open 1",
        ),
    ];
    for (name, story, expected) in cases {
        assert_eq!(play(name, story), expected, "{name}");
    }
}

#[test]
fn the_first_pick_says_so() {
    let mut grid = Grid::new(secs(2));
    assert!(grid.on_entry_point(at(0)).expect("the first").is_first());
    assert!(!grid.on_entry_point(at(2_000)).expect("the second").is_first());
}

#[test]
fn the_window_opens_no_more_than_half_a_second_early() {
    for interval_secs in [2, 10, 300] {
        let mut grid = Grid::new(secs(interval_secs));
        let due_ms = u64::from(grid.interval().secs()) * 1000;
        let _ = grid.on_entry_point(at(0));
        assert_eq!(grid.on_entry_point(at(due_ms - 501)), None, "{interval_secs} s");
        assert!(grid.on_entry_point(at(due_ms - 500)).is_some(), "{interval_secs} s");
    }
}

#[test]
fn a_year_without_a_look_is_counted_at_once() {
    let mut grid = Grid::new(secs(2));
    let _ = grid.on_entry_point(at(0));
    grid.advance(at(365 * 24 * 3600 * 1000));
    let counts = grid.counts();
    assert_eq!(counts.due, 365 * 24 * 1800 + 1);
    assert!(counts.is_balanced());
    grid.advance(Mono(Duration::MAX));
    assert!(grid.counts().is_balanced());
}
