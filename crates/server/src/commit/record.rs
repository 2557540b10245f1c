//! The rows of a batch: each picture's snapshots, events and deliveries.

use std::sync::Arc;

use framehook_domain::callback::{EventKind, SnapshotStored};
use framehook_domain::object_key::Naming;
use framehook_domain::pick::Subscriber;
use framehook_domain::template::Rendition;

use super::{CommitError, CommitParts, Recorded, Rendered, RenderedRendition, Spooled, Taken};
use crate::db::outbox::{Announcing, NewEvent, announce};
use crate::db::snapshot::{self, NewSnapshot};
use crate::db::{DbError, Tx, count};
use crate::fail_point;
use crate::store::Bucket;

/// One image of a picture, and what it was made for.
#[derive(Clone, Copy)]
struct Made<'a> {
    rendered: &'a Rendered,
    taken: &'a Taken,
    rendition: Rendition<'a>,
    image: &'a RenderedRendition,
    sha256: [u8; 32],
}

impl CommitParts {
    /// One transaction for the whole batch, in which a picture that fails undoes only itself.
    pub(super) async fn write_rows(&self, spooled: Arc<Vec<Spooled>>) -> Vec<Result<Vec<Recorded>, CommitError>> {
        let parts = self.clone();
        let pictures = spooled.len();
        let write = move |tx: &Tx<'_>| {
            let catalog = Arc::clone(&parts.catalog.borrow());
            let announcing = Announcing {
                catalog: &catalog,
                entropy: &parts.entropy,
                wall: parts.clock.wall(),
                now: parts.timeline.now(),
            };
            let record = |picture: &Spooled| tx.nested(|tx| parts.record_picture(tx, &announcing, picture));
            spooled.iter().map(record).collect::<Result<Vec<_>, DbError>>()
        };
        match self.db.write(write).await {
            Ok(recorded) => {
                fail_point::pass("rows_committed");
                recorded.into_iter().map(|result| result.map_err(CommitError::from)).collect()
            }
            Err(error) => vec![Err(error.into()); pictures],
        }
    }

    fn record_picture(
        &self,
        tx: &Tx<'_>,
        announcing: &Announcing<'_>,
        picture: &Spooled,
    ) -> Result<Vec<Recorded>, DbError> {
        let Spooled { rendered, sha256 } = picture;
        let mut sums = sha256.iter();
        let mut recorded = Vec::with_capacity(sha256.len());
        for taken in &rendered.pictures {
            for (rendition, image) in taken.template.all_renditions().zip(&taken.renditions) {
                let sha256 = *sums.next().ok_or(DbError::Damaged { what: "a picture that was not written" })?;
                let made = Made { rendered, taken, rendition, image, sha256 };
                recorded.push(self.record_rendition(tx, announcing, &made)?);
            }
            // A picture is one, however many renditions are made of it.
            count::add(tx, &rendered.stream.domain, rendered.create_time)?;
        }
        Ok(recorded)
    }

    fn record_rendition(&self, tx: &Tx<'_>, announcing: &Announcing<'_>, made: &Made<'_>) -> Result<Recorded, DbError> {
        let Made { rendered, taken, rendition, image, sha256 } = *made;
        let chosen = self.stores.choose(rendition.store);
        let full_bucket = rendition.store.full_bucket();
        let bucket = Bucket { region: rendition.store.region(), name: &full_bucket };
        let wanted = rendition.pattern.expand(&Naming {
            stream: &rendered.stream,
            create_time: rendered.create_time,
            zone: &self.zone,
            width: image.width,
            height: image.height,
            rendition: rendition.name,
            format: rendition.format,
        });
        let key = snapshot::free_key(tx, &chosen.name, bucket.name, wanted, announcing.wall)?;
        let pic_full_url = chosen.store.full_url(bucket, &key, announcing.wall);
        let file_size_bytes = image.bytes.len() as u64;
        // CSS knows one image of a picture, and its receivers get the body that they know.
        let name = (taken.renditions.len() > 1).then_some(rendition.name);
        let task_id = match taken.subscriber {
            Some(Subscriber::Task(task)) => Some(task.to_string()),
            Some(Subscriber::Rule(_)) | None => None,
        };
        let body = SnapshotStored {
            stream: &rendered.stream,
            param: &rendered.param,
            create_time: rendered.create_time,
            file_size_bytes,
            width: image.width,
            height: image.height,
            pic_url: &key.pic_url(),
            pic_full_url: &pic_full_url,
            task_id: task_id.as_deref(),
            rendition: name,
        }
        .body();
        let event_id = announce(
            tx,
            announcing,
            &NewEvent {
                kind: EventKind::Snapshot,
                stream: &rendered.stream,
                sequence: rendered.sequence,
                snapshot: Some(image.snapshot_id),
                body: &body,
            },
        )?;
        snapshot::insert(
            tx,
            &NewSnapshot {
                id: image.snapshot_id,
                trace: rendered.trace,
                sequence: rendered.sequence,
                stream: &rendered.stream,
                subscriber: taken.subscriber,
                template: taken.template.id,
                catalog_version: taken.catalog_version,
                event: event_id,
                create_time: rendered.create_time,
                recorded: announcing.wall,
                width: image.width,
                height: image.height,
                format: rendition.format,
                rendition: name,
                file_size_bytes,
                sha256,
                store: &chosen.name,
                region: bucket.region,
                bucket: bucket.name,
                key: key.as_str(),
                pic_full_url: &pic_full_url,
                put_due: announcing.now,
            },
        )?;
        let RenderedRendition { snapshot_id, width, height, .. } = *image;
        let (subscriber, rendition) = (taken.subscriber, name.map(str::to_owned));
        Ok(Recorded { snapshot_id, event_id, key, pic_full_url, file_size_bytes, subscriber, rendition, width, height })
    }
}
