//! A thousand receivers in one thread, each on a port of its own. They answer 200 or never, and note when each callback came.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"code\":0}";

/// Longest request; callbacks of this benchmark have some 700 bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// One callback that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Which receiver got it.
    pub(crate) receiver: usize,
    /// When its first byte was read and when it was due, both in microseconds of the wall clock.
    pub(crate) came_us: u64,
    pub(crate) due_us: u64,
}

/// Receivers that run until this is dropped.
pub(crate) struct Receivers {
    pub(crate) ports: Vec<u16>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receivers {
    /// Starts `count` receivers, of which the first `hanging` never answer.
    pub(crate) fn start(count: usize, hanging: usize) -> Result<Self> {
        let listeners = (0..count).map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)));
        let listeners = listeners.collect::<Result<Vec<_>, _>>().context("bind a receiver")?;
        let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_>>()?;
        let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
        let (stop, stopped) = sync_channel::<()>(0);
        let noted = Arc::clone(&arrivals);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let thread = std::thread::spawn(move || {
            let mut accepting = JoinSet::new();
            for (receiver, listener) in listeners.into_iter().enumerate() {
                let accept = accept(listener, receiver, receiver < hanging, Arc::clone(&noted));
                accepting.spawn_on(accept, runtime.handle());
            }
            // Ends when the sender is dropped.
            let _ = stopped.recv();
            drop(accepting);
            runtime.shutdown_background();
        });
        Ok(Self { ports, arrivals, stop: Some(stop), thread: Some(thread) })
    }

    /// What came so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, receiver: usize, hangs: bool, arrivals: Arc<Mutex<Vec<Arrival>>>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, receiver, hangs, Arc::clone(&arrivals)));
    }
}

async fn serve(mut stream: TcpStream, receiver: usize, hangs: bool, arrivals: Arc<Mutex<Vec<Arrival>>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(4096);
    loop {
        buffer.clear();
        let mut came_us = None;
        let due_us = loop {
            match stream.read_buf(&mut buffer).await {
                Ok(1..) if buffer.len() <= REQUEST_BYTES_MAX => {}
                _ => return,
            }
            came_us.get_or_insert_with(wall_us);
            if let Some(due_us) = due_of_whole(&buffer) {
                break due_us;
            }
        };
        let arrival = Arrival { receiver, came_us: came_us.unwrap_or_default(), due_us };
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        if hangs {
            // Until the sender has had enough.
            let _ = stream.read_buf(&mut buffer).await;
            return;
        }
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// The `due_us` of a callback that is there as a whole: its body's last byte closes the object.
fn due_of_whole(request: &[u8]) -> Option<u64> {
    let head = request.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let body = std::str::from_utf8(&request[head..]).ok()?.strip_suffix('}')?;
    let (_, due) = body.split_once("\"due_us\":")?;
    due.split(',').next()?.parse().ok()
}

pub(crate) fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_taken_when_it_is_there_as_a_whole() {
        let whole = b"POST / HTTP/1.1\r\ncontent-length: 31\r\n\r\n{\"due_us\":123456,\"event_type\":1}";
        assert_eq!(due_of_whole(whole), Some(123_456));
        for length in 0..whole.len() {
            assert_eq!(due_of_whole(&whole[..length]), None, "{length} bytes");
        }
    }
}
