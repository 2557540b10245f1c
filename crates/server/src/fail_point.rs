//! Named instants at which the crash suite kills the process, compiled to nothing without the `failpoints` feature.
//!
//! `FRAMEHOOK_FAIL_POINT=name:nth` makes the process send itself SIGKILL the `nth` time (from 1) it passes `name`. With
//! `FRAMEHOOK_FAIL_POINT_LOG=FILE` every point passed is appended to FILE once, so that a suite can tell which of [`ALL`]
//! it never reached.

/// Every point in the order in which a picture and its push pass them. The crash suite kills at each of these.
pub const ALL: &[&str] = &[
    "push_opened",
    "push_closed",
    "spool_written",
    "spool_synced",
    "spool_named",
    "put_ahead",
    "rows_committed",
    "put_sent",
    "put_acknowledged",
    "stored_committed",
    "latest_acknowledged",
    "latest_committed",
    "attempt_sent",
    "attempt_answered",
    "attempt_settled",
    "spool_deleted",
    "migration_step",
];

/// Dies here if the environment says so. `name` must be one of [`ALL`].
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_name: &'static str) {}

/// Dies here if the environment says so. `name` must be one of [`ALL`].
///
/// # Panics
/// If `name` is not in [`ALL`], since then no suite would ever kill there.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, OnceLock};

    assert!(ALL.contains(&name), "fail point {name} is missing from fail_point::ALL");
    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    static SEEN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

    if let Some(path) = std::env::var_os("FRAMEHOOK_FAIL_POINT_LOG") {
        let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !seen.contains(&name) {
            seen.push(name);
            let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = log.and_then(|mut file| writeln!(file, "{name}"));
        }
    }
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var("FRAMEHOOK_FAIL_POINT").ok()?;
        let (name, nth) = value.split_once(':').unwrap_or((&value, "1"));
        Some((name.to_owned(), nth.parse().expect("FRAMEHOOK_FAIL_POINT is name:nth with a number")))
    });
    if let Some((armed_name, nth)) = armed
        && armed_name == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // SIGKILL is delivered before the call returns to user space on this thread, so nothing below ever runs.
        std::process::abort();
    }
}
