//! Log lines: set up once, on standard error, and kept from repeating themselves.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::time::Mono;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat, LogLevel};

/// Sends log lines to standard error from here on: text on a terminal (in colour unless `NO_COLOR` is set), one JSON object
/// per line otherwise, or as the configuration says.
///
/// # Errors
/// Something else in this process has set up logging before.
pub fn init(log: &Log) -> Result<(), TryInitError> {
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(targets(log.level));
    if json {
        registry.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry.with(lines.with_ansi(colour).with_target(false)).try_init()
    }
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
/// with a handful of causes each fits; beyond it lines are written uncollapsed rather than lost.
const REPEATS_MAX: usize = 1024;

/// Keeps a failing receiver or store from filling the log: one line a minute for each endpoint and cause.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: Mutex<HashMap<(String, &'static str), Seen>>,
}

#[derive(Debug)]
struct Seen {
    written: Mono,
    suppressed: u64,
}

impl Repeats {
    /// Whether a line about `endpoint` and `cause` should be written now: if so, how many like it were not since the last.
    pub fn admit(&self, endpoint: &str, cause: &'static str, now: Mono) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REPEATS_MAX {
            seen.retain(|_, seen| now.since(seen.written) < REPEATS_WINDOW);
        }
        let key = (endpoint.to_owned(), cause);
        match seen.get_mut(&key) {
            Some(seen) if now.since(seen.written) < REPEATS_WINDOW => {
                seen.suppressed += 1;
                None
            }
            Some(seen) => {
                seen.written = now;
                Some(std::mem::take(&mut seen.suppressed))
            }
            None => {
                if seen.len() < REPEATS_MAX {
                    seen.insert(key, Seen { written: now, suppressed: 0 });
                }
                Some(0)
            }
        }
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
    fn remembers_a_bounded_number_of_endpoints_and_forgets_the_old_ones() {
        let repeats = Repeats::default();
        for number in 0..2 * REPEATS_MAX {
            assert_eq!(repeats.admit(&number.to_string(), "timeout", at(0)), Some(0));
        }
        let remembered = || repeats.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
        assert_eq!(remembered(), REPEATS_MAX);
        assert_eq!(repeats.admit("new", "timeout", at(61)), Some(0));
        assert_eq!(remembered(), 1);
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
