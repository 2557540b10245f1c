//! Why an attempt got no answer, in terms that are stored, counted and shown.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::retry::Outcome;
use rustix::io::Errno;

use super::proxy::ProxyError;

/// Why an attempt got no answer. An answer with an unwelcome status is not an error here: the caller judges it.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The deadline passed.
    #[error("no answer within {after:?}; it ended while {phase}")]
    TimedOut { phase: Phase, after: Duration },
    /// The name has no address, or the resolver did not answer.
    #[error("could not resolve {host}")]
    Resolve { host: String, source: Arc<io::Error> },
    /// The host is, or resolved to, an address that callbacks may not be sent to. One such address condemns the whole
    /// answer: a name that mixes them is an attack or a mistake, never a receiver.
    #[error("{host} is at {address}, which is {class}; allow its block if the receiver is really there")]
    AddressForbidden { host: String, address: IpAddr, class: &'static str },
    /// No TCP connection. With several addresses, that of the last one tried.
    #[error("could not connect to {address}")]
    Connect { address: SocketAddr, source: io::Error },
    /// The TLS handshake failed, or the receiver ended the session with an alert.
    #[error("TLS with {address} failed")]
    Tls { address: SocketAddr, source: io::Error },
    /// The connection was reset or closed before the answer's head was complete.
    #[error("{address} closed the connection after {received} bytes of an answer")]
    Reset { address: SocketAddr, received: usize, source: hyper::Error },
    /// The same over HTTP/2, where what was received may have been for others.
    #[error("{address} closed the connection without an answer")]
    Ended { address: SocketAddr, source: hyper::Error },
    /// The receiver took no request on this connection any more, and says that it looked at none (HTTP/2).
    #[error("{address} did not take the request")]
    Refused { address: SocketAddr, source: hyper::Error },
    /// The receiver ended the request without an answer and kept the connection (HTTP/2).
    #[error("{address} ended the request without an answer")]
    Cut { address: SocketAddr, source: hyper::Error },
    /// The answer's head, or what was sent instead of it, is over its limit.
    #[error("{address} sent an answer whose head is too large")]
    HeadTooLarge { address: SocketAddr },
    /// What came back is not HTTP/1.1, or not HTTP/2 where the receiver chose that.
    #[error("{address} sent something that is not HTTP")]
    Protocol { address: SocketAddr, source: hyper::Error },
    /// The egress proxy gave no tunnel to the receiver.
    #[error("the egress proxy {proxy} gave no connection to {address}")]
    Proxy { proxy: String, address: SocketAddr, source: ProxyError },
    /// This machine could not even try: out of descriptors, ports or memory, or a local firewall said no.
    #[error("this machine could not open a connection to {address}")]
    Local { address: SocketAddr, source: io::Error },
}

/// How far an attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Looking up the host's name.
    Resolving,
    /// Connecting to one of its addresses, TLS handshake included.
    Connecting,
    /// Sending the request and waiting for the head of the answer.
    Answering,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name",
            Self::Connecting => "connecting",
            Self::Answering => "waiting for the answer",
        })
    }
}

impl AttemptError {
    /// How the attempt that ended so is recorded and counted.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut { .. } => Outcome::Timeout,
            Self::Resolve { .. } => Outcome::Resolve,
            Self::AddressForbidden { .. } => Outcome::AddressForbidden,
            Self::Connect { .. } => Outcome::Connect,
            Self::Tls { .. } => Outcome::Tls,
            Self::Reset { .. } | Self::Ended { .. } | Self::Refused { .. } | Self::Cut { .. } => Outcome::Reset,
            Self::HeadTooLarge { .. } => Outcome::HeadTooLarge,
            Self::Protocol { .. } => Outcome::Protocol,
            Self::Proxy { source, .. } if source.blames_receiver() => Outcome::Connect,
            Self::Proxy { .. } => Outcome::Proxy,
            Self::Local { .. } => Outcome::Local,
        }
    }

    /// Whether a receiver that closed an idle connection while our request was on its way would give this error; it says
    /// nothing about the receiver then.
    pub(super) fn may_be_of_an_idle_end(&self) -> bool {
        matches!(self, Self::Reset { received: 0, .. } | Self::Ended { .. } | Self::Refused { .. })
    }

    /// A failed connect, told apart by who caused it.
    pub(super) fn connect(address: SocketAddr, source: io::Error) -> Self {
        const LOCAL: [Errno; 7] = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            // No free local port.
            Errno::ADDRNOTAVAIL,
            // A local packet filter refused.
            Errno::ACCESS,
            Errno::PERM,
        ];
        if Errno::from_io_error(&source).is_some_and(|errno| LOCAL.contains(&errno)) {
            Self::Local { address, source }
        } else {
            Self::Connect { address, source }
        }
    }

    /// The error and its causes in one line, for logs and the attempt's record. Holds neither credentials nor query:
    /// no variant does.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blames_this_machine_only_for_its_own_shortages() {
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        let rows = [
            (Errno::CONNREFUSED, Outcome::Connect),
            (Errno::HOSTUNREACH, Outcome::Connect),
            (Errno::NETUNREACH, Outcome::Connect),
            (Errno::TIMEDOUT, Outcome::Connect),
            (Errno::MFILE, Outcome::Local),
            (Errno::ADDRNOTAVAIL, Outcome::Local),
            (Errno::PERM, Outcome::Local),
        ];
        for (errno, outcome) in rows {
            assert_eq!(AttemptError::connect(address, errno.into()).outcome(), outcome, "{errno:?}");
        }
    }

    #[test]
    fn chain_is_one_line_with_every_cause() {
        let source = Arc::new(io::Error::other("name server is down"));
        let error = AttemptError::Resolve { host: "example.com".to_owned(), source };
        assert_eq!(error.chain(), "could not resolve example.com: name server is down");
    }
}
