//! The one way in which a part says that the process must end.
//!
//! After a failed sync the kernel may call pages clean that never reached the disk, so a second sync that "succeeds"
//! proves nothing (Rebello et al., USENIX ATC 2020). The only safe answer is to acknowledge nothing more, end the
//! process, and let the next start read back what really is on the disk. A vital task that panics ends it the same way.

use std::sync::Arc;

use tokio::sync::watch;

/// Why the process cannot go on: as a rule, because it can no longer vouch for what it has stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{part} cannot go on: {cause}")]
pub struct FatalError {
    /// The part that failed, for instance `database` or `spool`.
    pub part: &'static str,
    /// What the operating system or SQLite said, or that it panicked.
    pub cause: String,
}

/// Raised once by any part, awaited by `app.rs`, which then ends the process with an error. Clones share it.
#[derive(Clone, Debug)]
pub struct Fatal {
    raised: Arc<watch::Sender<Option<FatalError>>>,
}

impl Fatal {
    pub fn new() -> Self {
        Self { raised: Arc::new(watch::Sender::new(None)) }
    }

    /// Ends the process as soon as `app.rs` sees it. The first cause is kept: later ones are mostly its echo.
    pub fn raise(&self, part: &'static str, cause: impl ToString) {
        let cause = cause.to_string();
        self.raised.send_if_modified(|raised| {
            if raised.is_some() {
                return false;
            }
            tracing::error!(part, %cause, "a part cannot go on; the process ends");
            *raised = Some(FatalError { part, cause });
            true
        });
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.raised.borrow().is_some()
    }

    /// Resolves when it is raised, at once if it was before.
    pub async fn wait(&self) -> FatalError {
        let mut raised = self.raised.subscribe();
        let seen = raised.wait_for(Option::is_some).await.expect("this handle keeps the sender alive");
        seen.clone().expect("waited for it")
    }
}

impl Default for Fatal {
    fn default() -> Self {
        Self::new()
    }
}
