//! The machine: its clock and what it lets one process have.

use std::collections::HashSet;
use std::time::Duration;

use framehook_domain::time::UnixMs;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;

/// 2026-01-01T00:00:00Z. No clock that is right shows an earlier time to this program, which did not exist then.
const EARLIEST: UnixMs = UnixMs::from_secs(1_767_225_600);

/// How far files may be ahead of the clock. Those on a network file system are stamped by another machine's.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Looks for a clock that was never set, and for one that was set back.
pub(super) fn clock(now: UnixMs, newest_change: Option<UnixMs>) -> Finding {
    const CHECK: &str = "clock";
    let mend = "set the clock and keep it set (systemd-timesyncd, chrony): receivers refuse signatures that are more than \
        ten minutes off, and push keys expire by it";
    if now < EARLIEST {
        return Finding::bad(
            CHECK,
            format!("it shows {} s since 1970, which is before this program was made", now.secs()),
            mend,
        );
    }
    match newest_change {
        Some(changed) if changed > now.plus(AHEAD_MAX) => {
            let ahead = changed.since(now).as_secs();
            Finding::bad(CHECK, format!("a file of the data directory was changed {ahead} s in its future"), mend)
        }
        _ => Finding::good(CHECK, "it shows a time that can be right"),
    }
}

/// The most files and sockets that this process may have open; the server raises its limit to it. `None` is no limit.
pub(super) fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Descriptors that are needed whatever happens: the database, worker sockets, listeners, files under way.
const DESCRIPTORS_OF_OUR_OWN: u64 = 512;

/// Compares it with the connections that the configuration allows.
pub(super) fn descriptors(limit: Option<u64>, config: &Config) -> Finding {
    const CHECK: &str = "descriptors";
    let connections = [config.ingest.connections_max, config.http.connections_max, config.deliver.concurrency];
    let wanted = DESCRIPTORS_OF_OUR_OWN + connections.into_iter().map(u64::from).sum::<u64>() + receivers(config);
    match limit {
        Some(limit) if limit < wanted => Finding::warning(
            CHECK,
            format!("at most {limit} files and sockets may be open, and the configuration allows for {wanted}"),
            "raise the hard limit (LimitNOFILE= in a systemd unit, --ulimit nofile= of a container), or lower \
             ingest.connections_max",
        ),
        Some(limit) => {
            Finding::good(CHECK, format!("up to {limit} files and sockets may be open; {wanted} are enough"))
        }
        None => Finding::good(CHECK, "any number of files and sockets may be open"),
    }
}

/// Receivers of the configuration, by host and port: each may have one attempt more than `deliver.concurrency`.
fn receivers(config: &Config) -> u64 {
    let templates = config.declared.callback_templates.iter();
    let urls = templates.flat_map(|template| {
        [&template.urls.snapshot_notify, &template.urls.stream_begin_notify, &template.urls.stream_end_notify]
    });
    let origins: HashSet<_> = urls.flatten().map(|url| url.expose().origin()).collect();
    origins.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::doctor::Status;

    #[test]
    fn a_clock_that_was_never_set_or_set_back_is_bad() {
        let now = EARLIEST.plus(Duration::from_secs(86_400));
        let rows = [
            ("right", now, None, Status::Good),
            ("right, with files", now, Some(now.minus(Duration::from_secs(5))), Status::Good),
            ("another machine's stamps", now, Some(now.plus(Duration::from_secs(60))), Status::Good),
            ("never set", UnixMs(0), None, Status::Bad),
            ("set back by an hour", now, Some(now.plus(Duration::from_secs(3600))), Status::Bad),
        ];
        for (name, now, newest, status) in rows {
            assert_eq!(clock(now, newest).status, status, "{name}");
        }
    }

    #[test]
    fn too_few_descriptors_are_a_warning() {
        let config = Config::default();
        assert_eq!(descriptors(Some(1024), &config).status, Status::Warning);
        assert_eq!(descriptors(Some(1 << 20), &config).status, Status::Good);
        assert_eq!(descriptors(None, &config).status, Status::Good);

        let wanted = |text: &str| {
            let finding = descriptors(Some(0), &Config::parse(text, &Sources::default()).unwrap());
            finding.found.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let receivers = "[[callback_template]]\nname = \"a\"\nsnapshot_notify_url = \"http://a.example.com/1\"\n\
            stream_begin_notify_url = \"http://a.example.com/2\"\nstream_end_notify_url = \"http://a.example.com:81/\"";
        assert_eq!(wanted(receivers), wanted("") + 2, "one more for each host and port");
    }
}
