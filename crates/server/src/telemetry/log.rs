//! Log lines: set up once, on standard error, and kept from repeating themselves.

mod lines;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::time::Mono;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use self::lines::Lines;
use crate::config::{Log, LogFormat, LogLevel};
use crate::places::network_of;

pub use self::lines::Flush;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the thread that writes the log does not start")]
    Thread(#[source] io::Error),
    #[error("something in this process has set up logging before")]
    Taken(#[source] TryInitError),
}

/// Sends log lines to standard error from here on: text on a terminal (in colour unless `NO_COLOR` is set), one JSON object
/// per line otherwise, or as the configuration says. Nobody who logs ever waits for standard error; lines it does not take
/// are dropped and counted.
///
/// # Errors
/// See [`LogError`].
pub fn init(log: &Log) -> Result<Flush, LogError> {
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let waiting = Lines::start(io::stderr(), |left_out| {
        tracing::warn!(left_out, "lines of this log were left out: standard error did not take them in time");
    })
    .map_err(LogError::Thread)?;
    let flush = waiting.flush_on_drop();
    let lines = fmt::layer().with_writer(waiting);
    let registry = tracing_subscriber::registry().with(targets(log.level));
    let set_up = if json {
        registry.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry.with(lines.with_ansi(colour).with_target(false)).try_init()
    };
    set_up.map(|()| flush).map_err(LogError::Taken)
}

/// Our own lines from `level` up; those of libraries only when something is wrong, since they do not know what matters.
fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_target("framehook", ours).with_default(ours.min(LevelFilter::WARN))
}

/// Lines that say the same of the same thing are written once in this time; the next one tells how many it stands for.
const REPEATS_WINDOW: Duration = Duration::from_secs(60);

/// Things that are watched for repeats at a time. Every callback URL of a full configuration (two times fifty templates)
/// with a handful of causes each fits. Strangers choose addresses and stream names, so it does fill up under attack:
/// whatever is new then shares one place per cause.
const REPEATS_MAX: usize = 1024;

/// How often a full table is searched for places that are free again: the search is over all of it, and under attack
/// every line would ask for one.
const REPEATS_PRUNED_EVERY: Duration = Duration::from_secs(1);

/// Keeps a failing receiver or store, or a hostile peer, from filling the log: one line a minute for each endpoint and
/// cause.
#[derive(Debug, Default)]
pub struct Repeats {
    table: Mutex<RepeatsTable>,
}

#[derive(Debug, Default)]
struct RepeatsTable {
    seen: HashMap<(String, &'static str), Seen>,
    /// What everything beyond [`REPEATS_MAX`] shares: one for each cause, of which the program has a fixed number.
    others: HashMap<&'static str, Seen>,
    pruned: Mono,
}

#[derive(Debug)]
struct Seen {
    written: Mono,
    suppressed: u64,
}

impl Repeats {
    /// Whether a line about `endpoint` and `cause` should be written now: if so, how many like it were not since the last.
    pub fn admit(&self, endpoint: &str, cause: &'static str, now: Mono) -> Option<u64> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.to_owned(), cause);
        if !table.seen.contains_key(&key) && !table.has_place(now) {
            return match table.others.entry(cause) {
                Entry::Occupied(mut others) => others.get_mut().admit(now),
                Entry::Vacant(others) => {
                    others.insert(Seen::first(now));
                    Some(0)
                }
            };
        }
        match table.seen.entry(key) {
            Entry::Occupied(mut seen) => seen.get_mut().admit(now),
            Entry::Vacant(seen) => {
                seen.insert(Seen::first(now));
                Some(0)
            }
        }
    }

    /// The same for a peer from the network.
    pub fn admit_peer(&self, peer: IpAddr, cause: &'static str, now: Mono) -> Option<u64> {
        let endpoint = match network_of(peer) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(network) => format!("{network}/64"),
        };
        self.admit(&endpoint, cause, now)
    }
}

impl RepeatsTable {
    /// Whether one more thing can be watched. What was quiet for a minute makes room; lines it left out without a later
    /// one to tell of them are told by the next line about the same cause that stands for others.
    fn has_place(&mut self, now: Mono) -> bool {
        if self.seen.len() >= REPEATS_MAX && now.since(self.pruned) >= REPEATS_PRUNED_EVERY {
            self.pruned = now;
            let others = &mut self.others;
            self.seen.retain(|(_, cause), seen| {
                let is_kept = now.since(seen.written) < REPEATS_WINDOW;
                if !is_kept && seen.suppressed > 0 {
                    let shared = others.entry(cause).or_insert(Seen { written: seen.written, suppressed: 0 });
                    shared.suppressed += seen.suppressed;
                }
                is_kept
            });
        }
        self.seen.len() < REPEATS_MAX
    }
}

impl Seen {
    fn first(now: Mono) -> Self {
        Self { written: now, suppressed: 0 }
    }

    fn admit(&mut self, now: Mono) -> Option<u64> {
        if now.since(self.written) < REPEATS_WINDOW {
            self.suppressed += 1;
            return None;
        }
        self.written = now;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono(Duration::from_secs(secs))
    }

    #[test]
    fn the_same_cause_at_the_same_endpoint_is_written_once_a_minute() {
        let repeats = Repeats::default();
        let rows = [
            ("the first", "a", "timeout", 0, Some(0)),
            ("a repeat", "a", "timeout", 1, None),
            ("another cause", "a", "reset", 2, Some(0)),
            ("another endpoint", "b", "timeout", 3, Some(0)),
            ("a second repeat", "a", "timeout", 59, None),
            ("after a minute, with the number of those left out", "a", "timeout", 60, Some(2)),
            ("the count starts again", "a", "timeout", 120, Some(0)),
        ];
        for (name, endpoint, cause, secs, expected) in rows {
            assert_eq!(repeats.admit(endpoint, cause, at(secs)), expected, "{name}");
        }
    }

    #[test]
    fn a_full_table_still_collapses_what_is_new_and_forgets_no_count() {
        let repeats = Repeats::default();
        for number in 0..REPEATS_MAX {
            assert_eq!(repeats.admit(&number.to_string(), "timeout", at(10)), Some(0));
        }
        assert_eq!(repeats.admit("0", "timeout", at(11)), None);
        assert_eq!(repeats.admit("new", "timeout", at(12)), Some(0), "the first of those without a place");
        assert_eq!(repeats.admit("newer", "timeout", at(13)), None);
        assert_eq!(repeats.admit("newer", "reset", at(13)), Some(0), "another cause");
        assert_eq!(repeats.admit("new", "timeout", at(75)), Some(0), "there is room again");
        for number in 1..REPEATS_MAX {
            assert_eq!(repeats.admit(&format!("again {number}"), "timeout", at(76)), Some(0));
        }
        // Of the first endpoint, which was forgotten, and of the one that found no place.
        assert_eq!(repeats.admit("beyond", "timeout", at(76)), Some(2));
        assert_eq!(repeats.admit("further beyond", "timeout", at(77)), None);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_peer() {
        let repeats = Repeats::default();
        let peer = |text: &str| text.parse().expect("an address");
        assert_eq!(repeats.admit_peer(peer("2001:db8::1"), "handshake", at(0)), Some(0));
        assert_eq!(repeats.admit_peer(peer("2001:db8::2"), "handshake", at(1)), None);
        assert_eq!(repeats.admit_peer(peer("2001:db8:0:1::2"), "handshake", at(1)), Some(0));
        assert_eq!(repeats.admit_peer(peer("192.0.2.1"), "handshake", at(1)), Some(0));
        assert_eq!(repeats.admit_peer(peer("192.0.2.2"), "handshake", at(1)), Some(0));
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let targets = targets(LogLevel::Debug);
        assert!(targets.would_enable("framehook_server::live", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("framehook_server::live", &tracing::Level::TRACE));
        assert!(!targets.would_enable("hyper", &tracing::Level::INFO));
        assert!(targets.would_enable("hyper", &tracing::Level::WARN));
    }
}
