//! A store under test, and who reads its objects back.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use framehook_server::clock::Clock;
use framehook_server::config::{Config, Sources};
use framehook_server::entropy::Entropy;
use framehook_server::fatal::Fatal;
use framehook_server::store::{Bucket, Local, LocalStore, ObjectStore, Probe, StoreError, Stores, Upload};
use framehook_testkit::object_server::{ACCOUNT, BUCKETS, Kind, ObjectServer};
use tokio::runtime::Runtime;

/// The bucket of most tests.
pub(crate) const BUCKET: &str = BUCKETS[0];

/// Where cargo builds, and where `./dev` puts what only tests need.
pub(crate) fn target() -> PathBuf {
    let test = std::env::current_exe().expect("an executable");
    test.ancestors().nth(3).expect("executables lie in target/PROFILE/deps").to_owned()
}

/// A picture that is kept, and that nothing takes the place of.
pub(crate) fn upload(file: &Path) -> Upload<'_> {
    Upload { file, content_type: "image/jpeg", retention_days: None, is_overwritten: false }
}

/// One store with its own server, if it has one, its own runtime and a directory for what is put.
pub(crate) struct Subject {
    name: String,
    runtime: Runtime,
    dir: tempfile::TempDir,
    stores: Stores,
    store: Arc<dyn ObjectStore>,
    region: &'static str,
    server: Option<ObjectServer>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Runs a test with every store, S3 with both ways of addressing a bucket.
pub(crate) fn each(test: impl Fn(&Subject)) {
    test(&Subject::local());
    each_remote(|subject, _| test(subject));
}

/// The same with those that are reached over a network.
pub(crate) fn each_remote(test: impl Fn(&Subject, &ObjectServer)) {
    for (kind, more) in [(Kind::Cos, ""), (Kind::S3, "path_style = true"), (Kind::S3, "path_style = false")] {
        let subject = Subject::remote(kind, more);
        test(&subject, subject.server().expect("a server"));
    }
}

impl Subject {
    fn local() -> Self {
        Self::with("local store".to_owned(), "", None)
    }

    /// A store that signs as the account that may, with `more` in its table.
    pub(crate) fn remote(kind: Kind, more: &str) -> Self {
        let (id, key) = ACCOUNT;
        Self::remote_as(kind, &format!("secret_id = \"{id}\"\nsecret_key = \"{key}\"\n{more}"))
    }

    /// A store with these credentials.
    pub(crate) fn remote_as(kind: Kind, table: &str) -> Self {
        let server = ObjectServer::start(kind, &target()).expect("an object server");
        Self::at(server, kind, table)
    }

    pub(crate) fn at(server: ObjectServer, kind: Kind, table: &str) -> Self {
        let address = server.address();
        Self::through(server, address, kind, table)
    }

    /// A store whose requests go to `address`, which leads to `server`.
    pub(crate) fn through(server: ObjectServer, address: std::net::SocketAddr, kind: Kind, table: &str) -> Self {
        let port = address.port();
        // Names in which buckets can be told apart, all of which lead to the server.
        let endpoint = match kind {
            Kind::Cos => format!("http://{{bucket}}.cos.{{region}}.example.com:{port}"),
            Kind::S3 if table.contains("path_style = true") => format!("http://localhost:{port}"),
            Kind::S3 => format!("http://s3.example.com:{port}"),
        };
        let (kind_name, region) = (kind.name(), if kind == Kind::S3 { "region = \"us-east-1\"" } else { "" });
        let config = format!(
            "[[object_store]]\nname = \"{kind_name}\"\nkind = \"{kind_name}\"\nendpoint = \"{endpoint}\"\n\
             connect_to = \"{address}\"\n{region}\n{table}\n"
        );
        Self::with(format!("{kind_name} ({})", table.lines().last().unwrap_or_default()), &config, Some(server))
    }

    /// A store as `config` has it, reached at `server` if anything is asked of it.
    pub(crate) fn with(name: String, config: &str, server: Option<ObjectServer>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::parse(config, &Sources::default()).unwrap_or_else(|error| panic!("{error}"));
        let files = LocalStore::open(&dir.path().join("objects"), Entropy::system(), Fatal::new()).expect("a store");
        let local = Local::new(Arc::new(files), "http://127.0.0.1:8080/objects", None);
        let stores = Stores::open(local, &config.object_stores, Clock::start()).expect("stores");
        let store = config.object_stores.first().map_or("local", |settings| &settings.name);
        let store = stores.named(store).expect("a store");
        let region = match config.object_stores.first() {
            Some(settings) if settings.name == "s3" => "us-east-1",
            Some(_) => "ap-guangzhou",
            None => "local",
        };
        Self { name, runtime, dir, stores, store, region, server }
    }

    pub(crate) fn server(&self) -> Option<&ObjectServer> {
        self.server.as_ref()
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    pub(crate) fn bucket(&self) -> Bucket<'static> {
        Bucket { region: self.region, name: BUCKET }
    }

    fn spooled(&self, picture: &[u8]) -> PathBuf {
        let path = self.dir.path().join("spooled.jpg");
        // A name of its own for each, since the local store may keep the file itself.
        let _ = fs::remove_file(&path);
        fs::write(&path, picture).expect("a file");
        path
    }

    pub(crate) fn put(&self, key: &str, picture: &[u8]) -> Result<(), StoreError> {
        self.put_file(key, &self.spooled(picture))
    }

    pub(crate) fn put_file(&self, key: &str, file: &Path) -> Result<(), StoreError> {
        self.put_into(self.bucket(), key, upload(file))
    }

    pub(crate) fn put_for(&self, days: u32, key: &str) -> Result<(), StoreError> {
        let file = self.spooled(b"picture");
        let upload = Upload { retention_days: Some(days), ..upload(&file) };
        self.put_into(self.bucket(), key, upload)
    }

    /// Begins to put a picture that is kept for so many days, and leaves it at that.
    pub(crate) fn begin_put_for(&self, days: u32, bucket: &'static str) {
        let (store, file) = (Arc::clone(&self.store), self.dir.path().join(format!("{bucket}-{days}.jpg")));
        fs::write(&file, b"picture").expect("a file");
        let bucket = Bucket { name: bucket, ..self.bucket() };
        self.runtime.spawn(async move {
            let upload = Upload { retention_days: Some(days), ..upload(&file) };
            store.put(bucket, "a.jpg", upload).await
        });
    }

    pub(crate) fn put_overwritten(&self, key: &str) -> Result<(), StoreError> {
        let file = self.spooled(b"picture");
        self.put_into(self.bucket(), key, Upload { is_overwritten: true, ..upload(&file) })
    }

    pub(crate) fn put_into(&self, bucket: Bucket<'_>, key: &str, upload: Upload<'_>) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.put(bucket, key, upload))
    }

    /// Puts one picture under many keys at the same time.
    pub(crate) fn put_all(&self, keys: &[String], picture: &[u8]) {
        let (file, bucket) = (self.spooled(picture), self.bucket());
        let mut puts = tokio::task::JoinSet::new();
        for key in keys {
            let (store, file, key) = (Arc::clone(&self.store), file.clone(), key.to_owned());
            let put = async move { store.put(bucket, &key, upload(&file)).await };
            puts.spawn_on(put, self.runtime.handle());
        }
        for put in self.runtime.block_on(puts.join_all()) {
            put.unwrap_or_else(|error| panic!("{self}: {error:?}"));
        }
    }

    pub(crate) fn exists(&self, key: &str) -> Result<bool, StoreError> {
        self.runtime.block_on(self.store.exists(self.bucket(), key))
    }

    pub(crate) fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.remove(self.bucket(), key))
    }

    pub(crate) fn probe(&self) -> Result<Probe, StoreError> {
        self.probe_of(self.bucket())
    }

    pub(crate) fn probe_of(&self, bucket: Bucket<'_>) -> Result<Probe, StoreError> {
        self.runtime.block_on(self.store.probe(bucket))
    }

    pub(crate) fn removes_after(&self, days: u32) -> Result<bool, StoreError> {
        self.runtime.block_on(self.store.removes_after(self.bucket(), days))
    }

    pub(crate) fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.read_all(&[key]).remove(0)
    }

    /// Objects as a stranger reads them, by their keys.
    pub(crate) fn read_all(&self, keys: &[&str]) -> Vec<Option<Vec<u8>>> {
        match &self.server {
            Some(server) => {
                let read = server.read_all(BUCKET, keys).unwrap_or_else(|error| panic!("{self}: {error:?}"));
                read.into_iter().map(|read| read.map(|read| read.body)).collect()
            }
            None => {
                let bucket = self.dir.path().join("objects").join(BUCKET);
                keys.iter().map(|key| fs::read(bucket.join(key)).ok()).collect()
            }
        }
    }
}
