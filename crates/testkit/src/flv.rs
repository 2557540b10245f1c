//! Reads FLV files (Adobe FLV 10.1, annex E) into tags. Strict: these are files we made, so anything odd is an error.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};

/// What a tag carries (annex E.4.1, `TagType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagKind {
    Audio,
    Video,
    Script,
}

/// One tag: also exactly one RTMP message.
#[derive(Clone, Debug)]
pub struct Tag {
    pub kind: TagKind,
    /// Decode time in ms.
    pub dts_ms: u32,
    pub data: Bytes,
}

impl Tag {
    /// A picture from which decoding may start: a keyframe by the container's claim, and not a decoder config.
    pub fn is_keyframe(&self) -> bool {
        self.is_coded_picture() && self.data[0] >> 4 == 1
    }

    /// A decoder config: AVC (`17 00`) or AAC (`AF 00`).
    pub fn is_decoder_config(&self) -> bool {
        match self.kind {
            TagKind::Video => self.data.len() >= 2 && self.data[0] & 0x0f == 7 && self.data[1] == 0,
            TagKind::Audio => self.data.len() >= 2 && self.data[0] >> 4 == 10 && self.data[1] == 0,
            TagKind::Script => false,
        }
    }

    /// Presentation time in ms: decode time plus the composition offset of a coded picture.
    pub fn pts_ms(&self) -> i64 {
        let offset = if self.is_coded_picture() {
            // SI24: shifted up by eight bits and back down again to keep the sign.
            i32::from_be_bytes([self.data[2], self.data[3], self.data[4], 0]) >> 8
        } else {
            0
        };
        i64::from(self.dts_ms) + i64::from(offset)
    }

    /// H.264 in its legacy FLV form, with at least one NAL unit's length after the 5 byte header.
    fn is_coded_picture(&self) -> bool {
        self.kind == TagKind::Video && self.data.len() > 5 && self.data[0] & 0x0f == 7 && self.data[1] == 1
    }
}

/// A whole file in memory. Tags share its bytes.
#[derive(Clone, Debug)]
pub struct FlvFile {
    pub tags: Vec<Tag>,
}

impl FlvFile {
    /// # Errors
    /// When the file cannot be read or is not a well-formed FLV file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(bytes.into()).with_context(|| format!("parse {}", path.display()))
    }

    /// # Errors
    /// Names the offset of the first thing that is not FLV.
    pub fn parse(mut bytes: Bytes) -> Result<Self> {
        let whole = bytes.len();
        ensure!(bytes.starts_with(b"FLV\x01") && whole >= 13, "no FLV header");
        let header_bytes = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) as usize;
        ensure!(header_bytes >= 9 && header_bytes + 4 <= whole, "FLV header of {header_bytes} bytes");
        bytes.advance(header_bytes + 4);
        let mut tags = Vec::new();
        while !bytes.is_empty() {
            let at = whole - bytes.len();
            ensure!(bytes.len() >= 11, "tag header cut off at byte {at}");
            let kind = match bytes[0] {
                8 => TagKind::Audio,
                9 => TagKind::Video,
                18 => TagKind::Script,
                other => bail!("tag type {other} at byte {at}"),
            };
            let data_bytes = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize;
            // The upper eight bits of the time stand behind the lower 24.
            let dts_ms = u32::from_be_bytes([bytes[7], bytes[4], bytes[5], bytes[6]]);
            bytes.advance(11);
            ensure!(
                bytes.len() >= data_bytes + 4,
                "tag at byte {at} says {data_bytes} bytes, {} are left",
                bytes.len()
            );
            let data = bytes.split_to(data_bytes);
            let previous_tag_bytes = bytes.get_u32() as usize;
            ensure!(previous_tag_bytes == data_bytes + 11, "tag at byte {at} is followed by size {previous_tag_bytes}");
            tags.push(Tag { kind, dts_ms, data });
        }
        Ok(Self { tags })
    }

    /// This file, then `next`, on one continuous timeline. Its decoder configs come along, so a change of size or
    /// profile reaches the server as an encoder would send it; the second metadata tag is left out.
    #[must_use]
    pub fn followed_by(&self, next: &Self) -> Self {
        let shift_ms = self.duration_ms();
        let mut tags: Vec<Tag> = self.tags.iter().filter(|tag| tag.dts_ms < shift_ms).cloned().collect();
        let media = next.tags.iter().filter(|tag| tag.kind != TagKind::Script);
        tags.extend(media.map(|tag| Tag { dts_ms: tag.dts_ms + shift_ms, ..tag.clone() }));
        Self { tags }
    }

    /// When a loop of this file starts again: the last picture's time plus the mean distance of two; for a file without
    /// pictures, one ms after its last tag. Sound may run on a little behind the pictures; a loop leaves that out.
    pub fn duration_ms(&self) -> u32 {
        let pictures: Vec<u32> = self.tags.iter().filter(|tag| tag.is_coded_picture()).map(|tag| tag.dts_ms).collect();
        match pictures.as_slice() {
            [first, .., last] => last + (f64::from(last - first) / (pictures.len() - 1) as f64).round() as u32,
            _ => self.tags.iter().map(|tag| tag.dts_ms + 1).max().unwrap_or(0),
        }
    }

    /// For each tag, the number of its picture in display order from 0; `None` for what is not a picture. With the
    /// clips of [`crate::clip`] it is the number burnt into the picture.
    pub fn picture_numbers(&self) -> Vec<Option<u32>> {
        let mut shown: Vec<usize> = (0..self.tags.len()).filter(|&index| self.tags[index].is_coded_picture()).collect();
        shown.sort_by_key(|&index| self.tags[index].pts_ms());
        let mut numbers = vec![None; self.tags.len()];
        for (number, index) in shown.into_iter().enumerate() {
            numbers[index] = u32::try_from(number).ok();
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flv(tags: &[(u8, u32, &[u8])]) -> Bytes {
        let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for &(kind, time, data) in tags {
            let [upper, lower @ ..] = time.to_be_bytes();
            file.push(kind);
            file.extend_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
            file.extend_from_slice(&lower);
            file.extend_from_slice(&[upper, 0, 0, 0]);
            file.extend_from_slice(data);
            file.extend_from_slice(&(data.len() as u32 + 11).to_be_bytes());
        }
        file.into()
    }

    const CONFIG: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    /// Shown 80 ms after it is decoded.
    const KEY: &[u8] = &[0x17, 1, 0, 0, 80, 0, 0, 0, 1, 5];
    const LATE: &[u8] = &[0x27, 1, 0, 0, 120, 0, 0, 0, 1, 1];
    /// Shown 40 ms before it is decoded, which only a negative offset can say.
    const EARLY: &[u8] = &[0x27, 1, 0xff, 0xff, 0xd8, 0, 0, 0, 1, 1];

    #[test]
    fn tells_configs_keyframes_and_times_apart() {
        let file =
            FlvFile::parse(flv(&[(18, 0, b"meta"), (9, 0, CONFIG), (9, 0x0100_0000, KEY), (9, 40, EARLY)])).unwrap();
        let facts: Vec<_> =
            file.tags.iter().map(|tag| (tag.is_decoder_config(), tag.is_keyframe(), tag.pts_ms())).collect();
        let long = 0x0100_0000 + 80;
        assert_eq!(facts, [(false, false, 0), (true, false, 0), (false, true, long), (false, false, 0)]);
    }

    #[test]
    fn numbers_pictures_in_display_order() {
        // Decoded: key (shown at 80), late (160), early (40).
        let file = FlvFile::parse(flv(&[(9, 0, CONFIG), (9, 0, KEY), (9, 40, LATE), (9, 80, EARLY)])).unwrap();
        assert_eq!(file.picture_numbers(), [None, Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn joins_on_one_timeline_with_the_second_config() {
        let file = FlvFile::parse(flv(&[(18, 0, b"meta"), (9, 0, CONFIG), (9, 0, KEY), (9, 40, LATE)])).unwrap();
        let joined = file.followed_by(&file);
        let times: Vec<_> = joined.tags.iter().map(|tag| tag.dts_ms).collect();
        assert_eq!(times, [0, 0, 0, 40, 80, 80, 120]);
        assert_eq!(joined.tags.iter().filter(|tag| tag.is_decoder_config()).count(), 2);
    }

    #[test]
    fn refuses_what_is_cut_off() {
        let whole = flv(&[(9, 0, KEY)]);
        for end in 0..whole.len() {
            if end != 13 {
                assert!(FlvFile::parse(whole.slice(..end)).is_err(), "cut at {end}");
            }
        }
    }
}
