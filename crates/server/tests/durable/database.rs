//! The database by itself.

use std::collections::BTreeSet;
use std::fs;
use std::future::{Future as _, poll_fn};
use std::path::Path;
use std::task::Poll;

use framehook_server::clock::Clock;
use framehook_server::db::prune::vacuum_some;
use framehook_server::db::secret::Vault;
use framehook_server::db::{Db, DbError, DirLock, OpenError};
use framehook_server::entropy::Entropy;
use framehook_server::fatal::Fatal;
use framehook_testkit::wait;
use tokio::task::JoinSet;

use crate::harness::PATIENCE;

struct Opened {
    db: Db,
    fatal: Fatal,
}

fn try_open(dir: &Path) -> Result<Opened, OpenError> {
    let lock = DirLock::take(dir)?;
    let vault = Vault::open(&lock, None, &Entropy::system()).expect("a vault");
    let fatal = Fatal::new();
    Db::open(lock, &vault, Clock::start(), fatal.clone()).map(|db| Opened { db, fatal })
}

fn open(dir: &Path) -> Opened {
    try_open(dir).unwrap_or_else(|error| panic!("{error:?}"))
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A row that a test can recognise.
fn note(name: String) -> impl FnOnce(&framehook_server::db::Tx<'_>) -> Result<(), DbError> + Send + 'static {
    move |tx| {
        tx.execute("INSERT INTO key_suffix VALUES ('test', 'test', ?1, 1, 0)", [name])?;
        Ok(())
    }
}

async fn notes(db: &Db) -> BTreeSet<String> {
    db.read(|conn| {
        let mut select = conn.prepare("SELECT object_key FROM key_suffix")?;
        let names = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    })
    .await
    .expect("notes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_wait_together_share_a_commit() {
    const OPERATIONS: u64 = 500;
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let before = db.stats();
    let mut writes = JoinSet::new();
    for number in 0..OPERATIONS {
        let db = db.clone();
        writes.spawn(async move { db.write(note(format!("{number}"))).await.expect("written") });
    }
    writes.join_all().await;
    let stats = db.stats();
    assert_eq!(stats.operations - before.operations, OPERATIONS);
    let commits = stats.commits - before.commits;
    assert!(commits < OPERATIONS / 4, "{commits} commits for {OPERATIONS} operations");
    assert!(stats.batch_max > 1 && stats.batch_max <= 1024, "{}", stats.batch_max);
    assert!(stats.statements > before.statements && !stats.commit_time.is_zero());
    assert_eq!(stats.queued, 0);
    assert_eq!(notes(&db).await.len() as u64, OPERATIONS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_write_for_each_other_and_for_tasks() {
    const EACH: usize = 50;
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let before = db.stats();
    let mut writes = JoinSet::new();
    for writer in 0..8 {
        let db = db.clone();
        writes.spawn_blocking(move || {
            (0..EACH).for_each(|number| db.write_here(note(format!("here {writer} {number}"))).expect("written"));
        });
    }
    for writer in 0..8 {
        let db = db.clone();
        writes.spawn(async move {
            for number in 0..EACH {
                db.write(note(format!("task {writer} {number}"))).await.expect("written");
            }
        });
    }
    writes.join_all().await;
    assert_eq!(notes(&db).await.len(), 16 * EACH);
    assert_eq!(db.stats().operations - before.operations, 16 * EACH as u64);
    let refused = tokio::task::spawn_blocking(move || {
        let fails = db.write_here(|tx| {
            note("half".into())(tx)?;
            Err::<(), _>(DbError::Damaged { what: "a test" })
        });
        (fails, db)
    });
    let (fails, db) = refused.await.expect("no panic");
    assert!(matches!(fails, Err(DbError::Damaged { what: "a test" })));
    assert!(!notes(&db).await.contains("half"));
}

/// Occupies the writer, with an operation of its own, until what comes first is dropped.
fn hold_writer(db: &Db) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), DbError>>) {
    let ((entered, has_entered), (release, held)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let db = db.clone();
    let writing = tokio::task::spawn_blocking(move || {
        db.write_here(move |_| {
            entered.send(()).expect("the test waits");
            // An error is the end of the wait.
            let _ = held.recv();
            Ok(())
        })
    });
    has_entered.recv_timeout(PATIENCE).expect("it writes");
    (release, writing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_thread_leaves_to_another_that_writes_is_not_forgotten() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let (release, writing) = hold_writer(&db);
    let (second, (tell, left)) = (db.clone(), tokio::sync::oneshot::channel());
    // Not a thread of the runtime, whose end would wait for it.
    std::thread::spawn(move || tell.send(second.write_here(note("left".into()))));
    // Whichever of them comes first.
    drop(release);
    tokio::time::timeout(PATIENCE, left).await.expect("in time").expect("no panic").expect("written");
    writing.await.expect("no panic").expect("written");
}

#[tokio::test]
async fn what_goes_along_is_written_with_something_else_or_after_its_patience() {
    const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(3600);
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let before = db.stats().commits;
    let mut along = std::pin::pin!(db.write_along(FOR_EVER, note("along".into())));
    poll_fn(|context| {
        assert!(along.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(notes(&db).await.is_empty());
    db.write(note("other".into())).await.expect("written");
    along.await.expect("written with it");
    assert_eq!(db.stats().commits - before, 1);

    db.write_along(std::time::Duration::from_millis(1), note("alone".into())).await.expect("written by itself");
    assert_eq!(db.stats().commits - before, 2);

    let (last, ()) = tokio::join!(db.write_along(FOR_EVER, note("last".into())), db.close());
    last.expect("written before the end");
    let reopened = open(dir.path());
    let expected = ["alone", "along", "last", "other"].map(str::to_owned);
    assert_eq!(notes(&reopened.db).await, BTreeSet::from(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_a_thread_that_writes_stops_the_database_for_all() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    db.write(note("before".into())).await.expect("written");
    let along = tokio::spawn({
        let db = db.clone();
        async move { db.write_along(std::time::Duration::from_secs(3600), note("along".into())).await }
    });
    let panics = db.clone();
    let panicked =
        tokio::task::spawn_blocking(move || panics.write_here(|_| -> Result<(), DbError> { panic!("a test") }));
    assert!(matches!(panicked.await.expect("it is told"), Err(DbError::Stopped)));
    assert_eq!(fatal.wait().await.part, "database");
    assert!(matches!(db.write(note("after".into())).await, Err(DbError::Stopped)));
    assert!(matches!(along.await.expect("no panic"), Err(DbError::Stopped)), "whoever waits is told");
    db.close().await;
    drop(db);
    let reopened = open(dir.path());
    assert_eq!(notes(&reopened.db).await, BTreeSet::from(["before".to_owned()]));
}

#[tokio::test]
async fn an_operation_that_fails_undoes_only_itself() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    let fails = db.write(|tx| {
        note("half".into())(tx)?;
        Err::<(), _>(DbError::Damaged { what: "a test" })
    });
    let refuses = db.write_checked(|tx| {
        note("refused".into())(tx)?;
        Ok(Err::<(), _>("no"))
    });
    let (good, fails, refuses, taken) =
        tokio::join!(db.write(note("good".into())), fails, refuses, db.write(note("good".into())));
    good.expect("written");
    assert!(matches!(fails, Err(DbError::Damaged { what: "a test" })));
    assert_eq!(refuses.expect("ran"), Err("no"));
    assert!(taken.expect_err("a second row of that name").is_taken());
    assert_eq!(notes(&db).await, BTreeSet::from(["good".to_owned()]));
    assert!(!fatal.is_raised());
}

/// The first of a transaction has no savepoint: what it did goes with the transaction, and the others get another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_fails_first_takes_nobody_along() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    let (release, writing) = hold_writer(&db);
    let before = db.stats().commits;
    let fails = db.write(|tx| {
        note("half".into())(tx)?;
        Err::<(), _>(DbError::Damaged { what: "a test" })
    });
    let release = async { drop(release) };
    // They are queued in this order, behind what is held.
    let (fails, good, other, ()) =
        tokio::join!(fails, db.write(note("good".into())), db.write(note("other".into())), release);
    assert!(matches!(fails, Err(DbError::Damaged { what: "a test" })));
    good.and(other).expect("written");
    writing.await.expect("no panic").expect("written");
    assert_eq!(notes(&db).await, BTreeSet::from(["good".to_owned(), "other".to_owned()]));
    assert_eq!(db.stats().commits - before, 2, "what was held, and the two behind the one that failed");
    assert!(!fatal.is_raised());
}

#[tokio::test]
async fn what_runs_while_the_process_begins_to_end_is_not_committed() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    let written = db.write(move |tx| {
        note("stands on a sync that failed".into())(tx)?;
        fatal.raise("local store", "a test");
        Ok(())
    });
    assert!(matches!(written.await, Err(DbError::Stopped)));
    assert_eq!(notes(&db).await, BTreeSet::new());
}

#[tokio::test]
async fn part_of_an_operation_can_fail_alone() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let write = |tx: &framehook_server::db::Tx<'_>| {
        note("before".into())(tx)?;
        let inner = tx.nested(|tx| {
            note("inner".into())(tx)?;
            Err::<(), _>(DbError::Damaged { what: "a test" })
        })?;
        assert!(inner.is_err());
        tx.nested(note("after".into()))?
    };
    db.write(write).await.expect("written");
    assert_eq!(notes(&db).await, BTreeSet::from(["after".to_owned(), "before".to_owned()]));
}

#[tokio::test]
async fn writes_come_in_the_order_they_were_queued() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    db.write(note("0".into())).await.expect("written");
    let rename = |number: i32| {
        db.write(move |tx| {
            tx.execute(
                "UPDATE key_suffix SET object_key = ?2 WHERE object_key = ?1",
                [number - 1, number].map(|n: i32| n.to_string()),
            )?;
            Ok(())
        })
    };
    // Polled in this order, so queued in this order, and then waited for together.
    let mut renames: Vec<_> = (1..100).map(|number| Box::pin(rename(number))).collect();
    poll_fn(|context| {
        assert!(renames.iter_mut().all(|rename| rename.as_mut().poll(context).is_pending()));
        Poll::Ready(())
    })
    .await;
    for rename in renames {
        rename.await.expect("written");
    }
    assert_eq!(notes(&db).await, BTreeSet::from(["99".to_owned()]));
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_new_start() {
    let dir = dir();
    let first = open(dir.path());
    first.db.write(note("kept".into())).await.expect("written");
    let epoch = first.db.epoch();
    first.db.close().await;
    assert!(matches!(first.db.write(note("late".into())).await, Err(DbError::Stopped)));
    assert!(matches!(first.db.read(|_| Ok(())).await, Err(DbError::Stopped)));
    let second = open(dir.path());
    assert_eq!(notes(&second.db).await, BTreeSet::from(["kept".to_owned()]));
    assert_eq!(second.db.epoch().0, epoch.0 + 1);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let written = db.read(|conn| Ok(conn.execute("DELETE FROM key_suffix", [])?)).await;
    assert!(written.is_err());
}

#[tokio::test]
async fn the_file_is_set_up_for_durability() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    let pragmas = db.write(|tx| {
        let text = |name| tx.pragma_query_value(None, name, |row| row.get::<_, String>(0));
        let number = |name| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok((text("journal_mode")?, number("synchronous")?, number("auto_vacuum")?, number("foreign_keys")?))
    });
    // WAL, FULL, INCREMENTAL, on.
    assert_eq!(pragmas.await.expect("read"), ("wal".to_owned(), 2, 2, 1));
    let tables = db.read(|conn| {
        let mut select = conn
            .prepare("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'")?;
        let tables =
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<(String, bool)>, _>>()?;
        Ok(tables)
    });
    let tables = tables.await.expect("read");
    assert!(tables.len() > 10 && tables.iter().all(|(_, strict)| *strict), "{tables:?}");
}

#[test]
fn a_second_start_on_the_same_directory_is_refused_by_name() {
    let dir = dir();
    let _first = open(dir.path());
    let refused = try_open(dir.path()).map(|_| ()).expect_err("a second start");
    let text = refused.to_string();
    let expected =
        format!("another Framehook (process {}) uses the data directory {}", std::process::id(), dir.path().display());
    assert_eq!(text, expected);
}

#[test]
fn a_newer_schema_is_refused_by_name_and_left_alone() {
    let dir = dir();
    let opened = open(dir.path());
    tokio::runtime::Runtime::new().expect("a runtime").block_on(opened.db.close());
    let path = dir.path().join("framehook.db");
    let conn = rusqlite::Connection::open(&path).expect("a database");
    conn.pragma_update(None, "user_version", 99).expect("set");
    conn.close().expect("closed");
    let before = fs::read(&path).expect("a file");
    let refused = try_open(dir.path()).map(|_| ()).expect_err("a newer schema");
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused:?}");
    assert!(refused.to_string().contains("has schema 99, made by a newer Framehook"), "{refused}");
    assert!(fs::read(&path).expect("a file") == before, "the file has changed");
}

#[test]
fn another_program_s_database_is_not_touched() {
    let dir = dir();
    let path = dir.path().join("framehook.db");
    let conn = rusqlite::Connection::open(&path).expect("a database");
    conn.execute_batch("CREATE TABLE precious (x); INSERT INTO precious VALUES (1);").expect("a table");
    conn.close().expect("closed");
    let before = fs::read(&path).expect("a file");
    assert!(matches!(try_open(dir.path()).map(|_| ()), Err(OpenError::Foreign { .. })));
    assert!(fs::read(&path).expect("a file") == before, "the file has changed");
}

#[test]
fn a_wrong_master_key_is_told_at_the_start() {
    let dir = dir();
    let opened = open(dir.path());
    tokio::runtime::Runtime::new().expect("a runtime").block_on(opened.db.close());
    fs::remove_file(dir.path().join("master.key")).expect("the key is lost");
    let refused = try_open(dir.path()).map(|_| ()).expect_err("another key");
    assert!(matches!(refused, OpenError::WrongMasterKey { .. }), "{refused:?}");
    assert!(refused.to_string().contains("FRAMEHOOK_MASTER_KEY"), "{refused}");
}

#[tokio::test]
async fn an_operation_that_goes_on_without_its_transaction_is_not_answered_as_stored() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    // SQLite may roll back by itself when the disk is full.
    let gone = db.write(|tx| Ok(tx.execute_batch("ROLLBACK")?)).await;
    assert!(matches!(gone, Err(DbError::Full)), "{gone:?}");
    db.write(note("after".into())).await.expect("the next one is written");
}

#[tokio::test]
async fn a_full_database_fails_the_operation_and_recovers_by_itself() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    db.write(note("before".into())).await.expect("written");
    let limit =
        |pages: &'static str| db.write(move |tx| Ok(tx.execute_batch(&format!("PRAGMA max_page_count = {pages}"))?));
    limit("1").await.expect("limited to its size of now");
    let big = || db.write(note("x".repeat(1 << 20)));
    assert!(matches!(big().await, Err(DbError::Full)));
    // Another caller's small write in the same moment is stored or refused, never half.
    let (small, full) = tokio::join!(db.write(note("small".into())), big());
    assert!(matches!(full, Err(DbError::Full)));
    assert!(matches!(small, Ok(()) | Err(DbError::Full)), "{small:?}");
    assert!(db.stats().full >= 2);
    assert!(!fatal.is_raised());

    let waiting = db.write_until_done(|| note("owed".repeat(1 << 18)));
    let lifted = async {
        db.write(|_| Ok(())).await.expect("written");
        limit("1000000").await.expect("lifted");
    };
    let (owed, ()) = tokio::join!(waiting, lifted);
    owed.expect("written once there was room");
    big().await.expect("written");
    assert!(notes(&db).await.contains("before"));
}

#[tokio::test]
async fn an_unreadable_file_stops_the_database_for_good() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    db.write(note("acknowledged".into())).await.expect("written");
    let path = dir.path().join("framehook.db");
    // The disk turns what it has into noise, the WAL included.
    for file in [path.clone(), dir.path().join("framehook.db-wal")] {
        let length = fs::metadata(&file).expect("a file").len() as usize;
        fs::write(&file, vec![0xa5; length]).expect("overwritten");
    }
    let mut answers = JoinSet::new();
    for number in 0..20 {
        let db = db.clone();
        // Reads far and wide, so that the damage is met whatever is cached.
        answers.spawn(async move {
            db.write(move |tx| {
                tx.execute_batch("PRAGMA shrink_memory; SELECT count(*) FROM event; SELECT count(*) FROM delivery;")?;
                note(format!("{number}"))(tx)
            })
            .await
        });
    }
    let answers = answers.join_all().await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let error = fatal.wait().await;
    assert_eq!(error.part, "database");
    assert!(matches!(db.write(note("after".into())).await, Err(DbError::Stopped)), "nothing is acknowledged any more");
}

#[tokio::test]
async fn the_wal_is_moved_into_the_file_as_it_grows() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    for number in 0..12 {
        db.write(note(format!("{number}{}", "x".repeat(2 << 20)))).await.expect("written");
    }
    let stats = db.stats();
    assert!(stats.checkpoints >= 1, "{stats:?}");
    // A thread that writes by itself leaves that to the writer's own, which has come to its end with the last when it has written
    // another.
    db.write(|_| Ok(())).await.expect("written");
    let stats = db.stats();
    let here = db.clone();
    let write =
        move || (12..24).for_each(|n| here.write_here(note(format!("{n}{}", "x".repeat(2 << 20)))).expect("written"));
    tokio::task::spawn_blocking(write).await.expect("no panic");
    wait::until("another time", PATIENCE, || (db.stats().checkpoints > stats.checkpoints).then_some(()))
        .expect("moved");
    db.close().await;
    assert!(!dir.path().join("framehook.db-wal").exists(), "an orderly end leaves one file");
}

#[tokio::test]
async fn a_lock_held_by_another_program_is_waited_out() {
    let dir = dir();
    let Opened { db, fatal } = open(dir.path());
    let mut shell = rusqlite::Connection::open(dir.path().join("framehook.db")).expect("a database");
    let held = shell.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("the lock");
    let refused = db.write(note("refused".into())).await;
    assert!(matches!(refused, Err(DbError::Busy)), "{refused:?}");
    assert!(!fatal.is_raised());
    held.rollback().expect("given back");
    db.write_until_done(|| note("stored".into())).await.expect("written");
    assert_eq!(notes(&db).await, BTreeSet::from(["stored".to_owned()]));
}

#[test]
fn only_its_owner_can_read_the_database() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = dir();
    let _opened = open(dir.path());
    for name in ["framehook.db", "framehook.db-wal", "framehook.db-shm"] {
        let mode = fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn free_pages_go_back_by_the_megabyte() {
    let dir = dir();
    let Opened { db, .. } = open(dir.path());
    for number in 0..8 {
        db.write(note(format!("{number}{}", "x".repeat(1 << 20)))).await.expect("written");
    }
    db.write(|tx| Ok(tx.execute("DELETE FROM key_suffix", [])?)).await.expect("removed");
    let free = || db.read(|conn| Ok(conn.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))?));
    let before = free().await.expect("read");
    assert!(before > 1000, "{before} free pages");
    assert!(db.write(vacuum_some).await.expect("given back"), "there is more");
    assert_eq!(free().await.expect("read"), before - 256, "1 MiB in one transaction");
    while db.write(vacuum_some).await.expect("given back") {}
    assert!(free().await.expect("read") < 256);
}
