//! The stored pictures of a server that is killed, looked at without any code of the server.

#![allow(dead_code, reason = "each suite uses its part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use framehook_testkit::http;
use framehook_testkit::object_server::{ACCOUNT, Kind, ObjectServer, Put};
use framehook_testkit::proxy::{Line, Proxy};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::common::target;

/// How long a store may take to hand out an object. A server that is killed meanwhile shows at once.
const FETCH_PATIENCE: Duration = Duration::from_secs(10);

/// Where they are. Objects are named `<bucket>/<key>`.
#[derive(Clone)]
pub(crate) enum Objects {
    /// In the data directory, whose server hands them out itself.
    Local { dir: PathBuf, http: SocketAddr },
    /// In a server of S3, which no kill concerns.
    S3(Arc<ObjectServer>),
}

/// A server of S3, and the line to it.
pub(crate) struct S3 {
    pub(crate) store: Arc<ObjectServer>,
    pub(crate) line: Proxy,
}

impl S3 {
    pub(crate) fn start(line: Line) -> Result<Self> {
        let store = Arc::new(ObjectServer::start(Kind::S3, target())?);
        let proxy = Proxy::start(store.address())?;
        proxy.set(line);
        Ok(Self { store, line: proxy })
    }

    /// The store as a server is told of it. Receivers get signed URLs, which lead to the store itself and not over the line.
    pub(crate) fn settings(&self, timeout: &str) -> String {
        let (store, line, (id, key)) = (self.store.address(), self.line.address(), ACCOUNT);
        format!(
            r#"
[[object_store]]
name = "s3"
kind = "s3"
region = "us-east-1"
endpoint = "http://{line}"
path_style = true
public_url = "http://{store}/{{bucket}}"
signed_urls = true
secret_id = "{id}"
secret_key = "{key}"
timeout = "{timeout}"
"#
        )
    }

    pub(crate) fn objects(&self) -> Objects {
        Objects::S3(Arc::clone(&self.store))
    }
}

/// A suite's configuration, with its pictures in the test's bucket of S3.
pub(crate) fn into_s3(config: &str) -> String {
    let bucket = "cos_bucket = \"shots\"\ncos_app_id = 1250000000\ncos_region = \"us-east-1\"\nsnapshot_interval";
    config.replacen("snapshot_interval", bucket, 1)
}

impl Objects {
    /// The size of each object.
    pub(crate) fn sizes(&self) -> Result<BTreeMap<String, u64>> {
        match self {
            Self::Local { dir, .. } => {
                files(dir)?.into_iter().map(|(name, path)| Ok((name, fs::metadata(path)?.len()))).collect()
            }
            Self::S3(store) => {
                Ok(each_the_same(store.puts()?)?.into_iter().map(|(name, put)| (name, put.bytes)).collect())
            }
        }
    }

    /// The SHA-256 of each object, in hexadecimal.
    pub(crate) fn sums(&self) -> Result<BTreeMap<String, String>> {
        match self {
            Self::Local { dir, .. } => files(dir)?
                .into_iter()
                .map(|(name, path)| {
                    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                    Ok((name, Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()))
                })
                .collect(),
            Self::S3(store) => {
                Ok(each_the_same(store.puts()?)?.into_iter().map(|(name, put)| (name, put.sha256)).collect())
            }
        }
    }

    /// Puts of what was there already, latest objects left out. Nobody counts those into the data directory.
    pub(crate) fn puts_again(&self) -> Result<Option<usize>> {
        match self {
            Self::Local { .. } => Ok(None),
            Self::S3(store) => {
                let mut puts = store.puts()?;
                puts.retain(|put| !is_latest(put));
                Ok(Some(puts.len() - each_the_same(puts)?.len()))
            }
        }
    }

    /// Checks that the picture a callback tells of can be fetched now, whole. `Some(false)`: its server was killed before it
    /// had answered; the file was there.
    pub(crate) fn check(&self, fields: &Value) -> Result<Option<bool>> {
        let url = fields["pic_full_url"].as_str().context("no pic_full_url")?;
        let size = fields["file_size"].as_u64().context("no file_size")?;
        let address = match self {
            Self::Local { http, .. } => *http,
            Self::S3(store) => store.address(),
        };
        let base = format!("http://{address}");
        let target = url.strip_prefix(&base).with_context(|| format!("{url} is not below {base}"))?;
        if let Self::Local { dir, .. } = self {
            let key = target.strip_prefix("/objects/").with_context(|| format!("{url} is no object's"))?;
            let found = fs::metadata(dir.join(key)).with_context(|| format!("{url} was announced and is not there"))?;
            ensure!(found.len() == size, "{url} has {} bytes, {size} were announced", found.len());
        }
        match (http::request(address, "GET", target, &[], b"", FETCH_PATIENCE), self) {
            (Ok(response), _) => {
                ensure!(response.status == 200, "GET {url} gave {}: {}", response.status, response.text());
                ensure!(response.body.len() as u64 == size, "GET {url} gave {} bytes of {size}", response.body.len());
                Ok(Some(true))
            }
            (Err(_), Self::Local { .. }) => Ok(Some(false)),
            (Err(error), Self::S3(_)) => Err(error),
        }
    }
}

/// Whether each newer picture takes the object's place.
fn is_latest(put: &Put) -> bool {
    put.key.starts_with("latest/")
}

/// The last put of each object, all of which brought the same bytes unless it is a latest one.
fn each_the_same(puts: Vec<Put>) -> Result<BTreeMap<String, Put>> {
    let mut objects: BTreeMap<String, Put> = BTreeMap::new();
    for put in puts {
        let name = format!("{}/{}", put.bucket, put.key);
        if let Some(before) = objects.insert(name, put.clone()) {
            ensure!(before == put || is_latest(&put), "other bytes were put again: {before:?}, {put:?}");
        }
    }
    Ok(objects)
}

/// Every file below a directory by its path in there.
fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let named = |path: PathBuf| Ok((path.strip_prefix(dir)?.display().to_string(), path));
    files_below(dir)?.into_iter().map(named).collect()
}

pub(crate) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
