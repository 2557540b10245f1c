//! FLV files: a header, then tags one after another (Adobe Flash Video File Format 10.1, annex E.2 and E.3).

use bytes::Bytes;

/// Longest tag that is believed, in bytes: as long as the longest RTMP message that a session takes.
const TAG_BYTES_MAX: usize = 8 << 20;

/// What the file's tags are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagKind {
    Audio,
    Video,
    /// `onMetaData` and the like.
    Script,
}

/// One tag. Over RTMP its body is a message of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTag {
    pub kind: TagKind,
    /// Decode time in ms since the file's start.
    pub timestamp_ms: u32,
    pub body: Bytes,
}

/// Why the bytes are no FLV file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlvFileError {
    #[error("the file does not begin with an FLV header")]
    NotFlv,
    #[error("the tag at byte {offset} has type {tag_type}, 8, 9 and 18 are known")]
    UnknownTag { offset: usize, tag_type: u8 },
    #[error("the tag at byte {offset} announces {announced} bytes, at most {TAG_BYTES_MAX} are believed")]
    TagTooLong { offset: usize, announced: usize },
}

/// The tags of a file, in its order. A file that was cut off ends with its last whole tag. After an error there are no more.
#[derive(Clone, Debug)]
pub struct FileTags {
    file: Bytes,
    offset: usize,
}

impl FileTags {
    /// # Errors
    /// [`FlvFileError::NotFlv`].
    pub fn new(file: Bytes) -> Result<Self, FlvFileError> {
        let header = file.first_chunk::<9>().ok_or(FlvFileError::NotFlv)?;
        let [b'F', b'L', b'V', _, _, o3, o2, o1, o0] = *header else { return Err(FlvFileError::NotFlv) };
        let header_len = u32::from_be_bytes([o3, o2, o1, o0]) as usize;
        // The field DataOffset, then the length of the tag before the first one, which is always 0.
        let offset = header_len.checked_add(4).filter(|&offset| header_len >= 9 && offset <= file.len());
        Ok(Self { offset: offset.ok_or(FlvFileError::NotFlv)?, file })
    }
}

impl Iterator for FileTags {
    type Item = Result<FileTag, FlvFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let [tag_type, l2, l1, l0, t2, t1, t0, t3, ..] = *self.file.get(offset..)?.first_chunk::<11>()?;
        let announced = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        let kind = match tag_type & 0x1f {
            8 => TagKind::Audio,
            9 => TagKind::Video,
            18 => TagKind::Script,
            _ => {
                self.offset = self.file.len();
                return Some(Err(FlvFileError::UnknownTag { offset, tag_type }));
            }
        };
        if announced > TAG_BYTES_MAX {
            self.offset = self.file.len();
            return Some(Err(FlvFileError::TagTooLong { offset, announced }));
        }
        let start = offset + 11;
        let end = start + announced;
        if end > self.file.len() {
            return None;
        }
        self.offset = end + 4;
        // The timestamp's high byte stands behind its low three.
        let timestamp_ms = u32::from_be_bytes([t3, t2, t1, t0]);
        Some(Ok(FileTag { kind, timestamp_ms, body: self.file.slice(start..end) }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

    fn tag(tag_type: u8, timestamp_ms: u32, body: &[u8]) -> Vec<u8> {
        let [t3, t2, t1, t0] = timestamp_ms.to_be_bytes();
        let len = body.len() as u32;
        let mut tag = Vec::from([tag_type, (len >> 16) as u8, (len >> 8) as u8, len as u8, t2, t1, t0, t3, 0, 0, 0]);
        tag.extend_from_slice(body);
        tag.extend_from_slice(&(len + 11).to_be_bytes());
        tag
    }

    fn read(file: &[u8]) -> Result<Vec<(TagKind, u32, Vec<u8>)>, FlvFileError> {
        let tags = FileTags::new(Bytes::copy_from_slice(file))?;
        tags.map(|tag| tag.map(|tag| (tag.kind, tag.timestamp_ms, tag.body.to_vec()))).collect()
    }

    #[test]
    fn reads_tags_in_order_and_times_of_32_bits() {
        let file = [HEADER, &tag(18, 0, b"meta"), &tag(9, 40, b"picture"), &tag(8, 0x8123_4567, b"")].concat();
        let expected = [
            (TagKind::Script, 0, b"meta".to_vec()),
            (TagKind::Video, 40, b"picture".to_vec()),
            (TagKind::Audio, 0x8123_4567, Vec::new()),
        ];
        assert_eq!(read(&file).unwrap(), expected);
    }

    #[test]
    fn a_file_that_was_cut_off_ends_with_its_last_whole_tag() {
        let file = [HEADER, &tag(9, 0, b"whole"), &tag(9, 40, b"cut off")].concat();
        for missing in 5..=18 {
            assert_eq!(read(&file[..file.len() - missing]).unwrap().len(), 1, "{missing} bytes missing");
        }
    }

    #[test]
    fn what_is_no_flv_file_is_refused() {
        assert_eq!(read(b""), Err(FlvFileError::NotFlv));
        assert_eq!(read(b"RIFF\0\0\0\0WAVE\0\0\0\0"), Err(FlvFileError::NotFlv));
        assert_eq!(read(b"FLV\x01\x05\xff\xff\xff\xff\0\0\0\0"), Err(FlvFileError::NotFlv));
        let unknown = [HEADER, &tag(3, 0, b"?")].concat();
        assert_eq!(read(&unknown), Err(FlvFileError::UnknownTag { offset: 13, tag_type: 3 }));
        let long = [HEADER, &[9, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(read(&long), Err(FlvFileError::TagTooLong { offset: 13, announced: 0xff_ffff }));
    }
}
