//! Whether a new picture may be made, by how full the spool and its disk are, and by where the picture goes.

use std::sync::Arc;

use framehook_domain::template::{SnapshotTemplate, StoreTarget};

use super::spool::{Spool, SpoolFull};
use super::{Conditions, Stores};
use crate::db::snapshot::Place;

/// What a picture is likely to need on the disk, to refuse early: a 1080p JPEG of quality 85 has some 280 KB.
pub(crate) const IMAGE_BYTES_EXPECTED: u64 = 512 << 10;

/// The question that is asked of each pick before any work is done on it. Never touches the disk.
#[derive(Clone, Debug)]
pub struct Room {
    spool: Arc<Spool>,
    stores: Stores,
    conditions: Arc<Conditions>,
}

impl Room {
    pub fn new(spool: Arc<Spool>, stores: Stores, conditions: Arc<Conditions>) -> Self {
        Self { spool, stores, conditions }
    }

    /// Whether there is room for a picture by this template. The last part of the spool is kept from pictures that would only
    /// wait there: a bucket that fails for hours must not fill it for those that take theirs at once.
    ///
    /// # Errors
    /// [`SpoolFull`]: skip it.
    pub fn is_for(&self, template: &SnapshotTemplate) -> Result<(), SpoolFull> {
        self.spool.has_room(IMAGE_BYTES_EXPECTED)?;
        if self.spool.is_crowded() && template.all_renditions().all(|rendition| self.would_wait(rendition.store)) {
            return Err(SpoolFull);
        }
        Ok(())
    }

    fn would_wait(&self, target: &StoreTarget) -> bool {
        let chosen = self.stores.choose(target);
        self.conditions.is_failing(&Place { store: chosen.name.to_string(), bucket: chosen.bucket })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use framehook_domain::id::{SnapshotId, uuid_v7};
    use framehook_domain::time::{Mono, UnixMs};

    use super::*;
    use crate::clock::Clock;
    use crate::entropy::Entropy;
    use crate::fatal::Fatal;
    use crate::store::spool::SpoolLimits;
    use crate::store::{Local, LocalStore, StoreError};
    use crate::telemetry::Telemetry;

    const SPOOL_BYTES: u64 = 8 << 20;

    fn template(bucket: &str) -> SnapshotTemplate {
        SnapshotTemplate::built_in(StoreTarget::new(1_250_000_000, bucket, "local").expect("a target"))
    }

    #[test]
    fn the_last_part_of_the_spool_is_for_buckets_that_take_their_pictures() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = SpoolLimits { bytes_max: SPOOL_BYTES, disk_reserve_bytes: 0 };
        let spool = Spool::open(&dir.path().join("spool"), limits, &[], Fatal::new()).expect("a spool");
        let spool = Arc::new(spool);
        let files = LocalStore::open(&dir.path().join("objects"), Entropy::system(), Fatal::new()).expect("a store");
        let stores = Stores::new(Local::new(Arc::new(files), "http://127.0.0.1:8080/objects", None));
        let conditions = Arc::<Conditions>::default();
        let room = Room::new(Arc::clone(&spool), stores, Arc::clone(&conditions));
        let (away, well) = (template("away"), template("well"));
        let write = |number, bytes: u64| {
            let id = SnapshotId(uuid_v7(UnixMs(0), [number; 10]));
            spool.write(id, &vec![0; bytes as usize]).expect("written");
        };
        let timed_out = StoreError::TimedOut { host: "h".into(), waited: Duration::from_secs(1) };
        let place = Place { store: LocalStore::NAME.into(), bucket: "away-1250000000".into() };
        let telemetry = Telemetry::new(Clock::start());
        let fail = |times| {
            (0..times).for_each(|_| conditions.failed(&place, &timed_out, Mono::default(), 0.5, &telemetry));
        };

        write(1, SPOOL_BYTES * 3 / 4);
        fail(3);
        assert!(room.is_for(&away).is_ok(), "it may wait in three quarters of the spool");
        write(2, 1);
        assert!(room.is_for(&away).is_err());
        assert!(room.is_for(&well).is_ok());
        assert!(conditions.succeeded(&place, UnixMs(0), &telemetry));
        fail(1);
        assert!(room.is_for(&away).is_ok(), "one failure does not speak for its bucket");
        write(3, SPOOL_BYTES / 4 - IMAGE_BYTES_EXPECTED);
        assert!(room.is_for(&well).is_err(), "full is full");
    }
}
