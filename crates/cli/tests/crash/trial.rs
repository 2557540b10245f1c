//! A server that is killed over and over on one data directory, what it is pushed, what it stores and what it sends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::AddAssign;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use framehook_testkit::dice::Dice;
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::tls::Ca;
use framehook_testkit::wait;
use rustix::process::Signal;

use crate::backlog;
use crate::common::{DOMAIN, FRAMEHOOK, PATIENCE, config, secure_config};
use crate::ledger::{self, Ledger};
use crate::load::{self, Load, ROOMS, ROOMS_COUNT};
use crate::nginx::Nginx;
use crate::objects::{Objects, S3, into_s3};
use crate::witness::{Plan, Witness};

/// The only point that a process passes once in a database's life; every other one is passed by each picture or push.
pub(crate) const MIGRATION: &str = "migration_step";

/// Which way pictures and callbacks go.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// Into the data directory, and to the receiver by HTTP/1.1.
    Plain,
    /// Into S3.
    IntoS3(&'a S3),
    /// To the receiver by HTTP/2, as nginx takes it.
    OverHttp2,
}

/// What kills from outside are called in the report.
const RANDOM: &str = "a random instant";
const IN_STOP: &str = "a random instant of its orderly stop";

/// Attempts under way at once.
const CONCURRENCY: u64 = 256;

/// Attempts after the first, of every kind of event.
const RETRIES: i64 = 5;

/// Of half of the rooms no latest objects: a picture that is one image can be in the local store before its row.
fn numbered_alone() -> String {
    let rule = |number| {
        format!(
            "[[snapshot_rule]]\ndomain = \"{DOMAIN}\"\napp = \"live\"\nstream = \"{ROOMS}{number}\"\ntemplate = \"numbered\"\n"
        )
    };
    let rules: String = (0..ROOMS_COUNT / 2).map(rule).collect();
    format!("[[snapshot_template]]\nname = \"numbered\"\nsnapshot_interval = \"2s\"\n{rules}")
}

/// Schedules of a hundredth of CSS's, so that a delivery can die within a run, and room for a slow machine in the grace.
fn settings() -> String {
    format!(
        r#"
[ingest]
reconnect_grace = "10m"
[deliver]
concurrency = {CONCURRENCY}
per_endpoint = {CONCURRENCY}
timeout = "1s"
snapshot_retries = {RETRIES}
snapshot_retry_interval = "200ms"
push_retries = {RETRIES}
push_retry_interval = "200ms"
"#
    )
}

/// How one life of the server ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// By its own hand, at the `nth` passage of a fail point.
    At { point: &'static str, nth: u64 },
    /// From outside, this long after it was started.
    After(Duration),
    /// From outside, `later` than it was asked to stop, which is this long after it was started. It may be quicker.
    InStop { after: Duration, later: Duration },
}

impl Blow {
    fn name(&self) -> &'static str {
        match self {
            Self::At { point, .. } => point,
            Self::After(_) => RANDOM,
            Self::InStop { .. } => IN_STOP,
        }
    }

    /// When the server is killed from outside, counted from its start.
    fn falls_at(&self) -> Option<Duration> {
        match *self {
            Self::At { .. } => None,
            Self::After(after) => Some(after),
            Self::InStop { after, later } => Some(after + later),
        }
    }
}

/// The executable with fail points in it, beside the shipped one.
fn with_fail_points() -> Result<PathBuf> {
    let path = Path::new(FRAMEHOOK).with_file_name("framehook-failpoints");
    ensure!(
        path.exists(),
        "{0} is missing; `./dev test` makes it, or: cargo build -p framehook --features failpoints && cp {FRAMEHOOK} {0} \
         && cargo build -p framehook",
        path.display()
    );
    Ok(path)
}

/// What a run has shown.
#[derive(Default)]
struct Figures {
    kills: BTreeMap<&'static str, u32>,
    /// From the start of a process to the first callback that it sent.
    first_callbacks: Vec<Duration>,
    /// Deliveries that were open at each kill, and those of them whose attempt was under way.
    open: Vec<usize>,
    claimed: Vec<usize>,
}

/// A server that is killed, what it is pushed, what it stores and what it sends. Between two lives it does not run.
pub(crate) struct Trial {
    server: Server,
    objects: Objects,
    witness: Witness,
    /// Stands before the receiver.
    front: Option<Nginx>,
    load: Load,
    shipped: ServerSpec,
    armed: ServerSpec,
    passed_points: PathBuf,
    ledger: Ledger,
    /// How many kills each delivery had an attempt under way at.
    cut_off: BTreeMap<String, u64>,
    figures: Figures,
}

impl Trial {
    /// With a receiver that answers as `plan` says.
    pub(crate) fn set_up(dice: &mut Dice, scratch: &Path, plan: Plan, way: Way<'_>) -> Result<Self> {
        let receiver = Receiver::start()?;
        let mut front = None;
        let toml = match way {
            Way::Plain => config(&receiver, 2, &settings()),
            Way::IntoS3(s3) => into_s3(&config(&receiver, 2, &(settings() + &s3.settings("10s")))),
            Way::OverHttp2 => {
                let (ca, authority) = (Ca::new()?, scratch.join("ca.pem"));
                std::fs::write(&authority, ca.pem())?;
                let pass = format!("proxy_pass http://{}; proxy_next_upstream off;", receiver.address());
                let nginx = front.insert(Nginx::start(&ca.issue(2040)?, &pass)?);
                secure_config(
                    nginx.address,
                    2,
                    &format!("ca_file = {:?}", authority.display().to_string()),
                    &settings(),
                )
            }
        };
        let mut toml = toml.replacen("snapshot_interval", "objects = \"both\"\nsnapshot_interval", 1);
        if !matches!(way, Way::IntoS3(_)) {
            toml += &numbered_alone();
        }
        let passed_points = scratch.join("passed");
        let shipped = ServerSpec::new(FRAMEHOOK).config(&toml);
        let armed = ServerSpec::new(with_fail_points()?)
            .config(&toml)
            .env("FRAMEHOOK_FAIL_POINT_LOG", passed_points.display().to_string());
        let mut server = shipped.clone().start()?;
        let objects = match way {
            Way::Plain | Way::OverHttp2 => {
                Objects::Local { dir: server.data_dir().join("objects"), http: server.http_address() }
            }
            Way::IntoS3(s3) => s3.objects(),
        };
        let witness = Witness::new(receiver, objects.clone(), plan);
        let load = Load::new(&server, dice.draw())?;
        server.terminate()?;
        let ledger = Ledger::default();
        Ok(Self {
            server,
            objects,
            witness,
            front,
            load,
            shipped,
            armed,
            passed_points,
            ledger,
            cut_off: BTreeMap::new(),
            figures: Figures::default(),
        })
    }

    /// Kills the server while it makes its database, `times` in a row, each time where the last one left off.
    pub(crate) fn kill_in_migration(&mut self, times: usize) -> Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let path = self.server.data_dir().join(format!("framehook.db{suffix}"));
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        for _ in 0..times {
            self.live_until(Blow::At { point: MIGRATION, nth: 1 })?;
        }
        Ok(())
    }

    /// Starts the server, waits until a push has ended, and kills it.
    pub(crate) fn see_a_push_end(&mut self) -> Result<()> {
        self.server.restart_as(self.shipped.clone())?;
        wait::until("a push to end", PATIENCE, || {
            self.load.tend();
            backlog::has_original(&self.server.data_dir()).is_ok_and(|has| has).then_some(())
        })?;
        self.server.process().signal(Signal::KILL)?;
        self.server.wait_for_end(PATIENCE)?;
        self.ledger = Ledger::read(&self.server.data_dir())?;
        self.was_cut_off();
        Ok(())
    }

    /// Notes whose attempts were under way at the kill after which `ledger` was read.
    fn was_cut_off(&mut self) {
        for id in self.ledger.under_way() {
            *self.cut_off.entry(id.to_owned()).or_default() += 1;
        }
    }

    /// Sees to it that so many callbacks are due when the server starts next.
    pub(crate) fn owe(&self, count: usize) -> Result<()> {
        backlog::owe(&self.server.data_dir(), count)
    }

    /// One life of the server, from its start to its violent end.
    pub(crate) fn live_until(&mut self, blow: Blow) -> Result<()> {
        let requests_before = self.witness.requests();
        let spec = match blow {
            Blow::At { point, nth } => self.armed.clone().env("FRAMEHOOK_FAIL_POINT", format!("{point}:{nth}")),
            Blow::After(_) | Blow::InStop { .. } => self.shipped.clone(),
        };
        self.server.restart_blindly(spec)?;
        let started = Instant::now();
        let (mut first_callback, mut asked_to_stop) = (None, false);
        wait::until("the server's death", PATIENCE, || {
            if first_callback.is_none() && self.witness.requests() > requests_before {
                first_callback = Some(started.elapsed());
            }
            if let Blow::InStop { after, .. } = blow
                && !asked_to_stop
                && started.elapsed() >= after
            {
                asked_to_stop = true;
                // Fails only if it is dead already, which is noticed below.
                let _ = self.server.process().signal(Signal::TERM);
            }
            if blow.falls_at().is_some_and(|at| started.elapsed() >= at) {
                return Some(self.server.process().signal(Signal::KILL));
            }
            self.load.tend();
            self.server.try_wait().map(|_| Ok(()))
        })
        .and_then(|signalled| signalled)
        .with_context(|| format!("the server logged:\n{}", self.server.process().stderr_tail()))?;
        let status = self.server.wait_for_end(PATIENCE)?;
        let log = self.server.process().stderr();
        // A request to stop may come before the server listens for one, and is then as final as a kill.
        let stopped = asked_to_stop && (status.success() || status.signal() == Some(Signal::TERM.as_raw()));
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        ensure!(stopped || killed, "it ended with {status} instead:\n{log}");
        ensure!(!log.contains("panicked"), "it panicked:\n{log}");
        self.figures.first_callbacks.extend(first_callback);
        *self.figures.kills.entry(blow.name()).or_default() += 1;
        no_worker_outlives(self.server.process().pid())
    }

    /// Holds the database, the disk and the receiver against each other, and the database against what it held before.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ledger = self.read_ledger()?;
        ledger.keeps_open(load::ROOMS)?;
        let claimed = ledger.count("claimed");
        self.figures.open.push(ledger.count("due") + ledger.count("waiting") + claimed);
        self.figures.claimed.push(claimed);
        self.ledger = ledger;
        self.was_cut_off();
        self.witness.was_content()
    }

    /// What the database says now, which must be true.
    fn read_ledger(&self) -> Result<Ledger> {
        let stories = self.witness.stories();
        let ledger = Ledger::read(&self.server.data_dir())?;
        ledger.forgets_nothing_of(&self.ledger)?;
        ledger.agrees_with_the_disk(&self.server.data_dir(), &self.objects)?;
        ledger.agrees_with(&stories)?;
        ledger.dead_ones_had_their_attempts(1 + RETRIES)?;
        // Of attempts that this kill cut off, no repeat can have come yet.
        ledger.explains_repeats(&stories, &self.cut_off)?;
        Ok(ledger)
    }

    /// Ends every push in order and waits until nothing is owed any more.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.server.restart_as(self.shipped.clone())?;
        self.load.finish()?;
        wait::until("everything to be drained", PATIENCE * 2, || {
            (ledger::owed(&self.server.data_dir()).ok()? == 0).then_some(())
        })
        .with_context(|| format!("the server logged:\n{}", self.server.process().stderr_tail()))?;
        // What no row tells of is cleared beside everything else.
        let spool = self.server.data_dir().join("spool");
        wait::until("an empty spool", PATIENCE, || std::fs::read_dir(&spool).ok()?.next().is_none().then_some(()))?;
        let status = self.server.terminate()?;
        ensure!(status.success(), "it ended with {status}");
        let ledger = self.read_ledger()?;
        ledger.is_drained(&self.server.data_dir(), &self.objects, &self.witness.stories())?;
        self.ledger = ledger;
        self.front.as_ref().map_or(Ok(()), |front| self.spoke_http_2(front))?;
        self.witness.was_content()
    }

    pub(crate) fn totals(&self) -> Totals {
        let stories = self.witness.stories();
        Totals {
            kills: self.figures.kills.values().sum(),
            deliveries: self.ledger.deliveries.len(),
            delivered: self.ledger.count("delivered"),
            dead: self.ledger.count("dead"),
            requests: stories.values().map(|story| story.requests).sum(),
            repeats: stories.values().map(|story| story.repeats).sum(),
            open: self.figures.open.clone(),
            claimed: self.figures.claimed.clone(),
        }
    }

    /// What stands before the receiver has passed on what came by HTTP/2, and nothing else came.
    fn spoke_http_2(&self, front: &Nginx) -> Result<()> {
        let asked = front.log();
        let other = asked.iter().find(|line| !line.starts_with("HTTP/2.0 "));
        ensure!(
            other.is_none() && asked.len() >= self.ledger.count("delivered"),
            "{} requests, {other:?}; nginx printed:\n{}",
            asked.len(),
            front.process.stderr_tail()
        );
        Ok(())
    }

    pub(crate) fn every_point_was_passed(&self, points: &[&str]) -> Result<()> {
        let passed = std::fs::read_to_string(&self.passed_points).context("no fail point was ever passed")?;
        for point in points {
            ensure!(passed.lines().any(|line| line == *point), "the fail point {point} was never passed");
            let kills = self.figures.kills.get(point).copied().unwrap_or_default();
            ensure!(kills >= 3, "only {kills} kills at the fail point {point}");
        }
        Ok(())
    }

    /// The run as the table of `docs/reliability.md`.
    pub(crate) fn report(&self, points: &[&str], seed: u64, took: Duration) -> Result<String> {
        let mut report = String::from("| killed at | times |\n|---|---|\n");
        for point in points.iter().chain([&RANDOM, &IN_STOP]) {
            let times = self.figures.kills.get(point).copied().unwrap_or_default();
            let _ = writeln!(report, "| {point} | {times} |");
        }
        let mut first = self.figures.first_callbacks.clone();
        first.sort_unstable();
        let at = |share: f64| first.get(((first.len() as f64 - 1.0) * share) as usize).copied().unwrap_or_default();
        let stories = self.witness.stories();
        let (fetched, unanswered) = self.witness.fetches();
        let requests: u64 = stories.values().map(|story| story.requests).sum();
        let mut facts: Vec<(&str, String)> = vec![
            ("kills in all", self.figures.kills.values().sum::<u32>().to_string()),
            ("pushes begun and ended", self.ledger.pushes.len().to_string()),
            ("pictures committed, stored, found whole", self.ledger.snapshots.len().to_string()),
            ("latest objects, each the newest of its stream", self.ledger.latest.len().to_string()),
            ("deliveries owed", self.ledger.deliveries.len().to_string()),
            ("of them delivered", self.ledger.count("delivered").to_string()),
            ("of them dead, as the receiver never took them", self.ledger.count("dead").to_string()),
            ("requests that the receiver saw", requests.to_string()),
            (
                "objects fetched at the moment of their callback",
                format!("{fetched} ({unanswered} asked of a dead server)"),
            ),
            ("from start to first callback", format!("{:.0?} median, {:.0?} at most", at(0.5), at(1.0))),
        ];
        if let Some(puts) = self.objects.puts_again()? {
            facts.push(("puts made again, with the same bytes", puts.to_string()));
        }
        facts.push(("seed, time", format!("{seed}, {took:.0?}")));
        report += "\n| figure | |\n|---|---|\n";
        for (name, value) in facts {
            let _ = writeln!(report, "| {name} | {value} |");
        }
        Ok(report)
    }
}

/// Waits until no render worker of a server that is gone is left. A worker's command line names its parent.
fn no_worker_outlives(server: u32) -> Result<()> {
    wait::until("the render workers to end with their server", Duration::from_secs(5), || {
        let orphans = std::fs::read_dir("/proc").ok()?.filter_map(|entry| {
            let command = std::fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
            command.contains(&format!("--parent\0{server}\0")).then_some(())
        });
        (orphans.count() == 0).then_some(())
    })
}

/// What runs under a backlog have shown.
#[derive(Default)]
pub(crate) struct Totals {
    kills: u32,
    deliveries: usize,
    delivered: usize,
    dead: usize,
    requests: u64,
    repeats: u64,
    open: Vec<usize>,
    claimed: Vec<usize>,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.deliveries += other.deliveries;
        self.delivered += other.delivered;
        self.dead += other.dead;
        self.requests += other.requests;
        self.repeats += other.repeats;
        self.open.extend(other.open);
        self.claimed.extend(other.claimed);
    }
}

impl Totals {
    /// As the table of `docs/reliability.md`.
    pub(crate) fn report(mut self, seed: u64, took: Duration) -> String {
        self.open.sort_unstable();
        self.claimed.sort_unstable();
        let median = |sorted: &[usize]| sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let least = self.open.first().copied().unwrap_or_default();
        let most = self.claimed.last().copied().unwrap_or_default();
        let facts: [(&str, String); 8] = [
            ("kills", self.kills.to_string()),
            ("deliveries open at a kill", format!("{} median, {least} at least", median(&self.open))),
            ("of them under way", format!("{} median, {most} at most", median(&self.claimed))),
            ("deliveries owed", self.deliveries.to_string()),
            ("of them delivered", self.delivered.to_string()),
            ("of them dead, as the receiver never took them", self.dead.to_string()),
            ("requests, and those that repeat what was taken", format!("{}, {}", self.requests, self.repeats)),
            ("seed, time", format!("{seed}, {took:.0?}")),
        ];
        let mut report = String::from("| figure | |\n|---|---|\n");
        for (name, value) in facts {
            let _ = writeln!(report, "| {name} | {value} |");
        }
        report
    }
}
