//! Picks that wait for a render worker: ordered by due time, one slot per push.
//!
//! It cannot grow past the number of live pushes, nor past a budget of bytes. When a push's slot is taken, the newer entry
//! point wins and the slot then carries what both wanted; a rule whose older due loses by that was counted as
//! `renderer_busy` by its grid. A pick for which the budget has no room is refused (`overload`).
//!
//! A push that got nothing, because all that it waited for was late when its turn came or because there was no room, keeps
//! its place for its next pick: with more work than fits, everybody gets as many pictures as the others, late or not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use framehook_domain::id::PushSequence;
use framehook_domain::time::Mono;
use tokio::sync::Notify;

use super::Pick;

/// Bytes of entry points that may wait. They are mostly the very bytes that [`Keyframes`](crate::keyframes::Keyframes)
/// holds, so this costs little beside its budget of the same size; but a slot outlives the entry point's eviction there,
/// and a thousand slots with entry points of 8 MiB would be 8 GiB.
pub(super) const BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Default)]
pub(crate) struct PickQueue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    bytes: usize,
    by_due: BTreeMap<(Mono, PushSequence), Pick>,
    slots: HashMap<PushSequence, Mono>,
}

impl PickQueue {
    /// Puts a pick into its push's slot. Never waits.
    ///
    /// # Errors
    /// The pick, with what a waiting one of its push wanted, if the picks of all pushes hold too many bytes.
    pub(crate) fn put(&self, mut pick: Pick) -> Result<(), Pick> {
        let mut inner = self.lock();
        let sequence = pick.push.sequence();
        let mut due = pick.earliest_due();
        if let Some(place) = pick.push.take_place() {
            due = due.min(place);
        }
        if let Some(waiting_due) = inner.slots.remove(&sequence)
            && let Some(waiting) = inner.by_due.remove(&(waiting_due, sequence))
        {
            inner.bytes -= waiting.unit.data.len();
            pick.absorb(waiting);
            due = due.min(waiting_due);
        }
        let bytes = inner.bytes + pick.unit.data.len();
        if bytes > BYTES_MAX {
            pick.push.leave_place(due);
            return Err(pick);
        }
        inner.bytes = bytes;
        inner.slots.insert(sequence, due);
        inner.by_due.insert((due, sequence), pick);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// The pick that is due first, as soon as there is one of which anything is still in time. `None` once the queue is
    /// closed and empty.
    pub(crate) async fn next(&self, now: impl Fn() -> Mono) -> Option<Pick> {
        loop {
            // Register before looking, or a pick put in between would wait for the one after it.
            let changed = self.changed.notified();
            {
                let mut inner = self.lock();
                while let Some(((due, sequence), mut pick)) = inner.by_due.pop_first() {
                    inner.slots.remove(&sequence);
                    inner.bytes -= pick.unit.data.len();
                    pick.drop_late(now());
                    if pick.wants.is_empty() {
                        pick.push.leave_place(due);
                        continue;
                    }
                    if !inner.by_due.is_empty() {
                        // One permit is stored at most, so pass the wake-up on to the next idle worker.
                        self.changed.notify_one();
                    }
                    return Some(pick);
                }
                if inner.closed {
                    self.changed.notify_one();
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Lets workers end once what waits is done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Picks waiting now.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_due.len()
    }

    /// Bytes of the entry points that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
