//! A group of processes, and what they use together: CPU time and memory.
//!
//! A control group where one can be made (it counts in nanoseconds and forgets nobody), else the family tree in `/proc`
//! (clock ticks of 10 ms; a child's time is found in its parent's once it has been waited for).

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use framehook_testkit::process::Process;
use framehook_testkit::wait;
use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Where the CPU time of a group is read.
#[derive(Debug)]
pub(crate) enum Group {
    Control(ControlGroup),
    Tree,
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        ControlGroup::new(name).map_or(Self::Tree, Self::Control)
    }

    /// For the report.
    pub(crate) fn accounting(&self) -> &'static str {
        match self {
            Self::Control(group) => group.version.name(),
            Self::Tree => "/proc/PID/stat of the process tree",
        }
    }

    /// Calls `start`, and what it starts belongs to the group, with all its children.
    pub(crate) fn enter<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        let Self::Control(group) = self else { return start() };
        // A child is born into its parent's group, so we step in for a moment. No code may run between fork and exec
        // here: that would need `unsafe`.
        move_self(&group.folder)?;
        let started = start();
        move_self(&group.home)?;
        started
    }

    /// The members now: `root` and all that it has started.
    pub(crate) fn members(&self, root: &Process) -> Result<Vec<u32>> {
        match self {
            Self::Control(group) => group.members(),
            Self::Tree => {
                let below = root.descendants()?;
                Ok(below.into_iter().map(|process| process.pid).chain([root.pid()]).collect())
            }
        }
    }

    /// CPU time used so far, user and system, those who have ended included.
    pub(crate) fn cpu(&self, root: &Process) -> Result<Duration> {
        match self {
            Self::Control(group) => group.cpu(),
            Self::Tree => {
                let ticks: u64 = self.members(root)?.into_iter().filter_map(ticks_with_children).sum();
                Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
            }
        }
    }

    /// Proportional set size in bytes: pages that n processes share count 1/n for each.
    pub(crate) fn memory_bytes(&self, root: &Process) -> Result<u64> {
        Ok(self.members(root)?.into_iter().filter_map(pss_bytes).sum())
    }

    /// Ends everybody who is left.
    pub(crate) fn kill(&self, root: &Process) -> Result<()> {
        let members = self.members(root)?;
        for &member in &members {
            if let Some(pid) = Pid::from_raw(member.cast_signed()) {
                // It may have ended by itself since we looked.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        wait::until("the measured processes to end", END_PATIENCE, || {
            members.iter().all(|&member| !is_alive(member)).then_some(())
        })
    }
}

/// A control group of our own.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    folder: PathBuf,
    /// The group this process came from.
    home: PathBuf,
    version: Version,
    _guard: Guard,
}

/// Ends a group and its processes with its owner, even where that is killed and runs no destructor: a shell that waits
/// for the end of a pipe of which only the owner holds the other end.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    const SCRIPT: &str = r#"
        read -r never
        while [ -d "$0" ] && ! rmdir "$0" 2>/dev/null; do
            while read -r member; do kill -KILL "$member"; done <"$0/cgroup.procs"
            sleep 0.1
        done"#;

    fn watch(group: &Path) -> Option<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", Self::SCRIPT]).arg(group).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for everybody in the terminal's process group, and must not end the one who cleans up.
        shell.process_group(0);
        shell.spawn().ok().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[derive(Clone, Copy, Debug)]
enum Version {
    /// `cpu.stat` is there even where no controller is enabled.
    Two,
    /// The `cpuacct` controller of version 1.
    One,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::Two => "control group, cpu.stat",
            Self::One => "control group, cpuacct.usage",
        }
    }
}

impl ControlGroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        [Version::Two, Version::One].into_iter().find_map(|version| {
            let home = home(version, &mounts, &memberships)?;
            let folder = home.join(format!("framehook-bench-{}-{name}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let guard = Guard::watch(&folder)?;
            let group = Self { folder, home, version, _guard: guard };
            // Making the folder may be allowed where moving is not.
            let usable = move_self(&group.folder).and_then(|()| move_self(&group.home)).and_then(|()| group.cpu());
            usable.is_ok().then_some(group)
        })
    }

    fn members(&self) -> Result<Vec<u32>> {
        let text = fs::read_to_string(self.folder.join("cgroup.procs")).context("list the control group")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn cpu(&self) -> Result<Duration> {
        match self.version {
            Version::Two => {
                let text = fs::read_to_string(self.folder.join("cpu.stat")).context("read cpu.stat")?;
                let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
                Ok(Duration::from_micros(used.trim().parse().context("usage_usec")?))
            }
            Version::One => {
                let text = fs::read_to_string(self.folder.join("cpuacct.usage")).context("read cpuacct.usage")?;
                Ok(Duration::from_nanos(text.trim().parse().context("cpuacct.usage")?))
            }
        }
    }
}

fn move_self(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("move into {}", group.display()))
}

/// The folder of the group that this process is in.
fn home(version: Version, mounts: &str, memberships: &str) -> Option<PathBuf> {
    let mounted_at = mounts.lines().find_map(|line| {
        let [_, at, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let fits = match version {
            Version::Two => kind == "cgroup2",
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "cpuacct"),
        };
        fits.then_some(at)
    })?;
    let path = memberships.lines().find_map(|line| {
        let [number, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { return None };
        let fits = match version {
            Version::Two => number == "0" && controllers.is_empty(),
            Version::One => controllers.split(',').any(|controller| controller == "cpuacct"),
        };
        fits.then_some(path)
    })?;
    Some(Path::new(mounted_at).join(path.trim_start_matches('/')))
}

/// User and system time of a process and of the children it has waited for (`proc(5)`, fields 14 to 17), in clock
/// ticks.
fn ticks_with_children(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command is in parentheses and may hold any byte; the fields behind it start with the third.
    let (_, tail) = stat.rsplit_once(')')?;
    tail.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

fn pss_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Whether it still runs. A zombie does not: the root stays one until its handle is dropped.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, tail)| !tail.starts_with('Z'))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// A test that enters a control group takes the whole test process along, and what others start meanwhile would end with it.
    static STARTING: Mutex<()> = Mutex::new(());

    /// To be held by a test as long as it starts processes.
    pub(crate) fn starting() -> MutexGuard<'static, ()> {
        STARTING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn finds_its_own_group_in_either_version() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let memberships = "3:cpu,cpuacct:/a/b\n1:name=systemd:/c\n0::/d.slice/e\n";
        let one = home(Version::One, mounts, memberships).unwrap();
        assert_eq!(one, Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        let two = home(Version::Two, mounts, memberships).unwrap();
        assert_eq!(two, Path::new("/sys/fs/cgroup/unified/d.slice/e"));
        assert_eq!(home(Version::Two, "proc /proc proc rw 0 0\n", memberships), None);
    }

    /// Starts a shell whose child burns CPU time, and looks at it through `group` until a tenth of a second is counted.
    fn counts_what_a_child_burns(group: &Group) {
        let burn = "sh -c 'while :; do :; done' & echo on >&2; wait";
        let root = group.enter(|| Process::spawn("sh", Command::new("sh").args(["-c", burn]))).unwrap();
        root.wait_for_stderr("on", END_PATIENCE).unwrap();
        wait::until("a tenth of a second", Duration::from_secs(30), || {
            (group.cpu(&root).unwrap() >= Duration::from_millis(100)).then_some(())
        })
        .unwrap();
        let members = group.members(&root).unwrap();
        assert_eq!(members.len(), 2);
        assert!(group.memory_bytes(&root).unwrap() > 0);
        group.kill(&root).unwrap();
        assert!(members.iter().all(|&member| !is_alive(member)));
    }

    // One test, because entering a control group takes the whole test process along.
    #[test]
    fn counts_a_tree_and_a_control_group_which_ends_with_its_owner() {
        let _starting = starting();
        counts_what_a_child_burns(&Group::Tree);
        let group = Group::new("test");
        counts_what_a_child_burns(&group);

        if matches!(group, Group::Control(_)) {
            let sleep = &mut Command::new("sleep");
            let mut member = group.enter(|| Process::spawn("sleep", sleep.arg("600"))).unwrap();
            drop(group);
            member.wait(END_PATIENCE).unwrap();
        }
    }
}
