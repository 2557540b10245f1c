//! Object stores for tests: servers of S3 and COS in which the vendors' own code judges signatures, and from which the
//! vendors' own SDKs read objects back. The programs are in `stores` beside this crate's sources.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::http;
use crate::process::Process;
use crate::wait;

/// Who may sign, with which key.
pub const ACCOUNT: (&str, &str) = ("AKIDforTests", "keyOfTheAccount");
/// Somebody with a token that is still good, and that token.
pub const TEMPORARY: (&str, &str, &str) = ("AKIDtemporary", "keyForAnHour", "tok/abc+1");
/// Somebody whose token has expired.
pub const EXPIRED: (&str, &str, &str) = ("AKIDexpired", "keyOfYesterday", "expired");
/// The buckets there are.
pub const BUCKETS: [&str; 2] = ["shots-1250000000", "covers-1250000000"];

/// Starting Python with the SDKs takes seconds on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Cos,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Cos => "cos",
        }
    }
}

/// A running server. Its objects go with it.
#[derive(Debug)]
pub struct ObjectServer {
    kind: Kind,
    python: PathBuf,
    _process: Process,
    address: SocketAddr,
}

/// A put that a server has taken, told as a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Put {
    pub bucket: String,
    pub key: String,
    pub bytes: u64,
    /// Of the bytes that arrived, in hexadecimal.
    pub sha256: String,
    /// As its header has them.
    pub tags: Option<String>,
}

/// An object as the vendor's SDK reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    pub body: Vec<u8>,
    /// What the store says of it, names in lower case.
    pub facts: BTreeMap<String, String>,
}

impl ObjectServer {
    /// Starts a server with what `./dev stores` has installed in `target`, the directory that cargo builds in.
    ///
    /// # Errors
    /// When that is missing, or the server does not start.
    pub fn start(kind: Kind, target: &Path) -> Result<Self> {
        Self::start_with_clock(kind, target, 0)
    }

    /// One whose clock is so many seconds ahead of this machine's.
    ///
    /// # Errors
    /// As [`ObjectServer::start`].
    pub fn start_with_clock(kind: Kind, target: &Path, ahead_secs: i64) -> Result<Self> {
        Self::start_with(kind, target, &[format!("--clock-ahead={ahead_secs}")])
    }

    /// One of S3 that speaks TLS alone, with this certificate and key in PEM. What is asked of it here in plain HTTP or by the
    /// SDK it does not answer.
    ///
    /// # Errors
    /// As [`ObjectServer::start`].
    pub fn start_private(target: &Path, cert: &Path, key: &Path) -> Result<Self> {
        let argument = |name: &str, path: &Path| format!("--{name}={}", path.display());
        Self::start_with(Kind::S3, target, &[argument("cert", cert), argument("key", key)])
    }

    fn start_with(kind: Kind, target: &Path, more: &[String]) -> Result<Self> {
        let python = target.join("stores/bin/python");
        ensure!(python.exists(), "{} is missing; `./dev stores` installs it", python.display());
        let mut command = Command::new(&python);
        command.arg(program(&format!("{}_server.py", kind.name())));
        let accounts = [
            format!("{}:{}", ACCOUNT.0, ACCOUNT.1),
            format!("{}:{}:{}", TEMPORARY.0, TEMPORARY.1, TEMPORARY.2),
            format!("{}:{}:{}", EXPIRED.0, EXPIRED.1, EXPIRED.2),
        ];
        command.args(accounts.iter().flat_map(|account| ["--account", account]));
        command.args(BUCKETS.iter().flat_map(|bucket| ["--bucket", bucket]));
        command.args(more);
        let process = Process::spawn(&format!("the {} server", kind.name()), &mut command)?;
        let port = || process.stdout().lines().next().and_then(|line| line.parse().ok());
        let port: u16 = wait::until("the object server's port", PATIENCE, port)
            .with_context(|| format!("it said: {}", process.stderr_tail()))?;
        Ok(Self { kind, python, _process: process, address: (Ipv4Addr::LOCALHOST, port).into() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the next request go wrong, or one more of those after it: `503`, `500`, `403`, or `damage` for a body that is
    /// not what was sent. `always-503` and its like answer every put so, until `none` takes back whatever was ordered.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn fault(&self, what: &str) -> Result<()> {
        let answer = http::request(self.address, "GET", &format!("/.fault/{what}"), &[], &[], PATIENCE)?;
        ensure!(answer.status == 204, "the server answered {}", answer.status);
        Ok(())
    }

    /// Makes a bucket. Its name must need no encoding in a URL.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn make_bucket(&self, bucket: &str) -> Result<()> {
        let answer = http::request(self.address, "GET", &format!("/.make/{bucket}"), &[], &[], PATIENCE)?;
        ensure!(answer.status == 204, "the server answered {}", answer.status);
        Ok(())
    }

    /// Every put that was taken so far, in order.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn puts(&self) -> Result<Vec<Put>> {
        let answer = http::request(self.address, "GET", "/.puts", &[], &[], PATIENCE)?;
        ensure!(answer.status == 200, "the server answered {}", answer.status);
        serde_json::from_slice(&answer.body).context("read the puts")
    }

    /// Whether an object is there, without an SDK's start. The key must need no encoding in a URL.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn has(&self, bucket: &str, key: &str) -> Result<bool> {
        let answer = http::request(self.address, "GET", &format!("/.has/{bucket}/{key}"), &[], &[], PATIENCE)?;
        Ok(answer.status == 200)
    }

    /// Reads an object with the vendor's SDK; `None`: there is none.
    ///
    /// # Errors
    /// When the SDK fails.
    pub fn read(&self, bucket: &str, key: &str) -> Result<Option<ReadBack>> {
        Ok(self.read_all(bucket, &[key])?.pop().flatten())
    }

    /// The names of a bucket's lifecycle rules.
    ///
    /// # Errors
    /// When the SDK fails, or the bucket has none.
    pub fn lifecycle(&self, bucket: &str) -> Result<Vec<String>> {
        let read = self.read(bucket, "?lifecycle")?.context("there are no rules")?;
        serde_json::from_slice(&read.body).context("read the rules' names")
    }

    /// Reads several objects, in order.
    ///
    /// # Errors
    /// As [`ObjectServer::read`].
    pub fn read_all(&self, bucket: &str, keys: &[&str]) -> Result<Vec<Option<ReadBack>>> {
        #[derive(Deserialize)]
        struct Told {
            body: String,
            facts: BTreeMap<String, String>,
        }
        let (id, key) = ACCOUNT;
        let mut command = Command::new(&self.python);
        command.arg(program("read.py")).args([self.kind.name(), &self.address.port().to_string(), id, key, bucket]);
        let output = command.args(keys).output().context("start the SDK")?;
        ensure!(output.status.success(), "the SDK failed: {}", String::from_utf8_lossy(&output.stderr));
        let told: Vec<Option<Told>> = serde_json::from_slice(&output.stdout).context("read what the SDK read")?;
        told.into_iter()
            .map(|told| {
                told.map(|Told { body, facts }| {
                    Ok(ReadBack { body: BASE64_STANDARD.decode(body).context("read the bytes")?, facts })
                })
                .transpose()
            })
            .collect()
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stores").join(name)
}
