//! From the commit point to the callback, on real parts: SQLite files, directories and HTTP receivers on loopback, with
//! processes that are killed and started again on the same data directory.
#![expect(clippy::disallowed_methods, reason = "measures how long things take, and mounts a small disk")]

mod ahead;
mod commit;
mod database;
mod failing_sync;
mod full_disk;
mod harness;
mod isolation;
mod latest;
mod log;
mod notify;
mod outage;
mod power_cut;
mod push;
mod renditions;
mod replays;
mod restart;
mod retention;
mod sending;
mod store;
mod task;
