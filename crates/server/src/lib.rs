//! Everything of Framehook with an effect: sockets, tasks, database, HTTP.
//!
//! Read `pipeline.rs` first: it is one picture's life, top to bottom. `app.rs` builds every part once and joins them.

pub mod clock;
pub mod config;
pub mod fail_point;
pub mod notify;
pub mod render;
pub mod shutdown;
