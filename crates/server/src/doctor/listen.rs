//! The ports: can they be bound, or has the server that runs on this data directory bound them.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Finding;
use crate::config::Config;
use crate::ingest;
use crate::tls;

/// Binds each port and lets it go.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let running = running_server(&config.data_dir);
    let try_http = |addr: SocketAddr| TcpListener::bind(addr).map(drop);
    let mut findings = vec![
        port("rtmp.addr", config.rtmp.addr, &running, |addr| ingest::bind(addr).map(drop)),
        port("http.addr", config.http.addr, &running, try_http),
    ];
    if tls::files(config).is_some() {
        findings.push(port("tls.rtmps", config.tls.rtmps, &running, |addr| ingest::bind(addr).map(drop)));
        findings.push(port("tls.https", config.tls.https, &running, try_http));
    }
    findings.extend(config.http.admin.map(|admin| port("http.admin", admin, &running, try_http)));
    findings
}

/// The addresses of the server that runs on this data directory, if one does.
fn running_server(dir: &Path) -> Vec<SocketAddr> {
    // The file may be left from an earlier run; the socket answers only while somebody listens.
    if UnixStream::connect(dir.join("control.sock")).is_err() {
        return Vec::new();
    }
    let text = fs::read_to_string(dir.join("addresses.json")).unwrap_or_default();
    let written: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    written.values().filter_map(|address| address.as_str()?.parse().ok()).collect()
}

fn port(
    check: &'static str,
    addr: SocketAddr,
    running: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<()>,
) -> Finding {
    if addr.port() != 0 && running.iter().any(|bound| bound.port() == addr.port()) {
        return Finding::good(check, format!("{addr} is bound by the server that runs"));
    }
    let error = match bind(addr) {
        Ok(()) if addr.port() == 0 => {
            return Finding::good(check, format!("a free port of {} can be bound", addr.ip()));
        }
        Ok(()) => return Finding::good(check, format!("{addr} can be bound")),
        Err(error) => error,
    };
    let mend = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("find who has it with `ss -ltnp sport = :{}`, and stop that or set {check}", addr.port())
        }
        io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need a right: AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit; or set {check} to a \
             higher one"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address, `ip address` lists them; set {check}")
        }
        _ => format!("set {check}"),
    };
    Finding::bad(check, format!("{addr} cannot be bound: {error}"), mend)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::doctor::Status;

    fn config(dir: &Path, rtmp: SocketAddr, http: SocketAddr) -> Config {
        let mut config = Config { data_dir: dir.to_owned(), ..Config::default() };
        (config.rtmp.addr, config.http.addr) = (rtmp, http);
        config
    }

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn a_port_that_somebody_else_has_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind(any_port()).unwrap();
        let taken = taken.local_addr().map(|addr| (addr, taken)).unwrap();
        let findings = ports(&config(dir.path(), taken.0, any_port()));
        assert_eq!((findings[0].check, findings[0].status), ("rtmp.addr", Status::Bad), "{findings:?}");
        assert!(findings[0].mend.as_deref().is_some_and(|mend| mend.contains("ss -ltnp")));
        assert_eq!(findings[1].status, Status::Good, "{findings:?}");
        let findings = ports(&config(dir.path(), any_port(), taken.0));
        assert_eq!((findings[1].check, findings[1].status), ("http.addr", Status::Bad), "{findings:?}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), any_port(), any_port());
        config.http.admin = Some("192.0.2.1:9000".parse().unwrap());
        let findings = ports(&config);
        assert_eq!((findings[2].check, findings[2].status), ("http.admin", Status::Bad), "{findings:?}");
    }

    #[tokio::test]
    async fn a_port_of_our_own_running_server_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let ours = TcpListener::bind(any_port()).unwrap();
        let addr = ours.local_addr().unwrap();
        fs::write(dir.path().join("addresses.json"), format!("{{\"rtmp\":\"{addr}\"}}")).unwrap();
        let config = config(dir.path(), addr, any_port());
        assert_eq!(ports(&config)[0].status, Status::Bad, "the file alone proves nothing");
        let _listening = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        assert_eq!(ports(&config)[0].status, Status::Good);
    }
}
