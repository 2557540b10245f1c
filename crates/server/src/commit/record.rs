//! The rows of a group: each picture's snapshots, events and deliveries.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::callback::{EventKind, SnapshotStored};
use framehook_domain::id::SnapshotId;
use framehook_domain::object_key::Naming;
use framehook_domain::pick::Subscriber;

use super::{CommitError, CommitParts, Made, Recorded, RenderedRendition, Spooled, WrittenImage};
use crate::db::latest::{self, Newest, Offered};
use crate::db::outbox::{Announcing, NewEvent, announce};
use crate::db::snapshot::{self, NewSnapshot, OwedPut, Place};
use crate::db::{DbError, Tx, count};
use crate::fail_point;

/// What the rows of a group came to.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// One for each picture, in order.
    pub(super) results: Vec<Result<Vec<Recorded>, CommitError>>,
    /// What is owed to stores, latest objects left out.
    pub(super) owed: Vec<OwedPut>,
    /// What is stored already, and how long that took.
    pub(super) stored: Vec<(OwedPut, Duration)>,
    /// Files of the spool that nothing is owed of any more, with their bytes.
    pub(super) dropped: Vec<(SnapshotId, u64)>,
}

/// What a picture's rows came to.
#[derive(Debug, Default)]
pub(super) struct RecordedPicture {
    recorded: Vec<Recorded>,
    /// What is owed to stores of it, latest objects left out.
    owed: Vec<OwedPut>,
    /// What is stored of it already, and how long that took.
    stored: Vec<(OwedPut, Duration)>,
    /// Files of the spool that nothing is owed of any more, with their bytes.
    dropped: Vec<(SnapshotId, u64)>,
}

impl Recording {
    /// Of so many pictures.
    pub(super) fn of(written: Result<Vec<Result<RecordedPicture, DbError>>, DbError>, pictures: usize) -> Self {
        let mut recording = Self::default();
        match written {
            Ok(recorded) => {
                fail_point::pass("rows_committed");
                for picture in recorded {
                    let picture = picture.map(|RecordedPicture { recorded, owed, stored, dropped }| {
                        recording.owed.extend(owed);
                        recording.stored.extend(stored);
                        recording.dropped.extend(dropped);
                        recorded
                    });
                    recording.results.push(picture.map_err(CommitError::from));
                }
            }
            Err(error) => recording.results = vec![Err(error.into()); pictures],
        }
        recording
    }
}

impl CommitParts {
    /// Writes the rows of pictures whose files are durable, if their objects are `synced`. A picture that fails undoes only
    /// itself. Blocks.
    pub(super) fn write_rows(&self, spooled: &Arc<Vec<Spooled>>, synced: Result<(), DbError>) -> Recording {
        let mut written = synced.and_then(|()| self.db.write_here(self.rows_of(spooled, false)));
        // One of them cannot be written: the others can.
        if spooled.len() > 1 && matches!(&written, Err(error) if !matches!(error, DbError::Stopped)) {
            written = self.db.write_here(self.rows_of(spooled, true));
        }
        Recording::of(written, spooled.len())
    }

    /// One operation for all of them. Only if they are written `apart` does one that fails undo only itself: a savepoint for each
    /// makes SQLite keep a copy of every page that is changed in it.
    fn rows_of(
        &self,
        spooled: &Arc<Vec<Spooled>>,
        apart: bool,
    ) -> impl FnOnce(&Tx<'_>) -> Result<Vec<Result<RecordedPicture, DbError>>, DbError> + Send + use<> {
        let (parts, spooled) = (self.clone(), Arc::clone(spooled));
        move |tx| {
            let catalog = Arc::clone(&parts.catalog.borrow());
            let announcing = Announcing {
                catalog: &catalog,
                entropy: &parts.entropy,
                wall: parts.clock.wall(),
                now: parts.timeline.now(),
            };
            let record = |picture: &Spooled| match apart {
                true => tx.nested(|tx| parts.record_picture(tx, &announcing, picture)),
                false => Ok(Ok(parts.record_picture(tx, &announcing, picture)?)),
            };
            spooled.iter().map(record).collect::<Result<Vec<_>, DbError>>()
        }
    }

    fn record_picture(
        &self,
        tx: &Tx<'_>,
        announcing: &Announcing<'_>,
        picture: &Spooled,
    ) -> Result<RecordedPicture, DbError> {
        let Spooled { rendered, images } = picture;
        let mut done = RecordedPicture::default();
        for (made, written) in rendered.made().zip(images) {
            if made.taken.objects.has_sequence() {
                let (recorded, put, took) = self.record_rendition(tx, announcing, &made, written)?;
                done.recorded.push(recorded);
                match took {
                    Some(took) => done.stored.push((put, took)),
                    None => done.owed.push(put),
                }
            }
            if made.taken.objects.has_latest() {
                done.dropped.extend(self.record_latest(tx, announcing, &made)?);
            }
        }
        for _ in &rendered.pictures {
            // A picture is one, however many renditions are made of it.
            count::add(tx, &rendered.stream.domain, rendered.create_time)?;
        }
        Ok(done)
    }

    /// Puts a picture's images ahead of their rows, where they have objects of their own in the local store. Blocks.
    pub(super) fn put_ahead(&self, picture: &mut Spooled) {
        let Spooled { rendered, images } = picture;
        for (made, written) in rendered.made().zip(images) {
            if made.taken.objects.has_sequence() {
                let chosen = self.stores.choose(made.rendition.store);
                let place = Place { store: chosen.name.to_string(), bucket: chosen.bucket };
                let key = made.rendition.pattern.expand(&self.naming(&made));
                written.ahead = self.storer.put_ahead(&place, key.as_str(), made.image.snapshot_id);
            }
        }
    }

    fn naming<'a>(&'a self, made: &Made<'a>) -> Naming<'a> {
        let Made { rendered, rendition, image, .. } = *made;
        Naming {
            stream: &rendered.stream,
            create_time: rendered.create_time,
            zone: &self.zone,
            width: image.width,
            height: image.height,
            rendition: rendition.name,
            format: rendition.format,
        }
    }

    /// Owes the picture to its `latest` object, and says which file of the spool is of no use any more: that of the picture
    /// before, if it was still owed, or this one's own, if a newer picture was quicker.
    fn record_latest(
        &self,
        tx: &Tx<'_>,
        announcing: &Announcing<'_>,
        made: &Made<'_>,
    ) -> Result<Option<(SnapshotId, u64)>, DbError> {
        let Made { rendered, rendition, image, .. } = *made;
        let chosen = self.stores.choose(rendition.store);
        let key = rendition.latest_key.expand(&self.naming(made));
        let newest = Newest {
            store: &chosen.name,
            region: rendition.store.region(),
            bucket: &chosen.bucket,
            key: key.as_str(),
            id: image.latest_id,
            trace: rendered.trace,
            create_time: rendered.create_time,
            format: rendition.format,
            file_size_bytes: image.bytes.len() as u64,
            put_due: announcing.now,
        };
        let own = Some((image.latest_id, newest.file_size_bytes));
        match latest::offer(tx, &newest, announcing.wall)? {
            Offered::Taken { superseded } => Ok(superseded),
            Offered::Older => Ok(own),
            Offered::KeyInUse => {
                if let Some(left_out) = self.telemetry.admit(key.as_str(), "latest_key_in_use") {
                    tracing::warn!(
                        %key, left_out, "a latest object is not written: a picture that was announced has its name"
                    );
                }
                Ok(own)
            }
        }
    }

    /// Writes the rows of an image that has an object of its own. Tells of its put, and how long that took if it was made ahead.
    fn record_rendition(
        &self,
        tx: &Tx<'_>,
        announcing: &Announcing<'_>,
        made: &Made<'_>,
        written: &WrittenImage,
    ) -> Result<(Recorded, OwedPut, Option<Duration>), DbError> {
        let Made { rendered, taken, rendition, image } = *made;
        let WrittenImage { sha256, ref ahead } = *written;
        let chosen = self.stores.choose(rendition.store);
        let wanted = rendition.pattern.expand(&self.naming(made));
        let key = snapshot::free_key(tx, &chosen.name, &chosen.bucket, wanted, announcing.wall)?;
        let pic_full_url = chosen.full_url(rendition.store, &key, announcing.wall);
        let place = Place { store: chosen.name.to_string(), bucket: chosen.bucket.clone() };
        let is_stored = |ahead| self.storer.is_stored(ahead, &place, key.as_str(), image.snapshot_id);
        let took = ahead.as_ref().filter(|_| pic_full_url.is_some()).and_then(is_stored);
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
            pic_full_url: pic_full_url.as_deref().unwrap_or_default(),
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
                waits_for_object: took.is_none(),
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
                region: rendition.store.region(),
                bucket: &chosen.bucket,
                key: key.as_str(),
                pic_full_url: pic_full_url.as_deref(),
                is_stored: took.is_some(),
                put_due: announcing.now,
            },
        )?;
        let put = OwedPut {
            id: image.snapshot_id,
            trace: rendered.trace,
            event: event_id,
            stream: rendered.stream.clone(),
            store: place.store,
            region: rendition.store.region().to_owned(),
            bucket: place.bucket,
            key: key.as_str().to_owned(),
            format: rendition.format,
            retention_days: taken.template.retention_days.map(u32::from),
            file_size_bytes,
            attempts: 0,
            pic_full_url: pic_full_url.clone(),
        };
        let RenderedRendition { snapshot_id, width, height, .. } = *image;
        let (subscriber, rendition) = (taken.subscriber, name.map(str::to_owned));
        let recorded = Recorded {
            snapshot_id,
            event_id,
            key,
            pic_full_url,
            file_size_bytes,
            subscriber,
            rendition,
            width,
            height,
        };
        Ok((recorded, put, took))
    }
}
