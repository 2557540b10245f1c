//! Delays that survive restarts: stored on the wall clock, counted on the monotonic one.
//!
//! A due time must mean something to the next process, so the database holds wall time. But the wall clock can be set, and
//! a due time must not fire early or never because of that. So this process lives on a timeline of its own: the wall clock
//! as it was at the start, moved on by the monotonic clock. When the wall clock was set (it moved over 30 s more or less
//! than the monotonic one), every stored due time is shifted along and the timeline anchored anew, in one transaction:
//! what is left to wait stays the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framehook_domain::time::{Mono, UnixMs, wall_jumped};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::{Db, DbError, dues};

/// How often the two clocks are compared. Nothing depends on it while the process lives, only the due times that a next
/// start would find.
const COMPARED_EVERY: Duration = Duration::from_secs(5);

/// The steady time line of stored due times. Clones share it.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock: Clock,
    anchor: Arc<Mutex<Anchor>>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    wall: UnixMs,
    mono: Mono,
}

impl Timeline {
    /// Anchors the timeline at the wall clock of now.
    pub fn new(clock: Clock) -> Self {
        let anchor = Anchor { wall: clock.wall(), mono: clock.mono() };
        Self { clock, anchor: Arc::new(Mutex::new(anchor)) }
    }

    /// Now, comparable with every stored due time.
    pub fn now(&self) -> UnixMs {
        self.at(self.clock.mono())
    }

    /// An instant of this process, comparable with every stored due time. Call it on the database's thread when the result
    /// is stored, so that no re-anchoring comes in between.
    pub fn at(&self, instant: Mono) -> UnixMs {
        let anchor = *self.lock();
        // An instant before the anchor is only a little before it: attempts last seconds.
        anchor.wall.plus(instant.since(anchor.mono)).minus(anchor.mono.since(instant))
    }

    /// Compares the clocks every few seconds until `token` ends it.
    pub async fn follow(self, db: Db, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(COMPARED_EVERY) => {}
            }
            match self.follow_jump(&db).await {
                Ok(None) => {}
                Ok(Some(by_ms)) => tracing::warn!(by_ms, "the wall clock was set; due times were shifted along"),
                Err(DbError::Stopped) => return,
                Err(error) => tracing::warn!(%error, "the wall clock was set; due times could not be shifted yet"),
            }
        }
    }

    /// If the wall clock was set since the anchor, shifts the stored due times and anchors anew. Tells by how much.
    ///
    /// # Errors
    /// Those of the write; nothing has changed then.
    pub async fn follow_jump(&self, db: &Db) -> Result<Option<i64>, DbError> {
        let timeline = self.clone();
        let shifted = db
            .write(move |tx| {
                let Some(reanchored) = timeline.reanchor_after_jump() else { return Ok(None) };
                dues::shift(tx, reanchored.by_ms)?;
                Ok(Some(reanchored))
            })
            .await?;
        Ok(shifted.map(Reanchored::keep))
    }

    /// Runs on the database's thread, where all due times are made, so that none is made between shift and anchor.
    fn reanchor_after_jump(&self) -> Option<Reanchored> {
        let (wall, mono) = (self.clock.wall(), self.clock.mono());
        let mut anchor = self.lock();
        let before = *anchor;
        if !wall_jumped((before.wall, before.mono), (wall, mono)) {
            return None;
        }
        let steady = before.wall.plus(mono.since(before.mono));
        *anchor = Anchor { wall, mono };
        Some(Reanchored { timeline: self.clone(), before: Some(before), by_ms: wall.0 - steady.0 })
    }

    fn lock(&self) -> MutexGuard<'_, Anchor> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new anchor that is taken back, on the database's thread, if the transaction that shifted the due times fails: its
/// writer then drops this instead of handing it out.
struct Reanchored {
    timeline: Timeline,
    before: Option<Anchor>,
    by_ms: i64,
}

impl Reanchored {
    fn keep(mut self) -> i64 {
        self.before = None;
        self.by_ms
    }
}

impl Drop for Reanchored {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            *self.timeline.lock() = before;
        }
    }
}
