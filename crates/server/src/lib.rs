//! Everything of Framehook with an effect: sockets, tasks, database, HTTP.
//!
//! Read `pipeline.rs` first: it is one picture's life, top to bottom. `app.rs` builds every part once and joins them.

pub mod clock;
pub mod config;
pub mod db;
mod durable;
pub mod entropy;
pub mod fail_point;
pub mod fatal;
pub mod notify;
pub mod render;
pub mod shutdown;
pub mod telemetry;
