//! Ending in order. Shutdown follows the arrows from left to right, so each stage has a token and a tracker of its own.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one stage: started through it, told to end by its token, waited for by [`Stage::end`].
#[derive(Clone, Debug)]
pub struct Stage {
    name: &'static str,
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Stage {
    /// A stage with no task yet. `name` is used in logs.
    pub fn new(name: &'static str) -> Self {
        Self { name, token: CancellationToken::new(), tracker: TaskTracker::new() }
    }

    /// The token that this stage's tasks watch. A child of it may be cancelled alone.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task of this stage.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// How many tasks of this stage run now.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tells the stage's tasks to end and waits for them, at most `grace`. What is still running then is logged and left
    /// to die with the process; the next start picks its work up from the database.
    pub async fn end(&self, grace: Duration) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                stage = self.name,
                tasks = self.tracker.len(),
                grace_ms = grace.as_millis() as u64,
                "stage did not end in its grace period; what it held is picked up at the next start"
            );
        }
    }
}
