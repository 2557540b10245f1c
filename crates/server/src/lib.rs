//! Everything of Framehook with an effect: sockets, tasks, database, HTTP.
//!
//! Read `pipeline.rs` first: it is one picture's life, top to bottom. `app.rs` builds every part once and joins them.

mod api;
pub mod app;
pub mod audit;
pub mod catalog;
pub mod clock;
pub mod commit;
pub mod config;
pub mod credentials;
pub mod db;
pub mod doctor;
mod durable;
pub mod entropy;
pub mod fail_point;
pub mod fatal;
mod http;
mod ingest;
pub mod key_store;
mod keyframes;
mod live;
pub mod notify;
pub mod offline;
mod pipeline;
mod places;
pub mod prune;
pub mod push_log;
pub mod render;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod timeline;
pub mod tls;
