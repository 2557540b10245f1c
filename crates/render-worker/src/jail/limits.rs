//! Resource limits: of the process for its life, and of CPU time for each job.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use super::{JailError, step};
use crate::stopwatch::cpu_time_used;

/// Address space beyond what the process maps at its start. The largest picture, 35.6 million pixels in 4:2:0, takes 53 MB
/// in the decoder, as much again converted, and tables; 10 bits and 4:4:4 of half that size take as much. What asks for
/// more fails by itself, and an allocation bomb meets this wall.
const MEMORY_BYTES_MAX: u64 = 768 << 20;

/// CPU time of one job. The slowest real one, 2160p from lossless video at 100 MB/s of entropy coding, stays under 2 s.
const JOB_CPU_TIME: Duration = Duration::from_secs(10);

/// Sets the limits of a process that maps this much; gives the limit of its address space in bytes.
pub(super) fn set(mapped_bytes: u64) -> Result<u64, JailError> {
    let memory_bytes_max = mapped_bytes + MEMORY_BYTES_MAX;
    let limits = [
        (Resource::As, memory_bytes_max),
        // It holds for memory files too; the images go into a mapping of one.
        (Resource::Fsize, 0),
        // The three that are open already.
        (Resource::Nofile, 3),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    for (resource, limit) in limits {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        step("setting a resource limit", rustix::process::setrlimit(resource, limit))?;
    }
    Ok(memory_bytes_max)
}

/// Moves the limit of CPU time to what one job may take from now on. Past it the kernel kills the process, should the
/// server not have done so for its own deadline by then.
pub(crate) fn allow_job_time() -> io::Result<()> {
    let limit = job_limit(cpu_time_used(), rustix::process::getrlimit(Resource::Cpu).maximum);
    rustix::process::setrlimit(Resource::Cpu, limit).map_err(io::Error::from)
}

/// The hard limit stays: whoever started the server may have set one (`LimitCPU=`), and only root may raise it.
fn job_limit(used: Duration, maximum: Option<u64>) -> Rlimit {
    // The limit counts whole seconds.
    let limit = (used + JOB_CPU_TIME).as_secs() + 1;
    Rlimit { current: Some(maximum.map_or(limit, |maximum| limit.min(maximum))), maximum }
}

/// Bytes of address space in use: the first number of `statm`, in pages.
pub(super) fn mapped_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/statm is not understood"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gets_its_time_within_the_hard_limit() {
        let cases =
            [("no hard limit", None, 18), ("a distant one", Some(3600), 18), ("less than a job is left", Some(10), 10)];
        for (name, maximum, current) in cases {
            let limit = job_limit(Duration::from_millis(7_500), maximum);
            assert_eq!((limit.current, limit.maximum), (Some(current), maximum), "{name}");
        }
    }
}
