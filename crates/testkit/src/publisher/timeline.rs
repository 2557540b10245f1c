//! Which tag of a file is sent when: once, or over and over on one continuous timeline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flv::{FlvFile, Tag, TagKind};

/// A file and what is found out about it once for all who publish it.
#[derive(Debug)]
pub(super) struct Playlist {
    file: Arc<FlvFile>,
    /// Of each tag's picture.
    picture_numbers: Vec<Option<u32>>,
    duration_ms: u32,
}

impl Playlist {
    pub(super) fn new(file: Arc<FlvFile>) -> Arc<Self> {
        Arc::new(Self { picture_numbers: file.picture_numbers(), duration_ms: file.duration_ms(), file })
    }

    /// Whether a loop sends it again: not sound that runs on behind the pictures, nor what the file says about itself.
    fn is_repeated(&self, tag: &Tag) -> bool {
        tag.dts_ms < self.duration_ms && tag.kind != TagKind::Script
    }
}

/// One publisher's way through a file.
#[derive(Debug)]
pub(super) struct Timeline {
    playlist: Arc<Playlist>,
    looped: bool,
    /// Media seconds per second.
    speed: f64,
    start: Instant,
    /// Index of the tag that comes next.
    tag: usize,
    /// Where the current loop began, in ms of media time.
    loop_start_ms: u32,
}

/// A tag that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) tag: &'a Tag,
    /// The number of its picture if it is a keyframe.
    pub(super) keyframe: Option<u32>,
    /// Decode time in ms, going on over loops.
    pub(super) dts_ms: u32,
    pub(super) due: Instant,
}

impl Timeline {
    pub(super) fn new(playlist: Arc<Playlist>, looped: bool, speed: f64, start: Instant) -> Self {
        // Of a file that only says something about itself there is nothing to repeat.
        let looped = looped && playlist.file.tags.iter().any(|tag| playlist.is_repeated(tag));
        Self { playlist, looped, speed, start, tag: 0, loop_start_ms: 0 }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// What comes next; `None` at the end.
    pub(super) fn current(&self) -> Option<Step<'_>> {
        let tag = self.playlist.file.tags.get(self.tag)?;
        let dts_ms = self.loop_start_ms.wrapping_add(tag.dts_ms);
        Some(Step {
            tag,
            keyframe: self.playlist.picture_numbers[self.tag].filter(|_| tag.is_keyframe()),
            dts_ms,
            due: self.start + Duration::from_secs_f64(f64::from(dts_ms) / 1000.0 / self.speed),
        })
    }

    /// Goes on to the next tag.
    pub(super) fn advance(&mut self) {
        self.tag += 1;
        while self.looped {
            match self.playlist.file.tags.get(self.tag) {
                Some(tag) if self.playlist.is_repeated(tag) => return,
                Some(tag) if self.loop_start_ms == 0 && tag.kind == TagKind::Script => return,
                Some(_) => self.tag += 1,
                None => {
                    self.tag = 0;
                    self.loop_start_ms = self.loop_start_ms.wrapping_add(self.playlist.duration_ms);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;

    /// A file of what it says about itself, two pictures 40 ms apart, and sound that goes on behind them.
    fn file() -> Arc<FlvFile> {
        let tag = |kind, dts_ms, data: &'static [u8]| Tag { kind, dts_ms, data: Bytes::from_static(data) };
        let tags = vec![
            tag(TagKind::Script, 0, b"meta"),
            tag(TagKind::Video, 0, &[0x17, 1, 0, 0, 0, 0]),
            tag(TagKind::Audio, 20, &[0xaf, 1]),
            tag(TagKind::Video, 40, &[0x27, 1, 0, 0, 0, 0]),
            tag(TagKind::Audio, 80, &[0xaf, 1]),
        ];
        Arc::new(FlvFile { tags })
    }

    /// Kind, time as sent, keyframe number, and ms from the start to when it is due, of at most `count` tags.
    fn walk(file: Arc<FlvFile>, looped: bool, speed: f64, count: usize) -> Vec<(TagKind, u32, Option<u32>, u128)> {
        let start = Instant::now();
        let mut timeline = Timeline::new(Playlist::new(file), looped, speed, start);
        let mut walked = Vec::new();
        while let Some(step) = timeline.current().filter(|_| walked.len() < count) {
            walked.push((step.tag.kind, step.dts_ms, step.keyframe, (step.due - start).as_millis()));
            timeline.advance();
        }
        walked
    }

    #[test]
    fn a_file_is_walked_once_at_its_speed() {
        use TagKind::{Audio, Script, Video};
        let walked = walk(file(), false, 2.0, 100);
        let expected = [
            (Script, 0, None, 0),
            (Video, 0, Some(0), 0),
            (Audio, 20, None, 10),
            (Video, 40, None, 20),
            (Audio, 80, None, 40),
        ];
        assert_eq!(walked, expected);
    }

    #[test]
    fn a_loop_goes_on_in_time_without_metadata_and_late_sound() {
        use TagKind::{Audio, Script, Video};
        let walked: Vec<_> = walk(file(), true, 1.0, 8)
            .into_iter()
            .map(|(kind, dts_ms, keyframe, _)| (kind, dts_ms, keyframe))
            .collect();
        let expected = [
            (Script, 0, None),
            (Video, 0, Some(0)),
            (Audio, 20, None),
            (Video, 40, None),
            (Video, 80, Some(0)),
            (Audio, 100, None),
            (Video, 120, None),
            (Video, 160, Some(0)),
        ];
        assert_eq!(walked, expected);
    }

    #[test]
    fn a_file_with_nothing_to_repeat_ends() {
        let meta = Arc::new(FlvFile { tags: file().tags[..1].to_vec() });
        assert_eq!(walk(meta, true, 1.0, 5).len(), 1);
        assert_eq!(walk(Arc::new(FlvFile { tags: Vec::new() }), true, 1.0, 5), []);
    }
}
