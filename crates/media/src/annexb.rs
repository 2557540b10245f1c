//! Annex B: NAL units behind start codes. The server never needs it, because RTMP carries AVCC; encoders' own files and
//! the test kit do, and the way there and back is a check of both framings.

use alloc::vec::Vec;

use crate::avcc::{self, AvccError, LengthSize};

/// The long start code. The short one (without the leading zero) is allowed inside an access unit; four bytes everywhere
/// is what most writers do, and it makes the result as long as its AVCC form with four-byte lengths.
pub const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Appends one NAL unit behind a start code. The unit must carry its emulation prevention already, as every NAL unit
/// from AVCC does.
pub fn write_nal_unit(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&START_CODE);
    out.extend_from_slice(unit);
}

/// AVCC to Annex B.
///
/// # Errors
/// Those of [`avcc::nal_units`].
pub fn from_avcc(data: &[u8], length_size: LengthSize) -> Result<Vec<u8>, AvccError> {
    let mut out = Vec::with_capacity(data.len());
    for unit in avcc::nal_units(data, length_size) {
        write_nal_unit(&mut out, unit?);
    }
    Ok(out)
}

/// Annex B to AVCC.
///
/// # Errors
/// `UnitTooLong` if a unit is longer than `length_size` can say.
pub fn to_avcc(data: &[u8], length_size: LengthSize) -> Result<Vec<u8>, AvccError> {
    let mut out = Vec::with_capacity(data.len());
    for unit in nal_units(data) {
        avcc::write_nal_unit(&mut out, unit, length_size)?;
    }
    Ok(out)
}

/// The NAL units of an Annex B byte stream, header byte included. Bytes before the first start code are passed over, and
/// so are zeros around units (`leading_zero_8bits`, `trailing_zero_8bits`) and empty units.
pub fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match find_start_code(data) {
        Some(at) => &data[at + 3..],
        None => &[],
    };
    core::iter::from_fn(move || {
        while !rest.is_empty() {
            let (unit, next) = match find_start_code(rest) {
                Some(at) => (&rest[..at], &rest[at + 3..]),
                None => (rest, &[][..]),
            };
            rest = next;
            // A NAL unit never ends in a zero byte (7.4.1), so zeros here belong to the next start code or are padding.
            let length = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if length > 0 {
                return Some(&unit[..length]);
            }
        }
        None
    })
}

/// Where the next `00 00 01` begins.
fn find_start_code(data: &[u8]) -> Option<usize> {
    data.windows(3).position(|window| window == [0, 0, 1])
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_units_behind_either_start_code() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b"\x65\x88", &[]),
            (b"\0\0\x01\x65\x88", &[b"\x65\x88"]),
            (b"\0\0\0\x01\x67\x64\0\0\0\x01\x68\0\0\x01\x65\x88\0\0", &[b"\x67\x64", b"\x68", b"\x65\x88"]),
            (b"junk\0\0\x01\0\0\x01\x41", &[b"\x41"]),
            (b"\0\0\x01\x65\0\0\x03\x01\x88", &[b"\x65\0\0\x03\x01\x88"]),
        ];
        for (data, expected) in cases {
            assert_eq!(nal_units(data).collect::<Vec<_>>(), *expected, "{data:02x?}");
        }
    }

    #[test]
    fn refuses_damaged_avcc() {
        assert!(from_avcc(b"\0\0\0\x02\x65", LengthSize::Four).is_err());
        let long = [&START_CODE[..], &[0x65; 256]].concat();
        assert_eq!(to_avcc(&long, LengthSize::One), Err(AvccError::UnitTooLong { bytes: 256 }));
    }

    /// A NAL unit as a writer makes it: no start code inside, no zero at the end.
    fn any_unit() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => Just(1u8), 4 => any::<u8>()], 1..60).prop_map(
            |raw| {
                let mut unit = vec![0x65];
                let mut zeros = 0;
                for byte in raw {
                    if zeros >= 2 && byte <= 3 {
                        unit.push(3);
                        zeros = 0;
                    }
                    zeros = if byte == 0 { zeros + 1 } else { 0 };
                    unit.push(byte);
                }
                unit.push(0x80);
                unit
            },
        )
    }

    proptest! {
        #[test]
        fn avcc_survives_the_way_through_annex_b(
            units in proptest::collection::vec(any_unit(), 0..6),
            length_size in prop_oneof![Just(LengthSize::One), Just(LengthSize::Two), Just(LengthSize::Four)],
        ) {
            let mut data = Vec::new();
            for unit in &units {
                avcc::write_nal_unit(&mut data, unit, length_size).unwrap();
            }
            let annexb = from_avcc(&data, length_size).unwrap();
            prop_assert_eq!(nal_units(&annexb).collect::<Vec<_>>(), units);
            prop_assert_eq!(to_avcc(&annexb, length_size).unwrap(), data);
        }
    }
}
