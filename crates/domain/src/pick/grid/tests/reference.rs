//! Random schedules against a reference that knows the whole schedule and says what each due must become, without
//! keeping any state of a grid.

use proptest::prelude::*;

use super::*;

/// Something that happens to a grid, this many ms after what happened before.
#[derive(Clone, Copy, Debug)]
enum Happening {
    EntryPoint,
    /// The newest pick is rendered and handed over.
    Rendered,
    /// The newest pick fails.
    Failed,
    /// The commit says that the picture is durable.
    Committed,
    /// The commit failed.
    NotCommitted,
    /// Somebody looks at the counts, which must change nothing.
    Look,
}

fn schedule() -> impl Strategy<Value = (i64, Vec<(u64, Happening)>)> {
    let gap_ms = prop_oneof![4 => 0..600_u64, 4 => 400..3_000_u64, 1 => 3_000..40_000_u64];
    let happening = prop_oneof![
        5 => Just(Happening::EntryPoint),
        4 => Just(Happening::Rendered),
        1 => Just(Happening::Failed),
        4 => Just(Happening::Committed),
        1 => Just(Happening::NotCommitted),
        1 => Just(Happening::Look),
    ];
    let timed = prop::collection::vec((gap_ms, happening), 0..120).prop_map(|happenings| {
        let mut ms = 0;
        let add = |(gap_ms, happening)| {
            ms += gap_ms;
            (ms, happening)
        };
        happenings.into_iter().map(add).collect()
    });
    (2..13_i64, timed)
}

/// What became of one due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Taken,
    Skipped(SkipReason),
    Open,
}

/// One pick, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Picked {
    ms: u64,
    /// The number of the due it serves.
    due: u64,
    failed: bool,
    handed_over: bool,
    /// When the commit answered, and whether the picture is durable.
    answered: Option<(u64, bool)>,
}

impl Picked {
    fn is_committing(&self) -> bool {
        self.handed_over && self.answered.is_none()
    }
}

/// The picks that a schedule must lead to, straight from the rule: an entry point serves the latest due whose window is
/// open, if no pick has served it yet, none was made less than half an interval ago, none is with the commit, and the due
/// did not fall while one was.
fn picks_of(interval_ms: u64, schedule: &[(u64, Happening)]) -> Vec<Picked> {
    let early_ms = (interval_ms / 4).min(500);
    let mut picks: Vec<Picked> = Vec::new();
    for &(ms, happening) in schedule {
        let anchor_ms = picks.first().map_or(ms, |first| first.ms);
        let newest = picks.last().copied();
        match (happening, picks.last_mut()) {
            (Happening::EntryPoint, _) => {
                let Some(newest) = newest else {
                    picks.push(Picked { ms, due: 0, failed: false, handed_over: false, answered: None });
                    continue;
                };
                let due = (ms + early_ms - anchor_ms) / interval_ms;
                let gave_way =
                    newest.answered.is_some_and(|(answered_ms, _)| anchor_ms + due * interval_ms <= answered_ms);
                let is_too_soon = (ms - newest.ms) * 2 < interval_ms;
                if due > newest.due && !gave_way && !is_too_soon && !newest.is_committing() {
                    picks.push(Picked { ms, due, failed: false, handed_over: false, answered: None });
                }
            }
            // It has until the next due falls by the clock. Between things of one millisecond the schedule's order
            // decides, but a due falls before all of them.
            (Happening::Rendered, Some(pick)) if ms < anchor_ms + (pick.due + 1) * interval_ms => {
                pick.handed_over |= !pick.failed;
            }
            (Happening::Failed, Some(pick)) if ms < anchor_ms + (pick.due + 1) * interval_ms => {
                pick.failed |= !pick.handed_over;
            }
            (Happening::Committed, Some(pick)) if pick.is_committing() => pick.answered = Some((ms, true)),
            (Happening::NotCommitted, Some(pick)) if pick.is_committing() => pick.answered = Some((ms, false)),
            _ => {}
        }
    }
    picks
}

/// The fate of every due that has fallen at the end of the schedule.
fn fates_of(interval_ms: u64, schedule: &[(u64, Happening)]) -> Vec<Fate> {
    let picks = picks_of(interval_ms, schedule);
    let (Some(first), Some((end_ms, _))) = (picks.first(), schedule.last()) else { return Vec::new() };
    let anchor_ms = first.ms;
    let fallen = picks.iter().map(|pick| pick.due + 1).max().unwrap_or(0).max((end_ms - anchor_ms) / interval_ms + 1);
    let fate_of = |due: u64| {
        let is_overtaken = due + 1 < fallen;
        let falls_ms = anchor_ms + due * interval_ms;
        let Some(pick) = picks.iter().find(|pick| pick.due == due) else {
            let gave_way = picks.iter().any(|pick| {
                pick.handed_over
                    && pick.due < due
                    && pick.answered.is_none_or(|(answered_ms, _)| falls_ms <= answered_ms)
            });
            return match (gave_way, is_overtaken) {
                (true, _) => Fate::Skipped(SkipReason::CommitBusy),
                (false, true) => Fate::Skipped(SkipReason::NoEntryPoint),
                (false, false) => Fate::Open,
            };
        };
        match (pick.answered, pick.handed_over, pick.failed) {
            (Some((_, true)), _, _) => Fate::Taken,
            (Some((_, false)), _, _) => Fate::Skipped(SkipReason::CommitFailed),
            (None, true, _) => Fate::Open,
            (None, false, true) => Fate::Skipped(SkipReason::Corrupt),
            (None, false, false) if is_overtaken => Fate::Skipped(SkipReason::RendererBusy),
            (None, false, false) => Fate::Open,
        }
    };
    (0..fallen).map(fate_of).collect()
}

/// Plays a schedule on a real grid and gives its picks and counts.
fn play_random(interval_secs: i64, schedule: &[(u64, Happening)]) -> (Vec<(u64, Mono)>, DueCounts) {
    let mut grid = Grid::new(secs(interval_secs));
    let (picks, _) = play_on(&mut grid, schedule);
    if let Some((end_ms, _)) = schedule.last() {
        grid.advance(at(*end_ms));
    }
    (picks, grid.counts())
}

/// Plays a schedule on a grid, checking what must hold at every moment. Gives its picks, and whether one is with the commit
/// in the end.
fn play_on(grid: &mut Grid, schedule: &[(u64, Happening)]) -> (Vec<(u64, Mono)>, bool) {
    let mut picks = Vec::new();
    let (mut newest, mut committing) = (None, None);
    let mut before = DueCounts::default();
    for (ms, happening) in schedule {
        match happening {
            Happening::EntryPoint => {
                if let Some(ticket) = grid.on_entry_point(at(*ms)) {
                    picks.push((*ms, ticket.due()));
                    newest = Some(ticket);
                }
            }
            Happening::Rendered => {
                if let Some(ticket) = newest.take() {
                    committing = committing.or(grid.hand_over(at(*ms), ticket));
                }
            }
            Happening::Failed => {
                if let Some(ticket) = newest.take() {
                    grid.settle(at(*ms), ticket, SkipReason::Corrupt);
                }
            }
            Happening::Committed => {
                if let Some(ticket) = committing.take() {
                    grid.settle_commit(at(*ms), ticket, Ok(()));
                }
            }
            Happening::NotCommitted => {
                if let Some(ticket) = committing.take() {
                    grid.settle_commit(at(*ms), ticket, Err(SkipReason::CommitFailed));
                }
            }
            Happening::Look => grid.advance(at(*ms)),
        }
        let counts = grid.counts();
        assert!(counts.is_balanced() && counts.open <= 1, "{counts:?}");
        assert!(counts.taken >= before.taken && counts.skipped_total() >= before.skipped_total(), "{counts:?}");
        before = counts;
    }
    (picks, committing.is_some())
}

proptest! {
    #[test]
    fn agrees_with_the_reference((interval_secs, schedule) in schedule()) {
        let interval_ms = interval_secs as u64 * 1000;
        let (picks, counts) = play_random(interval_secs, &schedule);

        let expected = picks_of(interval_ms, &schedule);
        let anchor_ms = expected.first().map_or(0, |pick| pick.ms);
        let expected: Vec<_> =
            expected.into_iter().map(|pick| (pick.ms, at(anchor_ms + pick.due * interval_ms))).collect();
        prop_assert_eq!(picks, expected);

        let fates = fates_of(interval_ms, &schedule);
        let number = |fate| fates.iter().filter(|other| **other == fate).count() as u64;
        prop_assert_eq!(counts.due, fates.len() as u64);
        prop_assert_eq!(counts.taken, number(Fate::Taken));
        prop_assert_eq!(counts.open, number(Fate::Open));
        for (reason, dues) in counts.skipped_by_reason() {
            prop_assert_eq!(dues, number(Fate::Skipped(reason)), "{}", reason.name());
        }
    }

    #[test]
    fn no_entry_point_is_picked_before_it_was_said_to_be((interval_secs, schedule) in schedule(), step in 0..120_usize) {
        // What is said after any step holds until another step but an entry point changes it.
        let (before, after) = schedule.split_at(step.min(schedule.len()));
        let mut grid = Grid::new(secs(interval_secs));
        let _ = play_on(&mut grid, before);
        let asked_ms = before.last().map_or(0, |(ms, _)| *ms);
        let picks_from = grid.picks_from(at(asked_ms));
        let entry_points = after.iter().map_while(|(ms, happening)| matches!(happening, Happening::EntryPoint).then_some(*ms));
        for ms in entry_points {
            if grid.on_entry_point(at(ms)).is_some() {
                prop_assert!(picks_from.is_some_and(|from| from <= at(ms)), "{picks_from:?}, picked at {ms}");
                break;
            }
        }
        // It is said no earlier than need be: what comes then is picked, unless the commit is still busy.
        let mut grid = Grid::new(secs(interval_secs));
        let (_, is_committing) = play_on(&mut grid, before);
        let picks_from = grid.picks_from(at(asked_ms)).expect("it has not ended");
        prop_assert!(is_committing || grid.on_entry_point(picks_from).is_some());
    }

    #[test]
    fn picks_keep_their_distance_and_serve_a_due_each((interval_secs, schedule) in schedule()) {
        let interval_ms = interval_secs as u64 * 1000;
        let (picks, _) = play_random(interval_secs, &schedule);
        for pair in picks.windows(2) {
            let [(first_ms, first_due), (second_ms, second_due)] = pair else { unreachable!("windows of two") };
            prop_assert!((second_ms - first_ms) * 2 >= interval_ms, "{pair:?}");
            prop_assert!(second_due > first_due, "{pair:?}");
        }
        for (ms, due) in picks {
            prop_assert!(at(ms + 500) >= due, "no more than half a second early");
        }
    }

    #[test]
    fn the_counts_balance_whatever_is_done(
        interval_secs in 2..20_i64,
        steps in prop::collection::vec((0..9_000_u64, 0..8_u8, 2..20_i64), 0..80),
    ) {
        let mut grid = Grid::new(secs(interval_secs));
        let (mut ms, mut tickets, mut committing) = (0, Vec::new(), None);
        for (gap_ms, kind, number) in steps {
            ms += gap_ms;
            let now = at(ms);
            match kind {
                0..=2 => tickets.extend(grid.on_entry_point(now)),
                // Any ticket in flight, in any order.
                3 if !tickets.is_empty() => {
                    let any = number as usize % tickets.len();
                    committing = committing.or(grid.hand_over(now, tickets.swap_remove(any)));
                }
                4 if !tickets.is_empty() => grid.settle(now, tickets.swap_remove(0), SkipReason::WorkerCrashed),
                5 if committing.is_some() => {
                    let outcome = if number % 2 == 0 { Ok(()) } else { Err(SkipReason::SpoolFull) };
                    grid.settle_commit(now, committing.take().expect("it is some"), outcome);
                }
                6 => {
                    grid.change_interval(now, secs(number));
                }
                7 => grid.shift_phase(now, Duration::from_millis(number as u64 * 100)),
                _ => grid.advance(now),
            }
            prop_assert!(grid.counts().is_balanced() && grid.counts().open <= 1, "{:?}", grid.counts());
        }
        grid.end(at(ms));
        prop_assert_eq!(grid.counts().open, u64::from(committing.is_some()));
        if let Some(ticket) = committing {
            grid.settle_commit(at(ms), ticket, Ok(()));
        }
        prop_assert!(grid.counts().is_balanced() && grid.counts().open == 0);
    }
}
