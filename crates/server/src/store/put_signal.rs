//! What those who put pictures into stores are told by others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::db::snapshot::OwedPut;

/// Pictures that may be handed over and not yet taken up, some 300 bytes each. Beyond them the storer finds what is owed in
/// the database.
const COMMITTED_MAX: usize = 256;

/// Hands pictures that were just committed to the storer, so that it need not look for them in the database, or tells it to
/// look.
#[derive(Debug, Default)]
pub struct PutSignal {
    told: Mutex<Told>,
    wake: Notify,
}

/// What was told since somebody last listened.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) committed: Vec<OwedPut>,
    /// Whether the database may hold more that can be put now.
    pub(super) should_look: bool,
}

impl PutSignal {
    /// These are owed from now on.
    pub fn committed(&self, puts: Vec<OwedPut>) {
        if puts.is_empty() {
            return;
        }
        let mut told = self.told();
        if told.committed.len() + puts.len() <= COMMITTED_MAX {
            told.committed.extend(puts);
        } else {
            told.should_look = true;
        }
        drop(told);
        self.wake.notify_one();
    }

    /// The database may hold something that can be put now.
    pub fn look(&self) {
        self.told().should_look = true;
        self.wake.notify_one();
    }

    /// What was told. Each thing is told once.
    pub(super) fn take(&self) -> Told {
        std::mem::take(&mut *self.told())
    }

    /// Completes when something was told after the last time that this completed.
    pub(super) fn notified(&self) -> Notified<'_> {
        self.wake.notified()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
