//! Writes outcomes down together: one operation for all that ended while the one before was on its way to the disk.
//!
//! Nobody waits for a delivery to be known as delivered, so that goes along with what else is written, if anything is
//! before long; so does, of necessity, what ends behind it. A crash meanwhile makes such a callback be sent again, as it would
//! be if its answer had come that much later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use framehook_domain::retry::DeadReason;
use framehook_domain::time::{Mono, UnixMs};
use tokio::sync::{mpsc, oneshot};

use crate::db::outbox::{self, Attempted, ClaimId, Settlement, Verdict};
use crate::db::{Db, DbError, Tx};
use crate::shutdown::Stage;
use crate::timeline::Timeline;

/// Outcomes written in one operation at most: some milliseconds of the writer's time, so that a picture's commit behind it
/// does not wait for long. With their answers of a KiB and more they are half a megabyte.
const GROUP_MAX: usize = 512;

/// How long a group waits at most for something to go along with. More than twice the 250 ms for which pictures gather at most, by
/// default, until they are recorded, so that while many come no outcome needs a transaction of its own.
const PATIENCE: Duration = Duration::from_millis(700);

/// Outcomes that may wait for the group before theirs. Attempts beyond it wait in turn, and hold their slots meanwhile.
const QUEUE_MAX: usize = 1024;

/// What has become of a claimed delivery.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) claim: ClaimId,
    /// `None`: no attempt was made.
    pub(super) attempted: Option<Arc<Attempted>>,
    pub(super) end: End,
    pub(super) wall: UnixMs,
}

/// What follows.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Delivered,
    /// Another attempt, so long after that instant at which this one was judged failed.
    Retry {
        judged: Mono,
        step: Duration,
    },
    Dead(DeadReason),
}

impl Ended {
    /// As it is stored. Call it within a write operation, so that no re-anchoring of the timeline comes in between.
    fn settlement(&self, timeline: &Timeline) -> Settlement {
        let Self { claim, ref attempted, end, wall } = *self;
        let verdict = match end {
            End::Delivered => Verdict::Delivered,
            End::Retry { judged, step } => Verdict::Retry { due: timeline.at(judged).plus(step), step },
            End::Dead(reason) => Verdict::Dead(reason),
        };
        Settlement { claim, attempted: attempted.clone(), verdict, wall }
    }
}

struct Waiting {
    ended: Ended,
    answer: oneshot::Sender<Result<bool, DbError>>,
}

/// Who writes.
struct Writing {
    db: Db,
    timeline: Timeline,
    /// Whether something waits for the slots that attempts keep until their outcomes are written.
    is_slot_awaited: Arc<AtomicBool>,
}

/// Where attempts hand their outcomes in. Clones share one queue; what waits in it is written down when the last is gone.
#[derive(Clone, Debug)]
pub(super) struct Settler {
    queue: mpsc::Sender<Waiting>,
}

impl Settler {
    /// Starts the task that writes, in `stage`.
    pub(super) fn start(db: Db, timeline: Timeline, is_slot_awaited: Arc<AtomicBool>, stage: &Stage) -> Self {
        let (queue, mut waiting) = mpsc::channel(QUEUE_MAX);
        let writing = Writing { db, timeline, is_slot_awaited };
        stage.spawn_vital("settler", async move {
            let mut group = Vec::new();
            // It takes what waits and never waits for more.
            while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
                let (ended, answers): (Vec<_>, Vec<_>) =
                    group.drain(..).map(|Waiting { ended, answer }| (ended, answer)).unzip();
                for (answer, settled) in answers.into_iter().zip(writing.write(ended).await) {
                    // Whoever stopped waiting does not care.
                    let _ = answer.send(settled);
                }
            }
        });
        Self { queue }
    }

    /// Ends a claim, durably. Waits out a full disk. `false`: the claim was over already.
    ///
    /// # Errors
    /// Those of the database, but for [passing](DbError::is_passing) ones.
    pub(super) async fn settle(&self, ended: Ended) -> Result<bool, DbError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { ended, answer }).await.map_err(|_| DbError::Stopped)?;
        answered.await.map_err(|_| DbError::Stopped)?
    }
}

impl Writing {
    async fn write(&self, group: Vec<Ended>) -> Vec<Result<bool, DbError>> {
        let group: Arc<[Ended]> = group.into();
        match self.write_together(Arc::clone(&group)).await {
            Ok(settled) => settled.into_iter().map(Ok).collect(),
            Err(error) if group.len() == 1 || matches!(error, DbError::Stopped) => vec![Err(error); group.len()],
            // One of them cannot be written: the others can.
            Err(_) => {
                let mut settled = Vec::with_capacity(group.len());
                for ended in group.iter() {
                    let alone = self.write_now([ended.clone()].into()).await;
                    settled.push(alone.map(|settled| settled == [true]));
                }
                settled
            }
        }
    }

    async fn write_together(&self, group: Arc<[Ended]>) -> Result<Vec<bool>, DbError> {
        let is_delivered = |ended: &Ended| matches!(ended.end, End::Delivered);
        if group.iter().all(is_delivered) && !self.is_slot_awaited.load(Ordering::SeqCst) {
            match self.db.write_along(PATIENCE, self.settling(&group)).await {
                Err(error) if error.is_passing() => {}
                written => return written,
            }
        }
        self.write_now(group).await
    }

    async fn write_now(&self, group: Arc<[Ended]>) -> Result<Vec<bool>, DbError> {
        self.db.write_until_done(|| self.settling(&group)).await
    }

    fn settling(&self, group: &Arc<[Ended]>) -> impl FnOnce(&Tx<'_>) -> Result<Vec<bool>, DbError> + Send + use<> {
        let (group, timeline, epoch) = (Arc::clone(group), self.timeline.clone(), self.db.epoch());
        move |tx| {
            let settlements: Vec<_> = group.iter().map(|ended| ended.settlement(&timeline)).collect();
            outbox::settle(tx, epoch, &settlements)
        }
    }
}
