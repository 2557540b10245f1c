//! The part that the receiver and the proxy share: a loopback listener with a thread for each connection, all of which
//! end with it.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Closes with a reset instead of an orderly end, at the moment the last handle is dropped.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is already gone.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Locks, also after another test thread panicked with the lock held: the first panic is the one to read about.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells threads to end, and wakes those that pause.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *lock(&self.stopped) = true;
        self.wake.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }

    /// Waits for `pause`, less when stopped. Gives whether to go on.
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut stopped = lock(&self.stopped);
        while !*stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stopped = self.wake.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !*stopped
    }
}

/// One accepted connection. The stream closes when the last `Arc` goes.
pub(crate) struct Accepted {
    /// Counts connections from 0.
    pub(crate) number: u64,
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) stop: Arc<Stop>,
}

/// Listens on a free loopback port until dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    stop: Arc<Stop>,
    open: Arc<Mutex<HashMap<u64, Weak<TcpStream>>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Listener {
    /// Runs `serve` in a thread of its own for each connection.
    pub(crate) fn start(serve: impl Fn(Accepted) + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let address = listener.local_addr().context("listen on loopback")?;
        let stop = Arc::new(Stop::default());
        let open = Arc::new(Mutex::new(HashMap::new()));
        let acceptor = thread::spawn({
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            move || accept(&listener, &stop, &open, &Arc::new(serve))
        });
        Ok(Self { address, stop, open, acceptor: Some(acceptor) })
    }

    /// The connections that are open now.
    pub(crate) fn streams(&self) -> Vec<Arc<TcpStream>> {
        lock(&self.open).values().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.stop();
        // Accepting ends at the next connection, so make one.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        // Threads that read or write now see the end; they are not joined, because none outlives its socket by much.
        for stream in self.streams() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept<F: Fn(Accepted) + Send + Sync + 'static>(
    listener: &TcpListener,
    stop: &Arc<Stop>,
    open: &Arc<Mutex<HashMap<u64, Weak<TcpStream>>>>,
    serve: &Arc<F>,
) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        if stop.is_stopped() {
            return;
        }
        let stream = match stream {
            Ok(stream) => Arc::new(stream),
            // The peer gave up before it was accepted; anything else ends the listener, and tests see refusals.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => return,
        };
        let _ = stream.set_nodelay(true);
        lock(open).insert(number, Arc::downgrade(&stream));
        let (serve, stop, open) = (Arc::clone(serve), Arc::clone(stop), Arc::clone(open));
        thread::spawn(move || {
            serve(Accepted { number, stream, stop });
            lock(&open).remove(&number);
        });
    }
}
