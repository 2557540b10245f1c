//! Listeners that turn publishers into sessions. Each protocol has its own driver below and ends in `AccessUnit`s.

pub(crate) mod rtmp;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::shutdown::Stage;
use crate::telemetry::Telemetry;

/// How many connections the kernel may hold for us while we are busy: a reconnect storm of 2,000 publishers arrives
/// within a second, and a refused SYN costs its publisher a whole second of back-off.
const BACKLOG: u32 = 4096;

/// How long accepting pauses when descriptors run out. Long enough not to spin, short enough that a publisher, which
/// waits in the kernel's queue meanwhile, does not notice.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds a listener. An unspecified IPv6 address listens on IPv4 as well, and falls back to IPv4 alone on a machine
/// without IPv6.
///
/// # Errors
/// What the kernel said, for instance that the port is taken or needs privileges.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    with_fallback(addr, bind_one)
}

fn with_fallback<T>(addr: SocketAddr, mut bind_one: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match bind_one(addr) {
        Err(error)
            if addr.ip() == Ipv6Addr::UNSPECIFIED
                && matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
                ) =>
        {
            bind_one(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        bound => bound,
    }
}

fn bind_one(addr: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

    let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, addr.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    bind(&socket, &addr)?;
    listen(&socket, BACKLOG as i32)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

/// Accepts connections until `token` ends it, and gives each to `serve` as a task of `sessions`.
pub(crate) async fn accept<F, S>(
    listener: TcpListener,
    sessions: Stage,
    token: CancellationToken,
    telemetry: Arc<Telemetry>,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => sessions.spawn(serve(stream, peer)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    if let Some(left_out) = telemetry.admit("accept", "exhausted") {
                        tracing::error!(
                            %error, left_out, "accepting pauses: the machine is out of descriptors or memory for sockets"
                        );
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The connection died in the queue; the next one is not affected.
                _ => tracing::debug!(%error, "a connection ended before it was accepted"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a connection to `target` arrives at `listener`.
    async fn is_reached(listener: &TcpListener, target: SocketAddr) -> bool {
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(target));
        accepted.is_ok() && connected.is_ok()
    }

    #[tokio::test]
    async fn an_unspecified_ipv6_address_takes_both_families() {
        let listener = bind("[::]:0".parse().expect("an address")).expect("bound");
        let local = listener.local_addr().expect("an address");
        assert!(is_reached(&listener, SocketAddr::from((Ipv4Addr::LOCALHOST, local.port()))).await);
        // A machine without IPv6 has fallen back, and is reached by IPv4 alone.
        if local.is_ipv6() {
            assert!(is_reached(&listener, SocketAddr::from((Ipv6Addr::LOCALHOST, local.port()))).await);
        }
    }

    #[test]
    fn falls_back_to_ipv4_only_where_ipv6_is_missing() {
        let bound_to = |asked: &str, error: Errno| {
            let mut tried = Vec::new();
            let outcome = with_fallback(asked.parse().expect("an address"), |addr| {
                tried.push(addr.to_string());
                if addr.is_ipv6() { Err(io::Error::from(error)) } else { Ok(()) }
            });
            (tried, outcome.is_ok())
        };
        let cases = [
            ("no IPv6 in the kernel", "[::]:1935", Errno::AFNOSUPPORT, &["[::]:1935", "0.0.0.0:1935"][..]),
            ("IPv6 switched off", "[::]:1935", Errno::ADDRNOTAVAIL, &["[::]:1935", "0.0.0.0:1935"]),
            ("the port is taken", "[::]:1935", Errno::ADDRINUSE, &["[::]:1935"]),
            ("an address that was named", "[::1]:1935", Errno::ADDRNOTAVAIL, &["[::1]:1935"]),
        ];
        for (name, asked, error, tried) in cases {
            let (were_tried, is_bound) = bound_to(asked, error);
            assert_eq!(
                (were_tried, is_bound),
                (tried.iter().map(|&addr| addr.into()).collect(), tried.len() == 2),
                "{name}"
            );
        }
    }
}
