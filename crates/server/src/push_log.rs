//! The commit point of pushes: opened with event 1, closed with event 0, durable before anybody is told.

use std::sync::Arc;

use framehook_domain::catalog::Catalog;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::db::outbox::Announcing;
use crate::db::push::{self, OpenPush, PushClosing, PushOpening, PushProgress};
use crate::db::{Db, DbError};
use crate::entropy::Entropy;
use crate::fail_point;
use crate::timeline::Timeline;

/// Writes pushes down. Clones share everything.
#[derive(Clone, Debug)]
pub struct PushLog {
    pub db: Db,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub clock: Clock,
    pub timeline: Timeline,
    pub entropy: Entropy,
    /// The deployment's account number, `appid` in the events.
    pub app_id: i64,
}

impl PushLog {
    /// Makes a push durable, with its event 1 and what is owed of it.
    ///
    /// # Errors
    /// Those of the database; the push has not begun then.
    pub async fn open_push(&self, opening: PushOpening) -> Result<(), DbError> {
        let log = self.clone();
        self.db
            .write(move |tx| {
                let catalog = Arc::clone(&log.catalog.borrow());
                push::open_push(tx, &log.announcing(&catalog), log.app_id, &opening)
            })
            .await?;
        fail_point::pass("push_opened");
        Ok(())
    }

    /// Ends a push, with its event 0 and what is owed of it. Closing it again changes nothing. Waits out a full disk: the
    /// end is owed.
    ///
    /// # Errors
    /// Those of the database; the next start finds the push open then.
    pub async fn close_push(&self, closing: PushClosing) -> Result<(), DbError> {
        let closing = Arc::new(closing);
        let make = || {
            let (log, closing) = (self.clone(), Arc::clone(&closing));
            move |tx: &crate::db::Tx<'_>| {
                let catalog = Arc::clone(&log.catalog.borrow());
                push::close_push(tx, &log.announcing(&catalog), log.app_id, &closing)
            }
        };
        self.db.write_until_done(make).await?;
        fail_point::pass("push_closed");
        Ok(())
    }

    /// Notes how far pushes have come that go on: what event 0 tells of them should the process not live to their end.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn save_progress(&self, moved: Vec<PushProgress>) -> Result<(), DbError> {
        self.db.write(move |tx| push::save_progress(tx, &moved)).await
    }

    /// The pushes that were open when the process before this one ended: each gets its grace.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open_pushes(&self) -> Result<Vec<OpenPush>, DbError> {
        self.db.read(push::open_pushes).await
    }

    fn announcing<'a>(&'a self, catalog: &'a Catalog) -> Announcing<'a> {
        Announcing { catalog, entropy: &self.entropy, wall: self.clock.wall(), now: self.timeline.now() }
    }
}
