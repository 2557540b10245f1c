//! The newest entry point of every live push, kept in memory within one budget for all of them.
//!
//! When the budget is full the oldest entry point of any push goes, so one push with huge keyframes cannot push the
//! process over its limit; that push then simply has no picture to offer until its next entry point.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use framehook_domain::id::PushSequence;
use framehook_domain::time::{Mono, UnixMs};
use framehook_media::AccessUnit;

/// When an entry point's last byte arrived, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) mono: Mono,
    pub(crate) wall: UnixMs,
}

/// An entry point as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct EntryPoint {
    pub(crate) unit: AccessUnit,
    pub(crate) arrival: Arrival,
}

impl EntryPoint {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.unit.data.len() as u64
    }
}

/// The store of kept entry points. Shared by all sessions; every call holds its lock for a few map operations only.
#[derive(Debug)]
pub(crate) struct Keyframes {
    bytes_max: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: u64,
    next_turn: u64,
    /// Turn of arrival to push, so the first entry is the oldest.
    by_turn: BTreeMap<u64, PushSequence>,
    /// Every push that lives, with what is kept of it.
    pushes: HashMap<PushSequence, Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    turn: u64,
    entry_point: EntryPoint,
}

impl Keyframes {
    /// A store that pins at most `bytes_max` bytes of coded pictures.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// A push begins: its entry points are kept from now on.
    pub(crate) fn open(&self, push: PushSequence) {
        self.lock().pushes.entry(push).or_default();
    }

    /// Keeps the newest entry point of `push`, dropping the one before it and, if the budget asks for it, the
    /// oldest ones of other pushes. A unit larger than the whole budget is not kept, nor is one of a push that has ended:
    /// its last session may still be reading when another task closes it.
    pub(crate) fn keep(&self, push: PushSequence, entry_point: EntryPoint) {
        // Dropped when the lock is free again: giving megabytes back to the kernel takes longer than all the rest.
        let mut dropped = Vec::new();
        let mut inner = self.lock();
        if !inner.pushes.contains_key(&push) {
            return;
        }
        dropped.extend(inner.take(push));
        let size = entry_point.bytes();
        if size <= self.bytes_max {
            while inner.bytes + size > self.bytes_max {
                let Some((_, &oldest)) = inner.by_turn.first_key_value() else { break };
                dropped.extend(inner.take(oldest));
            }
            let turn = inner.next_turn;
            inner.next_turn += 1;
            inner.bytes += size;
            inner.by_turn.insert(turn, push);
            inner.pushes.insert(push, Some(Kept { turn, entry_point }));
        }
        drop(inner);
    }

    /// The newest entry point of `push`, if it is still kept.
    pub(crate) fn newest(&self, push: PushSequence) -> Option<EntryPoint> {
        self.lock().pushes.get(&push)?.as_ref().map(|kept| kept.entry_point.clone())
    }

    /// A push has ended: drops what is kept for it.
    pub(crate) fn forget(&self, push: PushSequence) {
        let mut inner = self.lock();
        let dropped = inner.take(push);
        inner.pushes.remove(&push);
        drop(inner);
        drop(dropped);
    }

    /// Bytes of coded pictures held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes out what is kept of a push.
    fn take(&mut self, push: PushSequence) -> Option<Kept> {
        let old = self.pushes.get_mut(&push)?.take()?;
        self.bytes -= old.entry_point.bytes();
        self.by_turn.remove(&old.turn);
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use framehook_media::{Codec, DecoderConfig};

    use super::*;

    fn entry_point(bytes: usize) -> EntryPoint {
        let config = Arc::new(DecoderConfig { codec: Codec::H264, record: Bytes::new() });
        let unit = AccessUnit { config, data: Bytes::from(vec![0; bytes]), dts_ms: 0 };
        EntryPoint { unit, arrival: Arrival { mono: Mono::default(), wall: UnixMs(0) } }
    }

    fn push(number: i64) -> PushSequence {
        PushSequence::from_i64(number).expect("not negative")
    }

    fn keyframes(pushes: impl IntoIterator<Item = i64>) -> Keyframes {
        let keyframes = Keyframes::new(100);
        pushes.into_iter().for_each(|number| keyframes.open(push(number)));
        keyframes
    }

    #[test]
    fn the_oldest_goes_when_the_budget_is_full() {
        let keyframes = keyframes(1..=3);
        let (first, second, third) = (push(1), push(2), push(3));
        keyframes.keep(first, entry_point(40));
        keyframes.keep(second, entry_point(40));
        keyframes.keep(first, entry_point(50));
        assert_eq!(keyframes.bytes(), 90);
        keyframes.keep(third, entry_point(30));
        assert!(keyframes.newest(second).is_none(), "the second push's entry point was the oldest");
        assert_eq!(keyframes.newest(first).unwrap().bytes(), 50);
        assert_eq!(keyframes.newest(third).unwrap().bytes(), 30);
        assert_eq!(keyframes.bytes(), 80);
    }

    #[test]
    fn a_unit_larger_than_the_budget_is_not_kept_and_costs_nobody_else() {
        let keyframes = keyframes(1..=2);
        keyframes.keep(push(1), entry_point(60));
        keyframes.keep(push(2), entry_point(101));
        assert!(keyframes.newest(push(2)).is_none());
        assert!(keyframes.newest(push(1)).is_some());
    }

    #[test]
    fn an_ended_push_gives_its_bytes_back() {
        let keyframes = keyframes([1]);
        keyframes.keep(push(1), entry_point(60));
        keyframes.forget(push(1));
        assert_eq!(keyframes.bytes(), 0);
    }

    #[test]
    fn nothing_is_kept_of_a_push_that_has_ended() {
        let keyframes = keyframes([1]);
        keyframes.forget(push(1));
        keyframes.keep(push(1), entry_point(60));
        assert_eq!((keyframes.bytes(), keyframes.newest(push(1)).is_none()), (0, true));
    }
}
