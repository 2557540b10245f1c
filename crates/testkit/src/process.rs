//! Child processes that never outlive the test: captured output, bounded waits, killed and reaped on drop.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::listener::lock;
use crate::wait;

/// How much captured text an error message repeats: enough for a panic and what led to it.
const LOG_TAIL_BYTES: usize = 4 << 10;

/// Lets this process, and those it starts from now on, open as many files as the system allows: a connection is one, and the
/// usual limit of 1,024 is less than a storm of publishers.
///
/// # Errors
/// When the system does not allow what it said it would.
pub fn raise_open_files_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit of open files")
}

/// A running child process. Its standard input is empty; what it prints is captured while it runs.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Process {
    /// Starts `command`. `name` is what errors call it.
    ///
    /// # Errors
    /// When the program cannot be started, for one because it is not installed.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        let stdout = Captured::read(child.stdout.take().expect("stdout is piped"));
        let stderr = Captured::read(child.stderr.take().expect("stderr is piped"));
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    /// The process id. Valid until the process has been waited for.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Everything printed to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The end of standard error, for error messages.
    pub fn stderr_tail(&self) -> String {
        let text = self.stderr();
        let from = text.len().saturating_sub(LOG_TAIL_BYTES);
        let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        text[from..].to_owned()
    }

    /// Waits until standard error contains `needle`.
    ///
    /// # Errors
    /// When it does not within `patience`; the message repeats the end of what was printed.
    pub fn wait_for_stderr(&self, needle: &str, patience: Duration) -> Result<()> {
        wait::until(&format!("{needle:?} from {}", self.name), patience, || {
            self.stderr().contains(needle).then_some(())
        })
        .with_context(|| format!("{} printed:\n{}", self.name, self.stderr_tail()))
    }

    /// The exit status, if the process has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the end of the process and of its output.
    ///
    /// # Errors
    /// When it still runs after `patience`. It is left running then; dropping it kills it.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = wait::until(&format!("the end of {}", self.name), patience, || child.try_wait().ok().flatten())
            .with_context(|| format!("{} printed:\n{}", self.name, self.stderr_tail()))?;
        // A grandchild may still hold the pipes, so the readers are joined only if they are done.
        for captured in [&mut self.stdout, &mut self.stderr] {
            captured.join_if_finished();
        }
        Ok(status)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has already been waited for or is not ours.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed()).context("a process id is never zero")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// SIGTERM, then a bounded wait.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.try_wait() {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(patience)
    }

    /// SIGKILL, then reaps it.
    ///
    /// # Errors
    /// When the kernel cannot be asked; a process that is already gone is no error.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("reap {}", self.name))
    }

    /// Its children, their children and so on, as they are now.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn descendants(&self) -> Result<Vec<Descendant>> {
        descendants_of(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is already gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that another one started. The start time keeps it apart from a later process with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descendant {
    pub pid: u32,
    pub command: String,
    /// Clock ticks since boot (`proc(5)`, `/proc/PID/stat` field 22).
    started_ticks: u64,
}

impl Descendant {
    /// Whether this very process still runs. A zombie, whose parent has yet to reap it, does not.
    pub fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started_ticks == self.started_ticks && stat.state != 'Z')
    }

    /// Sends a signal, for tests in which a child of the program under test hangs or goes on.
    ///
    /// # Errors
    /// When it is already gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid.cast_signed()).context("a process id is never zero")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {} ({})", self.command, self.pid))
    }

    /// Sends SIGKILL, for tests in which a child of the program under test dies.
    ///
    /// # Errors
    /// When it is already gone.
    pub fn kill9(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }
}

/// Waits until none of `processes` is left.
///
/// # Errors
/// Names the survivors after `patience`.
pub fn wait_until_gone(processes: &[Descendant], patience: Duration) -> Result<()> {
    wait::until("orphans to end", patience, || processes.iter().all(|process| !process.is_alive()).then_some(()))
        .map_err(|failure| {
            let survivors: Vec<_> = processes.iter().filter(|process| process.is_alive()).collect();
            anyhow!("{failure}; still alive: {survivors:?}")
        })
}

/// The children of a process, their children and so on, as they are now.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn descendants_of(pid: u32) -> Result<Vec<Descendant>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        if let Some(stat) = name.to_str().and_then(|name| name.parse().ok()).and_then(Stat::of) {
            all.push(stat);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for stat in all.iter().filter(|stat| stat.parent == parent) {
            parents.push(stat.pid);
            found.push(Descendant { pid: stat.pid, command: stat.command.clone(), started_ticks: stat.started_ticks });
        }
    }
    Ok(found)
}

/// The fields of `/proc/PID/stat` that are needed here.
struct Stat {
    pid: u32,
    command: String,
    state: char,
    parent: u32,
    started_ticks: u64,
}

impl Stat {
    /// `None` when there is no such process (any more).
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The command is in parentheses and may hold any byte, a closing parenthesis too, so the last one counts.
        let (head, tail) = line.rsplit_once(')')?;
        let (pid, command) = head.split_once(" (")?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Self {
            pid: pid.parse().ok()?,
            command: command.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

/// What a child prints to one pipe, read by a thread so that the child never waits for us.
#[derive(Debug)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut block = [0; 8 << 10];
            while let Ok(length @ 1..) = pipe.read(&mut block) {
                lock(&sink).extend_from_slice(&block[..length]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }

    fn join_if_finished(&mut self) {
        let finished = wait::until("the last output", Duration::from_millis(500), || {
            self.reader.as_ref().is_none_or(JoinHandle::is_finished).then_some(())
        });
        if finished.is_ok()
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::spawn("sh", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn captures_both_outputs_and_the_exit_code() {
        let mut process = shell("echo out; echo err >&2; exit 3");
        assert_eq!(process.wait(PATIENCE).unwrap().code(), Some(3));
        assert_eq!((process.stdout().as_str(), process.stderr().as_str()), ("out\n", "err\n"));
    }

    #[test]
    fn terminate_reports_a_process_that_ignores_it() {
        let mut process = shell("trap '' TERM; echo ready >&2; exec sleep 600");
        process.wait_for_stderr("ready", PATIENCE).unwrap();
        assert!(process.terminate(Duration::from_millis(50)).is_err());
        assert!(process.try_wait().is_none());
    }

    #[test]
    fn finds_descendants_and_sees_them_end() {
        let process = shell("sleep 600 & echo ready >&2; wait");
        process.wait_for_stderr("ready", PATIENCE).unwrap();
        let children = process.descendants().unwrap();
        let [child] = children.as_slice() else { panic!("one child expected, got {children:?}") };
        assert!(child.is_alive());
        assert!(wait_until_gone(&children, Duration::from_millis(20)).unwrap_err().to_string().contains("sleep"));
        child.kill9().unwrap();
        wait_until_gone(&children, PATIENCE).unwrap();
    }

    #[test]
    fn drop_kills_and_reaps() {
        let process = shell("echo ready >&2; exec sleep 600");
        process.wait_for_stderr("ready", PATIENCE).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(Stat::of(pid).is_none());
    }

    #[test]
    fn parses_a_command_with_parentheses() {
        let fields = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::parse(&format!("17 (a) (b)) S {fields}")).unwrap();
        assert_eq!((stat.pid, stat.command.as_str(), stat.state, stat.parent), (17, "a) (b)", 'S', 4));
        assert_eq!(stat.started_ticks, 22);
    }
}
