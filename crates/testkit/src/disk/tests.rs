use std::collections::BTreeSet;
use std::process::Command;

use super::*;

const ROOT: Inode = 1;
const FILE: Inode = 2;

/// What each file holds, by path, in all states in which a disk is found in a thousand power cuts.
fn found_after(changes: &[Change]) -> BTreeSet<Vec<(String, String)>> {
    let mut disk = Disk::default();
    for change in [Change::Began { root: ROOT }].iter().chain(changes) {
        disk.apply(change).unwrap();
    }
    (0..1000)
        .map(|seed| {
            let found = disk.after_power_cut(&mut Dice::new(seed));
            let text = |bytes: Option<&[u8]>| bytes.map_or("/".into(), |bytes| String::from_utf8_lossy(bytes).into());
            found.files().into_iter().map(|(path, bytes)| (path.display().to_string(), text(bytes))).collect()
        })
        .collect()
}

fn made(file: Inode, name: &str) -> Change {
    Change::MadeFile { file, dir: ROOT, name: name.into() }
}

fn wrote(offset: u64, text: &str) -> Change {
    Change::Wrote { file: FILE, offset, bytes: text.to_owned().into() }
}

fn synced(inode: Inode) -> Change {
    Change::Synced { inode }
}

fn moved(name: &str, new_name: &str) -> Change {
    Change::Renamed { file: FILE, dir: ROOT, name: name.into(), new_dir: ROOT, new_name: new_name.into() }
}

fn file(name: &str, text: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), text.to_owned())]
}

#[test]
fn a_synced_file_has_no_name_until_its_directory_is_synced() {
    let mut changes = vec![made(FILE, "a"), wrote(0, "text"), synced(FILE)];
    assert_eq!(found_after(&changes), BTreeSet::from([vec![], file("a", "text")]));
    changes.push(synced(ROOT));
    assert_eq!(found_after(&changes), BTreeSet::from([file("a", "text")]));
}

#[test]
fn a_named_file_may_be_empty_until_it_is_synced() {
    let changes = [made(FILE, "a"), synced(ROOT), wrote(0, "text")];
    assert_eq!(found_after(&changes), BTreeSet::from([file("a", ""), file("a", "text")]));
}

#[test]
fn later_writes_may_come_before_earlier_ones() {
    let changes = [made(FILE, "a"), wrote(0, "12"), synced(FILE), synced(ROOT), wrote(0, "a"), wrote(1, "b")];
    assert_eq!(found_after(&changes), ["12", "a2", "1b", "ab"].map(|text| file("a", text)).into());
}

#[test]
fn a_write_is_torn_between_sectors_and_harms_nothing_beside_it() {
    let (old, new) = ("o".repeat(1536), "n".repeat(1024));
    // From the middle of the first sector of 512 bytes to the middle of the third.
    let changes = [made(FILE, "a"), wrote(0, &old), synced(FILE), synced(ROOT), wrote(256, &new)];
    let found = found_after(&changes);
    for state in &found {
        let text = &state[0].1;
        assert_eq!((&text[..256], &text[1280..]), (&old[..256], &old[1280..]));
        for part in [256..512, 512..1024, 1024..1280] {
            assert!(text[part.clone()].bytes().all(|byte| byte == text.as_bytes()[part.start]), "{text}");
        }
    }
    assert_eq!(found.len(), 8, "each of three sectors is old or new");
}

#[test]
fn a_rename_happens_or_does_not() {
    let changes = [made(FILE, "a"), wrote(0, "text"), synced(FILE), synced(ROOT), moved("a", "b")];
    assert_eq!(found_after(&changes), BTreeSet::from([file("a", "text"), file("b", "text")]));
}

#[test]
fn the_last_names_of_a_file_that_was_removed_and_made_again_are_its_own() {
    let again = [made(FILE, "a"), wrote(0, "one"), synced(FILE), synced(ROOT)];
    let removed = Change::Removed { dir: ROOT, name: "a".into() };
    // The number of a file that is gone is given to the next.
    let changes = [&again[..], &[removed, made(FILE, "a"), wrote(0, "two"), synced(FILE), synced(ROOT)]].concat();
    assert_eq!(found_after(&changes), BTreeSet::from([file("a", "two")]));
}

#[test]
fn a_directory_is_lost_with_all_that_was_synced_in_it() {
    let dir = 3;
    let changes = [
        Change::MadeDir { made: dir, dir: ROOT, name: "dir".into() },
        Change::MadeFile { file: FILE, dir, name: "a".into() },
        synced(FILE),
        synced(dir),
    ];
    let whole = vec![("dir".to_owned(), "/".to_owned()), ("dir/a".to_owned(), String::new())];
    assert_eq!(found_after(&changes), BTreeSet::from([vec![], whole]));
}

#[test]
fn two_names_of_one_file_stay_two_names_of_one_file() {
    let linked = Change::Linked { file: FILE, dir: ROOT, name: "b".into() };
    let mut disk = Disk::default();
    for change in [Change::Began { root: ROOT }, made(FILE, "a"), linked] {
        disk.apply(&change).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    disk.as_seen().write_to(dir.path()).unwrap();
    let [a, b] = ["a", "b"].map(|name| fs::metadata(dir.path().join(name)).unwrap().ino());
    assert_eq!(a, b);
    let read_again = Disk::read(dir.path()).unwrap();
    assert_eq!(read_again.after_power_cut(&mut Dice::new(0)).files(), disk.as_seen().files());
}

#[test]
fn what_a_program_does_to_files_is_recorded_and_where_it_is_told_it_is_killed() {
    let (recorder, scratch) = (Recorder::build().unwrap(), tempfile::tempdir().unwrap());
    let (root, record) = (scratch.path().canonicalize().unwrap().join("root"), scratch.path().join("record"));
    let run = |ends_after| {
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        let mut program = Command::new("truncate");
        program.args(["--size=7"]).args(["a", "b"].map(|name| root.join(name)));
        let ended = program.envs(recorder.environment(&root, &record, ends_after)).output().unwrap();
        (ended.status.success(), parse(fs::read(&record).unwrap()).unwrap())
    };
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    let (succeeded, changes) = run(None);
    assert!(succeeded);
    let [dir, a, b] = [fs::metadata(&root).unwrap().ino(), inode("a"), inode("b")];
    let made = |file, name: &str| Change::MadeFile { file, dir, name: name.into() };
    let grew = |file| Change::SetLength { file, length: 7 };
    assert_eq!(changes, [Change::Began { root: dir }, made(a, "a"), grew(a), made(b, "b"), grew(b)]);

    let (succeeded, cut_off) = run(Some(3));
    assert!(!succeeded);
    assert_eq!(cut_off.len(), 3);
    assert!(root.join("a").exists() && !root.join("b").exists(), "it went no further than its record");
}
