//! One bucket: which puts are under way, and which picture gets the next slot.

use std::collections::HashSet;

use framehook_domain::id::SnapshotId;

use crate::db::snapshot::OwedPut;

/// The slots of a bucket are its own, so that one that hangs holds up no other.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Pictures whose put is under way, by how they were taken up.
    fresh: HashSet<SnapshotId>,
    backlog: HashSet<SnapshotId>,
    /// Those whose put has ended since the last look began: its rows may show them as they were before.
    ended: HashSet<SnapshotId>,
    /// Whether the last look found more than it had slots for, or may have: whoever comes later goes through a look.
    has_queue: bool,
}

/// What becomes of a picture that was just committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Committed {
    /// It has a slot; begin its put.
    Begun,
    /// A look was quicker.
    Known,
    /// A look finds it when it is its turn.
    Waits,
}

impl Lane {
    pub(super) fn running(&self) -> usize {
        self.fresh.len() + self.backlog.len()
    }

    /// A look begins, which will see how every put has ended that ended before, and tell anew whether somebody waits.
    pub(super) fn begin_look(&mut self) {
        self.ended.clear();
        self.has_queue = false;
    }

    /// Gives slots to what a look has found due, and tells what to begin. `may_begin` asks whether the bucket is to have
    /// one more put now; a put counts as begun once it was allowed.
    pub(super) fn take_up(
        &mut self,
        slots: usize,
        fresh: Vec<OwedPut>,
        backlog: Vec<OwedPut>,
        may_begin: impl Fn() -> bool,
    ) -> Vec<OwedPut> {
        let mut begun = Vec::new();
        let found = fresh.iter().chain(&backlog).filter(|put| !self.holds(put.id)).count();
        let is_backlog_waiting = self.backlog.is_empty() && backlog.iter().any(|put| !self.holds(put.id));
        // There are two slots at least. Where one put finds out whether the bucket takes anything at all, the youngest picture
        // will do.
        let slots_for_fresh = slots - usize::from(is_backlog_waiting);
        for put in fresh {
            if self.running() < slots_for_fresh && !self.holds(put.id) && may_begin() {
                self.fresh.insert(put.id);
                begun.push(put);
            }
        }
        for put in backlog {
            let has_room = self.running() < slots && self.backlog.len() < slots.div_ceil(2);
            if has_room && !self.holds(put.id) && may_begin() {
                self.backlog.insert(put.id);
                begun.push(put);
            }
        }
        // A look fetches as many as there are slots: where it found so many, there may be more.
        self.has_queue = begun.len() < found || found >= slots;
        begun
    }

    /// Gives a slot to a picture that was just committed, if nobody waits for one.
    pub(super) fn take_up_committed(
        &mut self,
        slots: usize,
        id: SnapshotId,
        may_begin: impl Fn() -> bool,
    ) -> Committed {
        if self.holds(id) {
            return Committed::Known;
        }
        if self.has_queue || self.running() >= slots || !may_begin() {
            return Committed::Waits;
        }
        self.fresh.insert(id);
        Committed::Begun
    }

    /// A put has ended, this way or that. Tells whether others may wait for its slot.
    pub(super) fn end(&mut self, id: SnapshotId) -> bool {
        self.fresh.remove(&id);
        self.backlog.remove(&id);
        self.ended.insert(id);
        self.has_queue
    }

    /// Whether a put of it is not to be started by what the last look found.
    fn holds(&self, id: SnapshotId) -> bool {
        self.fresh.contains(&id) || self.backlog.contains(&id) || self.ended.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use framehook_domain::id::EventId;
    use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
    use framehook_domain::template::ImageFormat;
    use uuid::Uuid;

    use super::*;

    const SLOTS: usize = 4;

    fn id(number: u128) -> SnapshotId {
        SnapshotId(Uuid::from_u128(number))
    }

    fn puts(numbers: std::ops::Range<u128>) -> Vec<OwedPut> {
        let put = |number| OwedPut {
            id: id(number),
            trace: id(number),
            event: EventId(Uuid::from_u128(number)),
            stream: StreamId {
                domain: DomainName::parse("push.example.com").expect("a domain"),
                app: AppName::parse("live").expect("an app"),
                name: StreamName::parse("room").expect("a stream"),
            },
            store: "s".to_owned(),
            region: String::new(),
            bucket: "b".to_owned(),
            key: format!("{number}.jpg"),
            format: ImageFormat::Jpeg,
            retention_days: None,
            file_size_bytes: 1,
            attempts: 0,
            pic_full_url: None,
        };
        numbers.map(put).collect()
    }

    fn ids(puts: &[OwedPut]) -> Vec<u128> {
        puts.iter().map(|put| put.id.0.as_u128()).collect()
    }

    #[test]
    fn a_backlog_gets_one_slot_of_fresh_pictures_that_could_fill_all() {
        let mut lane = Lane::default();
        assert_eq!(ids(&lane.take_up(SLOTS, puts(0..4), puts(10..14), || true)), [0, 1, 2, 10]);
        assert!(lane.end(id(10)), "others wait");
        lane.begin_look();
        assert_eq!(ids(&lane.take_up(SLOTS, puts(3..7), puts(11..15), || true)), [11]);
    }

    #[test]
    fn a_backlog_alone_takes_half_of_the_slots() {
        let mut lane = Lane::default();
        assert_eq!(ids(&lane.take_up(SLOTS, vec![], puts(0..4), || true)), [0, 1]);
    }

    #[test]
    fn a_committed_picture_goes_ahead_only_where_nobody_waits() {
        let mut lane = Lane::default();
        assert_eq!(lane.take_up_committed(SLOTS, id(1), || false), Committed::Waits, "the bucket is not to be asked");
        assert_eq!(lane.take_up_committed(SLOTS, id(1), || true), Committed::Begun);
        assert_eq!(lane.take_up_committed(SLOTS, id(1), || true), Committed::Known);
        assert!(!lane.end(id(1)), "nobody waits");
        assert_eq!(
            lane.take_up_committed(SLOTS, id(1), || true),
            Committed::Known,
            "its row may be older than its end"
        );
        for number in 2..6 {
            assert_eq!(lane.take_up_committed(SLOTS, id(number), || true), Committed::Begun);
        }
        assert_eq!(lane.take_up_committed(SLOTS, id(6), || true), Committed::Waits, "no slot is free");

        lane.begin_look();
        assert!(lane.take_up(SLOTS, puts(2..7), vec![], || true).is_empty());
        assert!(lane.end(id(2)), "one waits");
        assert_eq!(lane.take_up_committed(SLOTS, id(7), || true), Committed::Waits, "behind the one that waits");
        lane.begin_look();
        assert_eq!(ids(&lane.take_up(SLOTS, puts(3..8), vec![], || true)), [6]);
    }

    #[test]
    fn a_look_that_fills_all_slots_may_have_left_others() {
        let mut lane = Lane::default();
        assert_eq!(lane.take_up(SLOTS, puts(0..4), vec![], || true).len(), 4);
        assert!(lane.end(id(0)));
        lane.begin_look();
        assert_eq!(ids(&lane.take_up(SLOTS, puts(1..5), vec![], || true)), [4]);
        assert!(!lane.end(id(1)), "that look found one for the one slot that was free");

        // Where nothing is owed any more, a look has nothing to give to the lane.
        assert!(lane.take_up(SLOTS, puts(5..9), vec![], || true).len() < 4 && lane.end(id(2)));
        lane.begin_look();
        assert!(!lane.end(id(3)), "nobody waits");
    }
}
