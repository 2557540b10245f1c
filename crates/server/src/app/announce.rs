//! What a started server tells the outside: where it listens, and what a person should know.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;
use crate::credentials::{self, Credentials};

/// Where the server listens, for programs that let it choose.
pub(super) struct Addresses {
    pub(super) rtmp: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) rtmps: Option<SocketAddr>,
    pub(super) https: Option<SocketAddr>,
}

/// The file inside the data directory.
pub(super) const ADDRESSES: &str = "addresses.json";

impl Addresses {
    /// Writes `DIR/addresses.json` so that it is either absent, old or whole.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut json = serde_json::json!({ "rtmp": self.rtmp, "http": self.http });
        for (name, addr) in [("admin", self.admin), ("rtmps", self.rtmps), ("https", self.https)] {
            if let Some(addr) = addr {
                json[name] = serde_json::json!(addr);
            }
        }
        let unfinished = dir.join(".addresses.json");
        fs::write(&unfinished, json.to_string())?;
        fs::rename(unfinished, dir.join(ADDRESSES))
    }
}

/// What stands before `/<bucket>-<appid>/<key>` in `pic_full_url`.
pub(super) fn public_url(config: &Config, http: SocketAddr) -> String {
    match &config.store_local.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("http://{http}/objects"),
    }
}

/// Says what a person who has just started the server needs to know.
pub(super) fn announce(
    config: &Config,
    addresses: &Addresses,
    public_url: &str,
    credentials: &Credentials,
    are_new: bool,
) {
    tracing::info!(
        rtmp = %addresses.rtmp,
        http = %addresses.http,
        rtmps = addresses.rtmps.map(tracing::field::display),
        https = addresses.https.map(tracing::field::display),
        data_dir = %config.data_dir.display(),
        "framehook {} listens",
        env!("CARGO_PKG_VERSION")
    );
    let host = addresses.http.ip();
    if config.store_local.public_url.is_none() && (host.is_loopback() || host.is_unspecified()) {
        tracing::warn!(
            public_url,
            "pictures are announced under an address that only this machine can fetch them from; set store.local.public_url"
        );
    }
    if config.render.unsafe_no_jail {
        tracing::warn!(
            "render.unsafe_no_jail is on: decoders run where the kernel does not lock them in, and a hostile stream may take \
             over this machine"
        );
    }
    if !are_new {
        return;
    }
    let path = config.data_dir.join(credentials::FILE_NAME);
    if io::stderr().is_terminal() {
        // Shown once, to the person who is there, and never to a log file.
        let mut terminal = io::stderr().lock();
        let _ = writeln!(
            terminal,
            "New credentials, shown this once and kept in {}:\n  secret_id={}\n  secret_key={}",
            path.display(),
            credentials.first().id,
            credentials.first().secret().expose()
        );
    } else {
        tracing::info!(file = %path.display(), "new credentials were made");
    }
}
