//! The power fails: what was synced is there, and of everything else any part may be lost, whole or torn, in any order.
//!
//! Processes are run under a recorder of what they do to files: a first start, load, a kill, the start after it, load, a
//! kill, and at last an orderly stop. Then, for each of many places in the record, the disk is put into a state in which it may
//! be found after a power cut at that place (`framehook_testkit::disk`), a process starts on it, and what somebody was told
//! before the cut must be true.
//!
//! `FRAMEHOOK_POWER_CUTS` says how many cuts are tried, `FRAMEHOOK_POWER_CUT_SEED` where their seeds begin. Which changes
//! processes make follows from no seed, so a run that fails keeps its record and says how it is tried again.
#![expect(clippy::disallowed_methods, reason = "starts this program again, and measures what that takes")]

mod life;
mod verdict;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use framehook_testkit::dice::Dice;
use framehook_testkit::disk::{Change, Disk, Found, Recorder, parse};
use framehook_testkit::receiver::Receiver;
use framehook_testkit::wait;
use life::{Acknowledged, DATA, Life, reply, settings};
use rusqlite::Connection;
use tempfile::TempDir;
use verdict::Facts;

use crate::harness::{PATIENCE, Place, Settings, files_below, telling_room};

const CUTS_VARIABLE: &str = "FRAMEHOOK_POWER_CUTS";
const SEED_VARIABLE: &str = "FRAMEHOOK_POWER_CUT_SEED";
const RECORD_VARIABLE: &str = "FRAMEHOOK_POWER_CUT_RECORD";

/// The test that is started again for each life.
const A_LIFE: &str = "power_cut::nothing_that_was_acknowledged_is_lost_when_the_power_fails";

/// Pictures of each stream in a life that nothing cuts short; enough for two checkpoints of the write-ahead log.
const PICTURES: u64 = 60;

/// Of so many cuts one is followed by a second one, in the life that recovers from the first.
const SECOND_CUT_EVERY: u64 = 10;

/// What the processes of one data directory did, one after another.
struct Recording {
    changes: Vec<Change>,
    scratch: TempDir,
}

impl Recording {
    /// Records lives that end behind these changes, each on what the one before left; `None` is an orderly stop.
    fn make(recorder: &Recorder, lives: &[Option<u64>]) -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        let root = root_in(scratch.path());
        let (mut changes, mut disk) = (Vec::new(), Disk::default());
        for (number, &ends_after) in lives.iter().enumerate() {
            let record = scratch.path().join(format!("record-{number}"));
            let life = Life::record(recorder, A_LIFE, &root, &record, (PICTURES, ends_after));
            follow(&mut disk, &life);
            assert_eq!(differences(&disk.as_seen(), &root), BTreeSet::new(), "the record is not of everything");
            changes.extend(life);
        }
        Self { changes, scratch }
    }

    /// That of an earlier run, kept because it failed.
    fn read(dir: &Path) -> Vec<Change> {
        let records = (0..).map(|number| dir.join(format!("record-{number}"))).take_while(|record| record.exists());
        records.flat_map(|record| parse(fs::read(record).expect("a record")).expect("a whole record")).collect()
    }
}

/// The directory below which is recorded.
fn root_in(scratch: &Path) -> PathBuf {
    let root = scratch.canonicalize().expect("a path").join("root");
    fs::create_dir(&root).expect("a directory");
    root
}

fn follow(disk: &mut Disk, changes: &[Change]) {
    for change in changes {
        disk.apply(change).expect("a change of what is there");
    }
}

/// Where a state differs from what is in a directory. The write-ahead log's index is written through memory, which is not
/// recorded; whoever opens the database first makes it anew.
fn differences(found: &Found, root: &Path) -> BTreeSet<PathBuf> {
    let there = Disk::read(root).expect("files").as_seen();
    let (found, there) = (found.files(), there.files());
    let paths: BTreeSet<&PathBuf> = found.keys().chain(there.keys()).collect();
    let differ = |path: &PathBuf| {
        let is_index = path.as_os_str().as_encoded_bytes().ends_with(b"-shm");
        if is_index { found.contains_key(path) != there.contains_key(path) } else { found.get(path) != there.get(path) }
    };
    paths.into_iter().filter(|path| differ(path)).cloned().collect()
}

/// A power cut behind so many changes; everything else about it follows from the seed.
#[derive(Clone, Copy, Debug)]
struct Cut {
    behind: usize,
    seed: u64,
}

/// One for each seed, in the order of their places.
fn cuts(changes: usize, seeds: impl Iterator<Item = u64>) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = seeds.map(|seed| Cut { behind: 1 + Dice::new(seed).index(changes), seed }).collect();
    cuts.sort_by_key(|cut| cut.behind);
    cuts
}

/// Goes through a record once, stopping at each cut: gives the state in which the disk is found then, and what had been
/// acknowledged.
fn try_cuts(
    changes: &[Change],
    cuts: Vec<Cut>,
    mut attempt: impl FnMut(Cut, &Found, &[Acknowledged]) -> Result<()>,
) -> Result<()> {
    let (mut disk, mut acknowledged, mut done) = (Disk::default(), Vec::new(), 0);
    for cut in cuts {
        for change in &changes[done..cut.behind] {
            disk.apply(change)?;
            acknowledged.extend(Acknowledged::by(change, &disk));
        }
        done = cut.behind;
        let found = disk.after_power_cut(&mut Dice::new(cut.seed));
        let tried = catch_unwind(AssertUnwindSafe(|| attempt(cut, &found, &acknowledged)));
        tried.unwrap_or_else(|_| Err(anyhow!("it panicked"))).with_context(|| format!("{cut:?}"))?;
    }
    Ok(())
}

/// A process starts on what the power cut left. It stores and sends nothing, so nothing is mended before it is looked at.
fn start_on(found: &Found, acknowledged: &[Acknowledged]) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    found.write_to(dir.path())?;
    let place = Place::at(&dir.path().join(DATA), telling_room("http://127.0.0.1:1/"));
    let process = place.start_with(Settings { stores: false, notifies: false, ..settings() });
    let facts = Facts::read(place.dir())?;
    facts.bear_out(acknowledged)?;
    facts.agree_with_the_disk()?;
    process.kill();
    Ok(dir)
}

/// The next process goes on until nothing is owed.
fn go_on(dir: &Path, receiver: &Receiver, acknowledged: &[Acknowledged]) -> Result<()> {
    let place = Place::at(&dir.join(DATA), telling_room(&receiver.url("/")));
    let process = place.start_with(settings());
    let database = Connection::open(place.dir().join("framehook.db"))?;
    wait::until("everything to be settled", PATIENCE, || (Facts::owed(&database).ok()? == 0).then_some(()))?;
    drop(database);
    let is_cleared = || files_below(&place.dir().join("spool")).ok()?.is_empty().then_some(());
    wait::until("an empty spool", PATIENCE, is_cleared)?;
    ensure!(!process.fatal.is_raised(), "the process has given up");
    process.stop();
    let facts = Facts::read(place.dir())?;
    facts.bear_out(acknowledged)?;
    facts.agree_with_the_disk()?;
    facts.name_every_object()
}

/// The power fails once more while a process recovers from the first time.
fn cut_again(recorder: &Recorder, found: &Found, seed: u64, acknowledged: &[Acknowledged]) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let root = root_in(scratch.path());
    found.write_to(&root)?;
    let mut disk = Disk::read(&root)?;
    let record = scratch.path().join("record");
    let mut dice = Dice::new(seed);
    let ends_after = dice.within(10..300);
    let changes = Life::record(recorder, A_LIFE, &root, &record, (PICTURES, Some(ends_after)));
    let behind = 1 + dice.index(changes.len());
    let mut acknowledged = acknowledged.to_vec();
    for change in &changes[..behind] {
        disk.apply(change)?;
        acknowledged.extend(Acknowledged::by(change, &disk));
    }
    let context = || format!("the second cut, behind {behind} changes of the process after the first");
    start_on(&disk.after_power_cut(&mut dice), &acknowledged).with_context(context).map(drop)
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_power_fails() {
    if let Some(life) = Life::of_this_process() {
        return life.live();
    }
    let began = Instant::now();
    let count = std::env::var(CUTS_VARIABLE).map_or(100, |count| count.parse().expect("a number of power cuts"));
    let first_seed = Dice::seed_from(SEED_VARIABLE);
    let recorder = Recorder::build().expect("the recorder");
    let mut scratch = None;
    let changes = match std::env::var_os(RECORD_VARIABLE) {
        Some(kept) => Recording::read(Path::new(&kept)),
        None => {
            let mut dice = Dice::new(first_seed);
            let lives = [Some(dice.within(50..400)), Some(dice.within(500..3000)), None];
            let recording = Recording::make(&recorder, &lives);
            scratch = Some(recording.scratch);
            recording.changes
        }
    };
    let recorded = began.elapsed();
    let receiver = Receiver::start().expect("a receiver");
    receiver.on_request(reply);
    let (mut told, mut second) = (0, 0);
    let seeds = (0..count).map(|number: u64| first_seed.wrapping_add(number));
    let tried = try_cuts(&changes, cuts(changes.len(), seeds), |cut, found, acknowledged| {
        let dir = start_on(found, acknowledged)?;
        go_on(dir.path(), &receiver, acknowledged).context("going on")?;
        told += acknowledged.len();
        if cut.seed % SECOND_CUT_EVERY == 0 {
            second += 1;
            cut_again(&recorder, found, cut.seed, acknowledged)?;
        }
        Ok(())
    });
    if let Err(error) = tried {
        let kept = match scratch {
            Some(scratch) => scratch.keep(),
            None => PathBuf::from(std::env::var_os(RECORD_VARIABLE).expect("an earlier record")),
        };
        panic!(
            "{error:#}\nto try it again: {CUTS_VARIABLE}=1 {SEED_VARIABLE}=<seed> {RECORD_VARIABLE}={}",
            kept.display()
        );
    }
    println!(
        "{count} power cuts in {} changes, and {second} during the recovery; {told} acknowledgements held; seeds from \
         {first_seed}; {recorded:.1?} to record, {:.1?} in all",
        changes.len(),
        began.elapsed()
    );
}

/// A record without the syncs of directories from which names have gone since the last sync, and to which none have come.
fn without_syncs_of_removals(changes: &[Change]) -> Vec<Change> {
    let (mut came, mut went) = (BTreeSet::new(), BTreeSet::new());
    let is_kept = |change: &&Change| {
        match change {
            Change::MadeFile { dir, .. } | Change::MadeDir { dir, .. } | Change::Linked { dir, .. } => {
                came.insert(*dir);
            }
            Change::Renamed { dir, new_dir, .. } => came.extend([*dir, *new_dir]),
            Change::Removed { dir, .. } => {
                went.insert(*dir);
            }
            // One that is left out leaves what has gone to the next.
            Change::Synced { inode } if !came.remove(inode) => return !went.contains(inode),
            Change::Synced { inode } => {
                went.remove(inode);
            }
            Change::Began { .. } | Change::Wrote { .. } | Change::SetLength { .. } => {}
        }
        true
    };
    changes.iter().filter(is_kept).cloned().collect()
}

#[test]
fn an_expired_picture_stays_gone_when_the_power_fails() {
    let recorder = Recorder::build().expect("the recorder");
    let changes = Recording::make(&recorder, &[None]).changes;
    let cut_at_the_end = |changes: &[Change]| {
        let cuts = (0..20).map(|seed| Cut { behind: changes.len(), seed }).collect();
        try_cuts(changes, cuts, |_, found, acknowledged| start_on(found, acknowledged).map(drop))
    };
    cut_at_the_end(&changes).expect("what is synced");
    let back =
        cut_at_the_end(&without_syncs_of_removals(&changes)).expect_err("it is gone although that is not synced");
    assert!(format!("{back:#}").contains("has expired and is back"), "{back:#}");
}

/// Tells syncs by the name of what is synced.
type Named<'a> = &'a dyn Fn(&[u8]) -> bool;

/// The same with one kind of sync left out of the record, as if it had been forgotten. Were nothing lost then, either the sync
/// would be needless or the test above blind.
#[test]
fn each_sync_is_needed() {
    let recorder = Recorder::build().expect("the recorder");
    let changes = Recording::make(&recorder, &[None]).changes;
    let starts_a_year = |name: &[u8]| name.len() == 10 && name.starts_with(b"20");
    let is_copy = |name: &[u8]| name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit);
    let kinds: [(&str, Named<'_>); 11] = [
        ("the master key", &|name| name == b"master.key.partial"),
        ("a picture in the spool", &|name| name.ends_with(b".image")),
        ("the spool's directory", &|name| name == b"spool"),
        ("the write-ahead log", &|name| name == b"framehook.db-wal"),
        ("the database at a checkpoint", &|name| name == b"framehook.db"),
        ("the data directory", &|name| name == DATA.as_bytes()),
        ("the store's directory", &|name| name == b"objects"),
        ("a directory of the store's", &|name| name.ends_with(b"-1250000000")),
        ("a directory of objects", &starts_a_year),
        ("a directory of latest objects", &|name| name == b"live"),
        ("the copy that takes a latest object's place", &is_copy),
    ];
    for (what, is_forgotten) in kinds {
        let kept = without_syncs(&changes, |name| is_forgotten(name.as_encoded_bytes()));
        assert!(kept.len() < changes.len(), "{what} is never synced");
        let tried =
            try_cuts(&kept, cuts(kept.len(), 0..100), |_, found, acknowledged| start_on(found, acknowledged).map(drop));
        let lost = tried.err().unwrap_or_else(|| panic!("nothing is lost although {what} is not synced"));
        println!("{what} is not synced: {lost:#}");
    }
}

fn without_syncs(changes: &[Change], is_forgotten: impl Fn(&OsStr) -> bool) -> Vec<Change> {
    let mut disk = Disk::default();
    let is_kept = |change: &&Change| {
        let is_sync = matches!(change, Change::Synced { inode } if disk.name_of(*inode).is_some_and(&is_forgotten));
        disk.apply(change).expect("a change of what is there");
        !is_sync
    };
    changes.iter().filter(is_kept).cloned().collect()
}
