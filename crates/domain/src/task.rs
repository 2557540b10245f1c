//! Screenshot tasks (CSS, 267/70281): pictures of one stream within a window of time, beside those that its rule asks
//! for.

use core::time::Duration;

use crate::{
    field::FieldError,
    id::{TaskId, TemplateId},
    pick::TASKS_MAX,
    stream::StreamId,
    time::UnixMs,
};

const DAY: Duration = Duration::from_secs(86_400);

/// A task begins within this time from its creation (267/54799).
const START_MAX: Duration = DAY.saturating_mul(6);

/// A task ends in less than this time from its creation (267/70281).
const END_MAX: Duration = DAY.saturating_mul(7);

/// A task lasts this long at most (267/70281).
const LENGTH_MAX: Duration = DAY;

/// Pictures of one stream, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenshotTask {
    pub id: TaskId,
    pub stream: StreamId,
    /// May be one that does not exist: CSS makes such a task, which takes nothing.
    pub template: TemplateId,
    pub window: TaskWindow,
}

/// From when until when a task runs. Its end is no longer part of it, so that one may begin where another ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskWindow {
    start: UnixMs,
    end: UnixMs,
}

impl TaskWindow {
    /// The window of a task that is made `now`. It may have begun, and may not be over.
    ///
    /// # Errors
    /// An `end` that does not lie after `now` and `start`, lies a week after `now` or later, or more than a day after
    /// `start`; a `start` more than six days after `now`.
    pub fn new(start: UnixMs, end: UnixMs, now: UnixMs) -> Result<Self, FieldError> {
        let is_end_allowed = end > start.max(now) && end.since(now) < END_MAX && end.since(start) <= LENGTH_MAX;
        if !is_end_allowed {
            let allowed = "after now and the start, at most 24 hours after the start, less than 7 days from now";
            return Err(FieldError::new("end", end.secs(), allowed));
        }
        if start.since(now) > START_MAX {
            return Err(FieldError::new("start", start.secs(), "at most 6 days from now"));
        }
        Ok(Self { start, end })
    }

    /// A window that was allowed when it was made. `None` for what we never wrote: one that ends before it begins.
    pub fn from_stored(start: UnixMs, end: UnixMs) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    pub fn start(self) -> UnixMs {
        self.start
    }

    pub fn end(self) -> UnixMs {
        self.end
    }

    pub fn contains(self, at: UnixMs) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether at no instant of this window more than [`TASKS_MAX`] run, this one and `others` of the same stream.
    pub fn fits_beside(self, others: impl Iterator<Item = Self> + Clone) -> bool {
        // The crowd grows only where a window begins.
        let mut starts = others.clone().map(Self::start).filter(|start| self.contains(*start)).chain([self.start]);
        let running_at = |at| others.clone().filter(|other| other.contains(at)).count();
        starts.all(|start| running_at(start) < TASKS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs::from_secs(1_735_689_600);

    fn window(start: i64, end: i64) -> TaskWindow {
        TaskWindow::from_stored(UnixMs(start), UnixMs(end)).expect("a window")
    }

    #[test]
    fn a_window_keeps_the_limits_of_the_documents() {
        const HOUR: i64 = 3600;
        const DAYS: i64 = 24 * HOUR;
        for (name, start, end, refused) in [
            ("from now on", 0, HOUR, None),
            ("begun already", -HOUR, 1, None),
            ("a whole day", 0, DAYS, None),
            ("the latest start", 6 * DAYS, 6 * DAYS + 1, None),
            ("the latest end", 6 * DAYS, 7 * DAYS - 1, None),
            ("over", -HOUR, 0, Some("end")),
            ("empty", HOUR, HOUR, Some("end")),
            ("backwards", HOUR, HOUR - 1, Some("end")),
            ("longer than a day", 0, DAYS + 1, Some("end")),
            ("too long because it began early", -1, DAYS, Some("end")),
            ("a week from now", 6 * DAYS, 7 * DAYS, Some("end")),
            ("too late a start", 6 * DAYS + 1, 6 * DAYS + 2, Some("start")),
            ("all of time", i64::MIN / 1000, i64::MAX / 1000, Some("end")),
        ] {
            let at = |secs: i64| UnixMs::from_secs(NOW.secs().saturating_add(secs));
            let made = TaskWindow::new(at(start), at(end), NOW);
            assert_eq!(made.err().map(|error| error.field), refused, "{name}");
        }
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let window = window(10, 20);
        assert_eq!([9, 10, 19, 20].map(|at| window.contains(UnixMs(at))), [false, true, true, false]);
        assert_eq!(TaskWindow::from_stored(UnixMs(20), UnixMs(20)), None);
    }

    #[test]
    fn a_fourth_window_fits_where_one_of_three_is_over() {
        let three = [window(0, 10), window(0, 20), window(5, 30)];
        for (name, wanted, fits) in [
            ("where all three run", window(6, 7), false),
            ("up to where the third begins", window(0, 5), true),
            ("one instant longer", window(0, 6), false),
            ("from where the first ends", window(10, 40), true),
            ("over all of them", window(-10, 40), false),
            ("after them", window(30, 40), true),
        ] {
            assert_eq!(wanted.fits_beside(three.into_iter()), fits, "{name}");
        }
    }

    proptest! {
        /// Whatever is asked for: a window is refused exactly if it would make a fourth at some instant.
        #[test]
        fn agrees_with_counting_at_every_instant(
            wanted in prop::collection::vec((0..40_i64, 1..20_i64), 0..12),
        ) {
            let mut taken: Vec<TaskWindow> = Vec::new();
            for (start, length) in wanted {
                let wanted = window(start, start + length);
                let running = |at: i64| taken.iter().filter(|other| other.contains(UnixMs(at))).count();
                let is_free = (start..start + length).all(|at| running(at) < TASKS_MAX);
                let fits = wanted.fits_beside(taken.iter().copied());
                prop_assert_eq!(fits, is_free);
                if fits {
                    taken.push(wanted);
                }
                prop_assert!((0..60).all(|at| taken.iter().filter(|one| one.contains(UnixMs(at))).count() <= TASKS_MAX));
            }
        }
    }
}
