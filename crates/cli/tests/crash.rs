//! The server is killed with SIGKILL under load, over and over on one data directory: at every named fail point of the
//! commit, the store, the notifier and the pushes, and with the shipped executable at random instants, its own start
//! included. After each kill, and once everything has drained, what stands in the database and on the disk is held
//! against what the receiver was sent. Once with a few callbacks at a time, and once with thousands due all the while. The points
//! around a put are tried again with a server of S3 in place of the local store, over a line so slow that many kills fall into the
//! middle of a put. The points around an attempt are tried again with a receiver that takes callbacks by HTTP/2.
//!
//! Nothing of the server takes part in the checks: the database is read by the `sqlite3` program, from a copy.
//!
//! `FRAMEHOOK_CRASH_KILLS` says how often to kill (60 times and, with a backlog, 30 unless set; half as often around puts into S3, a
//! quarter over HTTP/2),
//! `FRAMEHOOK_CRASH_BACKLOG` how
//! many callbacks are due at each start (3,000), `FRAMEHOOK_CRASH_SEED` repeats an earlier run's choices. `./dev soak` kills
//! 500 times in either case, with 10,000 due.
#![expect(clippy::disallowed_methods, reason = "kills at given moments, measures, and runs sqlite3")]

#[path = "crash/backlog.rs"]
mod backlog;
mod common;
#[path = "crash/ledger.rs"]
mod ledger;
#[path = "crash/load.rs"]
mod load;
#[path = "common/nginx.rs"]
mod nginx;
#[path = "crash/objects.rs"]
mod objects;
#[path = "crash/trial.rs"]
mod trial;
#[path = "crash/witness.rs"]
mod witness;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use framehook_server::fail_point;
use framehook_testkit::dice::Dice;
use framehook_testkit::proxy::Line;
use objects::S3;
use trial::{Blow, MIGRATION, Totals, Trial, Way};

const KILLS_VARIABLE: &str = "FRAMEHOOK_CRASH_KILLS";
const BACKLOG_VARIABLE: &str = "FRAMEHOOK_CRASH_BACKLOG";
const SEED_VARIABLE: &str = "FRAMEHOOK_CRASH_SEED";

/// A kill at a random instant falls within this time of the start: from before the ports are bound until
/// every stream has had its second picture.
const RANDOM_WITHIN_MS: u64 = 3000;

/// A kill in the orderly stop falls within this time of the request, about as long as a stop takes.
const IN_STOP_WITHIN_MS: u64 = 400;

/// Kills of one database under a backlog. Each check reads all that it ever held, so a long run is made of several.
const KILLS_OF_A_BACKLOG: usize = 50;

/// The points that a put of a numbered or a latest object passes from the row that owes it to the end of its file.
const AROUND_A_PUT: [&str; 7] = [
    "rows_committed",
    "put_sent",
    "put_acknowledged",
    "stored_committed",
    "latest_acknowledged",
    "latest_committed",
    "spool_deleted",
];

/// Half as many kills are around puts into S3, where there are fewer points.
const KILLS_PER_KILL_AROUND_A_PUT: usize = 2;

/// The points that an attempt passes.
const AROUND_AN_ATTEMPT: [&str; 3] = ["attempt_sent", "attempt_answered", "attempt_settled"];

/// One in four of the kills is over HTTP/2.
const KILLS_PER_KILL_OVER_HTTP_2: usize = 4;

/// How fast bytes go to S3: a put of a picture takes a few tenths of a second, so that a kill at a random instant often falls
/// into one.
const LINE_TO_S3: Line = Line::Slow(40 << 10);

/// Each test fills the machine by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// So many kills, as often as said at each of these fail points and the others at random instants.
fn blows(points: &[&'static str], at_each: usize, kills: usize, dice: &mut Dice) -> Vec<Blow> {
    let mut blows: Vec<Blow> = Vec::new();
    for _ in 0..at_each {
        // Pushes open and close once for several pictures, so their later passages are far apart.
        let nth_max = |point: &str| if point.starts_with("push_") { 2 } else { 6 };
        blows.extend(points.iter().map(|&point| Blow::At { point, nth: dice.within(1..nth_max(point) + 1) }));
    }
    while blows.len() < kills {
        let after = Duration::from_millis(dice.within(0..RANDOM_WITHIN_MS));
        blows.push(match dice.within(0..3) {
            0 => Blow::InStop { after, later: Duration::from_millis(dice.within(0..IN_STOP_WITHIN_MS)) },
            _ => Blow::After(after),
        });
    }
    dice.shuffle(&mut blows);
    blows
}

/// Twice at each fail point of every 30 kills, at attempts' points behind up to a few hundred of them; the others at random
/// instants, soon, while most of the backlog is there.
fn blows_on_backlog(kills: usize, dice: &mut Dice) -> Vec<Blow> {
    let mut blows: Vec<Blow> = Vec::new();
    for _ in 0..(kills / 15).max(1) {
        blows.extend(fail_point::ALL.iter().filter(|&&point| point != MIGRATION).map(|&point| {
            let nth_max = if point.starts_with("attempt_") { 400 } else { 2 };
            Blow::At { point, nth: dice.within(1..nth_max + 1) }
        }));
    }
    blows.resize_with(blows.len().max(kills), || Blow::After(Duration::from_millis(dice.within(0..1000))));
    dice.shuffle(&mut blows);
    blows
}

fn number_in(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}={number}")))
}

/// Kills at these fail points and at random instants, then lets everything drain. Seven kills in ten are at the points, each as
/// often as any other and at least three times.
fn kill_over_and_over(points: &[&'static str], kills: usize, way: Way<'_>) -> Result<()> {
    let seed = Dice::seed_from(SEED_VARIABLE);
    println!("{kills} kills; {SEED_VARIABLE}={seed} repeats these choices");
    let mut dice = Dice::new(seed);
    let scratch = tempfile::tempdir()?;
    let began = Instant::now();
    let mut trial = Trial::set_up(&mut dice, scratch.path(), witness::moody, way)?;
    let at_each = (kills * 7 / 10 / points.len()).max(3);
    let (once, often): (Vec<&'static str>, Vec<&'static str>) = points.iter().partition(|&&point| point == MIGRATION);
    if !once.is_empty() {
        trial.kill_in_migration(at_each)?;
    }
    let blows = blows(&often, at_each, kills.saturating_sub(once.len() * at_each), &mut dice);
    for (number, blow) in (1..).zip(blows) {
        trial
            .live_until(blow)
            .and_then(|()| trial.check())
            .with_context(|| format!("kill {number} with {blow:?}, {SEED_VARIABLE}={seed}"))?;
    }
    trial.drain().with_context(|| format!("in the drain, {SEED_VARIABLE}={seed}"))?;
    trial.every_point_was_passed(points)?;
    println!("{}", trial.report(points, seed, began.elapsed())?);
    Ok(())
}

#[test]
fn kill_9_loses_nothing_that_was_committed() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    kill_over_and_over(fail_point::ALL, number_in(KILLS_VARIABLE).unwrap_or(60), Way::Plain).unwrap();
}

#[test]
fn kill_9_around_a_put_into_s3_puts_the_same_bytes_again() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kills = number_in(KILLS_VARIABLE).unwrap_or(60) / KILLS_PER_KILL_AROUND_A_PUT;
    let s3 = S3::start(LINE_TO_S3).unwrap();
    kill_over_and_over(&AROUND_A_PUT, kills, Way::IntoS3(&s3)).unwrap();
}

#[test]
fn kill_9_loses_no_callback_that_goes_by_http_2() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kills = number_in(KILLS_VARIABLE).unwrap_or(60) / KILLS_PER_KILL_OVER_HTTP_2;
    kill_over_and_over(&AROUND_AN_ATTEMPT, kills, Way::OverHttp2).unwrap();
}

#[test]
fn kill_9_loses_no_callback_of_a_backlog() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kills = number_in(KILLS_VARIABLE).unwrap_or(30);
    let backlog = number_in(BACKLOG_VARIABLE).unwrap_or(3000);
    let seed = Dice::seed_from(SEED_VARIABLE);
    println!("{kills} kills, {backlog} callbacks due at each start; {SEED_VARIABLE}={seed} repeats these choices");
    let mut dice = Dice::new(seed);
    let (began, mut totals) = (Instant::now(), Totals::default());
    let mut left = kills;
    while left > 0 {
        let blows = blows_on_backlog(left.min(KILLS_OF_A_BACKLOG), &mut dice);
        left = left.saturating_sub(blows.len());
        let done = kill_under_backlog(&blows, backlog, &mut dice);
        totals += done.with_context(|| format!("{SEED_VARIABLE}={seed}")).unwrap();
    }
    println!("{}", totals.report(seed, began.elapsed()));
}

/// One database's life under a backlog.
fn kill_under_backlog(blows: &[Blow], backlog: usize, dice: &mut Dice) -> Result<Totals> {
    let scratch = tempfile::tempdir()?;
    let mut trial = Trial::set_up(dice, scratch.path(), witness::busy, Way::Plain)?;
    trial.see_a_push_end()?;
    for (number, &blow) in (1..).zip(blows) {
        trial
            .owe(backlog)
            .and_then(|()| trial.live_until(blow))
            .and_then(|()| trial.check())
            .with_context(|| format!("kill {number} with {blow:?}"))?;
    }
    trial.owe(backlog)?;
    trial.drain().context("in the drain")?;
    Ok(trial.totals())
}
