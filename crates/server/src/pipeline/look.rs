//! Pictures that somebody asks to see now: rendered like any other and shown, neither counted nor stored.
//!
//! A look waits for a worker that has no pick to make, so that nobody's curiosity costs a due. Looks at the same entry
//! point in the same size share one rendering, and what was shown last is kept for who asks again before the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use framehook_domain::id::PushSequence;
use framehook_domain::time::Mono;
use framehook_render_wire::{ImageFormat, RenditionSpec};
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::keyframes::EntryPoint;
use crate::render::{RenderError, RenderJob, RenderedImage};

/// Looks that may wait for a worker. Each is of another entry point or size, and holds an entry point that
/// [`Keyframes`](crate::keyframes::Keyframes) most likely holds as well.
const WAITING_MAX: usize = 32;

/// Pictures kept for who asks again: a wall of 64 streams in one size.
const SHOWN_MAX: usize = 64;

/// What they may take in memory, all together.
const SHOWN_BYTES_MAX: usize = 32 << 20;

/// Time in which a worker must have become free and made the picture.
const PATIENCE: Duration = Duration::from_secs(5);

/// The quality that a template has by default.
const JPEG_QUALITY: u8 = 85;

/// Why there is nothing to be seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookError {
    #[error("all render workers are busy with pictures that are due")]
    Busy,
    #[error(transparent)]
    Render(RenderError),
}

/// A look that waits for a worker.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) job: RenderJob,
    answer: oneshot::Sender<Result<Vec<RenderedImage>, RenderError>>,
}

impl Look {
    /// Whether anybody still waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    pub(super) fn show(self, rendered: Result<Vec<RenderedImage>, RenderError>) {
        // Who asked may have gone meanwhile.
        let _ = self.answer.send(rendered);
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    push: PushSequence,
    /// Pixels, 0 for the stream's own.
    width: u16,
    /// When the entry point's last byte arrived.
    arrived: Mono,
}

/// A picture that is shown, or is being made.
#[derive(Debug)]
struct Shown {
    sight: Sight,
    /// An entry point that cannot be rendered is not tried again for each who looks.
    rendered: OnceCell<Result<RenderedImage, RenderError>>,
}

impl Shown {
    fn bytes(&self) -> usize {
        self.rendered.get().map_or(0, |rendered| rendered.as_ref().map_or(0, |image| image.bytes.len()))
    }
}

#[derive(Debug)]
pub(super) struct Looks {
    queue: mpsc::Sender<Look>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Look>>,
    /// The one asked for first at the front.
    shown: Mutex<VecDeque<Arc<Shown>>>,
}

impl Default for Looks {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        Self { queue, waiting: tokio::sync::Mutex::new(waiting), shown: Mutex::default() }
    }
}

impl Looks {
    /// The next look, as soon as there is one.
    pub(super) async fn next(&self) -> Look {
        self.waiting.lock().await.recv().await.expect("the sender lies beside it")
    }

    /// The picture of an entry point, `width` pixels wide (0: as wide as the stream).
    ///
    /// # Errors
    /// See [`LookError`].
    pub(super) async fn look(
        &self,
        push: PushSequence,
        entry_point: &EntryPoint,
        width: u16,
    ) -> Result<RenderedImage, LookError> {
        let shown = self.shown(Sight { push, width, arrived: entry_point.arrival.mono });
        let rendition = RenditionSpec { width, height: 0, format: ImageFormat::Jpeg, quality: JPEG_QUALITY };
        let render = || async {
            match self.render(entry_point, vec![rendition]).await {
                Err(LookError::Busy) => Err(LookError::Busy),
                Err(LookError::Render(error)) => Ok(Err(error)),
                Ok(mut images) => Ok(Ok(images.swap_remove(0))),
            }
        };
        let waited = tokio::time::timeout(PATIENCE, shown.rendered.get_or_try_init(render)).await;
        self.trim();
        waited.map_err(|_| LookError::Busy)??.clone().map_err(LookError::Render)
    }

    /// Images of an entry point, one for each rendition, for one asker alone.
    ///
    /// # Errors
    /// See [`LookError`].
    pub(super) async fn render(
        &self,
        entry_point: &EntryPoint,
        renditions: Vec<RenditionSpec>,
    ) -> Result<Vec<RenderedImage>, LookError> {
        let unit = &entry_point.unit;
        let job = RenderJob { config: Arc::clone(&unit.config), data: unit.data.clone(), renditions };
        let (answer, rendered) = oneshot::channel();
        self.queue.try_send(Look { job, answer }).map_err(|_| LookError::Busy)?;
        match tokio::time::timeout(PATIENCE, rendered).await {
            Err(_) | Ok(Err(_) | Ok(Err(RenderError::WorkerUnavailable))) => Err(LookError::Busy),
            Ok(Ok(rendered)) => rendered.map_err(LookError::Render),
        }
    }

    /// The place of a picture, and room for it: an older one of the same push and width goes.
    fn shown(&self, sight: Sight) -> Arc<Shown> {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.sight == sight) {
            return Arc::clone(known);
        }
        all.retain(|known| (known.sight.push, known.sight.width) != (sight.push, sight.width));
        while all.len() >= SHOWN_MAX {
            all.pop_front();
        }
        let shown = Arc::new(Shown { sight, rendered: OnceCell::new() });
        all.push_back(Arc::clone(&shown));
        shown
    }

    /// Forgets the oldest until the rest fits into its bytes.
    fn trim(&self) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        while all.iter().map(|known| known.bytes()).sum::<usize>() > SHOWN_BYTES_MAX {
            all.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use framehook_domain::time::UnixMs;
    use framehook_media::{AccessUnit, Codec, DecoderConfig};

    use super::*;
    use crate::keyframes::Arrival;
    use crate::render::Size;

    fn push(number: u32) -> PushSequence {
        PushSequence::new(UnixMs(0), number)
    }

    fn entry_point(at_secs: u64) -> EntryPoint {
        let config = Arc::new(DecoderConfig { codec: Codec::H264, record: Bytes::new() });
        let unit = AccessUnit { config, data: Bytes::from_static(b"a keyframe"), dts_ms: 0 };
        let arrival = Arrival { mono: Mono(Duration::from_secs(at_secs)), wall: UnixMs(0) };
        EntryPoint { unit, arrival }
    }

    fn image(bytes: usize) -> RenderedImage {
        RenderedImage { size: Size::new(16, 16), bytes: Bytes::from(vec![0; bytes]) }
    }

    /// A worker that shows an image of so many bytes to the next `count` looks.
    async fn worker(looks: &Looks, bytes: usize, count: usize) {
        for _ in 0..count {
            looks.next().await.show(Ok(vec![image(bytes)]));
        }
    }

    #[tokio::test]
    async fn who_looks_at_the_same_shares_one_rendering() {
        let (looks, entry_point) = (Looks::default(), entry_point(1));
        let look = |width| looks.look(push(1), &entry_point, width);
        // The worker makes two pictures and no third, or the last look would wait for ever.
        let ((), first, second, small) = tokio::join!(worker(&looks, 10, 2), look(0), look(0), look(160));
        assert_eq!([first, second, small], [Ok(image(10)), Ok(image(10)), Ok(image(10))]);
        assert_eq!(look(0).await, Ok(image(10)), "again, from what was kept");
    }

    #[tokio::test]
    async fn a_newer_entry_point_is_looked_at_anew_and_the_older_is_dropped() {
        let looks = Looks::default();
        for secs in [1, 3] {
            let entry_point = entry_point(secs);
            let (_, shown) = tokio::join!(worker(&looks, 10, 1), looks.look(push(1), &entry_point, 0));
            assert_eq!(shown, Ok(image(10)));
        }
        assert_eq!(looks.shown.lock().expect("held by nobody").len(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_rendered_is_tried_once_and_a_busy_pool_again() {
        let (looks, entry_point) = (Looks::default(), entry_point(1));
        let look = || looks.look(push(1), &entry_point, 0);
        let worker = |error| async {
            looks.next().await.show(Err(error));
        };
        let ((), shown) = tokio::join!(worker(RenderError::WorkerUnavailable), look());
        assert_eq!(shown, Err(LookError::Busy));
        let ((), shown) = tokio::join!(worker(RenderError::TimedOut), look());
        assert_eq!(shown, Err(LookError::Render(RenderError::TimedOut)));
        assert_eq!(look().await, Err(LookError::Render(RenderError::TimedOut)), "without a worker");
    }

    #[tokio::test]
    async fn looks_that_nobody_can_make_are_refused_at_once() {
        let (looks, entry_point) = (Looks::default(), entry_point(1));
        let mut waiting: Vec<_> =
            (0..WAITING_MAX as u32).map(|number| Box::pin(looks.look(push(number), &entry_point, 0))).collect();
        for look in &mut waiting {
            assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(look.as_mut().poll(cx).is_pending())).await);
        }
        assert_eq!(looks.look(push(99), &entry_point, 0).await, Err(LookError::Busy));
        drop(waiting);
        assert!(!looks.next().await.is_wanted(), "who asked has gone");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_in_number_and_bytes() {
        let (looks, entry_point) = (Looks::default(), entry_point(1));
        for number in 0..SHOWN_MAX as u32 + 10 {
            let (_, shown) = tokio::join!(worker(&looks, 1, 1), looks.look(push(number), &entry_point, 0));
            assert!(shown.is_ok());
        }
        assert_eq!(looks.shown.lock().expect("held by nobody").len(), SHOWN_MAX);
        for number in 0..10 {
            let (_, shown) = tokio::join!(worker(&looks, 8 << 20, 1), looks.look(push(number), &entry_point, 160));
            assert!(shown.is_ok());
        }
        let kept: usize = looks.shown.lock().expect("held by nobody").iter().map(|shown| shown.bytes()).sum();
        assert!(kept <= SHOWN_BYTES_MAX, "{kept} bytes are kept");
    }
}
