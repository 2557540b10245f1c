use alloc::{collections::VecDeque, format, string::String, vec::Vec};

use super::*;

mod reference;

fn secs(secs: i64) -> SnapshotInterval {
    SnapshotInterval::from_secs(secs).expect("an interval")
}

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

/// One line of a story: what happens, and what the grid must make of it. Tickets are used in the order they were given
/// out.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An entry point is picked for the due at this many ms.
    Picks(u64),
    /// An entry point is not picked.
    Passes,
    /// The oldest ticket is handed over to commit.
    Commits,
    /// The oldest ticket is refused by commit, because its due was decided meanwhile.
    IsStale,
    /// The renderer gives up on the oldest ticket.
    Fails(SkipReason),
    /// The commit of the due that was handed over last fails.
    Undoes,
    /// The interval changes to this many seconds.
    Interval(i64),
    /// Later dues move by this many ms.
    Shift(u64),
    /// Somebody looks at the counts.
    Looks,
    Ends,
}

use Step::*;

/// Plays a story on a grid of 10 s and tells the counts at its end, without what is zero.
fn play(name: &str, steps: &[(u64, Step)]) -> String {
    let mut grid = Grid::new(secs(10));
    let mut tickets = VecDeque::new();
    let mut taken = None;
    for (ms, step) in steps {
        let now = at(*ms);
        let step_name = format!("{name}: at {ms} {step:?}");
        match step {
            Picks(due_ms) => {
                let ticket = grid.on_entry_point(now).expect(&step_name);
                assert_eq!(ticket.due(), at(*due_ms), "{step_name}");
                tickets.push_back(ticket);
            }
            Passes => assert_eq!(grid.on_entry_point(now), None, "{step_name}"),
            Commits => taken = Some(grid.hand_over(now, tickets.pop_front().expect(&step_name)).expect(&step_name)),
            IsStale => assert_eq!(grid.hand_over(now, tickets.pop_front().expect(&step_name)), None, "{step_name}"),
            Fails(reason) => grid.settle(now, tickets.pop_front().expect(&step_name), *reason),
            Undoes => grid.undo_taken(taken.take().expect(&step_name), SkipReason::SpoolFull),
            Interval(new) => grid.change_interval(now, secs(*new)),
            Shift(by) => grid.shift_phase(now, Duration::from_millis(*by)),
            Looks => grid.advance(now),
            Ends => grid.end(now),
        }
        assert!(grid.counts().is_balanced() && grid.counts().open <= 1, "{step_name}: {:?}", grid.counts());
    }
    told(&grid.counts())
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
    use SkipReason::Corrupt;
    type Story = (&'static str, &'static [(u64, Step)], &'static str);
    let cases: &[Story] = &[
        ("nothing is due before the first entry point", &[(60_000, Looks)], ""),
        ("the first entry point is picked at once", &[(3_000, Picks(3_000))], "due 1, open 1"),
        (
            "and anchors the grid",
            &[(3_000, Picks(3_000)), (3_100, Commits), (13_000, Picks(13_000)), (23_000, Picks(23_000))],
            "due 3, taken 1, renderer_busy 1, open 1",
        ),
        (
            "entry points between dues pass",
            &[
                (0, Picks(0)),
                (50, Commits),
                (2_000, Passes),
                (4_000, Passes),
                (6_000, Passes),
                (8_000, Passes),
                (10_000, Picks(10_000)),
            ],
            "due 2, taken 1, open 1",
        ),
        (
            "half a second early serves the due",
            &[
                (0, Picks(0)),
                (50, Commits),
                (9_499, Passes),
                (9_500, Picks(10_000)),
                (9_600, Commits),
                (19_500, Picks(20_000)),
            ],
            "due 3, taken 2, open 1",
        ),
        (
            "a due served early counts when it is served",
            &[(0, Picks(0)), (50, Commits), (9_500, Picks(10_000)), (9_600, Commits), (10_000, Looks)],
            "due 2, taken 2",
        ),
        (
            "a late entry point serves the due that waits",
            &[
                (0, Picks(0)),
                (50, Commits),
                (14_000, Picks(10_000)),
                (14_100, Commits),
                (19_400, Passes),
                (19_500, Picks(20_000)),
            ],
            "due 3, taken 2, open 1",
        ),
        (
            "a due without an entry point is skipped when the next falls",
            &[(0, Picks(0)), (50, Commits), (20_000, Looks)],
            "due 3, taken 1, no_entry_point 1, open 1",
        ),
        (
            "several passed dues collapse into the latest",
            &[(0, Picks(0)), (50, Commits), (47_000, Picks(40_000)), (47_100, Commits)],
            "due 5, taken 2, no_entry_point 3",
        ),
        (
            "a waiting due collapses into one whose window is open",
            &[(0, Picks(0)), (50, Commits), (19_600, Picks(20_000))],
            "due 3, taken 1, no_entry_point 1, open 1",
        ),
        (
            "never a burst after a stall",
            &[
                (0, Picks(0)),
                (50, Commits),
                (47_000, Picks(40_000)),
                (47_100, Commits),
                (47_500, Passes),
                (49_000, Passes),
                (50_500, Passes),
                (52_000, Picks(50_000)),
            ],
            "due 6, taken 2, no_entry_point 3, open 1",
        ),
        (
            "picks keep half an interval between them",
            &[
                (0, Picks(0)),
                (50, Commits),
                (15_500, Picks(10_000)),
                (15_600, Commits),
                (20_400, Passes),
                (20_500, Picks(20_000)),
            ],
            "due 3, taken 2, open 1",
        ),
        (
            "in flight when the next falls: the renderer was busy",
            &[(0, Picks(0)), (10_000, Looks), (10_100, IsStale)],
            "due 2, renderer_busy 1, open 1",
        ),
        (
            "in flight when the next is served early: the same",
            &[(0, Picks(0)), (9_600, Picks(10_000)), (9_700, IsStale), (9_800, Commits)],
            "due 2, taken 1, renderer_busy 1",
        ),
        ("a moment before the next falls is early enough", &[(0, Picks(0)), (9_999, Commits)], "due 1, taken 1"),
        ("the moment it falls is not", &[(0, Picks(0)), (10_000, IsStale)], "due 2, renderer_busy 1, open 1"),
        (
            "a failure is counted with its reason",
            &[(0, Picks(0)), (100, Fails(Corrupt)), (2_000, Passes)],
            "due 1, corrupt 1",
        ),
        (
            "a failure after the next due fell keeps the first reason",
            &[(0, Picks(0)), (10_500, Fails(Corrupt))],
            "due 2, renderer_busy 1, open 1",
        ),
        (
            "a full disk at commit takes the due back",
            &[(0, Picks(0)), (100, Commits), (200, Undoes)],
            "due 1, spool_full 1",
        ),
        (
            "even long after",
            &[(0, Picks(0)), (100, Commits), (10_000, Picks(10_000)), (10_100, Undoes)],
            "due 2, spool_full 1, open 1",
        ),
        ("the end skips what is open", &[(0, Picks(0)), (50, Commits), (12_000, Ends)], "due 2, taken 1, push_ended 1"),
        (
            "the end skips what is in flight",
            &[(0, Picks(0)), (500, Ends), (600, IsStale), (700, Passes), (90_000, Looks)],
            "due 1, push_ended 1",
        ),
        (
            "dues go on falling while the publisher is away",
            &[(0, Picks(0)), (50, Commits), (75_000, Ends)],
            "due 8, taken 1, no_entry_point 6, push_ended 1",
        ),
        (
            "a longer interval counts from the last pick",
            &[(0, Picks(0)), (50, Commits), (5_000, Interval(30)), (29_400, Passes), (29_500, Picks(30_000))],
            "due 2, taken 1, open 1",
        ),
        (
            "a shorter one too",
            &[(0, Picks(0)), (50, Commits), (1_000, Interval(4)), (3_499, Passes), (3_500, Picks(4_000))],
            "due 2, taken 1, open 1",
        ),
        (
            "and now if that is past",
            &[
                (0, Picks(0)),
                (50, Commits),
                (7_000, Interval(4)),
                (7_100, Picks(7_000)),
                (7_200, Commits),
                (10_500, Picks(11_000)),
            ],
            "due 3, taken 2, open 1",
        ),
        (
            "a due that waits does not outlive its interval",
            &[(0, Picks(0)), (50, Commits), (12_000, Interval(300)), (20_000, Passes), (299_500, Picks(300_000))],
            "due 3, taken 1, rule_changed 1, open 1",
        ),
        ("a pick in flight does", &[(0, Picks(0)), (100, Interval(300)), (200, Commits)], "due 1, taken 1"),
        (
            "the same interval changes nothing",
            &[(0, Picks(0)), (50, Commits), (12_000, Interval(10)), (14_000, Picks(10_000))],
            "due 2, taken 1, open 1",
        ),
        (
            "before the first picture it only changes the interval",
            &[(0, Interval(4)), (1_000, Picks(1_000)), (1_050, Commits), (4_500, Picks(5_000))],
            "due 2, taken 1, open 1",
        ),
        (
            "a shift moves the later dues once",
            &[
                (0, Picks(0)),
                (0, Shift(3_000)),
                (50, Commits),
                (12_400, Passes),
                (12_500, Picks(13_000)),
                (12_600, Commits),
                (22_500, Picks(23_000)),
            ],
            "due 3, taken 2, open 1",
        ),
        (
            "and leaves a due alone that waits",
            &[
                (0, Picks(0)),
                (50, Commits),
                (11_000, Shift(3_000)),
                (12_000, Picks(10_000)),
                (12_100, Commits),
                (22_500, Picks(23_000)),
            ],
            "due 3, taken 2, open 1",
        ),
    ];
    for (name, steps, expected) in cases {
        assert_eq!(play(name, steps), *expected, "{name}");
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
