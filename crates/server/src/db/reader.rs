//! The connections that only read. In WAL mode they neither wait for the writer nor hold it up.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{DbError, open_reader};

#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    count: u32,
}

impl Readers {
    /// `count` connections; callers beyond it wait.
    pub(super) fn open(path: &Path, count: u32) -> rusqlite::Result<Self> {
        let idle = (0..count).map(|_| open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(count as usize)), count })
    }

    pub(super) async fn run<T, F>(self: &Arc<Self>, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| DbError::Stopped)?;
        let lent = self.lend(permit);
        // The connection goes along, so that a caller who gives up does not free its place before the read has ended.
        match tokio::task::spawn_blocking(move || work(lent.connection())).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(DbError::Stopped),
            },
        }
    }

    /// Waits for running reads, closes every connection and refuses further reads.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(self.count).await {
            self.permits.close();
            self.lock().clear();
            drop(all);
        }
    }

    fn lend(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Lent {
        let conn = self.lock().pop();
        Lent { conn, home: Arc::clone(self), _permit: permit }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes back to the pool, before its permit does, even if the work with it panics.
struct Lent {
    conn: Option<Connection>,
    home: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    fn connection(&self) -> &Connection {
        self.conn.as_ref().expect("there are as many connections as permits")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.home.lock().push(conn);
        }
    }
}
