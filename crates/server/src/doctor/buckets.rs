//! Whether the object stores of the configuration take pictures: each bucket that its templates name is asked.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use framehook_domain::template::StoreTarget;

use super::Finding;
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::fatal::Fatal;
use crate::store::{Bucket, Local, LocalStore, Stores};
use crate::telemetry::event::Chain;

/// A clock that is further off than this makes stores refuse what it signs sooner or later; COS is the strictest.
const CLOCK_OFF_SECS_MAX: u64 = 30;

/// One finding for each bucket of a declared template that is in a store of the network.
pub(super) async fn buckets(config: &Config, clock: Clock) -> Vec<Finding> {
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
    let templates = config.declared.snapshot_templates.iter();
    let targets: BTreeSet<&StoreTarget> =
        templates.flat_map(|template| template.all_renditions().map(|rendition| rendition.store)).collect();
    let mut findings = Vec::new();
    for target in targets {
        let chosen = stores.choose(target);
        let Some(store) = chosen.store.filter(|_| *chosen.name != *LocalStore::NAME) else { continue };
        let place = format!("{} of the store {}", chosen.bucket, chosen.name);
        let probed = store.probe(Bucket { region: target.region(), name: &chosen.bucket }).await;
        findings.push(match probed {
            Err(error) => Finding::bad(CHECK, format!("{place}: {}", Chain(&error)), error.mend()),
            Ok(probe) => match probe.clock_ahead_secs {
                Some(ahead) if ahead.unsigned_abs() > CLOCK_OFF_SECS_MAX => Finding::warning(
                    CHECK,
                    format!("{place} is there; this machine's clock is {ahead} s ahead of the store's"),
                    "set the clock, for instance with systemd-timesyncd or chrony",
                ),
                _ => Finding::good(CHECK, format!("{place} is there, and knows us")),
            },
        });
    }
    findings
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

    #[tokio::test]
    async fn a_bucket_that_cannot_be_reached_is_bad() {
        let text = "[[object_store]]\nname = \"a\"\nkind = \"cos\"\nsecret_id = \"A\"\nsecret_key = \"B\"\n\
                    buckets = [\"framehook-1250000000\"]\n\
                    endpoint = \"http://127.0.0.1:1\"\n[[snapshot_template]]\nname = \"t\"\ncos_region = \"beijing\"";
        let config = Config::parse(text, &Sources::default()).unwrap_or_else(|error| panic!("{error}"));
        let findings = buckets(&config, Clock::start()).await;
        assert_eq!((findings.len(), findings[0].status), (1, Status::Bad), "{findings:?}");
        assert!(findings[0].found.starts_with("framehook-1250000000 of the store a"), "{findings:?}");
        assert!(buckets(&Config::default(), Clock::start()).await.is_empty());
    }
}
