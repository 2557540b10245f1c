//! One picture's life, top to bottom.
//!
//! A session asks its push's grids what is due on an entry point and hands both to [`Pipeline::entry_point`], which puts
//! a [`Pick`] into the queue if anything is: no await, and no more memory than the queue's budget. A render worker's loop
//! ([`Pipeline::drive`]) takes the pick that is due first, has it rendered, and hands the pictures to the committer. Past
//! that line nothing is lost: storing and notifying find their work in the database.

mod look;
pub(crate) mod queue;

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::id::{PushSequence, SnapshotId, uuid_v7};
use framehook_domain::pick::{CommittingPick, SkipReason, TASKS_MAX, Want};
use framehook_domain::template::{self, Objects, Rendition, SnapshotTemplate};
use framehook_domain::time::Mono;
use framehook_media::AccessUnit;
use framehook_render_wire::{FailureReason, IMAGES_BYTES_MAX, ImageFormat, RenditionSpec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::commit::{CommitError, Committer, Rendered, RenderedRendition, Taken};
use crate::entropy::Entropy;
use crate::keyframes::{Arrival, EntryPoint, Keyframes};
use crate::live::Push;
use crate::render::{RenderError, RenderJob, RenderedImage, RenderedPicture, Worker};
use crate::shutdown::Stage;
use crate::store::Room;
use crate::telemetry::Telemetry;
use crate::telemetry::event::{Chain, RenderFailed};
use look::{Look, Looks};
use queue::PickQueue;

pub(crate) use look::LookError;

/// What the images of all commits under way may take in memory while workers go on rendering. One job may give 64 MiB of
/// images, an ordinary one gives 0.3, so this is one of the worst or hundreds of ordinary ones. When it is used up,
/// workers wait, picks merge in their slots, and publishers notice nothing.
const COMMIT_BYTES_MAX: usize = IMAGES_BYTES_MAX;

/// The unit in which that is counted. It also bounds the commits under way to 1,024, however small their images are.
const COMMIT_BYTES_PER_PERMIT: usize = 64 << 10;

// A rule and its tasks, all with as many renditions as a template may have, are one job of a worker.
const _: () = assert!(template::RENDITIONS_MAX * (1 + TASKS_MAX) <= framehook_render_wire::RENDITIONS_MAX);

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

    /// Lets go of what is late: a due older than its interval was counted as `renderer_busy` when the next one fell.
    fn drop_late(&mut self, now: Mono) {
        self.wants.retain(|want| now.since(want.due) < want.template.interval.duration());
    }

    /// Whether an error that its job met may be the doing of one image, without which the others could be made: not all of
    /// its wants ask for the same, and it is none that every image of this entry point would meet. Nor one that took the
    /// worker all the time there is: a decoder that hangs would take it once more for each of them.
    fn may_fare_better_alone(&self, error: &RenderError) -> bool {
        let may_be_one_image = match error {
            RenderError::WorkerCrashed { .. } | RenderError::JobRefused(_) => true,
            RenderError::Failed(failure) => match failure.reason {
                FailureReason::TooLarge | FailureReason::OutOfMemory | FailureReason::Internal => true,
                FailureReason::Corrupt
                | FailureReason::NoPicture
                | FailureReason::Unsupported
                | FailureReason::HdrUnsupported => false,
            },
            RenderError::TimedOut | RenderError::WorkerUnavailable | RenderError::WorkerBroken(_) => false,
        };
        let all = asked(&self.wants);
        may_be_one_image && self.wants.iter().any(|want| asked(std::slice::from_ref(want)).len() < all.len())
    }

    /// A pick of the same entry point for each of its wants. The first keeps the trace, the others get ids of their own.
    fn apart(self, mut id: impl FnMut() -> SnapshotId) -> Vec<Self> {
        let Self { trace, push, unit, arrival, wants } = self;
        let mut traces = std::iter::once(trace).chain(std::iter::repeat_with(&mut id));
        let alone = |want| {
            let trace = traces.next().expect("it never ends");
            Self { trace, push: Arc::clone(&push), unit: unit.clone(), arrival, wants: vec![want] }
        };
        wants.into_iter().map(alone).collect()
    }
}

/// The stages between an entry point and the commit point, and what they share.
pub(crate) struct Pipeline {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) room: Room,
    pub(crate) committer: Committer,
    /// How long one entry point may take a worker before it is killed.
    pub(crate) render_deadline: Duration,
    queue: PickQueue,
    looks: Looks,
    commits: Arc<Semaphore>,
    commit_stage: Stage,
}

/// The parts a [`Pipeline`] is built from.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) keyframes: Arc<Keyframes>,
    pub(crate) room: Room,
    pub(crate) committer: Committer,
    pub(crate) render_deadline: Duration,
    pub(crate) commit_stage: Stage,
}

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            clock: parts.clock,
            entropy: parts.entropy,
            telemetry: parts.telemetry,
            keyframes: parts.keyframes,
            room: parts.room,
            committer: parts.committer,
            render_deadline: parts.render_deadline,
            queue: PickQueue::default(),
            looks: Looks::default(),
            commits: Arc::new(Semaphore::new(COMMIT_BYTES_MAX / COMMIT_BYTES_PER_PERMIT)),
            commit_stage: parts.commit_stage,
        })
    }

    /// Picks that wait for a worker now.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of entry points that the waiting picks hold in memory.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queue.bytes() as u64
    }

    /// Bytes of images that are on their way over the commit point, rounded up for each commit.
    pub(crate) fn committing_bytes(&self) -> u64 {
        (COMMIT_BYTES_MAX - self.commits.available_permits() * COMMIT_BYTES_PER_PERMIT) as u64
    }

    /// Lets the workers' loops end once what waits is rendered.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Keeps an entry point that has arrived in full, and queues what the push's grids want of it. Never waits: a
    /// publisher's session calls this between two reads.
    pub(crate) fn entry_point(&self, push: &Arc<Push>, unit: AccessUnit, arrival: Arrival, wants: Vec<Want>) {
        self.keyframes.keep(push.sequence(), EntryPoint { unit: unit.clone(), arrival });
        if wants.is_empty() {
            return;
        }
        // Shed here, before any work is done: what is owed keeps its place on the disk.
        let (wants, shed): (Vec<_>, Vec<_>) =
            wants.into_iter().partition(|want| self.room.is_for(&want.template).is_ok());
        for want in shed {
            push.skip(arrival.mono, want.ticket, SkipReason::SpoolFull);
        }
        if wants.is_empty() {
            return;
        }
        let trace = SnapshotId(uuid_v7(arrival.wall, self.entropy.id_bytes()));
        let dues = wants.len();
        tracing::debug!(%trace, stream = %push.stream(), dues, "picked an entry point");
        match self.queue.put(Pick { trace, push: Arc::clone(push), unit, arrival, wants }) {
            Ok(()) => self.telemetry.metrics.picked(dues),
            Err(pick) => {
                for want in pick.wants {
                    pick.push.skip(arrival.mono, want.ticket, SkipReason::Overload);
                }
            }
        }
    }

    /// One render worker's loop: ends when the queue is closed and empty.
    pub(crate) async fn drive(self: Arc<Self>, mut worker: Worker) {
        loop {
            tokio::select! {
                // What is due goes before what somebody would like to see.
                biased;
                pick = self.queue.next(|| self.clock.mono()) => match pick {
                    Some(pick) => self.make_picture(&mut worker, pick).await,
                    None => return,
                },
                look = self.looks.next() => self.make_look(&mut worker, look).await,
                never = worker.stay_ready() => match never {},
            }
        }
    }

    /// The picture of a push's entry point, `width` pixels wide (0: as wide as the stream), for somebody to see.
    ///
    /// # Errors
    /// See [`LookError`].
    pub(crate) async fn look(
        &self,
        push: PushSequence,
        entry_point: &EntryPoint,
        width: u16,
    ) -> Result<RenderedImage, LookError> {
        self.looks.look(push, entry_point, width).await
    }

    /// Takes a picture of a push's entry point by a template, because somebody asks for it: committed, stored and announced
    /// like any other, and counted for no rule. Gives the id of its main rendition once all are durable.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub(crate) async fn take(
        &self,
        push: Arc<Push>,
        entry_point: &EntryPoint,
        template: Arc<SnapshotTemplate>,
        catalog_version: u64,
    ) -> Result<SnapshotId, TakeError> {
        self.room.is_for(&template).map_err(|_| TakeError::SpoolFull)?;
        let asked: Vec<RenditionSpec> = template.all_renditions().map(spec).collect();
        let images = self.looks.render(entry_point, asked).await.map_err(TakeError::Look)?;
        let arrival = entry_point.arrival;
        let snapshot_id = self.snapshot_id(arrival);
        let permit = self.commit_permit(images.iter().map(|image| image.bytes.len()).sum()).await;
        let ids = std::iter::once(snapshot_id).chain(std::iter::repeat_with(|| self.snapshot_id(arrival)));
        let renditions =
            images.into_iter().zip(ids).map(|(image, id)| rendition(id, self.snapshot_id(arrival), image)).collect();
        // Who asks for a picture gets one that stays, and others may see it as the latest.
        let objects = if template.objects.has_latest() { Objects::Both } else { Objects::Sequence };
        let picture = Taken { subscriber: None, template, catalog_version, renditions, objects };
        let rendered = Rendered {
            stream: push.stream().clone(),
            param: push.param(),
            sequence: push.sequence(),
            create_time: arrival.wall,
            trace: snapshot_id,
            pictures: vec![picture],
        };
        let committer = self.committer.clone();
        // Whoever asks may hang up meanwhile; the picture is made all the same.
        let commit = async move {
            let answer = committer.commit(rendered).await;
            drop(permit);
            answer
        };
        match self.commit_stage.finish(commit).await {
            Some(Ok(_)) => {
                self.telemetry.metrics.committed_on_demand();
                Ok(snapshot_id)
            }
            Some(Err(CommitError::SpoolFull)) => Err(TakeError::SpoolFull),
            Some(Err(error)) => Err(TakeError::Commit(error)),
            None => Err(TakeError::Commit(CommitError::Stopped)),
        }
    }

    fn snapshot_id(&self, arrival: Arrival) -> SnapshotId {
        SnapshotId(uuid_v7(arrival.wall, self.entropy.id_bytes()))
    }

    async fn make_look(&self, worker: &mut Worker, look: Look) {
        if !look.is_wanted() {
            return;
        }
        let deadline = self.clock.instant(self.clock.mono().plus(self.render_deadline));
        let rendered = worker.render(&look.job, deadline).await;
        look.show(rendered.map(|picture| picture.images));
    }

    async fn make_picture(&self, worker: &mut Worker, pick: Pick) {
        self.telemetry.metrics.render_waited(self.clock.mono().since(pick.arrival.mono));
        match self.render(worker, &pick).await {
            Ok(images) => self.hand_over(pick, images).await,
            // A rule's picture is not lost to what a task wants of the same entry point.
            Err(error) if pick.may_fare_better_alone(&error) => {
                tracing::debug!(trace = %pick.trace, error = %Chain(&error), "rendering for each rule and task alone");
                let arrival = pick.arrival;
                for mut pick in pick.apart(|| self.snapshot_id(arrival)) {
                    pick.drop_late(self.clock.mono());
                    if pick.wants.is_empty() {
                        continue;
                    }
                    match self.render(worker, &pick).await {
                        Ok(images) => self.hand_over(pick, images).await,
                        Err(error) => self.not_rendered(pick, &error),
                    }
                }
            }
            Err(error) => self.not_rendered(pick, &error),
        }
    }

    /// Every image that a pick wants, as [`asked`] has them.
    async fn render(&self, worker: &mut Worker, pick: &Pick) -> Result<Vec<RenderedImage>, RenderError> {
        let job = RenderJob {
            config: Arc::clone(&pick.unit.config),
            data: pick.unit.data.clone(),
            renditions: asked(&pick.wants),
        };
        let deadline = self.clock.instant(self.clock.mono().plus(self.render_deadline));
        let picture = worker.render(&job, deadline).await?;
        self.telemetry.metrics.rendered(&picture.timings);
        let RenderedPicture { facts, judgement, images, .. } = picture;
        let (width, height) = (facts.size.width, facts.size.height);
        tracing::debug!(trace = %pick.trace, width, height, black = judgement.black, "rendered");
        Ok(images)
    }

    fn not_rendered(&self, pick: Pick, error: &RenderError) {
        let (now, reason) = (self.clock.mono(), skip_reason(error));
        RenderFailed { trace: pick.trace, stream: pick.push.stream(), error }.emit(&self.telemetry);
        for want in pick.wants {
            pick.push.skip(now, want.ticket, reason);
        }
    }

    /// Waits until the images of the commits under way leave room for so many bytes.
    async fn commit_permit(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = bytes.clamp(1, COMMIT_BYTES_MAX).div_ceil(COMMIT_BYTES_PER_PERMIT) as u32;
        Arc::clone(&self.commits).acquire_many_owned(permits).await.expect("it is never closed")
    }

    /// Takes the pictures over the commit point. Rendering goes on meanwhile; waits only while the commits under way hold
    /// all the memory they may.
    async fn hand_over(&self, pick: Pick, images: Vec<RenderedImage>) {
        let asked = asked(&pick.wants);
        let permit = self.commit_permit(images.iter().map(|image| image.bytes.len()).sum()).await;
        let now = self.clock.mono();
        let mut committing = Committing { push: pick.push, clock: self.clock, dues: Vec::with_capacity(images.len()) };
        let mut pictures = Vec::with_capacity(images.len());
        // The first image of a pick bears its trace, so that the common case has one id from end to end.
        let mut ids = std::iter::once(pick.trace).chain(std::iter::repeat_with(|| self.snapshot_id(pick.arrival)));
        for want in pick.wants {
            let Some(due) = committing.push.hand_over(now, want.ticket) else { continue };
            committing.dues.push(due);
            let renditions = want.template.all_renditions().map(spec).map(|spec| {
                let index = asked.iter().position(|asked| *asked == spec).expect("every rendition was asked for");
                let id = ids.next().expect("it never ends");
                rendition(id, self.snapshot_id(pick.arrival), images[index].clone())
            });
            pictures.push(Taken {
                subscriber: Some(want.subscriber),
                catalog_version: want.catalog_version,
                renditions: renditions.collect(),
                objects: want.template.objects,
                template: want.template,
            });
        }
        if pictures.is_empty() {
            return;
        }
        let rendered = Rendered {
            stream: committing.push.stream().clone(),
            param: committing.push.param(),
            sequence: committing.push.sequence(),
            create_time: pick.arrival.wall,
            trace: pick.trace,
            pictures,
        };
        let (committer, telemetry) = (self.committer.clone(), Arc::clone(&self.telemetry));
        let (arrived, dues) = (pick.arrival, rendered.pictures.len());
        self.commit_stage.spawn(async move {
            // ---- the commit point: nothing after this line is lost ----
            let answer = committer.commit(rendered).await;
            committing.settle(answer.as_ref().map(drop).map_err(uncommitted_reason));
            match answer {
                Ok(_) => telemetry.metrics.committed(dues, committing.clock.mono().since(arrived.mono)),
                Err(error) => {
                    if let Some(left_out) = telemetry.admit("commit", uncommitted_reason(&error).name()) {
                        let stream = committing.push.stream();
                        tracing::error!(error = %Chain(&error), %stream, left_out, "a picture could not be committed");
                    }
                }
            }
            drop(permit);
        });
    }
}

/// Why a picture that somebody asked for was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Look(LookError),
    #[error("there is no room for new pictures: those that are owed to their stores fill the spool or the disk")]
    SpoolFull,
    #[error("the picture could not be committed")]
    Commit(#[source] CommitError),
}

/// Dues whose pictures are with the commit. One that is dropped without an answer, as by a panic, counts as failed:
/// its grid would wait for ever otherwise.
struct Committing {
    push: Arc<Push>,
    clock: Clock,
    dues: Vec<CommittingPick>,
}

impl Committing {
    fn settle(&mut self, outcome: Result<(), SkipReason>) {
        for due in self.dues.drain(..) {
            self.push.settle_commit(self.clock.mono(), due, outcome);
        }
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        self.settle(Err(SkipReason::CommitFailed));
    }
}

/// Under which reason a due is counted whose picture was not committed.
fn uncommitted_reason(error: &CommitError) -> SkipReason {
    match error {
        CommitError::SpoolFull => SkipReason::SpoolFull,
        // The process is about to end; the next start picks up whatever did become durable.
        CommitError::Stopped => SkipReason::PushEnded,
        CommitError::Spool(_) | CommitError::Db(_) => SkipReason::CommitFailed,
    }
}

/// What a worker is asked for: every image that one of these wants, and each but once.
fn asked(wants: &[Want]) -> Vec<RenditionSpec> {
    let mut asked = Vec::new();
    for spec in wants.iter().flat_map(|want| want.template.all_renditions().map(spec)) {
        if !asked.contains(&spec) {
            asked.push(spec);
        }
    }
    asked
}

/// What a rendition asks of a worker.
fn spec(rendition: Rendition<'_>) -> RenditionSpec {
    // The template's own limits (3000 x 2000, quality 1 to 100) lie within these types.
    let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    RenditionSpec {
        width: side(rendition.width),
        height: side(rendition.height),
        format: match rendition.format {
            template::ImageFormat::Jpeg => ImageFormat::Jpeg,
            template::ImageFormat::Png => ImageFormat::Png,
            template::ImageFormat::Webp => ImageFormat::Webp,
            template::ImageFormat::Avif => ImageFormat::Avif,
        },
        quality: rendition.quality,
    }
}

fn rendition(snapshot_id: SnapshotId, latest_id: SnapshotId, image: RenderedImage) -> RenderedRendition {
    let RenderedImage { size, bytes } = image;
    RenderedRendition { snapshot_id, latest_id, width: size.width, height: size.height, bytes }
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

#[cfg(test)]
mod tests;
