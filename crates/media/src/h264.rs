//! H.264 headers: which NAL units these are, whether decoding may start here, and what the SPS says about the picture.
//!
//! Nothing here decodes. Slice headers are read up to the slice type, SEI up to the recovery point.

mod bits;
mod field;
mod sps;

use self::bits::BitReader;
pub use self::{
    bits::OutOfBits,
    field::{FieldReader, PictureStructure},
    sps::{ChromaFormat, Colour, DIMENSION_MAX, Sps, SpsError, Timing},
};

/// `nal_unit_type` (table 7-1), as far as anything here looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalType {
    /// A coded slice of a picture that is not an IDR picture (1).
    Slice,
    /// Data partitions of such a slice (2 to 4), Extended profile only.
    Partition,
    /// A coded slice of an IDR picture (5).
    IdrSlice,
    Sei,
    Sps,
    Pps,
    AccessUnitDelimiter,
    Other(u8),
}

impl NalType {
    /// From the first byte of a NAL unit.
    pub const fn of(header: u8) -> Self {
        match header & 0x1f {
            1 => Self::Slice,
            2..=4 => Self::Partition,
            5 => Self::IdrSlice,
            6 => Self::Sei,
            7 => Self::Sps,
            8 => Self::Pps,
            9 => Self::AccessUnitDelimiter,
            other => Self::Other(other),
        }
    }
}

/// `slice_type` (table 7-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceType {
    P,
    B,
    I,
    Sp,
    Si,
}

impl SliceType {
    /// Reads the start of a slice header (7.3.3). `None` if the unit is no slice, is cut off or names no slice type.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let (&header, payload) = unit.split_first()?;
        if !matches!(NalType::of(header), NalType::Slice | NalType::IdrSlice) {
            return None;
        }
        let mut bits = BitReader::new(payload);
        bits.ue().ok()?; // first_mb_in_slice
        // Values 5 to 9 mean the same as 0 to 4 and promise that all slices of the picture agree.
        Some(match bits.ue().ok()? {
            0 | 5 => Self::P,
            1 | 6 => Self::B,
            2 | 7 => Self::I,
            3 | 8 => Self::Sp,
            4 | 9 => Self::Si,
            _ => return None,
        })
    }
}

/// Whether decoding may start at the access unit with these NAL units: what the bitstream says, not the container.
///
/// An IDR slice is enough. Otherwise there must be a recovery point with `recovery_frame_cnt` 0 and nothing but intra
/// slices: an intra picture without that promise may be followed by pictures that need older ones, and libavcodec does
/// not put one out either; a recovery point further ahead (gradual refresh) starts with a damaged picture.
pub fn is_entry_point<'a>(units: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let (mut recovers_at_once, mut has_slice) = (false, false);
    for unit in units {
        let &[header, ..] = unit else { continue };
        match NalType::of(header) {
            NalType::Sei => recovers_at_once |= recovery_frame_count(unit) == Some(0),
            NalType::IdrSlice => return SliceType::parse(unit).is_some(),
            NalType::Slice => {
                if !recovers_at_once || !matches!(SliceType::parse(unit), Some(SliceType::I | SliceType::Si)) {
                    return false;
                }
                has_slice = true;
            }
            NalType::Partition => return false,
            _ => {}
        }
    }
    has_slice
}

/// `recovery_frame_cnt` of the first recovery point message in an SEI NAL unit (7.3.2.3, D.1.8).
pub fn recovery_frame_count(unit: &[u8]) -> Option<u32> {
    const RECOVERY_POINT: u32 = 6;
    let (&header, payload) = unit.split_first()?;
    if NalType::of(header) != NalType::Sei {
        return None;
    }
    let mut bits = BitReader::new(payload);
    loop {
        let payload_type = sei_number(&mut bits).ok()?;
        let payload_size = sei_number(&mut bits).ok()?;
        if payload_type == RECOVERY_POINT {
            return bits.ue().ok();
        }
        // The trailing bits (0x80) read as payload type 128 of some size and run out here, as any cut-off message does.
        bits.skip_bytes(payload_size).ok()?;
    }
}

/// A payload type or size: bytes of 255 add up until a smaller one ends it. A unit would need 16 MiB of 255s to overflow,
/// more than a message may have; it saturates all the same.
fn sei_number(bits: &mut BitReader<'_>) -> Result<u32, OutOfBits> {
    let mut number = 0_u32;
    loop {
        let byte = bits.bits(8)?;
        number = number.saturating_add(byte);
        if byte != 255 {
            return Ok(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// first_mb 0, slice_type 7 (I): bits `1 0001000` then whatever.
    const I_SLICE: &[u8] = b"\x41\x88\x80";
    const IDR_SLICE: &[u8] = b"\x65\x88\x80";
    /// first_mb 0, slice_type 5 (P): bits `1 00110`.
    const P_SLICE: &[u8] = b"\x41\x9a";
    /// Recovery point, size 1, recovery_frame_cnt 0, exact match.
    const RECOVERY: &[u8] = b"\x06\x06\x01\xc4\x80";
    /// The same with recovery_frame_cnt 4 (bits `00101`).
    const LATER_RECOVERY: &[u8] = b"\x06\x06\x01\x2c\x80";
    const TIMECODE: &[u8] = b"\x06\x01\x02\xaa\xbb\x80";

    #[test]
    fn tells_where_decoding_may_start() {
        let two_messages = &[&TIMECODE[..5], b"\x06\x01\xc4\x80"].concat();
        type Case<'a> = (&'a str, &'a [&'a [u8]], bool);
        let cases: &[Case<'_>] = &[
            ("nothing", &[], false),
            ("parameter sets alone", &[b"\x67\x64", b"\x68\xeb"], false),
            ("IDR", &[IDR_SLICE], true),
            (
                "IDR behind delimiter, parameter sets and SEI",
                &[b"\x09\xf0", b"\x67", b"\x68", TIMECODE, IDR_SLICE],
                true,
            ),
            ("open GOP", &[RECOVERY, I_SLICE, I_SLICE], true),
            ("recovery point behind another message", &[two_messages, I_SLICE], true),
            ("intra picture without a promise", &[I_SLICE], false),
            ("gradual refresh", &[LATER_RECOVERY, I_SLICE], false),
            ("recovery point before a P slice", &[RECOVERY, P_SLICE], false),
            ("one slice of several is P", &[RECOVERY, I_SLICE, P_SLICE], false),
            ("recovery point without a picture", &[RECOVERY], false),
            ("recovery point after the picture", &[I_SLICE, RECOVERY], false),
            ("inter picture", &[P_SLICE], false),
            ("data partitions", &[RECOVERY, b"\x42\x88"], false),
            ("IDR slice without a header", &[b"\x65"], false),
            ("an empty unit is nothing", &[b"", IDR_SLICE], true),
        ];
        for (name, units, expected) in cases {
            assert_eq!(is_entry_point(units.iter().copied()), *expected, "{name}");
        }
    }

    #[test]
    fn reads_slice_types() {
        assert_eq!(SliceType::parse(IDR_SLICE), Some(SliceType::I));
        assert_eq!(SliceType::parse(P_SLICE), Some(SliceType::P));
        // first_mb 3 (`00100`), slice_type 2 (`011`).
        assert_eq!(SliceType::parse(b"\x41\x23"), Some(SliceType::I));
        // first_mb 0, slice_type 10 (`0001011`).
        assert_eq!(SliceType::parse(b"\x41\x8b"), None);
        assert_eq!(SliceType::parse(b"\x67\x88\x80"), None, "an SPS is no slice");
    }

    #[test]
    fn sei_that_never_ends_is_no_recovery_point() {
        let endless = [&b"\x06"[..], &[0xff; 10_000]].concat();
        assert_eq!(recovery_frame_count(&endless), None);
        assert_eq!(recovery_frame_count(b"\x06\x06"), None);
        assert_eq!(recovery_frame_count(b"\x06\x01\xff\xff\x00"), None);
        assert_eq!(recovery_frame_count(RECOVERY), Some(0));
        assert_eq!(recovery_frame_count(LATER_RECOVERY), Some(4));
    }
}
