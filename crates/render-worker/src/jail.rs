//! The jail: what a worker gives up before it reads the first byte.
//!
//! What is left to a bitstream that takes the decoder over: the socket, the exchange and the pipe it was born with,
//! arithmetic, and memory up to a limit. No file can be opened, no socket made, no program run, no memory made
//! executable; the kernel's surface is some twenty system calls. The environment was emptied by whoever started us.
//!
//! | Wall | Against |
//! |---|---|
//! | parent-death signal | a worker that outlives its server |
//! | all other descriptors closed | one that leaked into us |
//! | another user, when started as root | files, signals and `/proc` of others |
//! | `no_new_privs`, not dumpable | set-user-id programs; being traced by processes of the same user |
//! | resource limits | memory, CPU time of one job, files, processes, core dumps |
//! | Landlock without a rule | paths, ports and scopes, should seccomp have a hole; where the kernel has it |
//! | seccomp | everything that is not on the list |

mod filter;
mod limits;
mod self_test;

use std::io;

use framehook_render_wire::{JailReport, Landlock};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use rustix::process::{DumpableBehavior, Gid, Pid, Signal, Uid};

pub(crate) use self::limits::allow_job_time;

/// The user and group "nobody" of every distribution.
const NOBODY: u32 = 65534;

/// The newest Landlock that the rules below are written for; older kernels refuse less.
const LANDLOCK_ABI: ABI = ABI::V6;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    #[error("the parent is gone already")]
    Orphaned,
    #[error("{step} failed")]
    Step { step: &'static str, source: io::Error },
    #[error("Landlock failed")]
    Landlock(#[from] landlock::RulesetError),
    #[error("the system call filter could not be built or installed")]
    Filter(#[from] filter::FilterError),
}

/// Names the step that a system call belongs to.
fn step<T, E: Into<io::Error>>(step: &'static str, result: Result<T, E>) -> Result<T, JailError> {
    result.map_err(|source| JailError::Step { step, source: source.into() })
}

/// How this process was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions {
    /// Die with this process; `None` for a self-test at a terminal.
    pub(crate) parent: Option<Pid>,
}

/// Locks this process in, for good, and tries the lock. What can be missing (Landlock, another user) is told in the
/// report; what must not be missing is an error.
pub(crate) fn lock(conditions: Conditions) -> Result<JailReport, JailError> {
    close_other_descriptors()?;
    // First, while `/proc` still answers.
    let mapped_bytes = step("reading the size of the address space", limits::mapped_bytes())?;
    let uid = become_nobody();
    step("clearing the dumpable flag", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    // After the change of user, which clears it.
    if let Some(parent) = conditions.parent {
        die_with(parent)?;
    }
    step("setting no_new_privs", rustix::thread::set_no_new_privs(true))?;
    let landlock = enforce_landlock()?;
    // After Landlock, which needs a descriptor for its rules.
    let memory_bytes_max = limits::set(mapped_bytes)?;
    filter::install()?;
    let refused = self_test::try_the_lock();
    Ok(JailReport {
        disabled: false,
        no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
        seccomp: refused.filtered,
        landlock,
        uid,
        memory_bytes_max,
        socket_refused: refused.socket,
        open_refused: refused.open,
        exec_refused: refused.exec,
        executable_memory_refused: refused.executable_memory,
    })
}

/// The report of a worker that was told not to lock itself in.
pub(crate) fn unlocked(conditions: Conditions) -> Result<JailReport, JailError> {
    if let Some(parent) = conditions.parent {
        die_with(parent)?;
    }
    Ok(JailReport {
        disabled: true,
        no_new_privs: false,
        seccomp: false,
        landlock: Landlock::Absent,
        uid: rustix::process::getuid().as_raw(),
        memory_bytes_max: u64::MAX,
        socket_refused: false,
        open_refused: false,
        exec_refused: false,
        executable_memory_refused: false,
    })
}

/// All but the three that belong to the wire.
fn close_other_descriptors() -> Result<(), JailError> {
    // SAFETY: nothing in this process owns a descriptor above 2 at this point; libraries open theirs and close them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    step("closing descriptors", if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
}

/// Gives up root, if this is root, and tells as whom it goes on. In a container that maps no such user it stays who it
/// was; the other walls stand without this one.
fn become_nobody() -> u32 {
    if rustix::process::getuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        // Groups first: the right to change them goes with the user.
        let _ = rustix::thread::set_thread_groups(&[]);
        let _ = rustix::thread::set_thread_res_gid(gid, gid, gid);
        let _ = rustix::thread::set_thread_res_uid(uid, uid, uid);
    }
    rustix::process::getuid().as_raw()
}

fn die_with(parent: Pid) -> Result<(), JailError> {
    step("setting the parent-death signal", rustix::process::set_parent_process_death_signal(Some(Signal::KILL)))?;
    // It may have died before the signal was set; then someone else has adopted us.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(JailError::Orphaned) }
}

/// Handles every kind of access and allows none.
fn enforce_landlock() -> Result<Landlock, JailError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?
        .restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u8,
        _ => 0,
    };
    match status.ruleset {
        RulesetStatus::NotEnforced => Ok(Landlock::Absent),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(Landlock::Enforced { abi }),
    }
}
