//! HTTPS and RTMPS: a real encoder, a client that believes one authority, certificates that change, and peers that mean no
//! good.

#![expect(clippy::disallowed_methods, reason = "measures how long a peer was let be")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::{FRAMEHOOK, PATIENCE, check_snapshot, config, wait_for_snapshots};
use framehook_rtmp::handshake::RANDOM_BYTES;
use framehook_rtmp::{Client, ClientEvent, Publication};
use framehook_testkit::encoder::{self, Program, Source};
use framehook_testkit::http::{self, Connection};
use framehook_testkit::process::Process;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::tls::{Ca, Issued, TlsStream, shown};
use framehook_testkit::wait;
use tempfile::TempDir;

/// A server with a certificate, and where its files lie.
struct Scene {
    ca: Ca,
    issued: Issued,
    files: TempDir,
    receiver: Receiver,
    server: Server,
}

impl Scene {
    fn set(more: &str) -> Self {
        Self::set_as(Path::new(FRAMEHOOK), more)
    }

    fn set_as(executable: &Path, more: &str) -> Self {
        let (ca, files) = (Ca::new().unwrap(), TempDir::new().unwrap());
        let issued = ca.issue(2040).unwrap();
        write(files.path(), &issued);
        let receiver = Receiver::start().unwrap();
        let server = ServerSpec::new(executable).config(toml(files.path(), &receiver, more)).start().unwrap();
        Self { ca, issued, files, receiver, server }
    }

    fn https(&self) -> SocketAddr {
        self.server.addresses().https.unwrap()
    }

    fn rtmps(&self) -> SocketAddr {
        self.server.addresses().rtmps.unwrap()
    }

    fn push(&self, stream: &str) -> Process {
        let url = format!("rtmps://{}/live/{stream}?domain={}", self.rtmps(), common::DOMAIN);
        encoder::push(Program::Ffmpeg, Source::TestPicture, &url).unwrap()
    }

    /// What a new handshake is shown.
    fn shown_now(&self) -> Vec<u8> {
        shown(&self.ca.connect(self.https(), PATIENCE).unwrap()).unwrap()
    }

    fn readyz(&self) -> String {
        self.server.get("/readyz").unwrap().text()
    }
}

fn toml(files: &Path, receiver: &Receiver, more: &str) -> String {
    let tls = format!(
        "[tls]\ncert = {cert:?}\nkey = {key:?}\nhttps = \"127.0.0.1:0\"\nrtmps = \"127.0.0.1:0\"\n",
        cert = files.join("cert.pem"),
        key = files.join("key.pem"),
    );
    config(receiver, 2, &format!("{tls}{more}"))
}

/// Puts a pair in the place of another as the usual tools do: each file whole, one after the other.
fn write(files: &Path, issued: &Issued) {
    for (name, text) in [("cert.pem", &issued.cert), ("key.pem", &issued.key)] {
        let partial = files.join("partial");
        fs::write(&partial, text).unwrap();
        fs::rename(&partial, files.join(name)).unwrap();
    }
}

/// A connection whose reads and writes cannot hang.
fn connect(address: SocketAddr) -> TcpStream {
    http::connect(address, PATIENCE).unwrap()
}

#[test]
fn an_encoder_pushes_over_rtmps_and_the_callback_comes() {
    let scene = Scene::set("");
    let encoder = scene.push("room");
    let callbacks = wait_for_snapshots(&scene.receiver, 2).unwrap();
    for callback in &callbacks {
        check_snapshot(&scene.server, callback).unwrap_or_else(|error| panic!("{error:#}: {}", encoder.stderr()));
    }
    let metrics = scene.server.metrics().unwrap();
    assert!(metrics.sum("framehook_tls_handshakes_total", &[("outcome", "done")]) >= 1.0);
    assert!(metrics.sum("framehook_certificate_days", &[]) > 300.0);
}

#[test]
fn https_serves_what_http_serves_to_who_believes_the_authority() {
    let scene = Scene::set("");
    let stream = scene.ca.connect(scene.https(), PATIENCE).unwrap();
    let mut connection = Connection::over(stream, scene.https().to_string());
    assert_eq!(connection.request("GET", "/healthz", &[], b"").unwrap().text(), "ok\n");
    assert_eq!(connection.request("GET", "/v1/streams", &[], b"").unwrap().status, 401);
    let bearer = format!("Bearer {}", scene.server.credentials().unwrap().secret_key);
    let answer = connection.request("GET", "/v1/streams", &[("authorization", &bearer)], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The plain listener is still there, and an authority that nobody knows is not believed.
    assert_eq!(scene.server.get("/healthz").unwrap().status, 200);
    assert!(Ca::new().unwrap().connect(scene.https(), PATIENCE).is_err());
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let mut scene = Scene::set("");
    let _encoder = scene.push("room");
    wait_for_snapshots(&scene.receiver, 1).unwrap();
    let old = scene.ca.connect(scene.https(), PATIENCE).unwrap();
    assert_eq!(shown(&old).unwrap(), scene.issued.der);
    let mut old = Connection::over(old, scene.https().to_string());
    // An idle connection is closed after 10 s, whatever it was shown.
    let mut old_still_answers = || old.request("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200);

    // A pair that does not fit is told, and changes nothing.
    fs::write(scene.files.path().join("key.pem"), scene.ca.issue(2041).unwrap().key).unwrap();
    wait::until("a word about the bad pair", PATIENCE, || {
        (old_still_answers() && scene.readyz().contains("cannot be used")).then_some(())
    })
    .unwrap();
    scene.server.wait_for_log("certificate not reloaded", PATIENCE).unwrap();
    assert_eq!(scene.shown_now(), scene.issued.der);
    assert_eq!(scene.server.get("/readyz").unwrap().status, 200, "the old one still serves");

    // One that does is shown without a restart, nobody asking.
    let new = scene.ca.issue(2042).unwrap();
    write(scene.files.path(), &new);
    wait::until("the new certificate", PATIENCE, || {
        (old_still_answers() && scene.shown_now() == new.der).then_some(())
    })
    .unwrap();
    assert!(!scene.readyz().contains("cannot be used"), "{}", scene.readyz());
    assert!(old_still_answers());
    assert_eq!(shown(old.stream()).unwrap(), scene.issued.der);

    // At SIGHUP, at once.
    let newest = scene.ca.issue(2043).unwrap();
    write(scene.files.path(), &newest);
    scene.server.reload(&toml(scene.files.path(), &scene.receiver, "")).unwrap();
    wait::until("the newest certificate", PATIENCE, || (scene.shown_now() == newest.der).then_some(())).unwrap();

    // The publisher went on through all of it.
    let before = wait_for_snapshots(&scene.receiver, 1).unwrap().len();
    wait_for_snapshots(&scene.receiver, before + 1).unwrap();
    let pushes = scene.server.v1("GET", "/v1/streams", None).unwrap();
    assert_eq!((&pushes["streams"][0]["state"], &pushes["streams"][0]["sessions"]), (&"live".into(), &1.into()));
    assert_eq!(scene.server.log().matches("certificate not reloaded").count(), 1);
}

#[test]
fn who_does_not_speak_tls_sees_an_end_and_the_log_one_line() {
    let scene = Scene::set("");
    for address in [scene.https(), scene.rtmps()] {
        for _ in 0..5 {
            let mut stream = connect(address);
            stream.write_all(b"GET / HTTP/1.1\r\nhost: framehook\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            // An end: a reset would be an error.
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.is_empty());
        }
    }
    scene.server.wait_for_log("plaintext", PATIENCE).unwrap();
    assert_eq!(scene.server.log().matches("\"plaintext\"").count(), 1, "{}", scene.server.log());
    let counted = scene.server.metrics().unwrap();
    assert_eq!(counted.sum("framehook_tls_handshakes_total", &[("outcome", "plaintext")]), 10.0);
}

#[test]
fn peers_that_mean_no_good_are_cut_off_and_cost_others_nothing() {
    let scene = Scene::set("[ingest]\nhandshake_timeout = \"2s\"\n");
    let _encoder = scene.push("healthy");
    wait_for_snapshots(&scene.receiver, 1).unwrap();
    let before = peak_memory_bytes(&scene.server);

    // Hundreds that say nothing, hundreds that stop in the middle of their handshake, and rubbish.
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(scene.rtmps())).collect();
    let halves: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(scene.rtmps());
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
            stream
        })
        .collect();
    let mut rubbish = connect(scene.rtmps());
    rubbish.write_all(&[22; 4096]).unwrap();
    // None of them keeps another from being accepted.
    let mut polite = scene.ca.connect(scene.rtmps(), PATIENCE).unwrap();
    // RTMP's own limits hold inside: a message of 16 MB is refused when it is announced.
    polite.write_all(&[&[3][..], &[0; 2 * 1536]].concat()).unwrap();
    polite.read_exact(&mut [0; 1 + 2 * 1536]).unwrap();
    polite.write_all(&[3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 20, 0, 0, 0, 0, 0]).unwrap();
    until_cut(&rubbish);
    silent.iter().chain(&halves).for_each(until_cut);
    let mut rest = Vec::new();
    let ended = polite.read_to_end(&mut rest);
    assert!(ended.is_ok(), "the session's end is TLS's end as well: {ended:?}");

    let outcomes = scene.server.metrics().unwrap();
    let count = |outcome| outcomes.sum("framehook_tls_handshakes_total", &[("outcome", outcome)]);
    assert_eq!((count("timed_out"), count("failed")), (400.0, 1.0));
    let grown = peak_memory_bytes(&scene.server) - before;
    assert!(grown < 64 << 20, "401 peers cost {grown} bytes");
    let taken = wait_for_snapshots(&scene.receiver, 1).unwrap().len();
    wait_for_snapshots(&scene.receiver, taken + 1).unwrap();
    let streams = scene.server.v1("GET", "/v1/streams", None).unwrap();
    assert_eq!((&streams["streams"][0]["state"], &streams["streams"][0]["sessions"]), (&"live".into(), &1.into()));
}

/// Asks to publish over a private line and waits until that is accepted.
fn publish(line: &mut TlsStream, stream: &str) -> Client {
    let publication = Publication {
        tc_url: format!("rtmp://{}/live", common::DOMAIN),
        app: "live".to_owned(),
        stream: stream.to_owned(),
        flash_ver: String::new(),
        chunk_size: 4096,
    };
    let mut client = Client::new(publication, &[0x5a; RANDOM_BYTES]);
    let mut block = [0; 4096];
    while !client.is_publishing() {
        let sent = client.output().len();
        line.write_all(client.output()).and_then(|()| line.flush()).unwrap();
        client.consume_output(sent);
        let count = line.read(&mut block).unwrap();
        assert!(count > 0, "the server closed before it had answered");
        client.push(&block[..count], |event| assert_eq!(event, ClientEvent::Publishing)).unwrap();
    }
    client
}

#[test]
fn a_private_peer_that_falls_silent_is_let_go_in_time_and_a_publisher_told_why() {
    let scene = Scene::set("[ingest]\nhandshake_timeout = \"1s\"\nidle_timeout = \"2s\"\n");
    let started = Instant::now();
    // Private, and then not a word of RTMP.
    let mut mute = scene.ca.connect(scene.rtmps(), PATIENCE).unwrap();
    let mut line = scene.ca.connect(scene.rtmps(), PATIENCE).unwrap();
    let mut publisher = publish(&mut line, "room");
    // An end of TLS as well: a bare one of TCP, which anybody on the way could make, would be an error.
    mute.read_to_end(&mut Vec::new()).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));

    let mut rest = Vec::new();
    line.read_to_end(&mut rest).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    let mut told = None;
    publisher.push(&rest, |event| told = Some(event)).unwrap();
    assert!(
        matches!(&told, Some(ClientEvent::Refused { description, .. }) if description == "no data for a long time"),
        "{told:?}"
    );
    scene.server.wait_for_log("handshake_timeout", PATIENCE).unwrap();
    assert_eq!(scene.server.metrics().unwrap().sum("framehook_tls_handshakes_total", &[("outcome", "timed_out")]), 0.0);
}

/// A message that changes nothing, an acknowledgement, over and over, each of its bytes in a record of its own: 23 bytes of
/// the wire and a decryption for one byte of RTMP. Ends when the server has closed, and gives how many messages left.
fn trickle_in_a_flood(line: &mut TlsStream) -> usize {
    const ACKNOWLEDGEMENT: [u8; 16] = [2, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut hello = [&[3][..], &[0; 2 * 1536]].concat();
    line.write_all(&hello).and_then(|()| line.flush()).unwrap();
    line.read_exact(&mut hello).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut records, mut messages) = (Vec::new(), 0);
    loop {
        assert!(Instant::now() < deadline, "it was not cut off");
        for byte in ACKNOWLEDGEMENT.repeat(32) {
            assert_eq!(line.conn.writer().write(&[byte]).unwrap(), 1);
        }
        records.clear();
        while line.conn.wants_write() {
            line.conn.write_tls(&mut records).unwrap();
        }
        if line.sock.write_all(&records).is_err() {
            return messages;
        }
        messages += 32;
    }
}

#[test]
fn a_flood_of_tiny_records_stops_neither_the_others_nor_its_own_time_out() {
    // Sealing a record costs as much as opening it. A server that gives way to its peers finds its sockets full at every look,
    // as one does whose peers have a machine of their own.
    let wrapper = TempDir::new().unwrap();
    let yielding = wrapper.path().join("framehook");
    fs::write(&yielding, format!("#!/bin/bash\nexec nice -n 19 {FRAMEHOOK} \"$@\"\n")).unwrap();
    fs::set_permissions(&yielding, fs::Permissions::from_mode(0o755)).unwrap();
    let scene = Scene::set_as(&yielding, "[ingest]\nhandshake_timeout = \"3s\"\n");
    let _encoder = scene.push("healthy");
    wait_for_snapshots(&scene.receiver, 1).unwrap();
    // More than the server has threads: if each kept one, nobody would be left to fire a timer.
    let floods = 2 * thread::available_parallelism().unwrap().get();
    let started = Instant::now();
    thread::scope(|scope| {
        let flooding: Vec<_> = (0..floods)
            .map(|_| {
                let mut line = scene.ca.connect(scene.rtmps(), PATIENCE).unwrap();
                scope.spawn(move || trickle_in_a_flood(&mut line))
            })
            .collect();
        while flooding.iter().any(|flood| !flood.is_finished()) {
            assert_eq!(scene.server.get("/healthz").unwrap().status, 200);
        }
        assert!(started.elapsed() >= Duration::from_secs(3));
        for flood in flooding {
            assert!(flood.join().unwrap() > 100, "it was no flood");
        }
    });
    let taken = wait_for_snapshots(&scene.receiver, 1).unwrap().len();
    wait_for_snapshots(&scene.receiver, taken + 1).unwrap();
    let streams = scene.server.v1("GET", "/v1/streams", None).unwrap();
    assert_eq!((&streams["streams"][0]["state"], &streams["streams"][0]["sessions"]), (&"live".into(), &1.into()));
}

/// Reads until the server ends the connection, in whatever way.
fn until_cut(mut stream: &TcpStream) {
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("it was not cut off: {error}"),
        }
    }
}

/// The most memory that the server has had so far (`VmHWM` in `/proc/PID/status`, in KiB).
fn peak_memory_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn a_certificate_that_cannot_be_used_ends_the_start_by_name() {
    let files = TempDir::new().unwrap();
    let receiver = Receiver::start().unwrap();
    let (ca, spec) = (Ca::new().unwrap(), |text: String| ServerSpec::new(FRAMEHOOK).config(text));
    let failure = spec(toml(files.path(), &receiver, "")).start().unwrap_err().to_string();
    assert!(failure.contains("cert.pem") && failure.contains("exit status: 2"), "{failure}");
    write(files.path(), &Issued { key: ca.issue(2040).unwrap().key, ..ca.issue(2040).unwrap() });
    let failure = spec(toml(files.path(), &receiver, "")).start().unwrap_err().to_string();
    assert!(failure.contains("do not make a pair"), "{failure}");
    let half = toml(files.path(), &receiver, "").replace("\nkey = ", "\n# key = ");
    let failure = spec(half).start().unwrap_err().to_string();
    assert!(failure.contains("tls.key") && failure.contains("is required with tls.cert"), "{failure}");
}
