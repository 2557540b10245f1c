//! AVCC: NAL units behind a length each, and the record that says how long the length is (ISO/IEC 14496-15, 5.3).

use alloc::vec::Vec;

/// Largest `AVCDecoderConfigurationRecord` that is read. Real ones are 30 to 200 bytes: one SPS and one PPS. 31 SPS and
/// 255 PPS of the largest useful size stay under 64 KiB, and the publisher's connection pins this much for its lifetime.
pub const RECORD_BYTES_MAX: usize = 64 << 10;

/// `AVCDecoderConfigurationRecord`: what a decoder needs before the first picture. Borrows the parameter sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avcc<'a> {
    pub profile_idc: u8,
    pub profile_compatibility: u8,
    pub level_idc: u8,
    pub length_size: LengthSize,
    /// Sequence parameter sets as NAL units, header byte included. At most 31, none of them empty.
    pub sps: Vec<&'a [u8]>,
    /// Picture parameter sets, likewise. At most 255.
    pub pps: Vec<&'a [u8]>,
}

/// How many bytes the length in front of each NAL unit has: 1, 2 or 4. A value of 3 is reserved by the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthSize {
    One,
    Two,
    Four,
}

/// Why bytes are not an `AVCDecoderConfigurationRecord`, or not AVCC-framed NAL units.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AvccError {
    #[error("avcC of {bytes} bytes exceeds {RECORD_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("avcC version is {version}, not 1")]
    UnknownVersion { version: u8 },
    #[error("avcC announces NAL unit lengths of 3 bytes, which is reserved")]
    ReservedLengthSize,
    #[error("avcC ends early at byte {offset}")]
    TruncatedRecord { offset: usize },
    #[error("avcC has an empty parameter set at byte {offset}")]
    EmptyParameterSet { offset: usize },
    #[error("NAL unit length at byte {offset} is cut off")]
    TruncatedLength { offset: usize },
    #[error("NAL unit of {bytes} bytes does not fit its length field")]
    UnitTooLong { bytes: usize },
    #[error("NAL unit at byte {offset} announces {announced} bytes, {left} are left")]
    TruncatedUnit { offset: usize, announced: u32, left: usize },
}

impl LengthSize {
    pub const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// The longest NAL unit that can be written with this length size.
    pub const fn unit_bytes_max(self) -> usize {
        match self {
            Self::One => u8::MAX as usize,
            Self::Two => u16::MAX as usize,
            Self::Four => u32::MAX as usize,
        }
    }
}

impl<'a> Avcc<'a> {
    /// Parses the record. What follows the picture parameter sets (chroma format and SPS extensions of High profiles) is
    /// not read: the SPS says the same, and many writers leave it out or get it wrong.
    ///
    /// # Errors
    /// Those [`AvccError`]s that speak of the avcC.
    pub fn parse(record: &'a [u8]) -> Result<Self, AvccError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(AvccError::TooLong { bytes: record.len() });
        }
        let truncated = AvccError::TruncatedRecord { offset: record.len() };
        let Some(&[version, profile_idc, profile_compatibility, level_idc, length_size, sps_count]) =
            record.first_chunk()
        else {
            return Err(truncated);
        };
        if version != 1 {
            return Err(AvccError::UnknownVersion { version });
        }
        let length_size = match length_size & 3 {
            0 => LengthSize::One,
            1 => LengthSize::Two,
            3 => LengthSize::Four,
            _ => return Err(AvccError::ReservedLengthSize),
        };
        let mut offset = 6;
        let sps = parameter_sets(record, &mut offset, sps_count & 0x1f)?;
        let pps_count = *record.get(offset).ok_or(truncated)?;
        offset += 1;
        let pps = parameter_sets(record, &mut offset, pps_count)?;
        Ok(Self { profile_idc, profile_compatibility, level_idc, length_size, sps, pps })
    }
}

fn parameter_sets<'a>(record: &'a [u8], offset: &mut usize, count: u8) -> Result<Vec<&'a [u8]>, AvccError> {
    let mut sets = Vec::with_capacity(count.into());
    for _ in 0..count {
        let rest = &record[*offset..];
        let (length, rest) = rest.split_first_chunk().ok_or(AvccError::TruncatedRecord { offset: *offset })?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(AvccError::EmptyParameterSet { offset: *offset });
        }
        *offset += 2;
        sets.push(rest.get(..length).ok_or(AvccError::TruncatedRecord { offset: *offset })?);
        *offset += length;
    }
    Ok(sets)
}

/// The NAL units of an AVCC-framed access unit, header byte included. Empty ones are passed over: some hardware encoders
/// pad with them. After an error the iterator ends.
pub fn nal_units(data: &[u8], length_size: LengthSize) -> NalUnits<'_> {
    NalUnits { data, offset: 0, length_size }
}

/// Iterator of [`nal_units`].
#[derive(Clone, Debug)]
pub struct NalUnits<'a> {
    data: &'a [u8],
    offset: usize,
    length_size: LengthSize,
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], AvccError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let offset = self.offset;
            let rest = &self.data[offset..];
            if rest.is_empty() {
                return None;
            }
            let (length, rest) = match self.length_size {
                LengthSize::One => (rest.first_chunk().map(|&[length]| length.into()), rest.get(1..)),
                LengthSize::Two => (rest.first_chunk().map(|&bytes| u16::from_be_bytes(bytes).into()), rest.get(2..)),
                LengthSize::Four => (rest.first_chunk().map(|&bytes| u32::from_be_bytes(bytes)), rest.get(4..)),
            };
            let (Some(announced), Some(rest)) = (length, rest) else {
                return self.fail(AvccError::TruncatedLength { offset });
            };
            let Some(unit) = rest.get(..announced as usize) else {
                return self.fail(AvccError::TruncatedUnit { offset, announced, left: rest.len() });
            };
            self.offset += self.length_size.bytes() + unit.len();
            if !unit.is_empty() {
                return Some(Ok(unit));
            }
        }
    }
}

impl<'a> NalUnits<'a> {
    fn fail(&mut self, error: AvccError) -> Option<Result<&'a [u8], AvccError>> {
        self.offset = self.data.len();
        Some(Err(error))
    }
}

/// Appends one NAL unit behind its length.
///
/// # Errors
/// `UnitTooLong` if the length does not fit.
pub fn write_nal_unit(out: &mut Vec<u8>, unit: &[u8], length_size: LengthSize) -> Result<(), AvccError> {
    let error = AvccError::UnitTooLong { bytes: unit.len() };
    let length = u32::try_from(unit.len()).map_err(|_| error.clone())?.to_be_bytes();
    if unit.len() > length_size.unit_bytes_max() {
        return Err(error);
    }
    out.extend_from_slice(&length[4 - length_size.bytes()..]);
    out.extend_from_slice(unit);
    Ok(())
}

impl Avcc<'_> {
    /// Appends the record. At most 31 SPS and 255 PPS of at most 65,535 bytes can be written; the rest is left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        let length_size = self.length_size.bytes() as u8;
        out.extend_from_slice(&[
            1,
            self.profile_idc,
            self.profile_compatibility,
            self.level_idc,
            0xfc | (length_size - 1),
        ]);
        write_parameter_sets(out, &self.sps, 0xe0, 31);
        write_parameter_sets(out, &self.pps, 0, 255);
    }
}

fn write_parameter_sets(out: &mut Vec<u8>, sets: &[&[u8]], reserved_bits: u8, count_max: usize) {
    let fitting = || sets.iter().filter_map(|set| Some((u16::try_from(set.len()).ok()?, set))).take(count_max);
    out.push(reserved_bits | fitting().count() as u8);
    for (length, set) in fitting() {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(set);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// From ffmpeg 5.1 and libx264, 160x90, High profile, without its trailing High-profile extension.
    const RECORD: &[u8] = b"\x01\x64\0\x0a\xff\xe1\0\x04\x67\x64\0\x0a\x01\0\x02\x68\xeb";

    #[test]
    fn reads_a_record_and_its_parameter_sets() {
        let avcc = Avcc::parse(RECORD).unwrap();
        assert_eq!((avcc.profile_idc, avcc.level_idc, avcc.length_size), (0x64, 10, LengthSize::Four));
        assert_eq!(avcc.sps, [b"\x67\x64\0\x0a"]);
        assert_eq!(avcc.pps, [b"\x68\xeb"]);
        let mut out = Vec::new();
        avcc.write(&mut out);
        assert_eq!(out, RECORD);
    }

    #[test]
    fn ignores_what_high_profiles_append() {
        let extended = [RECORD, b"\xfd\xf8\xf8\0"].concat();
        assert_eq!(Avcc::parse(&extended), Avcc::parse(RECORD));
    }

    #[test]
    fn refuses_broken_records() {
        use AvccError::*;
        for end in 0..RECORD.len() {
            let error = Avcc::parse(&RECORD[..end]).expect_err("a truncated record must not parse");
            assert!(matches!(error, TruncatedRecord { .. }), "cut at {end}: {error}");
        }
        let cases: &[(&[u8], AvccError)] = &[
            (b"\0\x64\0\x0a\xff\xe0\0", UnknownVersion { version: 0 }),
            (b"\x01\x64\0\x0a\xfe\xe0\0", ReservedLengthSize),
            (b"\x01\x64\0\x0a\xff\xe1\0\0\0", EmptyParameterSet { offset: 6 }),
            (&vec![1; RECORD_BYTES_MAX + 1], TooLong { bytes: RECORD_BYTES_MAX + 1 }),
        ];
        for (record, expected) in cases {
            assert_eq!(Avcc::parse(record).as_ref(), Err(expected));
        }
    }

    #[test]
    fn walks_units_until_the_first_damage() {
        use AvccError::*;
        use LengthSize::*;
        type Units = Vec<Result<&'static [u8], AvccError>>;
        let cases: &[(&str, LengthSize, &'static [u8], Units)] = &[
            ("nothing", Four, b"", vec![]),
            ("two units", Four, b"\0\0\0\x01\x65\0\0\0\x02\x06\x80", vec![Ok(b"\x65"), Ok(b"\x06\x80")]),
            ("short lengths", Two, b"\0\x01\x65\0\x01\x41", vec![Ok(b"\x65"), Ok(b"\x41")]),
            ("shortest lengths", One, b"\x01\x65", vec![Ok(b"\x65")]),
            ("empty units are padding", Four, b"\0\0\0\0\0\0\0\x01\x65\0\0\0\0", vec![Ok(b"\x65")]),
            ("cut length", Four, b"\0\0\0\x01\x65\0\0", vec![Ok(b"\x65"), Err(TruncatedLength { offset: 5 })]),
            ("cut unit", Two, b"\0\x03\x65", vec![Err(TruncatedUnit { offset: 0, announced: 3, left: 1 })]),
            (
                "huge length",
                Four,
                b"\xff\xff\xff\xff\x65",
                vec![Err(TruncatedUnit { offset: 0, announced: u32::MAX, left: 1 })],
            ),
        ];
        for (name, length_size, data, expected) in cases {
            assert_eq!(nal_units(data, *length_size).collect::<Units>(), *expected, "{name}");
        }
    }

    #[test]
    fn refuses_to_write_a_unit_that_does_not_fit() {
        let unit = [0x65; 256];
        let mut out = Vec::new();
        assert_eq!(write_nal_unit(&mut out, &unit, LengthSize::One), Err(AvccError::UnitTooLong { bytes: 256 }));
        assert!(out.is_empty());
        write_nal_unit(&mut out, &unit, LengthSize::Two).unwrap();
        assert_eq!(out[..3], [1, 0, 0x65]);
    }

    proptest! {
        #[test]
        fn accepts_any_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            crate::fuzz::avcc_sps_pps(&bytes);
        }
    }
}
