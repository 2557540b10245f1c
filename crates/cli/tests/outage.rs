//! An object store that is away under load: it refuses connections, then hangs, then is too busy, and between these the
//! server is killed. Pictures come all the while, 25 a second. When the store is back everything arrives with the bytes
//! that were committed, no callback came before its object, the server has not grown by what waited, and what happens now is
//! not shown late because of what happened then.
//!
//! `FRAMEHOOK_OUTAGE_SECS` says how long the store is away (9 unless set; `./dev soak` sets 60), and `FRAMEHOOK_OUTAGE_STREAMS`
//! how many streams there are (50, which a machine that has other work can follow; `./dev soak` sets 100: 50 pictures a second).
#![expect(clippy::disallowed_methods, reason = "kills at given moments, measures, and runs sqlite3")]

mod common;
#[path = "crash/ledger.rs"]
mod ledger;
#[path = "crash/objects.rs"]
mod objects;
#[path = "crash/witness.rs"]
mod witness;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use common::{FRAMEHOOK, config, push_url};
use framehook_testkit::clip::ClipSpec;
use framehook_testkit::flv::FlvFile;
use framehook_testkit::proxy::Line;
use framehook_testkit::publisher::{Publisher, PublisherSpec};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::server::{Server, ServerSpec};
use framehook_testkit::wait;
use ledger::Ledger;
use objects::{S3, into_s3};
use witness::Witness;

const SECS_VARIABLE: &str = "FRAMEHOOK_OUTAGE_SECS";

const STREAMS_VARIABLE: &str = "FRAMEHOOK_OUTAGE_STREAMS";

/// The shortest interval there is.
const INTERVAL_SECS: u32 = 2;

/// The line to the store when all is well. The bytes of a picture take some 25 ms on it with 100 streams and 50 with half of them,
/// as over a distance, so that the backlog, with its half of the slots, needs more than a second on the fastest machine: otherwise
/// nothing could be said about an order. The 16 slots take many times what is committed in that time.
fn good_line(streams: u32) -> Line {
    Line::Slow(streams * (4 << 10))
}

/// Shorter than a third of the outage, so that puts which hang are given up within their part of it.
const STORE_TIMEOUT: &str = "2s";

/// By how much the server's memory may exceed what it took before the outage. The pictures that wait, of some 10 KB each,
/// are 2.5 MB after nine seconds and, of twice as many streams, 30 MB after a minute.
const GROWTH_KIB_MAX: u64 = 16 << 10;

/// Two minutes and a half on a machine that also builds programs.
const PATIENCE: Duration = Duration::from_secs(150);

/// How the store is away.
#[derive(Clone, Copy, Debug)]
enum Away {
    Refuses,
    Hangs,
    IsTooBusy,
}

impl Away {
    fn begin(self, s3: &S3, good_line: Line) -> Result<()> {
        match self {
            Self::Refuses => s3.line.set(Line::Reset),
            Self::Hangs => s3.line.set(Line::Stalled),
            Self::IsTooBusy => {
                s3.store.fault("always-503")?;
                s3.line.set(good_line);
            }
        }
        Ok(())
    }
}

/// A publisher for every stream. They come back to the push that they had.
fn publish(server: &Server, file: &Arc<FlvFile>, streams: u32) -> Result<Vec<Publisher>> {
    let start = |number| {
        let url = push_url(server, &format!("room_{number}")).parse()?;
        Ok(PublisherSpec { patience: PATIENCE, ..PublisherSpec::new(url, Arc::clone(file)) }.looped().start()?)
    };
    (0..streams).map(start).collect()
}

fn clip() -> Result<Arc<FlvFile>> {
    let clip = ClipSpec {
        width: 320,
        height: 180,
        fps: 10,
        kbit_per_s: 200,
        duration: Duration::from_secs(2),
        gop: Duration::from_secs(1),
        audio: false,
        ..ClipSpec::default()
    };
    Ok(Arc::new(clip.build()?.flv()?))
}

/// The most memory that the server has had since its start, in KiB.
fn memory_kib(server: &Server) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn wall_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn pass(length: Duration) -> Result<()> {
    let ends = Instant::now() + length;
    wait::until("a part of the outage to pass", length + PATIENCE, || (Instant::now() >= ends).then_some(()))
}

/// When each picture was committed and when it was stored, by the word of the database, seen from the moment `back_ms` at
/// which the store could be reached again.
struct Recovery {
    /// Of those committed before the first put that was taken: when they were stored, in order.
    backlog_stored_ms: Vec<i64>,
    /// Of the others: committed, stored.
    fresh_ms: Vec<(i64, i64)>,
}

impl Recovery {
    fn of(ledger: &Ledger, back_ms: i64) -> Result<Self> {
        let times = ledger.snapshots.values().map(|row| Some((row.recorded_ms, row.settled_ms?)));
        let mut times: Vec<(i64, i64)> = times.collect::<Option<_>>().context("a picture is not stored")?;
        times.retain(|(_, stored)| *stored >= back_ms);
        let recovered_ms = times.iter().map(|(_, stored)| *stored).min().context("nothing was stored afterwards")?;
        let (backlog, fresh_ms): (Vec<_>, Vec<_>) =
            times.into_iter().partition(|(committed, _)| *committed < recovered_ms);
        let mut backlog_stored_ms: Vec<i64> = backlog.into_iter().map(|(_, stored)| stored).collect();
        backlog_stored_ms.sort_unstable();
        Ok(Self { backlog_stored_ms, fresh_ms })
    }

    /// Of the pictures that were taken while the first half of the backlog was put, those that were stored before all of the
    /// backlog was, and how many there are. In the order of their age none would be.
    fn overtook(&self) -> Result<(usize, usize)> {
        let middle = *self.backlog_stored_ms.get(self.backlog_stored_ms.len() / 2).context("no backlog")?;
        let last = *self.backlog_stored_ms.last().context("no backlog")?;
        let young = || self.fresh_ms.iter().filter(|(committed, _)| *committed < middle);
        Ok((young().filter(|(_, stored)| *stored < last).count(), young().count()))
    }

    fn report(&self) -> String {
        let mut waits: Vec<i64> = self.fresh_ms.iter().map(|(committed, stored)| stored - committed).collect();
        waits.sort_unstable();
        let (Some(first), Some(last)) = (self.backlog_stored_ms.first(), self.backlog_stored_ms.last()) else {
            return "nothing waited".to_owned();
        };
        let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or_default();
        format!(
            "{} pictures had waited and were put in {} ms; fresh ones took {} ms (median), {} ms (99 %)",
            self.backlog_stored_ms.len(),
            last - first,
            at(0.5),
            at(0.99)
        )
    }
}

#[test]
fn a_store_that_is_away_under_load_gets_everything_when_it_is_back() -> Result<()> {
    let secs: u32 = std::env::var(SECS_VARIABLE).map_or(Ok(9), |secs| secs.parse()).context(SECS_VARIABLE)?;
    let streams: u32 = std::env::var(STREAMS_VARIABLE).map_or(Ok(50), |n| n.parse()).context(STREAMS_VARIABLE)?;
    let good_line = good_line(streams);
    let s3 = S3::start(good_line)?;
    let receiver = Receiver::start()?;
    let settings = format!("[ingest]\nreconnect_grace = \"10m\"\n{}", s3.settings(STORE_TIMEOUT));
    let config = into_s3(&config(&receiver, INTERVAL_SECS, &settings));
    let witness = Witness::new(receiver, s3.objects(), witness::content);
    let file = clip()?;
    let mut server = ServerSpec::new(FRAMEHOOK).config(config).start()?;
    let mut publishers = publish(&server, &file, streams)?;
    // Event 1 and two pictures of each: by then it runs evenly.
    wait::until("every stream's second picture", PATIENCE, || {
        (witness.requests() >= 3 * streams as usize).then_some(())
    })?;
    let before_kib = memory_kib(&server)?;

    let began = Instant::now();
    let mut memory_kib_max = 0;
    for (number, away) in [Away::Refuses, Away::Hangs, Away::IsTooBusy].into_iter().enumerate() {
        away.begin(&s3, good_line)?;
        pass(Duration::from_secs(secs.into()) / 3)?;
        memory_kib_max = memory_kib_max.max(memory_kib(&server)?);
        if number < 2 {
            server.kill9()?;
            publishers.clear();
            server.restart()?;
            publishers = publish(&server, &file, streams)?;
        }
    }
    let (away, back_ms) = (began.elapsed(), wall_ms()?);
    let waiting = ledger::owed_puts(&server.data_dir(), back_ms)?;
    let expected = away.as_secs_f64() * f64::from(streams) / f64::from(INTERVAL_SECS);
    ensure!(
        waiting as f64 > expected / 2.0,
        "{waiting} pictures of {expected:.0} wait: the load was not what it should be"
    );

    s3.store.fault("none")?;
    let stored_again = || (ledger::owed_puts(&server.data_dir(), back_ms).ok()? == 0).then_some(());
    wait::until("what had waited to be stored", PATIENCE, stored_again)
        .with_context(|| format!("the server logged:\n{}", server.process().stderr_tail()))?;
    memory_kib_max = memory_kib_max.max(memory_kib(&server)?);
    for publisher in publishers {
        publisher.stop();
    }
    wait::until("everything to be drained", PATIENCE, || (ledger::owed(&server.data_dir()).ok()? == 0).then_some(()))
        .with_context(|| format!("the server logged:\n{}", server.process().stderr_tail()))?;
    ensure!(server.terminate()?.success(), "the server did not end in order");
    let log = server.log();
    ensure!(!log.contains("spool_missing"), "a picture was looked for that was put already:\n{log}");

    let ledger = Ledger::read(&server.data_dir())?;
    ledger.agrees_with(&witness.stories())?;
    ledger.is_drained(&server.data_dir(), &s3.objects(), &witness.stories())?;
    ensure!(ledger.count("delivered") == ledger.deliveries.len(), "some deliveries are dead");
    witness.was_content()?;
    let recovery = Recovery::of(&ledger, back_ms)?;
    println!(
        "away for {away:.0?} with {waiting} pictures waiting at its end, of {} in all; {}; {} puts were made again; memory \
         {before_kib} KiB before, {memory_kib_max} KiB at most",
        ledger.snapshots.len(),
        recovery.report(),
        s3.objects().puts_again()?.context("S3 counts its puts")?
    );
    let (overtook, young) = recovery.overtook()?;
    ensure!(young > 0, "no picture was taken while the backlog went");
    ensure!(
        overtook * 10 >= young * 9,
        "only {overtook} of {young} fresh pictures did not wait for all of the backlog"
    );
    ensure!(
        memory_kib_max < before_kib + GROWTH_KIB_MAX,
        "the server had {before_kib} KiB before the outage and {memory_kib_max} KiB in it"
    );
    Ok(())
}

#[test]
fn a_stop_does_not_wait_for_a_store_that_hangs() -> Result<()> {
    /// So slow that a put is seen to have begun and is far from its end.
    const CRAWL: Line = Line::Slow(200);
    /// What is promised of SIGTERM.
    const STOP_MAX: Duration = Duration::from_secs(25);
    let s3 = S3::start(CRAWL)?;
    let receiver = Receiver::start()?;
    let settings = format!("[ingest]\nreconnect_grace = \"1s\"\n{}", s3.settings("1m"));
    let config = into_s3(&config(&receiver, 10, &settings));
    let witness = Witness::new(receiver, s3.objects(), witness::content);
    let mut server = ServerSpec::new(FRAMEHOOK).config(config).start()?;
    let url = push_url(&server, "room").parse()?;
    let publisher = PublisherSpec { patience: PATIENCE, ..PublisherSpec::new(url, clip()?) }.looped().start()?;
    wait::until("a put to begin", PATIENCE, || (s3.line.passed_bytes() > 0).then_some(()))?;
    s3.line.set(Line::Stalled);

    let asked = Instant::now();
    let status = server.terminate()?;
    ensure!(status.success(), "it ended with {status}");
    let stop = asked.elapsed();
    ensure!(stop < STOP_MAX, "the stop took {stop:?}");
    publisher.stop();
    let waiting = ledger::owed_puts(&server.data_dir(), wall_ms()?)?;
    ensure!(waiting > 0, "the picture is not owed any more");

    s3.line.set(Line::Open);
    server.restart()?;
    let back = Instant::now();
    wait::until("everything to be drained", PATIENCE, || (ledger::owed(&server.data_dir()).ok()? == 0).then_some(()))
        .with_context(|| format!("the server logged:\n{}", server.process().stderr_tail()))?;
    ensure!(server.terminate()?.success(), "the server did not end in order");
    let ledger = Ledger::read(&server.data_dir())?;
    ledger.agrees_with(&witness.stories())?;
    ensure!(ledger.count("delivered") == ledger.deliveries.len(), "some deliveries are dead");
    ensure!(s3.objects().sizes()?.len() == ledger.snapshots.len(), "not every picture is stored");
    println!("the stop took {stop:.1?}; all was drained {:.1?} after the start", back.elapsed());
    witness.was_content()
}
