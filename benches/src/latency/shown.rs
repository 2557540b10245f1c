//! Which picture of the clip a file shows, and when that picture had left its publisher.
//!
//! A program that decodes and encodes a picture on one thread writes the same bytes whenever it is given the same picture. So
//! each recipe's program makes its pictures from the clip's own file first, and a file that it writes of a stream is known by its
//! bytes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use framehook_testkit::flv::FlvFile;
use framehook_testkit::publisher::KeyframeSent;
use md5::{Digest, Md5};

/// MD5 of a file, most significant byte first, as ffmpeg prints it.
pub(super) type Sum = u128;

pub(super) fn sum(file: &[u8]) -> Sum {
    Sum::from_be_bytes(Md5::digest(file).into())
}

/// A picture of the clip by when it leaves: so long after this keyframe, whose moment the publisher notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number in display order.
    keyframe: u32,
    after: Duration,
}

impl Place {
    /// Those of all pictures of a clip, in display order.
    pub(super) fn of_all(clip: &FlvFile) -> Vec<Self> {
        let (mut places, mut latest) = (Vec::new(), None);
        for (tag, number) in clip.tags.iter().zip(clip.picture_numbers()) {
            let Some(number) = number else { continue };
            if tag.is_keyframe() {
                latest = Some((number, tag.dts_ms));
            }
            let Some((keyframe, dts_ms)) = latest else { continue };
            // A publisher sends each picture at its decode time.
            let after = Duration::from_millis(tag.dts_ms.saturating_sub(dts_ms).into());
            places.push((number, Self { keyframe, after }));
        }
        places.sort_unstable_by_key(|(number, _)| *number);
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// Those of its keyframes, in the same order.
    pub(super) fn of_keyframes(clip: &FlvFile) -> Vec<Self> {
        Self::of_all(clip).into_iter().filter(|place| place.after.is_zero()).collect()
    }
}

/// What a recipe's program makes of the clip's pictures.
#[derive(Debug)]
pub(super) struct Known(HashMap<Sum, Vec<Place>>);

impl Known {
    /// `sums` are those of the files that show the pictures at `places`.
    pub(super) fn new(sums: &[Sum], places: &[Place]) -> Result<Self> {
        ensure!(sums.len() == places.len(), "{} files show {} pictures", sums.len(), places.len());
        let mut known: HashMap<Sum, Vec<Place>> = HashMap::new();
        for (sum, place) in sums.iter().zip(places) {
            known.entry(*sum).or_default().push(*place);
        }
        Ok(Self(known))
    }

    /// When the picture had left that a file shows which was whole at `whole`, by the keyframes of its stream: the clip comes
    /// again and again, so this is the last time before. `None` when the file shows nothing of the clip.
    pub(super) fn left(&self, sum: Sum, keyframes: &[KeyframeSent], whole: Instant) -> Option<Instant> {
        let sent = |place: &Place| {
            let of_this = keyframes.iter().filter(|sent| sent.picture_number == place.keyframe);
            of_this.map(|sent| sent.sent + place.after).filter(|left| *left <= whole).max()
        };
        self.0.get(&sum)?.iter().filter_map(sent).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use framehook_testkit::flv::{Tag, TagKind};

    fn picture(dts_ms: u32, offset_ms: u8, is_keyframe: bool) -> Tag {
        let kind = if is_keyframe { 0x17 } else { 0x27 };
        Tag { kind: TagKind::Video, dts_ms, data: Bytes::from(vec![kind, 1, 0, 0, offset_ms, 0]) }
    }

    fn place(keyframe: u32, after_ms: u64) -> Place {
        Place { keyframe, after: Duration::from_millis(after_ms) }
    }

    #[test]
    fn a_picture_leaves_at_its_decode_time_after_its_keyframe() {
        let config = Tag { kind: TagKind::Video, dts_ms: 0, data: Bytes::from_static(&[0x17, 0, 0, 0, 0]) };
        // The third is shown after the fourth.
        let tags = vec![
            config,
            picture(0, 40, true),
            picture(40, 120, false),
            picture(80, 40, false),
            picture(120, 80, true),
            picture(160, 80, false),
        ];
        let clip = FlvFile { tags };
        assert_eq!(Place::of_all(&clip), [place(0, 0), place(0, 80), place(0, 40), place(3, 0), place(3, 40)]);
        assert_eq!(Place::of_keyframes(&clip), [place(0, 0), place(3, 0)]);
    }

    #[test]
    fn a_file_is_known_by_its_bytes_and_shows_what_had_last_left_before_it() {
        let (first, second, both) = (sum(b"first"), sum(b"second"), sum(b"both"));
        let places = [place(0, 0), place(0, 80), place(60, 0), place(120, 0)];
        let known = Known::new(&[first, second, both, both], &places).unwrap();
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let sent = |picture_number, ms| KeyframeSent {
            picture_number,
            dts_ms: 0,
            bytes: 1,
            sent: at(ms),
            sent_wall: UNIX_EPOCH,
        };
        let log = [sent(0, 0), sent(60, 2000), sent(120, 4000), sent(0, 6000), sent(60, 8000)];
        for (name, file, whole_ms, left_ms) in [
            ("at once", first, 30, Some(0)),
            ("of the first round, late", first, 5900, Some(0)),
            ("of the second round", first, 6030, Some(6000)),
            ("between keyframes", second, 6090, Some(6080)),
            ("between keyframes, of the first round", second, 6070, Some(80)),
            ("one of two that look the same", both, 4030, Some(4000)),
            ("the other one", both, 8030, Some(8000)),
            ("before it had left", both, 1900, None),
            ("of nobody", sum(b"else"), 9000, None),
        ] {
            assert_eq!(known.left(file, &log, at(whole_ms)), left_ms.map(at), "{name}");
        }
        assert!(Known::new(&[first], &places).is_err());
    }
}
