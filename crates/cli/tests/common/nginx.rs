//! nginx as a receiver of callbacks over HTTP/2, and how programs are started that are not ours.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use framehook_testkit::http;
use framehook_testkit::process::Process;
use framehook_testkit::tls::Issued;
use framehook_testkit::wait;
use tempfile::TempDir;

use crate::common::{PATIENCE, target};

pub(crate) const INSTALL: &str = "`./dev test sender` installs what these tests need, and runs them";

/// A program from Debian that `./dev` has unpacked, or that is installed.
pub(crate) fn program(name: &str, place: &str) -> Command {
    let unpacked = target().join("sender").join(place).join(name);
    if unpacked.exists() { Command::new(unpacked) } else { Command::new(name) }
}

/// A port that was free a moment ago, for programs that cannot say which one they took.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(crate) fn wait_until_listening(address: SocketAddr, process: &mut Process) -> Result<()> {
    wait::until(&format!("somebody at {address}"), PATIENCE, || {
        let ended = process.try_wait().map(|status| Err(anyhow::anyhow!("{status}: {}", process.stderr())));
        ended.or_else(|| http::connect(address, Duration::from_secs(1)).ok().map(|_| Ok(())))
    })?
}

/// nginx with HTTP/2, writing down what it was asked.
pub(crate) struct Nginx {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
}

impl Nginx {
    /// `answer` is what its configuration says of every request.
    pub(crate) fn start(issued: &Issued, answer: &str) -> Result<Self> {
        let dir = TempDir::new()?;
        let (address, at) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)), dir.path().display());
        fs::write(dir.path().join("cert.pem"), &issued.cert)?;
        fs::write(dir.path().join("key.pem"), &issued.key)?;
        let own_places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};\n"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr;
             events {{ worker_connections 1024; }}
             http {{
                 log_format one '$server_protocol $status $request_method $http_content_length $http_webhook_id';
                 access_log {at}/access.log one;
                 {own_places}
                 server {{
                     listen {address} ssl http2;
                     ssl_certificate {at}/cert.pem;
                     ssl_certificate_key {at}/key.pem;
                     location / {{ {answer} }}
                 }}
             }}"
        );
        fs::write(dir.path().join("nginx.conf"), configuration)?;
        let mut command = program("nginx", "usr/sbin");
        command.arg("-p").arg(dir.path()).args(["-e", "stderr", "-c"]).arg(dir.path().join("nginx.conf"));
        let mut process = Process::spawn("nginx", &mut command).context(INSTALL)?;
        wait_until_listening(address, &mut process)?;
        Ok(Self { process, address, dir })
    }

    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
