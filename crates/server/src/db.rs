//! The database: one SQLite file, one connection that writes, a few that only read.
//!
//! [`Db::write`] hands a closure to the writer, which takes whatever is waiting, runs each closure in one transaction, where it
//! is undone alone if it fails, commits with a sync, and answers all of them (group commit: `writer`). So an answer means that the data is
//! on the disk. The writer is one connection; it runs on a thread of its own, or on one that may block and has something to
//! write (`write_queue`). [`Db::read`] runs on a connection that cannot write. SQL lives in the modules below this one
//! and nowhere else; their functions take a [`Tx`] where they write and a [`Connection`] where they only read.
//!
//! A failed sync or I/O error on the writer is [`Fatal`]: nothing is acknowledged any more and the process must end. A
//! full disk is not: the operation fails with [`DbError::Full`] and whoever owes it tries again later.

pub mod access_key;
pub mod audit;
pub mod catalog;
pub mod count;
mod dir_lock;
pub mod dues;
mod error;
pub mod history;
pub mod idempotency;
pub mod inspect;
pub mod latest;
mod migrate;
pub mod outbox;
#[cfg(test)]
mod planned;
pub mod prune;
pub mod push;
mod reader;
pub mod replays;
pub mod retention;
mod row;
pub mod secret;
pub mod snapshot;
mod stats;
pub mod task;
mod write_queue;
mod writer;

use std::fmt;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::fatal::Fatal;
use reader::Readers;
use secret::{KeyCheck, Vault};
use stats::Stats;
use write_queue::{QueueHandle, WriteQueue};
use writer::{Writer, checked_operation, operation};

pub use dir_lock::DirLock;
pub use error::{DbError, OpenError};
pub use stats::DbStats;

/// The file inside the data directory.
pub const FILE_NAME: &str = "framehook.db";

/// SQLite before 3.51.3 could corrupt a file when a checkpoint and a write raced over resetting the WAL.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long a connection waits for a lock that another process holds, for instance an operator's `sqlite3` shell. Our own
/// connections never block each other: there is one writer, and in WAL mode readers do not wait for it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads of pages at the same time. They are short, and more of them than cores would only share those; callers beyond it
/// wait.
const PAGE_READERS: u32 = 4;

/// Wait before writing again what failed for a reason that passes.
const PASSING_WAIT: Duration = Duration::from_secs(1);

/// A process's turn at this database: 1 for the first start, one more for each start after it. Claims name it, so that a
/// start knows which claims a dead process left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

/// Reads one row: the database answers.
///
/// # Errors
/// Those of the database.
pub fn is_alive(conn: &Connection) -> Result<(), DbError> {
    conn.query_row("SELECT epoch FROM meta", [], |_| Ok(()))?;
    Ok(())
}

/// A write transaction, as far as one operation sees it: what it does is undone alone. It derefs to the [`Connection`], so functions
/// that only read can be called with it; functions that write ask for it, so they cannot be called on a reader.
pub struct Tx<'c> {
    conn: &'c Connection,
}

impl Tx<'_> {
    /// Runs `work` in a savepoint of its own: if it fails, which the inner result tells, only what it did is undone and the
    /// operation may go on.
    ///
    /// # Errors
    /// The operation may not go on and must end with this error: SQLite has given up the whole transaction, or the file
    /// cannot be trusted any more.
    pub fn nested<T>(&self, work: impl FnOnce(&Tx<'_>) -> Result<T, DbError>) -> Result<Result<T, DbError>, DbError> {
        self.conn.execute_batch("SAVEPOINT part")?;
        let done = work(self);
        match &done {
            Ok(_) => self.conn.execute_batch("RELEASE part")?,
            Err(error) if self.conn.is_autocommit() || error.is_fatal() => return Err(error.clone()),
            Err(_) => self.conn.execute_batch("ROLLBACK TO part; RELEASE part")?,
        }
        Ok(done)
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tx")
    }
}

/// A handle to the open database. Clones share it.
#[derive(Clone, Debug)]
pub struct Db {
    queue: Arc<QueueHandle>,
    readers: Arc<Readers>,
    /// Apart from the readers of pages.
    put_reader: Arc<Readers>,
    stats: Arc<Stats>,
    epoch: Epoch,
}

impl Db {
    /// Opens `framehook.db` in the directory of `lock`, creating or migrating it, and keeps the lock for as long as the
    /// database is open. Blocks: call it at the start only.
    ///
    /// # Errors
    /// See [`OpenError`]. A database of another program or of a newer schema is left as it was; of ours an error may leave a
    /// new file behind, migrations that had committed, and a start that was counted.
    pub fn open(lock: DirLock, vault: &Vault, clock: Clock, fatal: Fatal) -> Result<Self, OpenError> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(OpenError::OldSqlite { found: rusqlite::version().to_owned() });
        }
        let path = lock.dir().join(FILE_NAME);
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };

        create_private(&path).map_err(|source| OpenError::Directory { path: lock.dir().to_owned(), source })?;
        let mut conn = Connection::open(&path).map_err(failed)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let schema = migrate::schema_of(&conn, &path)?;
        configure_writer(&conn).map_err(failed)?;
        migrate::run(&mut conn, &path, schema)?;
        let newly_due = outbox::watch_due(&conn).map_err(failed)?;
        let epoch = next_epoch(&mut conn).map_err(failed)?;
        match secret::check(&conn, Some(vault)).map_err(failed)? {
            KeyCheck::Opens => {}
            KeyCheck::Unset => secret::bind(&conn, vault).map_err(failed)?,
            KeyCheck::Refuses => return Err(OpenError::WrongMasterKey { path }),
        }

        let readers = Arc::new(Readers::open(&path, PAGE_READERS).map_err(failed)?);
        let put_reader = Arc::new(Readers::open(&path, 1).map_err(failed)?);
        let stats = Arc::new(Stats::default());
        let writer = Writer::new(conn, lock, clock, fatal.clone(), Arc::clone(&stats), newly_due).map_err(failed)?;
        let queue = Arc::new(WriteQueue::start(writer, fatal).map_err(OpenError::Thread)?);
        Ok(Self { queue, readers, put_reader, stats, epoch })
    }

    /// This process's turn at the database.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Runs `work` on the writer's thread and answers once its result is durable. Waits while the queue is full. A future
    /// dropped after that does not undo it.
    ///
    /// # Errors
    /// What `work` returned (its changes are undone then, those of others are not), [`DbError::Full`], or
    /// [`DbError::Stopped`].
    pub async fn write<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send + 'static,
    {
        let (answer, answered) = answered();
        self.queue.push(operation(work, answer)).await?;
        answered.await.map_err(|_| DbError::Stopped)?
    }

    /// Like [`Db::write`], for a thread that may block: where nobody else is writing, it does so itself. What goes
    /// [along](Db::write_along) may come after it.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn write_here<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send + 'static,
    {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.queue.write_here(operation(work, move |result| drop(answer.send(result))));
        answered.recv().unwrap_or(Err(DbError::Stopped))
    }

    /// Like [`Db::write`] for what nobody waits for: `work` goes with the next transaction, whoever brings that about, and
    /// with one of its own after `patience`. Such work has no bound of its own: a caller has one of them at a time.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub async fn write_along<T, F>(&self, patience: Duration, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send + 'static,
    {
        let (answer, mut answered) = answered();
        self.queue.push_along(operation(work, answer))?;
        if let Ok(written) = tokio::time::timeout(patience, &mut answered).await {
            return written.map_err(|_| DbError::Stopped)?;
        }
        self.queue.hurry();
        answered.await.map_err(|_| DbError::Stopped)?
    }

    /// Runs the work that `make` makes in every transaction from now on in which a delivery falls due, before it is committed,
    /// and tells what came with it how that ended. Work that fails undoes only itself, unless SQLite gives up the whole
    /// transaction. Where `make` gives nothing, nothing is run.
    pub fn join_due<T, W, A>(&self, make: impl Fn() -> Option<(W, A)> + Send + 'static)
    where
        T: Send + 'static,
        W: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send + 'static,
        A: FnOnce(Result<T, DbError>) + Send + 'static,
    {
        self.queue.join(Box::new(move || make().map(|(work, answer)| operation(work, answer))));
    }

    /// Like [`Db::write`] for work that may refuse by its own rules: a refusal undoes its changes too and comes back as
    /// the inner error.
    ///
    /// # Errors
    /// As [`Db::write`]; the inner result is the work's own.
    pub async fn write_checked<T, R, F>(&self, work: F) -> Result<Result<T, R>, DbError>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<Result<T, R>, DbError> + Send + 'static,
    {
        let (answer, answered) = answered();
        self.queue.push(checked_operation(work, answer)).await?;
        answered.await.map_err(|_| DbError::Stopped)?
    }

    /// Writes what `make` makes, and again once a second for as long as the failure is one that passes: for outcomes that
    /// are known nowhere else. Whoever waits for it holds its slot meanwhile, so nothing new is begun either.
    ///
    /// # Errors
    /// As [`Db::write`], but for [passing](DbError::is_passing) ones.
    pub async fn write_until_done<T, F>(&self, make: impl Fn() -> F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, DbError> + Send + 'static,
    {
        loop {
            match self.write(make()).await {
                Err(error) if error.is_passing() => tokio::time::sleep(PASSING_WAIT).await,
                written => return written,
            }
        }
    }

    /// Runs `work` on a connection that cannot write. It sees what was durable when it began and nothing later.
    ///
    /// # Errors
    /// What `work` returned, or [`DbError::Stopped`].
    pub async fn read<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    {
        self.readers.run(work).await
    }

    /// Like [`Db::read`], on a connection that is kept for finding owed puts: however many pages are asked for, none of them
    /// keeps a picture from its store.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub async fn read_puts<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    {
        self.put_reader.run(work).await
    }

    /// Finishes what was queued, refuses what comes later, moves the WAL into the file and closes it. The directory's
    /// lock is free when this returns.
    pub async fn close(&self) {
        self.readers.close().await;
        self.put_reader.close().await;
        self.queue.close().await;
    }

    /// Counters and gauges for the metrics page.
    pub fn stats(&self) -> DbStats {
        self.stats.read(self.queue.len())
    }
}

/// Where an operation's result goes, and where it is waited for.
fn answered<T: Send + 'static>() -> (impl FnOnce(T) + Send + 'static, oneshot::Receiver<T>) {
    let (answer, answered) = oneshot::channel();
    // A caller that stopped waiting does not care.
    (move |result| drop(answer.send(result)), answered)
}

/// Makes the file before SQLite does, readable by its owner only: it holds push signatures and addresses of publishers.
/// SQLite gives the files beside it the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

fn configure_writer(conn: &Connection) -> rusqlite::Result<()> {
    // Must come before the first table exists: it decides the file's layout. Pruned pages can then be given back to the
    // file system in small steps instead of by a VACUUM that copies everything.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    // Sync at every commit: an answered write is on the disk.
    conn.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints itself, between batches, where it sees errors and delays no answer.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // Sorting must not need a second place on a disk that may be full.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cell_size_check", true)?;
    keep_plans(conn)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}

/// Distinct statements of the modules below, with room: each is parsed once per connection.
const STATEMENTS_CACHED: usize = 128;

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(conn)
}

/// Without this a cached statement may be parsed anew whenever its parameters are bound to other values.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn next_epoch(conn: &mut Connection) -> rusqlite::Result<Epoch> {
    conn.query_row("UPDATE meta SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get(0)).map(Epoch)
}
