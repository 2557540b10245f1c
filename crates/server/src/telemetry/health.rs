//! Whether the server can do its job at this instant, check by check: the answer of `/readyz` and part of `doctor`.

use std::time::Duration;

use crate::config::ByteSize;
use crate::render::{Landlock, WorkerHealth};

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// Which one; it never changes.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was found, and how to mend it if it does not hold.
    pub detail: String,
}

impl Check {
    /// It holds.
    pub fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into() }
    }

    /// It does not.
    pub fn bad(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into() }
    }
}

/// Whether the database answers. `answered` is how long it took, or what went wrong.
pub fn database(answered: Result<Duration, String>) -> Check {
    match answered {
        Ok(took) => Check::good("database", format!("answered in {} ms", took.as_millis())),
        Err(error) => Check::bad("database", error),
    }
}

/// Whether a render worker is up.
pub fn workers(workers: &[WorkerHealth]) -> Check {
    let ready = workers.iter().filter(|worker| worker.ready).count();
    let found = format!("{ready} of {} render workers are up", workers.len());
    if ready > 0 {
        return Check::good("workers", found);
    }
    let cause = workers.iter().find_map(|worker| worker.last_error.as_deref()).unwrap_or("they are still starting");
    Check::bad("workers", format!("{found}: {cause}"))
}

/// Whether every worker that is up is locked in. `required` is false under `render.unsafe_no_jail`, which passes and says so.
pub fn jail(workers: &[WorkerHealth], required: bool) -> Check {
    if !required {
        return Check::good(
            "jail",
            "switched off by render.unsafe_no_jail; a hostile stream may take over this machine",
        );
    }
    let reports: Vec<_> =
        workers.iter().filter(|worker| worker.ready).filter_map(|worker| worker.jail.as_ref()).collect();
    match reports.first() {
        None => Check::bad("jail", "no worker has reported yet"),
        Some(_) if !reports.iter().all(|report| report.is_locked()) => {
            Check::bad("jail", "a render worker is not locked in; run `framehook doctor`")
        }
        Some(report) => {
            let landlock = match report.landlock {
                Landlock::Enforced { abi } => format!("landlock ABI {abi}"),
                Landlock::Absent => "no landlock in this kernel".to_owned(),
            };
            Check::good("jail", format!("seccomp in force, sockets, files and programs refused; {landlock}"))
        }
    }
}

/// Whether the spool takes new pictures: the question that is asked of each pick, with its answer as `has_room`.
pub fn spool(has_room: bool, used: ByteSize, max: ByteSize) -> Check {
    let found = format!("{} of {} bytes used", used.0, max.0);
    if has_room {
        Check::good("spool", found)
    } else {
        Check::bad("spool", format!("{found}: new pictures are skipped until stores take some; see spool.bytes_max"))
    }
}

/// Whether the disk has room for new pictures, likewise.
pub fn disk(has_room: bool, free: ByteSize, reserve: ByteSize) -> Check {
    let found = format!("{} bytes free, {} kept in reserve", free.0, reserve.0);
    if has_room {
        Check::good("disk", found)
    } else {
        Check::bad("disk", format!("{found}: new pictures are skipped; free some room or see spool.disk_reserve"))
    }
}

/// How the certificate stands: `days_left` until it ends, and why a newer pair of files is not in use. It never fails the
/// whole, since plain listeners are not concerned.
pub fn certificate(days_left: Option<i64>, problem: Option<&str>) -> Check {
    let ends = match days_left {
        Some(days @ ..0) => format!("ended {} days ago: clients refuse it", -days),
        Some(days) => format!("ends in {days} days"),
        None => "it cannot be told when it ends".to_owned(),
    };
    match problem {
        None => Check::good("certificate", ends),
        Some(problem) => Check::good("certificate", format!("{ends}; the files changed and cannot be used: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::JailReport;

    fn locked() -> JailReport {
        JailReport {
            disabled: false,
            no_new_privs: true,
            seccomp: true,
            landlock: Landlock::Absent,
            uid: 65534,
            memory_bytes_max: 1 << 30,
            socket_refused: true,
            open_refused: true,
            exec_refused: true,
            executable_memory_refused: true,
        }
    }

    fn worker(ready: bool, jail: Option<JailReport>) -> WorkerHealth {
        WorkerHealth { ready, jail, ..WorkerHealth::default() }
    }

    #[test]
    fn each_check_can_fail() {
        let up = [worker(true, Some(locked())), worker(false, None)];
        let down = [WorkerHealth { last_error: Some("no such file".to_owned()), ..worker(false, None) }];
        let leaky = [worker(true, Some(locked())), worker(true, Some(JailReport { open_refused: false, ..locked() }))];
        let rows = [
            ("database answers", database(Ok(Duration::from_millis(1))), true),
            ("database is stopped", database(Err("the database has stopped".to_owned())), false),
            ("one worker is up", workers(&up), true),
            ("no worker is up", workers(&down), false),
            ("workers are locked in", jail(&up, true), true),
            ("no report yet", jail(&down, true), false),
            ("one worker can open files", jail(&leaky, true), false),
            ("the jail is switched off", jail(&leaky, false), true),
            ("spool has room", spool(true, ByteSize(1), ByteSize(2)), true),
            ("spool is full", spool(false, ByteSize(2), ByteSize(2)), false),
            ("disk has room", disk(true, ByteSize(3), ByteSize(2)), true),
            ("disk is at its reserve", disk(false, ByteSize(2), ByteSize(2)), false),
        ];
        for (name, check, ok) in rows {
            assert_eq!(check.ok, ok, "{name}: {check:?}");
        }
    }

    #[test]
    fn a_bad_worker_says_why() {
        let down = [WorkerHealth { last_error: Some("no such file".to_owned()), ..worker(false, None) }];
        assert_eq!(workers(&down).detail, "0 of 1 render workers are up: no such file");
    }
}
