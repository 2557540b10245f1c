//! Trying the lock from inside.

use std::io;

use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::SecureComputingMode;

/// What was tried and refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    /// The kernel says that a filter is in force.
    pub(super) filtered: bool,
    pub(super) socket: bool,
    pub(super) open: bool,
    pub(super) exec: bool,
    pub(super) executable_memory: bool,
}

/// Tries what must not be possible. EPERM is the filter's answer; without it a socket would be made, a file opened or
/// refused with EACCES or EMFILE by the other walls, a missing program be ENOENT.
pub(super) fn try_the_lock() -> Refused {
    let socket = is_eperm(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None));
    let open = is_eperm(rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()));
    let exec = exec_is_refused();
    let filtered = matches!(rustix::thread::secure_computing_mode(), Ok(SecureComputingMode::Filter));
    Refused { filtered, socket, open, exec, executable_memory: executable_memory_is_refused() }
}

fn is_eperm<T>(result: rustix::io::Result<T>) -> bool {
    matches!(result, Err(rustix::io::Errno::PERM))
}

/// Of a program that does not exist: if the call went through, it would be another error and not another program.
fn exec_is_refused() -> bool {
    let arguments = [c"".as_ptr(), std::ptr::null()];
    // SAFETY: path, arguments and environment are terminated as execve wants them and outlive the call.
    unsafe { libc::execve(c"/nonexistent/framehook".as_ptr(), arguments.as_ptr(), arguments[1..].as_ptr()) };
    io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

fn executable_memory_is_refused() -> bool {
    let protection = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    // SAFETY: asks for fresh memory wherever the kernel likes, so nothing that is mapped changes; if it were granted, the
    // page would be left unused.
    let mapped = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, protection, MapFlags::PRIVATE) };
    is_eperm(mapped)
}
