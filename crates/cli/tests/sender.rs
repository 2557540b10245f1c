//! The sender of callbacks against servers and a proxy that are not ours: nginx and Node.js over HTTP/2, certificates that are
//! good for nothing, tinyproxy.
//!
//! What is not installed fails its test; `./dev test sender` installs it.

#![expect(clippy::disallowed_methods, reason = "starts the programs that it tests with")]

mod common;
#[path = "common/nginx.rs"]
mod nginx;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use common::{DOMAIN, FRAMEHOOK, PATIENCE, config_for, push_once, secure_config};
use framehook_testkit::process::Process;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::tls::{Ca, Issued};
use framehook_testkit::wait;
use nginx::{INSTALL, Nginx, free_port, program, wait_until_listening};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Attempts follow each other at once, so that a test need not wait for one that can succeed.
const IMPATIENT: &str = "[deliver]\nsnapshot_retry_interval = \"100ms\"\nsnapshot_retries = 100\n\
    push_retry_interval = \"100ms\"\npush_retries = 100\n";

/// `sender/receiver.mjs`.
struct Node {
    process: Process,
    address: SocketAddr,
}

impl Node {
    fn start(host: Ipv4Addr, issued: &Issued, public_key: Option<&str>) -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        let order = json!({ "host": host, "cert": issued.cert, "key": issued.key, "publicKey": public_key });
        fs::write(&file, order.to_string())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sender/receiver.mjs");
        let mut process = Process::spawn("node", Command::new("node").arg(script).arg(file.path())).context(INSTALL)?;
        let port = wait::until("the receiver's port", PATIENCE, || {
            let ended = process.try_wait().map(|status| Err(anyhow::anyhow!("{status}: {}", process.stderr())));
            let port = || Some(lines(&process).first()?["port"].as_u64()? as u16);
            ended.or_else(|| port().map(Ok))
        })??;
        Ok(Self { process, address: SocketAddr::from((host, port)) })
    }

    fn requests(&self) -> Vec<Value> {
        lines(&self.process).split_off(1)
    }

    fn wait_for(&self, count: usize) -> Result<Vec<Value>> {
        wait::until(&format!("{count} callbacks"), PATIENCE, || {
            let requests = self.requests();
            (requests.len() >= count).then_some(requests)
        })
    }
}

fn lines(process: &Process) -> Vec<Value> {
    process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// [`config_for`] without callbacks, which a test arranges by `/v1`; with a callback template of its own.
fn serve_for(receiver: SocketAddr, template: Value) -> Result<(Server, String)> {
    let text = config_for(receiver, 10, IMPATIENT);
    let (head, rest) = text.split_once("[[callback_template]]").context("a callback template")?;
    let (_, rules) = rest.split_once("[[snapshot_rule]]").context("a rule")?;
    let (snapshot_rule, _) = rules.split_once("[[callback_rule]]").context("a rule")?;
    let server = ServerSpec::new(FRAMEHOOK).config(format!("{head}[[snapshot_rule]]{snapshot_rule}")).start()?;
    let made = server.v1("POST", "/v1/callback-templates", Some(&template))?;
    server.v1("POST", "/v1/callback-rules", Some(&json!({ "domain": DOMAIN, "template": made["id"] })))?;
    Ok((server, format!("/v1/callback-templates/{}", made["id"])))
}

fn template_for(receiver: SocketAddr) -> Value {
    json!({ "name": "secure", "snapshot_notify_url": format!("https://{receiver}/notify") })
}

/// How the last attempt of the newest delivery ended, and what was said of it.
fn last_attempt(server: &Server) -> Option<(String, String)> {
    let listed = server.v1("GET", "/v1/deliveries", None).ok()?;
    let id = listed["deliveries"].get(0)?["id"].as_str()?.to_owned();
    let shown = server.v1("GET", &format!("/v1/deliveries/{id}"), None).ok()?;
    let last = shown["attempts"].as_array()?.last()?.clone();
    Some((last["outcome"].as_str()?.to_owned(), last["error"].as_str().unwrap_or_default().to_owned()))
}

fn wait_for_outcome(server: &Server, outcome: &str) -> Result<String> {
    wait::until(&format!("an attempt that ends with {outcome}"), PATIENCE, || {
        last_attempt(server).filter(|(name, _)| name == outcome).map(|(_, error)| error)
    })
}

#[test]
fn nginx_is_sent_to_over_http_2_by_the_authority_that_the_file_names() {
    let ca = Ca::new().unwrap();
    let nginx = Nginx::start(&ca.issue(2040).unwrap(), "return 200 '{\"code\":0}';").unwrap();
    let authority = nginx.dir.path().join("ca.pem");
    fs::write(&authority, ca.pem()).unwrap();
    let of_template = format!("ca_file = {:?}", authority.display().to_string());
    let config = secure_config(nginx.address, 10, &of_template, "");
    let server = ServerSpec::new(FRAMEHOOK).config(config).start().unwrap();
    let _encoder = push_once(&server, "room").unwrap();
    let asked = wait::until("three callbacks", PATIENCE, || Some(nginx.log()).filter(|log| log.len() >= 3));
    let asked = asked.with_context(|| format!("{}\n{}", nginx.process.stderr(), server.log())).unwrap();
    for line in &asked {
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!(fields[..3], ["HTTP/2.0", "200", "POST"], "{line}");
        assert!(fields[3].parse::<u32>().unwrap() > 100 && fields[4].len() == 36, "{line}");
    }
    wait_for_outcome(&server, "delivered").unwrap();
    assert_eq!(nginx.log().len(), 3, "each was sent once");
}

#[test]
fn node_is_sent_to_over_http_2_and_checks_the_public_signature() {
    let ca = Ca::new().unwrap();
    // A key of the file, so that the receiver can know its public half before the server starts.
    let key = framehook_verify::webhook::ed25519::SigningKey::from_seed([7; 32]);
    let public = key.public_key().to_text().replace("whpk_", "");
    let node = Node::start(Ipv4Addr::LOCALHOST, &ca.issue(2040).unwrap(), Some(&public)).unwrap();
    let files = TempDir::new().unwrap();
    fs::write(files.path().join("ca.pem"), ca.pem()).unwrap();
    let of_template =
        format!("ca_file = {:?}\ned25519_key = {:?}", files.path().join("ca.pem").display().to_string(), key.to_text());
    let server = ServerSpec::new(FRAMEHOOK).config(secure_config(node.address, 10, &of_template, "")).start().unwrap();
    let _encoder = push_once(&server, "room").unwrap();
    for request in node.wait_for(3).unwrap() {
        let headers = &request["headers"];
        assert_eq!((&headers[":method"], &headers[":scheme"]), (&json!("POST"), &json!("https")));
        assert_eq!(headers[":authority"], node.address.to_string());
        assert_eq!(request["genuine"], true, "{request}");
        let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["stream_id"], "room");
    }
}

#[test]
fn authority_of_a_template_is_set_and_changed_while_callbacks_wait() {
    let (ca, stranger) = (Ca::new().unwrap(), Ca::new().unwrap());
    let node = Node::start(Ipv4Addr::LOCALHOST, &ca.issue(2040).unwrap(), None).unwrap();
    let (server, template) = serve_for(node.address, template_for(node.address)).unwrap();
    let _encoder = push_once(&server, "room").unwrap();
    assert!(wait_for_outcome(&server, "tls").unwrap().contains("UnknownIssuer"));

    let issued = ca.issue(2040).unwrap();
    let refused = [json!("no PEM"), json!(issued.key), json!(ca.pem() + &issued.key), json!("")];
    for wrong in refused {
        let change = json!({ "ca_certificates": wrong });
        let error = server.v1("PATCH", &template, Some(&change)).unwrap_err().to_string();
        assert!(error.contains("422") && error.contains("ca_certificates"), "{error}");
        assert!(!error.contains("BEGIN PRIVATE KEY"), "{error}");
    }
    let changed = server.v1("PATCH", &template, Some(&json!({ "ca_certificates": stranger.pem() }))).unwrap();
    assert_eq!(changed["ca_certificates"], json!(stranger.pem()));
    assert!(node.requests().is_empty(), "nobody has proved to be the receiver");

    let both = stranger.pem() + &ca.pem();
    server.v1("PATCH", &template, Some(&json!({ "ca_certificates": both }))).unwrap();
    node.wait_for(1).unwrap();
    wait_for_outcome(&server, "delivered").unwrap();
    let changed = server.v1("PATCH", &template, Some(&json!({ "ca_certificates": null }))).unwrap();
    assert_eq!(changed["ca_certificates"], Value::Null);
}

#[test]
fn certificates_good_for_nothing_are_refused_until_nobody_looks() {
    let ca = Ca::new().unwrap();
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    let rows = [
        ("expired", Node::start(Ipv4Addr::LOCALHOST, &ca.issue(2020).unwrap(), None).unwrap(), "certificate expired"),
        ("another name", Node::start(elsewhere, &ca.issue(2040).unwrap(), None).unwrap(), "not valid for name"),
    ];
    for (name, node, says) in rows {
        let mut template = template_for(node.address);
        template["ca_certificates"] = json!(ca.pem());
        let (server, template) = serve_for(node.address, template).unwrap();
        let _encoder = push_once(&server, "room").unwrap();
        let error = wait_for_outcome(&server, "tls").unwrap();
        assert!(error.contains(says), "{name}: {error}");
        assert!(node.requests().is_empty(), "{name}");
        server.v1("PATCH", &template, Some(&json!({ "verify_tls": false }))).unwrap();
        node.wait_for(1).unwrap();
        server.wait_for_log("are not checked", PATIENCE).unwrap();
    }
}

/// tinyproxy with a user and a password.
struct Tinyproxy {
    process: Process,
    address: SocketAddr,
    _configuration: PathBuf,
    _dir: TempDir,
}

impl Tinyproxy {
    fn start() -> Result<Self> {
        let dir = TempDir::new()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let path = dir.path().join("tinyproxy.conf");
        let configuration = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\nBasicAuth us3r p4ssw0rd\n",
            address.port()
        );
        fs::write(&path, configuration)?;
        let mut command = program("tinyproxy", "usr/bin");
        let mut process = Process::spawn("tinyproxy", command.arg("-d").arg("-c").arg(&path)).context(INSTALL)?;
        wait_until_listening(address, &mut process)?;
        Ok(Self { process, address, _configuration: path, _dir: dir })
    }

    fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }
}

#[test]
fn callbacks_go_through_the_egress_proxy_and_nothing_else_does() {
    let (ca, proxy, plain) = (Ca::new().unwrap(), Tinyproxy::start().unwrap(), Receiver::start().unwrap());
    let node = Node::start(Ipv4Addr::LOCALHOST, &ca.issue(2040).unwrap(), None).unwrap();
    let files = TempDir::new().unwrap();
    fs::write(files.path().join("ca.pem"), ca.pem()).unwrap();
    let settings = |password: &str| {
        let proxy = proxy.address;
        format!("{IMPATIENT}proxy = \"http://us3r:{password}@{proxy}\"\n")
    };
    // Pictures are announced to a plain receiver, pushes to a secure one.
    let config = |password: &str| {
        let text = config_for(plain.address(), 10, &settings(password));
        let secure = format!("https://{}/notify?action=", node.address);
        let plain = format!("http://{}/notify?action=", plain.address());
        text.replace(&format!("{plain}begin"), &format!("{secure}begin"))
            .replace(&format!("{plain}end"), &format!("{secure}end"))
            .replace(
                "callback_key =",
                &format!("ca_file = {:?}\ncallback_key =", files.path().join("ca.pem").display().to_string()),
            )
    };
    // A proxy of the environment is none of ours.
    let spec = |password| {
        let spec = ServerSpec::new(FRAMEHOOK).config(config(password));
        ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"]
            .into_iter()
            .fold(spec, |spec, name| spec.env(name, "http://127.0.0.1:9"))
    };

    let refused = spec("wr0ng").start().unwrap();
    let _encoder = push_once(&refused, "room").unwrap();
    let error = wait_for_outcome(&refused, "proxy").unwrap();
    // RFC 9110 has 407 for it; tinyproxy says 401 to credentials that are wrong.
    assert!(error.contains(&proxy.address.to_string()) && error.contains("it answered 401"), "{error}");
    assert!(!refused.log().contains("wr0ng"), "a password is told to nobody");
    assert!(plain.requests().is_empty() && node.requests().is_empty());
    drop(refused);

    let server = spec("p4ssw0rd").start().unwrap();
    let _encoder = push_once(&server, "room").unwrap();
    let told = plain.wait_for(1, PATIENCE).unwrap();
    common::check_snapshot(&server, &told[0]).unwrap();
    node.wait_for(2).unwrap();
    for receiver in [plain.address(), node.address] {
        let asked = format!("CONNECT {receiver} HTTP/1.1");
        assert!(proxy.log().contains(&asked), "{asked} is not in {}", proxy.log());
    }
    assert!(!server.log().contains("p4ssw0rd"));
}

#[test]
fn forbidden_addresses_stay_forbidden_behind_a_proxy() {
    let (proxy, receiver) = (Tinyproxy::start().unwrap(), Receiver::start().unwrap());
    let settings = format!("[deliver]\nproxy = \"http://us3r:p4ssw0rd@{}\"\n", proxy.address);
    let spec = ServerSpec::new(FRAMEHOOK).config(config_for(receiver.address(), 10, &settings));
    let error = spec.refusing_loopback_receivers().start().map(|_| ()).expect_err("a private receiver");
    assert!(format!("{error:?}").contains("loopback"), "{error:?}");
    assert!(!proxy.log().contains("Request"), "{}", proxy.log());
}
