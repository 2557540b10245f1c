//! Real encoders against the session: the handshake that only ffmpeg's player checks, and what each shows of a refusal.
//! The table at `command::status` is what these tests print when they fail.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
    thread::{self, JoinHandle},
    time::Duration,
};

use framehook_rtmp::{Limits, Phase, Session, command::status, handshake::RANDOM_BYTES};

const REASON: &str = "18/301: push domain is not known";

/// Serves one connection that refuses to publish, and ends when the encoder closes or after ten seconds of silence.
fn refusing_server() -> (SocketAddr, JoinHandle<Phase>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            session.push(&buffer[..count], |_| {}).unwrap();
            session.refuse_publish(status::PUBLISH_DENIED, REASON);
            if socket.write_all(session.output()).is_err() {
                break;
            }
            session.consume_output(session.output().len());
        }
        session.phase()
    };
    (address, thread::spawn(serve))
}

/// What the encoder prints and how the session ends. `@` in the arguments stands for the server's address.
#[expect(clippy::disallowed_methods, reason = "the encoder is a program of its own, and `output` waits for its end")]
fn run(program: &str, arguments: &str) -> (String, Phase) {
    let (address, server) = refusing_server();
    let arguments = arguments.replace('@', &format!("rtmp://{address}"));
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed for this test: {error}"));
    assert!(!output.status.success(), "{program} must notice the refusal");
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), server.join().unwrap())
}

#[test]
fn ffmpeg_checks_our_digest_when_it_plays() {
    let (said, phase) = run("ffmpeg", "-nostdin -i @/live/name -f null -");
    // It says "Server response validating failed" if the digest is wrong, and then never asks to play.
    assert!(said.contains("Server error: this server takes streams and plays none"), "{said}");
    assert_eq!(phase, Phase::Publish);
}

#[test]
fn encoders_show_why_they_are_refused() {
    let ffmpeg = "-nostdin -f lavfi -i testsrc2=s=160x90:r=25 -t 10 -c:v libx264 -f flv @/live/name";
    let gstreamer = "videotestsrc num-buffers=250 ! video/x-raw,width=160,height=90,framerate=25/1 \
                     ! x264enc ! h264parse ! flvmux streamable=true !";
    let cases = [
        ("ffmpeg", ffmpeg.to_string(), format!("Server error: {REASON}")),
        ("gst-launch-1.0", format!("{gstreamer} rtmp2sink location=@/live/name"), REASON.to_string()),
        // librtmp keeps the reason to itself, but stops at once.
        ("gst-launch-1.0", format!("{gstreamer} rtmpsink location=@/live/name"), "Could not open resource".into()),
    ];
    for (program, arguments, shown) in cases {
        let (said, phase) = run(program, &arguments);
        assert!(said.contains(&shown), "{program} {arguments}: {said}");
        assert_eq!(phase, Phase::Ended);
    }
}
