//! Whether a coded slice belongs to a frame or to one of the two fields of an interlaced one.

use alloc::collections::BTreeMap;

use super::{NalType, Sps, bits::BitReader};

/// What a picture is a picture of (7.4.3, `field_pic_flag` and `bottom_field_flag`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PictureStructure {
    Frame,
    TopField,
    BottomField,
}

/// Reads slice headers up to the field flags, which takes both parameter sets: the slice names a PPS, that names an SPS,
/// and only the SPS says how long `frame_num` is and whether the flags are there at all.
#[derive(Clone, Debug, Default)]
pub struct FieldReader {
    /// By `seq_parameter_set_id`, at most 32.
    sps: BTreeMap<u8, Sps>,
    /// From `pic_parameter_set_id`, at most 256, to `seq_parameter_set_id`.
    sps_of_pps: BTreeMap<u8, u8>,
}

impl FieldReader {
    /// Takes in a parameter set; later ones replace those of the same id. Other NAL units and broken sets are passed over.
    pub fn learn(&mut self, unit: &[u8]) {
        let Some((&header, payload)) = unit.split_first() else { return };
        match NalType::of(header) {
            NalType::Sps => {
                if let Ok(sps) = Sps::parse(unit) {
                    self.sps.insert(sps.id, sps);
                }
            }
            NalType::Pps => {
                let mut bits = BitReader::new(payload);
                if let (Ok(pps_id), Ok(sps_id)) = (bits.ue(), bits.ue())
                    && let (Ok(pps_id), Ok(sps_id @ 0..=31)) = (u8::try_from(pps_id), u8::try_from(sps_id))
                {
                    self.sps_of_pps.insert(pps_id, sps_id);
                }
            }
            _ => {}
        }
    }

    /// The SPSs taken in.
    pub fn sps(&self) -> impl Iterator<Item = &Sps> {
        self.sps.values()
    }

    /// What a coded slice belongs to. `None` if the unit is no slice, is cut off or names parameter sets that were not
    /// taken in.
    pub fn structure(&self, unit: &[u8]) -> Option<PictureStructure> {
        let (&header, payload) = unit.split_first()?;
        if !matches!(NalType::of(header), NalType::Slice | NalType::IdrSlice) {
            return None;
        }
        let mut bits = BitReader::new(payload);
        bits.ue().ok()?; // first_mb_in_slice
        bits.ue().ok()?; // slice_type
        let pps_id = u8::try_from(bits.ue().ok()?).ok()?;
        let sps = self.sps.get(self.sps_of_pps.get(&pps_id)?)?;
        if sps.frame_mbs_only {
            return Some(PictureStructure::Frame);
        }
        if sps.separate_planes {
            bits.bits(2).ok()?; // colour_plane_id
        }
        bits.bits(sps.frame_num_bits).ok()?;
        if !bits.flag().ok()? {
            return Some(PictureStructure::Frame);
        }
        Some(if bits.flag().ok()? { PictureStructure::BottomField } else { PictureStructure::TopField })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interlaced PAL of libx264, `frame_num` of 4 bits, and its PPS 0 of SPS 0.
    const INTERLACED_SPS: &[u8] = b"\x67\x64\x00\x1e\xac\xd9\x40\xb4\x24\xd8\x23\x50\x50\x50\x54\x00\x00\x03\x00\x04\x00\x00\x03\x00\xc8\x7c\x50\xa6\x58";
    const PROGRESSIVE_SPS: &[u8] =
        b"\x67\x42\xc0\x1f\xd9\x00\x50\x05\xbb\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x03\x20\xf1\x83\x24\x80";
    const PPS: &[u8] = b"\x68\xeb\xec\xb2\x2c";

    /// first_mb 0 (`1`), slice_type 7 (`0001000`), PPS 0 (`1`), frame_num 0 (`0000`), then the flags.
    fn idr_slice(flags: u8) -> [u8; 3] {
        [0x65, 0x88, 0x80 | flags << 1]
    }

    #[test]
    fn tells_fields_from_frames() {
        let mut reader = FieldReader::default();
        assert_eq!(reader.structure(&idr_slice(0)), None, "no parameter sets yet");
        reader.learn(INTERLACED_SPS);
        assert_eq!(reader.structure(&idr_slice(0)), None, "no PPS yet");
        reader.learn(PPS);
        let cases = [
            ("frame, perhaps of field macroblocks", 0b00, PictureStructure::Frame),
            ("top field", 0b10, PictureStructure::TopField),
            ("bottom field", 0b11, PictureStructure::BottomField),
        ];
        for (name, flags, structure) in cases {
            assert_eq!(reader.structure(&idr_slice(flags)), Some(structure), "{name}");
        }
        assert_eq!(reader.structure(&idr_slice(0)[..2]), None, "cut off");
        assert_eq!(reader.structure(PPS), None, "no slice");
        reader.learn(PROGRESSIVE_SPS);
        assert_eq!(reader.structure(&idr_slice(0b10)), Some(PictureStructure::Frame), "the flags are other fields");
    }

    #[test]
    fn broken_parameter_sets_change_nothing() {
        let mut reader = FieldReader::default();
        for unit in [&b""[..], b"\x67", b"\x68", b"\x68\x00\x00", b"\x67\x64\x00"] {
            reader.learn(unit);
        }
        assert_eq!(reader.sps().count(), 0);
        // PPS 256 (`00000000 1 00000001`) does not exist.
        reader.learn(b"\x68\x00\x80\x80\xc0");
        assert!(reader.sps_of_pps.is_empty());
    }
}
