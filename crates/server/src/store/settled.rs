//! Files of the spool that are owed to no store any more: removed together, and not before it is on the disk that they are not.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use tokio::sync::mpsc;

use super::spool::Spool;
use crate::db::{Db, Unsynced};
use crate::shutdown::Stage;

/// How long files gather before they are removed. Most often something has been synced meanwhile; if not, one sync is for all.
const GATHERED_FOR: Duration = Duration::from_millis(100);

/// A file whose picture is in its store, as the database has written and perhaps not synced.
struct Settled {
    id: SnapshotId,
    bytes: u64,
    written: Unsynced,
}

/// Files that may wait. Puts beyond it wait in turn, and hold their slots meanwhile: deleting must keep up with writing.
const QUEUE_MAX: usize = 1024;

/// Where files are handed in. Clones share one queue. When the last is gone, the rest is removed and the task ends.
#[derive(Clone, Debug)]
pub(super) struct SettledFiles {
    queue: mpsc::Sender<Settled>,
}

impl SettledFiles {
    /// Starts the task that removes, in `stage`.
    pub(super) fn start(db: Db, spool: Arc<Spool>, stage: &Stage) -> Self {
        let (queue, mut settled) = mpsc::channel(QUEUE_MAX);
        stage.spawn(async move {
            while let Some(first) = settled.recv().await {
                tokio::time::sleep(GATHERED_FOR).await;
                let mut gathered = vec![first];
                while let Ok(next) = settled.try_recv() {
                    gathered.push(next);
                }
                let (db, spool) = (db.clone(), Arc::clone(&spool));
                // A panic in there leaves files to the next start.
                let _ = tokio::task::spawn_blocking(move || remove(&db, &spool, &gathered)).await;
            }
        });
        Self { queue }
    }

    /// The picture's file is to go once `written` is on the disk.
    pub(super) async fn remove(&self, id: SnapshotId, bytes: u64, written: Unsynced) {
        // The task outlives every clone, unless it panicked: then files stay until the next start.
        let _ = self.queue.send(Settled { id, bytes, written }).await;
    }
}

/// Blocks.
fn remove(db: &Db, spool: &Spool, gathered: &[Settled]) {
    let Some(last) = gathered.iter().map(|settled| settled.written).max() else { return };
    // If that fails the process ends, and the next start removes what it knows to be stored.
    if db.sync(last).is_ok() {
        gathered.iter().for_each(|settled| spool.remove(settled.id, settled.bytes));
    }
}
