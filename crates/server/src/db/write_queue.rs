//! Operations on their way to the database, and who writes them.
//!
//! Whoever holds the writer writes all that waits, in one commit. A thread that may block takes it itself, so that its
//! operation needs no other thread; for everybody else there is one thread that does nothing but this.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    /// What goes with the next batch, whoever brings that about.
    along: Vec<Box<dyn Operation>>,
    /// Whether what goes along has waited for long enough.
    is_hurried: bool,
    is_closed: bool,
    /// Whether the file is closed too.
    is_over: bool,
    /// Whom to tell of that.
    closings: Vec<oneshot::Sender<()>>,
}

struct Queued {
    operation: Box<dyn Operation>,
    /// `None`: it stands for a thread, of which there are few.
    _room: Option<OwnedSemaphorePermit>,
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
        waiting.operations.push_back(Queued { operation, _room: Some(room) });
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

    /// Writes an operation on this thread, with all that waits. It is answered when this returns.
    pub(super) fn write_here(&self, operation: Box<dyn Operation>, mut is_answered: impl FnMut() -> bool) {
        {
            let mut waiting = self.waiting();
            if waiting.is_closed {
                return;
            }
            waiting.operations.push_back(Queued { operation, _room: None });
        }
        // One that others wrote meanwhile is answered; one behind a full batch is not after the first.
        while !is_answered() {
            self.write_batch();
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
            self.write_batch();
        }
        if let Some(writer) = self.writer().take() {
            writer.end();
        }
        let mut waiting = self.waiting();
        waiting.is_over = true;
        for answer in waiting.closings.drain(..) {
            let _ = answer.send(());
        }
    }

    /// Waits until there is something to write. `false`: there will be nothing any more.
    fn wait(&self) -> bool {
        let is_idle = |waiting: &mut Waiting| waiting.is_empty() && !waiting.is_closed;
        let waiting = self.bell.wait_while(self.waiting(), is_idle).unwrap_or_else(PoisonError::into_inner);
        !waiting.is_done()
    }

    /// Takes what waits by now and no more, and writes it: an idle writer adds no delay, a busy one finds a batch.
    fn write_batch(&self) {
        let mut writer = self.writer();
        let Some(open) = writer.as_mut() else { return };
        let batch = self.waiting().take_batch();
        if batch.is_empty() {
            return;
        }
        let written = catch_unwind(AssertUnwindSafe(|| open.write(batch)));
        if written.is_err() {
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
    /// Whether nothing waits that is to be written now.
    fn is_empty(&self) -> bool {
        self.operations.is_empty() && (self.along.is_empty() || !self.is_hurried)
    }

    /// Whether nothing will ever wait again.
    fn is_done(&self) -> bool {
        self.is_closed && self.operations.is_empty() && self.along.is_empty()
    }

    fn take_batch(&mut self) -> Vec<Box<dyn Operation>> {
        self.is_hurried = false;
        let mut batch = std::mem::take(&mut self.along);
        let rest = BATCH_OPERATIONS_MAX.saturating_sub(batch.len()).min(self.operations.len());
        batch.extend(self.operations.drain(..rest).map(|queued| queued.operation));
        batch
    }

    fn take_all(&mut self) -> Vec<Box<dyn Operation>> {
        let operations = self.operations.drain(..).map(|queued| queued.operation);
        std::mem::take(&mut self.along).into_iter().chain(operations).collect()
    }
}
