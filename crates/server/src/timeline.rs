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
use crate::telemetry::event::Chain;

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

    /// An instant of this process, comparable with every stored due time. Call it within a write operation when the
    /// result is stored, so that no re-anchoring comes in between.
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
                Err(error) => {
                    let error = Chain(&error);
                    tracing::warn!(%error, "the wall clock was set; due times could not be shifted yet");
                }
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

    /// Runs within a write operation, where all due times are made, so that none is made between shift and anchor.
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

/// A new anchor that is taken back, before the next transaction, if the one that shifted the due times fails: its writer then
/// drops this instead of handing it out.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::db::DirLock;
    use crate::db::secret::Vault;
    use crate::entropy::Entropy;
    use crate::fatal::Fatal;

    const HOUR_MS: i64 = 3_600_000;

    /// A timeline that was anchored when the wall clock stood `ago_ms` before where it stands now, as if it had been set
    /// since.
    fn anchored(clock: Clock, ago_ms: i64) -> Timeline {
        let anchor = Anchor { wall: UnixMs(clock.wall().0 - ago_ms), mono: clock.mono() };
        Timeline { clock, anchor: Arc::new(Mutex::new(anchor)) }
    }

    fn open(dir: &Path, clock: Clock) -> Db {
        let lock = DirLock::take(dir).expect("a lock");
        let vault = Vault::open(&lock, None, &Entropy::system()).expect("a vault");
        Db::open(lock, &vault, clock, Fatal::new()).expect("a database")
    }

    async fn owe(db: &Db, id: u8, state: &'static str, due: UnixMs) {
        db.write(move |tx| {
            tx.execute_batch(
                "INSERT OR IGNORE INTO endpoint (id, callback_template_id, kind) VALUES (1, 1, 200);
                 INSERT OR IGNORE INTO event VALUES (x'00', 200, 1, NULL, 'd', 'a', 's', '{}', 0, 1);",
            )?;
            tx.execute(
                "INSERT INTO delivery (id, event_id, endpoint_id, state, due_ms, step_ms, created_ms)
                 VALUES (?1, x'00', 1, ?2, ?3, 120000, 0)",
                rusqlite::params![[id], state, due.0],
            )?;
            Ok(())
        })
        .await
        .expect("owed");
    }

    async fn due(db: &Db, id: u8) -> UnixMs {
        let read = move |conn: &rusqlite::Connection| {
            Ok(conn.query_row("SELECT due_ms FROM delivery WHERE id = ?1", [[id]], |row| row.get(0).map(UnixMs))?)
        };
        db.read(read).await.expect("a due time")
    }

    #[tokio::test]
    async fn due_times_move_along_when_the_wall_clock_is_set() {
        for set_by_ms in [HOUR_MS, -HOUR_MS] {
            let dir = tempfile::tempdir().expect("a directory");
            let clock = Clock::start();
            let db = open(dir.path(), clock);
            let timeline = anchored(clock, set_by_ms);
            let wait = Duration::from_secs(90);
            owe(&db, 1, "due", timeline.now().plus(wait)).await;
            owe(&db, 2, "delivered", UnixMs(1000)).await;

            let by_ms = timeline.follow_jump(&db).await.expect("followed").expect("a jump was seen");

            assert!((by_ms - set_by_ms).abs() < 1000, "shifted by {by_ms}");
            let left = due(&db, 1).await.since(timeline.now());
            assert!(wait - left < Duration::from_secs(5), "of {wait:?} there are {left:?} left");
            let off = timeline.now().0 - clock.wall().0;
            assert!(off.abs() < 1000, "the timeline is {off} ms off the wall clock after it");
            assert_eq!(due(&db, 2).await, UnixMs(1000), "what is settled stays");
            assert_eq!(timeline.follow_jump(&db).await.expect("looked"), None, "once is enough");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_only_slewed_moves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::start();
        let db = open(dir.path(), clock);
        let timeline = anchored(clock, 29_000);
        owe(&db, 1, "due", UnixMs(5)).await;
        assert_eq!(timeline.follow_jump(&db).await.expect("looked"), None);
        assert_eq!(due(&db, 1).await, UnixMs(5));
    }

    #[tokio::test]
    async fn the_anchor_stays_when_the_due_times_could_not_be_shifted() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::start();
        let db = open(dir.path(), clock);
        let timeline = anchored(clock, HOUR_MS);
        let before = timeline.now();
        db.write(|tx| Ok(tx.execute_batch("ALTER TABLE snapshot RENAME TO gone")?)).await.expect("renamed");
        assert!(timeline.follow_jump(&db).await.is_err());
        assert!(timeline.now().since(before) < Duration::from_secs(5), "the timeline jumped");
    }

    #[test]
    fn instants_before_and_after_the_anchor_keep_their_distance() {
        let clock = Clock::start();
        let timeline = anchored(clock, 0);
        let anchor = *timeline.lock();
        assert_eq!(timeline.at(Mono(anchor.mono.0 + Duration::from_secs(7))), anchor.wall.plus(Duration::from_secs(7)));
        let earlier = anchor.mono.0.saturating_sub(Duration::from_millis(3));
        assert_eq!(timeline.at(Mono(earlier)), anchor.wall.minus(anchor.mono.0 - earlier));
    }
}
