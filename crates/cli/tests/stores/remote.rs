//! Object stores that are reached over a line which can break.

use std::fs;
use std::path::Path;

use framehook_testkit::http::{self, Response};
use framehook_testkit::object_server::{ACCOUNT, Kind, ObjectServer};
use framehook_testkit::proxy::{Line, Proxy};

use crate::common::{PATIENCE, target};

/// The first of the buckets that the servers have, as a template names it.
pub(crate) const SHOTS: &str = "cos_app_id = 1250000000\ncos_bucket = \"shots\"\n";

/// A server of S3 or COS, and the line to it. In the configuration it has its kind's name.
pub(crate) struct Remote {
    kind: Kind,
    pub(crate) server: ObjectServer,
    line: Proxy,
}

impl Remote {
    pub(crate) fn start(kind: Kind) -> Self {
        let server = ObjectServer::start(kind, target()).expect("an object server");
        let line = Proxy::start(server.address()).expect("a proxy");
        Self { kind, server, line }
    }

    /// What becomes of requests from now on. Receivers reach the server itself.
    pub(crate) fn set(&self, line: Line) {
        self.line.set(line);
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The region of templates whose pictures go there.
    pub(crate) fn region(&self) -> &'static str {
        match self.kind {
            Kind::S3 => "us-east-1",
            Kind::Cos => "ap-guangzhou",
        }
    }

    /// The fields of a template or a rendition whose pictures go there, into [`SHOTS`].
    pub(crate) fn place(&self) -> String {
        format!("{SHOTS}cos_region = \"{}\"\n", self.region())
    }

    /// The store as a server is told of it, with the account's credentials.
    pub(crate) fn settings(&self, more: &str) -> String {
        let (id, key) = ACCOUNT;
        self.settings_of(&format!("secret_id = \"{id}\"\nsecret_key = \"{key}\"\n{more}"))
    }

    /// The same without credentials. Its URLs are signed.
    pub(crate) fn settings_of(&self, more: &str) -> String {
        let (name, server, line) = (self.name(), self.server.address(), self.line.address());
        let reached = match self.kind {
            Kind::S3 => format!(
                "region = \"us-east-1\"\nendpoint = \"http://{line}\"\npath_style = true\n\
                 public_url = \"http://{server}/{{bucket}}\""
            ),
            Kind::Cos => format!(
                "endpoint = \"http://{{bucket}}.cos.{{region}}.example.com\"\nconnect_to = \"{line}\"\n\
                 public_url = \"http://{{bucket}}.cos.{{region}}.example.com\""
            ),
        };
        format!("[[object_store]]\nname = \"{name}\"\nkind = \"{name}\"\nsigned_urls = true\n{reached}\n{more}\n")
    }

    /// Asks for what a callback named.
    pub(crate) fn get(&self, url: &str) -> Response {
        let after_scheme = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is not reached over HTTP"));
        let (host, target) = after_scheme.split_once('/').unwrap_or_else(|| panic!("{url} has no path"));
        let stream = http::connect(self.server.address(), PATIENCE).expect("a connection");
        let mut connection = http::Connection::over(stream, host);
        connection.request("GET", &format!("/{target}"), &[("connection", "close")], b"").expect("an answer")
    }
}

/// Writes a file of the account's id and this key.
pub(crate) fn write_credentials(path: &Path, key: &str) {
    fs::write(path, format!("secret_id={}\nsecret_key={key}\n", ACCOUNT.0)).expect("a file of credentials");
}
