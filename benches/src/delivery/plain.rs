//! What people write instead: a loop that posts a callback with `reqwest` and writes the outcome down, each in a transaction
//! of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::receivers::{Receivers, wall_us};

/// Callbacks per second of such loops, so many at a time, in the same place as the server's database.
pub(crate) fn rate(receivers: &Receivers, at_a_time: usize, length: Duration) -> Result<f64> {
    let folder = TempDir::with_prefix("framehook-bench-").context("make a folder")?;
    let conn = Connection::open(folder.path().join("plain.db"))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.execute_batch("CREATE TABLE attempt (id INTEGER PRIMARY KEY, at_ms INTEGER, status INTEGER, url TEXT)")?;
    let conn = Arc::new(Mutex::new(conn));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let urls: Arc<Vec<String>> =
        Arc::new(receivers.ports.iter().map(|port| format!("http://127.0.0.1:{port}/")).collect());
    let began = Instant::now();
    let sent = runtime.block_on(async {
        let mut loops = JoinSet::new();
        for number in 0..at_a_time {
            let (client, conn, urls) = (client.clone(), Arc::clone(&conn), Arc::clone(&urls));
            loops.spawn(async move {
                let mut sent = 0_usize;
                while began.elapsed() < length {
                    let url = &urls[(number + sent) % urls.len()];
                    let body = format!(r#"{{"due_us":{},"event_type":1,"padding":"{}"}}"#, wall_us(), "x".repeat(300));
                    let status = client.post(url).body(body).send().await?.status().as_u16();
                    // As such loops do: the thread waits for the disk.
                    let conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
                    conn.prepare_cached("INSERT INTO attempt (at_ms, status, url) VALUES (?1, ?2, ?3)")?
                        .execute(params![(wall_us() / 1000) as i64, status, url])?;
                    sent += 1;
                }
                anyhow::Ok(sent)
            });
        }
        let mut sent = 0;
        while let Some(ended) = loops.join_next().await {
            sent += ended??;
        }
        anyhow::Ok(sent)
    })?;
    Ok(sent as f64 / began.elapsed().as_secs_f64())
}
