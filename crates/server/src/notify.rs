//! Owed callbacks and the sender that carries them.

pub mod address;
pub mod attempt_error;
pub mod client;
mod connection;
pub mod endpoint;
mod pool;
pub mod resolve;
pub mod tls;
