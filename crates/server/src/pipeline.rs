//! One picture's life, top to bottom.
//!
//! A session hands an entry point to [`Pipeline::entry_point`], which asks the push's grids what is due on it and, if
//! anything is, puts a [`Pick`] into the queue: no await, no allocation that grows. A render worker's loop
//! ([`Pipeline::drive`]) takes the pick that is due first, has it rendered, and hands the pictures to the committer. Past
//! that line nothing is lost: storing and notifying find their work in the database.

pub(crate) mod queue;

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::{SnapshotId, uuid_v7};
use framehook_domain::pick::{SkipReason, Want};
use framehook_domain::template::SnapshotTemplate;
use framehook_domain::time::Mono;
use framehook_media::AccessUnit;
use framehook_render_wire::{FailureReason, ImageFormat, RenditionSpec};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::commit::{CommitError, Committer, Rendered, RenderedRendition};
use crate::entropy::Entropy;
use crate::keyframes::{Arrival, Keyframes};
use crate::live::Push;
use crate::render::{RenderError, RenderJob, RenderedImage, Worker};
use crate::shutdown::Stage;
use crate::store::spool::Spool;
use crate::telemetry::Metrics;
use crate::telemetry::event::RenderFailed;
use queue::PickQueue;

/// What a picture is likely to need on the disk, to refuse early: a 1080p JPEG of quality 85 has some 280 KB.
const IMAGE_BYTES_EXPECTED: u64 = 512 << 10;

/// Commits that may be under way while workers go on rendering. Each pins one picture, so this is some 16 MB at worst;
/// when all are taken, workers wait, picks merge in their slots, and publishers notice nothing.
const COMMITS_MAX: usize = 64;

/// One entry point chosen for one push, with every rule and task that is due on it.
#[derive(Debug)]
pub(crate) struct Pick {
    /// The id that follows the picture through every log line from here to the callback.
    pub(crate) trace: SnapshotId,
    pub(crate) push: Arc<Push>,
    pub(crate) unit: AccessUnit,
    pub(crate) arrival: Arrival,
    pub(crate) wants: Vec<Want>,
}

impl Pick {
    /// When the first of its dues fell.
    pub(crate) fn earliest_due(&self) -> Mono {
        self.wants.iter().map(|want| want.due).min().unwrap_or(self.arrival.mono)
    }

    /// Takes over what an older pick of the same push wanted and this one does not already serve. A due that loses by
    /// this has been counted as `renderer_busy` by its grid when the newer one was picked.
    pub(crate) fn absorb(&mut self, older: Pick) {
        for want in older.wants {
            if !self.wants.iter().any(|own| own.subscriber == want.subscriber) {
                self.wants.push(want);
            }
        }
    }
}

/// The stages between an entry point and the commit point, and what they share.
pub(crate) struct Pipeline {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) committer: Committer,
    /// How long one entry point may take a worker before it is killed.
    pub(crate) render_deadline: Duration,
    queue: PickQueue,
    commits: Arc<Semaphore>,
    commit_stage: Stage,
}

/// The parts a [`Pipeline`] is built from.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) committer: Committer,
    pub(crate) render_deadline: Duration,
    pub(crate) commit_stage: Stage,
}

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            clock: parts.clock,
            entropy: parts.entropy,
            metrics: parts.metrics,
            keyframes: parts.keyframes,
            spool: parts.spool,
            committer: parts.committer,
            render_deadline: parts.render_deadline,
            queue: PickQueue::default(),
            commits: Arc::new(Semaphore::new(COMMITS_MAX)),
            commit_stage: parts.commit_stage,
        })
    }

    /// Picks that wait for a worker now.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Lets the workers' loops end once what waits is rendered.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Keeps an entry point that has arrived in full, and queues what the push's grids want of it. Never waits: a
    /// publisher's session calls this between two reads.
    pub(crate) fn entry_point(&self, push: &Arc<Push>, unit: AccessUnit, arrival: Arrival, wants: Vec<Want>) {
        self.keyframes.keep(push.sequence(), unit.clone());
        if wants.is_empty() {
            return;
        }
        if self.spool.has_room(IMAGE_BYTES_EXPECTED).is_err() {
            // Shed here, before any work is done: what is owed keeps its place on the disk.
            for want in wants {
                push.skip(arrival.mono, want.ticket, SkipReason::SpoolFull);
            }
            return;
        }
        let trace = SnapshotId(uuid_v7(arrival.wall, self.entropy.id_bytes()));
        tracing::debug!(%trace, stream = %push.stream(), dues = wants.len(), "picked an entry point");
        self.queue.put(Pick { trace, push: Arc::clone(push), unit, arrival, wants });
    }

    /// One render worker's loop: ends when the queue is closed and empty.
    pub(crate) async fn drive(self: Arc<Self>, mut worker: Worker) {
        loop {
            let pick = tokio::select! {
                pick = self.queue.next() => pick,
                never = worker.stay_ready() => match never {},
            };
            match pick {
                Some(pick) => self.make_picture(&mut worker, pick).await,
                None => return,
            }
        }
    }

    async fn make_picture(&self, worker: &mut Worker, mut pick: Pick) {
        let now = self.clock.mono();
        // A due older than its interval was counted as `renderer_busy` when the next one fell: late work for nothing.
        pick.wants.retain(|want| now.since(want.due) < want.template.interval.duration());
        if pick.wants.is_empty() {
            return;
        }
        let job = RenderJob {
            config: Arc::clone(&pick.unit.config),
            data: pick.unit.data.clone(),
            renditions: pick.wants.iter().map(|want| rendition(&want.template)).collect(),
        };
        self.metrics.render_waited(now.since(pick.arrival.mono));
        let deadline = self.clock.instant(now.plus(self.render_deadline));
        match worker.render(&job, deadline).await {
            Ok(picture) => {
                self.metrics.rendered(&picture.timings);
                self.hand_over(pick, picture.images).await;
            }
            Err(error) => self.not_rendered(pick, &error),
        }
    }

    fn not_rendered(&self, pick: Pick, error: &RenderError) {
        RenderFailed { trace: pick.trace, stream: pick.push.stream(), error }.emit(&self.metrics);
        let (now, reason) = (self.clock.mono(), skip_reason(error));
        for want in pick.wants {
            pick.push.skip(now, want.ticket, reason);
        }
    }

    /// Takes the pictures over the commit point. Rendering goes on meanwhile; waits only when [`COMMITS_MAX`] are under way.
    async fn hand_over(&self, pick: Pick, images: Vec<RenderedImage>) {
        let permit = Arc::clone(&self.commits).acquire_owned().await.expect("the semaphore is never closed");
        let now = self.clock.mono();
        let mut taken = Vec::with_capacity(images.len());
        let mut pictures = Vec::with_capacity(images.len());
        for (want, image) in pick.wants.into_iter().zip(images) {
            let Some(due) = pick.push.hand_over(now, want.ticket) else { continue };
            // The first picture of a pick bears its trace, so that the common case has one id from end to end.
            let snapshot_id = if taken.is_empty() {
                pick.trace
            } else {
                SnapshotId(uuid_v7(pick.arrival.wall, self.entropy.id_bytes()))
            };
            taken.push(due);
            pictures.push(RenderedRendition {
                snapshot_id,
                subscriber: want.subscriber,
                template: want.template,
                catalog_version: want.catalog_version,
                width: image.size.width,
                height: image.size.height,
                bytes: image.bytes,
            });
        }
        if pictures.is_empty() {
            return;
        }
        let rendered = Rendered {
            stream: pick.push.stream().clone(),
            param: pick.push.param(),
            sequence: pick.push.sequence(),
            create_time: pick.arrival.wall,
            trace: pick.trace,
            pictures,
        };
        let committer = self.committer.clone();
        let (push, metrics, clock, arrived) = (pick.push, Arc::clone(&self.metrics), self.clock, pick.arrival.mono);
        self.commit_stage.spawn(async move {
            // ---- the commit point: nothing after this line is lost ----
            match committer.commit(rendered).await {
                Ok(recorded) => metrics.committed(recorded.len(), clock.mono().since(arrived)),
                Err(error) => {
                    let reason = match &error {
                        CommitError::SpoolFull => SkipReason::SpoolFull,
                        // The process is about to stop; the next start picks up whatever did become durable.
                        _ => SkipReason::PushEnded,
                    };
                    tracing::error!(%error, stream = %push.stream(), "a picture could not be committed");
                    for due in taken {
                        push.undo_taken(due, reason);
                    }
                }
            }
            drop(permit);
        });
    }
}

/// What a template asks of a worker.
fn rendition(template: &SnapshotTemplate) -> RenditionSpec {
    // The template's own limits (3000 x 2000, quality 1 to 100) lie within these types.
    let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    RenditionSpec {
        width: side(template.width),
        height: side(template.height),
        format: ImageFormat::Jpeg,
        quality: template.jpeg_quality,
    }
}

/// Under which reason a due without a picture is counted.
fn skip_reason(error: &RenderError) -> SkipReason {
    match error {
        RenderError::Failed(failure) => match failure.reason {
            FailureReason::Corrupt | FailureReason::NoPicture => SkipReason::Corrupt,
            FailureReason::Unsupported => SkipReason::UnsupportedCodec,
            FailureReason::HdrUnsupported => SkipReason::HdrUnsupported,
            FailureReason::TooLarge => SkipReason::TooLarge,
            FailureReason::OutOfMemory => SkipReason::WorkerOutOfMemory,
            FailureReason::Internal => SkipReason::RenderFailed,
        },
        RenderError::TimedOut => SkipReason::WorkerTimedOut,
        RenderError::WorkerCrashed { .. } => SkipReason::WorkerCrashed,
        RenderError::WorkerUnavailable => SkipReason::RendererBusy,
        RenderError::WorkerBroken(_) => SkipReason::RenderFailed,
        RenderError::JobRefused(_) => SkipReason::TooLarge,
    }
}
