//! The pool with real workers; with small C programs in their place for what a real worker never does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use framehook_render_wire::{FromWorker, Hello, Outcome};
use rustix::process::{Pid, Signal};

use super::*;

/// Longer than any of these jobs takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a picture of 64x48, from the worker's own self-test.
fn job() -> RenderJob {
    let record = Bytes::from_static(include_bytes!("../../../render-worker/src/probe/h264.avcc"));
    let data = Bytes::from_static(include_bytes!("../../../render-worker/src/probe/h264.unit"));
    let config = Arc::new(DecoderConfig { codec: Codec::H264, record });
    RenderJob { config, data, renditions: vec![RenditionSpec::ORIGINAL] }
}

/// `framehook-render` of this build, made if need be: cargo builds only what a test's own package needs.
#[expect(clippy::disallowed_methods, reason = "cargo is started, and waited for")]
fn worker_executable() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let this = std::env::current_exe().expect("a test has an executable");
        let profile_dir = this.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
        let profile = profile_dir.file_name().expect("a profile has a name");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "framehook-render"]);
        build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
        build.arg("--target-dir").arg(profile_dir.parent().expect("it lies in target/PROFILE/deps"));
        build.arg("--profile").arg(if profile == "debug" { "dev".as_ref() } else { profile });
        assert!(build.status().expect("cargo starts").success(), "framehook-render builds");
        profile_dir.join("framehook-render")
    });
    built.clone()
}

fn one_worker(executable: PathBuf) -> RenderConfig {
    RenderConfig { workers: 1, executable: Some(executable), jail_required: true }
}

/// A pool of one real worker.
async fn pool() -> (Worker, PoolHealth) {
    let set = WorkerSet::start(&one_worker(worker_executable())).await.expect("a worker starts");
    let worker = set.workers.into_iter().next().expect("one was asked for");
    (worker, set.health)
}

fn pid(health: &PoolHealth) -> u32 {
    health.workers()[0].pid.expect("a process is up")
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the process is ours");
}

/// Dead *and* reaped: a zombie still has its entry.
fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Dead, but perhaps not reaped.
fn is_dead(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| status.contains("State:\tZ"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looked = async {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        while !holds() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect(what);
}

async fn renders(worker: &mut Worker) -> RenderedPicture {
    worker.render(&job(), Instant::now() + PATIENCE).await.expect("a whole picture")
}

#[tokio::test]
async fn a_worker_makes_images_and_tells_its_state() {
    let (mut worker, health) = pool().await;
    let mut job = job();
    job.renditions.push(RenditionSpec { width: 32, ..RenditionSpec::ORIGINAL });
    let picture = worker.render(&job, Instant::now() + PATIENCE).await.expect("a whole picture");
    assert_eq!(picture.facts.size, Size::new(64, 48));
    let sizes: Vec<Size> = picture.images.iter().map(|image| image.size).collect();
    assert_eq!(sizes, [Size::new(64, 48), Size::new(32, 24)]);
    assert!(
        picture.images.iter().all(|image| image.bytes.starts_with(b"\xff\xd8") && image.bytes.ends_with(b"\xff\xd9"))
    );

    let state = &health.workers()[0];
    assert!(state.ready && state.jail.is_some_and(|jail| jail.is_locked()), "{state:?}");
    assert_eq!((state.decoders.as_slice(), state.restarts, &state.last_error), (&[Codec::H264][..], 0, &None));
}

#[tokio::test]
async fn a_refusal_leaves_the_process_in_place() {
    let (mut worker, health) = pool().await;
    let before = pid(&health);
    let mut broken = job();
    broken.data = broken.data.slice(..100);
    let error = worker.render(&broken, Instant::now() + PATIENCE).await.expect_err("a cut unit");
    assert_eq!((error.reason(), error.fault()), ("corrupt", Fault::Peer));
    renders(&mut worker).await;
    assert_eq!(pid(&health), before);
}

#[tokio::test]
async fn a_giant_leaves_no_memory_behind_also_when_it_fails() {
    let (mut worker, _) = pool().await;
    let allocated = |worker: &Worker| match &worker.process {
        Process::Up(running) => running.exchange.allocated_bytes().expect("a file"),
        other => panic!("no process is up: {other:?}"),
    };
    renders(&mut worker).await;
    let ordinary = allocated(&worker);
    assert!(ordinary > 0);
    let giant = RenderJob { data: vec![0; 5 << 20].into(), ..job() };
    let error = worker.render(&giant, Instant::now() + PATIENCE).await.expect_err("it is no picture");
    assert_eq!(error.reason(), "corrupt");
    assert_eq!(allocated(&worker), 0);
    renders(&mut worker).await;
    assert_eq!(allocated(&worker), ordinary);
}

#[tokio::test]
async fn a_job_beyond_the_wires_limits_is_refused_without_a_worker() {
    let (mut worker, health) = pool().await;
    let before = pid(&health);
    for (data, renditions) in [
        (Bytes::from(vec![0; framehook_render_wire::UNIT_BYTES_MAX + 1]), 1),
        (Bytes::new(), 1),
        (job().data, RENDITIONS_MAX + 1),
        (job().data, 0),
    ] {
        let job = RenderJob { data, renditions: vec![RenditionSpec::ORIGINAL; renditions], ..job() };
        let error = worker.render(&job, Instant::now() + PATIENCE).await.expect_err("too much or nothing");
        assert!(matches!(error, RenderError::JobRefused(_)), "{error:?}");
    }
    assert_eq!(pid(&health), before);
}

#[tokio::test]
async fn a_hanging_worker_is_killed_at_the_deadline_and_replaced() {
    let (mut worker, health) = pool().await;
    let hanging = pid(&health);
    signal(hanging, Signal::STOP);
    let error = worker.render(&job(), Instant::now() + Duration::from_millis(200)).await.expect_err("it hangs");
    assert_eq!(error, RenderError::TimedOut);
    assert!(is_gone(hanging));
    assert!(!health.workers()[0].ready);

    renders(&mut worker).await;
    assert_ne!(pid(&health), hanging);
    assert_eq!(health.workers()[0].restarts, 1);
}

#[tokio::test]
async fn a_crash_costs_the_job_and_nothing_else() {
    let (mut worker, health) = pool().await;
    for crash in 1..=3 {
        let crashing = pid(&health);
        // Held, so that the job is still there when the crash comes.
        signal(crashing, Signal::STOP);
        let job = job();
        let (result, ()) = tokio::join!(worker.render(&job, Instant::now() + PATIENCE), async {
            signal(crashing, Signal::ABORT);
            signal(crashing, Signal::CONT);
        });
        let expected = RenderError::WorkerCrashed { signal: Some(Signal::ABORT.as_raw()), last_words: String::new() };
        assert_eq!(result.expect_err("it crashed"), expected);
        assert!(is_gone(crashing));
        renders(&mut worker).await;
        assert_eq!(health.workers()[0].restarts, crash);
    }
}

#[tokio::test]
async fn a_death_without_a_job_costs_no_job() {
    let (mut worker, health) = pool().await;
    let first = pid(&health);
    signal(first, Signal::KILL);
    until("the first process dies", || is_dead(first)).await;
    renders(&mut worker).await;
    assert!(is_gone(first));

    let second = pid(&health);
    signal(second, Signal::KILL);
    tokio::select! {
        never = worker.stay_ready() => match never {},
        () = until("a new process", || health.workers()[0].pid.is_some_and(|pid| pid != second)) => {}
    }
    assert!(is_gone(second));
    assert_eq!(health.workers()[0].restarts, 2);

    // Seen by nobody: the runtime has been told that there is nothing on the socket, and gets no turn to hear of the end.
    let third = pid(&health);
    assert!(tokio::time::timeout(Duration::from_millis(1), worker.stay_ready()).await.is_err());
    signal(third, Signal::KILL);
    while !is_dead(third) {
        std::thread::yield_now();
    }
    renders(&mut worker).await;
    assert!(is_gone(third));
    assert_eq!(health.workers()[0].restarts, 3);
}

#[tokio::test]
async fn a_start_goes_on_although_each_pick_drops_the_wait_for_it() {
    let (mut worker, health) = pool().await;
    let first = pid(&health);
    signal(first, Signal::KILL);
    let is_back = || health.workers()[0].pid.is_some_and(|pid| pid != first);
    let picks = async {
        while !is_back() {
            // Far shorter than a process takes to start.
            let _ = tokio::time::timeout(Duration::from_millis(1), worker.stay_ready()).await;
        }
    };
    tokio::time::timeout(PATIENCE, picks).await.expect("a new process");
    assert_eq!(health.workers()[0].restarts, 1, "the death was counted");
}

#[tokio::test]
async fn a_dropped_render_does_not_answer_the_next_one() {
    let (mut worker, health) = pool().await;
    let abandoned = pid(&health);
    signal(abandoned, Signal::STOP);
    let job = job();
    let render = worker.render(&job, Instant::now() + PATIENCE);
    assert!(tokio::time::timeout(Duration::from_millis(100), render).await.is_err(), "it hangs");
    renders(&mut worker).await;
    assert!(is_gone(abandoned));
}

#[tokio::test]
async fn dropping_the_pool_leaves_no_process() {
    let config = RenderConfig { workers: 3, ..one_worker(worker_executable()) };
    let set = WorkerSet::start(&config).await.expect("three workers start");
    let pids: Vec<u32> = set.health.workers().iter().filter_map(|worker| worker.pid).collect();
    assert_eq!(pids.len(), 3);
    drop(set);
    until("all are reaped", || pids.iter().all(|&pid| is_gone(pid))).await;
}

#[tokio::test]
async fn a_worn_process_is_replaced_without_a_complaint() {
    let (mut worker, health) = pool().await;
    let worn = pid(&health);
    worker.jobs_done = JOBS_PER_PROCESS_MAX;
    renders(&mut worker).await;
    assert_ne!(pid(&health), worn);
    assert!(is_gone(worn));
    assert_eq!((health.workers()[0].restarts, worker.jobs_done), (0, 1));
}

#[test]
fn waits_grow_to_a_second_and_no_further() {
    let waits: Vec<u64> = (0..8).map(|ends| respawn_wait(ends).as_millis() as u64).collect();
    assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1000, 1000]);
    assert_eq!(respawn_wait(u32::MAX), RESPAWN_WAIT_MAX);
}

#[tokio::test]
async fn a_missing_executable_is_named() {
    let error = WorkerSet::start(&one_worker("/nowhere/framehook-render".into())).await.expect_err("nothing there");
    assert_eq!(error.to_string(), "the render worker was not found at /nowhere/framehook-render");
}

/// A program that says these messages, one at its start and one more for each that it hears, then waits to be killed.
#[expect(clippy::disallowed_methods, reason = "the C compiler is started, and waited for")]
fn stand_in(dir: &Path, messages: &[Vec<u8>]) -> PathBuf {
    let mut source = "#include <sys/socket.h>\n#include <unistd.h>\nint main(void) { char heard[4096];\n".to_owned();
    for message in messages {
        let bytes: Vec<String> = message.iter().map(u8::to_string).collect();
        source += &format!("{{ unsigned char m[] = {{{}}}; send(0, m, sizeof m, 0); }}\n", bytes.join(","));
        source += "if (recv(0, heard, sizeof heard, 0) <= 0) return 0;\n";
    }
    source += "for (;;) pause(); }\n";
    let (path, executable) = (dir.join("stand-in.c"), dir.join("stand-in"));
    fs::write(&path, source).expect("room for a file");
    let built = Command::new("cc").arg("-o").arg(&executable).arg(&path).status().expect("a C compiler");
    assert!(built.success());
    executable
}

fn hello(jail: JailReport) -> Vec<u8> {
    let hello = Hello { pid: 1, decoders: vec![Codec::H264], library: "none".to_owned(), jail };
    FromWorker::Hello(hello).write().expect("a valid hello")
}

const LOCKED: JailReport = JailReport {
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
};

async fn spawn_error(config: RenderConfig) -> SpawnError {
    match WorkerSet::start(&config).await.expect_err("not a worker") {
        StartError::Spawn { source, .. } => *source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_of_another_version_is_refused() {
    let dir = tempfile::tempdir().expect("room for a directory");
    let mut other_version = hello(LOCKED);
    other_version[0] = 200;
    let error = spawn_error(one_worker(stand_in(dir.path(), &[other_version]))).await;
    assert!(matches!(error, SpawnError::Hello(WireError::Version { theirs: 200, .. })), "{error:?}");
}

#[tokio::test]
async fn a_worker_that_is_not_locked_in_is_refused_unless_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("room for a directory");
    let open = stand_in(dir.path(), &[hello(JailReport { socket_refused: false, ..LOCKED })]);
    let error = spawn_error(one_worker(open.clone())).await;
    assert!(matches!(error, SpawnError::NotLocked(_)), "{error:?}");
    let config = RenderConfig { jail_required: false, ..one_worker(open) };
    WorkerSet::start(&config).await.expect("--unsafe-no-jail takes what it gets");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_never_says_hello_is_given_up() {
    let dir = tempfile::tempdir().expect("room for a directory");
    // The paused clock jumps to the time-out as soon as nothing else is left to do.
    let error = spawn_error(one_worker(stand_in(dir.path(), &[]))).await;
    assert!(matches!(error, SpawnError::Silent), "{error:?}");
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_told_with_its_words() {
    let error = spawn_error(one_worker("/bin/ls".into())).await;
    let SpawnError::Ended(words) = error else { panic!("{error:?}") };
    assert!(words.contains("--worker"), "ls complains of the option: {words}");
}

#[tokio::test]
async fn an_answer_that_breaks_the_rules_ends_the_process() {
    let failed = |job_id| {
        let failure = Failure { reason: FailureReason::Corrupt, detail: String::new() };
        FromWorker::Outcome(Outcome { job_id, result: Err(failure) }).write().expect("a valid outcome")
    };
    let cases = [
        ("another job's", failed(7)),
        ("a second hello", hello(LOCKED)),
        ("noise", vec![1, 2, 3]),
        ("long", vec![0; 5000]),
    ];
    for (kind, answer) in cases {
        let dir = tempfile::tempdir().expect("room for a directory");
        let executable = stand_in(dir.path(), &[hello(LOCKED), answer]);
        let set = WorkerSet::start(&one_worker(executable)).await.expect("it says hello");
        let mut worker = set.workers.into_iter().next().expect("one was asked for");
        let error = worker.render(&job(), Instant::now() + PATIENCE).await.expect_err(kind);
        assert!(matches!(error, RenderError::WorkerBroken(_)), "{kind}: {error:?}");
        assert!(matches!(worker.process, Process::Absent), "{kind}");
    }
}
