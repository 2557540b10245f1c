//! The one connection that writes: group commit, checkpoints, and the end of everything when the disk lies.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB};

use super::dir_lock::DirLock;
use super::error::{is_busy, is_fatal, is_full, is_index_full};
use super::outbox::NewlyDue;
use super::stats::Stats;
use super::{DbError, Tx};
use crate::clock::Clock;
use crate::fatal::Fatal;

/// Operations that share one commit at most. Measured on the survey's machine, rates stop growing between 256 and 1,024
/// per commit (one sync, 4 ms, is then under a tenth of the work), while the first of a batch waits for the last.
pub(super) const BATCH_OPERATIONS_MAX: usize = 1024;

/// WAL pages after which the writer moves them into the database file: 16 MiB of 4 KiB pages. The next start replays at
/// most about that much, and the two syncs of a checkpoint are spread over hundreds of commits.
const CHECKPOINT_PAGES: u64 = 4096;

/// The part named in [`Fatal`].
pub(super) const PART: &str = "database";

/// One caller's work, with its types erased so that a batch can hold many.
pub(super) trait Operation: Send {
    /// Runs the work and keeps its result for [`Operation::answer`].
    fn run(&mut self, tx: &Tx<'_>) -> Verdict;

    /// Tells the caller how it ended: with its own result if the batch was `stored`, else with why it was not.
    fn answer(self: Box<Self>, stored: Result<(), DbError>);
}

/// What becomes of an operation's changes.
pub(super) enum Verdict {
    Keep,
    /// It failed, or refused by its own rules (then without an error).
    Undo(Option<DbError>),
}

/// An operation of `work` that tells `answer` how it ended.
pub(super) fn operation<T, F, A>(work: F, answer: A) -> Box<dyn Operation>
where
    T: Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send + 'static,
    A: FnOnce(Result<T, DbError>) + Send + 'static,
{
    Box::new(Pending { work: Some(work), done: None, keeps: |_: &T| true, answer })
}

/// The same of work that may refuse by its own rules.
pub(super) fn checked_operation<T, R, F, A>(work: F, answer: A) -> Box<dyn Operation>
where
    T: Send + 'static,
    R: Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<Result<T, R>, DbError> + Send + 'static,
    A: FnOnce(Result<Result<T, R>, DbError>) + Send + 'static,
{
    Box::new(Pending { work: Some(work), done: None, keeps: Result::is_ok, answer })
}

struct Pending<T, F, A> {
    work: Option<F>,
    done: Option<Result<T, DbError>>,
    keeps: fn(&T) -> bool,
    answer: A,
}

impl<T, F, A> Operation for Pending<T, F, A>
where
    T: Send,
    F: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send,
    A: FnOnce(Result<T, DbError>) + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> Verdict {
        let work = self.work.take().expect("an operation runs once");
        let verdict;
        let done = work(tx);
        match &done {
            Ok(value) if (self.keeps)(value) => verdict = Verdict::Keep,
            Ok(_) => verdict = Verdict::Undo(None),
            Err(error) => verdict = Verdict::Undo(Some(error.clone())),
        }
        self.done = Some(done);
        verdict
    }

    fn answer(self: Box<Self>, stored: Result<(), DbError>) {
        let Self { done, answer, .. } = *self;
        answer(match stored {
            Ok(()) => done.unwrap_or(Err(DbError::Stopped)),
            Err(error) => Err(error),
        });
    }
}

/// Makes the operation that joins every transaction in which a delivery fell due; `None`: nobody is there any more to have it.
pub(super) type Joining = Box<dyn Fn() -> Option<Box<dyn Operation>> + Send>;

/// Where that is kept.
pub(super) type Joins = Arc<Mutex<Option<Joining>>>;

pub(super) struct Writer {
    conn: Connection,
    clock: Clock,
    fatal: Fatal,
    stats: Arc<Stats>,
    joins: Joins,
    newly_due: Arc<NewlyDue>,
    /// WAL pages at which the next checkpoint is tried.
    checkpoint_at: u64,
    /// Held until the connection is closed: fields drop in order.
    _lock: DirLock,
}

impl Writer {
    pub(super) fn new(
        mut conn: Connection,
        lock: DirLock,
        clock: Clock,
        fatal: Fatal,
        stats: Arc<Stats>,
        newly_due: Arc<NewlyDue>,
    ) -> rusqlite::Result<Self> {
        let counted = Arc::clone(&stats);
        conn.trace_v2(
            TraceEventCodes::SQLITE_TRACE_STMT,
            Some(move |event: TraceEvent<'_>| {
                // A trigger's program is told of as well, as a comment: it is a part of the statement that sets it off.
                if matches!(event, TraceEvent::Stmt(_, sql) if !sql.starts_with("--")) {
                    counted.statements.fetch_add(1, Ordering::Relaxed);
                }
            }),
        )?;
        let counted = Arc::clone(&stats);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.wal_pages.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            // SQLite calls this for commits that changed something, and syncs those alone.
            counted.syncs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))?;
        let joins = Joins::default();
        Ok(Self { conn, clock, fatal, stats, joins, newly_due, checkpoint_at: CHECKPOINT_PAGES, _lock: lock })
    }

    /// Where to say what joins its transactions.
    pub(super) fn joins(&self) -> Joins {
        Arc::clone(&self.joins)
    }

    /// Ends in order: moves the WAL into the file and closes it.
    pub(super) fn end(mut self) {
        if !self.fatal.is_raised() {
            self.checkpoint(CheckpointMode::TRUNCATE);
        }
        self.close();
    }

    /// Closes the file. SQLite's last connection moves the WAL into it and syncs both, which after a failed sync would be
    /// the second try that proves nothing: then the WAL is left to the next start.
    pub(super) fn close(self) {
        if self.fatal.is_raised()
            && let Err(error) = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "the database cannot be closed without a sync; it is left open");
            std::mem::forget(self);
        }
    }

    /// Stores a batch, in one commit unless SQLite itself rolls a part of it back.
    pub(super) fn store(&mut self, batch: Vec<Box<dyn Operation>>) {
        let mut rest = batch.into_iter();
        while rest.len() > 0 {
            if self.fatal.is_raised() {
                return rest.for_each(|operation| operation.answer(Err(DbError::Stopped)));
            }
            let began = self.clock.mono();
            if let Err(error) = self.run_cached("BEGIN IMMEDIATE") {
                let error = self.judge(error);
                return rest.for_each(|operation| operation.answer(Err(error.clone())));
            }
            let mut ran = Vec::with_capacity(rest.len());
            let mut ended = Ok(());
            for mut operation in rest.by_ref() {
                // A savepoint makes SQLite keep a copy of every page that is changed in it. The first operation can do without:
                // what undoes it is the end of the transaction, and those behind it get another.
                ended = match ran.is_empty() {
                    true => self.run_first(operation.as_mut()),
                    false => self.run_one(operation.as_mut()),
                };
                ran.push(operation);
                if ended.is_err() || self.conn.is_autocommit() {
                    break;
                }
            }
            if ended.is_ok()
                && !self.conn.is_autocommit()
                && let Some(mut joining) = self.joining()
            {
                ended = self.run_one(joining.as_mut());
                ran.push(joining);
            }
            // What was done here may stand on a sync that failed elsewhere meanwhile.
            if ended.is_ok() && self.fatal.is_raised() {
                ended = Err(self.roll_back().err().unwrap_or(DbError::Stopped));
            }
            // A first operation that was undone leaves nothing to commit.
            if ended.is_ok() && !self.conn.is_autocommit() {
                ended = self.commit();
                if ended.is_ok() {
                    self.stats.count_commit(ran.len(), self.clock.mono().since(began));
                }
            }
            for operation in ran {
                operation.answer(ended.clone());
            }
        }
    }

    /// What is to be done in a transaction in which a delivery fell due.
    fn joining(&self) -> Option<Box<dyn Operation>> {
        if !self.newly_due.is_any() {
            return None;
        }
        let joins = self.joins.lock().unwrap_or_else(PoisonError::into_inner);
        joins.as_ref().and_then(|make| make())
    }

    /// Runs one operation in its savepoint. An error means that the whole transaction is gone.
    fn run_one(&mut self, operation: &mut dyn Operation) -> Result<(), DbError> {
        let savepoint = self.run_cached("SAVEPOINT operation");
        savepoint.map_err(|error| self.abandon(error))?;
        match operation.run(&Tx { conn: &self.conn }) {
            Verdict::Keep => {
                let released = self.run_cached("RELEASE operation");
                released.map_err(|error| self.abandon(error))
            }
            Verdict::Undo(error) => {
                self.judge_undone(error)?;
                let undone = self.conn.execute_batch("ROLLBACK TO operation; RELEASE operation");
                undone.map_err(|error| self.abandon(error))
            }
        }
    }

    /// Runs the first operation of a transaction. Afterwards there is none if the operation was undone.
    fn run_first(&mut self, operation: &mut dyn Operation) -> Result<(), DbError> {
        match operation.run(&Tx { conn: &self.conn }) {
            // It went on after SQLite had undone everything, and nothing is left of what it takes for done.
            Verdict::Keep if self.conn.is_autocommit() => Err(DbError::Full),
            Verdict::Keep => Ok(()),
            Verdict::Undo(error) => {
                self.judge_undone(error)?;
                let undone = self.conn.execute_batch("ROLLBACK");
                undone.map_err(|error| self.abandon(error))
            }
        }
    }

    /// Counts and weighs why an operation is to be undone. An error means that the whole transaction is gone.
    fn judge_undone(&self, error: Option<DbError>) -> Result<(), DbError> {
        if let Some(DbError::Full) = error {
            self.stats.full.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(DbError::Statement(source)) = &error
            && is_fatal(source)
        {
            self.fatal.raise(PART, source);
            return Err(DbError::Stopped);
        }
        if self.conn.is_autocommit() {
            // SQLite undid everything, the batch's earlier operations too, as it may when the disk is full.
            return Err(error.unwrap_or(DbError::Full));
        }
        Ok(())
    }

    /// Runs a statement without parameters, parsed once.
    fn run_cached(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn commit(&mut self) -> Result<(), DbError> {
        match self.run_cached("COMMIT") {
            Ok(()) => Ok(()),
            // No room, or another process reads or writes the file. Nothing was written.
            Err(error) if is_full(&error) && !is_index_full(&error) || is_busy(&error) => Err(self.abandon(error)),
            Err(error) => {
                // Above all a failed sync: what the kernel has of this transaction is unknown, so it is not tried again.
                self.fatal.raise(PART, error);
                Err(DbError::Stopped)
            }
        }
    }

    /// Rolls back after a failure between operations.
    fn abandon(&self, error: rusqlite::Error) -> DbError {
        let error = self.judge(error);
        self.roll_back().err().unwrap_or(error)
    }

    fn roll_back(&self) -> Result<(), DbError> {
        if self.conn.is_autocommit() {
            return Ok(());
        }
        self.conn.execute_batch("ROLLBACK").map_err(|error| {
            self.fatal.raise(PART, error);
            DbError::Stopped
        })
    }

    fn judge(&self, error: rusqlite::Error) -> DbError {
        if is_fatal(&error) {
            self.fatal.raise(PART, error);
            return DbError::Stopped;
        }
        if is_full(&error) {
            self.stats.full.fetch_add(1, Ordering::Relaxed);
        }
        error.into()
    }

    /// Whether enough has gathered in the WAL.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        let pages = self.stats.wal_pages.load(Ordering::Relaxed);
        // It is asked again where it has been begun anew since.
        pages >= self.checkpoint_at || (pages < CHECKPOINT_PAGES && self.checkpoint_at > CHECKPOINT_PAGES)
    }

    /// Moves what has gathered in the WAL into the file, if it is enough.
    pub(super) fn checkpoint_if_due(&mut self) {
        let pages = self.stats.wal_pages.load(Ordering::Relaxed);
        if pages < CHECKPOINT_PAGES {
            self.checkpoint_at = CHECKPOINT_PAGES;
        } else if pages >= self.checkpoint_at && !self.fatal.is_raised() {
            self.checkpoint(CheckpointMode::PASSIVE);
            // A reader may keep old pages in use; try again when the WAL has grown as much again, not at each commit.
            self.checkpoint_at = pages + CHECKPOINT_PAGES;
        }
    }

    fn checkpoint(&mut self, mode: CheckpointMode) {
        match self.conn.wal_checkpoint_v2(Some(MAIN_DB), mode) {
            Ok(_) => {
                self.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if is_fatal(&error) => self.fatal.raise(PART, error),
            // Full disk or a foreign reader: the WAL keeps everything, and grows until a later checkpoint succeeds.
            Err(error) => tracing::warn!(%error, "the WAL could not be moved into the database file"),
        }
    }
}
