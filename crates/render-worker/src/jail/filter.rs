//! The seccomp filter.
//!
//! Two filters are stacked, and the kernel obeys the stricter answer. The first lets everything pass but answers EPERM to
//! making sockets, opening files, running programs, making memory executable and taking pages out of shared memory: the first
//! four are tried by the self-test, which must live to tell, and some by the C library, which does without. The second kills the process for anything that is
//! not on the list, so that an attack, or a library that wants something new, ends in a crash that is counted and seen.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("no filter for this processor")]
    Processor(#[source] seccompiler::BackendError),
    #[error("filter rules")]
    Rules(#[from] seccompiler::BackendError),
    #[error("installing the filter")]
    Install(#[from] seccompiler::Error),
}

/// Allowed whatever the arguments.
const ALLOWED: &[c_long] = &[
    // Memory, as far as it makes no code.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Time and randomness, for clocks and hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    // Locks of the C library, never contended.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    // How many processors there are: libavcodec asks before it uses one.
    libc::SYS_sched_getaffinity,
    // Dying in order: a panic or abort() should leave its words and its signal.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_close,
];

/// Answered with EPERM.
const REFUSED: &[c_long] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_openat,
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// Installs both filters on this, the only thread. There is no way back.
pub(super) fn install() -> Result<(), FilterError> {
    let allowing = allowing()?;
    let refusing = refusing()?;
    seccompiler::apply_filter(&refusing)?;
    seccompiler::apply_filter(&allowing)?;
    Ok(())
}

fn refusing() -> Result<BpfProgram, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule([has_bits(2, libc::PROT_EXEC)?])?]);
    }
    // The server has seen to it that its part of the exchange has pages.
    rules.insert(libc::SYS_madvise, vec![rule([equals(2, libc::MADV_REMOVE as u64)?])?]);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

fn allowing() -> Result<BpfProgram, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(REFUSED).map(|&call| (call, Vec::new())).collect();
    // The wire: messages on 0, last words on 2. The exchange is mapped.
    for (call, number) in [(libc::SYS_recvfrom, 0), (libc::SYS_sendto, 0), (libc::SYS_write, 2), (libc::SYS_writev, 2)]
    {
        rules.insert(call, vec![rule([equals(0, number)?])?]);
    }
    // Only memory of our own, never of a file.
    rules.insert(libc::SYS_mmap, vec![rule([has_bits(3, libc::MAP_ANONYMOUS)?])?]);
    // abort() signals its own process and no other.
    rules.insert(libc::SYS_tgkill, vec![rule([equals(0, std::process::id().into())?])?]);
    // Our own limit of CPU time, once a job.
    rules.insert(libc::SYS_prlimit64, vec![rule([equals(0, 0)?, equals(1, libc::RLIMIT_CPU.into())?])?]);
    // The self-test asks what is in force.
    let asked = [libc::PR_GET_NO_NEW_PRIVS, libc::PR_GET_SECCOMP];
    let asking = asked.map(|option| rule([equals(0, option as u64)?]));
    rules.insert(libc::SYS_prctl, asking.into_iter().collect::<Result<_, _>>()?);
    compile(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

/// The argument's low 32 bits, all that the kernel looks at in the calls above, are this number.
fn equals(argument: u8, number: u64) -> Result<SeccompCondition, FilterError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number)?)
}

fn has_bits(argument: u8, bits: i32) -> Result<SeccompCondition, FilterError> {
    let bits = bits as u64;
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)?)
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, FilterError> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// A program that answers `matched` to the calls in `rules` and `other` to all others.
fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    other: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let processor = TargetArch::try_from(std::env::consts::ARCH).map_err(FilterError::Processor)?;
    Ok(SeccompFilter::new(rules, other, matched, processor)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::ptr;

    use super::*;

    #[test]
    fn pages_of_shared_memory_cannot_be_taken_out() {
        // For the thread that installs it only.
        let tried = std::thread::spawn(|| {
            let bytes = 1 << 16;
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            // SAFETY: the kernel chooses a place where nothing is.
            let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
            assert_ne!(memory, libc::MAP_FAILED);
            // SAFETY: the memory is ours and nothing refers to it.
            let advise = |advice| match unsafe { libc::madvise(memory, bytes, advice) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error().kind()),
            };
            let before = advise(libc::MADV_REMOVE);
            seccompiler::apply_filter(&refusing().expect("a program")).expect("a kernel with seccomp");
            (before, advise(libc::MADV_REMOVE), advise(libc::MADV_DONTNEED))
        });
        let refused = Err(io::ErrorKind::PermissionDenied);
        assert_eq!(tried.join().expect("it lives"), (Ok(()), refused, Ok(())));
    }
}
