//! Whether the object stores of the configuration take pictures: each bucket that a template names is asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use framehook_domain::template::StoreTarget;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Finding;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::inspect;
use crate::entropy::Entropy;
use crate::fatal::Fatal;
use crate::store::{Bucket, Local, LocalStore, Stores};
use crate::telemetry::event::Chain;

/// A clock that is further off than this makes stores refuse what it signs sooner or later; COS is the strictest.
const CLOCK_OFF_SECS_MAX: u64 = 30;

/// Buckets that are asked at a time. Each takes a connection, and may take its store's whole time-out.
const ASKED_MAX: usize = 16;

/// One finding for each bucket that a template of the configuration or of the database in `dir` names, unless it is in the local
/// store.
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
    let declared = declared.flat_map(|template| template.all_renditions().map(|rendition| rendition.store.clone()));
    let known = inspect::store_targets(dir).into_iter();
    let known = known.filter_map(|(app_id, bucket, region)| StoreTarget::new(app_id, &bucket, &region).ok());
    let targets: BTreeSet<StoreTarget> = declared.chain(known).collect();
    let ask = async |target: StoreTarget| {
        let chosen = stores.choose(&target);
        let Some(store) = chosen.store else {
            let found = format!("no store takes {} in the region {}", chosen.bucket, target.region());
            return Some(Finding::bad(CHECK, found, "name its bucket, account or region in an [[object_store]]"));
        };
        if *chosen.name == *LocalStore::NAME {
            return None;
        }
        let place = format!("{} of the store {}", chosen.bucket, chosen.name);
        let probed = store.probe(Bucket { region: target.region(), name: &chosen.bucket }).await;
        Some(match probed {
            Err(error) => Finding::bad(CHECK, format!("{place}: {}", Chain(&error)), error.mend()),
            Ok(probe) => match probe.clock_ahead_secs {
                Some(ahead) if ahead.unsigned_abs() > CLOCK_OFF_SECS_MAX => Finding::warning(
                    CHECK,
                    format!("{place} is there; this machine's clock is {ahead} s ahead of the store's"),
                    "set the clock, for instance with systemd-timesyncd or chrony",
                ),
                _ => Finding::good(CHECK, format!("{place} is there, and knows us")),
            },
        })
    };
    stream::iter(targets).map(ask).buffered(ASKED_MAX).filter_map(std::future::ready).collect().await
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
}
