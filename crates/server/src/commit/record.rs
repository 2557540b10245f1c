//! The rows of a batch: each picture's snapshots, events and deliveries.

use std::sync::Arc;

use framehook_domain::callback::{EventKind, SnapshotStored};
use framehook_domain::object_key::Naming;
use framehook_domain::pick::Subscriber;

use super::{CommitError, CommitParts, Recorded, Rendered, RenderedRendition, Spooled};
use crate::db::outbox::{Announcing, NewEvent, announce};
use crate::db::snapshot::{self, NewSnapshot};
use crate::db::{DbError, Tx, count};
use crate::fail_point;
use crate::store::Bucket;

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
        let renditions = rendered.pictures.iter().zip(sha256);
        renditions.map(|(rendition, sum)| self.record_rendition(tx, announcing, rendered, rendition, *sum)).collect()
    }

    fn record_rendition(
        &self,
        tx: &Tx<'_>,
        announcing: &Announcing<'_>,
        rendered: &Rendered,
        rendition: &RenderedRendition,
        sha256: [u8; 32],
    ) -> Result<Recorded, DbError> {
        let target = &rendition.template.store;
        let chosen = self.stores.choose(target);
        let full_bucket = target.full_bucket();
        let bucket = Bucket { region: target.region(), name: &full_bucket };
        let wanted = rendition.template.pattern.expand(&Naming {
            stream: &rendered.stream,
            create_time: rendered.create_time,
            zone: &self.zone,
            width: rendition.width,
            height: rendition.height,
        });
        let key = snapshot::free_key(tx, &chosen.name, bucket.name, wanted, announcing.wall)?;
        let pic_full_url = chosen.store.full_url(bucket, &key, announcing.wall);
        let file_size_bytes = rendition.bytes.len() as u64;
        let task_id = match rendition.subscriber {
            Some(Subscriber::Task(task)) => Some(task.to_string()),
            Some(Subscriber::Rule(_)) | None => None,
        };
        let body = SnapshotStored {
            stream: &rendered.stream,
            param: &rendered.param,
            create_time: rendered.create_time,
            file_size_bytes,
            width: rendition.width,
            height: rendition.height,
            pic_url: &key.pic_url(),
            pic_full_url: &pic_full_url,
            task_id: task_id.as_deref(),
        }
        .body();
        let event_id = announce(
            tx,
            announcing,
            &NewEvent {
                kind: EventKind::Snapshot,
                stream: &rendered.stream,
                sequence: rendered.sequence,
                snapshot: Some(rendition.snapshot_id),
                body: &body,
            },
        )?;
        snapshot::insert(
            tx,
            &NewSnapshot {
                id: rendition.snapshot_id,
                trace: rendered.trace,
                sequence: rendered.sequence,
                stream: &rendered.stream,
                subscriber: rendition.subscriber,
                template: rendition.template.id,
                catalog_version: rendition.catalog_version,
                event: event_id,
                create_time: rendered.create_time,
                recorded: announcing.wall,
                width: rendition.width,
                height: rendition.height,
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
        count::add(tx, &rendered.stream.domain, rendered.create_time)?;
        let RenderedRendition { snapshot_id, subscriber, width, height, .. } = *rendition;
        Ok(Recorded { snapshot_id, event_id, key, pic_full_url, file_size_bytes, subscriber, width, height })
    }
}
