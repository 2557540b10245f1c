//! What the outside sees of a running server: log lines, metrics, and whether it is ready.
//!
//! Something that happened is an [`event`]: one struct that writes the log line and moves the counter, so that their
//! names and labels cannot drift apart. A duration or a size alone is a method of [`Metrics`]. What something *is* now is
//! read when the metrics page is asked for: a [`Sample`].

pub mod event;
pub mod health;
pub mod log;
pub mod metric;

pub use metric::{Metrics, Sample};
