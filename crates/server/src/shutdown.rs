//! Ending in order. Shutdown follows the arrows from left to right, so each stage has a token and a tracker of its own.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fatal::Fatal;

/// The tasks of one stage: started through it, told to end by its token, waited for by [`Stage::end`].
#[derive(Clone, Debug)]
pub struct Stage {
    name: &'static str,
    token: CancellationToken,
    tracker: TaskTracker,
    fatal: Fatal,
}

impl Stage {
    /// A stage with no task yet. `name` is used in logs; `fatal` is raised when a vital task panics.
    pub fn new(name: &'static str, fatal: Fatal) -> Self {
        Self { name, token: CancellationToken::new(), tracker: TaskTracker::new(), fatal }
    }

    /// The token that this stage's tasks watch. A child of it may be cancelled alone.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task that the server cannot do its work without. If it panics the process ends: with one part missing it
    /// would look alive and lose pictures or callbacks in silence, and the next start has all its parts.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (task, fatal) = (self.tracker.spawn(task), self.fatal.clone());
        self.tracker.spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                fatal.raise(name, "it panicked");
            }
        });
    }

    /// Starts a task of this stage whose panic costs only its own work.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Runs `work` to its end as a task of this stage, whether or not this future is awaited until then: for a request whose
    /// asker may hang up half-way. `None` if the work panicked.
    pub async fn finish<T>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T>
    where
        T: Send + 'static,
    {
        self.tracker.spawn(work).await.ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_panics_ends_the_process_and_another_does_not() {
        let fatal = Fatal::new();
        let stage = Stage::new("test", fatal.clone());
        stage.spawn(async { panic!("a picture is lost") });
        stage.spawn_vital("well", async {});
        stage.end(Duration::from_secs(10)).await;
        assert!(!fatal.is_raised());

        let stage = Stage::new("test", fatal.clone());
        stage.spawn_vital("storer", async { panic!("nothing is stored any more") });
        assert_eq!(fatal.wait().await.part, "storer");
    }

    #[tokio::test]
    async fn work_is_finished_although_nobody_waits_for_it() {
        let stage = Stage::new("test", Fatal::new());
        let (done, is_done) = tokio::sync::oneshot::channel();
        let (begin, has_begun) = tokio::sync::oneshot::channel();
        let mut finish = Box::pin(stage.finish(async {
            has_begun.await.expect("told to begin");
            done.send(()).expect("the test waits for it");
        }));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(finish.as_mut().poll(cx).is_pending())).await);
        drop(finish);
        begin.send(()).expect("it waits for that");
        is_done.await.expect("it went on");
        assert_eq!(stage.finish(async { panic!("half-way") }).await, None::<()>);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_given_up() {
        let stage = Stage::new("test", Fatal::new());
        stage.spawn(std::future::pending());
        let began = tokio::time::Instant::now();
        stage.end(Duration::from_secs(4)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(4));
    }
}
