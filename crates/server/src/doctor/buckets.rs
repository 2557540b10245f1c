//! Whether the object stores of the configuration can be used: each bucket that a template names is asked, without putting
//! anything there, and the database tells which of them have refused pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use framehook_domain::template::StoreTarget;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Finding;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::inspect::{self, HeldPlace};
use crate::entropy::Entropy;
use crate::fatal::Fatal;
use crate::store::remote::lifecycle;
use crate::store::{Bucket, Local, LocalStore, StoreError, Stores};
use crate::telemetry::event::Chain;

/// A clock that is further off than this makes stores refuse what it signs sooner or later; COS is the strictest.
const CLOCK_OFF_SECS_MAX: u64 = 30;

/// Buckets that are asked at a time. Each takes a connection, and may take its store's whole time-out.
const ASKED_MAX: usize = 16;

/// One finding for each bucket that a template of the configuration or of the database in `dir` names, unless it is in the local
/// store, and one more for each number of days that pictures are kept there.
pub(super) async fn buckets(config: &Config, dir: &Path, clock: Clock) -> Vec<Finding> {
    const CHECK: &str = "bucket";
    if config.object_stores.is_empty() {
        return Vec::new();
    }
    let stores = match Stores::open(nowhere(), &config.object_stores, clock) {
        Ok(stores) => stores,
        Err(error) => {
            return vec![Finding::bad(CHECK, Chain(&error).to_string(), "correct the object store's ca_file")];
        }
    };
    let declared = config.declared.snapshot_templates.iter();
    let declared = declared.flat_map(|template| {
        let days = template.retention_days.filter(|_| template.objects.has_sequence());
        template.all_renditions().map(move |rendition| (rendition.store.clone(), days))
    });
    let known = inspect::store_targets(dir).into_iter().filter_map(|known| {
        Some((StoreTarget::new(known.app_id, &known.bucket, &known.region).ok()?, known.retention_days))
    });
    let mut targets: BTreeMap<StoreTarget, BTreeSet<u16>> = BTreeMap::new();
    for (target, days) in declared.chain(known) {
        targets.entry(target).or_default().extend(days);
    }
    let ask = async |(target, days): (StoreTarget, BTreeSet<u16>)| {
        let chosen = stores.choose(&target);
        let Some(store) = chosen.store else {
            let found = format!("no store takes {} in the region {}", chosen.bucket, target.region());
            return vec![Finding::bad(CHECK, found, "name its bucket, account or region in an [[object_store]]")];
        };
        if *chosen.name == *LocalStore::NAME {
            return Vec::new();
        }
        let place = format!("{} of the store {}", chosen.bucket, chosen.name);
        let bucket = Bucket { region: target.region(), name: &chosen.bucket };
        let probed = store.probe(bucket).await;
        let is_there = probed.is_ok();
        let mut findings = vec![match probed {
            Err(error) => Finding::bad(CHECK, format!("{place}: {}", Chain(&error)), error.mend()),
            Ok(probe) => match probe.clock_ahead_secs {
                Some(ahead) if ahead.unsigned_abs() > CLOCK_OFF_SECS_MAX => Finding::warning(
                    CHECK,
                    format!("{place} is there; this machine's clock is {ahead} s ahead of the store's"),
                    "set the clock, for instance with systemd-timesyncd or chrony",
                ),
                _ => Finding::good(
                    CHECK,
                    format!("{place} is there, and lets us look; only pictures tell whether we may put"),
                ),
            },
        }];
        for days in days.into_iter().map(u32::from).filter(|_| is_there) {
            findings.push(retention(&place, days, store.removes_after(bucket, days).await));
        }
        findings
    };
    stream::iter(targets).map(ask).buffered(ASKED_MAX).map(stream::iter).flatten().collect().await
}

/// Whether pictures that are kept for so many days are removed after them.
fn retention(place: &str, days: u32, removes: Result<bool, StoreError>) -> Finding {
    const CHECK: &str = "retention";
    let by_hand = format!("add the rule by hand: {}", lifecycle::rule(days));
    match removes {
        Ok(true) => Finding::good(CHECK, format!("{place} removes pictures of templates with {days} days")),
        Ok(false) => Finding::warning(
            CHECK,
            format!("{place} has no rule yet that removes pictures of templates with {days} days"),
            format!(
                "none is needed before the first such picture, with which the server adds it; if it could not, {by_hand}"
            ),
        ),
        Err(error) => Finding::warning(
            CHECK,
            format!("{place} does not say whether it removes pictures after {days} days: {}", Chain(&error)),
            format!("let these credentials read and write the bucket's lifecycle rules, or {by_hand}"),
        ),
    }
}

/// One finding for each bucket that has refused pictures which wait for a person, as the database in `dir` has it: what a look
/// at the bucket does not tell, such as the right to put.
pub(super) fn held(dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "held_pictures";
    let held = inspect::held_places(dir).into_iter().map(|held| {
        let HeldPlace { store, bucket, pictures, error } = held;
        let found = format!("{pictures} pictures are held that {bucket} of the store {store} does not take: {error}");
        let mend = "mend that, and the server puts them within a minute or two; GET /v1/stores says more, and \
                    POST /v1/snapshots/{id}/discard gives one up";
        Finding::bad(CHECK, found, mend)
    });
    held.collect()
}

/// A local store that nothing is put into.
fn nowhere() -> Local {
    Local::new(Arc::new(LocalStore::closed(PathBuf::new(), Entropy::system(), Fatal::new())), "", None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::doctor::Status;

    const STORE: &str = "[[object_store]]\nname = \"a\"\nkind = \"cos\"\nsecret_id = \"A\"\nsecret_key = \"B\"\n\
                         buckets = [\"framehook-1250000000\"]\nendpoint = \"http://127.0.0.1:1\"\n";

    async fn findings(text: &str, dir: &Path) -> Vec<Finding> {
        let config = Config::parse(text, &Sources::default()).unwrap_or_else(|error| panic!("{error}"));
        buckets(&config, dir, Clock::start()).await
    }

    #[tokio::test]
    async fn a_bucket_that_cannot_be_reached_is_bad() {
        let template = "[[snapshot_template]]\nname = \"t\"\ncos_region = \"beijing\"";
        let findings_of = async |text: &str| findings(text, Path::new("/nowhere")).await;
        let found = findings_of(&format!("{STORE}{template}")).await;
        assert_eq!((found.len(), found[0].status), (1, Status::Bad), "{found:?}");
        assert!(found[0].found.starts_with("framehook-1250000000 of the store a"), "{found:?}");
        assert!(findings_of("").await.is_empty());
    }

    #[tokio::test]
    async fn templates_of_the_database_are_asked_about_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let conn = rusqlite::Connection::open(dir.path().join("framehook.db")).expect("a database");
        conn.execute_batch(include_str!("../../../../migrations/0001-start.sql")).expect("a schema");
        conn.execute_batch(
            "INSERT INTO snapshot_template (id, name, interval_secs, jpeg_quality, objects, latest_key, app_id, bucket, region,
                 prefix, file_name, managed_by, created_ms, updated_ms)
             VALUES (1, 't', 10, 85, 'sequence', '', 1250000000, 'framehook', 'ap-beijing', '', '', 'api', 0, 0);
             INSERT INTO snapshot_rendition (template_id, position, name, width, height, format, quality, bucket)
             VALUES (1, 0, 'thumb', 0, 0, 'jpeg', 85, 'thumbs')",
        )
        .expect("a template");
        let found = findings(STORE, dir.path()).await;
        let texts: Vec<_> = found.iter().map(|finding| &*finding.found).collect();
        assert!(texts[0].starts_with("framehook-1250000000 of the store a") && texts.len() == 2, "{texts:?}");
        assert_eq!(texts[1], "no store takes thumbs-1250000000 in the region ap-beijing");
    }

    #[test]
    fn pictures_that_wait_for_a_person_are_bad_once_for_each_bucket() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(held(dir.path()), []);
        let conn = rusqlite::Connection::open(dir.path().join("framehook.db")).expect("a database");
        conn.execute_batch(include_str!("../../../../migrations/0001-start.sql")).expect("a schema");
        conn.execute_batch(
            "INSERT INTO snapshot (id, trace, push_sequence, domain, app, stream, template_id, catalog_version, event_id,
                 create_time_ms, recorded_ms, width, height, format, file_size, sha256, store, region, bucket, object_key,
                 put_state, put_due_ms, put_alarm, put_error)
             VALUES (x'01', x'01', 1, 'd', 'a', 's', 1, 1, x'01', 0, 0, 1, 1, 'jpeg', 1, x'00', 'cos', 'r', 'shots-1', '1.jpg',
                 'owed', 10, 1, 'AccessDenied, then'),
                 (x'02', x'02', 1, 'd', 'a', 's', 1, 1, x'02', 0, 0, 1, 1, 'jpeg', 1, x'00', 'cos', 'r', 'shots-1', '2.jpg',
                 'owed', 20, 1, 'AccessDenied, now'),
                 (x'03', x'03', 1, 'd', 'a', 's', 1, 1, x'03', 0, 0, 1, 1, 'jpeg', 1, x'00', 'cos', 'r', 'fine-1', '3.jpg',
                 'owed', 20, 0, 'timed out');
             INSERT INTO latest_object (store, bucket, object_key, region, id, trace, create_time_ms, format, file_size, is_owed,
                 owed_since_ms, put_due_ms, put_alarm, put_error)
             VALUES ('cos', 'shots-1', 'l.jpg', 'r', x'04', x'04', 0, 'jpeg', 1, 1, 0, 15, 1, 'AccessDenied, meanwhile'),
                 ('s3', 'shots-1', 'l.jpg', 'r', x'05', x'05', 0, 'jpeg', 1, 1, 0, 15, 1, 'NoSuchBucket')",
        )
        .expect("rows");
        let found = held(dir.path());
        let texts: Vec<_> = found.iter().map(|finding| (finding.status, &*finding.found)).collect();
        let expected = [
            "3 pictures are held that shots-1 of the store cos does not take: AccessDenied, now",
            "1 pictures are held that shots-1 of the store s3 does not take: NoSuchBucket",
        ];
        assert_eq!(texts, expected.map(|found| (Status::Bad, found)));
    }

    #[test]
    fn a_rule_that_is_missing_or_cannot_be_seen_comes_with_its_words() {
        let refused = || StoreError::Unknown { store: "a".to_owned() };
        for (removes, status) in
            [(Ok(true), Status::Good), (Ok(false), Status::Warning), (Err(refused()), Status::Warning)]
        {
            let finding = retention("shots-1 of the store a", 7, removes);
            assert_eq!(finding.status, status, "{finding:?}");
            assert!(status == Status::Good || finding.mend.is_some_and(|mend| mend.contains("<Value>7</Value>")));
        }
    }
}
