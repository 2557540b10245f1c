//! The configuration: one typed tree out of a TOML file, the environment and the command line, read and checked in full
//! before any port opens.
//!
//! A flag wins over the environment, the environment over the file, the file over the default. Everything has a default,
//! so an empty file and no file at all are the same. [`Config::load`] reports every problem at once; the declarations
//! below are also the text of `docs/config.md` and of `framehook config example`.

mod declared;
mod object_store;
mod problem;
mod reference;
mod section;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use framehook_domain::stream::DomainName;
use framehook_domain::template::StoreTarget;
use framehook_domain::time::NameZone;

use crate::app::FIXED_GRACES;
use crate::notify::address::Cidr;
use crate::notify::proxy::Proxy;
use crate::store::is_taken;

use declared::{
    CallbackRuleTable, CallbackTemplateTable, DomainTable, SnapshotRenditionTable, SnapshotRuleTable,
    SnapshotTemplateTable,
};
pub use declared::{Declared, DeclaredRule};
pub use object_store::ObjectStore;
pub(crate) use object_store::long_region;
pub use problem::{ConfigError, Origin, Problem};
use section::{ENVIRONMENT_PREFIX, Overrides, Reader, Section, Table, environment_name, section};
pub use value::{ByteSize, LogFormat, LogLevel, StoreKind};

section! {
    pub struct Process at "" {
        /// Where the database, the spool, the objects of the local store and the credentials are kept. One process at a
        /// time may use it.
        data_dir: PathBuf = "./framehook-data",
        /// The account number that callbacks carry as `appid`, and the tail of a bucket's full name where a template
        /// gives no `cos_app_id`.
        app_id: i64 = "1250000000" in "1"..="9223372036854775807",
        /// Takes `PornFlag` 1 in requests to CSS's API, keeps it and shows it, for programs that cannot do without. Nothing is
        /// moderated all the same. Without it such requests are answered `UnsupportedOperation`.
        accept_porn_flag: bool = "false",
    }
}

section! {
    /// The HTTP listener: the API, `/v1`, and the objects of the local store.
    pub struct Http at "http" {
        /// Address and port. Port 0 takes a free one. It is loopback by default because `/objects/` asks for no login.
        addr: SocketAddr = "127.0.0.1:8080",
        /// Address and port for `/metrics`, `/healthz` and `/readyz` alone. When it is set they leave `http.addr`.
        admin: Option<SocketAddr> = "",
        /// Time for one request to be received and answered, apart from the body of a stored object.
        request_timeout: Duration = "30s" in "1s"..="10m",
        /// Largest request body of `/v1`, whose requests are a few kilobytes. CSS's API at `/` takes 256 KiB.
        body_bytes_max: ByteSize = "1MiB" in "4KiB"..="64MiB",
        /// Connections at a time; further ones wait to be accepted.
        connections_max: u32 = "1024" in "8"..="65536",
        /// Connections at a time from one address (of IPv6, from one /64); further ones are closed. A quarter of all, so that
        /// no one peer can use them up: raise it where a proxy stands in front, whose connections are all of one address.
        connections_per_address_max: u32 = "256" in "8"..="65536",
        /// Answers of `/v1/events` at a time: each is a connection that stays. Further ones are refused.
        event_streams_max: u32 = "64" in "0"..="4096",
        /// How often such an answer says that it is still there when nothing happens.
        event_keep_alive: Duration = "15s" in "1s"..="1m",
    }
}

section! {
    /// The RTMP listener.
    pub struct Rtmp at "rtmp" {
        /// Address and port that encoders connect to. `[::]` takes IPv4 as well; where the machine has no IPv6 it is
        /// taken as `0.0.0.0`. Port 0 takes a free one.
        addr: SocketAddr = "[::]:1935",
    }
}

section! {
    /// HTTPS and RTMPS. Both are served when a certificate is named, beside the plain listeners. Its files are read again
    /// when they change and on SIGHUP.
    pub struct Tls at "tls" {
        /// The certificate, a PEM file: the server's own first, then those that lead to its authority.
        cert: Option<PathBuf> = "",
        /// The certificate's private key, a PEM file.
        key: Option<PathBuf> = "",
        /// Address and port for what `http.addr` serves, over TLS. Port 0 takes a free one.
        https: SocketAddr = "127.0.0.1:8443",
        /// Address and port that encoders connect to with `rtmps://`. Port 0 takes a free one.
        rtmps: SocketAddr = "[::]:1936",
    }
}

section! {
    /// Publishers and what they may cost.
    pub struct Ingest at "ingest" {
        /// The push domain of publishers that connect by a bare address or by `localhost`. Without it they are refused
        /// once a domain is configured, unless the address itself is one.
        default_domain: Option<DomainName> = "",
        /// Connections at a time, publishing or not.
        connections_max: u32 = "4096" in "1"..="100000",
        /// Connections at a time from one address.
        connections_per_address_max: u32 = "1024" in "1"..="100000",
        /// Time from the connection to the accepted publish. A slow or silent peer is cut off after it.
        handshake_timeout: Duration = "10s" in "1s"..="2m",
        /// Time without a whole message after which a publisher counts as gone.
        idle_timeout: Duration = "30s" in "1s"..="10m",
        /// How often a publisher is read from while no picture of it is due. Being woken for every packet costs more than
        /// all the rest of receiving; when a picture is near, it is read in time for it. 0 reads every byte as it comes.
        read_interval: Duration = "500ms" in "0"..="1s",
        /// Time within which a publisher that was cut off may return and go on with the same push: no callback is sent
        /// for the gap. CSS gives 70 s.
        reconnect_grace: Duration = "70s" in "0"..="1h",
        /// Memory for the newest keyframe of every stream, all streams together. Beyond it the oldest go.
        keyframe_bytes_max: ByteSize = "256MiB" in "8MiB"..="64GiB",
    }
}

section! {
    /// The worker processes that decode and encode.
    pub struct Render at "render" {
        /// Worker processes; 0 is one for each core.
        workers: u32 = "0" in "0"..="256",
        /// Time for one picture, from handing it to a worker to its answer. The worker is killed after it.
        deadline: Duration = "10s" in "100ms"..="2m",
        /// The program `framehook-render`. Without it, the one that lies beside `framehook`.
        executable: Option<PathBuf> = "",
        /// Runs the workers even where the kernel cannot lock them in. A hostile stream may then take over the machine.
        unsafe_no_jail: bool = "false",
    }
}

section! {
    /// Pictures that are committed and not stored yet.
    pub struct Spool at "spool" {
        /// Room for them. When it is full new pictures are skipped; those that are owed stay. The last quarter is kept for pictures
        /// of buckets that do not fail.
        bytes_max: ByteSize = "4GiB" in "16MiB"..="64TiB",
        /// Free room that is left on the disk. With less, new pictures are skipped.
        disk_reserve: ByteSize = "512MiB" in "0"..="1TiB",
        /// While six pictures or more come within four times this long, one that lies in the local store already waits for others
        /// at most this long until it is recorded and told of: together they cost the disk and the processor less. 0 never lets
        /// them wait.
        gather_max: Duration = "250ms" in "0s"..="1s",
    }
}

section! {
    /// Uploads, whatever the store.
    pub struct Store at "store" {
        /// Uploads at a time into each bucket, so that a store that hangs holds up no other. After an outage the backlog takes
        /// at most half of them. Latest objects have as many of their own.
        concurrency: u32 = "16" in "2"..="1024",
    }
}

section! {
    /// The store in the data directory.
    pub struct LocalStore at "store.local" {
        /// What a callback's `pic_full_url` starts with, before `/<bucket>-<appid>/<key>`. Set it to how your receiver
        /// reaches `http.addr`; without it the URL is `http://<http.addr>/objects`.
        public_url: Option<url::Url> = "",
        /// Gives objects out to signed URLs only: each `pic_full_url` ends in `?expires=…&signature=…`, and everything else
        /// is answered 403. Callbacks made before the switch name URLs that are refused after it.
        signed_urls: bool = "false",
        /// How long a signed URL opens its object, from the moment the picture is committed, or from when it is put if less than
        /// half of that is left then. As long as `deliver.log_retention`, a callback that is sent again on its last day still
        /// names a picture that can be fetched.
        signed_url_life: Duration = "14d" in "1d"..="3650d",
    }
}

section! {
    /// Callbacks.
    pub struct Deliver at "deliver" {
        /// Networks with private addresses that callbacks may go to. All other private, loopback and link-local addresses
        /// are refused, and so are this machine's own that are not in one of these. The flag `--allow-receiver` may be repeated.
        allow_receiver: Vec<Cidr> = "",
        /// Time for one attempt: name resolution, connection, TLS, request and the head of the answer, whose status decides.
        /// CSS gives 20 s.
        timeout: Duration = "20s" in "100ms"..="5m",
        /// An HTTP proxy that every callback goes through, as `http://[user:password@]host:port`. It is asked (`CONNECT`) for
        /// addresses that were resolved and judged here, never for names, and does not see into `https` callbacks. No
        /// environment variable but this setting's own is read for it.
        proxy: Option<Proxy> = "",
        /// Further attempts for event 200 after the first.
        snapshot_retries: u32 = "5" in "0"..="100",
        /// Wait before each of them, from the end of the attempt before.
        snapshot_retry_interval: Duration = "2m" in "10ms"..="1d",
        /// Further attempts for events 1 and 0 after the first.
        push_retries: u32 = "12" in "0"..="100",
        /// Wait before each of them, from the end of the attempt before.
        push_retry_interval: Duration = "1m" in "10ms"..="1d",
        /// Attempts at a time, beside one that every receiver (host and port) has for itself while it answers within a second.
        /// Slower receivers share at most half of them, so they delay each other and nobody else.
        concurrency: u32 = "512" in "1"..="16384",
        /// Most attempts at a time to one host and port. How many there are adapts to it: more while it answers, half as many
        /// when it does not, or answers 429 or 5xx.
        per_endpoint: u32 = "64" in "1"..="1024",
        /// Failures in a row after which a receiver's new callbacks wait until it answers again. They lose nothing by it, and
        /// those that have had an attempt go on by their schedule. 0 never lets them wait.
        breaker_failures: u32 = "5" in "0"..="1000",
        /// How long a callback may be due while it waits like that. After this it is a dead letter with the outcome `held`, which
        /// can be replayed. None becomes one before its receiver was paused for an hour, or for this time if that is shorter,
        /// since the start.
        held_max: Duration = "1d" in "10m"..="30d",
        /// A callback that has been due for longer and was not sent is told of in the log and counted in
        /// `framehook_endpoints_overdue`: its receiver hangs, fails or cannot keep up.
        overdue_after: Duration = "10m" in "1s"..="30d",
        /// How long settled deliveries and their attempts are kept.
        log_retention: Duration = "14d" in "1h"..="365d",
        /// Room for them in the database. The oldest go first.
        log_bytes_max: ByteSize = "2GiB" in "1MiB"..="1TiB",
    }
}

section! {
    /// The log of who changed what.
    pub struct Audit at "audit" {
        /// How long its entries are kept.
        retention: Duration = "365d" in "1d"..="3650d",
        /// Room for them in the database. The oldest go first.
        bytes_max: ByteSize = "64MiB" in "1MiB"..="64GiB",
    }
}

section! {
    /// Names of stored objects.
    pub struct Names at "names" {
        /// Time zone of `{Year}` to `{Second}`: an offset such as `+08:00`, or an IANA name such as `Europe/Berlin`. CSS
        /// names in UTC+8.
        time_zone: NameZone = "+08:00",
    }
}

section! {
    /// Log lines, on standard error.
    pub struct Log at "log" {
        /// The least severe line that is written.
        level: LogLevel = "info",
        /// `auto` is text on a terminal and JSON otherwise.
        format: LogFormat = "auto",
    }
}

section! {
    /// How long each step of an orderly end may take; together at most 18 s, so that SIGTERM ends the process within 25 s.
    /// What is not done by then is picked up by the next start.
    pub struct Shutdown at "shutdown" {
        /// Publishers: told to go, and their pushes recorded.
        sessions: Duration = "2s" in "0"..="18s",
        /// Pictures that workers have in hand.
        renders: Duration = "3s" in "0"..="18s",
        /// Uploads under way.
        puts: Duration = "5s" in "0"..="18s",
        /// Callbacks under way.
        attempts: Duration = "8s" in "0"..="18s",
    }
}

/// Everything that a person can set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The account number of this deployment.
    pub app_id: i64,
    /// Whether `PornFlag` 1 is kept although nothing acts on it.
    pub accept_porn_flag: bool,
    /// `[http]`
    pub http: Http,
    /// `[rtmp]`
    pub rtmp: Rtmp,
    /// `[tls]`
    pub tls: Tls,
    /// `[ingest]`
    pub ingest: Ingest,
    /// `[render]`
    pub render: Render,
    /// `[spool]`
    pub spool: Spool,
    /// `[store]`
    pub store: Store,
    /// `[store.local]`
    pub store_local: LocalStore,
    /// `[[object_store]]`
    pub object_stores: Vec<ObjectStore>,
    /// `[deliver]`
    pub deliver: Deliver,
    /// `[audit]`
    pub audit: Audit,
    /// `[names]`
    pub names: Names,
    /// `[log]`
    pub log: Log,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// Domains, templates and rules.
    pub declared: Declared,
}

/// Every table in the order of the reference.
const TABLES: &[Table] = &[
    Process::TABLE,
    Http::TABLE,
    Rtmp::TABLE,
    Tls::TABLE,
    Ingest::TABLE,
    Render::TABLE,
    Spool::TABLE,
    Store::TABLE,
    LocalStore::TABLE,
    Deliver::TABLE,
    Audit::TABLE,
    Names::TABLE,
    Log::TABLE,
    Shutdown::TABLE,
    ObjectStore::TABLE,
    DomainTable::TABLE,
    SnapshotTemplateTable::TABLE,
    SnapshotRenditionTable::TABLE,
    CallbackTemplateTable::TABLE,
    SnapshotRuleTable::TABLE,
    CallbackRuleTable::TABLE,
];

/// Variables with our prefix that are read elsewhere: the file's path, the key of the keys, and the crash suite's two.
const OTHER_VARIABLES: &[&str] =
    &["FRAMEHOOK_CONFIG", "FRAMEHOOK_MASTER_KEY", "FRAMEHOOK_FAIL_POINT", "FRAMEHOOK_FAIL_POINT_LOG"];

/// Largest configuration file that is read. Ten thousand rules take about one megabyte.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where a configuration is read from. Kept by `serve`, since a reload reads the same places.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment's variables. Those without our prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line: the flag's name for messages, the key it sets, and the value. A repeated flag adds to
    /// a list.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// The file and this process's environment. Variables that are not UTF-8 are passed over.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { file, environment: std::env::vars_os().filter_map(utf8).collect(), flags: Vec::new() }
    }

    /// Adds a flag: `name` for messages, the key it sets, and its value.
    pub fn flag(&mut self, name: &'static str, key: &'static str, value: impl Into<String>) {
        self.flags.push((name, key, value.into()));
    }

    fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::new();
        for (name, text) in &self.environment {
            let field_of = |table: &Table| {
                let mut keys = table.fields.iter().map(|field| table.key(field));
                keys.find(|key| !table.repeated && environment_name(key) == *name)
            };
            if let Some(key) = TABLES.iter().find_map(field_of) {
                overrides.insert(key, (Origin::Environment(name.clone()), text.clone()));
            }
        }
        for &(name, key, ref text) in &self.flags {
            let origin = Origin::Flag(name);
            let value = match overrides.get(key) {
                Some((earlier, before)) if *earlier == origin => format!("{before},{text}"),
                _ => text.clone(),
            };
            overrides.insert(key.to_owned(), (origin, value));
        }
        overrides
    }

    /// Variables that look like ours and set nothing, each with the one that was probably meant.
    ///
    /// They are not refused, as an unknown key of the file is: Kubernetes gives every container variables named after
    /// its services, and a service named `framehook` must not keep Framehook from starting.
    pub fn unknown_variables(&self) -> Vec<(String, Option<String>)> {
        let settings = TABLES.iter().filter(|table| !table.repeated);
        let mut known: Vec<String> =
            settings.flat_map(|table| table.fields.iter().map(|field| environment_name(&table.key(field)))).collect();
        known.extend(OTHER_VARIABLES.iter().map(|&name| name.to_owned()));
        let ours = self.environment.iter().map(|(name, _)| name).filter(|name| name.starts_with(ENVIRONMENT_PREFIX));
        ours.filter(|name| !known.contains(name))
            .map(|name| (name.clone(), problem::nearest(name, known.iter().map(String::as_str)).map(str::to_owned)))
            .collect()
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every problem of the file, the environment and the flags together.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let text = match &sources.file {
            Some(path) => read_file(path)?,
            None => String::new(),
        };
        Self::parse(&text, sources)
    }

    /// Like [`Config::load`], with the file's text at hand.
    ///
    /// # Errors
    /// Every problem of the text, the environment and the flags together.
    pub fn parse(text: &str, sources: &Sources) -> Result<Self, ConfigError> {
        let root: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Not the error's own text: it repeats the line, which may hold a key.
            let place = error.span().and_then(|span| line_and_column(text, span.start));
            let place = place.map(|(line, column)| format!(" at line {line}, column {column}")).unwrap_or_default();
            Problem::in_file("", None, format!("is not TOML{place}: {}", error.message()))
        })?;
        let mut problems = Vec::new();
        section::refuse_unknown(&root, "", TABLES, &mut problems);
        let overrides = sources.overrides();
        let config = Self::read(&root, &overrides, &sources.environment, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError { problems }),
        }
    }

    fn read(
        root: &toml::Table,
        overrides: &Overrides,
        environment: &[(String, String)],
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        fn table<S: Section>(root: &toml::Table, overrides: &Overrides, problems: &mut Vec<Problem>) -> Option<S> {
            let mut parts = S::TABLE.path.split('.').filter(|part| !part.is_empty());
            let written = parts.try_fold(root, |table, part| table.get(part)?.as_table());
            S::read(&mut Reader { written, path: S::TABLE.path.to_owned(), overrides, problems })
        }
        let process: Option<Process> = table(root, overrides, problems);
        let http = table(root, overrides, problems);
        let rtmp = table(root, overrides, problems);
        let tls: Option<Tls> = table(root, overrides, problems);
        let ingest = table(root, overrides, problems);
        let render = table(root, overrides, problems);
        let spool = table(root, overrides, problems);
        let store = table(root, overrides, problems);
        let store_local = table(root, overrides, problems);
        let deliver = table(root, overrides, problems);
        let audit = table(root, overrides, problems);
        let names = table(root, overrides, problems);
        let log = table(root, overrides, problems);
        let shutdown = table(root, overrides, problems);
        let object_stores = ObjectStore::read_all(root, overrides, environment, problems);
        // Without an account number, which is a problem of its own, the declarations are still checked.
        let app_id = process.as_ref().map_or(1, |process| process.app_id);
        let declared = Declared::read(root, overrides, app_id, problems);
        let process = process?;
        let config = Self {
            data_dir: process.data_dir,
            app_id: process.app_id,
            accept_porn_flag: process.accept_porn_flag,
            http: http?,
            rtmp: rtmp?,
            tls: tls?,
            ingest: ingest?,
            render: render?,
            spool: spool?,
            store: store?,
            store_local: store_local?,
            object_stores: object_stores?,
            deliver: deliver?,
            audit: audit?,
            names: names?,
            log: log?,
            shutdown: shutdown?,
            declared: declared?,
        };
        config.check_together(problems);
        Some(config)
    }

    /// The keys, beside domains, templates and rules, that differ from those of a `running` server: they apply when it is
    /// started again.
    pub fn differing_settings(&self, running: &Self) -> Vec<String> {
        let process = |config: &Self| Process {
            data_dir: config.data_dir.clone(),
            app_id: config.app_id,
            accept_porn_flag: config.accept_porn_flag,
        };
        [
            process(self).differing(&process(running)),
            self.http.differing(&running.http),
            self.rtmp.differing(&running.rtmp),
            self.tls.differing(&running.tls),
            self.ingest.differing(&running.ingest),
            self.render.differing(&running.render),
            self.spool.differing(&running.spool),
            self.store.differing(&running.store),
            self.store_local.differing(&running.store_local),
            if self.object_stores == running.object_stores { Vec::new() } else { vec!["object_store".to_owned()] },
            self.deliver.differing(&running.deliver),
            self.audit.differing(&running.audit),
            self.names.differing(&running.names),
            self.log.differing(&running.log),
            self.shutdown.differing(&running.shutdown),
        ]
        .concat()
    }

    /// Where the built-in rule's pictures go.
    pub fn built_in_store(&self) -> StoreTarget {
        let default = StoreTarget::default();
        StoreTarget::new(self.app_id, default.bucket(), default.region()).expect("any account number in range fits")
    }

    /// What no single key can tell.
    fn check_together(&self, problems: &mut Vec<Problem>) {
        let Shutdown { sessions, renders, puts, attempts } = self.shutdown;
        let total = sessions + renders + puts + attempts;
        if total > SHUTDOWN_MAX {
            let what = format!("the steps take {total:?} together, and may take {SHUTDOWN_MAX:?} at most");
            problems.push(Problem::in_file("shutdown", None, what));
        }
        for (index, template) in self.declared.snapshot_templates.iter().enumerate() {
            let mut targets = template.all_renditions().map(|rendition| rendition.store);
            if let Some(target) = targets.find(|target| !is_taken(&self.object_stores, target)) {
                let key = format!("snapshot_template[{}].cos_region", index + 1);
                let bucket = target.full_bucket();
                let what = format!("no object store takes the bucket {bucket} in this region; add an [[object_store]]");
                problems.push(Problem::in_file(key, Some(format!("{:?}", target.region())), what));
            }
        }
        let missing = match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => Some(("tls.key", "is required with tls.cert")),
            (None, Some(_)) => Some(("tls.cert", "is required with tls.key")),
            _ => None,
        };
        problems.extend(missing.map(|(key, what)| Problem::in_file(key, None, what)));
        if self.http.admin.is_some_and(|admin| admin == self.http.addr && admin.port() != 0) {
            let value = Some(format!("{:?}", self.http.addr.to_string()));
            problems.push(Problem::in_file("http.admin", value, "must differ from http.addr"));
        }
    }
}

/// With the graces that are fixed, and the closing of the database, an orderly end stays under 25 s: systemd kills after
/// 90 s and Kubernetes after 30 s. `docker stop` kills after 10 s unless told otherwise, which loses nothing either.
const SHUTDOWN_MAX: Duration = Duration::from_secs(18);

const _: () = assert!(SHUTDOWN_MAX.as_secs() + FIXED_GRACES.as_secs() < 25);

impl Default for Config {
    fn default() -> Self {
        Self::parse("", &Sources::default()).expect("an empty configuration is valid, which a test shows")
    }
}

/// Both from 1, the column in characters.
fn line_and_column(text: &str, at: usize) -> Option<(usize, usize)> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next().unwrap_or(before);
    Some((before.matches('\n').count() + 1, line.chars().count() + 1))
}

fn read_file(path: &Path) -> Result<String, Problem> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| {
        Problem::in_file("", None, format!("cannot read the configuration file {}: {error}", path.display()))
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let what = format!("the configuration file {} is larger than {}", path.display(), ByteSize(FILE_BYTES_MAX));
        return Err(Problem::in_file("", None, what));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
