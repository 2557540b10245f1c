//! Whether this machine and this configuration can serve: what `framehook doctor` shows.
//!
//! Each check looks at one thing, changes nothing that stays, and says how to mend what it finds. They are the starts and
//! habits of the real parts, tried out: the port is bound, the worker is started and locked in, a file is synced.

mod buckets;
mod files;
mod listen;
mod machine;

use std::path::Path;
use std::time::Duration;

use framehook_domain::template::CallbackTemplate;
use framehook_domain::time::UnixMs;

use crate::catalog::check_receivers;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Sources};
use crate::db::inspect::{self, Inspection};
use crate::db::secret::{MASTER_KEY_ENV, Vault};
use crate::notify::proxy::Proxy;
use crate::notify::tls::Tls;
use crate::render::{RenderConfig, WorkerHealth, WorkerSet};
use crate::telemetry::event::Chain;
use crate::telemetry::health;
use crate::tls::{self, Certificate};

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which check; the name never changes.
    pub check: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Good,
    /// The server starts, and something will not work as a person may expect.
    Warning,
    /// The server does not start, or cannot do its work.
    Bad,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Good, found: found.into(), mend: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    fn bad(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, status: Status::Bad, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Makes every check. With a configuration that cannot be read there is only that to say: every other check depends on it.
pub async fn examine(sources: &Sources) -> Vec<Finding> {
    let config = match Config::load(sources) {
        Ok(config) => config,
        Err(error) => return vec![configuration(Err(error))],
    };
    let (clock, dir) = (Clock::start(), config.data_dir.as_path());
    let mut findings = vec![configuration(Ok(sources.unknown_variables()))];
    findings.push(receivers(check_receivers(&config).await));
    findings.push(files::data_dir(dir));
    findings.push(files::disk(dir, config.spool.disk_reserve));
    findings.push(files::store(dir));
    findings.extend(buckets::buckets(&config, dir, clock).await);
    findings.extend(buckets::held(dir));
    findings.push(machine::clock(clock.wall(), files::newest_change(dir)));
    findings.push(machine::descriptors(machine::descriptor_limit(), &config));
    findings.extend(listen::ports(&config));
    findings.extend(workers(&config).await);
    findings.push(announced_url(&config));
    findings.push(certificates(Tls::new(None).map_or(0, |tls| tls.roots()), &config.declared.callback_templates));
    findings.push(proxy(config.deliver.proxy.as_ref()).await);
    findings.push(verification(&config.declared.callback_templates));
    findings.push(certificate(&config, clock.wall()));
    findings.push(database(dir, std::env::var(MASTER_KEY_ENV).ok().as_deref()));
    findings
}

fn configuration(read: Result<Vec<(String, Option<String>)>, ConfigError>) -> Finding {
    const CHECK: &str = "config";
    match read {
        Ok(unknown) if unknown.is_empty() => Finding::good(CHECK, "every setting can be used"),
        Ok(unknown) => {
            let names = unknown.into_iter().map(|(name, meant)| match meant {
                Some(meant) => format!("{name} (did you mean {meant}?)"),
                None => name,
            });
            let found = format!("these environment variables set nothing: {}", names.collect::<Vec<_>>().join(", "));
            Finding::warning(CHECK, found, "`framehook config reference` lists the variables that do")
        }
        Err(error) => Finding::bad(CHECK, error.to_string(), "`framehook config reference` explains every setting"),
    }
}

fn receivers(judged: Result<(), ConfigError>) -> Finding {
    const CHECK: &str = "receivers";
    match judged {
        Ok(()) => Finding::good(
            CHECK,
            "no callback URL leads to an address that may not be called, this machine's own among them",
        ),
        Err(error) => {
            Finding::bad(CHECK, error.to_string(), "allow the receiver's network by name: --allow-receiver CIDR")
        }
    }
}

/// Starts one worker as the server would.
async fn workers(config: &Config) -> [Finding; 2] {
    let required = !config.render.unsafe_no_jail;
    let render = RenderConfig { workers: 1, executable: config.render.executable.clone(), jail_required: required };
    match WorkerSet::start(&render).await {
        Ok(started) => {
            let workers = started.health.workers();
            [jail(&workers, required), codecs(&workers)]
        }
        Err(error) => {
            let found = Chain(&error).to_string();
            let mend = "framehook-render must stand beside framehook, in the same release, or be named by render.executable; \
                `framehook-render --self-test` says what the jail lacks (seccomp, in most containers a profile that forbids it)";
            [Finding::bad("jail", found, mend), Finding::bad("codecs", "no worker to ask", "see jail")]
        }
    }
}

fn jail(workers: &[WorkerHealth], required: bool) -> Finding {
    let health::Check { name, ok, detail } = health::jail(workers, required);
    match (ok, required) {
        (true, true) => Finding::good(name, detail),
        (true, false) => Finding::warning(name, detail, "run without --unsafe-no-jail"),
        (false, _) => Finding::bad(name, detail, "`framehook-render --self-test` says what is missing"),
    }
}

fn codecs(workers: &[WorkerHealth]) -> Finding {
    const CHECK: &str = "codecs";
    let names = |worker: &WorkerHealth| worker.decoders.iter().map(|codec| codec.name()).collect::<Vec<_>>().join(", ");
    match workers.iter().find(|worker| !worker.decoders.is_empty()) {
        Some(worker) => Finding::good(CHECK, format!("{} by {}", names(worker), worker.library)),
        None => Finding::bad(
            CHECK,
            "the worker decodes nothing",
            "install the distribution's libavcodec, or build the minimal one with ./dev ffmpeg",
        ),
    }
}

fn announced_url(config: &Config) -> Finding {
    const CHECK: &str = "announced_url";
    match &config.store_local.public_url {
        Some(url) => Finding::good(CHECK, format!("pictures are announced under {url}")),
        None if config.http.addr.ip().is_loopback() || config.http.addr.ip().is_unspecified() => Finding::warning(
            CHECK,
            format!(
                "pictures are announced under http://{}/objects, which other machines cannot fetch",
                config.http.addr
            ),
            "set store.local.public_url to how receivers reach http.addr",
        ),
        None => Finding::good(CHECK, format!("pictures are announced under http://{}/objects", config.http.addr)),
    }
}

fn certificates(roots: usize, templates: &[CallbackTemplate]) -> Finding {
    const CHECK: &str = "certificates";
    let verified = templates.iter().filter(|template| template.verify_tls);
    let urls = verified.flat_map(|template| {
        [&template.urls.snapshot_notify, &template.urls.stream_begin_notify, &template.urls.stream_end_notify]
    });
    let https = urls.flatten().filter(|url| url.expose().scheme() == "https").count();
    match (roots, https) {
        (0, 1..) => Finding::bad(
            CHECK,
            format!("no certificate authority is trusted, and {https} callback URLs are https://"),
            "install the package ca-certificates, or name a bundle with SSL_CERT_FILE",
        ),
        (0, 0) => Finding::good(CHECK, "no certificate authority is trusted; no callback URL is https://"),
        (roots, _) => Finding::good(CHECK, format!("{roots} certificate authorities are trusted")),
    }
}

/// Time for a connection to the egress proxy, which is near.
const PROXY_PATIENCE: Duration = Duration::from_secs(3);

async fn proxy(proxy: Option<&Proxy>) -> Finding {
    const CHECK: &str = "proxy";
    let Some(proxy) = proxy else {
        return Finding::good(CHECK, "none is configured: callbacks go straight to their receivers");
    };
    match proxy.reach(PROXY_PATIENCE).await {
        Ok(()) => Finding::good(CHECK, format!("callbacks go through {proxy}, where somebody listens")),
        Err(error) => Finding::bad(
            CHECK,
            format!("{proxy} cannot be reached: {error}"),
            "correct deliver.proxy, or start the proxy",
        ),
    }
}

fn verification(templates: &[CallbackTemplate]) -> Finding {
    const CHECK: &str = "verification";
    let unverified: Vec<&str> = templates.iter().filter(|template| !template.verify_tls).map(|t| &*t.name).collect();
    if unverified.is_empty() {
        return Finding::good(CHECK, "receivers of every callback template must prove who they are");
    }
    Finding::warning(
        CHECK,
        format!("receivers need not prove who they are: callback templates {}", unverified.join(", ")),
        "turn verify_tls on; for an authority of your own set ca_file",
    )
}

/// A certificate that ends sooner should have been renewed: the usual tools do it with a month left.
const CERTIFICATE_DAYS_MIN: i64 = 14;

fn certificate(config: &Config, now: UnixMs) -> Finding {
    const CHECK: &str = "certificate";
    const MEND: &str = "renew it; the running server takes new files by itself";
    let Some(files) = tls::files(config) else {
        return Finding::good(CHECK, "none is configured, so neither HTTPS nor RTMPS is served");
    };
    match Certificate::load(&files).map(|certificate| certificate.days_left(now)) {
        Ok(Some(days @ ..0)) => Finding::bad(CHECK, format!("it ended {} days ago", -days), MEND),
        Ok(Some(days @ ..CERTIFICATE_DAYS_MIN)) => Finding::warning(CHECK, format!("it ends in {days} days"), MEND),
        Ok(Some(days)) => Finding::good(CHECK, format!("it ends in {days} days")),
        Ok(None) => Finding::good(CHECK, "it can be used; when it ends cannot be told"),
        Err(error) => {
            let mend = "tls.cert must be a PEM chain and tls.key its key, both readable by the server's user";
            Finding::bad(CHECK, Chain(&error).to_string(), mend)
        }
    }
}

fn database(dir: &Path, master_key: Option<&str>) -> Finding {
    const CHECK: &str = "database";
    let vault = match Vault::open_known(dir, master_key) {
        Ok(vault) => vault,
        Err(error) => {
            let mend = "put the key back from your backup; without it stored callback and push keys cannot be read";
            return Finding::bad(CHECK, Chain(&error).to_string(), mend);
        }
    };
    match inspect::inspect(dir, vault.as_ref()) {
        Ok(Inspection::Absent) => Finding::good(CHECK, "none yet; the first start makes it"),
        Ok(Inspection::Whole { schema, migrates, bytes }) => {
            let found = format!("whole, schema {schema}, {bytes} bytes");
            let note =
                if migrates { "; the next start copies it beside itself and brings it to a newer schema" } else { "" };
            Finding::good(CHECK, found + note)
        }
        Err(error) => Finding::bad(CHECK, Chain(&error).to_string(), error.mend()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use framehook_media::Codec;

    use super::*;
    use crate::render::{JailReport, Landlock};

    fn config(text: &str) -> Config {
        Config::parse(text, &Sources::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn a_configuration_with_a_problem_is_all_there_is_to_say() {
        let mut sources = Sources::default();
        sources.flag("--rtmp", "rtmp.addr", "nowhere");
        let findings = examine(&sources).await;
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].check, findings[0].status), ("config", Status::Bad));
        assert!(findings[0].found.contains("rtmp.addr = \"nowhere\" (flag --rtmp)"), "{findings:?}");
    }

    #[test]
    fn a_variable_that_sets_nothing_is_a_warning() {
        let environment = vec![("FRAMEHOOK_RTMP_ADR".to_owned(), String::new())];
        let sources = Sources { environment, ..Sources::default() };
        let finding = configuration(Ok(sources.unknown_variables()));
        assert_eq!(finding.status, Status::Warning);
        assert!(finding.found.contains("FRAMEHOOK_RTMP_ADR (did you mean FRAMEHOOK_RTMP_ADDR?)"), "{finding:?}");
    }

    #[tokio::test]
    async fn a_receiver_at_a_private_address_is_bad() {
        let config = config("[[callback_template]]\nname = \"a\"\nsnapshot_notify_url = \"http://127.0.0.1/\"");
        let finding = receivers(check_receivers(&config).await);
        assert_eq!(finding.status, Status::Bad);
        assert!(finding.found.contains("loopback"), "{finding:?}");
    }

    #[tokio::test]
    async fn a_worker_that_is_missing_or_none_of_ours_is_bad() {
        for program in ["/nowhere/framehook-render", "/bin/true"] {
            let mut config = Config::default();
            config.render.executable = Some(PathBuf::from(program));
            let [jail, codecs] = workers(&config).await;
            assert_eq!((jail.status, codecs.status), (Status::Bad, Status::Bad), "{program}: {jail:?}");
        }
    }

    fn worker(decoders: Vec<Codec>, locked: bool) -> WorkerHealth {
        let jail = JailReport {
            disabled: false,
            no_new_privs: true,
            seccomp: locked,
            landlock: Landlock::Absent,
            uid: 65534,
            memory_bytes_max: 1 << 30,
            socket_refused: true,
            open_refused: true,
            exec_refused: true,
            executable_memory_refused: true,
        };
        WorkerHealth { ready: true, decoders, jail: Some(jail), ..WorkerHealth::default() }
    }

    #[test]
    fn a_worker_outside_its_jail_is_bad_or_a_warning_where_that_was_asked_for() {
        assert_eq!(jail(&[worker(vec![Codec::H264], true)], true).status, Status::Good);
        assert_eq!(jail(&[worker(vec![Codec::H264], false)], true).status, Status::Bad);
        assert_eq!(jail(&[worker(vec![Codec::H264], false)], false).status, Status::Warning);
    }

    #[test]
    fn a_worker_that_decodes_nothing_is_bad() {
        assert_eq!(codecs(&[worker(vec![], true)]).status, Status::Bad);
        assert_eq!(codecs(&[worker(vec![Codec::H264], true)]).status, Status::Good);
    }

    #[test]
    fn pictures_that_nobody_else_can_fetch_are_a_warning() {
        assert_eq!(announced_url(&Config::default()).status, Status::Warning);
        assert_eq!(announced_url(&config("[http]\naddr = \"0.0.0.0:80\"")).status, Status::Warning);
        assert_eq!(announced_url(&config("[http]\naddr = \"192.0.2.1:80\"")).status, Status::Good);
        assert_eq!(
            announced_url(&config("[store.local]\npublic_url = \"https://p.example.com/\"")).status,
            Status::Good
        );
    }

    #[test]
    fn https_receivers_need_certificate_authorities() {
        let template = |url: &str, more: &str| {
            let text = format!("[[callback_template]]\nname = \"a\"\nsnapshot_notify_url = \"{url}\"\n{more}");
            config(&text).declared.callback_templates
        };
        let rows = [
            (0, template("https://r.example.com/", ""), Status::Bad),
            (0, template("https://r.example.com/", "verify_tls = false"), Status::Good),
            (0, template("http://r.example.com/", ""), Status::Good),
            (1, template("https://r.example.com/", ""), Status::Good),
        ];
        for (roots, templates, status) in rows {
            assert_eq!(certificates(roots, &templates).status, status, "{roots} {templates:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_is_bad() {
        assert_eq!(proxy(None).await.status, Status::Good);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let there = Proxy::parse(&format!("http://us3r:p4ss@{}", listener.local_addr().unwrap())).unwrap();
        assert_eq!(proxy(Some(&there)).await.status, Status::Good);
        drop(listener);
        let found = proxy(Some(&there)).await;
        assert_eq!(found.status, Status::Bad);
        assert!(!found.found.contains("p4ss"), "{}", found.found);
    }

    #[test]
    fn receivers_that_need_not_prove_who_they_are_are_a_warning() {
        let found = |more: &str| {
            let text =
                format!("[[callback_template]]\nname = \"a\"\nsnapshot_notify_url = \"https://r.example/\"\n{more}");
            verification(&config(&text).declared.callback_templates)
        };
        assert_eq!(found("").status, Status::Good);
        let warned = found("verify_tls = false");
        assert_eq!(warned.status, Status::Warning);
        assert!(warned.found.ends_with("callback templates a"), "{}", warned.found);
    }

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning_and_one_that_has_ended_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let files = tls::tests::write_pair(dir.path(), 2040);
        let mut config = Config::default();
        assert_eq!(certificate(&config, UnixMs(0)).status, Status::Good);
        (config.tls.cert, config.tls.key) = (Some(files.cert.clone()), Some(files.key));
        let end_secs = 2_208_988_800;
        let on = |day: i64| UnixMs::from_secs(end_secs + day * 86_400);
        for (day, status) in [(-30, Status::Good), (-13, Status::Warning), (1, Status::Bad)] {
            assert_eq!(certificate(&config, on(day)).status, status, "{day}");
        }
        config.tls.key = Some(files.cert);
        assert_eq!(certificate(&config, on(-30)).status, Status::Bad);
    }

    #[test]
    fn a_database_that_cannot_be_used_is_bad_and_none_is_good() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(database(dir.path(), None).status, Status::Good);
        assert_eq!(database(dir.path(), Some("no key")).status, Status::Bad);
        std::fs::write(dir.path().join(crate::db::FILE_NAME), "this is no database, and long enough to be asked")
            .unwrap();
        let finding = database(dir.path(), None);
        assert_eq!(finding.status, Status::Bad, "{finding:?}");
        assert!(finding.mend.is_some());
        assert!(!dir.path().join("master.key").exists(), "looking makes no key");
    }
}
