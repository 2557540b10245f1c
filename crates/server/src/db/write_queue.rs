//! Operations on their way to the database, and who writes them.
//!
//! Whoever holds the writer writes all that waits, in one commit. A thread that may block takes it itself if nobody has it, so
//! that its operation needs no other thread; for everybody else there is one thread that does nothing but this.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::DbError;
use super::writer::{BATCH_OPERATIONS_MAX, Joining, Joins, Operation, PART, Writer};
use crate::fatal::Fatal;

/// Operations that may wait for the writer. Tasks beyond it wait for room. Four full batches: more would only add latency,
/// since what waits here is not durable yet.
const OPERATIONS_MAX: usize = 4 * BATCH_OPERATIONS_MAX;

/// The one way to the writer.
pub(super) struct WriteQueue {
    waiting: Mutex<Waiting>,
    /// Rung when there is something to do for the writer's own thread.
    bell: Condvar,
    room: Arc<Semaphore>,
    /// `None` once the file is closed. It is never asked for while `waiting` is held.
    writer: Mutex<Option<Writer>>,
    joins: Joins,
    fatal: Fatal,
}

#[derive(Default)]
struct Waiting {
    operations: VecDeque<Queued>,
    /// What goes with the next batch, whoever brings that about. Whoever hands it in has few of them at a time.
    along: Vec<Box<dyn Operation>>,
    /// Whether what goes along has waited for long enough.
    is_hurried: bool,
    /// Whether a thread that had other things to do has left the WAL to the writer's own.
    is_checkpoint_due: bool,
    is_closed: bool,
    /// Whether the file is closed too.
    is_over: bool,
    /// Whom to tell of that.
    closings: Vec<oneshot::Sender<()>>,
}

struct Queued {
    operation: Box<dyn Operation>,
    /// `None`: it stands for a thread, of which there are few.
    room: Option<OwnedSemaphorePermit>,
}

/// Closes the queue when it is dropped: what waits is still written.
pub(super) struct QueueHandle(Arc<WriteQueue>);

impl Deref for QueueHandle {
    type Target = WriteQueue;

    fn deref(&self) -> &WriteQueue {
        &self.0
    }
}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        self.0.refuse_more();
    }
}

impl fmt::Debug for QueueHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueHandle")
    }
}

impl WriteQueue {
    /// Starts the writer's own thread.
    pub(super) fn start(writer: Writer, fatal: Fatal) -> io::Result<QueueHandle> {
        let queue = Arc::new(Self {
            waiting: Mutex::default(),
            bell: Condvar::new(),
            room: Arc::new(Semaphore::new(OPERATIONS_MAX)),
            joins: writer.joins(),
            writer: Mutex::new(Some(writer)),
            fatal,
        });
        let served = Arc::clone(&queue);
        thread::Builder::new().name("db-writer".to_owned()).spawn(move || served.serve())?;
        Ok(QueueHandle(queue))
    }

    /// Queues an operation for the writer's thread. Waits while there is no room.
    pub(super) async fn push(&self, operation: Box<dyn Operation>) -> Result<(), DbError> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| DbError::Stopped)?;
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(DbError::Stopped);
        }
        waiting.operations.push_back(Queued { operation, room: Some(room) });
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// Queues an operation for whoever writes next, which [`WriteQueue::hurry`] makes the writer's thread.
    pub(super) fn push_along(&self, operation: Box<dyn Operation>) -> Result<(), DbError> {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(DbError::Stopped);
        }
        waiting.along.push(operation);
        Ok(())
    }

    /// What goes along is to wait no longer.
    pub(super) fn hurry(&self) {
        self.waiting().is_hurried = true;
        self.bell.notify_one();
    }

    /// Writes an operation on this thread, with all that waits. Where the writer is in other hands, or has too much to do for
    /// one batch, its own thread writes the operation: who waited for the writer here could be overtaken again and again.
    pub(super) fn write_here(&self, operation: Box<dyn Operation>) {
        {
            let mut waiting = self.waiting();
            if waiting.is_closed {
                return;
            }
            waiting.operations.push_back(Queued { operation, room: None });
        }
        let writer = match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(writer) = writer {
            let is_checkpoint_due = self.write_batch(writer);
            self.waiting().is_checkpoint_due |= is_checkpoint_due;
        }
        if !self.waiting().is_idle() {
            self.bell.notify_one();
        }
    }

    /// Refuses new operations, and answers when what was queued is written and the file is closed.
    pub(super) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.is_over {
                return;
            }
            waiting.closings.push(answer);
        }
        self.refuse_more();
        // An error cannot come: whoever ends the queue tells all who ask.
        let _ = answered.await;
    }

    /// Runs what `joining` makes in every transaction in which a delivery falls due.
    pub(super) fn join(&self, joining: Joining) {
        *self.joins.lock().unwrap_or_else(PoisonError::into_inner) = Some(joining);
    }

    /// Operations that wait now.
    pub(super) fn len(&self) -> usize {
        OPERATIONS_MAX - self.room.available_permits()
    }

    fn refuse_more(&self) {
        self.waiting().is_closed = true;
        self.room.close();
        self.bell.notify_one();
    }

    /// The writer's thread: writes for those that do not, until the queue is closed and empty. Then closes the file.
    fn serve(&self) {
        while self.wait() {
            let is_checkpoint_due =
                self.write_batch(self.writer()) | std::mem::take(&mut self.waiting().is_checkpoint_due);
            if is_checkpoint_due {
                self.guarded(&mut self.writer(), Writer::checkpoint_if_due);
            }
        }
        let writer = self.writer().take();
        if catch_unwind(AssertUnwindSafe(|| writer.map(Writer::end))).is_err() {
            self.fatal.raise(PART, "the writer panicked");
        }
        let mut waiting = self.waiting();
        waiting.is_over = true;
        for answer in waiting.closings.drain(..) {
            let _ = answer.send(());
        }
    }

    /// Waits until there is something to write. `false`: there will be nothing any more.
    fn wait(&self) -> bool {
        let is_idle = |waiting: &mut Waiting| waiting.is_idle() && !waiting.is_closed;
        let waiting = self.bell.wait_while(self.waiting(), is_idle).unwrap_or_else(PoisonError::into_inner);
        !waiting.is_done()
    }

    /// Takes what waits by now and no more, and writes it: an idle writer adds no delay, a busy one finds a batch. Tells whether
    /// the WAL has grown so long that it is to be moved into the file, which nobody's answer should wait for.
    fn write_batch(&self, mut writer: MutexGuard<'_, Option<Writer>>) -> bool {
        let batch = self.waiting().take_batch();
        if !batch.is_empty() {
            self.guarded(&mut writer, |writer| writer.store(batch));
        }
        writer.as_ref().is_some_and(Writer::is_checkpoint_due)
    }

    /// Works with the writer, unless it is closed. A panic closes it: what it has left half-way nobody knows.
    fn guarded(&self, writer: &mut MutexGuard<'_, Option<Writer>>, work: impl FnOnce(&mut Writer)) {
        let Some(open) = writer.as_mut() else { return };
        if catch_unwind(AssertUnwindSafe(|| work(open))).is_err() {
            self.fatal.raise(PART, "the writer panicked");
            self.refuse_more();
            // Their callers are told that it has stopped.
            let given_up = self.waiting().take_all();
            if let Some(writer) = writer.take() {
                writer.close();
            }
            drop(given_up);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether there is nothing to do now.
    fn is_idle(&self) -> bool {
        self.operations.is_empty() && (self.along.is_empty() || !self.is_hurried) && !self.is_checkpoint_due
    }

    /// Whether nothing will ever wait again.
    fn is_done(&self) -> bool {
        self.is_closed && self.operations.is_empty() && self.along.is_empty()
    }

    fn take_batch(&mut self) -> Vec<Box<dyn Operation>> {
        self.is_hurried = false;
        // A thread's operation, if it is the first. It does not build on what goes along, and is mostly the larger one: what
        // comes first costs least.
        let first = self.operations.pop_front_if(|queued| queued.room.is_none());
        let mut batch: Vec<_> = first.into_iter().map(|queued| queued.operation).collect();
        batch.append(&mut self.along);
        let rest = BATCH_OPERATIONS_MAX.saturating_sub(batch.len()).min(self.operations.len());
        batch.extend(self.operations.drain(..rest).map(|queued| queued.operation));
        batch
    }

    fn take_all(&mut self) -> Vec<Box<dyn Operation>> {
        let operations = self.operations.drain(..).map(|queued| queued.operation);
        std::mem::take(&mut self.along).into_iter().chain(operations).collect()
    }
}
