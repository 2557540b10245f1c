//! The jail as seen from outside: what a worker says of it, what the kernel says of it, and that it ends.

#![expect(clippy::disallowed_methods, reason = "a test starts workers itself")]

mod support;

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use framehook_render_wire::{Codec, FromWorker, Job, RenditionSpec, ToWorker};
use framehook_testkit::wait;
use support::{Worker, command, first_entry_point, short};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_self_test_shows_that_all_holds() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_framehook-render")).arg("--self-test").output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for line in [
        "no_new_privs: yes",
        "seccomp filter: yes",
        "socket refused: yes",
        "open refused: yes",
        "exec refused: yes",
        "executable memory refused: yes",
        "decoders that work in it: h264 (libavcodec ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line:?} is missing in {text}");
    }
    Ok(())
}

#[test]
fn a_worker_says_that_it_is_locked_in() -> Result<()> {
    let worker = Worker::start()?;
    assert!(worker.hello.jail.is_locked(), "{:?}", worker.hello.jail);
    assert!(!worker.hello.jail.disabled);
    assert_eq!(worker.hello.decoders, [Codec::H264]);
    assert_eq!(worker.hello.pid, worker.child.id());
    Ok(())
}

#[test]
fn the_kernel_says_so_too() -> Result<()> {
    let mut worker = Worker::start()?;
    let (_, entry) = first_entry_point(&short(320, 180))?;
    worker.picture(&entry)?;
    let process = format!("/proc/{}", worker.child.id());
    let status = fs::read_to_string(format!("{process}/status"))?;
    let field = |name: &str| -> Result<String> {
        let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line.split_whitespace().nth(1).unwrap_or_default().to_owned())
    };
    assert_eq!((field("NoNewPrivs:")?.as_str(), field("Seccomp:")?.as_str()), ("1", "2"));
    assert_eq!((field("Threads:")?.as_str(), field("CapEff:")?.as_str()), ("1", "0000000000000000"));
    assert_eq!(field("Uid:")?, worker.hello.jail.uid.to_string());
    assert_ne!(field("Uid:")?, "0", "root was given up");

    let limits = fs::read_to_string(format!("{process}/limits"))?;
    let soft = |name: &str| -> Result<u64> {
        let line = limits.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line[name.len()..].split_whitespace().next().unwrap_or_default().parse()?)
    };
    assert_eq!(soft("Max open files")?, 3);
    assert_eq!(soft("Max processes")?, 0);
    assert_eq!(soft("Max core file size")?, 0);
    assert_eq!(soft("Max file size")?, 0);
    assert_eq!(soft("Max address space")?, worker.hello.jail.memory_bytes_max);
    assert!((10..20).contains(&soft("Max cpu time")?), "set anew for each job: {limits}");
    Ok(())
}

#[test]
fn a_descriptor_that_leaks_into_a_worker_is_closed() -> Result<()> {
    let (mut reader, writer) = std::io::pipe()?;
    // Without the close-on-exec flag, so that the child is born with it.
    let leaked = rustix::io::dup(&writer)?;
    drop(writer);
    let worker = Worker::start()?;
    drop(leaked);
    // Every writing end is gone although the worker lives.
    let mut nothing = Vec::new();
    reader.read_to_end(&mut nothing)?;
    assert_eq!(worker.child.id(), worker.hello.pid);
    Ok(())
}

#[test]
fn a_worker_ends_with_its_socket() -> Result<()> {
    let (mut command, socket, _exchange) = command()?;
    let mut child = command.spawn()?;
    drop(command);
    receive(&socket)?.context("a hello")?;
    drop(socket);
    let status = wait::until("the worker's end", PATIENCE, || child.try_wait().ok().flatten())?;
    assert!(status.success(), "it leaves by itself: {status:?}");
    Ok(())
}

#[test]
fn a_worker_leaves_on_a_message_that_it_does_not_understand() -> Result<()> {
    let job =
        Job { id: 1, codec: Codec::H264, config_bytes: 1, unit_bytes: 1, renditions: vec![RenditionSpec::ORIGINAL] };
    let mut other_version = ToWorker::Job(job).write()?;
    other_version[0] = 99;
    for (message, words) in [(&other_version[..], "speaks wire version 99"), (b"nonsense", "was not understood")] {
        let mut worker = Worker::start()?;
        worker.send_raw(message)?;
        let status = wait::until("the worker's end", PATIENCE, || worker.child.try_wait().ok().flatten())?;
        assert_eq!(status.code(), Some(1));
        assert!(worker.last_words().contains(words), "{}", worker.last_words());
    }
    Ok(())
}

#[test]
fn a_worker_dies_with_its_parent() -> Result<()> {
    let (_, socket, exchange) = command()?;
    // The shell is the parent; our end of the socket stays open, so only the signal can end the worker.
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    drop(socket);
    let script = format!("{} --worker --parent $$; true", env!("CARGO_BIN_EXE_framehook-render"));
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(exchange))
        .stderr(Stdio::null())
        .spawn()?;
    let hello = receive(&ours)?;
    let Some(FromWorker::Hello(hello)) = hello else { anyhow::bail!("no hello: {hello:?}") };
    ensure!(fs::exists(format!("/proc/{}", hello.pid))?, "the worker lives");
    shell.kill()?;
    shell.wait()?;
    assert!(receive(&ours)?.is_none(), "the worker's end of the socket closes");
    Ok(())
}

/// `None` at the end of the socket.
fn receive(socket: &OwnedFd) -> Result<Option<FromWorker>> {
    let mut buffer = [0; 4096];
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], rustix::net::RecvFlags::empty())?;
    Ok(if length == 0 { None } else { Some(FromWorker::parse(&buffer[..length])?) })
}

#[test]
fn a_worker_whose_parent_is_gone_does_not_start() -> Result<()> {
    let (_, _socket, exchange) = command()?;
    let output = Command::new(env!("CARGO_BIN_EXE_framehook-render"))
        .args(["--worker", "--parent", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::from(exchange))
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("the parent is gone already"), "{words}");
    Ok(())
}

#[test]
fn without_its_jail_a_worker_says_so_loudly() -> Result<()> {
    let (mut command, socket, _exchange) = command()?;
    command.arg("--unsafe-no-jail");
    let mut child = command.spawn()?;
    drop(command);
    let Some(FromWorker::Hello(hello)) = receive(&socket)? else { anyhow::bail!("no hello") };
    assert!(hello.jail.disabled && !hello.jail.is_locked());
    drop(socket);
    let mut words = String::new();
    child.stderr.take().context("a pipe")?.read_to_string(&mut words)?;
    assert!(words.contains("WITHOUT its jail"), "{words}");
    assert!(child.wait()?.success());
    Ok(())
}

#[test]
fn arguments_that_mean_nothing_are_refused_with_a_usage() -> Result<()> {
    for arguments in [&[][..], &["--worker"], &["--self-test", "now"], &["-x"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_framehook-render")).args(arguments).output()?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--self-test"), "{arguments:?}");
    }
    Ok(())
}
