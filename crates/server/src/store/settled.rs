//! Files of the spool that are owed to no store any more, removed together: one switch to a thread that may block is for all.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::SnapshotId;
use tokio::sync::mpsc;

use super::spool::Spool;
use crate::shutdown::Stage;

/// How long files gather before they are removed.
const GATHERED_FOR: Duration = Duration::from_millis(100);

/// Files that may wait. Puts beyond it wait in turn, and hold their slots meanwhile: deleting must keep up with writing.
const QUEUE_MAX: usize = 1024;

/// Where files are handed in, each with its bytes. Clones share one queue. When the last is gone, the rest is removed and the
/// task ends.
#[derive(Clone, Debug)]
pub(super) struct SettledFiles {
    queue: mpsc::Sender<(SnapshotId, u64)>,
}

impl SettledFiles {
    /// Starts the task that removes, in `stage`.
    pub(super) fn start(spool: Arc<Spool>, stage: &Stage) -> Self {
        let (queue, mut settled) = mpsc::channel(QUEUE_MAX);
        stage.spawn(async move {
            while let Some(first) = settled.recv().await {
                tokio::time::sleep(GATHERED_FOR).await;
                let mut gathered = vec![first];
                while let Ok(next) = settled.try_recv() {
                    gathered.push(next);
                }
                let spool = Arc::clone(&spool);
                let remove_all = move || gathered.into_iter().for_each(|(id, bytes)| spool.remove(id, bytes));
                // A panic in there leaves files to the next start.
                let _ = tokio::task::spawn_blocking(remove_all).await;
            }
        });
        Self { queue }
    }

    /// The picture's file is to go.
    pub(super) async fn remove(&self, id: SnapshotId, bytes: u64) {
        // The task outlives every clone, unless it panicked: then files stay until the next start.
        let _ = self.queue.send((id, bytes)).await;
    }
}
